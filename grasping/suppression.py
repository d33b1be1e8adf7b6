"""Non-maximum suppression of grasps, and the order among equals that everything after it relies on."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numba
import numpy as np
from numpy.typing import NDArray

from grasping.grasps import Grasps

FloatArray = NDArray[np.float64]

_MOST_CELLS = 32  # along an axis
_BAND = 1e-6  # radians around the threshold within which acos itself decides


def confidence_order(grasps: Grasps) -> NDArray[np.intp]:
    """Rank grasps by confidence, best first.

    Equal confidences are ordered by the grasps' other columns, ascending, in the order of the seventeen (width, height,
    depth, rotation, translation, object id). So the result depends neither on the order of the rows nor on the machine;
    graspnetAPI sorts unstably and leaves ties to chance.

    Returns:
        ``(N,)`` row numbers. Rows alike in all seventeen columns keep their order: nothing tells them apart.
    """
    order = np.argsort(-grasps.confidence)
    ranked = grasps.confidence[order]
    equal = ranked[1:] == ranked[:-1]
    if not equal.any():
        return order
    # Only rows that share their confidence need the other columns; each run of them stays in its place.
    tied = np.flatnonzero(np.append(equal, False) | np.append(False, equal))
    rows = np.sort(order[tied])
    columns = grasps[rows].to_array()
    columns[:, 0] *= -1
    order[tied] = rows[np.lexsort(columns.T[::-1])]
    return order


def suppress(grasps: Grasps, translation: float, angle: float) -> NDArray[np.intp]:
    """Keep the best of grasps that are close to each other in translation **and** rotation (greedy, best first).

    The rule of the package grasp_nms 1.0.2: a grasp goes when a kept, better one is nearer than ``translation`` and
    its rotation differs by less than ``angle``, whatever the two grasps' widths and depths.

    Args:
        grasps: N grasps with finite rows.
        translation: metres.
        angle: radians, of the rotation that takes one to the other.

    Returns:
        ``(S,)`` row numbers of the grasps that stay, in :func:`confidence_order`.
    """
    return np.concatenate([np.zeros(0, np.intp), *survivors(grasps, translation, angle, max(len(grasps), 1))])


def survivors(grasps: Grasps, translation: float, angle: float, first: int) -> Iterator[NDArray[np.intp]]:
    """Yield what :func:`suppress` returns piece by piece, for who may not need all of it.

    Args:
        grasps, translation, angle: as there.
        first: how many the first piece holds; each further one is twice as long.
    """
    order = confidence_order(grasps)
    translations = np.ascontiguousarray(grasps.translation)
    rotations = np.ascontiguousarray(grasps.rotation)
    low, edge, shape = _cells(translations, float(translation))
    heads = np.full(shape[0] * shape[1] * shape[2], -1, np.int64)
    following = np.empty(len(order), np.int64)
    limits = _limits(float(translation), float(angle))
    reached, most = 0, first
    while reached < len(order):
        reached, piece = _extend(
            translations, rotations, order, reached, most, *limits, low, edge, shape, heads, following
        )
        if len(piece):
            yield piece
        most *= 2


def _limits(distance: float, angle: float) -> tuple[float, float, float, float]:
    """Turn ``sqrt(d) < distance`` and ``acos((trace - 1) / 2) < angle`` into comparisons of d and of the trace.

    Returns:
        The least square whose root is not below the distance (roots are correctly rounded, so monotone: the comparison
        is the same to the last bit); the angle; the trace above which the rotation surely differs by less, and that
        below which it surely does not. Between these two acos decides, whatever the last bits of its result.
    """
    square = distance * distance if distance > 0.0 else 0.0
    while square > 0.0 and math.sqrt(square) >= distance:
        square = math.nextafter(square, 0.0)
    while math.sqrt(square) < distance:
        square = math.nextafter(square, math.inf)
    sure = 1.0 + 2.0 * math.cos(angle - _BAND) if _BAND < angle < math.pi else math.inf
    never = 1.0 + 2.0 * math.cos(angle + _BAND) if 0.0 < angle < math.pi - _BAND else -math.inf
    return square, angle, sure, never


@numba.njit(cache=True, nogil=True)
def _cells(points: FloatArray, distance: float) -> tuple[FloatArray, FloatArray, NDArray[np.int64]]:
    """Corner, edges and number of cells such that points nearer than the distance lie in neighbouring cells."""
    low, edge, shape = np.zeros(3), np.full(3, np.inf), np.ones(3, np.int64)
    for k in range(3 if len(points) else 0):
        least, greatest = np.inf, -np.inf
        for i in range(len(points)):
            least, greatest = min(least, points[i, k]), max(greatest, points[i, k])
        side = max(distance * (1.0 + 1e-6), (greatest - least) / _MOST_CELLS * (1.0 + 1e-6))
        if 0.0 < side < np.inf and greatest - least < np.inf:
            low[k], edge[k] = least, side
            shape[k] = int((greatest - least) / side) + 1
        # otherwise all of them lie in one cell
    return low, edge, shape


@numba.njit(cache=True, nogil=True)
def _extend(
    translations: FloatArray,
    rotations: FloatArray,
    order: NDArray[np.intp],
    start: int,
    most: int,
    square: float,
    angle: float,
    sure: float,
    never: float,
    low: FloatArray,
    edge: FloatArray,
    shape: NDArray[np.int64],
    heads: NDArray[np.int64],
    following: NDArray[np.int64],
) -> tuple[int, NDArray[np.intp]]:
    """Go on from a place in the order until ``most`` more survive: the place reached, and the rows that do.

    ``heads`` and ``following`` chain the survivors of each cell; they carry the state from one call to the next.
    """
    out = np.empty(min(most, len(order) - start), np.intp)
    count = 0
    home = np.zeros(3, np.int64)
    for place in range(start, len(order)):
        if count == most:
            return place, out[:count]
        i = order[place]
        x, y, z = translations[i, 0], translations[i, 1], translations[i, 2]
        for k in range(3):
            home[k] = min(int((translations[i, k] - low[k]) / edge[k]), shape[k] - 1) if edge[k] < np.inf else 0
        stays = True
        for cx in range(max(home[0] - 1, 0), min(home[0] + 2, shape[0])):
            for cy in range(max(home[1] - 1, 0), min(home[1] + 2, shape[1])):
                for cz in range(max(home[2] - 1, 0), min(home[2] + 2, shape[2])):
                    j = heads[(cx * shape[1] + cy) * shape[2] + cz]
                    while j >= 0 and stays:
                        dx, dy, dz = x - translations[j, 0], y - translations[j, 1], z - translations[j, 2]
                        if dx * dx + dy * dy + dz * dz < square:
                            trace = 0.0
                            for row in range(3):
                                part = 0.0
                                for column in range(3):
                                    part += rotations[i, row, column] * rotations[j, row, column]
                                trace += part
                            if trace > sure:
                                stays = False
                            elif not trace < never:
                                trace = min(3.0, max(-1.0, trace))
                                stays = not math.acos(0.5 * (trace - 1.0)) < angle
                        j = following[j]
        if stays:
            cell = (home[0] * shape[1] + home[1]) * shape[2] + home[2]
            following[i] = heads[cell]
            heads[cell] = i
            out[count] = i
            count += 1
    return len(order), out[:count]
