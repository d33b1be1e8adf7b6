"""PCN against the paper's own formulation, written plainly: concatenations, tiling and a maximum over everything."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from completion.networks import NETWORKS
from completion.networks.pcn import PCN

SMALL = {
    "num_coarse": 12,
    "grid": 3,
    "encoder_channels": [8, 12, 20, 24],
    "decoder_channels": 16,
    "folding_channels": 14,
}


def network(**changes) -> PCN:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return PCN(**{**SMALL, **changes}).double()


def plain(net: PCN, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The paper's network with tiled concatenations, from the same weights."""
    encoder, decoder = net.encoder, net.decoder
    count = points.shape[1]
    features = F.linear(F.relu(F.linear(points, *encoder.conv1.parameters())), *encoder.conv2.parameters())
    pooled = features.max(dim=1, keepdim=True).values.expand(-1, count, -1)
    hidden = F.relu(F.linear(torch.cat([features, pooled], dim=2), *encoder.conv3.parameters()))
    code = F.linear(hidden, *encoder.conv4.parameters()).max(dim=1).values
    flat = F.relu(F.linear(code, *decoder.fc1.parameters()))
    flat = F.relu(F.linear(flat, *decoder.fc2.parameters()))
    coarse = F.linear(flat, *decoder.fc3.parameters()).reshape(len(points), -1, 3)
    copies = len(net.patch)
    seeds = coarse.repeat_interleave(copies, dim=1)
    patch = net.patch.repeat(coarse.shape[1], 1).expand(len(points), -1, -1)
    tiled = torch.cat([patch, seeds, code[:, None].expand(-1, seeds.shape[1], -1)], dim=2)
    hidden = F.relu(F.linear(tiled, *decoder.conv1.parameters()))
    hidden = F.relu(F.linear(hidden, *decoder.conv2.parameters()))
    return coarse, F.linear(hidden, *decoder.conv3.parameters()) + seeds


def points(batch: int = 3, count: int = 40) -> torch.Tensor:
    return torch.rand(batch, count, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 0.5


def test_published_width_has_the_published_number_of_parameters() -> None:
    net = PCN()
    assert sum(value.numel() for value in net.parameters()) == 6_861_059
    assert net.output_points == 16384


def test_values_and_gradients_equal_the_plain_formulation() -> None:
    net, cloud = network(), points()
    fast, slow = net(cloud), plain(net, cloud)
    assert fast.coarse.shape == (3, 12, 3) and fast.fine.shape == (3, 108, 3)
    torch.testing.assert_close(fast.stages, slow)
    parameters = list(net.parameters())
    ours = torch.autograd.grad(fast.coarse.square().sum() + fast.fine.sin().sum(), parameters)
    theirs = torch.autograd.grad(slow[0].square().sum() + slow[1].sin().sum(), parameters)
    torch.testing.assert_close(ours, theirs)
    assert all(gradient.abs().max() > 0 for gradient in ours)


def test_without_gradient_the_values_are_the_same() -> None:
    net, cloud = network(), points()
    with torch.no_grad():
        silent = net(cloud)
    torch.testing.assert_close(silent.stages, tuple(value.detach() for value in net(cloud).stages))


def test_a_cloud_is_a_set_and_ignores_its_batch() -> None:
    net, cloud = network(), points()
    together = net(cloud).fine
    order = torch.randperm(40, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(net(cloud[:, order]).fine, together)
    torch.testing.assert_close(net(cloud[1:2]).fine, together[1:2])
    torch.testing.assert_close(net(torch.cat([cloud, cloud[:, :7]], dim=1)).fine, together)


@pytest.mark.parametrize("count", [1, 2, 1000])
def test_any_number_of_points_goes_in(count: int) -> None:
    assert network()(points(2, count)).fine.isfinite().all()


def test_the_dictionary_holds_it() -> None:
    assert NETWORKS["pcn"] is PCN
