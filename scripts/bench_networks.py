"""What point operators and a training step of each network cost: python scripts/bench_networks.py [--json]

One core, CPU time, medians over rounds. Point operators stand beside their own torch path and a public library at the
same work, and their choices are compared in the same run. Networks are narrow versions of about a million parameters,
512 points in and 2048 out, batch 16; a step is forward, a mean of squares on every stage, backward, and Adam, so that
the loss does not enter.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import open3d as o3d
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from completion import points as operators
from completion.networks import NETWORKS
from completion.points import farthest_points, knn

ENCODER = {"encoder_channels": (64, 128, 256, 512)}
NARROW: dict[str, dict[str, Any]] = {
    "pcn": {**ENCODER, "num_coarse": 512, "grid": 2, "decoder_channels": 384, "folding_channels": 128},
    "topnet": {**ENCODER, "output_points": 2048},
    "foldingnet": {**ENCODER, "output_points": 2048, "folding_channels": 128},
    "ecg": {
        **ENCODER,
        "output_points": 2048,
        "num_coarse": 512,
        "input_points": 512,
        "decoder_channels": 384,
        "hierarchy": (512, 128, 32),
        "growth": 12,
        "neighbours": 8,
        "code_channels": (512, 256),
        "up_channels": (256, 192, 128, 64),
        "head_channels": 32,
    },
}


def median_seconds(function: Callable[[], Any], rounds: int) -> float:
    function()
    times = []
    for _ in range(rounds):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return statistics.median(times)


def open3d_farthest(clouds: Tensor, count: int) -> list[np.ndarray]:
    made = []
    for cloud in clouds.numpy():
        shape = o3d.t.geometry.PointCloud(o3d.core.Tensor.from_numpy(cloud))
        made.append(shape.farthest_point_down_sample(count).point.positions.numpy())
    return made


def scipy_neighbours(clouds: Tensor, k: int) -> np.ndarray:
    return np.stack([cKDTree(cloud).query(cloud, k)[1] for cloud in clouds.numpy()])


def bench_operators(rounds: int) -> dict[str, Any]:
    """Seconds of ours, of the torch path and of the peer, and whether all chose alike."""
    clouds = torch.rand(16, 2048, 3, generator=torch.Generator().manual_seed(0))
    cases: dict[str, tuple[Callable[[], Tensor], str, Callable[[], Any]]] = {
        "farthest 16 x 2048 -> 512": (
            lambda: farthest_points(clouds, 512),
            "open3d farthest_point_down_sample",
            lambda: open3d_farthest(clouds, 512),
        ),
        "16 neighbours 16 x 2048": (
            lambda: knn(clouds, clouds, 16),
            "scipy cKDTree",
            lambda: scipy_neighbours(clouds, 16),
        ),
    }
    result = {}
    for name, (ours, peer_name, peer) in cases.items():
        seconds = median_seconds(ours, rounds)
        with mock.patch.object(operators, "_kernels", lambda: None):
            plain, same = median_seconds(ours, 1), ours()
        theirs = peer()
        if isinstance(theirs, list):  # points, in the cloud's order there
            picked = operators.gather_points(clouds, ours()).numpy()
            alike = [set(map(tuple, a)) == set(map(tuple, b)) for a, b in zip(theirs, picked, strict=True)]
            agreement = float(np.mean(alike))
        else:
            agreement = float((theirs == ours().numpy()).mean())
        result[name] = {
            "seconds": seconds,
            "torch_path_ratio": plain / seconds,
            "torch_path_chooses_alike": bool(torch.equal(same, ours())),
            "peer": peer_name,
            "peer_ratio": median_seconds(peer, rounds) / seconds,
            "peer_agreement": agreement,
        }
    return result


def bench_networks(rounds: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    partial = torch.rand(16, 512, 3, generator=generator) - 0.5
    result = {}
    for name, parameters in NARROW.items():
        torch.manual_seed(0)
        net = NETWORKS[name](**parameters)
        optimiser = torch.optim.Adam(net.parameters())

        def step(net: Any = net, optimiser: Any = optimiser) -> None:
            loss = torch.stack([stage.square().mean() for stage in net(partial).stages]).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

        count = sum(value.numel() for value in net.parameters())
        result[name] = {"parameters": count, "seconds_a_step": median_seconds(step, rounds)}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    figures = {"operators": bench_operators(arguments.rounds), "networks": bench_networks(arguments.rounds)}
    if arguments.json:
        print(json.dumps(figures, indent=2))
        return
    for name, row in figures["operators"].items():
        print(
            f"{name:28} {1e3 * row['seconds']:7.1f} ms; torch path {row['torch_path_ratio']:.1f} times that "
            f"(same choices: {row['torch_path_chooses_alike']}), {row['peer']} {row['peer_ratio']:.1f} times "
            f"(agreement {row['peer_agreement']:.4f})"
        )
    for name, row in figures["networks"].items():
        print(f"{name:28} {row['parameters']:>9,} parameters {row['seconds_a_step']:7.3f} s a step")


if __name__ == "__main__":
    main()
