"""Trials in a scene: objects on a table, settled before anything is judged.

Table frame: z up, the table top is z = 0, metres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grasping.grasps import Grasps
from grasping.gripper import GRASPNET_GRIPPER, Gripper
from grasping.physics.bodies import PhysicsBody
from grasping.physics.hand import build_world, free_joint_position, pose_of_free_joint
from grasping.physics.isolated import check_finite
from grasping.physics.outcomes import Recorder, Trial, TrialSettings
from grasping.physics.trial import Start, plan_motion, run_trial

FloatArray = NDArray[np.float64]

SOFT_TIME, SOFT_CALM, SOFT_S = 0.05, 0.7, 0.6  # overlaps are pushed apart by soft contacts, and speed is taken away
CALM = 0.85  # of the speed remains after each chunk of the rest: rolling resistance and the cloth on the table
STILL_M_S, STILL_RAD_S, STILL_CHUNKS = 0.002, 0.03, 8


@dataclass(frozen=True, eq=False)
class SettledScene:
    """Objects at rest on a table.

    Attributes:
        bodies: the K objects.
        T_table_object: ``(K, 4, 4)`` where they lie.
        displacement: ``(K,)`` metres that their centres of mass moved from where they were said to lie.
        rotation: ``(K,)`` radians that they turned.
        still: ``(K,)`` bool, whether each came to rest in the time it was given.
    """

    bodies: tuple[PhysicsBody, ...] = field(repr=False)
    T_table_object: FloatArray = field(repr=False)
    displacement: FloatArray
    rotation: FloatArray
    still: NDArray[np.bool_]


def settle_scene(bodies: Sequence[PhysicsBody], T_table_object: ArrayLike, settings: TrialSettings) -> SettledScene:
    """Push objects gently out of the table and of one another, and let them come to rest.

    Args:
        bodies: K objects.
        T_table_object: ``(K, 4, 4)`` their poses in the table's frame, which may overlap by some millimetres.
        settings: friction, gravity, contacts, ``rest_time``.

    Raises:
        ValueError: poses that are not ``(K, 4, 4)`` or not finite.
    """
    import mujoco

    T = np.asarray(T_table_object, dtype=np.float64)
    if T.shape != (len(bodies), 4, 4) or not np.isfinite(T).all():
        raise ValueError(f"expected finite poses ({len(bodies)}, 4, 4) for {len(bodies)} bodies, got shape {T.shape}")
    if not bodies:
        return SettledScene((), T, np.zeros(0), np.zeros(0), np.zeros(0, bool))
    world = build_world(bodies, settings, GRASPNET_GRIPPER, table=True, hand=False)
    model, data = world.model, world.data
    model.opt.gravity[:] = [0.0, 0.0, -settings.gravity]
    mujoco.mj_resetData(model, data)
    data.qpos[:] = np.concatenate(
        [free_joint_position(pose, body.centre) for pose, body in zip(T, bodies, strict=True)]
    )
    mujoco.mj_forward(model, data)
    start, turned = data.xipos[world.objects].copy(), data.xmat[world.objects].reshape(-1, 3, 3).copy()

    h = settings.timestep * settings.chunk
    model.geom_solref[:, 0] = SOFT_TIME
    for _ in range(int(np.ceil(SOFT_S / h))):
        mujoco.mj_step(model, data, settings.chunk)
        data.qvel *= SOFT_CALM
    model.geom_solref[:, 0] = settings.contact_time
    calm = 0
    still = np.zeros(len(bodies), bool)
    for _ in range(int(np.ceil(settings.rest_time / h))):
        mujoco.mj_step(model, data, settings.chunk)
        speed = data.qvel.reshape(-1, 6)
        still = (np.linalg.norm(speed[:, :3], axis=1) < STILL_M_S) & (
            np.linalg.norm(speed[:, 3:], axis=1) < STILL_RAD_S
        )
        calm = calm + 1 if still.all() else 0
        if calm >= STILL_CHUNKS:
            break
        data.qvel *= CALM
    mujoco.mj_forward(model, data)
    poses = np.array([pose_of_free_joint(q, b.centre) for q, b in zip(data.qpos.reshape(-1, 7), bodies, strict=True)])
    cosine = (np.einsum("kij,kij->k", turned, data.xmat[world.objects].reshape(-1, 3, 3)) - 1) / 2
    return SettledScene(
        bodies=tuple(bodies),
        T_table_object=poses,
        displacement=np.linalg.norm(data.xipos[world.objects] - start, axis=1),
        rotation=np.arccos(np.clip(cosine, -1.0, 1.0)),
        still=still,
    )


def try_grasps_in_scene(
    scene: SettledScene,
    target: ArrayLike,
    grasps: Grasps,
    settings: TrialSettings,
    gripper: Gripper = GRASPNET_GRIPPER,
    recorder: Recorder | None = None,
) -> list[Trial]:
    """Try grasps on objects of a scene, each from the settled state.

    Args:
        scene: settled with the same settings.
        target: ``(N,)`` index into ``scene.bodies`` of the object that each grasp means.
        grasps: each in the frame of its own object, with which it moves to the settled pose.
        settings: of the trials.
        gripper: dimensions of the hand.
        recorder: is shown every phase.

    Raises:
        ValueError: a target that is none of the scene's, or a grasp that is not finite.
    """
    targets = np.asarray(target, dtype=np.int64).reshape(-1)
    check_finite(grasps)
    if len(targets) != len(grasps) or ((targets < 0) | (targets >= len(scene.bodies))).any():
        raise ValueError(f"expected {len(grasps)} targets between 0 and {len(scene.bodies) - 1}")
    if len(grasps) == 0:
        return []
    world = build_world(scene.bodies, settings, gripper, table=True)
    objects = np.array(
        [free_joint_position(T, body.centre) for T, body in zip(scene.T_table_object, scene.bodies, strict=True)]
    )
    down = np.array([0.0, 0.0, -settings.gravity])
    trials = []
    for n, k in enumerate(targets):
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = grasps.rotation[n], grasps.translation[n]
        T_table_hand = scene.T_table_object[k] @ T
        place = free_joint_position(T_table_hand, np.zeros(3))
        start = Start(
            objects=objects,
            hand_position=place[:3],
            hand_quaternion=place[3:],
            width=float(grasps.width[n]),
            depth=float(grasps.depth[n]),
            target=int(k),
            gravity_closing=down,
            gravity_lifting=down,
        )
        up = T_table_hand[2, :3]  # the table's z in the hand's frame
        trials.append(run_trial(world, start, plan_motion(settings, up), recorder))
    return trials
