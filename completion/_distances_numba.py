"""Distances to given neighbours and their gradient, compiled: one pass each, without torch's temporary tensors.

Every result has the bits of the torch formulas in :mod:`completion.nearest` (on processors with fused multiply-add, as
torch's kernels are built for them): the same operations in the same order, so that a training run does not depend on
which of the two was used. Imported only where numba is installed.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numba.extending import intrinsic


@intrinsic
def _fused(typing_context, left, right, third):  # type: ignore[no-untyped-def]
    """left · right + third, rounded once."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.fma(*arguments)

    return left(left, right, third), build


@njit(error_model="numpy", forceinline=True)
def _pull(points, others, k, i, j, dist, grad):  # type: ignore[no-untyped-def]
    """The gradient at point i of cloud k of its distance to the other cloud's point j; 0 where they coincide."""
    if dist[k, i] == 0:
        zero = grad.dtype.type(0)
        return zero, zero, zero
    strength, length = grad[k, i], dist[k, i]
    return (
        strength * ((points[k, i, 0] - others[k, j, 0]) / length),
        strength * ((points[k, i, 1] - others[k, j, 1]) / length),
        strength * ((points[k, i, 2] - others[k, j, 2]) / length),
    )


@njit(cache=True, parallel=True, error_model="numpy")
def distances(points, others, index, dist):  # type: ignore[no-untyped-def]
    """Fill ``dist (B, N)`` with the distances from ``points (B, N, 3)`` to ``others (B, M, 3)`` at ``index``."""
    for k in prange(points.shape[0]):
        for i in range(points.shape[1]):
            j = index[k, i]
            x = points[k, i, 0] - others[k, j, 0]
            y = points[k, i, 1] - others[k, j, 1]
            z = points[k, i, 2] - others[k, j, 2]
            dist[k, i] = np.sqrt(_fused(z, z, _fused(y, y, x * x)))


@njit(cache=True, parallel=True, error_model="numpy")
def gradient(points, others, index, dist, grad, other_index, other_dist, other_grad, out):  # type: ignore[no-untyped-def]
    """Fill the zero-initialised ``out (B, N, 3)`` with the gradient at ``points`` of both clouds' distances."""
    for k in prange(points.shape[0]):
        for j in range(others.shape[1]):
            i = other_index[k, j]
            x, y, z = _pull(others, points, k, j, i, other_dist, other_grad)
            out[k, i, 0] -= x
            out[k, i, 1] -= y
            out[k, i, 2] -= z
        for i in range(points.shape[1]):
            x, y, z = _pull(points, others, k, i, index[k, i], dist, grad)
            out[k, i, 0] += x
            out[k, i, 1] += y
            out[k, i, 2] += z
