"""In what share of scenes an arm is better, whatever by how much."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from pipeline.statistics.binary import wilson


def probability_of_improvement(differences: ArrayLike, level: float = 0.95) -> tuple[float, float, float]:
    """Estimate the probability that a scene's difference is positive, ties counting half.

    After Agarwal et al. (NeurIPS 2021), but paired by scene.

    Args:
        differences: ``(S,)``, or ``(R, S)`` with one row a training seed, over which each scene is averaged.
        level: of the interval.

    Returns:
        The share of scenes with Wilson's interval for S scenes: seeds are not further scenes. NaN without scenes.
    """
    d = np.atleast_2d(np.asarray(differences, dtype=np.float64))
    scenes = d.shape[1]
    if scenes == 0 or np.isnan(d).any():
        return np.nan, np.nan, np.nan
    better = float(((np.sign(d) + 1) / 2).mean(axis=0).sum())
    return (better / scenes, *wilson(better, scenes, level))
