"""What would be made and why, held against what a run then makes; and that nothing is written."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pipeline import console_run
from pipeline.config import load_experiment
from pipeline.dry_run import FAILED_BEFORE, Stale, stale_units
from pipeline.engine_options import Execution
from pipeline.experiment import STAGES, run_experiment
from pipeline.failures import Failure, record_failure
from pipeline.run_folder import STAMP
from pipeline.store import Store, open_store


def dry(run, told: Execution | None = None, stages: tuple[str, ...] | None = None, **overrides: object) -> Stale:
    experiment = load_experiment(run.file, dict(overrides))
    return stale_units(experiment, run.root, told or Execution(), stages, "cpu", False)


def reasons(found: Stale) -> Counter[tuple[str, str]]:
    return Counter((unit.stage, unit.reason) for unit in found.stale)


def everything(*roots: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for root in roots for path in [root, *root.rglob("*")]}


def test_a_dry_run_before_the_first_run_creates_nothing(planned_run, tiny_cache: Path, capsys) -> None:
    planned_run.root.rename(planned_run.root.with_name("elsewhere"))
    before = everything(planned_run.file.parent, tiny_cache)
    found = dry(planned_run)
    assert reasons(found) == {(stage, "not made yet"): n for stage, n in zip(STAGES, (2, 4, 4, 4, 6), strict=False)}
    assert found.tables and found.report and not found.blocked and set(found.current.values()) == {0}
    assert everything(planned_run.file.parent, tiny_cache) == before
    console_run.show_stale(found)
    said = capsys.readouterr().out
    assert "score     oracle/antipodal/analytic/scene_0160/realsense\n" in said
    assert "to make, 20 units: not made yet" in said and "report     would be made" in said


def test_each_unit_says_why_it_would_be_made(planned_run) -> None:
    before = everything(planned_run.root)
    assert not dry(planned_run).stale
    assert reasons(dry(planned_run, density=0.004)) == {
        ("complete", "changed: density"): 4,
        ("generate", "changed: clouds, density"): 4,
        ("score", "changed: dump"): 4,
        ("explain", "changed: clouds, density, dump, oracle, scores"): 4,
    }
    assert everything(planned_run.root) == before
    (planned_run.unit("complete", "partial/scene_0100/realsense") / "0000.npz").unlink()
    failed = planned_run.unit("score", "oracle/antipodal/analytic/scene_0160/realsense")
    record_failure(Failure(failed, "score", "oracle", "no idea"))
    assert [(unit.stage, unit.label, unit.reason) for unit in dry(planned_run).stale] == [
        ("complete", "partial/scene_0100/realsense", "files missing or changed: 0000.npz"),
        ("score", "oracle/antipodal/analytic/scene_0160/realsense", FAILED_BEFORE),
    ]


def test_shares_part_the_units(planned_run) -> None:
    all_of_it = dry(planned_run, density=0.004)
    parts = [dry(planned_run, Execution(share=(i, 2)), density=0.004) for i in range(2)]
    assert sorted(u.label for part in parts for u in part.stale) == sorted(u.label for u in all_of_it.stale)
    assert [len(part.stale) for part in parts] == [8, 8] and all(part.tables is None for part in parts)


def test_single_stages_take_what_lies_there(planned_run, capsys) -> None:
    found = dry(planned_run, stages=("generate",), entry="generator")
    assert reasons(found) == {("generate", "changed: entry"): 4} and found.tables is None
    for stamp in planned_run.root.glob(f"arms/partial/clouds/*/*/{STAMP}"):
        stamp.unlink()
    found = dry(planned_run, stages=("generate",))
    assert [unit.label.split("/")[0] for unit in found.blocked] == ["partial", "partial"] and not found.stale
    console_run.show_stale(found)
    said = capsys.readouterr().out
    assert "cannot be made, 2 units:" in said and "run `complete` first" in said


def test_what_lies_in_the_store_is_said(planned_run, tmp_path: Path, capsys) -> None:
    store = open_store(tmp_path / "store")
    plan = next(plan for plan in planned_run.plans() if plan.stage == "complete" and plan.arm == "oracle")
    store.put(Store.key(plan.made_from, plan.scene, plan.camera), plan.folder)
    planned_run.root.rename(tmp_path / "elsewhere")
    before = everything(tmp_path)
    found = dry(planned_run, Execution(store=store.root))
    assert [unit.label for unit in found.stale if unit.stored] == [plan.label] and len(found.stale) == 20
    assert not any(unit.stored for unit in dry(planned_run, Execution(store=tmp_path / "none")).stale)
    assert everything(tmp_path) == before
    console_run.show_stale(found)
    assert f"complete  {plan.label}  (in the store)" in capsys.readouterr().out


def test_what_would_stop_a_run_stops_a_dry_run(planned_run) -> None:
    with pytest.raises(ValueError, match=r"antipodel.*did you mean 'antipodal'"):
        dry(planned_run, generators=[{"name": "antipodel"}])


@pytest.mark.slow
def test_a_run_makes_what_its_dry_run_said(tiny_experiment: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "grasp_utility", "run", tiny_experiment, "--out", tmp_path / "run", "--dry-run"]
    before = everything(tmp_path)
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "to make, 28 units: not made yet" in said.stdout and not said.stderr
    assert everything(tmp_path) == before
    for overrides in ({}, {"density": 0.004}, {"density": 0.004, "scorers": ["analytic"], "entry": "generator"}):
        experiment = load_experiment(tiny_experiment, overrides)
        found = stale_units(experiment, tmp_path / "run", Execution(), None, "cpu", False)
        result = run_experiment(
            experiment, tmp_path / "run", device="cpu", workers=0, stages=STAGES, say=lambda _: None
        )
        made = [(report.stage, label, why) for report in result.stages for label, why in report.stale.items()]
        assert sorted((unit.stage, unit.label, unit.reason) for unit in found.stale) == sorted(made)
        assert found.tables and found.report and made
        after = stale_units(experiment, tmp_path / "run", Execution(), None, "cpu", False)
        assert not after.stale and after.tables is False and after.report is False
