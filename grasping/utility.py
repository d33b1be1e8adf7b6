"""From minimum friction to utility: accuracy table, AP, feasible grasps, quality, success of the best.

Success at a friction µ is ``min_friction <= µ``; a grasp that fails has ``min_friction = +inf``. "Best" is by
confidence after suppression; ranks that a view does not fill count as failures. The metrics of
:data:`~grasping.rank_free.RANK_FREE` know no confidence (:mod:`grasping.rank_free`).

Every metric is a sum over a view's candidates: :func:`contributions` gives what each adds, and :func:`shortfall` what
each rank lacks of a perfect list, so that a difference of two lists can be told grasp by grasp.

A run has millions of lists, so there are ways to grade many at once: candidates one list behind another, and the
lists' lengths.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grasping.force_closure import FRICTIONS
from grasping.rank_free import FEASIBLE_FRICTION, RANK_FREE, TOP_K, holding, rank_free_utility, shares

__all__ = [
    "FEASIBLE_FRICTION",
    "FRICTIONS",
    "METRICS",
    "PERFECT",
    "RANK_FREE",
    "TOP_K",
    "accuracy_table",
    "average_precision",
    "contributions",
    "shortfall",
    "sums_of_best",
    "utilities",
    "view_utility",
]

FloatArray = NDArray[np.float64]

QUALITY_TOP = 10
QUALITY_ZERO = 1.1
"""Friction at which a grasp is worth nothing."""
SUCCESS_TOPS = (1, 5, 10)
SUCCESS_FRICTIONS = (0.4, 0.8)
_LISTS = 1024  # graded at once: 2.5 MB

METRICS = (
    "ap",
    "ap_0.4",
    "ap_0.8",
    "feasible",
    "quality",
    *(f"success@{k}_mu{mu}" for k in SUCCESS_TOPS for mu in SUCCESS_FRICTIONS),
    *(name for name in RANK_FREE if name != "feasible"),
)

PERFECT = {
    name: 100.0 if name.startswith("ap") else QUALITY_ZERO - min(FRICTIONS) if name == "quality" else 1.0
    for name in METRICS
    if name not in RANK_FREE
}
"""What a list is worth that fills every rank with grasps that hold at the protocol's least friction. Of what is
rank-free there is no such list: it has no ranks, and a candidate that fails takes none from another."""


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
        max(0, 1.1 - µ) over the best 10; ``success@k_muM``, the share of the best k that hold at M; ``any_muM`` and
        ``oracle_ap`` as in :mod:`grasping.rank_free`.
    """
    friction = np.asarray(min_friction, dtype=np.float64).reshape(-1)
    result = average_precision(accuracy_table(friction[np.asarray(kept, dtype=bool)]))
    counts = holding(friction, np.zeros(len(friction)), 1)
    result |= {name: float(value) for name, (value,) in rank_free_utility(counts).items()}
    result["quality"] = float(np.maximum(0.0, QUALITY_ZERO - friction[:QUALITY_TOP]).sum() / QUALITY_TOP)
    for k in SUCCESS_TOPS:
        for mu in SUCCESS_FRICTIONS:
            result[f"success@{k}_mu{mu}"] = float((friction[:k] <= mu).sum() / k)
    return {name: result[name] for name in METRICS}


def utilities(min_friction: ArrayLike, kept: ArrayLike, lengths: ArrayLike) -> dict[str, FloatArray]:
    """Every metric of :data:`METRICS` for many lists of candidates: :func:`view_utility` of each, to the last bit.

    Args:
        min_friction: ``(S,)`` of all lists, one behind another, each as in :func:`view_utility`.
        kept: ``(S,)`` as there.
        lengths: ``(G,)`` of the lists; they sum to S.

    Returns:
        ``(G,)`` for each metric.
    """
    friction = np.asarray(min_friction, dtype=np.float64).reshape(-1)
    of, rank, size = _places(lengths)
    filled, place = _kept_places(kept, of, rank, len(size))
    result = {name: np.zeros(len(size)) for name in METRICS}
    holds = friction[:, None] <= np.array(FRICTIONS)
    counted = filled & (place < TOP_K)
    for start in range(0, len(size), _LISTS):
        own = counted & (of >= start) & (of < start + _LISTS) if len(size) > _LISTS else counted
        table = np.zeros((min(_LISTS, len(size) - start), TOP_K, len(FRICTIONS)))
        table[of[own] - start, place[own]] = holds[own]
        table = 100.0 * (table.cumsum(axis=1) / np.arange(1, TOP_K + 1)[:, None])
        part = slice(start, start + len(table))
        result["ap"][part] = table.reshape(len(table), -1).mean(axis=1)
        for mu in (0.4, 0.8):
            result[f"ap_{mu}"][part] = table[..., FRICTIONS.index(mu)].mean(axis=1)
    result |= rank_free_utility(holding(friction, of, len(size)))
    result["quality"] = sums_of_best(np.maximum(0.0, QUALITY_ZERO - friction), size, QUALITY_TOP) / QUALITY_TOP
    for k in SUCCESS_TOPS:
        for mu in SUCCESS_FRICTIONS:
            result[f"success@{k}_mu{mu}"] = np.bincount(of, (friction <= mu) & (rank < k), len(size)) / k
    return result


def sums_of_best(values: FloatArray, lengths: ArrayLike, k: int) -> FloatArray:
    """Sum the first k of each list, ``(S,)`` values one list behind another and ``(G,)`` lengths given.

    Lists of one length are summed together: numpy adds seven numbers in another order than eight, and a list must not
    depend on those beside it.
    """
    size = np.asarray(lengths, dtype=np.int64)
    starts, best = np.cumsum(size) - size, np.minimum(size, k)
    sums = np.zeros(len(size))
    for count in np.unique(best[best > 0]):
        lists = np.flatnonzero(best == count)
        sums[lists] = values[starts[lists, None] + np.arange(count)].sum(axis=1)
    return sums


def contributions(
    metric: str, min_friction: ArrayLike, kept: ArrayLike, lengths: ArrayLike | None = None
) -> FloatArray:
    """Return what each candidate adds to a metric: ``(S,)`` whose sum is ``view_utility(...)[metric]``.

    In AP the kept grasp of rank r counts in the first k of every k > r, so it is worth more than what follows it by
    its place alone: at r = 0 the harmonic number of 50, over 50 (9.0 of the 100), at the last rank 0.04. Of what is
    rank-free, those that hold at a friction have equal shares (:func:`grasping.rank_free.shares`).

    Args:
        metric: one of :data:`METRICS`.
        min_friction: ``(S,)`` as in :func:`view_utility`.
        kept: ``(S,)`` as there.
        lengths: ``(G,)`` where these are several lists, one behind another.

    Raises:
        ValueError: if there is no such metric.
    """
    friction = np.asarray(min_friction, dtype=np.float64).reshape(-1)
    if metric in RANK_FREE:
        of, _, size = _places([len(friction)] if lengths is None else lengths)
        return shares(metric, friction, of, len(size))
    ranked = _ranked(metric, friction, kept, lengths)
    parts = np.zeros(len(friction))
    parts[ranked.rows] = ranked.weights[ranked.ranks] * ranked.worth
    return parts


def shortfall(
    metric: str, min_friction: ArrayLike, kept: ArrayLike, lengths: ArrayLike | None = None
) -> tuple[FloatArray, FloatArray]:
    """Return what each candidate's rank lacks of a perfect list, and what the ranks lack that none fills.

    Args:
        metric: one of :data:`PERFECT`.
        min_friction: ``(S,)`` as in :func:`view_utility`.
        kept: ``(S,)`` as there.
        lengths: ``(G,)`` where these are several lists, one behind another; else there is one (G = 1).

    Returns:
        ``losses`` ``(S,)``, zero for a candidate that no rank counts, and ``missing`` ``(G,)``: together they are
        ``PERFECT[metric] - view_utility(...)[metric]``. (In quality a grasp that holds at less than the protocol's
        least friction, which other scorers may say, loses less than nothing.)

    Raises:
        ValueError: if there is no such metric, or it has no perfect value.
    """
    if metric in RANK_FREE:
        raise ValueError(f"{metric!r} has no ranks: no list is perfect by it")
    friction = np.asarray(min_friction, dtype=np.float64).reshape(-1)
    ranked = _ranked(metric, friction, kept, lengths)
    best = PERFECT[metric] / ranked.weights.sum()
    losses = np.zeros(len(friction))
    losses[ranked.rows] = ranked.weights[ranked.ranks] * (best - ranked.worth)
    return losses, _unfilled(ranked.weights, best, ranked.filled)


def _unfilled(weights: FloatArray, best: float, filled: NDArray[np.int64]) -> FloatArray:
    """Return what the ranks are worth that a list does not fill, ``(K,)`` weights and ``(G,)`` filled ranks given."""
    rest: FloatArray = np.array([weights[count:].sum() * best for count in range(len(weights) + 1)])[filled]
    return rest


@dataclass(frozen=True, eq=False)
class _Ranked:
    """The candidates that fill a metric's ranks: n of them in G lists.

    Attributes:
        rows, ranks: ``(n,)`` which candidates they are, and the rank that each fills.
        worth: ``(n,)`` 0..1, or of quality its own.
        weights: ``(K,)`` of the ranks.
        filled: ``(G,)`` how many ranks each list fills.
    """

    rows: NDArray[np.intp]
    ranks: NDArray[np.int64]
    worth: FloatArray
    weights: FloatArray
    filled: NDArray[np.int64]


def _ranked(metric: str, friction: FloatArray, kept: ArrayLike, lengths: ArrayLike | None) -> _Ranked:
    of, place, size = _places([len(friction)] if lengths is None else lengths)
    counted = np.ones(len(friction), dtype=bool)
    if metric in ("ap", "ap_0.4", "ap_0.8"):
        counted, place = _kept_places(kept, of, place, len(size))
        frictions = FRICTIONS if metric == "ap" else (float(metric.removeprefix("ap_")),)
        # Rank r counts 1 / k in the first k of every k > r.
        weights = np.cumsum(1.0 / np.arange(TOP_K, 0, -1))[::-1] * (100.0 / TOP_K)
        worth = (friction[:, None] <= np.array(frictions)).mean(axis=1)
    elif metric == "quality":
        weights, worth = np.full(QUALITY_TOP, 1.0 / QUALITY_TOP), np.maximum(0.0, QUALITY_ZERO - friction)
    else:
        known = {f"success@{k}_mu{mu}": (k, mu) for k in SUCCESS_TOPS for mu in SUCCESS_FRICTIONS}
        if metric not in known:
            raise ValueError(f"unknown metric {metric!r}; one of {', '.join(METRICS)}")
        k, mu = known[metric]
        weights, worth = np.full(k, 1.0 / k), (friction <= mu).astype(np.float64)
    rows = np.flatnonzero(counted & (place < len(weights)))
    return _Ranked(rows, place[rows], worth[rows], weights, np.bincount(of[rows], minlength=len(size)))


def _places(lengths: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return of each candidate its list and its place there, ``(S,)`` each, and the lengths ``(G,)``."""
    size = np.asarray(lengths, dtype=np.int64)
    of = np.repeat(np.arange(len(size)), size)
    return of, np.arange(len(of)) - np.repeat(np.cumsum(size) - size, size), size


def _kept_places(
    kept: ArrayLike, of: NDArray[np.int64], place: NDArray[np.int64], lists: int
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return which candidates are kept, and of these the place among the kept of their list."""
    mask = np.asarray(kept, dtype=bool).reshape(-1)
    before = np.cumsum(mask) - mask  # kept ones in front, those of earlier lists too
    counts = np.bincount(of, mask, lists).astype(np.int64)
    return mask, before - (np.cumsum(counts) - counts)[of]
