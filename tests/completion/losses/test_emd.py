"""The auction against scipy's exact assignment, its compiled form against its torch form, and its refusals."""

from __future__ import annotations

import functools
import importlib.util
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from completion.losses import auction as module
from completion.losses import emd
from completion.losses.auction import auction, rounds_torch, scaled_torch

HAS_NUMBA = importlib.util.find_spec("numba") is not None


def least_mean(a: Tensor, b: Tensor) -> list[float]:
    """The optimum, by another algorithm: shortest augmenting paths."""
    values = []
    for x, y in zip(a.detach().double(), b.detach().double(), strict=True):
        table = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").numpy()
        values.append(float(table[linear_sum_assignment(table)].mean()))
    return values


def in_torch(a: Tensor, b: Tensor, eps: float, rounds: int | None) -> Tensor:
    bidding = torch.full(a.shape[:2], -1)
    if rounds is None:
        return scaled_torch(a, b, a.new_zeros(a.shape[:2]), bidding, eps, a.new_full((len(a),), 0.1))
    return rounds_torch(a, b, a.new_zeros(a.shape[:2]), bidding, eps, rounds)


def shapes(kind: str, n: int, seed: int, batch: int = 2) -> tuple[Tensor, Tensor]:
    """Clouds that are easy, or hard, for an auction."""
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.rand(batch, n, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    if kind == "same":
        a = b[:, torch.randperm(n, generator=generator)]
    elif kind == "collapsed":
        a = 0.01 * a
    elif kind == "a point":
        a = torch.zeros_like(a)
    elif kind == "far":
        a = a + 5
    elif kind == "duplicates":
        a, b = a[:, torch.arange(n) // 3], b[:, torch.arange(n) // 4]
    return a, b


KINDS = ("random", "same", "collapsed", "a point", "far", "duplicates")


@settings(max_examples=20, deadline=None)
@given(kind=st.sampled_from(KINDS), n=st.integers(1, 90), seed=st.integers(0, 2**31), eps=st.sampled_from([0.02, 1e-4]))
def test_run_to_the_end_it_is_within_eps_of_the_optimum(kind: str, n: int, seed: int, eps: float) -> None:
    a, b = shapes(kind, n, seed)
    best = torch.tensor(least_mean(a, b), dtype=torch.float64)
    for rounds in (None, 10**7):  # both forms are auctions: scaled, and simultaneous bids until all are matched
        index = auction(a, b, eps, rounds)
        assert torch.equal(index.sort(dim=1).values, torch.arange(n).expand(2, n))
        mean = emd(a, b, eps=eps, rounds=rounds)
        assert ((best - 1e-9 <= mean) & (mean <= best + eps + 1e-9)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_at_a_fine_eps_it_is_the_optimum(kind: str) -> None:
    a, b = shapes(kind, 200, 0)
    assert emd(a, b, eps=1e-7, rounds=None).tolist() == pytest.approx(least_mean(a, b), abs=1.01e-7)


@settings(max_examples=10, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    n=st.integers(1, 40),
    seed=st.integers(0, 2**31),
    rounds=st.integers(1, 60),
    block=st.sampled_from([1, 100, 1 << 23]),
)
@pytest.mark.skipif(not HAS_NUMBA, reason="compares with the compiled path")
def test_compiled_and_torch_forms_bid_alike(kind: str, n: int, seed: int, rounds: int, block: int) -> None:
    a, b = shapes(kind, n, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK_PAIRS", block)
        slow = in_torch(a, b, 0.01, rounds)
    # At duplicates rounding decides; elsewhere there is nothing to choose.
    if kind in ("random", "same"):
        assert torch.equal(auction(a, b, 0.01, rounds), slow)
    distances = [
        (a - torch.stack([y[i] for y, i in zip(b, index, strict=True)])).norm(dim=-1)
        for index in (auction(a, b, 0.01, rounds), slow)
    ]
    assert all(d.isfinite().all() for d in distances)


@pytest.mark.parametrize("kind", KINDS)
def test_without_numba_it_ends_too(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_compiled_kernels", lambda: None)
    a, b = shapes(kind, 12, 1)
    best = torch.tensor(least_mean(a, b), dtype=torch.float64)
    mean = emd(a.float(), b.float(), eps=0.01, rounds=None)
    assert mean.dtype == torch.float32
    assert ((best - 1e-6 <= mean) & (mean <= best + 0.01 + 1e-6)).all()


@pytest.mark.skipif(not HAS_NUMBA, reason="looks at the compiled path")
def test_the_compiled_path_is_the_one_in_use() -> None:
    assert module._compiled_kernels() is not None


def test_few_rounds_leave_shared_partners() -> None:
    """Three points over one target and two far ones: after one round all three hold the near one, as MSN has it."""
    prediction = torch.tensor([[[0.0, 0, 0], [0.1, 0, 0], [0.2, 0, 0]]], dtype=torch.float64)
    target = torch.tensor([[[0.1, 0, 0], [9, 0, 0], [9, 1, 0]]], dtype=torch.float64)
    assert auction(prediction, target, 0.005, 1).tolist() == [[0, 0, 0]]
    assert emd(prediction, target, rounds=1).item() == pytest.approx(0.2 / 3)
    assert sorted(auction(prediction, target, 0.005, 5000)[0].tolist()) == [0, 1, 2]


def test_gradient_reaches_both_clouds_through_the_pairs_alone(clouds) -> None:
    a, b = clouds(30, 30)
    index = auction(a, b, 1e-6, None)
    assert not index.requires_grad
    ours = torch.autograd.grad(emd(a, b, eps=1e-6, rounds=None).sum(), (a, b))
    paired = torch.stack([y[i] for y, i in zip(b, index, strict=True)])
    for got, want in zip(ours, torch.autograd.grad((a - paired).norm(dim=-1).mean(1).sum(), (a, b)), strict=True):
        torch.testing.assert_close(got, want)


def test_a_sample_does_not_depend_on_its_batch(clouds) -> None:
    a, b = clouds(50, 50, batch=4)
    for parameters in ({}, {"rounds": None}):
        together = emd(a, b, **parameters)
        alone = torch.cat([emd(a[k : k + 1], b[k : k + 1], **parameters) for k in range(4)])
        assert torch.equal(together, alone)


def test_points_that_are_not_finite_show_in_the_value_and_spoil_no_other_sample(clouds) -> None:
    a, b = (cloud.detach() for cloud in clouds(30, 30))
    before = emd(a, b)
    a[0, 3, 1] = math.nan
    for rounds in (50, None):
        assert emd(a, b, rounds=rounds)[0].isnan()
    assert emd(a, b)[1] == before[1]


def test_sizes_are_named() -> None:
    with pytest.raises(ValueError, match=r"as many predicted as target points, got \(2, 5, 3\) and \(2, 6, 3\)"):
        emd(torch.rand(2, 5, 3), torch.rand(2, 6, 3))
    masks = torch.ones(2, 5, dtype=torch.bool), torch.ones(2, 5, dtype=torch.bool)
    masks[1][1, 0] = False
    call = functools.partial(emd, torch.rand(2, 5, 3), torch.rand(2, 5, 3))
    with pytest.raises(ValueError, match=r"with \[5, 5\] and \[5, 4\] points that are not padding"):
        call(prediction_mask=masks[0], target_mask=masks[1])
    with pytest.raises(ValueError, match="without points"):
        emd(torch.rand(2, 0, 3), torch.rand(2, 0, 3))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"eps": 0.0}, "eps must be a positive length"),
        ({"eps": math.nan}, "eps must be a positive length"),
        ({"rounds": 0}, "rounds must be at least 1"),
        ({"eps": 1e-12, "rounds": None}, "below what float64 can tell"),
    ],
)
def test_parameters_that_cannot_work_are_refused(parameters: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        emd(torch.rand(1, 5, 3), torch.rand(1, 5, 3), **parameters)


@pytest.mark.parametrize("kind", ["random", "collapsed"])
def test_at_a_training_size(kind: str) -> None:
    a, b = shapes(kind, 700, 0, batch=1)
    assert emd(a, b, eps=1e-5, rounds=None).item() == pytest.approx(least_mean(a, b)[0], abs=1e-5)


@pytest.mark.gpu
def test_cuda_equals_cpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    a, b = shapes("random", 512, 0)
    for rounds in (50, None):
        there = auction(a.cuda(), b.cuda(), 0.005, rounds)
        assert there.is_cuda and np.array_equal(there.cpu(), auction(a, b, 0.005, rounds))
