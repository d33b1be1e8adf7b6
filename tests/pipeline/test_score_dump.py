"""The command score-dump against naive recomputation, the experiment pipeline, and every sort of broken input."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from typer.testing import CliRunner

from grasping import protocol
from grasping.grasps import COLUMNS, Grasps
from pipeline.cli import app, main
from pipeline.datasets.graspnet import GraspNetDataset
from pipeline.dump_result import ResultError, difference, differing, fingerprint, ranges
from pipeline.dump_scene import REASONS, VIEW_STATES, SceneTruth, score_scene
from pipeline.dump_text import lines, write_rows
from pipeline.score_dump import DumpError, Request, Scored, prepare_models, scene_jobs, score_dump
from pipeline.true_grasps import sample_scene

CAMERA = "realsense"


@pytest.fixture(scope="session")
def requested(tiny_dataset: Path, tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Request:
    """A dump of both scenes and views of the tiny dataset: sampled true grasps, most of them shaken."""
    dump = tmp_path_factory.mktemp("dump")
    request = Request(dump, tiny_dataset, CAMERA, tiny_cache)
    dataset = GraspNetDataset(tiny_dataset, CAMERA)
    rng = np.random.default_rng(3)
    for scene in dataset.scene_ids():
        ids = dataset.object_ids(scene)
        objects = prepare_models(dataset, sorted(ids), tiny_cache, 1)
        (job,) = scene_jobs(request, {scene: (0, 128)}, {scene: ids}, objects)
        truth = SceneTruth(job)
        sampled = sample_scene(job, truth)
        for view in (0, 128):
            grasps = sampled.transformed(truth.poses(view)[1])
            grasps = grasps[rng.permutation(len(grasps))[:300]]
            shake = rng.choice([0.0, 0.004, 0.02], size=(len(grasps), 1))
            grasps = replace(
                grasps,
                translation=grasps.translation + rng.normal(size=(len(grasps), 3)) * shake,
                width=grasps.width * rng.uniform(0.9, 1.6, len(grasps)),
                confidence=rng.random(len(grasps)),
            )
            save(dump, scene, view, grasps.to_array())
    return request


def save(dump: Path, scene: int, view: int, array: np.ndarray) -> Path:
    path = dump / f"scene_{scene:04d}" / CAMERA / f"{view:04d}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    return path


@pytest.fixture(scope="session")
def scored(requested: Request) -> Scored:
    return score_dump(requested, say=lambda line: None)


@pytest.fixture
def own(requested: Request, tmp_path: Path) -> Request:
    """The same dump, to be broken."""
    shutil.copytree(requested.dump, tmp_path / "dump")
    return replace(requested, dump=tmp_path / "dump")


@pytest.fixture
def own_dataset(own: Request, tmp_path: Path) -> Request:
    """The same dump and dataset, both to be broken."""
    shutil.copytree(own.dataset, tmp_path / "dataset")
    return replace(own, dataset=tmp_path / "dataset")


def quietly(request: Request, **options: Any) -> Scored:
    return score_dump(request, say=lambda line: None, **options)


def reasons_of(scored: Scored) -> list[str]:
    return [problem["reason"] for problem in scored.result["problems"]]


# What it says.


def naive_ap(views: list[pd.DataFrame], top: int = 50) -> dict[str, float]:
    """The accuracy table by the words of its definition, one grasp at a time."""
    frictions = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2)
    table = np.zeros((len(views), top, 6))
    for v, rows in enumerate(views):
        values = list(rows.sort_values("rank")["min_friction"])
        for k in range(top):
            for m, mu in enumerate(frictions):
                table[v, k, m] = sum(1 for value in values[: k + 1] if value <= mu) / (k + 1)
    return {
        "ap": 100 * table.mean(),
        "ap_0.4": 100 * table[:, :, 1].mean(),
        "ap_0.8": 100 * table[:, :, 3].mean(),
    }


def test_figures_equal_a_naive_recomputation_from_the_rows(scored: Scored, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.parquet", scored.scenes, CAMERA)
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    result = scored.result
    keys = [(scene, view) for scene in (100, 160) for view in (0, 128)]
    views = {key: rows[(rows["scene"] == key[0]) & (rows["view"] == key[1])] for key in keys}
    assert result["views"] == 4 and len(rows) == result["kept"] > 60
    for name, wanted in (("all", keys), ("test_seen", keys[:2]), ("test_novel", keys[2:])):
        part = result if name == "all" else result["by_split"][name]
        expected = naive_ap([views[key] for key in wanted])
        assert {key: pytest.approx(value, rel=1e-12) for key, value in expected.items()} == {
            key: part[key] for key in expected
        }
    assert 0 < result["ap_0.4"] < result["ap_0.8"] < 100
    counts = rows["reason"].value_counts()
    assert {name: int(counts.get(name, 0)) for name in REASONS} == result["reasons"]
    assert sum(count > 0 for count in result["reasons"].values()) >= 4
    for name, (low, high) in {"S": (0, 0.04), "M": (0.04, 0.07), "L": (0.07, 1)}.items():
        bins = [view[(view["width"] >= low) & (view["width"] < high)] for view in views.values()]
        expected, part = naive_ap(bins), result["by_width"][name]
        assert {key: pytest.approx(value, rel=1e-12) for key, value in expected.items()} == {
            key: part[key] for key in expected
        }
        together = pd.concat(bins)
        assert part["kept"] == len(together) and set(together["width_bin"]) <= {name}
        assert part["holds_0.4"] == pytest.approx((together["min_friction"] <= 0.4).mean())
    assert sum(part["kept"] > 0 for part in result["by_width"].values()) >= 2


def test_rows_are_the_files_and_the_protocols(scored: Scored, requested: Request, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.parquet", scored.scenes, CAMERA)
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    assert {"scene", "view", "rank", "object", "confidence", "min_friction", "collided", "empty", "reason"} <= set(rows)
    dataset = GraspNetDataset(requested.dataset, CAMERA)
    for (scene, view), part in rows.groupby(["scene", "view"]):
        file = np.load(requested.dump / f"scene_{scene:04d}" / CAMERA / f"{view:04d}.npy")
        np.testing.assert_array_equal(part["confidence"], file[part["row"], 0])
        np.testing.assert_array_equal(part["width"], np.clip(file[part["row"], 1], 0, 0.1))
        assert part["rank"].tolist() == list(range(len(part))) and part["confidence"].is_monotonic_decreasing
        ids = dataset.object_ids(int(scene))
        objects = [item.open() for item in prepare_models(dataset, ids, requested.cache, 1).values()]
        poses = (
            dataset.object_poses(int(scene), int(view)),
            np.linalg.inv(dataset.T_table_camera(int(scene), int(view))),
        )
        whole = protocol.score_view(Grasps.from_array(file), objects, *poses)  # every candidate, kept or not
        np.testing.assert_array_equal(part["row"], whole.index[whole.kept])
        np.testing.assert_array_equal(part["min_friction"], whole.min_friction[whole.kept])
        assert part["reason"].tolist() == whole.reason[whole.kept].tolist()
        assert part["object"].tolist() == [ids[k] for k in whole.object_index[whole.kept]]


@pytest.mark.slow
def test_an_experiment_gives_the_same_dump_the_same_ap(scored: Scored, requested: Request, tmp_path: Path) -> None:
    from pipeline.config import load_experiment
    from pipeline.experiment import STAGES, run_experiment

    path = tmp_path / "experiment.yaml"
    path.write_text(
        f"format_version: 1\nname: dump\ndataset: {{root: {requested.dataset}}}\narms: [partial]\n"
        f"generators: [{{name: dump, parameters: {{folder: {requested.dump}}}}}]\ncache: {requested.cache}\n"
    )
    until = STAGES[: STAGES.index("aggregate") + 1]
    made = run_experiment(
        load_experiment(path), tmp_path / "run", device="cpu", workers=1, stages=until, say=lambda line: None
    )
    views = pd.read_parquet(made.folder.tables / "views.parquet").query("object == -1")
    for key in ("ap", "ap_0.4", "ap_0.8"):
        assert scored.result[key] == pytest.approx(views.groupby("scene")[key].mean().mean(), rel=1e-12)


@pytest.mark.graspnetapi
def test_the_referees_own_evaluation_gives_the_same_ap(requested: Request, scored: Scored, tmp_path: Path) -> None:
    pytest.importorskip("graspnetAPI", reason="install it with scripts/install_referee.sh")
    from grasping.reference_scene import evaluate_scene, stage_root

    root = stage_root(requested.dataset, requested.cache)
    for score in scored.scenes:
        theirs = evaluate_scene(root, CAMERA, score.scene, requested.dump, score.views)
        assert list(theirs) == [0, 128]
        for view, ap in zip(score.views, score.ap[:, 0], strict=True):
            ours, said = score.rows[score.rows["view"] == view], theirs[view].score
            assert said is not None and len(said) >= 15 and np.isfinite(said.min_friction).sum() >= 3
            np.testing.assert_array_equal(ours["row"], said.index)
            for column in ("min_friction", "collided", "empty"):
                np.testing.assert_array_equal(ours[column], getattr(said, column))
            assert ap == pytest.approx(100 * theirs[view].accuracy.mean(), rel=1e-12)


def test_scales_grade_each_bin_on_its_own_by_ma_and_huangs_cut(requested: Request, scored: Scored) -> None:
    """Their evaluation by its words: a bin's grasps alone, best 5 an object, 20 ranks."""
    result = quietly(replace(requested, scales=True)).result
    assert {key: result[key] for key in ("ap", "by_width")} == {key: scored.result[key] for key in ("ap", "by_width")}
    dataset = GraspNetDataset(requested.dataset, CAMERA)
    for name, (low, high) in {"S": (0, 0.04), "M": (0.04, 0.07), "L": (0.07, 1)}.items():
        views = []
        for scene in (100, 160):
            ids = dataset.object_ids(scene)
            objects = [item.open() for item in prepare_models(dataset, ids, requested.cache, 1).values()]
            for view in (0, 128):
                file = np.load(requested.dump / f"scene_{scene:04d}" / CAMERA / f"{view:04d}.npy")
                width = np.clip(file[:, 1], 0, 0.1)
                part = Grasps.from_array(file[(width >= low) & (width < high)])
                poses = dataset.object_poses(scene, view), np.linalg.inv(dataset.T_table_camera(scene, view))
                score = protocol.score_view(part, objects, *poses)  # every candidate, best first
                taken, frictions = dict.fromkeys(range(len(ids)), 0), []
                for k, friction in zip(score.object_index.tolist(), score.min_friction, strict=True):
                    taken[k] += 1
                    if taken[k] <= 5:
                        frictions.append(friction)
                views.append(pd.DataFrame({"min_friction": frictions, "rank": range(len(frictions))}))
        expected = naive_ap(views, top=20)
        assert {key: pytest.approx(value, rel=1e-12) for key, value in expected.items()} == result["by_scale"][name]


def test_workers_change_nothing(requested: Request, scored: Scored) -> None:
    two = quietly(replace(requested, workers=2))
    mine, theirs = ({k: v for k, v in s.result.items() if k != "seconds"} for s in (scored, two))
    assert mine == theirs
    rows = [np.concatenate([score.rows for score in s.scenes]) for s in (scored, two)]
    np.testing.assert_array_equal(*rows)


def test_a_part_of_a_split_is_scored_as_that_part(requested: Request, scored: Scored) -> None:
    only = quietly(replace(requested, scenes=(160,), views=(128,))).result
    assert only["views"] == 1 and list(only["by_split"]) == ["test_novel"]
    rows = next(s for s in scored.scenes if s.scene == 160)
    assert only["ap"] == rows.ap[rows.views.index(128), 0]
    novel = quietly(replace(requested, split="test_novel")).result
    assert {key: novel[key] for key in ("ap", "ap_0.4", "ap_0.8")} == {
        key: scored.result["by_split"]["test_novel"][key] for key in ("ap", "ap_0.4", "ap_0.8")
    }
    assert quietly(replace(requested, split="all")).result["ap"] == scored.result["ap"]


def test_self_check_leaves_a_ceiling_above_the_dump(requested: Request, scored: Scored) -> None:
    checked = quietly(replace(requested, self_check=True, workers=1)).result
    ceiling = checked["ceiling"]
    assert ceiling["failed"] == [] and ceiling["views"] == 4
    assert 100 >= ceiling["ap_0.8"] > scored.result["ap_0.8"] and checked["ap"] == scored.result["ap"]
    assert set(ceiling["by_object"]) == {name for name in checked["fingerprint"]["models"]}
    for part in ceiling["by_object"].values():
        assert 0 <= part["0.2"] <= part["0.4"] <= part["0.8"] <= part["places"] <= 10
    assert any("AP" in sentence for sentence in ceiling["meaning"])
    assert any("self-check" in line for line in lines(checked))


# Broken dumps.


def test_every_sort_of_broken_view_file_counts_as_zero_and_is_told(own: Request, scored: Scored) -> None:
    whole = {(s.scene, view): ap for s in scored.scenes for view, ap in zip(s.views, s.ap[:, 0], strict=True)}
    folder = own.dump / "scene_0100" / CAMERA
    (folder / "0000.npy").unlink()
    (folder / "0128.npy").write_bytes((folder / "0128.npy").read_bytes()[:1000])
    np.save(own.dump / "scene_0160" / CAMERA / "0000.npy", np.zeros((0, COLUMNS)))
    result = quietly(own).result
    assert result["view_states"] == {"scored": 1, "empty": 1, "missing": 1, "unreadable": 1, "no_result": 0}
    assert result["ap"] == pytest.approx(whole[160, 128] / 4) and result["complete"]
    told = [problem["reason"] for problem in result["problems"]]
    assert len(told) == 2 and "1 of 2 views missing: 0" in told and any("0128.npy" in text for text in told)


def test_a_missing_scene_counts_only_where_a_split_or_the_scene_is_asked_for(own: Request, scored: Scored) -> None:
    shutil.rmtree(own.dump / "scene_0160")
    heard: list[str] = []
    seen = scored.result["by_split"]["test_seen"]["ap"]
    assert score_dump(own, say=heard.append).result["ap"] == seen
    assert any("1 of the 30 scenes of test_seen" in line for line in heard) and "MISSING" not in "".join(heard)
    heard.clear()
    result = score_dump(replace(own, split="test"), say=heard.append).result
    assert result["ap"] == pytest.approx(seen / 2) and result["view_states"]["missing"] == 2
    assert "2 of 4 views are missing" in heard[1] and "--scenes 100" in heard[2]
    assert "holds 2 of the 90 scenes of test" in heard[3]
    assert quietly(replace(own, scenes=(100, 160))).result["ap"] == pytest.approx(seen / 2)


def test_views_that_a_dump_lacks_come_with_the_options_that_score_the_rest(own: Request) -> None:
    for path in own.dump.rglob("0000.npy"):
        path.unlink()
    heard: list[str] = []
    result = score_dump(own, say=heard.append).result
    assert result["view_states"]["missing"] == 2 and heard[2].strip().endswith(": --views 128")
    part = quietly(replace(own, views=(128,))).result
    assert part["view_states"]["missing"] == 0 and part["ap"] == pytest.approx(2 * result["ap"])


def test_scenes_that_the_dataset_lacks_are_told(own: Request, scored: Scored) -> None:
    shutil.copytree(own.dump / "scene_0100", own.dump / "scene_0101")
    told = quietly(own)
    assert told.result["ap"] == scored.result["ap"] and "scenes 101" in reasons_of(told)[0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [0, 1, 2, 3, 7, 14])
def test_rows_that_are_not_finite_are_refused_and_the_others_graded(
    own: Request, scored: Scored, value: float, column: int
) -> None:
    path = own.dump / "scene_0100" / CAMERA / "0000.npy"
    array = np.load(path)
    bad = array[:7].copy()
    bad[:, column] = value
    np.save(path, np.concatenate([bad, array]))
    result = quietly(replace(own, scenes=(100,), views=(0,))).result
    assert result["refused"] == {"not finite": 7} and "7 of" in result["problems"][0]["reason"]
    assert result["ap"] == scored.scenes[0].ap[0, 0]


def test_a_view_of_refused_rows_alone_is_empty(own: Request) -> None:
    save(own.dump, 100, 0, np.full((3, COLUMNS), np.nan))
    result = quietly(replace(own, scenes=(100,), views=(0,))).result
    assert result["view_states"]["empty"] == 1 and result["refused"] == {"not finite": 3} and result["ap"] == 0


def test_a_closing_axis_not_of_unit_length_fails_in_its_place(own: Request, scored: Scored) -> None:
    """Where the referee would raise, and only there."""
    path = own.dump / "scene_0100" / CAMERA / "0000.npy"
    array = np.load(path)
    array[:, [5, 8, 11]] *= 1 + 2e-5
    np.save(path, array)
    after = quietly(replace(own, scenes=(100,), views=(0,)))
    before = scored.scenes[0].rows[scored.scenes[0].rows["view"] == 0]
    rows = after.scenes[0].rows
    np.testing.assert_array_equal(rows["row"], before["row"])
    clear = ~(before["collided"] | before["empty"])
    assert clear.sum() >= 3
    assert {REASONS[r] for r in rows["reason"][clear]} == {"not_unit_axis"}
    assert np.isinf(rows["min_friction"]).all()
    np.testing.assert_array_equal(rows["reason"][~clear], before["reason"][~clear])
    assert f"{clear.sum()} kept grasps fail" in reasons_of(after)[0]


def test_duplicated_rows_change_nothing(own: Request, scored: Scored) -> None:
    for path in own.dump.rglob("*.npy"):
        np.save(path, np.concatenate([np.load(path)] * 2))
    assert quietly(own).result["ap"] == scored.result["ap"]


def test_order_of_rows_and_their_type_change_nothing(own: Request, scored: Scored) -> None:
    rng = np.random.default_rng(0)
    for path in own.dump.rglob("*.npy"):
        np.save(path, rng.permutation(np.load(path)).astype(">f8"))
    assert quietly(own).result["ap"] == scored.result["ap"]


ODD = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-320, 1e38, 1e200, 1.7e308, np.nan, np.inf, -np.inf])
NUMBERS = st.floats(width=64) | ODD | st.floats(-0.1, 0.1)


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(
    array=arrays(np.float64, st.tuples(st.integers(0, 6), st.just(COLUMNS)), elements=NUMBERS),
    mixed=st.booleans(),
)
def test_any_numbers_are_a_result(requested: Request, tmp_path: Path, array: np.ndarray, mixed: bool) -> None:
    """Any rows, or single numbers of good rows replaced by any: scored, the good rows beside them too."""
    job = _one_view(requested, tmp_path)
    good = np.load(requested.dump / "scene_0100" / CAMERA / "0000.npy")[:40]
    if mixed and len(array):
        rows = np.repeat(good, len(array), axis=0)[: 8 * len(array)]
        where = np.random.default_rng(0).random(rows.shape) < 0.1
        rows[where] = np.resize(array, rows.shape)[where]
        array = np.concatenate([rows, good])
    np.save(job.dump_file(0), array)
    score = score_scene(job)
    assert score.states[0] in ("scored", "empty") and len(score.rows) <= 50 and np.isfinite(score.ap).all()
    assert sum(score.refused.values()) == np.count_nonzero(~np.isfinite(array[:, :16]).all(axis=1))


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=400), keep=st.integers(0, 6000))
def test_any_bytes_are_a_result(requested: Request, tmp_path: Path, data: bytes, keep: int) -> None:
    job = _one_view(requested, tmp_path)
    good = (requested.dump / "scene_0100" / CAMERA / "0000.npy").read_bytes()
    job.dump_file(0).write_bytes(good[:keep] + data)
    score = score_scene(job)
    assert score.states[0] in ("scored", "empty", "unreadable")
    assert (score.states[0] == "unreadable") <= (len(score.problems) == 1)


def _one_view(requested: Request, tmp_path: Path) -> Any:
    dataset = GraspNetDataset(requested.dataset, CAMERA)
    ids = dataset.object_ids(100)
    objects = prepare_models(dataset, ids, requested.cache, 1)
    (job,) = scene_jobs(replace(requested, dump=tmp_path), {100: (0,)}, {100: ids}, objects)
    job.dump_file(0).parent.mkdir(parents=True, exist_ok=True)
    return job


# Broken truth.


def test_an_object_without_a_model_is_left_out_and_the_result_is_incomplete(own_dataset: Request) -> None:
    ids = GraspNetDataset(own_dataset.dataset, CAMERA).object_ids(100)
    shutil.rmtree(own_dataset.dataset / "models" / f"{ids[0]:03d}")
    told = quietly(own_dataset)
    assert told.complete and not told.result["complete"]
    assert told.result["fingerprint"]["models"][f"{ids[0]:03d}"] == "missing"
    assert told.result["problems"][0]["object"] == ids[0] and "left out" in told.result["problems"][0]["reason"]
    rows = np.concatenate([s.rows for s in told.scenes if s.scene == 100])
    assert len(rows) and set(rows["object"]) <= set(ids[1:])
    assert any(line.startswith("INCOMPLETE") for line in lines(told.result))


def test_without_any_model_a_scene_has_no_result(own_dataset: Request) -> None:
    shutil.rmtree(own_dataset.dataset / "models")
    told = quietly(own_dataset)
    assert not told.complete and told.result["view_states"]["no_result"] == 4 and told.result["ap"] == 0


def test_a_model_without_faces_takes_grasps_and_is_never_held(own_dataset: Request, scored: Scored) -> None:
    import trimesh

    ids = GraspNetDataset(own_dataset.dataset, CAMERA).object_ids(100)
    path = own_dataset.dataset / "models" / f"{ids[0]:03d}" / "nontextured.ply"
    mesh = trimesh.load(path, process=False)
    shutil.rmtree(path.parent)
    path.parent.mkdir()
    trimesh.PointCloud(mesh.vertices).export(path)
    told = quietly(replace(own_dataset, scenes=(100,)))
    before, rows = scored.scenes[0].rows, told.scenes[0].rows
    assert not told.result["complete"]
    on_it = rows["object"] == ids[0]
    clear = on_it & ~(rows["collided"] | rows["empty"])
    assert clear.any() and {REASONS[r] for r in rows["reason"][clear]} == {"no_distances"}
    np.testing.assert_array_equal(rows["row"], before["row"])
    np.testing.assert_array_equal(rows["min_friction"][~on_it], before["min_friction"][~on_it])


def test_unreadable_distances_are_repaired_and_told(own_dataset: Request, scored: Scored) -> None:
    ids = GraspNetDataset(own_dataset.dataset, CAMERA).object_ids(100)
    path = own_dataset.dataset / "models" / f"{ids[0]:03d}" / "textured.sdf"
    path.write_text("no distances\n")
    told = quietly(own_dataset)
    assert told.result["complete"] and told.result["problems"][0]["object"] == ids[0]
    assert str(path) in reasons_of(told)[0]
    for s in told.scenes:
        assert set(np.isfinite(s.ap).ravel()) == {True}


def test_a_broken_annotation_costs_its_view_alone(own_dataset: Request, scored: Scored) -> None:
    folder = own_dataset.dataset / "scenes" / "scene_0100" / CAMERA
    (folder / "annotations" / "0128.xml").write_text("<scene>")
    told = quietly(own_dataset)
    assert not told.complete and told.result["view_states"]["no_result"] == 1
    assert told.scenes[0].states == ("scored", "no_result") and told.scenes[0].ap[0, 0] == scored.scenes[0].ap[0, 0]
    assert any("0128.xml" in text for text in reasons_of(told))
    (folder / "camera_poses.npy").write_bytes(b"")
    told = quietly(own_dataset)
    assert told.result["view_states"]["no_result"] == 2 and told.result["view_states"]["scored"] == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"dump": Path("absent")}, "no such folder"),
        ({"split": "train"}, "no scene of split 'train'"),
        ({"scenes": (5,)}, "no scene 5"),
        ({"views": (256,)}, "not 256"),
        ({"camera": "kinect"}, "scene_SSSS/kinect"),
    ],
)
def test_what_cannot_be_scored_at_all_is_one_line(requested: Request, change: dict[str, Any], says: str) -> None:
    with pytest.raises(DumpError, match=says):
        quietly(replace(requested, **change))


def test_a_dump_that_is_a_file_and_one_of_other_scenes(requested: Request, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DumpError, match="a file"):
        quietly(replace(requested, dump=tmp_path / "file"))
    save(tmp_path / "other", 3, 0, np.zeros((0, 17)))
    with pytest.raises(DumpError, match="the dataset that the dump is of"):
        quietly(replace(requested, dump=tmp_path / "other"))
    with pytest.raises(ValueError, match="unknown split"):
        quietly(replace(requested, split="tset"))
    with pytest.raises(DumpError, match="another --cache"):
        quietly(replace(requested, cache=tmp_path / "file" / "below"))


# Comparing.


def test_results_of_one_protocol_are_compared_and_of_two_refused(own: Request, scored: Scored) -> None:
    for path in own.dump.rglob("*.npy"):
        array = np.load(path)
        np.save(path, array[array[:, 0] > 0.5])
    theirs = json.loads(json.dumps(scored.result))
    compared = quietly(own, against=theirs).result
    for key in ("ap", "ap_0.4", "ap_0.8"):
        assert compared["against"][key] == pytest.approx(compared[key] - theirs[key])
        seen = compared["by_split"]["test_seen"][key] - theirs["by_split"]["test_seen"][key]
        assert compared["against"]["by_split"]["test_seen"][key] == pytest.approx(seen)
    assert compared["against"]["fingerprints_differ"] == [] and compared["against"]["scenes"]["shared"] == 2
    text = "\n".join(lines(compared))
    assert f"{compared['against']['ap']:+.2f}" in text and "FORCED" not in text

    for change in ({"version": -1}, {"views": {"100": "0-255"}}, {"poses": "other"}):
        other = {**theirs, "fingerprint": {**theirs["fingerprint"], **change}}
        with pytest.raises(ResultError, match=next(iter(change))):
            quietly(own, against=other)
        forced = quietly(own, against=other, force=True).result
        assert any(next(iter(change)) in text for text in forced["against"]["fingerprints_differ"])
        assert any("FORCED" in line for line in lines(forced))


def test_fingerprint_holds_everything_a_score_depends_on(scored: Scored, requested: Request) -> None:
    mine = scored.result["fingerprint"]
    assert set(protocol.fingerprint()) < set(mine) and mine["camera"] == CAMERA
    assert mine["views"] == {"100,160": "0,128"} and len(mine["models"]) >= 4
    part = quietly(replace(requested, views=(0,))).result["fingerprint"]
    assert [text.split(":")[0] for text in differing(part, mine)] == ["poses", "views.100,160"]
    unknown = fingerprint(CAMERA, {100: (0, 128), 160: (0, 128)}, [], None)
    assert not any(text.startswith("poses") for text in differing(unknown, mine))
    assert difference(scored.result, scored.result)["ap"] == 0


@given(st.sets(st.integers(0, 255)))
def test_ranges_say_what_the_options_read(numbers: set[int]) -> None:
    from pipeline.cli_scoring import _numbers

    assert (set(_numbers(ranges(sorted(numbers))) or ()) if numbers else set()) == numbers
    assert numbers or ranges([]) == "none"


# The command.


def command(request: Request, *options: str) -> Any:
    base = [str(request.dump), "--dataset", str(request.dataset), "--camera", request.camera]
    return CliRunner().invoke(app, ["score-dump", *base, "--cache", str(request.cache), "--workers", "1", *options])


def test_command_prints_and_writes(requested: Request, scored: Scored, tmp_path: Path) -> None:
    files = ("--json", str(tmp_path / "r.json"), "--rows", str(tmp_path / "r.parquet"))
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
    ended = command(requested, "--json", "-")
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
        "import pickle, sys, pipeline.engine\n"
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
