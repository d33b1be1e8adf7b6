"""How long GraspNet-baseline's network takes for a view of 20,000 points, part by part, and what memory it needs.

    python scripts/bench_graspnet_baseline.py [--weights FILE] [--json]

The cloud is a table with boxes on it, seen from above; weights are drawn by lot where none are given (then every seed
counts as lying on an object, which is the slowest case for what comes after the network). On a CUDA device batches of
views are timed as well. Beside the whole: its two searches by the compiled loops and by torch alone, the same indices.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch import Tensor

from completion import points as operators
from grasping.generators.graspnet_baseline import cylinder
from grasping.generators.graspnet_baseline.decode import decode
from grasping.generators.graspnet_baseline.network import GraspNetBaseline
from grasping.generators.graspnet_baseline.weights import load_network
from grasping.generators.model_free_collision import ModelFreeCollision

POINTS = 20_000


def view(seed: int, count: int = POINTS) -> Tensor:
    """``(count, 3)`` metres, camera frame: a table 0.6 m away, ten boxes on it, only what faces the camera."""
    rng = np.random.default_rng(seed)
    table = rng.uniform([-0.3, -0.2, 0.6], [0.3, 0.2, 0.6], (count, 3))
    for _ in range(10):
        centre, half = rng.uniform([-0.25, -0.15], [0.25, 0.15]), rng.uniform(0.015, 0.05, 2)
        on = np.all(np.abs(table[:, :2] - centre) < half, axis=1)
        table[on, 2] = 0.6 - rng.uniform(0.02, 0.12)
    return torch.from_numpy((table + rng.normal(0, 0.001, table.shape)).astype(np.float32))


def median_seconds(work: Callable[[], Any], repeats: int) -> float:
    work()
    times = []
    for _ in range(repeats):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def on_cpu(network: GraspNetBaseline, repeats: int) -> dict[str, Any]:
    result: dict[str, Any] = {"peak_mib_before": peak_mib()}
    cloud = view(0)[None]
    for threads in sorted({1, min(2, os.cpu_count() or 1)}):
        torch.set_num_threads(threads)
        result[f"network_s_{threads}_threads"] = median_seconds(lambda: network(cloud), repeats)
    predictions = network(cloud)
    ((grasps, _),) = decode(predictions)
    result["decode_s"] = median_seconds(lambda: decode(predictions), repeats)
    result["grasps"] = len(grasps)
    filter_ = ModelFreeCollision()
    result["collision_filter_s"] = median_seconds(lambda: filter_.collides(grasps, cloud[0].numpy()), repeats)
    result["peak_mib"] = peak_mib()
    return result | searches(cloud, predictions.seeds, repeats)


def searches(cloud: Tensor, seeds: Tensor, repeats: int) -> dict[str, Any]:
    """The searches of a view by the compiled loops, and by torch alone in the same run; the same indices."""
    axes = torch.eye(3).expand(1, seeds.shape[1], 3, 3).contiguous()
    parts: dict[str, Callable[[], Tensor]] = {
        "farthest_points": lambda: operators.farthest_points(cloud, 2048),
        "ball_query": lambda: operators.ball_query(cloud, seeds, 0.04, 64),
        "cylinder_query": lambda: cylinder.cylinder_query(
            cloud, seeds, axes, 0.05, -0.02, (0.01, 0.02, 0.03, 0.04), 64
        ),
    }
    result: dict[str, Any] = {}
    for name, work in parts.items():
        fast, found = median_seconds(work, repeats), work()
        kept = operators._kernels, cylinder._kernels
        operators._kernels = cylinder._kernels = lambda: None  # type: ignore[assignment]
        try:
            slow = median_seconds(work, repeats)
            assert torch.equal(work(), found), f"{name}: the two paths differ"
        finally:
            operators._kernels, cylinder._kernels = kept
        result[f"{name}_s"], result[f"{name}_torch_over_ours"] = fast, slow / fast
    return result


def on_gpu(network: GraspNetBaseline, repeats: int) -> dict[str, Any]:
    result: dict[str, Any] = {"device": torch.cuda.get_device_name()}
    network = network.to("cuda")
    for batch in (1, 4, 16):
        clouds = torch.stack([view(seed) for seed in range(batch)]).cuda()
        torch.cuda.reset_peak_memory_stats()
        seconds = median_seconds(functools.partial(_whole, network, clouds), repeats)
        result[f"views_per_s_batch_{batch}"] = batch / seconds
        result[f"peak_mib_batch_{batch}"] = torch.cuda.max_memory_allocated() / 2**20
    return result


def _whole(network: GraspNetBaseline, clouds: Tensor) -> Any:
    return decode(network(clouds))


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.manual_seed(0)
    network = load_network(given.weights) if given.weights else GraspNetBaseline()
    figures: dict[str, Any] = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "weights": given.weights.name if given.weights else "drawn by lot",
    }
    with torch.inference_mode():
        figures["cpu"] = on_cpu(network, given.repeats)
        if torch.cuda.is_available():
            figures["gpu"] = on_gpu(network, given.repeats)
    if given.json:
        print(json.dumps(figures, indent=1))
        return
    for part, values in figures.items():
        if not isinstance(values, dict):
            print(f"{part:<10} {values}")
            continue
        for name, value in values.items():
            print(f"{part:<10} {name:<32} {value if isinstance(value, str | int) else f'{value:.4g}'}")


if __name__ == "__main__":
    main()
