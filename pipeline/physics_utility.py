"""From trials to utility: how many of a view's best grasps physics holds. Light: the configuration knows the names."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grasping.utility import TOP_K, sums_of_best

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


def held_utilities(held_fraction: ArrayLike, lengths: ArrayLike) -> dict[str, NDArray[np.float64]]:
    """Every metric of :data:`HELD_METRICS` for many lists of grasps: :func:`held_utility` of each, to the last bit.

    Args:
        held_fraction: ``(n,)`` of all lists, one behind another, each as in :func:`held_utility`.
        lengths: ``(G,)`` of the lists; they sum to n.

    Returns:
        ``(G,)`` for each metric.
    """
    held = np.asarray(held_fraction, dtype=np.float64).reshape(-1)
    return {name: sums_of_best(held, lengths, _ranks(name)) / _ranks(name) for name in HELD_METRICS}


def held_contributions(metric: str, held_fraction: ArrayLike, lengths: ArrayLike | None = None) -> NDArray[np.float64]:
    """Return what each grasp adds to a metric: ``(n,)`` whose sum is ``held_utility(...)[metric]``.

    Args:
        metric: one of :data:`HELD_METRICS`.
        held_fraction: ``(n,)`` as in :func:`held_utility`.
        lengths: ``(G,)`` where these are several lists, one behind another.

    Raises:
        ValueError: if there is no such metric.
    """
    held = np.array(held_fraction, dtype=np.float64).reshape(-1)
    ranks = _ranks(metric)
    held[_places(held, lengths) >= ranks] = 0.0
    return held / ranks


def held_shortfall(
    metric: str, held_fraction: ArrayLike, lengths: ArrayLike | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what each grasp's rank lacks of a list that holds throughout, and what the ranks lack that none fills.

    Args:
        metric: one of :data:`HELD_METRICS`.
        held_fraction: ``(n,)`` as in :func:`held_utility`.
        lengths: ``(G,)`` where these are several lists, one behind another; else there is one (G = 1).

    Returns:
        ``losses`` ``(n,)`` and ``missing`` ``(G,)``: together they are ``1 - held_utility(...)[metric]``.

    Raises:
        ValueError: if there is no such metric.
    """
    losses = 1.0 - np.asarray(held_fraction, dtype=np.float64).reshape(-1)
    ranks = _ranks(metric)
    losses[_places(losses, lengths) >= ranks] = 0.0
    size = np.asarray([len(losses)] if lengths is None else lengths, dtype=np.int64)
    return losses / ranks, np.maximum(ranks - size, 0) / ranks


def _places(values: NDArray[np.float64], lengths: ArrayLike | None) -> NDArray[np.int64]:
    """Return the place of each of ``(n,)`` grasps in its list."""
    if lengths is None:
        return np.arange(len(values))
    size = np.asarray(lengths, dtype=np.int64)
    return np.arange(len(values)) - np.repeat(np.cumsum(size) - size, size)


def _ranks(metric: str) -> int:
    ranks = {"held": TOP_K, **{f"held@{k}": k for k in HELD_TOPS}}
    if metric not in ranks:
        raise ValueError(f"unknown metric {metric!r}; one of {', '.join(HELD_METRICS)}")
    return ranks[metric]
