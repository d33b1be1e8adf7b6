"""From minimum friction to utility: accuracy table, AP, feasible grasps, quality, success of the best.

Success at a friction µ is ``min_friction <= µ``; a grasp that fails has ``min_friction = +inf``. "Best" is by
confidence after suppression; ranks that a view does not fill count as failures.

Every metric is a sum over a view's candidates, each by its rank: :func:`contributions` gives what each adds, and
:func:`shortfall` what each rank lacks of a perfect list, so that a difference of two lists can be told grasp by grasp.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grasping.force_closure import FRICTIONS

__all__ = [
    "FEASIBLE_FRICTION",
    "FRICTIONS",
    "METRICS",
    "PERFECT",
    "TOP_K",
    "accuracy_table",
    "average_precision",
    "contributions",
    "shortfall",
    "view_utility",
]

FloatArray = NDArray[np.float64]

TOP_K = 50
FEASIBLE_FRICTION = 0.8
QUALITY_TOP = 10
QUALITY_ZERO = 1.1
"""Friction at which a grasp is worth nothing."""
SUCCESS_TOPS = (1, 5, 10)
SUCCESS_FRICTIONS = (0.4, 0.8)

METRICS = (
    "ap",
    "ap_0.4",
    "ap_0.8",
    "feasible",
    "quality",
    *(f"success@{k}_mu{mu}" for k in SUCCESS_TOPS for mu in SUCCESS_FRICTIONS),
)


PERFECT = {
    name: 100.0 if name.startswith("ap") else QUALITY_ZERO - min(FRICTIONS) if name == "quality" else 1.0
    for name in METRICS
    if name != "feasible"
}
"""What a list is worth that fills every rank with grasps that hold at the protocol's least friction. Of ``feasible``
there is no such value: it has no ranks, and more candidates are always more."""


def accuracy_table(min_friction: ArrayLike, top_k: int = TOP_K) -> FloatArray:
    """The protocol's accuracy: how many of the first k grasps hold at µ, over k.

    Args:
        min_friction: ``(n,)`` of the kept grasps, best confidence first.
        top_k: rows of the table.

    Returns:
        ``(top_k, 6)``: row k - 1 for the first k, a column for each of :data:`FRICTIONS`.
    """
    friction = np.asarray(min_friction, dtype=np.float64).reshape(-1)[:top_k]
    holds = np.zeros((top_k, len(FRICTIONS)))
    holds[: len(friction)] = friction[:, None] <= np.array(FRICTIONS)
    return holds.cumsum(axis=0) / np.arange(1, top_k + 1)[:, None]


def average_precision(table: ArrayLike) -> dict[str, float]:
    """AP, AP0.4 and AP0.8 in percent of an accuracy table ``(..., top_k, 6)``; leading axes (views) are averaged."""
    t = 100.0 * np.asarray(table, dtype=np.float64)
    return {
        "ap": float(t.mean()),
        "ap_0.4": float(t[..., FRICTIONS.index(0.4)].mean()),
        "ap_0.8": float(t[..., FRICTIONS.index(0.8)].mean()),
    }


def view_utility(min_friction: ArrayLike, kept: ArrayLike) -> dict[str, float]:
    """Every metric of :data:`METRICS` for one view, or for one object of it.

    Args:
        min_friction: ``(S,)`` of all suppressed candidates, best confidence first; +inf where a grasp collides, is
            empty or does not close.
        kept: ``(S,)`` whether the protocol's cut keeps it.

    Returns:
        AP in percent over the kept; ``feasible``, how many candidates hold at µ ≤ 0.8; ``quality``, the mean of
        max(0, 1.1 - µ) over the best 10; ``success@k_muM``, the share of the best k that hold at M.
    """
    friction = np.asarray(min_friction, dtype=np.float64).reshape(-1)
    result = average_precision(accuracy_table(friction[np.asarray(kept, dtype=bool)]))
    result["feasible"] = float((friction <= FEASIBLE_FRICTION).sum())
    result["quality"] = float(np.maximum(0.0, QUALITY_ZERO - friction[:QUALITY_TOP]).sum() / QUALITY_TOP)
    for k in SUCCESS_TOPS:
        for mu in SUCCESS_FRICTIONS:
            result[f"success@{k}_mu{mu}"] = float((friction[:k] <= mu).sum() / k)
    return result


def contributions(metric: str, min_friction: ArrayLike, kept: ArrayLike) -> FloatArray:
    """Return what each candidate adds to a metric: ``(S,)`` whose sum is ``view_utility(...)[metric]``.

    In AP the kept grasp of rank r counts in the first k of every k > r, so it is worth more than what follows it by
    its place alone: at r = 0 the harmonic number of 50, over 50 (9.0 of the 100), at the last rank 0.04.

    Args:
        metric: one of :data:`METRICS`.
        min_friction: ``(S,)`` as in :func:`view_utility`.
        kept: ``(S,)`` as there.

    Raises:
        ValueError: if there is no such metric.
    """
    friction = np.asarray(min_friction, dtype=np.float64).reshape(-1)
    if metric == "feasible":
        return (friction <= FEASIBLE_FRICTION).astype(np.float64)
    rows, weights, worth = _ranked(metric, friction, kept)
    parts = np.zeros(len(friction))
    parts[rows] = weights[: len(rows)] * worth
    return parts


def shortfall(metric: str, min_friction: ArrayLike, kept: ArrayLike) -> tuple[FloatArray, float]:
    """Return what each candidate's rank lacks of a perfect list, and what the ranks lack that none fills.

    Args:
        metric: one of :data:`PERFECT`.
        min_friction: ``(S,)`` as in :func:`view_utility`.
        kept: ``(S,)`` as there.

    Returns:
        ``losses`` ``(S,)``, zero for a candidate that no rank counts, and ``missing``: together they are
        ``PERFECT[metric] - view_utility(...)[metric]``. (In quality a grasp that holds at less than the protocol's
        least friction, which other scorers may say, loses less than nothing.)

    Raises:
        ValueError: if there is no such metric, or it has no perfect value.
    """
    if metric == "feasible":
        raise ValueError("'feasible' counts candidates: no list is perfect by it")
    friction = np.asarray(min_friction, dtype=np.float64).reshape(-1)
    rows, weights, worth = _ranked(metric, friction, kept)
    best = PERFECT[metric] / weights.sum()
    losses = np.zeros(len(friction))
    losses[rows] = weights[: len(rows)] * (best - worth)
    return losses, float(weights[len(rows) :].sum() * best)


def _ranked(metric: str, friction: FloatArray, kept: ArrayLike) -> tuple[NDArray[np.intp], FloatArray, FloatArray]:
    """Candidates ``(n,)`` that fill a metric's ranks, every rank's weight ``(K,)``, each candidate's worth ``(n,)``."""
    if metric in ("ap", "ap_0.4", "ap_0.8"):
        rows = np.flatnonzero(np.asarray(kept, dtype=bool))[:TOP_K]
        frictions = FRICTIONS if metric == "ap" else (float(metric.removeprefix("ap_")),)
        # Rank r counts 1 / k in the first k of every k > r.
        weights = np.cumsum(1.0 / np.arange(TOP_K, 0, -1))[::-1] * (100.0 / TOP_K)
        return rows, weights, (friction[rows, None] <= np.array(frictions)).mean(axis=1)
    if metric == "quality":
        rows = np.arange(min(len(friction), QUALITY_TOP))
        return rows, np.full(QUALITY_TOP, 1.0 / QUALITY_TOP), np.maximum(0.0, QUALITY_ZERO - friction[rows])
    for k in SUCCESS_TOPS:
        for mu in SUCCESS_FRICTIONS:
            if metric == f"success@{k}_mu{mu}":
                rows = np.arange(min(len(friction), k))
                return rows, np.full(k, 1.0 / k), (friction[rows] <= mu).astype(np.float64)
    raise ValueError(f"unknown metric {metric!r}; one of {', '.join(METRICS)}")
