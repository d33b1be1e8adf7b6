"""What a whole batch costs: units an hour, workers' efficiency, memory and the driver's time at 1,000 scenes, files.

    python scripts/bench_pipeline.py                # about eight minutes on two quiet cores, a text
    python scripts/bench_pipeline.py --json         # the figures alone, as JSON
    python scripts/bench_pipeline.py --table        # what the full comparison costs, alone: the README's tables
    python scripts/bench_pipeline.py --table --figures FIGURES.json     # of figures that were measured before
    python scripts/bench_pipeline.py --quick        # the same on very little: does it run?

Scenes are made by code. ``sample``: six scenes of 8 to 10 objects, two views each of 1280 x 720, five arms (partial,
three networks that ship with us, oracle), one generator, one scorer. ``large``: 1,000 scenes that are one scene of two
objects under 1,000 names, one view of 213 x 120 each, two arms (partial, oracle), 10,000 units, two workers.

Keys of the figures:

``two_worker_efficiency``
    of scoring: wall time with one worker / (2 x with two), medians, in turns, workers warm, the plans made before.
``pipeline_two_worker_efficiency``
    the same of all unit stages, streaming.
``driver_ms_per_unit``
    wall time a unit of planning, scheduling and bookkeeping, with units that do nothing; at 1,000 scenes.
``driver_ms_per_unit_of_large_run``
    planning (wall) and scheduling (CPU of the driver) a unit, with the units done.
``driver_memory_growth_mib, worker_memory_growth_mib, aggregate_memory_growth_mib``
    peak memory at 1,000 scenes less that at 10: of the process that hands units out, the largest worker, and
    ``aggregate``, each a process of its own; ``…_percent`` the same in percent of that at 10.
``files_of_an_arm_packed, files_of_an_arm_loose``
    that the full split (90 scenes x 2 cameras x 256 views) takes: most of any arm, all its stages.
``files_of_a_run_packed, files_of_a_run_loose, gigabytes_of_a_run``
    of five arms, observations and visibility.
``full_comparison_cpu_hours, full_comparison_wall_hours``
    computed; of the latter one a kind of machines, by name.
``stages``
    by stage ``{cpu_s_per_view, cpu_s_per_view_by_arm, wall_s_per_view, units, units_per_hour,
    units_per_hour_as_measured}``: of one worker, units of 256 views, and as small as they were; visibility, a part of
    ``explain``, apart; ``aggregate`` and ``report`` ``{wall_s, cpu_s, cpu_s_per_view, units_per_hour}`` of the sample.
``pipeline, scoring``
    ``{units, views_a_unit, efficiency, wall_s_with_one, wall_s_with_two}`` (every repetition), and of the workers
    ``one_busy_share, two_busy_share`` (of the time that they had a unit), ``cpu_s_with_one, cpu_s_with_two`` (for the
    same units: more with two is the machine's doing), ``worker_start_s`` (CPU seconds of imports, checkpoints, models),
    ``longest_unit_s``.
``large``
    ``{units, aggregate}``: a list each, of 10 and 1,000 scenes; ``trivial``: units with nothing to do; ``plan``: of
    90 x 2 scenes with 256 views, every file hashed; ``aggregate_of_more_views``: a list of two, of the sample with the
    rows of its views repeated. Fields: :mod:`bench_pipeline_large`.
``disk``
    by stage and arm ``{files, bytes, files_packed, bytes_packed}`` of one scene of 256 views.
``rates, estimate, assumptions``
    what :mod:`bench_pipeline_cost` computes the full comparison from, what it computes, and what was not measured.
``sample, machine, quick``
    what was measured on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import bench_pipeline_cost as cost
import bench_pipeline_data as data
import bench_pipeline_large as large
import bench_pipeline_stages as stages
from bench_pipeline_text import text

from pipeline.run_folder import RunFolder

_SPLIT = 90 * 2


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    scenes: int
    views: int
    objects: tuple[int, int]
    repetitions: int
    views_scored: int
    few: int
    many: int
    planned: int
    views_of_rows: int


FULL = Size(6, 2, (8, 10), 3, 128, 10, 1000, _SPLIT, 64)
QUICK = Size(1, 1, (2, 3), 1, 4, 3, 12, 3, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, nothing else")
    parser.add_argument("--table", action="store_true", help="print the cost of the full comparison, nothing else")
    parser.add_argument("--figures", type=Path, help="JSON of an earlier call, instead of measuring")
    parser.add_argument("--quick", action="store_true", help="very little of everything")
    parser.add_argument("--folder", type=Path, help="keep data there, for the next time")
    assumed = cost.Assumptions()
    parser.add_argument("--gpu-clouds-per-s", type=float, default=assumed.gpu_clouds_per_s, help="that a GPU completes")
    parser.add_argument("--read-mb-per-s", type=float, default=assumed.read_mb_per_s, help="of the dataset's disk")
    arguments = parser.parse_args()
    given = cost.Assumptions(gpu_clouds_per_s=arguments.gpu_clouds_per_s, read_mb_per_s=arguments.read_mb_per_s)
    if arguments.figures is not None:
        figures = json.loads(arguments.figures.read_text(encoding="utf-8"))
    else:
        folder = arguments.folder or Path(tempfile.mkdtemp(prefix="bench_pipeline_"))
        folder.mkdir(parents=True, exist_ok=True)
        try:
            figures = bench(folder.resolve(), QUICK if arguments.quick else FULL)
        finally:
            if arguments.folder is None:
                shutil.rmtree(folder, ignore_errors=True)
    figures |= computed(figures, given)
    if arguments.json:
        print(json.dumps(figures, indent=1))
    else:
        tables = cost.markdown(figures["estimate"], cost.Rates(**figures["rates"]), given)
        print("\n".join(tables if arguments.table else [*text(figures), "", *tables]))


def bench(folder: Path, size: Size) -> dict[str, Any]:
    """Measure everything but what is computed."""
    machine, start = _machine(), time.perf_counter()

    def say(what: str) -> None:
        print(f"{time.perf_counter() - start:5.0f} s  {what}", file=sys.stderr, flush=True)

    say("making scenes")
    sample = data.make_sample(folder, size.scenes, size.views, size.objects)
    say("all unit stages, with one worker and two")
    pipeline = stages.whole_pipeline(sample, folder, size.repetitions)
    say("scoring, with one worker and two")
    scoring = stages.scoring(sample, folder, size.views_scored, size.repetitions)
    say("aggregate and report")
    run = RunFolder(folder / "whole-1")
    last = stages.last_stages(sample, run, folder, size.views_of_rows)
    say("files")
    disk = stages.on_disk(run, sample.units)
    say(f"planning {size.planned} scenes of 256 views")
    planned = large.measure("plan", folder, size.planned)
    say(f"units with nothing to do, of {size.many} scenes")
    trivial = large.measure("trivial", folder, size.many)
    of_units, of_tables = [], []
    for scenes in (size.few, size.many):
        say(f"units of {scenes} scenes, then their tables")
        of_units.append(large.measure("units", folder, scenes))
        of_tables.append(large.measure("aggregate", folder, scenes))
    say("done")
    by_stage = pipeline.pop("stages")
    more = last.pop("aggregate_of_more_views")
    views_and_arms = size.scenes * size.views * len(data.ARMS)
    return {
        "two_worker_efficiency": scoring["efficiency"],
        "pipeline_two_worker_efficiency": pipeline["efficiency"],
        "driver_ms_per_unit": trivial["wall_ms_per_unit"],
        "driver_ms_per_unit_of_large_run": of_units[1]["planning_ms_per_unit"]
        + of_units[1]["scheduling_cpu_ms_per_unit"],
        **_growth("driver", of_units, "driver_peak_mib"),
        **_growth("worker", of_units, "worker_peak_mib"),
        **_growth("aggregate", of_tables, "peak_mib"),
        **_files(disk),
        "stages": {**by_stage, **last},
        "pipeline": pipeline,
        "scoring": scoring,
        "large": {
            "units": of_units,
            "aggregate": of_tables,
            "aggregate_of_more_views": more,
            "trivial": trivial,
            "plan": planned,
        },
        "disk": disk,
        "sample": {
            "scenes": size.scenes,
            "views": size.views,
            "objects_a_scene": sample.objects,
            "grasp_rows_a_view_and_arm": last["aggregate"]["grasp_rows"] / views_and_arms,
            "mb_a_view": data.megabytes_a_view(sample),
        },
        "quick": size == QUICK,
        "seconds": time.perf_counter() - start,
        "machine": {**machine, "load_after": round(os.getloadavg()[0], 2)},
    }


def computed(figures: dict[str, Any], given: cost.Assumptions) -> dict[str, Any]:
    """Compute the full comparison from what was measured."""
    rates = rates_of(figures)
    found = cost.estimate(rates, given)
    return {
        "full_comparison_cpu_hours": found["cpu_hours_total"],
        "full_comparison_wall_hours": {one["name"]: one["wall_s"] / 3600 for one in found["machines"]},
        "rates": asdict(rates),
        "estimate": found,
        "assumptions": asdict(given),
    }


def rates_of(figures: dict[str, Any]) -> cost.Rates:
    """Bring what was measured into the form that the cost is computed from."""
    by_stage, sample, scoring = figures["stages"], figures["sample"], figures["scoring"]
    a_row, a_unit, fixed = _of_aggregate(figures)
    return cost.Rates(
        objects=sum(sample["objects_a_scene"]) / len(sample["objects_a_scene"]),
        observe=by_stage["observe"]["cpu_s_per_view"],
        visibility=by_stage["visibility"]["cpu_s_per_view"],
        score=scoring["cpu_s_with_one"] / (scoring["units"] * scoring["views_a_unit"]),
        complete=_by_kind(by_stage["complete"]),
        generate=_by_kind(by_stage["generate"]),
        explain=_by_kind(by_stage["explain"]),
        worker_start=figures["pipeline"]["worker_start_s"],
        driver_ms=figures["driver_ms_per_unit"],
        planning_ms=figures["large"]["plan"]["again_ms_per_unit"],
        view_mb=sample["mb_a_view"],
        rows=sample["grasp_rows_a_view_and_arm"],
        aggregate_fixed=fixed,
        aggregate_unit=a_unit,
        aggregate_row=a_row,
        report=by_stage["report"]["cpu_s"],
    )


def _of_aggregate(figures: dict[str, Any]) -> tuple[float, float, float]:
    """Return CPU seconds a row of grasps, a scene, camera and arm beside its rows, and for all of them once."""
    fewer, more = figures["large"]["aggregate_of_more_views"]
    few, many = figures["large"]["aggregate"]
    a_row = max(0.0, (more["cpu_s"] - fewer["cpu_s"]) / (more["grasp_rows"] - fewer["grasp_rows"]))
    units = len(large.ARMS) * (many["scenes"] - few["scenes"])
    rows = many["grasp_rows"] - few["grasp_rows"]
    a_unit = max(0.0, (many["cpu_s"] - few["cpu_s"] - a_row * rows) / units)
    of_units = a_unit * figures["sample"]["scenes"] * len(data.ARMS)
    return a_row, a_unit, max(0.0, more["cpu_s"] - a_row * more["grasp_rows"] - of_units)


def _by_kind(stage: dict[str, Any]) -> dict[str, float]:
    by_arm = stage["cpu_s_per_view_by_arm"]
    networks = [by_arm[arm] for arm in data.NETWORKS]
    return {"partial": by_arm["partial"], "network": sum(networks) / len(networks), "oracle": by_arm["oracle"]}


def _growth(name: str, runs: list[dict[str, Any]], key: str) -> dict[str, float]:
    few, many = runs[0][key], runs[1][key]
    return {f"{name}_memory_growth_mib": many - few, f"{name}_memory_growth_percent": 100 * (many / few - 1)}


def _files(disk: dict[str, Any]) -> dict[str, float]:
    of_arms = [{key: value for key, value in disk.items() if key.endswith(f" {arm}")} for arm in data.ARMS]

    def most(key: str) -> float:
        return _SPLIT * max(sum(entry[key] for entry in of_arm.values()) for of_arm in of_arms)

    def all_(key: str) -> float:
        return _SPLIT * sum(entry[key] for entry in disk.values())

    return {
        "files_of_an_arm_packed": round(most("files_packed")),
        "files_of_an_arm_loose": round(most("files")),
        "files_of_a_run_packed": round(all_("files_packed")),
        "files_of_a_run_loose": round(all_("files")),
        "gigabytes_of_a_run": all_("bytes") / 1e9,
    }


def _machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line.split(":", 1)[1].strip() for line in info if line.startswith("model name")]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": models[0] if models else platform.machine(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("numpy", "numba", "torch", "pyarrow")},
        "load_before": round(os.getloadavg()[0], 2),
    }


if __name__ == "__main__":
    main()
