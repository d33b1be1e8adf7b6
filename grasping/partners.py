"""What a grasp's gripper hits: its own object, a neighbour, or the table, by the protocol's own collision rule.

The protocol says of a grasp whether any point of models or table lies in a finger or in the back plate. Here the same
kernel is asked three times, each time with a part of the same points inside the same box, so that the three answers
together are its answer, bit for bit. :func:`hit_cloud` asks it of any other cloud.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grasping.collision import NO_LATTICE, Lattice, collide_in_boxes
from grasping.geometry import ObjectGeometry
from grasping.grasps import Grasps
from grasping.point_boxes import PointBoxes

# The very scene that the protocol tests against; made anew here, a last bit could differ.
from grasping.protocol import MAXIMUM_WIDTH, WORKSPACE_MARGIN, boxes_of, table_axes

# Metres, and how many along each edge of a block: at the clouds' 3 mm some 28 points of a surface to a cell.
_CELL, _SIDE = 0.016, 4

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
    everywhere, group = np.full((1, 3), np.inf), np.zeros(len(grasps), np.int64)
    return collide_in_boxes(_in_blocks(cloud), NO_LATTICE, -everywhere, everywhere, grasps, group, 0)[0]


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
