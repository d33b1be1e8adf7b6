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

from typing import Any

import numpy as np
import pandas as pd

from pipeline.attribution import object_metric
from pipeline.config import Experiment
from pipeline.estimates import SETTING, joined
from pipeline.row_tables import Rows
from pipeline.scene_values import VIEWS, SceneNumbers, groups, means
from pipeline.statistics import clustered_slope, mediated
from pipeline.table_files import WHOLE_VIEW

COVERAGE, SPURIOUS = "coverage@5mm", "spurious@5mm"
INTERCEPT = "intercept"
MODELS = {"both": (COVERAGE, SPURIOUS), "coverage alone": (COVERAGE,), "spurious alone": (SPURIOUS,)}

_PAIR = ["arm_a", "arm_b", *SETTING]
POINT_COLUMNS = [*_PAIR, "split", "scene", "object", "metric", "utility", COVERAGE, SPURIOUS]
MEDIATION_COLUMNS = [
    *(*_PAIR, "metric", "model", "term", "slope", "se", "ci_low", "ci_high", "p_value"),
    *("mean_change", "effect", "effect_low", "effect_high", "n_scenes", "n_points", "reason"),
]


_NAMES = ["utility", COVERAGE, SPURIOUS]
_OBJECTS = 2**16  # more than a dataset has


class Mediation:
    """The tables, from batches of rows; columns as in this module's text."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._numbers = SceneNumbers()
        self._points: dict[tuple[Any, ...], dict[tuple[str, str], list[pd.DataFrame]]] = {}

    def add(self, rows: Rows) -> None:
        """Take the rows of some scenes."""
        completion = rows.completion_views
        of_camera = {camera: own for (camera,), own in groups(completion, ["camera"])}
        objects = rows.views[rows.views["object"] != WHOLE_VIEW]
        for setting, own in groups(objects, SETTING):
            labels = dict(zip(SETTING, setting, strict=True))
            pairs = self._points.setdefault(setting, {pair: [] for pair in self._experiment.compared()})
            clouds = completion.iloc[of_camera.get(labels["camera"], [])]
            metric = object_metric(self._experiment, labels["scorer"])
            by_arm = self._by_object(objects.iloc[own], clouds, metric)
            for (a, b), points in pairs.items():
                if a in by_arm and b in by_arm:
                    points.append(self._paired(by_arm[a], by_arm[b]))

    def tables(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return ``mediation`` and ``mediation_points`` of all rows: the lines of every comparison and setting."""
        every, lines = [], []
        for setting in sorted(self._points):
            labels: dict[str, Any] = dict(zip(SETTING, setting, strict=True))
            metric = object_metric(self._experiment, labels["scorer"])
            for (a, b), parts in self._points[setting].items():
                points = joined(parts, ["split", "scene", "object", *_NAMES])
                if points.empty:
                    continue
                points = points.sort_values(["split", "scene", "object"], ignore_index=True)
                keys = {"arm_a": a, "arm_b": b, **labels, "metric": metric}
                every.append(points.assign(**keys))
                for model, terms in MODELS.items():
                    lines += [{**keys, "model": model, **line} for line in _lines(self._experiment, points, terms)]
        made = pd.concat(every, ignore_index=True) if every else pd.DataFrame(columns=POINT_COLUMNS)
        return pd.DataFrame(lines, columns=MEDIATION_COLUMNS), made[POINT_COLUMNS]

    def _by_object(self, objects: pd.DataFrame, completion: pd.DataFrame, metric: str) -> dict[str, pd.DataFrame]:
        """Return utility, coverage and spurious of every arm by view and object, in the views that have all three."""
        known: dict[tuple[str, int], int] = {}
        keys = []
        for table in (objects, completion):
            member = np.zeros(len(table), dtype=np.int64)
            for name, rows in groups(table, ["arm", "replicate"]):
                member[rows] = known.setdefault(name, len(known))
            view_object = self._numbers.views(table) * _OBJECTS + table["object"].to_numpy(np.int64)
            keys.append((view_object, member))
        both = pd.DataFrame(
            {
                "at": keys[0][0],
                "member": keys[0][1],
                "utility": objects[metric].to_numpy(np.float64),
                "arm": objects["arm"].to_numpy(),
            }
        ).merge(
            pd.DataFrame(
                {
                    "at": keys[1][0],
                    "member": keys[1][1],
                    **{name: completion[name].to_numpy(np.float64) for name in (COVERAGE, SPURIOUS)},
                }
            ),
            on=["at", "member"],
            how="inner",
        )
        both = both.dropna(subset=_NAMES)
        # Checkpoints are averaged within a view first, so that arms with unlike numbers of them pair.
        return {
            str(arm): means(both.iloc[rows], ["at"], _NAMES).set_index("at").sort_index()
            for (arm,), rows in groups(both, ["arm"])
        }

    def _paired(self, one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
        """Pair two arms by view, and average by scene and object."""
        common = one.index.intersection(other.index)
        differences = one.loc[common] - other.loc[common]
        view, item = np.divmod(differences.index.to_numpy(np.int64), _OBJECTS)
        points = means(differences.assign(scene=view // VIEWS, object=item), ["scene", "object"], _NAMES)
        names = [self._numbers.names[number] for number in points["scene"].tolist()]
        points["scene"] = np.array([scene for _, scene in names], dtype=np.int64)
        points.insert(0, "split", [split for split, _ in names])
        return points


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
