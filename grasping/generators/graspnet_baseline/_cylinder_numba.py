"""The compiled loop of :mod:`.cylinder`; imported only where numba is installed.

Sums are formed as torch forms them, without fused products, so that both paths choose alike.
"""

from __future__ import annotations

from numba import njit


@njit(cache=True, nogil=True, error_model="numpy")
def cylinders(planes, centres, axes, square, behind, ends, index):  # type: ignore[no-untyped-def]
    """Fill index ``(B, S, D, k)`` for planes ``(B, 3, N)``, centres ``(B, S, 3)``, axes ``(B, S, 3, 3)``, float32."""
    depths, size = index.shape[2], index.shape[3]
    for b in range(index.shape[0]):
        xs, ys, zs = planes[b, 0], planes[b, 1], planes[b, 2]
        for s in range(index.shape[1]):
            a, out = axes[b, s], index[b, s]
            cx, cy, cz = centres[b, s, 0], centres[b, s, 1], centres[b, s, 2]
            full, found = 0, [0] * depths
            for j in range(xs.shape[0]):
                dx, dy, dz = xs[j] - cx, ys[j] - cy, zs[j] - cz
                along = dx * a[0, 0] + dy * a[1, 0] + dz * a[2, 0]
                if not (along > behind and along < ends[depths - 1]):
                    continue
                across = dx * a[0, 1] + dy * a[1, 1] + dz * a[2, 1]
                up = dx * a[0, 2] + dy * a[1, 2] + dz * a[2, 2]
                if not across * across + up * up < square:
                    continue
                for d in range(depths):
                    if along < ends[d] and found[d] < size:
                        out[d, found[d]] = j
                        found[d] += 1
                        full += found[d] == size
                if full == depths:
                    break
            for d in range(depths):
                first = out[d, 0] if found[d] > 0 else 0
                for place in range(found[d], size):
                    out[d, place] = first
