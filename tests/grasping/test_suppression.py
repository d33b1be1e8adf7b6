"""Non-maximum suppression and the order among equals."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from grasping.grasps import Grasps
from grasping.suppression import confidence_order, suppress, survivors


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


def turn_and_distance(grasps: Grasps, one: int, other: int) -> tuple[float, float]:
    """Angle and distance by the referee's arithmetic, operation by operation: rows of R R'^T, trace, clamp, acos."""
    a, b = grasps.rotation[one].tolist(), grasps.rotation[other].tolist()
    trace = 0.0
    for row in range(3):
        trace += (a[row][0] * b[row][0] + a[row][1] * b[row][1]) + a[row][2] * b[row][2]
    trace = min(3.0, max(-1.0, trace))
    d = [p - q for p, q in zip(grasps.translation[one].tolist(), grasps.translation[other].tolist(), strict=True)]
    return math.acos(0.5 * (trace - 1.0)), math.sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2])


def literal_suppress(grasps: Grasps, translation: float, angle: float) -> list[int]:
    """The rule pair by pair, for any numbers: rotations that are none, thresholds met to the last bit."""
    kept: list[int] = []
    for row in confidence_order(grasps).tolist():
        for k in kept:
            turn, distance = turn_and_distance(grasps, row, k)
            if distance < translation and turn < angle:
                break
        else:
            kept.append(row)
    return kept


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(0, 40),
    change=st.sampled_from(["none", "lattice", "duplicates", "sheared", "far", "huge", "line"]),
    translation=st.sampled_from([0.03, 0.0, -1.0, 1e-9, 0.5, 1e9, math.inf]),
    angle=st.sampled_from([math.pi / 6, 0.0, 1e-7, 1e-5, 3.0, math.pi, 4.0]),
)
def test_suppression_against_the_rule_on_odd_numbers(
    seed: int, n: int, change: str, translation: float, angle: float
) -> None:
    grasps, rng = crowd(n, seed), np.random.default_rng(seed)
    if change == "lattice":
        grasps = replace(grasps, translation=rng.integers(0, 4, (n, 3)) * 0.03)
    elif change == "duplicates" and n:
        grasps = grasps[rng.integers(0, max(n // 3, 1), n)]
    elif change == "sheared":
        grasps = replace(grasps, rotation=grasps.rotation * 1.3 + rng.normal(size=(n, 3, 3)) * 0.3)
    elif change == "far":
        grasps = replace(grasps, translation=grasps.translation + np.where(rng.random((n, 1)) < 0.2, 1e9, 0.0))
    elif change == "huge":
        grasps = replace(grasps, translation=grasps.translation * 10.0 ** rng.integers(-250, 250, (n, 1)))
    elif change == "line":
        grasps = replace(grasps, translation=grasps.translation * [1, 0, 0])
    assert suppress(grasps, translation, angle).tolist() == literal_suppress(grasps, translation, angle)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_thresholds_met_to_the_last_bit(seed: int) -> None:
    """Two grasps and a threshold at exactly what lies between them, and one number to either side of it."""
    grasps = replace(crowd(2, seed), confidence=np.array([1.0, 0.5]))
    turn, distance = turn_and_distance(grasps, 1, 0)
    for near in (distance, math.nextafter(distance, 0), math.nextafter(distance, 1)):
        assert len(suppress(grasps, near, 4.0)) == (1 if distance < near else 2)
    for angle in (turn, math.nextafter(turn, 0), math.nextafter(turn, 4)):
        assert len(suppress(grasps, 1.0, angle)) == (1 if turn < angle else 2)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(0, 120), first=st.integers(1, 50))
def test_pieces_are_the_whole(seed: int, n: int, first: int) -> None:
    grasps = crowd(n, seed, 6)
    pieces = list(survivors(grasps, 0.03, 0.5, first))
    assert np.concatenate([np.zeros(0, int), *pieces]).tolist() == suppress(grasps, 0.03, 0.5).tolist()
    assert [len(piece) for piece in pieces[:-1]] == [first * 2**k for k in range(len(pieces) - 1)]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31), n=st.integers(0, 60), levels=st.sampled_from([1, 2, 5, 40]), equal=st.integers(0, 16)
)
def test_order_among_equals_is_that_of_all_columns(seed: int, n: int, levels: int, equal: int) -> None:
    array = crowd(n, seed, levels).to_array()
    array[:, 1 : 1 + equal] = np.round(array[:, 1 : 1 + equal], 1)
    rows = array.tolist()
    naive = sorted(range(n), key=lambda i: (-rows[i][0], *rows[i][1:]))  # sorted() keeps the order of equals
    assert confidence_order(Grasps.from_array(array)).tolist() == naive


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
