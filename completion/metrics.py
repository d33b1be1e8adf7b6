"""How good a completed cloud is, beside the true one.

With d_a from each predicted point to the nearest true one and d_b the other way (unsquared), and a threshold τ:

- coverage (recall) = share of true points with d_b <= τ
- precision = share of predicted points with d_a <= τ; spurious = 1 − precision
- F1 = harmonic mean of the two, per sample (0 where both are 0); average it afterwards
- CD-L1 = ½(mean d_a + mean d_b); CD-L2 = mean d_a² + mean d_b²

as in the QAL paper (arXiv 2511.17824). :func:`dcd` and :func:`emd` stand apart, so that nobody pays for them unasked;
benchmarks with conventions of their own are in :mod:`completion.benchmarks`.

Everything is in the caller's unit: a threshold means nothing without it. We print τ = 0.03 of the network frame (the
partial observation's diagonal is 1 there) and 5 mm beside it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from completion import losses
from completion.nearest import nearest_neighbours

NETWORK_THRESHOLD = 0.03  # network frame
METRIC_THRESHOLD = 0.005  # metres


class Metrics(NamedTuple):
    """One value per sample, ``(B,)`` each; distances in the caller's unit (CD-L2 in its square)."""

    coverage: Tensor
    precision: Tensor
    spurious: Tensor
    f1: Tensor
    cd_l1: Tensor
    cd_l2: Tensor


@torch.no_grad()
def metrics(prediction: Tensor, target: Tensor, threshold: float) -> Metrics:
    """Compare ``prediction (B, N, 3)`` with the truth ``target (B, M, 3)``; ``threshold`` τ in their unit.

    A prediction that is not finite has precision and coverage 0 there and NaN distances.
    """
    near = nearest_neighbours(prediction, target)
    return from_distances(near.dist_a, near.dist_b, threshold)


def from_distances(dist_a: Tensor, dist_b: Tensor, threshold: float) -> Metrics:
    """The same from nearest-neighbour distances ``(B, N)`` of the prediction and ``(B, M)`` of the truth.

    Distances scale with their unit, so that one search serves several units.
    """
    coverage = (dist_b <= threshold).to(dist_b.dtype).mean(dim=1)
    precision = (dist_a <= threshold).to(dist_a.dtype).mean(dim=1)
    return Metrics(
        coverage=coverage,
        precision=precision,
        spurious=1 - precision,
        f1=harmonic_mean(precision, coverage),
        cd_l1=0.5 * (dist_a.mean(dim=1) + dist_b.mean(dim=1)),
        cd_l2=dist_a.square().mean(dim=1) + dist_b.square().mean(dim=1),
    )


def harmonic_mean(precision: Tensor, recall: Tensor) -> Tensor:
    """F1 of two shares, 0 where both are 0."""
    both = precision + recall
    return torch.where(both > 0, 2 * recall * precision / both.clamp_min(torch.finfo(both.dtype).tiny), 0.0)


@torch.no_grad()
def dcd(prediction: Tensor, target: Tensor, alpha: float = 1000.0, lam: float = 1.0) -> Tensor:
    """Density-aware Chamfer distance as its authors evaluate, ``(B,)`` in [0, 1]; see :func:`completion.losses.dcd`.

    ``alpha`` is per squared unit: 1000 is meant for clouds whose diagonal is about 1.
    """
    return losses.dcd(prediction, target, alpha=alpha, lam=lam)


@torch.no_grad()
def emd(prediction: Tensor, target: Tensor, eps: float = 0.002, rounds: int | None = 10000) -> Tensor:
    """Earth mover's distance ``(B,)`` of clouds of equal size; see :func:`completion.losses.emd`.

    Defaults are MSN's for evaluation; VRCNet and MVP take ``eps=0.004, rounds=3000``. ``rounds=None`` is exact to
    within ``eps``: with ``eps=1e-5`` it takes seconds at 8,192 points on one core.

    Raises:
        ValueError: on clouds of different size: resample one.
    """
    return losses.emd(prediction, target, eps=eps, rounds=rounds)


def cloud_metrics(prediction: ArrayLike, target: ArrayLike, threshold: float = METRIC_THRESHOLD) -> dict[str, float]:
    """The same for one pair of plain arrays ``(N, 3)`` and ``(M, 3)``, as numbers by name."""
    one, other = (torch.as_tensor(cloud, dtype=torch.float32).reshape(1, -1, 3) for cloud in (prediction, target))
    return {name: float(value) for name, value in metrics(one, other, threshold)._asdict().items()}
