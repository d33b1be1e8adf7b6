"""PCN: Point Completion Network (Yuan et al., 3DV 2018), coarse and fine.

The function is the paper's, without batch norm as in the authors' code, so a cloud's completion does not depend on its
batch; PoinTr's variant with batch norm is a parameter. Three rewritings make it cheaper and change no value: a layer
applied to ``concat(per-point, global)`` is computed as ``W_point · x + W_global · g`` with the second product once a
cloud; the folding grid's part once for all clouds; and the encoder's last layer is differentiated only at the points
that win its maximum, since no other gets a gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from completion.networks._rename import columns, halves_swapped, points_first, pointwise, renamed
from completion.networks.interface import Completion, CompletionNetwork, Published, StateDict

_POINTR_ENCODER = {
    "first_conv.0": "encoder.conv1",
    "first_conv.1": "encoder.norm1",
    "first_conv.3": "encoder.conv2",
    "second_conv.0": "encoder.conv3",
    "second_conv.1": "encoder.norm3",
    "second_conv.3": "encoder.conv4",
}


def encoder_from_pointr(state: StateDict, others: Mapping[str, str]) -> StateDict:
    """PoinTr's names of :class:`PointEncoder`, in its PCN, TopNet and FoldingNet alike, and ``others``, into ours."""
    state = renamed(pointwise(state), {**_POINTR_ENCODER, **others})
    return halves_swapped(state, "encoder.conv3.weight")  # it reads (pooled, features) there, (features, pooled) here


def _from_pointr(state: StateDict) -> StateDict:
    state = encoder_from_pointr(
        state,
        {
            "mlp.0": "decoder.fc1",
            "mlp.2": "decoder.fc2",
            "mlp.4": "decoder.fc3",
            "final_conv.0": "decoder.conv1",
            "final_conv.1": "decoder.norm1",
            "final_conv.3": "decoder.conv2",
            "final_conv.4": "decoder.norm2",
            "final_conv.6": "decoder.conv3",
        },
    )
    # There the folding reads (code, patch v, patch u, point); here (patch u, patch v, point, code).
    return columns(state, "decoder.conv1.weight", (-1, 1, 1, 3), (2, 1, 3, 0))


def _from_mvp(state: StateDict) -> StateDict:
    return points_first(pointwise(state), "decoder.fc3")


class PCN(CompletionNetwork):
    """Coarse-to-fine completion. Defaults are the published widths: 6,861,059 parameters, 16,384 points.

    Other sizes: 2048, 4096 and 8192 points are ``num_coarse`` 1024 with ``grid`` (2, 1), 2 and (2, 4).

    Args:
        num_coarse: points of the coarse cloud.
        grid: points of the folded patch a side: one number for a square, or (rows, columns). The output has
            ``num_coarse · rows · columns`` points.
        grid_scale: half the edge of the folded patch, network units.
        encoder_channels: widths of the encoder's four point-wise layers.
        decoder_channels: width of the two hidden layers of the coarse decoder.
        folding_channels: width of the two hidden layers of the folding decoder.
        batch_norm: normalise the hidden layers of encoder and folding over the batch, as PoinTr's PCN does.
    """

    tiny = {  # noqa: RUF012
        "num_coarse": 16,
        "grid": 2,
        "encoder_channels": (8, 12, 16, 20),
        "decoder_channels": 16,
        "folding_channels": 12,
    }
    published = {  # noqa: RUF012
        "mvp": Published(
            parameters={"num_coarse": 1024, "grid": (2, 1)},
            source="paul007pl/MVP_Benchmark 524238ef, completion/models/pcn.py",
            input_points=2048,
            rename=_from_mvp,
        ),
        "pointr": Published(
            parameters={"batch_norm": True},
            source="yuxumin/PoinTr 70a2918e, models/PCN.py; cfgs/PCN_models/PCN.yaml",
            input_points=2048,
            rename=_from_pointr,
        ),
    }
    patch: Tensor

    def __init__(
        self,
        num_coarse: int = 1024,
        grid: int | Sequence[int] = 4,
        grid_scale: float = 0.05,
        encoder_channels: Sequence[int] = (128, 256, 512, 1024),
        decoder_channels: int = 1024,
        folding_channels: int = 512,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        rows, cols = (grid, grid) if isinstance(grid, int) else grid
        self.num_coarse = num_coarse
        self.output_points = num_coarse * rows * cols
        code = encoder_channels[-1]
        self.encoder = PointEncoder(encoder_channels, batch_norm)
        self.decoder = _Decoder(code, decoder_channels, 3 * num_coarse, folding_channels, batch_norm)
        # A side of one point lies at -grid_scale, not in the middle: published weights have learnt it so.
        sides = [torch.linspace(-grid_scale, grid_scale, count) for count in (rows, cols)]
        patch = torch.stack(torch.meshgrid(*sides, indexing="ij"), dim=-1).reshape(rows * cols, 2)
        self.register_buffer("patch", patch, persistent=False)

    def forward(self, partial: Tensor) -> Completion:
        """Complete ``partial (B, N, 3)``, network frame."""
        code = self.encoder(partial)  # (B, code)
        hidden = F.relu(self.decoder.fc1(code))
        hidden = F.relu(self.decoder.fc2(hidden))
        coarse = self.decoder.fc3(hidden).reshape(-1, self.num_coarse, 3)
        return Completion((coarse, self._fold(coarse, code)))

    def _fold(self, coarse: Tensor, code: Tensor) -> Tensor:
        """Move a small patch around every coarse point; ``(B, C, 3)``, ``(B, code)`` -> ``(B, C · P, 3)``."""
        first = self.decoder.conv1
        of_grid, of_point, of_code = first.weight.split([2, 3, code.shape[1]], dim=1)
        hidden = (
            F.linear(coarse, of_point)[:, :, None]  # (B, C, 1, H)
            + F.linear(self.patch, of_grid)[None, None]  # (1, 1, P, H)
            + F.linear(code, of_code, first.bias)[:, None, None]  # (B, 1, 1, H)
        )
        hidden = F.relu(normalised(self.decoder.norm1, hidden))
        hidden = F.relu(normalised(self.decoder.norm2, self.decoder.conv2(hidden)))  # (B, C, P, H)
        offsets = self.decoder.conv3(hidden)
        return (coarse[:, :, None] + offsets).flatten(1, 2)


class PointEncoder(nn.Module):
    """PCN's encoder, two PointNet layers: ``(B, N, 3)`` -> global feature ``(B, channels[-1])``.

    TopNet, ECG and PoinTr's FoldingNet begin with it too.

    Args:
        channels: widths of the four point-wise layers.
        batch_norm: normalise the first and third.
    """

    def __init__(self, channels: Sequence[int], batch_norm: bool = False) -> None:
        super().__init__()
        c1, c2, c3, c4 = channels
        self.conv1 = nn.Linear(3, c1)
        self.conv2 = nn.Linear(c1, c2)
        self.conv3 = nn.Linear(2 * c2, c3)
        self.conv4 = nn.Linear(c3, c4)
        self.norm1 = nn.BatchNorm1d(c1) if batch_norm else None
        self.norm3 = nn.BatchNorm1d(c3) if batch_norm else None

    def forward(self, points: Tensor) -> Tensor:
        features = self.conv2(F.relu(normalised(self.norm1, self.conv1(points))))  # (B, N, c2)
        pooled = features.amax(dim=1)  # (B, c2)
        of_point, of_pooled = self.conv3.weight.chunk(2, dim=1)
        hidden = F.linear(features, of_point) + F.linear(pooled, of_pooled, self.conv3.bias)[:, None]
        return _linear_then_max(F.relu(normalised(self.norm3, hidden)), self.conv4)


class _Decoder(nn.Module):
    """The layers of the coarse decoder (fc1-3) and of the folding (conv1-3), named as MVP_Benchmark names them."""

    def __init__(self, code: int, hidden: int, coarse: int, folding: int, batch_norm: bool) -> None:
        super().__init__()
        self.fc1 = nn.Linear(code, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden, coarse)
        self.conv1 = nn.Linear(2 + 3 + code, folding)
        self.conv2 = nn.Linear(folding, folding)
        self.conv3 = nn.Linear(folding, 3)
        self.norm1 = nn.BatchNorm1d(folding) if batch_norm else None
        self.norm2 = nn.BatchNorm1d(folding) if batch_norm else None


def normalised(norm: nn.Module | None, values: Tensor) -> Tensor:
    """Batch norm over all but the last axis of ``(..., C)``, where there is one."""
    return values if norm is None else norm(values.flatten(0, -2)).view_as(values)


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
