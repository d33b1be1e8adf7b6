"""EMD, the earth mover's distance."""

from __future__ import annotations

import torch
from torch import Tensor

from completion.losses.auction import auction
from completion.losses.precision import at_least_float32
from completion.losses.reduction import Mask, masked_mean
from completion.points import gather_points


def emd(
    prediction: Tensor,
    target: Tensor,
    *,
    eps: float = 0.005,
    rounds: int | None = 50,
    prediction_mask: Mask = None,
    target_mask: Mask = None,
) -> Tensor:
    """Earth mover's distance: the mean distance of the points to their partners in a one-to-one matching.

    The matching comes from an auction (:mod:`completion.losses.auction`) and carries no gradient; the distances do, in
    both clouds. Defaults are those that MSN (Liu et al., AAAI 2020; Colin97/MSN-Point-Cloud-Completion), VRCNet and MVP
    train with; they evaluate with eps 0.002 and 10,000 rounds (MSN) or 0.004 and 3,000 (VRCNet, MVP). Unlike there, any
    number of points will do, and the target gets its gradient too.

    Args:
        prediction: ``(B, N, 3)``.
        target: ``(B, N, 3)``, as many points.
        eps: the auction's increment, in the unit of the clouds.
        rounds: of simultaneous bids. Points without a partner after the last one share their favourite's, so that the
            result may be below the true distance. None runs to the end: then it exceeds the least possible mean by at
            most eps.
        prediction_mask, target_mask: ``(B, N)`` bool, False where a point is padding; as many True in both.

    Returns:
        ``(B,)``, float32 for half precision.

    Raises:
        ValueError: on clouds of different size.
    """
    prediction, target = at_least_float32(prediction, target)
    index = auction(prediction.detach(), target.detach(), eps, rounds, prediction_mask, target_mask)
    difference = prediction - gather_points(target, index)
    if prediction_mask is not None:
        # Before the norm: what stands in the padding must not reach the gradient.
        difference = torch.where(prediction_mask[..., None], difference, 0.0)
    return masked_mean(torch.linalg.vector_norm(difference, dim=-1), prediction_mask)
