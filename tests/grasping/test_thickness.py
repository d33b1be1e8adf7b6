"""Thickness at contacts against shapes whose thickness is known."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from grasping.contacts import find_contacts
from grasping.geometry import make_signed_distance_grid
from grasping.signed_distance import SignedDistanceGrid
from grasping.thickness import grasp_thickness, thickness

EDGES = np.array([0.05, 0.03, 0.08])
RADIUS, HEIGHT = 0.02, 0.09
INNER, OUTER = 0.03, 0.034  # a pipe whose wall is 4 mm


def grid(mesh: trimesh.Trimesh) -> SignedDistanceGrid:
    return make_signed_distance_grid(mesh.vertices, mesh.faces, cells=60, threads=1)


@pytest.fixture(scope="module")
def box() -> SignedDistanceGrid:
    return grid(trimesh.creation.box(EDGES).subdivide_to_size(0.01))


@pytest.fixture(scope="module")
def cylinder() -> SignedDistanceGrid:
    return grid(trimesh.creation.cylinder(RADIUS, HEIGHT, sections=96))


@pytest.fixture(scope="module")
def pipe() -> SignedDistanceGrid:
    return grid(trimesh.creation.annulus(INNER, OUTER, 0.06, sections=96))


unit_vectors = st.tuples(*[st.floats(-1, 1)] * 3).map(np.array).filter(lambda v: np.linalg.norm(v) > 0.1)
signs = st.sampled_from([-1.0, 1.0])


@settings(deadline=None)
@given(axis=st.integers(0, 2), side=signs, sign=signs, place=st.tuples(*[st.floats(-0.6, 0.6)] * 3))
def test_a_box_is_as_thick_as_its_edge(box, axis: int, side: float, sign: float, place) -> None:  # type: ignore[no-untyped-def]
    point = np.array(place) * EDGES / 2
    point[axis] = side * EDGES[axis] / 2
    normal = sign * np.eye(3)[axis]
    assert thickness(box, [point], [normal])[0] == pytest.approx(EDGES[axis], abs=box.resolution)


@settings(deadline=None)
@given(direction=unit_vectors, sign=signs, off=st.floats(-0.5, 0.5))
def test_a_ball_is_as_thick_as_its_diameter(direction: np.ndarray, sign: float, off: float) -> None:
    ball = BALL
    n = direction / np.linalg.norm(direction)
    found = thickness(ball, [n * (0.03 + off * ball.resolution)], [sign * n])  # contacts lie near the surface only
    assert found[0] == pytest.approx(0.06, abs=ball.resolution)


BALL = grid(trimesh.creation.icosphere(subdivisions=4, radius=0.03))


@settings(deadline=None)
@given(angle=st.floats(0, 2 * np.pi), z=st.floats(-0.7, 0.7), sign=signs)
def test_a_cylinder_has_its_diameter_and_a_pipe_its_wall(cylinder, pipe, angle: float, z: float, sign: float) -> None:  # type: ignore[no-untyped-def]
    n = np.array([np.cos(angle), np.sin(angle), 0.0])
    up = np.array([0.0, 0.0, 1.0])
    found = thickness(cylinder, [RADIUS * n + z * HEIGHT / 2 * up], [sign * n])[0]
    assert found == pytest.approx(2 * RADIUS, abs=cylinder.resolution)
    for radius in (INNER, OUTER):  # from within and from without
        found = thickness(pipe, [radius * n + z * 0.03 * up], [sign * n])[0]
        assert found == pytest.approx(OUTER - INNER, abs=pipe.resolution)
    rim = thickness(pipe, [(INNER + OUTER) / 2 * n + 0.03 * up], [sign * up])[0]
    assert rim == pytest.approx(0.06, abs=pipe.resolution)


def test_a_grasp_has_the_smaller_of_its_two(pipe, box) -> None:  # type: ignore[no-untyped-def]
    across_pipe = find_contacts(pipe, [[0.0, 0.0, 0.0]], [[1.0, 0.0, 0.0]], [0.09])
    assert across_pipe.found[0]
    assert grasp_thickness(pipe, across_pipe)[0] == pytest.approx(OUTER - INNER, abs=pipe.resolution)
    nothing = find_contacts(box, [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]], [[1.0, 0.0, 0.0]] * 2, [0.05, 0.07])
    found = grasp_thickness(box, nothing)
    assert np.isnan(found[0]) and found[1] == pytest.approx(EDGES[0], abs=box.resolution)
    assert grasp_thickness(box, find_contacts(box, np.zeros((0, 3)), np.zeros((0, 3)), [])).shape == (0,)


@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 2**31))
def test_turning_object_and_contact_together_changes_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    R, shift = Rotation.random(random_state=rng).as_matrix(), rng.normal(size=3) * 0.1
    mesh = trimesh.creation.box(EDGES).subdivide_to_size(0.01)
    turned = grid(trimesh.Trimesh(mesh.vertices @ R.T + shift, mesh.faces, process=False))
    straight = grid(mesh)
    axis = np.array([0, 1, 2, 0, 1, 2])
    normals = np.eye(3)[axis] * rng.choice([-1.0, 1.0], (6, 1))
    points = rng.uniform(-0.3, 0.3, (6, 3)) * EDGES
    points[np.arange(6), axis] = (normals * EDGES / 2)[np.arange(6), axis]
    before, after = thickness(straight, points, normals), thickness(turned, points @ R.T + shift, normals @ R.T)
    assert after == pytest.approx(before, abs=turned.resolution)


def test_what_is_thinner_than_the_grid_is_zero_and_what_is_no_number_is_none() -> None:
    values = np.full((8, 8, 8), 0.004)
    values[:, :, 4] = 0.0005  # a sheet that no node lies inside of
    sheet = SignedDistanceGrid(values, np.zeros(3), 0.001)
    points = [[0.004, 0.004, 0.004], [np.nan, 0.0, 0.0], [0.5, 0.5, 0.5]]
    normals = [[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]
    found = thickness(sheet, points, normals)
    assert found[0] == 0 and np.isnan(found[1]) and found[2] == 0


def test_an_object_that_fills_its_grid_ends_with_it() -> None:
    full = SignedDistanceGrid(np.full((11, 11, 11), -0.01), np.zeros(3), 0.001)
    found = thickness(full, [[0.005, 0.005, 0.0]], [[0.0, 0.0, 1.0]])
    assert found[0] == pytest.approx(0.010, abs=0.001)
