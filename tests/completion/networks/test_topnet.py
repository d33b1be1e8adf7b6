"""TopNet with weights in the layouts of VRCNet and PoinTr, against their formulation written plainly."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from completion.networks.topnet import TopNet, children_of

CODE, NODE = 28, 4


def test_the_authors_trees() -> None:
    assert children_of(2048, 6) == (2, 4, 4, 4, 4, 4)
    assert children_of(4096, 8) == (2, 2, 2, 2, 4, 4, 4, 4)
    assert children_of(16384, 8) == (2, 2, 4, 4, 4, 4, 4, 4)
    assert children_of(16384, 6) == (4, 4, 4, 4, 8, 8)
    assert children_of(8192, 2) == (64, 128)
    for points, levels in ((1024, 8), (3000, 8), (2048, 5)):
        with pytest.raises(ValueError, match="no tree"):
            children_of(points, levels)
    with pytest.raises(ValueError, match="make 24 points, not 25"):
        TopNet(output_points=25, children=(2, 3, 4))


def grow(tree: torch.Tensor, values: torch.Tensor, channels: int) -> torch.Tensor:
    """``(B, P, channels · count)`` -> ``(B, P · count, channels)``; entry c·count + j is feature c of child j."""
    _, parents, width = values.shape
    count = width // channels
    rows = [
        torch.stack([values[:, p, c * count + j] for c in range(channels)], dim=1)
        for j in range(count)
        for p in range(parents)
    ]
    assert len(rows) == tree.shape[1] * count
    return torch.tanh(torch.stack(rows, dim=1))


def first_nodes(values: torch.Tensor, count: int) -> torch.Tensor:
    return torch.stack([values[:, torch.arange(NODE) * count + j] for j in range(count)], dim=1)


def test_mvp(published_weights: type, clouds: torch.Tensor) -> None:
    tree = (2, 2, 4)
    layers = {"encoder.conv1.model.conv1d_1": (3, 8), "encoder.conv1.output_layer": (8, 12)}
    layers |= {"encoder.conv2.model.conv1d_1": (24, 16), "encoder.conv2.output_layer": (16, CODE)}
    root = "decoder.mlp"
    layers |= {f"{root}.model.fc_1": (CODE, 16), f"{root}.model.fc_2": (16, 12), f"{root}.output_layer": (12, NODE * 2)}
    norms = {f"{root}.model.bn_1": 16, f"{root}.model.bn_2": 12}
    widths = [32, 32, 16, 8, 4]
    for level, (channels, normed) in enumerate([(NODE, True), (3, False)]):
        name = f"decoder.mlp_conv_list.{level}.mlp_conv"
        for i in range(4):
            layers[f"{name}.model.conv1d_{i + 1}"] = (widths[i], widths[i + 1])
            if normed:
                norms[f"{name}.model.bn_{i + 1}"] = widths[i + 1]
        layers[f"{name}.output_layer"] = (4, channels * tree[level + 1])
    weights = published_weights(layers, norms, flat=(root + ".",))
    layer, norm = weights.layer, weights.norm

    features = layer("encoder.conv1.output_layer", F.relu(layer("encoder.conv1.model.conv1d_1", clouds)))
    pooled = features.max(dim=1, keepdim=True).values.expand_as(features)
    hidden = F.relu(layer("encoder.conv2.model.conv1d_1", torch.cat([features, pooled], dim=2)))
    code = layer("encoder.conv2.output_layer", hidden).max(dim=1).values
    hidden = code
    for i in (1, 2):
        hidden = F.relu(norm(f"{root}.model.bn_{i}", layer(f"{root}.model.fc_{i}", hidden)))
    nodes = first_nodes(torch.tanh(layer(f"{root}.output_layer", hidden)), 2)
    for level, channels in enumerate((NODE, 3)):
        name = f"decoder.mlp_conv_list.{level}.mlp_conv"
        hidden = torch.cat([nodes, code[:, None].expand(-1, nodes.shape[1], -1)], dim=2)
        for i in range(1, 5):
            hidden = layer(f"{name}.model.conv1d_{i}", hidden)
            hidden = F.relu(norm(f"{name}.model.bn_{i}", hidden) if level == 0 else hidden)
        nodes = grow(nodes, layer(f"{name}.output_layer", hidden), channels)

    parameters = {**TopNet.published["mvp"].parameters, **TopNet.tiny, "output_points": 16, "children": tree}
    net = weights.into(TopNet(**parameters), "mvp")
    torch.testing.assert_close(net(clouds).stages, (nodes,))


@pytest.mark.parametrize("first", [2, 4])
def test_pointr(published_weights: type, clouds: torch.Tensor, first: int) -> None:
    tree = (first, 2, 2, 3)
    layers = {"first_conv.0": (3, 8), "first_conv.3": (8, 12), "second_conv.0": (24, 16), "second_conv.3": (16, CODE)}
    layers |= {"root_layer.0": (CODE, 16), "root_layer.3": (16, 12), "root_layer.6": (12, NODE * first)}
    norms = {"first_conv.1": 8, "second_conv.1": 16, "root_layer.1": 16, "root_layer.4": 12}
    levels = [("feature_layers.0", NODE, 2), ("feature_layers.1", NODE, 2), ("leaf_layer", 3, 3)]
    for name, channels, count in levels:
        layers |= {f"{name}.0": (32, 16), f"{name}.3": (16, 8), f"{name}.6": (8, 4), f"{name}.9": (4, channels * count)}
        norms |= {f"{name}.1": 16, f"{name}.4": 8, f"{name}.7": 4}
    weights = published_weights(layers, norms, flat=("root_layer",))
    layer, norm = weights.layer, weights.norm

    features = layer("first_conv.3", F.relu(norm("first_conv.1", layer("first_conv.0", clouds))))
    pooled = features.max(dim=1, keepdim=True).values.expand_as(features)
    hidden = layer("second_conv.0", torch.cat([pooled, features], dim=2))
    code = layer("second_conv.3", F.relu(norm("second_conv.1", hidden))).max(dim=1).values
    hidden = F.relu(norm("root_layer.1", layer("root_layer.0", code)))
    hidden = F.relu(norm("root_layer.4", layer("root_layer.3", hidden)))
    nodes = first_nodes(torch.tanh(layer("root_layer.6", hidden)), first)
    for name, channels, _ in levels:
        hidden = torch.cat([code[:, None].expand(-1, nodes.shape[1], -1), nodes], dim=2)
        for i in (0, 3, 6):
            hidden = F.relu(norm(f"{name}.{i + 1}", layer(f"{name}.{i}", hidden)))
        nodes = grow(nodes, layer(f"{name}.9", hidden), channels)

    net = weights.into(TopNet(**{**TopNet.tiny, "output_points": 12 * first, "children": tree}), "pointr")
    torch.testing.assert_close(net(clouds).stages, (nodes,))
