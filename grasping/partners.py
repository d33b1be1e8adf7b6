"""What a grasp's gripper hits: its own object, a neighbour, or the table, by the protocol's own collision rule.

The protocol says of a grasp whether any point of models or table lies in a finger or in the back plate. Here the same
kernel is asked three times, each time with a part of the same points inside the same box, so that the three answers
together are its answer, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grasping.collision import NO_LATTICE, Lattice, collide_in_boxes
from grasping.geometry import ObjectGeometry
from grasping.grasps import Grasps

# The very scene that the protocol tests against; made anew here, a last bit could differ.
from grasping.protocol import MAXIMUM_WIDTH, WORKSPACE_MARGIN, _boxes_of, _table_axes

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Partners:
    """What N grasps hit; a grasp may hit several.

    Attributes:
        target: ``(N,)`` the object that the grasp is assigned to.
        neighbour: ``(N,)`` another object.
        table: ``(N,)``.
    """

    target: Mask
    neighbour: Mask
    table: Mask

    @property
    def any(self) -> Mask:
        """``(N,)`` what the protocol calls collided."""
        return self.target | self.neighbour | self.table


def find_partners(
    grasps: Grasps,
    assigned: ArrayLike | None,
    objects: Sequence[ObjectGeometry],
    T_camera_object: ArrayLike,
    T_camera_table: ArrayLike,
) -> Partners:
    """Tell what each of one view's grasps hits.

    Args:
        grasps: N grasps in the camera frame; widths are clipped as the protocol does.
        assigned: ``(N,)`` index of each grasp's object; None assigns each to that of the nearest model point, as the
            protocol does.
        objects: the scene's K objects.
        T_camera_object: ``(K, 4, 4)`` poses; rounded to float32.
        T_camera_table: ``(4, 4)``, see :func:`grasping.protocol.score_view`.
    """
    boxes = _boxes_of(objects, np.asarray(T_camera_object, dtype=np.float32))
    grasps = replace(grasps, width=np.clip(grasps.width, 0.0, MAXIMUM_WIDTH))
    owners = boxes.owner_of_nearest(grasps.translation) if assigned is None else np.asarray(assigned, np.int64)
    low, high = boxes.object_low - WORKSPACE_MARGIN, boxes.object_high + WORKSPACE_MARGIN

    def hit(roots: NDArray[np.int64], lattice: Lattice, rows: NDArray[np.intp]) -> Mask:
        # Trees lie one after the other, so a slice of their roots is a scene of those objects alone.
        part = replace(boxes, roots=roots)
        return collide_in_boxes(part, lattice, low, high, grasps[rows], owners[rows], 0)[0]

    target, neighbour = np.zeros(len(grasps), bool), np.zeros(len(grasps), bool)
    for k in np.unique(owners).tolist():
        rows = np.flatnonzero(owners == k)
        target[rows] = hit(boxes.roots[k : k + 2], NO_LATTICE, rows)
        before, after = boxes.roots[: k + 1], boxes.roots[k + 1 :]
        neighbour[rows] = hit(before, NO_LATTICE, rows) | hit(after, NO_LATTICE, rows)
    table = Lattice(np.asarray(T_camera_table, dtype=np.float64), *_table_axes())
    return Partners(target, neighbour, hit(boxes.roots[:1], table, np.arange(len(grasps))))
