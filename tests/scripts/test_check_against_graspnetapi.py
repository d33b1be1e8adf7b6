"""The script that compares our scores with graspnetAPI's, on a small made dataset and dumps of every kind."""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from grasping import protocol, reference
from grasping.contacts import find_contacts
from grasping.force_closure import minimum_friction, required_angle
from grasping.geometry import load_object, make_signed_distance_grid, read_mesh
from grasping.grasps import Grasps
from pipeline.datasets.graspnet import GraspNetDataset

SCENE = 100
SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "check_against_graspnetapi.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_against_graspnetapi", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pipeline.datasets.synthetic import synthesize

    root = tmp_path_factory.mktemp("checked") / "dataset"
    synthesize(root, scenes=(SCENE,), views=(0,), objects_per_scene=(2, 3), seen_pool=3, sdf="none", seed=1)
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def referee() -> None:
    if not reference.available():
        pytest.skip("install the referee with scripts/install_referee.sh")


def grasps_from_above(root: Path, view: int, count: int, levels: int | None = None) -> np.ndarray:
    """Rows that close across the objects from above and aslant; few confidence levels make ties."""
    dataset = GraspNetDataset(root, "realsense")
    rng = np.random.default_rng(view)
    poses = dataset.object_poses(SCENE, view)
    down = -np.linalg.inv(dataset.T_table_camera(SCENE, view))[:3, 2]
    rows = np.zeros((count, 17))
    for row in rows:
        approach = down + rng.normal(size=3) * 0.3
        approach /= np.linalg.norm(approach)
        pose = poses[rng.integers(len(poses))]
        across = pose[:3, rng.integers(3)] + rng.normal(size=3) * rng.choice([0.05, 0.5])
        across -= (across @ approach) * approach
        across /= np.linalg.norm(across)
        row[4:13] = np.stack([approach, across, np.cross(approach, across)], axis=1).reshape(-1)
        row[3] = rng.choice([0.01, 0.02, 0.03, 0.04])
        row[13:16] = pose[:3, 3] + rng.normal(size=3) * 0.008 - approach * row[3]
    rows[:, 0] = rng.random(count) if levels is None else rng.integers(0, levels, count)
    rows[:, 1] = rng.uniform(0.05, 0.12, count)
    rows[:, 2], rows[:, 16] = 0.02, -1
    return rows


def write(dump: Path, views: dict[int, np.ndarray]) -> Path:
    folder = dump / f"scene_{SCENE:04d}" / "realsense"
    folder.mkdir(parents=True)
    for view, rows in views.items():
        np.save(folder / f"{view:04d}.npy", rows)
    return dump


def run(script: ModuleType, dataset: Path, dump: Path, cache: Path, *more: str) -> int:
    return script.main(["--dataset", str(dataset), "--dump", str(dump), "--cache", str(cache), *more])


@pytest.mark.graspnetapi
def test_equal_views_and_those_that_stop_the_referee(
    referee: None, script: ModuleType, dataset: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_nan = grasps_from_above(dataset, 3, 60)
    with_nan[7, 2] = with_nan[8, 0] = np.nan
    crooked = grasps_from_above(dataset, 9, 40)
    crooked[:, 4:13] *= 1.001
    views = {0: grasps_from_above(dataset, 0, 200), 3: with_nan, 7: np.zeros((0, 17)), 9: crooked}
    dump = write(tmp_path / "dump", views)
    (dump / f"scene_{SCENE:04d}" / "realsense" / "0011.npy").write_bytes(b"not an array")
    assert run(script, dataset, dump, cache) == 0
    out = capsys.readouterr().out
    print(out)
    line = next(text.split() for text in out.splitlines() if text.startswith(f"{SCENE:5d}"))
    assert line[1] == "5" and int(line[3]) >= 30 and int(line[4]) >= 3 and line[-1] == line[-2]
    assert "view 0007: the referee stops here with IndexError" in out
    assert "view 0009: the referee stops here with ValueError: Illegal grasp axis" in out
    assert "view 0011: the referee stops here with" in out
    assert "view 0003: 2 rows refused here" in out
    assert "3 views that stop the referee" in out and out.rstrip().endswith("EQUAL on 2 of 5 views")


@pytest.mark.graspnetapi
def test_ties_are_compared_as_far_as_they_can_be(
    referee: None, script: ModuleType, dataset: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dump = write(tmp_path / "dump", {view: grasps_from_above(dataset, view, 150, levels=4) for view in (0, 5)})
    assert run(script, dataset, dump, cache, "--views", "5", "--scenes", str(SCENE)) == 0
    out = capsys.readouterr().out
    print(out)
    assert "view 0005: 150 rows share their confidence with another" in out and "view 0000" not in out
    assert (
        "1 views with equal confidences" in out
        and "EQUAL on 1 of 1 views, wherever the referee does not leave it to chance" in out
    )


@pytest.mark.graspnetapi
@pytest.mark.parametrize(
    ("constant", "wrong", "what", "alone"),
    [
        ("MINIMUM_INSIDE", 25, "empty", True),
        ("GRASPS_PER_OBJECT", 9, "kept", False),
        ("MAXIMUM_WIDTH", 0.08, "width", True),
    ],
)
def test_a_scorer_that_is_wrong_is_shown(
    referee: None,
    script: ModuleType,
    dataset: Path,
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    constant: str,
    wrong: float,
    what: str,
    alone: bool,
) -> None:
    """One wrong constant in our protocol; the line that is printed shows the difference again."""
    rows = grasps_from_above(dataset, 0, 150)
    dump = write(tmp_path / "dump", {0: rows})
    monkeypatch.setattr(protocol, constant, wrong)
    assert run(script, dataset, dump, cache) == 1
    out = capsys.readouterr().out
    print(out)
    head = next(text for text in out.splitlines() if text.startswith("DIFFERENT"))
    assert head.startswith(f"DIFFERENT in {what}: scene {SCENE}, camera realsense, view 0, row ")
    row = int(head.rsplit(" ", 1)[1])
    assert all(repr(value) in out for value in rows[row].tolist())
    assert "\n  ours    {" in out and "\n  referee {" in out
    reproduce = shlex.split(out.splitlines()[-1])
    assert reproduce[0] == "reproduce:" and ("--rows" in reproduce) == alone
    assert script.main([*reproduce[3:], "--cache", str(cache)]) == 1
    assert f"DIFFERENT in {what}" in capsys.readouterr().out
    monkeypatch.undo()
    assert script.main([*reproduce[3:], "--cache", str(cache)]) == 0


@pytest.mark.graspnetapi
def test_grasps_left_to_the_referees_sample_are_listed(
    referee: None, script: ModuleType, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Distances without padding, and grasps chosen because the seed decides on them: neither equal nor different."""
    root = tmp_path / "unpadded"
    shutil.copytree(dataset, root)
    reader = GraspNetDataset(root, "realsense")
    objects = []
    for k in reader.object_ids(SCENE):
        vertices, faces = read_mesh(reader.model_dir(k) / "nontextured.ply")
        make_signed_distance_grid(vertices, faces, 40, padding=0, threads=1).save(reader.model_dir(k) / "textured.sdf")
        objects.append(load_object(reader.model_dir(k), k, tmp_path / "cache"))
    poses = reader.object_poses(SCENE, 0)
    rows = grasps_from_above(root, 0, 8000)
    rows[:, 1] = np.clip(rows[:, 1], 0, 0.1)
    grasps = Grasps.from_array(rows)
    world = (objects, poses, np.linalg.inv(reader.T_table_camera(SCENE, 0)))
    score = protocol.score_view(grasps, *world)
    chosen: list[int] = []
    for k, geometry in enumerate(objects):
        clear = score.index[(score.object_index == k) & ~(score.collided | score.empty)]
        lines = protocol.closing_lines(grasps[clear], poses[k])
        under = np.array(
            [
                minimum_friction(required_angle(find_contacts(geometry.sdf, *lines, rows[clear, 1], seed)))
                for seed in range(5)
            ]
        )
        chosen += clear[(under != under[0]).any(axis=0)][:3].tolist()
    assert chosen
    dump = write(tmp_path / "dump", {0: rows[[*chosen, 0, 1, 2]]})
    assert run(script, root, dump, tmp_path / "cache") == 0
    out = capsys.readouterr().out
    print(out)
    listed = [line for line in out.splitlines() if "the referee is random here" in line]
    assert len(listed) == len(chosen) and f"{len(chosen)} grasps left to the referee's surface sample" in out
    assert out.rstrip().endswith("EQUAL on 1 of 1 views, wherever the referee does not leave it to chance")


def test_bad_input_says_what_is_missing(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, dump = tmp_path / "root", tmp_path / "dump"
    (root / "scenes" / f"scene_{SCENE:04d}" / "realsense").mkdir(parents=True)

    def error(*more: str, dataset: Path = root) -> str:
        assert run(script, dataset, dump, tmp_path / "cache", *more) == 2
        return capsys.readouterr().err

    assert "no such folder" in error() and str(dump) in error()
    dump.mkdir()
    assert "no folder 'scenes'" in error(dataset=tmp_path)
    assert "holds no scene" in error()
    assert "no scene 7" in error("--scenes", "7")
    assert "no scene_0100/realsense" in error("--scenes", "100")
    (dump / f"scene_{SCENE:04d}" / "realsense").mkdir(parents=True)
    reference.load.cache_clear()
    monkeypatch.setitem(sys.modules, "graspnetAPI.graspnet_eval", None)
    assert "install_referee.sh" in error()
    monkeypatch.undo()
    reference.load.cache_clear()


@pytest.mark.graspnetapi
def test_nothing_to_compare(
    referee: None, script: ModuleType, dataset: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dump = write(tmp_path / "dump", {0: np.zeros((0, 17))})
    assert run(script, dataset, dump, cache) == 2
    assert "none of these views" in capsys.readouterr().err
    assert run(script, dataset, dump, cache, "--views", "0,7") == 2
    assert "no 0007.npy in it" in capsys.readouterr().err


def test_numbers_are_read_as_ranges(script: ModuleType) -> None:
    assert script._numbers("0,5,7-9") == [0, 5, 7, 8, 9]
    for wrong in ("abc", "", "-1", "1-x"):
        with pytest.raises(argparse.ArgumentTypeError, match="not a list of numbers"):
            script._numbers(wrong)
