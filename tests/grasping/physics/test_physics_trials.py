"""What a physics opinion must say, whatever its details: boxes and cylinders in isolation."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from grasping.grasps import Grasps
from grasping.gripper import GRASPNET_GRIPPER
from grasping.physics import OUTCOMES, PhysicsBody, TrialSettings, held_fraction, repeated, try_grasps
from grasping.physics.bodies import body_of_mesh
from grasping.physics.hand import build_world, shape_hand
from grasping.physics.isolated import perturbed
from grasping.transforms import pose

SETTINGS = TrialSettings()
DOWN_ACROSS_Y = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])  # approach -z, closing y


def grasps_of(rotations: object, translations: object, width: object, depth: object = 0.03) -> Grasps:
    R = np.asarray(rotations, np.float64).reshape(-1, 3, 3)
    n = len(R)
    return Grasps(
        np.zeros(n),
        np.broadcast_to(np.asarray(width, np.float64), n).copy(),
        np.full(n, 0.02),
        np.broadcast_to(np.asarray(depth, np.float64), n).copy(),
        R,
        np.asarray(translations, np.float64).reshape(-1, 3),
        np.full(n, -1, np.int64),
    )


def body_of(mesh: trimesh.Trimesh, density: float = 500.0) -> PhysicsBody:
    return body_of_mesh(0, mesh.vertices, mesh.faces, density)


@pytest.fixture(scope="module")
def box() -> PhysicsBody:
    return body_of(trimesh.creation.box([0.05, 0.04, 0.09]))


@pytest.fixture(scope="module")
def cylinder() -> PhysicsBody:
    return body_of(trimesh.creation.cylinder(0.022, 0.1, sections=48))


def across(count: int, seed: int) -> Grasps:
    """Grasps from above across the box's y faces, at various places, tilts about the closing axis, and depths."""
    rng = np.random.default_rng(seed)
    tilt = Rotation.from_rotvec(rng.uniform(-0.3, 0.3, count)[:, None] * [0.0, 1.0, 0.0]).as_matrix()
    depth = rng.choice([0.02, 0.03], count)
    R = tilt @ DOWN_ACROSS_Y
    tips = np.stack([rng.uniform(-0.01, 0.01, count), np.zeros(count), rng.uniform(0.0, 0.02, count)], axis=1)
    return grasps_of(R, tips - depth[:, None] * R[:, :, 0], rng.uniform(0.045, 0.08, count), depth)


def test_a_box_across_its_faces_is_held_and_without_friction_nothing_is(box: PhysicsBody) -> None:
    grasps = across(12, 0)
    held = try_grasps(box, grasps, SETTINGS)
    assert [trial.outcome for trial in held] == ["held"] * 12
    for trial in held:
        assert trial.held and 0.9 * SETTINGS.closing_force < trial.force < 1.1 * SETTINGS.closing_force
        assert trial.slip < 0.003 and trial.rotation < 0.1 and trial.seconds > 1.0
    for friction in (0.0, 0.01):
        slippery = try_grasps(box, grasps, replace(SETTINGS, friction=friction))
        assert {trial.outcome for trial in slippery} <= {"slipped", "lost"}


def test_a_cylinder_is_held_across_and_squeezed_out_along_a_chord_without_friction(cylinder: PhysicsBody) -> None:
    beside = DOWN_ACROSS_Y
    grasps = grasps_of([beside, beside], [[0, 0, 0.07], [0.026, 0, 0.07]], 0.06)
    centred, aside = try_grasps(cylinder, grasps, SETTINGS)
    assert centred.held and not aside.held


def test_heavier_than_friction_carries_is_not_held(box: PhysicsBody) -> None:
    """Two fingers of force F carry 2 µ F; the lift's own acceleration comes on top."""
    limit = 2 * 0.3 * SETTINGS.closing_force / SETTINGS.gravity
    grasp = grasps_of(DOWN_ACROSS_Y, [0, 0, 0.045], 0.06)
    volume = box.mass / 500.0
    for share, held in ((0.4, True), (1.3, False)):
        heavy = body_of(trimesh.creation.box([0.05, 0.04, 0.09]), share * limit / volume)
        assert heavy.mass == pytest.approx(share * limit)
        (trial,) = try_grasps(heavy, grasp, replace(SETTINGS, friction=0.3))
        assert trial.held == held, trial


def test_what_is_wider_than_the_opening_fails(box: PhysicsBody) -> None:
    wide = body_of(trimesh.creation.box([0.05, 0.12, 0.09]))
    (trial,) = try_grasps(wide, grasps_of(DOWN_ACROSS_Y, [0, 0, 0.06], 0.1), SETTINGS)
    assert trial.outcome == "collided"
    (beyond,) = try_grasps(box, grasps_of(DOWN_ACROSS_Y, [0, 0, 0.045], 0.11), SETTINGS)
    assert beyond.outcome == "collided"
    rounded = float(np.float32(0.1)) + 1e-8  # the opening itself, once written in float32
    (most,) = try_grasps(box, grasps_of(DOWN_ACROSS_Y, [0, 0, 0.045], rounded), SETTINGS)
    assert most.held


def test_a_finger_that_starts_inside_collides(box: PhysicsBody) -> None:
    inside = grasps_of([DOWN_ACROSS_Y] * 3, [[0, 0, 0.045], [0, 0.02, 0.045], [0, 0, 0.0]], [0.03, 0.045, 0.06])
    trials = try_grasps(box, inside, SETTINGS)
    assert [trial.outcome for trial in trials] == ["collided"] * 3
    assert all(trial.depth > SETTINGS.collision_tolerance and trial.seconds == 0 for trial in trials)


def test_the_way_to_the_grasp_may_collide_where_the_grasp_does_not() -> None:
    """A roof 8 cm above the grasp, held by a far post: the open hand fits below it, but not through it."""
    low, roof = trimesh.creation.box([0.05, 0.04, 0.02]), trimesh.creation.box([0.05, 0.3, 0.01])
    roof.apply_translation([0, 0, 0.09])
    body = PhysicsBody(0, (np.asarray(low.vertices), np.asarray(roof.vertices)), 0.2, np.zeros(3), 1e-4 * np.eye(3))
    grasp = grasps_of(DOWN_ACROSS_Y, [0, 0, 0.02], 0.06, 0.02)
    (blocked,) = try_grasps(body, grasp, SETTINGS)
    (there,) = try_grasps(body, grasp, replace(SETTINGS, approach=0.0))
    assert blocked.outcome == "collided" and there.outcome == "held"


def test_fingers_that_close_on_nothing_have_no_contact(box: PhysicsBody) -> None:
    (trial,) = try_grasps(box, grasps_of(DOWN_ACROSS_Y, [0, 0, 0.085], 0.06), SETTINGS)
    assert trial.outcome == "no_contact" and trial.seconds < SETTINGS.closing_limit + 0.1


def test_moving_object_and_grasp_together_changes_nothing(box: PhysicsBody) -> None:
    grasps = across(4, 3)
    moved_by = pose(Rotation.from_rotvec([0.4, -1.1, 0.7]).as_matrix(), [0.3, -0.2, 0.9])
    R, t = moved_by[:3, :3], moved_by[:3, 3]
    moved = PhysicsBody(
        0, tuple(part @ R.T + t for part in box.parts), box.mass, R @ box.centre + t, R @ box.inertia @ R.T
    )
    settings = replace(SETTINGS, friction=0.05)  # near the edge, where a difference would show
    before, after = try_grasps(box, grasps, settings), try_grasps(moved, grasps.transformed(moved_by), settings)
    assert [trial.outcome for trial in before] == [trial.outcome for trial in after]
    good_before, good_after = (
        try_grasps(box, grasps, SETTINGS),
        try_grasps(moved, grasps.transformed(moved_by), SETTINGS),
    )
    for one, two in zip(good_before, good_after, strict=True):
        assert one.outcome == two.outcome == "held"
        assert one.slip == pytest.approx(two.slip, abs=3e-4) and one.force == pytest.approx(two.force, rel=0.02)


def test_trials_are_deterministic_and_independent_of_those_before(box: PhysicsBody, cylinder: PhysicsBody) -> None:
    """The compiled model is reused: bit for bit the same as one compiled for each grasp."""
    grasps = Grasps.concatenate([across(5, 1), grasps_of(DOWN_ACROSS_Y, [0.026, 0, 0.07], 0.06)])
    for body in (box, cylinder):
        together = try_grasps(body, grasps, SETTINGS)
        assert together == try_grasps(body, grasps, SETTINGS)
        assert together == [try_grasps(body, grasps[[n]], SETTINGS)[0] for n in range(len(grasps))]
        backwards = try_grasps(body, grasps[::-1], SETTINGS)
        assert together == backwards[::-1]


def test_resized_fingers_are_as_if_compiled_so(box: PhysicsBody) -> None:
    """Whatever the compiler derives from a box's size follows it."""
    depth, opening = 0.034, 0.1  # the fingers are compiled 0.04 long, the plate for the whole opening
    same_length = replace(GRASPNET_GRIPPER, finger_back=(0.02 + depth) / 2)
    fresh = build_world([box], SETTINGS, same_length, table=False)
    resized = build_world([box], SETTINGS, GRASPNET_GRIPPER, table=False)
    shape_hand(resized, opening, depth)
    for finger in resized.fingers:
        assert np.array_equal(fresh.model.geom_size[finger], resized.model.geom_size[finger])
        assert fresh.model.geom_rbound[finger] == resized.model.geom_rbound[finger]
        assert np.array_equal(fresh.model.geom_aabb[finger], resized.model.geom_aabb[finger])
        leaf, same = (m.bvh_aabb[m.body_bvhadr[m.geom_bodyid[finger]]] for m in (fresh.model, resized.model))
        assert np.array_equal(leaf[3:], same[3:])
        assert same[0] - leaf[0] == pytest.approx(depth / 2 - 0.01)
    plate = resized.plate
    before = build_world([box], SETTINGS, GRASPNET_GRIPPER, table=False).model
    assert np.array_equal(before.geom_size[plate], resized.model.geom_size[plate])
    leaf, same = (m.bvh_aabb[m.body_bvhadr[m.geom_bodyid[plate]]] for m in (before, resized.model))
    np.testing.assert_allclose(leaf, same, atol=1e-15)


def test_repeats_perturb_slightly_and_reproducibly(box: PhysicsBody) -> None:
    grasps = across(3, 5)
    copies = perturbed(grasps, 8, seed=4)
    assert len(copies) == 24
    again = perturbed(grasps[:2], 8, seed=4)
    np.testing.assert_array_equal(copies[:16].to_array(), again.to_array())  # a grasp's draws are its own
    assert not np.array_equal(copies.translation, perturbed(grasps, 8, seed=5).translation)
    tips = copies.translation + copies.depth[:, None] * copies.rotation[:, :, 0]
    original = (grasps.translation + grasps.depth[:, None] * grasps.rotation[:, :, 0]).repeat(8, axis=0)
    assert 0.001 < np.linalg.norm(tips - original, axis=1).mean() < 0.006
    np.testing.assert_allclose(np.linalg.det(copies.rotation), 1.0, atol=1e-9)
    still = perturbed(grasps, 2, seed=4, move=0.0, turn=0.0)
    np.testing.assert_allclose(still.translation, grasps.translation.repeat(2, axis=0), atol=1e-12)

    share = held_fraction(box, grasps, SETTINGS, repeats=8, seed=1)
    assert share.shape == (3,) and (share >= 0.75).all()
    np.testing.assert_array_equal(share, repeated(lambda some: try_grasps(box, some, SETTINGS), grasps, 8, 1))
    with pytest.raises(ValueError, match="repeats"):
        held_fraction(box, grasps, SETTINGS, repeats=0)


def test_the_recorder_sees_every_phase_and_changes_nothing(box: PhysicsBody) -> None:
    grasp = grasps_of(DOWN_ACROSS_Y, [0, 0, 0.045], 0.06)
    seen: list[tuple[str, float, float]] = []
    recorded = try_grasps(
        box, grasp, SETTINGS, recorder=lambda phase, _, data: seen.append((phase, *data.qpos[[0, 4]]))
    )
    assert recorded == try_grasps(box, grasp, SETTINGS)
    assert list(dict.fromkeys(phase for phase, _, _ in seen)) == ["approach", "close", "lift", "shake", "hold"]
    assert seen[0][1] == -SETTINGS.approach  # it begins behind
    lifted = [along for phase, along, _ in seen if phase == "lift"][-1]
    assert lifted == pytest.approx(-SETTINGS.lift, rel=0.02)  # against the approach axis, which points down
    assert [width for phase, _, width in seen if phase == "close"][-1] == pytest.approx(0.02, abs=5e-4)


def test_grasps_that_are_not_finite_are_refused_and_none_give_none(box: PhysicsBody) -> None:
    grasp = grasps_of(DOWN_ACROSS_Y, [0, np.nan, 0.045], 0.06)
    with pytest.raises(ValueError, match="grasp 0"):
        try_grasps(box, grasp, SETTINGS)
    assert try_grasps(box, Grasps.empty(), SETTINGS) == []
    assert held_fraction(box, Grasps.empty(), SETTINGS).shape == (0,)
    odd = grasps_of([DOWN_ACROSS_Y] * 3, [[0, 0, 0.045]] * 3, [0.0, -0.02, 0.06], [0.03, 0.03, -0.5])
    assert all(trial.outcome in OUTCOMES for trial in try_grasps(box, odd, SETTINGS))


@pytest.mark.parametrize(
    ("name", "value"), [("friction", -0.1), ("timestep", 0.0), ("closing_force", float("nan")), ("chunk", 0)]
)
def test_settings_that_make_no_sense_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        replace(SETTINGS, **{name: value})


def test_fingerprint_holds_every_setting() -> None:
    base = SETTINGS.fingerprint()
    assert set(SETTINGS.__dataclass_fields__) < set(base)
    assert replace(SETTINGS, friction=0.5).fingerprint() != base


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, grasping.physics; print([n for n in ('mujoco', 'coacd', 'trimesh', 'open3d') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
