"""The small network of droneslab/qal (arXiv 2511.17824), on which its authors' pipeline shows the loss.

A point-wise perceptron, a maximum over the points, and a perceptron to all coordinates at once: a baseline to hold
other decoders against, and what the one training script of that repository writes. The paper's results come from
other networks (PCN, TopNet, ECG).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from completion.networks._rename import renamed
from completion.networks.interface import Completion, CompletionNetwork, Published, StateDict


def _from_qal(state: StateDict) -> StateDict:
    return renamed(state, {f"{part}.{2 * i}": f"{part}.fc{i + 1}" for part in ("encoder", "decoder") for i in range(2)})


class QALMinimal(CompletionNetwork):
    """Maximum of point features, then all points at once. Defaults are the script's: 64 points, 49,856 parameters.

    Args:
        output_points: points of the cloud.
        encoder_channels: widths of the two point-wise layers.
        decoder_channels: width of the hidden layer between code and coordinates.
    """

    tiny = {"encoder_channels": (8, 16), "decoder_channels": 16}  # noqa: RUF012
    published = {  # noqa: RUF012
        "qal": Published(
            parameters={},
            source="droneslab/qal ee275c49, scripts/qal_pipeline.py",
            input_points=32,
            rename=_from_qal,
        ),
    }

    def __init__(
        self, output_points: int = 64, encoder_channels: Sequence[int] = (64, 128), decoder_channels: int = 128
    ) -> None:
        super().__init__()
        self.output_points = output_points
        first, code = encoder_channels
        self.encoder = _Perceptron(3, first, code)
        self.decoder = _Perceptron(code, decoder_channels, 3 * output_points)

    def forward(self, partial: Tensor) -> Completion:
        """Complete ``partial (B, N, 3)``, network frame."""
        code = F.relu(self.encoder(partial)).amax(dim=1)  # (B, code)
        return Completion((self.decoder(code).view(-1, self.output_points, 3),))


class _Perceptron(nn.Module):
    """Two linear layers: ``(..., inputs)`` -> ``(..., outputs)``."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, hidden)
        self.fc2 = nn.Linear(hidden, outputs)

    def forward(self, values: Tensor) -> Tensor:
        return self.fc2(F.relu(self.fc1(values)))
