"""The model-free filter against a loop that counts points box by box."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grasping.clouds import voxel_downsample
from grasping.generators.model_free_collision import ModelFreeCollision
from grasping.grasps import Grasps


def some_grasps(count: int, rng: np.random.Generator) -> Grasps:
    rotation, _ = np.linalg.qr(rng.normal(size=(count, 3, 3)))
    rotation[:, :, 2] = np.cross(rotation[:, :, 0], rotation[:, :, 1])
    return Grasps(
        confidence=rng.random(count),
        width=rng.uniform(0.0, 0.1, count),
        height=np.full(count, 0.02),
        depth=rng.choice([0.01, 0.02, 0.03, 0.04], count),
        rotation=rotation,
        translation=rng.uniform(-0.05, 0.05, (count, 3)),
        object_id=np.full(count, -1),
    )


def naive(filter_: ModelFreeCollision, grasps: Grasps, cloud: np.ndarray) -> list[float]:
    """The share of the boxes that is filled: two fingers, the back plate, the way behind it."""
    shares = []
    f, length = filter_.finger_thickness, filter_.finger_length
    for g in range(len(grasps)):
        w, h, d = grasps.width[g], grasps.height[g], grasps.depth[g]
        boxes = [  # x, y
            ((d - length, d), (-w / 2 - f, -w / 2)),
            ((d - length, d), (w / 2, w / 2 + f)),
            ((d - length - f, d - length), (-w / 2 - f, w / 2 + f)),
            ((d - length - f - filter_.approach, d - length - f), (-w / 2 - f, w / 2 + f)),
        ]
        count = 0
        for point in voxel_downsample(cloud, filter_.voxel):
            x, y, z = grasps.rotation[g].T @ (point - grasps.translation[g])
            count += any(a < x < b and c < y < e for (a, b), (c, e) in boxes) and abs(z) < h / 2
        volume = sum((b - a) * (e - c) * h for (a, b), (c, e) in boxes)
        shares.append(count / (volume / filter_.voxel**3))
    return shares


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.004, 0.01]))
@settings(max_examples=10, deadline=None)
def test_it_counts_what_a_loop_counts(seed: int, voxel: float) -> None:
    rng = np.random.default_rng(seed)
    cloud, grasps = rng.uniform(-0.1, 0.1, (300, 3)), some_grasps(12, rng)
    filter_ = ModelFreeCollision(voxel=voxel)
    shares = naive(filter_, grasps, cloud)
    for threshold in (0.0, 0.01, float(np.median(shares)) + 1e-9):
        assert replace(filter_, threshold=threshold).collides(grasps, cloud).tolist() == [
            share > threshold for share in shares
        ]


def test_a_grasp_around_a_bar_is_free_and_one_into_it_is_not() -> None:
    """A bar of 2 cm along z; the gripper comes along x and closes along y."""
    y, z = np.meshgrid(np.arange(-0.01, 0.0101, 0.002), np.arange(-0.1, 0.1, 0.002))
    bar = np.stack([np.zeros(y.size), y.ravel(), z.ravel()], axis=1)
    open_wide = Grasps.from_array([[1, 0.06, 0.02, 0.02, 1, 0, 0, 0, 1, 0, 0, 0, 1, -0.005, 0, 0, -1]])
    filter_ = ModelFreeCollision()
    assert filter_.collides(open_wide, bar).tolist() == [False]
    assert filter_.collides(replace(open_wide, width=np.array([0.005])), bar).tolist() == [True]  # fingers in the bar
    past = replace(open_wide, translation=np.array([[0.07, 0.0, 0.0]]))  # the bar lies where the back plate comes
    assert filter_.collides(past, bar).tolist() == [True]
    behind = bar - [0.07, 0, 0]  # a wall behind the hand: only the way is tested there
    assert filter_.collides(open_wide, behind).tolist() == [True]
    assert replace(filter_, approach=0.0).collides(open_wide, behind - [0.02, 0, 0]).tolist() == [False]


def test_nothing_collides_with_nothing() -> None:
    rng = np.random.default_rng(0)
    assert ModelFreeCollision().collides(some_grasps(3, rng), np.zeros((0, 3))).tolist() == [False] * 3
    assert ModelFreeCollision().collides(Grasps.empty(), rng.random((9, 3))).shape == (0,)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    cloud, grasps = rng.uniform(-0.1, 0.1, (25, 3)), some_grasps(40, rng)
    whole = ModelFreeCollision().collides(grasps, cloud)
    assert 0 < whole.sum() < 40
    monkeypatch.setattr("grasping.generators.model_free_collision._BLOCK", 500)
    assert np.array_equal(ModelFreeCollision().collides(grasps, cloud), whole)


@pytest.mark.parametrize("wrong", [{"voxel": 0.0}, {"approach": -0.1}, {"threshold": float("nan")}])
def test_constants_that_are_none_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ModelFreeCollision(**wrong)
