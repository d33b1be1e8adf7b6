"""PCN: Point Completion Network (Yuan et al., 3DV 2018), coarse and fine.

The function is the paper's, without batch norm as in the authors' code, so a cloud's completion does not depend on its
batch. Three rewritings make it cheaper and change no value: a layer applied to ``concat(per-point, global)`` is
computed as ``W_point · x + W_global · g`` with the second product once a cloud; the folding grid's part once for all
clouds; and the encoder's last layer is differentiated only at the points that win its maximum, since no other gets a
gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from completion.networks.interface import Completion, CompletionNetwork


class PCN(CompletionNetwork):
    """Coarse-to-fine completion. Defaults are the published widths: 6,861,059 parameters, 16,384 points.

    Args:
        num_coarse: points of the coarse cloud.
        grid: the folded patch has ``grid``² points, so the output has ``num_coarse · grid²``.
        grid_scale: half the edge of the folded patch, network units.
        encoder_channels: widths of the encoder's four point-wise layers.
        decoder_channels: width of the two hidden layers of the coarse decoder.
        folding_channels: width of the two hidden layers of the folding decoder.
    """

    tiny = {  # noqa: RUF012
        "num_coarse": 16,
        "grid": 2,
        "encoder_channels": (8, 12, 16, 20),
        "decoder_channels": 16,
        "folding_channels": 12,
    }
    patch: Tensor

    def __init__(
        self,
        num_coarse: int = 1024,
        grid: int = 4,
        grid_scale: float = 0.05,
        encoder_channels: Sequence[int] = (128, 256, 512, 1024),
        decoder_channels: int = 1024,
        folding_channels: int = 512,
    ) -> None:
        super().__init__()
        self.num_coarse = num_coarse
        self.output_points = num_coarse * grid * grid
        code = encoder_channels[-1]
        self.encoder = _Encoder(encoder_channels)
        self.decoder = _Decoder(code, decoder_channels, 3 * num_coarse, folding_channels)
        side = torch.linspace(-grid_scale, grid_scale, grid)
        patch = torch.stack(torch.meshgrid(side, side, indexing="ij"), dim=-1).reshape(grid * grid, 2)
        self.register_buffer("patch", patch, persistent=False)

    def forward(self, partial: Tensor) -> Completion:
        """Complete ``partial (B, N, 3)``, network frame."""
        code = self.encoder(partial)  # (B, code)
        hidden = F.relu(self.decoder.fc1(code))
        hidden = F.relu(self.decoder.fc2(hidden))
        coarse = self.decoder.fc3(hidden).reshape(-1, self.num_coarse, 3)
        return Completion((coarse, self._fold(coarse, code)))

    def _fold(self, coarse: Tensor, code: Tensor) -> Tensor:
        """Move a small patch around every coarse point; ``(B, C, 3)``, ``(B, code)`` -> ``(B, C · grid², 3)``."""
        first = self.decoder.conv1
        of_grid, of_point, of_code = first.weight.split([2, 3, code.shape[1]], dim=1)
        hidden = (
            F.linear(coarse, of_point)[:, :, None]  # (B, C, 1, H)
            + F.linear(self.patch, of_grid)[None, None]  # (1, 1, grid², H)
            + F.linear(code, of_code, first.bias)[:, None, None]  # (B, 1, 1, H)
        )
        hidden = F.relu(hidden)
        hidden = F.relu(self.decoder.conv2(hidden))  # (B, C, grid², H)
        offsets = self.decoder.conv3(hidden)
        return (coarse[:, :, None] + offsets).flatten(1, 2)


class _Encoder(nn.Module):
    """Two PointNet layers: ``(B, N, 3)`` -> global feature ``(B, encoder_channels[-1])``."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        c1, c2, c3, c4 = channels
        self.conv1 = nn.Linear(3, c1)
        self.conv2 = nn.Linear(c1, c2)
        self.conv3 = nn.Linear(2 * c2, c3)
        self.conv4 = nn.Linear(c3, c4)

    def forward(self, points: Tensor) -> Tensor:
        features = self.conv2(F.relu(self.conv1(points)))  # (B, N, c2)
        pooled = features.amax(dim=1)  # (B, c2)
        of_point, of_pooled = self.conv3.weight.chunk(2, dim=1)
        hidden = F.linear(features, of_point) + F.linear(pooled, of_pooled, self.conv3.bias)[:, None]
        return _linear_then_max(F.relu(hidden), self.conv4)


class _Decoder(nn.Module):
    """The layers of the coarse decoder (fc1-3) and of the folding (conv1-3), named as MVP_Benchmark names them."""

    def __init__(self, code: int, hidden: int, coarse: int, folding: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(code, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden, coarse)
        self.conv1 = nn.Linear(2 + 3 + code, folding)
        self.conv2 = nn.Linear(folding, folding)
        self.conv3 = nn.Linear(folding, 3)


def _linear_then_max(hidden: Tensor, layer: nn.Linear) -> Tensor:
    """``layer(hidden).max(dim=1)``: ``(B, N, C)`` -> ``(B, D)``.

    Only one point a channel receives a gradient, so the full product is formed without autograd, and the D winning
    points a cloud are computed again with it.
    """
    if not torch.is_grad_enabled():
        return F.linear(hidden, layer.weight).amax(dim=1) + layer.bias
    with torch.no_grad():
        winner = torch.matmul(layer.weight, hidden.transpose(1, 2)).argmax(dim=2)  # (B, D)
    batch, channels = winner.shape
    rows = winner + hidden.shape[1] * torch.arange(batch, device=hidden.device)[:, None]
    winning = hidden.flatten(0, 1).index_select(0, rows.flatten()).view(batch, channels, -1)  # (B, D, C)
    return (winning * layer.weight).sum(dim=2) + layer.bias
