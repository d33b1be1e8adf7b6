"""Paired inference with the scene as the unit: views of one scene share objects and trajectory.

Scenes are strata-wise independent (a stratum is a split); views are never resampled. Where an arm has several training
seeds, arrays are ``(R, S)``, one row a seed, and intervals are over scenes and seeds. One module a question:

==================== =================================================================================================
``intervals``        how large is a mean, or a difference of two arms, and how sure is that
``hypothesis_tests`` could it be chance; over several metrics too
``power``            what difference could have been found
``improvement``      in what share of scenes is an arm better
``binary``           the same for outcomes that are yes or no
``regression``       what goes with a difference, and how much of it that carries
``recovered``        how much of the way to the true model an arm goes
``comparison``       all that is said of two arms
``resampling``       draws of scenes and training seeds
``stratified``       the arithmetic, for many experiments at once
==================== =================================================================================================
"""

from __future__ import annotations

from pipeline.statistics.binary import mcnemar, wilson
from pipeline.statistics.comparison import Comparison, compare
from pipeline.statistics.hypothesis_tests import holm, sign_flip, wilcoxon
from pipeline.statistics.improvement import probability_of_improvement
from pipeline.statistics.intervals import Estimate, difference, scene_mean
from pipeline.statistics.power import minimum_detectable_effect
from pipeline.statistics.recovered import Recovered, recovered_utility
from pipeline.statistics.regression import Mediation, Regression, clustered_slope, mediated
from pipeline.statistics.resampling import nested_draws, resample_scenes, scene_differences

__all__ = [
    "Comparison",
    "Estimate",
    "Mediation",
    "Recovered",
    "Regression",
    "clustered_slope",
    "compare",
    "difference",
    "holm",
    "mcnemar",
    "mediated",
    "minimum_detectable_effect",
    "nested_draws",
    "probability_of_improvement",
    "recovered_utility",
    "resample_scenes",
    "scene_differences",
    "scene_mean",
    "sign_flip",
    "wilcoxon",
    "wilson",
]
