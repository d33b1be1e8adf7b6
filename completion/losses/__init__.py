"""Losses between clouds: pure functions ``(prediction (B, N, 3), target (B, M, 3), **parameters) -> (B,)``.

Notation: d_a is the **unsquared** distance from each predicted point to its nearest target point, d_b from each target
point to its nearest prediction. Both are in the unit of the clouds (in training, the network frame, where the partial
observation has a diagonal of 1). Losses are not brought to one scale: at the same distances ``cd_l1`` is half of
``cd_asymmetric`` at weight 1, and ``qal`` is a little above twice ``cd_l1``. Every gradient is finite, also at
coincident points.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from completion.losses.chamfer import cd_asymmetric, cd_l1, cd_l2
from completion.losses.dcd import dcd
from completion.losses.qal import qal, uncovered

__all__ = ["LOSSES", "Loss", "cd_asymmetric", "cd_l1", "cd_l2", "dcd", "qal", "uncovered"]

Loss = Callable[..., Tensor]

LOSSES: dict[str, Loss] = {"cd_l1": cd_l1, "cd_l2": cd_l2, "cd_asymmetric": cd_asymmetric, "dcd": dcd, "qal": qal}
