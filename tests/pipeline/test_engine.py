from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from pipeline.engine import run_units

# Worker processes import functions by name, so they have to live in an importable module.
MODULE = """
import os

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
