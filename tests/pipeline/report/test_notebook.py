"""``pipeline.load_run``: tables as they were written, each column with its meaning, and what is said of half a run."""

from __future__ import annotations

import doctest
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from grasping.transforms import transform_points
from pipeline import aggregate, load_run, notebook
from pipeline.artifacts import ArtifactError
from pipeline.notebook import COLUMNS, Run
from pipeline.run_folder import RunFolder
from pipeline.table_columns import PHYSICS_COLUMNS

README = (Path(__file__).resolve().parents[3] / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run(plain_run) -> Run:
    return load_run(plain_run.folder.root)


@pytest.fixture(scope="module")
def tried(make_run, recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on which physics gave its opinion too: it has every table and column that there is."""
    more = {"scorers": ["analytic", "physics"]}
    return load_run(make_run(tmp_path_factory.mktemp("tried"), recipe(more=more)).folder.root)


@pytest.fixture
def copy(plain_run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(plain_run.folder.root, tmp_path / "run"))


def tables_of(folder: RunFolder) -> list[str]:
    return sorted(path.stem for path in folder.tables.iterdir())


def test_every_table_that_a_run_writes_is_documented_and_no_other(tried: Run) -> None:
    assert tables_of(tried.contents.folder) == sorted(COLUMNS)


@pytest.mark.parametrize("table", COLUMNS)
def test_documented_columns_are_the_columns(run: Run, tried: Run, table: str) -> None:
    assert set(getattr(tried, table).columns) == set(COLUMNS[table])
    assert all(COLUMNS[table].values())
    if table in tables_of(run.contents.folder):
        assert set(getattr(run, table).columns) == set(COLUMNS[table]) - set(PHYSICS_COLUMNS.get(table, ()))


@pytest.mark.parametrize("table", ["comparisons", "grasps"])
def test_describe_says_what_each_column_means(tried: Run, table: str) -> None:
    described = tried.describe(table)
    assert list(described["column"]) == list(getattr(tried, table).columns)
    assert dict(zip(described["column"], described["meaning"], strict=True)) == COLUMNS[table]


def test_tables_are_those_of_the_stage(plain_run, run: Run) -> None:
    made = aggregate.run(plain_run.experiment, plain_run.folder, plain_run.units)
    assert run.arms == ["partial", "pcn-cd", "pcn-qal", "oracle"]
    for name in ("utility", "completion", "comparisons", "attribution", "crossed"):
        pd.testing.assert_frame_equal(getattr(run, name), getattr(made, name), rtol=1e-5, check_dtype=False)
    assert run.utility is run.utility  # read once
    assert run.summary["arms"][1]["name"] == "pcn-cd" and run.experiment["name"] == "trial"


def test_an_arm_may_be_called_na_or_1(make_run, recipe, tmp_path: Path) -> None:
    arms = [{"name": "NA", "completion": "none"}, {"name": "1", "completion": "truth"}]
    run = load_run(make_run(tmp_path, recipe(arms=arms)).folder.root)
    assert set(run.utility["arm"]) == {"NA", "1"} and set(run.utility["object"]) == {"all", "3", "7", "11"}
    assert run.clouds("NA", 100, 0).points.shape[1] == 3


def test_clouds_and_grasps_are_in_the_camera_frame(run: Run) -> None:
    observation = run.observation(100, 64)
    truth = transform_points(observation.T_table_camera, run.clouds("oracle", 100, 64).points)
    assert -0.01 < truth[:, 2].min() < 0.01 and 0.08 < truth[:, 2].max() < 0.1  # boxes on the table
    found = run.grasps_of("pcn-cd", 100, 64)
    table = run.grasps.query("arm == 'pcn-cd' and scene == 100 and view == 64")
    assert found.rows["min_friction"].tolist() == table["min_friction"].tolist()
    assert len(found.kept().grasps) == table["kept"].sum() == len(found.kept().rows)
    np.testing.assert_allclose(found.grasps.confidence, found.rows["confidence"], atol=1e-9)
    height = transform_points(observation.T_table_camera, found.grasps.translation)[:, 2]
    assert height.min() > 0.0


def test_the_examples_hold(run: Run) -> None:
    tests = doctest.DocTestFinder().find(
        load_run, "load_run", module=notebook, extraglobs={"run_folder": str(run.path)}
    )
    runner = doctest.DocTestRunner()
    assert sum(runner.run(test).attempted for test in tests) >= 8
    assert runner.summarize(verbose=False).failed == 0


def test_the_lines_of_the_readme_run(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (snippet,) = [text for text in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if "load_run" in text]
    (tmp_path / "grasp-utility-demo").mkdir()
    (tmp_path / "grasp-utility-demo" / "run").symlink_to(run.path.resolve())
    monkeypatch.chdir(tmp_path)
    exec(snippet, {})


def test_importing_the_package_stays_light() -> None:
    code = "import sys, pipeline; print([n for n in ('numpy', 'pandas', 'pydantic', 'pyarrow') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ------------------------------------------------------------------------------------------------ what is no run


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(
            ArtifactError, match=r"no run folder, for it has no experiment\.json; give what `--out` named"
        ):
            load_run(path)


def test_half_a_run_is_refused(copy: Path) -> None:
    (copy / "summary.json").unlink()
    with pytest.raises(ArtifactError, match=r"summary\.json: missing or broken; run `aggregate`"):
        load_run(str(copy))
    (copy / "experiment.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"experiment\.json: not readable as JSON .*; run the experiment again"):
        load_run(copy)


@pytest.mark.parametrize("name", ["experiment.json", "summary.json"])
@pytest.mark.parametrize(
    ("version", "remedy"), [(99, "update grasp-utility"), (0, "run the experiment again"), (None, "")]
)
def test_another_format_is_refused(copy: Path, name: str, version: int | None, remedy: str) -> None:
    content = json.loads((copy / name).read_text())
    (copy / name).write_text(json.dumps(content | {"format_version": version}))
    with pytest.raises(ArtifactError, match=rf"{name}: format version {version}, this program reads \d+; {remedy}"):
        load_run(copy)


def test_an_experiment_that_cannot_be_read_is_refused(copy: Path) -> None:
    content = json.loads((copy / "experiment.json").read_text())
    (copy / "experiment.json").write_text(json.dumps(content | {"novelty": 1}))
    with pytest.raises(ArtifactError, match=r"experiment\.json: unknown key 'novelty'.*; run the experiment again"):
        load_run(copy)


def test_a_missing_or_broken_table_is_named_with_who_makes_it(copy: Path) -> None:
    run = load_run(copy)
    with pytest.raises(
        ArtifactError, match=r"agreement\.csv: no such table; `aggregate` makes it .* scorers name physics"
    ):
        _ = run.agreement
    (copy / "tables" / "utility.csv").unlink()
    with pytest.raises(ArtifactError, match=r"utility\.csv: no such table; run `aggregate` first"):
        _ = run.utility
    (copy / "tables" / "views.parquet").write_bytes(b"PAR1")
    with pytest.raises(ArtifactError, match=r"views\.parquet: broken \(.*\); run `aggregate` again"):
        _ = run.views
    with pytest.raises(ArtifactError, match=r"no table 'gasps'; there are utility, "):
        run.describe("gasps")


def test_what_a_run_does_not_hold_is_named(run: Run) -> None:
    with pytest.raises(ArtifactError, match=r"has no arm 'pcn' with clouds; it has oracle, partial, pcn-cd, pcn-qal"):
        run.clouds("pcn", 100, 0)
    with pytest.raises(ArtifactError, match=r"has no scene 7 of realsense; it has 100-101,160-161"):
        run.observation(7, 0)
    with pytest.raises(ArtifactError, match=r"has no scorer 'physics'; it has analytic"):
        run.grasps_of("partial", 100, 0, scorer="physics")
