"""The rows that every table of a run rests on, read from its finished units.

Whoever has these four tables can aggregate: the stage ``aggregate`` makes them from units, unit by unit, ``compare``
from the ``tables/`` of several runs (:mod:`pipeline.row_tables`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from grasping.utility import utilities
from pipeline.artifacts import ArtifactError, read_stamp
from pipeline.cloud_files import load_observation
from pipeline.completed_unit import METRICS_FILE
from pipeline.config import Experiment
from pipeline.explain import CROSSED_FILE, EXPLAINED_COLUMNS, VISIBILITY_FILE
from pipeline.explain import GRASPS_FILE as EXPLAINED_FILE
from pipeline.grasp_rows import COLUMNS, TRIAL_COLUMNS
from pipeline.physics_utility import held_utilities
from pipeline.progress import shortest_interval
from pipeline.row_tables import RowWriter, Unit
from pipeline.run_folder import FAILURE, STAMP, RunFolder, unit_folder, view_file
from pipeline.score import GRASPS_FILE, VIEWS_FILE
from pipeline.scorers import PHYSICS
from pipeline.selection import SceneUnit
from pipeline.table_files import WHOLE_VIEW
from pipeline.view_files import has_view

UNIT_FAILED = "unit failed"


@dataclass(frozen=True)
class _Graded:
    """The folders of one unit of an arm, generator and scorer.

    Attributes:
        keys: what tells its rows from others (:data:`pipeline.row_tables.KEYS`).
        seen: how much of each object its views show.
    """

    keys: dict[str, Any]
    unit: SceneUnit
    clouds: Path
    dump: Path
    explained: Path
    scores: Path
    tried: Path | None
    seen: Path

    @property
    def place(self) -> Unit:
        return self.unit.camera, self.unit.scene

    @property
    def failed(self) -> bool:
        return read_stamp(self.scores / STAMP) is None


def write(experiment: Experiment, run: RunFolder, units: list[SceneUnit], out: RowWriter) -> None:
    """Read every finished unit, and write its rows.

    They come in the order of arms, checkpoints, generators, scorers and units; grasps that physics tried come last.

    Raises:
        ArtifactError: if a unit is neither scored nor failed, or was made from what has changed since.
    """
    for unit in units:
        seen = unit_folder(run.visibility, unit.scene, unit.camera)
        if read_stamp(seen / STAMP) is not None:
            _check_made_from(unit_folder(run.observations, unit.scene, unit.camera), seen, "observations")
    count = 0
    total = len(list(_members(experiment))) * len(experiment.generators) * len(experiment.scorers) * len(units)
    with tqdm(
        total=total, desc="rows     ", unit="unit", dynamic_ncols=True, mininterval=shortest_interval()
    ) as progress:
        for graded in _graded(experiment, run, units):
            count += _write_scores(experiment, run, graded, out)
            progress.update()
    if not count:
        raise ArtifactError(f"{run.root}: nothing is scored; run the stages before, and see {run.problems.name}")
    for graded in _graded(experiment, run, units) if PHYSICS in experiment.scorers else ():
        if graded.keys["scorer"] == PHYSICS and not graded.failed:
            out.add("grasps", graded.place, _grasps(graded))
    _write_completion(experiment, run, units, out)
    _write_crossed(experiment, run, units, out)


def _members(experiment: Experiment) -> Iterator[tuple[str, int, str]]:
    """Walk through arm, replicate and the name of the folder in which that lies."""
    for arm in experiment.arms:
        for replicate, member in enumerate(arm.members()):
            yield arm.name, replicate, member.name


def _keys(arm: str, replicate: int, generator: str, scorer: str, unit: SceneUnit) -> dict[str, Any]:
    setting = {"generator": generator, "scorer": scorer, "camera": unit.camera}
    return {"arm": arm, "replicate": replicate, **setting, "split": unit.split, "scene": unit.scene}


def _graded(experiment: Experiment, run: RunFolder, units: list[SceneUnit]) -> Iterator[_Graded]:
    for arm, replicate, member in _members(experiment):
        for generator in (generator.label for generator in experiment.generators):
            for scorer in experiment.scorers:
                for unit in units:
                    tried = run.scores(member, generator, PHYSICS) if PHYSICS in experiment.scorers else None
                    bases = (
                        *(run.clouds(member), run.dump(member, generator), run.explained(member, generator)),
                        *(run.scores(member, generator, scorer), tried, run.visibility),
                    )
                    folders = (base and unit_folder(base, unit.scene, unit.camera) for base in bases)
                    yield _Graded(_keys(arm, replicate, generator, scorer, unit), unit, *folders)  # type: ignore[arg-type]


def _write_scores(experiment: Experiment, run: RunFolder, graded: _Graded, out: RowWriter) -> int:
    """Write the views of a unit and, unless physics graded them, its grasps; return how many views.

    The views of a unit that failed count as views without grasps.
    """
    if graded.failed:
        if not (graded.scores / FAILURE).exists():
            raise ArtifactError(f"{graded.scores}: not scored yet; run `score`, or the whole experiment, first")
        views, objects = _observed(run, graded.unit)
        grasps = _with_keys(COLUMNS.empty_table(), graded.keys)
        if PHYSICS in experiment.scorers:
            grasps = _with_columns(grasps, TRIAL_COLUMNS.empty_table())
    else:
        _check(experiment, graded)
        grasps = _grasps(graded)
        if graded.keys["scorer"] != PHYSICS:
            out.add("grasps", graded.place, grasps)
        table = _read(graded.scores / VIEWS_FILE)
        views = table.column("view").to_pylist()
        objects = [[int(text) for text in texts.split(",") if text] for texts in table.column("objects").to_pylist()]
    out.add("views", graded.place, _views(graded, views, objects, grasps))
    return len(views)


def _check(experiment: Experiment, graded: _Graded) -> None:
    made = [(graded.dump, graded.scores, "dump"), (graded.clouds, graded.dump, "clouds")]
    if read_stamp(graded.explained / STAMP) is not None:  # else not asked for, or a problem on record
        made.append((graded.dump, graded.explained, "dump"))
        if graded.keys["scorer"] == next((scorer for scorer in experiment.scorers if scorer != PHYSICS), None):
            made.append((graded.scores, graded.explained, "scores"))
    for source, maker, key in made:
        _check_made_from(source, maker, key)


def _check_made_from(source: Path, maker: Path, key: str) -> None:
    made, used = read_stamp(source / STAMP), read_stamp(maker / STAMP)
    if made is None or used is None or used.made_from.get(key) != made.fingerprint:
        raise ArtifactError(f"{maker}: made from other {key} than now lie in the run; run the stages again")


def _read(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    try:
        return pq.ParquetFile(path).read(columns=columns, use_threads=False)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: broken ({error}); delete the folder that it lies in, and run again") from None


# --------------------------------------------------------------------------------------------------------- grasps


def _grasps(graded: _Graded) -> pa.Table:
    """Return a unit's scored grasps with what else is known of each."""
    rows = _read(graded.scores / GRASPS_FILE)
    view, row = (rows.column(name).to_numpy() for name in ("view", "row"))
    known = [_visible(graded, view, rows.column("object").to_numpy())]
    if read_stamp(graded.explained / STAMP) is not None:
        explained = _read(graded.explained / EXPLAINED_FILE, ["view", "row", *EXPLAINED_COLUMNS])
        known.append(_matched(explained, view, row, f"{graded.explained / EXPLAINED_FILE}"))
    if graded.tried is not None and graded.keys["scorer"] != PHYSICS and read_stamp(graded.tried / STAMP) is not None:
        # What physics says of a grasp stands beside what every other scorer says; it is empty where it was not tried.
        tried = _read(graded.tried / GRASPS_FILE, ["view", "row", *TRIAL_COLUMNS.names])
        known.append(_matched(tried, view, row, f"{graded.tried / GRASPS_FILE}"))
    for table in known:
        rows = _with_columns(rows, table)
    if "surface" not in rows.column_names:
        rows = rows.append_column("surface", pa.nulls(len(rows), pa.string()))
    surface = rows.column_names.index("surface")
    rows = rows.set_column(surface, "surface", rows.column("surface").fill_null(""))
    return _with_keys(rows, graded.keys)


def _with_columns(rows: pa.Table, more: pa.Table) -> pa.Table:
    for name, column in zip(more.column_names, more.columns, strict=True):
        if name not in ("view", "row", "object"):
            rows = rows.append_column(name, column)
    return rows


def _with_keys(rows: pa.Table, keys: dict[str, Any]) -> pa.Table:
    for name, value in keys.items():
        kind = pa.large_string() if isinstance(value, str) else pa.int64()
        rows = rows.append_column(name, pa.repeat(pa.scalar(value, kind), len(rows)))
    return rows


def _pairs(one: ArrayLike, other: ArrayLike) -> NDArray[np.int64]:
    """Make one number of two: a view with a row or an object (-1 and above)."""
    return (np.asarray(one, dtype=np.int64) << 32) + np.asarray(other, dtype=np.int64)


def _matched(table: pa.Table, view: NDArray[Any], second: NDArray[Any], source: str, name: str = "row") -> pa.Table:
    """Return of each view and row (or object) what a table knows of it; empty where that has no such row."""
    keys = _pairs(table.column("view").to_numpy(), table.column(name).to_numpy())
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    if (keys[1:] == keys[:-1]).any():
        raise ArtifactError(f"{source}: has a {name} of a view twice; run the stages again")
    wanted = _pairs(view, second)
    if not len(keys):
        return pa.table({n: pa.nulls(len(wanted), table.schema.field(n).type) for n in table.column_names})
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return table.take(pa.array(order[at], mask=keys[at] != wanted))


def _visible(graded: _Graded, view: NDArray[Any], item: NDArray[Any]) -> pa.Table:
    """Return ``visible_fraction`` of these views and objects; empty where ``explain`` was not run."""
    if read_stamp(graded.seen / STAMP) is None:
        return pa.table({"visible_fraction": pa.nulls(len(view), pa.float64())})
    return _matched(_read(graded.seen / VISIBILITY_FILE), view, item, f"{graded.seen / VISIBILITY_FILE}", "object")


# ---------------------------------------------------------------------------------------------------------- views


def _observed(run: RunFolder, unit: SceneUnit) -> tuple[list[int], list[list[int]]]:
    """Return the views that were observed of a unit that failed later, and the objects of each."""
    folder = unit_folder(run.observations, unit.scene, unit.camera)
    paths = {view: view_file(folder, view, ".npz") for view in unit.views}
    there = {view: path for view, path in paths.items() if has_view(path)}
    return list(there), [[int(i) for i in load_observation(path).objects.object_ids] for path in there.values()]


def _views(graded: _Graded, views: list[int], objects: list[list[int]], grasps: pa.Table) -> pa.Table:
    """Return one row a view (object -1), followed by one an object of it, with all metrics of the unit's scorer."""
    view = np.repeat(np.array(views, dtype=np.int64), [1 + len(ids) for ids in objects])
    items = np.array([item for ids in objects for item in (WHOLE_VIEW, *ids)], dtype=np.int64)
    found = utility_of(
        graded.keys["scorer"],
        {name: grasps.column(name).to_numpy() for name in grasps.column_names if name in GRADED},
        view,
        items,
    )
    rows = pa.table({"view": view, "object": items, "failed": np.full(len(view), graded.failed), **found})
    return _with_keys(_with_columns(rows, _visible(graded, view, items)), graded.keys)


GRADED = ("view", "object", "min_friction", "kept", "held_fraction")
"""Columns of grasps by which views are graded."""


def utility_of(
    scorer: str, grasps: dict[str, NDArray[Any]], view: ArrayLike, item: ArrayLike
) -> dict[str, NDArray[np.float64]]:
    """Grade views and single objects of views by the metrics of a scorer; what has no grasps counts as zero.

    Args:
        scorer: who graded the grasps.
        grasps: columns of one arm and scene, those of a view best confidence first: :data:`GRADED`, ``held_fraction``
            for physics alone.
        view, item: ``(n,)`` the views, and an object of each, or -1 for the whole view.

    Returns:
        ``(n,)`` for each metric.
    """
    wanted = _pairs(view, item)
    each = _pairs(grasps["view"], grasps["object"])
    whole = _pairs(grasps["view"], np.full(len(each), WHOLE_VIEW))
    # Every grasp stands in two lists, that of its view and that of its object there.
    keys, of = np.unique(np.concatenate([wanted, whole, each]), return_inverse=True)
    lists = of[len(wanted) :]
    order = np.argsort(lists, kind="stable")
    lengths = np.bincount(lists, minlength=len(keys))
    twice = {name: np.concatenate([values, values])[order] for name, values in grasps.items()}
    if scorer == PHYSICS:
        found = held_utilities(twice["held_fraction"], lengths)
    else:
        found = utilities(twice["min_friction"], twice["kept"], lengths)
    return {name: values[of[: len(wanted)]] for name, values in found.items()}


# ----------------------------------------------------------------------------------------------- clouds and crossed


def _write_completion(experiment: Experiment, run: RunFolder, units: list[SceneUnit], out: RowWriter) -> None:
    there = False
    for arm, replicate, member in _members(experiment):
        for unit in units:
            path = unit_folder(run.clouds(member), unit.scene, unit.camera) / METRICS_FILE
            if path.exists():
                there = True
                rows = _read(path)
                # What no view shows cannot be completed by anybody: it says nothing about an arm.
                rows = rows.filter(pa.array(rows.column("observed_points").to_numpy() > 0))
                keys = _keys(arm, replicate, "", "", unit)
                out.add("completion_views", (unit.camera, unit.scene), _with_keys(rows, keys))
    if not there:
        raise ArtifactError(f"{run.root}: no completed clouds; run `complete` first")


def _write_crossed(experiment: Experiment, run: RunFolder, units: list[SceneUnit], out: RowWriter) -> None:
    for arm, replicate, member in _members(experiment):
        for generator in experiment.generators:
            for unit in units:
                folder = unit_folder(run.explained(member, generator.label), unit.scene, unit.camera)
                if read_stamp(folder / STAMP) is not None:
                    rows = _with_keys(_read(folder / CROSSED_FILE), _keys(arm, replicate, generator.label, "", unit))
                    out.add("crossed_views", (unit.camera, unit.scene), rows)
