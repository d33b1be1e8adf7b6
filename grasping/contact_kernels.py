"""Compiled kernels of :mod:`grasping.contacts`: a line's samples, the zero between three of them, the plane around it.

Kept in one file, because numba's cache of a compiled function does not notice changes in another file's. A code per
finger says how it ended: :data:`FOUND`, or what is missing.
"""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

MINIMUM_SAMPLES = 3
"""Of a line, however short."""

# Below this ratio of eigenvalues the plane's normal is not determined by the points (one, two or collinear ones, or a
# cluster without a thin side); then LAPACK's own choice decides, as for the referee.
_DEGENERATE = 1e-6

FOUND, NO_CONTACT, NO_NORMAL, UNDECIDED = 0, 1, 2, 3
"""UNDECIDED: the surface points around the contact do not determine a plane."""


@numba.njit(cache=True, nogil=True)
def _round(x: float) -> float:
    return np.float64(np.float32(x))


@numba.njit(cache=True, nogil=True)
def _is_outside(values: FloatArray, x: float, y: float, z: float) -> bool:
    nx, ny, nz = values.shape
    return x < 0.0 or y < 0.0 or z < 0.0 or x >= nx or y >= ny or z >= nz


@numba.njit(cache=True, nogil=True)
def distance(values: FloatArray, resolution: float, cells: FloatArray, x: float, y: float, z: float) -> float:
    """Signed distance at grid coordinates: trilinear; outside, by the nearest surface cell (inf without any)."""
    if _is_outside(values, x, y, z):
        x, y, z = _round(x), _round(y), _round(z)
        least, where = np.inf, -1
        for c in range(len(cells)):
            dx, dy, dz = cells[c, 0] - x, cells[c, 1] - y, cells[c, 2] - z
            square = dx * dx + dy * dy + dz * dz
            if square < least:
                least, where = square, c
        return np.inf if where < 0 else cells[where, 3] + resolution * math.sqrt(least)
    nx, ny, nz = values.shape
    cx, cy, cz = min(max(x, 0.0), nx - 1.0), min(max(y, 0.0), ny - 1.0), min(max(z, 0.0), nz - 1.0)
    i, j, k = int(cx), int(cy), int(cz)
    fx, fy, fz = cx - i, cy - j, cz - k
    gx, gy, gz = 1.0 - fx, 1.0 - fy, 1.0 - fz
    # beyond the last node the weight is zero
    i1, j1, k1 = min(i + 1, nx - 1), min(j + 1, ny - 1), min(k + 1, nz - 1)
    d = gx * gy * gz * values[i, j, k]
    d += fx * gy * gz * values[i1, j, k]
    d += gx * fy * gz * values[i, j1, k]
    d += gx * gy * fz * values[i, j, k1]
    d += fx * fy * gz * values[i1, j1, k]
    d += gx * fy * fz * values[i, j1, k1]
    d += fx * gy * fz * values[i1, j, k1]
    d += fx * fy * fz * values[i1, j1, k1]
    return d


@numba.njit(cache=True, nogil=True)
def _parabola_zero(
    p1: FloatArray, y1: float, p2: FloatArray, y2: float, p3: FloatArray, y3: float, out: FloatArray
) -> bool:
    """Zero of the parabola through three samples of a line, at most one cell from the first; out is its position.

    Of its roots the smallest that is not negative and at most 10 cells away counts; where there is none, its extremum.
    """
    d = p2 - p1
    length = math.sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2])
    if length == 0.0:
        return False
    v = d / length
    axis = 0
    while v[axis] == 0.0:
        axis += 1
    t2, t3 = d[axis] / v[axis], (p3[axis] - p1[axis]) / v[axis]
    # y = a t² + b t + y1; elimination with pivoting, as a general solver does
    r2, r3 = y2 - y1, y3 - y1
    s2, s3 = t2 * t2, t3 * t3
    if s3 > s2:
        if s3 == 0.0:
            return False
        f = s2 / s3
        pivot = t2 - f * t3
        if pivot == 0.0:
            return False
        b = (r2 - f * r3) / pivot
        a = (r3 - b * t3) / s3
    else:
        if s2 == 0.0:
            return False
        f = s3 / s2
        pivot = t3 - f * t2
        if pivot == 0.0:
            return False
        b = (r3 - f * r2) / pivot
        a = (r2 - b * t2) / s2
    if abs(a) < 1e-10:
        return False
    t = -b / (2.0 * a)
    discriminant = b * b - 4.0 * a * y1
    if discriminant >= 0.0:
        q = -0.5 * (b + math.copysign(math.sqrt(discriminant), b))
        large = q / a
        small = y1 / q if q != 0.0 else 0.0
        if 0.0 <= small <= 10.0:
            t = small
        elif 0.0 <= large <= 10.0:
            t = large
    if not -1.0 <= t <= 1.0:
        return False
    for k in range(3):
        out[k] = p1[k] + t * v[k]
    return True


@numba.njit(cache=True, nogil=True)
def _contact(
    values: FloatArray,
    resolution: float,
    scale: float,
    shift: FloatArray,
    start: FloatArray,
    axis: FloatArray,
    reach: float,
    count: int,
    cells: FloatArray,
    limit: float,
    line: FloatArray,
    distances: FloatArray,
    out: FloatArray,
    outside: NDArray[np.bool_],
) -> bool:
    """Run along one line; out is the contact in grid coordinates. line and distances are work space.

    outside[0] is set where a sample outside the grid is compared with another, or is not farther than limit.
    """
    threshold = resolution * math.sqrt(2.0) / 2.0
    step = reach / (count - 1)
    for i in range(count):
        t = reach if i == count - 1 else i * step
        for k in range(3):
            line[i, k] = scale * _round(start[k] + t * axis[k]) + shift[k]
    done = 0  # samples looked up so far
    for i in range(count):
        last = i == count - 1
        ahead = min(max(i + 1, 2), count - 1) if done <= i or abs(distances[i]) < threshold else i
        while done <= i:
            distances[done] = distance(values, resolution, cells, line[done, 0], line[done, 1], line[done, 2])
            if distances[done] <= limit and _is_outside(values, line[done, 0], line[done, 1], line[done, 2]):
                outside[0] = True
            done += 1
        if not abs(distances[i]) < threshold:
            continue
        while done <= ahead:
            distances[done] = distance(values, resolution, cells, line[done, 0], line[done, 1], line[done, 2])
            done += 1
        # three samples around this one, shifted inward at the two ends of the line; each is compared with it
        first = min(max(i - 1, 0), count - 3)
        for j in range(first, first + 3):
            if _is_outside(values, line[j, 0], line[j, 1], line[j, 2]):
                outside[0] = True
        if not last and abs(distances[i + 1]) < abs(distances[i]):
            continue
        if _parabola_zero(
            line[first],
            distances[first],
            line[first + 1],
            distances[first + 1],
            line[first + 2],
            distances[first + 2],
            out,
        ):
            return True
    return False


@numba.njit(cache=True, nogil=True)
def _smallest_eigenvector(m: FloatArray, out: FloatArray) -> bool:
    """Least eigenvalue's vector of a symmetric (3, 3) matrix, by Jacobi rotations; False where it is not unique."""
    v = np.eye(3)
    for _ in range(12):
        off = m[0, 1] * m[0, 1] + m[0, 2] * m[0, 2] + m[1, 2] * m[1, 2]
        size = m[0, 0] * m[0, 0] + m[1, 1] * m[1, 1] + m[2, 2] * m[2, 2]
        if off <= 1e-32 * size:
            break
        for p in range(2):
            for q in range(p + 1, 3):
                if m[p, q] == 0.0:
                    continue
                theta = (m[q, q] - m[p, p]) / (2.0 * m[p, q])
                t = math.copysign(1.0, theta) / (abs(theta) + math.sqrt(theta * theta + 1.0))
                c = 1.0 / math.sqrt(t * t + 1.0)
                s = t * c
                for k in range(3):
                    mkp, mkq = m[k, p], m[k, q]
                    m[k, p], m[k, q] = c * mkp - s * mkq, s * mkp + c * mkq
                for k in range(3):
                    mpk, mqk = m[p, k], m[q, k]
                    m[p, k], m[q, k] = c * mpk - s * mqk, s * mpk + c * mqk
                for k in range(3):
                    vkp, vkq = v[k, p], v[k, q]
                    v[k, p], v[k, q] = c * vkp - s * vkq, s * vkp + c * vkq
    least = 0
    for k in range(1, 3):
        if m[k, k] < m[least, least]:
            least = k
    second, largest = np.inf, 0.0
    for k in range(3):
        if k != least:
            second = min(second, m[k, k])
        largest = max(largest, m[k, k])
        out[k] = v[k, least]
    return second - m[least, least] > _DEGENERATE * largest


@numba.njit(cache=True, nogil=True)
def _normal(
    values: FloatArray,
    resolution: float,
    g: FloatArray,
    offsets: FloatArray,
    cells: FloatArray,
    limit: float,
    out: FloatArray,
    outside: NDArray[np.bool_],
) -> int:
    """Fit a plane to the surface points around grid coordinates g; out is its unit normal."""
    threshold = resolution * math.sqrt(2.0) / 2.0
    d = distance(values, resolution, cells, g[0], g[1], g[2])
    if d <= limit and _is_outside(values, g[0], g[1], g[2]):
        outside[0] = True
    if not abs(d) < threshold:
        return NO_NORMAL
    s = np.zeros(3)
    m = np.zeros((3, 3))
    count = 0
    for o in range(len(offsets)):
        x, y, z = offsets[o, 0], offsets[o, 1], offsets[o, 2]
        d = distance(values, resolution, cells, g[0] + x, g[1] + y, g[2] + z)
        if d <= limit and _is_outside(values, g[0] + x, g[1] + y, g[2] + z):
            outside[0] = True
        if abs(d) < threshold:
            count += 1
            s[0] += x
            s[1] += y
            s[2] += z
            m[0, 0] += x * x
            m[0, 1] += x * y
            m[0, 2] += x * z
            m[1, 1] += y * y
            m[1, 2] += y * z
            m[2, 2] += z * z
    for p in range(3):
        for q in range(p, 3):
            m[p, q] -= s[p] * s[q] / count
            m[q, p] = m[p, q]
    return FOUND if _smallest_eigenvector(m, out) else UNDECIDED


@numba.njit(cache=True, nogil=True)
def close(
    values: FloatArray,
    origin: FloatArray,
    resolution: float,
    centres: FloatArray,
    axes: FloatArray,
    widths: FloatArray,
    offsets: FloatArray,
    cells: FloatArray,
    limit: float,
    points: FloatArray,
    normals: FloatArray,
    status: NDArray[np.int64],
    outside: NDArray[np.bool_],
) -> None:
    scale = 1.0 / resolution
    shift = -scale * origin
    most = max(int(2.0 * (scale * widths.max()) / 2.0), MINIMUM_SAMPLES)
    line, distances = np.empty((most, 3)), np.empty(most)
    g, normal, start, axis = np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    for n in range(len(centres)):
        reach = widths[n] / 2.0
        count = max(int(2.0 * (scale * widths[n]) / 2.0), MINIMUM_SAMPLES)
        for finger in range(2):
            sign = 1.0 if finger == 0 else -1.0
            for k in range(3):
                axis[k] = sign * axes[n, k]
                start[k] = centres[n, k] - reach * axis[k]
            if not _contact(
                values,
                resolution,
                scale,
                shift,
                start,
                axis,
                reach,
                count,
                cells,
                limit,
                line,
                distances,
                g,
                outside[n : n + 1],
            ):
                break  # one finger in the air decides
            for k in range(3):
                points[n, finger, k] = resolution * _round(g[k]) + origin[k]
                g[k] = scale * _round(points[n, finger, k]) + shift[k]
            status[n, finger] = _normal(values, resolution, g, offsets, cells, limit, normal, outside[n : n + 1])
            if status[n, finger] == FOUND:
                for k in range(3):
                    normals[n, finger, k] = _round(normal[k])
