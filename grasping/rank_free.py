"""Metrics that no confidence enters: what a list's candidates are worth, however their generator ranks them.

A generator's confidence is on a scale of its own, so metrics by rank compare arms under one generator, and say of two
generators how well each ranks too. These say what the candidates themselves are worth. Each is a sum over frictions of
a function of one number: how many candidates hold at that friction. So they do not depend on the order of a list, and a
candidate more never lowers one.

``feasible``
    how many hold at µ ≤ 0.8.
``any_muM``
    1 if any holds at M, else 0: what the best of all can do.
``oracle_ap``
    AP in percent of the list in the order of ``min_friction``, the least first: the first 50 of all suppressed
    candidates, without the protocol's limit of ten an object. Of the first k of that order as many hold at µ as of any
    k, so ``ap`` is never higher (but for rounding), and what it lacks is the price of the generator's ranking and of
    the protocol's cut. (Not of the arm ``oracle``: its grasps have this metric like all.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grasping.force_closure import FRICTIONS

__all__ = ["FEASIBLE_FRICTION", "RANK_FREE", "TOP_K", "holding", "rank_free_utility", "shares"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

TOP_K = 50
FEASIBLE_FRICTION = 0.8
_ANY = {f"any_mu{mu}": mu for mu in (0.4, 0.8)}
RANK_FREE = ("feasible", *_ANY, "oracle_ap")

_RANKS = np.arange(1, TOP_K + 1)
_SORTED_AP = (100.0 * (np.minimum(np.arange(TOP_K + 1)[:, None], _RANKS) / _RANKS)).mean(axis=1)
"""``(51,)``: a column's AP in percent where so many hold, and stand in front."""


def holding(min_friction: ArrayLike, lists: ArrayLike, count: int) -> IntArray:
    """Count the candidates of each list that hold at each friction.

    Args:
        min_friction: ``(S,)``; +inf where a grasp fails.
        lists: ``(S,)`` the list of each, in 0..count - 1.
        count: G lists.

    Returns:
        ``(G, 6)``: a column for each of :data:`~grasping.force_closure.FRICTIONS`.
    """
    width = len(FRICTIONS) + 1  # the last is of those that hold at none
    keys = np.asarray(lists, dtype=np.int64) * width + _levels(min_friction)
    counts = np.bincount(keys, minlength=count * width).reshape(count, width)
    held: IntArray = counts.cumsum(axis=1)[:, :-1]
    return held


def rank_free_utility(counts: IntArray) -> dict[str, FloatArray]:
    """Return ``(G,)`` for each metric of :data:`RANK_FREE`, ``(G, 6)`` of :func:`holding` given."""
    return {name: _total(_worth(name, counts)) / _frictions(name) for name in RANK_FREE}


def shares(metric: str, min_friction: ArrayLike, lists: ArrayLike, count: int) -> FloatArray:
    """Return what each candidate adds to a metric of :data:`RANK_FREE`: ``(S,)`` whose sum by list is the metric.

    No rank says who adds what, so all that hold at a friction have equal shares in what they are worth together there
    (which is the Shapley value: what a candidate adds to those before it, averaged over all orders).

    Args:
        metric: which.
        min_friction, lists, count: as of :func:`holding`.
    """
    held = holding(min_friction, lists, count)
    each = _worth(metric, held) / np.maximum(held, 1) / _frictions(metric)
    # A candidate holds at its own friction and at every larger one.
    from_own_on = np.zeros((count, len(FRICTIONS) + 1))
    from_own_on[:, :-1] = each[:, ::-1].cumsum(axis=1)[:, ::-1]
    return from_own_on[np.asarray(lists, dtype=np.int64), _levels(min_friction)]


def _levels(min_friction: ArrayLike) -> NDArray[np.intp]:
    """Return the place of the least friction at which each holds, 6 of those that hold at none."""
    return np.searchsorted(FRICTIONS, np.asarray(min_friction, dtype=np.float64).reshape(-1))


def _worth(metric: str, counts: IntArray) -> FloatArray:
    """Return what those that hold at each friction are worth together, ``(G, 6)`` as ``counts``."""
    if metric == "oracle_ap":
        return _SORTED_AP[np.minimum(counts, TOP_K)]
    worth = np.zeros(counts.shape)
    at = FRICTIONS.index(_ANY.get(metric, FEASIBLE_FRICTION))
    worth[:, at] = counts[:, at] if metric == "feasible" else counts[:, at] > 0
    return worth


def _frictions(metric: str) -> int:
    """Return over how many frictions a metric is the mean."""
    return len(FRICTIONS) if metric == "oracle_ap" else 1


def _total(worth: FloatArray) -> FloatArray:
    """Sum over frictions one after the other: a list must not depend, in the last bit, on those beside it."""
    total = np.zeros(len(worth))
    for column in worth.T:
        total += column
    return total
