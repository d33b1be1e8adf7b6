"""FoldingNet with weights in PoinTr's layout, against its formulation written plainly."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from completion.networks.foldingnet import FoldingNet


def test_pointr(published_weights: type, clouds: torch.Tensor) -> None:
    layers = {"first_conv.0": (3, 8), "first_conv.3": (8, 12), "second_conv.0": (24, 16), "second_conv.3": (16, 20)}
    norms = {"first_conv.1": 8, "second_conv.1": 16}
    for name, dimensions in (("folding1", 2), ("folding2", 3)):
        layers |= {f"{name}.0": (dimensions + 20, 12), f"{name}.3": (12, 12), f"{name}.6": (12, 3)}
        norms |= {f"{name}.1": 12, f"{name}.4": 12}
    weights = published_weights(layers, norms)
    layer, norm = weights.layer, weights.norm

    features = layer("first_conv.3", F.relu(norm("first_conv.1", layer("first_conv.0", clouds))))
    pooled = features.max(dim=1, keepdim=True).values.expand_as(features)
    hidden = layer("second_conv.0", torch.cat([pooled, features], dim=2))
    code = layer("second_conv.3", F.relu(norm("second_conv.1", hidden))).max(dim=1).values
    side = torch.linspace(-0.5, 0.5, 5).double().tolist()
    points = torch.tensor([[fast, slow] for slow in side for fast in side], dtype=torch.float64).expand(3, -1, -1)
    for name in ("folding1", "folding2"):
        hidden = torch.cat([points, code[:, None].expand(-1, 25, -1)], dim=2)
        hidden = F.relu(norm(f"{name}.1", layer(f"{name}.0", hidden)))
        hidden = F.relu(norm(f"{name}.4", layer(f"{name}.3", hidden)))
        points = layer(f"{name}.6", hidden)

    net = weights.into(FoldingNet(**{**FoldingNet.tiny, "output_points": 25}), "pointr")
    torch.testing.assert_close(net(clouds).stages, (points,))


@pytest.mark.parametrize(("count", "rows"), [(2048, 32), (2025, 45), (8192, 64), (8281, 91), (13, 1)])
def test_the_grid_has_as_many_points_as_asked_for(count: int, rows: int) -> None:
    grid = FoldingNet(**{**FoldingNet.tiny, "output_points": count}).grid
    assert grid.shape == (count, 2)
    assert len(grid[:, 1].unique()) == rows and len(grid.unique(dim=0)) == count
    assert grid.min() == -0.5 and (count == 13 or grid.max() == 0.5)
