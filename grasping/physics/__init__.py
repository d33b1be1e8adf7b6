"""A physics opinion of grasps: a parallel-jaw hand in MuJoCo opens, approaches, closes, lifts, shakes and holds.

The hand has the dimensions of :mod:`grasping.gripper` and no arm. It is tried in isolation (:func:`try_grasps`: the
object floats until it is gripped, no table, no neighbours) or in a settled scene (:func:`try_grasps_in_scene`).
Everything is deterministic, and nothing knows a camera: a trial is simulated in the hand's frame or in the table's, so
moving scene and grasps together changes nothing.

Importing this package loads neither mujoco nor coacd nor trimesh; its functions do.
"""

from __future__ import annotations

from grasping.physics.bodies import PhysicsBody, PhysicsError, load_body
from grasping.physics.isolated import held_fraction, repeated, try_grasps
from grasping.physics.outcomes import OUTCOMES, Trial, TrialSettings
from grasping.physics.scene import SettledScene, settle_scene, try_grasps_in_scene

__all__ = [
    "OUTCOMES",
    "PhysicsBody",
    "PhysicsError",
    "SettledScene",
    "Trial",
    "TrialSettings",
    "held_fraction",
    "load_body",
    "repeated",
    "settle_scene",
    "try_grasps",
    "try_grasps_in_scene",
]
