"""The frame in which completion networks see clouds.

A camera's yaw about the table carries no information about shape, and its pitch would make a network learn the
table's direction anew for each view. So clouds are rotated, about the camera's origin, into a frame that stands
upright on the table and looks where the camera looks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def viewing_frame(T_table_camera: ArrayLike) -> NDArray[np.float64]:
    """Return ``R_net_camera`` ``(3, 3)``, which turns camera-frame points to the network's frame ``table``.

    z is the table's normal, upwards; x the horizontal projection of the camera's optical axis; y = z x x. Where the
    camera looks straight down, x is the image's upward direction, the limit of the same rule as the camera tilts.

    Args:
        T_table_camera: ``(4, 4)`` camera pose in a frame whose z axis is the table's normal.

    Raises:
        ValueError: if the pose is not a finite ``(4, 4)`` matrix.
    """
    T = np.asarray(T_table_camera, dtype=np.float64)
    if T.shape != (4, 4) or not np.isfinite(T).all():
        raise ValueError(f"T_table_camera must be a finite (4, 4) matrix, got shape {T.shape}")
    up = T[2, :3] / np.linalg.norm(T[2, :3])  # the table's z axis in camera coordinates
    for axis in ([0.0, 0.0, 1.0], [0.0, -1.0, 0.0]):  # optical axis; image up
        forward = np.asarray(axis) - up * np.dot(axis, up)
        length = float(np.linalg.norm(forward))
        if length > 1e-3:
            break
    forward /= length
    return np.stack([forward, np.cross(up, forward), up])
