"""Collision of a parallel-jaw gripper with points, as GraspNet-1Billion's evaluation tests it.

The gripper is three boxes in its own frame: two fingers that reach from ``-finger_back`` to ``depth`` along the
approach axis just outside the opening, and a plate behind them. A point strictly inside a box collides.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from grasping.grasps import Grasps
from grasping.gripper import GRASPNET_GRIPPER, Gripper

FloatArray = NDArray[np.float64]
Mask = NDArray[np.bool_]


def collide(
    points: ArrayLike, grasps: Grasps, minimum_inside: int, gripper: Gripper = GRASPNET_GRIPPER
) -> tuple[Mask, Mask]:
    """Test grasps against one cloud.

    Args:
        points: ``(M, 3)`` metres, in the grasps' frame.
        grasps: N grasps; their heights are ignored, the gripper's is taken.
        minimum_inside: with fewer points between its fingers a grasp is empty.

    Returns:
        ``collided`` ``(N,)``: a point lies in a finger or in the back plate; ``empty`` ``(N,)``.
    """
    cloud = np.ascontiguousarray(points, dtype=np.float64).reshape(-1, 3)
    group = np.zeros(len(grasps), np.int64)
    unlimited = np.array([[[-np.inf] * 3, [np.inf] * 3]])
    return collide_in_boxes(cloud, grasps, group, unlimited, minimum_inside, gripper)


def collide_in_boxes(
    points: ArrayLike,
    grasps: Grasps,
    group: ArrayLike,
    boxes: ArrayLike,
    minimum_inside: int,
    gripper: Gripper = GRASPNET_GRIPPER,
) -> tuple[Mask, Mask]:
    """Test each grasp against the points strictly inside its group's axis-aligned box.

    Args:
        points: ``(M, 3)`` metres, in the grasps' frame.
        grasps: N grasps.
        group: ``(N,)`` which box a grasp belongs to.
        boxes: ``(K, 2, 3)`` lower and upper corners, metres.
        minimum_inside: with fewer points between its fingers a grasp is empty.

    Returns:
        ``collided`` and ``empty``, each ``(N,)``, as :func:`collide` gives them.
    """
    cloud = np.ascontiguousarray(points, dtype=np.float64).reshape(-1, 3)
    limits = np.asarray(boxes, dtype=np.float64).reshape(-1, 2, 3)
    groups = np.asarray(group, dtype=np.int64)
    collided, empty = np.zeros(len(grasps), bool), np.ones(len(grasps), bool)
    if len(grasps) == 0:
        return collided, empty
    used, starts = _crop(cloud, limits, np.bincount(groups, minlength=len(limits)) > 0)
    _collide(
        used,
        starts,
        groups,
        np.ascontiguousarray(grasps.translation),
        np.ascontiguousarray(grasps.rotation),
        np.ascontiguousarray(grasps.width),
        np.ascontiguousarray(grasps.depth),
        minimum_inside,
        gripper.height,
        gripper.finger_back,
        gripper.finger_thickness,
        gripper.base_thickness,
        collided,
        empty,
    )
    return collided, empty


@numba.njit(cache=True, nogil=True)
def _crop(points: FloatArray, boxes: FloatArray, wanted: Mask) -> tuple[FloatArray, NDArray[np.int64]]:
    """Copy the points inside each wanted box, box after box; starts has one more entry than there are boxes."""
    starts = np.zeros(len(boxes) + 1, np.int64)
    capacity = len(points)
    out = np.empty((max(capacity, 1), 3))
    count = 0
    for k in range(len(boxes)):
        if wanted[k]:
            x0, y0, z0 = boxes[k, 0, 0], boxes[k, 0, 1], boxes[k, 0, 2]
            x1, y1, z1 = boxes[k, 1, 0], boxes[k, 1, 1], boxes[k, 1, 2]
            if count + len(points) > len(out):
                grown = np.empty((2 * len(out) + len(points), 3))
                grown[:count] = out[:count]
                out = grown
            for i in range(len(points)):
                x, y, z = points[i, 0], points[i, 1], points[i, 2]
                if x > x0 and x < x1 and y > y0 and y < y1 and z > z0 and z < z1:
                    out[count, 0], out[count, 1], out[count, 2] = x, y, z
                    count += 1
        starts[k + 1] = count
    return out[:count], starts


@numba.njit(cache=True, nogil=True)
def _collide(
    points: FloatArray,
    starts: NDArray[np.int64],
    group: NDArray[np.int64],
    translations: FloatArray,
    rotations: FloatArray,
    widths: FloatArray,
    depths: FloatArray,
    minimum_inside: int,
    height: float,
    back: float,
    thickness: float,
    base: float,
    collided: Mask,
    empty: Mask,
) -> None:
    plate = -(back + base)
    for n in range(len(group)):
        tx, ty, tz = translations[n, 0], translations[n, 1], translations[n, 2]
        ax, ay, az = rotations[n, 0, 0], rotations[n, 1, 0], rotations[n, 2, 0]
        cx, cy, cz = rotations[n, 0, 1], rotations[n, 1, 1], rotations[n, 2, 1]
        hx, hy, hz = rotations[n, 0, 2], rotations[n, 1, 2], rotations[n, 2, 2]
        depth, half = depths[n], widths[n] / 2
        front = max(depth, -back)
        outer = half + thickness
        hit, inside = False, 0
        for i in range(starts[group[n]], starts[group[n] + 1]):
            dx, dy, dz = points[i, 0] - tx, points[i, 1] - ty, points[i, 2] - tz
            along = dx * ax + dy * ay + dz * az
            if along <= plate or along >= front:
                continue
            lift = dx * hx + dy * hy + dz * hz
            if lift <= -height / 2 or lift >= height / 2:
                continue
            across = dx * cx + dy * cy + dz * cz
            within = across > -outer and across < outer
            if along > -back and along < depth:  # beside or between the fingers
                if across >= -half and across <= half:
                    inside += 1
                elif within:
                    hit = True
            elif along < -back and within:
                hit = True
            if hit and inside >= minimum_inside:
                break
        collided[n] = hit
        empty[n] = inside < minimum_inside
