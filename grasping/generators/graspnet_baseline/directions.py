"""Approach directions and the rotations made of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def approach_views(count: int) -> Tensor:
    """Directions spread evenly over the sphere: a Fibonacci lattice (González, 2010), as the published labels have it.

    Returns:
        ``(count, 3)`` float32 unit vectors, from the bottom to the top.
    """
    number = torch.arange(count, dtype=torch.float64)
    turn = 2 * math.pi * number * (math.sqrt(5) - 1) / 2
    z = (2 * number + 1) / count - 1
    radius = torch.sqrt(1 - z * z)
    return torch.stack([radius * torch.cos(turn), radius * torch.sin(turn), z], dim=1).float()


def rotations(approach: Tensor, angle: Tensor) -> Tensor:
    """The gripper's axes for an approach direction and an angle about it.

    At angle 0 the closing axis is level in the camera's xy plane: ``(-a_y, a_x, 0)``, or the y axis where the approach
    is along z.

    Args:
        approach: ``(..., 3)``, of any length but 0.
        angle: ``(...,)`` radians, about the approach axis.

    Returns:
        ``(..., 3, 3)``, columns approach, closing and height axis.
    """
    x, y = approach[..., 0], approach[..., 1]
    level = (x == 0) & (y == 0)
    zero = torch.zeros_like(x)
    closing = torch.stack([-y, torch.where(level, torch.ones_like(x), x), zero], dim=-1)
    approach = approach / torch.linalg.vector_norm(approach, dim=-1, keepdim=True)
    closing = closing / torch.linalg.vector_norm(closing, dim=-1, keepdim=True)
    height = torch.linalg.cross(approach, closing)
    cosine, sine = torch.cos(angle)[..., None], torch.sin(angle)[..., None]
    return torch.stack([approach, closing * cosine + height * sine, height * cosine - closing * sine], dim=-1)
