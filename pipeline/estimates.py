"""From rows to what is said of scenes: means of arms, paired differences, recovered utility.

Every number is a mean over views within a scene, then over scenes; an arm of several checkpoints is the mean over them.
Differences are paired by generator, scorer, camera, scene, view, object and, where both arms have equally many
checkpoints, by place in their lists. Strata are the splits of a camera.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from pipeline.agreement import WHOLE
from pipeline.config import Experiment
from pipeline.run_rows import WHOLE_VIEW
from pipeline.statistics import compare, difference, holm, recovered_utility, scene_differences, scene_mean

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


@dataclass(frozen=True, eq=False)
class ViewValues:
    """Several metrics of one arm by view.

    Attributes:
        views: ``V`` tuples (split, scene, view), ascending.
        values: ``(V, R, M)``, R checkpoints and M metrics; NaN where there is none.
    """

    views: list[tuple[str, int, int]]
    values: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SceneValues:
    """One metric of one arm, or of several in the same views, by scene.

    Attributes:
        values: for each arm ``(R, S)``, a row a checkpoint.
        strata: S splits.
        scenes: S scene numbers.
        views: ``(S,)`` how many views stand behind each.
    """

    values: list[NDArray[np.float64]]
    strata: list[str]
    scenes: list[int]
    views: NDArray[np.int64]

    def splits(self) -> Iterator[tuple[str, SceneValues]]:
        """Walk through everything together and each split that has scenes."""
        yield WHOLE, self
        for split in sorted(set(self.strata)):
            yield split, self.part([place for place, label in enumerate(self.strata) if label == split])

    def part(self, places: list[int]) -> SceneValues:
        """Return the scenes at these places."""
        return SceneValues(
            [values[:, places] for values in self.values],
            [self.strata[place] for place in places],
            [self.scenes[place] for place in places],
            self.views[places],
        )


def with_means(completion: pd.DataFrame, metrics: list[str]) -> pd.DataFrame:
    """Add one row a view, object -1: the mean over its objects."""
    keys = ["arm", "replicate", *SETTING, "split", "scene", "view"]
    whole = completion.groupby(keys, as_index=False)[metrics].mean().assign(object=WHOLE_VIEW)
    return pd.concat([completion, whole], ignore_index=True)


def view_values(table: pd.DataFrame, metrics: Sequence[str], checkpoints: ArrayLike | None = None) -> ViewValues:
    """Arrange rows of one arm, setting and object (with replicate, split, scene and view) by view.

    Args:
        checkpoints: the arm's places of them, ascending; left out: those of the rows.
    """
    keys = table[["split", "scene", "view"]].astype({"split": str})
    groups = keys.groupby(["split", "scene", "view"], sort=True)
    of_rows = table["replicate"].to_numpy()
    replicates = np.unique(of_rows if checkpoints is None else np.asarray(checkpoints))
    replicate = np.searchsorted(replicates, of_rows)
    values = np.full((groups.ngroups, len(replicates), len(metrics)), np.nan)
    values[groups.ngroup().to_numpy(), replicate] = table[list(metrics)].to_numpy(dtype=np.float64)
    views = [(str(split), int(scene), int(view)) for split, scene, view in groups.size().index]
    return ViewValues(views, values)


def scene_values(arms: Sequence[ViewValues], place: int) -> SceneValues:
    """Average one metric over the views of each scene, in the views in which every checkpoint of every arm has it.

    Args:
        arms: of one setting and object.
        place: of the metric among theirs.
    """
    known = []
    for arm in arms:
        full = np.atleast_1d(np.isfinite(arm.values[:, :, place]).all(axis=1))
        known.append({view: row for row, view in enumerate(arm.views) if full[row]})
    common = sorted(set.intersection(*(set(rows) for rows in known))) if known else []
    scenes = list(dict.fromkeys((split, scene) for split, scene, _ in common))
    number = {scene: place for place, scene in enumerate(scenes)}
    at = np.array([number[split, scene] for split, scene, _ in common], dtype=np.int64)
    counts = np.bincount(at, minlength=len(scenes))
    values = []
    for arm, rows in zip(arms, known, strict=True):
        by_view = arm.values[[rows[view] for view in common], :, place]
        sums = np.zeros((len(scenes), arm.values.shape[1]))
        np.add.at(sums, at, by_view)
        values.append((sums / np.maximum(counts, 1)[:, None]).T)
    return SceneValues(values, [split for split, _ in scenes], [scene for _, scene in scenes], counts)


def mean_of_objects(pairs: Sequence[tuple[ViewValues, ViewValues]]) -> tuple[ViewValues, ViewValues]:
    """Average two arms over the objects of each view that both know, metric by metric, in every checkpoint.

    An empty cloud has no distance: were its object left out of the one arm alone, that arm would look better for it.

    Args:
        pairs: both arms' values of each object.
    """
    views = sorted({view for one, _ in pairs for view in one.views})
    number = {view: place for place, view in enumerate(views)}
    sums = [np.zeros((len(views), *side.values.shape[1:])) for side in pairs[0]]
    counts = np.zeros((len(views), 1, sums[0].shape[2]))
    for pair in pairs:
        rows = [{view: row for row, view in enumerate(side.views)} for side in pair]
        common = [view for view in pair[0].views if view in rows[1]]
        values = [side.values[[of[view] for view in common]] for side, of in zip(pair, rows, strict=True)]
        known = np.isfinite(np.concatenate(values, axis=1)).all(axis=1, keepdims=True)
        at = [number[view] for view in common]
        counts[at] += known
        for total, part in zip(sums, values, strict=True):
            total[at] += np.where(known, part, 0.0)
    with np.errstate(invalid="ignore"):
        one, other = (ViewValues(views, np.where(counts > 0, total / counts, np.nan)) for total in sums)
    return one, other


def _object_name(object_id: Any) -> str:
    return WHOLE if object_id == WHOLE_VIEW else str(int(object_id))


def estimates(experiment: Experiment, table: pd.DataFrame, metrics: list[str]) -> pd.DataFrame:
    """Return the mean of every metric with its interval: arm × setting × object × split.

    Args:
        table: rows of :attr:`pipeline.run_rows.Rows.views` or completion.
    """
    rows = []
    statistics = experiment.statistics
    for keys, part in table.groupby(["arm", *SETTING, "object"], sort=True, observed=True):
        by_view = view_values(part, metrics)
        for place, metric in enumerate(metrics):
            for split, of_scenes in scene_values([by_view], place).splits():
                estimate = scene_mean(
                    of_scenes.values[0],
                    of_scenes.strata,
                    statistics.level,
                    # Objects are many and stand in few scenes: no bootstrap for them.
                    method=statistics.interval if keys[-1] == WHOLE_VIEW else "t",
                    draws=statistics.draws,
                    seed=experiment.seed,
                )
                rows.append(
                    {
                        **dict(zip(["arm", *SETTING], keys, strict=False)),
                        "split": split,
                        "object": _object_name(keys[-1]),
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


def largest(metric: str) -> float:
    """Return the largest value that a metric can take."""
    if metric.startswith("ap"):
        return 100.0
    if metric == "quality":
        return 0.9  # 1.1 minus the least friction tried
    return 1.0 if metric.startswith(("success", "held", "coverage", "spurious", "precision", "f1")) else np.inf


def comparisons(experiment: Experiment, table: pd.DataFrame, metrics: list[str]) -> pd.DataFrame:
    """Return differences a - b of every declared pair: setting × object × split × metric.

    Tests, the minimum detectable effect and the probability of improvement stand in rows of whole views only. Where the
    table has none, as that of completion, these are :func:`mean_of_objects`.
    """
    rows = []
    for setting, part in table.groupby(SETTING, sort=True, observed=True):
        checkpoints = {str(arm): own.unique() for arm, own in part.groupby("arm", observed=True)["replicate"]}
        by_view: dict[tuple[Any, Any], ViewValues] = {
            (arm, item): view_values(own, metrics, checkpoints[str(arm)])
            for (arm, item), own in part.groupby(["arm", "object"], sort=True, observed=True)
        }
        for a, b in experiment.compared():
            shared = sorted(item for arm, item in by_view if arm == a and (b, item) in by_view)
            pairs = {item: (by_view[a, item], by_view[b, item]) for item in shared}
            if pairs and WHOLE_VIEW not in pairs:
                pairs = {WHOLE_VIEW: mean_of_objects(list(pairs.values())), **pairs}
            for object_id, both in pairs.items():
                keys = {"arm_a": a, "arm_b": b, **dict(zip(SETTING, setting, strict=True))}
                keys["object"] = _object_name(object_id)
                for place, metric in enumerate(metrics):
                    for split, of_scenes in scene_values(both, place).splits():
                        if of_scenes.scenes:
                            rows.append(_compared(experiment, {**keys, "split": split, "metric": metric}, of_scenes))
    return pd.DataFrame(rows, columns=COMPARISON_COLUMNS)


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


def recovered(experiment: Experiment, table: pd.DataFrame, metrics: list[str]) -> pd.DataFrame:
    """Return (arm - partial) / (oracle - partial) of every learned arm: setting × split × metric."""
    partial = [arm.name for arm in experiment.arms if arm.completion == "none"]
    oracle = [arm.name for arm in experiment.arms if arm.completion == "truth"]
    if not partial or not oracle:
        return pd.DataFrame(columns=RECOVERED_COLUMNS)
    rows = []
    whole = table[table["object"] == WHOLE_VIEW]
    for setting, part in whole.groupby(SETTING, sort=True, observed=True):
        by_view = {str(arm): view_values(own, metrics) for arm, own in part.groupby("arm", observed=True)}
        if not {partial[0], oracle[0]} <= set(by_view):
            continue  # an arm of which nothing is scored; its problems are on record
        learned = [arm.name for arm in experiment.arms if arm.is_learned and arm.name in by_view]
        arms = [*learned, partial[0], oracle[0]]
        for place, metric in enumerate(metrics):
            for split, of_scenes in scene_values([by_view[arm] for arm in arms], place).splits():
                if not of_scenes.scenes:
                    continue
                low, high = of_scenes.values[-2:]
                for arm, own in zip(learned, of_scenes.values, strict=False):
                    found = recovered_utility(
                        own if len(own) > 1 else own[0],
                        low[0],
                        high[0],
                        of_scenes.strata,
                        level=experiment.statistics.level,
                        draws=experiment.statistics.draws,
                        seed=experiment.seed,
                    )
                    rows.append([arm, *setting, split, metric, found.value, found.low, found.high, found.reason])
    return pd.DataFrame(rows, columns=RECOVERED_COLUMNS)


def joined(parts: Iterable[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    """Put tables below one another; empty ones lend no types."""
    kept = [part for part in parts if len(part)]
    return pd.concat(kept, ignore_index=True) if kept else pd.DataFrame(columns=columns)
