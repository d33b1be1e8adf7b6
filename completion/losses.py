"""Losses between clouds: pure functions ``(prediction (B, N, 3), target (B, M, 3), **parameters) -> (B,)``.

Notation: d_a is the **unsquared** distance from each predicted point to its nearest target point, d_b from each target
point to its nearest prediction. Both are in the unit of the clouds (in training, the network frame, where the partial
observation has a diagonal of 1). Losses are not brought to one scale: at the same distances ``cd_l1`` is half of
``cd_asymmetric`` at weight 1, and ``qal`` is a little above twice ``cd_l1``. Every gradient is finite, also at
coincident points.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from completion.nearest import Neighbours, nearest_neighbours

Loss = Callable[..., Tensor]


def cd_l1(prediction: Tensor, target: Tensor) -> Tensor:
    """Chamfer distance, ½(mean d_a + mean d_b); PoinTr's ChamferDistanceL1, MVP's cd_p. Returns ``(B,)``."""
    near = nearest_neighbours(prediction, target)
    return 0.5 * (near.dist_a.mean(dim=1) + near.dist_b.mean(dim=1))


def cd_l2(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared Chamfer distance, mean d_a² + mean d_b², no ½; PoinTr's ChamferDistanceL2, MVP's cd_t: ``(B,)``."""
    near = nearest_neighbours(prediction, target)
    return near.dist_a.square().mean(dim=1) + near.dist_b.square().mean(dim=1)


def cd_asymmetric(prediction: Tensor, target: Tensor, *, weight: float = 1.2) -> Tensor:
    """Chamfer distance with the target's side weighted, mean d_a + weight · mean d_b. Returns ``(B,)``.

    The idea of the flexible-weighted Chamfer distance (arXiv 2505.14218), and the control that a comparison with
    :func:`qal` needs: QAL too weighs the target's side more.
    """
    near = nearest_neighbours(prediction, target)
    return near.dist_a.mean(dim=1) + weight * near.dist_b.mean(dim=1)


def qal(
    prediction: Tensor, target: Tensor, *, epsilon: float = 0.001, omega: float = 10.0, lambda_attr: float = 1.0
) -> Tensor:
    """Quality-aware loss (arXiv 2511.17824): coverage-weighted distances plus an attraction to uncovered targets.

    With σ(d) = sigmoid(ω(ε − d)) and w(d) = 1 − (σ(d) − ½)::

        L_cov  = mean_a[w(d_a)·d_a] + mean_b[w(d_b)·d_b]
        L_attr = mean over all M target points of m(b)·σ(d_b)·d_b
        L      = L_cov + lambda_attr · L_attr

    m(b) is 1 for a target point that is the nearest target of no prediction (by assignment, no threshold); it carries
    no gradient, everything else does. The factor σ in L_attr is in the authors' code, not in their summary.

    Args:
        prediction: ``(B, N, 3)``.
        target: ``(B, M, 3)``.
        epsilon: margin ε, in the unit of the clouds.
        omega: steepness ω, per unit.
        lambda_attr: weight of the attraction.

    Returns:
        ``(B,)``.
    """
    near = nearest_neighbours(prediction, target)
    sigma_a = torch.sigmoid(omega * (epsilon - near.dist_a))
    sigma_b = torch.sigmoid(omega * (epsilon - near.dist_b))
    coverage = ((1.5 - sigma_a) * near.dist_a).mean(dim=1) + ((1.5 - sigma_b) * near.dist_b).mean(dim=1)
    attraction = (uncovered(near) * sigma_b * near.dist_b).mean(dim=1)
    return coverage + lambda_attr * attraction


def uncovered(near: Neighbours) -> Tensor:
    """``(B, M)``: 1 where a point of b is the nearest of no point of a, else 0; without gradient."""
    mask = torch.ones_like(near.dist_b, requires_grad=False)
    return mask.scatter_(1, near.index_a, 0.0)


LOSSES: dict[str, Loss] = {"cd_l1": cd_l1, "cd_l2": cd_l2, "cd_asymmetric": cd_asymmetric, "qal": qal}
