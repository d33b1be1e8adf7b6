"""The compiled loops of :mod:`completion.points`; imported only where numba is installed.

One thread each and without the interpreter's lock: they are called from within training steps and loader threads that
use the other cores. Sums are formed as torch forms them, without fused products, so that both paths choose alike.
"""

from __future__ import annotations

import numpy as np
from numba import njit

# No NaN is promised, and the sign of zero given up: enough for LLVM to turn a maximum into vector instructions.
_FAST = {"nnan", "nsz"}


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def farthest(planes, start, index):  # type: ignore[no-untyped-def]
    """Fill index ``(B, K <= N)`` for planes ``(B, 3, N)`` float32; ties go to the lowest index."""
    count = planes.shape[2]
    best = np.empty(count, np.float32)
    for b in range(planes.shape[0]):
        xs, ys, zs = planes[b, 0], planes[b, 1], planes[b, 2]
        best[:] = np.float32(3.0e38)
        last = start
        for step in range(index.shape[1]):
            index[b, step] = last
            x, y, z = xs[last], ys[last], zs[last]
            best[last] = np.float32(-1.0)
            most = np.float32(-1.0)
            for j in range(count):
                dx, dy, dz = xs[j] - x, ys[j] - y, zs[j] - z
                d = dx * dx + dy * dy + dz * dz
                d = d if d < best[j] else best[j]
                best[j] = d
                most = d if d > most else most
            last = 0
            while best[last] != most:
                last += 1


@njit(cache=True, nogil=True, error_model="numpy")
def _smallest_of_row(distances, values, index):  # type: ignore[no-untyped-def]
    """Insertion into a sorted list: a later equal value goes behind, so that equal ones keep the columns' order."""
    k = index.shape[0]
    filled = 0
    for j in range(distances.shape[0]):
        d = distances[j]
        if filled == k and not d < values[k - 1]:
            continue
        if d != d:  # not a number counts as farthest
            d = np.float32(np.inf)
        place = filled if filled < k else k - 1
        while place > 0 and d < values[place - 1]:
            values[place] = values[place - 1]
            index[place] = index[place - 1]
            place -= 1
        values[place] = d
        index[place] = j
        if filled < k:
            filled += 1


@njit(cache=True, nogil=True, error_model="numpy")
def smallest_of_rows(distances, index):  # type: ignore[no-untyped-def]
    """Fill index ``(R, k)`` with the columns of the k smallest of every row of ``(R, M)`` float32, in order."""
    values = np.empty(index.shape[1], np.float32)
    for r in range(distances.shape[0]):
        _smallest_of_row(distances[r], values, index[r])


@njit(cache=True, nogil=True, error_model="numpy")
def nearest(planes, queries, index):  # type: ignore[no-untyped-def]
    """Fill index ``(B, N, k)`` with the points of planes ``(B, 3, M)`` nearest to queries ``(B, N, 3)``, in order."""
    distances = np.empty(planes.shape[2], np.float32)
    values = np.empty(index.shape[2], np.float32)
    for b in range(queries.shape[0]):
        xs, ys, zs = planes[b, 0], planes[b, 1], planes[b, 2]
        for i in range(queries.shape[1]):
            x, y, z = queries[b, i, 0], queries[b, i, 1], queries[b, i, 2]
            for j in range(distances.shape[0]):
                dx, dy, dz = xs[j] - x, ys[j] - y, zs[j] - z
                distances[j] = dx * dx + dy * dy + dz * dz
            _smallest_of_row(distances, values, index[b, i])


@njit(cache=True, nogil=True, error_model="numpy")
def ball(planes, centres, square, index):  # type: ignore[no-untyped-def]
    """Fill index ``(B, S, k)`` with the first points of planes ``(B, 3, N)`` whose squared distance is below square.

    A ball with fewer than k repeats its first point, an empty one gives point 0. Most balls are full long before the
    cloud ends, which no search over all distances can make use of.
    """
    size = index.shape[2]
    for b in range(index.shape[0]):
        xs, ys, zs = planes[b, 0], planes[b, 1], planes[b, 2]
        for s in range(index.shape[1]):
            x, y, z = centres[b, s, 0], centres[b, s, 1], centres[b, s, 2]
            found = 0
            for j in range(xs.shape[0]):
                dx, dy, dz = xs[j] - x, ys[j] - y, zs[j] - z
                if dx * dx + dy * dy + dz * dz < square:
                    index[b, s, found] = j
                    found += 1
                    if found == size:
                        break
            first = index[b, s, 0] if found > 0 else 0
            for place in range(found, size):
                index[b, s, place] = first
