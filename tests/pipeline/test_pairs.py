from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from completion.datasets.pairs import chosen, read_pairs
from grasping.transforms import invert, transform_points
from pipeline.datasets.graspnet import DatasetError, GraspNetDataset
from pipeline.frames import viewing_frame
from pipeline.observe import object_clouds
from pipeline.pairs import SURFACE_POINTS, make_pairs, object_surface, sample_surface


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def test_partials_lie_on_the_posed_truth_and_are_the_observations(box_world, tmp_path: Path) -> None:
    dataset = GraspNetDataset(box_world.root, "realsense")
    summary = make_pairs(dataset, [100], None, tmp_path / "new" / "pairs.npz")
    pairs = load(summary.path)
    assert (summary.pairs, summary.objects, summary.too_few_points) == (4, 2, 0)
    assert pairs["object_id"].tolist() == [3, 7] and pairs["object_points"].shape == (2, SURFACE_POINTS, 3)
    assert pairs["object_id"][pairs["object_index"]].tolist() == [7, 3, 7, 3]
    assert pairs["view"].tolist() == [0, 0, 64, 64] and pairs["scene"].tolist() == [100] * 4
    assert str(pairs["frame"]) == "table" and str(pairs["camera"]) == "realsense" and int(pairs["format_version"]) == 1
    assert json.loads(str(pairs["source"]))["voxel"] == 0.003
    assert read_pairs(summary.path).object_points.shape == (2, 16384, 3)  # the other side's reader takes it
    for p in range(4):
        partial = pairs["partial_points"][pairs["partial_offsets"][p] : pairs["partial_offsets"][p + 1]]
        object_id = pairs["object_id"][pairs["object_index"][p]]
        in_object = transform_points(invert(pairs["T_net_object"][p]), partial)
        q = np.abs(in_object) - box_world.extents[object_id] / 2
        assert np.abs(np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(axis=1), 0)).max() < 3e-3
        # and in the network's frame it is the run's own observation, turned
        view = dataset.view(100, int(pairs["view"][p]))
        seen = object_clouds(view).objects
        cloud = seen.clouds[seen.object_ids.tolist().index(object_id)]
        np.testing.assert_allclose(partial, cloud @ viewing_frame(view.T_table_camera).T, atol=1e-6)


def test_boxes_stand_upright_in_the_networks_frame(box_world, tmp_path: Path) -> None:
    pairs = load(make_pairs(GraspNetDataset(box_world.root, "realsense"), [100], [0, 64], tmp_path / "p.npz").path)
    np.testing.assert_allclose(pairs["T_net_object"][:, 2, :3], np.tile([0, 0, 1], (4, 1)), atol=2e-3)
    # the camera circles at one height and looks at the middle: all partials lie ahead of it and below it
    points = pairs["partial_points"]
    assert (points[:, 0] > 0.2).all() and (points[:, 2] < -0.3).all()


def test_pairs_do_not_depend_on_threads_and_too_small_ones_are_counted(box_world, tmp_path: Path) -> None:
    dataset = GraspNetDataset(box_world.root, "realsense")
    one = load(make_pairs(dataset, [100], None, tmp_path / "1.npz", workers=1).path)
    two = load(make_pairs(dataset, [100], None, tmp_path / "2.npz", workers=3).path)
    for name, array in one.items():
        np.testing.assert_array_equal(array, two[name])
    sizes = np.diff(one["partial_offsets"])
    summary = make_pairs(dataset, [100], None, tmp_path / "3.npz", min_points=int(sizes.min()) + 1)
    assert summary.too_few_points == (sizes == sizes.min()).sum() and summary.pairs == 4 - summary.too_few_points
    with pytest.raises(DatasetError, match="lower min_points"):
        make_pairs(dataset, [100], None, tmp_path / "4.npz", min_points=10**6)
    assert sorted(path.name for path in tmp_path.glob("*.npz")) == ["1.npz", "2.npz", "3.npz"]
    assert not list(tmp_path.glob(".*"))


def test_families_are_named_where_the_dataset_names_them(box_world, tmp_path: Path) -> None:
    dataset = GraspNetDataset(box_world.root, "realsense")
    assert read_pairs(make_pairs(dataset, [100], [0], tmp_path / "p.npz").path).families == {}
    objects = {"003": {"family": "carton"}, "007": {"family": "mug"}}
    (box_world.root / "manifest.json").write_text(json.dumps({"objects": objects}))
    make_pairs(dataset, [100], [0], tmp_path / "q.npz")
    file = read_pairs(tmp_path / "q.npz")
    assert file.families == {3: "carton", 7: "mug"}
    assert chosen(file, ["mug"]).object_id[chosen(file, ["mug"]).object_index].tolist() == [7]


def test_surface_samples_are_uniform_by_area_and_repeat(box_world) -> None:
    extents = np.array([0.03, 0.09, 0.03])
    folder = box_world.root / "models" / "003"
    points = object_surface(folder, 3)
    np.testing.assert_array_equal(points, object_surface(folder, 3))
    assert np.abs(np.abs(points) / (extents / 2)).max(axis=1) == pytest.approx(1, abs=1e-5)
    share = np.array([(np.abs(np.abs(points[:, axis]) - extents[axis] / 2) < 1e-7).mean() for axis in range(3)])
    areas = extents.prod() / extents
    np.testing.assert_allclose(share, areas / areas.sum(), atol=0.02)
    # within a face too: each half of the long side holds half of the points
    assert (points[:, 1] > 0).mean() == pytest.approx(0.5, abs=0.02)
    with pytest.raises(ValueError, match="no surface"):
        sample_surface(np.zeros((3, 3)), np.array([[0, 1, 2]]), 10, np.random.default_rng(0))


def test_a_missing_or_broken_model_is_named(box_world, tmp_path: Path) -> None:
    dataset = GraspNetDataset(box_world.root, "realsense")
    model = box_world.root / "models/003/nontextured.ply"
    model.write_bytes(model.read_bytes()[:120])
    with pytest.raises(ValueError, match=r"003.nontextured\.ply"):
        make_pairs(dataset, [100], None, tmp_path / "pairs.npz")
    model.unlink()
    with pytest.raises(DatasetError, match=r"003.nontextured\.ply"):
        make_pairs(dataset, [100], None, tmp_path / "pairs.npz")


@pytest.mark.real_data
def test_real_partials_lie_on_the_true_surfaces(real_data: Path, tmp_path: Path) -> None:
    from scipy.spatial import cKDTree

    dataset = GraspNetDataset(real_data / "graspnet_real", "realsense")
    pairs = load(make_pairs(dataset, [0], [0, 128], tmp_path / "pairs.npz").path)
    for p, row in enumerate(pairs["object_index"]):
        partial = pairs["partial_points"][pairs["partial_offsets"][p] : pairs["partial_offsets"][p + 1]]
        truth = transform_points(pairs["T_net_object"][p], pairs["object_points"][row])
        distance, _ = cKDTree(truth).query(partial)
        assert len(partial) >= 64
        assert np.median(distance) < (0.006 if pairs["object_id"][row] == 46 else 0.002)
