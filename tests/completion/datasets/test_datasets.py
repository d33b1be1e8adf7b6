"""Readers of the public benchmarks: content, order, categories, crops and errors, on tiny files of the same layouts."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from completion.configuration import ConfigurationError, Part
from completion.datasets import DATASETS, open_data
from completion.datasets.base import AS_GIVEN, DatasetError, H5File
from completion.datasets.pairs import Augmentation
from completion.datasets.pcd import read_pcd
from completion.datasets.shapenet55 import crop, unit_radius
from completion.points import farthest_points

NAMES = ("completion3d", "mvp", "pcn", "shapenet55")
Write = Callable[..., Path]


def opened(name: str, root: Path, **parameters: Any) -> Any:
    return open_data(Part(name, {"root": str(root), **parameters}), 16, 32)


def rows_of(cloud: torch.Tensor | np.ndarray) -> set[tuple[float, ...]]:
    return {tuple(row) for row in np.asarray(cloud).tolist()}


# What holds for every benchmark


def test_the_four_are_known() -> None:
    assert sorted(DATASETS) == sorted(NAMES)
    assert all(kind.name == name for name, kind in DATASETS.items())


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_drawn_from_the_samples_by_seed_and_step_alone(write_benchmark: Write, name: str) -> None:
    root = write_benchmark(name)
    # Without random crops, so that samples do not change from visit to visit.
    parameters = {"root": str(root), **({"split": "test"} if name == "shapenet55" else {})}
    data = open_data(Part(name, parameters), 16, 32, seed=3)
    assert data.frame == "canonical" and data.normalisation == AS_GIVEN
    partial, truth = data.batch(5, 3)
    assert partial.shape == (3, 16, 3) and truth.shape == (3, 32, 3)
    assert partial.dtype == truth.dtype == torch.float32
    again = open_data(Part(name, parameters), 16, 32, seed=3)
    again.batch(0, 2)  # what was drawn before does not matter
    assert all(torch.equal(a, b) for a, b in zip(data.batch(5, 3), again.batch(5, 3), strict=True))
    assert not torch.equal(partial, data.batch(6, 3)[0])
    assert not torch.equal(partial, open_data(Part(name, parameters), 16, 32, seed=4).batch(5, 3)[0])
    for k, index in enumerate(data.indices(5, 3)):
        sample = data.sample(index)
        assert rows_of(partial[k]) <= rows_of(sample.partial) and len(rows_of(partial[k])) == 16
        assert rows_of(truth[k]) <= rows_of(sample.truth)


@pytest.mark.parametrize("name", NAMES)
def test_an_epoch_visits_every_sample_once_in_an_order_of_its_own(write_benchmark: Write, name: str) -> None:
    data = opened(name, write_benchmark(name))
    count = len(data)
    assert count > 2
    seen = [index for step in range(2 * count) for index in data.indices(step, 1)]
    assert sorted(seen[:count]) == sorted(seen[count:]) == list(range(count))
    assert data.indices(0, 2 * count) == seen
    if count > 4:
        assert seen[:count] != seen[count:] and seen[:count] != list(range(count))


@pytest.mark.parametrize("name", NAMES)
def test_augmentation_moves_both_clouds_alike_about_the_origin(write_benchmark: Write, name: str) -> None:
    """Partial points of these files are true points: under any linear map they stay so."""
    how = Augmentation(yaw_degrees=180, mirror=True, stretch=0.3, crop=0.5)
    part = Part(name, {"root": str(write_benchmark(name))})
    data = open_data(part, 12, 200, how)
    plain = open_data(part, 12, 200)
    moved = set()
    for step in range(4):
        partial, truth = data.batch(step, 2)
        gap = torch.linalg.norm(partial[:, :, None] - truth[:, None], dim=3).amin(dim=2)
        assert gap.max() < 1e-5
        moved |= rows_of(truth[0].mean(dim=0, keepdim=True))
        # About the origin, and y stays up: heights are stretched alike and neither shifted nor mixed with x and z.
        heights, before = (cloud[0, :, 1].unique().numpy() for cloud in (truth, plain.batch(step, 2)[1]))
        factor = np.ptp(heights) / np.ptp(before)
        assert np.exp(-0.31) < factor < np.exp(0.31)
        np.testing.assert_allclose(heights, factor * before, atol=1e-5)
    assert len(moved) == 4


def test_mirrors_flip_x_and_z_and_never_the_height(write_benchmark: Write) -> None:
    root = write_benchmark("completion3d")
    part = Part("completion3d", {"root": str(root), "categories": ["car"]})
    truth = np.sort(opened("completion3d", root, categories=["car"]).sample(0).truth, axis=0)
    found = set()
    for seed in range(24):
        (mirrored,) = open_data(part, 8, 64, Augmentation(mirror=True), seed).batch(0, 1)[1].numpy()
        signs = tuple(
            1 if np.allclose(np.sort(mirrored[:, axis]), truth[:, axis], atol=1e-6) else -1 for axis in range(3)
        )
        np.testing.assert_allclose(
            np.sort(mirrored * np.float32(signs), axis=0), truth, atol=1e-6, err_msg=f"{signs} is no mirror"
        )
        found.add(signs)
    assert found == {(1, 1, 1), (-1, 1, 1), (1, 1, -1), (-1, 1, -1)}


@pytest.mark.parametrize("mode", ["partial", "oracle"])
def test_batches_are_normalised_by_the_whole_clouds(write_benchmark: Write, mode: str) -> None:
    root = write_benchmark("mvp")
    data = open_data(Part("mvp", {"root": str(root)}), 16, 64, mode=mode)
    assert data.normalisation == mode
    partial, truth = data.batch(2, 4)
    for k, index in enumerate(data.indices(2, 4)):
        sample = data.sample(index)
        reference = sample.partial if mode == "partial" else sample.truth
        low, high = reference.min(axis=0), reference.max(axis=0)
        expected = (sample.truth - (low + high) / 2) / np.linalg.norm(high - low)
        np.testing.assert_allclose(np.sort(truth[k], axis=0), np.sort(expected, axis=0), atol=1e-6)
    assert partial.abs().max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_the_description_follows_the_samples_and_not_the_folder(
    write_benchmark: Write, tmp_path: Path, name: str
) -> None:
    root = write_benchmark(name)
    first = opened(name, root).describe()
    json.dumps(first)
    assert str(root) not in json.dumps(first) and first[0]["samples"] == len(opened(name, root))
    shutil.copytree(root, tmp_path / "elsewhere")
    assert opened(name, tmp_path / "elsewhere").describe() == first
    other = {"completion3d": "val", "mvp": "test", "pcn": "val", "shapenet55": "test"}[name]
    assert opened(name, root, split=other).describe()[0]["sha256"] != first[0]["sha256"]
    category = opened(name, root).category(0)
    assert opened(name, root, categories=[category]).describe()[0]["sha256"] != first[0]["sha256"]


@pytest.mark.parametrize("name", NAMES)
def test_categories_are_chosen_by_name(write_benchmark: Write, name: str) -> None:
    root = write_benchmark(name)
    data = opened(name, root)
    names = [data.category(i) for i in range(len(data))]
    for category in set(names):
        some = opened(name, root, categories=[category])
        assert len(some) == names.count(category)
        assert {some.category(i) for i in range(len(some))} == {category}
        expected = [data.label(i) for i in range(len(data)) if names[i] == category]
        assert [some.label(i) for i in range(len(some))] == expected
    with pytest.raises(DatasetError, match=f"no category 'spoon' in {name}; known: .*{names[0]}"):
        opened(name, root, categories=["spoon"])


@pytest.mark.parametrize("name", NAMES)
def test_the_wrong_level_of_folders_is_pointed_out(write_benchmark: Write, name: str) -> None:
    root = write_benchmark(name)
    with pytest.raises(DatasetError, match=f"but in {root}: give that folder") as caught:
        opened(name, root.parent)
    assert "\n" not in str(caught.value)
    (root / "child").mkdir()
    with pytest.raises(DatasetError, match=f"but in {root}: give that folder"):
        opened(name, root / "child")
    (root.parent / "empty").mkdir()
    (root.parent / "empty" / "deep").mkdir()
    with pytest.raises(DatasetError, match=r"deep: lacks .*folder holds"):
        opened(name, root.parent / "empty" / "deep")
    with pytest.raises(DatasetError, match="no such folder"):
        opened(name, root / "nowhere")
    with pytest.raises(DatasetError, match=f"{name}: no split 'dev'; choose train"):
        opened(name, root, split="dev")


def test_names_and_parameters_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"unknown name 'mpv' .did you mean 'mvp'"):
        open_data(Part("mpv", {"root": str(tmp_path)}), 16, 32)
    with pytest.raises(ConfigurationError, match=r"unknown parameter 'rot' .did you mean 'root'"):
        open_data(Part("mvp", {"rot": str(tmp_path)}), 16, 32)
    with pytest.raises(ConfigurationError, match="'root' is missing"):
        open_data(Part("mvp", {}), 16, 32)


# MVP


def test_mvp_view_i_belongs_to_complete_cloud_i_over_26(write_benchmark: Write) -> None:
    import h5py

    root = write_benchmark("mvp")
    data = opened("mvp", root)
    with h5py.File(root / "MVP_Train_CP.h5") as file:
        partials, truths = file["incomplete_pcds"][()], file["complete_pcds"][()]
    assert len(data) == 52
    for i in (0, 25, 26, 51):
        sample = data.sample(i)
        np.testing.assert_array_equal(sample.partial, partials[i])
        np.testing.assert_array_equal(sample.truth, truths[i // 26])
        assert data.category(i) == ("chair" if i < 26 else "airplane")
    assert data.label(27) == "shape 1 view 1"
    assert opened("mvp", root, split="test").category(0) == "skateboard"


def test_mvp_with_larger_truths_reads_the_novel_categories_after_the_others(write_benchmark: Write) -> None:
    import h5py

    root = write_benchmark("mvp_large")
    data = opened("mvp", root, split="test", points=4096)
    assert len(data) == 78
    with h5py.File(root / "mvp_test_input.h5") as inputs, h5py.File(root / "mvp_test_gt_4096pts.h5") as gt:
        for i in (0, 30, 51):
            np.testing.assert_array_equal(data.sample(i).partial, inputs["incomplete_pcds"][i])
            np.testing.assert_array_equal(data.sample(i).truth, gt["complete_pcds"][i // 26])
        for i in (52, 77):
            np.testing.assert_array_equal(data.sample(i).partial, inputs["novel_incomplete_pcds"][i - 52])
            np.testing.assert_array_equal(data.sample(i).truth, gt["novel_complete_pcds"][0])
    assert [data.category(i) for i in (0, 26, 52)] == ["airplane", "cabinet", "bed"]
    assert len(opened("mvp", root, split="test").sample(0).truth) == len(data.sample(0).truth) // 2
    some = opened("mvp", root, split="test", points=4096, categories=["bed"])
    np.testing.assert_array_equal(some.sample(3).partial, data.sample(55).partial)
    with pytest.raises(DatasetError, match=r"lacks mvp_test_gt_8192pts\.h5"):
        opened("mvp", root, split="test", points=8192)


def test_mvp_files_that_are_cut_short_or_others_are_named(write_benchmark: Write) -> None:
    import h5py

    root = write_benchmark("mvp")
    path = root / "MVP_Train_CP.h5"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match=r"MVP_Train_CP\.h5: not a readable HDF5 file .* download it again"):
        opened("mvp", root)
    path.write_bytes(whole)
    with h5py.File(path, "a") as file:
        kept = file["incomplete_pcds"][:51]
        del file["incomplete_pcds"]
        file["incomplete_pcds"] = kept
    with pytest.raises(DatasetError, match="2 complete clouds for 51 views; MVP has 26 a shape"):
        opened("mvp", root)
    with h5py.File(path, "a") as file:
        del file["complete_pcds"]
    with pytest.raises(DatasetError, match=r"no array 'complete_pcds' \(it has: incomplete_pcds, labels\)"):
        opened("mvp", root)
    path.write_bytes(whole)
    with h5py.File(path, "a") as file:
        file["incomplete_pcds"][3, 5] = np.nan
    with pytest.raises(DatasetError, match="shape 0 view 3: the partial cloud holds values that are not finite"):
        opened("mvp", root).sample(3)


def test_without_h5py_the_extra_is_named(write_benchmark: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_benchmark("mvp")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DatasetError, match=r"pip install 'grasp-utility\[datasets\]'"):
        opened("mvp", root)


def test_an_hdf5_file_is_opened_anew_in_another_process(
    write_benchmark: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = H5File(write_benchmark("mvp") / "MVP_Train_CP.h5")
    before = file.read("labels", 0)
    handle = file._handle()
    assert file._handle() is handle
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert file._handle() is not handle and file.read("labels", 0) == before


# PCN


def test_pcn_lists_every_view_of_a_model_in_the_lists_order(write_benchmark: Write) -> None:
    root = write_benchmark("pcn")
    data = opened("pcn", root)
    rows = json.loads((root / "PCN.json").read_text())
    models = [(row["taxonomy_id"], row["taxonomy_name"], model) for row in rows for model in row["train"]]
    assert len(data) == 8 * len(models) == 24
    for i in range(len(data)):
        taxonomy, name, model = models[i // 8]
        assert data.category(i) == name
        partial = read_pcd(root / "train" / "partial" / taxonomy / model / f"{i % 8:02d}.pcd")
        np.testing.assert_array_equal(data.sample(i).partial, partial)
        assert len(partial) == 30 + i % 8
        assert rows_of(partial) <= rows_of(data.sample(i).truth)
    test = opened("pcn", root, split="test")
    assert len(test) == 3 and test.label(2) == "03001627/test003001627 view 00"


def test_pcn_clouds_that_are_too_small_are_repeated_or_filled_with_zeros(write_benchmark: Write) -> None:
    part = {"root": str(write_benchmark("pcn")), "split": "test"}
    repeated = open_data(Part("pcn", part), 50, 16).batch(0, 1)[0][0]
    filled = open_data(Part("pcn", {**part, "fill": "zeros"}), 50, 16)
    zeros = filled.batch(0, 1)[0][0]
    partial = rows_of(filled.sample(filled.indices(0, 1)[0]).partial)
    assert len(partial) == 30 and rows_of(repeated) == partial
    assert rows_of(zeros) == partial | {(0.0, 0.0, 0.0)} and (zeros == 0).all(dim=1).sum() == 20
    with pytest.raises(DatasetError, match="no fill 'ones'; choose repeat, zeros"):
        open_data(Part("pcn", {**part, "fill": "ones"}), 50, 16)


@pytest.mark.real_data
def test_true_pcn_pairs_have_the_scale_that_is_said(real_data: Path, tmp_path: Path) -> None:
    """Two pairs of the real benchmark, put into its layout: a diagonal of 1, so `as given` and `oracle` agree."""
    open3d = pytest.importorskip("open3d")
    rows = []
    for taxonomy, name, points in (("02691156", "airplane", 2048), ("03001627", "chair", 609)):
        complete = tmp_path / "test" / "complete" / taxonomy / "m.pcd"
        partial = tmp_path / "test" / "partial" / taxonomy / "m" / "00.pcd"
        for path, kind in ((complete, "complete_16384"), (partial, f"partial_{points}")):
            path.parent.mkdir(parents=True)
            cloud = open3d.io.read_point_cloud(str(real_data / "pairs" / f"{name}_{kind}.ply"))
            assert open3d.io.write_point_cloud(str(path), cloud, write_ascii=name == "chair")
        rows.append({"taxonomy_id": taxonomy, "taxonomy_name": name, "train": [], "val": [], "test": ["m"]})
    (tmp_path / "PCN.json").write_text(json.dumps(rows))
    part = Part("pcn", {"root": str(tmp_path), "split": "test"})
    data = open_data(part, 2048, 16384)
    for i, points in enumerate((2048, 609)):
        sample = data.sample(i)
        assert len(sample.partial) == points and len(sample.truth) == 16384
        assert np.linalg.norm(np.ptp(sample.truth, axis=0)) == pytest.approx(1, abs=0.01)
    given, oracle = data.batch(0, 2), open_data(part, 2048, 16384, mode="oracle").batch(0, 2)
    for ours, theirs in zip(given, oracle, strict=True):
        assert (ours - theirs).abs().max() < 0.006


def test_pcn_touches_no_cloud_before_it_is_asked_for(write_benchmark: Write) -> None:
    root = write_benchmark("pcn")
    data = opened("pcn", root)
    for path in (root / "train" / "partial" / "02691156").rglob("*.pcd"):
        path.unlink()
    assert len(opened("pcn", root)) == 24
    assert len(data.sample(16).partial) == 30
    with pytest.raises(DatasetError, match=r"00\.pcd: cannot be read .* unpack the whole benchmark"):
        data.sample(0)


def test_pcn_lists_that_are_broken_are_named(write_benchmark: Write) -> None:
    root = write_benchmark("pcn")
    path = root / "PCN.json"
    for content, message in (
        ("[", "not readable JSON"),
        ('[{"taxonomy_id": "02691156"}]', "expected rows of taxonomy_id"),
        ('[{"taxonomy_id": "1", "taxonomy_name": "a", "train": ["../../x"]}]', "is no file name"),
        ('[{"taxonomy_id": "1", "taxonomy_name": "a", "train": []}]', "lists no model in 'train'"),
    ):
        path.write_text(content)
        with pytest.raises(DatasetError, match=message) as caught:
            opened("pcn", root)
        assert str(path) in str(caught.value)
    path.rename(root / "ShapeNet.json")  # GRNet's name
    (root / "ShapeNet.json").write_text('[{"taxonomy_id": "1", "taxonomy_name": "a", "train": ["m"]}]')
    assert len(opened("pcn", root)) == 8


# ShapeNet-55


def naive_crop(cloud: np.ndarray, view_point: np.ndarray, count: int) -> np.ndarray:
    """Take the nearest point away, again and again."""
    left = list(range(len(cloud)))
    for _ in range(count):
        distances = [float(np.linalg.norm(cloud[i].astype(np.float64) - view_point)) for i in left]
        del left[int(np.argmin(distances))]
    return cloud[sorted(left, key=lambda i: float(np.linalg.norm(cloud[i].astype(np.float64) - view_point)))]


def test_shapenet_clouds_are_centred_with_unit_radius(write_benchmark: Write) -> None:
    root = write_benchmark("shapenet55")
    truth = opened("shapenet55", root).sample(0).truth
    raw = np.load(root / "shapenet_pc" / "02691156-aa.npy")
    centred = raw - raw.mean(axis=0)
    np.testing.assert_allclose(truth, centred / max(np.linalg.norm(row) for row in centred), atol=1e-6)
    with pytest.raises(DatasetError, match="radius of 0"):
        unit_radius(np.ones((9, 3), np.float32))


@pytest.mark.parametrize(("difficulty", "left"), [("simple", 72), ("median", 48), ("hard", 24)])
def test_shapenet_test_crops_from_the_eight_corners(write_benchmark: Write, difficulty: str, left: int) -> None:
    root = write_benchmark("shapenet55")
    data = opened("shapenet55", root, split="test", difficulty=difficulty)
    assert len(data) == 16
    corners = []
    for i in range(16):
        sample = data.sample(i)
        assert data.category(i) == ("mug" if i < 8 else "airplane") and len(sample.partial) == left
        # The corner that was seen from is the one that explains which points are gone.
        fitting = [
            corner
            for corner in np.stack(np.meshgrid(*[[-1.0, 1.0]] * 3), axis=-1).reshape(-1, 3)
            if rows_of(crop(sample.truth, corner, 96 - left)) == rows_of(sample.partial)
        ]
        assert len(fitting) == 1
        corners.append(tuple(fitting[0]))
    assert len(set(corners[:8])) == 8 and corners[:8] == corners[8:]
    assert corners[0] == (1, 1, 1) and corners[1] == (1, 1, -1) and corners[7] == (-1, -1, -1)


def test_shapenet_crops_like_its_naive_twin() -> None:
    rng = np.random.default_rng(0)
    for count in (0, 1, 17, 39):
        cloud, view_point = rng.standard_normal((40, 3)).astype(np.float32), rng.standard_normal(3)
        np.testing.assert_array_equal(crop(cloud, view_point, count), naive_crop(cloud, view_point, count))


def test_shapenet_training_cuts_a_quarter_to_three_quarters_from_one_side(write_benchmark: Write) -> None:
    data = opened("shapenet55", write_benchmark("shapenet55"))
    sizes = set()
    for seed in range(12):
        sample = data._checked(seed % 3, np.random.default_rng(seed))
        sizes.add(len(sample.partial))
        assert 24 <= len(sample.partial) <= 72 and rows_of(sample.partial) <= rows_of(sample.truth)
        gone = np.array(sorted(rows_of(sample.truth) - rows_of(sample.partial)))
        # The view point is at distance 1 in an unknown direction: among many, one must see all that is gone as nearer.
        directions = np.random.default_rng(1).standard_normal((4000, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        farthest = np.linalg.norm(gone[:, None] - directions, axis=2).max(axis=0)
        nearest = np.linalg.norm(sample.partial[:, None] - directions, axis=2).min(axis=0)
        assert (farthest - nearest).min() < 0.05
    assert len(sizes) > 6


def test_shapenet_input_is_chosen_by_farthest_points(write_benchmark: Write) -> None:
    root = write_benchmark("shapenet55")
    data = opened("shapenet55", root, split="test")
    partial = data.batch(0, 2)[0]
    for k, index in enumerate(data.indices(0, 2)):
        whole = torch.from_numpy(data.sample(index).partial)
        expected = whole[farthest_points(whole[None], 16)[0]]
        torch.testing.assert_close(partial[k], expected)
    cheap = opened("shapenet55", root, split="test", sampling="random")
    assert not torch.equal(cheap.batch(0, 2)[0], partial)


def test_shapenet_subsets_and_their_lists(write_benchmark: Write) -> None:
    root = write_benchmark("shapenet55")
    assert len(opened("shapenet55", root, subset=34)) == 1
    assert opened("shapenet55", root, subset="unseen21", split="test").category(0) == "bag"
    with pytest.raises(DatasetError, match=r"ShapeNet-Unseen21/train\.txt"):
        opened("shapenet55", root, subset="unseen21")
    for bad in ({"subset": "13"}, {"difficulty": "easy"}, {"sampling": "grid"}):
        with pytest.raises(DatasetError, match="choose"):
            opened("shapenet55", root, **bad)
    path = root / "ShapeNet-55" / "train.txt"
    path.write_text("../02691156-aa.npy\n")
    with pytest.raises(DatasetError, match=r"train\.txt: .* is no <taxonomy>-<model>\.npy"):
        opened("shapenet55", root)
    path.write_text("\n")
    with pytest.raises(DatasetError, match="list is empty"):
        opened("shapenet55", root)
    path.write_text("02691156-zz.npy\n02691156-aa.npy\n")
    with pytest.raises(DatasetError, match=r"02691156-zz\.npy: missing"):
        opened("shapenet55", root).sample(0)
    (root / "shapenet_pc" / "02691156-aa.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(DatasetError, match=r"02691156-aa\.npy: not a readable \.npy"):
        opened("shapenet55", root).sample(1)


# Completion3D


def test_completion3d_reads_its_lists_in_order(write_benchmark: Write) -> None:
    import h5py

    root = write_benchmark("completion3d")
    data = opened("completion3d", root)
    lines = (root / "train.list").read_text().split()
    assert [data.label(i) for i in range(3)] == lines
    assert [data.category(i) for i in range(3)] == ["car", "plane", "plane"]  # by the benchmark's own names
    for i, line in enumerate(lines):
        for cloud, kind in zip(data.sample(i), ("partial", "gt"), strict=True):
            with h5py.File(root / "train" / kind / f"{line}.h5") as file:
                np.testing.assert_array_equal(cloud, file["data"][()])
    (root / "synsetoffset2category.txt").unlink()
    assert opened("completion3d", root).category(1) == "airplane"


def test_completion3d_says_where_the_test_is_and_what_is_broken(write_benchmark: Write) -> None:
    root = write_benchmark("completion3d")
    with pytest.raises(DatasetError, match="keeps the test's truth, so take split val"):
        opened("completion3d", root, split="test")
    (root / "train" / "gt" / "02958343" / "b.h5").write_bytes(b"nothing")
    with pytest.raises(DatasetError, match=r"b\.h5: not a readable HDF5 file"):
        opened("completion3d", root).sample(0)
    (root / "train" / "gt" / "02691156" / "a.h5").unlink()
    with pytest.raises(DatasetError, match=r"a\.h5: missing"):
        opened("completion3d", root).sample(1)
    (root / "train.list").write_text("just-a-name\n")
    with pytest.raises(DatasetError, match="is no <taxonomy>/<model>"):
        opened("completion3d", root)
    (root / "train.list").unlink()
    with pytest.raises(DatasetError, match=r"lacks train\.list"):
        opened("completion3d", root)
