"""Surface normals of unorganised clouds."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree


@njit(cache=True)
def _local_planes(
    points: NDArray[np.float64], index: NDArray[np.int64], distance: NDArray[np.float64], radius: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Least axis and surface variation of each point's neighbours, by cyclic Jacobi rotations."""
    n, k = index.shape
    normals = np.zeros((n, 3))
    variation = np.zeros(n)
    A = np.empty((3, 3))
    V = np.empty((3, 3))
    for i in range(n):
        count = 0
        mean = np.zeros(3)
        for j in range(k):
            if distance[i, j] <= radius:
                count += 1
                for a in range(3):
                    mean[a] += points[index[i, j], a]
        if count < 3:
            continue
        mean /= count
        A[:] = 0.0
        for j in range(k):
            if distance[i, j] <= radius:
                for a in range(3):
                    for b in range(a, 3):
                        A[a, b] += (points[index[i, j], a] - mean[a]) * (points[index[i, j], b] - mean[b])
        A[1, 0], A[2, 0], A[2, 1] = A[0, 1], A[0, 2], A[1, 2]
        trace = A[0, 0] + A[1, 1] + A[2, 2]
        if not trace > 0.0:
            continue
        A /= trace
        V[:] = 0.0
        for a in range(3):
            V[a, a] = 1.0
        for _ in range(12):
            if A[0, 1] ** 2 + A[0, 2] ** 2 + A[1, 2] ** 2 < 1e-24:
                break
            for a in range(2):
                for b in range(a + 1, 3):
                    if A[a, b] == 0.0:
                        continue
                    theta = (A[b, b] - A[a, a]) / (2.0 * A[a, b])
                    t = 1.0 / (abs(theta) + np.sqrt(theta * theta + 1.0))
                    if theta < 0.0:
                        t = -t
                    c = 1.0 / np.sqrt(t * t + 1.0)
                    s = t * c
                    for m in range(3):
                        A[m, a], A[m, b] = c * A[m, a] - s * A[m, b], s * A[m, a] + c * A[m, b]
                    for m in range(3):
                        A[a, m], A[b, m] = c * A[a, m] - s * A[b, m], s * A[a, m] + c * A[b, m]
                        V[m, a], V[m, b] = c * V[m, a] - s * V[m, b], s * V[m, a] + c * V[m, b]
        least = 0
        for a in range(1, 3):
            if A[a, a] < A[least, least]:
                least = a
        middle = 1.0 - A[least, least]
        for a in range(3):
            if a != least and A[a, a] < middle:
                middle = A[a, a]
        if middle < 1e-6:  # neighbours on one line: every direction across it is as good
            continue
        variation[i] = max(A[least, least], 0.0)
        for a in range(3):
            normals[i, a] = V[a, least]
    return normals, variation


def estimate_normals(
    points: ArrayLike, neighbours: int = 20, radius: float = 0.012
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit a plane to each point's neighbours (Hoppe et al., *Surface reconstruction from unorganized points*, 1992).

    Args:
        points: ``(N, 3)`` finite, metres.
        neighbours: at most this many nearest points, the point itself among them.
        radius: and none farther than this, metres.

    Returns:
        ``(N, 3)`` unit normals of arbitrary sign, zero where fewer than three neighbours or only collinear ones
        were found; and ``(N,)`` the surface variation, the least eigenvalue's share of the neighbours' variance:
        0 on a plane, up to 1/3 in a ball of noise.
    """
    p = np.ascontiguousarray(np.asarray(points, dtype=np.float64).reshape(-1, 3))
    k = min(neighbours, len(p))
    if k < 3:
        return np.zeros((len(p), 3)), np.zeros(len(p))
    distance, index = cKDTree(p).query(p, k=k)
    # Centred, so that a cloud a metre away keeps its digits.
    return _local_planes(p - p.mean(axis=0), index.astype(np.int64), distance, float(radius))


def orient_towards(points: ArrayLike, normals: ArrayLike, viewpoint: ArrayLike) -> NDArray[np.float64]:
    """Flip normals to face a viewpoint: outward on surfaces seen from there, and wrong on the far side of a closed one.

    Args:
        points: ``(N, 3)`` metres.
        normals: ``(N, 3)``.
        viewpoint: ``(3,)`` metres, in the same frame.

    Returns:
        ``(N, 3)`` float64 normals with ``normal · (viewpoint - point) >= 0``.
    """
    p = np.asarray(points, dtype=np.float64).reshape(-1, 3)
    n = np.asarray(normals, dtype=np.float64).reshape(-1, 3)
    away = np.einsum("ij,ij->i", n, np.asarray(viewpoint, dtype=np.float64) - p) < 0
    return np.where(away[:, None], -n, n)
