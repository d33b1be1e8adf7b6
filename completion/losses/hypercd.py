"""HyperCD, the hyperbolic Chamfer distance."""

from __future__ import annotations

import torch
from torch import Tensor

from completion.losses.precision import at_least_float32
from completion.losses.reduction import Mask, masked_mean
from completion.nearest import nearest_neighbours

# The released code keeps arcosh's argument this far above 1, where its slope is infinite.
_LEAST = 1e-5


def hypercd(
    prediction: Tensor,
    target: Tensor,
    *,
    alpha: float = 1.0,
    prediction_mask: Mask = None,
    target_mask: Mask = None,
) -> Tensor:
    """Hyperbolic Chamfer distance (Lin et al., ICCV 2023): mean arcosh(1 + α d_a²) + mean arcosh(1 + α d_b²).

    As released (Zhang-VISLab/ICCV2023-HyperCD) the argument is at least 1 + 1e-5, so that a point nearer than √(1e-5/α)
    (0.0032 at α = 1) has no gradient and coincident clouds have a loss of 2 · arcosh(1 + 1e-5) = 0.0089. In between, up
    to d = 0.1, the released α = 1 is 2√2 times ``cd_l1``, to 0.3 % in gradient: on such clouds it is that control.

    Args:
        prediction: ``(B, N, 3)``.
        target: ``(B, M, 3)``.
        alpha: curvature, per squared unit of the clouds.
        prediction_mask, target_mask: ``(B, N)`` and ``(B, M)`` bool, False where a point is padding.

    Returns:
        ``(B,)``, float32 for half precision.
    """
    near = nearest_neighbours(*at_least_float32(prediction, target), prediction_mask, target_mask)
    side_a = masked_mean(_arcosh_above_one(alpha * near.dist_a.square()), prediction_mask)
    return side_a + masked_mean(_arcosh_above_one(alpha * near.dist_b.square()), target_mask)


def _arcosh_above_one(excess: Tensor) -> Tensor:
    """arcosh(1 + excess) without forming 1 + excess, which would round a small excess away in float32."""
    excess = excess.clamp_min(_LEAST)
    return torch.log1p(excess + torch.sqrt(excess * (excess + 2)))
