"""The conventions of four public benchmarks by name, so that a number can be put beside a published one.

They differ in more than the data: the scale of the clouds, squared or unsquared distances, a factor of 1,000 or 10,000,
and whether categories or samples are averaged. A figure made here equals theirs on the same clouds, given **in the
benchmark's own scale** (as its files are distributed) and with as many points.

Where the evaluating code does something that cannot be seen in its name: all F-scores count distances strictly below
the threshold (:func:`completion.metrics.metrics` counts those equal to it too, as QAL's paper does); MVP's threshold of
1e-4 is one of **squared** distances; PoinTr's Chamfer distances skip points whose three coordinates add up to 0 (its
padding), which is not done here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from completion import metrics
from completion.nearest import nearest_neighbours

CD_L1, CD_L2, F1, EMD = "cd_l1", "cd_l2", "f1", "emd"


@dataclass(frozen=True)
class Measure:
    """One reported number.

    Attributes:
        name: what :func:`benchmark_metrics` calls it; the multiplier or threshold is part of it.
        kind: ``cd_l1`` (½ of both means), ``cd_l2`` (sum of both means of squares), ``f1`` or ``emd``.
        multiplier: published figures are the value times this.
        threshold: of ``f1``, in the benchmark's unit.
        eps, rounds: of ``emd``'s auction.
    """

    name: str
    kind: str
    multiplier: float = 1.0
    threshold: float = 0.0
    eps: float = 0.0
    rounds: int = 0


@dataclass(frozen=True)
class Convention:
    """How one benchmark reports.

    Attributes:
        scale: of the clouds as distributed.
        input_points, truth_points: of published figures; several truths where there are several tracks.
        measures: what its tables hold, the first one being what it ranks by.
        optional: what its code can compute beside that, at many times the cost.
        average: ``category`` (mean of the categories' means) or ``sample``.
        source: where the convention was read.
    """

    scale: str
    input_points: int
    truth_points: tuple[int, ...]
    measures: tuple[Measure, ...]
    optional: tuple[Measure, ...]
    average: str
    source: str


_F_SCORE = Measure("f1_0.01", F1, threshold=0.01)
_POINTR_EMD = Measure("emd_x1e3", EMD, 1e3, eps=0.005, rounds=100)

BENCHMARKS: dict[str, Convention] = {
    "pcn": Convention(
        scale="the truth's bounding box has a diagonal of about 1",
        input_points=2048,
        truth_points=(16384,),
        measures=(Measure("cd_l1_x1e3", CD_L1, 1e3), _F_SCORE),
        optional=(_POINTR_EMD,),
        average="category",
        source="Yuan et al., 3DV 2018; yuxumin/PoinTr (utils/metrics.py, tools/runner.py)",
    ),
    "mvp": Convention(
        scale="as PCN's (inferred from the files; nowhere stated)",
        input_points=2048,
        truth_points=(2048, 4096, 8192, 16384),
        measures=(Measure("cd_l2_x1e4", CD_L2, 1e4), _F_SCORE),
        optional=(Measure("emd_x1e4", EMD, 1e4, eps=0.004, rounds=3000),),
        average="sample",
        source="Pan et al., CVPR 2021; paul007pl/VRCNet and MVP_Benchmark (test.py, utils/model_utils.py, fscore.py)",
    ),
    "shapenet55": Convention(
        scale="centred, the farthest point at 1: about twice PCN's",
        input_points=2048,
        truth_points=(8192,),
        measures=(Measure("cd_l2_x1e3", CD_L2, 1e3), _F_SCORE),
        optional=(),
        average="category",
        source="Yu et al., ICCV 2021; yuxumin/PoinTr (utils/metrics.py, tools/runner.py), eight viewpoints a shape",
    ),
    "completion3d": Convention(
        scale="as distributed",
        input_points=2048,
        truth_points=(2048,),
        measures=(Measure("cd_l2_x1e4", CD_L2, 1e4),),
        optional=(),
        average="category",
        source="Tchapmi et al., CVPR 2019; lynetcha/completion3d (chamfer); the factor as in its published tables",
    ),
}
"""By the names of the readers in :mod:`completion.datasets`."""


class Summary(NamedTuple):
    """Means over samples.

    Attributes:
        overall: by measure, as the benchmark averages.
        categories: by category, by measure; in the order of first appearance.
        counts: samples a category.
    """

    overall: dict[str, float]
    categories: dict[str, dict[str, float]]
    counts: dict[str, int]


@torch.no_grad()
def benchmark_metrics(name: str, prediction: Tensor, target: Tensor, optional: bool = False) -> dict[str, Tensor]:
    """What a benchmark reports of each sample, multiplied as published.

    Args:
        name: in :data:`BENCHMARKS`.
        prediction: ``(B, N, 3)`` in the benchmark's scale.
        target: ``(B, M, 3)``.
        optional: the expensive ones too (EMD, for which N must be M).

    Returns:
        By measure, ``(B,)`` each.

    Raises:
        ValueError: on an unknown name, or clouds that do not fit.
    """
    convention = _convention(name)
    near = nearest_neighbours(prediction, target)
    measures = convention.measures + (convention.optional if optional else ())
    return {one.name: one.multiplier * _measure(one, near.dist_a, near.dist_b, prediction, target) for one in measures}


def summarise(name: str, values: Mapping[str, Tensor], categories: Sequence[str]) -> Summary:
    """Average samples as the benchmark does.

    Args:
        name: in :data:`BENCHMARKS`.
        values: by measure ``(P,)``, of all samples.
        categories: ``P`` names; a benchmark without categories gives one name to all.

    Raises:
        ValueError: on an unknown name, or lengths that differ.
    """
    convention = _convention(name)
    for measure, column in values.items():
        if column.shape != (len(categories),) or len(categories) == 0:
            raise ValueError(f"{measure}: {tuple(column.shape)} values for {len(categories)} categories of samples")
    of = {
        category: [k for k, one in enumerate(categories) if one == category] for category in dict.fromkeys(categories)
    }
    means = {
        category: {measure: column[rows].double().mean().item() for measure, column in values.items()}
        for category, rows in of.items()
    }
    if convention.average == "category":
        overall = {measure: sum(row[measure] for row in means.values()) / len(means) for measure in values}
    else:
        overall = {measure: column.double().mean().item() for measure, column in values.items()}
    return Summary(overall, means, {category: len(rows) for category, rows in of.items()})


def _convention(name: str) -> Convention:
    if name not in BENCHMARKS:
        raise ValueError(f"unknown benchmark {name!r} (known: {', '.join(BENCHMARKS)})")
    return BENCHMARKS[name]


def _measure(measure: Measure, dist_a: Tensor, dist_b: Tensor, prediction: Tensor, target: Tensor) -> Tensor:
    if measure.kind == CD_L1:
        return 0.5 * (dist_a.mean(dim=1) + dist_b.mean(dim=1))
    if measure.kind == CD_L2:
        return dist_a.square().mean(dim=1) + dist_b.square().mean(dim=1)
    if measure.kind == F1:
        precision, recall = ((dist < measure.threshold).to(dist.dtype).mean(dim=1) for dist in (dist_a, dist_b))
        return metrics.harmonic_mean(precision, recall)
    return metrics.emd(prediction, target, measure.eps, measure.rounds)
