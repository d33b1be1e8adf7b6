"""Random weights under published names, for twins that compute with them the plain way."""

from __future__ import annotations

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


@pytest.fixture(scope="session")
def published_weights() -> type[PublishedWeights]:
    return PublishedWeights


@pytest.fixture(scope="session")
def clouds() -> torch.Tensor:
    """``(3, 64, 3)`` float64 within the unit cube around the origin."""
    return torch.rand(3, 64, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 0.5
