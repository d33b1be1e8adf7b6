"""Losses against twins written with loops straight from the formulas, hand-made values, and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from completion.losses import LOSSES, cd_asymmetric, cd_l1, cd_l2, qal


def twin(name: str, prediction: torch.Tensor, target: torch.Tensor, **parameters: float) -> torch.Tensor:
    """Double loops, one sample at a time, scalar tensors: nothing shared with the fast code."""
    rows = []
    for a, b in zip(prediction, target, strict=True):
        d_a, d_b, covered = [], [None] * len(b), set()
        for p in a:
            distances = [((p - q) ** 2).sum().sqrt() for q in b]
            best = min(range(len(b)), key=lambda j: distances[j].item())
            covered.add(best)
            d_a.append(distances[best])
        for j, q in enumerate(b):
            d_b[j] = min((((p - q) ** 2).sum().sqrt() for p in a), key=lambda d: d.item())
        mean_a, mean_b = sum(d_a) / len(a), sum(d_b) / len(b)
        if name == "cd_l1":
            rows.append((mean_a + mean_b) / 2)
        elif name == "cd_l2":
            rows.append(sum(d * d for d in d_a) / len(a) + sum(d * d for d in d_b) / len(b))
        elif name == "cd_asymmetric":
            rows.append(mean_a + parameters.get("weight", 1.2) * mean_b)
        else:
            epsilon, omega = parameters.get("epsilon", 0.001), parameters.get("omega", 10.0)

            def sigma(d: torch.Tensor, epsilon: float = epsilon, omega: float = omega) -> torch.Tensor:
                return 1 / (1 + torch.exp(-omega * (epsilon - d)))

            coverage = sum((1 - (sigma(d) - 0.5)) * d for d in d_a) / len(a)
            coverage = coverage + sum((1 - (sigma(d) - 0.5)) * d for d in d_b) / len(b)
            attraction = sum((sigma(d) * d if j not in covered else 0 * d) for j, d in enumerate(d_b)) / len(b)
            rows.append(coverage + parameters.get("lambda_attr", 1.0) * attraction)
    return torch.stack(rows)


CASES = [
    ("cd_l1", {}),
    ("cd_l2", {}),
    ("cd_asymmetric", {}),
    ("cd_asymmetric", {"weight": 1.5}),
    ("qal", {}),
    ("qal", {"epsilon": 0.01, "omega": 100.0, "lambda_attr": 0.5}),
    ("qal", {"lambda_attr": 0.0}),
]


def clouds(n: int, m: int, seed: int = 0, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.rand(batch, k, 3, generator=generator, dtype=torch.float64) for k in (n, m))
    return a.requires_grad_(), b.requires_grad_()


@pytest.mark.parametrize(("name", "parameters"), CASES)
@pytest.mark.parametrize("sizes", [(15, 11), (4, 30), (30, 4), (1, 1)])
def test_value_and_gradient_equal_the_loops(name: str, parameters: dict, sizes: tuple[int, int]) -> None:
    a, b = clouds(*sizes)
    fast, slow = LOSSES[name](a, b, **parameters), twin(name, a, b, **parameters)
    assert fast.shape == (2,)
    torch.testing.assert_close(fast, slow)
    weights = torch.tensor([1.0, -2.0], dtype=torch.float64)
    torch.testing.assert_close(
        torch.autograd.grad((fast * weights).sum(), (a, b)), torch.autograd.grad((slow * weights).sum(), (a, b))
    )


@pytest.mark.parametrize(("name", "parameters"), CASES)
def test_gradcheck(name: str, parameters: dict) -> None:
    assert torch.autograd.gradcheck(lambda p, q: LOSSES[name](p, q, **parameters), clouds(9, 6, seed=3))


@pytest.mark.parametrize("name", ["cd_l1", "cd_l2", "cd_asymmetric", "qal"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identical_clouds_have_no_loss_and_finite_gradient(name: str, dtype: torch.dtype) -> None:
    points = torch.rand(2, 40, 3, dtype=dtype, generator=torch.Generator().manual_seed(0))
    points[:, 20:] = points[:, :20]  # duplicates too
    a = points.clone().requires_grad_()
    loss = LOSSES[name](a, points)
    loss.sum().backward()
    assert torch.equal(loss, torch.zeros_like(loss))
    assert torch.equal(a.grad, torch.zeros_like(a))


def test_hand_made_values() -> None:
    prediction = torch.tensor([[[0.0, 0, 0], [3, 0, 0]]], dtype=torch.float64)
    target = torch.tensor([[[0.0, 0, 0], [0, 1, 0], [3, 4, 0]]], dtype=torch.float64)
    # d_a = 0, 3 (both predictions are nearest to the first target); d_b = 0, 1, 4; the last two targets are uncovered.
    assert cd_l1(prediction, target).item() == pytest.approx((3 / 2 + 5 / 3) / 2)
    assert cd_l2(prediction, target).item() == pytest.approx(9 / 2 + 17 / 3)
    assert cd_asymmetric(prediction, target).item() == pytest.approx(3 / 2 + 1.2 * 5 / 3)

    def sigma(d: float) -> float:
        return 1 / (1 + math.exp(-10 * (0.001 - d)))

    by_hand = (
        (1.5 - sigma(3)) * 3 / 2 + ((1.5 - sigma(1)) * 1 + (1.5 - sigma(4)) * 4) / 3 + (sigma(1) + sigma(4) * 4) / 3
    )
    assert qal(prediction, target).item() == pytest.approx(by_hand)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 60),
    m=st.integers(1, 60),
    epsilon=st.floats(0, 0.1),
    omega=st.floats(0.1, 300),
)
def test_qal_at_lambda_one_is_a_reweighted_chamfer(seed: int, n: int, m: int, epsilon: float, omega: float) -> None:
    """FACTS §1.1: mean_a[(1.5−σ)d_a] + mean_b[(1.5 − σ·1{b covered})·d_b]."""
    a, b = clouds(n, m, seed, batch=1)
    table = torch.cdist(a, b)
    d_a, nearest = table.min(2)
    d_b = table.min(1).values
    covered = torch.zeros_like(d_b)
    covered[0, nearest[0]] = 1
    sigma_a, sigma_b = (torch.sigmoid(omega * (epsilon - d)) for d in (d_a, d_b))
    closed = ((1.5 - sigma_a) * d_a).mean(1) + ((1.5 - sigma_b * covered) * d_b).mean(1)
    torch.testing.assert_close(qal(a, b, epsilon=epsilon, omega=omega, lambda_attr=1.0), closed)


@pytest.mark.parametrize("name", LOSSES)
def test_rigid_motion_and_order_change_nothing(name: str) -> None:
    a, b = clouds(30, 25)
    rotation = torch.linalg.qr(torch.rand(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))).Q
    order = torch.randperm(30, generator=torch.Generator().manual_seed(6))
    moved = LOSSES[name](a[:, order] @ rotation.T + 2.0, b @ rotation.T + 2.0)
    torch.testing.assert_close(moved, LOSSES[name](a, b))


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_down_the_gradient_helps(name: str) -> None:
    a, b = clouds(40, 50)
    before = LOSSES[name](a, b).sum()
    (gradient,) = torch.autograd.grad(before, a)
    assert LOSSES[name](a - 1e-3 * gradient, b).sum() < before
