"""InfoCD, the contrastive Chamfer distance."""

from __future__ import annotations

import torch
from torch import Tensor

from completion.losses.precision import at_least_float32
from completion.losses.reduction import Mask
from completion.nearest import nearest_neighbours

_RATE = 0.5
_POWER = 1e-7
_FLOOR = 1e-7


def infocd(prediction: Tensor, target: Tensor, *, prediction_mask: Mask = None, target_mask: Mask = None) -> Tensor:
    """InfoCD (Lin et al., NeurIPS 2023) as released: **summed** over the points of both sides, times ½.

    Per point −log(exp(−½d) / (Σ_j (exp(−½d_j) + 1e-7))^1e-7), the sum over the points of the same side. The released
    code (Zhang-VISLab/NeurIPS2023-InfoCD, calc_cd_like_InfoV2) sums over the batch too; here a batch stays ``(B,)``. At
    that power the contrast is all but absent: the loss is ¼(Σ d_a + Σ d_b), half the mean of the two sides' sums,
    plus a constant, thousands of times ``cd_l1`` at the same direction. Its floor of 1e-9 under d² is left out: the
    distances' gradient is finite (zero) at coincident points anyway.

    Args:
        prediction: ``(B, N, 3)``.
        target: ``(B, M, 3)``.
        prediction_mask, target_mask: ``(B, N)`` and ``(B, M)`` bool, False where a point is padding.

    Returns:
        ``(B,)``, float32 for half precision.
    """
    near = nearest_neighbours(*at_least_float32(prediction, target), prediction_mask, target_mask)
    return 0.5 * (_side(near.dist_a, prediction_mask) + _side(near.dist_b, target_mask))


def _side(dist: Tensor, mask: Mask) -> Tensor:
    # The logarithm is taken apart: exp(−½d) of a far point would underflow and its logarithm with it.
    one = torch.ones_like(dist) if mask is None else mask.to(dist.dtype)
    crowd = ((torch.exp(-_RATE * dist) + _FLOOR) * one).sum(dim=1, keepdim=True)
    return ((_RATE * dist + _POWER * torch.log(crowd)) * one).sum(dim=1)
