"""Completion networks: partial ``(B, N, 3)`` in, :class:`Completion` out. One paper, one file.

Networks know no loss and no unit; clouds are in the network frame (see :mod:`completion.normalize`).
"""

from __future__ import annotations

from completion.networks.adapointr import AdaPoinTr
from completion.networks.ecg import ECG
from completion.networks.foldingnet import FoldingNet
from completion.networks.interface import Completion, CompletionNetwork, Denoising, Published
from completion.networks.pcn import PCN
from completion.networks.pointr import PoinTr
from completion.networks.qal_minimal import QALMinimal
from completion.networks.snowflakenet import SnowflakeNet
from completion.networks.topnet import TopNet

__all__ = ["NETWORKS", "Completion", "CompletionNetwork", "Denoising", "Published"]

NETWORKS: dict[str, type[CompletionNetwork]] = {
    "pcn": PCN,
    "topnet": TopNet,
    "foldingnet": FoldingNet,
    "ecg": ECG,
    "qal_minimal": QALMinimal,
    "adapointr": AdaPoinTr,
    "pointr": PoinTr,
    "snowflakenet": SnowflakeNet,
}
