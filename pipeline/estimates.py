"""From rows to what is said of scenes: means of arms, paired differences, recovered utility.

Every number is a mean over views within a scene, then over scenes; an arm of several checkpoints is the mean over them.
Differences are paired by generator, scorer, camera, scene, view, object and, where both arms have equally many
checkpoints, by place in their lists. Strata are the splits of a camera.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline.config import Experiment
from pipeline.scene_values import (
    Gathered,
    IntArray,
    Measured,
    SceneNumbers,
    SceneValues,
    ViewValues,
    groups,
    means,
)
from pipeline.statistics import compare, difference, holm, recovered_utility, scene_differences, scene_mean
from pipeline.table_files import WHOLE, WHOLE_VIEW

SETTING = ["generator", "scorer", "camera"]
TABLE_KEYS = ["arm", *SETTING, "split", "object"]
UTILITY_COLUMNS = [*TABLE_KEYS, "metric", "value", "ci_low", "ci_high", "n_scenes", "n_views", "n_seeds"]
COMPARISON_COLUMNS = [
    *("arm_a", "arm_b", *SETTING, "split", "object", "metric"),
    *("difference", "ci_low", "ci_high", "n_scenes", "n_differ", "n_views", "seeds_a", "seeds_b", "se"),
    "interval",
    *("p_permutation", "p_wilcoxon", "p_value", "p_method", "in_family", "p_holm"),
    *("mde", "improvement", "improvement_low", "improvement_high"),
]
RECOVERED_COLUMNS = ["arm", *SETTING, "split", "metric", "value", "ci_low", "ci_high", "reason"]


def with_means(completion: pd.DataFrame, metrics: list[str]) -> pd.DataFrame:
    """Add one row a view, object -1: the mean over its objects."""
    keys = ["arm", "replicate", *SETTING, "split", "scene", "view"]
    return pd.concat([completion, means(completion, keys, metrics).assign(object=WHOLE_VIEW)], ignore_index=True)


def mean_of_objects(pairs: Sequence[tuple[ViewValues, ViewValues]]) -> tuple[ViewValues, ViewValues]:
    """Average two arms over the objects of each view that both know, metric by metric, in every checkpoint.

    An empty cloud has no distance: were its object left out of the one arm alone, that arm would look better for it.

    Args:
        pairs: both arms' values of each object.
    """
    views = np.unique(np.concatenate([one.views for one, _ in pairs]))
    sums = [np.zeros((len(views), *side.values.shape[1:])) for side in pairs[0]]
    counts = np.zeros((len(views), 1, sums[0].shape[2]))
    for pair in pairs:
        common = np.intersect1d(pair[0].views, pair[1].views)
        values = [side.values[np.searchsorted(side.views, common)] for side in pair]
        known = np.isfinite(np.concatenate(values, axis=1)).all(axis=1, keepdims=True)
        at = np.searchsorted(views, common)
        counts[at] += known
        for total, part in zip(sums, values, strict=True):
            total[at] += np.where(known, part, 0.0)
    with np.errstate(invalid="ignore"):
        averaged = [np.where(counts > 0, total / counts, np.nan) for total in sums]
    one, other = (ViewValues(views, side.checkpoints, values) for side, values in zip(pairs[0], averaged, strict=True))
    return one, other


def _object_name(object_id: Any) -> str:
    return WHOLE if object_id == WHOLE_VIEW else str(int(object_id))


class Estimates:
    """The mean of every metric with its interval: arm × setting × object × split; from batches of rows."""

    def __init__(self, experiment: Experiment, metrics: Sequence[str]) -> None:
        self._experiment, self._metrics = experiment, tuple(metrics)
        self._numbers = SceneNumbers()
        self._found: dict[tuple[Any, ...], Gathered] = {}

    def add(self, table: pd.DataFrame) -> None:
        """Take rows of :attr:`pipeline.row_tables.Rows.views` or completion."""
        measured = Measured.of(table, self._metrics, self._numbers)
        for key, rows in groups(table, ["arm", *SETTING, "object"]):
            gathered = self._found.setdefault(key, Gathered(self._numbers))
            gathered.add([measured.by_view(rows)], self._metrics)

    def table(self) -> pd.DataFrame:
        """Return what is said of all rows."""
        rows = []
        statistics = self._experiment.statistics
        for key in sorted(self._found):
            for metric in self._metrics:
                for split, of_scenes in self._found[key].of(metric).splits():
                    estimate = scene_mean(
                        of_scenes.values[0],
                        of_scenes.strata,
                        statistics.level,
                        # Objects are many and stand in few scenes: no bootstrap for them.
                        method=statistics.interval if key[-1] == WHOLE_VIEW else "t",
                        draws=statistics.draws,
                        seed=self._experiment.seed,
                    )
                    rows.append(
                        {
                            **dict(zip(["arm", *SETTING], key, strict=False)),
                            "split": split,
                            "object": _object_name(key[-1]),
                            "metric": metric,
                            "value": estimate.value,
                            # A mean cannot leave its metric's range, and cutting an interval there costs no coverage.
                            "ci_low": max(estimate.low, 0.0),
                            "ci_high": min(estimate.high, largest(metric)),
                            "n_scenes": estimate.scenes,
                            "n_views": int(of_scenes.views.sum()),
                            "n_seeds": len(of_scenes.values[0]),
                        }
                    )
        return pd.DataFrame(rows, columns=UTILITY_COLUMNS)


def estimates(experiment: Experiment, table: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Return :class:`Estimates` of rows that are at hand."""
    found = Estimates(experiment, metrics)
    found.add(table)
    return found.table()


def largest(metric: str) -> float:
    """Return the largest value that a metric can take."""
    if metric.startswith("ap") or metric == "oracle_ap":
        return 100.0
    if metric == "quality":
        return 0.9  # 1.1 minus the least friction tried
    return 1.0 if metric.startswith(("success", "any", "held", "coverage", "spurious", "precision", "f1")) else np.inf


class Comparisons:
    """Differences a - b of every declared pair: setting × object × split × metric; from batches of rows.

    Tests, the minimum detectable effect and the probability of improvement stand in rows of whole views only. Where the
    tables have none, as that of completion, these are :func:`mean_of_objects`.
    """

    def __init__(self, experiment: Experiment, metrics: Sequence[str]) -> None:
        self._experiment, self._metrics = experiment, tuple(metrics)
        self._numbers = SceneNumbers()
        self._checkpoints: dict[tuple[Any, ...], set[int]] = {}
        self._found: dict[tuple[Any, ...], dict[tuple[str, str], dict[int, Gathered]]] = {}

    def add(self, table: pd.DataFrame) -> None:
        """Take rows of :attr:`pipeline.row_tables.Rows.views` or completion."""
        measured = Measured.of(table, self._metrics, self._numbers)
        places = {key: np.unique(measured.checkpoints[rows]) for key, rows in groups(table, [*SETTING, "arm"])}
        by_view: dict[tuple[Any, ...], dict[tuple[str, int], ViewValues]] = {}
        for (*setting, arm, item), rows in groups(table, [*SETTING, "arm", "object"]):
            of_setting = by_view.setdefault(tuple(setting), {})
            of_setting[arm, item] = measured.by_view(rows, places[*setting, arm])
        for key, own in places.items():
            self._checkpoints.setdefault(key, set()).update(own.tolist())
        for of_key, values in by_view.items():
            pairs = self._found.setdefault(of_key, {pair: {} for pair in self._experiment.compared()})
            for pair, found in pairs.items():
                self._pair(pair, values, found)

    def _pair(
        self, pair: tuple[str, str], values: dict[tuple[str, int], ViewValues], found: dict[int, Gathered]
    ) -> None:
        a, b = pair
        both = {
            item: (values[a, item], values[b, item]) for arm, item in sorted(values) if arm == a and (b, item) in values
        }
        if both and WHOLE_VIEW not in both:
            both = {WHOLE_VIEW: mean_of_objects(list(both.values())), **both}
        for item, sides in both.items():
            found.setdefault(item, Gathered(self._numbers)).add(sides, self._metrics)

    def table(self) -> pd.DataFrame:
        """Return what is said of all rows."""
        rows = []
        for setting in sorted(self._found):
            for (a, b), found in self._found[setting].items():
                places = [tuple(sorted(self._checkpoints.get((*setting, arm), ()))) for arm in (a, b)]
                for item in sorted(found):
                    keys = {"arm_a": a, "arm_b": b, **dict(zip(SETTING, setting, strict=True))}
                    keys["object"] = _object_name(item)
                    for metric in self._metrics:
                        for split, of_scenes in found[item].of(metric, places).splits():
                            if of_scenes.scenes:
                                keys |= {"split": split, "metric": metric}
                                rows.append(_compared(self._experiment, keys, of_scenes))
        return pd.DataFrame(rows, columns=COMPARISON_COLUMNS)


def comparisons(experiment: Experiment, table: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Return :class:`Comparisons` of rows that are at hand."""
    found = Comparisons(experiment, metrics)
    found.add(table)
    return found.table()


def _compared(experiment: Experiment, keys: dict[str, Any], both: SceneValues) -> dict[str, Any]:
    statistics = experiment.statistics
    a, b = both.values
    row = {**keys, "n_views": int(both.views.sum()), "seeds_a": len(a), "seeds_b": len(b)}
    if keys["object"] == WHOLE:
        found = compare(
            a,
            b,
            both.strata,
            level=statistics.level,
            draws=statistics.draws,
            seed=experiment.seed,
            method=statistics.interval,
            power=statistics.power,
        )
        estimate = found.estimate
        row |= {
            "p_permutation": found.p_permutation,
            "p_wilcoxon": found.p_wilcoxon,
            "p_value": found.p_value,
            "p_method": found.p_method,
            "in_family": _in_family(experiment, (keys["arm_a"], keys["arm_b"]), keys["metric"], keys["split"]),
            "mde": found.mde,
            **dict(zip(("improvement", "improvement_low", "improvement_high"), found.improvement, strict=True)),
        }
    else:
        estimate = difference(a, b, both.strata, statistics.level, method="t")
        row |= {"p_method": "", "in_family": False}
    return row | {
        "difference": estimate.value,
        "ci_low": estimate.low,
        "ci_high": estimate.high,
        "n_scenes": estimate.scenes,
        # Where most scenes do not differ at all, no interval covers: read it beside this.
        "n_differ": int(np.count_nonzero(scene_differences(a, b))),
        "se": estimate.se,
        "interval": estimate.method,
    }


def _in_family(experiment: Experiment, pair: tuple[str, str], metric: str, split: str) -> bool:
    family = experiment.statistics.family
    metrics = family.metrics or (experiment.primary_metric,)
    pairs = experiment.questioned() if family.comparisons is None else family.comparisons
    return pair in pairs and metric in metrics and split in family.splits


def adjusted(table: pd.DataFrame) -> pd.DataFrame:
    """Fill ``p_holm``: Holm's adjustment over all tests of the declared family, in every setting of the run."""
    chosen = table["in_family"].astype(bool)
    values = np.full(len(table), np.nan)
    values[chosen.to_numpy()] = holm(table.loc[chosen, "p_value"].to_numpy(dtype=np.float64))
    return table.assign(p_holm=values, in_family=chosen)


class Recovered:
    """(arm - partial) / (oracle - partial) of every learned arm: setting × split × metric; from batches of rows."""

    def __init__(self, experiment: Experiment, metrics: Sequence[str]) -> None:
        self._experiment, self._metrics = experiment, tuple(metrics)
        self._numbers = SceneNumbers()
        self._found: dict[tuple[Any, ...], dict[tuple[str, ...], Gathered]] = {}
        self._arms: dict[tuple[Any, ...], set[str]] = {}
        self._checkpoints: dict[tuple[Any, ...], set[int]] = {}

    def add(self, table: pd.DataFrame) -> None:
        """Take rows of :attr:`pipeline.row_tables.Rows.views`; those of whole views count."""
        whole = table[table["object"] == WHOLE_VIEW]
        measured = Measured.of(whole, self._metrics, self._numbers)
        rows_of: dict[tuple[Any, ...], dict[str, IntArray]] = {}
        for (*setting, arm), rows in groups(whole, [*SETTING, "arm"]):
            rows_of.setdefault(tuple(setting), {})[arm] = rows
        for key, by_arm in rows_of.items():
            self._arms.setdefault(key, set()).update(by_arm)
            for arm, rows in by_arm.items():
                places = np.unique(measured.checkpoints[rows]).tolist()
                self._checkpoints.setdefault((*key, arm), set()).update(places)
            arms = self._together(set(by_arm))
            if arms:
                gathered = self._found.setdefault(key, {}).setdefault(arms, Gathered(self._numbers))
                gathered.add([measured.by_view(by_arm[arm]) for arm in arms], self._metrics)

    def _together(self, present: set[str]) -> tuple[str, ...]:
        """Return the learned arms that are present, then partial and oracle; nothing where one of these is not."""
        ends = []
        for completion in ("none", "truth"):
            named = [arm.name for arm in self._experiment.arms if arm.completion == completion]
            if not named or named[0] not in present:
                return ()  # an arm of which nothing is scored; its problems are on record
            ends.append(named[0])
        return (*(arm.name for arm in self._experiment.arms if arm.is_learned and arm.name in present), *ends)

    def table(self) -> pd.DataFrame:
        """Return what is said of all rows."""
        rows: list[list[Any]] = []
        for setting in sorted(self._found):
            # A scene that lacks one of the run's arms has no view that all of them have.
            arms = self._together(self._arms[setting])
            gathered = self._found[setting].get(arms)
            if gathered is None:
                continue
            places = [tuple(sorted(self._checkpoints[*setting, arm])) for arm in arms]
            for metric in self._metrics:
                for split, of_scenes in gathered.of(metric, places).splits():
                    if of_scenes.scenes:
                        rows += [[arm, *setting, split, metric, *found] for arm, found in self._of(arms, of_scenes)]
        return pd.DataFrame(rows, columns=RECOVERED_COLUMNS)

    def _of(self, arms: tuple[str, ...], of_scenes: SceneValues) -> Iterable[tuple[str, tuple[Any, ...]]]:
        low, high = of_scenes.values[-2:]
        for arm, own in zip(arms[:-2], of_scenes.values, strict=False):
            found = recovered_utility(
                own if len(own) > 1 else own[0],
                low[0],
                high[0],
                of_scenes.strata,
                level=self._experiment.statistics.level,
                draws=self._experiment.statistics.draws,
                seed=self._experiment.seed,
            )
            yield arm, (found.value, found.low, found.high, found.reason)


def joined(parts: Iterable[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    """Put tables below one another; empty ones lend no types."""
    kept = [part for part in parts if len(part)]
    return pd.concat(kept, ignore_index=True) if kept else pd.DataFrame(columns=columns)
