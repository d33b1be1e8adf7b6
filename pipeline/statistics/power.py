"""What a comparison could have found: the minimum detectable effect."""

from __future__ import annotations

import numpy as np
from scipy import stats

from pipeline.statistics.intervals import Estimate


def minimum_detectable_effect(estimate: Estimate, level: float = 0.95, power: float = 0.8) -> float:
    """Return the true difference that a comparison like this one finds with the given power (Bloom, 1995).

    (t at 1 - alpha/2 + t at power) x standard error, t with the estimate's degrees of freedom, both sides tested at
    alpha = 1 - level, of one test: Holm's adjustment over several asks for more. In the unit of the estimate; NaN where
    it has no standard error or where that is 0, since arms that never differ do not show what could have been found.
    Itself as uncertain as the standard error: with few scenes it is an order of magnitude.
    """
    if not np.isfinite(estimate.se) or estimate.se == 0:
        return np.nan
    quantiles = stats.t.ppf([0.5 + level / 2, power], estimate.freedom)
    return float(quantiles.sum() * estimate.se)
