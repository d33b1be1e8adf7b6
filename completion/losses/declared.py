"""What each loss declares of itself, and how strongly it pulls: so that two losses can be trained at one scale.

A sum over points pulls thousands of times harder than a mean, and under one learning rate and one clipping norm that
alone would decide a comparison. The pull of a loss is its *gradient magnitude*: per sample, the sum over the predicted
points of the length of its gradient there. :func:`gradient_magnitude` measures it, on any clouds and for any loss, also
one of the user's own; :data:`DECLARED` states it in closed form for one reference.

The **reference**: ``points`` predicted and as many target points, each predicted one at ``distance`` from a partner of
its own and far from everything else. ``cd_l1`` has magnitude 1 there whatever the distance, so that a declared scale is
also the ratio to ``cd_l1``. On real clouds nearest neighbours are shared and the ratios differ: measure them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Declaration:
    """Facts about a loss that its signature does not tell.

    Attributes:
        reduction: over the points of one sample, ``mean`` or ``sum``; a batch is always left as ``(B,)``.
        equal_sizes: True where prediction and target must have as many points (not counting padding).
        unit: of its parameters; "cloud" is the clouds' unit of length, in training the network frame.
        source: where the definition was read.
        scale: ``scale(distance, points, **parameters)``: gradient magnitude at the module's reference.
        schedulable: parameters that may change during training, see :mod:`completion.losses.schedules`.
    """

    reduction: str
    equal_sizes: bool
    unit: str
    source: str
    scale: Callable[..., float]
    schedulable: tuple[str, ...] = ()


def gradient_magnitude(loss: Callable[..., Tensor], prediction: Tensor, target: Tensor) -> Tensor:
    """Per sample, the sum over predicted points of the length of the loss's gradient there.

    Args:
        loss: any function ``(prediction, target) -> (B,)``; bind its parameters beforehand.
        prediction: ``(B, N, 3)``; neither cloud's own graph is touched.
        target: ``(B, M, 3)``.

    Returns:
        ``(B,)``, detached; units of the loss per unit of length.

    Raises:
        ValueError: if the loss does not return one value per sample.
    """
    points = prediction.detach().requires_grad_()
    with torch.enable_grad():
        values = loss(points, target.detach())
        if values.shape != points.shape[:1]:
            raise ValueError(f"a loss returns one value per sample, {tuple(points.shape[:1])}: got {values.shape}")
        (gradient,) = torch.autograd.grad(values.sum(), points)
    return torch.linalg.vector_norm(gradient, dim=-1).sum(dim=1)


def _one(distance: float, points: int) -> float:
    return 1.0


def _cd_l2(distance: float, points: int) -> float:
    return 4 * distance


def _cd_asymmetric(distance: float, points: int, weight: float = 1.2) -> float:
    return 1 + weight


def _qal(distance: float, points: int, epsilon: float = 0.001, omega: float = 10.0, lambda_attr: float = 1.0) -> float:
    # Every target is somebody's nearest here, so that the attraction has nothing to attract.
    sigma = 1 / (1 + math.exp(-omega * (epsilon - distance)))
    return 2 * (1.5 - sigma + omega * sigma * (1 - sigma) * distance)


def _dcd(distance: float, points: int, alpha: float = 1000.0, lam: float = 1.0) -> float:
    return 2 * alpha * distance * math.exp(-alpha * distance**2) / (1 + 1e-6)


def _hypercd(distance: float, points: int, alpha: float = 1.0) -> float:
    excess = alpha * distance**2
    return 0.0 if excess < 1e-5 else 4 * math.sqrt(alpha) / math.sqrt(2 + excess)


def _half_the_points(distance: float, points: int) -> float:
    return points / 2


def _all_the_points(distance: float, points: int) -> float:
    # Exact in the limit of points far from each other's partners; a few thousandths less on a lattice.
    return float(points)


_MVP = "paul007pl/VRCNet and MVP_Benchmark (utils/model_utils.py)"

DECLARED: dict[str, Declaration] = {
    "cd_l1": Declaration("mean", False, "none", f"yuxumin/PoinTr ChamferDistanceL1; {_MVP}, cd_p", _one),
    "cd_l2": Declaration("mean", False, "none", f"yuxumin/PoinTr ChamferDistanceL2; {_MVP}, cd_t", _cd_l2),
    "cd_asymmetric": Declaration(
        "mean", False, "weight: none", "arXiv 2505.14218 (FCD), whose weights are its own", _cd_asymmetric, ("weight",)
    ),
    "dcd": Declaration(
        "mean",
        False,
        "alpha: 1/cloud²; lam: none",
        "Wu et al., NeurIPS 2021; wutong16/Density_aware_Chamfer_Distance (utils_v2/model_utils.py, calc_dcd)",
        _dcd,
        ("alpha", "lam"),
    ),
    "qal": Declaration(
        "mean",
        False,
        "epsilon: cloud; omega: 1/cloud; lambda_attr: none",
        "arXiv 2511.17824; droneslab/qal (scripts/qal_pipeline.py)",
        _qal,
        ("epsilon", "omega", "lambda_attr"),
    ),
    "hypercd": Declaration(
        "mean", False, "alpha: 1/cloud²", "Lin et al., ICCV 2023; Zhang-VISLab/ICCV2023-HyperCD", _hypercd, ("alpha",)
    ),
    "infocd": Declaration(
        "sum",
        False,
        "none",
        "Lin et al., NeurIPS 2023; Zhang-VISLab/NeurIPS2023-InfoCD (calc_cd_like_InfoV2)",
        _half_the_points,
    ),
    "emd": Declaration(
        "mean",
        True,
        "eps: cloud; rounds: none",
        "Liu et al., AAAI 2020; Colin97/MSN-Point-Cloud-Completion (emd/)",
        _one,
        ("eps",),
    ),
    "apml": Declaration(
        "sum",
        False,
        "p_min: none; rounds: none",
        "apm-loss/apml (src/loss/apml_loss.py)",
        _all_the_points,
        ("p_min",),
    ),
}
"""By the names of ``LOSSES``."""
