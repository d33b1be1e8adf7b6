"""The compiled loop of :mod:`completion.nearest`; imported only where numba is installed.

The functions stand at module level and take their type from their arguments: numba finds compiled code again in the
next process only for functions that close over nothing (a compiled function within a closure is hashed anew in each).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange, types
from numba.extending import overload
from numpy.typing import NDArray

# Targets held at once: x, y, z, best and which of one tile stay in the first-level cache.
_TILE = 256
# The greatest integer of a float's size, see _bits.
_LARGEST: dict[np.dtype, np.int32 | np.int64] = {
    np.dtype(np.float32): np.int32(np.iinfo(np.int32).max),
    np.dtype(np.float64): np.int64(np.iinfo(np.int64).max),
}


def brute_force(a: NDArray, b: NDArray, index_a: NDArray[np.int64], index_b: NDArray[np.int64]) -> None:
    """Fill both zero-initialised index arrays; a ``(B, 3, N)``, b ``(B, 3, M)``; ties go to the lowest index."""
    largest = _LARGEST[a.dtype]
    _brute_force(a, b, index_a, index_b, np.arange(a.shape[2], dtype=largest.dtype), largest)


def _bits(x: Any) -> Any:
    """A float's bit pattern as the integer of the same size; only within compiled code.

    Squared distances are compared so, since bit patterns order non-negative floats as integers: LLVM turns an integer
    minimum into vector instructions and would leave numba's float minimum scalar (three times slower).
    """
    raise NotImplementedError


@overload(_bits, inline="always")
def _compile_bits(x):  # type: ignore[no-untyped-def]
    if x == types.float32:
        return lambda x: np.float32(x).view(np.int32)
    return lambda x: np.float64(x).view(np.int64)


@njit(fastmath={"contract"}, error_model="numpy")
def _one_against_tile(bx, by, bz, x, y, z, i, largest, best, which):  # type: ignore[no-untyped-def]
    low = largest
    for j in range(best.shape[0]):
        dx, dy, dz = bx[j] - x, by[j] - y, bz[j] - z
        d = _bits(dx * dx + dy * dy + dz * dz)
        low = d if d < low else low
        closer = d < best[j]
        which[j] = i if closer else which[j]
        best[j] = d if closer else best[j]
    return low


@njit(cache=True, parallel=True, fastmath={"contract"}, error_model="numpy")
def _brute_force(a, b, index_a, index_b, order, largest):  # type: ignore[no-untyped-def]
    """``order`` is 0..N-1 and ``largest`` the greatest number, both of the integer type that distances are held in."""
    n, m = a.shape[2], b.shape[2]
    for k in prange(a.shape[0]):
        best = np.full(m, largest, order.dtype)
        which = np.zeros(m, order.dtype)
        low = np.full(n, largest, order.dtype)
        tile = np.zeros(n, np.int64)
        for start in range(0, m, _TILE):
            stop = min(m, start + _TILE)
            bx, by, bz = b[k, 0, start:stop], b[k, 1, start:stop], b[k, 2, start:stop]
            for i in range(n):
                x, y, z = a[k, 0, i], a[k, 1, i], a[k, 2, i]
                nearest = _one_against_tile(bx, by, bz, x, y, z, order[i], largest, best[start:stop], which[start:stop])
                if nearest < low[i]:
                    low[i] = nearest
                    tile[i] = start
        # The pass above only remembers in which tile each a-point has its neighbour.
        for i in range(n):
            x, y, z = a[k, 0, i], a[k, 1, i], a[k, 2, i]
            least = np.inf
            for j in range(tile[i], min(m, tile[i] + _TILE)):
                dx, dy, dz = b[k, 0, j] - x, b[k, 1, j] - y, b[k, 2, j] - z
                d = dx * dx + dy * dy + dz * dz
                if d < least:
                    least = d
                    index_a[k, i] = j
        for j in range(m):
            index_b[k, j] = which[j]
