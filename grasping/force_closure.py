"""Force closure of two contacts with friction.

Two contacts hold an object when the line through them lies inside both friction cones (Nguyen, IJRR 1988). Normals
count by their absolute direction, because a fitted plane has no outer side.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from grasping.contacts import Contacts

FloatArray = NDArray[np.float64]

FRICTIONS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2)
"""Coulomb coefficients at which GraspNet-1Billion's evaluation asks whether a grasp holds."""


def required_angle(contacts: Contacts) -> FloatArray:
    """The half-angle that both friction cones must have, ``(N,)`` radians in [0, π/2]; +inf where nothing would do.

    The larger angle between a contact's normal and the line through both contacts.
    """
    out = np.full(len(contacts.found), np.inf)
    rows = np.flatnonzero(contacts.found & np.isfinite(contacts.normals).all(axis=(1, 2)))
    if len(rows) == 0:
        return out
    line = contacts.points[rows, 1] - contacts.points[rows, 0]
    length = np.linalg.norm(line, axis=1)
    rows, line, length = rows[length > 0], line[length > 0], length[length > 0]
    n = contacts.normals[rows]
    projection = np.abs(np.einsum("nfk,nk->nf", n, line)) / np.linalg.norm(n, axis=2)
    out[rows] = np.arccos(np.minimum(projection / length[:, None], 1.0)).max(axis=1)
    return out


def minimum_friction(angle: FloatArray) -> FloatArray:
    """The least of :data:`FRICTIONS` whose cone is at least ``angle`` (radians) wide, ``(N,)``; +inf where none is."""
    ladder = np.arctan(np.array(FRICTIONS))
    return np.array([*FRICTIONS, np.inf])[np.searchsorted(ladder, angle, side="left")]
