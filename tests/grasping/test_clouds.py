"""Voxel sampling and back-projection."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grasping.clouds import backproject, voxel_downsample


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(0, 300), size=st.floats(0.01, 1.0))
def test_voxels_against_a_dictionary(seed: int, n: int, size: float) -> None:
    points = np.random.default_rng(seed).normal(size=(n, 3))
    voxels: dict[tuple[int, ...], list[np.ndarray]] = {}
    for p in points:
        voxels.setdefault(tuple(np.floor(p / size).astype(int)), []).append(p)
    means = [np.mean(voxels[key], axis=0) for key in sorted(voxels)]
    result = voxel_downsample(points, size)
    assert result.dtype == np.float32
    assert result == pytest.approx(np.array(means).reshape(-1, 3), abs=1e-6)


def test_order_of_points_does_not_matter() -> None:
    points = np.random.default_rng(1).random((500, 3))
    a, b = voxel_downsample(points, 0.2), voxel_downsample(points[::-1], 0.2)
    assert a == pytest.approx(b, abs=1e-6)


@pytest.mark.parametrize("spread", [0.01, 0.1, 1.0, 1e4, 1e30])
def test_marking_cells_gives_the_bits_of_sorting(spread: float) -> None:
    points = np.random.default_rng(2).normal(scale=spread, size=(5000, 3)).astype(np.float32)
    with np.errstate(invalid="ignore"):  # the largest have no cell that can be counted
        np.testing.assert_array_equal(voxel_downsample(points, 0.01), sorted_into_voxels(points, 0.01))


def sorted_into_voxels(points: np.ndarray, size: float) -> np.ndarray:
    p = points.astype(np.float64)
    cells = np.floor(p / size).astype(np.int64)
    cells -= cells.min(axis=0)
    extent = cells.max(axis=0) + 1
    key = (cells[:, 0] * extent[1] + cells[:, 1]) * extent[2] + cells[:, 2]
    _, voxel, counts = np.unique(key, return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(voxel, weights=axis) for axis in p.T], axis=1)
    return (sums / counts[:, None]).astype(np.float32)


@pytest.mark.parametrize("size", [0.0, -1.0])
def test_voxel_size_must_be_positive(size: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        voxel_downsample(np.zeros((1, 3)), size)


def test_backprojected_points_project_to_their_pixels() -> None:
    rng = np.random.default_rng(0)
    K = np.array([[600.0, 0, 31.5], [0, 610.0, 23.5], [0, 0, 1]])
    depth = rng.uniform(0.4, 1.0, (48, 64))
    depth[3, 5], depth[4, 6], depth[5, 7] = 0, np.nan, -1
    points = backproject(depth, K)
    assert points.shape == (48, 64, 3) and points.dtype == np.float32
    missing = ~np.isfinite(points).all(axis=2)
    assert set(zip(*np.nonzero(missing), strict=True)) == {(3, 5), (4, 6), (5, 7)}
    pixels = points[~missing].astype(float) @ K.T
    v, u = np.nonzero(~missing)
    assert pixels[:, :2] / pixels[:, 2:] == pytest.approx(np.stack([u, v], axis=1), abs=1e-3)
    assert points[..., 2][~missing] == pytest.approx(depth[~missing], abs=1e-6)
