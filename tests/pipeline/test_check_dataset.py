from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.check import Problem, check_dataset
from pipeline.datasets.graspnet import DatasetError


def errors(problems: list[Problem]) -> list[Problem]:
    return [problem for problem in problems if problem.severity == "error"]


def test_a_whole_dataset_has_only_notes_on_files_that_we_make_ourselves(box_world) -> None:
    seen: list[tuple[int, int]] = []
    problems = check_dataset(box_world.root, progress=lambda done, total: seen.append((done, total)))
    assert errors(problems) == []
    assert sorted(p.path.name for p in problems) == ["textured.obj"] * 2 + ["textured.sdf"] * 2
    assert seen == [(1, 2), (2, 2)]


def test_every_damage_is_reported_by_its_file(box_world) -> None:
    folder = box_world.root / "scenes/scene_0100/realsense"
    damaged = []

    def damage(name: str) -> Path:
        damaged.append(folder / name)
        return folder / name

    path = damage("depth/0000.png")
    path.write_bytes(path.read_bytes()[:-200])
    damage("meta/0000.mat").unlink()
    path = damage("label/0064.png")
    label = np.array(Image.open(path))
    label[0, 0] = 200
    Image.fromarray(label).save(path)
    path = damage("camera_poses.npy")
    poses = np.load(path)
    poses[9, 0, 0] = np.nan
    np.save(path, poses)
    damage("annotations/0064.xml").write_text("<scene><obj>")
    np.save(damage("cam0_wrt_table.npy"), 2 * np.eye(4))
    damaged.append(box_world.root / "models/003/nontextured.ply")
    damaged[-1].unlink()
    damaged.append(box_world.root / "models/007/nontextured.ply")
    damaged[-1].write_bytes(damaged[-1].read_bytes()[:150])

    found = errors(check_dataset(box_world.root, "realsense"))
    assert {problem.path for problem in found} == set(damaged) and len(found) == len(damaged)
    assert all(problem.problem and problem.remedy for problem in found)


def test_the_manifest_says_which_views_must_be_there(box_world) -> None:
    (box_world.root / "manifest.json").unlink()
    found = errors(check_dataset(box_world.root))
    assert len(found) == 3 * 254  # depth, label and meta of every view that was not rendered
    manifest = {"format_version": 1, "views": {"realsense": {"0100": [0, 64], "0101": [0]}}}
    (box_world.root / "manifest.json").write_text(json.dumps(manifest))
    assert [problem.path.parent.name for problem in errors(check_dataset(box_world.root))] == ["scene_0101"]
    (box_world.root / "manifest.json").write_text("{")
    assert [problem.path.name for problem in check_dataset(box_world.root)] == ["manifest.json"]


def test_sizes_lists_and_order_are_compared(box_world) -> None:
    folder = box_world.root / "scenes/scene_0100/realsense"
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(folder / "label/0000.png")
    (folder.parent / "object_id_list.txt").write_text("7\n4\n")
    text = (folder / "annotations/0064.xml").read_text()
    first, second, _ = text.removeprefix("<scene>").split("</obj>")
    (folder / "annotations/0064.xml").write_text(f"<scene>{second}</obj>{first}</obj></scene>")
    problems = check_dataset(box_world.root)
    assert [p.path.name for p in errors(problems)] == ["object_id_list.txt", "0000.png"]
    assert any(p.path.name == "0064.xml" and "order" in p.problem for p in problems)


def test_what_is_no_dataset_is_refused(tmp_path: Path, box_world) -> None:
    with pytest.raises(DatasetError, match="scenes"):
        check_dataset(tmp_path)
    assert [p.path.name for p in errors(check_dataset(box_world.root, "kinect"))] == ["scenes"]


@pytest.mark.real_data
def test_the_real_scene_lacks_only_what_we_make(real_data: Path, tmp_path: Path) -> None:
    # a window on the real files: a manifest of three views, so that not all 256 are decoded
    (tmp_path / "scenes").symlink_to(real_data / "graspnet_real/scenes")
    (tmp_path / "models").symlink_to(real_data / "graspnet_real/models")
    views = {"realsense": {"0000": [0, 100, 255]}}
    (tmp_path / "manifest.json").write_text(json.dumps({"format_version": 1, "views": views}))
    problems = check_dataset(tmp_path)
    assert errors(problems) == []
    assert {p.path.name for p in problems} == {"textured.obj", "textured.sdf"} and len(problems) == 18
