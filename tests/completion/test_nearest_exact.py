"""The search's indices equal a naive twin's to the last one: ties, duplicates, degenerate and unreachable points."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from completion.nearest import _distances_torch, distances, nearest_indices, nearest_indices_torch, nearest_neighbours

HAS_NUMBA = importlib.util.find_spec("numba") is not None
SEARCHES = pytest.mark.parametrize("search", [nearest_indices, nearest_indices_torch])


def naive(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """``(B, N)`` into b by numpy's argmin (the first of equals) over whole tables of float64, finite points only."""
    rows = []
    for cloud_a, cloud_b in zip(a.double().numpy(), b.double().numpy(), strict=True):
        with np.errstate(invalid="ignore"):
            table = ((cloud_a[:, None] - cloud_b[None]) ** 2).sum(-1)
        table[~np.isfinite(cloud_a).all(1)] = np.inf
        table[:, ~np.isfinite(cloud_b).all(1)] = np.inf
        rows.append(table.argmin(1))
    return torch.from_numpy(np.stack(rows))


def made(kind: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """``(count, 3)`` on a grid of sixteenths, where float32 knows every distance exactly and ties are many."""
    points = rng.integers(-32, 33, (count, 3)).astype(np.float64)
    if kind == "plane":
        points[:, 2] = 7
    elif kind == "line":
        points[:, 1:] = 0
    elif kind == "point":
        points[:] = points[0]
    elif kind == "blob":
        points = np.round(points / 16)
    elif kind == "far":
        points += 500
    elif kind == "two":
        points[::2] -= 400
    elif kind == "outlier":
        points[0] = 2**14
    elif kind == "broken":
        points[rng.random(count) < 0.2, rng.integers(0, 3)] = rng.choice([np.nan, np.inf, -np.inf, -np.nan])
    elif kind == "lost":
        points[:] = rng.choice([np.nan, np.inf, -np.inf])
    return points / 16


KINDS = ["cube", "plane", "line", "point", "blob", "far", "two", "outlier", "broken", "lost"]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 400),
    m=st.integers(1, 400),
    kinds=st.tuples(st.sampled_from(KINDS), st.sampled_from(KINDS)),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_indices_equal_the_naive_twins(seed: int, n: int, m: int, kinds: tuple[str, str], dtype: torch.dtype) -> None:
    rng = np.random.default_rng(seed)
    a = torch.from_numpy(np.stack([made(kinds[0], n, rng), made("cube", n, rng)])).to(dtype)
    b = torch.from_numpy(np.stack([made(kinds[1], m, rng), made("blob", m, rng)])).to(dtype)
    expected = naive(a, b), naive(b, a)
    for search in (nearest_indices, nearest_indices_torch):
        found = search(a, b)
        assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1]), search


@pytest.mark.parametrize("scale", [1e-18, 1.0, 1e17])
def test_large_clouds_of_several_levels(scale: float) -> None:
    """Seventy thousand points fill more than sixteen groups of groups; the twin is the torch path."""
    generator = torch.Generator().manual_seed(1)
    b = torch.rand(1, 70_000, 3, generator=generator)
    b[0, :, 2] = 0.1 * torch.sin(9 * b[0, :, 0])
    a = torch.rand(1, 300, 3, generator=generator) * 2
    a, b = (1024 * a).round() / 1024 * scale, (1024 * b).round() / 1024 * scale
    for found, twin in zip(nearest_indices(a, b), nearest_indices_torch(a, b), strict=True):
        assert torch.equal(found, twin)


def test_distances_too_large_for_the_type_point_at_the_first() -> None:
    a, b = torch.full((1, 40, 3), 3e38), torch.full((1, 50, 3), -3e38)
    assert all(not index.any() for index in (*nearest_indices(a, b), *nearest_indices_torch(a, b)))
    b[0, 30] = 3e38
    for index_a, index_b in (nearest_indices(a, b), nearest_indices_torch(a, b)):
        assert bool((index_a == 30).all()) and not index_b.any()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 400), m=st.integers(1, 400), spread=st.floats(1e-4, 10))
def test_nothing_is_nearer_than_the_neighbour(seed: int, n: int, m: int, spread: float) -> None:
    """Coordinates of any kind: the pair chosen is the nearest up to the rounding of its own distance."""
    rng = np.random.default_rng(seed)
    a = torch.from_numpy(rng.normal(0, spread, (1, n, 3))).float()
    b = torch.from_numpy(rng.normal(0, 1, (1, m, 3))).float()
    table = torch.cdist(a.double(), b.double(), compute_mode="donot_use_mm_for_euclid_dist")
    index_a, index_b = nearest_indices(a, b)
    for chosen, least in (
        (table.gather(2, index_a[..., None])[..., 0], table.min(2).values),
        (table.gather(1, index_b[:, None])[:, 0], table.min(1).values),
    ):
        assert bool((chosen <= least * (1 + 1e-6)).all())


@SEARCHES
def test_points_that_are_not_finite_are_nobodys_neighbours(search) -> None:
    a, b = torch.rand(2, 2, 40, 3, generator=torch.Generator().manual_seed(0))
    a[0, 3, 1], a[0, 4, 2], b[0, 0] = float("nan"), float("inf"), -float("nan")
    index_a, index_b = search(a, b)
    assert index_a[0, 3] == index_a[0, 4] == index_b[0, 0] == 0
    assert not bool(torch.isin(index_b[0], torch.tensor([3, 4])).any())
    assert not bool((torch.cat([index_a[0, :3], index_a[0, 5:]]) == 0).any())
    near = nearest_neighbours(a, b)
    assert near.dist_a[0, 3].isnan() and not near.dist_a[0, 4].isfinite() and near.dist_b[0, 0].isnan()
    assert bool(near.dist_a[1].isfinite().all()) and bool(near.dist_b[0, 1:].isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types(dtype: torch.dtype) -> None:
    a, b = (cloud.to(dtype) for cloud in torch.rand(2, 2, 70, 3, generator=torch.Generator().manual_seed(0)))
    a.requires_grad_()
    near = nearest_neighbours(a, b)
    assert torch.equal(near.index_a, naive(a.detach(), b)) and torch.equal(near.index_b, naive(b, a.detach()))
    assert near.dist_a.dtype == near.dist_b.dtype == dtype
    near.dist_a.sum().backward()
    assert a.grad.dtype == dtype and bool(a.grad.isfinite().all())


def test_views_and_expanded_clouds() -> None:
    generator = torch.Generator().manual_seed(0)
    wide = torch.rand(2, 3, 90, generator=generator)
    a, b = wide.transpose(1, 2)[:, ::2], torch.rand(1, 30, 3, generator=generator).expand(2, -1, -1)
    a.requires_grad_()
    near = nearest_neighbours(a, b)
    assert torch.equal(near.index_a, naive(a.detach(), b))
    (gradient,) = torch.autograd.grad(near.dist_b.sum() + near.dist_a.sum(), a)
    twin = torch.cdist(a, b)
    (expected,) = torch.autograd.grad(twin.min(2).values.sum() + twin.min(1).values.sum(), a)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("padding", [0.0, float("nan"), float("inf")])
def test_padding_is_as_if_it_were_not_there(padding: float) -> None:
    generator = torch.Generator().manual_seed(3)
    a, b = torch.rand(2, 25, 3, generator=generator), torch.rand(2, 40, 3, generator=generator)
    mask_a, mask_b = torch.rand(2, 25, generator=generator) < 0.6, torch.rand(2, 40, generator=generator) < 0.6
    padded_a, padded_b = (
        torch.where(mask[..., None], cloud, padding).requires_grad_() for cloud, mask in ((a, mask_a), (b, mask_b))
    )
    near = nearest_neighbours(padded_a, padded_b, mask_a, mask_b)
    for k in range(2):
        kept = nearest_neighbours(a[k : k + 1, mask_a[k]], b[k : k + 1, mask_b[k]])
        assert torch.equal(near.dist_a[k, mask_a[k]], kept.dist_a[0])
        assert torch.equal(near.dist_b[k, mask_b[k]], kept.dist_b[0])
        assert torch.equal(near.index_a[k, mask_a[k]], mask_b[k].nonzero()[:, 0][kept.index_a[0]])
    assert not near.dist_a[~mask_a].any() and not near.index_b[~mask_b].any()
    (near.dist_a.sum() + near.dist_b.sum()).backward()
    assert bool(padded_a.grad.isfinite().all()) and not padded_a.grad[~mask_a].any()
    assert bool(padded_b.grad.isfinite().all()) and not padded_b.grad[~mask_b].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("wanted", [(True, True), (True, False), (False, True)])
def test_compiled_distances_equal_their_torch_twin(dtype: torch.dtype, wanted: tuple[bool, bool]) -> None:
    generator = torch.Generator().manual_seed(7)
    a, b = (torch.rand(2, k, 3, generator=generator, dtype=dtype) for k in (300, 170))
    a[:, :9] = b[:, :9]  # coincident: distance and gradient 0
    clouds = [cloud.requires_grad_() for cloud, want in zip((a, b), wanted, strict=True) if want]
    index = nearest_indices(a.detach(), b.detach())
    weights = [torch.rand(2, k, generator=generator, dtype=dtype) for k in (300, 170)]
    found = [distances(a, b, *index), _distances_torch(a, b, *index)]
    torch.testing.assert_close(*found, rtol=4 * torch.finfo(dtype).eps, atol=0)
    gradients = [
        torch.autograd.grad(sum((w * d).sum() for w, d in zip(weights, d, strict=True)), clouds) for d in found
    ]
    torch.testing.assert_close(*gradients, rtol=1e-5 if dtype == torch.float32 else 1e-13, atol=1e-6)


def test_gradient_can_be_differentiated_again() -> None:
    generator = torch.Generator().manual_seed(5)
    a, b = (torch.rand(2, k, 3, generator=generator, dtype=torch.float64).requires_grad_() for k in (5, 4))
    assert torch.autograd.gradgradcheck(lambda p, q: nearest_neighbours(p, q)[::2], (a, b))
    assert torch.autograd.gradgradcheck(lambda p: nearest_neighbours(p, b.detach())[::2], (a,))


def test_several_threads_at_once() -> None:
    def work(seed: int) -> list[torch.Tensor]:
        a, b = torch.rand(2, 3, 200, 3, generator=torch.Generator().manual_seed(seed))
        a.requires_grad_()
        near = nearest_neighbours(a, b)
        (near.dist_a.sum() + near.dist_b.sum()).backward()
        return [near.index_a, near.index_b, near.dist_a.detach(), a.grad]

    alone = [work(seed) for seed in range(16)]
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(alone, pool.map(work, range(16)), strict=True):
            assert all(torch.equal(x, y) for x, y in zip(one, other, strict=True))


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_changes_nothing(threads: int) -> None:
    a, b = torch.rand(2, 2, 900, 3, generator=torch.Generator().manual_seed(0))
    expected, before = nearest_neighbours(a, b), torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        assert all(torch.equal(x, y) for x, y in zip(nearest_neighbours(a, b), expected, strict=True))
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not HAS_NUMBA, reason="the torch path would take minutes")
def test_memory_is_linear_in_points() -> None:
    """200,000 points against as many, forward and backward: the matrix would be 160 GB, five arrays are 12 MB."""
    code = (
        "import resource, torch\n"
        "from completion.nearest import nearest_neighbours\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "def run(count):\n"
        "    a, b = torch.rand(2, 1, count, 3, generator=torch.Generator().manual_seed(0))\n"
        "    near = nearest_neighbours(a.requires_grad_(), b)\n"
        "    (near.dist_a.mean() + near.dist_b.mean()).backward()\n"
        "run(100)\n"
        "before = peak()\n"
        "run(200_000)\n"
        "print(peak() - before)\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 120  # MiB
