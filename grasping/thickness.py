"""How thin an object is where it is touched: the length of a ray from the contact through the inside of the object.

The ray begins at the contact, runs along the surface's normal into the object and ends where it leaves it: the central
ray of the shape diameter function (Shapira, Shamir, Cohen-Or, *Consistent mesh partitioning and skeletonisation using
the shape diameter function*, The Visual Computer 24, 2008), which averages a cone of such rays. A sheet has its
thickness, a tube's wall that of the wall, a solid cylinder its diameter; touched on its rim, a cup's wall has its
height.
"""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from grasping.contacts import Contacts
from grasping.signed_distance import SignedDistanceGrid

FloatArray = NDArray[np.float64]

# In cells. The march is four times as fine as the grid, so that a wall of one cell is not stepped over. A contact lies
# within √2/2 of a cell of the surface: there it is sought, one cell outward and half as much more inward.
_STEP = 0.25
_OUTWARD, _INWARD = 1.0, 1.5


def grasp_thickness(sdf: SignedDistanceGrid, contacts: Contacts) -> FloatArray:
    """Thickness of the object where each of N grasps holds it, ``(N,)`` metres: the smaller of its contacts' two.

    NaN where a grasp has no contacts.

    Args:
        sdf: signed distances of the object.
        contacts: of N grasps on it, object frame.
    """
    both = thickness(sdf, contacts.points.reshape(-1, 3), contacts.normals.reshape(-1, 3)).reshape(-1, 2)
    return np.where(contacts.found, both.min(axis=1), np.nan)


def thickness(sdf: SignedDistanceGrid, points: ArrayLike, normals: ArrayLike) -> FloatArray:
    """Length ``(N,)`` in metres that a ray along each surface point's normal travels inside the object.

    The side on which the distance is negative counts as inside. 0 where the ray meets no negative distance: the object
    is thinner there than its grid can tell. NaN where a point or normal is not finite. Beyond the grid nothing is
    inside.

    Args:
        sdf: signed distances.
        points: ``(N, 3)`` on the surface or within a cell of it, metres, object frame.
        normals: ``(N, 3)`` of unit length, sign arbitrary.
    """
    p = np.ascontiguousarray(points, dtype=np.float64).reshape(-1, 3)
    n = np.ascontiguousarray(normals, dtype=np.float64).reshape(-1, 3)
    values = np.ascontiguousarray(sdf.values, dtype=np.float64).view(np.ndarray)
    values.flags.writeable = False  # one compiled version for arrays and memory maps alike
    return _march(values, np.asarray(sdf.origin, np.float64), float(sdf.resolution), p, n)


@numba.njit(cache=True, nogil=True)
def _distance(values: FloatArray, x: float, y: float, z: float) -> float:
    """Trilinear at grid coordinates; outside the grid positive."""
    nx, ny, nz = values.shape
    if not (0.0 <= x <= nx - 1.0 and 0.0 <= y <= ny - 1.0 and 0.0 <= z <= nz - 1.0):
        return np.inf
    i, j, k = min(int(x), nx - 2), min(int(y), ny - 2), min(int(z), nz - 2)
    fx, fy, fz = x - i, y - j, z - k
    low = (values[i, j, k] * (1.0 - fx) + values[i + 1, j, k] * fx) * (1.0 - fy)
    low += (values[i, j + 1, k] * (1.0 - fx) + values[i + 1, j + 1, k] * fx) * fy
    high = (values[i, j, k + 1] * (1.0 - fx) + values[i + 1, j, k + 1] * fx) * (1.0 - fy)
    high += (values[i, j + 1, k + 1] * (1.0 - fx) + values[i + 1, j + 1, k + 1] * fx) * fy
    return low * (1.0 - fz) + high * fz


@numba.njit(cache=True, nogil=True)
def _crossing(before: float, after: float) -> float:
    """Part of a step at which the distance is zero."""
    return before / (before - after) if math.isfinite(before) and math.isfinite(after) else 0.5


@numba.njit(cache=True, nogil=True)
def _march(
    values: FloatArray, origin: FloatArray, resolution: float, points: FloatArray, normals: FloatArray
) -> FloatArray:
    out = np.empty(len(points))
    longest = math.sqrt(float(values.shape[0] ** 2 + values.shape[1] ** 2 + values.shape[2] ** 2))
    for n in range(len(points)):
        x, y, z = (points[n] - origin) / resolution
        dx, dy, dz = normals[n]
        if not math.isfinite(x + y + z + dx + dy + dz):
            out[n] = np.nan
            continue
        ahead, back = 0.0, 0.0  # a thin wall is negative on one side for a part of a cell only: look at several
        for reach in (0.5, 1.0, 1.5):
            ahead = min(ahead, _distance(values, x + reach * dx, y + reach * dy, z + reach * dz))
            back = min(back, _distance(values, x - reach * dx, y - reach * dy, z - reach * dz))
        if back < ahead:
            dx, dy, dz = -dx, -dy, -dz
        t, enters, length = -_OUTWARD, np.nan, 0.0
        before = _distance(values, x + t * dx, y + t * dy, z + t * dz)
        if before < 0.0:  # in a narrow notch the ray begins in what lies across it
            t, enters = 0.0, 0.0
            before = _distance(values, x, y, z)
        while t < longest:
            now = _distance(values, x + (t + _STEP) * dx, y + (t + _STEP) * dy, z + (t + _STEP) * dz)
            if math.isnan(enters):
                if t >= _INWARD:
                    break
                if now < 0.0:
                    enters = t + _STEP * _crossing(before, now)
            elif now >= 0.0:
                leaves = t + _STEP * (_crossing(before, now) if before < 0.0 else 0.0)
                length = max(leaves - enters, 0.0)
                break
            t, before = t + _STEP, now
        out[n] = length * resolution
    return out
