"""Normals against analytic surfaces and against a plain numpy twin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grasping.normals import estimate_normals, orient_towards


def slow_normals(points: np.ndarray, neighbours: int, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """One eigen-decomposition a point, over brute-force neighbours."""
    normals, variation = np.zeros_like(points), np.zeros(len(points))
    for i, p in enumerate(points):
        distance = np.linalg.norm(points - p, axis=1)
        near = np.argsort(distance, kind="stable")[:neighbours]
        near = near[distance[near] <= radius]
        if len(near) < 3:
            continue
        values, vectors = np.linalg.eigh(np.cov(points[near].T, bias=True))
        normals[i], variation[i] = vectors[:, 0], max(values[0], 0) / values.sum()
    return normals, variation


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(5, 80))
def test_agrees_with_the_slow_twin(seed: int, count: int) -> None:
    points = np.random.default_rng(seed).normal(size=(count, 3)) * [0.02, 0.02, 0.006]
    normals, variation = estimate_normals(points, neighbours=12, radius=0.03)
    slow, slow_variation = slow_normals(points, 12, 0.03)
    np.testing.assert_allclose(variation, slow_variation, atol=1e-8)
    known = np.any(slow != 0, axis=1)
    assert np.array_equal(np.any(normals != 0, axis=1), known)
    # Where the two least axes are nearly alike, the normal is anybody's guess.
    np.testing.assert_allclose(np.linalg.norm(normals[known], axis=1), 1, atol=1e-9)
    clear = known & (slow_variation < 0.02)
    assert np.all(np.abs(np.einsum("ij,ij->i", normals, slow))[clear] > 1 - 1e-5)


def test_sphere_normals_are_radial_and_face_the_viewpoint() -> None:
    rng = np.random.default_rng(0)
    outward = rng.normal(size=(4000, 3))
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    centre, eye = np.array([0.1, -0.2, 0.9]), np.zeros(3)
    points = centre + 0.04 * outward
    normals, variation = estimate_normals(points)
    assert np.all(np.abs(np.einsum("ij,ij->i", normals, outward)) > 0.97)
    assert variation.max() < 0.05
    oriented = orient_towards(points, normals, eye)
    assert np.all(np.einsum("ij,ij->i", oriented, eye - points) >= 0)
    seen = np.einsum("ij,ij->i", outward, eye - points) > 0.2
    assert np.all(np.einsum("ij,ij->i", oriented, outward)[seen] > 0)


def test_variation_tells_edges_from_faces() -> None:
    grid = np.stack(np.meshgrid(np.arange(0, 0.05, 0.003), np.arange(0, 0.05, 0.003)), axis=-1).reshape(-1, 2)
    zero = np.zeros((len(grid), 1))
    points = np.unique(np.concatenate([np.hstack([grid, zero]), np.hstack([zero, grid])]), axis=0)
    _, variation = estimate_normals(points)
    ridge = np.hypot(points[:, 0], points[:, 2]) < 1e-9
    flat = (points[:, 0] > 0.016) | (points[:, 2] > 0.016)
    assert variation[ridge].min() > 10 * max(variation[flat].max(), 1e-3)


@pytest.mark.parametrize(
    "points",
    [
        np.zeros((0, 3)),
        np.zeros((1, 3)),
        np.zeros((30, 3)),
        np.linspace(0, 0.03, 30)[:, None] * [1.0, 2.0, 3.0],
    ],
    ids=["none", "one", "all alike", "on a line"],
)
def test_no_normal_where_none_is_defined(points: np.ndarray) -> None:
    normals, variation = estimate_normals(points)
    assert normals.shape == points.shape and variation.shape == (len(points),)
    assert not normals.any()


def test_rotation_rotates_the_normals() -> None:
    rng = np.random.default_rng(4)
    points = rng.normal(size=(500, 3)) * [0.03, 0.03, 0.002]
    R = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    normals, variation = estimate_normals(points)
    turned, turned_variation = estimate_normals(points @ R.T + [0.3, 0.1, 0.9])
    np.testing.assert_allclose(turned_variation, variation, atol=1e-8)
    known = np.any(normals != 0, axis=1)
    assert known.sum() > 300
    assert np.all(np.abs(np.einsum("ij,ij->i", turned, normals @ R.T))[known] > 1 - 1e-6)
