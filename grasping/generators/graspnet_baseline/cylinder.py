"""Cylinder query: which points a gripper that approaches along an axis would have around it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from types import ModuleType

import torch
from torch import Tensor

# Pairs of centre and point that are looked at together: 16 MB a float32 tensor.
_BLOCK_PAIRS = 1 << 22


@torch.no_grad()
def cylinder_query(
    points: Tensor,
    centres: Tensor,
    axes: Tensor,
    radius: float,
    behind: float,
    ahead: Sequence[float],
    k: int,
) -> Tensor:
    """The first k points (in the cloud's order) in cylinders along each centre's first axis, one for each length.

    Args:
        points: ``(B, N, 3)``.
        centres: ``(B, S, 3)``.
        axes: ``(B, S, 3, 3)``, orthonormal columns; the cylinder lies along the first.
        radius, behind: of the open cylinder; it begins at ``behind`` (negative: before the centre).
        ahead: where it ends, ascending, one cylinder for each.
        k: group size; a cylinder with fewer points repeats its first one, an empty one gives point 0.

    Returns:
        ``(B, S, len(ahead), k)`` int64 into N.

    Raises:
        ValueError: on another shape, k below 1, or lengths that do not ascend.
    """
    batch, count = centres.shape[:2]
    if points.ndim != 3 or points.shape[2] != 3 or points.shape[1] == 0 or points.shape[0] != batch:
        raise ValueError(f"points must be (B = {batch}, N > 0, 3), got {tuple(points.shape)}")
    if axes.shape != (batch, count, 3, 3) or centres.shape[2:] != (3,):
        raise ValueError(f"centres and axes must be (B, S, 3) and (B, S, 3, 3), got {tuple(axes.shape)}")
    if k < 1 or not ahead or list(ahead) != sorted(ahead):
        raise ValueError(f"need k of at least 1 and lengths that ascend, got k = {k}, {list(ahead)}")
    index = torch.empty((batch, count, len(ahead), k), dtype=torch.int64, device=points.device)
    ends = torch.tensor(list(ahead), dtype=points.dtype, device=points.device)
    if points.device.type == "cpu" and points.dtype == torch.float32 and _kernels() is not None:
        compiled = _kernels()
        assert compiled is not None
        planes = points.transpose(1, 2).contiguous().numpy()
        limits = torch.tensor([radius * radius, behind], dtype=torch.float32).numpy()
        compiled.cylinders(
            planes, centres.contiguous().numpy(), axes.contiguous().numpy(), *limits, ends.numpy(), index.numpy()
        )
        return index
    rows = max(1, _BLOCK_PAIRS // points.shape[1])
    for b in range(batch):
        for start in range(0, count, rows):
            part = slice(start, start + rows)
            index[b, part] = _first_in_cylinders(points[b], centres[b, part], axes[b, part], radius, behind, ends, k)
    return index


def _first_in_cylinders(
    points: Tensor, centres: Tensor, axes: Tensor, radius: float, behind: float, ends: Tensor, k: int
) -> Tensor:
    """``(N, 3)``, ``(s, 3)``, ``(s, 3, 3)`` -> ``(s, D, k)``."""
    offset = [points[:, i] - centres[:, i, None] for i in range(3)]  # each (s, N)
    along, across, up = (
        offset[0] * axes[:, 0, i, None] + offset[1] * axes[:, 1, i, None] + offset[2] * axes[:, 2, i, None]
        for i in range(3)
    )
    inside = (across * across + up * up < radius * radius) & (along > behind) & (along < ends[-1])
    row, point = torch.nonzero(inside, as_tuple=True)  # by row, then in the cloud's order
    depth = along[row, point]
    out = []
    for end in ends:
        held = depth < end
        out.append(_first_of_rows(row[held], point[held], len(centres), k))
    return torch.stack(out, dim=1)


def _first_of_rows(row: Tensor, column: Tensor, rows: int, k: int) -> Tensor:
    """Sorted pairs of row and column -> the first k columns of each row ``(rows, k)``, filled with the first."""
    counts = torch.bincount(row, minlength=rows)
    place = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    index = torch.full((rows, k), -1, dtype=torch.int64, device=row.device)
    taken = place < k
    index[row[taken], place[taken]] = column[taken]
    return torch.where(index < 0, index[:, :1].clamp(min=0), index)


@lru_cache(maxsize=1)
def _kernels() -> ModuleType | None:
    """The numba path, or None where numba is not installed (a bare GPU machine)."""
    try:
        from grasping.generators.graspnet_baseline import _cylinder_numba
    except ImportError:
        return None
    return _cylinder_numba
