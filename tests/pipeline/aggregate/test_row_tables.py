"""The long tables, written and read back: of rows by lot, without a run."""

from __future__ import annotations

import errno
import gc
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import row_tables
from pipeline.row_tables import Rows, RowWriter, WrittenRows
from pipeline.table_files import ROWS, table_file

Make = Callable[..., Any]


@pytest.fixture
def rows(experiment_of: Make, by_lot: Make) -> Rows:
    made: Rows = by_lot(experiment_of(["partial", "oracle"]), count=6)
    return made


def _put(rows: Rows, out: RowWriter) -> None:
    """Write rows unit by unit, in the order of arms."""
    for name in ROWS:
        for (_, scene), own in getattr(rows, name).groupby(["arm", "scene"], sort=False):
            out.add(name, ("realsense", scene), pa.Table.from_pandas(own, preserve_index=False))


def _written(rows: Rows, folder: Path) -> WrittenRows:
    with row_tables.writing(folder, row_tables.schemas(["analytic"])) as out:
        _put(rows, out)
    return out.written(folder)


def _hold(batches: list[Rows], rows: Rows) -> None:
    """Compare the rows of batches, all of a scene in one of them, with those that were written."""
    for batch in batches:
        scenes = set(batch.views["scene"])
        for name in ROWS:
            found, wanted = getattr(batch, name), getattr(rows, name)
            wanted = wanted[wanted["scene"].isin(scenes)].reset_index(drop=True)
            common = [column for column in wanted if column in found]
            pd.testing.assert_frame_equal(found[common], wanted[common].astype(found[common].dtypes), check_exact=True)


def test_many_small_units_are_read_in_a_few_pieces(rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lying = _written(rows, tmp_path)
    assert [len(list(row_tables._runs(places))) for places in lying.places.values()] == [1] * 4
    _hold(list(lying.batches()), rows)
    # Two arms of eight scenes each: where five units are a row group, groups end within arms.
    monkeypatch.setattr(row_tables, "_PIECES", 5)
    monkeypatch.setattr(row_tables, "BATCH_ROWS", 300)
    lying = _written(rows, tmp_path)
    assert [pq.ParquetFile(table_file(tmp_path, name)).num_row_groups for name in ROWS] == [4] * 4
    batches = list(lying.batches())
    assert 1 < len(batches) < 8
    _hold(batches, rows)


def test_scenes_without_grasps_fill_batches_too(rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_tables, "BATCH_ROWS", 40)
    empty = Rows(rows.grasps.iloc[:0], rows.views, rows.completion_views, rows.crossed_views)
    batches = list(_written(empty, tmp_path).batches())
    assert len(batches) == 8
    _hold(batches, empty)


class _SmallDisk(io.BytesIO):
    def write(self, data: Any) -> int:
        if self.tell() + len(memoryview(data)) > 3000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


def test_a_full_disk_is_not_the_fault_of_the_rows_that_are_copied(
    rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _written(rows, tmp_path)
    monkeypatch.setattr(row_tables, "GROUP_ROWS", dict.fromkeys(ROWS, 1))
    out = RowWriter({name: _SmallDisk() for name in ROWS}, row_tables.schemas(["analytic"]))
    with pytest.raises(OSError, match="No space left on device"):
        row_tables.copy(tmp_path, {"partial": "partial"}, out)
    out.abandon()


def test_a_disk_that_is_full_at_the_end_is_told_once(
    rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: RowWriter, table: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    ignored: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: ignored.append(what.exc_value))
    _written(rows, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(RowWriter, "_flush", full)
    with pytest.raises(OSError, match="No space left"), row_tables.writing(tmp_path, row_tables.schemas(["physics"])):
        pass
    gc.collect()
    assert not ignored  # what is left open is closed too late, and says so on the terminal
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix != ".yaml"} == {
        name: content for name, content in before.items() if not name.endswith(".yaml")
    }
