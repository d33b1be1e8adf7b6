"""Point operators shared by datasets, completer and networks."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def gather_points(points: Tensor, index: Tensor) -> Tensor:
    """Pick points by index, per cloud.

    Args:
        points: ``(B, N, C)``.
        index: ``(B, M)`` int64 into N.

    Returns:
        ``(B, M, C)``, differentiable with respect to ``points``.
    """
    return torch.gather(points, 1, index.unsqueeze(-1).expand(-1, -1, points.shape[-1]))


def sample_indices(available: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw ``count`` indices below ``available``, as evenly as a random draw can.

    Without replacement while there are enough; a smaller cloud is used whole, and only the rest is drawn again.

    Returns:
        ``(count,)`` int64.
    """
    if available < 1:
        raise ValueError("cannot sample from a cloud without points")
    if available >= count:
        return rng.permutation(available)[:count].astype(np.int64)
    return np.concatenate([np.arange(available), rng.integers(0, available, count - available)]).astype(np.int64)
