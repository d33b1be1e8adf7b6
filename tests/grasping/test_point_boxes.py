"""Trees of bounding boxes over model points."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from grasping.point_boxes import PointBoxes, PointTree

sizes = st.lists(st.sampled_from([0, 1, 16, 17, 100, 700]), min_size=1, max_size=6)


def clouds_of(rng: np.random.Generator, counts: list[int], lattice: bool) -> list[np.ndarray]:
    """Clouds apart from each other, or on a coarse lattice, which makes duplicates and ties."""
    if lattice:
        return [rng.integers(0, 5, (count, 3)).astype(float) for count in counts]
    return [rng.normal(size=(count, 3)) * 0.05 + rng.uniform(-0.2, 0.2, 3) for count in counts]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.sampled_from([0, 1, 2, 16, 17, 33, 1000]), lattice=st.booleans())
def test_a_tree_holds_every_point_once(seed: int, count: int, lattice: bool) -> None:
    (points,) = clouds_of(np.random.default_rng(seed), [count], lattice)
    tree = PointTree.of(points)
    assert sorted(tree.order.tolist()) == list(range(count))
    leaves = np.flatnonzero(tree.skip == np.arange(len(tree.skip)) + 1)
    assert tree.starts[0] == 0 and tree.ends[0] == count and tree.skip[0] == len(tree.skip)
    assert np.array_equal(tree.starts[leaves][1:], tree.ends[leaves][:-1])
    assert (tree.ends[leaves] - tree.starts[leaves]).max() <= 16
    for node in np.setdiff1d(np.arange(len(tree.skip)), leaves):
        left, right = node + 1, tree.skip[node + 1]
        assert (tree.starts[left], tree.ends[right]) == (tree.starts[node], tree.ends[node])
        assert tree.ends[left] == tree.starts[right] and tree.skip[right] == tree.skip[node]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), counts=sizes)
def test_boxes_are_those_of_their_points(seed: int, counts: list[int]) -> None:
    clouds = clouds_of(np.random.default_rng(seed), counts, False)
    boxes = PointBoxes.of_clouds(clouds)
    for k, cloud in enumerate(clouds):
        low, high = (cloud.min(axis=0), cloud.max(axis=0)) if len(cloud) else (np.inf, -np.inf)
        assert (boxes.object_low[k] == low).all() and (boxes.object_high[k] == high).all()
    for b in range(len(boxes.skip)):
        part = boxes.points[boxes.starts[b] : boxes.ends[b]]
        if len(part):
            assert (boxes.low[b] == part.min(axis=0)).all() and (boxes.high[b] == part.max(axis=0)).all()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    counts=sizes,
    lattice=st.booleans(),
    scale=st.sampled_from([1.0, 1e-200, 1e9, 1e160]),
)
def test_nearest_owner_against_all_distances(seed: int, counts: list[int], lattice: bool, scale: float) -> None:
    rng = np.random.default_rng(seed)
    clouds = clouds_of(rng, counts, lattice)
    queries = np.concatenate(
        [rng.integers(-1, 6, (20, 3)).astype(float), rng.normal(size=(20, 3)) * 0.2, rng.normal(size=(5, 3)) * 30]
    )
    clouds, queries = [cloud * scale for cloud in clouds], queries * scale
    ours = PointBoxes.of_clouds(clouds).owner_of_nearest(queries)
    owner = np.repeat(np.arange(len(counts)), counts)
    if len(owner) == 0:
        assert (ours == 0).all()
        return
    with np.errstate(over="ignore", under="ignore"):
        d = (queries[:, None] - np.concatenate(clouds)) ** 2
        assert np.array_equal(ours, owner[(d[..., 0] + d[..., 1] + d[..., 2]).argmin(axis=1)])
        if scale == 1.0:
            assert np.array_equal(ours, owner[cdist(queries, np.concatenate(clouds)).argmin(axis=1)])


def test_no_queries_and_no_points() -> None:
    boxes = PointBoxes.of_clouds([np.zeros((0, 3)), np.ones((3, 3))])
    assert boxes.owner_of_nearest(np.zeros((0, 3))).shape == (0,)
    assert boxes.owner_of_nearest(np.zeros((2, 3))).tolist() == [1, 1]
    assert PointBoxes.of_clouds([]).owner_of_nearest(np.zeros((2, 3))).tolist() == [0, 0]
    assert PointBoxes.of_clouds([np.zeros((0, 3))]).owner_of_nearest(np.zeros((2, 3))).tolist() == [0, 0]


@pytest.mark.parametrize("count", [1, 40])
def test_one_place_for_all_points(count: int) -> None:
    boxes = PointBoxes.of_clouds([np.zeros((count, 3)), np.zeros((count, 3))])
    assert boxes.owner_of_nearest(np.array([[0.0, 0, 0], [1, 2, 3]])).tolist() == [0, 0]
