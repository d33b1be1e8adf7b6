"""SnowflakeNet: completion by snowflake point deconvolution with skip-transformers (Xiang et al., ICCV 2021).

An encoder of set abstractions and point transformers gives the cloud's code; from it grow seeds, which are joined with
the observation and thinned to P0; each deconvolution then splits every point into children, led by the displacement
features of the split before.

Where this differs from the published code in evaluation: farthest point sampling is exact (the compiled extension
passes by points within 0.032 of the origin), and ties among neighbours go to the lowest index. What is computed in
another order changes no value: layers on concatenations are split by their inputs, so that the part that is the same
for a cloud, for a group or for the children of one point is computed once, and since the weights of an attention add
up to one, a point's own value is added after it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from completion.networks._rename import pointwise
from completion.networks._transformer import batch_norm, neighbours, unused
from completion.networks.interface import Completion, CompletionNetwork, Published, StateDict
from completion.points import farthest_points, gather_points, group


def _from_published(state: StateDict) -> StateDict:
    # A split into one child has a kernel of size one as well, but is no pointwise convolution.
    return {**pointwise(state), **{name: value for name, value in state.items() if name.endswith(".ps.weight")}}


class SnowflakeNet(CompletionNetwork):
    """Snowflake point deconvolution. Defaults are published (PCN): 16,384 points, 19,320,812 parameters.

    ``output_points = seed_points · the product of up_factors``, ``seed_points`` being ``num_p0``: with 512 the factors
    (1, 2, 2), (1, 2, 4), (1, 4, 4), (1, 4, 8) give 2048, 4096, 8192, 16384. Published are (1, 4, 8) for PCN and
    (1, 2, 2) for Completion3D.

    Stages, as the published loss takes them: the seeds ``(B, num_pc, 3)``, then what each deconvolution gives.

    Args:
        up_factors: children of every point, one number a deconvolution.
        num_pc: seeds.
        num_p0: points of seeds and observation together that the first deconvolution starts from.
        code: width of the cloud's code.
        encoder_points: points after the first two set abstractions. From a smaller cloud points are taken repeatedly.
        encoder_channels: widths of the two layers of the first and second abstraction, and of the third's first.
        channels: width of seeds and points in the decoder, a multiple of 4; the layers between have a half, a quarter,
            or twice of it.
        attention: width of the keys, queries and values.
        attention_factor: hidden width of the attention's MLP over ``attention``.
        position_hidden: of the embedding of relative positions.
        k: neighbours of set abstractions and attentions.
        radius: deconvolution i moves a child by less than ``radius**-i`` an axis, network units.
        bounding: whether it is so bounded.
    """

    tiny = {  # noqa: RUF012
        "up_factors": (1, 2, 2),
        "num_pc": 16,
        "num_p0": 32,
        "code": 24,
        "encoder_points": (32, 16),
        "encoder_channels": (8, 12, 12, 16, 16),
        "channels": 16,
        "attention": 8,
        "attention_factor": 2,
        "position_hidden": 8,
        "k": 8,
    }
    published = {  # noqa: RUF012
        "snowflakenet": Published(
            parameters={},
            source="AllenXiangX/SnowflakeNet 87e0e69 models/model_completion.py, completion/configs/pcn_cd1.yaml",
            input_points=2048,
            rename=_from_published,
        ),
        "pointr": Published(
            parameters={},
            source="yuxumin/PoinTr 8f1fede models/SnowFlakeNet.py, cfgs/PCN_models/SnowFlakeNet.yaml",
            input_points=2048,
            rename=_from_published,
        ),
    }

    def __init__(
        self,
        up_factors: Sequence[int] = (1, 4, 8),
        num_pc: int = 256,
        num_p0: int = 512,
        code: int = 512,
        encoder_points: Sequence[int] = (512, 128),
        encoder_channels: Sequence[int] = (64, 128, 128, 256, 512),
        channels: int = 128,
        attention: int = 64,
        attention_factor: int = 4,
        position_hidden: int = 64,
        k: int = 16,
        radius: float = 1.0,
        bounding: bool = True,
    ) -> None:
        super().__init__()
        if channels % 4:
            raise ValueError(f"channels must be a multiple of 4, got {channels}")
        self.output_points = num_p0
        for factor in up_factors:
            self.output_points *= factor
        widths = (attention, attention * attention_factor, position_hidden)
        self.feat_extractor = _Encoder(encoder_points, (*encoder_channels, code), widths, k)
        bounds = [radius**-i if bounding else None for i in range(len(up_factors))]
        splits = (
            _Deconvolution(code, channels, factor, bound, widths, k)
            for factor, bound in zip(up_factors, bounds, strict=True)
        )
        self.decoder = nn.ModuleDict(
            {"decoder_coarse": _Seeds(code, channels, num_pc), "uppers": nn.ModuleList(splits)}
        )
        self.num_p0 = num_p0

    def forward(self, partial: Tensor) -> Completion:
        """Complete ``partial (B, N, 3)``, network frame."""
        code = self.feat_extractor(partial)  # (B, code)
        seeds = self.decoder["decoder_coarse"](code).to(partial.dtype)  # (B, num_pc, 3)
        joined = torch.cat([seeds, partial], dim=1)  # (B, num_pc + N, 3)
        points = gather_points(joined, farthest_points(joined, self.num_p0))  # (B, num_p0, 3)
        stages, displacement = [seeds], None
        for upper in cast(nn.ModuleList, self.decoder["uppers"]):
            points, displacement = upper(points, code, displacement)  # (B, M · factor, 3), (B, M · factor, channels)
            stages.append(points)
        return Completion(tuple(stages))


def _joint(layer: nn.Linear, *parts: Tensor) -> Tensor:
    """``layer(concat(*parts))`` of parts whose shapes agree by broadcasting but for the last axis."""
    weights = layer.weight.split([part.shape[-1] for part in parts], dim=1)
    total = F.linear(parts[0], weights[0], layer.bias)
    for part, weight in zip(parts[1:], weights[1:], strict=True):
        total = total + F.linear(part, weight)
    return total


class _Residual(nn.Module):
    """A hidden layer with a linear shortcut around it, on the concatenation of its inputs."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.conv_1 = nn.Linear(width, hidden)
        self.conv_2 = nn.Linear(hidden, out)
        self.conv_shortcut = nn.Linear(width, out)

    def forward(self, *parts: Tensor) -> Tensor:
        return self.conv_2(F.relu(_joint(self.conv_1, *parts))) + _joint(self.conv_shortcut, *parts)


class _Layers(nn.Module):
    """Linear layers with ReLU between, numbered as published; the first on the concatenation of its inputs."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.mlp = nn.Sequential(*layers[:-1])

    def forward(self, *parts: Tensor) -> Tensor:
        return self.mlp[1:](_joint(cast(nn.Linear, self.mlp[0]), *parts))


class _Convolution(nn.Module):
    """A linear layer, with the batch norm that the published module holds beside it and does not apply."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Linear(width, out)
        self.bn = nn.BatchNorm1d(out)
        unused(self.bn)


class _SetAbstraction(nn.Module):
    """Features of groups of neighbours around farthest points, or of the whole cloud."""

    def __init__(self, width: int, hidden: int, out: int, count: int | None, k: int) -> None:
        super().__init__()
        self.count, self.k = count, k
        self.mlp_conv = nn.ModuleList([_Convolution(3 + width, hidden), _Convolution(hidden, out)])

    def forward(self, points: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, N, 3)``, ``(B, N, C)`` -> centres ``(B, count, 3)``, features ``(B, count, D)``.

        With ``count`` None the cloud is one group: features ``(B, D)``.
        """
        first, last = (cast(_Convolution, layer).conv for layer in self.mlp_conv)
        of_point = _joint(first, points, features)  # (B, N, hidden)
        if self.count is None:
            return points, last(F.relu(of_point)).amax(dim=1)
        centres = gather_points(points, farthest_points(points, self.count))
        # The groups' points are taken relative to their centre: the centre's share is subtracted after the grouping.
        of_centre = F.linear(centres, first.weight[:, :3])
        hidden = group(of_point, neighbours(points, centres, self.k)) - of_centre[:, :, None]  # (B, count, k, hidden)
        return centres, last(F.relu(hidden)).max(dim=2).values


class _Encoder(nn.Module):
    def __init__(self, points: Sequence[int], channels: Sequence[int], attention: tuple[int, int, int], k: int) -> None:
        super().__init__()
        c = channels
        self.sa_module_1 = _SetAbstraction(3, c[0], c[1], points[0], k)
        self.transformer_1 = _PointTransformer(c[1], attention, k)
        self.sa_module_2 = _SetAbstraction(c[1], c[2], c[3], points[1], k)
        self.transformer_2 = _PointTransformer(c[3], attention, k)
        self.sa_module_3 = _SetAbstraction(c[3], c[4], c[5], None, k)

    def forward(self, points: Tensor) -> Tensor:
        """``(B, N, 3)`` -> ``(B, code)``."""
        points, features = self.sa_module_1(points, points)  # (B, 512, 3), (B, 512, 128)
        features = self.transformer_1(points, features)
        points, features = self.sa_module_2(points, features)  # (B, 128, 3), (B, 128, 256)
        features = self.transformer_2(points, features)
        return self.sa_module_3(points, features)[1]


class _Attention(nn.Module):
    """Vector attention of points to their neighbours, with relative positions."""

    def __init__(self, width: int, inner: int, widths: tuple[int, int, int], k: int) -> None:
        super().__init__()
        _, hidden, position = widths
        self.k = k
        self.conv_key = nn.Linear(width, inner)
        self.conv_query = nn.Linear(width, inner)
        self.conv_value = nn.Linear(width, inner)
        self.pos_mlp = _norm_layers(3, position, inner)
        self.attn_mlp = _norm_layers(inner, hidden, inner)

    def attend(self, points: Tensor, key: Tensor, query: Tensor, value: Tensor) -> Tensor:
        """``(B, N, 3)``, ``(B, N, C)`` three times -> ``(B, N, inner)``."""
        index = neighbours(points, points, self.k)  # (B, N, k)
        relative = points[:, :, None] - group(points, index)  # (B, N, k, 3)
        position = _through(self.pos_mlp, relative)  # (B, N, k, inner)
        difference = self.conv_query(query)[:, :, None] - group(self.conv_key(key), index)
        weight = _through(self.attn_mlp, difference + position).softmax(dim=2)
        return self.conv_value(value) + (weight * position).sum(dim=2)


class _PointTransformer(_Attention):
    def __init__(self, width: int, widths: tuple[int, int, int], k: int) -> None:
        super().__init__(widths[0], widths[0], widths, k)
        self.linear_start = nn.Linear(width, widths[0])
        self.linear_end = nn.Linear(widths[0], width)

    def forward(self, points: Tensor, features: Tensor) -> Tensor:
        """``(B, N, 3)``, ``(B, N, C)`` -> ``(B, N, C)``."""
        inner = self.linear_start(features)
        return features + self.linear_end(self.attend(points, inner, inner, inner))


class _SkipTransformer(_Attention):
    def __init__(self, width: int, widths: tuple[int, int, int], k: int) -> None:
        super().__init__(width, widths[0], widths, k)
        self.mlp_v = _Residual(2 * width, width, width)
        self.conv_end = nn.Linear(widths[0], width)

    def forward(self, points: Tensor, key: Tensor, query: Tensor) -> Tensor:
        """``(B, N, 3)``, ``(B, N, C)`` twice -> ``(B, N, C)``."""
        value = self.mlp_v(key, query)
        return value + self.conv_end(self.attend(points, key, query, value))


class _Seeds(nn.Module):
    """The code is split into seeds."""

    def __init__(self, code: int, channels: int, count: int) -> None:
        super().__init__()
        self.ps = nn.ConvTranspose1d(code, channels, count)
        self.mlp_1 = _Residual(channels + code, channels, channels)
        self.mlp_2 = _Residual(channels, channels // 2, channels)
        self.mlp_3 = _Residual(channels + code, channels, channels)
        self.mlp_4 = nn.Sequential(nn.Linear(channels, channels // 2), nn.ReLU(), nn.Linear(channels // 2, 3))

    def forward(self, code: Tensor) -> Tensor:
        """``(B, code)`` -> ``(B, count, 3)``."""
        whole = code[:, None]  # (B, 1, code)
        seeds = self.ps(code[:, :, None]).transpose(1, 2)  # (B, count, channels)
        seeds = self.mlp_2(self.mlp_1(seeds, whole))
        return self.mlp_4(self.mlp_3(seeds, whole))


class _Deconvolution(nn.Module):
    """Snowflake point deconvolution: every point becomes ``factor`` children, displaced from it."""

    def __init__(
        self, code: int, channels: int, factor: int, bound: float | None, widths: tuple[int, int, int], k: int
    ) -> None:
        super().__init__()
        self.factor, self.bound = factor, bound
        half = channels // 2
        self.mlp_1 = _Layers(3, half, channels)
        self.mlp_2 = _Layers(2 * channels + code, 2 * channels, channels)
        self.skip_transformer = _SkipTransformer(channels, widths, k)
        self.mlp_ps = _Layers(channels, half, channels // 4)
        self.ps = nn.ConvTranspose1d(channels // 4, channels, factor, factor, bias=False)
        self.mlp_delta_feature = _Residual(2 * channels, channels, channels)
        self.mlp_delta = _Layers(channels, half, 3)

    def forward(self, points: Tensor, code: Tensor, displacement: Tensor | None) -> tuple[Tensor, Tensor]:
        """``(B, N, 3)``, ``(B, code)``, ``(B, N, channels)`` -> ``(B, N · factor, 3)``, ``(B, N · factor, channels)``.

        ``displacement`` are the features of the deconvolution before, None in the first.
        """
        own = self.mlp_1(points)  # (B, N, channels)
        query = self.mlp_2(own, own.amax(dim=1, keepdim=True), code[:, None])
        context = self.skip_transformer(points, query if displacement is None else displacement, query)
        split = self.ps.weight.permute(2, 1, 0).flatten(0, 1)  # (factor · channels, channels / 4)
        children = F.linear(self.mlp_ps(context), split).unflatten(2, (self.factor, -1))  # (B, N, factor, channels)
        features = self.mlp_delta_feature(children, context[:, :, None])
        offsets = self.mlp_delta(F.relu(features)).to(points.dtype)  # (B, N, factor, 3)
        if self.bound is not None:
            offsets = offsets.tanh() * self.bound
        return (points[:, :, None] + offsets).flatten(1, 2), features.flatten(1, 2)


def _norm_layers(width: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, out))


def _through(layers: nn.Sequential, edges: Tensor) -> Tensor:
    """Linear, batch norm over all edges, ReLU, linear: ``(B, N, k, C)`` -> ``(B, N, k, D)``."""
    return layers[3](F.relu(batch_norm(cast(nn.BatchNorm1d, layers[1]), layers[0](edges))))
