"""The compiled loop of :mod:`completion.nearest`; imported only where numba is installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

# Targets held at once: x, y, z, best and which of one tile stay in the first-level cache.
_TILE = 256


def _make(real: Any, bits: Any) -> Callable[[NDArray, NDArray, NDArray, NDArray], None]:
    """Compile for one type; ``bits`` is the integer of the same size.

    Squared distances are compared by their bit patterns, which order non-negative floats as integers: LLVM turns an
    integer minimum into vector instructions and would leave numba's float minimum scalar (three times slower).
    """
    largest = bits(np.iinfo(bits).max)

    @njit(fastmath={"contract"}, error_model="numpy")
    def one_against_tile(bx, by, bz, x, y, z, i, best, which):  # type: ignore[no-untyped-def]
        low = largest
        for j in range(best.shape[0]):
            dx, dy, dz = bx[j] - x, by[j] - y, bz[j] - z
            d = real(dx * dx + dy * dy + dz * dz).view(bits)
            low = d if d < low else low
            closer = d < best[j]
            which[j] = i if closer else which[j]
            best[j] = d if closer else best[j]
        return low

    @njit(cache=True, parallel=True, fastmath={"contract"}, error_model="numpy")
    def brute_force(a, b, index_a, index_b):  # type: ignore[no-untyped-def]
        n, m = a.shape[2], b.shape[2]
        for k in prange(a.shape[0]):
            best = np.full(m, largest, bits)
            which = np.zeros(m, bits)
            low = np.full(n, largest, bits)
            tile = np.zeros(n, np.int64)
            for start in range(0, m, _TILE):
                stop = min(m, start + _TILE)
                bx, by, bz = b[k, 0, start:stop], b[k, 1, start:stop], b[k, 2, start:stop]
                for i in range(n):
                    x, y, z = a[k, 0, i], a[k, 1, i], a[k, 2, i]
                    nearest = one_against_tile(bx, by, bz, x, y, z, bits(i), best[start:stop], which[start:stop])
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

    return brute_force


_KERNELS = {np.dtype(np.float32): _make(np.float32, np.int32), np.dtype(np.float64): _make(np.float64, np.int64)}


def brute_force(a: NDArray, b: NDArray, index_a: NDArray[np.int64], index_b: NDArray[np.int64]) -> None:
    """Fill both zero-initialised index arrays; a ``(B, 3, N)``, b ``(B, 3, M)``; ties go to the lowest index."""
    _KERNELS[a.dtype](a, b, index_a, index_b)
