"""True surfaces: what a worker is sent of them, and the names of what is kept."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline.artifacts import FileHashes, file_hash
from pipeline.datasets.graspnet import DatasetError, GraspNetDataset
from pipeline.pairs import object_surface
from pipeline.truth import FewHashes, TrueSurfaces


def test_a_worker_is_sent_the_hashes_of_its_scene_and_does_the_same(
    tiny_dataset: Path, tiny_cache: Path, tmp_path: Path
) -> None:
    memo = tmp_path / "hashes.json"
    memo.write_text(json.dumps({f"/a/dataset/of/many/files/{i:06d}.png": [i, i, "0" * 20] for i in range(20_000)}))
    dataset = GraspNetDataset(tiny_dataset, "realsense")
    surfaces = TrueSurfaces(dataset, tiny_cache, FileHashes(memo))
    scene = dataset.scene_ids()[0]
    sent = pickle.dumps(surfaces.of_scene(scene))
    assert len(sent) < 2000 < 500_000 < len(pickle.dumps(surfaces))
    there = pickle.loads(sent)
    assert there.made_from(scene) == surfaces.made_from(scene)
    for object_id in dataset.object_ids(scene):
        np.testing.assert_array_equal(there.surface(object_id), surfaces.surface(object_id))
    with pytest.raises(DatasetError):
        surfaces.of_scene(9999)


def test_a_model_that_changed_after_it_was_asked_for_leaves_nothing_under_its_old_name(
    tiny_dataset: Path, tmp_path: Path
) -> None:
    dataset = GraspNetDataset(tiny_dataset, "realsense")
    one, other = dataset.object_ids(dataset.scene_ids()[0])[:2]
    root = tmp_path / "dataset"
    shutil.copytree(tiny_dataset / "models" / f"{one:03d}", root / "models" / f"{one:03d}")
    (root / "scenes").mkdir()
    copied = GraspNetDataset(root, "realsense")
    source = copied.model_dir(one) / "nontextured.ply"
    was = file_hash(source)
    surfaces = TrueSurfaces(copied, tmp_path / "cache", FewHashes({str(source): was}))
    shutil.copy(dataset.model_dir(other) / "nontextured.ply", source)
    surfaces.surface(one)
    kept = [path.name for path in (tmp_path / "cache" / "surfaces").iterdir()]
    assert len(kept) == 1 and kept[0].startswith(file_hash(source)) and not kept[0].startswith(was)


def test_a_surface_is_read_once_and_shared_unchanged(tiny_dataset: Path, tmp_path: Path) -> None:
    dataset = GraspNetDataset(tiny_dataset, "realsense")
    object_id = dataset.object_ids(dataset.scene_ids()[0])[0]
    surfaces = TrueSurfaces(dataset, tmp_path, FileHashes(tmp_path / "hashes.json"))
    made = surfaces.surface(object_id)
    np.testing.assert_array_equal(made, object_surface(dataset.model_dir(object_id), object_id))
    read = surfaces.surface(object_id)
    np.testing.assert_array_equal(read, made)
    assert surfaces.surface(object_id) is read
    with pytest.raises(ValueError, match="read-only"):
        read[0] = 0
