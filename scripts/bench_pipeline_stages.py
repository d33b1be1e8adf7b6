"""What each stage costs on realistic scenes, how much faster two workers are than one, and what lies on the disk."""

from __future__ import annotations

import contextlib
import io
import shutil
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import bench_pipeline_data as data
from bench_pipeline_engine import Cost, MeasuringEngine, carry, warm

from pipeline.config import Experiment
from pipeline.engines.local import LocalEngine
from pipeline.experiment import plan_units
from pipeline.run_folder import RunFolder
from pipeline.selection import SceneUnit
from pipeline.units import Plan
from pipeline.view_files import PACK, pack

FULL_VIEWS = 256
STAGES = ("observe", "complete", "generate", "score", "explain", "visibility")
_PER_VIEW = (".npz", ".npy")


def whole_pipeline(sample: data.Sample, folder: Path, repetitions: int) -> dict[str, Any]:
    """Carry all unit stages out with one worker and with two, in turns; costs by stage are those of one worker.

    Every worker has made a view of every unit beforehand, so that imports, checkpoints and models are loaded.
    """
    few = [replace(unit, views=unit.views[:1]) for unit in sample.units]
    one, two = MeasuringEngine(LocalEngine(1)), MeasuringEngine(LocalEngine(2))

    def warm_plans(worker: int) -> list[Plan]:
        run = _fresh(folder / f"warm-{worker}")
        run.root.mkdir()
        return plan_units(sample.experiment, run, few)

    def work(engine: MeasuringEngine, name: str) -> float:
        return carry(sample.experiment, _fresh(folder / f"whole-{name}"), sample.units, engine).working

    try:
        (first,) = warm(one, warm_plans, folder)
        (again,) = warm(one, warm_plans, folder)
        warm(two, warm_plans, folder)
        walls, costs = _in_turns(work, one, two, repetitions)
    finally:
        one.close()
        two.close()
    return {
        "units": len(costs) // repetitions,
        "views_a_unit": len(sample.units[0].views),
        **_efficiency(walls),
        **_shares(walls, one, two),
        "worker_start_s": first.since_start - again.spent,
        "stages": by_stage(costs),
    }


def scoring(sample: data.Sample, folder: Path, views: int, repetitions: int) -> dict[str, Any]:
    """Score the same grasps with one worker and with two, in turns; see :func:`bench_pipeline_data.repeat_grasps`."""
    source, run = RunFolder(folder / "whole-1"), _fresh(folder / "scoring")
    units = data.repeat_grasps(source, run, sample, views)
    few = [replace(unit, views=(0,)) for unit in units]
    one, two = MeasuringEngine(LocalEngine(1)), MeasuringEngine(LocalEngine(2))

    def warm_plans(worker: int) -> list[Plan]:
        aside = folder / f"warm-scoring-{worker}"
        plans = plan_units(sample.experiment, run, few, stages=("score",))
        return [replace(plan, folder=aside / plan.folder.relative_to(run.root)) for plan in plans]

    def work(engine: MeasuringEngine, _: str) -> float:
        for arm in data.ARMS:
            shutil.rmtree(run.scores(arm, data.GENERATOR, data.SCORER), ignore_errors=True)
        return carry(sample.experiment, run, units, engine, stages=("score",)).working

    try:
        warm(one, warm_plans, folder)
        warm(two, warm_plans, folder)
        walls, costs = _in_turns(work, one, two, repetitions)
    finally:
        one.close()
        two.close()
    return {
        "units": len(costs) // repetitions,
        "views_a_unit": views,
        **_efficiency(walls),
        **_shares(walls, one, two),
        "longest_unit_s": max(cost.wall for cost in costs),
    }


def _in_turns(
    work: Callable[[MeasuringEngine, str], float], one: MeasuringEngine, two: MeasuringEngine, repetitions: int
) -> tuple[dict[str, list[float]], list[Cost]]:
    """Return wall seconds by number of workers, and the costs of the units that the one worker made."""
    walls: dict[str, list[float]] = {"1": [], "2": []}
    for turn in range(repetitions):
        pair = [("1", one), ("2", two)]
        for name, engine in pair if turn % 2 == 0 else pair[::-1]:
            walls[name].append(work(engine, name))
    return walls, list(one.costs)


def _efficiency(walls: dict[str, list[float]]) -> dict[str, Any]:
    one, two = (statistics.median(walls[name]) for name in ("1", "2"))
    return {"efficiency": one / (2 * two), "wall_s_with_one": walls["1"], "wall_s_with_two": walls["2"]}


def _shares(walls: dict[str, list[float]], one: MeasuringEngine, two: MeasuringEngine) -> dict[str, float]:
    """Part the loss of two workers: waiting for units (ours), and units slower beside others (the machine's)."""
    repetitions = len(walls["1"])
    cpu_one, cpu_two = (sum(cost.cpu for cost in engine.costs) / repetitions for engine in (one, two))
    return {
        "one_busy_share": sum(cost.wall for cost in one.costs) / sum(walls["1"]),
        "two_busy_share": sum(cost.wall for cost in two.costs) / (2 * sum(walls["2"])),
        "cpu_s_with_one": cpu_one,
        "cpu_s_with_two": cpu_two,
    }


def by_stage(costs: Iterable[Cost]) -> dict[str, dict[str, Any]]:
    """Sum costs up: ``{stage: {cpu_s_per_view, cpu_s_per_view_by_arm, wall_s_per_view, units_per_hour, units}}``.

    ``units_per_hour``: of 256 views, one worker, by CPU seconds; seconds a view of a stage are means over arms.
    """
    found: dict[str, dict[str, list[Cost]]] = {}
    for cost in costs:
        found.setdefault(cost.stage, {}).setdefault(cost.arm, []).append(cost)
    result = {}
    for stage in STAGES:
        arms = found[stage]
        every = [cost for of_arm in arms.values() for cost in of_arm]
        cpu = _a_view(every, "cpu")
        result[stage] = {
            "units": len(every),
            "cpu_s_per_view": cpu,
            "cpu_s_per_view_by_arm": {arm: _a_view(of_arm, "cpu") for arm, of_arm in arms.items() if arm},
            "wall_s_per_view": _a_view(every, "wall"),
            "units_per_hour": 3600 / (FULL_VIEWS * cpu),
            "units_per_hour_as_measured": 3600 * len(every) / sum(cost.wall for cost in every),
        }
    return result


def _a_view(costs: list[Cost], clock: str) -> float:
    return sum(getattr(cost, clock) for cost in costs) / sum(cost.views for cost in costs)


def last_stages(sample: data.Sample, run: RunFolder, folder: Path, more_views: int) -> dict[str, Any]:
    """Make the tables and the report of a run; then the tables of two whose units have more views.

    Both stages are the driver's, and one unit each.

    Returns:
        ``aggregate`` and ``report`` of the sample, and a list, ``aggregate_of_more_views``.
    """
    from pipeline import declaration, report, summary
    from pipeline.artifacts import write_json

    experiment, views = sample.experiment, sum(len(unit.views) for unit in sample.units)
    write_json(run.experiment_file, experiment.model_dump(mode="json"))
    declaration.record(experiment, run)
    write_json(run.problems, [])
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        tables, of_tables = _clocked(partial(_tables, experiment, run, sample.units))
        summary.write(experiment, run, sample.units, tables, [])
        _, of_report = _clocked(partial(report.run, experiment, run))
        more = []
        for held in (more_views // 4, more_views):  # both after the first, which compiled and imported
            wide = _fresh(folder / f"of-{held}-views")
            repeated = data.repeat_rows(run, wide, sample, held)
            _, of_more = _clocked(partial(_tables, experiment, wide, repeated))
            more.append({**of_more, "views": held, "grasp_rows": data.rows_of(wide)})
    figures: dict[str, Any] = {"aggregate": of_tables, "report": of_report}
    for of_stage in figures.values():
        of_stage |= {"cpu_s_per_view": of_stage["cpu_s"] / views, "units_per_hour": 3600 / of_stage["wall_s"]}
    of_tables["grasp_rows"] = data.rows_of(run)
    return {**figures, "aggregate_of_more_views": more}


def _tables(experiment: Experiment, run: RunFolder, units: list[SceneUnit]) -> Any:
    from pipeline import aggregate

    return aggregate.run(experiment, run, units)


def _clocked(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    wall, cpu = time.perf_counter(), time.process_time()
    value = work()
    return value, {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def on_disk(run: RunFolder, units: list[SceneUnit]) -> dict[str, Any]:
    """Count files and bytes of one scene of 256 views by stage and arm, loose and packed.

    Files of single views are counted a view, the others a unit; bytes of both grow with the views. The run is packed
    by this.
    """
    bases = {"observe": run.observations, "visibility": run.visibility}
    for arm in data.ARMS:
        bases |= {
            f"complete {arm}": run.clouds(arm),
            f"generate {arm}": run.dump(arm, data.GENERATOR),
            f"score {arm}": run.scores(arm, data.GENERATOR, data.SCORER),
            f"explain {arm}": run.explained(arm, data.GENERATOR),
        }
    result = {}
    for name, base in bases.items():
        folders = [path.parent for path in sorted(base.glob("scene_*/*/stamp.json"))]
        views = sum(len(unit.views) for unit in units)
        loose = [_counted(folder) for folder in folders]
        for folder in folders:
            pack(folder)
        packed = [_counted(folder) for folder in folders]
        single, other, size = (sum(column) for column in zip(*loose, strict=True))
        left, joined, packed_size = (sum(column) for column in zip(*packed, strict=True))
        assert left == 0, f"{base}: not packed"
        result[name] = {
            "files": FULL_VIEWS * single / views + other / len(folders),
            "bytes": FULL_VIEWS * size / views,
            "files_packed": joined / len(folders),
            "bytes_packed": FULL_VIEWS * packed_size / views,
        }
    return result


def _counted(folder: Path) -> tuple[int, int, int]:
    """Return how many files of single views a unit has, how many others, and the bytes of all."""
    files = [path for path in folder.iterdir() if path.is_file()]
    single = [path for path in files if path.suffix in _PER_VIEW and path.name != PACK]
    return len(single), len(files) - len(single), sum(path.stat().st_size for path in files)


def _fresh(root: Path) -> RunFolder:
    shutil.rmtree(root, ignore_errors=True)
    return RunFolder(root)
