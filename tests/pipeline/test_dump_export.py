"""A run's grasps written as others read them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline.artifacts import ArtifactError, Stamp, write_stamp
from pipeline.cli_export import app
from pipeline.config import load_experiment
from pipeline.dump_export import export_dump
from pipeline.run_folder import STAMP, RunFolder, unit_folder, view_file
from pipeline.score_dump import dumped_scenes
from pipeline.view_files import pack


@pytest.fixture
def run(tmp_path: Path, tiny_experiment: Path) -> RunFolder:
    """Two finished dumps of the arm `partial`, one of them packed, and one that failed."""
    folder = RunFolder(tmp_path / "run")
    folder.root.mkdir()
    content = load_experiment(tiny_experiment).model_dump(mode="json")
    folder.experiment_file.write_text(json.dumps(content))
    folder.clouds("partial").mkdir(parents=True)
    for scene in (100, 160):
        dump = unit_folder(folder.dump("partial", "antipodal"), scene, "realsense")
        dump.mkdir(parents=True)
        for view in (0, 128):
            np.save(view_file(dump, view, ".npy"), np.full((2, 17), scene + view))
        write_stamp(dump / STAMP, Stamp({}, [], 0.0))
    pack(dump)
    (folder.dump("partial", "antipodal") / "scene_0101" / "realsense").mkdir(parents=True)
    return folder


def test_a_dump_is_written_loose_from_either_form(run: RunFolder, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = export_dump(run.root, "partial", out)
    assert (done.units, done.views, done.cameras, len(done.unfinished)) == (2, 4, ("realsense",), 1)
    assert dumped_scenes(out, "realsense") == [100, 160]
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert files == [f"scene_{s:04d}/realsense/{v:04d}.npy" for s in (100, 160) for v in (0, 128)]
    for scene in (100, 160):
        assert (np.load(view_file(unit_folder(out, scene, "realsense"), 128, ".npy")) == scene + 128).all()


def test_what_cannot_be_exported_is_told(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no arm 'oracle' with clouds; it has partial"):
        export_dump(run.root, "oracle", tmp_path / "out")
    with pytest.raises(ArtifactError, match="no generator 'mine'; it has antipodal"):
        export_dump(run.root, "partial", tmp_path / "out", "mine")
    with pytest.raises(ArtifactError, match="run: not empty; give another folder"):
        export_dump(run.root, "partial", run.root)
    with pytest.raises(ArtifactError, match=r"experiment\.json: a file"):
        export_dump(run.root, "partial", run.experiment_file)
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_it_wrote(run: RunFolder, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, [str(run.root), str(tmp_path / "out"), "--arm", "partial"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "4 views of 2 scenes by camera, antipodal" in done.output
    assert "scene_0101/realsense: not finished" in done.output.replace("\n", "")
