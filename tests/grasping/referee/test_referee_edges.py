"""Generated edge cases: what sits exactly on a threshold, touches nothing, or ties with another."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from grasping import reference
from grasping.contacts import find_contacts
from grasping.force_closure import minimum_friction, required_angle
from grasping.geometry import ObjectGeometry, make_signed_distance_grid
from grasping.grasps import Grasps
from grasping.protocol import SUPPRESSION_ANGLE, SUPPRESSION_TRANSLATION, ViewScore, score_view
from grasping.suppression import suppress

FIELDS = ("index", "object_index", "width", "kept", "collided", "empty", "min_friction", "reason")
TABLE_FAR_BELOW = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, -1], [0, 0, 0, 1.0]])


def both(grasps: Grasps, objects: list[ObjectGeometry], poses: np.ndarray, T_camera_table: np.ndarray) -> ViewScore:
    """Every candidate's score, which must be the referee's."""
    ours = score_view(grasps, objects, poses, T_camera_table)
    theirs = reference.score_view_reference(grasps, objects, poses, T_camera_table, every_candidate=True)
    for name in FIELDS:
        assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name
    return ours


def grasp_array(n: int) -> np.ndarray:
    """Rows that look down along -z and close along y, confidences descending."""
    rows = np.zeros((n, 17))
    rows[:, 0] = np.linspace(1, 0.1, n)
    rows[:, 1:4] = 0.08, 0.02, 0.02
    rows[:, 4:13] = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]]).reshape(-1)
    return rows


def lattice_box() -> ObjectGeometry:
    """A box whose sampled points, faces and distances lie on round numbers: 4 mm and 2 mm steps."""
    mesh = trimesh.creation.box([0.048, 0.032, 0.064])
    axes = [np.arange(-half, half + 1e-9, 0.004) for half in (0.024, 0.016, 0.032)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    on_face = (np.abs(np.abs(points) - [0.024, 0.016, 0.032]) < 1e-9).any(axis=1)
    sdf = make_signed_distance_grid(mesh.vertices, mesh.faces, cells=32, padding=5, threads=1)
    return ObjectGeometry(0, np.round(points[on_face], 6), sdf)


@pytest.mark.graspnetapi
def test_contacts_on_voxel_planes_edges_corners_and_inside(referee: None) -> None:
    """Fingers on grid planes and halfway between them: across faces, along them, at edges and corners, inside."""
    geometry = lattice_box()
    sdf = geometry.sdf
    assert sdf is not None
    parts = reference.load()
    target = reference.dexnet_object(sdf)
    centres, axes, widths = [], [], []
    places = product((0.0, 0.012, 0.024, 0.025), (0.0, 0.008, 0.016, 0.017), (0.0, 0.031, 0.032, 0.034))
    slanted = np.array([[1, 1, 0], [1, 0, 1], [1, 1, 1], [1e-9, 1, 0]]) / np.sqrt([[2], [2], [3], [1]])
    for k, place in enumerate(places):
        for axis in (*np.eye(3), slanted[k % 4]):
            centres.append(place)
            axes.append(axis)
            widths.append((0.0, 0.004, 0.02, 0.032, 0.048, 0.064, 0.1)[len(widths) % 7])
    query = (np.array(centres), np.array(axes), np.array(widths))
    contacts = find_contacts(sdf, *query)
    angle = required_angle(contacts)
    friction = minimum_friction(angle)
    found = 0
    for i, (centre, axis, width) in enumerate(zip(*query, strict=True)):
        configuration = parts.grasp_type.configuration_from_params(centre, axis / np.linalg.norm(axis), width, 0.0)
        grasp = parts.grasp_type(configuration, 0.02)
        touching, pair = grasp.close_fingers(target, check_approach=False)
        assert touching == contacts.found[i], (centre, axis, width)
        if touching:
            found += 1
            assert np.array_equal([c.point for c in pair], contacts.points[i])
            ladder = np.array([1.2, 1.0, 0.8, 0.6, 0.4, 0.2])
            config = parts.config.get_config()["metrics"]["force_closure"]
            create = parts.utils.GraspQualityConfigFactory.create_config
            configs = {mu: create({**config, "friction_coef": mu}) for mu in ladder.round(2).tolist()}
            score = parts.utils.get_grasp_score(grasp, target, ladder, configs)
            assert (score if score > 0 else np.inf) == friction[i], (centre, axis, width)
    assert found >= 25 and np.isfinite(friction).any() and np.isinf(friction[contacts.found]).any()


@pytest.mark.graspnetapi
def test_points_exactly_on_the_grippers_faces(referee: None) -> None:
    """Sampled points lie on the boundary of fingers, plate and opening: strict or not, as the referee has it."""
    geometry = lattice_box()
    rows = []
    for y, z, width, depth in product((0.0, 0.004), (0.032, 0.036, 0.052, 0.062), (0.032, 0.04, 0.024), (0.0, 0.02)):
        row = grasp_array(1)[0]
        row[1], row[3], row[13:16] = width, depth, [0.0, y, z]
        rows.append(row)
    outcomes = set()
    for x in (0.0, 0.002):
        for row in rows:
            row[13] = x
            score = both(Grasps.from_array(row[None]), [geometry], np.eye(4, dtype=np.float32)[None], TABLE_FAR_BELOW)
            outcomes.add(str(score.reason[0]))
    assert {"collides", "empty"} <= outcomes and outcomes & {"success", "no_contact", "no_closure"}


@pytest.mark.graspnetapi
@pytest.mark.parametrize("inside", [8, 9, 10, 11])
def test_nine_points_between_the_fingers_are_none(referee: None, inside: int) -> None:
    points = np.column_stack([np.zeros(inside), np.linspace(-0.02, 0.02, inside), np.zeros(inside)])
    geometry = ObjectGeometry(0, points, lattice_box().sdf)
    rows = grasp_array(1)
    rows[0, 13:16] = 0, 0, 0.01
    score = both(Grasps.from_array(rows), [geometry], np.eye(4, dtype=np.float32)[None], TABLE_FAR_BELOW)
    assert score.empty[0] == (inside < 10) and not score.collided[0]


@pytest.mark.graspnetapi
def test_unusual_numbers(referee: None, scene: Any, near_antipodal: Any) -> None:
    """Widths 0, 0.1 and beyond the clip, depths 0, negative and beyond the object, far away, left-handed."""
    world = (scene.objects, scene.T_camera_object, scene.T_camera_table)
    parts = [
        near_antipodal(geometry, pose, scene.T_camera_table, 60, 20 + k)
        for k, (geometry, pose) in enumerate(zip(scene.objects, scene.T_camera_object, strict=True))
    ]
    array = Grasps.concatenate(parts).to_array()
    rng = np.random.default_rng(4)
    unusual = rng.permutation(len(array))[:180].reshape(9, -1)
    for rows, column, value in zip(
        unusual, (1, 1, 1, 1, 3, 3, 3, 3, 0), (0.0, 0.1, 5.0, -1.0, 0.0, -0.01, -0.05, 0.25, -3.0), strict=True
    ):
        array[rows, column] = value if column else value - rng.random(len(rows))
    array[unusual[0][:4], 13:16] += 50.0
    array[np.ix_(unusual[1][:8], [6, 9, 12])] *= -1  # left-handed
    score = both(Grasps.from_array(array), *world)
    touched = np.isin(score.index, unusual.reshape(-1))
    assert touched.sum() >= 60 and len(set(score.reason[touched].tolist())) >= 4


@pytest.mark.graspnetapi
def test_suppression_at_its_thresholds(referee: None) -> None:
    """Pairs exactly 0.03 m and 30° apart, and a few last bits nearer and farther."""
    nms = reference.load().grasps.GraspGroup
    rng = np.random.default_rng(0)
    suppressed = 0
    for k in range(400):
        pair = grasp_array(2)
        pair[:, 13:16] = rng.choice([0.0, 0.1, 0.03, 0.5], 3)
        turn = Rotation.from_rotvec(rng.choice([0, SUPPRESSION_ANGLE]) * np.eye(3)[rng.integers(3)])
        first = Rotation.from_euler("xyz", rng.choice([0, 30, 90, 37], 3), degrees=True)
        pair[0, 4:13] = first.as_matrix().reshape(-1)
        pair[1, 4:13] = ((turn * first) if k % 2 else (first * turn)).as_matrix().reshape(-1)
        direction = Rotation.random(random_state=rng).as_matrix()[0] if k % 3 else np.eye(3)[k % 9 // 3]
        pair[1, 13:16] += SUPPRESSION_TRANSLATION * direction * rng.choice([0.0, 1.0])
        pair[1, 4 + rng.integers(12)] *= 1 + rng.integers(-3, 4) * 2.0**-52
        theirs = nms(pair).nms(SUPPRESSION_TRANSLATION, SUPPRESSION_ANGLE).grasp_group_array
        ours = suppress(Grasps.from_array(pair), SUPPRESSION_TRANSLATION, SUPPRESSION_ANGLE)
        assert np.array_equal(pair[ours], theirs), pair
        suppressed += len(ours) == 1
    assert 100 <= suppressed <= 350


@pytest.mark.graspnetapi
def test_a_tie_at_the_fiftieth_keeps_all_that_tie(referee: None, scene: Any) -> None:
    """Ten spread grasps on each of six objects; places 46 to 55 tie. Who stays does not depend on the order of rows."""
    world = (scene.objects, scene.T_camera_object, scene.T_camera_table)
    rng = np.random.default_rng(1)
    rows = []
    for pose in scene.T_camera_object:
        for turn in range(10):  # 36° apart: none suppresses another
            row = grasp_array(1)[0]
            about = Rotation.from_rotvec([0, 0, np.radians(36 * turn)]).as_matrix()
            row[4:13] = (about @ np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]])).reshape(-1)
            row[13:16] = pose[:3, 3]
            rows.append(row)
    array = np.array(rows)
    ranks = rng.permutation(60)
    array[:, 0] = 1 - ranks / 100
    array[(ranks >= 45) & (ranks < 55), 0] = 0.5
    ours = score_view(Grasps.from_array(array), *world)
    assert ours.kept.sum() == 55 and len(ours) == 60
    kept = set(ours.index[ours.kept].tolist())
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(60)
        theirs = reference.score_view_reference(Grasps.from_array(array[order]), *world)
        assert {int(order[row]) for row in theirs.index} == kept


@pytest.mark.graspnetapi
def test_a_tie_at_the_tenth_of_an_object(referee: None, scene: Any) -> None:
    """Twelve grasps on one object, six tie from the eighth on: two of the six go, whichever; ours by their columns."""
    world = (scene.objects[:1], scene.T_camera_object[:1], scene.T_camera_table)
    array = grasp_array(12)
    for k, row in enumerate(array):
        about = Rotation.from_rotvec([0, 0, np.radians(32.7 * (k % 11))]).as_matrix()
        row[4:13] = (about @ np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]])).reshape(-1)
        row[13:16] = scene.T_camera_object[0][:3, 3] + [0, 0, 0.04 * (k // 11)]
    array[7:, 0] = 0.2
    array[:7, 0] = np.linspace(1, 0.5, 7)
    array[7:, 1] = [0.09, 0.05, 0.08, 0.06, 0.07]
    grasps = Grasps.from_array(array)
    ours = score_view(grasps, *world)
    assert len(ours) == 12 and ours.kept.sum() == 10
    assert ours.index[ours.kept].tolist() == [0, 1, 2, 3, 4, 5, 6, 8, 10, 11]  # ascending width among equals
    theirs = reference.score_view_reference(grasps, *world)
    assert theirs.index.tolist()[:7] == list(range(7)) and len(theirs) == 10
    assert set(theirs.index.tolist()) <= set(range(12))


@pytest.mark.parametrize("levels", [1, 3, 20])
def test_the_order_of_rows_does_not_matter(scene: Any, near_antipodal: Any, levels: int) -> None:
    """Shuffled rows, many of them tied: the same grasps are kept, in the same order, with the same scores."""
    world = (scene.objects, scene.T_camera_object, scene.T_camera_table)
    parts = [
        near_antipodal(geometry, pose, scene.T_camera_table, 60, 40 + k)
        for k, (geometry, pose) in enumerate(zip(scene.objects, scene.T_camera_object, strict=True))
    ]
    array = Grasps.concatenate(parts).to_array()
    array[:, 0] = np.random.default_rng(levels).integers(0, levels, len(array)) / levels
    array[50:60] = array[40:50]  # some rows twice
    expected: Any = None
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(len(array))
        shuffled = array[order]
        score = score_view(Grasps.from_array(shuffled), *world)
        rows = shuffled[score.index].tobytes()
        result = (rows, *(getattr(score, name).tobytes() for name in FIELDS[1:]))
        expected = expected or result
        assert result == expected
    assert 50 <= score.kept.sum() <= 60 and np.isfinite(score.min_friction).any()
