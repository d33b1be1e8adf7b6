"""The rows that every table of a run rests on, read from its finished units.

Whoever has these four tables can aggregate: the stage ``aggregate`` reads them from units, ``compare`` from the
``tables/`` of several runs (:func:`read_tables`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from grasping.utility import METRICS, view_utility
from pipeline.artifacts import ArtifactError, read_stamp
from pipeline.cloud_files import load_observation
from pipeline.completed_unit import METRICS_FILE
from pipeline.config import Experiment
from pipeline.explain import CROSSED_FILE, EXPLAINED_COLUMNS, VISIBILITY_FILE
from pipeline.explain import GRASPS_FILE as EXPLAINED_FILE
from pipeline.grasp_rows import COLUMNS, TRIAL_COLUMNS
from pipeline.physics_utility import held_utility
from pipeline.run_folder import FAILURE, STAMP, RunFolder, unit_folder, view_file
from pipeline.score import GRASPS_FILE, VIEWS_FILE
from pipeline.scorers import PHYSICS
from pipeline.selection import SceneUnit
from pipeline.table_files import ROWS, read_table

UNIT_FAILED = "unit failed"
KEYS = ["arm", "replicate", "generator", "scorer", "camera", "split", "scene"]
"""What tells rows of a run apart; ``replicate`` is the place of the checkpoint in its arm's list, 0 for one."""

WHOLE_VIEW = -1
"""``object`` of a row that speaks of a whole view."""

# What of a unit's own columns is not a metric of completion.
_NO_METRICS = (*KEYS, "view", "object", "status")


@dataclass(frozen=True)
class Rows:
    """One row a grasp, a view and object, a completed cloud, and a view and crossed combination.

    Attributes:
        grasps: :data:`KEYS`, the columns of :data:`pipeline.grasp_rows.COLUMNS`, what :mod:`pipeline.explain` found of
            each (missing where it was not run), and what physics said where it was asked.
        views: :data:`KEYS`, view, object (-1: the whole view), failed, visible_fraction (of an object) and every
            utility metric.
        completion_views: :data:`KEYS`, view, object, status and the completion metrics.
        crossed_views: :data:`KEYS`, view, combination and the utility metrics (:mod:`pipeline.explain`).
    """

    grasps: pd.DataFrame
    views: pd.DataFrame
    completion_views: pd.DataFrame
    crossed_views: pd.DataFrame

    @property
    def completion_metrics(self) -> list[str]:
        return [name for name in self.completion_views.columns if name not in _NO_METRICS]


def read(experiment: Experiment, run: RunFolder, units: list[SceneUnit]) -> Rows:
    """Read every finished unit.

    Raises:
        ArtifactError: if a unit is neither scored nor failed, or was made from what has changed since.
    """
    visibility = _read_visibility(run, units)
    grasps, views = _read_scores(experiment, run, units)
    return Rows(
        grasps.merge(visibility, on=["camera", "scene", "view", "object"], how="left"),
        view_utilities(grasps, views).merge(visibility, on=["camera", "scene", "view", "object"], how="left"),
        _read_completion(experiment, run, units),
        _read_crossed(experiment, run, units),
    )


def read_tables(folder: Path) -> Rows:
    """Read the rows of a run that is aggregated, from its ``tables/``.

    Raises:
        ArtifactError: if one of them is missing or broken.
    """
    return Rows(*(read_table(folder, name) for name in ROWS))


def _members(experiment: Experiment) -> Iterator[tuple[str, int, str]]:
    """Walk through arm, replicate and the name of the folder in which that lies."""
    for arm in experiment.arms:
        for replicate, member in enumerate(arm.members()):
            yield arm.name, replicate, member.name


def _units(experiment: Experiment, units: list[SceneUnit]) -> Iterator[tuple[dict[str, Any], str, SceneUnit]]:
    for arm, replicate, member in _members(experiment):
        for generator in experiment.generators:
            for scorer in experiment.scorers:
                for unit in units:
                    keys = {
                        "arm": arm,
                        "replicate": replicate,
                        "generator": generator.label,
                        "scorer": scorer,
                        "camera": unit.camera,
                        "split": unit.split,
                        "scene": unit.scene,
                    }
                    yield keys, member, unit


def _read_scores(experiment: Experiment, run: RunFolder, units: list[SceneUnit]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return all rows of grasps and of views; the views of a unit that failed count as views without grasps."""
    grasps, views = [], []
    for keys, member, unit in _units(experiment, units):
        clouds = unit_folder(run.clouds(member), unit.scene, unit.camera)
        dump = unit_folder(run.dump(member, keys["generator"]), unit.scene, unit.camera)
        explained = unit_folder(run.explained(member, keys["generator"]), unit.scene, unit.camera)
        folder = unit_folder(run.scores(member, keys["generator"], keys["scorer"]), unit.scene, unit.camera)
        if read_stamp(folder / STAMP) is None:
            if not (folder / FAILURE).exists():
                raise ArtifactError(f"{folder}: not scored yet; run `score`, or the whole experiment, first")
            views.append(_failed_views(run, unit).assign(**keys))
            continue
        made = [(dump, folder, "dump"), (clouds, dump, "clouds")]
        if read_stamp(explained / STAMP) is not None:  # else not asked for, or a problem on record
            made.append((dump, explained, "dump"))
            if keys["scorer"] == next(scorer for scorer in experiment.scorers if scorer != PHYSICS):
                made.append((folder, explained, "scores"))
        for source, maker, key in made:
            _check_made_from(source, maker, key)
        rows = _with_explanations(pd.read_parquet(folder / GRASPS_FILE), explained)
        grasps.append(rows.assign(**keys))
        views.append(pd.read_parquet(folder / VIEWS_FILE).assign(**keys))
    if not views or not sum(len(table) for table in views):
        raise ArtifactError(f"{run.root}: nothing is scored; run the stages before, and see {run.problems.name}")
    columns = [*KEYS, *COLUMNS.names, *EXPLAINED_COLUMNS, *_trial_columns(experiment)]
    # An empty table among others would make floats of their whole numbers.
    tables = [table for table in grasps if len(table)] or grasps or [COLUMNS.empty_table().to_pandas()]
    rows = pd.concat(tables, ignore_index=True).reindex(columns=columns)
    rows["surface"] = rows["surface"].astype(object).where(rows["surface"].notna(), "")
    return _with_trials(rows) if PHYSICS in experiment.scorers else rows, pd.concat(views, ignore_index=True)


def _check_made_from(source: Path, maker: Path, key: str) -> None:
    made, used = read_stamp(source / STAMP), read_stamp(maker / STAMP)
    if made is None or used is None or used.made_from.get(key) != made.fingerprint:
        raise ArtifactError(f"{maker}: made from other {key} than now lie in the run; run the stages again")


def _with_explanations(rows: pd.DataFrame, explained: Path) -> pd.DataFrame:
    if read_stamp(explained / STAMP) is None:
        return rows
    columns = ["view", "row", *EXPLAINED_COLUMNS]
    known = pd.read_parquet(explained / EXPLAINED_FILE, columns=columns)
    known = known.astype({name: "boolean" for name in EXPLAINED_COLUMNS if known[name].dtype == bool})
    return rows.merge(known, on=["view", "row"], how="left", validate="one_to_one")


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
    for arm, replicate, member in _members(experiment):
        for unit in units:
            path = unit_folder(run.clouds(member), unit.scene, unit.camera) / METRICS_FILE
            if path.exists():
                keys: dict[str, Any] = {"arm": arm, "replicate": replicate, "generator": "", "scorer": ""}
                keys["camera"] = unit.camera
                parts.append(pd.read_parquet(path).assign(**keys, split=unit.split, scene=unit.scene))
    if not parts:
        raise ArtifactError(f"{run.root}: no completed clouds; run `complete` first")
    table = pd.concat(parts, ignore_index=True)
    # What no view shows cannot be completed by anybody: it says nothing about an arm.
    return table[table["observed_points"] > 0].reset_index(drop=True)


def _read_visibility(run: RunFolder, units: list[SceneUnit]) -> pd.DataFrame:
    """Return camera, scene, view, object and visible_fraction; no row where ``explain`` was not run."""
    parts = []
    for unit in units:
        folder = unit_folder(run.visibility, unit.scene, unit.camera)
        if read_stamp(folder / STAMP) is not None:
            _check_made_from(unit_folder(run.observations, unit.scene, unit.camera), folder, "observations")
            parts.append(pd.read_parquet(folder / VISIBILITY_FILE).assign(camera=unit.camera, scene=unit.scene))
    columns = ["camera", "scene", "view", "object", "visible_fraction"]
    if not parts:
        return pd.DataFrame({name: pd.Series(dtype=object if name == "camera" else float) for name in columns})
    return pd.concat(parts, ignore_index=True)[columns]


def _read_crossed(experiment: Experiment, run: RunFolder, units: list[SceneUnit]) -> pd.DataFrame:
    parts = [pd.DataFrame(columns=[*KEYS, "view", "combination", *METRICS])]
    for arm, replicate, member in _members(experiment):
        for generator in experiment.generators:
            for unit in units:
                folder = unit_folder(run.explained(member, generator.label), unit.scene, unit.camera)
                if read_stamp(folder / STAMP) is None:
                    continue
                keys: dict[str, Any] = {"arm": arm, "replicate": replicate, "generator": generator.label, "scorer": ""}
                table = pd.read_parquet(folder / CROSSED_FILE)
                parts.append(table.assign(**keys, camera=unit.camera, split=unit.split, scene=unit.scene))
    return pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)


def view_utilities(grasps: pd.DataFrame, views: pd.DataFrame) -> pd.DataFrame:
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
        rows.append({**keys, "object": WHOLE_VIEW, **_utility(keys["scorer"], found)})
        for object_id in [int(text) for text in view["objects"].split(",") if text]:
            own = found["object"] == object_id
            values = _utility(keys["scorer"], {name: column[own] for name, column in found.items()})
            rows.append({**keys, "object": object_id, **values})
    return pd.DataFrame(rows)


def _utility(scorer: str, grasps: dict[str, Any]) -> dict[str, float]:
    if scorer == PHYSICS:
        return held_utility(grasps["held_fraction"])
    return view_utility(grasps["min_friction"], grasps["kept"])
