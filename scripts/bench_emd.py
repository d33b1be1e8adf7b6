"""Exact EMD: our auction beside scipy's assignment, on easy and on hard clouds, one thread, medians.

    python scripts/bench_emd.py [--points 512 1024 2048] [--repeats 3]

`far` of the optimum is the auction's mean distance minus scipy's; its bound is eps = 1e-5 of a cloud of size 1. The
last lines are the loss with MSN's settings for training, forward and backward.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment

from completion.losses import emd

EPS = 1e-5


def clouds(kind: str, points: int, batch: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Two clouds in the unit cube; ``collapsed`` is a prediction shrunk to a spot, as untrained networks answer."""
    generator = torch.Generator().manual_seed(points)
    a, b = (torch.rand(batch, points, 3, generator=generator) for _ in range(2))
    return (0.01 * a if kind == "collapsed" else a), b


def timed(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Median seconds of ``repeats`` calls and the last one's result."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), result


def by_scipy(a: torch.Tensor, b: torch.Tensor) -> float:
    """The optimum, from the whole table of distances."""
    table = torch.cdist(a[0].double(), b[0].double()).numpy()
    return float(table[linear_sum_assignment(table)].mean())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, nargs="+", default=[512, 1024, 2048])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    emd(*clouds("random", 8), eps=EPS, rounds=None), emd(*clouds("random", 8))  # compile
    print(f"{'clouds':10} {'points':>6} {'auction s':>10} {'scipy s':>10} {'ratio':>6} {'far':>9}")
    for kind in ("random", "collapsed"):
        for points in arguments.points:
            a, b = clouds(kind, points)
            ours, value = timed(lambda a=a, b=b: emd(a, b, eps=EPS, rounds=None), arguments.repeats)  # type: ignore[misc]
            theirs, best = timed(lambda a=a, b=b: by_scipy(a, b), arguments.repeats)  # type: ignore[misc]
            row = f"{ours:10.3f} {theirs:10.3f} {theirs / ours:6.1f} {value.item() - best:9.1e}"
            print(f"{kind:10} {points:6} {row}")
    for kind in ("random", "collapsed"):
        a, b = clouds(kind, 2048, batch=8)
        a.requires_grad_()
        seconds, _ = timed(lambda a=a, b=b: emd(a, b).sum().backward(), arguments.repeats)  # type: ignore[misc]
        print(f"training, {kind}: {seconds:.3f} s a batch of 8 x 2048 (eps 0.005, 50 rounds)")


if __name__ == "__main__":
    main()
