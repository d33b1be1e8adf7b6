"""Regression over observations that are clustered by scene: slopes, and how much of a mean they carry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

FloatArray = NDArray[np.float64]

LEAST_CLUSTERS = 3


@dataclass(frozen=True)
class Regression:
    """Intercept and slopes, ``(K + 1,)`` each; all NaN where undefined, and ``reason`` says why."""

    coefficients: FloatArray
    se: FloatArray
    low: FloatArray
    high: FloatArray
    p: FloatArray
    clusters: int
    observations: int
    reason: str = ""


@dataclass(frozen=True)
class Mediation:
    """A mean in parts that add to ``total``: ``effects`` are the direct one, then what each column of X carries.

    ``(K + 1,)`` each; all but the total NaN where undefined, and ``reason`` says why.
    """

    effects: FloatArray
    se: FloatArray
    low: FloatArray
    high: FloatArray
    total: float
    clusters: int
    observations: int
    reason: str = ""


def clustered_slope(y: ArrayLike, X: ArrayLike, clusters: ArrayLike, level: float = 0.95) -> Regression:
    """Fit y = intercept + X b by least squares, with errors that may be alike within a cluster.

    The covariance is the cluster-robust one with the small-sample factor G / (G - 1) (N - 1) / (N - K - 1) (CR1), and
    t has G - 1 degrees of freedom (Cameron and Miller, Journal of Human Resources 50, 2015); as statsmodels'
    ``cov_type="cluster"`` with ``use_t``. With few clusters it is too sure of itself.

    Args:
        y: ``(N,)``.
        X: ``(N,)`` or ``(N, K)`` without a column of ones.
        clusters: ``(N,)`` labels, the scenes.
        level: of the intervals.
    """
    target, design, member, reason = _prepared(y, X, clusters)
    n, columns = design.shape
    groups = int(member.max(initial=-1)) + 1
    if reason:
        nothing = np.full(columns, np.nan)
        return Regression(nothing, nothing, nothing, nothing, nothing, groups, n, reason)
    inverse = np.linalg.pinv(design)
    coefficients = inverse @ target
    scores = np.zeros((groups, columns))
    np.add.at(scores, member, inverse.T * (target - design @ coefficients)[:, None])
    factor = groups / (groups - 1) * (n - 1) / (n - columns)
    se = np.sqrt(factor * np.square(scores).sum(axis=0))
    half = stats.t.ppf(0.5 + level / 2, groups - 1) * se
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * stats.t.sf(np.abs(coefficients) / se, groups - 1)
    return Regression(coefficients, se, coefficients - half, coefficients + half, p, groups, n)


def mediated(
    y: ArrayLike, X: ArrayLike, clusters: ArrayLike, level: float = 0.95, *, weights: ArrayLike | None = None
) -> Mediation:
    """Split the mean of y into what goes with the mean of X and the rest.

    With y and X differences between two arms, ``mean(y) = intercept + sum of b_k mean(X_k)``, exact for least squares
    with an intercept: the intercept is the difference left where the arms agree in X ("direct"), the other parts are
    those that go by way of X (MacKinnon, Fairchild and Fritz, Annual Review of Psychology 58, 2007; Judd, Kenny and
    McClelland, Psychological Methods 6, 2001, for paired designs). A cause only where nothing else moves X and y.

    Intervals are t intervals by the jackknife that leaves out one cluster (G - 1 degrees of freedom); it covers where
    percentiles of drawn scenes do not (``scripts/results/statistics_coverage.txt``), and takes G fits.

    Args:
        y: ``(N,)`` differences.
        X: ``(N,)`` or ``(N, K)`` differences of the mediators.
        clusters: ``(N,)`` labels, the scenes.
        level: of the intervals.
        weights: ``(N,)`` of the observations, as 1 / (observations of the scene) for scenes to weigh alike; else all 1.
    """
    target, design, member, reason = _prepared(y, X, clusters)
    n, columns = design.shape
    groups = int(member.max(initial=-1)) + 1
    w = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    total = float(np.average(target, weights=w)) if n else np.nan
    nothing = np.full(columns, np.nan)
    if reason:
        return Mediation(nothing, nothing, nothing, nothing, total, groups, n, reason)
    # Sums of each cluster, so that a fit without it is a subtraction.
    rows = np.column_stack([design, target])
    moments = np.zeros((groups, columns, columns + 1))
    np.add.at(moments, member, w[:, None, None] * design[:, :, None] * rows[:, None, :])
    whole = moments.sum(axis=0)
    without = whole - moments
    scale = np.sqrt(np.maximum(np.diagonal(without[..., :columns], axis1=1, axis2=2), np.finfo(float).tiny))
    normed = without[..., :columns] / scale[:, :, None] / scale[:, None, :]
    if (np.linalg.eigvalsh(normed)[:, 0] < 1e-12).any():
        return Mediation(
            nothing, nothing, nothing, nothing, total, groups, n, "undefined: X is singular without one of the scenes"
        )
    left_out, effects = _parts(without), _parts(whole[None])[0]
    se = np.sqrt((groups - 1) / groups * np.square(left_out - left_out.mean(axis=0)).sum(axis=0))
    half = stats.t.ppf(0.5 + level / 2, groups - 1) * se
    return Mediation(effects, se, effects - half, effects + half, total, groups, n)


def _prepared(y: ArrayLike, X: ArrayLike, clusters: ArrayLike) -> tuple[FloatArray, FloatArray, NDArray[np.int64], str]:
    """Return y, X with a first column of ones, the cluster of each row by number, and why there is no fit."""
    target, columns = np.asarray(y, dtype=np.float64), np.asarray(X, dtype=np.float64)
    columns = columns[:, None] if columns.ndim == 1 else columns
    labels, member = np.unique(np.asarray(clusters), return_inverse=True)
    if not len(target) == len(columns) == len(member):
        raise ValueError(f"{len(target)} y, {len(columns)} X and {len(member)} clusters")
    design = np.column_stack([np.ones(len(target)), columns])
    reason = ""
    if len(labels) < LEAST_CLUSTERS:
        reason = f"undefined: {len(labels)} scene{'' if len(labels) == 1 else 's'}, and it takes {LEAST_CLUSTERS}"
    elif not (np.isfinite(target).all() and np.isfinite(design).all()):
        reason = "undefined: values are missing"
    elif len(target) <= design.shape[1]:
        reason = f"undefined: {len(target)} observations for {design.shape[1]} coefficients"
    else:
        lengths = np.linalg.norm(design, axis=0)
        if not lengths.all() or np.linalg.matrix_rank(design / lengths) < design.shape[1]:
            reason = "undefined: X is singular, a column is constant or the sum of others"
    return target, design, member, reason


def _parts(moments: FloatArray) -> FloatArray:
    """Return ``(G, K + 1)`` parts of the mean from ``(G, K + 1, K + 2)`` weighted sums of products, 1 X and 1 X y."""
    columns = moments.shape[1]
    b = np.linalg.solve(moments[..., :columns], moments[..., columns:])[..., 0]
    parts: FloatArray = b * moments[:, 0, :columns] / moments[:, 0, :1]
    return parts
