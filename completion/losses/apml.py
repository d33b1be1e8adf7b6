"""APML, the adaptive probabilistic matching loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from completion.losses.padding import check_masks, without_padding
from completion.losses.precision import at_least_float32
from completion.losses.reduction import Mask
from completion.nearest import check_clouds

_MARGIN = 1e-8
# A round may part the scales of rows and columns a thousandfold; after so many they go into the plan itself.
_ABSORBED = 4


def apml(
    prediction: Tensor,
    target: Tensor,
    *,
    p_min: float = 0.8,
    rounds: int = 20,
    prediction_mask: Mask = None,
    target_mask: Mask = None,
) -> Tensor:
    """Adaptive probabilistic matching loss: Σ P ⊙ distances, with P a soft matching of all points to all (no gradient).

    The **sum** over a sample's pairs (P's columns sum to 1, so that it is some M times a mean distance); the released
    code (apm-loss/apml, ``src/loss/apml_loss.py``) then takes the batch's mean. Memory is B·N·M by nature: P and the
    distances are held until the backward pass, 134 MB each a sample at 2048 × 16384 in float32.

    Args:
        prediction: ``(B, N, 3)``.
        target: ``(B, M, 3)``.
        p_min: see :func:`soft_matching`.
        rounds: of Sinkhorn normalisation.
        prediction_mask, target_mask: ``(B, N)`` and ``(B, M)`` bool, False where a point is padding.

    Returns:
        ``(B,)``, float32 for half precision.
    """
    check_clouds(prediction, target)
    prediction, target = at_least_float32(prediction, target)
    check_masks((prediction, prediction_mask), (target, target_mask))
    prediction, target = without_padding(prediction, prediction_mask), without_padding(target, target_mask)
    distances = torch.cdist(prediction, target, compute_mode="donot_use_mm_for_euclid_dist")
    return (soft_matching(distances, p_min, rounds, prediction_mask, target_mask) * distances).sum(dim=(1, 2))


@torch.no_grad()
def soft_matching(
    distances: Tensor,
    p_min: float = 0.8,
    rounds: int = 20,
    prediction_mask: Mask = None,
    target_mask: Mask = None,
) -> Tensor:
    """P: the mean of a soft-min along rows and one along columns, then Sinkhorn, rows first.

    A soft-min's temperature is solved for, row by row, so that the least distance has at least the probability
    ``p_min`` (1/(2 − p_min) if all others are as far as the second) whatever the gap to the second. Where the two are
    equal, the whole row is made even, as released.

    Args:
        distances: ``(B, N, M)``; a sample at a time is worked on, at some four times its size.
        p_min: between 0 and 1.
        rounds: of Sinkhorn normalisation.
        prediction_mask, target_mask: ``(B, N)`` and ``(B, M)`` bool; padding gets P = 0.

    Returns:
        ``(B, N, M)``.

    Raises:
        ValueError: on a p_min outside (0, 1).
    """
    if not 0 < p_min < 1:
        raise ValueError(f"p_min is a probability between 0 and 1, got {p_min}")
    plan = torch.empty_like(distances)
    with torch.autocast(distances.device.type, enabled=False):  # it would multiply in half precision
        for b, table in enumerate(distances):
            rows = None if prediction_mask is None else prediction_mask[b]
            columns = None if target_mask is None else target_mask[b]
            by_row, by_column = _soft_min(table, columns, p_min), _soft_min(table.T, rows, p_min).T
            plan[b] = _sinkhorn(by_row, by_column, rounds, rows, columns)
    return plan


def _soft_min(table: Tensor, valid: Mask, p_min: float) -> Tensor:
    """Row by row over the ``valid (M,)`` columns of ``table (N, M)``."""
    count = table.shape[1] if valid is None else int(valid.sum())
    if valid is not None:
        table = table.masked_fill(~valid, torch.inf)
    if count < 2:
        return torch.isfinite(table).to(table.dtype)
    least = torch.topk(table, 2, dim=1, largest=False, sorted=True).values
    gap = least[:, 1:] - least[:, :1]
    steepness = -math.log((1 - p_min) / (count - 1)) / (gap + _MARGIN)
    weight = torch.exp((least[:, :1] - table) * steepness)
    even = torch.ones_like(weight[:1]) if valid is None else valid.to(weight.dtype)[None]
    weight = torch.where(gap == 0, even, weight)
    return weight / weight.sum(dim=1, keepdim=True)


def _sinkhorn(one: Tensor, other: Tensor, rounds: int, rows: Mask, columns: Mask) -> Tensor:
    """Normalise rows, then columns, in turn; kept as two scaling vectors, which is the same product by product."""
    plan = 0.5 * (one + other)
    if rows is not None:
        plan = torch.where(rows[:, None], plan, 0.0)
    if columns is not None:
        plan = torch.where(columns, plan, 0.0)
    left, right = plan.new_ones(plan.shape[0]), plan.new_ones(plan.shape[1])
    for done in range(1, rounds + 1):
        left = left / (left * (plan @ right) + _MARGIN)
        left = left if rows is None else torch.where(rows, left, 0.0)
        right = right / (right * (left @ plan) + _MARGIN)
        right = right if columns is None else torch.where(columns, right, 0.0)
        # Where one cloud has many times the other's points every round moves that factor from left to right, beyond
        # float32's range. The plan and all that follows depend on their product alone.
        excess = right.max()
        left, right = left * excess, right / excess
        if done % _ABSORBED == 0:
            plan = plan * left[:, None] * right
            left, right = torch.ones_like(left), torch.ones_like(right)
    return plan * left[:, None] * right
