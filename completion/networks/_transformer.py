"""Layers that PoinTr and AdaPoinTr share: attention, graph features, the DGCNN that makes point proxies.

Everything is channels last, ``(B, N, C)``: a 1×1 convolution of the published code is a linear layer here, of the same
name. A layer applied to ``concat(neighbour − query, query)`` is computed as
``W_n · neighbour + (W_q − W_n) · query``, with both products once a point instead of once an edge, and one applied to
``concat(global, token)`` with the global product once a cloud: the same value for a fraction of the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from completion.points import farthest_points, gather_points, group, knn


def unused(module: nn.Module) -> None:
    """Mark parameters that the published network holds but never trains, so that optimisers and DDP pass them by."""
    module.requires_grad_(False)


def neighbours(points: Tensor, queries: Tensor, k: int) -> Tensor:
    """``(B, M, 3)``, ``(B, N, 3)`` -> ``(B, N, min(k, M))``: a cloud smaller than k is used whole."""
    return knn(points, queries.to(points.dtype), min(k, points.shape[1]))


def batch_norm(norm: nn.BatchNorm1d, features: Tensor) -> Tensor:
    """A published ``BatchNorm1d`` or ``2d`` over all but the last axis of ``(..., C)``."""
    return norm(features.reshape(-1, features.shape[-1])).view(features.shape)


def graph_map(layer: nn.Linear, queries: Tensor, tokens: Tensor, index: Tensor) -> Tensor:
    """Maximum over each query's neighbours of ``leaky(layer(concat(token − query, query)))``.

    Args:
        layer: 2C -> D.
        queries: ``(B, N, C)``.
        tokens: ``(B, M, C)``.
        index: ``(B, N, k)`` neighbours of each query among the tokens.

    Returns:
        ``(B, N, D)``.
    """
    of_token, of_query = layer.weight.chunk(2, dim=1)
    picked = (
        group(F.linear(tokens, of_token), index).max(dim=2).values
    )  # (B, N, D): the rest does not depend on the token
    return F.leaky_relu(picked + F.linear(queries, of_query - of_token, layer.bias), 0.2)


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, width: int, hidden: int, out: int | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, out or width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens)))


class Attention(nn.Module):
    """Multi-head self-attention, ``(B, N, C) -> (B, N, C)``."""

    def __init__(self, width: int, heads: int, bias: bool) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"a width of {width} cannot be split among {heads} heads")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, visible: Tensor | None = None) -> Tensor:
        """``visible (N, N)`` bool: which token (column) each token (row) may look at; all by default."""
        batch, count, width = tokens.shape
        qkv = self.qkv(tokens).view(batch, count, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, N, C / heads) each
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
        return self.proj(mixed.transpose(1, 2).reshape(batch, count, width))


class CrossAttention(nn.Module):
    """Multi-head attention of queries ``(B, N, C)`` to memory ``(B, M, C)`` -> ``(B, N, C)``."""

    def __init__(self, width: int, heads: int, bias: bool) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"a width of {width} cannot be split among {heads} heads")
        self.heads = heads
        self.q_map = nn.Linear(width, width, bias=bias)
        self.k_map = nn.Linear(width, width, bias=bias)
        self.v_map = nn.Linear(width, width, bias=bias)
        self.proj = nn.Linear(width, width)

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        q, k, v = (
            layer(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, heads, N or M, C / heads)
            for layer, tokens in ((self.q_map, queries), (self.k_map, memory), (self.v_map, memory))
        )
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class GraphGrouper(nn.Module):
    """DGCNN with two rounds of farthest point sampling: a cloud -> point proxies, centres with features.

    Args:
        centres: points after the first and the second sampling. From a smaller cloud points are taken repeatedly.
        channels: widths of the input layer and the four edge layers; the last four are multiples of 4 (group norm).
        k: neighbours in each graph.
    """

    def __init__(self, centres: Sequence[int], channels: Sequence[int], k: int) -> None:
        super().__init__()
        self.centres, self.k = tuple(centres), k
        first, c1, c2, c3, c4 = channels
        self.input_trans = nn.Linear(3, first)
        self.layer1 = _edge_layer(first, c1)
        self.layer2 = _edge_layer(c1, c2)
        self.layer3 = _edge_layer(c2, c3)
        self.layer4 = _edge_layer(c3, c4)

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, N, 3)`` -> centres ``(B, S, 3)`` and features ``(B, S, C)``, S = ``centres[1]``."""
        features = self.input_trans(points)  # (B, N, 8)
        features = self._edges(self.layer1, points, features, points, features)  # (B, N, 32)
        points, features = self._sampled(self.layer2, points, features, self.centres[0])  # (B, 512, 64)
        features = self._edges(self.layer3, points, features, points, features)  # (B, 512, 64)
        return self._sampled(self.layer4, points, features, self.centres[1])  # (B, 128, 128)

    def _sampled(self, layer: nn.Sequential, points: Tensor, features: Tensor, count: int) -> tuple[Tensor, Tensor]:
        chosen = farthest_points(points, count)
        centres, own = gather_points(points, chosen), gather_points(features, chosen)
        return centres, self._edges(layer, centres, own, points, features)

    def _edges(self, layer: nn.Sequential, at: Tensor, own: Tensor, points: Tensor, features: Tensor) -> Tensor:
        """Edge convolution of queries ``at (B, S, 3)``, ``own (B, S, C)`` over a cloud -> ``(B, S, D)``."""
        linear, norm = cast(nn.Linear, layer[0]), cast(nn.GroupNorm, layer[1])
        of_neighbour, of_own = linear.weight.chunk(2, dim=1)
        index = neighbours(points, at, self.k)
        edges = group(F.linear(features, of_neighbour), index)  # (B, S, k, D)
        edges = edges + F.linear(own, of_own - of_neighbour)[:, :, None]
        # The statistics of the norm run over the edges of one cloud, hence before the maximum; the activation only
        # rises, so it may wait until after it.
        normed = norm(edges.permute(0, 3, 1, 2))  # (B, D, S, k)
        return F.leaky_relu(normed.max(dim=3).values, 0.2).transpose(1, 2)


def _edge_layer(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(2 * width, out, bias=False), nn.GroupNorm(4, out))


def small_linears(module: nn.Module) -> None:
    """A transformer's start: linear layers truncated normal of deviation 0.02 without bias."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def concat_linear(layer: nn.Linear, first: Tensor, *rest: Tensor) -> Tensor:
    """``layer(concat(first, *rest))`` where ``first (B, C)`` is the same for all tokens, ``rest (B, N, C_i)``."""
    weights = layer.weight.split([first.shape[-1], *(part.shape[-1] for part in rest)], dim=1)
    total = F.linear(first, weights[0], layer.bias)[:, None]  # (B, 1, D)
    for part, weight in zip(rest, weights[1:], strict=True):
        total = total + F.linear(part, weight)  # (B, N, D)
    return total


def norm_mlp(width: int, hidden: int, out: int) -> nn.Sequential:
    """The four layers that :func:`through_norm` applies, numbered as published."""
    return nn.Sequential(nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, out))


def through_norm(layers: nn.Sequential, tokens: Tensor) -> Tensor:
    """Linear, batch norm over all tokens, leaky ReLU, linear: ``(B, N, C)`` -> ``(B, N, D)``."""
    norm = cast(nn.BatchNorm1d, layers[1])
    return layers[3](F.leaky_relu(batch_norm(norm, layers[0](tokens)), 0.2))


def look(count: int, hidden: int, device: torch.device) -> Tensor:
    """``(count, count)`` bool: the last ``hidden`` tokens see all, the others do not see them."""
    visible = torch.ones(count, count, dtype=torch.bool, device=device)
    visible[: count - hidden, count - hidden :] = False
    return visible
