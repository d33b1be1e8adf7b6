"""ECG: edge-aware point cloud completion with graph convolution (Pan, RA-L 2020), as MVP_Benchmark has it.

A PCN-like first half makes a coarse skeleton; the second half joins skeleton and observation, finds edge-aware
features by graph convolutions in feature space, sampling and interpolation, and moves every joined point to its place.

The published code is followed in evaluation mode up to rounding; where it calls compiled extensions,
:mod:`completion.points` stands in (farthest points, neighbours, inverse-distance interpolation), with ties decided.
Its loss's uniformity term is not part of a network and so not here. These rewritings change no value: the linear
layers of an edge ``(x_i, x_j − x_i)`` are computed once a point and gathered, not once an edge; a linear layer on
interpolated features is computed before the interpolation, at fewer points; ``concat(per-point, global)`` as in PCN.
Neighbours in feature space come from the matrix product, there as here.

Clouds of any size go in. The joined cloud must reach the output's size; where the observation is too small for that,
it is repeated whole, and the coinciding points part in nothing but the farthest-point selection of the output.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from completion.networks._rename import points_first, pointwise, renamed
from completion.networks.interface import Completion, CompletionNetwork, Published, StateDict
from completion.networks.pcn import PointEncoder
from completion.points import farthest_points, gather_points, group, knn, three_interpolate


def _from_mvp(state: StateDict) -> StateDict:
    names = {"decoder.encoder.gf_conv": "refiner.pool", "decoder.expansion": "expansion"}
    names |= {f"decoder.conv{i}": f"head.conv{i}" for i in (1, 2)}
    names |= {f"decoder.encoder.fc{i}": f"refiner.fc{i}" for i in (1, 2)}
    for i in range(4):
        theirs, ours = f"decoder.encoder.dense_conv{i + 1}", f"refiner.edges.{i}"
        names[f"decoder.encoder.conv{i + 1}"] = f"refiner.down.{i}"
        names[f"decoder.encoder.conv{i + 5}"] = f"refiner.up.{i}"
        names[f"{theirs}.first_conv"] = f"{ours}.first"
        names[f"{theirs}.model.stack_conv_1.model.conv"] = f"{ours}.second"
        names[f"{theirs}.model.stack_conv_2.model.conv"] = f"{ours}.third"
    return points_first(renamed(pointwise(state), names), "decoder.fc3")


class ECG(CompletionNetwork):
    """Skeleton, then edge-aware refinement. Defaults are MVP_Benchmark's at 2048 points: 14,195,987 parameters.

    Args:
        output_points: of the fine cloud.
        num_coarse: points of the skeleton.
        input_points: observed points that the refinement counts on: with the skeleton they are multiplied by
            ``ceil(output_points / (num_coarse + input_points))``, and farthest points bring the result to size.
        encoder_channels: widths of the first half's encoder.
        decoder_channels: width of the two hidden layers that make the skeleton.
        hierarchy: points of the three sampled levels.
        growth: features that every layer of a graph convolution adds.
        neighbours: k of the graph.
        code_channels: width of the refinement's global code, and of the layer that squeezes it.
        up_channels: widths on the way back from the coarsest level to the points.
        head_channels: width of the last hidden layer.
    """

    tiny = {  # noqa: RUF012
        "output_points": 96,
        "num_coarse": 16,
        "input_points": 64,
        "encoder_channels": (8, 12, 16, 20),
        "decoder_channels": 16,
        "hierarchy": (32, 16, 8),
        "growth": 4,
        "neighbours": 4,
        "code_channels": (16, 12),
        "up_channels": (20, 16, 12, 12),
        "head_channels": 8,
    }
    published = {  # noqa: RUF012
        "mvp": Published(
            parameters={},
            source="paul007pl/MVP_Benchmark 524238ef, completion/models/ecg.py; utils/model_utils.py",
            input_points=2048,
            rename=_from_mvp,
        ),
    }

    def __init__(
        self,
        output_points: int = 2048,
        num_coarse: int = 1024,
        input_points: int = 2048,
        encoder_channels: Sequence[int] = (128, 256, 512, 1024),
        decoder_channels: int = 1024,
        hierarchy: Sequence[int] = (1024, 256, 64),
        growth: int = 24,
        neighbours: int = 16,
        code_channels: Sequence[int] = (1024, 512),
        up_channels: Sequence[int] = (1024, 768, 512, 256),
        head_channels: int = 64,
    ) -> None:
        super().__init__()
        self.output_points, self.num_coarse = output_points, num_coarse
        self.copies = math.ceil(output_points / (num_coarse + input_points))
        self.encoder = PointEncoder(encoder_channels)
        self.decoder = nn.ModuleDict(
            {
                "fc1": nn.Linear(encoder_channels[-1], decoder_channels),
                "fc2": nn.Linear(decoder_channels, decoder_channels),
                "fc3": nn.Linear(decoder_channels, 3 * num_coarse),
            }
        )
        self.refiner = _Refiner(hierarchy, growth, neighbours, code_channels, up_channels)
        dense = up_channels[-1]
        self.expansion = _Expansion(dense, head_channels, self.copies) if self.copies > 1 else None
        self.head = nn.ModuleDict(
            {
                "conv1": nn.Linear(head_channels if self.copies > 1 else dense, head_channels),
                "conv2": nn.Linear(head_channels, 3),
            }
        )

    def forward(self, partial: Tensor) -> Completion:
        """Complete ``partial (B, N, 3)``, network frame."""
        hidden = F.relu(self.decoder["fc1"](self.encoder(partial)))  # (B, decoder_channels)
        hidden = F.relu(self.decoder["fc2"](hidden))
        coarse = self.decoder["fc3"](hidden).view(-1, self.num_coarse, 3)
        wanted = math.ceil(self.output_points / self.copies) - self.num_coarse
        repeats = max(1, math.ceil(wanted / partial.shape[1]))
        joined = torch.cat([coarse, partial.repeat(1, repeats, 1)], dim=1)  # (B, P, 3)
        features = self.refiner(joined)  # (B, P, up_channels[-1])
        if self.expansion is not None:
            features = self.expansion(features)  # (B, P · copies, head_channels)
        fine = self.head["conv2"](F.relu(self.head["conv1"](features)))  # (B, P · copies, 3)
        if fine.shape[1] > self.output_points:
            fine = gather_points(fine, farthest_points(fine.detach(), self.output_points))
        return Completion((coarse, fine))


class _Refiner(nn.Module):
    """Edge-aware features of every point: ``(B, P, 3)`` -> ``(B, P, up_channels[-1])``."""

    def __init__(
        self,
        hierarchy: Sequence[int],
        growth: int,
        neighbours: int,
        code_channels: Sequence[int],
        up_channels: Sequence[int],
    ) -> None:
        super().__init__()
        self.hierarchy, self.neighbours = tuple(hierarchy), neighbours
        widths = [growth, *[2 * growth] * len(hierarchy)]  # what a level's graph convolution reads
        features = [5 * growth]  # what a level hands on
        for _ in hierarchy:
            features.append(2 * features[-1] + 5 * growth)
        self.down = nn.ModuleList(
            nn.Linear(i, o) for i, o in zip([3, *(2 * width for width in features[:-1])], widths, strict=True)
        )
        self.edges = nn.ModuleList(_GraphConvolution(width, growth, neighbours) for width in widths)
        code, squeezed = code_channels
        self.pool = nn.Linear(features[-1], code)
        self.fc1 = nn.Linear(code, squeezed)
        self.fc2 = nn.Linear(squeezed, code)
        below = [code, *up_channels[:-1]]
        self.up = nn.ModuleList(
            nn.Linear(own + other, width)
            for own, other, width in zip(reversed(features), below, up_channels, strict=True)
        )

    def forward(self, points: Tensor) -> Tensor:
        hidden = F.relu(self.down[0](points))  # (B, P, growth)
        features = [torch.cat([F.relu(self.edges[0](hidden)), hidden], dim=2)]  # (B, P, 5 · growth)
        clouds = [points.detach()]
        for count, down, edges in zip(self.hierarchy, self.down[1:], self.edges[1:], strict=True):
            sampled, cloud = self._sample(features[-1], clouds[-1], count)  # (B, count, 2 F)
            hidden = F.relu(edges(F.relu(down(sampled))))
            features.append(torch.cat([hidden, sampled], dim=2))
            clouds.append(cloud)
        code = self.pool(features[-1]).amax(dim=1)  # (B, code)
        code = F.relu(self.fc2(F.relu(self.fc1(code))))
        last = self.up[0]
        assert isinstance(last, nn.Linear)
        of_code, of_point = last.weight.split([code.shape[1], features[-1].shape[2]], dim=1)
        hidden = F.linear(features[-1], of_point) + F.linear(code, of_code, last.bias)[:, None]
        levels = list(zip(features, clouds, strict=True))
        for up, ((_, coarse), (own, cloud)) in zip(self.up[1:], itertools.pairwise(reversed(levels)), strict=True):
            hidden = F.relu(hidden)  # (B, S, H) at the coarser cloud
            assert isinstance(up, nn.Linear)
            of_own, of_coarse = up.weight.split([own.shape[2], hidden.shape[2]], dim=1)
            spread = three_interpolate(F.linear(hidden, of_coarse), coarse, cloud, power=1)
            hidden = F.linear(own, of_own, up.bias) + spread  # (B, larger S, H)
        return hidden

    def _sample(self, features: Tensor, points: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Edge-preserved pooling: farthest points keep their features and add the maxima of their neighbourhoods."""
        index = farthest_points(points, count)
        cloud = gather_points(points, index)
        near = knn(points, cloud, min(self.neighbours, points.shape[1]))
        pooled = group(features, near).max(dim=2).values
        return torch.cat([gather_points(features, index), pooled], dim=2), cloud


class _GraphConvolution(nn.Module):
    """Three densely joined layers on the edges to the nearest features: ``(B, P, C)`` -> ``(B, P, C + 3 growth)``."""

    def __init__(self, channels: int, growth: int, neighbours: int) -> None:
        super().__init__()
        self.neighbours, self.growth = neighbours, growth
        self.first = nn.Linear(2 * channels, growth)
        self.second = nn.Linear(growth + channels, growth)
        self.third = nn.Linear(2 * growth + channels, growth)

    def forward(self, features: Tensor) -> Tensor:
        channels, growth = features.shape[2], self.growth
        index = knn(features, features, min(self.neighbours, features.shape[1]))  # (B, P, k)
        of_self, of_offset = self.first.weight.chunk(2, dim=1)
        own = F.linear(features, of_self - of_offset, self.first.bias)
        first = F.relu(group(F.linear(features, of_offset), index) + own[:, :, None])  # (B, P, k, growth)
        of_first, of_self = self.second.weight.split([growth, channels], dim=1)
        own = F.linear(features, of_self, self.second.bias)
        second = F.relu(F.linear(first, of_first) + own[:, :, None])  # (B, P, k, growth)
        of_first, of_self, of_second = self.third.weight.split([growth, channels, growth], dim=1)
        third = (F.linear(first, of_first) + F.linear(second, of_second)).max(dim=2).values
        third = third + F.linear(features, of_self, self.third.bias)  # (B, P, growth)
        return torch.cat([first.max(dim=2).values, features, second.max(dim=2).values, third], dim=2)


class _Expansion(nn.Module):
    """Several points of each, by the features of its neighbourhood: ``(B, P, C)`` -> ``(B, P · copies, channels)``."""

    def __init__(self, features: int, channels: int, copies: int, neighbours: int = 4) -> None:
        super().__init__()
        self.channels, self.copies, self.neighbours = channels, copies, neighbours
        self.conv1 = nn.Linear(2 * features, channels)
        self.conv2 = nn.Linear(channels + 2 * features, channels * copies)
        self.conv3 = nn.Linear(channels, channels)

    def forward(self, features: Tensor) -> Tensor:
        batch, points, width = features.shape
        index = knn(features, features, min(self.neighbours, points))  # (B, P, k)
        of_self, of_near = self.conv1.weight.chunk(2, dim=1)
        edges = group(F.linear(features, of_near), index) + F.linear(features, of_self, self.conv1.bias)[:, :, None]
        of_edge, of_self, of_near = self.conv2.weight.split([self.channels, width, width], dim=1)
        own, bent = F.relu(edges), F.relu(features)
        hidden = (
            F.linear(own, of_edge)  # (B, P, k, channels · copies)
            + group(F.linear(bent, of_near), index)
            + F.linear(bent, of_self, self.conv2.bias)[:, :, None]
        )
        hidden = F.relu(hidden).view(batch, points, -1, self.copies, self.channels)
        return self.conv3(hidden).max(dim=2).values.flatten(1, 2)
