"""Model points in trees of bounding boxes: what nearest-point and collision queries of one view share.

A model's points are put once into an order in which neighbours in space are neighbours in memory, by halving them along
their longest side again and again (:class:`PointTree`). Each view then only moves the points and takes the boxes of the
halves (:class:`PointBoxes`): no sorting, no grid. The boxes are those of the moved points themselves, so nothing relies
on a pose being rigid.

A tree lies in one array, a node before its halves, with the number of the node to go on with where a node and all
below it are passed over; walking it needs neither recursion nor a stack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_LEAF = 16  # most points of a node that is not halved


@dataclass(frozen=True, eq=False)
class PointTree:
    """One cloud's halving; nodes in the order of a walk, each before its halves.

    Attributes:
        order: ``(M,)`` the points' order in memory.
        starts, ends: ``(B,)`` which of the ordered points a node holds.
        skip: ``(B,)`` the node after all that are below this one; the very next for a leaf.
    """

    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    skip: NDArray[np.int64]

    @classmethod
    def of(cls, points: FloatArray) -> PointTree:
        """Halve ``(M, 3)`` points; a cloud without points is one node without points."""
        p = np.asarray(points, dtype=np.float64).reshape(-1, 3)
        order = np.arange(len(p), dtype=np.int64)
        starts: list[int] = []
        ends: list[int] = []
        skip: list[int] = []

        def grow(begin: int, end: int) -> None:
            node = len(starts)
            starts.append(begin)
            ends.append(end)
            skip.append(0)
            if end - begin > _LEAF:
                part = order[begin:end]
                here = p[part]
                axis = int(np.argmax(here.max(axis=0) / 2 - here.min(axis=0) / 2))
                middle = (end - begin) // 2
                order[begin:end] = part[np.argpartition(here[:, axis], middle)]
                grow(begin, begin + middle)
                grow(begin + middle, end)
            skip[node] = len(starts)

        grow(0, len(p))
        return cls(order, *(np.array(numbers, np.int64) for numbers in (starts, ends, skip)))


@dataclass(frozen=True, eq=False)
class PointForest:
    """The trees of K objects in one, whatever their poses.

    Attributes:
        starts, ends, skip: ``(B,)`` nodes of all trees, as in :class:`PointTree`.
        roots: ``(K + 1,)`` first node of each object, and one past the last.
    """

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    skip: NDArray[np.int64]
    roots: NDArray[np.int64]

    @classmethod
    def of(cls, trees: Sequence[PointTree]) -> PointForest:
        """Join trees, one an object."""
        sizes = np.array([(len(tree.starts), len(tree.order)) for tree in trees], np.int64).reshape(-1, 2)
        roots = np.zeros(len(trees) + 1, np.int64)
        np.cumsum(sizes[:, 0], out=roots[1:])
        points_before = np.repeat(np.cumsum(sizes[:, 1]) - sizes[:, 1], sizes[:, 0])
        none = [np.zeros(0, np.int64)]
        return cls(
            np.concatenate(none + [tree.starts for tree in trees]) + points_before,
            np.concatenate(none + [tree.ends for tree in trees]) + points_before,
            np.concatenate(none + [tree.skip for tree in trees]) + np.repeat(roots[:-1], sizes[:, 0]),
            roots,
        )


@dataclass(frozen=True, eq=False)
class PointBoxes:
    """K objects' points in one frame, one tree an object.

    Attributes:
        points: ``(P, 3)`` metres, one object after the other, each in its tree's order.
        starts, ends, skip, roots: the trees, as in :class:`PointForest`.
        low, high: ``(B, 3)`` bounding box of each node; +inf and -inf for one without points.
    """

    points: FloatArray
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    skip: NDArray[np.int64]
    roots: NDArray[np.int64]
    low: FloatArray
    high: FloatArray

    @classmethod
    def of(cls, points: FloatArray, forest: PointForest) -> PointBoxes:
        """Take the boxes of points whose trees are known.

        Args:
            points: ``(P, 3)`` metres, contiguous, one object after the other, in the trees' order.
            forest: their trees.
        """
        starts, ends, skip = forest.starts, forest.ends, forest.skip
        return cls(points, starts, ends, skip, forest.roots, *_boxes(points, starts, ends, skip))

    @classmethod
    def of_clouds(cls, clouds: Sequence[FloatArray]) -> PointBoxes:
        """Halve K clouds ``(M, 3)`` and take the boxes."""
        trees = [PointTree.of(cloud) for cloud in clouds]
        ordered = [
            np.asarray(cloud, np.float64).reshape(-1, 3)[tree.order] for cloud, tree in zip(clouds, trees, strict=True)
        ]
        return cls.of(np.concatenate([np.zeros((0, 3)), *ordered]), PointForest.of(trees))

    @property
    def object_low(self) -> FloatArray:
        """``(K, 3)`` lower corner of each object's bounding box; +inf without points."""
        return self.low[self.roots[:-1]]

    @property
    def object_high(self) -> FloatArray:
        """``(K, 3)`` upper corner of each object's bounding box; -inf without points."""
        return self.high[self.roots[:-1]]

    def owner_of_nearest(self, queries: FloatArray) -> NDArray[np.int64]:
        """Object of the nearest point, the first of several equally near, for each of ``(N, 3)`` queries."""
        if len(queries) == 0 or len(self.points) == 0:
            return np.zeros(len(queries), np.int64)
        return _owner_of_nearest(
            np.ascontiguousarray(queries, dtype=np.float64),
            self.points,
            self.starts,
            self.ends,
            self.skip,
            self.roots,
            self.low,
            self.high,
        )


@numba.njit(cache=True, nogil=True)
def _boxes(
    points: FloatArray, starts: NDArray[np.int64], ends: NDArray[np.int64], skip: NDArray[np.int64]
) -> tuple[FloatArray, FloatArray]:
    low, high = np.full((len(starts), 3), np.inf), np.full((len(starts), 3), -np.inf)
    for b in range(len(starts) - 1, -1, -1):
        if skip[b] == b + 1:
            for i in range(starts[b], ends[b]):
                for k in range(3):
                    low[b, k], high[b, k] = min(low[b, k], points[i, k]), max(high[b, k], points[i, k])
        else:
            left, right = b + 1, skip[b + 1]
            for k in range(3):
                low[b, k], high[b, k] = min(low[left, k], low[right, k]), max(high[left, k], high[right, k])
    return low, high


@numba.njit(cache=True, nogil=True)
def _square_to_box(x: float, y: float, z: float, low: FloatArray, high: FloatArray, row: int) -> float:
    """Squared distance to a box: computed like that to a point, so never above that to a point inside (rounding is
    monotone)."""
    dx = max(max(low[row, 0] - x, x - high[row, 0]), 0.0)
    dy = max(max(low[row, 1] - y, y - high[row, 1]), 0.0)
    dz = max(max(low[row, 2] - z, z - high[row, 2]), 0.0)
    return dx * dx + dy * dy + dz * dz


@numba.njit(cache=True, nogil=True)
def _owner_of_nearest(
    queries: FloatArray,
    points: FloatArray,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    skip: NDArray[np.int64],
    roots: NDArray[np.int64],
    low: FloatArray,
    high: FloatArray,
) -> NDArray[np.int64]:
    objects = len(roots) - 1
    out = np.empty(len(queries), np.int64)
    to_object = np.empty(objects)
    fallback = 0
    while starts[roots[fallback]] == ends[roots[fallback]]:  # the first that has points
        fallback += 1
    for n in range(len(queries)):
        x, y, z = queries[n, 0], queries[n, 1], queries[n, 2]
        nearest = fallback
        for k in range(objects):
            to_object[k] = _square_to_box(x, y, z, low, high, roots[k])
            if to_object[k] < to_object[nearest]:
                nearest = k
        # Some point that is near: then almost nothing else is near enough to be looked at.
        leaf = roots[nearest]
        while skip[leaf] != leaf + 1:
            left, right = leaf + 1, skip[leaf + 1]
            nearer = _square_to_box(x, y, z, low, high, left) <= _square_to_box(x, y, z, low, high, right)
            leaf = left if nearer else right
        best, owner = np.inf, fallback
        for i in range(starts[leaf], ends[leaf]):
            dx, dy, dz = x - points[i, 0], y - points[i, 1], z - points[i, 2]
            d = dx * dx + dy * dy + dz * dz
            if d < best:
                best, owner = d, nearest
        for k in range(objects):
            if to_object[k] > best:
                continue
            b = roots[k]
            while b < roots[k + 1]:
                if _square_to_box(x, y, z, low, high, b) > best:
                    b = skip[b]
                    continue
                if skip[b] == b + 1:
                    for i in range(starts[b], ends[b]):
                        dx, dy, dz = x - points[i, 0], y - points[i, 1], z - points[i, 2]
                        d = dx * dx + dy * dy + dz * dz
                        if d < best or (d == best and k < owner):
                            best, owner = d, k
                b += 1
        out[n] = owner
    return out
