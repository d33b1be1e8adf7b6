"""Collision of the gripper with points."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from grasping.collision import collide, collide_in_groups, lattice_in_box, points_in_box
from grasping.grasps import Grasps
from grasping.protocol import table_points
from grasping.transforms import pose, transform_points


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


def test_groups_see_their_own_cloud() -> None:
    rng = np.random.default_rng(3)
    clouds = [rng.uniform(-0.1, 0.1, (500, 3)), np.zeros((0, 3)), rng.uniform(-0.1, 0.1, (80, 3))]
    grasps, group = random_grasps(90, rng), rng.integers(0, 3, 90)
    collided, empty = collide_in_groups(clouds, grasps, group, 5)
    for k in range(3):
        alone = collide(clouds[k], grasps[group == k], 5)
        assert np.array_equal(collided[group == k], alone[0]) and np.array_equal(empty[group == k], alone[1])
    assert not collided[group == 1].any() and empty[group == 1].all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_lattice_in_box_is_the_table_cropped(seed: int) -> None:
    rng = np.random.default_rng(seed)
    T = pose(Rotation.random(random_state=rng).as_matrix(), rng.uniform(-0.3, 0.3, 3))
    x = np.linspace(0, 1.0, 125) - 0.5
    z = np.linspace(0, 0.05, 6) - 0.05
    centre = transform_points(T, np.append(rng.uniform(-0.6, 0.6, 2), 0.0))
    low, high = centre - rng.uniform(0.01, 0.2, 3), centre + rng.uniform(0.01, 0.2, 3)
    table = table_points(T)
    assert table.shape == (125 * 125 * 6, 3)
    ours, naive = lattice_in_box(T, (x, x, z), low, high), points_in_box(table, low, high)
    assert np.array_equal(points_in_box(table, low, high), table[((table > low) & (table < high)).all(axis=1)])
    assert ours.shape == naive.shape
    assert ours[np.lexsort(ours.round(6).T)] == pytest.approx(naive[np.lexsort(naive.round(6).T)], abs=1e-9)
