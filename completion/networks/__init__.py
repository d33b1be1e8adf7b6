"""Completion networks: partial ``(B, N, 3)`` in, :class:`Completion` out. One paper, one file.

Networks know no loss and no unit; clouds are in the network frame (see :mod:`completion.normalize`).
"""

from __future__ import annotations

from collections.abc import Callable

from completion.networks.interface import Completion, CompletionNetwork, Denoising, Published
from completion.networks.pcn import PCN

__all__ = ["NETWORKS", "Completion", "CompletionNetwork", "Denoising", "Published"]

NETWORKS: dict[str, Callable[..., CompletionNetwork]] = {"pcn": PCN}
