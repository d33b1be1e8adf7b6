"""Losses never compute in half precision: distances of neighbours need more bits than coordinates."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both clouds, in float32 where they came in bfloat16 or float16; gradients go back in the clouds' own type."""
    half = (torch.float16, torch.bfloat16)
    return (
        prediction.float() if prediction.dtype in half else prediction,
        target.float() if target.dtype in half else target,
    )
