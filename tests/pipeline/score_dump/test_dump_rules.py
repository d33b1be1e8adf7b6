"""Broken dumps and broken truth: every rule of pipeline.score_dump, and any numbers or bytes at all."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from grasping.grasps import COLUMNS
from pipeline.datasets.graspnet import GraspNetDataset
from pipeline.dump_scene import REASONS, score_scene
from pipeline.dump_text import lines
from pipeline.score_dump import DumpError, Request, Scored, prepare_models, scene_jobs, score_dump

CAMERA = "realsense"


def quietly(request: Request, **options: Any) -> Scored:
    return score_dump(request, say=lambda line: None, **options)


def reasons_of(scored: Scored) -> list[str]:
    return [problem["reason"] for problem in scored.result["problems"]]


def save(dump: Path, scene: int, view: int, array: np.ndarray) -> Path:
    path = dump / f"scene_{scene:04d}" / CAMERA / f"{view:04d}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    return path


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
    assert len(told) == 2 and "1 of 2 views not in the dump: 0" in told and any("0128.npy" in text for text in told)


def test_a_missing_scene_counts_only_where_a_split_or_the_scene_is_asked_for(own: Request, scored: Scored) -> None:
    shutil.rmtree(own.dump / "scene_0160")
    heard: list[str] = []
    seen = scored.result["by_split"]["test_seen"]["ap"]
    assert score_dump(own, say=heard.append).result["ap"] == seen
    assert any("1 of the 30 scenes of test_seen" in line for line in heard) and "MISSING" not in "".join(heard)
    heard.clear()
    result = score_dump(replace(own, split="test"), say=heard.append).result
    assert result["ap"] == pytest.approx(seen / 2) and result["view_states"]["missing"] == 2
    assert "2 of 4 views not in the dump" in heard[1] and "--scenes 100" in heard[2]
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
    heard.clear()
    assert score_dump(replace(own, views=(5, 6)), say=heard.append).result["ap"] == 0
    assert "4 of 4 views not in the dump" in heard[1] and "all of them: this scores nothing" in heard[2]


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
