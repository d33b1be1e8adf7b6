"""Stage: rows -> utility tables and paired comparisons.

Reads
    ``arms/*/scores/<generator>/<scorer>/scene_SSSS/<camera>/*.parquet`` and ``arms/*/clouds/**/completion.parquet``.
Writes
    ========================== =====================================================================================
    ``tables/``
    ========================== =====================================================================================
    ``grasps.parquet``         every scored grasp with arm, generator, scorer, split, scene, camera in front
    ``views.parquet``          one row a view and arm, and one a view, arm and object: all utility metrics,
                               and whether the unit failed
    ``utility.csv``            arm, generator, scorer, camera, split, object, metric, value, ci_low, ci_high, n_scenes,
                               n_views; split and object are ``all`` for the whole
    ``completion.csv``         the same columns for the completion metrics
    ``comparisons.csv``        arm_a, arm_b, ..., metric, difference (a - b), ci_low, ci_high, n_scenes, n_views
    ``recovered.csv``          arm, ..., metric, value, ci_low, ci_high, reason
    ========================== =====================================================================================

    and ``summary.json`` (:mod:`pipeline.summary`). Utility metrics are those of :mod:`grasping.utility`, of the scorer
    ``physics`` those of :mod:`pipeline.physics_utility`; a view or object without grasps counts as zero, and so does
    every observed view of a unit that failed. Means are over views within a scene, then over scenes; views are never
    resampled.

    Where physics gave its opinion, every grasp that it tried has it beside ``min_friction`` (columns
    :data:`pipeline.grasp_rows.TRIAL_COLUMNS`), whoever scored the row, and there are the tables of
    :mod:`pipeline.agreement` too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from grasping.utility import METRICS, view_utility
from pipeline.agreement import WHOLE, Agreement
from pipeline.agreement import tables as agreement_tables
from pipeline.artifacts import ArtifactError, atomic_write, read_stamp
from pipeline.cloud_files import load_observation
from pipeline.complete import METRICS_FILE
from pipeline.config import Experiment
from pipeline.grasp_rows import COLUMNS, TRIAL_COLUMNS
from pipeline.physics_utility import HELD_METRICS, held_utility
from pipeline.run_folder import FAILURE, STAMP, RunFolder, unit_folder, view_file
from pipeline.score import GRASPS_FILE, VIEWS_FILE
from pipeline.scorers import PHYSICS
from pipeline.selection import SceneUnit
from pipeline.statistics import recovered_utility, scene_mean

VERSION = 5
UNIT_FAILED = "unit failed"
TABLES = (
    *(f"{name}.csv" for name in ("utility", "completion", "comparisons", "recovered")),
    *(f"{name}.parquet" for name in ("grasps", "views", "completion_views")),
)
AGREEMENT_TABLES = ("agreement.csv", "roc.csv", "physics_outcomes.csv")
KEYS = ["arm", "generator", "scorer", "camera", "split", "scene"]
COMPARISON_COLUMNS = [
    *("arm_a", "arm_b", "generator", "scorer", "camera", "split", "object", "metric"),
    *("difference", "ci_low", "ci_high", "n_scenes", "n_views"),
]
TABLE_KEYS = ["arm", "generator", "scorer", "camera", "split", "object"]


@dataclass(frozen=True)
class Tables:
    """The tables of a run; columns as in this module's text."""

    grasps: pd.DataFrame
    views: pd.DataFrame
    completion_views: pd.DataFrame
    utility: pd.DataFrame
    completion: pd.DataFrame
    comparisons: pd.DataFrame
    recovered: pd.DataFrame
    agreement: Agreement | None = None


def names(experiment: Experiment) -> tuple[str, ...]:
    """List the tables of an experiment's run."""
    return (*TABLES, *AGREEMENT_TABLES) if PHYSICS in experiment.scorers else TABLES


def run(experiment: Experiment, run: RunFolder, units: list[SceneUnit]) -> Tables:
    """Aggregate every finished unit.

    Raises:
        ArtifactError: if a unit is neither scored nor failed, or was made from what has changed since.
    """
    grasps, views = _read_scores(experiment, run, units)
    completion_views = _read_completion(experiment, run, units)
    per_view = _view_utilities(grasps, views)
    statistics = experiment.statistics
    utility = pd.concat(
        [_estimates(part, measured, statistics.level) for part, measured in _by_opinion(per_view)], ignore_index=True
    )
    metrics = [name for name in completion_views.columns if name not in (*KEYS, "view", "object", "status")]
    completion = _estimates(_with_means(completion_views, metrics), metrics, statistics.level)
    differences = [
        *(_comparisons(experiment, part, measured) for part, measured in _by_opinion(per_view)),
        _comparisons(experiment, _with_means(completion_views, metrics), metrics),
    ]
    comparisons = pd.concat(differences, ignore_index=True)
    recovered = pd.concat(
        [_recovered(experiment, part, measured) for part, measured in _by_opinion(per_view)], ignore_index=True
    )
    agreement = None
    if PHYSICS in experiment.scorers:
        tried = grasps[grasps["scorer"] == PHYSICS].astype({"held": bool})
        agreement = agreement_tables(tried, level=statistics.level, draws=statistics.draws, seed=experiment.seed)
    tables = Tables(grasps, per_view, completion_views, utility, completion, comparisons, recovered, agreement)
    _write(tables, run)
    return tables


def _units(experiment: Experiment, units: list[SceneUnit]) -> Iterator[tuple[dict[str, Any], SceneUnit]]:
    for arm in experiment.arms:
        for generator in experiment.generators:
            for scorer in experiment.scorers:
                for unit in units:
                    yield (
                        {
                            "arm": arm.name,
                            "generator": generator.label,
                            "scorer": scorer,
                            "camera": unit.camera,
                            "split": unit.split,
                            "scene": unit.scene,
                        },
                        unit,
                    )


def _read_scores(experiment: Experiment, run: RunFolder, units: list[SceneUnit]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return all rows of grasps and of views; the views of a unit that failed count as views without grasps."""
    grasps, views = [COLUMNS.empty_table().to_pandas()], []
    for keys, unit in _units(experiment, units):
        clouds = unit_folder(run.clouds(keys["arm"]), unit.scene, unit.camera)
        dump = unit_folder(run.dump(keys["arm"], keys["generator"]), unit.scene, unit.camera)
        folder = unit_folder(run.scores(keys["arm"], keys["generator"], keys["scorer"]), unit.scene, unit.camera)
        stamp = read_stamp(folder / STAMP)
        if stamp is None:
            if not (folder / FAILURE).exists():
                raise ArtifactError(f"{folder}: not scored yet; run `score`, or the whole experiment, first")
            views.append(_failed_views(run, unit).assign(**keys))
            continue
        for source, maker, key in ((dump, folder, "dump"), (clouds, dump, "clouds")):
            made, used = read_stamp(source / STAMP), read_stamp(maker / STAMP)
            if made is None or used is None or used.made_from[key] != made.fingerprint:
                raise ArtifactError(f"{maker}: made from other {key} than now lie in the run; run the stages again")
        grasps.append(pd.read_parquet(folder / GRASPS_FILE).assign(**keys))
        views.append(pd.read_parquet(folder / VIEWS_FILE).assign(**keys))
    if not views or not sum(len(table) for table in views):
        raise ArtifactError(f"{run.root}: nothing is scored; run the stages before, and see {run.problems.name}")
    rows = pd.concat(grasps, ignore_index=True).reindex(columns=[*KEYS, *COLUMNS.names, *_trial_columns(experiment)])
    return _with_trials(rows) if PHYSICS in experiment.scorers else rows, pd.concat(views, ignore_index=True)


def _trial_columns(experiment: Experiment) -> list[str]:
    return TRIAL_COLUMNS.names if PHYSICS in experiment.scorers else []


def _with_trials(rows: pd.DataFrame) -> pd.DataFrame:
    """Put what physics says of a grasp beside what every other scorer says of it; empty where it was not tried."""
    key = [*(name for name in KEYS if name not in ("scorer", "split")), "view", "row"]
    tried = rows[rows["scorer"] == PHYSICS]
    others = rows[rows["scorer"] != PHYSICS].drop(columns=TRIAL_COLUMNS.names)
    joined = others.merge(tried[[*key, *TRIAL_COLUMNS.names]], on=key, how="left", validate="many_to_one")
    return pd.concat([joined[rows.columns], tried], ignore_index=True).astype({"held": "boolean"})


def _failed_views(run: RunFolder, unit: SceneUnit) -> pd.DataFrame:
    """Return rows without grasps for what was observed of a unit that failed later."""
    folder = unit_folder(run.observations, unit.scene, unit.camera)
    rows = []
    for view in unit.views:
        path = view_file(folder, view, ".npz")
        if path.exists():
            ids = load_observation(path).objects.object_ids
            rows.append({"view": view, "objects": ",".join(map(str, ids)), "reason": UNIT_FAILED})
    counts = dict.fromkeys(("generated", "refused", "suppressed", "kept"), 0)
    return pd.DataFrame(rows, columns=["view", "objects", "reason"]).assign(**counts)


def _read_completion(experiment: Experiment, run: RunFolder, units: list[SceneUnit]) -> pd.DataFrame:
    parts = []
    for arm in experiment.arms:
        for unit in units:
            path = unit_folder(run.clouds(arm.name), unit.scene, unit.camera) / METRICS_FILE
            if path.exists():
                keys = {"arm": arm.name, "generator": "", "scorer": "", "camera": unit.camera}
                parts.append(pd.read_parquet(path).assign(**keys, split=unit.split, scene=unit.scene))
    if not parts:
        raise ArtifactError(f"{run.root}: no completed clouds; run `complete` first")
    table = pd.concat(parts, ignore_index=True)
    # What no view shows cannot be completed by anybody: it says nothing about an arm.
    return table[table["observed_points"] > 0].reset_index(drop=True)


def _view_utilities(grasps: pd.DataFrame, views: pd.DataFrame) -> pd.DataFrame:
    """Return one row a view (object -1) and one a view and object, with all metrics of its scorer."""
    columns = [name for name in ("min_friction", "kept", "object", "held_fraction") if name in grasps]
    groups = {
        key: {name: part[name].to_numpy() for name in columns}
        for key, part in grasps.groupby([*KEYS, "view"], sort=False)
    }
    none = dict.fromkeys(columns, np.zeros(0)) | {"kept": np.zeros(0, bool), "object": np.zeros(0, np.int16)}
    rows = []
    for view in tqdm(views.to_dict("records"), desc="utility  ", unit="view", dynamic_ncols=True):
        keys = {name: view[name] for name in (*KEYS, "view")}
        found = groups.get(tuple(keys.values()), none)
        keys["failed"] = view["reason"] == UNIT_FAILED
        rows.append({**keys, "object": -1, **_utility(keys["scorer"], found)})
        for object_id in [int(text) for text in view["objects"].split(",") if text]:
            own = found["object"] == object_id
            values = _utility(keys["scorer"], {name: column[own] for name, column in found.items()})
            rows.append({**keys, "object": object_id, **values})
    return pd.DataFrame(rows)


def _utility(scorer: str, grasps: dict[str, Any]) -> dict[str, float]:
    if scorer == PHYSICS:
        return held_utility(grasps["held_fraction"])
    return view_utility(grasps["min_friction"], grasps["kept"])


def _by_opinion(per_view: pd.DataFrame) -> list[tuple[pd.DataFrame, list[str]]]:
    """Part the views by what is measured of them: the protocol's metrics, or those of physics."""
    by_physics = per_view["scorer"] == PHYSICS
    parts = [(per_view[~by_physics], list(METRICS)), (per_view[by_physics], list(HELD_METRICS))]
    return [(part, measured) for part, measured in parts if len(part)]


def _with_means(completion: pd.DataFrame, metrics: list[str]) -> pd.DataFrame:
    """Add one row a view, object -1: the mean over its objects."""
    whole = completion.groupby([*KEYS, "view"], as_index=False)[metrics].mean().assign(object=-1)
    return pd.concat([completion, whole], ignore_index=True)


def _scenes(per_view: pd.DataFrame, metrics: list[str]) -> pd.DataFrame:
    """Return means over views, one row an arm, scene and object."""
    groups = per_view.groupby([*KEYS, "object"], as_index=False)
    counts = groups.agg(n_views=("view", "nunique"))
    return groups[metrics].mean().merge(counts, on=[*KEYS, "object"])


def _slices(scenes: pd.DataFrame) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Walk through arm x generator x scorer x camera x split (and all) x object (and all)."""
    for (arm, generator, scorer, camera, object_id), part in scenes.groupby(
        ["arm", "generator", "scorer", "camera", "object"], sort=True
    ):
        splits = [(WHOLE, part)] + [(str(split), sub) for split, sub in part.groupby("split")]
        for split, sub in splits:
            yield (
                {
                    "arm": arm,
                    "generator": generator,
                    "scorer": scorer,
                    "camera": camera,
                    "split": split,
                    "object": WHOLE if object_id == -1 else str(object_id),
                },
                sub,
            )


def _estimates(per_view: pd.DataFrame, metrics: list[str], level: float) -> pd.DataFrame:
    rows = []
    for keys, part in _slices(_scenes(per_view, metrics)):
        for metric in metrics:
            known = part[part[metric].notna()]
            estimate = scene_mean(known[metric], list(known["split"]), level)
            rows.append(
                {
                    **keys,
                    "metric": metric,
                    "value": estimate.value,
                    # A mean cannot leave its metric's range, and cutting an interval there costs no coverage.
                    "ci_low": max(estimate.low, 0.0),
                    "ci_high": min(estimate.high, _largest(metric)),
                    "n_scenes": estimate.scenes,
                    "n_views": int(known["n_views"].sum()),
                }
            )
    columns = [*TABLE_KEYS, "metric", "value", "ci_low", "ci_high", "n_scenes", "n_views"]
    return pd.DataFrame(rows, columns=columns)


def _largest(metric: str) -> float:
    """Return the largest value that a metric can take."""
    if metric.startswith("ap"):
        return 100.0
    if metric == "quality":
        return 0.9  # 1.1 minus the least friction tried
    return 1.0 if metric.startswith(("success", "held", "coverage", "spurious", "precision", "f1")) else np.inf


def _comparisons(experiment: Experiment, per_view: pd.DataFrame, metrics: list[str]) -> pd.DataFrame:
    """Return differences a - b, paired by view, averaged by scene, for the whole view and each object."""
    pairing = ["generator", "scorer", "camera", "split", "scene", "view", "object"]
    rows = []
    for a, b in experiment.compared():
        sides = [per_view[per_view["arm"] == name].set_index(pairing)[metrics] for name in (a, b)]
        # Only what both arms have: a view that failed in one arm is a problem on record, not a difference.
        common = sides[0].index.intersection(sides[1].index)
        difference = (sides[0].loc[common] - sides[1].loc[common]).reset_index().assign(arm=a)
        for keys, part in _slices(_scenes(difference, metrics)):
            labels = {name: value for name, value in keys.items() if name != "arm"}
            for metric in metrics:
                known = part[part[metric].notna()]
                estimate = scene_mean(known[metric], list(known["split"]), experiment.statistics.level)
                rows.append(
                    {
                        "arm_a": a,
                        "arm_b": b,
                        **labels,
                        "metric": metric,
                        "difference": estimate.value,
                        "ci_low": estimate.low,
                        "ci_high": estimate.high,
                        "n_scenes": estimate.scenes,
                        "n_views": int(known["n_views"].sum()),
                    }
                )
    return pd.DataFrame(rows, columns=COMPARISON_COLUMNS)


def _recovered(experiment: Experiment, per_view: pd.DataFrame, metrics: list[str]) -> pd.DataFrame:
    columns = ["arm", "generator", "scorer", "camera", "split", "metric", "value", "ci_low", "ci_high", "reason"]
    partial = [arm.name for arm in experiment.arms if arm.completion == "none"]
    oracle = [arm.name for arm in experiment.arms if arm.completion == "truth"]
    if not partial or not oracle:
        return pd.DataFrame(columns=columns)
    scenes = _scenes(per_view[per_view["object"] == -1], metrics)
    rows = []
    for (generator, scorer, camera), part in scenes.groupby(["generator", "scorer", "camera"]):
        present = set(part["arm"])
        if not {partial[0], oracle[0]} <= present:
            continue  # an arm of which nothing is scored; its problems are on record
        wide = part.set_index(["arm", "scene"])
        common = sorted(set.intersection(*(set(wide.loc[name].index) for name in present)))
        for split in [WHOLE, *sorted(part["split"].unique())]:
            chosen = [s for s in common if split in (WHOLE, wide.loc[(partial[0], s), "split"])]
            for arm in experiment.arms:
                if not arm.is_learned or arm.name not in present or not chosen:
                    continue
                for metric in metrics:
                    own, low, high = (
                        wide.loc[name].loc[chosen, metric].to_numpy() for name in (arm.name, partial[0], oracle[0])
                    )
                    strata = list(wide.loc[partial[0]].loc[chosen, "split"])
                    result = recovered_utility(
                        own,
                        low,
                        high,
                        strata,
                        level=experiment.statistics.level,
                        draws=experiment.statistics.draws,
                        seed=experiment.seed,
                    )
                    rows.append(
                        dict(
                            zip(
                                columns,
                                [
                                    *(arm.name, generator, scorer, camera, split, metric),
                                    *(result.value, result.low, result.high, result.reason),
                                ],
                                strict=True,
                            )
                        )
                    )
    return pd.DataFrame(rows, columns=columns)


def _write(tables: Tables, run: RunFolder) -> None:
    if tables.agreement is None:
        for name in AGREEMENT_TABLES:  # of an experiment that asked physics, in the same folder
            (run.tables / name).unlink(missing_ok=True)
    for name in (*TABLES, *(AGREEMENT_TABLES if tables.agreement is not None else ())):
        stem, _, kind = name.partition(".")
        table: pd.DataFrame = getattr(tables if name in TABLES else tables.agreement, stem)
        with atomic_write(run.tables / name, "w" if kind == "csv" else "wb") as stream:
            if kind == "csv":
                table.to_csv(stream, index=False, float_format="%.6g")
            else:
                table.to_parquet(stream, index=False)
