"""Chamfer distances (CD): mean L1, mean squared, and with the target's side weighted."""

from __future__ import annotations

from torch import Tensor

from completion.losses.precision import at_least_float32
from completion.losses.reduction import Mask, masked_mean
from completion.nearest import nearest_neighbours


def cd_l1(prediction: Tensor, target: Tensor, *, prediction_mask: Mask = None, target_mask: Mask = None) -> Tensor:
    """Chamfer distance, ½(mean d_a + mean d_b); PoinTr's ChamferDistanceL1, MVP's cd_p. Returns ``(B,)``."""
    near = nearest_neighbours(*at_least_float32(prediction, target), prediction_mask, target_mask)
    return 0.5 * (masked_mean(near.dist_a, prediction_mask) + masked_mean(near.dist_b, target_mask))


def cd_l2(prediction: Tensor, target: Tensor, *, prediction_mask: Mask = None, target_mask: Mask = None) -> Tensor:
    """Squared Chamfer distance, mean d_a² + mean d_b², no ½; PoinTr's ChamferDistanceL2, MVP's cd_t: ``(B,)``."""
    near = nearest_neighbours(*at_least_float32(prediction, target), prediction_mask, target_mask)
    return masked_mean(near.dist_a.square(), prediction_mask) + masked_mean(near.dist_b.square(), target_mask)


def cd_asymmetric(
    prediction: Tensor,
    target: Tensor,
    *,
    weight: float = 1.2,
    prediction_mask: Mask = None,
    target_mask: Mask = None,
) -> Tensor:
    """Chamfer distance with the target's side weighted, mean d_a + weight · mean d_b. Returns ``(B,)``.

    The idea of the flexible-weighted Chamfer distance (arXiv 2505.14218), and the control that a comparison with
    :func:`qal` needs: QAL too weighs the target's side more.
    """
    near = nearest_neighbours(*at_least_float32(prediction, target), prediction_mask, target_mask)
    return masked_mean(near.dist_a, prediction_mask) + weight * masked_mean(near.dist_b, target_mask)
