"""What a training run minimises: the terms of a network's prediction, and their common scale.

Every cloud but the last is trained with ``coarse_loss`` (term ``coarse``, summed over those clouds), the last with
``loss`` (term ``fine``), both against the full truth; a network with an auxiliary denoising task adds ``denoising``:
each centre's cloud of F points against the F true points nearest to that centre, by ``coarse_loss``::

    total = coarse + fine_weight · fine + denoising_weight · denoising     (fine alone for a network with one cloud)

The published code's denoising (yuxumin/PoinTr 8f1fede, ``get_loss`` of models/AdaPoinTr.py, weight ½) joins the clouds
of all centres, and their neighbours, before it compares the two by CD-L1: a point may then be matched to another
centre's neighbours. Here each cloud answers for its own centre, and by the loss that is compared.

All in float32, network frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial as bind

import torch
from torch import Tensor

from completion.configuration import ConfigurationError, TrainingConfig
from completion.losses import DECLARED, LOSSES, cd_l1, gradient_magnitude
from completion.losses.schedules import resolve
from completion.networks import Completion, Denoising
from completion.points import gather_points, knn

Loss = Callable[[Tensor, Tensor], Tensor]


def loss_terms(config: TrainingConfig, prediction: Completion, truth: Tensor, share: float) -> dict[str, Tensor]:
    """The terms that this prediction has, ``(B,)`` each and unweighted.

    Args:
        config: names the losses and their parameters.
        prediction: float32 clouds ``(B, M_i, 3)``.
        truth: ``(B, M, 3)``.
        share: of the run done, for loss parameters that follow a schedule.

    Raises:
        ConfigurationError: a loss needs as many predicted as true points, and a cloud has another number.
    """
    _check_sizes(config, prediction, truth)
    fine, coarse = losses_at(config, share)
    terms: dict[str, Tensor] = {}
    if len(prediction.stages) > 1:
        first, *others = (coarse(cloud, truth) for cloud in prediction.stages[:-1])
        terms["coarse"] = sum(others, first)
    terms["fine"] = fine(prediction.fine, truth)
    if terms["fine"].shape != truth.shape[:1]:
        raise ConfigurationError(
            f"loss {config.loss.name} returned a tensor {tuple(terms['fine'].shape)}; a loss returns one value per "
            f"sample, ({len(truth)},) here"
        )
    if prediction.denoising is not None:
        clouds, targets = denoising_clouds(prediction.denoising, truth)
        terms["denoising"] = coarse(clouds, targets).view(len(truth), -1).mean(dim=1)
    return terms


def _check_sizes(config: TrainingConfig, prediction: Completion, truth: Tensor) -> None:
    coarse = config.loss.name if config.coarse_loss == "same" else config.coarse_loss
    for i, cloud in enumerate(prediction.stages):
        last = cloud is prediction.fine
        name = config.loss.name if last else coarse
        if name in DECLARED and DECLARED[name].equal_sizes and cloud.shape[1] != truth.shape[1]:
            remedy = f"set target_points: {cloud.shape[1]}" if last else "set coarse_loss: cd_l1"
            raise ConfigurationError(
                f"loss {name} needs as many predicted as true points: cloud {i + 1} of {len(prediction.stages)} has "
                f"{cloud.shape[1]}, the truth {truth.shape[1]}; {remedy}"
            )


def total_loss(
    config: TrainingConfig, means: Mapping[str, Tensor], fine_weight: float, factors: Mapping[str, float]
) -> Tensor:
    """The sum of the module's docstring, of scalars; ``factors`` (by term) may be empty."""
    scaled = {name: value * factors[name] if factors else value for name, value in means.items()}
    total = scaled["coarse"] + fine_weight * scaled["fine"] if "coarse" in scaled else scaled["fine"]
    if "denoising" in scaled:
        total = total + config.denoising_weight * scaled["denoising"]
    return total


def gradient_factors(
    config: TrainingConfig, prediction: Completion, truth: Tensor, share: float, mean: Callable[[Tensor], Tensor]
) -> dict[str, float]:
    """What each term is multiplied with so that it pulls on this prediction as hard as ``cd_l1`` would.

    Args:
        config, prediction, truth, share: as for :func:`loss_terms`.
        mean: averages over the processes of the run.

    Raises:
        ConfigurationError: a loss has no gradient here that could be scaled.
    """
    fine, coarse = losses_at(config, share)
    pairs: dict[str, tuple[Loss, list[tuple[Tensor, Tensor]]]] = {"fine": (fine, [(prediction.fine, truth)])}
    if len(prediction.stages) > 1:
        pairs["coarse"] = coarse, [(cloud, truth) for cloud in prediction.stages[:-1]]
    if prediction.denoising is not None:
        pairs["denoising"] = coarse, [denoising_clouds(prediction.denoising, truth)]
    factors = {}
    for name, (loss, clouds) in pairs.items():
        wanted, found = (
            mean(torch.stack([gradient_magnitude(one, *pair).mean() for pair in clouds]).sum()).item()
            for one in (cd_l1, loss)
        )
        if not (math.isfinite(found) and found > 0):
            raise ConfigurationError(
                f"gradient_scale: equal cannot scale the {name} loss, whose gradient magnitude on the first batch is "
                f"{found}; choose other parameters or gradient_scale: none"
            )
        factors[name] = wanted / found
    return factors


def losses_at(config: TrainingConfig, share: float) -> tuple[Loss, Loss]:
    """The fine and the coarse loss as functions of (prediction, truth) when ``share`` of the run is done."""
    fine = bind(LOSSES[config.loss.name], **resolve(config.loss.parameters, share))
    return fine, fine if config.coarse_loss == "same" else LOSSES[config.coarse_loss]


def denoising_clouds(denoising: Denoising, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Each centre's cloud and the true points nearest to that centre, ``(B · Q, F, 3)`` both."""
    count = denoising.clouds.shape[2]
    index = knn(truth, denoising.centres.detach(), count)  # (B, Q, F)
    targets = gather_points(truth, index.flatten(1, 2)).view_as(denoising.clouds)
    return denoising.clouds.flatten(0, 1), targets.flatten(0, 1)
