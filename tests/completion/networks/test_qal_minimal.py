"""The network of droneslab/qal with weights in its layout, against its formulation written plainly."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from completion.networks.qal_minimal import QALMinimal


def test_qal(published_weights: type, clouds: torch.Tensor) -> None:
    layers = {"encoder.0": (3, 8), "encoder.2": (8, 16), "decoder.0": (16, 12), "decoder.2": (12, 15)}
    weights = published_weights(layers, kernel=0)
    layer = weights.layer
    features = F.relu(layer("encoder.2", F.relu(layer("encoder.0", clouds))))
    code = torch.stack([features[:, :, c].max(dim=1).values for c in range(16)], dim=1)
    flat = layer("decoder.2", F.relu(layer("decoder.0", code)))
    points = torch.stack([flat[:, 3 * i : 3 * i + 3] for i in range(5)], dim=1)
    net = weights.into(QALMinimal(output_points=5, encoder_channels=(8, 16), decoder_channels=12), "qal")
    torch.testing.assert_close(net(clouds).stages, (points,))
