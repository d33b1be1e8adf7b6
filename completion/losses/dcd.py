"""DCD, the density-aware Chamfer distance."""

from __future__ import annotations

import torch
from torch import Tensor

from completion.losses.precision import at_least_float32
from completion.losses.reduction import Mask, masked_mean
from completion.nearest import nearest_neighbours


def dcd(
    prediction: Tensor,
    target: Tensor,
    *,
    alpha: float = 1000.0,
    lam: float = 1.0,
    prediction_mask: Mask = None,
    target_mask: Mask = None,
) -> Tensor:
    """Density-aware Chamfer distance (Wu et al., NeurIPS 2021): bounded, and a neighbour shared by many counts less.

    As in wutong16/Density_aware_Chamfer_Distance (``utils_v2/model_utils.py``, ``calc_dcd`` without ``non_reg``).

    With n the number of points of one side that share a neighbour (detached) and r the ratio of the sizes, M/N on the
    target's side and N/M on the prediction's::

        L = ½ Σ_sides mean[1 − r · exp(−α d²) / (n^λ + 1e−6)]

    Args:
        prediction: ``(B, N, 3)``.
        target: ``(B, M, 3)``.
        alpha: per squared unit of the clouds; the authors evaluate with 1000 and train with 200 (PCN) or 40 (VRCNet).
        lam: exponent of the count; 1 to evaluate, 0.5 to train.
        prediction_mask, target_mask: ``(B, N)`` and ``(B, M)`` bool, False where a point is padding.

    Returns:
        ``(B,)``, float32 for half precision.
    """
    near = nearest_neighbours(*at_least_float32(prediction, target), prediction_mask, target_mask)
    n = prediction.shape[1] if prediction_mask is None else prediction_mask.sum(dim=1, keepdim=True)
    m = target.shape[1] if target_mask is None else target_mask.sum(dim=1, keepdim=True)
    side_a = _side(near.dist_a, near.index_a, target.shape[1], n / m, alpha, lam, prediction_mask)
    side_b = _side(near.dist_b, near.index_b, prediction.shape[1], m / n, alpha, lam, target_mask)
    return 0.5 * (side_a + side_b)


def _side(
    dist: Tensor, index: Tensor, others: int, ratio: Tensor | float, alpha: float, lam: float, mask: Mask
) -> Tensor:
    """One side: ``dist``, ``index (B, K)`` into the ``others`` points of the other cloud; ``(B,)``."""
    with torch.no_grad():
        ones = torch.ones_like(dist) if mask is None else mask.to(dist.dtype)
        sharing = torch.zeros(len(dist), others, dtype=dist.dtype, device=dist.device).scatter_add_(1, index, ones)
        weight = ratio / (sharing.gather(1, index).pow(lam) + 1e-6)
    return masked_mean(1 - weight * torch.exp(-alpha * dist.square()), mask)
