"""The network's operators against plain loops, on the compiled path and on torch's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from completion.points import group
from grasping.generators.graspnet_baseline import cylinder
from grasping.generators.graspnet_baseline.cylinder import cylinder_query
from grasping.generators.graspnet_baseline.directions import approach_views, rotations
from grasping.generators.graspnet_baseline.network import spread_points

ENDS = (0.01, 0.02, 0.04)


def random_axes(count: int, rng: np.random.Generator) -> Tensor:
    turned, _ = np.linalg.qr(rng.normal(size=(count, 3, 3)))
    return torch.tensor(turned[None], dtype=torch.float32)


def naive_cylinder(
    points: Tensor, centres: Tensor, axes: Tensor, radius: float, behind: float, ends: tuple[float, ...], k: int
) -> Tensor:
    """One cloud, point by point, in the float32 sums that the operator promises."""
    out = torch.zeros((1, centres.shape[1], len(ends), k), dtype=torch.int64)
    square, low = np.float32(radius * radius), np.float32(behind)
    for s in range(centres.shape[1]):
        R = axes[0, s].numpy()
        for d, end in enumerate(ends):
            found = []
            for j, point in enumerate(points[0].numpy()):
                x, y, z = point - centres[0, s].numpy()
                along, across, up = (x * R[0, i] + y * R[1, i] + z * R[2, i] for i in range(3))
                if low < along < np.float32(end) and across * across + up * up < square:
                    found.append(j)
            found = found[:k]
            if found:
                out[0, s, d] = torch.tensor(found + [found[0]] * (k - len(found)))
    return out


@pytest.fixture(params=["compiled", "torch"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "torch":
        monkeypatch.setattr(cylinder, "_kernels", lambda: None)
        monkeypatch.setattr(cylinder, "_BLOCK_PAIRS", 300)  # several blocks
    else:
        assert cylinder._kernels() is not None
    return str(request.param)


@pytest.mark.parametrize("k", [1, 4, 200])
def test_cylinders_hold_what_a_loop_finds(path: str, k: int) -> None:
    rng = np.random.default_rng(k)
    points = torch.tensor(rng.uniform(-0.06, 0.06, (1, 150, 3)), dtype=torch.float32)
    points[0, 70:90] = points[0, 10:30]  # doubles
    centres = torch.cat([points[:, :9], torch.full((1, 1, 3), 5.0)], dim=1)  # the last holds nothing
    axes = random_axes(10, rng)
    found = cylinder_query(points, centres, axes, 0.05, -0.02, ENDS, k)
    assert torch.equal(found, naive_cylinder(points, centres, axes, 0.05, -0.02, ENDS, k))
    assert (found[0, 9] == 0).all()


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_both_paths_find_the_same_and_clouds_do_not_mix(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = torch.tensor(rng.uniform(-0.05, 0.05, (2, 60, 3)).round(2), dtype=torch.float32)  # many on the border
    centres = points[:, :7].contiguous()
    axes = torch.cat([random_axes(7, rng), torch.eye(3).expand(1, 7, 3, 3)])
    compiled = cylinder_query(points, centres, axes, 0.03, -0.02, ENDS, 6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cylinder, "_kernels", lambda: None)
        assert torch.equal(cylinder_query(points, centres, axes, 0.03, -0.02, ENDS, 6), compiled)
    for b in range(2):
        alone = cylinder_query(points[b : b + 1], centres[b : b + 1], axes[b : b + 1], 0.03, -0.02, ENDS, 6)
        assert torch.equal(alone[0], compiled[b])


def test_gradients_of_a_crop_are_those_of_its_points() -> None:
    rng = np.random.default_rng(0)
    points = torch.tensor(rng.uniform(-0.03, 0.03, (1, 20, 3)), dtype=torch.float64, requires_grad=True)
    index = cylinder_query(points.detach(), points.detach()[:, :4], random_axes(4, rng).double(), 0.02, -0.02, ENDS, 5)
    assert torch.autograd.gradcheck(lambda p: group(p, index.flatten(1, 2)).sin(), (points,))
    group(points, index.flatten(1, 2)).sum().backward()
    counts = torch.bincount(index.flatten(), minlength=20).double()
    assert points.grad is not None and torch.equal(points.grad, counts[None, :, None].expand(1, 20, 3))


def test_wrong_shapes_are_named() -> None:
    points, axes = torch.zeros(1, 5, 3), torch.eye(3).expand(1, 2, 3, 3)
    for bad in (
        (points[:, :0], torch.zeros(1, 2, 3), axes, 0.1, 0.0, ENDS, 1),
        (points, torch.zeros(1, 3, 3), axes, 0.1, 0.0, ENDS, 1),
        (points, torch.zeros(1, 2, 3), axes, 0.1, 0.0, ENDS, 0),
        (points, torch.zeros(1, 2, 3), axes, 0.1, 0.0, (0.2, 0.1), 1),
    ):
        with pytest.raises(ValueError):
            cylinder_query(*bad)


def test_the_start_is_taken_and_points_at_the_camera_are_passed_over() -> None:
    cloud = torch.tensor([[[0.0, 0, 0], [0, 0, 1], [0.01, 0, 0], [1, 0, 1], [0, 0.02, 0.02], [5, 0, 1]]])
    assert spread_points(cloud, 4).tolist() == [[0, 5, 3, 1]]
    both = torch.cat([cloud, cloud + torch.tensor([0.0, 0, 2.0])])
    rows = spread_points(both, 4)
    assert rows[0].tolist() == [0, 5, 3, 1] and 2 not in rows[0]
    assert torch.equal(rows[1:], spread_points(both[1:], 4))


def test_views_are_spread_evenly() -> None:
    views = approach_views(300).double()
    assert views.shape == (300, 3)
    torch.testing.assert_close(views.norm(dim=1), torch.ones(300, dtype=torch.float64), atol=1e-6, rtol=0)
    assert views[:, 2].diff().gt(0).all() and abs(float(views.mean(dim=0).norm())) < 0.01
    golden = (math.sqrt(5) - 1) / 2  # by hand, the third
    expected = [math.cos(4 * math.pi * golden), math.sin(4 * math.pi * golden)]
    z = 5 / 300 - 1
    expected = [value * math.sqrt(1 - z * z) for value in expected]
    torch.testing.assert_close(views[2], torch.tensor([*expected, z], dtype=torch.float64), atol=1e-6, rtol=0)
    nearest = (views @ views.T).fill_diagonal_(-1).max(dim=1).values.arccos().rad2deg()
    assert nearest.min() > 9 and nearest.max() < 15


@given(st.tuples(*[st.integers(-1000, 1000)] * 3).filter(any), st.floats(0, math.pi))
@settings(max_examples=100, deadline=None)
def test_rotations_are_rotations_with_the_approach_first(approach: tuple[int, ...], angle: float) -> None:
    a = torch.tensor(approach, dtype=torch.float64)
    R = rotations(a, torch.tensor(angle, dtype=torch.float64))
    torch.testing.assert_close(R.T @ R, torch.eye(3, dtype=torch.float64))
    assert torch.linalg.det(R) > 0
    torch.testing.assert_close(R[:, 0], a / a.norm())
    level = rotations(a, torch.tensor(0.0, dtype=torch.float64))
    assert level[2, 1] == 0  # the closing axis lies in the image's plane
    turned = level @ torch.tensor(  # about the approach axis
        [[1, 0, 0], [0, math.cos(angle), -math.sin(angle)], [0, math.sin(angle), math.cos(angle)]], dtype=torch.float64
    )
    torch.testing.assert_close(R, turned)


def test_an_approach_along_the_view_closes_along_y() -> None:
    for z in (1.0, -2.0):
        R = rotations(torch.tensor([0.0, 0.0, z]), torch.tensor(0.0))
        assert R[:, 1].tolist() == [0, 1, 0]
