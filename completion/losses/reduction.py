"""Means over the points of a cloud, some of which may be padding."""

from __future__ import annotations

from torch import Tensor

Mask = Tensor | None


def masked_mean(values: Tensor, mask: Mask = None) -> Tensor:
    """Mean over dim 1 of ``values (B, N)``, or of those where ``mask (B, N)`` bool is True; ``(B,)``."""
    if mask is None:
        return values.mean(dim=1)
    weight = mask.to(values.dtype)
    return (values * weight).sum(dim=1) / weight.sum(dim=1)
