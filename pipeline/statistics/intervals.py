"""Means over scenes, and differences of arms, with intervals.

Means weigh every scene alike; the standard error adds the strata's own variances, so that easy and hard splits do not
pass for noise. One scene, or one in a stratum that stands alone, gives no interval; scenes all equal, one of width 0.

``auto`` is the studentised bootstrap (bootstrap-t, 10,000 draws) where the scenes are at least 8 more than the strata
and no stratum has fewer than 3, and the t interval otherwise, or where so few scenes differ that the bootstrap-t has
an infinite end. Coverage of nominal 95 % as measured by ``tests/pipeline/statistics/test_coverage_by_simulation.py``
(two strata of different means; 5 = 3 + 2, 10 = 5 + 5 and 30 = 15 + 15 scenes; all in
``scripts/results/statistics_coverage.txt``):

    ============ ======= ===== ============ =========== =====
    differences  scenes      t  studentised  percentile  auto
    ============ ======= ===== ============ =========== =====
    normal             5  97.1  (infinite)         75.4  97.1
    normal            10  95.9         95.9        88.7  95.9
    normal            30  94.9         94.8        92.9  94.8
    exponential       10  91.5         94.0        83.9  94.0
    exponential       30  92.8         94.0        91.4  94.0
    lognormal         10  87.5         92.4        80.0  92.4
    lognormal         30  89.6         92.5        88.3  92.5
    at a ceiling      10  94.7         96.0        87.1  95.9
    at a ceiling      30  94.6         96.2        92.3  96.2
    sparse            30  82.4         97.5        81.9  85.6
    ============ ======= ===== ============ =========== =====

So studentising costs 8 % of width on normal differences of 10 scenes and nothing of 30, and gains 1 to 5 points on
skewed ones; another seed of the draws moves an end by 0.8 % of the width (standard deviation, AP of oracle - partial in
30 scenes). The percentile interval, which undercovers everywhere, is here to be compared with. Where most scenes do
not differ at all ("sparse": 85 % of them), the bootstrap-t covers only because three in ten of its intervals are
infinite, and what is finite does not; read the number of scenes that differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.statistics.resampling import differences, replicates, scene_differences, scene_groups
from pipeline.statistics.stratified import (
    Part,
    crossed,
    percentile_ends,
    scene_part,
    seed_parts,
    studentised_ends,
    t_ends,
)

FloatArray = NDArray[np.float64]
Method = Literal["auto", "t", "studentised", "percentile"]

TWO_WAY = "t over scenes and training seeds"
LEAST_FREEDOM, LEAST_IN_STRATUM = 8, 3  # of the scenes, for `auto` to studentise


@dataclass(frozen=True)
class Estimate:
    """A mean over scenes with its interval; ``low`` and ``high`` are NaN where scenes are too few for one.

    ``method`` is that of the interval, empty where there is none; ``se`` the standard error, ``freedom`` its degrees
    of freedom, ``replicates`` the training seeds that the mean is over (the fewest of the sides that have several).
    """

    value: float
    low: float
    high: float
    scenes: int
    se: float = float("nan")
    freedom: float = float("nan")
    method: str = ""
    replicates: int = 1

    @property
    def excludes_zero(self) -> bool:
        return bool(self.low > 0 or self.high < 0)


def scene_mean(
    values: ArrayLike,
    strata: Sequence[object],
    level: float = 0.95,
    *,
    method: Method = "auto",
    draws: int = 10_000,
    seed: int = 0,
) -> Estimate:
    """Estimate a mean over scenes, or a mean paired difference.

    Args:
        values: ``(S,)`` one value a scene (its mean over views, or its paired difference), or ``(R, S)`` with one row
            a training seed. One that is not finite makes the mean so too, and there is no interval.
        strata: S labels; scenes of one label are exchangeable. Strata of a single scene are pooled into one, since a
            variance needs two.
        level: of the interval.
        method: of the interval over scenes; several seeds have the two-way t interval whatever is asked
            (:func:`pipeline.statistics.stratified.crossed`).
        draws, seed: of the bootstraps.

    Returns:
        The mean, each scene and each seed weighing alike. Its ``freedom`` is Satterthwaite's.

    Raises:
        ValueError: if there are not as many strata as scenes, or the method is unknown.
    """
    if method not in ("auto", "t", "studentised", "percentile"):
        raise ValueError(f"unknown method {method!r}: expected auto, t, studentised or percentile")
    x = replicates(values, len(strata))
    if len(x) > 1:
        return _two_way(x, [x], strata, level)
    groups, mean = scene_groups(strata), float(x.mean()) if x.size else np.nan
    if not _enough(x, groups):
        return Estimate(mean, np.nan, np.nan, len(strata))
    part = scene_part(x, groups)
    ends = partial(_ends, x, groups, part, level, draws, seed)
    if part.variance[0] == 0:
        method = "t" if method == "auto" else method
        low = high = mean
    elif method != "auto":
        low, high = ends(method)
    else:
        method = "studentised" if may_studentise(groups) else "t"
        low, high = ends(method)
        if not np.isfinite([low, high]).all():
            method = "t"
            low, high = ends(method)
    return Estimate(mean, low, high, len(strata), float(part.variance[0] ** 0.5), float(part.freedom[0]), method)


def difference(
    a: ArrayLike,
    b: ArrayLike,
    strata: Sequence[object],
    level: float = 0.95,
    *,
    method: Method = "auto",
    draws: int = 10_000,
    seed: int = 0,
) -> Estimate:
    """Estimate the mean difference a - b of two arms over the same scenes.

    A side of one row has no variance of training in it: right for an arm that is not trained (``partial``,
    ``oracle``); of a single checkpoint it means that the claim is about this checkpoint, not about its loss.

    Args:
        a, b: ``(S,)`` or ``(R, S)`` values, one row a training seed. As many rows in both, more than one, are paired
            by place: a seed gives both sides the same first weights and the same order of the data, and what it moves
            in both cancels. Seeds that share nothing pair as fairly, at the cost of half the degrees of freedom, so
            long as nobody chose the places by the results. Other numbers of rows are independent of each other.
        strata, level, method, draws, seed: as in :func:`scene_mean`.
    """
    left, right = replicates(a, len(strata)), replicates(b, len(strata))
    if len(left) == len(right):
        return scene_mean(differences(left, right), strata, level, method=method, draws=draws, seed=seed)
    averaged = scene_differences(left, right)
    return _two_way(averaged[None], [side for side in (left, right) if len(side) > 1], strata, level)


def may_studentise(groups: Sequence[NDArray[np.int64]]) -> bool:
    """Say whether scenes suffice for the bootstrap-t, members of each stratum given; see this module's text."""
    sizes = [len(members) for members in groups]
    return sum(sizes) - len(sizes) >= LEAST_FREEDOM and min(sizes) >= LEAST_IN_STRATUM


def _two_way(x: FloatArray, sides: list[FloatArray], strata: Sequence[object], level: float) -> Estimate:
    """Estimate the mean of ``(R, S)``; the training seeds of each side, ``(R, S)`` each, add to its variance."""
    groups, averaged, seeds = scene_groups(strata), x.mean(axis=0), min(map(len, sides))
    mean = float(averaged.mean()) if averaged.size else np.nan
    if not _enough(averaged, groups):
        return Estimate(mean, np.nan, np.nan, len(strata), replicates=seeds)
    part = crossed(scene_part(averaged, groups), [seed_parts(side, groups) for side in sides])
    low, high = t_ends(np.asarray(mean), part, level)
    return Estimate(
        mean, float(low), float(high), len(strata), float(part.variance**0.5), float(part.freedom), TWO_WAY, seeds
    )


def _enough(x: FloatArray, groups: Sequence[NDArray[np.int64]]) -> bool:
    return bool(groups and min(map(len, groups)) > 1 and np.isfinite(x).all())


def _ends(
    x: FloatArray,
    groups: Sequence[NDArray[np.int64]],
    part: Part,
    level: float,
    draws: int,
    seed: int,
    method: str,
) -> tuple[float, float]:
    if method == "t":
        low, high = t_ends(x.mean(axis=-1), part, level)
    else:
        ends = studentised_ends if method == "studentised" else percentile_ends
        low, high = ends(x, groups, level, draws, seed)
    return float(low[0]), float(high[0])
