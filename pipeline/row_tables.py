"""The long tables of a run, ``tables/*.parquet``: written unit by unit, read back scene by scene.

A full split has tens of millions of grasps, so nobody holds these tables. They are written in the order of arms, as
:mod:`pipeline.run_rows` says, and what is said of scenes needs the rows of all arms of a scene at once. A unit's rows
are never parted over two row groups, and the writer remembers where each unit lies; so the rows of any scenes are found
again without reading the rest.
"""

from __future__ import annotations

import contextlib
import itertools
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm import tqdm

from grasping.utility import METRICS
from pipeline.artifacts import ArtifactError, atomic_write
from pipeline.explained_view import GRASP_COLUMNS as EXPLAINED
from pipeline.grasp_rows import COLUMNS, TRIAL_COLUMNS
from pipeline.metric_names import FIDELITY
from pipeline.physics_utility import HELD_METRICS
from pipeline.progress import shortest_interval
from pipeline.scorers import PHYSICS
from pipeline.table_files import ROWS, TEXT_COLUMNS, table_file

KEYS = ["arm", "replicate", "generator", "scorer", "camera", "split", "scene"]
"""What tells rows of a run apart; ``replicate`` is the place of the checkpoint in its arm's list, 0 for one."""

GROUP_ROWS = {"grasps": 2**15, "views": 2**13, "completion_views": 2**13, "crossed_views": 2**13}
"""Rows at which a row group is written: one takes 40 kB of the writer, and a reader holds one for each arm."""

BATCH_ROWS = 2**16
"""Rows at which a batch of scenes is full: some 50 MB while they are worked on. One scene may have more."""

_PIECES = 128  # units at which a row group is written too: a table of few rows takes 40 kB all the same
_COPIED = 2**14  # rows of another run's table at once

UNUSED = frozenset({"row", "confidence", "collided", "empty", "observed_distance", "completed_distance", "slip"})
"""Columns of grasps that nothing said of scenes rests on; a batch comes without them."""

Schemas = Mapping[str, pa.Schema]
Unit = tuple[str, int]
"""Camera and scene."""


@dataclass(frozen=True)
class Rows:
    """One row a grasp, a view and object, a completed cloud, and a view and crossed combination.

    Texts may be categories. Rows of a view lie together, best confidence first.

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


# What of a completed cloud's columns is not a metric of completion.
_NO_METRICS = (*KEYS, "view", "object", "status")


def schemas(scorers: Sequence[str]) -> dict[str, pa.Schema]:
    """Return the columns of every table of a run whose grasps these scorers graded."""
    key = {name: "int64" if name in ("replicate", "scene") else "str" for name in KEYS}
    measured = dict.fromkeys(
        (name for scorer in scorers for name in (HELD_METRICS if scorer == PHYSICS else METRICS)), "float64"
    )
    trials = TRIAL_COLUMNS if PHYSICS in scorers else pa.schema([])
    columns = {
        # A grasp that was not explained, or not tried, has no truth values either: hence `boolean`.
        "grasps": {
            **key,
            **_kinds(COLUMNS, "bool"),
            **_kinds(pa.schema(list(EXPLAINED)[2:]), "boolean"),
            **_kinds(trials, "boolean"),
            "visible_fraction": "float64",
        },
        "views": {
            **key,
            **{"view": "int64", "failed": "bool", "object": "int64"},
            **measured,
            "visible_fraction": "float64",
        },
        "completion_views": {
            **{"view": "int64", "object": "int64", "status": "str"},
            **{"observed_points": "int64", "completed_points": "int64"},
            **dict.fromkeys(FIDELITY, "float64"),
            **key,
        },
        "crossed_views": {"view": "int16", "combination": "str", **dict.fromkeys(METRICS, "float64"), **key},
    }
    return {table: _schema(columns[table]) for table in ROWS}


def _kinds(schema: pa.Schema, truth: str) -> dict[str, str]:
    """Return how pandas names the types of columns; ``truth`` is that of truth values."""
    named = {pa.string(): "str", pa.bool_(): truth, pa.float64(): "float64"}
    return {field.name: named.get(field.type, str(field.type)) for field in schema}


def _schema(columns: Mapping[str, str]) -> pa.Schema:
    frame = pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in columns.items()})
    made = pa.Schema.from_pandas(frame, preserve_index=False)  # with what pandas wants to know when it reads
    texts = pa.large_string()
    fields = [pa.field(f.name, texts if columns[f.name] == "str" else f.type) for f in made]
    return pa.schema(fields, metadata=made.metadata)


@contextlib.contextmanager
def writing(folder: Path, schemas: Schemas) -> Iterator[RowWriter]:
    """Write the tables into ``folder``: they are put in place together when the block ends without an error.

    What a process that was killed left of them is removed: whoever writes here holds the run's lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ROWS:
        for left in folder.glob(f".{table_file(folder, name).name}.*.tmp"):
            left.unlink()
    with contextlib.ExitStack() as stack:
        streams = {name: stack.enter_context(atomic_write(table_file(folder, name))) for name in ROWS}
        writer = RowWriter(streams, schemas)
        try:
            yield writer
            writer.close()
        except BaseException:
            writer.abandon()
            raise


class RowWriter:
    """Takes the rows of one unit after the other."""

    def __init__(self, streams: Mapping[str, IO[Any]], schemas: Schemas) -> None:
        self.schemas = schemas
        self._files = {name: pq.ParquetWriter(streams[name], schemas[name]) for name in streams}
        self._pending: dict[str, list[pa.Table]] = {name: [] for name in streams}
        self._units: dict[Unit, int] = {}
        self._groups = dict.fromkeys(streams, 0)
        self._places = {name: array("q") for name in streams}

    def add(self, table: str, unit: Unit, rows: pa.Table) -> None:
        """Put rows below those that are there.

        Args:
            table: which.
            unit: to which all of them belong.
            rows: with the table's columns, in any order; missing ones stay empty.
        """
        number = self._units.setdefault(unit, len(self._units))
        if not len(rows):
            return
        pending = self._pending[table]
        start = sum(map(len, pending))
        self._places[table].extend((number, self._groups[table], start, len(rows)))
        pending.append(_conformed(rows, self.schemas[table]))
        if start + len(rows) >= GROUP_ROWS[table] or len(pending) >= _PIECES:
            self._flush(table)

    def _flush(self, table: str) -> None:
        if not self._pending[table]:
            return
        rows = _without_nan(pa.concat_tables(self._pending[table]))
        self._files[table].write_table(rows, row_group_size=len(rows))
        self._pending[table] = []
        self._groups[table] += 1

    def close(self) -> None:
        """Write what waits, and the files' ends."""
        for table, file in self._files.items():
            self._flush(table)
            file.close()

    def abandon(self) -> None:
        """Let the files go, whatever they lack; they are not put in place."""
        for file in self._files.values():
            with contextlib.suppress(OSError, ValueError):
                file.close()

    def written(self, folder: Path) -> WrittenRows:
        """Return the tables for reading, once they lie in ``folder``."""
        places = {name: np.array(found, dtype=np.int64).reshape(-1, 4) for name, found in self._places.items()}
        return WrittenRows(folder, len(self._units), places)


def _conformed(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        rows.column(field.name).cast(field.type) if field.name in rows.column_names else pa.nulls(len(rows), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _without_nan(rows: pa.Table) -> pa.Table:
    """Make what is not a number a missing value, as pandas writes it: readers of other makes know no difference."""
    columns = [
        pa.array(column.to_numpy(), from_pandas=True) if column.type == pa.float64() else column
        for column in rows.columns
    ]
    return pa.Table.from_arrays(columns, schema=rows.schema)


@dataclass(frozen=True, eq=False)
class WrittenRows:
    """Tables that lie in a folder.

    Attributes:
        folder: ``tables/``.
        units: how many there are.
        places: of each table ``(n, 4)``: number of the unit, row group, first row in it, how many rows.
    """

    folder: Path
    units: int
    places: Mapping[str, NDArray[np.int64]]

    def batches(self) -> Iterator[Rows]:
        """Walk through the units, as many together as :data:`BATCH_ROWS` allows; all rows of a unit come at once."""
        tables = [_UnitReader(table_file(self.folder, name), self.places[name]) for name in ROWS]
        chosen = list(self._parted())
        following = [*chosen[1:], range(0)]
        for units, soon in zip(
            tqdm(chosen, desc="scenes   ", unit="batch", dynamic_ncols=True, mininterval=shortest_interval()),
            following,
            strict=True,
        ):
            yield Rows(*(table.read(units, soon) for table in tables))
            pa.default_memory_pool().release_unused()  # else it grows by what every batch happened to need

    def _parted(self) -> Iterator[range]:
        # Of all tables: scenes without grasps have rows of views all the same.
        places = np.concatenate(list(self.places.values()))
        rows = np.bincount(places[:, 0], places[:, 3], self.units)
        start, total = 0, 0
        for unit in range(self.units):
            if unit > start and total + rows[unit] > BATCH_ROWS:
                yield range(start, unit)
                start, total = unit, 0
            total += int(rows[unit])
        if self.units:
            yield range(start, self.units)


class _UnitReader:
    """Reads the rows of some units from a table, and keeps the row groups that the next ones lie in too."""

    def __init__(self, path: Path, places: NDArray[np.int64]) -> None:
        names = pq.read_schema(path).names
        self._file = pq.ParquetFile(path, read_dictionary=[name for name in names if name in TEXT_COLUMNS])
        self._columns = [name for name in names if name not in UNUSED]
        self._places = places[np.argsort(places[:, 0], kind="stable")]
        self._held: dict[int, pa.Table] = {}

    def read(self, units: range, following: range) -> pd.DataFrame:
        pieces = [self._group(group).slice(start, count) for group, start, count in _runs(self._of(units))]
        soon = set(self._of(following)[:, 1].tolist())
        self._held = {group: table for group, table in self._held.items() if group in soon}
        if not pieces:
            return self._file.schema_arrow.empty_table().select(self._columns).to_pandas()
        return pa.concat_tables(pieces).unify_dictionaries().to_pandas()

    def _of(self, units: range) -> NDArray[np.int64]:
        """Return the places of these units in the order of the file."""
        first, end = np.searchsorted(self._places[:, 0], [units.start, units.stop])
        own = self._places[first:end]
        return own[np.lexsort((own[:, 2], own[:, 1]))]

    def _group(self, number: int) -> pa.Table:
        if number not in self._held:
            self._held[number] = self._file.read_row_group(number, columns=self._columns, use_threads=False)
        return self._held[number]


def _runs(places: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """Walk through row group, first row and how many, with units that lie one behind another as one.

    Args:
        places: ``(n, 4)`` as in :class:`WrittenRows`, in the order of the file.
    """
    _, group, start, count = places.T
    apart = (group[1:] != group[:-1]) | (start[1:] != start[:-1] + count[:-1])
    for own in np.split(places, np.flatnonzero(apart) + 1) if len(places) else ():
        yield int(own[0, 1]), int(own[0, 2]), int(own[:, 3].sum())


def copy(folder: Path, names: Mapping[str, str], out: RowWriter) -> None:
    """Put the rows of another run below those that are written.

    Args:
        folder: its ``tables/``.
        names: the arms that are taken, and what they are called here.
        out: where to.

    Raises:
        ArtifactError: if one of the tables is missing or broken.
    """
    for table in ROWS:
        for rows in _units(table_file(folder, table)):
            arm = rows.column("arm")[0].as_py()
            if arm in names:
                unit = rows.column("camera")[0].as_py(), int(rows.column("scene")[0].as_py())
                named = pa.repeat(pa.scalar(names[arm], pa.large_string()), len(rows))
                out.add(table, unit, rows.set_column(rows.column_names.index("arm"), "arm", named))


def _pieces(path: Path) -> Iterator[pa.Table]:
    """Read a table, some rows at a time; what goes wrong with these rows elsewhere is not this file's fault."""
    try:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=_COPIED, use_threads=False):
            yield pa.Table.from_batches([batch])
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such table; run `aggregate` first") from None
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(f"{path}: broken ({error}); run `aggregate` again") from None


def _units(path: Path) -> Iterator[pa.Table]:
    """Part a table into runs of rows whose keys are the same."""
    rest: pa.Table | None = None
    for rows in _pieces(path):
        rows = rows if rest is None else pa.concat_tables([rest, rows], promote_options="permissive")
        starts = _starts(rows)
        for start, end in itertools.pairwise(starts):
            yield rows.slice(start, end - start)
        rest = rows.slice(starts[-1]) if starts else None
    if rest is not None:
        yield rest


def _starts(rows: pa.Table) -> list[int]:
    """Return the first row of each run."""
    if not len(rows):
        return []
    changes = np.zeros(len(rows), dtype=bool)
    changes[0] = True
    for name in KEYS:
        codes = rows.column(name).combine_chunks().dictionary_encode()
        numbers = (codes.combine_chunks() if isinstance(codes, pa.ChunkedArray) else codes).indices.to_numpy()
        changes[1:] |= numbers[1:] != numbers[:-1]
    return [int(start) for start in np.flatnonzero(changes)]
