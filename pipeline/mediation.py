"""Is it coverage that helps grasping? Δutility of objects against Δcoverage and Δspurious, clustered by scene.

Tables (all rows carry arm_a, arm_b, generator, scorer and camera)
    ``mediation_points.csv``
        a row an object and scene: the differences a - b of its utility (:func:`pipeline.attribution.object_metric`), of
        coverage and of spurious points at 5 mm, means over views and checkpoints.
    ``mediation.csv``
        a row a model and term of the least-squares lines through those points: slope (utility a unit of the term), its
        interval and p-value with errors clustered by scene, mean_change of the term, and effect = slope × mean_change
        with its interval; of ``intercept``, what remains when neither changes. The effects of the model ``both`` sum to
        the mean difference of objects' utility. An association over objects, not an experiment: what moves coverage
        moves other things too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline.attribution import object_metric
from pipeline.config import Experiment
from pipeline.estimates import SETTING
from pipeline.run_rows import WHOLE_VIEW, Rows
from pipeline.statistics import clustered_slope, mediated

COVERAGE, SPURIOUS = "coverage@5mm", "spurious@5mm"
INTERCEPT = "intercept"
MODELS = {"both": (COVERAGE, SPURIOUS), "coverage alone": (COVERAGE,), "spurious alone": (SPURIOUS,)}

_PAIR = ["arm_a", "arm_b", *SETTING]
POINT_COLUMNS = [*_PAIR, "split", "scene", "object", "metric", "utility", COVERAGE, SPURIOUS]
MEDIATION_COLUMNS = [
    *(*_PAIR, "metric", "model", "term", "slope", "se", "ci_low", "ci_high", "p_value"),
    *("mean_change", "effect", "effect_low", "effect_high", "n_scenes", "n_points", "reason"),
]


@dataclass(frozen=True)
class Mediation:
    """The tables; columns as in this module's text."""

    mediation: pd.DataFrame
    mediation_points: pd.DataFrame


def mediation(experiment: Experiment, rows: Rows) -> Mediation:
    """Fit the lines of every comparison and setting."""
    points, lines = [], []
    for setting, objects in rows.views[rows.views["object"] != WHOLE_VIEW].groupby(SETTING, sort=True, observed=True):
        labels: dict[str, Any] = dict(zip(SETTING, map(str, setting), strict=True))
        metric = object_metric(experiment, labels["scorer"])
        completion = rows.completion_views[rows.completion_views["camera"] == labels["camera"]]
        table = _by_object(objects, completion, metric)
        for a, b in experiment.compared():
            of_pair = _points(table, a, b)
            if of_pair.empty:
                continue
            keys = {"arm_a": a, "arm_b": b, **labels, "metric": metric}
            points.append(of_pair.assign(**keys))
            for model, terms in MODELS.items():
                lines += [{**keys, "model": model, **line} for line in _lines(experiment, of_pair, terms)]
    made = pd.concat(points, ignore_index=True) if points else pd.DataFrame(columns=POINT_COLUMNS)
    return Mediation(pd.DataFrame(lines, columns=MEDIATION_COLUMNS), made[POINT_COLUMNS])


def _by_object(objects: pd.DataFrame, completion: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return utility, coverage and spurious of every arm, scene and object, in the views that have all three."""
    key = ["arm", "replicate", "split", "scene", "view", "object"]
    joined = objects[[*key, metric]].merge(completion[[*key, COVERAGE, SPURIOUS]], on=key, how="inner")
    known = joined.dropna(subset=[metric, COVERAGE, SPURIOUS]).rename(columns={metric: "utility"})
    return known


def _points(table: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    """Pair two arms by view, and average by scene and object."""
    names = ["utility", COVERAGE, SPURIOUS]
    where = ["split", "scene", "view", "object"]
    # Checkpoints are averaged within a view first, so that arms with unlike numbers of them pair.
    one, other = (table[table["arm"] == arm].groupby(where, observed=True)[names].mean() for arm in (a, b))
    common = one.index.intersection(other.index)
    differences = one.loc[common] - other.loc[common]
    return differences.groupby(level=["split", "scene", "object"], observed=True).mean().reset_index()


def _lines(experiment: Experiment, points: pd.DataFrame, terms: tuple[str, ...]) -> list[dict[str, Any]]:
    level = experiment.statistics.level
    y, X = points["utility"].to_numpy(np.float64), points[list(terms)].to_numpy(np.float64)
    clusters = points["scene"].to_numpy()
    fit = clustered_slope(y, X, clusters, level)
    split = mediated(y, X, clusters, level)
    result = []
    for place, term in enumerate((INTERCEPT, *terms)):
        result.append(
            {
                "term": term,
                "slope": fit.coefficients[place],
                "se": fit.se[place],
                "ci_low": fit.low[place],
                "ci_high": fit.high[place],
                "p_value": fit.p[place],
                "mean_change": 1.0 if term == INTERCEPT else float(points[term].mean()),
                "effect": split.effects[place],
                "effect_low": split.low[place],
                "effect_high": split.high[place],
                "n_scenes": len(set(clusters.tolist())),
                "n_points": len(points),
                "reason": fit.reason,
            }
        )
    return result
