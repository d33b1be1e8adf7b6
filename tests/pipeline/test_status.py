"""Where a run stands, told from its folder: counts, who works, who is dead, what failed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import console_run
from pipeline.artifacts import ArtifactError, write_json
from pipeline.failures import Failure, read_failure, record_failure, stderr_kept
from pipeline.progress import UnitsBar
from pipeline.run_folder import RunFolder
from pipeline.run_progress import FINISHED, STOPPED, WORKING, Progress, short_time
from pipeline.run_status import RunStatus, read_status
from pipeline.units import Made

SUMS = ("done", "running", "failed", "waiting", "stale")


def sums(status: RunStatus) -> dict[str, int | None]:
    rows = status.content()["units"]
    assert all(row["total"] in (None, sum(row[key] or 0 for key in SUMS)) for row in rows)
    return {
        key: None if any(row[key] is None for row in rows) else sum(row[key] for row in rows)
        for key in ("total", *SUMS)
    }


def account(run, share: str | None = None, **changed: object) -> Path:
    """Leave the account of a process that has just begun."""
    progress = Progress(RunFolder(run.root).progress_of(share), "local", share)
    progress.expect(run.plans())
    progress.write(at_once=True)
    content = json.loads(progress.path.read_text()) | changed
    write_json(progress.path, content)
    return progress.path


def age(path: Path, seconds: float) -> None:
    moment = time.time() - seconds
    os.utime(path, (moment, moment))


def test_units_are_counted_by_what_lies_there(planned_run) -> None:
    root = planned_run.root
    assert sums(read_status(root)) == {"total": 20, "done": 20, "running": 0, "failed": 0, "waiting": 0, "stale": 0}
    plans = planned_run.plans()
    planned_run.finish(replace(plans[2], made_from={**plans[2].made_from, "density": 1}))
    plans[3].stamp.unlink()
    record_failure(Failure(plans[12].folder, plans[12].stage, plans[12].label, "no idea", tries=2, where="node7:1"))
    before = {path: path.stat().st_mtime_ns for path in [root, *root.rglob("*")]}
    status = read_status(root)
    assert sums(status) == {"total": 20, "done": 17, "running": 0, "failed": 1, "waiting": 1, "stale": 1}
    rows = {(row.stage, row.arm): row for row in status.units}
    assert (rows["complete", "partial"].stale, rows["complete", "partial"].waiting) == (1, 1)
    assert rows[plans[12].stage, plans[12].arm].failed == 1
    assert status.state == "unknown" and status.content()["tables"] is False
    assert [(f.unit, f.reason, f.tries, f.where) for f in status.failures] == [
        (plans[12].label, "no idea", 2, "node7:1")
    ]
    assert {path: path.stat().st_mtime_ns for path in [root, *root.rglob("*")]} == before


def test_a_unit_made_without_one_that_failed_is_current(planned_run) -> None:
    wanted = planned_run.unit("score", "oracle/antipodal/analytic/scene_0100/realsense")
    plan = next(p for p in planned_run.plans() if (p.stage, p.arm, p.scene) == ("explain", "partial", 100))
    assert wanted in {want.folder for want in plan.wants}
    planned_run.finish(plan.lacking_what_it_wants())
    assert sums(read_status(planned_run.root))["stale"] == 1
    record_failure(Failure(wanted, "score", "oracle", "no idea"))
    counted = sums(read_status(planned_run.root))
    assert (counted["done"], counted["failed"], counted["stale"]) == (19, 1, 0)


def test_without_the_dataset_those_who_worked_are_believed(planned_run, tmp_path: Path) -> None:
    written = planned_run.root / "experiment.json"
    content = json.loads(written.read_text())
    content["dataset"]["root"] = str(tmp_path / "unplugged")
    write_json(written, content)
    alone = read_status(planned_run.root)  # nobody says how many there should be
    assert sums(alone) == {"total": None, "done": 20, "running": 0, "failed": 0, "waiting": None, "stale": None}
    assert str(tmp_path / "unplugged") in alone.stale_unknown
    progress = Progress(RunFolder(planned_run.root).progress_of(None), "slurm")
    plans = planned_run.plans()
    with progress.kept_up():
        progress.enter(WORKING)
        progress.expect(plans)
        for plan in plans[:5]:
            progress.begun(plan)
        progress.ended(plans[0])
        progress.made(plans[0], Made("node7:1", 3.0))
        progress.current(plans[6])
        progress.write(at_once=True)
        status = read_status(planned_run.root)
    assert sums(status) == {"total": 20, "done": 2, "running": 4, "failed": 0, "waiting": 14, "stale": None}
    assert status.state == "working" and status.workers() == 5
    assert status.content()["slowest"] == [
        {"stage": "observe", "unit": plans[0].label, "seconds": 3.0, "where": "node7:1"}
    ]
    assert {row["unit"] for row in status.running} == {plan.label for plan in plans[1:5]}
    assert read_status(planned_run.root).state == "finished"


def test_pace_and_time_left_are_guessed_from_what_is_known(planned_run) -> None:
    progress = Progress(None, "local")
    plans = planned_run.plans()
    progress.expect(plans)
    assert progress.seconds_left() is None
    for plan in (plans[0], plans[2], plans[6], plans[10], plans[14]):
        progress.begun(plan), progress.begun(plans[1])
        progress.ended(plan)
        progress.made(plan, Made("here:1", 10.0))
    assert progress.seconds_left() == 15 * 10 / 2  # two at once
    progress.failed(plans[1])
    assert progress.seconds_left() == 14 * 10 / 2
    content = progress._content()
    assert content["lately"]["made"] == {"observe": 1, "complete": 1, "generate": 1, "score": 1, "explain": 1}
    assert progress.in_short() == "~70 s left, 1 observe, 1 FAILED"
    assert [short_time(s) for s in (3.21, 48, 720, 11_100, 187_200)] == [
        "3.2 s",
        "48 s",
        "12 min",
        "3 h 05 min",
        "2 d 4 h",
    ]


def test_how_a_run_ended_is_told(planned_run) -> None:
    for error, reason in ((ArtifactError("disk\n full"), "disk full"), (KeyboardInterrupt(), "interrupted")):
        progress = Progress(RunFolder(planned_run.root).progress_of(None), "local")
        with pytest.raises(type(error)), progress.kept_up():
            assert read_status(planned_run.root).state == "preparing"
            raise error
        status = read_status(planned_run.root)
        assert status.state == STOPPED and status.content()["reason"] == reason


def test_a_process_that_is_gone_seems_dead(planned_run) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    account(planned_run, process=gone.pid)
    status = read_status(planned_run.root, patience=0.1)
    assert status.state == "seems dead" and status.seconds_left() is None and not status.alive
    account(planned_run)  # this process, and just now
    assert read_status(planned_run.root, patience=0.1).state == "working"


@pytest.mark.parametrize("ahead", [-3600, 3600])
def test_clocks_that_differ_are_seen_through(planned_run, ahead: float) -> None:
    path = account(planned_run, host="elsewhere")
    age(path, -ahead)
    assert read_status(planned_run.root, patience=0.1).state == "seems dead"
    beat = threading.Timer(0.1, lambda: age(path, -ahead - 2))
    beat.start()
    assert read_status(planned_run.root, patience=2.0).state == "working"
    beat.join()


def test_a_job_array_is_the_sum_of_its_tasks(planned_run, capsys) -> None:
    age(account(planned_run, state=FINISHED), 100)  # a whole run, before
    age(account(planned_run, "0/2", state=FINISHED), 90)  # an array of two, before
    account(planned_run, "1/3", state=STOPPED, reason="disk full")
    account(planned_run, "0/3")
    status = read_status(planned_run.root)
    assert [a.content["share"] for a in status.accounts] == ["0/3", "1/3"] and status.expected == 3
    assert status.state == "working" and status.seconds_left() is None
    assert sums(read_status(planned_run.root, quick=True))["total"] is None  # what the third should do is not known
    console_run.show_status(status)
    said = " ".join(capsys.readouterr().out.split())
    assert "of 3 tasks of a job array 1 working, 1 stopped, 1 not begun" in said
    assert re.search(r"task 1/3 stopped: disk full; ended .* ago", said)


def test_what_is_no_run_is_named(planned_run, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"neither experiment.json nor progress.json; give what `--out` named"):
        read_status(tmp_path)
    with pytest.raises(ArtifactError, match="no run folder"):
        read_status(tmp_path / "nowhere")
    account(planned_run, format_version=99)
    with pytest.raises(ArtifactError, match=r"progress.json: format version 99.*update grasp-utility"):
        read_status(planned_run.root)
    (planned_run.root / "sources.json").write_text("{}")
    with pytest.raises(ArtifactError, match="a comparison of runs"):
        read_status(planned_run.root)


def test_failures_are_shown_by_reason_and_fit_a_terminal(planned_run, monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    plans = [plan for plan in planned_run.plans() if plan.arm == "partial"]
    for plan in plans[:2]:
        record_failure(Failure(plan.folder, plan.stage, plan.label, "a.ply: no such model; fetch it", tries=3))
    record_failure(Failure(plans[2].folder, plans[2].stage, plans[2].label, "x", f"complete {plans[0].label}"))
    console_run.show_status(read_status(planned_run.root))
    said = capsys.readouterr().out
    assert "FAILED     3 units (1 only need one that failed)." in said
    assert said.count("a.ply: no such model; fetch it\n") == 1
    assert (
        f"  complete  arms/partial/clouds/{plans[0].scene and 'scene_0100'}/realsense/failure.json (3 tries)\n" in said
    )
    table = said.split("\n\n")[1]
    assert table.splitlines()[-1].split() == ["all", "20", "17", "0", "3", "0", "0"]
    assert max(map(len, table.splitlines())) < 80
    many = [{"stage": "score", "unit": str(n), "reason": "r", "tries": 1} for n in range(50)]
    console_run.show_failures(many, RunFolder(planned_run.root))
    said = capsys.readouterr().out
    assert said.count("failure.json") == 20 and "and 30 more" in said


def test_a_failure_keeps_what_standard_error_said(tmp_path: Path, capsys) -> None:
    with stderr_kept() as kept:
        sys.stderr.write("x" * 5000 + "the end")
    assert kept.kept.endswith("the end") and len(kept.kept) == 4000
    assert capsys.readouterr().err.endswith("the end")
    record_failure(Failure(tmp_path, "score", "a", "r", stderr=kept.kept, when="2026-01-01T00:00:00Z"))
    found = read_failure(tmp_path)
    assert found.stderr == kept.kept and found.when == "2026-01-01T00:00:00Z"
    found.log.write_text("half")
    assert "not readable" in read_failure(tmp_path).reason


def test_a_log_file_gets_a_line_at_each_tenth(capsys) -> None:
    with UnitsBar() as bar:
        for done in range(1001):
            bar.show(done, 1000, lambda: "2 score")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert re.fullmatch(r"units      100 of 1000 \(10 %\) after 0:00:0\d, 2 score", lines[0])
    assert lines[-1].startswith("units      1000 of 1000 (100 %)")


def grasp_utility(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "grasp_utility", *map(str, arguments)]


@pytest.mark.slow
def test_a_run_at_work_is_seen_to_go_on_and_one_that_was_killed_to_be_dead(
    tiny_experiment: Path, tmp_path: Path
) -> None:
    root = tmp_path / "run"
    command = grasp_utility("run", tiny_experiment, "--out", root, "--workers", 1)

    def begin() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)

    run = begin()
    while not (root / "progress.json").exists():
        assert run.poll() is None
    seen = [read_status(root)]
    try:
        while seen[-1].state != "working" or sums(seen[-1])["done"] < 5:
            assert run.poll() is None, "it ended before it was killed"
            seen.append(read_status(root))
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    states = [status.state for status in seen]
    assert states == sorted(states) and set(states) == {"preparing", "working"}
    working = [sums(status) for status in seen if status.state == "working"]
    assert {counts["total"] for counts in working} == {28} and {counts["stale"] for counts in working} == {0}
    done = [counts["done"] for counts in working]
    assert done == sorted(done) and len(set(done)) > 1
    assert any(status.running for status in seen) and seen[-1].workers() == 1

    said = subprocess.run(grasp_utility("status", root), capture_output=True, text=True, check=True).stdout
    assert "state      seems dead" in said
    told = subprocess.run(grasp_utility("status", root, "--json"), capture_output=True, text=True, check=True).stdout
    dead = json.loads(told)
    assert dead["state"] == "seems dead" and dead["seconds_left"] is None and dead["running"] == []
    left = sum(row["done"] for row in dead["units"])
    assert 5 <= left < 28 and sum(row["waiting"] for row in dead["units"]) == 28 - left

    run = begin()
    seen = []
    while run.poll() is None:
        seen.append(read_status(root, patience=0))
    assert run.returncode == 0
    assert {"preparing", "working"} & {status.state for status in seen}
    done = [sums(status)["done"] for status in seen]
    assert done == sorted(done) and done[0] == left and done[-1] == 28
    ended = read_status(root)
    assert ended.state == "finished" and not ended.failures
    assert ended.content()["tables"] and all(unit["where"] for unit in ended.slowest)
