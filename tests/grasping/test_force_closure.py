"""The two-contact cone test."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from grasping.contacts import Contacts, find_contacts
from grasping.force_closure import FRICTIONS, minimum_friction, required_angle
from grasping.geometry import ObjectGeometry, SignedDistanceGrid


def pair(points: list[list[float]], normals: list[list[float]], found: bool = True) -> Contacts:
    return Contacts(np.array([found]), np.array([points], float), np.array([normals], float), np.array([False]))


@settings(max_examples=60, deadline=None)
@given(
    tilt=st.lists(st.floats(0, np.pi / 2 - 1e-6), min_size=2, max_size=2),
    seed=st.integers(0, 10**6),
    length=st.floats(1e-3, 1),
)
def test_least_friction_against_a_loop(tilt: list[float], seed: int, length: float) -> None:
    """Normals tilted by known angles from the line: each friction is asked by itself."""
    turn = Rotation.random(random_state=seed)
    normals = [[np.cos(a), np.sin(a) * np.cos(k), np.sin(a) * np.sin(k)] for k, a in enumerate(tilt)]
    contacts = pair((turn.apply([[0, 0, 0], [length, 0, 0]])).tolist(), turn.apply(normals).tolist())
    angle = required_angle(contacts)[0]
    assert angle == pytest.approx(max(tilt), abs=1e-7)
    if min(abs(np.tan(max(tilt)) - mu) for mu in FRICTIONS) < 1e-5:
        return  # which side rounding falls on says nothing
    holds = [mu for mu in FRICTIONS if all(np.tan(a) <= mu for a in tilt)]
    assert minimum_friction(np.array([angle]))[0] == (min(holds) if holds else np.inf)


def test_sign_of_normals_does_not_matter() -> None:
    points = [[0, 0, 0], [1, 0, 0]]
    for a in (1, -1):
        for b in (1, -1):
            assert required_angle(pair(points, [[a, 0, 0], [b, 0, 0]]))[0] == 0


@pytest.mark.parametrize(
    "contacts",
    [
        pair([[0, 0, 0], [1, 0, 0]], [[1, 0, 0], [1, 0, 0]], found=False),
        pair([[0, 0, 0], [0, 0, 0]], [[1, 0, 0], [1, 0, 0]]),
        pair([[0, 0, 0], [1, 0, 0]], [[1, 0, 0], [np.nan] * 3]),
    ],
)
def test_what_cannot_hold_fails(contacts: Contacts) -> None:
    assert minimum_friction(required_angle(contacts))[0] == np.inf


def test_ladder_is_closed_at_its_steps() -> None:
    steps = np.arctan(np.array(FRICTIONS))
    assert minimum_friction(steps).tolist() == list(FRICTIONS)
    assert minimum_friction(np.nextafter(steps, 2)).tolist() == [*FRICTIONS[1:], np.inf]
    assert minimum_friction(np.array([0.0, np.pi / 2, np.inf])).tolist() == [0.2, np.inf, np.inf]
    assert minimum_friction(np.zeros(0)).shape == (0,)


@settings(max_examples=80, deadline=None)
@given(
    offset=st.tuples(st.floats(-0.6, 0.6), st.floats(-0.6, 0.6), st.floats(-0.9, 0.9)),
    axis=st.integers(0, 1),
    tilt=st.floats(0, 0.05),
    extra=st.floats(0.002, 0.05),
)
@example(offset=(-0.5, 0.5625, 0.3), axis=0, tilt=0.029296875, extra=0.01953125)  # straight in the first opening
def test_what_touches_a_box_across_its_faces_closes_at_the_least_friction(
    geometries: dict[str, ObjectGeometry], offset: tuple[float, ...], axis: int, tilt: float, extra: float
) -> None:
    contacts = find_contacts(*_across(geometries, np.array([offset]), axis, np.array([tilt]), np.array([extra])))
    if contacts.found[0]:  # see the next test for how many touch
        assert minimum_friction(required_angle(contacts))[0] == 0.2


def test_nearly_all_grasps_across_a_box_touch_and_all_that_do_close(geometries: dict[str, ObjectGeometry]) -> None:
    """By the protocol's rule a finger whose distance profile is straight to 1e-10 touches nothing. The dither of our
    grids makes that rare, not impossible: of 12,000 drawn like these 84 do not touch."""
    rng = np.random.default_rng(0)
    for axis in (0, 1):
        offset = rng.uniform([-0.6, -0.6, -0.9], [0.6, 0.6, 0.9], (1000, 3))
        tilt = np.where(np.arange(1000) < 500, 0.0, rng.uniform(0, 0.05, 1000))
        contacts = find_contacts(*_across(geometries, offset, axis, tilt, rng.uniform(0.002, 0.05, 1000)))
        assert contacts.found.mean() > 0.98
        assert (minimum_friction(required_angle(contacts))[contacts.found] == 0.2).all()


def _across(
    geometries: dict[str, ObjectGeometry], offset: np.ndarray, axis: int, tilt: np.ndarray, extra: np.ndarray
) -> tuple[SignedDistanceGrid, np.ndarray, np.ndarray, np.ndarray]:
    """Grasps across the faces of the box: its grid, centres, closing axes and openings."""
    sdf = geometries["box"].sdf
    assert sdf is not None
    half = np.array([0.025, 0.02, 0.045])
    centre = half * offset * 0.8
    centre[:, axis] *= 0.1
    direction = np.cos(tilt)[:, None] * np.eye(3)[axis] + np.sin(tilt)[:, None] * np.eye(3)[2]
    return sdf, centre, direction, 2 * half[axis] + 0.01 + extra
