"""Non-maximum suppression and the order among equals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from grasping.grasps import Grasps
from grasping.suppression import confidence_order, suppress


def crowd(n: int, seed: int, levels: int | None = None) -> Grasps:
    """Grasps close enough to each other that about half go; few confidence levels make ties."""
    rng = np.random.default_rng(seed)
    array = np.zeros((n, 17))
    array[:, 0] = rng.random(n) if levels is None else rng.integers(0, levels, n)
    array[:, 1:4] = rng.random((n, 3)) * 0.1
    if n:
        turns = Rotation.from_rotvec(rng.normal(size=(n, 3)) * 0.35)
        array[:, 4:13] = turns.as_matrix().reshape(n, 9)
        swapped = rng.random(n) < 0.5  # the fingers change places: far in rotation, the same to the eye
        array[np.ix_(swapped, [5, 8, 11])] *= -1
        array[np.ix_(swapped, [6, 9, 12])] *= -1
    array[:, 13:16] = rng.random((n, 3)) * 0.1
    return Grasps.from_array(array)


def naive_suppress(grasps: Grasps, translation: float, angle: float) -> list[int]:
    kept: list[int] = []
    rows = grasps.to_array()
    for row in sorted(range(len(rows)), key=lambda i: (-rows[i, 0], *rows[i, 1:])):
        turns = Rotation.from_matrix(grasps.rotation)
        if all(
            np.linalg.norm(grasps.translation[row] - grasps.translation[k]) >= translation
            or (turns[row] * turns[k].inv()).magnitude() >= angle
            for k in kept
        ):
            kept.append(row)
    return kept


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(0, 60), levels=st.sampled_from([None, 3]))
def test_suppression_against_loops(seed: int, n: int, levels: int | None) -> None:
    grasps = crowd(n, seed, levels)
    assert suppress(grasps, 0.03, np.pi / 6).tolist() == naive_suppress(grasps, 0.03, np.pi / 6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), levels=st.sampled_from([None, 1, 4]))
def test_order_of_rows_does_not_matter(seed: int, levels: int | None) -> None:
    grasps = crowd(80, seed, levels)
    shuffled = grasps[np.random.default_rng(seed).permutation(80)]
    for one, other in [
        (grasps[confidence_order(grasps)], shuffled[confidence_order(shuffled)]),
        (grasps[suppress(grasps, 0.03, 0.5)], shuffled[suppress(shuffled, 0.03, 0.5)]),
    ]:
        assert np.array_equal(one.to_array(), other.to_array())
        assert (np.diff(one.confidence) <= 0).all()


def test_duplicates_leave_one_and_thresholds_are_strict() -> None:
    array = np.tile(crowd(1, 0).to_array(), (3, 1))
    assert len(suppress(Grasps.from_array(array), 0.03, 0.5)) == 1
    array[:, 13:16] = [[0, 0, 0], [0.5, 0, 0], [1.0, 0, 0]]
    assert len(suppress(Grasps.from_array(array), 0.5, 0.5)) == 3


@pytest.mark.graspnetapi
def test_suppression_is_grasp_nms() -> None:
    grasp_nms = pytest.importorskip("grasp_nms", reason="install the referee with scripts/install_referee.sh")
    suppressed = 0
    for seed in range(30):
        grasps = crowd(200, seed)
        theirs = grasp_nms.nms_grasp(grasps.to_array(), 0.03, 30.0 / 180 * np.pi)
        ours = grasps[suppress(grasps, 0.03, 30.0 / 180 * np.pi)].to_array()
        assert np.array_equal(ours, theirs)
        suppressed += 200 - len(ours)
    assert suppressed > 1000
