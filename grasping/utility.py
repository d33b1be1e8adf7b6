"""From minimum friction to utility: accuracy table, AP, feasible grasps, quality, success of the best.

Success at a friction µ is ``min_friction <= µ``; a grasp that fails has ``min_friction = +inf``. "Best" is by
confidence after suppression; ranks that a view does not fill count as failures.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grasping.force_closure import FRICTIONS

__all__ = [
    "FEASIBLE_FRICTION",
    "FRICTIONS",
    "METRICS",
    "TOP_K",
    "accuracy_table",
    "average_precision",
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
