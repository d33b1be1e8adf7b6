"""The compiled search of :mod:`completion.nearest`: brute force by blocks of sixteen points, most of them passed over.

Both clouds are put into Morton order and cut into blocks of sixteen points, sixteen blocks to a group; blocks and
groups know their bounding boxes. Sixteen queries (a block of the other cloud) search together, one a vector lane. They
visit the block that is nearest to the middle one of them, then every group and block whose box is, for any of them, no
farther than the best found so far. In a block all 16 × 16 distances are computed.

That is a bounding volume hierarchy of two levels, wide enough to keep what a tree gives away: where nothing can be
passed over (a cloud around the centre of another, early in training), it is vectorised brute force with few tests on
top. Time grows with N·M/65,536 tests of sixteen groups at once, which shows beyond a million points; memory is linear.

The indices equal brute force's to the last one: a box's bound is computed by the same roundings as a distance, each of
them monotone, so that it exceeds no distance in the box; and a box at exactly the best distance is visited as well
where it may hold a lower index. So the outcome depends neither on the order of visits nor on the number of threads.

The functions stand at module level and take their type from their arguments: numba finds compiled code again in the
next process only for functions that close over nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from completion._lanes_numba import (
    WIDTH,
    at_most,
    bits,
    both,
    choose,
    either,
    equal,
    fill,
    first_equal,
    larger,
    largest,
    least_of,
    less,
    load,
    lowest_bit,
    smallest,
    squared_distances,
    store,
    subtract,
    sum_of_squares,
)

# Blocks of queries that one thread takes at a time.
_CHUNK = 32
_NOBODY = np.int32(2**31 - 1)


class _Packed(NamedTuple):
    """A batch of B clouds of N points in blocks of sixteen; all empty places lie infinitely far away.

    Attributes:
        axes: ``(B, 3, blocks·16)`` coordinates along the Morton curve; the last block is filled up with its last point.
        order: ``(B, blocks·16)`` int32, the points' indices, rising within a block.
        blocks: ``(B, 6, groups·16)`` boxes x0, y0, z0, x1, y1, z1.
        groups: ``(B, 6, groups or more, a multiple of 16)`` boxes of sixteen blocks.
        finite: ``(B,)`` int64, how many points are finite.
    """

    axes: NDArray
    order: NDArray[np.int32]
    blocks: NDArray
    groups: NDArray
    finite: NDArray[np.int64]


def nearest_both_ways(a: NDArray, b: NDArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices ``(B, N)`` into b and ``(B, M)`` into a, of contiguous a ``(B, N, 3)`` and b ``(B, M, 3)``.

    float32 or float64. Ties go to the lowest index. Points that are not finite are nobody's neighbours, and their own
    index is 0.
    """
    index_a, index_b, _, _ = nearest_and_work(a, b)
    return index_a, index_b


def nearest_and_work(a: NDArray, b: NDArray) -> tuple[NDArray[np.int64], NDArray[np.int64], int, int]:
    """The same, and what it took: squared distances between points, and bounds between boxes or points and boxes."""
    packed_a, packed_b = _packed(a), _packed(b)
    index_a, index_b = np.zeros(a.shape[:2], np.int64), np.zeros(b.shape[:2], np.int64)
    work = np.zeros((2, max(index_a.size, index_b.size) // (WIDTH * _CHUNK) + len(a), 2), np.int64)
    _search_all(packed_a, packed_b, index_a, work[0])
    _search_all(packed_b, packed_a, index_b, work[1])
    visits, tests = work.sum(axis=(0, 1))
    return index_a, index_b, int(visits) * WIDTH * WIDTH, int(tests) * WIDTH


def _packed(points: NDArray) -> _Packed:
    batch, n = points.shape[:2]
    blocks = -(-n // WIDTH)
    groups = -(-blocks // WIDTH)
    packed = _Packed(
        axes=np.empty((batch, 3, blocks * WIDTH), points.dtype),
        order=np.empty((batch, blocks * WIDTH), np.int32),
        blocks=np.empty((batch, 6, groups * WIDTH), points.dtype),
        groups=np.empty((batch, 6, -(-groups // WIDTH) * WIDTH), points.dtype),
        finite=np.empty(batch, np.int64),
    )
    _pack_all(points, *packed)
    return packed


@njit(error_model="numpy", forceinline=True)
def _spread(v):  # type: ignore[no-untyped-def]
    """Put two zeros between the ten bits of a number."""
    v = (v | (v << 16)) & 0x030000FF
    v = (v | (v << 8)) & 0x0300F00F
    v = (v | (v << 4)) & 0x030C30C3
    return (v | (v << 2)) & 0x09249249


@njit(error_model="numpy")
def _morton_order(points, order):  # type: ignore[no-untyped-def]
    """Fill ``order`` with the indices of the finite points along a Morton curve, and return how many there are."""
    inf = points.dtype.type(np.inf)
    count = 0
    x0 = y0 = z0 = inf
    x1 = y1 = z1 = -inf
    for i in range(points.shape[0]):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        if abs(x) < inf and abs(y) < inf and abs(z) < inf:
            x0, y0, z0 = min(x0, x), min(y0, y), min(z0, z)
            x1, y1, z1 = max(x1, x), max(y1, y), max(z1, z)
            order[count] = i
            count += 1
    extent = max(x1 - x0, max(y1 - y0, z1 - z0))
    scale = 1023.0 / extent if 0 < extent < inf else 0.0
    codes, sorted_codes = np.empty(count, np.int32), np.empty(count, np.int32)
    ids, sorted_ids = order[:count], np.empty(count, np.int32)
    places = np.zeros((3, 1024), np.int32)
    for k in range(count):
        i = ids[k]
        code = _spread(np.int32((points[i, 0] - x0) * scale))
        code |= _spread(np.int32((points[i, 1] - y0) * scale)) << 1
        code |= _spread(np.int32((points[i, 2] - z0) * scale)) << 2
        codes[k] = code
        for digit in range(3):
            places[digit, (code >> (10 * digit)) & 1023] += 1
    for digit in range(3):  # a radix sort, ten bits a pass
        total = 0
        for v in range(1024):
            places[digit, v], total = total, total + places[digit, v]
        for k in range(count):
            v = (codes[k] >> (10 * digit)) & 1023
            place = places[digit, v]
            places[digit, v] = place + 1
            sorted_codes[place], sorted_ids[place] = codes[k], ids[k]
        codes, sorted_codes = sorted_codes, codes
        ids, sorted_ids = sorted_ids, ids
    order[:count] = ids
    return count


@njit(error_model="numpy")
def _pack(points, axes, order, blocks, groups):  # type: ignore[no-untyped-def]
    """Sort one cloud into blocks (:class:`_Packed` less its batch) and return the number of its finite points."""
    inf = points.dtype.type(np.inf)
    count = _morton_order(points, order)
    used = (count + WIDTH - 1) // WIDTH
    blocks[:, used:] = inf
    groups[:, :] = inf
    for block in range(used):
        start, stop = block * WIDTH, min(count, block * WIDTH + WIDTH)
        for k in range(start + 1, stop):  # by index within the block, so that the first of equals is the lowest
            i, place = order[k], k
            while place > start and order[place - 1] > i:
                order[place] = order[place - 1]
                place -= 1
            order[place] = i
        order[stop : start + WIDTH] = order[stop - 1]
        group = block // WIDTH
        for axis in range(3):
            low, high = inf, -inf
            for k in range(start, start + WIDTH):
                v = points[order[k], axis]
                axes[axis, k] = v
                low, high = min(low, v), max(high, v)
            blocks[axis, block], blocks[axis + 3, block] = low, high
            if block % WIDTH > 0:
                low, high = min(low, groups[axis, group]), max(high, groups[axis + 3, group])
            groups[axis, group], groups[axis + 3, group] = low, high
    return count


@njit(error_model="numpy", forceinline=True)
def _gap(low, high, lower, upper, zero):  # type: ignore[no-untyped-def]
    """How far two intervals are apart, 0 where they meet; lane by lane."""
    return larger(larger(subtract(low, upper), subtract(lower, high)), zero)


@njit(error_model="numpy", forceinline=True)
def _bounds(boxes, first, x0, y0, z0, x1, y1, z1, zero):  # type: ignore[no-untyped-def]
    """Squared distances of sixteen boxes to one (its corners in all lanes)."""
    return sum_of_squares(
        _gap(load(boxes[0], first), load(boxes[3], first), x0, x1, zero),
        _gap(load(boxes[1], first), load(boxes[4], first), y0, y1, zero),
        _gap(load(boxes[2], first), load(boxes[5], first), z0, z1, zero),
    )


@njit(error_model="numpy", forceinline=True)
def _bounds_of_one(boxes, k, x, y, z, zero):  # type: ignore[no-untyped-def]
    """Squared distances of sixteen queries to one box."""
    return sum_of_squares(
        _gap(fill(boxes[0, k]), fill(boxes[3, k]), x, x, zero),
        _gap(fill(boxes[1, k]), fill(boxes[4, k]), y, y, zero),
        _gap(fill(boxes[2, k]), fill(boxes[5, k]), z, z, zero),
    )


@njit(error_model="numpy", forceinline=True)
def _visit(axes, order, block, x, y, z, best, index):  # type: ignore[no-untyped-def]
    """The best of sixteen queries, and whose it is, after one more block."""
    distances = squared_distances(axes[0], axes[1], axes[2], block * WIDTH, x, y, z)
    low = least_of(distances)
    if bits(at_most(low, best)) != 0:
        which = first_equal(distances, low, order, block * WIDTH, fill(_NOBODY))
        closer = either(less(low, best), both(equal(low, best), less(which, index)))
        best, index = choose(closer, low, best), choose(closer, which, index)
    return best, index


@njit(error_model="numpy")
def _search(queries, targets, cloud, first, last, found):  # type: ignore[no-untyped-def]
    """Search for the query blocks ``first..last`` of one cloud and fill ``found (N,)`` at their indices.

    Returns how many blocks were visited, and how many times sixteen bounds were computed.
    """
    visits = tests = 0
    q_axes, q_blocks, q_order = queries.axes[cloud], queries.blocks[cloud], queries.order[cloud]
    axes, order = targets.axes[cloud], targets.order[cloud]
    blocks, groups = targets.blocks[cloud], targets.groups[cloud]
    # Empty boxes are infinitely far away and must not be visited, not even where true distances overflow.
    inf, finite = axes.dtype.type(np.inf), axes.dtype.type(np.finfo(axes.dtype).max)
    zero = fill(axes.dtype.type(0))
    names = np.empty(WIDTH, np.int32)
    for query in range(first, last):
        start = query * WIDTH
        x, y, z = load(q_axes[0], start), load(q_axes[1], start), load(q_axes[2], start)
        x0, y0, z0 = fill(q_blocks[0, query]), fill(q_blocks[1, query]), fill(q_blocks[2, query])
        x1, y1, z1 = fill(q_blocks[3, query]), fill(q_blocks[4, query]), fill(q_blocks[5, query])
        # Where the search begins: the group nearest to the box, the block of it nearest to the middle query.
        nearest, least = 0, inf
        for k in range(0, groups.shape[1], WIDTH):
            bound = _bounds(groups, k, x0, y0, z0, x1, y1, z1, zero)
            low = smallest(bound)
            if low < least:
                nearest, least = k + lowest_bit(bits(equal(bound, fill(low)))), low
        middle = start + WIDTH // 2
        mx, my, mz = fill(q_axes[0, middle]), fill(q_axes[1, middle]), fill(q_axes[2, middle])
        bound = _bounds(blocks, nearest * WIDTH, mx, my, mz, mx, my, mz, zero)
        tests += 2 * (groups.shape[1] // WIDTH) + 1
        visits += 1
        begin = nearest * WIDTH + lowest_bit(bits(equal(bound, fill(smallest(bound)))))
        best, index = _visit(axes, order, begin, x, y, z, fill(inf), fill(np.int32(0)))
        worst = min(largest(best), finite)
        for base in range(-WIDTH, groups.shape[1], WIDTH):
            if base < 0:  # that group first, for the sake of its bounds
                open_groups = 1 << (nearest % WIDTH)
                here = nearest - nearest % WIDTH
            else:
                open_groups = bits(at_most(_bounds(groups, base, x0, y0, z0, x1, y1, z1, zero), fill(worst)))
                here = base
            while open_groups != 0:
                group = here + lowest_bit(open_groups)
                open_groups &= open_groups - 1
                tests += 2
                if base >= 0 and (
                    group == nearest or bits(at_most(_bounds_of_one(groups, group, x, y, z, zero), best)) == 0
                ):
                    continue
                bound = _bounds(blocks, group * WIDTH, x0, y0, z0, x1, y1, z1, zero)
                open_blocks = bits(at_most(bound, fill(worst)))
                while open_blocks != 0:
                    block = group * WIDTH + lowest_bit(open_blocks)
                    open_blocks &= open_blocks - 1
                    tests += 1
                    bound = _bounds_of_one(blocks, block, x, y, z, zero)
                    # At equal distance only a lower index is of use, and a block's first index is its lowest.
                    closer = either(
                        less(bound, best), both(equal(bound, best), less(fill(order[block * WIDTH]), index))
                    )
                    if bits(closer) != 0 and block != begin:
                        visits += 1
                        best, index = _visit(axes, order, block, x, y, z, best, index)
                        worst = min(largest(best), finite)
        store(names, 0, index)
        for k in range(start, min(queries.finite[cloud], start + WIDTH)):
            found[q_order[k]] = names[k - start]
    return visits, tests


@njit(cache=True, parallel=True, error_model="numpy")
def _pack_all(points, axes, order, blocks, groups, finite):  # type: ignore[no-untyped-def]
    for cloud in prange(points.shape[0]):
        finite[cloud] = _pack(points[cloud], axes[cloud], order[cloud], blocks[cloud], groups[cloud])


@njit(cache=True, parallel=True, error_model="numpy")
def _search_all(queries, targets, found, work):  # type: ignore[no-untyped-def]
    chunks = (queries.order.shape[1] // WIDTH + _CHUNK - 1) // _CHUNK
    for task in prange(found.shape[0] * chunks):
        cloud, first = task // chunks, task % chunks * _CHUNK
        if targets.finite[cloud] > 0:
            last = min((queries.finite[cloud] + WIDTH - 1) // WIDTH, first + _CHUNK)
            work[task, 0], work[task, 1] = _search(queries, targets, cloud, first, last, found[cloud])
