"""One trial in a compiled world: approach, close, lift, shake, hold; and the name of how it ended."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from grasping.physics.hand import BASE_DOFS, FINGER_DOFS, FIRST_OBJECT_DOF, World, shape_hand
from grasping.physics.outcomes import Recorder, Trial, TrialSettings

FloatArray = NDArray[np.float64]

BEYOND = 1e-6  # metres: a width of the opening itself that was once written in float32 is not beyond it
CALM_SPEED = 0.005  # m/s of a finger below which it counts as closed
LAST_LOOKS = 3  # the looks at the end, in one of which at least both fingers must touch: contacts flicker


@dataclass(frozen=True)
class Plan:
    """How the hand moves once it has closed: accelerations of its four degrees of freedom, one row a chunk."""

    lift: FloatArray
    shake: FloatArray
    hold: FloatArray


def plan_motion(settings: TrialSettings, up: FloatArray) -> Plan:
    """Make the motion of a trial.

    Args:
        settings: amplitudes and times.
        up: ``(3,)`` unit vector against gravity, in the hand's frame.
    """
    h = settings.timestep * settings.chunk
    count = max(round(settings.lift_time / h), 4)
    s = np.linspace(0.0, 1.0, count + 1)
    speed = settings.lift / (count * h) * 30 * s**2 * (1 - s) ** 2  # minimum jerk (Flash and Hogan 1985)
    lift = np.zeros((count, 4))
    lift[:, :3] = np.diff(speed)[:, None] / h * up

    rows = []
    for axis, amplitude in (
        (0, settings.shake_amplitude),
        (1, settings.shake_amplitude),
        (3, settings.rotation_amplitude),
    ):
        if amplitude == 0 or settings.shake_cycles == 0:
            continue
        count = max(round(settings.shake_cycles / settings.shake_frequency / h), 8 * settings.shake_cycles)
        omega = 2 * np.pi * settings.shake_cycles / (count * h)
        speed = amplitude * omega * np.sin(omega * h * np.arange(count + 1))  # begins and ends at rest
        shake = np.zeros((count, 4))
        shake[:, axis] = np.diff(speed) / h
        rows.append(shake)
    shakes = np.concatenate(rows) if rows else np.zeros((0, 4))
    return Plan(lift, shakes, np.zeros((max(round(settings.hold / h), LAST_LOOKS), 4)))


@dataclass(frozen=True, eq=False)
class Start:
    """Where a trial begins.

    Attributes:
        objects: ``(K, 7)`` positions and quaternions (wxyz) of the objects, world frame.
        hand_position, hand_quaternion: ``(3,)`` and ``(4,)`` of the grasp, world frame.
        width, depth: of the grasp, metres.
        target: index of the object that is meant.
        gravity_closing, gravity_lifting: ``(3,)`` m/s², world frame.
    """

    objects: FloatArray
    hand_position: FloatArray
    hand_quaternion: FloatArray
    width: float
    depth: float
    target: int
    gravity_closing: FloatArray
    gravity_lifting: FloatArray


def run_trial(world: World, start: Start, plan: Plan, recorder: Recorder | None = None) -> Trial:
    """Run one trial from a clean state; the same start gives the same bits, whatever ran before."""
    import mujoco

    model, data, settings = world.model, world.data, world.settings
    if start.width > world.gripper.max_width + BEYOND:
        return Trial("collided", False)
    opening = float(np.clip(start.width, 0.0, world.gripper.max_width))
    mujoco.mj_resetData(model, data)
    model.opt.gravity[:] = start.gravity_closing
    model.body_pos[world.base], model.body_quat[world.base] = start.hand_position, start.hand_quaternion
    shape_hand(world, opening, start.depth)
    data.qpos[BASE_DOFS] = 0.0
    data.qpos[FINGER_DOFS] = opening / 2
    data.qpos[FIRST_OBJECT_DOF:] = start.objects.ravel()

    overlap = _approach(world, recorder)
    if overlap > settings.collision_tolerance:
        return Trial("collided", False, depth=overlap)

    h = settings.timestep * settings.chunk
    before = data.xipos[world.objects].copy()
    data.qfrc_applied[FINGER_DOFS] = -settings.closing_force
    touching = _close(world, start.target, recorder)
    if not all(touching):
        return Trial("no_contact", False, seconds=data.time, depth=overlap)

    model.opt.gravity[:] = start.gravity_lifting
    closed = _in_hand(world, start.target)
    mass = model.body_subtreemass[world.base]
    looks: list[bool] = []
    away, patience = 0, max(round(settings.gone_after / h), 1)
    outcome = "held"
    for phase, failure, rows in (
        ("lift", "slipped", plan.lift),
        ("shake", "lost", plan.shake),
        ("hold", "lost", plan.hold),
    ):
        for row in rows:
            data.qfrc_applied[BASE_DOFS] = mass * row
            mujoco.mj_step(model, data, settings.chunk)
            if recorder is not None:
                recorder(phase, model, data)
            left, right = _touching(world, start.target)
            looks.append(left and right)
            away = 0 if left or right else away + 1
            if away >= patience:
                outcome = failure
                break
        slip, turn = _difference(closed, _in_hand(world, start.target))
        if outcome == "held" and slip > settings.slip_limit:
            outcome = failure
        if outcome != "held":
            break
    if outcome == "held" and not any(looks[-LAST_LOOKS:]):
        outcome = "lost"
    if any(data.warning[w].number for w in (mujoco.mjtWarning.mjWARN_BADQACC, mujoco.mjtWarning.mjWARN_BADQPOS)):
        outcome = "lost"  # the simulation broke down and was reset: not a grasp to rely on
    if outcome == "held":
        moved = np.linalg.norm(data.xipos[world.objects] - before, axis=1)
        moved[start.target] = 0.0
        if (moved > settings.drag_limit).any():
            outcome = "dragged"
    return Trial(outcome, outcome == "held", slip, turn, _force(world, start.target), data.time, overlap)


def _approach(world: World, recorder: Recorder | None) -> float:
    """Move the open hand along its path with everything else at rest; return the deepest overlap, metres."""
    import mujoco

    model, data, settings = world.model, world.data, world.settings
    count = int(np.ceil(settings.approach / settings.approach_step)) if settings.approach > 0 else 0
    offsets = np.linspace(0.0, settings.approach, count + 1)  # the grasp first: most collisions are there
    deepest = 0.0
    for offset in offsets if recorder is None else offsets[::-1]:
        data.qpos[0] = -offset
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_collision(model, data)
        if recorder is not None:
            recorder("approach", model, data)
        if data.ncon:
            owner = world.owner[data.contact.geom]
            of_hand = (owner == -1).any(axis=1)
            if of_hand.any():
                deepest = max(deepest, float(-data.contact.dist[of_hand].min()))
                if deepest > settings.collision_tolerance and recorder is None:
                    break
    data.qpos[0] = 0.0
    return deepest


def _close(world: World, target: int, recorder: Recorder | None) -> tuple[bool, bool]:
    """Close until the fingers stand still; return which of them touch the target."""
    import mujoco

    model, data, settings = world.model, world.data, world.settings
    h = settings.timestep * settings.chunk
    calm = 0
    for _ in range(int(np.ceil(settings.closing_limit / h))):
        mujoco.mj_step(model, data, settings.chunk)
        if recorder is not None:
            recorder("close", model, data)
        calm = calm + 1 if np.abs(data.qvel[FINGER_DOFS]).max() < CALM_SPEED else 0
        if calm >= 2:
            break
    return _touching(world, target)


def _touching(world: World, target: int) -> tuple[bool, bool]:
    """Whether the left and the right finger touch the target."""
    if world.data.ncon == 0:
        return False, False
    pairs = world.data.contact.geom
    on_target = (world.owner[pairs] == target).any(axis=1)
    touched = pairs[on_target]
    return bool((touched == world.fingers[0]).any()), bool((touched == world.fingers[1]).any())


def _in_hand(world: World, target: int) -> tuple[FloatArray, FloatArray]:
    """Centre of mass and orientation of the target in the hand's frame."""
    data, body = world.data, world.objects[target]
    R = data.xmat[world.base].reshape(3, 3)
    return R.T @ (data.xipos[body] - data.xpos[world.base]), R.T @ data.xmat[body].reshape(3, 3)


def _difference(a: tuple[FloatArray, FloatArray], b: tuple[FloatArray, FloatArray]) -> tuple[float, float]:
    cosine = (np.trace(a[1].T @ b[1]) - 1) / 2
    return float(np.linalg.norm(b[0] - a[0])), float(np.arccos(np.clip(cosine, -1.0, 1.0)))


def _force(world: World, target: int) -> float:
    """Mean normal force of the two fingers on the target, N."""
    import mujoco

    total, wrench = 0.0, np.zeros(6)
    for number, pair in enumerate(world.data.contact.geom):
        if (world.owner[pair] == target).any() and any(finger in pair for finger in world.fingers):
            mujoco.mj_contactForce(world.model, world.data, number, wrench)
            total += float(wrench[0])
    return total / 2
