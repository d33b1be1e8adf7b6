"""The stage that says why: rows against scores, exchanges against their definition, and what fails inside."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from grasping import protocol
from grasping.collision import collide
from grasping.contacts import find_contacts
from grasping.grasps import Grasps
from grasping.protocol import ViewScore, score_view
from grasping.transforms import transform_points
from grasping.utility import METRICS, view_utility
from pipeline import explained_view
from pipeline.artifacts import read_stamp
from pipeline.cloud_files import load_clouds, load_observation
from pipeline.config import Experiment, load_experiment
from pipeline.datasets.graspnet import GraspNetDataset
from pipeline.experiment import RunResult, run_experiment
from pipeline.explain import COMBINATIONS, CROSSED_FILE, EXPLAINED_COLUMNS, GRASPS_FILE, VISIBILITY_FILE
from pipeline.run_folder import STAMP, RunFolder, unit_folder, view_file
from pipeline.truth import scored_object
from pipeline.visibility import OBSERVED_WITHIN

ARMS, UNITS, VIEWS = ("partial", "random", "oracle"), ((100, "realsense"), (160, "realsense")), (0, 128)
UNTIL = ("observe", "complete", "generate", "score", "explain")


def carry_out(path: Path, out: Path, stages: tuple[str, ...] = UNTIL, **overrides: object) -> RunResult:
    experiment = load_experiment(path, dict(overrides))
    return run_experiment(experiment, out, device="cpu", workers=0, stages=stages, say=[].append)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path, tiny_cache: Path, tiny_checkpoint: Path):
    folder = tmp_path_factory.mktemp("explained")
    path = folder / "experiment.yaml"
    path.write_text(
        "format_version: 1\nname: tiny\n"
        f"dataset: {{root: {tiny_dataset}}}\n"
        f"arms: [partial, {{name: random, checkpoint: {tiny_checkpoint}}}, oracle]\n"
        f"cache: {tiny_cache}\n"
    )
    return path, carry_out(path, folder / "run")


@pytest.fixture
def copied(finished, tmp_path: Path) -> tuple[Path, RunFolder]:
    path, result = finished
    shutil.copytree(result.folder.root, tmp_path / "run")
    return path, RunFolder(tmp_path / "run")


def table(folder: RunFolder, arm: str, scene: int, name: str = GRASPS_FILE) -> pd.DataFrame:
    return pd.read_parquet(unit_folder(folder.explained(arm, "antipodal"), scene, "realsense") / name)


def scores(folder: RunFolder, arm: str, scene: int) -> pd.DataFrame:
    return pd.read_parquet(
        unit_folder(folder.scores(arm, "antipodal", "analytic"), scene, "realsense") / "grasps.parquet"
    )


def last(result: RunResult) -> tuple[int, int, int]:
    report = result.stages[-1]
    return report.made, report.current, len(report.failures)


def test_its_workers_start_light() -> None:
    heavy = ("torch", "open3d", "matplotlib", "trimesh", "pandas")
    code = f"import sys, pipeline.explain; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_scored_row_is_explained(finished) -> None:
    _, result = finished
    assert result.problems == () and last(result) == (8, 0, 0)
    for arm in ARMS:
        for scene, _ in UNITS:
            rows, known = scores(result.folder, arm, scene), table(result.folder, arm, scene)
            assert list(known.columns) == ["view", "row", *EXPLAINED_COLUMNS]
            assert len(rows) == len(known) > 30
            for name in ("view", "row"):
                assert np.array_equal(rows[name], known[name])
            hits = known["hits_target"] | known["hits_neighbour"] | known["hits_table"]
            assert np.array_equal(hits, rows["collided"])
            clear = ~(rows["collided"] | rows["empty"])
            assert np.array_equal(known["touches"][clear], rows["reason"][clear].isin(["success", "no_closure"]))


def test_surfaces_and_thickness_are_of_the_contacts(finished) -> None:
    _, result = finished
    for arm in ARMS:
        for scene, _ in UNITS:
            known = table(result.folder, arm, scene)
            touching = known[known["touches"]]
            assert len(touching) > 20 and (known.loc[~known["touches"], "surface"] == "").all()
            for name in ("thickness", "observed_distance", "completed_distance"):
                assert np.array_equal(known[name].isna(), ~known["touches"])
                assert (touching[name] >= 0).all()
            assert touching["thickness"].between(0.0005, 0.2).all()
            observed = touching["observed_distance"] <= OBSERVED_WITHIN
            completed = ~observed & (touching["completed_distance"] <= 0.005)
            assert np.array_equal(touching["surface"] == "observed", observed)
            assert np.array_equal(touching["surface"] == "completed", completed)
            if arm == "partial":
                assert np.allclose(touching["completed_distance"], touching["observed_distance"], atol=0.003)
            if arm == "oracle":
                assert (touching["completed_distance"] < 0.004).all()  # every true surface has a point a voxel


def test_distances_by_hand(finished) -> None:
    path, result = finished
    dataset = GraspNetDataset(load_experiment(path).dataset.root, "realsense")
    ids = dataset.object_ids(100)
    poses = dataset.object_poses(100, 0, ids)
    known = table(result.folder, "random", 100).query("view == 0 and touches").iloc[:20]
    rows = scores(result.folder, "random", 100).query("view == 0").set_index("row")
    grasps = Grasps.load(view_file(unit_folder(result.folder.dump("random", "antipodal"), 100, "realsense"), 0, ".npy"))
    observation = load_observation(view_file(unit_folder(result.folder.observations, 100, "realsense"), 0, ".npz"))
    for _, row in known.iterrows():
        k = ids.index(rows.loc[row["row"], "object"])
        one = grasps[[row["row"]]]
        sdf = scored_object(dataset, ids[k], load_experiment(path).cache_folder())[0].sdf
        contacts = find_contacts(sdf, *protocol.closing_lines(one, poses[k]), np.clip(one.width, 0, 0.1)).points[0]
        in_camera = transform_points(poses[k].astype(float), contacts)
        gaps = np.linalg.norm(in_camera[:, None] - observation.objects.clouds[k][None], axis=2).min(axis=1)
        assert row["observed_distance"] == pytest.approx(gaps.max(), rel=1e-6)


def test_exchanges_are_what_they_are_called(finished) -> None:
    path, result = finished
    experiment = load_experiment(path)
    for arm in ARMS:
        for scene, _ in UNITS:
            crossed = table(result.folder, arm, scene, CROSSED_FILE)
            assert list(crossed.columns) == ["view", "combination", *METRICS]
            assert list(crossed["combination"]) == list(COMBINATIONS) * len(VIEWS)
            values = crossed.set_index(["view", "combination"])
            for view in VIEWS:
                for name, folder in (("own", arm), ("oracle", "oracle")):
                    rows = scores(result.folder, folder, scene).query("view == @view")
                    assert values.loc[view, name].to_dict() == view_utility(rows["min_friction"], rows["kept"])
                for name in ("true_collisions", "arm_collisions"):
                    wanted = by_definition(experiment, result.folder, arm, scene, view, name)
                    assert values.loc[view, name].to_dict() == wanted


def by_definition(
    experiment: Experiment, folder: RunFolder, arm: str, scene: int, view: int, combination: str
) -> dict[str, float]:
    dataset = GraspNetDataset(experiment.dataset.root, "realsense")
    objects = [scored_object(dataset, known, experiment.cache_folder())[0] for known in dataset.object_ids(scene)]
    poses, T_camera_table = dataset.object_poses(scene, view), np.linalg.inv(dataset.T_table_camera(scene, view))
    maker = arm if combination == "true_collisions" else "oracle"
    grasps = Grasps.load(view_file(unit_folder(folder.dump(maker, "antipodal"), scene, "realsense"), view, ".npy"))
    if combination == "true_collisions":
        models = [transform_points(T.astype(float), o.points) for T, o in zip(poses, objects, strict=True)]
        assigned = protocol.assign(grasps.translation, models)
        hits, _ = protocol.collisions(grasps, assigned, models, T_camera_table)
    else:
        observation = load_observation(view_file(unit_folder(folder.observations, scene, "realsense"), view, ".npz"))
        clouds = load_clouds(view_file(unit_folder(folder.clouds(arm), scene, "realsense"), view, ".npz"))
        hits, _ = collide(np.concatenate([observation.background, clouds.points]), grasps, 0)
    score = score_view(grasps[~hits], objects, poses, T_camera_table)
    return view_utility(score.min_friction, score.kept)


def test_visible_fractions_of_every_view_and_object(finished) -> None:
    _, result = finished
    for scene, camera in UNITS:
        seen = pd.read_parquet(unit_folder(result.folder.visibility, scene, camera) / VISIBILITY_FILE)
        assert list(seen.columns) == ["view", "object", "visible_fraction"]
        assert set(seen["view"]) == set(VIEWS) and not seen.duplicated(["view", "object"]).any()
        assert seen["visible_fraction"].between(0.5, 1).all()


def test_a_second_run_explains_nothing_and_a_change_what_depends_on_it(copied) -> None:
    path, folder = copied
    assert last(carry_out(path, folder.root)) == (0, 8, 0)
    assert last(carry_out(path, folder.root, entry="generator")) == (6, 2, 0)
    assert last(carry_out(path, folder.root, entry="generator", arms=["partial"])) == (1 + 1, 2, 0)  # no oracle now
    crossed = table(folder, "partial", 100, CROSSED_FILE)
    assert list(crossed["combination"]) == ["own", "true_collisions"] * len(VIEWS)


def test_it_waits_for_the_scores_of_what_lies_there(copied) -> None:
    path, folder = copied
    result = carry_out(path, folder.root, ("complete", "explain"), density=0.004)
    assert last(result) == (0, 2, 6)  # visibility knows no arm
    assert all("made from other clouds" in failure.error for failure in result.stages[-1].failures)
    (unit_folder(folder.scores("random", "antipodal", "analytic"), 100, "realsense") / STAMP).unlink()
    carry_out(path, folder.root, ("complete",))
    result = carry_out(path, folder.root, ("explain",))
    assert [failure.label for failure in result.stages[-1].failures] == ["random/antipodal/scene_0100/realsense"]
    assert "no scores; run `score` first" in result.problems[0]["reason"]
    assert {(problem["stage"], problem["unit"].split("/")[1]) for problem in result.problems} == {("explain", "random")}


def test_without_the_oracle_s_grasps_the_rest_is_explained(copied) -> None:
    path, folder = copied
    (unit_folder(folder.dump("oracle", "antipodal"), 160, "realsense") / STAMP).unlink()
    result = carry_out(path, folder.root, ("explain",))
    assert last(result) == (2, 5, 1)
    assert {problem["unit"].split("/")[1] for problem in result.problems} == {"partial", "random", "oracle"}
    assert set(table(folder, "random", 160, CROSSED_FILE)["combination"]) == {"own", "true_collisions"}
    assert set(table(folder, "random", 100, CROSSED_FILE)["combination"]) == set(COMBINATIONS)


def test_a_view_that_cannot_be_explained_is_a_problem_and_stops_nobody(copied) -> None:
    path, folder = copied
    view_file(unit_folder(folder.clouds("random"), 100, "realsense"), 128, ".npz").write_bytes(b"broken")
    unit = unit_folder(folder.explained("random", "antipodal"), 100, "realsense")
    (unit / STAMP).unlink()
    result = carry_out(path, folder.root, ("explain",))
    assert [(problem["view"], problem["object"]) for problem in result.problems] == [(128, None)]
    assert "0128.npz" in result.problems[0]["reason"]
    assert set(table(folder, "random", 100)["view"]) == {0}
    crossed = table(folder, "random", 100, CROSSED_FILE)
    assert list(crossed.query("view == 128")["combination"]) == ["own", "oracle"]  # what needs no cloud
    stamp = read_stamp(unit / STAMP)
    assert stamp is not None and len(stamp.problems) == 1


def test_a_plugin_s_scores_are_exchanged_by_the_plugin(finished, monkeypatch: pytest.MonkeyPatch) -> None:
    path, result = finished
    experiment = load_experiment(path)
    dataset = GraspNetDataset(experiment.dataset.root, "realsense")
    ids = dataset.object_ids(100)
    scene = explained_view.SceneView(
        0,
        ids,
        [scored_object(dataset, known, experiment.cache_folder())[0] for known in ids],
        dataset.object_poses(100, 0, ids),
        np.linalg.inv(dataset.T_table_camera(100, 0)),
        load_observation(view_file(unit_folder(result.folder.observations, 100, "realsense"), 0, ".npz")),
        load_clouds(view_file(unit_folder(result.folder.clouds("random"), 100, "realsense"), 0, ".npz")),
    )
    grasps = Grasps.load(view_file(unit_folder(result.folder.dump("oracle", "antipodal"), 100, "realsense"), 0, ".npy"))

    def strict(*arguments: object) -> ViewScore:
        return replace(score_view(*arguments), min_friction=np.full(len(score_view(*arguments)), np.inf))

    monkeypatch.setattr(explained_view, "plugin", {"strict": strict}.__getitem__)
    for name, values in explained_view.exchange(scene, "strict", 0.003, grasps, grasps):
        assert name in COMBINATIONS and set(values.values()) == {0.0}
    for scorer in ("analytic", "graspnetapi"):
        values = dict(explained_view.exchange(scene, scorer, 0.003, grasps, None))
        assert list(values) == ["true_collisions"] and values["true_collisions"]["ap"] > 0


def test_views_without_grasps_have_metrics_of_zero(finished, tmp_path: Path) -> None:
    path, result = finished
    shutil.copytree(result.folder.dump("oracle", "antipodal"), tmp_path / "theirs")
    empty = tmp_path / "theirs" / "scene_0160" / "realsense" / "0000.npy"
    np.save(empty, np.zeros((0, 17)))
    generators = [{"name": "dump", "parameters": {"folder": str(tmp_path / "theirs")}}]
    made = carry_out(path, tmp_path / "run", arms=["partial", "oracle"], generators=generators)
    assert made.problems == ()
    crossed = pd.read_parquet(unit_folder(made.folder.explained("partial", "dump"), 160, "realsense") / CROSSED_FILE)
    assert list(crossed["combination"]) == list(COMBINATIONS) * len(VIEWS)
    assert (crossed.query("view == 0")[list(METRICS)] == 0).all().all()
    assert (crossed.query("view == 128")["ap"] > 0).all()


def test_an_object_without_a_model_has_no_visible_fraction(copied, tiny_dataset: Path, tmp_path: Path) -> None:
    path, folder = copied
    root = tmp_path / "dataset"
    shutil.copytree(tiny_dataset, root)
    lost = GraspNetDataset(root, "realsense").object_ids(100)[0]
    (root / "models" / f"{lost:03d}" / "nontextured.ply").unlink()
    result = carry_out(path, folder.root, ("explain",), **{"dataset.root": str(root)})
    seen = pd.read_parquet(unit_folder(folder.visibility, 100, "realsense") / VISIBILITY_FILE).set_index("object")
    assert seen.loc[lost, "visible_fraction"].isna().all()
    assert seen.drop(index=lost)["visible_fraction"].notna().all()
    known = [problem for problem in result.problems if problem["unit"].startswith("visibility")]
    assert [(problem["view"], problem["object"]) for problem in known] == [(None, lost)]
