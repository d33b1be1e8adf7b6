"""The long tables of a run, written unit by unit, against reading every unit and joining them with pandas."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from pipeline import aggregate, row_tables
from pipeline.artifacts import ArtifactError, write_json
from pipeline.explain import EXPLAINED_COLUMNS
from pipeline.grasp_rows import COLUMNS, TRIAL_COLUMNS
from pipeline.row_tables import KEYS, Rows
from pipeline.run_folder import FAILURE, STAMP, unit_folder
from pipeline.table_files import ROWS, SAID_OF_SCENES, read_table


@pytest.fixture(scope="module")
def made(make_run: Callable, recipe: Callable, tmp_path_factory: pytest.TempPathFactory):
    """A run that physics tried too, with a view without grasps, a unit that failed and one that nobody explained."""
    more = {"scorers": ["analytic", "physics"], "statistics": {"draws": 100}, "comparisons": [["oracle", "partial"]]}
    small = recipe(arms=["partial", "oracle"], more=more, without_grasps={("oracle", 160, 64)})
    run = make_run(tmp_path_factory.mktemp("rows"), small)
    for scorer in ("analytic", "physics"):
        failed = unit_folder(run.folder.scores("oracle", "antipodal", scorer), 101, "realsense")
        (failed / STAMP).unlink()
        write_json(failed / FAILURE, {"stage": "score", "reason": "the worker died", "traceback": None})
    (unit_folder(run.folder.explained("partial", "antipodal"), 160, "realsense") / STAMP).unlink()
    return run


def _grasps_by_pandas(made) -> pd.DataFrame:
    parts: dict[str, list[pd.DataFrame]] = {"analytic": [], "physics": []}
    for arm in ("partial", "oracle"):
        for scorer, tables in parts.items():
            for unit in made.units:
                place = unit.scene, unit.camera
                scores = unit_folder(made.folder.scores(arm, "antipodal", scorer), *place)
                if not (scores / STAMP).exists():
                    continue
                keys = (arm, 0, "antipodal", scorer, unit.camera, unit.split, unit.scene)
                rows = pd.read_parquet(scores / "grasps.parquet").assign(**dict(zip(KEYS, keys, strict=True)))
                explained = unit_folder(made.folder.explained(arm, "antipodal"), *place)
                if (explained / STAMP).exists():
                    rows = rows.merge(pd.read_parquet(explained / "grasps.parquet"), on=["view", "row"], how="left")
                if scorer == "analytic":
                    tried = pd.read_parquet(
                        unit_folder(made.folder.scores(arm, "antipodal", "physics"), *place) / "grasps.parquet"
                    )
                    rows = rows.merge(tried[["view", "row", *TRIAL_COLUMNS.names]], on=["view", "row"], how="left")
                seen = pd.read_parquet(unit_folder(made.folder.visibility, *place) / "visibility.parquet")
                tables.append(rows.merge(seen, on=["view", "object"], how="left"))
    columns = [*KEYS, *COLUMNS.names, *EXPLAINED_COLUMNS, *TRIAL_COLUMNS.names, "visible_fraction"]
    whole = pd.concat([*parts["analytic"], *parts["physics"]], ignore_index=True)[columns]
    return whole.assign(surface=whole["surface"].fillna(""))


def test_rows_are_those_of_the_units(made, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {}
    aggregate.run(made.experiment, made.folder, made.units)
    for name in SAID_OF_SCENES:
        expected[name] = (made.folder.tables / f"{name}.csv").read_bytes()
    monkeypatch.setattr(row_tables, "GROUP_ROWS", dict.fromkeys(ROWS, 100))
    monkeypatch.setattr(row_tables, "BATCH_ROWS", 300)
    aggregate.run(made.experiment, made.folder, made.units)
    for name, content in expected.items():
        assert (made.folder.tables / f"{name}.csv").read_bytes() == content, name
    found, wanted = read_table(made.folder.tables, "grasps"), _grasps_by_pandas(made)
    pd.testing.assert_frame_equal(found, wanted.astype(found.dtypes.to_dict()), check_exact=True)
    assert found.query("arm == 'partial' and scene == 160")["touches"].isna().all()
    views = read_table(made.folder.tables, "views")
    lost = views.query("arm == 'oracle' and scene == 101")
    assert lost["failed"].all() and (lost[lost["scorer"] == "analytic"][["ap", "feasible"]] == 0).all(axis=None)
    assert len(views) == 2 * 2 * 4 * 2 * 4  # arms, scorers, scenes, views; three objects and the whole


@pytest.mark.slow
def test_batches_hold_whole_scenes_and_all_rows(made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_tables, "GROUP_ROWS", dict.fromkeys(ROWS, 60))
    monkeypatch.setattr(row_tables, "_COPIED", 50)
    monkeypatch.setattr(row_tables, "BATCH_ROWS", 200)
    aggregate.run(made.experiment, made.folder, made.units)
    with row_tables.writing(tmp_path, row_tables.schemas(made.experiment.scorers)) as out:
        row_tables.copy(made.folder.tables, {"partial": "partial", "oracle": "truth"}, out)
    batches = list(out.written(tmp_path).batches())
    assert len(batches) == 4
    for place, name in enumerate(ROWS):
        whole = read_table(made.folder.tables, name).replace({"arm": {"oracle": "truth"}})
        pd.testing.assert_frame_equal(read_table(tmp_path, name), whole.astype(read_table(tmp_path, name).dtypes))
        parts = [list(vars(batch).values())[place] for batch in batches]
        assert [len(set(part["scene"])) for part in parts] == [1] * 4
        for part in parts:
            own = whole[whole["scene"] == part["scene"].iloc[0]].reset_index(drop=True)
            pd.testing.assert_frame_equal(part.astype(own[part.columns].dtypes), own[part.columns], check_exact=True)
    assert isinstance(batches[0], Rows)


def test_an_interrupted_writing_leaves_what_was_there(made, tmp_path: Path) -> None:
    tables = shutil.copytree(made.folder.tables, tmp_path / "tables")
    before = {path.name: path.read_bytes() for path in tables.iterdir()}
    (tables / ".grasps.parquet.killed.tmp").write_bytes(b"PAR1")
    with (
        pytest.raises(ArtifactError, match="no such table"),
        row_tables.writing(tables, row_tables.schemas(["analytic"])) as out,
    ):
        row_tables.copy(tables, {"partial": "partial"}, out)
        row_tables.copy(tmp_path / "nowhere", {"partial": "partial"}, out)
    assert {path.name: path.read_bytes() for path in tables.iterdir()} == before


PROGRAM = """
import json, resource, sys
from pathlib import Path
from pipeline import aggregate, row_tables
from pipeline.config import load_experiment
from pipeline.run_folder import RunFolder
from pipeline.selection import SceneUnit
row_tables.GROUP_ROWS, row_tables.BATCH_ROWS = dict.fromkeys(row_tables.GROUP_ROWS, 2**13), 2**13
root = Path(sys.argv[1])
units = [SceneUnit(scene, "realsense", split, tuple(views)) for scene, split, views in json.loads(sys.argv[2])]
aggregate.run(load_experiment(root.parent / "trial.yaml"), RunFolder(root), units)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_hardly_grows_with_scenes(make_run: Callable, recipe: Callable, tmp_path: Path) -> None:
    """Means stay of a scene; were all rows held while they are worked on, it would be 2.7 MB a scene here."""
    views = tuple(range(0, 256, 16))
    small = recipe(scenes={"test_seen": [100], "test_novel": [160]}, views=views, more={"statistics": {"draws": 100}})
    made = make_run(tmp_path, small)
    splits = {100: "test_seen", 160: "test_novel"}
    peaks = {}
    for count in (16, 160):
        units = []
        for number in range(count):
            source = (100, 160)[number % 2]
            units.append((1000 + number, splits[source], views))
            for folder in made.folder.root.glob(f"**/scene_{source:04d}"):
                clone = folder.with_name(f"scene_{1000 + number:04d}")
                if not clone.exists():
                    shutil.copytree(folder, clone, copy_function=os.link)
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(made.folder.root), json.dumps(units)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        peaks[count] = int(done.stdout) / 1024
    grown = (peaks[160] - peaks[16]) / 144
    assert grown < 0.4, f"{peaks} MiB: {1024 * grown:.0f} kiB a scene"
