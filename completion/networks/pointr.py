"""PoinTr: completion as set-to-set translation with geometry-aware transformers (Yu et al., ICCV 2021).

The cloud becomes point proxies (DGCNN), a transformer encodes them, a global feature proposes centres for what is
missing, the decoder turns each into a token, and a folding network grows a square patch around it. The observation is
kept: it is part of both clouds that come out.

Where this differs from the published code in evaluation: farthest point sampling is exact (the compiled extension
passes by points within 0.032 of the origin), and ties among neighbours go to the lowest index.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from completion.networks._rename import pointwise
from completion.networks._transformer import (
    Attention,
    CrossAttention,
    GraphGrouper,
    Mlp,
    batch_norm,
    concat_linear,
    graph_map,
    neighbours,
    norm_mlp,
    small_linears,
    through_norm,
    unused,
)
from completion.networks.interface import Completion, CompletionNetwork, Published
from completion.points import farthest_points, gather_points


class PoinTr(CompletionNetwork):
    """Geometry-aware transformer. Defaults are published (PCN, KITTI): 16,384 points, 42,498,054 parameters.

    ``output_points = num_query · fold_step² + appended``: 224 · 64 + 2048 = 16384, published for PCN and KITTI;
    96 · 64 + 2048 = 8192 (``num_query=96``), published for ShapeNet-55/34; 224 · 16 + 512 = 4096; 96 · 16 + 512 = 2048.

    Stages: the proposed centres and as many input points ``(B, 2 · num_query, 3)``; the patches and then the input.
    An input of ``appended`` points is appended as it is; of a larger one the farthest points, and a smaller one
    repeatedly, so that the output has one size whatever comes in.

    Args:
        num_query: centres around which patches are grown.
        fold_step: a patch is a folded square of ``fold_step``² points.
        appended: input points in the fine cloud.
        centres: points after each of the two samplings of the input.
        width: channels of the tokens.
        heads: of every attention; must divide ``width``.
        encoder_depth, decoder_depth: blocks.
        graph_blocks: the first blocks of encoder and decoder also look at each token's neighbours in space.
        k: neighbours there.
        mlp_ratio: hidden width of a block's MLP over ``width``.
        grouper_channels, grouper_k: widths (see :class:`GraphGrouper`) and neighbours of the DGCNN.
        hidden: of the layers around the global features, and the width of these.
        position_hidden: of the embedding of positions.
        folding_hidden: of the folding network's first layers; the second have half of it.
    """

    tiny = {  # noqa: RUF012
        "num_query": 16,
        "fold_step": 2,
        "appended": 64,
        "centres": (32, 16),
        "width": 16,
        "heads": 2,
        "encoder_depth": 2,
        "decoder_depth": 2,
        "k": 4,
        "grouper_channels": (4, 8, 8, 8, 16),
        "grouper_k": 8,
        "hidden": 24,
        "position_hidden": 8,
        "folding_hidden": 12,
    }
    published = {  # noqa: RUF012
        "pointr": Published(
            parameters={},
            source="yuxumin/PoinTr 8f1fede models/PoinTr.py, models/Transformer.py, cfgs/PCN_models/PoinTr.yaml",
            input_points=2048,
            rename=pointwise,
        )
    }

    def __init__(
        self,
        num_query: int = 224,
        fold_step: int = 8,
        appended: int = 2048,
        centres: Sequence[int] = (512, 128),
        width: int = 384,
        heads: int = 6,
        encoder_depth: int = 6,
        decoder_depth: int = 8,
        graph_blocks: int = 1,
        k: int = 8,
        mlp_ratio: float = 2.0,
        grouper_channels: Sequence[int] = (8, 32, 64, 64, 128),
        grouper_k: int = 16,
        hidden: int = 1024,
        position_hidden: int = 128,
        folding_hidden: int = 256,
    ) -> None:
        super().__init__()
        self.num_query, self.appended = num_query, appended
        self.output_points = num_query * fold_step**2 + appended
        self.base_model = _Transformer(
            GraphGrouper(centres, grouper_channels, grouper_k),
            nn.ModuleList(_EncoderBlock(width, heads, mlp_ratio, i < graph_blocks) for i in range(encoder_depth)),
            nn.ModuleList(_DecoderBlock(width, heads, mlp_ratio, i < graph_blocks) for i in range(decoder_depth)),
            num_query,
            k,
            (grouper_channels[-1], position_hidden, width, hidden),
        )
        self.foldingnet = _Folding(width, fold_step, folding_hidden)
        self.increase_dim = norm_mlp(width, hidden, hidden)
        self.reduce_map = nn.Linear(hidden + width + 3, width)

    def forward(self, partial: Tensor) -> Completion:
        """Complete ``partial (B, N, 3)``, network frame."""
        tokens, centres = self.base_model(partial)  # (B, Q, width), (B, Q, 3)
        whole = through_norm(self.increase_dim, tokens).amax(dim=1)  # (B, hidden)
        features = concat_linear(self.reduce_map, whole, tokens, centres)  # (B, Q, width)
        patches = centres[:, :, None] + self.foldingnet(features).to(centres.dtype)  # (B, Q, fold_step², 3)
        coarse = torch.cat([centres, _resized(partial, self.num_query)], dim=1)  # (B, 2 Q, 3)
        kept = partial if partial.shape[1] == self.appended else _resized(partial, self.appended)
        return Completion((coarse, torch.cat([patches.flatten(1, 2), kept], dim=1)))  # (B, Q · fold_step² + A, 3)


class _Transformer(nn.Module):
    """From the cloud to the decoded queries: ``base_model`` of the published code."""

    def __init__(
        self,
        grouper: GraphGrouper,
        encoder: nn.ModuleList,
        decoder: nn.ModuleList,
        num_query: int,
        k: int,
        widths: tuple[int, int, int, int],
    ) -> None:
        super().__init__()
        self.k = k
        proxy, position, token, hidden = widths
        self.grouper = grouper
        self.pos_embed = norm_mlp(3, position, token)
        self.input_proj = norm_mlp(proxy, token, token)
        self.encoder = encoder
        self.increase_dim = norm_mlp(token, hidden, hidden)
        self.coarse_pred = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 3 * num_query))
        self.mlp_query = nn.Sequential(
            nn.Linear(hidden + 3, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, token),
        )
        self.decoder = decoder
        for part in (self.encoder, self.coarse_pred, self.decoder):
            small_linears(part)
        # Convolutions in the published code, which starts them differently and leaves their biases alone.
        convolutions = (self.grouper.input_trans, self.pos_embed, self.input_proj, self.increase_dim, self.mlp_query)
        for layer in nn.ModuleList(convolutions).modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight)

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, N, 3)`` -> tokens ``(B, Q, width)`` and their centres ``(B, Q, 3)``."""
        at, features = self.grouper(points)  # (B, S, 3), (B, S, C)
        position, memory = through_norm(self.pos_embed, at), through_norm(self.input_proj, features)
        index = neighbours(at, at, self.k)  # (B, S, k)
        for block in self.encoder:
            memory = block(memory + position, index)  # (B, S, width)
        code = through_norm(self.increase_dim, memory).amax(dim=1)  # (B, hidden)
        centres = self.coarse_pred(code).unflatten(1, (-1, 3)).to(points.dtype)  # (B, Q, 3)
        among, across = neighbours(centres, centres, self.k), neighbours(at, centres, self.k)  # (B, Q, k)
        first = cast(nn.Linear, self.mlp_query[0])
        tokens = self.mlp_query[1:](concat_linear(first, code, centres))  # (B, Q, width)
        for block in self.decoder:
            tokens = block(tokens, memory, among, across)
        return tokens, centres


class _EncoderBlock(nn.Module):
    def __init__(self, width: int, heads: int, mlp_ratio: float, graph: bool) -> None:
        super().__init__()
        self.graph = graph
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads, bias=False)
        self.norm2 = nn.LayerNorm(width)
        self.knn_map = nn.Sequential(nn.Linear(2 * width, width))
        self.merge_map = nn.Linear(2 * width, width)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        if not graph:  # held by every published block
            unused(self.knn_map)
            unused(self.merge_map)

    def forward(self, tokens: Tensor, index: Tensor) -> Tensor:
        """``(B, S, C)``, neighbours ``(B, S, k)`` -> ``(B, S, C)``."""
        normed = self.norm1(tokens)
        seen = self.attn(normed)
        if self.graph:
            local = graph_map(cast(nn.Linear, self.knn_map[0]), normed, normed, index)
            seen = self.merge_map(torch.cat([seen, local], dim=2))
        tokens = tokens + seen
        return tokens + self.mlp(self.norm2(tokens))


class _DecoderBlock(nn.Module):
    def __init__(self, width: int, heads: int, mlp_ratio: float, graph: bool) -> None:
        super().__init__()
        self.graph = graph
        self.norm1 = nn.LayerNorm(width)
        self.self_attn = Attention(width, heads, bias=False)
        self.norm_q = nn.LayerNorm(width)
        self.norm_v = nn.LayerNorm(width)
        self.attn = CrossAttention(width, heads, bias=False)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.knn_map = nn.Sequential(nn.Linear(2 * width, width))
        self.merge_map = nn.Linear(2 * width, width)
        self.knn_map_cross = nn.Sequential(nn.Linear(2 * width, width))
        self.merge_map_cross = nn.Linear(2 * width, width)
        if not graph:  # held by every published block
            for part in (self.knn_map, self.merge_map, self.knn_map_cross, self.merge_map_cross):
                unused(part)

    def forward(self, tokens: Tensor, memory: Tensor, among: Tensor, across: Tensor) -> Tensor:
        """``(B, Q, C)``, ``(B, S, C)``, neighbours of the queries among themselves and in memory -> ``(B, Q, C)``."""
        normed = self.norm1(tokens)
        seen = self.self_attn(normed)
        if self.graph:
            local = graph_map(cast(nn.Linear, self.knn_map[0]), normed, normed, among)
            seen = self.merge_map(torch.cat([seen, local], dim=2))
        tokens = tokens + seen
        normed, memory = self.norm_q(tokens), self.norm_v(memory)
        seen = self.attn(normed, memory)
        if self.graph:
            local = graph_map(cast(nn.Linear, self.knn_map_cross[0]), normed, memory, across)
            seen = self.merge_map_cross(torch.cat([seen, local], dim=2))
        tokens = tokens + seen
        return tokens + self.mlp(self.norm2(tokens))


class _Folding(nn.Module):
    """FoldingNet a token: a square is folded twice, both times led by the token's feature."""

    square: Tensor

    def __init__(self, width: int, step: int, hidden: int) -> None:
        super().__init__()
        side = torch.linspace(-1.0, 1.0, step)
        square = torch.stack(torch.meshgrid(side, side, indexing="xy"), dim=-1)
        self.register_buffer("square", square.reshape(step * step, 2), persistent=False)
        self.folding1 = _folding_layers(2 + width, hidden)
        self.folding2 = _folding_layers(3 + width, hidden)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, Q, C)`` -> ``(B, Q, step², 3)``."""
        folded = self.square
        for layers in (self.folding1, self.folding2):
            first = cast(nn.Linear, layers[0])
            of_place, of_feature = first.weight.split([folded.shape[-1], features.shape[-1]], dim=1)
            led = F.linear(features, of_feature, first.bias)[:, :, None]  # (B, Q, 1, hidden): once a patch
            hidden = led + F.linear(folded, of_place)  # (B, Q, step², hidden)
            hidden = F.relu(batch_norm(cast(nn.BatchNorm1d, layers[1]), hidden))
            hidden = F.relu(batch_norm(cast(nn.BatchNorm1d, layers[4]), layers[3](hidden)))
            folded = layers[6](hidden)  # (B, Q, step², 3)
        return folded


def _folding_layers(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden // 2),
        nn.BatchNorm1d(hidden // 2),
        nn.ReLU(),
        nn.Linear(hidden // 2, 3),
    )


def _resized(points: Tensor, count: int) -> Tensor:
    """``(B, N, 3)`` -> ``(B, count, 3)``: farthest points, all of a smaller cloud and then again."""
    return gather_points(points, farthest_points(points, count)) if count else points[:, :0]
