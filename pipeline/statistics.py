"""Paired inference with the scene as the unit: views of one scene share objects and trajectory.

Scenes are strata-wise independent (a stratum is a split). Means weigh every scene alike; the standard error adds the
strata's own variances, so that easy and hard splits do not pass for noise. Intervals are t intervals: a percentile
bootstrap over few scenes undercovers. One scene, or one in a stratum that stands alone, gives no interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats


@dataclass(frozen=True)
class Estimate:
    """A mean over scenes with its interval; ``low`` and ``high`` are NaN where scenes are too few for one."""

    value: float
    low: float
    high: float
    scenes: int

    @property
    def excludes_zero(self) -> bool:
        return bool(self.low > 0 or self.high < 0)


def scene_mean(values: ArrayLike, strata: Sequence[object], level: float = 0.95) -> Estimate:
    """Estimate a mean over scenes, or a mean paired difference.

    Args:
        values: ``(S,)`` one value a scene (its mean over views, or its paired difference).
        strata: S labels; scenes of one label are exchangeable.
        level: of the interval.

    Returns:
        The mean over all scenes with a stratified t interval (Satterthwaite's degrees of freedom). Strata of a
        single scene are pooled into one, since a variance needs two.
    """
    x = np.asarray(values, dtype=np.float64)
    if len(x) != len(strata):
        raise ValueError(f"{len(x)} values but {len(strata)} strata")
    if len(x) == 0:
        return Estimate(np.nan, np.nan, np.nan, 0)
    groups = _groups(strata)
    variances, degrees = [], []
    for members in groups:
        if len(members) < 2:
            return Estimate(float(x.mean()), np.nan, np.nan, len(x))
        share = len(members) / len(x)
        variances.append(share**2 * x[members].var(ddof=1) / len(members))
        degrees.append(len(members) - 1)
    total = float(np.sum(variances))
    if total == 0.0:
        return Estimate(float(x.mean()), float(x.mean()), float(x.mean()), len(x))
    freedom = 1.0 / float(np.sum(np.square(np.divide(variances, total)) / degrees))
    half = float(stats.t.ppf(0.5 + level / 2, freedom)) * total**0.5
    return Estimate(float(x.mean()), float(x.mean()) - half, float(x.mean()) + half, len(x))


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
        arm, partial, oracle: ``(S,)`` per-scene values of the same scenes.
        strata: S labels.

    Returns:
        The ratio with a percentile interval; undefined where the interval of the denominator holds 0 or there is none.
    """
    a, p, o = (np.asarray(values, dtype=np.float64) for values in (arm, partial, oracle))
    gain = scene_mean(o - p, strata, level)
    if np.isnan(gain.low):
        return Recovered(np.nan, np.nan, np.nan, "undefined: too few scenes for an interval of oracle - partial")
    if not gain.excludes_zero:
        return Recovered(np.nan, np.nan, np.nan, "undefined: the interval of oracle - partial holds 0")
    picks = resample_scenes(strata, draws, seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = (a - p)[picks].mean(axis=1) / (o - p)[picks].mean(axis=1)
    tail = (1 - level) / 2
    low, high = np.quantile(ratios[np.isfinite(ratios)], [tail, 1 - tail])
    return Recovered(float((a - p).mean() / (o - p).mean()), float(low), float(high))


def resample_scenes(strata: Sequence[object], draws: int, seed: int) -> NDArray[np.int64]:
    """Draw scenes with replacement within strata: ``(draws, S)`` indices of scenes, S labels given."""
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [members[rng.integers(0, len(members), (draws, len(members)))] for members in _groups(strata)], axis=1
    )


def _groups(strata: Sequence[object]) -> list[NDArray[np.int64]]:
    """Return the members of each stratum; strata of one member are pooled."""
    labels = np.array([str(label) for label in strata])
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    singles = [members for members in groups if len(members) == 1]
    several = [members for members in groups if len(members) > 1]
    return several + ([np.concatenate(singles)] if singles else [])
