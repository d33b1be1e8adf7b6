"""PCN with weights in the layouts of MVP_Benchmark and PoinTr, against their formulation written plainly."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F

from completion.networks.pcn import PCN

WIDTHS = {"encoder_channels": (8, 12, 16, 20), "decoder_channels": 14, "folding_channels": 10}
FOLDING = 2 + 3 + 20


@pytest.mark.parametrize("grid", [(2, 1), (2, 2), (2, 4)])
def test_mvp(published_weights: type, clouds: torch.Tensor, grid: tuple[int, int]) -> None:
    layers = {"encoder.conv1": (3, 8), "encoder.conv2": (8, 12), "encoder.conv3": (24, 16), "encoder.conv4": (16, 20)}
    layers |= {"decoder.fc1": (20, 14), "decoder.fc2": (14, 14), "decoder.fc3": (14, 18)}
    layers |= {"decoder.conv1": (FOLDING, 10), "decoder.conv2": (10, 10), "decoder.conv3": (10, 3)}
    weights = published_weights(layers, flat=("decoder.fc",))
    layer = weights.layer
    features = layer("encoder.conv2", F.relu(layer("encoder.conv1", clouds)))
    pooled = features.max(dim=1, keepdim=True).values.expand_as(features)
    code = (
        layer("encoder.conv4", F.relu(layer("encoder.conv3", torch.cat([features, pooled], dim=2)))).max(dim=1).values
    )
    flat = layer("decoder.fc3", F.relu(layer("decoder.fc2", F.relu(layer("decoder.fc1", code)))))
    coarse = torch.stack([flat[:, :6], flat[:, 6:12], flat[:, 12:]], dim=2)  # all x, all y, all z
    xs, ys = (torch.linspace(-0.05, 0.05, count).double().tolist() for count in grid)
    fine = []
    for i, (x, y) in itertools.product(range(6), itertools.product(xs, ys)):
        corner = torch.tensor([x, y], dtype=torch.float64).expand(3, 2)
        read = torch.cat([corner, coarse[:, i], code], dim=1)
        fine.append(
            coarse[:, i] + layer("decoder.conv3", F.relu(layer("decoder.conv2", F.relu(layer("decoder.conv1", read)))))
        )
    found = weights.into(PCN(num_coarse=6, grid=grid, **WIDTHS), "mvp")(clouds)
    torch.testing.assert_close(found.stages, (coarse, torch.stack(fine, dim=1)))


def test_pointr(published_weights: type, clouds: torch.Tensor) -> None:
    layers = {"first_conv.0": (3, 8), "first_conv.3": (8, 12), "second_conv.0": (24, 16), "second_conv.3": (16, 20)}
    layers |= {"mlp.0": (20, 14), "mlp.2": (14, 14), "mlp.4": (14, 18)}
    layers |= {"final_conv.0": (FOLDING, 10), "final_conv.3": (10, 10), "final_conv.6": (10, 3)}
    norms = {"first_conv.1": 8, "second_conv.1": 16, "final_conv.1": 10, "final_conv.4": 10}
    weights = published_weights(layers, norms, flat=("mlp",))
    layer, norm = weights.layer, weights.norm
    features = layer("first_conv.3", F.relu(norm("first_conv.1", layer("first_conv.0", clouds))))
    pooled = features.max(dim=1, keepdim=True).values.expand_as(features)
    hidden = layer("second_conv.0", torch.cat([pooled, features], dim=2))
    code = layer("second_conv.3", F.relu(norm("second_conv.1", hidden))).max(dim=1).values
    coarse = layer("mlp.4", F.relu(layer("mlp.2", F.relu(layer("mlp.0", code))))).reshape(3, 6, 3)
    side = torch.linspace(-0.05, 0.05, 3).double().tolist()
    fine = []
    for i, (slow, fast) in itertools.product(range(6), itertools.product(side, side)):
        read = torch.cat([code, torch.tensor([fast, slow], dtype=torch.float64).expand(3, 2), coarse[:, i]], dim=1)
        hidden = F.relu(norm("final_conv.1", layer("final_conv.0", read)))
        hidden = F.relu(norm("final_conv.4", layer("final_conv.3", hidden)))
        fine.append(coarse[:, i] + layer("final_conv.6", hidden))
    found = weights.into(PCN(num_coarse=6, grid=3, batch_norm=True, **WIDTHS), "pointr")(clouds)
    torch.testing.assert_close(found.stages, (coarse, torch.stack(fine, dim=1)))


def test_batch_norm_trains_on_every_point_of_the_batch(clouds: torch.Tensor) -> None:
    net = PCN(num_coarse=6, grid=2, batch_norm=True, **WIDTHS).double().train()
    net(clouds)
    values = net.encoder.conv1(clouds).flatten(0, 1)
    torch.testing.assert_close(net.encoder.norm1.running_mean, 0.1 * values.mean(dim=0))
