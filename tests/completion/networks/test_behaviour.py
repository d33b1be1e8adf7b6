"""What every network of the house does, whatever its architecture."""

from __future__ import annotations

import inspect

import pytest
import torch

from completion.networks import NETWORKS, Completion, CompletionNetwork

# The order of the input does not matter to them; the others sample it from its first point on.
SETS = ("pcn", "topnet", "foldingnet", "ecg", "qal_minimal")
NARROW = {
    "encoder_channels": (8, 12, 16, 28),
    "root_channels": (16, 12),
    "decoder_channels": 16,
    "folding_channels": 12,
    "growth": 4,
    "neighbours": 4,
    "code_channels": (16, 12),
    "up_channels": (20, 16, 12, 12),
    "head_channels": 8,
}
"""Widths alone, for these networks at the sizes of the field."""
SIZES = {
    "pcn": {
        2048: {"grid": (2, 1)},
        4096: {"grid": 2},
        8192: {"grid": (2, 4)},
        16384: {"grid": 4},
    },
    **{name: {p: {"output_points": p} for p in (2048, 4096, 8192, 16384)} for name in ("topnet", "foldingnet", "ecg")},
    "qal_minimal": {p: {"output_points": p, "encoder_channels": (8, 16)} for p in (2048, 4096, 8192, 16384)},
}
names = pytest.mark.parametrize("name", sorted(NETWORKS))


def tiny(name: str, seed: int = 0) -> CompletionNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NETWORKS[name](**NETWORKS[name].tiny)


def call(net: CompletionNetwork, partial: torch.Tensor, truth: torch.Tensor) -> Completion:
    return net(partial, truth) if net.uses_truth and net.training else net(partial)


def cloud(batch: int, count: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(batch, count, 3, generator=torch.Generator().manual_seed(seed), dtype=dtype) - 0.5


def chamfer(prediction: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    squared = torch.cdist(prediction, truth).square()
    return squared.amin(dim=1).mean() + squared.amin(dim=2).mean()


@names
@pytest.mark.parametrize("count", [64, 100, 700])
def test_any_number_of_points_from_64_on_goes_in(name: str, count: int) -> None:
    net = tiny(name).eval()
    with torch.no_grad():
        result = net(cloud(2, count))
    assert result.fine.shape == (2, net.output_points, 3)
    assert all(stage.shape[0] == 2 and stage.shape[2] == 3 and stage.isfinite().all() for stage in result.stages)
    assert result.denoising is None
    sizes = [stage.shape[1] for stage in result.stages]
    assert sizes == sorted(sizes), "coarse to fine"


@pytest.mark.parametrize(("name", "points"), [(name, points) for name, sizes in SIZES.items() for points in sizes])
def test_the_sizes_of_the_field_come_out(name: str, points: int) -> None:
    accepted = inspect.signature(NETWORKS[name]).parameters
    widths = {key: value for key, value in NARROW.items() if key in accepted}
    net = NETWORKS[name](**{**widths, **SIZES[name][points]}).eval()
    with torch.no_grad():
        fine = net(cloud(1, 300)).fine
    assert net.output_points == points and fine.shape == (1, points, 3) and fine.isfinite().all()


@names
def test_a_cloud_ignores_its_batch_when_evaluated(name: str) -> None:
    net, clouds = tiny(name).double().eval(), cloud(3, 80, dtype=torch.float64)
    together, alone = net(clouds), net(clouds[1:2])
    for stage, own in zip(together.stages, alone.stages, strict=True):
        torch.testing.assert_close(stage[1:2], own)


@pytest.mark.parametrize("name", SETS)
def test_the_order_of_the_points_does_not_matter(name: str) -> None:
    net, clouds = tiny(name).double().eval(), cloud(2, 80, dtype=torch.float64)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(net(clouds[:, order]).stages, net(clouds).stages)


@names
def test_double_precision_goes_through_to_the_end(name: str) -> None:
    net = tiny(name).eval()
    clouds = cloud(2, 80)
    single, double = net(clouds).fine, net.double()(clouds.double()).fine
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=1e-2, atol=1e-3)


def silent_parameters(name: str, seed: int) -> set[str]:
    net = tiny(name, seed)
    partial, truth = cloud(4, 80), cloud(4, 96, seed=2)
    # First in training, which has the denoising and gives batch norms their running means, then in evaluation: in
    # training a bias before a batch norm has no effect, and so no gradient.
    for mode in (True, False):
        result = call(net.train(mode), partial, truth)
        loss = sum(stage.sin().sum() for stage in result.stages)
        if result.denoising is not None:
            loss = loss + result.denoising.clouds.sin().sum()
        loss.backward()
    # What a published network holds and never trains is marked so.
    trained = {key: value.grad for key, value in net.named_parameters() if value.requires_grad}
    return {key for key, gradient in trained.items() if gradient is None or not gradient.abs().max() > 0}


@names
def test_gradients_reach_every_parameter(name: str) -> None:
    silent = silent_parameters(name, seed=0)
    for seed in (1, 2, 3):  # a few units may start out dead
        silent = silent and silent & silent_parameters(name, seed)
    assert not silent


@names
def test_three_steps_make_the_loss_on_one_sample_smaller(name: str) -> None:
    net = tiny(name).train()
    partial = cloud(2, 80)
    truth = torch.cat([partial, partial + 0.02], dim=1)
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    losses = []
    for _ in range(4):
        result = call(net, partial, truth)
        loss = sum(chamfer(stage, truth) for stage in result.stages)
        losses.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < losses[0]


@names
def test_mixed_precision_goes_through_forward_and_back(name: str) -> None:
    net = tiny(name).train()
    with torch.autocast("cpu", torch.bfloat16):
        result = call(net, cloud(3, 80), cloud(3, 96, seed=2))
    assert result.fine.shape == (3, net.output_points, 3)
    sum(stage.float().square().mean() for stage in result.stages).backward()
    assert all(value.grad.isfinite().all() for value in net.parameters() if value.grad is not None)


@names
def test_the_same_seed_makes_the_same_network(name: str) -> None:
    first, second = tiny(name).eval(), tiny(name).eval()
    assert torch.equal(first(cloud(2, 80)).fine, second(cloud(2, 80)).fine)
