"""Random weights under published names, for twins that compute with them the plain way."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F


class PublishedWeights:
    """Layers of kernel size one and batch norms, named as some published code names them, in float64.

    Args:
        layers: name -> (inputs, outputs).
        norms: name -> channels.
        kernel: trailing ones of a weight's shape, 1 for Conv1d and 2 for Conv2d; names in ``flat`` have none.
    """

    def __init__(
        self,
        layers: dict[str, tuple[int, int]],
        norms: dict[str, int] | None = None,
        kernel: int = 1,
        flat: tuple[str, ...] = (),
    ) -> None:
        generator = torch.Generator().manual_seed(5)

        def draw(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.state: dict[str, torch.Tensor] = {}
        for name, (inputs, outputs) in layers.items():
            ones = (1,) * (0 if name.startswith(flat or ("\0",)) else kernel)
            self.state[f"{name}.weight"] = draw(outputs, inputs, *ones) / inputs**0.5
            self.state[f"{name}.bias"] = draw(outputs) * 0.3
        for name, channels in (norms or {}).items():
            self.state |= {f"{name}.weight": 1 + 0.2 * draw(channels), f"{name}.bias": 0.2 * draw(channels)}
            self.state |= {f"{name}.running_mean": draw(channels), f"{name}.running_var": 0.3 + draw(channels) ** 2}
            self.state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def layer(self, name: str, values: torch.Tensor) -> torch.Tensor:
        """``(..., inputs)`` -> ``(..., outputs)``."""
        return F.linear(values, self.state[f"{name}.weight"].flatten(1), self.state[f"{name}.bias"])

    def norm(self, name: str, values: torch.Tensor) -> torch.Tensor:
        """Batch norm in evaluation mode, by its formula."""
        mean, variance = self.state[f"{name}.running_mean"], self.state[f"{name}.running_var"]
        scaled = (values - mean) / (variance + 1e-5).sqrt()
        return scaled * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    def into(self, network: torch.nn.Module, family: str) -> torch.nn.Module:
        """``network`` in evaluation mode with these weights, loaded as an import does."""
        network = network.double().eval()
        network.load_state_dict(network.published[family].rename(dict(self.state)), strict=True)
        return network


class PlainLayers:
    """Layers of transformers and graphs on point clouds, written plainly: every edge, every head; by a state dict."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        self.state = state

    def linear(self, name: str, values: torch.Tensor) -> torch.Tensor:
        return F.linear(values, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"))

    def scaled(self, name: str, values: torch.Tensor) -> torch.Tensor:
        return values * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    def layer_norm(self, name: str, values: torch.Tensor, epsilon: float) -> torch.Tensor:
        centred = values - values.mean(dim=-1, keepdim=True)
        return self.scaled(name, centred / (centred.square().mean(dim=-1, keepdim=True) + epsilon).sqrt())

    def batch_norm(self, name: str, values: torch.Tensor) -> torch.Tensor:
        """By its running statistics."""
        mean, variance = self.state[f"{name}.running_mean"], self.state[f"{name}.running_var"]
        return self.scaled(name, (values - mean) / (variance + 1e-5).sqrt())

    def group_norm(self, name: str, values: torch.Tensor) -> torch.Tensor:
        """``(B, S, k, C)`` in four groups of channels, over all the edges of a cloud."""
        groups = values.unflatten(3, (4, -1))
        mean = groups.mean(dim=(1, 2, 4), keepdim=True)
        variance = (groups - mean).square().mean(dim=(1, 2, 4), keepdim=True)
        return self.scaled(name, ((groups - mean) / (variance + 1e-5).sqrt()).flatten(3))

    def through_norm(self, name: str, values: torch.Tensor) -> torch.Tensor:
        hidden = self.batch_norm(f"{name}.1", self.linear(f"{name}.0", values))
        return self.linear(f"{name}.3", F.leaky_relu(hidden, 0.2))

    def mlp(self, name: str, values: torch.Tensor, layers: tuple[str, ...], between: Callable = F.gelu) -> torch.Tensor:
        for i, layer in enumerate(layers):
            values = self.linear(f"{name}.{layer}", between(values) if i else values)
        return values

    def self_attention(
        self, name: str, tokens: torch.Tensor, heads: int, hidden: torch.Tensor | None = None
    ) -> torch.Tensor:
        q, k, v = self.linear(f"{name}.qkv", tokens).chunk(3, dim=2)
        return self.linear(f"{name}.proj", _attention(q, k, v, heads, hidden))

    def cross_attention(self, name: str, tokens: torch.Tensor, memory: torch.Tensor, heads: int) -> torch.Tensor:
        parts = (("q", tokens), ("k", memory), ("v", memory))
        q, k, v = (self.linear(f"{name}.{part}_map", value) for part, value in parts)
        return self.linear(f"{name}.proj", _attention(q, k, v, heads, None))

    def edges(self, own: torch.Tensor, tokens: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        other = self.pick(tokens, index)  # (B, N, k, C)
        own = own[:, :, None].expand_as(other)
        return torch.cat([other - own, own], dim=3)

    def graph(self, name: str, own: torch.Tensor, tokens: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(self.linear(name, self.edges(own, tokens, index)), 0.2).max(dim=2).values

    def proxies(
        self, name: str, points: torch.Tensor, centres: tuple[int, int], k: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """PoinTr's DGCNN: ``(B, N, 3)`` -> centres ``(B, S, 3)``, features ``(B, S, C)``."""

        def convolve(layer: str, at: torch.Tensor, own: torch.Tensor, cloud: torch.Tensor, features: torch.Tensor):
            values = self.linear(f"{layer}.0", self.edges(own, features, self.nearest(cloud, at, k)))
            return F.leaky_relu(self.group_norm(f"{layer}.1", values), 0.2).max(dim=2).values

        features = self.linear(f"{name}.input_trans", points)
        for first, count in ((1, centres[0]), (3, centres[1])):
            features = convolve(f"{name}.layer{first}", points, features, points, features)
            at, own = self.farthest(torch.cat([points, features], dim=2), count).split([3, features.shape[2]], dim=2)
            features = convolve(f"{name}.layer{first + 1}", at, own, points, features)
            points = at
        return points, features

    @staticmethod
    def nearest(points: torch.Tensor, queries: torch.Tensor, k: int) -> torch.Tensor:
        return (queries[:, :, None] - points[:, None]).square().sum(dim=3).argsort(dim=2)[:, :, :k]

    @staticmethod
    def pick(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """``(B, N, C)`` at ``(B, ...)`` -> ``(B, ..., C)``."""
        return torch.stack([one[i] for one, i in zip(values, index, strict=True)])

    @staticmethod
    def farthest(points: torch.Tensor, count: int) -> torch.Tensor:
        """``(B, N, 3 or more)``, of which the first three say where -> the rows taken, ``(B, count, ...)``."""
        chosen = []
        for cloud in points:
            between, taken = torch.cdist(cloud[:, :3], cloud[:, :3]), [0]
            while len(taken) < count:
                taken.append(int(between[:, taken].min(dim=1).values.argmax()))
            chosen.append(cloud[taken])
        return torch.stack(chosen)


def _attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, hidden: torch.Tensor | None):
    parts, size = [], q.shape[2] // heads
    for head in range(heads):
        cut = slice(head * size, (head + 1) * size)
        scores = q[..., cut] @ k[..., cut].transpose(1, 2) / size**0.5
        if hidden is not None:
            scores = scores.masked_fill(hidden, -torch.inf)
        parts.append(scores.softmax(dim=2) @ v[..., cut])
    return torch.cat(parts, dim=2)


@pytest.fixture(scope="session")
def plain_layers() -> type[PlainLayers]:
    return PlainLayers


@pytest.fixture(scope="session")
def drawn() -> Callable[..., torch.nn.Module]:
    """``drawn(Network, **parameters)``: in float64, with weights large enough that every part shows in the result."""

    def make(network: Callable[..., torch.nn.Module], seed: int = 0, **parameters: object) -> torch.nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = network(**parameters).double()
            for name, value in net.state_dict().items():
                if value.ndim > 1:
                    value.copy_(torch.randn_like(value) / value.shape[1] ** 0.5)
                elif name.endswith("running_var"):
                    value.copy_(0.5 + torch.rand_like(value))
                elif value.is_floating_point():
                    value.add_(0.2 * torch.randn_like(value))
        return net

    return make


@pytest.fixture(scope="session")
def published_weights() -> type[PublishedWeights]:
    return PublishedWeights


@pytest.fixture(scope="session")
def clouds() -> torch.Tensor:
    """``(3, 64, 3)`` float64 within the unit cube around the origin."""
    return torch.rand(3, 64, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 0.5
