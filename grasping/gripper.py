"""The parallel-jaw gripper as GraspNet-1Billion's evaluation draws it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Gripper:
    """Dimensions in metres, along the gripper axes of :mod:`grasping`.

    Attributes:
        max_width: largest opening between the inner faces of the fingers (y).
        height: height of the fingers (z).
        finger_thickness: thickness of one finger (y).
        finger_back: how far the fingers reach behind the grasp's translation (x): their bodies run from
            ``-finger_back`` to ``depth``.
        base_thickness: thickness of the back plate behind the fingers (x).
    """

    max_width: float = 0.10
    height: float = 0.02
    finger_thickness: float = 0.01
    finger_back: float = 0.02
    base_thickness: float = 0.01


GRASPNET_GRIPPER = Gripper()
