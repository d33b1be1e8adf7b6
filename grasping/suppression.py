"""Non-maximum suppression of grasps, and the order among equals that everything after it relies on."""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

from grasping.grasps import Grasps


def confidence_order(grasps: Grasps) -> NDArray[np.intp]:
    """Rank grasps by confidence, best first.

    Equal confidences are ordered by the grasps' other columns, ascending, in the order of the seventeen (width, height,
    depth, rotation, translation, object id). So the result depends neither on the order of the rows nor on the machine;
    graspnetAPI sorts unstably and leaves ties to chance.

    Returns:
        ``(N,)`` row numbers. Rows alike in all seventeen columns keep their order: nothing tells them apart.
    """
    order = np.argsort(-grasps.confidence, kind="stable")
    ranked = grasps.confidence[order]
    if (ranked[1:] != ranked[:-1]).all():
        return order
    columns = grasps.to_array()
    columns[:, 0] *= -1
    return np.lexsort(columns.T[::-1])


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
    order = confidence_order(grasps)
    if len(order) == 0:
        return order
    keep = _suppress(
        np.ascontiguousarray(grasps.translation[order]),
        np.ascontiguousarray(grasps.rotation[order]),
        float(translation),
        float(angle),
    )
    return order[keep]


@numba.njit(cache=True, nogil=True)
def _suppress(
    translations: NDArray[np.float64], rotations: NDArray[np.float64], distance: float, angle: float
) -> NDArray[np.bool_]:
    n = len(translations)
    keep = np.ones(n, np.bool_)
    for i in range(n):
        if not keep[i]:
            continue
        x, y, z = translations[i, 0], translations[i, 1], translations[i, 2]
        for j in range(i + 1, n):
            if not keep[j]:
                continue
            dx = x - translations[j, 0]
            if abs(dx) >= distance:
                continue
            dy, dz = y - translations[j, 1], z - translations[j, 2]
            if math.sqrt(dx * dx + dy * dy + dz * dz) < distance:
                trace = 0.0
                for row in range(3):
                    part = 0.0
                    for column in range(3):
                        part += rotations[i, row, column] * rotations[j, row, column]
                    trace += part
                trace = min(3.0, max(-1.0, trace))
                if math.acos(0.5 * (trace - 1.0)) < angle:
                    keep[j] = False
    return keep
