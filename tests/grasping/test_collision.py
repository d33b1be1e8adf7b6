"""Collision of the gripper with points."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from grasping.collision import NO_LATTICE, Lattice, collide, collide_in_boxes
from grasping.grasps import Grasps
from grasping.gripper import Gripper
from grasping.point_boxes import PointBoxes
from grasping.protocol import table_points
from grasping.transforms import pose


def random_grasps(n: int, rng: np.random.Generator, spread: float = 0.1) -> Grasps:
    array = np.zeros((n, 17))
    array[:, 0] = rng.random(n)
    array[:, 1] = rng.choice([0.0, 0.02, 0.05, 0.1], n)
    array[:, 3] = rng.choice([-0.05, -0.02, 0.0, 0.01, 0.04], n)
    array[:, 4:13] = Rotation.random(n, random_state=rng).as_matrix().reshape(n, 9)
    array[:, 13:16] = rng.uniform(-spread, spread, (n, 3))
    return Grasps.from_array(array)


def naive_collide(points: np.ndarray, grasps: Grasps, minimum_inside: int) -> tuple[np.ndarray, np.ndarray]:
    """One grasp at a time, the definition: boxes in the gripper's frame, open at their faces."""
    collided, empty = [], []
    for w, depth, R, t in zip(grasps.width, grasps.depth, grasps.rotation, grasps.translation, strict=True):
        x, y, z = ((points - t) @ R).T
        height = (z > -0.01) & (z < 0.01)
        fingers = (x > -0.02) & (x < depth)
        left = (y > -(w / 2 + 0.01)) & (y < -w / 2)
        right = (y < w / 2 + 0.01) & (y > w / 2)
        plate = (x > -0.03) & (x < -0.02) & (y > -(w / 2 + 0.01)) & (y < w / 2 + 0.01)
        collided.append((height & (fingers & (left | right) | plate)).any())
        empty.append((height & fingers & (y >= -w / 2) & (y <= w / 2)).sum() < minimum_inside)
    return np.array(collided, bool), np.array(empty, bool)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.sampled_from([0, 1, 40, 3000]), inside=st.sampled_from([0, 1, 10]))
def test_collisions_against_the_definition(seed: int, n: int, inside: int) -> None:
    rng = np.random.default_rng(seed)
    points, grasps = rng.uniform(-0.12, 0.12, (n, 3)), random_grasps(60, rng)
    for ours, naive in zip(collide(points, grasps, inside), naive_collide(points, grasps, inside), strict=True):
        assert np.array_equal(ours, naive)


def test_collisions_where_the_rotation_is_none() -> None:
    """Scaled or sheared axes are taken as they are, as the referee takes them."""
    rng = np.random.default_rng(0)
    grasps = random_grasps(200, rng)
    array = grasps.to_array()
    array[:, 4:13] += rng.normal(size=(200, 9)) * 0.3
    odd = Grasps.from_array(array)
    points = rng.uniform(-0.15, 0.15, (2000, 3))
    ours, naive = collide(points, odd, 10), naive_collide(points, odd, 10)
    assert np.array_equal(ours[0], naive[0]) and np.array_equal(ours[1], naive[1])
    assert 0 < naive[0].sum() < 200 and 0 < naive[1].sum() < 200


def test_hand_made_cases() -> None:
    upright = np.zeros((1, 17))
    upright[0, [1, 3]] = [0.04, 0.02]
    upright[0, 4:13] = np.eye(3).ravel()
    grasp = Grasps.from_array(upright)
    cases = {
        (0.0, 0.025, 0.0): (True, True),  # in a finger
        (0.0, 0.0, 0.0): (False, False),  # between
        (-0.025, 0.0, 0.0): (True, True),  # in the plate
        (0.021, 0.025, 0.0): (False, True),  # beyond the tips
        (0.0, 0.025, 0.011): (False, True),  # above the fingers
        (0.0, 0.031, 0.0): (False, True),  # outside
        (0.0, 0.02, 0.0): (False, False),  # on the inner face: between
    }
    for point, expected in cases.items():
        collided, empty = collide(np.array([point]), grasp, 1)
        assert (collided[0], empty[0]) == expected, point


def test_faces_are_open() -> None:
    """Numbers that are exact in binary: a point on a face is not inside, one a hair within is."""
    numbers = np.zeros((1, 17))
    numbers[0, [1, 3]] = [0.0625, 0.03125]
    numbers[0, 4:13] = np.eye(3).ravel()
    grasp, gripper = Grasps.from_array(numbers), Gripper(0.125, 0.03125, 0.015625, 0.03125, 0.015625)
    inside, finger, hair = np.array([0.0, 0.0, 0.0]), np.array([0.0, 0.04, 0.0]), 2.0**-30
    faces = {
        "finger tip": (finger, 0, 0.03125, 1),
        "outer face": (finger, 1, 0.046875, 1),
        "upper face": (finger, 2, 0.015625, 1),
        "lower face": (finger, 2, -0.015625, -1),
        "back of the plate": (np.array([-0.04, 0.0, 0.0]), 0, -0.046875, -1),
        "front of the plate": (np.array([-0.04, 0.0, 0.0]), 0, -0.03125, 1),
        "between, tip": (inside, 0, 0.03125, 1),
        "between, upper": (inside, 2, 0.015625, 1),
    }
    for name, (point, axis, face, outward) in faces.items():
        within, on = point.copy(), point.copy()
        within[axis], on[axis] = face - outward * hair, face
        counted = [collide(one[None], grasp, 1, gripper) for one in (within, on)]
        found = [bool(collided[0] or not empty[0]) for collided, empty in counted]
        assert found == [True, False], name


def random_scene(rng: np.random.Generator, sizes: list[int]) -> list[np.ndarray]:
    return [rng.uniform(-0.05, 0.05, (size, 3)) + rng.uniform(-0.15, 0.15, 3) for size in sizes]


def naive_in_boxes(clouds, table, low, high, grasps, group, inside):  # type: ignore[no-untyped-def]
    world = np.concatenate([*clouds, table])
    collided, empty = np.zeros(len(grasps), bool), np.zeros(len(grasps), bool)
    for k in np.unique(group):
        near, of_group = world[((world > low[k]) & (world < high[k])).all(axis=1)], group == k
        collided[of_group], empty[of_group] = naive_collide(near, grasps[of_group], inside)
    return collided, empty


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    sizes=st.lists(st.sampled_from([0, 1, 7, 60, 400]), min_size=1, max_size=5),
    sheared=st.booleans(),
)
def test_models_and_table_in_boxes_against_the_definition(seed: int, sizes: list[int], sheared: bool) -> None:
    rng = np.random.default_rng(seed)
    clouds, grasps = random_scene(rng, sizes), random_grasps(40, rng, 0.2)
    if sheared:
        grasps = replace(grasps, rotation=grasps.rotation + rng.normal(size=(40, 3, 3)) * 0.2)
    T = pose(Rotation.random(random_state=rng).as_matrix(), rng.uniform(-0.2, 0.2, 3))
    T[:3, :3] *= 1 + 1e-4 * rng.normal()  # stored poses are rigid only nearly
    x, z = np.linspace(0, 1.0, 125) - 0.5, np.linspace(0, 0.05, 6) - 0.05
    boxes = PointBoxes.of_clouds(clouds)
    low, high = boxes.object_low - 0.05, boxes.object_high + 0.05
    group = rng.integers(0, len(clouds), 40)
    ours = collide_in_boxes(boxes, Lattice(T, x, x, z), low, high, grasps, group, 10)
    naive = naive_in_boxes(clouds, table_points(T), low, high, grasps, group, 10)
    assert np.array_equal(ours[0], naive[0]) and np.array_equal(ours[1], naive[1])


def test_the_table_is_met() -> None:
    """Fingers reaching below the table's top hit its points, in some poses and not in others."""
    rng = np.random.default_rng(5)
    grasps = random_grasps(150, rng, 0.2)
    grasps = replace(grasps, translation=grasps.translation * [1, 1, 0.15])
    x, z = np.linspace(0, 1.0, 125) - 0.5, np.linspace(0, 0.05, 6) - 0.05
    everything, group = np.full((1, 3), 0.4), np.zeros(150, np.int64)
    none = PointBoxes.of_clouds([np.zeros((0, 3))])
    collided, empty = collide_in_boxes(none, Lattice(np.eye(4), x, x, z), -everything, everything, grasps, group, 10)
    naive = naive_in_boxes([], table_points(np.eye(4)), -everything, everything, grasps, group, 10)
    assert np.array_equal(collided, naive[0]) and np.array_equal(empty, naive[1])
    assert 40 < collided.sum() < 145 and 20 < empty.sum() < 145


def test_groups_see_their_own_box() -> None:
    rng = np.random.default_rng(3)
    cloud = rng.uniform(-0.1, 0.1, (900, 3))
    low = np.array([[-0.1, -0.1, -0.1], [0.02, -0.1, -0.1], [np.inf] * 3])
    high = np.array([[0.0, 0.1, 0.1], [0.1, 0.1, 0.05], [-np.inf] * 3])
    grasps, group = random_grasps(90, rng), rng.integers(0, 3, 90)
    boxes = PointBoxes.of_clouds([cloud[:500], np.zeros((0, 3)), cloud[500:]])
    collided, empty = collide_in_boxes(boxes, NO_LATTICE, low, high, grasps, group, 5)
    for k in range(3):
        near = cloud[((cloud > low[k]) & (cloud < high[k])).all(axis=1)]
        alone = collide(near, grasps[group == k], 5)
        assert np.array_equal(collided[group == k], alone[0]) and np.array_equal(empty[group == k], alone[1])
    assert not collided[group == 2].any() and empty[group == 2].all()


@pytest.mark.parametrize("scale", [1e8, 1e150, 1e300])
def test_numbers_far_beyond_any_scene(scale: float) -> None:
    rng = np.random.default_rng(1)
    points = rng.uniform(-0.1, 0.1, (500, 3))
    points[::50] *= scale
    grasps = random_grasps(120, rng)
    grasps = replace(
        grasps,
        translation=np.where(rng.random((120, 1)) < 0.3, grasps.translation * scale, grasps.translation),
        depth=np.where(rng.random(120) < 0.3, scale, grasps.depth),
        rotation=np.where(rng.random((120, 1, 1)) < 0.1, grasps.rotation * scale, grasps.rotation),
    )
    with np.errstate(over="ignore", invalid="ignore"):
        naive = naive_collide(points, grasps, 10)
    ours = collide(points, grasps, 10)
    assert np.array_equal(ours[0], naive[0]) and np.array_equal(ours[1], naive[1])
    assert 0 < naive[0].sum() < 120
