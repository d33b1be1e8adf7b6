"""Point-cloud operations in numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


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
    cells = np.floor(p / size).astype(np.int64)
    cells -= cells.min(axis=0)
    extent = cells.max(axis=0) + 1
    key = (cells[:, 0] * extent[1] + cells[:, 1]) * extent[2] + cells[:, 2]
    _, inverse, counts = np.unique(key, return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(inverse, weights=p[:, axis]) for axis in range(3)], axis=1)
    return (sums / counts[:, None]).astype(np.float32)


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
