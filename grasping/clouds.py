"""Point-cloud operations in numpy."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

_WIDEST = 4096  # pixels from the image's middle; what lies farther aside is drawn at its border
_CELLS_A_POINT = 64  # more of them, and sorting the points is faster


def voxel_downsample(points: ArrayLike, size: float) -> NDArray[np.float32]:
    """Replace all points that share a voxel by their mean.

    Args:
        points: ``(N, 3)`` metres.
        size: voxel edge, metres; must be positive.

    Returns:
        ``(M, 3)`` float32, M <= N, ordered by voxel, so independent of the input's order but for rounding.
    """
    if size <= 0:
        raise ValueError(f"voxel size must be positive, got {size}")
    p = np.asarray(points, dtype=np.float64).reshape(-1, 3)
    if len(p) == 0:
        return np.zeros((0, 3), np.float32)
    axes = np.ascontiguousarray(p.T)  # several times faster than rows
    cells = np.floor(axes / size).astype(np.int64)
    cells -= cells.min(axis=1, keepdims=True)
    extent = cells.max(axis=1) + 1
    key = (cells[0] * extent[1] + cells[1]) * extent[2] + cells[2]
    voxel, counts = _numbered(key, extent)
    sums = np.stack([np.bincount(voxel, weights=axis) for axis in axes], axis=1)
    return (sums / counts[:, None]).astype(np.float32)


def _numbered(key: NDArray[np.int64], extent: NDArray[np.int64]) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
    """Number the voxels that have points, in the order of their keys: whose each of N points is, and how many each has.

    An object fills its box well enough that to mark the cells of the whole box is several times faster than to sort.
    """
    sides = [int(side) for side in extent]
    cells = math.prod(sides)
    if min(sides) < 1 or cells > _CELLS_A_POINT * len(key):  # or numbers too large to be counted
        _, voxel, counts = np.unique(key, return_inverse=True, return_counts=True)
        return voxel, counts
    taken = np.zeros(cells, np.bool_)
    taken[key] = True
    place = np.flatnonzero(taken)
    number = np.empty(cells, np.int32)
    number[place] = np.arange(len(place), dtype=np.int32)
    numbers = number[key]
    return numbers, np.bincount(numbers)


def backproject(depth: ArrayLike, intrinsics: ArrayLike) -> NDArray[np.float32]:
    """Turn a depth image into camera-frame points, one a pixel.

    Args:
        depth: ``(H, W)`` metres along the optical axis; 0 or NaN where the sensor saw nothing.
        intrinsics: ``(3, 3)`` pinhole matrix in pixels.

    Returns:
        ``(H, W, 3)`` float32 metres; pixels without a reading are NaN.
    """
    z = np.asarray(depth, dtype=np.float64)
    K = np.asarray(intrinsics, dtype=np.float64)
    z = np.where(np.isfinite(z) & (z > 0), z, np.nan)
    v, u = np.mgrid[: z.shape[0], : z.shape[1]]
    return np.stack([(u - K[0, 2]) / K[0, 0] * z, (v - K[1, 2]) / K[1, 1] * z, z], axis=-1).astype(np.float32)


def seen_from_origin(points: ArrayLike, pitch: float, behind: float) -> NDArray[np.bool_]:
    """Tell which points a camera at the origin would see, the others being hidden behind them.

    Points are drawn into an image, each over its pixel and the eight around it, and a point is seen where nothing is
    drawn nearer. So a cloud hides what lies behind it if its points are no farther apart than a pixel.

    Args:
        points: ``(N, 3)`` metres, camera frame (z away from it).
        pitch: a pixel's side at distance 1.
        behind: metres along z that a point may lie behind what is drawn at its pixel.

    Returns:
        ``(N,)`` bool; points that are not in front of the camera are not seen.
    """
    p = np.asarray(points, dtype=np.float64).reshape(-1, 3)
    seen = p[:, 2] > 0
    if not seen.any():
        return seen
    front = np.flatnonzero(seen)
    z = p[front, 2]
    pixel = np.floor(np.clip(p[front, :2] / z[:, None] / pitch, -_WIDEST, _WIDEST)).astype(np.int64)
    pixel -= pixel.min(axis=0) - 1  # an empty border, into which the outermost may be drawn
    rows = int(pixel[:, 0].max()) + 2
    columns = int(pixel[:, 1].max()) + 2
    place = pixel[:, 0] * columns + pixel[:, 1]
    nearest = np.full(rows * columns, np.inf)
    for step in (place + i * columns + j for i in (-1, 0, 1) for j in (-1, 0, 1)):
        np.minimum.at(nearest, step, z)
    seen[front] = z <= nearest[place] + behind
    return seen
