"""Masks of clouds whose points are not all true: for losses that look at all pairs, not at nearest neighbours alone."""

from __future__ import annotations

import torch
from torch import Tensor

from completion.losses.reduction import Mask


def check_masks(*pairs: tuple[Tensor, Mask]) -> None:
    """Raise ValueError unless each cloud's mask is bool ``(B, N)`` and leaves it a point (or is None)."""
    for cloud, mask in pairs:
        if mask is None:
            continue
        if mask.shape != cloud.shape[:2] or mask.dtype != torch.bool:
            raise ValueError(f"a mask must be bool {tuple(cloud.shape[:2])}, got {mask.dtype} {tuple(mask.shape)}")
        if not bool(mask.any(dim=1).all()):
            raise ValueError("a cloud of padding alone has nothing to be matched with")


def without_padding(cloud: Tensor, mask: Mask) -> Tensor:
    """The cloud with zeros for padding, so that nothing of what stands there (NaN, say) reaches value or gradient."""
    return cloud if mask is None else torch.where(mask[..., None], cloud, 0.0)
