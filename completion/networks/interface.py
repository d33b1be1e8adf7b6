"""What every completion network is to the rest of the package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

StateDict = dict[str, Tensor]


class Denoising(NamedTuple):
    """An auxiliary task of AdaPoinTr, in training only: clouds grown around noised true points.

    Attributes:
        centres: ``(B, Q, 3)`` the noised points that the network was shown.
        clouds: ``(B, Q, F, 3)`` what it made of each; trained against the F true points nearest to each centre
            (:mod:`completion.objective` says how, and how the published code differs).
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


class Published(NamedTuple):
    """How one family of public checkpoints (a key of ``completion.importers.FAMILIES``) holds this network.

    Attributes:
        parameters: what to build the network with, so that the published weights fit.
        source: repository, commit and file that the names and shapes were read from.
        input_points: points that the published network was trained to see.
        rename: from the published state dict (wrappers and prefixes stripped) to ours; must keep unknown keys, so that
            they are reported as unexpected.
    """

    parameters: Mapping[str, Any]
    source: str
    input_points: int
    rename: Callable[[StateDict], StateDict] = dict


class CompletionNetwork(nn.Module):
    """Base class: ``network(partial (B, N, 3)) -> Completion``, network frame, any N (unless its docstring says more).

    In training, a network that asks for it (``uses_truth``) is called as ``network(partial, truth (B, M, 3))``.

    Attributes:
        output_points: M, points of the fine cloud.
        uses_truth: whether training hands it the truth (AdaPoinTr's denoising); inference never does.
        tiny: parameters of the smallest version that still uses every kind of layer: for trying out a loss or a
            training file in seconds. It takes 64 points and more.
        published: the public checkpoints that fit, by family.
    """

    output_points: int
    uses_truth: bool = False
    tiny: ClassVar[Mapping[str, Any]] = {}
    published: ClassVar[Mapping[str, Published]] = {}
