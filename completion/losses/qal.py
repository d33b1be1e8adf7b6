"""QAL, the quality-aware loss."""

from __future__ import annotations

import torch
from torch import Tensor

from completion.losses.precision import at_least_float32
from completion.losses.reduction import Mask, masked_mean
from completion.nearest import Neighbours, nearest_neighbours


def qal(
    prediction: Tensor,
    target: Tensor,
    *,
    epsilon: float = 0.001,
    omega: float = 10.0,
    lambda_attr: float = 1.0,
    prediction_mask: Mask = None,
    target_mask: Mask = None,
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
        prediction_mask, target_mask: ``(B, N)`` and ``(B, M)`` bool, False where a point is padding.

    Returns:
        ``(B,)``.
    """
    near = nearest_neighbours(*at_least_float32(prediction, target), prediction_mask, target_mask)
    sigma_a = torch.sigmoid(omega * (epsilon - near.dist_a))
    sigma_b = torch.sigmoid(omega * (epsilon - near.dist_b))
    coverage = masked_mean((1.5 - sigma_a) * near.dist_a, prediction_mask)
    coverage = coverage + masked_mean((1.5 - sigma_b) * near.dist_b, target_mask)
    attraction = masked_mean(uncovered(near, prediction_mask) * sigma_b * near.dist_b, target_mask)
    return coverage + lambda_attr * attraction


def uncovered(near: Neighbours, prediction_mask: Mask = None) -> Tensor:
    """``(B, M)``: 1 where a point of b is the nearest of no (unpadded) point of a, else 0; without gradient."""
    mask = torch.ones_like(near.dist_b, requires_grad=False)
    if prediction_mask is None:
        return mask.scatter_(1, near.index_a, 0.0)
    # Padded predictions point at target 0 without covering it.
    covered = torch.zeros_like(mask).scatter_add_(1, near.index_a, prediction_mask.to(mask.dtype))
    return (covered == 0).to(mask.dtype)
