"""What a trial is told and what it tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

VERSION = 2
"""Raise when a trial with the same settings gives another outcome."""

OUTCOMES = ("held", "collided", "no_contact", "slipped", "lost", "dragged")
"""How a trial ends.

``held``: both fingers hold the object to the end. ``collided``: the open hand meets something on its straight approach,
or the grasp asks for more than the hand's opening. ``no_contact``: once closed, the two fingers do not both touch the
object. ``slipped``: lost while lifting. ``lost``: lost while shaking or holding. ``dragged``: held, but a neighbour
was moved by more than the settings allow (in a scene only).
"""

Recorder = Callable[[str, Any, Any], None]
"""Called with the name of the phase (``approach``, ``close``, ``lift``, ``shake``, ``hold``), MjModel and MjData."""


@dataclass(frozen=True)
class TrialSettings:
    """Every parameter of a trial. Lengths in metres, times in seconds, angles in radians.

    Attributes:
        friction: Coulomb coefficient of every contact (fingers, objects, table).
        patch_radius: radius of a finger's contact patch: it resists torsion with up to 2/3 · friction · radius · normal
            force (a uniformly pressed disc).
        density: kg/m³ of the objects, for those who load bodies; a trial takes the body's own mass.
        closing_force: N with which each finger presses.
        closing_speed: m/s of each finger when nothing is in its way.
        finger_mass: kg, apparent mass of one finger.
        closing_limit: seconds after which the hand counts as closed even if a finger still moves.
        gravity: m/s². In isolation it pulls along the approach axis (the hand points down) and acts from the lift on:
            until then the object floats. In a scene it acts along the table's -z, always.
        approach: how far behind the grasp the straight approach begins; 0 tests the grasp's own pose alone.
        approach_step: distance between the poses of the approach that are tested.
        collision_tolerance: how deep the open hand may overlap anything; the convex parts are no truer than that.
        lift: how far the hand is lifted, against gravity.
        lift_time: how long that takes (a minimum-jerk profile).
        shake_amplitude: of the sine along the approach axis, then along the closing axis.
        shake_frequency: Hz of all shaking.
        shake_cycles: periods along each axis, and of the rotation.
        rotation_amplitude: of the sine about a line parallel to the closing axis, ``wrist`` behind the translation.
        wrist: see there.
        hold: how long the hand holds still at the end.
        timestep: of the integration, at most half of ``contact_time``.
        chunk: steps between two looks at the contacts.
        contact_time: time constant of a contact (MuJoCo's solref).
        impedance: share of the contact force that is constraint (MuJoCo's solimp, near and far).
        impratio: how much stiffer friction is than the normal direction; high values stop creeping, and cost time.
        noslip_iterations: of MuJoCo's noslip solver.
        iterations: of the constraint solver, at most.
        gone_after: seconds without touching a finger after which an object counts as gone.
        slip_limit: how far the object may move in the hand between closing and the end.
        drag_limit: how far a neighbour's centre of mass may move in a scene.
        rest_time: seconds that objects of a scene are given to come to rest before it is judged.
    """

    friction: float = 0.6
    patch_radius: float = 0.004
    density: float = 500.0
    closing_force: float = 40.0
    closing_speed: float = 0.2
    finger_mass: float = 0.1
    closing_limit: float = 0.6
    gravity: float = 9.81
    approach: float = 0.10
    approach_step: float = 0.005
    collision_tolerance: float = 0.002
    lift: float = 0.15
    lift_time: float = 0.4
    shake_amplitude: float = 0.02
    shake_frequency: float = 4.0
    shake_cycles: int = 1
    rotation_amplitude: float = 0.2
    wrist: float = 0.10
    hold: float = 0.1
    timestep: float = 0.002
    chunk: int = 10
    contact_time: float = 0.004
    impedance: tuple[float, float] = (0.95, 0.99)
    impratio: float = 10.0
    noslip_iterations: int = 0
    iterations: int = 50
    gone_after: float = 0.06
    slip_limit: float = 0.05
    drag_limit: float = 0.02
    rest_time: float = 3.0

    def __post_init__(self) -> None:
        positive = (
            "density closing_force closing_speed finger_mass closing_limit approach_step lift_time shake_frequency "
            "timestep chunk contact_time impratio iterations gone_after"
        )
        for name, value in asdict(self).items():
            numbers = value if isinstance(value, tuple) else (value,)
            if any(not 0 <= v < float("inf") for v in numbers) or (name in positive.split() and value <= 0):
                raise ValueError(
                    f"trial setting {name} = {value!r}: must be a finite, non-negative number"
                    + (" above zero" if name in positive.split() else "")
                )

    def fingerprint(self) -> dict[str, Any]:
        """Return everything that decides an outcome besides object, grasp and MuJoCo's version, as JSON can say it."""
        values = asdict(self)
        values["impedance"] = list(self.impedance)
        return {"version": VERSION, **values}


@dataclass(frozen=True)
class Trial:
    """How one trial ended.

    Attributes:
        outcome: one of :data:`OUTCOMES`.
        held: whether it is ``held``.
        slip: metres that the object's centre of mass moved in the hand's frame between closing and the end (0 where
            the hand never closed on it).
        rotation: radians that it turned there.
        force: N, mean normal force of the two fingers on the object at the last look.
        seconds: simulated.
        depth: metres, the deepest overlap of the open hand with anything on the approach.
    """

    outcome: str
    held: bool
    slip: float = 0.0
    rotation: float = 0.0
    force: float = 0.0
    seconds: float = 0.0
    depth: float = 0.0
