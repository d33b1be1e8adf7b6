"""AdaPoinTr: PoinTr with adaptive queries and a denoising task (Yu et al., TPAMI 2023, arXiv 2301.04545).

The cloud becomes point proxies (DGCNN), a transformer encodes them, a global feature proposes centres; together with
points of the observation they compete for the places of the queries, and the decoder grows a patch around each.

In training the decoder is also shown centres that are noised true points and must grow their surroundings
(:class:`~completion.networks.interface.Denoising`). They see the queries but the queries do not see them; and the
maxima over queries leave them out (the published code takes them in, which is harmless there, because it noises
points of the observation, but would hand the truth to the prediction here).

Where this differs from the published code in evaluation: farthest point sampling is exact (the compiled extension
passes by points within 0.032 of the origin), and ties among neighbours go to the lowest index.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from completion.networks._rename import pointwise, renamed
from completion.networks._transformer import (
    Attention,
    CrossAttention,
    GraphGrouper,
    Mlp,
    concat_linear,
    graph_map,
    look,
    neighbours,
    norm_mlp,
    small_linears,
    through_norm,
    unused,
)
from completion.networks.interface import Completion, CompletionNetwork, Denoising, Published, StateDict
from completion.points import farthest_points, gather_points

NOISED = ("truth", "partial")


def _from_pointr(state: StateDict) -> StateDict:
    names = {f"base_model.{part}.blocks.blocks": f"base_model.{part}" for part in ("encoder", "decoder")}
    names |= {"base_model.encoder.norm": "base_model.encoder_norm", "decode_head.layer": "decode_head"}
    return renamed(pointwise(state), names)


class AdaPoinTr(CompletionNetwork):
    """Adaptive geometry-aware transformer. Defaults are published (PCN): 16,384 points, 32,494,657 parameters.

    ``output_points = num_query · factor``: with 512 queries, factor 4, 8, 16, 32 gives 2048, 4096, 8192, 16384. The
    published ShapeNet-55/34 and Projected-ShapeNet networks are ``factor=16`` (8192 points), the projected ones with
    ``centres=(256, 128)``; that is not in the weights' shapes, so it must be given.

    Stages: the queries' centres ``(B, num_query, 3)``, the patches around them.

    Args:
        num_query: centres around which patches are grown. A third of the candidates are input points.
        factor: points of each patch.
        centres: points after each of the two samplings of the input.
        width: channels of the tokens.
        heads: of every attention; must divide ``width``.
        encoder_depth, decoder_depth: blocks.
        graph_blocks: the first blocks of encoder and decoder also look at each token's neighbours in space.
        k: neighbours there.
        mlp_ratio: hidden width of a block's MLP over ``width``.
        grouper_channels, grouper_k: widths (see :class:`GraphGrouper`) and neighbours of the DGCNN.
        global_channels: of the encoder's global feature.
        hidden: of the layers around the global features.
        input_hidden, position_hidden, ranking_hidden, patch_hidden: of the projection of the proxies, the embedding of
            positions, the ranking of the candidates, and the layer that grows the patches.
        denoising: noised centres in training; 0 for none.
        noised: ``truth``: they come from the true cloud; ``partial``: from the input, as in the published code.
        noise, noise_limit: the noise's standard deviation and its largest value a coordinate, network units. It is
            drawn from torch's own generator, which training seeds anew at every step; evaluation draws nothing.
    """

    tiny = {  # noqa: RUF012
        "num_query": 16,
        "factor": 4,
        "centres": (32, 16),
        "width": 16,
        "heads": 2,
        "encoder_depth": 2,
        "decoder_depth": 2,
        "k": 4,
        "grouper_channels": (4, 8, 8, 8, 16),
        "grouper_k": 8,
        "global_channels": 24,
        "hidden": 24,
        "input_hidden": 16,
        "position_hidden": 8,
        "ranking_hidden": 8,
        "patch_hidden": 16,
        "denoising": 4,
    }
    published = {  # noqa: RUF012
        "pointr": Published(
            parameters={},
            source="yuxumin/PoinTr 8f1fede models/AdaPoinTr.py, cfgs/PCN_models/AdaPoinTr.yaml",
            input_points=2048,
            rename=_from_pointr,
        )
    }

    def __init__(
        self,
        num_query: int = 512,
        factor: int = 32,
        centres: Sequence[int] = (512, 256),
        width: int = 384,
        heads: int = 6,
        encoder_depth: int = 6,
        decoder_depth: int = 8,
        graph_blocks: int = 1,
        k: int = 8,
        mlp_ratio: float = 2.0,
        grouper_channels: Sequence[int] = (8, 32, 64, 64, 128),
        grouper_k: int = 16,
        global_channels: int = 1024,
        hidden: int = 1024,
        input_hidden: int = 512,
        position_hidden: int = 128,
        ranking_hidden: int = 256,
        patch_hidden: int = 512,
        denoising: int = 64,
        noised: str = "truth",
        noise: float = 0.01,
        noise_limit: float = 0.05,
    ) -> None:
        super().__init__()
        if noised not in NOISED:
            raise ValueError(f"noised must be one of {', '.join(NOISED)}, got {noised!r}")
        self.num_query, self.factor = num_query, factor
        self.output_points = num_query * factor
        self.denoising, self.noised, self.noise, self.noise_limit = denoising, noised, noise, noise_limit
        self.uses_truth = denoising > 0 and noised == "truth"
        self.base_model = _Transformer(
            GraphGrouper(centres, grouper_channels, grouper_k),
            nn.ModuleList(_EncoderBlock(width, heads, mlp_ratio, i < graph_blocks) for i in range(encoder_depth)),
            nn.ModuleList(_DecoderBlock(width, heads, mlp_ratio, i < graph_blocks) for i in range(decoder_depth)),
            num_query,
            k,
            {
                "proxy": grouper_channels[-1],
                "token": width,
                "code": global_channels,
                "hidden": hidden,
                "input": input_hidden,
                "position": position_hidden,
                "ranking": ranking_hidden,
            },
        )
        self.decode_head = Mlp(2 * width, patch_hidden, 3 * factor)
        self.increase_dim = norm_mlp(width, hidden, hidden)
        self.reduce_map = nn.Linear(hidden + width + 3, width)

    def forward(self, partial: Tensor, truth: Tensor | None = None) -> Completion:
        """Complete ``partial (B, N, 3)``; ``truth (B, M, 3)`` only serves the denoising task of training."""
        noised = self._noised(partial, truth) if self.training else None
        tokens, centres = self.base_model(partial, noised)  # (B, Q + D, width), (B, Q + D, 3)
        asked = self.num_query
        whole = through_norm(self.increase_dim, tokens[:, :asked]).amax(dim=1)  # (B, hidden)
        features = concat_linear(self.reduce_map, whole, tokens, centres)  # (B, Q + D, width)
        grown = concat_linear(self.decode_head.fc1, features[:, :asked].amax(dim=1), features)
        offsets = self.decode_head.fc2(F.gelu(grown)).unflatten(2, (self.factor, 3))  # (B, Q + D, factor, 3)
        clouds = centres[:, :, None] + offsets.to(centres.dtype)
        stages = (centres[:, :asked], clouds[:, :asked].flatten(1, 2))  # (B, Q, 3), (B, Q · factor, 3)
        return Completion(stages, None if noised is None else Denoising(centres[:, asked:], clouds[:, asked:]))

    @torch.no_grad()
    def _noised(self, partial: Tensor, truth: Tensor | None) -> Tensor | None:
        """The centres of the denoising task, ``(B, D, 3)``."""
        cloud = partial if self.noised == "partial" else truth
        if cloud is None or self.denoising == 0:
            return None
        picked = gather_points(cloud, farthest_points(cloud, self.denoising))
        noise = torch.randn_like(picked).mul_(self.noise)
        return picked + noise.clamp_(-self.noise_limit, self.noise_limit)


class _Transformer(nn.Module):
    """From the cloud to the decoded queries: ``base_model`` of the published code."""

    def __init__(
        self,
        grouper: GraphGrouper,
        encoder: nn.ModuleList,
        decoder: nn.ModuleList,
        num_query: int,
        k: int,
        widths: Mapping[str, int],
    ) -> None:
        super().__init__()
        self.num_query, self.k = num_query, k
        token, code, hidden = widths["token"], widths["code"], widths["hidden"]
        self.pos_embed = _mlp(3, widths["position"], token)
        self.input_proj = _mlp(widths["proxy"], widths["input"], token)
        self.encoder = encoder
        self.encoder_norm = nn.LayerNorm(token, eps=1e-6)
        self.increase_dim = _mlp(token, hidden, code)
        self.coarse_pred = _mlp(code, hidden, 3 * num_query)
        self.mlp_query = _mlp(code + 3, hidden, hidden, token)
        self.decoder = decoder
        self.query_ranking = _mlp(3, widths["ranking"], widths["ranking"], 1)
        small_linears(self)
        self.grouper = grouper
        # No gradient passes through an order: the published ranking stays what it was at the start. And the norm after
        # the encoder is never applied.
        unused(self.query_ranking)
        unused(self.encoder_norm)

    def forward(self, points: Tensor, noised: Tensor | None) -> tuple[Tensor, Tensor]:
        """``(B, N, 3)`` -> tokens ``(B, Q + D, width)`` and their centres ``(B, Q + D, 3)``."""
        at, features = self.grouper(points)  # (B, S, 3), (B, S, C)
        memory = self.input_proj(features) + self.pos_embed(at)  # (B, S, width)
        index = neighbours(at, at, self.k)  # (B, S, k)
        for block in self.encoder:
            memory = block(memory, index)
        code = self.increase_dim(memory).amax(dim=1)  # (B, code)
        centres = self._ranked(self.coarse_pred(code).unflatten(1, (-1, 3)).to(points.dtype), points)  # (B, Q, 3)

        visible, among = None, neighbours(centres, centres, self.k)  # (B, Q, k)
        if noised is not None:
            everything = torch.cat([centres, noised], dim=1)  # (B, Q + D, 3)
            visible = look(everything.shape[1], noised.shape[1], everything.device)
            # The queries' neighbours are queries; those of a noised centre may be either.
            among = torch.cat([among, neighbours(everything, noised, among.shape[2])], dim=1)
            centres = everything
        across = neighbours(at, centres, self.k)  # (B, Q + D, k)
        first = cast(nn.Linear, self.mlp_query[0])
        tokens = self.mlp_query[1:](concat_linear(first, code, centres))  # (B, Q + D, width)
        for block in self.decoder:
            tokens = block(tokens, memory, among, across, visible)
        return tokens, centres

    def _ranked(self, proposed: Tensor, points: Tensor) -> Tensor:
        """The ``num_query`` best ranked of the proposed centres and half as many input points, best first."""
        observed = gather_points(points, farthest_points(points, max(1, self.num_query // 2)))
        candidates = torch.cat([proposed, observed], dim=1)  # (B, 1.5 Q, 3)
        order = self.query_ranking(candidates)[..., 0].argsort(dim=1, descending=True, stable=True)
        return gather_points(candidates, order[:, : self.num_query])


class _Graph(nn.Module):
    """Features of a token's surroundings."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.knn_map = nn.Sequential(nn.Linear(2 * width, width))

    def forward(self, queries: Tensor, tokens: Tensor, index: Tensor) -> Tensor:
        return graph_map(cast(nn.Linear, self.knn_map[0]), queries, tokens, index)


class _EncoderBlock(nn.Module):
    def __init__(self, width: int, heads: int, mlp_ratio: float, graph: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads, bias=True)
        self.local_attn = _Graph(width) if graph else None
        self.merge_map = nn.Linear(2 * width, width) if graph else None
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, tokens: Tensor, index: Tensor) -> Tensor:
        """``(B, S, C)``, neighbours ``(B, S, k)`` -> ``(B, S, C)``."""
        normed = self.norm1(tokens)
        seen = self.attn(normed)
        if self.local_attn is not None and self.merge_map is not None:
            seen = self.merge_map(torch.cat([seen, self.local_attn(normed, normed, index)], dim=2))
        tokens = tokens + seen
        return tokens + self.mlp(self.norm2(tokens))


class _DecoderBlock(nn.Module):
    def __init__(self, width: int, heads: int, mlp_ratio: float, graph: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.self_attn = Attention(width, heads, bias=True)
        self.local_self_attn = _Graph(width) if graph else None
        self.self_attn_merge_map = nn.Linear(2 * width, width) if graph else None
        self.norm_q = nn.LayerNorm(width, eps=1e-6)
        self.norm_v = nn.LayerNorm(width, eps=1e-6)
        self.cross_attn = CrossAttention(width, heads, bias=True)
        self.local_cross_attn = _Graph(width) if graph else None
        self.cross_attn_merge_map = nn.Linear(2 * width, width) if graph else None
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, tokens: Tensor, memory: Tensor, among: Tensor, across: Tensor, visible: Tensor | None) -> Tensor:
        """``(B, Q, C)``, ``(B, S, C)``, neighbours of the queries among themselves and in memory -> ``(B, Q, C)``."""
        normed = self.norm1(tokens)
        seen = self.self_attn(normed, visible)
        if self.local_self_attn is not None and self.self_attn_merge_map is not None:
            seen = self.self_attn_merge_map(torch.cat([seen, self.local_self_attn(normed, normed, among)], dim=2))
        tokens = tokens + seen
        normed, memory = self.norm_q(tokens), self.norm_v(memory)
        seen = self.cross_attn(normed, memory)
        if self.local_cross_attn is not None and self.cross_attn_merge_map is not None:
            seen = self.cross_attn_merge_map(torch.cat([seen, self.local_cross_attn(normed, memory, across)], dim=2))
        tokens = tokens + seen
        return tokens + self.mlp(self.norm2(tokens))


def _mlp(*widths: int) -> nn.Sequential:
    """Linear layers with a GELU between every two, numbered as published."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.GELU()]
    return nn.Sequential(*layers[:-1])
