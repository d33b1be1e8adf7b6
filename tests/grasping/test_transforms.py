"""Rigid transforms, and the protocol's gripper."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from grasping.gripper import GRASPNET_GRIPPER
from grasping.transforms import invert, pose, transform_points

seeds = st.integers(0, 2**31)


def some_pose(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return pose(Rotation.random(random_state=rng).as_matrix(), rng.normal(size=3))


@given(seeds)
def test_points_against_homogeneous_coordinates(seed: int) -> None:
    T, points = some_pose(seed), np.random.default_rng(seed).normal(size=(2, 5, 3))
    naive = [[(T @ [*p, 1])[:3] for p in row] for row in points]
    assert transform_points(T, points) == pytest.approx(np.array(naive))


@given(seeds)
def test_inverse_and_composition(seed: int) -> None:
    a, b, points = some_pose(seed), some_pose(seed + 1), np.random.default_rng(seed).normal(size=(5, 3))
    assert invert(a) == pytest.approx(np.linalg.inv(a))
    assert transform_points(a @ b, points) == pytest.approx(transform_points(a, transform_points(b, points)))
    assert transform_points(invert(a), transform_points(a, points)) == pytest.approx(points)


@pytest.mark.parametrize(
    ("given_type", "result"), [(np.float32, np.float32), (np.float64, np.float64), (int, np.float64)]
)
def test_points_keep_their_type(given_type: type, result: type) -> None:
    assert transform_points(np.eye(4), np.zeros((2, 3), given_type)).dtype == result
    assert transform_points(np.eye(4), np.zeros((0, 3), given_type)).shape == (0, 3)


def test_gripper_is_the_evaluations_and_cannot_be_changed() -> None:
    """Height 2 cm, fingers and plate 1 cm thick, fingers 2 cm behind the grasp point, opening 10 cm."""
    assert dataclasses.astuple(GRASPNET_GRIPPER) == (0.10, 0.02, 0.01, 0.02, 0.01)
    with pytest.raises(dataclasses.FrozenInstanceError):
        GRASPNET_GRIPPER.height = 1.0  # type: ignore[misc]
