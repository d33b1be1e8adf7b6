"""Rigid transforms as ``(4, 4)`` float64 matrices."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


def transform_points(T_a_b: ArrayLike, points_b: ArrayLike) -> NDArray:
    """Take points from frame b to frame a.

    Args:
        T_a_b: ``(4, 4)`` rigid transform.
        points_b: ``(..., 3)`` points in frame b, metres.

    Returns:
        ``(..., 3)`` points in frame a, in the floating type of ``points_b`` (float64 for integers).
    """
    points = np.asarray(points_b)
    dtype = points.dtype if np.issubdtype(points.dtype, np.floating) else np.dtype(np.float64)
    T = np.asarray(T_a_b, dtype=np.float64)
    return (points.astype(np.float64) @ T[:3, :3].T + T[:3, 3]).astype(dtype)


def invert(T_a_b: ArrayLike) -> FloatArray:
    """Return ``T_b_a`` of a rigid ``(4, 4)`` transform, by transposing its rotation."""
    T = np.asarray(T_a_b, dtype=np.float64)
    inverse = np.eye(4)
    inverse[:3, :3] = T[:3, :3].T
    inverse[:3, 3] = -T[:3, :3].T @ T[:3, 3]
    return inverse


def pose(rotation: ArrayLike, translation: ArrayLike) -> FloatArray:
    """Build a ``(4, 4)`` transform from a ``(3, 3)`` rotation and a ``(3,)`` translation in metres."""
    T = np.eye(4)
    T[:3, :3] = np.asarray(rotation, dtype=np.float64)
    T[:3, 3] = np.asarray(translation, dtype=np.float64)
    return T
