"""Collision of a parallel-jaw gripper with points, as GraspNet-1Billion's evaluation tests it.

The gripper is three boxes in its own frame: two fingers that reach from ``-finger_back`` to ``depth`` along the
approach axis just outside the opening, and a plate behind them. A point strictly inside a box collides.
"""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from grasping.grasps import Grasps
from grasping.gripper import GRASPNET_GRIPPER, Gripper

FloatArray = NDArray[np.float64]
Mask = NDArray[np.bool_]

_CELL = 0.02  # metres: edge of the cells that points are sorted into, about a finger's size


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
    cloud = np.asarray(points, dtype=np.float64).reshape(-1, 3)
    return collide_in_groups([cloud], grasps, np.zeros(len(grasps), np.int64), minimum_inside, gripper)


def collide_in_groups(
    clouds: Sequence[FloatArray],
    grasps: Grasps,
    group: NDArray[np.int64],
    minimum_inside: int,
    gripper: Gripper = GRASPNET_GRIPPER,
) -> tuple[Mask, Mask]:
    """Test each grasp against its group's cloud.

    Args:
        clouds: K arrays ``(M, 3)``, metres, in the grasps' frame.
        grasps: N grasps.
        group: ``(N,)`` which cloud a grasp is tested against.
        minimum_inside: with fewer points between its fingers a grasp is empty.

    Returns:
        ``collided`` and ``empty``, each ``(N,)``, as :func:`collide` gives them.
    """
    collided, empty = np.zeros(len(grasps), bool), np.ones(len(grasps), bool)
    for k in np.unique(group):
        rows = np.flatnonzero(group == k)
        cells = _bin(np.ascontiguousarray(clouds[k], dtype=np.float64))
        collided[rows], empty[rows] = _collide(
            *cells,
            grasps.translation[rows],
            grasps.rotation[rows],
            grasps.width[rows],
            grasps.depth[rows],
            minimum_inside,
            gripper.height,
            gripper.finger_back,
            gripper.finger_thickness,
            gripper.base_thickness,
        )
    return collided, empty


def points_in_box(points: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """The points ``(M, 3)`` strictly inside an axis-aligned box."""
    return _points_in_box(np.ascontiguousarray(points), low, high)


def lattice_in_box(
    T_a_b: FloatArray, axes: tuple[FloatArray, FloatArray, FloatArray], low: FloatArray, high: FloatArray
) -> FloatArray:
    """The points of a regular lattice strictly inside a box, without making the others.

    Args:
        T_a_b: ``(4, 4)`` rigid transform.
        axes: ascending x, y and z positions of the lattice in frame b; its points are all their combinations.
        low, high: ``(3,)`` corners of the box in frame a, metres.

    Returns:
        ``(M, 3)`` points in frame a.
    """
    T = np.asarray(T_a_b, dtype=np.float64)
    corners = np.array([[(low, high)[b][axis] for axis, b in enumerate(bits)] for bits in np.ndindex(2, 2, 2)])
    there = (corners - T[:3, 3]) @ np.linalg.inv(T[:3, :3]).T
    margin = 1e-6
    inside = [
        slice(*np.searchsorted(values, [there[:, k].min() - margin, there[:, k].max() + margin]))
        for k, values in enumerate(axes)
    ]
    x, y, z = (values[part] for values, part in zip(axes, inside, strict=True))
    return _lattice_in_box(T, x, y, z, low, high)


@numba.njit(cache=True, nogil=True)
def _points_in_box(points: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    out = np.empty((len(points), 3))
    count = 0
    for i in range(len(points)):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        if low[0] < x < high[0] and low[1] < y < high[1] and low[2] < z < high[2]:
            out[count, 0], out[count, 1], out[count, 2] = x, y, z
            count += 1
    return out[:count].copy()


@numba.njit(cache=True, nogil=True)
def _lattice_in_box(
    T: FloatArray, xs: FloatArray, ys: FloatArray, zs: FloatArray, low: FloatArray, high: FloatArray
) -> FloatArray:
    out = np.empty((len(xs) * len(ys) * len(zs), 3))
    count = 0
    for y in ys:
        for x in xs:
            for z in zs:
                px = T[0, 0] * x + T[0, 1] * y + T[0, 2] * z + T[0, 3]
                py = T[1, 0] * x + T[1, 1] * y + T[1, 2] * z + T[1, 3]
                pz = T[2, 0] * x + T[2, 1] * y + T[2, 2] * z + T[2, 3]
                if low[0] < px < high[0] and low[1] < py < high[1] and low[2] < pz < high[2]:
                    out[count, 0], out[count, 1], out[count, 2] = px, py, pz
                    count += 1
    return out[:count].copy()


@numba.njit(cache=True, nogil=True)
def _bin(points: FloatArray) -> tuple[FloatArray, NDArray[np.int64], NDArray[np.int64], FloatArray, float]:
    """Sort points into cubic cells: points, first point of each cell (and one past the last), shape, corner, edge."""
    low, high = np.zeros(3), np.zeros(3)
    n = len(points)
    if n:
        low[:], high[:] = points[0], points[0]
    for i in range(n):
        for k in range(3):
            low[k], high[k] = min(low[k], points[i, k]), max(high[k], points[i, k])
    edge = max(_CELL, (high - low).max() / 100.0)
    shape = np.empty(3, np.int64)
    for k in range(3):
        shape[k] = int((high[k] - low[k]) / edge) + 1
    starts = np.zeros(shape[0] * shape[1] * shape[2] + 1, np.int64)
    cell = np.empty(n, np.int64)
    for i in range(n):
        c = 0
        for k in range(3):
            c = c * shape[k] + int((points[i, k] - low[k]) / edge)
        cell[i] = c
        starts[c + 1] += 1
    for c in range(1, len(starts)):
        starts[c] += starts[c - 1]
    free = starts.copy()
    out = np.empty((n, 3))
    for i in range(n):
        out[free[cell[i]]] = points[i]
        free[cell[i]] += 1
    return out, starts, shape, low, edge


@numba.njit(cache=True, nogil=True)
def _collide(
    points: FloatArray,
    starts: NDArray[np.int64],
    shape: NDArray[np.int64],
    corner: FloatArray,
    edge: float,
    translations: FloatArray,
    rotations: FloatArray,
    widths: FloatArray,
    depths: FloatArray,
    minimum_inside: int,
    height: float,
    back: float,
    thickness: float,
    base: float,
) -> tuple[Mask, Mask]:
    count = len(widths)
    collided, empty = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
    plate = -(back + base)
    first, last = np.zeros(3, np.int64), np.zeros(3, np.int64)
    for n in range(count):
        tx, ty, tz = translations[n, 0], translations[n, 1], translations[n, 2]
        ax, ay, az = rotations[n, 0, 0], rotations[n, 1, 0], rotations[n, 2, 0]
        cx, cy, cz = rotations[n, 0, 1], rotations[n, 1, 1], rotations[n, 2, 1]
        hx, hy, hz = rotations[n, 0, 2], rotations[n, 1, 2], rotations[n, 2, 2]
        depth, half = depths[n], widths[n] / 2
        front = max(depth, -back)
        outer = half + thickness
        # The cells that the gripper's bounding box meets; all of them where the rotation is none, for then its inverse
        # is not its transpose.
        rigid = True
        for p in range(3):
            for q in range(3):
                dot = 0.0
                for k in range(3):
                    dot += rotations[n, k, p] * rotations[n, k, q]
                rigid = rigid and abs(dot - (1.0 if p == q else 0.0)) < 1e-5
        for k in range(3):
            first[k], last[k] = 0, shape[k] - 1
            if rigid:
                middle = translations[n, k] + rotations[n, k, 0] * (plate + front) / 2.0
                reach = (
                    abs(rotations[n, k, 0]) * (front - plate) / 2.0
                    + abs(rotations[n, k, 1]) * outer
                    + abs(rotations[n, k, 2]) * height / 2.0
                    + 1e-4 * (1.0 + front - plate + outer)
                )
                lower, upper = (middle - reach - corner[k]) / edge, (middle + reach - corner[k]) / edge
                first[k] = int(min(max(lower, 0.0), float(shape[k])))
                last[k] = int(min(max(upper, -1.0), shape[k] - 1.0)) if upper >= 0.0 else -1
        hit, inside, done = False, 0, False
        for i in range(first[0], last[0] + 1):
            for j in range(first[1], last[1] + 1):
                row = (i * shape[1] + j) * shape[2]
                if first[2] > last[2]:
                    continue
                for m in range(starts[row + first[2]], starts[row + last[2] + 1]):
                    dx, dy, dz = points[m, 0] - tx, points[m, 1] - ty, points[m, 2] - tz
                    along = dx * ax + dy * ay + dz * az
                    if along <= plate or along >= front:
                        continue
                    lift = dx * hx + dy * hy + dz * hz
                    if lift <= -height / 2 or lift >= height / 2:
                        continue
                    across = dx * cx + dy * cy + dz * cz
                    within = -outer < across < outer
                    if -back < along < depth:  # beside or between the fingers
                        if -half <= across <= half:
                            inside += 1
                        elif within:
                            hit = True
                    elif along < -back and within:
                        hit = True
                    if hit and inside >= minimum_inside:
                        done = True
                        break
                if done:
                    break
            if done:
                break
        collided[n] = hit
        empty[n] = inside < minimum_inside
    return collided, empty
