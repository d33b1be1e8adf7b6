"""From trials to utility: how many of a view's best grasps physics holds. Light: the configuration knows the names."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

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
