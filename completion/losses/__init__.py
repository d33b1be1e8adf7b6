"""Losses between clouds: pure functions ``(prediction (B, N, 3), target (B, M, 3), **parameters) -> (B,)``.

Notation: d_a is the **unsquared** distance from each predicted point to its nearest target point, d_b from each target
point to its nearest prediction. Both are in the unit of the clouds (in training, the network frame, where the partial
observation has a diagonal of 1). Losses are not brought to one scale: at the same distances ``cd_l1`` is half of
``cd_asymmetric`` at weight 1, and ``qal`` is a little above twice ``cd_l1``; :data:`DECLARED` states each one's scale
and :func:`gradient_magnitude` measures it. Every gradient is finite, also at coincident points. Clouds in bfloat16 or
float16 are computed in float32: the loss is float32, the gradient of the clouds' own type.

``prediction_mask (B, N)`` and ``target_mask (B, M)`` (bool, False at padding) are keywords of every loss: the value is
that of the clouds with the padding cut away, whatever stands there, and padding gets no gradient. The two clouds may
differ in size except for ``emd``, which says so.

A loss of your own is a function of that signature, ::

    from completion.losses import cd_l1

    def saturating(prediction, target, *, scale: float = 0.1):
        return 1 - (-cd_l1(prediction, target) / scale).exp()

and a training file may say ``loss: {name: my_module:saturating, parameters: {scale: 0.05}}`` where the command says
``--trust-code``, or ``name: saturating`` where an installed package declares it as an entry point of the group
``grasp_utility.losses`` (:mod:`completion.losses.plugins`) or a program has entered ``LOSSES["saturating"]``. Parameter
names are checked against the signature, every parameter may follow a schedule, and equal gradient magnitude is
measured. An entry in ``DECLARED`` is optional, and so are masks: training pads nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from completion.losses.apml import apml
from completion.losses.chamfer import cd_asymmetric, cd_l1, cd_l2
from completion.losses.dcd import dcd
from completion.losses.declared import DECLARED, Declaration, gradient_magnitude
from completion.losses.emd import emd
from completion.losses.hypercd import hypercd
from completion.losses.infocd import infocd
from completion.losses.qal import qal, uncovered

__all__ = [
    "DECLARED",
    "LOSSES",
    "Declaration",
    "Loss",
    "apml",
    "cd_asymmetric",
    "cd_l1",
    "cd_l2",
    "dcd",
    "emd",
    "gradient_magnitude",
    "hypercd",
    "infocd",
    "qal",
    "uncovered",
]

Loss = Callable[..., Tensor]

LOSSES: dict[str, Loss] = {
    "cd_l1": cd_l1,
    "cd_l2": cd_l2,
    "cd_asymmetric": cd_asymmetric,
    "dcd": dcd,
    "qal": qal,
    "hypercd": hypercd,
    "infocd": infocd,
    "emd": emd,
    "apml": apml,
}
