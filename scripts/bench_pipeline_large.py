"""Memory and the driver's time over a large split of tiny scenes: each part a process of its own, for its peak memory.

python bench_pipeline_large.py units|aggregate|trivial|plan FOLDER SCENES    # prints JSON; see bench_pipeline.py
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import bench_pipeline_data as data
from bench_pipeline_engine import MeasuringEngine, carry, emptied, peak_mib, warm

from pipeline.config import Experiment
from pipeline.engines.local import LocalEngine
from pipeline.experiment import plan_units
from pipeline.run_folder import RunFolder

ARMS = ("partial", "oracle")
SAMPLES = 16  # of the generator, an object: few
WORKERS = 2


def measure(part: str, folder: Path, scenes: int) -> dict[str, Any]:
    """Run one part in a process of its own and return its figures."""
    command = [sys.executable, str(Path(__file__).resolve()), part, str(folder), str(scenes)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"bench_pipeline: the part '{part}' of {scenes} scenes failed, see above")
    return json.loads(done.stdout.splitlines()[-1])


def units(folder: Path, scenes: int) -> dict[str, Any]:
    """Make all units of a large split; memory of the driver and of its workers, the driver's time a unit."""
    experiment, run, selected = _experiment(folder, scenes)
    engine = MeasuringEngine(LocalEngine(WORKERS))
    began = peak_mib()
    shutil.rmtree(run.root, ignore_errors=True)
    try:
        carried = carry(experiment, run, selected, engine)
    finally:
        engine.close()
    peaks: dict[int, list[float]] = {}
    for cost in engine.costs:
        peaks.setdefault(cost.process, []).append(cost.peak_mib)
    ready = [max(of_one[: max(1, len(of_one) // 2)]) for of_one in peaks.values()]
    return {
        "scenes": scenes,
        "units": carried.plans,
        "driver_peak_mib": peak_mib(),
        "driver_peak_mib_at_start": began,
        "driver_peak_mib_when_planned": carried.planning_mib,
        "worker_peak_mib": max(max(of_one) for of_one in peaks.values()),
        "worker_peak_mib_at_half_of_the_units": max(ready),
        "planning_ms_per_unit": 1e3 * carried.planning / carried.plans,
        "scheduling_cpu_ms_per_unit": 1e3 * carried.working_cpu / carried.plans,
        "wall_s": carried.planning + carried.preparing + carried.working,
        "workers_busy_share": sum(cost.wall for cost in engine.costs) / (WORKERS * carried.working),
    }


def aggregate(folder: Path, scenes: int) -> dict[str, Any]:
    """Make the tables of the units that :func:`units` has made."""
    from pipeline import aggregate as stage

    experiment, run, selected = _experiment(folder, scenes)
    began, start, cpu = peak_mib(), time.perf_counter(), time.process_time()
    with contextlib.redirect_stderr(io.StringIO()):
        stage.run(experiment, run, selected)
    return {
        "scenes": scenes,
        "grasp_rows": data.rows_of(run),
        "peak_mib": peak_mib(),
        "peak_mib_at_start": began,
        "wall_s": time.perf_counter() - start,
        "cpu_s": time.process_time() - cpu,
    }


def trivial(folder: Path, scenes: int) -> dict[str, Any]:
    """Plan and schedule the same units with nothing to do in them, on real workers."""
    experiment, _, selected = _experiment(folder, scenes)
    run = RunFolder(folder / f"trivial-{scenes}")
    shutil.rmtree(run.root, ignore_errors=True)
    engine = MeasuringEngine(LocalEngine(WORKERS))
    try:
        warm(engine, lambda _: (), run.root)
        first = carry(experiment, run, selected, engine, change=emptied)
        again = carry(experiment, run, selected, engine, change=emptied)
    finally:
        engine.close()
    return {
        "scenes": scenes,
        "units": first.plans,
        "planning_ms_per_unit": 1e3 * first.planning / first.plans,
        "scheduling_cpu_ms_per_unit": 1e3 * first.working_cpu / first.plans,
        "wall_ms_per_unit": 1e3 * (first.planning + first.working) / first.plans,
        "worker_ms_per_unit": 1e3 * sum(cost.wall for cost in engine.costs) / first.plans,
        "rerun_wall_ms_per_unit": 1e3 * (again.planning + again.working) / again.plans,
    }


def plan(folder: Path, scenes: int) -> dict[str, Any]:
    """Plan a split of so many scenes with all 256 views: five arms, every file of every view hashed; then again."""
    root, selected = data.make_wide(folder, scenes)
    experiment = data.make_experiment(folder / "wide.yaml", root, folder / "cache", data.ARMS)
    run = RunFolder(folder / f"wide-{scenes}")
    shutil.rmtree(run.root, ignore_errors=True)
    run.root.mkdir()
    seconds, peaks = [], []
    for _ in range(2):
        start = time.perf_counter()
        plans = plan_units(experiment, run, selected)
        seconds.append(time.perf_counter() - start)
        peaks.append(peak_mib())
    files = len(json.loads(run.hashes.read_text(encoding="utf-8")))
    return {
        "scenes": scenes,
        "views": 256 * scenes,
        "units": len(plans),
        "files_hashed": files,
        "first_ms_per_unit": 1e3 * seconds[0] / len(plans),
        "again_ms_per_unit": 1e3 * seconds[1] / len(plans),
        "peak_mib": peaks[0],  # a run plans once; the second time what is left of the first is there as well
    }


def _experiment(folder: Path, scenes: int) -> tuple[Experiment, RunFolder, list[Any]]:
    root, selected = data.make_large(folder, scenes)
    experiment = data.make_experiment(folder / f"large-{scenes}.yaml", root, folder / "cache", ARMS, SAMPLES)
    return experiment, RunFolder(folder / f"run-{scenes}"), selected


PARTS = {"units": units, "aggregate": aggregate, "trivial": trivial, "plan": plan}

if __name__ == "__main__":
    print(json.dumps(PARTS[sys.argv[1]](Path(sys.argv[2]).resolve(), int(sys.argv[3]))))
