"""FoldingNet (Yang et al., CVPR 2018) as completion network: a flat grid, folded twice by the code of the cloud.

The paper is an autoencoder with a graph-based encoder; as completion network the field uses PoinTr's version, which
this is: PCN's encoder with batch norm, then the paper's two foldings, the first from the plane to space, the second
within space, both conditioned on the code. The code's share of each folding's first layer is computed once a cloud,
and the grid's once for all.

PoinTr's grid is square, so that it gives 8281 points when asked for 8192; here the grid has the most nearly square
rows and columns that give the number exactly (8281 are 91 × 91 here too).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from completion.networks.interface import Completion, CompletionNetwork, Published, StateDict
from completion.networks.pcn import PointEncoder, encoder_from_pointr, normalised


def _from_pointr(state: StateDict) -> StateDict:
    names: dict[str, str] = {}
    for folding in ("folding1", "folding2"):
        names |= {f"{folding}.{3 * i}": f"{folding}.conv{i + 1}" for i in range(3)}
        names |= {f"{folding}.{3 * i + 1}": f"{folding}.norm{i + 1}" for i in range(2)}
    return encoder_from_pointr(state, names)  # both foldings read (point, code) there as here


class FoldingNet(CompletionNetwork):
    """Two foldings of a grid. Defaults are PoinTr's: 2,407,430 parameters, 16,384 points.

    Args:
        output_points: points of the grid and so of the cloud.
        grid_scale: half the edge of the grid, network units.
        encoder_channels: widths of the encoder's four point-wise layers.
        folding_channels: width of the two hidden layers of each folding.
    """

    tiny = {  # noqa: RUF012
        "output_points": 64,
        "encoder_channels": (8, 12, 16, 20),
        "folding_channels": 12,
    }
    published = {  # noqa: RUF012
        "pointr": Published(
            parameters={},
            source="yuxumin/PoinTr 265c8ff2, models/FoldingNet.py; cfgs/PCN_models/FoldingNet.yaml",
            input_points=2048,
            rename=_from_pointr,
        ),
    }
    grid: Tensor

    def __init__(
        self,
        output_points: int = 16384,
        grid_scale: float = 0.5,
        encoder_channels: Sequence[int] = (128, 256, 512, 1024),
        folding_channels: int = 512,
    ) -> None:
        super().__init__()
        self.output_points = output_points
        self.encoder = PointEncoder(encoder_channels, batch_norm=True)
        self.folding1 = _Folding(2, encoder_channels[-1], folding_channels)
        self.folding2 = _Folding(3, encoder_channels[-1], folding_channels)
        rows = next(side for side in range(math.isqrt(output_points), 0, -1) if output_points % side == 0)
        sides = [torch.linspace(-grid_scale, grid_scale, count) for count in (rows, output_points // rows)]
        slow, fast = torch.meshgrid(*sides, indexing="ij")
        self.register_buffer("grid", torch.stack([fast, slow], dim=-1).reshape(-1, 2), persistent=False)  # (M, 2)

    def forward(self, partial: Tensor) -> Completion:
        """Complete ``partial (B, N, 3)``, network frame."""
        code = self.encoder(partial)  # (B, code)
        sheet = self.folding1(self.grid[None], code)  # (B, M, 3)
        return Completion((self.folding2(sheet, code),))


class _Folding(nn.Module):
    """``(B or 1, M, dimensions)`` moved by ``(B, code)`` -> ``(B, M, 3)``."""

    def __init__(self, dimensions: int, code: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Linear(dimensions + code, channels)
        self.conv2 = nn.Linear(channels, channels)
        self.conv3 = nn.Linear(channels, 3)
        self.norm1 = nn.BatchNorm1d(channels)
        self.norm2 = nn.BatchNorm1d(channels)

    def forward(self, points: Tensor, code: Tensor) -> Tensor:
        of_point, of_code = self.conv1.weight.split([points.shape[2], code.shape[1]], dim=1)
        hidden = F.linear(points, of_point) + F.linear(code, of_code, self.conv1.bias)[:, None]  # (B, M, H)
        hidden = F.relu(normalised(self.norm1, hidden))
        return self.conv3(F.relu(normalised(self.norm2, self.conv2(hidden))))
