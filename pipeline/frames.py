"""The frame in which completion networks see clouds.

A camera's yaw about the table carries no information about shape, and its pitch would make a network learn the
table's direction anew for each view. So clouds are rotated, about the camera's origin, into a frame that stands
upright on the table and looks where the camera looks.

Networks that were trained on ShapeNet's models elsewhere expect them in their ``canonical`` frame: y up, the front
towards -z. An observation tells what is up and not where an object's front is, so such a network is given the same
upright cloud with its axes named anew: y is up, and the side that the camera sees is taken for the front.
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


# From `table` (z up, x away from the camera) to `canonical`; a rotation, so that nothing is mirrored.
_CANONICAL_TABLE = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])


def network_frame(frame: str, T_table_camera: ArrayLike) -> NDArray[np.float64]:
    """Return the rotation ``(3, 3)`` that turns camera-frame points to the frame that a completion declares.

    Args:
        frame: ``camera``, ``table`` (:func:`viewing_frame`), or ``canonical`` (its best fit, see above).
        T_table_camera: ``(4, 4)`` camera pose in a frame whose z axis is the table's normal.

    Raises:
        ValueError: on any other frame, or a pose that is not finite.
    """
    if frame == "camera":
        return np.eye(3)
    if frame == "table":
        return viewing_frame(T_table_camera)
    if frame == "canonical":
        return _CANONICAL_TABLE @ viewing_frame(T_table_camera)
    raise ValueError(f"unknown frame {frame!r}: use camera, table or canonical")
