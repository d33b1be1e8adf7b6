"""APML's matching: the probability it promises, its sums, its edges, and the gradient of the part that has one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from completion.losses import apml
from completion.losses.apml import _soft_min, soft_matching


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(2, 30), m=st.integers(2, 30), p_min=st.floats(0.01, 0.99))
def test_the_least_distance_has_its_probability(seed: int, n: int, m: int, p_min: float) -> None:
    table = torch.rand(n, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    weight = _soft_min(table, None, p_min)
    torch.testing.assert_close(weight.sum(1), torch.ones(n, dtype=torch.float64))
    # 1/(2 − p) where all others are as far as the second: never below p.
    assert (weight.gather(1, table.argmin(1, keepdim=True)) >= 1 / (2 - p_min) - 1e-5).all()


def test_columns_sum_to_one_and_at_equal_sizes_rows_too(clouds) -> None:
    a, b = clouds(30, 30)
    plan = soft_matching(torch.cdist(a, b), rounds=200)
    torch.testing.assert_close(plan.sum(1), torch.ones(2, 30, dtype=torch.float64), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(plan.sum(2), torch.ones(2, 30, dtype=torch.float64), rtol=1e-3, atol=1e-3)
    wide = soft_matching(torch.cdist(a[:, :7], b))
    torch.testing.assert_close(wide.sum(1), torch.ones(2, 30, dtype=torch.float64), rtol=1e-6, atol=1e-6)


def test_equal_least_distances_make_a_row_even() -> None:
    table = torch.tensor([[1.0, 1.0, 5.0, 9.0], [1.0, 2.0, 5.0, 9.0]], dtype=torch.float64)
    weight = _soft_min(table, None, 0.8)
    assert weight[0].tolist() == [0.25] * 4
    assert weight[1, 0] > 0.8


def test_one_target_takes_all() -> None:
    prediction = torch.tensor([[[1.0, 0, 0], [0, 2, 0]]])
    assert apml(prediction, torch.zeros(1, 1, 3)).item() == pytest.approx(1.5)
    assert apml(torch.zeros(1, 1, 3), prediction).item() == pytest.approx(3.0)


def test_the_matching_carries_no_gradient(clouds) -> None:
    """With the matching held, the loss is a weighted sum of distances: the same gradient, and finite differences."""
    a, b = clouds(9, 6, seed=3)
    plan = soft_matching(torch.cdist(a, b))
    assert not plan.requires_grad
    ours = torch.autograd.grad(apml(a, b).sum(), (a, b))

    def held(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        return (plan * torch.cdist(p, q, compute_mode="donot_use_mm_for_euclid_dist")).sum(dim=(1, 2))

    assert torch.autograd.gradcheck(held, (a, b))
    torch.testing.assert_close(ours, torch.autograd.grad(held(a, b).sum(), (a, b)))


@pytest.mark.parametrize("p_min", [0.0, 1.0, -1.0, 2.0])
def test_a_probability_outside_its_range_is_refused(p_min: float) -> None:
    with pytest.raises(ValueError, match="p_min is a probability"):
        apml(torch.rand(1, 4, 3), torch.rand(1, 5, 3), p_min=p_min)


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"got \(1, 4, 2\)"):
        apml(torch.rand(1, 4, 2), torch.rand(1, 5, 3))


@pytest.mark.parametrize("sizes", [(4, 900), (900, 4)])
def test_very_unequal_sizes_stay_within_float32(sizes: tuple[int, int]) -> None:
    """Normalising elements, not two vectors: no factor of 225 a round can pile up there."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(1, n, 3, generator=generator) for n in sizes)
    distances = torch.cdist(a.double(), b.double())[0]
    plan = (_soft_min(distances, None, 0.8) + _soft_min(distances.T, None, 0.8).T) / 2
    for _ in range(20):
        plan = plan / (plan.sum(1, keepdim=True) + 1e-8)
        plan = plan / (plan.sum(0, keepdim=True) + 1e-8)
    assert apml(a, b).item() == pytest.approx((plan * distances).sum().item(), rel=1e-4)
