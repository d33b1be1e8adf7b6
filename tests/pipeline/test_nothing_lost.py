"""Real runs, in processes of their own, that are killed, run out of disk, may not write, or meet another run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.experiment import UNIT_STAGES

ROOT = Path(__file__).parents[2]
UNITS = {"observe": 2, "complete": 6, "generate": 6, "score": 6, "explain": 8}
# What tells of times, and so differs between any two runs.
OF_TIMES = ("progress.json", "declared.json", ".lock", ".hashes.json", "report.html", "report/contents.json")
TIME_TABLES = ("timings", "time-of-the-units", "run")

pytestmark = pytest.mark.slow


@dataclass
class Lab:
    """A tiny experiment with a warm cache, and what an undisturbed run of it makes in how many seconds."""

    experiment: Path
    out: Path
    seconds: float = 0.0
    content: dict[str, bytes] | None = None

    def start(self, *options: str, **given: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "grasp_utility", "run", str(self.experiment), "--out", str(self.out)]
        return subprocess.Popen(
            [*command, "--workers", "2", "--device", "cpu", *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            **given,  # type: ignore[call-overload]
        )

    def finish(self, *options: str) -> str:
        process = self.start(*options)
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said
        return said

    def snapshot(self) -> dict[str, bytes]:
        """Every file of the run, less what tells of times."""
        content = {}
        for path in sorted(self.out.rglob("*")):
            name = path.relative_to(self.out).as_posix()
            if not path.is_file() or name in OF_TIMES or path.stem in TIME_TABLES:
                continue
            if path.suffix == ".json":
                value = json.loads(path.read_text())
                if path.name == "stamp.json":
                    del value["seconds"]
                elif name == "summary.json":
                    del value["provenance"]["aggregate_seconds"], value["declarations"]
                content[name] = json.dumps(value).encode()
            else:
                content[name] = path.read_bytes()
        return content

    def stamps(self) -> dict[Path, int]:
        found = {}
        for folder, below, files in os.walk(self.out):  # what vanishes meanwhile is passed over
            below[:] = [name for name in below if name != ".work"]
            if "stamp.json" in files:
                path = Path(folder) / "stamp.json"
                found[path] = path.stat().st_mtime_ns
        return found

    def at_work(self) -> set[str]:
        """The stages that are begun or could begin, by what is finished."""
        if (self.out / "report.html").exists():
            return set()
        done = {stage: set[str]() for stage in UNIT_STAGES}
        for stamp in self.stamps():
            made_from = json.loads(stamp.read_text())["made_from"]
            done[made_from["stage"]].add(str(stamp))
        counts = [len(done[stage]) for stage in UNIT_STAGES]
        if counts == list(UNITS.values()):
            return {"report"} if (self.out / "summary.json").exists() else {"aggregate"}
        before = [1, *counts[:-1]]
        return {
            stage for stage, count, had in zip(UNIT_STAGES, counts, before, strict=True) if had and count < UNITS[stage]
        }


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path, tiny_checkpoint: Path) -> Lab:
    folder = tmp_path_factory.mktemp("lab")
    (folder / "experiment.yaml").write_text(
        "format_version: 1\nname: tiny\n"
        f"dataset: {{root: {tiny_dataset}}}\n"
        f"arms: [partial, {{name: random, checkpoint: {tiny_checkpoint}}}, oracle]\n"
        f"cache: {folder / 'cache'}\n"
    )
    lab = Lab(folder / "experiment.yaml", folder / "run")
    lab.finish()
    shutil.rmtree(lab.out)
    start = time.monotonic()
    lab.finish()
    lab.seconds, lab.content = time.monotonic() - start, lab.snapshot()
    counts = {stage: 0 for stage in UNIT_STAGES}
    for stamp in lab.stamps():
        counts[json.loads(stamp.read_text())["made_from"]["stage"]] += 1
    assert counts == UNITS
    return lab


@pytest.fixture
def fresh(lab: Lab) -> Iterator[Lab]:
    shutil.rmtree(lab.out, ignore_errors=True)
    yield lab


def workers_of(driver: int) -> list[int]:
    try:
        children = Path(f"/proc/{driver}/task/{driver}/children").read_text().split()
    except OSError:
        return []
    return [int(child) for child in children if "spawn_main" in command_of(int(child))]


def command_of(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return ""


def kill_and_finish(
    lab: Lab, fraction: float, worker: bool, wanted: frozenset[str] = frozenset()
) -> tuple[set[str], str] | None:
    """Kill one process of a run that is under way, have the run finished, and hold it against the undisturbed one.

    Args:
        lab: the run.
        fraction: when, of the time that the run takes.
        worker: whether a worker is to be killed, where there is one.
        wanted: kill it as soon as one of these stages is at work, instead.

    Returns:
        the stages at work when it was killed, and whose process it was; None where the run was over by then.
    """
    shutil.rmtree(lab.out, ignore_errors=True)
    driver = lab.start()
    if wanted:
        while driver.poll() is None and not (lab.at_work() & wanted):
            time.sleep(0.01)
    else:
        time.sleep(fraction * lab.seconds)
    workers = workers_of(driver.pid)
    victim = workers[int(1000 * fraction) % len(workers)] if worker and workers else driver.pid
    stages = lab.at_work()
    if driver.poll() is not None:
        return None
    assert command_of(victim)
    os.kill(victim, signal.SIGKILL)
    finished = lab.stamps()
    if victim == driver.pid:
        driver.communicate(timeout=60)
        until = time.monotonic() + 30
        while any(command_of(process) for process in workers):
            assert time.monotonic() < until, "workers outlive the run that was killed"
            time.sleep(0.05)
        lab.finish()
    else:
        said, _ = driver.communicate(timeout=300)
        assert driver.returncode == 0, said
    assert {path: path.stat().st_mtime_ns for path in finished} == finished, "a finished unit was made again"
    assert lab.content is not None and lab.snapshot() == lab.content
    return stages, "worker" if victim != driver.pid else "driver"


@pytest.mark.parametrize("kills", [4, pytest.param(30, id="campaign")])
def test_a_run_that_is_killed_goes_on_to_the_same_files(fresh: Lab, kills: int) -> None:
    """Half of the kills hit the run itself, half a worker (where there is one), at times spread evenly."""
    hit: set[str] = set()
    victims: dict[str, int] = {"driver": 0, "worker": 0}
    every = {*UNIT_STAGES, "aggregate", "report"}
    fractions = [0.95 * (index + 0.5) / kills for index in range(kills)]
    for index in range(kills + 30):
        missed = frozenset(every - hit)
        if index >= kills and (kills < 30 or not missed):
            break
        # Stages of a moment may lie between two times: they are waited for.
        fraction, wanted = (fractions[index], frozenset[str]()) if index < kills else (0.5, missed)
        killed = kill_and_finish(fresh, fraction, index % 2 == 1, wanted)
        for _ in range(5):
            if killed is None and index < kills:  # it was measured while the machine was busy: once more, earlier
                fresh.seconds *= 0.8
                killed = kill_and_finish(fresh, fraction, index % 2 == 1)
        if killed is None:
            continue
        stages, victim = killed
        hit |= stages
        victims[victim] += 1
        moment = f"waiting for {sorted(wanted)}" if wanted else f"at {fraction * fresh.seconds:.1f} s"
        print(f"kill {index} {moment}: {victim}, at work {sorted(stages)}")
    assert sum(victims.values()) >= kills
    if kills >= 30:
        assert hit == every
        assert min(victims.values()) >= 5


def test_two_runs_in_one_folder_one_is_refused_and_the_other_finishes(fresh: Lab) -> None:
    first = fresh.start()
    until = time.monotonic() + 60
    while not fresh.stamps():
        assert time.monotonic() < until and first.poll() is None
        time.sleep(0.05)
    second = fresh.start()
    said, _ = second.communicate(timeout=60)
    assert second.returncode == 2 and "another grasp-utility works in this folder; wait for it" in said
    assert "Traceback" not in said
    said, _ = first.communicate(timeout=300)
    assert first.returncode == 0, said
    assert fresh.snapshot() == fresh.content


def test_shares_of_a_job_array_and_a_run_after_them_give_the_same_files(fresh: Lab) -> None:
    shares = [fresh.start("--share", f"{index}/2") for index in range(2)]
    while not fresh.stamps():
        assert all(share.poll() is None for share in shares)
        time.sleep(0.05)
    whole = fresh.start()
    said, _ = whole.communicate(timeout=60)
    assert whole.returncode == 2 and "a task of a job array works in this folder" in said
    for share in shares:
        said, _ = share.communicate(timeout=300)
        assert share.returncode == 0, said
    assert not (fresh.out / "summary.json").exists()
    made = fresh.stamps()
    assert len(made) == sum(UNITS.values())
    fresh.finish()
    for progress in fresh.out.glob("progress.*-of-2.json"):
        progress.unlink()
    for lock in fresh.out.glob(".lock.*"):
        lock.unlink()
    assert fresh.stamps() == made
    assert fresh.snapshot() == fresh.content


def in_a_small_file_system(script: str, **names: object) -> subprocess.CompletedProcess[str]:
    """Run a shell script in a mount namespace of its own, where it may mount file systems of a few MB."""
    environment = {**os.environ, **{name: str(value) for name, value in names.items()}}
    can = subprocess.run(["unshare", "-Urm", "true"], capture_output=True, check=False)
    if shutil.which("unshare") is None or can.returncode != 0:
        pytest.skip("this machine lets nobody mount a file system of his own (unshare -Urm)")
    return subprocess.run(
        ["unshare", "-Urm", "--propagation", "private", "bash", "-c", script],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("kilobytes", [300, 1000])
def test_a_full_disk_stops_the_run_and_room_lets_it_finish(fresh: Lab, kilobytes: int) -> None:
    fresh.out.mkdir()
    script = """
        mount -t tmpfs -o size=${SIZE}k tmpfs $OUT || exit 90
        run="$PYTHON -m grasp_utility run $EXPERIMENT --out $OUT --workers 2 --device cpu"
        $run; echo "status $?"
        find $OUT -name stamp.json -not -path '*/.work/*' -printf '%p %T@\\n' | sort > $KEPT/before
        mount -o remount,size=500m $OUT || exit 91
        $run; echo "status $?"
        find $OUT -name stamp.json -not -path '*/.work/*' -printf '%p %T@\\n' | sort > $KEPT/after
        cp -r $OUT/. $KEPT/run
    """
    kept = fresh.out.with_name(f"kept{kilobytes}")
    kept.mkdir()
    done = in_a_small_file_system(
        script, SIZE=kilobytes, OUT=fresh.out, PYTHON=sys.executable, EXPERIMENT=fresh.experiment, KEPT=kept
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "status 2" in done.stdout and "status 0" in done.stdout, said
    assert "No space left on device" in said and "make room, and the same command goes on" in said
    assert "Traceback" not in said
    before, after = ((kept / name).read_text().splitlines() for name in ("before", "after"))
    assert set(before) <= set(after) and len(before) < len(after) == sum(UNITS.values())
    assert not list((kept / "run").rglob("failure.json"))
    content, fresh.out = fresh.content, kept / "run"
    try:
        # Its folder is another one in name only: the report was made where the first run's was.
        assert fresh.snapshot() == content
    finally:
        fresh.out = kept.with_name("run")


def as_nobody(command: list[str]) -> subprocess.CompletedProcess[str]:
    drop = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"] if os.geteuid() == 0 else []
    if drop and shutil.which("setpriv") is None:
        pytest.skip("setpriv is not there to become an ordinary user")
    can = subprocess.run([*drop, sys.executable, "-c", "import numpy"], cwd=ROOT, capture_output=True, check=False)
    if can.returncode != 0:
        pytest.skip("the environment cannot be read by an ordinary user")
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    environment |= {"HOME": "/nonexistent", "XDG_CACHE_HOME": "/nonexistent"}
    return subprocess.run(
        [*drop, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_a_folder_that_may_not_be_written_is_named_with_the_remedy(fresh: Lab, tmp_path: Path) -> None:
    base = tmp_path.parent
    for folder in (*(path for path in base.iterdir() if not path.is_symlink()), base, *base.parents):
        if folder.is_dir() and folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)  # pytest makes its folders private
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    command = [sys.executable, "-m", "grasp_utility", "run", str(fresh.experiment), "--device", "cpu", "--out"]
    done = as_nobody([*command, str(locked / "run")])
    assert done.returncode == 2, done.stderr
    assert "locked" in done.stderr and "choose another --" in done.stderr and "Traceback" not in done.stderr
    assert not list(locked.iterdir())


KILLER = """
import multiprocessing, os, signal
from torch import nn
from completion.networks import Completion

class Network(nn.Module):
    def forward(self, points):
        if multiprocessing.parent_process() is not None:  # not where the run itself tries whether it can be loaded
            os.kill(os.getpid(), signal.SIGKILL)
        return Completion([points.repeat(1, 2, 1)])
"""


def test_a_network_that_kills_its_workers_is_left_alone_and_the_rest_is_done(
    fresh: Lab, tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "killer_network.py").write_text(KILLER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    shutil.copytree(tiny_checkpoint, tmp_path / "killer")
    config = json.loads((tmp_path / "killer/config.json").read_text())
    config["network"] = {"name": "killer_network:Network", "parameters": {}}
    (tmp_path / "killer/config.json").write_text(json.dumps(config))
    from safetensors.numpy import save_file

    save_file({}, tmp_path / "killer/model.safetensors")
    text = fresh.experiment.read_text().replace("oracle]", f"oracle, {{name: killer, checkpoint: {tmp_path}/killer}}]")
    (tmp_path / "experiment.yaml").write_text(text)
    poisoned = Lab(tmp_path / "experiment.yaml", fresh.out)
    process = poisoned.start("--trust-code", "--retries", "3")
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 1, said
    words = " ".join(said.split())  # lines are folded
    assert "the worker process died" in words and "2 times: left alone" in words and "Traceback" not in said
    failures = [json.loads(path.read_text()) for path in fresh.out.rglob("failure.json")]
    assert {(f["stage"], f["tries"]) for f in failures if "died" in f["reason"]} == {("complete", 2)}
    of_killer = [path for path in poisoned.stamps() if "killer" in path.parts]
    assert not of_killer and len(poisoned.stamps()) == sum(UNITS.values())
    assert (fresh.out / "report.html").exists()
    counts = json.loads((fresh.out / "summary.json").read_text())["counts"]
    assert {row["arm"]: row["views_failed"] for row in counts} == {"partial": 0, "random": 0, "oracle": 0, "killer": 4}


def test_sigterm_ends_a_run_at_once_and_the_next_goes_on(fresh: Lab) -> None:
    process = fresh.start()
    until = time.monotonic() + 60
    while not fresh.stamps():
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.05)
    workers = workers_of(process.pid)
    process.terminate()
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 143, said
    assert "terminated; what is finished is kept" in said and "Traceback" not in said
    assert not any(command_of(worker) for worker in workers)
    assert json.loads((fresh.out / "progress.json").read_text())["state"] == "stopped"
    fresh.finish()
    assert fresh.snapshot() == fresh.content
