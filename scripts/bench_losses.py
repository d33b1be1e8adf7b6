"""Nearest neighbours and losses beside their peers: torch.cdist, scipy, small_gicp, open3d; CD beside QAL.

    python scripts/bench_losses.py                # about ten minutes on two cores, a table
    python scripts/bench_losses.py --json         # the figures alone, as JSON
    python scripts/bench_losses.py --quick        # the same on very little: does it run?

Ratios are of CPU time on one core (all contestants held to it, in turns, medians), which is what survives a busy
machine; wall time on all cores stands beside. Peers that are not installed are left out and named. On CUDA our kernel
stands beside our tiled path and the compiled extensions that can be imported.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

_CONFIG = Path(__file__).resolve().parents[1] / "configs" / "training" / "pcn_cd.yaml"
_KINDS = ("near", "blob", "shifted", "sphere")
_PACKAGES = ("torch", "numpy", "numba", "scipy", "small_gicp", "open3d", "triton")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, nothing else")
    parser.add_argument("--quick", action="store_true", help="very little of everything")
    parser.add_argument("--part", choices=["one", "all"], help=argparse.SUPPRESS)  # one core, or all: a process each
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(_part(arguments.part, arguments.quick)))
        return
    figures = bench(arguments.quick)
    print(json.dumps(figures, indent=1) if arguments.json else "\n".join(table(figures)))


def bench(quick: bool) -> dict[str, Any]:
    """Measure everything, on one core and then on all of them."""
    machine, before = _machine(), os.getloadavg()[0]
    one, all_ = (_process(part, quick) for part in ("one", "all"))
    small, large = one["cdist"]
    return {
        "qal_over_cd": one["losses"][0]["qal_over_cd"],
        "qal_over_cd_16384": one["losses"][1]["qal_over_cd"],
        "qal_step_over_cd_step": one["steps"][0]["qal_step_over_cd_step"],
        "qal_step_over_cd_step_16384": one["steps"][1]["qal_step_over_cd_step"],
        "qal_step_over_cd_step_by_parts": one["steps"][0]["qal_step_over_cd_step_by_parts"],
        "qal_step_over_cd_step_16384_by_parts": one["steps"][1]["qal_step_over_cd_step_by_parts"],
        "nearest_cpu_ratio": small["ratio"],
        "nearest_cpu_ratio_16384": large["ratio"],
        "ours_over_best_peer_at_worst": max((row["ours_over_best_peer"] or 0.0) for row in one["trees"]),
        "machine": {**machine, "load_before": before, "load_after": os.getloadavg()[0]},
        "quick": quick,
        "one_core": one,
        "all_cores": all_,
    }


def _process(part: str, quick: bool) -> dict[str, Any]:
    """A process of its own: libraries start as many threads as they see cores."""
    command = [sys.executable, __file__, "--part", part, *(["--quick"] if quick else [])]
    environment = {**os.environ, **({"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"} if part == "one" else {})}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"bench_losses: the part '{part}' failed, see above")
    return json.loads(done.stdout.splitlines()[-1])


def _part(part: str, quick: bool) -> dict[str, Any]:
    cores = sorted(os.sched_getaffinity(0))
    threads = 1 if part == "one" else len(cores)
    os.sched_setaffinity(0, cores[:threads])
    import bench_losses_parts as parts
    import torch
    import yaml

    torch.set_num_threads(threads)
    shapes = [(2, 256, 2), (1, 512, 1)] if quick else [(32, 2048, 32), (8, 16384, 1)]
    rounds = 2 if quick else 7
    network = yaml.safe_load(_CONFIG.read_text(encoding="utf-8"))
    narrow, inputs = network["network"], network["input_points"]
    wide = {"name": "pcn", "parameters": {**narrow["parameters"], "num_coarse": 1024, "grid": 4}}
    figures: dict[str, Any] = {"threads": threads}
    figures["cdist"] = [parts.against_cdist(*shape, rounds=2 if quick else 3) for shape in shapes]
    figures["trees"] = [
        parts.against_trees(batch, points, kind, threads, 2 if quick else 3)
        for batch, points, _ in shapes
        for kind in _KINDS
    ]
    figures["losses"] = [parts.losses(batch, points, 3 * rounds) for batch, points, _ in shapes]
    if part == "one":
        figures["arithmetic"] = [parts.arithmetic(*shape[:2], kind, rounds) for shape in shapes for kind in _KINDS]
        if quick:
            tiny = {"num_coarse": 64, "grid": 2, "encoder_channels": [8, 12, 16, 20], "decoder_channels": 16}
            runs = [({"name": "pcn", "parameters": {**tiny, "folding_channels": 12}}, 2)] * 2
        else:
            runs = [(narrow, network["batch_size"]), (wide, 4)]
        figures["steps"] = [parts.steps(one, batch, inputs if not quick else 64, rounds) for one, batch in runs]
    else:
        figures["cuda"] = [parts.cuda(batch, points, rounds) for batch, points, _ in shapes]
    return figures


def _machine() -> dict[str, Any]:
    name = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "processor": name,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": versions,
    }


def table(figures: dict[str, Any]) -> list[str]:
    """The figures as lines of text."""
    machine, one, every = figures["machine"], figures["one_core"], figures["all_cores"]
    versions = ", ".join(f"{name} {version or 'not installed'}" for name, version in machine["versions"].items())
    lines = [
        f"{machine['cores']} cores, {machine['processor']}; Python {machine['python']}, {versions}; "
        f"load {machine['load_before']:.2f} before, {machine['load_after']:.2f} after",
        "",
        f"{'milliseconds: CPU, one core | wall, ' + str(every['threads']) + ' cores':<58}ours       peer      ratio",
    ]
    for k, row in enumerate(one["cdist"]):
        wide = every["cdist"][k]
        lines += [
            f"  search + backward {_shape(row)}, torch.cdist{'':<9}{_pair(row['ms'], 'ours', 'cdist', 'cpu')}"
            f"  {row['ratio']:6.0f}x | {_pair(wide['ms'], 'ours', 'cdist', 'wall')}  {wide['ratio_wall']:6.0f}x",
            f"    cdist on {row['cdist_measured_on_samples']} samples, extrapolated: {row['cdist_extrapolated']}; its "
            f"matrix {row['cdist_matrix_mib']:.0f} MiB, our call adds {row['ours_second_call_adds_mib']:.1f} MiB",
        ]
    lines += ["", "search alone, both ways, ms     " + "".join(f"{name:>12}" for name in _contestants(one["trees"]))]
    for k, row in enumerate(one["trees"]):
        for label, rows, clock, ratio in (
            ("one core, CPU", one, "cpu", "ours_over_best_peer"),
            (f"{every['threads']} cores, wall", every, "wall", "ours_over_best_peer_wall"),
        ):
            now = rows["trees"][k]
            numbers = "".join(
                f"{now['ms'][name][clock]:12.1f}" if name in now["ms"] else f"{'-':>12}"
                for name in _contestants(one["trees"])
            )
            best = f"ours / best {now[ratio]:.2f}" if now[ratio] else "no peer"
            lines.append(f"  {_shape(row):<19}{row['kind']:<9}{label:<15}{numbers}   {best}")
    lines += ["", "distance from the machine's arithmetic, one core"]
    for row in one["arithmetic"]:
        lines.append(
            f"  {_shape(row):<19}{row['kind']:<9}{row['distances'] / 1e6:8.1f} M distances "
            f"({100 * row['share_of_brute_force_both_ways']:.1f} % of brute force both ways), peak "
            f"{row['peak_gflops']:.0f} GFLOP/s: floor {row['floor_of_these_distances_ms']:.2f} ms, we are "
            f"{row['times_above_floor']:.1f} x above (brute force in one pass: "
            f"{row['floor_of_brute_force_in_one_pass_ms']:.1f} ms, {row['times_above_floor_of_brute_force']:.2f} x)"
        )
    lines += ["", "QAL beside CD-L1, CPU ms, one core"]
    for row in one["losses"]:
        lines.append(
            f"  loss alone {_shape(row):<18}{row['ms']['cd_l1']['cpu']:9.1f}{row['ms']['qal']['cpu']:9.1f}"
            f"   {row['qal_over_cd']:.3f}"
        )
    for row in one["steps"]:
        batch, inputs, points = row["shape"]
        lines.append(
            f"  step, {row['network']} {batch} x {inputs} -> {points:<7}{row['ms']['cd_l1']['cpu']:9.1f}"
            f"{row['ms']['qal']['cpu']:9.1f}   {row['qal_step_over_cd_step']:.4f}"
            f"   by parts {row['qal_step_over_cd_step_by_parts']:.4f}"
        )
    lines += ["", *(f"CUDA: {json.dumps(row)}" for row in every["cuda"])]
    return lines


def _shape(row: dict[str, Any]) -> str:
    return f"({', '.join(str(size) for size in row['shape'])})"


def _pair(times: dict[str, Any], ours: str, peer: str, clock: str) -> str:
    return f"{times[ours][clock]:9.1f}{times[peer][clock]:11.1f}"


def _contestants(rows: list[dict[str, Any]]) -> list[str]:
    return list(rows[0]["ms"])


if __name__ == "__main__":
    main()
