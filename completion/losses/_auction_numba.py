"""The compiled loops of :mod:`completion.losses.auction`; imported only where numba is installed."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

# Each phase of the scaled auction demands this many times less than the one before.
_FACTOR = 5.0


@njit(cache=True, fastmath={"contract"}, error_model="numpy")
def _best_two(prices, tx, ty, tz, x, y, z, values):  # type: ignore[no-untyped-def]
    """Least distance + price over the targets, the second least, and where the least is (the lowest index)."""
    for j in range(prices.shape[0]):
        dx, dy, dz = tx[j] - x, ty[j] - y, tz[j] - z
        values[j] = np.sqrt(dx * dx + dy * dy + dz * dz) + prices[j]
    first, second, which = np.inf, np.inf, 0
    for j in range(prices.shape[0]):
        value = values[j]
        if value < second:  # rarely: the loop runs at one comparison a target
            if value < first:
                second, first, which = first, value, j
            else:
                second = value
    return first, second, which


@njit(cache=True, parallel=True, error_model="numpy")
def rounds_of_bids(points, targets, prices, match, eps, rounds):  # type: ignore[no-untyped-def]
    """Simultaneous bids; all arguments as :func:`completion.losses.auction._rounds_torch` has them, one layout apart.

    ``points``, ``targets (B, 3, N)`` float64; ``prices (B, N)`` and ``match (B, N)`` are updated in place.
    """
    n = points.shape[2]
    for b in prange(points.shape[0]):
        values = np.empty(n)
        owner = np.full(n, -1, np.int64)
        queue = np.empty(n, np.int64)
        wish = np.empty(n, np.int64)
        best = np.empty(n)
        winner = np.full(n, -1, np.int64)
        count = 0
        for i in range(n):
            if match[b, i] < 0:
                queue[count] = i
                count += 1
        for done in range(rounds):
            if count == 0:
                break
            for q in range(count):
                i = queue[q]
                first, second, j = _best_two(
                    prices[b],
                    targets[b, 0],
                    targets[b, 1],
                    targets[b, 2],
                    points[b, 0, i],
                    points[b, 1, i],
                    points[b, 2, i],
                    values,
                )
                raised = second - first + eps if second < np.inf else eps
                wish[q] = j
                # Equal bids go to the lowest index.
                if winner[j] < 0 or raised > best[j] or (raised == best[j] and i < winner[j]):
                    winner[j], best[j] = i, raised
            if done == rounds - 1:
                for q in range(count):
                    match[b, queue[q]] = wish[q]
                break
            left = 0
            for q in range(count):
                i, j = queue[q], wish[q]
                if winner[j] != i:
                    queue[left] = i
                    left += 1
                    continue
                if owner[j] >= 0:
                    match[b, owner[j]] = -1
                    queue[left] = owner[j]
                    left += 1
                owner[j] = i
                match[b, i] = j
                prices[b, j] += best[j]
            for q in range(count):
                winner[wish[q]] = -1
            count = left


@njit(cache=True, parallel=True, error_model="numpy")
def scaled_auction(points, targets, prices, match, eps, start):  # type: ignore[no-untyped-def]
    """One bid at a time until all are matched, with ``start (B,)`` falling to ``eps``; layout as above.

    Bids in turn see each other's prices at once: where all points want the same targets (a prediction still collapsed
    to a spot) they need some thirty bids a point, and simultaneous ones hundreds.
    """
    n = points.shape[2]
    for b in prange(points.shape[0]):
        values = np.empty(n)
        owner = np.empty(n, np.int64)
        queue = np.empty(n, np.int64)
        bidders = np.empty(n, np.int64)
        total = 0
        for i in range(n):
            if match[b, i] < 0:
                bidders[total] = i
                total += 1
        step = start[b]
        while total > 0:
            step = max(step, eps)
            owner[:] = -1
            queue[:total] = bidders[:total]
            head, count = 0, total
            while count > 0:
                i = queue[head]
                head = head + 1 if head + 1 < total else 0
                count -= 1
                first, second, j = _best_two(
                    prices[b],
                    targets[b, 0],
                    targets[b, 1],
                    targets[b, 2],
                    points[b, 0, i],
                    points[b, 1, i],
                    points[b, 2, i],
                    values,
                )
                prices[b, j] += second - first + step if second < np.inf else step
                if owner[j] >= 0:
                    tail = head + count
                    queue[tail if tail < total else tail - total] = owner[j]
                    count += 1
                owner[j] = i
                match[b, i] = j
            if step <= eps:
                break
            step /= _FACTOR
