"""Trials in isolation: an object, a hand, no table, no neighbours."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from grasping.grasps import Grasps
from grasping.gripper import GRASPNET_GRIPPER, Gripper
from grasping.physics.bodies import PhysicsBody
from grasping.physics.hand import World, build_world, free_joint_position
from grasping.physics.outcomes import Recorder, Trial, TrialSettings
from grasping.physics.trial import Start, plan_motion, run_trial
from grasping.transforms import invert, pose

FloatArray = NDArray[np.float64]

APPROACH = np.array([1.0, 0.0, 0.0])  # in the hand's frame, which is this trial's world
MOVE, TURN = 0.002, 0.035  # metres and radians (2°): standard deviation of a repeat's perturbation, each axis


def try_grasps(
    body: PhysicsBody,
    grasps: Grasps,
    settings: TrialSettings,
    gripper: Gripper = GRASPNET_GRIPPER,
    recorder: Recorder | None = None,
) -> list[Trial]:
    """Try grasps of a floating object, each from a clean state.

    The world of a trial is the hand's frame at the grasp, so outcomes do not depend on where object and grasp lie.

    Args:
        body: the object.
        grasps: in the object's frame; non-finite ones are refused.
        settings: of the trials.
        gripper: dimensions of the hand.
        recorder: is shown every phase (see :data:`grasping.physics.outcomes.Recorder`).

    Raises:
        ValueError: a grasp holds numbers that are not finite.
    """
    check_finite(grasps)
    if len(grasps) == 0:
        return []
    return try_in_world(build_world([body], settings, gripper, table=False), body, grasps, recorder)


def try_in_world(world: World, body: PhysicsBody, grasps: Grasps, recorder: Recorder | None = None) -> list[Trial]:
    """Try grasps in a compiled world with that one object and no table."""
    plan = plan_motion(world.settings, -APPROACH)
    trials = []
    for rotation, translation, width, depth in zip(
        grasps.rotation, grasps.translation, grasps.width, grasps.depth, strict=True
    ):
        start = Start(
            objects=free_joint_position(invert(pose(rotation, translation)), body.centre)[None],
            hand_position=np.zeros(3),
            hand_quaternion=np.array([1.0, 0.0, 0.0, 0.0]),
            width=float(width),
            depth=float(depth),
            target=0,
            gravity_closing=np.zeros(3),
            gravity_lifting=world.settings.gravity * APPROACH,
        )
        trials.append(run_trial(world, start, plan, recorder))
    return trials


def perturbed(grasps: Grasps, repeats: int, seed: int, move: float = MOVE, turn: float = TURN) -> Grasps:
    """Return ``repeats`` slightly moved copies of each grasp: those of grasp 0 first.

    A grasp's draws depend on the seed and its place in the list alone.

    Args:
        grasps: N grasps.
        repeats: copies of each.
        seed: of the draws.
        move: standard deviation along each axis, metres.
        turn: and of the rotation vector's components, radians; turned about the middle between the finger tips.
    """
    from scipy.spatial.transform import Rotation

    copies = grasps[np.repeat(np.arange(len(grasps)), repeats)]
    draws = np.concatenate(
        [np.random.default_rng([seed, n]).standard_normal((repeats, 6)) for n in range(len(grasps))]
        or [np.zeros((0, 6))]
    )
    turned = copies.rotation @ Rotation.from_rotvec(turn * draws[:, 3:]).as_matrix()
    tips = copies.translation + copies.depth[:, None] * copies.rotation[:, :, 0]
    moved = tips - copies.depth[:, None] * turned[:, :, 0] + move * np.einsum("nij,nj->ni", turned, draws[:, :3])
    return Grasps(copies.confidence, copies.width, copies.height, copies.depth, turned, moved, copies.object_id)


def repeated(
    trial: Callable[[Grasps], list[Trial]],
    grasps: Grasps,
    repeats: int = 8,
    seed: int = 0,
    move: float = MOVE,
    turn: float = TURN,
) -> FloatArray:
    """Return the share ``(N,)`` of perturbed repeats that a trial function holds; see :func:`perturbed`."""
    if repeats < 1:
        raise ValueError(f"repeats = {repeats}: at least one is needed")
    held = [one.held for one in trial(perturbed(grasps, repeats, seed, move, turn))]
    return np.array(held, np.float64).reshape(len(grasps), repeats).mean(axis=1)


def held_fraction(
    body: PhysicsBody,
    grasps: Grasps,
    settings: TrialSettings,
    repeats: int = 8,
    seed: int = 0,
    gripper: Gripper = GRASPNET_GRIPPER,
) -> FloatArray:
    """Return the share ``(N,)`` of slightly perturbed repeats that are held in isolation."""
    return repeated(lambda copies: try_grasps(body, copies, settings, gripper), grasps, repeats, seed)


def check_finite(grasps: Grasps) -> None:
    bad = ~(
        np.isfinite(grasps.rotation).all(axis=(1, 2))
        & np.isfinite(grasps.translation).all(axis=1)
        & np.isfinite(grasps.width)
        & np.isfinite(grasps.depth)
    )
    if bad.any():
        raise ValueError(f"grasp {int(np.flatnonzero(bad)[0])} holds numbers that are not finite; leave it out")
