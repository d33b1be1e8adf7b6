"""What bench_scoring.py measures from outside: whole commands in fresh processes, a worker's start-up and memory."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bench_scoring_data import CAMERA, Scene

from pipeline.datasets.graspnet import GraspNetDataset
from pipeline.dump_scene import SceneJob
from pipeline.score_dump import prepare_models

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
HEAVY = ("torch", "open3d", "pandas", "scipy", "trimesh", "mujoco", "matplotlib", "graspnetAPI")

# The referee as its documentation runs it: GraspNetEval loads, eval_scene grades. Only what it needs to run today is
# done for it (grasping.reference), and its 256 views are made fewer by giving its module another `range`.
_REFEREE = """
import builtins, contextlib, io, json, sys
import numpy as np
from grasping import reference
root, camera, scene, dump, views = sys.argv[1:6]
views = int(views)
module = reference.load().evaluation
evaluator = module.GraspNetEval(root=root, camera=camera, split="custom")
module.range = lambda *a: builtins.range(views) if a == (256,) else builtins.range(*a)
with contextlib.redirect_stdout(io.StringIO()):
    accuracy = evaluator.eval_scene(int(scene), dump)
print(json.dumps({"ap": 100 * float(np.mean(accuracy))}))
"""

# A process's peak memory starts at that of the process it was forked from, so a small one stands between.
_LAUNCHER = """
import json, os, subprocess, sys, tempfile, time
cores, command = json.loads(sys.argv[1])
os.sched_setaffinity(0, cores)
begin = time.perf_counter()
with tempfile.TemporaryFile("w+") as errors:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    errors.seek(0)
    said = errors.read()[-2000:]
wall, cpu = time.perf_counter() - begin, usage.ru_utime + usage.ru_stime
told = {"wall": wall, "cpu": cpu, "peak_mib": usage.ru_maxrss / 1024, "printed": printed}
print(json.dumps([os.waitstatus_to_exitcode(status), said, told]))
"""

# What a worker process of score-dump does: unpickle a job, score it.
_WORKER = """
import pickle, resource, sys, time
begin = time.perf_counter()
with open(sys.argv[1], "rb") as file:
    first, job = pickle.load(file)
from pipeline.dump_scene import score_scene
imported = time.perf_counter() - begin
score_scene(first)
ready = time.perf_counter() - begin
cpu = time.process_time()
score_scene(job)
import json
print(json.dumps({
    "imported_s": imported,
    "first_view_scored_s": ready,
    "cpu_ms_per_view": (time.process_time() - cpu) / len(job.views) * 1e3,
    "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    "loaded": sorted({name.split(".")[0] for name in sys.modules} & set(sys.argv[2].split(","))),
}))
"""


@dataclass(frozen=True)
class Run:
    """One command: seconds of wall and CPU time with all its children, MiB of its largest process, what it printed."""

    wall: float
    cpu: float
    peak_mib: float
    printed: str


def run(command: Sequence[str], cores: Sequence[int]) -> Run:
    """Run a command on some cores, one thread a process.

    Raises:
        RuntimeError: if it fails.
    """
    launch = [sys.executable, "-S", "-c", _LAUNCHER, json.dumps([list(cores), list(command)])]
    environment = {**os.environ, **dict.fromkeys(THREADS, "1")}
    done = subprocess.run(launch, env=environment, capture_output=True, text=True, check=True)
    status, said, told = json.loads(done.stdout)
    if status != 0:
        raise RuntimeError(f"{' '.join(command[:4])} … ended with status {status}: {said}")
    return Run(**told)


def score_dump(
    root: Path, dump: Path, cache: Path, scenes: Sequence[int], views: int, workers: int, cores: Sequence[int]
) -> tuple[Run, dict[str, Any]]:
    """The whole command ``grasp-utility score-dump``."""
    command = [sys.executable, "-m", "pipeline.cli", "score-dump", str(dump), "--dataset", str(root)]
    command += ["--camera", CAMERA, "--scenes", ",".join(map(str, scenes)), "--views", f"0-{views - 1}"]
    command += ["--workers", str(workers), "--cache", str(cache), "--json"]
    done = run(command, cores)
    return done, json.loads(done.printed)


def against_referee(
    root: Path, staged: Path, dump: Path, cache: Path, scene: int, sizes: Sequence[int], repetitions: int, core: int
) -> dict[str, Any]:
    """Both whole commands on the same views of one scene, one core; the last size gives the ratio."""
    out: dict[str, Any] = {"runs": []}
    score_dump(root, dump, cache, [scene], 1, 1, [core])  # models parsed, kernels compiled
    for views in sizes:
        ours = [score_dump(root, dump, cache, [scene], views, 1, [core]) for _ in range(repetitions)]
        command = [sys.executable, "-c", _REFEREE, str(staged), CAMERA, str(scene), str(dump), str(views)]
        peer = run(command, [core])
        out["runs"].append(
            {
                "views": views,
                "ours_s": {
                    "cpu": float(np.median([r.cpu for r, _ in ours])),
                    "wall": float(np.median([r.wall for r, _ in ours])),
                },
                "peer_s": {"cpu": peer.cpu, "wall": peer.wall},
                "ours_peak_mib": max(r.peak_mib for r, _ in ours),
                "peer_peak_mib": peer.peak_mib,
                "ours_ap": ours[0][1]["ap"],
                "peer_ap": json.loads(peer.printed)["ap"],
            }
        )
    last = out["runs"][-1]
    out["ratio"] = {clock: last["peer_s"][clock] / last["ours_s"][clock] for clock in ("cpu", "wall")}
    if len(sizes) > 1:
        whole = {}
        for who in ("ours_s", "peer_s"):
            slope, fixed = np.polyfit(sizes, [r[who]["cpu"] for r in out["runs"]], 1)
            whole[who] = float(fixed + 256 * slope)
        out["whole_scene_of_256_views_extrapolated_cpu_s"] = whole
        out["whole_scene_ratio_extrapolated"] = whole["peer_s"] / whole["ours_s"]
    return out


def split_time(
    root: Path,
    dump: Path,
    cache: Path,
    scenes: Sequence[Scene],
    sizes: Sequence[int],
    repetitions: int,
    cores: Sequence[int],
) -> dict[str, Any]:
    """Time of a split of 90 scenes x 256 views through score-dump with two workers, by a line through smaller runs.

    From CPU time, which other users of the machine disturb least: what grows with the views is shared by two cores,
    what does not is counted in full. The same from wall time stands beside; on a quiet machine it is less.
    """
    numbers = [scene.number for scene in scenes]
    models = len({geometry.object_id for scene in scenes for geometry in scene.objects})
    begun: dict[str, list[Run]] = {"cold": [], "warm": []}
    for turn in range(repetitions):
        fresh = cache.with_name(f"{cache.name}-empty-{os.getpid()}-{turn}")
        for kind in begun:  # the second finds every model parsed
            begun[kind].append(score_dump(root, dump, fresh, numbers, 1, 2, cores)[0])
        shutil.rmtree(fresh)
    runs: dict[int, list[Run]] = {size: [] for size in sizes}
    for _ in range(repetitions):
        for size in sizes:
            runs[size].append(score_dump(root, dump, cache, numbers, size, 2, cores)[0])
    views = np.array(sizes, float) * len(numbers)
    lines, minutes, parsing = {}, {}, {}
    for clock, cores_used in (("cpu", 2), ("wall", 1)):
        seconds = np.array([np.median([getattr(r, clock) for r in runs[size]]) for size in sizes])
        slope, fixed = np.polyfit(views, seconds, 1)
        lines[clock] = {
            "seconds": seconds.tolist(),
            "ms_per_view": float(slope * 1e3),
            "fixed_s": float(fixed),
            "largest_departure_percent": float(np.abs((fixed + slope * views) / seconds - 1).max() * 100),
        }
        cold, warm = (np.median([getattr(r, clock) for r in begun[kind]]) for kind in ("cold", "warm"))
        parsing[clock] = float(max(cold - warm, 0.0) / models * 88 / cores_used / 60)
        minutes[clock] = float(fixed + slope * 90 * 256 / cores_used) / 60 + parsing[clock]
    return {
        "method": f"whole command score-dump --workers 2 on {len(numbers)} scenes, {', '.join(map(str, sizes))} views "
        f"each, medians of {repetitions}; a line through its CPU time, at 90 x 256 views on two cores, what does not "
        f"grow with views counted in full; plus, once, 88 models parsed at the pace of these {models}",
        "scenes": len(numbers),
        "views": views.astype(int).tolist(),
        "line": lines,
        "minutes_of_parsing_88_models_once": parsing,
        "minutes": minutes["cpu"],
        "minutes_by_wall_time": minutes["wall"],
        "peak_mib_of_largest_process": max(r.peak_mib for several in runs.values() for r in several),
    }


def worker(
    root: Path, dump: Path, cache: Path, scene: Scene, views: int, repetitions: int, core: int
) -> dict[str, Any]:
    """Start-up and peak memory of a worker's process, medians."""
    dataset = GraspNetDataset(root, CAMERA)
    prepared = prepare_models(dataset, [g.object_id for g in scene.objects], cache, 1)
    objects = tuple(prepared[geometry.object_id] for geometry in scene.objects)
    jobs = [SceneJob(root, CAMERA, scene.number, tuple(range(n)), dump, objects) for n in (1, views)]
    path = cache / f"job-{os.getpid()}.pickle"
    path.write_bytes(pickle.dumps(jobs))
    try:
        command = [sys.executable, "-c", _WORKER, str(path), ",".join(HEAVY)]
        runs = [run(command, [core]) for _ in range(repetitions)]
    finally:
        path.unlink()
    told = [json.loads(r.printed) for r in runs]
    out: dict[str, Any] = {
        key: float(np.median([one[key] for one in told]))
        for key in ("imported_s", "first_view_scored_s", "cpu_ms_per_view", "peak_mib")
    }
    interpreter = [run([sys.executable, "-c", "pass"], [core]).wall for _ in range(repetitions)]
    out["ready_s"] = out["first_view_scored_s"] + float(np.median(interpreter))
    out["heavy_modules_loaded"] = told[0]["loaded"]
    out["heavy_modules_looked_for"] = list(HEAVY)
    return out
