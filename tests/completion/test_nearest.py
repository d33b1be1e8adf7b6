"""The search against plain loops, its gradient against finite differences and a torch.cdist twin."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from completion import nearest
from completion.nearest import nearest_indices, nearest_indices_torch, nearest_neighbours

HAS_NUMBA = importlib.util.find_spec("numba") is not None


def clouds(batch: int, n: int, m: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.rand(batch, n, 3, generator=generator, dtype=torch.float64).to(dtype),
        torch.rand(batch, m, 3, generator=generator, dtype=torch.float64).to(dtype),
    )


def naive_indices(a: np.ndarray, b: np.ndarray) -> list[list[int]]:
    return [
        [int(np.argmin([((p - q) ** 2).sum() for q in cloud_b])) for p in cloud_a]
        for cloud_a, cloud_b in zip(a, b, strict=True)
    ]


@pytest.mark.parametrize(
    "search", [nearest_indices, nearest_indices_torch, lambda a, b: nearest_indices_torch(a, b, 64)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 1, 9), (3, 9, 1), (2, 17, 40), (1, 300, 530)])
def test_indices_equal_the_double_loop(search, dtype, sizes) -> None:
    a, b = clouds(*sizes, dtype=dtype)
    index_a, index_b = search(a, b)
    assert index_a.tolist() == naive_indices(a.numpy(), b.numpy())
    assert index_b.tolist() == naive_indices(b.numpy(), a.numpy())


@pytest.mark.skipif(not HAS_NUMBA, reason="the compiled path needs numba")
def test_the_compiled_path_is_the_one_in_use() -> None:
    assert nearest._compiled_kernels() is not None


@pytest.mark.skipif(not HAS_NUMBA, reason="the compiled path needs numba")
def test_the_second_process_compiles_nothing() -> None:
    """What this process compiled, or found, the next one finds; and torch keeps its number of threads."""
    code = (
        "import torch\n"
        "torch.set_num_threads(1)\n"
        "from completion import _distances_numba, _nearest_numba\n"
        "from completion.nearest import nearest_neighbours\n"
        "a = torch.linspace(0, 1, 300).reshape(1, 100, 3).requires_grad_()\n"
        "near = nearest_neighbours(a, a.detach().flip(1))\n"
        "near.dist_a.sum().backward()\n"
        "for kernel in (_nearest_numba._pack_all, _nearest_numba._search_all, _distances_numba.distances,\n"
        "               _distances_numba.gradient):\n"
        "    print(len(kernel.stats.cache_hits), len(kernel.stats.cache_misses))\n"
        "print(torch.get_num_threads(), *near.index_a[0].tolist())\n"
    )
    a, b = clouds(1, 9, 9, dtype=torch.float32)
    nearest_neighbours(a.requires_grad_(), b).dist_a.sum().backward()
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    *kernels, last = done.stdout.splitlines()
    assert kernels == ["1 0"] * 4
    assert last.split() == ["1", *(str(i) for i in range(99, -1, -1))]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31), n=st.integers(1, 600), m=st.integers(1, 600), scale=st.sampled_from([1e-6, 1.0, 1e4])
)
def test_compiled_distances_equal_cdist(seed: int, n: int, m: int, scale: float) -> None:
    a, b = clouds(2, n, m, seed)
    a, b = a * scale, b * scale
    near = nearest_neighbours(a, b)
    table = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    torch.testing.assert_close(near.dist_a, table.min(2).values, rtol=1e-12, atol=0)
    torch.testing.assert_close(near.dist_b, table.min(1).values, rtol=1e-12, atol=0)


def test_gradient_equals_cdist_and_finite_differences() -> None:
    a, b = clouds(2, 12, 7)
    a.requires_grad_(), b.requires_grad_()
    near = nearest_neighbours(a, b)
    ours = torch.autograd.grad((near.dist_a**1.5).sum() + 2 * near.dist_b.sum(), (a, b))
    table = torch.cdist(a, b)
    twin = torch.autograd.grad((table.min(2).values ** 1.5).sum() + 2 * table.min(1).values.sum(), (a, b))
    torch.testing.assert_close(ours, twin)
    assert torch.autograd.gradcheck(lambda p, q: nearest_neighbours(p, q)[::2], (a, b))


def test_coincident_points_have_zero_distance_and_finite_gradient() -> None:
    a, _ = clouds(2, 20, 1, dtype=torch.float32)
    a.requires_grad_()
    near = nearest_neighbours(a, a.detach().clone())
    assert not near.dist_a.any() and not near.dist_b.any()
    near.dist_a.sum().backward()
    assert torch.equal(a.grad, torch.zeros_like(a))


def test_order_of_points_does_not_matter() -> None:
    a, b = clouds(1, 50, 80)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(1))
    near, shuffled = nearest_neighbours(a, b), nearest_neighbours(a, b[:, order])
    assert torch.equal(near.dist_a, shuffled.dist_a)
    assert torch.equal(near.dist_b[:, order], shuffled.dist_b)
    assert torch.equal(near.index_a, order[shuffled.index_a])


@pytest.mark.parametrize(
    "shapes", [((1, 0, 3), (1, 4, 3)), ((1, 4, 2), (1, 4, 2)), ((4, 3), (4, 3)), ((1, 4, 3), (2, 4, 3))]
)
def test_wrong_shapes_are_named(shapes) -> None:
    with pytest.raises(ValueError, match=r"got \("):
        nearest_neighbours(torch.zeros(shapes[0]), torch.zeros(shapes[1]))


@pytest.mark.gpu
def test_cuda_equals_cpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    a, b = clouds(2, 700, 900, dtype=torch.float32)
    here, there = nearest_neighbours(a, b), nearest_neighbours(a.cuda(), b.cuda())
    torch.testing.assert_close(here.dist_a, there.dist_a.cpu())
    torch.testing.assert_close(here.dist_b, there.dist_b.cpu())
