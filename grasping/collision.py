"""Collision of a parallel-jaw gripper with points, as GraspNet-1Billion's evaluation tests it.

The gripper is three boxes in its own frame: two fingers that reach from ``-finger_back`` to ``depth`` along the
approach axis just outside the opening, and a plate behind them. A point strictly inside a box collides. Only points
strictly inside a box of the grasp's object count, the protocol's camera-aligned workspace.

Points are looked at where the gripper's own extent meets the bounding boxes of their tree
(:class:`grasping.point_boxes.PointBoxes`); a table, which is a regular lattice, is never made: its points near the
gripper are computed when they are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from grasping.grasps import Grasps
from grasping.gripper import GRASPNET_GRIPPER, Gripper
from grasping.point_boxes import PointBoxes

FloatArray = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Lattice:
    """All combinations of ascending positions along three axes, in a frame of their own.

    Attributes:
        T_a_b: ``(4, 4)`` takes the lattice's frame b to the grasps' frame a.
        x, y, z: positions in frame b, metres.
    """

    T_a_b: FloatArray
    x: FloatArray
    y: FloatArray
    z: FloatArray


NO_LATTICE = Lattice(np.eye(4), np.zeros(0), np.zeros(0), np.zeros(0))


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
    boxes = PointBoxes.of_clouds([np.asarray(points, dtype=np.float64).reshape(-1, 3)])
    everything = np.full((1, 3), np.inf)
    group = np.zeros(len(grasps), np.int64)
    return collide_in_boxes(boxes, NO_LATTICE, -everything, everything, grasps, group, minimum_inside, gripper)


def collide_in_boxes(
    boxes: PointBoxes,
    lattice: Lattice,
    box_low: FloatArray,
    box_high: FloatArray,
    grasps: Grasps,
    group: NDArray[np.int64],
    minimum_inside: int,
    gripper: Gripper = GRASPNET_GRIPPER,
) -> tuple[Mask, Mask]:
    """Test each grasp against all points, of models and of a lattice, that lie strictly inside the box of its group.

    Args:
        boxes: points in the grasps' frame.
        lattice: more points.
        box_low, box_high: ``(K, 3)`` corners, metres, in the grasps' frame; a box may be infinite or empty.
        grasps: N grasps.
        group: ``(N,)`` which box counts for a grasp.
        minimum_inside: with fewer points between its fingers a grasp is empty.

    Returns:
        ``collided`` and ``empty``, each ``(N,)``, as :func:`collide` gives them.
    """
    T = np.ascontiguousarray(lattice.T_a_b, dtype=np.float64)
    return _collide(
        boxes.points,
        boxes.starts,
        boxes.ends,
        boxes.skip,
        boxes.roots,
        boxes.low,
        boxes.high,
        T,
        np.asarray(np.linalg.inv(T[:3, :3]), dtype=np.float64),
        lattice.x,
        lattice.y,
        lattice.z,
        np.ascontiguousarray(box_low),
        np.ascontiguousarray(box_high),
        np.ascontiguousarray(grasps.translation),
        np.ascontiguousarray(grasps.rotation),
        np.ascontiguousarray(grasps.width),
        np.ascontiguousarray(grasps.depth),
        np.ascontiguousarray(group),
        minimum_inside,
        gripper.height,
        gripper.finger_back,
        gripper.finger_thickness,
        gripper.base_thickness,
    )


@numba.njit(cache=True, nogil=True)
def _apart(grip: FloatArray, low: FloatArray, high: FloatArray, row: int, slack: float) -> bool:
    """Whether the gripper's extent along one of its axes surely misses a box of points.

    ``grip``: translation (0-2), the three axes (3-11), and for each axis the middle (12-14) and half (15-17) of the
    gripper's extent along it. A linear function of a point inside a box lies between those of its corners, so this
    holds for axes of any length and angle. Comparisons are false where a number is not one: then nothing is ruled out.
    """
    for axis in (2, 1, 0):  # the thinnest first
        middle, reach = -grip[12 + axis], grip[15 + axis] + slack
        for k in range(3):
            a = grip[3 + 3 * axis + k]
            middle += a * (0.5 * low[row, k] + 0.5 * high[row, k] - grip[k])
            reach += abs(a) * (0.5 * high[row, k] - 0.5 * low[row, k])
        if abs(middle) > reach:
            return True
    return False


@numba.njit(cache=True, nogil=True)
def _place(grip: FloatArray, x: float, y: float, z: float, plate: float, back: float, depth: float, half: float) -> int:
    """Where one point lies: 0 elsewhere, 1 between the fingers, 2 in a finger or in the plate."""
    dx, dy, dz = x - grip[0], y - grip[1], z - grip[2]
    along = dx * grip[3] + dy * grip[4] + dz * grip[5]
    if along <= plate or along >= max(depth, -back):
        return 0
    lift = dx * grip[9] + dy * grip[10] + dz * grip[11]
    if lift <= -grip[17] or lift >= grip[17]:
        return 0
    across = dx * grip[6] + dy * grip[7] + dz * grip[8]
    within = -grip[16] < across < grip[16]
    if -back < along < depth:  # beside or between the fingers
        if -half <= across <= half:
            return 1
        return 2 if within else 0
    return 2 if along < -back and within else 0


@numba.njit(cache=True, nogil=True)
def _near_indices(
    T_inverse: FloatArray,
    shift: FloatArray,
    middle: FloatArray,
    spread: FloatArray,
    slack: float,
    xs: FloatArray,
    ys: FloatArray,
    zs: FloatArray,
    begin: NDArray[np.int64],
    end: NDArray[np.int64],
) -> bool:
    """Narrow index ranges of the lattice to a box given by its middle and its three half edges (columns of spread)."""
    for k in range(3):
        centre, reach, size = 0.0, 0.0, 0.0
        for m in range(3):
            centre += T_inverse[k, m] * (middle[m] - shift[m])
            size += abs(T_inverse[k, m])
            edge = 0.0
            for q in range(3):
                edge += T_inverse[k, q] * spread[q, m]
            reach += abs(edge)
            # rounding of the terms, which may cancel
            reach += 1e-12 * abs(T_inverse[k, m]) * (abs(middle[m]) + abs(shift[m]))
        reach += slack * size
        axis = xs if k == 0 else (ys if k == 1 else zs)
        lower, upper = centre - reach, centre + reach
        if lower == lower and upper == upper:  # otherwise nothing is known
            begin[k] = max(begin[k], np.searchsorted(axis, lower))
            end[k] = min(end[k], np.searchsorted(axis, upper, side="right"))
        if begin[k] >= end[k]:
            return False
    return True


@numba.njit(cache=True, nogil=True)
def _collide(
    points: FloatArray,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    skip: NDArray[np.int64],
    roots: NDArray[np.int64],
    low: FloatArray,
    high: FloatArray,
    T: FloatArray,
    T_inverse: FloatArray,
    xs: FloatArray,
    ys: FloatArray,
    zs: FloatArray,
    box_low: FloatArray,
    box_high: FloatArray,
    translations: FloatArray,
    rotations: FloatArray,
    widths: FloatArray,
    depths: FloatArray,
    group: NDArray[np.int64],
    minimum_inside: int,
    height: float,
    back: float,
    thickness: float,
    base: float,
) -> tuple[Mask, Mask]:
    count, objects = len(widths), len(roots) - 1
    collided, empty = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
    plate = -(back + base)
    grip, middle, spread, shift = np.empty(18), np.empty(3), np.zeros((3, 3)), T[:3, 3].copy()
    begin, end = np.zeros(3, np.int64), np.zeros(3, np.int64)
    for n in range(count):
        g = group[n]
        depth, half = depths[n], widths[n] / 2
        front = max(depth, -back)
        rigid, size = True, 0.0
        for p in range(3):
            grip[p] = translations[n, p]
            for k in range(3):
                grip[3 + 3 * p + k] = rotations[n, k, p]
                size += abs(rotations[n, k, p])
        for p in range(3):
            for q in range(3):
                dot = 0.0
                for k in range(3):
                    dot += rotations[n, k, p] * rotations[n, k, q]
                rigid = rigid and abs(dot - (1.0 if p == q else 0.0)) < 1e-5
        grip[12], grip[13], grip[14] = 0.5 * (plate + front), 0.0, 0.0
        grip[15], grip[16], grip[17] = 0.5 * (front - plate), half + thickness, height / 2
        hit, inside = False, 0
        done = not (
            box_low[g, 0] < box_high[g, 0] and box_low[g, 1] < box_high[g, 1] and box_low[g, 2] < box_high[g, 2]
        )

        for o in range(objects):
            if done:
                break
            b, outside, largest = roots[o], False, 0.0
            for k in range(3):
                outside = outside or high[b, k] <= box_low[g, k] or low[b, k] >= box_high[g, k]
                largest = max(largest, abs(low[b, k]), abs(high[b, k]), abs(grip[k]))
            if outside:
                continue
            slack = 1e-13 * (size * largest + abs(grip[12]) + grip[15] + grip[16])  # well above rounding
            while b < roots[o + 1]:
                if _apart(grip, low, high, b, slack):
                    b = skip[b]
                    continue
                if skip[b] > b + 1:
                    b += 1
                    continue
                for i in range(starts[b], ends[b]):
                    x, y, z = points[i, 0], points[i, 1], points[i, 2]
                    where = _place(grip, x, y, z, plate, back, depth, half)
                    if where == 0 or not (
                        box_low[g, 0] < x < box_high[g, 0]
                        and box_low[g, 1] < y < box_high[g, 1]
                        and box_low[g, 2] < z < box_high[g, 2]
                    ):
                        continue
                    hit, inside = hit or where == 2, inside + (1 if where == 1 else 0)
                if hit and inside >= minimum_inside:
                    done = True
                    break
                b += 1

        if not done and len(xs) > 0:
            begin[:] = 0
            end[0], end[1], end[2] = len(xs), len(ys), len(zs)
            some = True
            if rigid:  # its inverse is its transpose
                for k in range(3):
                    middle[k] = grip[k] + rotations[n, k, 0] * grip[12]
                    for axis in range(3):
                        spread[k, axis] = rotations[n, k, axis] * grip[15 + axis]
                slack = 1e-4 * (1.0 + front - plate + grip[16])
                some = _near_indices(T_inverse, shift, middle, spread, slack, xs, ys, zs, begin, end)
            if some:
                spread[:] = 0.0
                for k in range(3):
                    middle[k] = 0.5 * box_low[g, k] + 0.5 * box_high[g, k]
                    spread[k, k] = 0.5 * box_high[g, k] - 0.5 * box_low[g, k]
                some = _near_indices(T_inverse, shift, middle, spread, 1e-6, xs, ys, zs, begin, end)
            for j in range(begin[1], end[1] if some else begin[1]):
                for i in range(begin[0], end[0]):
                    for m in range(begin[2], end[2]):
                        x = T[0, 0] * xs[i] + T[0, 1] * ys[j] + T[0, 2] * zs[m] + T[0, 3]
                        y = T[1, 0] * xs[i] + T[1, 1] * ys[j] + T[1, 2] * zs[m] + T[1, 3]
                        z = T[2, 0] * xs[i] + T[2, 1] * ys[j] + T[2, 2] * zs[m] + T[2, 3]
                        where = _place(grip, x, y, z, plate, back, depth, half)
                        if where == 0 or not (
                            box_low[g, 0] < x < box_high[g, 0]
                            and box_low[g, 1] < y < box_high[g, 1]
                            and box_low[g, 2] < z < box_high[g, 2]
                        ):
                            continue
                        hit, inside = hit or where == 2, inside + (1 if where == 1 else 0)
                if hit and inside >= minimum_inside:
                    break
        collided[n] = hit
        empty[n] = inside < minimum_inside
    return collided, empty
