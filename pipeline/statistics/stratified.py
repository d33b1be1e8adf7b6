"""Standard errors and ends of intervals of stratified means, for many experiments at once.

Experiments lie along the leading axes, scenes along the last, so that a simulation of thousands of experiments runs
the very code that a comparison runs once. ``groups`` are those of
:func:`pipeline.statistics.resampling.scene_groups`, each of two scenes or more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pipeline.statistics.resampling import MOST_FLOATS, draw_counts

FloatArray = NDArray[np.float64]
Groups = Sequence[NDArray[np.int64]]

_NOTHING = 1e-12  # of a variance: what is left by rounding where all drawn scenes are one and the same


@dataclass(frozen=True)
class Part:
    """A variance of a mean and its degrees of freedom, ``(...)`` each."""

    variance: FloatArray
    freedom: FloatArray


def scene_part(x: FloatArray, groups: Groups) -> Part:
    """Return the variance of the mean of ``(..., S)`` scenes, strata fixed (Satterthwaite's degrees of freedom)."""
    return satterthwaite([_stratum(x, members) for members in groups])


def seed_parts(x: FloatArray, groups: Groups) -> tuple[Part, Part]:
    """Split what training seeds add to the variance of the mean of ``(..., R, S)`` values, R of 2 or more.

    Returns:
        The variance of the mean over seeds as their means over scenes show it, and the share of it that
        :func:`scene_part` of the means over seeds holds already: that of the interaction, seeds x scenes in strata.
    """
    seeds, scenes = x.shape[-2:]
    means = x.mean(axis=-1)
    own = Part(_variance(means) / seeds, np.full(means.shape[:-1], seeds - 1.0))
    parts = []
    for members in groups:
        y = x[..., members]
        rest = (
            y - y.mean(axis=-1, keepdims=True) - y.mean(axis=-2, keepdims=True) + y.mean(axis=(-2, -1), keepdims=True)
        )
        freedom = (seeds - 1) * (len(members) - 1)
        variance = np.square(rest).sum(axis=(-2, -1)) / freedom
        parts.append(Part(len(members) / scenes**2 * variance / seeds, np.full(variance.shape, float(freedom))))
    return own, satterthwaite(parts)


def crossed(scenes: Part, seeds: Sequence[tuple[Part, Part]]) -> Part:
    """Join the scenes' part with that of the training seeds of each side that has several.

    Two-way crossed random effects: scenes and seeds each see the interaction, so the sum counts it twice and one is
    taken off; never below the larger of the two parts (Owen, Annals of Applied Statistics 1, 2007, on the pigeonhole
    model; Cameron, Gelbach and Miller, JBES 29, 2011, on the same sum). Satterthwaite's degrees of freedom, not
    below the least of the parts'. Covers 93 to 97 % of nominal 95 % in simulations with 10 or 30 scenes x 3 or 5 seeds;
    two seeds that outweigh the scenes leave 89 %.
    """
    own = satterthwaite([part for part, _ in seeds])
    shared = satterthwaite([part for _, part in seeds])
    total = np.maximum(scenes.variance + own.variance - shared.variance, np.maximum(scenes.variance, own.variance))
    spread = sum(np.square(part.variance) / part.freedom for part in (scenes, own, shared))
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = np.where(spread > 0, np.square(total) / spread, scenes.freedom)
    return Part(total, np.maximum(freedom, np.minimum(scenes.freedom, own.freedom)))


def satterthwaite(parts: Sequence[Part]) -> Part:
    """Add independent variances (Satterthwaite, Biometrics Bulletin 2, 1946)."""
    total = np.sum([part.variance for part in parts], axis=0)
    spread = np.sum([np.square(part.variance) / part.freedom for part in parts], axis=0)
    most = np.sum([part.freedom for part in parts], axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return Part(total, np.where(total > 0, np.square(total) / spread, most))


def t_ends(mean: FloatArray, part: Part, level: float) -> tuple[FloatArray, FloatArray]:
    """Return the ends of the t interval."""
    half = stats.t.ppf(0.5 + level / 2, part.freedom) * np.sqrt(part.variance)
    return mean - half, mean + half


def percentile_ends(
    x: FloatArray, groups: Groups, level: float, draws: int, seed: int
) -> tuple[FloatArray, FloatArray]:
    """Return the percentiles of the means of drawn scenes, ``(..., S)`` given."""
    moved, _ = _drawn(x, groups, draws, seed)
    low, high = _tails(moved, level)
    mean = x.mean(axis=-1)
    return mean + low, mean + high


def studentised_ends(
    x: FloatArray, groups: Groups, level: float, draws: int, seed: int
) -> tuple[FloatArray, FloatArray]:
    """Return the ends of the bootstrap-t interval, ``(..., S)`` given (Efron, 1981; Hall, Ann. Statist. 16, 1988).

    A draw of one scene again and again has no standard error; its t counts as infinite. Where strata are so small
    that these fill a tail, so is the interval.
    """
    moved, variance = _drawn(x, groups, draws, seed)
    part = scene_part(x, groups)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = moved / np.sqrt(variance)
        error = np.sqrt(part.variance)
    none = variance <= _NOTHING * part.variance[..., None]
    t[none] = np.where(np.abs(moved[none]) > 0, np.copysign(np.inf, moved[none]), 0.0)
    low, high = _tails(t, level)
    mean = x.mean(axis=-1)
    with np.errstate(invalid="ignore"):
        return np.where(error > 0, mean - high * error, mean), np.where(error > 0, mean - low * error, mean)


def _stratum(x: FloatArray, members: NDArray[np.int64]) -> Part:
    variance = len(members) / x.shape[-1] ** 2 * _variance(x[..., members])
    return Part(variance, np.full(variance.shape, len(members) - 1.0))


def _variance(x: FloatArray) -> FloatArray:
    """Return the variance along the last axis: exactly 0 where all are equal, in spite of rounding."""
    return np.where(np.ptp(x, axis=-1) == 0, 0.0, x.var(axis=-1, ddof=1))


def _drawn(x: FloatArray, groups: Groups, draws: int, seed: int) -> tuple[FloatArray, FloatArray]:
    """Return how far the mean moves in each draw, and its variance as the draw shows it: ``(..., draws)`` each."""
    moved = np.zeros((*x.shape[:-1], draws))
    variance = np.zeros_like(moved)
    for members, counts in zip(groups, draw_counts(tuple(map(len, groups)), draws, seed), strict=True):
        size, share = len(members), len(members) / x.shape[-1]
        rest = x[..., members] - x[..., members].mean(axis=-1, keepdims=True)
        step = draws if counts.size <= MOST_FLOATS else max(MOST_FLOATS // size, 1)
        for start in range(0, draws, step):
            part = slice(start, start + step)
            drawn = counts[part].astype(np.float64, copy=False).T
            mean = rest @ drawn / size
            moved[..., part] += share * mean
            variance[..., part] += share**2 * (np.square(rest) @ drawn / size - np.square(mean)) / (size - 1)
    return moved, variance


def _tails(drawn: FloatArray, level: float) -> tuple[FloatArray, FloatArray]:
    """Return the order statistics that bound a level along the last axis; unlike a quantile also where one is inf."""
    draws = drawn.shape[-1]
    skip = max(int((draws + 1) * (1 - level) / 2) - 1, 0)
    ordered = np.partition(drawn, [skip, draws - 1 - skip], axis=-1)
    return ordered[..., skip], ordered[..., draws - 1 - skip]
