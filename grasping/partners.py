"""What a grasp's gripper hits: its own object, a neighbour, or the table, by the protocol's own collision rule.

The protocol says of a grasp whether any point of models or table lies in a finger or in the back plate. Here the same
kernel is asked three times, each time with a part of the same points inside the same box, so that the three answers
together are its answer, bit for bit. :func:`hit_cloud` asks it of any other cloud.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from grasping.collision import NO_LATTICE, Lattice, collide_in_boxes
from grasping.geometry import ObjectGeometry
from grasping.grasps import Grasps
from grasping.gripper import GRASPNET_GRIPPER
from grasping.point_boxes import PointBoxes

# The very scene that the protocol tests against; made anew here, a last bit could differ.
from grasping.protocol import MAXIMUM_WIDTH, WORKSPACE_MARGIN, boxes_of, table_axes

# Metres, and how many along each edge of a block: at the clouds' 3 mm some 28 points of a surface to a cell.
_CELL, _SIDE = 0.016, 4
# Metres, edge of the cells that tell where no gripper comes at all, and how many of them are worth their time.
_COARSE, _MOST_CELLS = 0.02, 1_000_000

FloatArray = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Partners:
    """What N grasps hit; a grasp may hit several.

    Attributes:
        target: ``(N,)`` the object that the grasp is assigned to.
        neighbour: ``(N,)`` another object.
        table: ``(N,)``.
    """

    target: Mask
    neighbour: Mask
    table: Mask

    @property
    def any(self) -> Mask:
        """``(N,)`` what the protocol calls collided."""
        return self.target | self.neighbour | self.table


def find_partners(
    grasps: Grasps,
    assigned: ArrayLike | None,
    objects: Sequence[ObjectGeometry],
    T_camera_object: ArrayLike,
    T_camera_table: ArrayLike,
) -> Partners:
    """Tell what each of one view's grasps hits.

    Args:
        grasps: N grasps in the camera frame; widths are clipped as the protocol does.
        assigned: ``(N,)`` index of each grasp's object; None assigns each to that of the nearest model point, as the
            protocol does.
        objects: the scene's K objects.
        T_camera_object: ``(K, 4, 4)`` poses; rounded to float32.
        T_camera_table: ``(4, 4)``, see :func:`grasping.protocol.score_view`.
    """
    boxes = boxes_of(objects, np.asarray(T_camera_object, dtype=np.float32))
    grasps = replace(grasps, width=np.clip(grasps.width, 0.0, MAXIMUM_WIDTH))
    owners = boxes.owner_of_nearest(grasps.translation) if assigned is None else np.asarray(assigned, np.int64)
    low, high = boxes.object_low - WORKSPACE_MARGIN, boxes.object_high + WORKSPACE_MARGIN

    def hit(roots: NDArray[np.int64], lattice: Lattice, rows: NDArray[np.intp]) -> Mask:
        # Trees lie one after the other, so a slice of their roots is a scene of those objects alone.
        part = replace(boxes, roots=roots)
        return collide_in_boxes(part, lattice, low, high, grasps[rows], owners[rows], 0)[0]

    target, neighbour = np.zeros(len(grasps), bool), np.zeros(len(grasps), bool)
    for k in np.unique(owners).tolist():
        rows = np.flatnonzero(owners == k)
        target[rows] = hit(boxes.roots[k : k + 2], NO_LATTICE, rows)
        before, after = boxes.roots[: k + 1], boxes.roots[k + 1 :]
        neighbour[rows] = hit(before, NO_LATTICE, rows) | hit(after, NO_LATTICE, rows)
    table = Lattice(np.asarray(T_camera_table, dtype=np.float64), *table_axes())
    return Partners(target, neighbour, hit(boxes.roots[:1], table, np.arange(len(grasps))))


def hit_cloud(points: ArrayLike, grasps: Grasps) -> Mask:
    """Whether each of N grasps hits a cloud, ``(N,)``: what :func:`grasping.collision.collide` calls collided.

    For clouds that are asked once: tens of thousands of points are put into boxes in a tenth of the time.

    Args:
        points: ``(M, 3)`` finite, metres, in the grasps' frame.
        grasps: N grasps; widths are clipped as the protocol does.
    """
    cloud = np.asarray(points, dtype=np.float64).reshape(-1, 3)
    if len(cloud) == 0:
        return np.zeros(len(grasps), bool)
    grasps = replace(grasps, width=np.clip(grasps.width, 0.0, MAXIMUM_WIDTH))
    cloud = _within_reach(cloud, grasps)
    if len(cloud) == 0:
        return np.zeros(len(grasps), bool)
    everywhere, group = np.full((1, 3), np.inf), np.zeros(len(grasps), np.int64)
    return collide_in_boxes(_in_blocks(cloud), NO_LATTICE, -everywhere, everywhere, grasps, group, 0)[0]


def _within_reach(points: FloatArray, grasps: Grasps) -> FloatArray:
    """The points ``(M, 3)``, M > 0, less those in whose cell of a coarse grid no gripper comes: most of a view's.

    All of them where a grasp's axes are not a rotation, for then nothing is known of its reach.
    """
    gripper, R = GRASPNET_GRIPPER, grasps.rotation
    back = -(gripper.finger_back + gripper.base_thickness)
    front = np.maximum(grasps.depth, -gripper.finger_back)
    beside = grasps.width / 2 + gripper.finger_thickness
    middle = grasps.translation + R[:, :, 0] * (0.5 * (front + back))[:, None]
    half = np.stack([0.5 * (front - back), beside, np.full(len(grasps), gripper.height / 2)], axis=1)
    known = np.isfinite(middle).all() and np.isfinite(half).all()
    if not known or not np.all(np.abs(R.transpose(0, 2, 1) @ R - np.eye(3)) < 1e-5):
        return points
    reach = np.einsum("nij,nj->ni", np.abs(R), half) * 1.001 + 1e-4  # for axes as far from a rotation as was let pass
    return points[_in_cells(points, middle - reach, middle + reach, _COARSE, _MOST_CELLS)]


@numba.njit(cache=True, nogil=True)
def _in_cells(points: FloatArray, low: FloatArray, high: FloatArray, edge: float, most: int) -> Mask:
    """Which points share a cell with one of N boxes ``low, high`` ``(N, 3)``; all where there would be too many cells.

    Rounding is monotone, so that a point of a box is never in a cell before or behind the box's.
    """
    chosen = np.ones(len(points), np.bool_)
    corner, far = points[0].copy(), points[0].copy()
    for i in range(len(points)):
        for k in range(3):
            corner[k], far[k] = min(corner[k], points[i, k]), max(far[k], points[i, k])
    cells = 1.0
    for k in range(3):
        cells *= np.floor((far[k] - corner[k]) / edge) + 1.0
    if not cells < most:
        return chosen
    last = np.empty(3, np.int64)
    for k in range(3):
        last[k] = int((far[k] - corner[k]) / edge)
    near = np.zeros((last[0] + 1, last[1] + 1, last[2] + 1), np.bool_)
    begin, end = np.empty(3, np.int64), np.empty(3, np.int64)
    for n in range(len(low)):
        for k in range(3):  # those that are elsewhere in the end mark cells at the border, where no harm is done
            begin[k] = int(min(max(np.floor((low[n, k] - corner[k]) / edge), 0.0), last[k]))
            end[k] = int(min(max(np.floor((high[n, k] - corner[k]) / edge), 0.0), last[k])) + 1
        near[begin[0] : end[0], begin[1] : end[1], begin[2] : end[2]] = True
    for i in range(len(points)):
        x, y, z = (
            (points[i, 0] - corner[0]) / edge,
            (points[i, 1] - corner[1]) / edge,
            (points[i, 2] - corner[2]) / edge,
        )
        if x < last[0] + 1 and y < last[1] + 1 and z < last[2] + 1:  # else it is no number
            chosen[i] = near[int(x), int(y), int(z)]
    return chosen


def _in_blocks(points: FloatArray) -> PointBoxes:
    """Boxes of a cloud ``(M, 3)``, M > 0, by a regular grid: blocks in the place of objects, their cells as leaves."""
    axes = np.ascontiguousarray(points.T)  # several times faster than rows
    x, y, z = ((axes - axes.min(axis=1, keepdims=True)) * (1.0 / _CELL)).astype(np.int64)
    across, high_up = (int(n.max()) // _SIDE + 1 for n in (y, z))
    key = (x // _SIDE * across + y // _SIDE) * high_up + z // _SIDE
    key = key * _SIDE**3 + (x % _SIDE * _SIDE + y % _SIDE) * _SIDE + z % _SIDE
    order = np.argsort(key, kind="stable")  # clouds come in the order of their voxels
    points, key = np.ascontiguousarray(points[order]), key[order]
    first_point = np.flatnonzero(np.diff(key, prepend=-1))  # of each leaf
    block = key[first_point] // _SIDE**3
    first_leaf = np.flatnonzero(np.diff(block, prepend=-1))  # of each block
    leaves, count = len(first_point), len(first_leaf)
    roots = np.append(first_leaf, leaves) + np.arange(count + 1)
    leaf = np.arange(leaves) + np.repeat(np.arange(1, count + 1), np.diff(first_leaf, append=leaves))

    def nodes(of_leaf: NDArray, of_block: NDArray) -> NDArray:
        out = np.empty((leaves + count, *of_leaf.shape[1:]), of_leaf.dtype)
        out[leaf], out[roots[:-1]] = of_leaf, of_block
        return out

    ends = np.append(first_point[1:], len(points))
    low, high = np.minimum.reduceat(points, first_point), np.maximum.reduceat(points, first_point)
    return PointBoxes(
        points,
        nodes(first_point, first_point[first_leaf]),
        nodes(ends, np.append(first_point[first_leaf[1:]], len(points))),
        nodes(leaf + 1, roots[1:]),
        roots,
        nodes(low, np.minimum.reduceat(low, first_leaf)),
        nodes(high, np.maximum.reduceat(high, first_leaf)),
    )
