"""Why: where a difference in utility arises. Whether completion metrics go with it is :mod:`pipeline.mediation`'s.

Tables (all rows carry generator, scorer and camera)
    ``attribution.csv``
        a row a comparison, factor and level. ``additive`` factors part the difference: utility is a sum over grasps
        (:func:`grasping.utility.contributions`), so what a level adds in arm a less what it adds in b sums over the
        levels to the difference itself. ``reason`` parts what is *lost* against a list of perfect grasps instead,
        with its sign turned: a level that costs arm a less than arm b counts as a gain. ``occlusion`` is not additive:
        it compares the objects of a bin by their own utility.
    ``crossed.csv``
        utility of an arm's own grasps; of the same without those that hit the true scene; of the true models' grasps
        without those that hit what the arm believes; and of the true models' grasps: a row an arm (``arm_b`` empty) and
        a row a comparison.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from grasping.utility import FEASIBLE_FRICTION, PERFECT, contributions, shortfall
from pipeline.config import Experiment
from pipeline.dump_scene import WIDTH_BINS
from pipeline.estimates import SETTING, ViewValues, joined, largest, scene_values, view_values
from pipeline.physics_utility import HELD_METRICS, held_contributions, held_shortfall
from pipeline.run_rows import WHOLE_VIEW, Rows
from pipeline.scorers import PHYSICS
from pipeline.statistics import difference, scene_mean

ATTRIBUTION_COLUMNS = [
    *("arm_a", "arm_b", *SETTING, "factor", "level", "metric", "additive", "a", "b"),
    *("difference", "ci_low", "ci_high", "n_scenes", "grasps_a", "grasps_b", "rate_a", "rate_b"),
]
CROSSED_COLUMNS = [
    *("arm_a", "arm_b", *SETTING, "combination", "metric", "value", "ci_low", "ci_high", "n_scenes"),
]

NO_CONTACT = "no contact"
WIDTHS = tuple((high, name) for name, (_, high) in WIDTH_BINS.items())
THICKNESSES = ((0.005, "< 5 mm"), (0.02, "5-20 mm"), (np.inf, "≥ 20 mm"))
VISIBLE = ((0.3, "under 30 %"), (0.7, "30-70 %"), (np.inf, "70 % or more"))
SURFACES = {"observed": "observed", "completed": "completed", "neither": "neither", "": NO_CONTACT}
UNKNOWN = "unknown"
NOTHING = "no grasp at this rank"
MORE_FRICTION = "holds at more friction"
REASONS = (
    *(NOTHING, "hits the target", "hits a neighbour", "hits the table", "collides", "closes on nothing"),
    *(NO_CONTACT, "contacts do not close", MORE_FRICTION, "other"),
)
OUTCOMES = (NOTHING, "collided", "no_contact", "slipped", "lost", "dragged", "held in part", "other")
FACTORS = ("object", "width", "thickness", "surface", "visible", "reason", "occlusion")


@dataclass(frozen=True)
class Attribution:
    """The tables; columns as in this module's text."""

    attribution: pd.DataFrame
    crossed: pd.DataFrame


def parted_metric(experiment: Experiment, scorer: str) -> str:
    """Return the metric that is parted: the primary one, and ``held`` of physics."""
    return "held" if scorer == PHYSICS else experiment.primary_metric


def object_metric(experiment: Experiment, scorer: str) -> str:
    """Return the metric by which single objects are compared.

    AP averages over fifty ranks, of which one object can fill ten: it says little of one object, quality does.
    """
    if scorer == PHYSICS:
        return "held@10"
    return "quality" if experiment.primary_metric.startswith("ap") else experiment.primary_metric


def attribution(experiment: Experiment, rows: Rows) -> Attribution:
    """Make the tables of a run whose stage ``explain`` was run; without it levels are unknown."""
    parts: list[pd.DataFrame] = []
    for setting, views in rows.views.groupby(SETTING, sort=True, observed=True):
        labels = dict(zip(SETTING, map(str, setting), strict=True))
        grasps = rows.grasps[(rows.grasps[SETTING] == list(setting)).all(axis=1)]
        metric = parted_metric(experiment, labels["scorer"])
        parts.append(_parted(experiment, labels, metric, grasps, views[views["object"] == WHOLE_VIEW]))
        parts.append(_by_occlusion(experiment, labels, views[views["object"] != WHOLE_VIEW]))
    return Attribution(joined(parts, ATTRIBUTION_COLUMNS), _crossed(experiment, rows.crossed_views))


# ---------------------------------------------------------------------------------------------- additive factors


def _parted(
    experiment: Experiment, labels: dict[str, str], metric: str, grasps: pd.DataFrame, views: pd.DataFrame
) -> pd.DataFrame:
    graded, missing = _graded(metric, grasps, views)
    graded = graded.assign(**_levels(graded, labels["scorer"]))
    kept = graded[graded["kept"].astype(bool)]
    key = ["arm", "replicate", "split", "scene", "view"]
    every = views[key].drop_duplicates()
    result: list[dict[str, Any]] = []
    for factor in ("object", "width", "thickness", "surface", "visible", "reason"):
        amount = "gain" if factor != "reason" else "loss"
        if not np.isfinite(graded[amount]).all():
            continue  # a metric without an upper bound loses nothing that could be counted
        summed = graded.groupby([*key, factor], observed=True)[amount].sum().unstack(factor, fill_value=0)
        table = every.merge(summed.reset_index(), on=key, how="left").fillna(dict.fromkeys(summed.columns, 0.0))
        levels = [str(name) for name in summed.columns]
        table.columns = pd.Index([*key, *levels])
        if factor == "reason":
            table[NOTHING] = missing.reindex(pd.MultiIndex.from_frame(every[key])).to_numpy()
            levels = [*levels, NOTHING]
            table[levels] = -table[levels]
        counts = _counts(kept, factor, len(every) / max(every[["arm", "replicate"]].drop_duplicates().shape[0], 1))
        by_arm = {str(arm): view_values(own, levels) for arm, own in table.groupby("arm", observed=True)}
        for row in _differences(experiment, by_arm, levels):
            a, b, level = row["arm_a"], row["arm_b"], row["level"]
            if row["a"] == row["b"] == 0.0:
                continue
            none = (0.0, np.nan)
            (row["grasps_a"], row["rate_a"]), (row["grasps_b"], row["rate_b"]) = (
                counts.get((arm, level), none) for arm in (a, b)
            )
            result.append({**row, **labels, "factor": factor, "metric": metric, "additive": True})
    return pd.DataFrame(result, columns=ATTRIBUTION_COLUMNS)


def _graded(metric: str, grasps: pd.DataFrame, views: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    """Add to every grasp what it gains and loses, and return what ranks without a grasp lose in each view."""
    key = ["arm", "replicate", "split", "scene", "view"]
    gain, loss = np.zeros(len(grasps)), np.zeros(len(grasps))
    held = metric.startswith("held")
    names = ("held_fraction",) if held else ("min_friction", "kept")
    columns = [grasps[name].to_numpy() for name in names]
    missing: dict[tuple[Any, ...], float] = {}
    places = grasps.reset_index(drop=True).groupby(key, sort=False, observed=True).indices
    empty = [np.zeros(0), np.zeros(0, bool)][: len(names)]
    perfect = metric in (HELD_METRICS if held else PERFECT)  # else nothing that a list lacks could be counted
    for view in views[key].itertuples(index=False, name=None):
        at = places.get(view)
        arguments = empty if at is None else [column[at] for column in columns]
        lost, absent = (held_shortfall if held else shortfall)(metric, *arguments) if perfect else (np.nan, np.nan)
        missing[view] = absent
        if at is not None:
            gain[at] = (held_contributions if held else contributions)(metric, *arguments)
            loss[at] = lost
    index = pd.MultiIndex.from_tuples(list(missing), names=key)
    return grasps.assign(gain=gain, loss=loss), pd.Series(list(missing.values()), index=index, dtype=float)


def _levels(grasps: pd.DataFrame, scorer: str) -> dict[str, pd.Series]:
    """Return the level of every grasp in every additive factor, as texts."""
    touches = grasps["touches"].astype("boolean")
    thickness = _binned(grasps["thickness"], THICKNESSES).mask(~touches.fillna(True), NO_CONTACT)
    surface = grasps["surface"].map(SURFACES).mask(touches.isna(), UNKNOWN)
    return {
        "object": grasps["object"].astype(int).astype(str),
        "width": _binned(grasps["width"], WIDTHS),
        "thickness": thickness,
        "surface": surface,
        "visible": _binned(grasps["visible_fraction"], VISIBLE),
        "reason": _outcomes(grasps) if scorer == PHYSICS else _reasons(grasps),
    }


def _binned(values: pd.Series, bins: tuple[tuple[float, str], ...]) -> pd.Series:
    """Name the first bin whose upper edge a value stays below."""
    x = values.to_numpy(dtype=np.float64)
    names = np.array([name for _, name in bins], dtype=object)
    inside = np.searchsorted(np.array([edge for edge, _ in bins]), np.nan_to_num(x), side="right")
    labels = names[np.minimum(inside, len(bins) - 1)]
    return pd.Series(np.where(np.isfinite(x), labels, UNKNOWN), index=values.index)


def _reasons(grasps: pd.DataFrame) -> pd.Series:
    """Name what a grasp loses by; one that hits several things counts for the first of target, neighbour, table."""
    names = {
        "empty": "closes on nothing",
        "no_contact": NO_CONTACT,
        "no_closure": "contacts do not close",
        "success": MORE_FRICTION,
    }
    reason = grasps["reason"].astype(object)
    result = reason.map(names).fillna("other")
    collides = (reason == "collides").to_numpy()
    result = result.mask(collides, "collides")
    for column, title in (
        ("hits_table", "hits the table"),
        ("hits_neighbour", "hits a neighbour"),
        ("hits_target", "hits the target"),
    ):
        hit = grasps[column].astype("boolean").fillna(False).to_numpy(dtype=bool)
        result = result.mask(collides & hit, title)
    return result


def _outcomes(grasps: pd.DataFrame) -> pd.Series:
    outcome = grasps["outcome"].astype(object)
    # With several trials a grasp may be held in most of them, and lose by the others.
    return outcome.where(outcome.isin(OUTCOMES), "other").mask(outcome == "held", "held in part")


def _counts(kept: pd.DataFrame, factor: str, views: float) -> dict[tuple[str, str], tuple[float, float]]:
    """Return for arm and level how many kept grasps a view has, and what share of them holds at µ ≤ 0.8."""
    result = {}
    if not len(kept) or views == 0:
        return {}
    replicates = kept.groupby("arm", observed=True)["replicate"].nunique()
    for (arm, level), own in kept.groupby(["arm", factor], observed=True):
        holds = float((own["min_friction"] <= FEASIBLE_FRICTION).mean())
        result[str(arm), str(level)] = (len(own) / views / float(replicates.loc[str(arm)]), holds)
    return result


def _differences(experiment: Experiment, by_arm: dict[str, ViewValues], levels: list[str]) -> Iterator[dict[str, Any]]:
    """Walk through comparisons and levels: what both arms have of a level, and the difference with its interval."""
    statistics = experiment.statistics
    for a, b in experiment.compared():
        if a not in by_arm or b not in by_arm:
            continue
        for place, level in enumerate(levels):
            both = scene_values((by_arm[a], by_arm[b]), place)
            if not both.scenes:
                continue
            one, other = both.values
            estimate = difference(
                one,
                other,
                both.strata,
                statistics.level,
                method=statistics.interval,
                draws=statistics.draws,
                seed=experiment.seed,
            )
            yield {
                "arm_a": a,
                "arm_b": b,
                "level": level,
                "a": float(one.mean()),
                "b": float(other.mean()),
                "difference": estimate.value,
                "ci_low": estimate.low,
                "ci_high": estimate.high,
                "n_scenes": estimate.scenes,
            }


# ------------------------------------------------------------------------------------------------------ occlusion


def _by_occlusion(experiment: Experiment, labels: dict[str, str], objects: pd.DataFrame) -> pd.DataFrame:
    """Compare the objects of which a view shows little, some or most."""
    metric = object_metric(experiment, labels["scorer"])
    binned = objects.assign(level=_binned(objects["visible_fraction"], VISIBLE))
    binned = binned[binned["level"] != UNKNOWN]
    result = []
    for _, name in VISIBLE:
        own = binned[binned["level"] == name]
        key = ["arm", "replicate", "split", "scene", "view"]
        means = own.groupby(key, as_index=False, observed=True)[[metric]].mean()
        by_arm = {str(arm): view_values(part, [metric]) for arm, part in means.groupby("arm", observed=True)}
        count = len(own[["scene", "view", "object"]].drop_duplicates())
        for row in _differences(experiment, by_arm, [name]):
            shared = {"grasps_a": count, "grasps_b": count, "rate_a": np.nan, "rate_b": np.nan}
            result.append({**row, **shared, **labels, "factor": "occlusion", "metric": metric, "additive": False})
    return pd.DataFrame(result, columns=ATTRIBUTION_COLUMNS)


# -------------------------------------------------------------------------------------------- crossed combinations


def _crossed(experiment: Experiment, crossed: pd.DataFrame) -> pd.DataFrame:
    metric = experiment.primary_metric
    statistics = experiment.statistics
    options: dict[str, Any] = {"method": statistics.interval, "draws": statistics.draws, "seed": experiment.seed}
    result = []
    for (generator, camera, combination), part in crossed.groupby(
        ["generator", "camera", "combination"], sort=True, observed=True
    ):
        labels = {"generator": generator, "scorer": "", "camera": camera, "combination": combination, "metric": metric}
        by_arm = {str(arm): view_values(own, [metric]) for arm, own in part.groupby("arm", observed=True)}
        for arm in (arm.name for arm in experiment.arms if arm.name in by_arm):
            of_scenes = scene_values([by_arm[arm]], 0)
            found = scene_mean(of_scenes.values[0], of_scenes.strata, statistics.level, **options)
            own = _estimate(found)
            own |= {"ci_low": max(own["ci_low"], 0.0), "ci_high": min(own["ci_high"], largest(metric))}
            result.append({"arm_a": arm, "arm_b": "", **labels, **own})
        for a, b in experiment.compared():
            if a in by_arm and b in by_arm:
                both = scene_values((by_arm[a], by_arm[b]), 0)
                one, other = both.values
                found = difference(one, other, both.strata, statistics.level, **options)
                result.append({"arm_a": a, "arm_b": b, **labels, **_estimate(found)})
    return pd.DataFrame(result, columns=CROSSED_COLUMNS)


def _estimate(found: Any) -> dict[str, Any]:
    return {"value": found.value, "ci_low": found.low, "ci_high": found.high, "n_scenes": found.scenes}
