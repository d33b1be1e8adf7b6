"""Units carried out by dependency: order, retries, failures, quarantine, what comes late, what dies."""

from __future__ import annotations

import errno
import importlib.util
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pipeline.artifacts import ArtifactError, read_stamp
from pipeline.engines.local import HereEngine, LocalEngine
from pipeline.run_folder import FAILURE, STAMP
from pipeline.run_progress import WORKING, Progress
from pipeline.schedule import StageReport, carry_out
from pipeline.store import open_store
from pipeline.units import (
    Known,
    Made,
    Need,
    Order,
    Plan,
    Workshop,
    blocked_by,
    clear,
    make_unit,
    open_workshop,
    put_in_place,
    wait_for,
)

# Worker processes import functions by name, so they have to live in an importable module.
MODULE = """
import errno
import os
import time
from dataclasses import dataclass
from pathlib import Path
from pipeline.artifacts import atomic_write

@dataclass(frozen=True)
class Job:
    out: Path
    log: Path
    name: str
    what: str = ""

def work(job):
    with open(job.log / "begun.txt", "a") as stream:
        stream.write(job.name + "\\n")
    tried = job.log / (job.name + ".tried")
    first, _ = not tried.exists(), tried.touch()
    if job.what == "bad" or (job.what == "bad once" and first):
        raise ValueError(f"{job.out / 'x'}: cannot be used")
    if job.what == "bug":
        raise RuntimeError("oops")
    if job.what == "die" or (job.what == "die once" and first):
        os.kill(os.getpid(), 9)
    if job.what == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if job.what.startswith("late"):
        for half in ("one", "two"):
            with atomic_write(job.out / half) as stream:
                stream.write(half.encode())
            while not (job.log / "go").exists():
                time.sleep(0.01)
        if job.what == "late and bad":
            raise ValueError("too late")
    (job.out / "result.txt").write_text(job.name)
    return [{"view": None, "object": None, "reason": "told"}] if job.what == "problem" else []
"""


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "schedule_jobs.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = importlib.util.spec_from_file_location("schedule_jobs", tmp_path / "schedule_jobs.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["schedule_jobs"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["schedule_jobs"]


@dataclass
class World:
    """Scenes of two units each: ``first``, and ``second``, which reads it."""

    root: Path
    module: object
    scenes: int = 3
    what: dict[str, str] | None = None

    def plans(self) -> list[Plan]:
        known = Known()
        first = [self.plan("first", scene) for scene in range(self.scenes)]
        known.add(first)
        second = []
        for scene, upstream in enumerate(first):
            need = known.need(upstream.folder, f"no first of {scene}")
            plan = replace(self.plan("second", scene), needs=(need,), blocked=blocked_by([need]))
            second.append(replace(plan, made_from={**plan.made_from, "first": need.fingerprint}))
        return [*first, *second]

    def plan(self, stage: str, scene: int, **made_from: object) -> Plan:
        name = f"{stage}{scene}"
        folder = self.root / stage / f"scene_{scene:04d}" / "realsense"
        job = self.module.Job(folder, self.root, name, (self.what or {}).get(name, ""))
        content = {"stage": stage, "version": 1, "scene": scene, **made_from}
        return Plan(stage, name, folder, scene, "realsense", content, self.module.work, job)

    def run(
        self, plans: list[Plan] | None = None, engine=None, retries: int = 0, store: Path | None = None
    ) -> tuple[StageReport, ...]:
        engine = engine or HereEngine()
        try:
            return tuple(
                carry_out(
                    self.plans() if plans is None else plans,
                    engine,
                    Workshop(self.root / ".work", store, late=1.0),
                    stages=("first", "second"),
                    retries=retries,
                    progress=Progress(self.root / "progress.json", engine.name),
                    say=lambda line: None,
                )
            )
        finally:
            engine.close()

    def begun(self) -> list[str]:
        path = self.root / "begun.txt"
        return path.read_text().split() if path.exists() else []

    def counts(self) -> dict[str, tuple[int, int, int]]:
        content = json.loads((self.root / "progress.json").read_text())
        return {row["stage"]: (row["current"], row["made"], row["failed"]) for row in content["units"]}


@pytest.fixture
def world(tmp_path: Path, jobs) -> World:
    (tmp_path / "run").mkdir()
    return World(tmp_path / "run", jobs)


def test_a_unit_begins_when_what_it_reads_is_finished_not_when_the_stage_is(world: World) -> None:
    first, second = world.run()
    assert (first.made, second.made) == (3, 3) and not first.failures + second.failures
    assert world.begun() == ["first0", "second0", "first1", "second1", "first2", "second2"]
    assert (world.root / "second/scene_0002/realsense/result.txt").read_text() == "second2"
    assert not any((world.root / ".work").iterdir())
    again = world.run()
    assert [(report.made, report.current) for report in again] == [(0, 3), (0, 3)]
    assert len(world.begun()) == 6
    assert world.counts() == {"first": (3, 0, 0), "second": (3, 0, 0)}


def test_a_changed_unit_takes_with_it_what_was_made_from_it_and_says_why(world: World) -> None:
    world.run()
    plans = world.plans()
    known = Known()
    changed = replace(plans[1], made_from={**plans[1].made_from, "version": 2})
    known.add([changed])
    need = known.need(changed.folder, "")
    after = replace(plans[4], made_from={**plans[4].made_from, "first": need.fingerprint}, needs=(need,))
    first, second = world.run([plans[0], changed, plans[2], plans[3], after, plans[5]])
    assert first.stale == {"first1": "changed: version"} and second.stale == {"second1": "changed: first"}
    assert (first.made, second.made, first.current, second.current) == (1, 1, 2, 2)


def test_failures_are_recorded_with_what_depends_on_them_and_the_rest_goes_on(world: World) -> None:
    world.what = {"first1": "bad", "second2": "bug"}
    first, second = world.run()
    folder = world.root / "first/scene_0001/realsense"
    assert [(f.label, f.error, f.trace) for f in first.failures] == [("first1", f"{folder}/x: cannot be used", None)]
    assert {f.label: f.error for f in second.failures} == {"second1": "no first of 1", "second2": "RuntimeError: oops"}
    assert (first.made, second.made) == (2, 1)
    record = json.loads((world.root / "second/scene_0002/realsense" / FAILURE).read_text())
    assert record["reason"] == "RuntimeError: oops" and "in work" in record["traceback"] and record["tries"] == 1
    assert not (folder / STAMP).exists() and (folder / FAILURE).exists()
    assert world.counts() == {"first": (0, 2, 1), "second": (0, 1, 2)}
    world.what = {}
    assert [report.made for report in world.run()] == [1, 2]
    assert not list(world.root.rglob(FAILURE))


def test_a_failed_unit_is_tried_again_as_often_as_asked(world: World) -> None:
    world.what = {"first0": "bad once", "first1": "bad"}
    first, second = world.run(retries=2)
    assert world.begun().count("first0") == 2 and world.begun().count("first1") == 3
    assert (first.made, second.made, len(first.failures), len(second.failures)) == (2, 2, 1, 1)
    assert json.loads((world.root / "first/scene_0001/realsense" / FAILURE).read_text())["tries"] == 3


def test_a_unit_that_kills_its_worker_is_left_alone_after_two_tries(world: World) -> None:
    world.what = {"first1": "die", "first2": "die once"}
    first, second = world.run(engine=LocalEngine(2), retries=5)
    assert world.begun().count("first1") == 2 and world.begun().count("first2") == 2
    assert [f.label for f in first.failures] == ["first1"] and "2 times: left alone" in first.failures[0].error
    assert (first.made, second.made) == (2, 2)


def test_a_unit_that_lacks_what_it_wants_is_made_without(world: World) -> None:
    for what, told in (("", "there"), ("bad", None), ("bad", None), ("", "there")):
        world.what = {"first0": what}
        known = Known()
        wanted = world.plan("first", 0)
        wanted.stamp.unlink(missing_ok=True)
        known.add([wanted])
        plan = world.plan("second", 1, wanted="there")
        plan = replace(plan, wants=(known.need(wanted.folder, ""),), without={"wanted": None})
        (_, second) = world.run([wanted, plan])
        assert not second.failures
        assert read_stamp(plan.stamp).made_from["wanted"] == told
    assert world.begun().count("second1") == 3  # the third time it was current without


def test_what_was_made_from_a_unit_that_now_fails_does_not_stay_current(world: World) -> None:
    world.run()
    (world.root / "first/scene_0000/realsense/result.txt").unlink()
    world.what = {"first0": "bad"}
    first, second = world.run()
    assert [f.label for f in (*first.failures, *second.failures)] == ["first0", "second0"]
    assert not (world.root / "second/scene_0000/realsense" / STAMP).exists()
    assert world.counts() == {"first": (2, 0, 1), "second": (2, 0, 1)}


def test_a_unit_that_must_do_without_waits_for_the_rest_of_what_it_reads(world: World) -> None:
    """It was current; now one that it wants fails, while one that it needs has lost a file and is made again."""
    needed, wanted, again = (world.plan("first", scene) for scene in range(3))
    known = Known()
    known.add([needed, wanted, again])
    plan = replace(
        world.plan("second", 0, wanted="there"),
        needs=(known.need(needed.folder, "no first of 0"),),
        wants=(known.need(wanted.folder, ""), known.need(again.folder, "")),
        without={"wanted": None},
    )
    world.run([wanted, needed, again, plan])
    for lost in (wanted, needed, again):
        (lost.folder / "result.txt").unlink()
    world.what = {"first1": "bad"}
    wanted = world.plan("first", 1)
    (world.root / "begun.txt").unlink()
    _, second = world.run([wanted, needed, again, plan])  # the first to be tried is the one that fails
    assert world.begun() == ["first1", "first0", "first2", "second0"]
    assert second.made == 1 and read_stamp(plan.stamp).made_from["wanted"] is None
    assert world.counts() == {"first": (0, 2, 1), "second": (0, 1, 0)}
    # What it needs fails first, then what it wants: it has failed already, and is counted once.
    world.what = {}
    world.run([needed, world.plan("first", 1), again, plan])
    for lost in (wanted, needed):
        (lost.folder / "result.txt").unlink()
    world.what = {"first0": "bad", "first1": "bad"}
    world.run([world.plan("first", 0), wanted, again, plan])
    assert world.counts()["second"] == (0, 0, 1)


class _Interrupted(HereEngine):
    """Gives what is ended, what is not begun, or Ctrl-C, as it is told."""

    def __init__(self, *gives: str) -> None:
        self.gives = list(gives)

    def capacity(self, group: str) -> int:
        return 4

    def submit(self, group: str, function, argument):
        give = self.gives.pop(0)
        if give == "Ctrl-C":
            raise KeyboardInterrupt
        return Future() if give == "not begun" else super().submit(group, function, argument)


class _InterruptedProgress(Progress):
    def made(self, plan: Plan, made: Made) -> None:
        super().made(plan, made)
        if self.state == WORKING:
            raise KeyboardInterrupt


@pytest.mark.parametrize("gives", [("ended", "not begun", "Ctrl-C"), ("ended", "ended", "ended")])
def test_ctrl_c_waits_for_nothing_that_has_ended_or_not_begun(world: World, gives: tuple[str, ...]) -> None:
    plans = [world.plan("first", scene) for scene in range(3)]
    progress = _InterruptedProgress(world.root / "progress.json", "local")
    ended: list[str] = []

    def run() -> None:
        try:
            carry_out(
                plans,
                _Interrupted(*gives),
                Workshop(world.root / ".work"),
                stages=("first",),
                retries=0,
                progress=progress,
                say=lambda line: None,
            )
        except KeyboardInterrupt:
            ended.append("interrupted")

    thread = threading.Thread(target=run, daemon=True)  # it may hang
    thread.start()
    thread.join(20)
    assert ended == ["interrupted"]
    content = json.loads((world.root / "progress.json").read_text())
    assert (content["state"], content["reason"]) == ("stopped", "interrupted")
    assert content["units"][0]["made"] == gives.count("ended")


def test_a_full_disk_stops_the_run_and_blames_no_unit(world: World) -> None:
    world.what = {"first1": "full"}
    with pytest.raises(ArtifactError, match=r"scene_0001.*No space left on device.*what is finished is kept"):
        world.run()
    assert not list(world.root.rglob(FAILURE)) and not any((world.root / ".work").iterdir())
    assert json.loads((world.root / "progress.json").read_text())["state"] == "stopped"
    world.what = {}
    first, second = world.run()
    assert first.current >= 1 and first.made + first.current == 3 and second.made + second.current == 3


def test_files_that_another_machine_shows_late_are_waited_for(world: World) -> None:
    plan = world.plan("first", 0)
    world.run([plan])
    hidden = world.root / "hidden"
    plan.folder.rename(hidden)
    need = Need(plan.folder, plan.fingerprint, "")
    with pytest.raises(FileNotFoundError, match="not to be seen from"):
        wait_for(need, 0.3)
    threading.Timer(0.4, lambda: hidden.rename(plan.folder)).start()
    start = time.monotonic()
    wait_for(need, 30.0)
    assert 0.3 < time.monotonic() - start < 20
    (plan.folder / "result.txt").write_text("")  # as a file system shows it before the content has come
    with pytest.raises(FileNotFoundError):
        wait_for(need, 0.0)


def test_a_worker_that_was_believed_dead_and_fails_leaves_what_another_has_finished(world: World) -> None:
    plan = world.plan("first", 0)
    order = Order(plan, Workshop(world.root / ".work"))
    assert make_unit(order).error is None
    failing = replace(order, plan=replace(plan, job=replace(plan.job, what="bad")))
    assert "cannot be used" in (make_unit(failing).error or "")
    assert plan.why_stale() is None and (plan.folder / "result.txt").read_text() == "first0"
    assert not any((world.root / ".work").iterdir())
    plan.stamp.unlink()  # where nobody has finished it, what is left is for people to look at
    make_unit(failing)
    assert plan.folder.is_dir() and not (plan.folder / "result.txt").exists() and not plan.stamp.exists()


@pytest.mark.parametrize("what", ["late", "late and bad"])
@pytest.mark.parametrize("version", [1, 2])
def test_a_worker_that_outlives_its_run_puts_nothing_in_place_of_what_the_next_makes(
    world: World, what: str, version: int
) -> None:
    """It finds its folder cleared away half-way; the next run makes the same unit, or one of another version."""
    world.what = {"first0": what}
    slow, work = world.plan("first", 0), world.root / ".work"
    store = open_store(world.root / "store")
    orphan = Order(slow, open_workshop(work, store.root))
    made: list[Made] = []
    worker = threading.Thread(target=lambda: made.append(make_unit(orphan)))
    worker.start()
    while not list(work.glob("*/one")):
        time.sleep(0.01)
    clear(work)
    assert not work.exists()
    world.what = {}
    plan = world.plan("first", 0, version=version)
    assert make_unit(Order(plan, open_workshop(work))).error is None
    (world.root / "go").touch()
    worker.join()
    assert ("too late" if "bad" in what else "another run has begun in its folder") in str(made[0].error)
    assert plan.why_stale() is None and {path.name for path in plan.folder.iterdir()} == {"result.txt", STAMP}
    assert not list(store.units.iterdir())
    assert [path.name.partition("-")[0] for path in work.iterdir()] == ["run"]


def test_what_cannot_be_put_in_place_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "unit").mkdir()
    (tmp_path / "unit" / "old").touch()
    (tmp_path / ".work").mkdir()
    with pytest.raises(FileNotFoundError):
        put_in_place(tmp_path / ".work" / "cleared", tmp_path / "unit")
    assert [path.name for path in (tmp_path / "unit").iterdir()] == ["old"] and not any((tmp_path / ".work").iterdir())


def _put_often(arguments: tuple[str, str, int]) -> None:
    root, name, count = arguments
    for i in range(count):
        made = Path(root) / ".work" / f"{name}{i}"
        made.mkdir(parents=True)
        for file in ("a", "b", STAMP):
            (made / file).write_text(name)
        put_in_place(made, Path(root) / "unit")


def test_two_workers_that_put_the_same_unit_leave_one_of_theirs_whole(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_put_often, args=((str(tmp_path), name, 150),)) for name in "xy"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert {path.name for path in (tmp_path / "unit").iterdir()} == {"a", "b", STAMP}
    assert len({path.read_text() for path in (tmp_path / "unit").iterdir()}) == 1


PARENT = """
import sys, time
from pathlib import Path
from pipeline.engines.local import LocalEngine
from schedule_parent import wait

if __name__ == "__main__":
    engine = LocalEngine(2)
    for name in "ab":
        engine.submit("cpu", wait, sys.argv[1] + "/" + name)
    time.sleep(600)
"""


def test_workers_end_with_a_parent_that_is_killed_outright(tmp_path: Path) -> None:
    code = "import os, time\ndef wait(path):\n    open(path, 'w').write(str(os.getpid()))\n    time.sleep(600)\n"
    (tmp_path / "schedule_parent.py").write_text(code)
    (tmp_path / "main.py").write_text(PARENT)
    path = f"{tmp_path}{os.pathsep}{Path(__file__).parents[2]}"
    parent = subprocess.Popen([sys.executable, tmp_path / "main.py", tmp_path], env={**os.environ, "PYTHONPATH": path})
    until = time.monotonic() + 60
    while not all((tmp_path / name).exists() and (tmp_path / name).read_text() for name in "ab"):
        assert time.monotonic() < until and parent.poll() is None
        time.sleep(0.05)
    workers = [int((tmp_path / name).read_text()) for name in "ab"]
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    until = time.monotonic() + 20
    while any(_alive(worker) for worker in workers):
        assert time.monotonic() < until, "a worker outlives its parent"
        time.sleep(0.05)


def _alive(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError as error:
        assert error.errno in (errno.ENOENT, errno.ESRCH)
        return False


def test_what_was_made_from_a_unit_with_problems_is_neither_put_into_a_store_nor_taken_from_it(
    world: World, tmp_path: Path, jobs
) -> None:
    store = open_store(tmp_path / "store").root
    troubled = replace(world, scenes=2, what={"first0": "problem"})
    plans = troubled.plans()
    third = replace(troubled.plan("third", 0), needs=(Need(plans[2].folder, plans[2].fingerprint, ""),))
    troubled.run(plans[:2], store=None)
    troubled.run(plans, store=store)
    troubled.run([third], store=store)  # a stage of its own, which does not see what is two stages before it
    well = World(tmp_path / "well", jobs, 2)
    well.root.mkdir()
    ours = well.plans()
    ours.append(replace(well.plan("third", 0), needs=(Need(ours[2].folder, ours[2].fingerprint, ""),)))
    first, second = well.run(ours, store=store)
    assert (first.made, first.stored, second.made, second.stored) == (2, 0, 2, 1)
    assert well.begun() == ["first0", "second0", "third0", "first1"]
    # Where something went wrong here and not there, what was made there is not mixed with what was made here.
    last = World(tmp_path / "last", jobs, 1, {"first0": "problem"})
    last.root.mkdir()
    last.run(last.plans()[:1])
    _, second = last.run(store=store)
    assert (second.made, second.stored) == (1, 0)
