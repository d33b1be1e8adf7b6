"""Trials on a table: settling, neighbours, and what must not matter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from grasping.grasps import Grasps
from grasping.physics import PhysicsBody, SettledScene, TrialSettings, settle_scene, try_grasps_in_scene
from grasping.physics.bodies import body_of_mesh
from grasping.transforms import invert, pose

SETTINGS = TrialSettings()
DOWN_ACROSS_Y = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])  # approach -z, closing y
SIDEWAYS_ACROSS_Y = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])  # approach x, closing y


def grasps_of(rotations: object, translations: object, width: float, depth: float = 0.03) -> Grasps:
    R = np.asarray(rotations, np.float64).reshape(-1, 3, 3)
    n = len(R)
    return Grasps(
        np.zeros(n),
        np.full(n, width),
        np.full(n, 0.02),
        np.full(n, depth),
        R,
        np.asarray(translations, np.float64).reshape(-1, 3),
        np.full(n, -1, np.int64),
    )


def box(extents: list[float], density: float = 500.0) -> PhysicsBody:
    mesh = trimesh.creation.box(extents)
    return body_of_mesh(0, mesh.vertices, mesh.faces, density)


def at(x: float, y: float, z: float, turn: float = 0.0) -> np.ndarray:
    return pose(Rotation.from_euler("z", turn).as_matrix(), [x, y, z])


@pytest.fixture(scope="module")
def upright() -> PhysicsBody:
    return box([0.05, 0.04, 0.09])


@pytest.fixture(scope="module")
def pair(upright: PhysicsBody) -> SettledScene:
    """Two upright boxes, 15 cm apart, one sunk into the table by 7 mm and one floating 4 mm above it."""
    return settle_scene([upright, upright], np.array([at(0, 0, 0.038), at(0.15, 0, 0.049)]), SETTINGS)


def test_settling_removes_overlap_gently(pair: SettledScene) -> None:
    np.testing.assert_allclose(pair.displacement, [0.007, 0.004], atol=0.0006)
    assert (pair.rotation < 0.01).all() and pair.still.all()
    np.testing.assert_allclose(pair.T_table_object[:, :3, 3], [[0, 0, 0.045], [0.15, 0, 0.045]], atol=0.0008)


def test_settling_parts_neighbours_without_throwing_them(upright: PhysicsBody) -> None:
    overlapping = settle_scene([upright, upright], np.array([at(0, 0, 0.045), at(0, 0.033, 0.045)]), SETTINGS)
    between = overlapping.T_table_object[1, 1, 3] - overlapping.T_table_object[0, 1, 3]
    assert 0.0395 < between < 0.06
    assert (overlapping.displacement < 0.02).all() and (overlapping.rotation < 0.1).all() and overlapping.still.all()


def test_settling_leaves_what_lies_at_rest(pair: SettledScene) -> None:
    again = settle_scene(pair.bodies, pair.T_table_object, SETTINGS)
    assert (again.displacement < 0.0005).all() and (again.rotation < 0.005).all()


def test_a_box_on_the_table_is_lifted_and_slips_without_friction(pair: SettledScene) -> None:
    grasps = grasps_of([DOWN_ACROSS_Y, SIDEWAYS_ACROSS_Y], [[0, 0, 0.045], [-0.04, 0, 0.01]], 0.06)
    trials = try_grasps_in_scene(pair, [1, 0], grasps, SETTINGS)
    assert [trial.outcome for trial in trials] == ["held", "held"]
    slippery = replace(SETTINGS, friction=0.01)
    calm = settle_scene(pair.bodies, pair.T_table_object, slippery)
    assert {trial.outcome for trial in try_grasps_in_scene(calm, [1, 0], grasps, slippery)} <= {"slipped", "no_contact"}


def test_table_and_neighbour_are_in_the_way(pair: SettledScene) -> None:
    into_table = grasps_of(DOWN_ACROSS_Y, [0, 0, -0.02], 0.06)  # tips 5 mm below the table
    assert try_grasps_in_scene(pair, [0], into_table, SETTINGS)[0].outcome == "collided"
    # The same grasp of either box: on the way to the second, the back plate meets the first.
    level = grasps_of(SIDEWAYS_ACROSS_Y, [-0.04, 0, 0.0], 0.06)
    outcomes = [try_grasps_in_scene(pair, [k], level, SETTINGS)[0].outcome for k in (0, 1)]
    assert outcomes == ["held", "collided"]
    assert try_grasps_in_scene(pair, [1], level, replace(SETTINGS, approach=0.0))[0].outcome == "held"


def test_what_lies_on_top_is_dragged_along(upright: PhysicsBody) -> None:
    plate = box([0.12, 0.03, 0.01], 300.0)
    scene = settle_scene([upright, plate], np.array([at(0, 0, 0.045), at(0, 0, 0.095)]), SETTINGS)
    beside = grasps_of(SIDEWAYS_ACROSS_Y, [-0.03, 0, -0.01], 0.06)
    (trial,) = try_grasps_in_scene(scene, [0], beside, SETTINGS)
    assert trial.outcome == "dragged" and not trial.held
    (alone,) = try_grasps_in_scene(
        settle_scene([upright], np.array([at(0, 0, 0.045)]), SETTINGS), [0], beside, SETTINGS
    )
    assert alone.outcome == "held"
    (allowed,) = try_grasps_in_scene(scene, [0], beside, replace(SETTINGS, drag_limit=1.0))
    assert allowed.outcome == "held"


def test_the_camera_and_where_the_scene_lies_on_the_table_do_not_matter(upright: PhysicsBody) -> None:
    """Camera frames cancel in the grasps' object frames; a scene turned about the vertical ends the same."""
    rng = np.random.default_rng(5)
    count = 6
    T_table_hand = np.array(
        [
            pose(Rotation.from_euler("z", rng.uniform(-0.3, 0.3)).as_matrix() @ DOWN_ACROSS_Y, [x, y, z])
            for x, y, z in rng.uniform([-0.01, -0.004, 0.075], [0.01, 0.004, 0.1], (count, 3))
        ]
    )
    outcomes = []
    for T_camera_table in (np.eye(4), pose(Rotation.from_rotvec([2.0, 0.3, -0.4]).as_matrix(), [0.1, 0.2, 0.7])):
        for moved in (np.eye(4), at(0.1, -0.07, 0, 0.8)):
            T_table_object = moved @ np.array([at(0, 0, 0.043), at(0.1, 0.05, 0.047)])
            T_camera_object = T_camera_table @ T_table_object
            T_camera_hand = T_camera_table @ moved @ T_table_hand
            scene = settle_scene([upright] * 2, invert(T_camera_table) @ T_camera_object, SETTINGS)
            T_object_hand = invert(T_camera_object[0]) @ T_camera_hand
            grasps = grasps_of(T_object_hand[:, :3, :3], T_object_hand[:, :3, 3], 0.07, 0.025)
            outcomes.append(try_grasps_in_scene(scene, np.zeros(count, int), grasps, SETTINGS))
    assert sum(trial.held for trial in outcomes[0]) >= 4
    for other in outcomes[1:]:
        assert [trial.outcome for trial in other] == [trial.outcome for trial in outcomes[0]]
        np.testing.assert_allclose([t.slip for t in other], [t.slip for t in outcomes[0]], atol=5e-4)


def test_scene_trials_are_deterministic_and_independent_of_those_before(pair: SettledScene) -> None:
    grasps = grasps_of([DOWN_ACROSS_Y] * 3, [[0, 0, 0.045], [0.01, 0, 0.05], [0, 0, 0.088]], 0.06)
    targets = [0, 1, 0]
    together = try_grasps_in_scene(pair, targets, grasps, SETTINGS)
    assert together == [try_grasps_in_scene(pair, [k], grasps[[n]], SETTINGS)[0] for n, k in enumerate(targets)]
    again = settle_scene(pair.bodies, pair.T_table_object, SETTINGS)
    assert np.array_equal(again.T_table_object, settle_scene(pair.bodies, pair.T_table_object, SETTINGS).T_table_object)


def test_what_does_not_fit_together_is_refused(pair: SettledScene, upright: PhysicsBody) -> None:
    grasp = grasps_of(DOWN_ACROSS_Y, [0, 0, 0.045], 0.06)
    with pytest.raises(ValueError, match="targets"):
        try_grasps_in_scene(pair, [2], grasp, SETTINGS)
    with pytest.raises(ValueError, match="targets"):
        try_grasps_in_scene(pair, [0, 1], grasp, SETTINGS)
    with pytest.raises(ValueError, match="poses"):
        settle_scene([upright], np.zeros((2, 4, 4)), SETTINGS)
    empty = settle_scene([], np.zeros((0, 4, 4)), SETTINGS)
    assert try_grasps_in_scene(empty, [], Grasps.empty(), SETTINGS) == []
