"""One comparison of two arms: the difference, its interval, its tests, what it could have found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from pipeline.statistics.hypothesis_tests import sign_flip, wilcoxon
from pipeline.statistics.improvement import probability_of_improvement
from pipeline.statistics.intervals import TWO_WAY, Estimate, Method, difference
from pipeline.statistics.power import minimum_detectable_effect
from pipeline.statistics.resampling import differences, replicates, scene_differences

SIGN_FLIP = "sign-flip permutation of scenes"


@dataclass(frozen=True)
class Comparison:
    """Arm a against arm b over the same scenes.

    ``estimate`` is of a - b. ``p_permutation`` and ``p_wilcoxon`` are of the scene differences averaged over training
    seeds. ``p_value`` is the one to report, ``p_method`` says which it is. ``mde`` is the minimum detectable
    effect, in the metric's unit. ``improvement`` is the share of scenes where a is better: value, low, high.
    """

    estimate: Estimate
    p_permutation: float
    p_wilcoxon: float
    p_value: float
    p_method: str
    mde: float
    improvement: tuple[float, float, float]
    seeds_a: int
    seeds_b: int


def compare(
    a: ArrayLike,
    b: ArrayLike,
    strata: Sequence[object],
    *,
    level: float = 0.95,
    method: Method = "auto",
    power: float = 0.8,
    draws: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compare two arms.

    The p reported is that of the permutation where neither side has several training seeds. Where one has, flipping
    scenes would test these checkpoints only, so it is the p of the two-way t interval, below 1 - level exactly where
    that leaves 0 out.

    Args:
        a, b: ``(S,)`` or ``(R, S)`` values, as in :func:`pipeline.statistics.intervals.difference`.
        strata: S labels.
        level: of the intervals.
        method: of the interval over scenes, as in :func:`pipeline.statistics.intervals.scene_mean`.
        power: at which ``mde`` would be found.
        draws, seed: of bootstrap and permutation.
    """
    left, right = replicates(a, len(strata)), replicates(b, len(strata))
    estimate = difference(left, right, strata, level, method=method, draws=draws, seed=seed)
    averaged = scene_differences(left, right)
    p_permutation = sign_flip(averaged, draws=draws, seed=seed)
    several = max(len(left), len(right)) > 1
    return Comparison(
        estimate=estimate,
        p_permutation=p_permutation,
        p_wilcoxon=wilcoxon(averaged),
        p_value=_dual(estimate) if several else p_permutation,
        p_method=TWO_WAY if several else SIGN_FLIP,
        mde=minimum_detectable_effect(estimate, level, power),
        # Of seeds that are not paired, every one of a meets every one of b.
        improvement=probability_of_improvement(
            differences(left, right)
            if len(left) == len(right)
            else differences(left[:, None], right[None]).reshape(-1, len(strata)),
            level,
        ),
        seeds_a=len(left),
        seeds_b=len(right),
    )


def _dual(estimate: Estimate) -> float:
    """Return the two-sided p of the t interval; NaN where there is none."""
    if not np.isfinite(estimate.se):
        return np.nan
    if estimate.se == 0:
        return 1.0 if estimate.value == 0 else 0.0
    return 2.0 * float(stats.t.sf(abs(estimate.value) / estimate.se, estimate.freedom))
