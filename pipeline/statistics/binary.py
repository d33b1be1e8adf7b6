"""Binary outcomes: an interval for one proportion, a test for a pair of them."""

from __future__ import annotations

import numpy as np
from scipy import stats


def wilson(successes: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion (JASA 22, 1927) of n independent outcomes; NaN where n is 0.

    ``successes`` may be fractional, as where ties count half.

    Raises:
        ValueError: if successes are not within 0 and n.
    """
    if n == 0:
        return np.nan, np.nan
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    z = float(stats.norm.ppf(0.5 + level / 2))
    share = successes / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    # At the borders exactly: rounding would leave 1e-17.
    return (0.0 if successes == 0 else max(middle - half, 0.0)), (1.0 if successes == n else min(middle + half, 1.0))


def mcnemar(only_a: int, only_b: int) -> float:
    """Return McNemar's exact two-sided p: are outcomes that only one side has as often a's as b's? 1 where none are.

    For independent pairs, as scenes are; views or grasps of one scene are not.
    """
    n = only_a + only_b
    return min(1.0, 2.0 * float(stats.binom.cdf(min(only_a, only_b), n, 0.5)))
