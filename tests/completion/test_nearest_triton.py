"""The CUDA search: interpreted on the CPU beside the compiled twin, translated for a GPU, run where there is one."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from completion.nearest import nearest_indices_torch, nearest_neighbours

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")

_INTERPRETED = """
import warnings
import numpy as np, torch
from completion._nearest_triton import nearest_both_ways
from completion.nearest import nearest_indices
warnings.simplefilter("ignore")  # the interpreter's numpy tells of every inf - inf
checked = 0
for dtype in (torch.float32, torch.float64):
    for batch, n, m in ((1, 1, 1), (2, 1, 70), (2, 65, 63), (1, 200, 130), (3, 64, 128)):
        for kind in ("any", "ties", "broken"):
            rng = np.random.default_rng(n)
            a, b = (torch.from_numpy(rng.integers(-40, 40, (batch, k, 3))).to(dtype) / 16 for k in (n, m))
            if kind == "any":
                a = a + torch.from_numpy(rng.random((batch, n, 3))).to(dtype)
            if kind == "broken":
                a[0, -1, 1], b[0, 0, 0], b[-1] = float("nan"), float("inf"), -float("inf")
            for found, twin in zip(nearest_both_ways(a, b), nearest_indices(a, b), strict=True):
                assert found.dtype == twin.dtype and torch.equal(found, twin), (dtype, batch, n, m, kind)
                checked += 1
print(checked)
"""

_TRANSLATED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from completion._nearest_triton import _kernel
kinds = {"a_axes": "*fp32", "b_axes": "*fp32", "a_index": "*i64", "b_index": "*i64", "n": "i32", "m": "i32"}
kinds |= {"a_programs": "i32", "b_programs": "i32", "QUERIES": "constexpr", "TARGETS": "constexpr"}
source = ASTSource(_kernel, signature=kinds, constexprs={"QUERIES": 64, "TARGETS": 64})
print(triton.compile(source, target=GPUTarget("cuda", 80, 32)).asm["ptx"].count("fma"))
"""


def _run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_interpreted_indices_equal_the_compiled_twins() -> None:
    assert _run(_INTERPRETED, TRITON_INTERPRET="1") == "60"


@pytest.mark.slow
def test_the_kernel_translates_for_a_gpu_that_is_not_here(tmp_path) -> None:
    assert int(_run(_TRANSLATED, TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path))) > 0


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 700, 901), (3, 64, 5000)])
def test_on_a_gpu(dtype: torch.dtype, sizes: tuple[int, int, int]) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    from completion._nearest_triton import nearest_both_ways

    batch, n, m = sizes
    generator = torch.Generator().manual_seed(n)
    a, b = (torch.randint(-40, 40, (batch, k, 3), generator=generator).to(dtype) / 16 for k in (n, m))
    for found, twin in zip(nearest_both_ways(a.cuda(), b.cuda()), nearest_indices_torch(a, b), strict=True):
        assert torch.equal(found.cpu(), twin)
    a = (a + torch.rand(a.shape, generator=generator, dtype=dtype)).requires_grad_()
    near = nearest_neighbours(a.cuda(), b.cuda())
    here = nearest_neighbours(a, b)
    torch.testing.assert_close(near.dist_a.cpu(), here.dist_a)
    torch.testing.assert_close(near.dist_b.cpu(), here.dist_b)
    there_gradient, gradient = (torch.autograd.grad(one.dist_a.sum() + one.dist_b.sum(), a)[0] for one in (near, here))
    torch.testing.assert_close(there_gradient, gradient)
