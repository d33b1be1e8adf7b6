"""The command score-dump, and what its workers import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from pipeline.cli import app, main
from pipeline.datasets.graspnet import GraspNetDataset
from pipeline.dump_scene import VIEW_STATES, score_scene
from pipeline.dump_text import lines
from pipeline.score_dump import Request, Scored, prepare_models, scene_jobs

CAMERA = "realsense"


def command(request: Request, *options: str) -> Any:
    base = [str(request.dump), "--dataset", str(request.dataset), "--camera", request.camera]
    return CliRunner().invoke(app, ["score-dump", *base, "--cache", str(request.cache), "--workers", "1", *options])


def test_command_prints_and_writes(requested: Request, scored: Scored, tmp_path: Path) -> None:
    files = ("--result", str(tmp_path / "r.json"), "--rows", str(tmp_path / "r.parquet"))
    ended = command(requested, *files)
    assert ended.exit_code == 0, ended.output
    result = json.loads((tmp_path / "r.json").read_text())
    assert {"ap", "ap_0.4", "ap_0.8", "views", "problems"} <= set(result)
    assert result["ap"] == scored.result["ap"] and result["problems"] == [] and result["views"] == 4
    assert f"{result['ap']:.2f}" in ended.output and result["fingerprint_short"] in ended.output
    assert (
        "S < 4 cm" in ended.output and "test_novel" in ended.output and set(result["view_states"]) == set(VIEW_STATES)
    )
    assert max(map(len, lines(result))) <= 100
    assert len(pd.read_parquet(tmp_path / "r.parquet")) == result["kept"]
    again = command(requested, "--against", str(tmp_path / "r.json"))
    assert again.exit_code == 0 and "+0.00" in again.output


def test_json_alone_on_standard_output(requested: Request, scored: Scored) -> None:
    ended = command(requested, "--json")
    assert ended.exit_code == 0 and json.loads(ended.stdout)["ap"] == scored.result["ap"]


def test_command_status_1_where_a_view_got_no_result(own_dataset: Request) -> None:
    (own_dataset.dataset / "scenes" / "scene_0100" / CAMERA / "annotations" / "0128.xml").unlink()
    ended = command(own_dataset)
    assert ended.exit_code == 1 and "1 no_result" in ended.output and "0128.xml" in ended.output


@pytest.mark.parametrize(
    "options",
    [
        ("--views", "0-"),
        ("--scenes", "x"),
        ("--split", "tset"),
        ("--dataset", "nowhere"),
        ("--against", "nothing.json"),
        ("--camera", "webcam"),
        ("--rows", "."),
        ("--result", "/dev/null/below/r.json"),
    ],
)
def test_command_status_2_and_one_line_for_bad_arguments(
    requested: Request, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = [str(requested.dump), "--dataset", str(requested.dataset), "--camera", CAMERA]
    monkeypatch.setattr(sys, "argv", ["grasp-utility", "score-dump", *base, *options])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2 and len(said) == 1 and said[0].startswith("grasp-utility: ")


def test_a_worker_imports_nothing_heavy(requested: Request, tmp_path: Path) -> None:
    """Everything that a worker process imports before and while it scores a view."""
    import pickle

    dataset = GraspNetDataset(requested.dataset, CAMERA)
    ids = dataset.object_ids(100)
    objects = prepare_models(dataset, ids, requested.cache, 1)
    (job,) = scene_jobs(requested, {100: (0,)}, {100: ids}, objects)
    (tmp_path / "call").write_bytes(pickle.dumps((score_scene, job)))
    code = (
        "import pickle, sys, pipeline.engines.batch\n"
        f"function, job = pickle.load(open({str(tmp_path / 'call')!r}, 'rb'))\n"
        "assert function(job).states == ('scored',)\n"
        "print(*sys.modules)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ended.stdout.split())
    heavy = {"torch", "open3d", "pandas", "pyarrow", "trimesh", "mujoco", "coacd", "matplotlib", "typer", "rich"}
    assert "numba" in loaded
    assert heavy & {name.split(".")[0] for name in loaded} == set()
    # numba itself asks scipy for its version and for BLAS (scipy.linalg); nothing may import what makes it heavy
    parts = {name.split(".")[1] for name in loaded if name.startswith("scipy.")}
    assert parts & {"io", "optimize", "sparse", "spatial", "special", "stats"} == set()
