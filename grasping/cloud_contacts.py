"""What a cloud says of a grasp: do the fingers, closing, meet surfaces that oppose each other?

A second opinion on grasps that somebody else proposes: a detector that saw one side of an object does not know what the
far finger will meet, a completed cloud claims to.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from grasping.grasps import Grasps
from grasping.normals import estimate_normals

_HALF = 0.6
"""Required friction at which a grasp is worth half, as in the antipodal generator's confidence."""
_CONTACT = 0.003
"""Metres: points this near to the first one that a finger meets make its contact."""


def opposition(grasps: Grasps, cloud: ArrayLike) -> NDArray[np.float64]:
    """Grade grasps by the friction that closing on a cloud would need.

    Between the fingers, the outermost points on either side are the contacts; friction is the tangent of the larger
    angle between a contact's mean line of normals and the closing axis.

    Args:
        grasps: G grasps.
        cloud: ``(N, 3)`` metres, in the grasps' frame; of objects alone.

    Returns:
        ``(G,)`` in [0, 1]: 1 where surfaces face each other along the closing axis, 1/2 where friction 0.6 is needed,
        0 where nothing is between the fingers or a contact has no normal.
    """
    points = np.asarray(cloud, dtype=np.float64).reshape(-1, 3)
    grade = np.zeros(len(grasps))
    if len(points) == 0 or len(grasps) == 0:
        return grade
    normals, _ = estimate_normals(points)
    middle = grasps.translation + grasps.rotation[:, :, 0] * (grasps.depth / 2)[:, None]
    reach = np.sqrt((grasps.depth / 2) ** 2 + (grasps.width / 2) ** 2 + (grasps.height / 2) ** 2)
    for g, near in enumerate(cKDTree(points).query_ball_point(middle, reach)):
        near = np.sort(np.asarray(near, dtype=np.intp))
        x, y, z = ((points[near] - grasps.translation[g]) @ grasps.rotation[g]).T
        inside = (x > 0) & (x < grasps.depth[g]) & (np.abs(y) < grasps.width[g] / 2)
        inside &= np.abs(z) < grasps.height[g] / 2
        if not inside.any():
            continue
        near, y = near[inside], y[inside]
        along = min(
            _along(normals[near[y > y.max() - _CONTACT]], grasps.rotation[g, :, 1]),
            _along(normals[near[y < y.min() + _CONTACT]], grasps.rotation[g, :, 1]),
        )
        # friction = tan(acos(along)); squared, over the square of the half point
        grade[g] = 0.0 if along <= 0 else 1.0 / (1.0 + (1.0 / along**2 - 1.0) / _HALF**2)
    return grade


def _along(normals: NDArray[np.float64], axis: NDArray[np.float64]) -> float:
    """Cosine between an axis and the common line of normals of either sign; 0 where there is none."""
    line = np.linalg.eigh(normals.T @ normals)
    if line.eigenvalues[-1] <= 0:
        return 0.0
    return min(1.0, abs(float(line.eigenvectors[:, -1] @ axis)))
