"""From trials to utility: how many of a view's best grasps physics holds. Light: the configuration knows the names."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grasping.utility import TOP_K

HELD_TOPS = (1, 5, 10)
HELD_METRICS = ("held", *(f"held@{k}" for k in HELD_TOPS))


def held_utility(held_fraction: ArrayLike) -> dict[str, float]:
    """Every metric of :data:`HELD_METRICS` for one view, or for one object of it.

    Args:
        held_fraction: ``(n,)`` of the kept grasps, best confidence first: the share of a grasp's trials that end with
            the object in the hand (0 or 1 where each is tried once).

    Returns:
        ``held@k``, the share of the first k that hold, and ``held``, of the protocol's fifty. Ranks that a view does
        not fill count as failures, as everywhere: who proposes less gains nothing by it.
    """
    held = np.asarray(held_fraction, dtype=np.float64).reshape(-1)
    shares = {f"held@{k}": float(held[:k].sum() / k) for k in HELD_TOPS}
    return {"held": float(held[:TOP_K].sum() / TOP_K), **shares}


def held_contributions(metric: str, held_fraction: ArrayLike) -> NDArray[np.float64]:
    """Return what each grasp adds to a metric: ``(n,)`` whose sum is ``held_utility(...)[metric]``.

    Args:
        metric: one of :data:`HELD_METRICS`.
        held_fraction: ``(n,)`` as in :func:`held_utility`.

    Raises:
        ValueError: if there is no such metric.
    """
    held = np.array(held_fraction, dtype=np.float64).reshape(-1)
    ranks = _ranks(metric)
    held[ranks:] = 0.0
    return held / ranks


def held_shortfall(metric: str, held_fraction: ArrayLike) -> tuple[NDArray[np.float64], float]:
    """Return what each grasp's rank lacks of a list that holds throughout, and what the ranks lack that none fills.

    Args:
        metric: one of :data:`HELD_METRICS`.
        held_fraction: ``(n,)`` as in :func:`held_utility`.

    Returns:
        ``losses`` ``(n,)`` and ``missing``: together they are ``1 - held_utility(...)[metric]``.

    Raises:
        ValueError: if there is no such metric.
    """
    losses = 1.0 - np.asarray(held_fraction, dtype=np.float64).reshape(-1)
    ranks = _ranks(metric)
    losses[ranks:] = 0.0
    return losses / ranks, max(ranks - len(losses), 0) / ranks


def _ranks(metric: str) -> int:
    ranks = {"held": TOP_K, **{f"held@{k}": k for k in HELD_TOPS}}
    if metric not in ranks:
        raise ValueError(f"unknown metric {metric!r}; one of {', '.join(HELD_METRICS)}")
    return ranks[metric]
