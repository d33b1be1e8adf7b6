from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.engines import CPU
from pipeline.engines.batch import run_units
from pipeline.engines.local import LocalEngine

# Worker processes import functions by name, so they have to live in an importable module.
MODULE = """
import os
import time
from pathlib import Path

def sleep(argument):
    Path(argument[0]).write_text(str(os.getpid()))
    time.sleep(argument[1])
    Path(argument[0] + ".done").touch()

def work(argument):
    if argument == "bad input":
        raise ValueError("a.png: truncated;\\n fetch it again")
    if argument == "bug":
        raise RuntimeError("oops")
    if argument == "die":
        os._exit(9)
    return argument * 2

def threads(argument):
    return os.environ.get("OMP_NUM_THREADS")
"""


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "engine_jobs.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    spec = importlib.util.spec_from_file_location("engine_jobs", tmp_path / "engine_jobs.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["engine_jobs"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["engine_jobs"]


@pytest.mark.parametrize("workers", [1, 2])
def test_failures_are_outcomes_and_the_rest_goes_on(jobs, workers: int) -> None:
    units = [("one", 1), ("broken", "bad input"), ("two", 2), ("bug", "bug"), ("three", 3)]
    outcomes = run_units(jobs.work, units, workers=workers, title="test")
    assert [outcome.label for outcome in outcomes] == ["one", "broken", "two", "bug", "three"]
    assert [outcome.value for outcome in outcomes] == [2, None, 4, None, 6]
    assert outcomes[1].error == "a.png: truncated; fetch it again"
    assert outcomes[1].trace is None
    assert outcomes[3].error == "RuntimeError: oops"
    assert "work" in outcomes[3].trace


def test_a_unit_that_kills_its_process_takes_nobody_with_it(jobs) -> None:
    units = [(str(i), i) for i in range(4)] + [("killer", "die")] + [(str(i), i) for i in range(4, 6)]
    outcomes = run_units(jobs.work, units, workers=2, title="test")
    assert [outcome.value for outcome in outcomes] == [0, 2, 4, 6, None, 8, 10]
    assert "died twice" in outcomes[4].error


def test_children_run_single_threaded_and_the_parent_keeps_its_setting(jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    outcomes = run_units(jobs.threads, [("a", 0), ("b", 0)], workers=2, title="test")
    assert [outcome.value for outcome in outcomes] == ["1", "1"]
    assert os.environ["OMP_NUM_THREADS"] == "7"


def test_ctrl_c_is_heard_while_units_are_handed_out(jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ignored only while a process is started, which inherits that."""
    engine = LocalEngine(1)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    try:
        assert engine.submit(CPU, jobs.work, 1).result(60) == 2
        (worker,) = engine._workers[CPU]
        monkeypatch.setattr(worker._pool, "submit", lambda *_: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            engine.submit(CPU, jobs.work, 2)
    finally:
        engine.close(now=True)
        signal.signal(signal.SIGINT, before)


PARENT = """
import signal
import sys
from engine_jobs import sleep
from pipeline.engines.batch import run_units

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores Ctrl-C for what it runs in background
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as the command does
    folder, seconds = sys.argv[1], float(sys.argv[2])
    run_units(sleep, [(f"unit {i}", (f"{folder}/{i}", seconds)) for i in range(9)], workers=2, title="test")
"""


def _begun(tmp_path: Path, jobs, seconds: float) -> subprocess.Popen:
    (tmp_path / "parent.py").write_text(PARENT)
    (tmp_path / "units").mkdir()
    process = subprocess.Popen(
        [sys.executable, tmp_path / "parent.py", tmp_path / "units", str(seconds)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(__file__).parents[2]}"},
    )
    deadline = time.monotonic() + 60
    while not all((tmp_path / "units" / name).exists() for name in "01"):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    return process


def test_ctrl_c_says_what_it_waits_for_and_finishes_the_units_in_progress(jobs, tmp_path: Path) -> None:
    process = _begun(tmp_path, jobs, 1.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode not in (0, None)
    assert "units in progress are finished first" in errors
    done = {path.stem for path in (tmp_path / "units").glob("*.done")}
    assert {"0", "1"} <= done and len(done) <= 4  # two run, at most two more were queued for the workers


def test_sigterm_drops_the_units_in_progress(jobs, tmp_path: Path) -> None:
    process = _begun(tmp_path, jobs, 600.0)
    process.terminate()
    try:
        process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 143
    for name in "01":
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "units" / name).read_text()), 0)


def test_a_second_ctrl_c_drops_the_units_in_progress(jobs, tmp_path: Path) -> None:
    process = _begun(tmp_path, jobs, 600.0)
    process.send_signal(signal.SIGINT)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode not in (0, None)
    assert not list((tmp_path / "units").glob("*.done"))
    for name in "01":
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "units" / name).read_text()), 0)
