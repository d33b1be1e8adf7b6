from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image
from scipy.spatial import cKDTree

from grasping.grasps import Grasps
from grasping.transforms import pose, transform_points
from pipeline.cloud_files import ObjectClouds
from pipeline.datasets.frame import FrameError, read_frame
from pipeline.frame import FrameOptions, run
from pipeline.frame_picture import added, best_of_all, best_of_each, wireframes
from pipeline.segment import SegmentationError, cluster_objects, drop_flying_pixels, find_table


@pytest.fixture
def files(box_world) -> dict[str, Path]:
    folder = box_world.root / "scenes/scene_0100/realsense"
    return {
        "depth": folder / "depth/0000.png",
        "label": folder / "label/0000.png",
        "K": folder / "camK.npy",
        "mat": folder / "meta/0000.mat",
    }


def label_of(files: dict[str, Path]) -> np.ndarray:
    return np.array(Image.open(files["label"])).astype(int)


def test_every_form_of_one_image_reads_alike(files, tmp_path: Path) -> None:
    reference = read_frame(files["depth"], str(files["K"]))
    K = np.load(files["K"])
    np.savetxt(tmp_path / "K.txt", K)
    np.save(tmp_path / "metres.npy", reference.depth)
    color = np.full((*reference.depth.shape, 3), 7, np.uint8)
    np.savez(tmp_path / "all.npz", depth=reference.depth, intrinsics_matrix=K, image=color)
    holes = np.where(reference.depth > 0.5, np.nan, reference.depth)
    np.save(tmp_path / "holes.npy", holes)
    numbers = f"{K[0, 0]},{K[1, 1]},{K[0, 2]},{K[1, 2]}"
    for depth, intrinsics in [
        (files["depth"], str(tmp_path / "K.txt")),
        (files["depth"], str(files["mat"])),
        (tmp_path / "metres.npy", numbers),
        (tmp_path / "all.npz", None),
    ]:
        frame = read_frame(depth, intrinsics)
        np.testing.assert_array_equal(frame.depth, reference.depth)
        np.testing.assert_allclose(frame.intrinsics, K)
    np.testing.assert_array_equal(read_frame(tmp_path / "all.npz").color, color)
    frame = read_frame(tmp_path / "holes.npy", numbers)
    assert ((frame.depth == 0) == (reference.depth > 0.5)).all()
    assert read_frame(files["depth"], numbers, depth_scale=2000).depth == pytest.approx(reference.depth / 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d, f: {"depth": d / "none.png"}, "no such file"),
        (lambda d, f: {"depth": write(d / "cut.png", f["depth"].read_bytes()[:900])}, r"cut\.png: truncated"),
        (lambda d, f: {"depth": save(d / "zero.png", np.zeros((144, 256), np.uint16))}, "no pixel has a depth"),
        (lambda d, f: {"depth": save(d / "nan.npy", np.full((144, 256), np.nan))}, "no pixel has a depth"),
        (lambda d, f: {"depth": save(d / "grey.png", np.ones((144, 256), np.uint8))}, "no depth image"),
        (lambda d, f: {"depth": save(d / "mm.npy", np.full((144, 256), 500.0))}, "--depth-scale"),
        (lambda d, f: {"depth": save(d / "object.npy", np.array([{}]))}, r"object\.npy"),
        (lambda d, f: {"intrinsics": None}, "give --intrinsics"),
        (lambda d, f: {"intrinsics": "1,2,3"}, "write fx,fy,cx,cy"),
        (lambda d, f: {"intrinsics": "230,230,640,360"}, "principal point"),
        (lambda d, f: {"intrinsics": "a,b,c,d"}, "not four numbers"),
        (lambda d, f: {"intrinsics": str(save(d / "K.npy", np.eye(4)))}, r"K\.npy.*\(3, 3\)"),
        (lambda d, f: {"mask": save(d / "small.png", np.ones((9, 9), np.uint8))}, r"small\.png.*registered"),
        (lambda d, f: {"mask": save(d / "empty.png", np.zeros((144, 256), np.uint8))}, "the mask is empty"),
        (lambda d, f: {"mask": save(d / "float.npy", np.ones((144, 256)))}, "no mask"),
        (lambda d, f: {"color": save(d / "colour.npy", np.ones((144, 256), np.uint8))}, "no colour image"),
        (lambda d, f: {"depth_scale": -1.0}, "must be positive"),
        (
            lambda d, f: {"depth": save(d / "noise.npy", np.random.default_rng(0).uniform(0.3, 3, (144, 256)))},
            r"noise\.npy.*too few to find the table",
        ),
        (lambda d, f: {"depth": save(d / "wall.npy", np.full((144, 256), 0.8))}, "nothing of an object's size"),
    ],
)
def test_bad_input_is_named_with_a_remedy(files, tmp_path: Path, change, message: str) -> None:
    options = FrameOptions(depth=files["depth"], out=tmp_path / "out", checkpoint="partial", intrinsics=str(files["K"]))
    with pytest.raises(FrameError, match=message) as caught:
        run(replace(options, **change(tmp_path, files)))
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def save(path: Path, array: np.ndarray) -> Path:
    if path.suffix == ".npy":
        np.save(path, array, allow_pickle=array.dtype == object)
    else:
        Image.fromarray(array).save(path)
    return path


def test_the_table_is_found_in_a_noisy_image(box_world, files) -> None:
    frame = read_frame(files["depth"], str(files["K"]))
    noise = np.random.default_rng(3).normal(0, 0.002, frame.depth.shape).astype(np.float32)
    table = find_table(frame.depth + noise * (frame.depth > 0), frame.intrinsics, None, seed=0)
    # as seen from the true table, the found plane's normal is z, and z = 0 lies in it
    T = box_world.T_table_camera[0] @ np.linalg.inv(table.T_table_camera)
    assert T[2, 2] > np.cos(np.radians(0.3)) and abs(T[2, 3]) < 0.001
    assert 0.0005 < table.noise < 0.002 and table.share > 0.7
    again = find_table(frame.depth + noise * (frame.depth > 0), frame.intrinsics, None, seed=0)
    np.testing.assert_array_equal(again.T_table_camera, table.T_table_camera)


def test_where_no_plane_is_there_is_no_table(files) -> None:
    K = np.load(files["K"])
    v, u = np.mgrid[:144, :256]
    waves = (0.6 + 0.1 * np.sin(u / 12.0) * np.cos(v / 9.0)).astype(np.float32)
    with pytest.raises(SegmentationError, match="no table"):
        find_table(waves, K, None, seed=0)


def test_flying_pixels_go_and_steep_surfaces_stay(files) -> None:
    frame = read_frame(files["depth"], str(files["K"]))
    label = label_of(files)
    depth = frame.depth.copy()
    depth[20, 30] -= 0.1
    cleaned = drop_flying_pixels(depth, frame.intrinsics)
    assert cleaned[20, 30] == 0 and (cleaned[label > 0] > 0).mean() > 0.75


def test_an_objects_own_mask_still_finds_the_table(files, box_world) -> None:
    frame = read_frame(files["depth"], str(files["K"]))
    table = find_table(frame.depth, frame.intrinsics, label_of(files) == 8, seed=0)
    T = box_world.T_table_camera[0] @ np.linalg.inv(table.T_table_camera)
    assert T[2, 2] > np.cos(np.radians(0.3)) and abs(T[2, 3]) < 0.001


def test_clusters_are_the_boxes_largest_first(files) -> None:
    frame, label = read_frame(files["depth"], str(files["K"])), label_of(files)
    depth = drop_flying_pixels(frame.depth, frame.intrinsics)
    table = find_table(depth, frame.intrinsics, None, seed=0)
    segments = cluster_objects(depth, frame.intrinsics, table, None)
    assert segments.max() == 2
    for number in (1, 2):
        values, counts = np.unique(label[segments == number], return_counts=True)
        true = int(values[counts.argmax()])
        together = ((segments == number) & (label == true)).sum() / ((segments == number) | (label == true)).sum()
        assert true in (8, 4) and together > 0.65  # the lowest 6 mm of 30 count as table
    # a region that ends at one object's border leaves the other out; one that cuts through an object drops it
    only = cluster_objects(depth, frame.intrinsics, table, label == 8)
    assert only.max() == 1 and (label[only == 1] == 8).all()
    _, columns = np.nonzero(label == 8)
    half = np.zeros(label.shape, bool)
    half[:, : int(np.median(columns))] = True
    halved = cluster_objects(depth, frame.intrinsics, table, half)
    assert not (label[halved > 0] == 8).any()


def test_a_run_writes_all_it_found_and_says_that_there_is_no_truth(files, box_world, tmp_path: Path) -> None:
    options = FrameOptions(
        depth=files["depth"],
        out=tmp_path / "out",
        checkpoint="partial",
        intrinsics=str(files["K"]),
        mask=files["label"],
    )
    result = run(options)
    assert result.partial.object_ids.tolist() == [4, 8] and set(result.grasps.object_id) == {4, 8}
    assert "no true geometry" in result.summary["note"] and result.summary["segmentation"] == "mask"
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary == result.summary and sum(o["grasps"] for o in summary["objects"]) == summary["grasps"]
    heights = {o["object"]: o["height_m"] for o in summary["objects"]}
    assert heights == pytest.approx({8: 0.05, 4: 0.03}, abs=0.002)
    saved = Grasps.load(tmp_path / "out/grasps.npy")
    np.testing.assert_array_equal(saved.to_array(), result.grasps.to_array())
    assert (np.diff(saved.confidence) <= 0).all()
    with np.load(tmp_path / "out/clouds.npz", allow_pickle=False) as clouds:
        first = clouds["partial_points"][: clouds["partial_offsets"][1]]
        np.testing.assert_array_equal(first, result.partial.clouds[0])
        np.testing.assert_array_equal(clouds["segments"], label_of(files))
    with Image.open(tmp_path / "out/picture.png") as picture:
        assert picture.width == 1900 and len(np.unique(np.asarray(picture.convert("L")))) > 50
    # grasps enclose the box they name: its middle is nearer to the grasp than the other's
    T_camera_table = np.linalg.inv(box_world.T_table_camera[0])
    middles = {i + 1: transform_points(T_camera_table, T[:3, 3]) for i, T in box_world.T_table_object.items()}
    for translation, number in zip(saved.translation, saved.object_id, strict=True):
        own, other = (np.linalg.norm(translation - middles[n]) for n in (number, 12 - number))
        assert own < other
    again = run(replace(options, out=tmp_path / "again"))
    np.testing.assert_array_equal(again.grasps.to_array(), saved.to_array())


def test_completed_clouds_are_what_the_generator_gets(files, tmp_path: Path) -> None:
    options = FrameOptions(depth=files["depth"], out=tmp_path, checkpoint="raised", intrinsics=str(files["K"]))
    seen: dict[str, np.ndarray] = {}

    def lift(clouds, T_table_camera, seeds):
        up = T_table_camera[2, :3].astype(np.float32)
        return [cloud + 0.01 * up for cloud in clouds[:1]] + [np.full((5, 3), np.nan, np.float32) for _ in clouds[1:]]

    def watch(cloud, ids, collision_cloud, T_camera_table, viewpoint, seed):
        seen.update(cloud=cloud, ids=ids, collision=collision_cloud, T=T_camera_table)
        return Grasps.empty()

    result = run(options, complete=lift, generator=watch)
    table = result.table.T_table_camera
    rise = transform_points(table, seen["cloud"][seen["ids"] == 1])[:, 2].max()
    assert rise - transform_points(table, result.partial.clouds[0])[:, 2].max() == pytest.approx(0.01, abs=0.002)
    assert "not finite" in result.completed.status[1]
    np.testing.assert_array_equal(result.completed.clouds[1], result.partial.clouds[1])
    np.testing.assert_allclose(seen["T"] @ table, np.eye(4), atol=1e-9)
    assert result.summary["no_grasps_because"] == "the generator found no grasp"
    assert len(Grasps.load(tmp_path / "grasps.npy")) == 0


def test_a_generator_that_fails_leaves_clouds_picture_and_the_reason(files, tmp_path: Path) -> None:
    def broken(*_):
        raise RuntimeError("out of luck")

    options = FrameOptions(depth=files["depth"], out=tmp_path, checkpoint="partial", intrinsics=str(files["K"]))
    result = run(options, generator=broken)
    assert "out of luck" in result.summary["no_grasps_because"]
    assert (tmp_path / "picture.png").exists() and (tmp_path / "clouds.npz").exists()


def test_an_object_without_depth_keeps_its_place(files, tmp_path: Path) -> None:
    depth = np.array(Image.open(files["depth"]))
    depth[label_of(files) == 4] = 0
    options = FrameOptions(
        depth=save(tmp_path / "holes.png", depth),
        out=tmp_path / "out",
        checkpoint="partial",
        intrinsics=str(files["K"]),
        mask=files["label"],
    )
    objects = run(options).summary["objects"]
    assert [(o["object"], o["grasps"] > 0) for o in objects] == [(4, False), (8, True)]
    assert objects[0]["status"] == "no visible points" and objects[0]["height_m"] is None


def test_names_that_do_not_exist_are_refused_before_the_work(files, tmp_path: Path) -> None:
    options = FrameOptions(depth=files["depth"], out=tmp_path / "out", checkpoint="partial", intrinsics=str(files["K"]))
    with pytest.raises(ValueError, match="antipodal"):
        run(replace(options, generator="antipodl"))
    with pytest.raises(ValueError, match="pcn-nothing"):
        run(replace(options, checkpoint="pcn-nothing"))
    assert not (tmp_path / "out").exists()


# The picture's geometry


def two_grasps() -> Grasps:
    row = np.concatenate([[0.5, 0.06, 0.02, 0.03], np.eye(3).ravel(), [0, 0, 0.5, 1]])
    return Grasps.from_array(np.stack([row, row + np.eye(17)[0] * 0.1]))


def test_a_wireframe_has_the_grasps_measures() -> None:
    T = pose([[0, 0, 1], [1, 0, 0], [0, 1, 0]], [0.1, 0.2, 0.3])
    strokes = wireframes(two_grasps().transformed(T))[0]
    local = transform_points(np.linalg.inv(T), strokes) - [0, 0, 0.5]
    np.testing.assert_allclose(local[0], [[-0.02, -0.03, 0], [0.03, -0.03, 0]], atol=1e-12)  # a finger
    np.testing.assert_allclose(local[2][1] - local[2][0], [0, 0.06, 0], atol=1e-12)  # base
    assert wireframes(Grasps.empty()).shape == (0, 4, 2, 3)


def test_of_two_grasps_on_one_spot_the_better_is_drawn() -> None:
    assert best_of_each(two_grasps(), 3).confidence.tolist() == [0.6]
    assert len(best_of_each(Grasps.empty(), 3)) == 0


class Detector:
    """Looks at whole scenes; finds one grasp at a point of each object, and one on the table."""

    sees_background = True
    default_input = "observed"

    def __call__(self, cloud, object_ids_of_points, collision_cloud, T_camera_table, viewpoint, seed):
        self.cloud, self.ids, self.collision = cloud, object_ids_of_points, collision_cloud
        _, first = np.unique(object_ids_of_points, return_index=True)
        rows = [[0.5, 0.05, 0.02, 0.02, *np.eye(3).ravel(), *cloud[i], object_ids_of_points[i]] for i in first]
        return Grasps.from_array(np.array(rows, float))


def test_a_detector_looks_within_the_workspace_and_minds_what_stands_outside(files, tmp_path: Path) -> None:
    label = label_of(files)
    v, u = np.nonzero(label)
    mask = np.zeros(label.shape, np.uint8)
    mask[max(v.min() - 4, 0) : v.max() + 4, max(u.min() - 4, 0) : u.max() + 4] = 1
    options = FrameOptions(depth=files["depth"], out=tmp_path, checkpoint="pcn-cd", intrinsics=str(files["K"]))
    found = {}
    for name, file in (("objects", files["label"]), ("workspace", save(tmp_path / "workspace.png", mask))):
        detector = Detector()
        found[name] = detector, run(replace(options, mask=file, out=tmp_path / name), generator=detector)
    detector, result = found["workspace"]
    pixels = detector.cloud @ result.frame.intrinsics.T
    u, v = np.rint(pixels[:, :2] / pixels[:, 2:]).astype(int).T
    assert (detector.ids < 0).any() and mask[v, u][detector.ids < 0].all()
    everywhere = found["objects"][0]  # numbers of objects say nothing about the workspace
    assert (everywhere.ids < 0).sum() > 2 * (detector.ids < 0).sum()
    # Completion enters by the obstacles alone, as it suits this generator.
    for detector, result in found.values():
        assert np.array_equal(detector.cloud[detector.ids >= 0], result.partial.points)
        tree = cKDTree(detector.collision)
        assert tree.query(result.completed.points)[0].max() == 0 and len(result.completed.points)
        assert result.summary["grasps_on_no_object"] == 1 and len(result.grasps) == 1 + len(result.partial.clouds)


def test_the_best_of_all_are_drawn_after_suppression() -> None:
    near, far = two_grasps(), two_grasps().transformed(pose(np.eye(3), [0.1, 0, 0]))
    grasps = Grasps.from_array(np.concatenate([near.to_array(), far.to_array()]))
    assert best_of_all(grasps, 50).confidence.tolist() == [0.6, 0.6]  # the less sure of each pair lies beside it
    assert best_of_all(grasps, 1).confidence.tolist() == [0.6]
    assert len(best_of_all(Grasps.empty(), 3)) == 0


def test_only_what_completion_adds_is_drawn_as_completed() -> None:
    seen = np.array([[0, 0, 0.5], [0.01, 0, 0.5]], np.float32)
    ids, ok = np.array([1, 2]), ("ok", "no visible points")
    empty = np.zeros((0, 3), np.float32)
    far = np.array([[0, 0.02, 0.5]], np.float32)
    before = ObjectClouds(ids, (seen, empty), ok)
    after = ObjectClouds(ids, (np.concatenate([seen + 1e-3, far]), empty), ok)
    np.testing.assert_array_equal(added(before, after), far)


# Real frames


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["mustard", "red_mug"])
def test_real_single_objects_are_segmented_as_their_authors_did(real_data: Path, tmp_path: Path, name: str) -> None:
    path = real_data / "frames" / f"single_{name}.npz"
    result = run(FrameOptions(depth=path, out=tmp_path, checkpoint="partial"))
    with np.load(path, allow_pickle=False) as archive:
        theirs = archive["smoothed_object_pc"]
    assert len(result.partial.clouds) == 1 and len(result.grasps) >= 5
    ours = result.partial.clouds[0]
    assert np.median(cKDTree(ours).query(theirs)[0]) < 0.003 and np.median(cKDTree(theirs).query(ours)[0]) < 0.003


@pytest.mark.real_data
def test_real_cluttered_views_yield_objects_and_grasps(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "frames/graspnet_realsense"
    result = run(
        FrameOptions(
            depth=folder / "depth.png",
            color=folder / "color.png",
            intrinsics="927.17,927.37,651.32,349.62",
            out=tmp_path / "realsense",
            checkpoint="partial",
        )
    )
    assert 5 <= len(result.partial.clouds) <= 9 and len(result.grasps) > 50

    folder = real_data / "frames/graspnet_kinect"
    label = np.array(Image.open(folder / "label_rendered.png")).astype(int)
    frame = read_frame(folder / "depth.png", str(folder / "meta.mat"), mask=folder / "workspace_mask.png")
    assert scipy.io.loadmat(folder / "meta.mat")["intrinsic_matrix"][0, 0] == frame.intrinsics[0, 0]
    depth = drop_flying_pixels(frame.depth, frame.intrinsics)
    table = find_table(depth, frame.intrinsics, frame.mask, seed=0)
    segments = cluster_objects(depth, frame.intrinsics, table, frame.mask > 0)
    # nearly all of the high objects' pixels are on some segment, and of the table's hardly any
    for object_id in (0, 8, 2):  # cracker box, drill, can
        inside = (label == object_id + 1) & (depth > 0)
        assert (segments[inside] > 0).mean() > 0.75, object_id
    assert (segments[(label == 0) & frame.mask & (depth > 0)] > 0).mean() < 0.08
