"""Our scorer beside graspnetAPI 1.2.11: force closure, a view, whole commands, a split, a worker; ratios and floors.

    python scripts/bench_scoring.py                       # synthetic scenes, about five minutes, a table
    python scripts/bench_scoring.py --json                # the figures alone, as JSON
    python scripts/bench_scoring.py --quick               # the same on very little: does it run?
    python scripts/bench_scoring.py --dataset ROOT        # scenes of a dataset in the official layout

Both grade the same grasps on the same objects in one run, one core and one thread each, warm; what they say is
compared. Ratios are of CPU time, medians (wall time stands beside). The referee's time grows with the grasps it must
close, so their number stands beside every ratio. The floors say what the look-ups, sorts and tests that no
implementation can omit would cost by themselves. It needs the referee: bash scripts/install_referee.sh
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import bench_scoring_commands as commands
import bench_scoring_data as data
import bench_scoring_parts as parts
import numpy as np

from grasping import reference, reference_scene
from grasping.protocol import fingerprint
from pipeline.artifacts import fingerprint as short_hash


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, nothing else")
    parser.add_argument("--quick", action="store_true", help="very little of everything")
    parser.add_argument("--dataset", type=Path, help="root of a dataset, instead of synthetic scenes")
    parser.add_argument("--folder", type=Path, help="keep data and caches there, for the next time")
    parser.add_argument("--candidates", type=int, default=1024, help="grasps of a view (default 1024)")
    arguments = parser.parse_args()
    if not reference.available():
        sys.exit("bench_scoring: graspnetAPI is not installed: bash scripts/install_referee.sh")
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="bench_scoring_"))
    try:
        with contextlib.redirect_stdout(sys.stderr):  # the referee prints
            figures = bench(folder.resolve(), arguments.dataset, arguments.quick, arguments.candidates)
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(figures, indent=1) if arguments.json else "\n".join(table(figures)))


def bench(folder: Path, dataset: Path | None, quick: bool, candidates: int) -> dict[str, Any]:
    """Measure everything; ``quick`` takes one scene and a few views."""
    cores = sorted(os.sched_getaffinity(0))
    repetitions = 3 if quick else 9
    sizes = [32, 256] if quick else [64, 128, 256]
    machine = _machine(len(cores))
    root = data.make_dataset(folder, 1 if quick else 5) if dataset is None else dataset.resolve()
    cache = folder / "cache"
    scenes = data.read_scenes(root, cache, 5)
    dump = folder / f"dump-{candidates}-{short_hash(str(root))[:8]}"
    data.write_dumps(root, scenes, dump, 256, candidates)

    os.sched_setaffinity(0, [cores[0]])
    try:
        referee = parts.Referee()
        chosen = [(scene, view) for view in ((0,) if quick else (0, 97, 193)) for scene in scenes]
        views = [data.read_view(root, scene, dump, view) for scene, view in chosen][: 1 if quick else 6]
        closing = parts.force_closure(referee, views, repetitions)
        whole = parts.whole_view(referee, views, repetitions, closing["floor"]["ns_per_lookup"] * 1e-3)
    finally:
        os.sched_setaffinity(0, cores)
    staged = reference_scene.stage_root(root, cache, {g.object_id for scene in scenes for g in scene.objects})
    against = commands.against_referee(
        root, staged, dump, cache, scenes[0].number, [2] if quick else [8, 64], 1 if quick else 3, cores[0]
    )
    split = commands.split_time(root, dump, cache, scenes, sizes, 1 if quick else 3, cores[:2])
    worker = commands.worker(root, dump, cache, scenes[0], sizes[-1], 1 if quick else 5, cores[0])

    if "whole_scene_of_256_views_extrapolated_cpu_s" in against:  # two processes, a scene each, nothing shared
        scene = against["whole_scene_of_256_views_extrapolated_cpu_s"]["peer_s"]
        split["peer_minutes_extrapolated"] = 90 * scene / 2 / 60

    def median(*keys: str) -> float:
        values = [view[keys[0]][keys[1]] if len(keys) > 1 else view[keys[0]] for view in whole]
        return float(np.median(values))

    peer, ours = closing["peer_us_per_grasp"], closing["ours_us_per_grasp"]
    return {
        "force_closure_ratio": peer["cpu"] / ours["cpu"],
        "force_closure_ratio_in_batches_of_a_view": peer["cpu"]
        / closing["ours_us_per_grasp_in_batches_of_a_view"]["cpu"],
        "view_ratio": median("peer_ms", "cpu") / median("ours_kept_only_ms", "cpu"),
        "view_ratio_every_candidate": median("peer_ms", "cpu") / median("ours_every_candidate_ms", "cpu"),
        "score_dump_ratio": against["ratio"]["cpu"],
        "split_minutes_2_cores": split["minutes"],
        "worker_peak_mib": worker["peak_mib"],
        "worker_ready_s": worker["ready_s"],
        "data": {
            "dataset": "synthetic" if dataset is None else dataset.name,
            "scenes": [scene.number for scene in scenes],
            "objects_a_scene": [len(scene.objects) for scene in scenes],
            "candidates_a_view": candidates,
            "clear_a_view": {
                "median": median("clear"),
                "least": min(v["clear"] for v in whole),
                "most": max(v["clear"] for v in whole),
            },
        },
        "force_closure": closing,
        "view": {
            "medians": {
                "peer_ms": {"cpu": median("peer_ms", "cpu"), "wall": median("peer_ms", "wall")},
                "ours_kept_only_ms": {
                    "cpu": median("ours_kept_only_ms", "cpu"),
                    "wall": median("ours_kept_only_ms", "wall"),
                },
                "ours_every_candidate_ms": {
                    "cpu": median("ours_every_candidate_ms", "cpu"),
                    "wall": median("ours_every_candidate_ms", "wall"),
                },
                "floor_ms": float(np.median([sum(v["floor_ms"].values()) for v in whole])),
                "times_above_floor": median("times_above_floor"),
            },
            "views": whole,
        },
        "score_dump": against,
        "split": split,
        "worker": worker,
        "quick": quick,
        "protocol": short_hash(fingerprint())[:12],
        "machine": {**machine, "load_after": round(os.getloadavg()[0], 2)},
    }


def _machine(cores: int) -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    models = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return {
        "cores": cores,
        "cpu": models[0] if models else platform.machine(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("numpy", "numba", "graspnetAPI")},
        "load_before": round(os.getloadavg()[0], 2),
    }


def table(f: dict[str, Any]) -> list[str]:
    """The figures for people."""
    closing, view, split, worker, machine = (
        f["force_closure"],
        f["view"]["medians"],
        f["split"],
        f["worker"],
        f["machine"],
    )
    last, clear = f["score_dump"]["runs"][-1], f["data"]["clear_a_view"]
    floor = closing["floor"]
    lines = [
        f"{machine['cores']} cores, {machine['cpu']}; Python {machine['python']}, numpy {machine['numpy']}, numba "
        f"{machine['numba']}; load {machine['load_before']} before, {machine['load_after']} after",
        f"{f['data']['dataset']}: scenes {f['data']['scenes']}, {f['data']['objects_a_scene']} objects, "
        f"{f['data']['candidates_a_view']} candidates a view, of the cut {clear['median']:.0f} clear "
        f"({clear['least']}-{clear['most']})",
        "",
        f"{'CPU time, one core':40} {'graspnetAPI':>13} {'ours':>13} {'ratio':>9}   same scores",
        _row(
            f"force closure, a grasp of {closing['grasps']}",
            closing["peer_us_per_grasp"]["cpu"],
            closing["ours_us_per_grasp"]["cpu"],
            "us",
            closing["scores_equal"],
        ),
        _row(
            "  in batches as a view has them",
            closing["peer_us_per_grasp"]["cpu"],
            closing["ours_us_per_grasp_in_batches_of_a_view"]["cpu"],
            "us",
            None,
        ),
        _row(
            "view, the cut alone",
            view["peer_ms"]["cpu"],
            view["ours_kept_only_ms"]["cpu"],
            "ms",
            all(v["scores_equal"] for v in f["view"]["views"]),
        ),
        _row("view, every candidate", view["peer_ms"]["cpu"], view["ours_every_candidate_ms"]["cpu"], "ms", None),
        _row(
            f"whole command, {last['views']} views",
            last["peer_s"]["cpu"],
            last["ours_s"]["cpu"],
            "s",
            abs(last["peer_ap"] - last["ours_ap"]) < 1e-9,
        ),
        _row(f"  its wall time, {last['views']} views", last["peer_s"]["wall"], last["ours_s"]["wall"], "s", None),
    ]
    if "whole_scene_ratio_extrapolated" in f["score_dump"]:
        scene = f["score_dump"]["whole_scene_of_256_views_extrapolated_cpu_s"]
        lines.append(_row("  256 views, extrapolated", scene["peer_s"], scene["ours_s"], "s", None))
    line = split["line"]["cpu"]
    growth = ", ".join(f"{n} views {s:.2f} s" for n, s in zip(split["views"], line["seconds"], strict=True))
    departure = f"off the line by {line['largest_departure_percent']:.1f} % at most"
    if len(split["views"]) < 3:
        departure = "two sizes, which no line misses, show nothing"
    heavy = ", ".join(worker["heavy_modules_loaded"]) or "none"
    peer_split = f", graspnetAPI {split['peer_minutes_extrapolated']:.0f}" if len(f["score_dump"]["runs"]) > 1 else ""
    return [
        *lines,
        "",
        f"floor of force closure   {floor['lookups_per_grasp']:.0f} look-ups x {floor['ns_per_lookup']:.1f} ns = "
        f"{floor['us_per_grasp']:.2f} us a grasp; we are {floor['times_above']:.1f} x above it",
        f"floor of a view's cut    {view['floor_ms']:.3f} ms (sort, move points, test those in a gripper, look up); "
        f"we are {view['times_above_floor']:.1f} x above it",
        "",
        f"split on 2 cores         {split['minutes']:.2f} min for 90 x 256 views{peer_split} (by wall time here "
        f"{split['minutes_by_wall_time']:.2f}): {line['ms_per_view']:.2f} ms of CPU a view on 2 cores + "
        f"{line['fixed_s']:.1f} s + {split['minutes_of_parsing_88_models_once']['cpu']:.2f} min to parse 88 models",
        f"  grows linearly         {growth} of CPU; {departure}",
        f"  method                 {split['method']}",
        f"worker                   ready in {worker['ready_s']:.2f} s (first view scored), "
        f"{worker['cpu_ms_per_view']:.2f} ms of CPU a view, peak {worker['peak_mib']:.0f} MiB; of "
        f"{', '.join(worker['heavy_modules_looked_for'])} it loaded {heavy}",
    ]


def _row(name: str, peer: float, ours: float, unit: str, same: bool | None) -> str:
    said = "" if same is None else ("yes" if same else "NO")
    digits = 1 if unit == "us" else 2
    return f"{name:40} {peer:10.{digits}f} {unit:2} {ours:10.{digits}f} {unit:2} {peer / ours:8.0f}x   {said}"


if __name__ == "__main__":
    if any(os.environ.get(name) != "1" for name in commands.THREADS):  # libraries read it when they are loaded
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **dict.fromkeys(commands.THREADS, "1")})
    main()
