"""Table ``crossed.csv``: utility with one part of it exchanged (rows carry generator, scorer and camera).

Utility of an arm's own grasps; of the same without those that hit the true scene; of the true models' grasps without
those that hit what the arm believes; and of the true models' grasps: a row an arm (``arm_b`` empty) and a row a
comparison.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from pipeline.config import Experiment
from pipeline.estimates import SETTING, largest
from pipeline.scene_values import Gathered, Measured, SceneNumbers, SceneValues, ViewValues, groups
from pipeline.statistics import difference, scene_mean

CROSSED_COLUMNS = [
    *("arm_a", "arm_b", *SETTING, "combination", "metric", "value", "ci_low", "ci_high", "n_scenes"),
]
_KEY = ["generator", "camera", "combination"]


class Crossed:
    """The table, from batches of rows."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._numbers = SceneNumbers()
        self._found: dict[tuple[Any, ...], dict[tuple[str, ...], Gathered]] = {}
        self._checkpoints: dict[tuple[Any, ...], set[int]] = {}

    def add(self, crossed: pd.DataFrame) -> None:
        """Take rows of :attr:`pipeline.row_tables.Rows.crossed_views`."""
        if crossed.empty:
            return
        measured = Measured.of(crossed, [self._experiment.primary_metric], self._numbers)
        by_key: dict[tuple[Any, ...], dict[str, ViewValues]] = {}
        for (*key, arm), rows in groups(crossed, [*_KEY, "arm"]):
            values = measured.by_view(rows)
            by_key.setdefault(tuple(key), {})[arm] = values
            self._checkpoints.setdefault((*key, arm), set()).update(values.checkpoints.tolist())
        for of_key, by_arm in by_key.items():
            found = self._found.setdefault(of_key, {})
            for arms in (*((arm,) for arm in by_arm), *self._experiment.compared()):
                if set(arms) <= set(by_arm):
                    gathered = found.setdefault(arms, Gathered(self._numbers))
                    gathered.add([by_arm[arm] for arm in arms], (self._experiment.primary_metric,))

    def table(self) -> pd.DataFrame:
        """Return what is said of all rows."""
        metric = self._experiment.primary_metric
        statistics = self._experiment.statistics
        options: dict[str, Any] = {
            "method": statistics.interval,
            "draws": statistics.draws,
            "seed": self._experiment.seed,
        }
        result = []
        for key in sorted(self._found):
            generator, camera, combination = key
            labels = {"generator": generator, "scorer": "", "camera": camera, "combination": combination}
            labels["metric"] = metric
            for arm in (arm.name for arm in self._experiment.arms if (*key, arm.name) in self._checkpoints):
                of_scenes = self._of(key, (arm,))
                found = scene_mean(of_scenes.values[0], of_scenes.strata, statistics.level, **options)
                own = _estimate(found)
                own |= {"ci_low": max(own["ci_low"], 0.0), "ci_high": min(own["ci_high"], largest(metric))}
                result.append({"arm_a": arm, "arm_b": "", **labels, **own})
            for a, b in self._experiment.compared():
                if (*key, a) in self._checkpoints and (*key, b) in self._checkpoints:
                    both = self._of(key, (a, b))
                    one, other = both.values
                    found = difference(one, other, both.strata, statistics.level, **options)
                    result.append({"arm_a": a, "arm_b": b, **labels, **_estimate(found)})
        return pd.DataFrame(result, columns=CROSSED_COLUMNS)

    def _of(self, key: tuple[Any, ...], arms: tuple[str, ...]) -> SceneValues:
        places = [tuple(sorted(self._checkpoints[*key, arm])) for arm in arms]
        return self._found[key].get(arms, Gathered(self._numbers)).of(self._experiment.primary_metric, places)


def _estimate(found: Any) -> dict[str, Any]:
    return {"value": found.value, "ci_low": found.low, "ci_high": found.high, "n_scenes": found.scenes}
