"""Completion networks: partial ``(B, N, 3)`` in, :class:`~completion.networks.pcn.Completion` out. One paper, one file.

Networks know no loss and no unit; clouds are in the network frame (see :mod:`completion.normalize`).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from completion.networks.pcn import PCN

NETWORKS: dict[str, Callable[..., nn.Module]] = {"pcn": PCN}
