"""Recovered utility: how much of the way from no completion to the true model an arm goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pipeline.statistics.intervals import scene_mean
from pipeline.statistics.resampling import nested_draws, replicates


@dataclass(frozen=True)
class Recovered:
    """Recovered utility; ``reason`` says why where it is undefined."""

    value: float
    low: float
    high: float
    reason: str = ""


def recovered_utility(
    arm: ArrayLike,
    partial: ArrayLike,
    oracle: ArrayLike,
    strata: Sequence[object],
    *,
    level: float = 0.95,
    draws: int = 10_000,
    seed: int = 0,
) -> Recovered:
    """Estimate (mean arm - mean partial) / (mean oracle - mean partial), resampling scenes within strata.

    Args:
        arm: ``(S,)`` per-scene values, or ``(R, S)`` with one row a training seed; seeds are resampled too.
        partial, oracle: ``(S,)`` per-scene values of the same scenes.
        strata: S labels.

    Returns:
        The ratio with a percentile interval; undefined where the interval of the denominator holds 0 or there is none.
    """
    a = replicates(arm, len(strata))
    p, o = (np.asarray(values, dtype=np.float64) for values in (partial, oracle))
    gain = scene_mean(o - p, strata, level, draws=draws, seed=seed)
    if np.isnan(gain.low):
        return Recovered(np.nan, np.nan, np.nan, "undefined: too few scenes for an interval of oracle - partial")
    if not gain.excludes_zero:
        return Recovered(np.nan, np.nan, np.nan, "undefined: the interval of oracle - partial holds 0")
    with np.errstate(divide="ignore", invalid="ignore"):
        # One seed, hence the same scenes above and below.
        ratios = nested_draws(a, p, strata, draws, seed) / nested_draws(o, p, strata, draws, seed)
    tail = (1 - level) / 2
    low, high = np.quantile(ratios[np.isfinite(ratios)], [tail, 1 - tail])
    return Recovered(float((a - p).mean() / (o - p).mean()), float(low), float(high))
