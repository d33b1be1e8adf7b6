"""What every completion network is to the rest of the package."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn


class Completion(NamedTuple):
    """What a network returns: ``coarse (B, C, 3)`` and ``fine (B, M, 3)``, network frame."""

    coarse: Tensor
    fine: Tensor


class CompletionNetwork(nn.Module):
    """Base class: ``network(partial (B, N, 3)) -> Completion``, network frame, any N.

    Attributes:
        output_points: M, points of the fine cloud.
    """

    output_points: int
