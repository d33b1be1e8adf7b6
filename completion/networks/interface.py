"""What every completion network is to the rest of the package."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn


class Denoising(NamedTuple):
    """An auxiliary task of AdaPoinTr, in training only: clouds grown around noised true points.

    Attributes:
        centres: ``(B, Q, 3)`` the noised points that the network was shown.
        clouds: ``(B, Q, F, 3)`` what it made of each; trained against the F true points nearest to each centre.
    """

    centres: Tensor
    clouds: Tensor


class Completion(NamedTuple):
    """What a network returns: clouds from coarse to fine, network frame.

    Attributes:
        stages: ``(B, M_i, 3)`` each, the last being the result; a network without intermediate clouds has one.
        denoising: only in training mode, and only from a network that has it.
    """

    stages: tuple[Tensor, ...]
    denoising: Denoising | None = None

    @property
    def coarse(self) -> Tensor:
        """The first cloud, ``(B, M_0, 3)``."""
        return self.stages[0]

    @property
    def fine(self) -> Tensor:
        """The last cloud, ``(B, output_points, 3)``."""
        return self.stages[-1]


class CompletionNetwork(nn.Module):
    """Base class: ``network(partial (B, N, 3)) -> Completion``, network frame, any N (unless its docstring says more).

    In training, a network that asks for it (``uses_truth``) is called as ``network(partial, truth (B, M, 3))``.

    Attributes:
        output_points: M, points of the fine cloud.
        uses_truth: whether training hands it the truth (AdaPoinTr's denoising); inference never does.
    """

    output_points: int
    uses_truth: bool = False
