"""Losses against twins written with loops straight from the formulas, hand-made values, and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from completion.losses import DECLARED, LOSSES, cd_asymmetric, cd_l1, cd_l2, dcd, emd, hypercd, infocd, qal

CASES = [
    ("cd_l1", {}),
    ("cd_l2", {}),
    ("cd_asymmetric", {}),
    ("cd_asymmetric", {"weight": 1.5}),
    ("qal", {}),
    ("qal", {"epsilon": 0.01, "omega": 100.0, "lambda_attr": 0.5}),
    ("qal", {"lambda_attr": 0.0}),
    ("dcd", {}),
    ("dcd", {"alpha": 40.0, "lam": 0.5}),
    ("hypercd", {}),
    ("hypercd", {"alpha": 0.5}),
    ("infocd", {}),
    ("emd", {}),
    ("emd", {"eps": 0.05, "rounds": 2}),
    ("emd", {"eps": 0.01, "rounds": 10000}),
    ("apml", {}),
    ("apml", {"p_min": 0.5, "rounds": 3}),
]
SIZES = [(9, 6), (3, 17), (17, 3), (1, 1)]


def sized(name: str, n: int, m: int) -> tuple[int, int]:
    """A loss that needs equal sizes gets them."""
    return (n, n) if DECLARED[name].equal_sizes else (n, m)


@pytest.mark.parametrize(("name", "parameters"), CASES)
@pytest.mark.parametrize("sizes", SIZES)
def test_value_and_gradient_equal_the_loops(clouds, twin, name: str, parameters: dict, sizes: tuple[int, int]) -> None:
    a, b = clouds(*sized(name, *sizes))
    fast, slow = LOSSES[name](a, b, **parameters), twin(name, a, b, **parameters)
    assert fast.shape == (2,)
    torch.testing.assert_close(fast, slow)
    weights = torch.tensor([1.0, -2.0], dtype=torch.float64)
    torch.testing.assert_close(
        torch.autograd.grad((fast * weights).sum(), (a, b)), torch.autograd.grad((slow * weights).sum(), (a, b))
    )


@pytest.mark.parametrize(("name", "parameters"), [case for case in CASES if case[0] != "apml"])
def test_gradcheck(clouds, name: str, parameters: dict) -> None:
    # APML's matching carries no gradient, yet moves with the points: see test_apml for the part that has one.
    assert torch.autograd.gradcheck(lambda p, q: LOSSES[name](p, q, **parameters), clouds(*sized(name, 6, 4), seed=3))


# Of coincident clouds: HyperCD keeps arcosh's argument off 1, DCD divides by n + 1e-6, InfoCD adds a constant, and APML
# leaves a share of its matching to other points.
_LEAST = {"hypercd": 2 * math.acosh(1 + 1e-5), "dcd": 1e-6 / (1 + 1e-6), "infocd": 40 * 1e-7 * math.log(40)}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identical_clouds_have_the_least_loss_and_finite_gradient(name: str, dtype: torch.dtype) -> None:
    points = torch.rand(2, 40, 3, dtype=dtype, generator=torch.Generator().manual_seed(0))
    a = points.clone().requires_grad_()
    loss = LOSSES[name](a, points)
    loss.sum().backward()
    assert a.grad.isfinite().all()
    if name != "apml":
        torch.testing.assert_close(loss, torch.full_like(loss, _LEAST.get(name, 0.0)), rtol=1e-3, atol=1e-7)
        assert torch.equal(a.grad, torch.zeros_like(a))


@pytest.mark.parametrize("name", LOSSES)
def test_duplicate_and_collapsed_points_have_finite_gradient(name: str) -> None:
    points = torch.rand(2, 40, 3, generator=torch.Generator().manual_seed(0))
    points[:, 20:] = points[:, :20]
    for prediction in (points.clone(), torch.zeros_like(points), points[:, :1].repeat(1, 40, 1)):
        prediction.requires_grad_()
        loss = LOSSES[name](prediction, points)
        loss.sum().backward()
        assert loss.isfinite().all() and prediction.grad.isfinite().all()


def test_hand_made_values() -> None:
    prediction = torch.tensor([[[0.0, 0, 0], [3, 0, 0]]], dtype=torch.float64)
    target = torch.tensor([[[0.0, 0, 0], [0, 1, 0], [3, 4, 0]]], dtype=torch.float64)
    # d_a = 0, 3 (both predictions are nearest to the first target); d_b = 0, 1, 4 (the first prediction is nearest to
    # two of them, the second to one); the last two targets are uncovered.
    assert cd_l1(prediction, target).item() == pytest.approx((3 / 2 + 5 / 3) / 2)
    assert cd_l2(prediction, target).item() == pytest.approx(9 / 2 + 17 / 3)
    assert cd_asymmetric(prediction, target).item() == pytest.approx(3 / 2 + 1.2 * 5 / 3)

    def sigma(d: float) -> float:
        return 1 / (1 + math.exp(-10 * (0.001 - d)))

    by_hand = (
        (1.5 - sigma(3)) * 3 / 2 + ((1.5 - sigma(1)) * 1 + (1.5 - sigma(4)) * 4) / 3 + (sigma(1) + sigma(4) * 4) / 3
    )
    assert qal(prediction, target).item() == pytest.approx(by_hand)

    e = math.exp
    on_prediction = 1 - (2 / 3) * (1 + e(-0.1 * 9)) / (2 + 1e-6) / 2
    on_target = 1 - (3 / 2) * ((1 + e(-0.1 * 1)) / (2 + 1e-6) + e(-0.1 * 16) / (1 + 1e-6)) / 3
    assert dcd(prediction, target, alpha=0.1).item() == pytest.approx((on_prediction + on_target) / 2)

    small = math.acosh(1 + 1e-5)
    by_hand = (small + math.acosh(10)) / 2 + (small + math.acosh(2) + math.acosh(17)) / 3
    assert hypercd(prediction, target).item() == pytest.approx(by_hand)

    crowds = [1 + e(-1.5) + 2e-7, 1 + e(-0.5) + e(-2) + 3e-7]
    by_hand = (1.5 + 2 * 1e-7 * math.log(crowds[0]) + 2.5 + 3 * 1e-7 * math.log(crowds[1])) / 2
    assert infocd(prediction, target).item() == pytest.approx(by_hand, rel=1e-12)

    # Greedily the first prediction would take the first target; together it is cheaper not to: 1 + 1 against 0 + 3.
    line = torch.tensor([[[0.0, 0, 0], [1, 0, 0]]], dtype=torch.float64)
    other = torch.tensor([[[1.0, 0, 0], [-1, 0, 0]]], dtype=torch.float64)
    assert emd(line, other, rounds=None).item() == pytest.approx(0.5)
    square = torch.tensor([[[0.0, 0, 0], [0, 2, 0]]], dtype=torch.float64)
    assert emd(square, square.flip(1) + torch.tensor([0.0, 0, 1])).item() == pytest.approx(1.0)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 60),
    m=st.integers(1, 60),
    epsilon=st.floats(0, 0.1),
    omega=st.floats(0.1, 300),
)
def test_qal_at_lambda_one_is_a_reweighted_chamfer(clouds, seed: int, n: int, m: int, epsilon: float, omega: float):
    """mean_a[(1.5−σ)d_a] + mean_b[(1.5 − σ·1{b covered})·d_b]."""
    a, b = clouds(n, m, seed, batch=1)
    table = torch.cdist(a, b)
    d_a, nearest = table.min(2)
    d_b = table.min(1).values
    covered = torch.zeros_like(d_b)
    covered[0, nearest[0]] = 1
    sigma_a, sigma_b = (torch.sigmoid(omega * (epsilon - d)) for d in (d_a, d_b))
    closed = ((1.5 - sigma_a) * d_a).mean(1) + ((1.5 - sigma_b * covered) * d_b).mean(1)
    torch.testing.assert_close(qal(a, b, epsilon=epsilon, omega=omega, lambda_attr=1.0), closed)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), d=st.floats(0.0033, 0.1))
def test_hypercd_is_a_multiple_of_cd_l1(seed: int, d: float) -> None:
    """2√2 times, to 0.3 % in gradient, while distances lie between 0.0033 and 0.1; without gradient below."""
    way = torch.nn.functional.normalize(torch.randn(1, 27, 3, generator=torch.Generator().manual_seed(seed)), dim=-1)
    axis = torch.arange(3.0)
    target = torch.cartesian_prod(axis, axis, axis)[None].double()

    def gradient(loss, distance: float) -> torch.Tensor:
        prediction = (target + distance * way.double()).requires_grad_()
        return torch.autograd.grad(loss(prediction, target).sum(), prediction)[0]

    ours, control = gradient(hypercd, d), 2 * math.sqrt(2) * gradient(cd_l1, d)
    assert ((ours - control).norm(dim=-1) <= 0.003 * control.norm(dim=-1)).all()
    assert torch.equal(gradient(hypercd, 0.0031), torch.zeros_like(control))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(2, 60), m=st.integers(2, 60))
def test_infocd_is_half_the_sum_of_distances(clouds, seed: int, n: int, m: int) -> None:
    """½(½Σd_a + ½Σd_b), up to a constant of 1e-7 · N log N; the gradient to a millionth."""
    a, b = clouds(n, m, seed, batch=1)
    table = torch.cdist(a, b)
    sums = 0.25 * (table.min(2).values.sum(1) + table.min(1).values.sum(1))
    loss = infocd(a, b)
    assert abs(loss - sums).item() < 1e-7 * (n + m) * math.log(n + m)
    ours, control = (torch.autograd.grad(x.sum(), a)[0] for x in (loss, sums))
    torch.testing.assert_close(ours, control, rtol=1e-6, atol=1e-6)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 40), m=st.integers(1, 40))
def test_dcd_lies_between_nothing_and_one(clouds, seed: int, n: int, m: int) -> None:
    """At λ = 1, whatever the sizes: as many weights of 1/n share a neighbour as make one."""
    a, b = clouds(n, m, seed, batch=1)
    assert 0 <= dcd(a, b).item() <= 1
    assert dcd(a, b + 10).item() == pytest.approx(1.0)


@pytest.mark.parametrize("name", LOSSES)
def test_rigid_motion_and_order_change_nothing(clouds, name: str) -> None:
    a, b = clouds(*sized(name, 30, 25))
    rotation = torch.linalg.qr(torch.rand(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))).Q
    order = torch.randperm(30, generator=torch.Generator().manual_seed(6))
    moved = LOSSES[name](a[:, order] @ rotation.T + 2.0, b @ rotation.T + 2.0)
    torch.testing.assert_close(moved, LOSSES[name](a, b))


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_down_the_gradient_helps(clouds, name: str) -> None:
    # A coarse auction's matching may change for the worse by less than its eps, so EMD is taken to the end.
    parameters = {"eps": 1e-6, "rounds": None} if name == "emd" else {}
    a, b = clouds(*sized(name, 40, 50))
    before = LOSSES[name](a, b, **parameters).sum()
    (gradient,) = torch.autograd.grad(before, a)
    # Along the direction, by a length that suits sums and means alike.
    step = 1e-3 * gradient / gradient.norm(dim=-1).max()
    assert LOSSES[name](a - step, b, **parameters).sum() < before


@pytest.mark.parametrize("garbage", [0.0, math.nan, math.inf, 1e30])
@pytest.mark.parametrize("name", LOSSES)
def test_masks_equal_cutting_the_padding_away(clouds, name: str, garbage: float) -> None:
    """True points stand anywhere among the padding, as many as each sample has."""
    sizes = [sized(name, *pair) for pair in ((7, 11), (12, 5), (1, 3))]
    generator = torch.Generator().manual_seed(4)
    prediction = torch.full((3, 14, 3), garbage, dtype=torch.float64)
    target = prediction.clone()
    masks = (torch.zeros(3, 14, dtype=torch.bool), torch.zeros(3, 14, dtype=torch.bool))
    values, gradients = [], []
    for row, (n, m) in enumerate(sizes):
        alone = clouds(n, m, seed=row, batch=1)
        value = LOSSES[name](*alone)
        values.append(value)
        gradients.append(torch.autograd.grad(value.sum(), alone))
        for cloud, mask, points in zip((prediction, target), masks, alone, strict=True):
            places = torch.randperm(14, generator=generator)[: points.shape[1]].sort().values
            mask[row, places] = True
            cloud[row, places] = points.detach()[0]
    prediction.requires_grad_(), target.requires_grad_()
    padded = LOSSES[name](prediction, target, prediction_mask=masks[0], target_mask=masks[1])
    torch.testing.assert_close(padded, torch.cat(values))
    for k, (gradient, mask) in enumerate(
        zip(torch.autograd.grad(padded.sum(), (prediction, target)), masks, strict=True)
    ):
        assert not gradient[~mask].any()
        torch.testing.assert_close(gradient[mask], torch.cat([one[k][0] for one in gradients]))


@pytest.mark.parametrize("name", LOSSES)
def test_one_mask_alone(clouds, name: str) -> None:
    a, b = clouds(8, 8)
    full = torch.ones(2, 8, dtype=torch.bool)
    for masks in ({"prediction_mask": full}, {"target_mask": full}):
        torch.testing.assert_close(LOSSES[name](a, b, **masks), LOSSES[name](a, b))
    if not DECLARED[name].equal_sizes:
        half = full.clone()
        half[:, 5:] = False
        torch.testing.assert_close(LOSSES[name](a, b, target_mask=half), LOSSES[name](a, b[:, :5]))


@pytest.mark.parametrize("name", LOSSES)
def test_masks_that_cannot_be_are_refused(clouds, name: str) -> None:
    a, b = clouds(8, 8)
    none = torch.zeros(2, 8, dtype=torch.bool)
    with pytest.raises(ValueError, match="padding alone"):
        LOSSES[name](a, b, prediction_mask=none, target_mask=none)
    for wrong in (torch.ones(2, 8), torch.ones(2, 7, dtype=torch.bool)):
        with pytest.raises(ValueError, match=r"a mask must be bool \(2, 8\), got"):
            LOSSES[name](a, b, target_mask=wrong)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_computed_in_float32(clouds, name: str, dtype: torch.dtype) -> None:
    a, b = (cloud.detach().to(dtype).requires_grad_() for cloud in clouds(*sized(name, 60, 45)))
    wide = tuple(cloud.detach().float().requires_grad_() for cloud in (a, b))
    half, full = LOSSES[name](a, b), LOSSES[name](*wide)
    assert half.dtype == torch.float32 and torch.equal(half, full)
    for ours, theirs in zip(
        torch.autograd.grad(half.sum(), (a, b)), torch.autograd.grad(full.sum(), wide), strict=True
    ):
        assert ours.dtype == dtype and torch.equal(ours, theirs.to(dtype))


@pytest.mark.parametrize("name", LOSSES)
def test_autocast_changes_nothing(clouds, name: str) -> None:
    a, b = (cloud.detach().float() for cloud in clouds(*sized(name, 60, 45)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = LOSSES[name](a, b)
    torch.testing.assert_close(inside, LOSSES[name](a, b), rtol=1e-4, atol=1e-6)
