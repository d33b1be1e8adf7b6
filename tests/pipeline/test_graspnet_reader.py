from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.transform import Rotation

from grasping.clouds import backproject
from grasping.transforms import invert, transform_points
from pipeline.datasets.graspnet import DatasetError, GraspNetDataset, pose_matrix
from pipeline.frames import viewing_frame
from pipeline.observe import NOT_VISIBLE, WORKSPACE, clean_cloud, object_clouds


def distance_to_box(points: np.ndarray, extents: np.ndarray) -> np.ndarray:
    q = np.abs(points) - extents / 2
    outside = np.linalg.norm(np.maximum(q, 0), axis=1)
    return np.abs(outside + np.minimum(q.max(axis=1), 0))


def test_labelled_pixels_lie_on_the_posed_boxes(box_world) -> None:
    dataset = GraspNetDataset(box_world.root, "realsense")
    assert dataset.scene_ids() == [100] and dataset.scene_ids("test_seen") == [100] and dataset.scene_ids("train") == []
    assert dataset.scene_ids("test") == [100] and dataset.split_of(100) == "test_seen"
    assert dataset.view_ids(100) == [0, 64] and dataset.object_ids(100) == (7, 3)
    for number in dataset.view_ids(100):
        view = dataset.view(100, number)
        np.testing.assert_allclose(view.T_table_camera, box_world.T_table_camera[number], atol=1e-12)
        assert view.depth.dtype == np.float32 and view.color is None
        points = backproject(view.depth, view.intrinsics)
        for object_id, T in zip(view.object_ids, view.T_camera_object, strict=True):
            seen = points[view.label == object_id + 1]
            assert len(seen) > 100
            assert distance_to_box(transform_points(invert(T), seen), box_world.extents[object_id]).max() < 1.5e-3
        table = transform_points(view.T_table_camera, points[(view.label == 0) & (view.depth > 0)])
        assert np.abs(table[:, 2]).max() < 1.5e-3


@settings(deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: np.linalg.norm(q) > 0.1))
def test_pose_is_the_quaternions_rotation_to_float32(q: list[float]) -> None:
    T = pose_matrix([0.1, -0.2, 0.3], q)
    assert T.dtype == np.float32
    expected = Rotation.from_quat(q, scalar_first=True).as_matrix()
    # Where the middle angle is nearly 90 degrees, the referee's detour through Euler angles divides rounding errors of
    # 1e-16 by this: 6e-4 were seen at 8e-13.
    assume(np.hypot(expected[0, 0], expected[1, 0]) > 1e-8)
    np.testing.assert_allclose(T[:3, :3], expected, atol=1e-6)
    np.testing.assert_array_equal(T[:3, 3], np.float32([0.1, -0.2, 0.3]))


def test_objects_keep_view_0s_order_whatever_a_later_view_says(box_world) -> None:
    folder = box_world.root / "scenes/scene_0100/realsense/annotations"
    dataset = GraspNetDataset(box_world.root, "realsense")
    before = dataset.view(100, 64).T_camera_object
    first, second = (folder / "0064.xml").read_text().removesuffix("</obj></scene>").split("</obj>")
    (folder / "0064.xml").write_text(f"<scene>{second}</obj>{first.removeprefix('<scene>')}</obj></scene>")
    np.testing.assert_array_equal(dataset.view(100, 64).T_camera_object, before)


def test_view_files_are_all_that_a_view_reads(box_world) -> None:
    dataset = GraspNetDataset(box_world.root, "realsense")
    for path in dataset.view_files(100, 64):
        kept = path.read_bytes()
        path.unlink()
        with pytest.raises(DatasetError, match=path.name):
            dataset.view(100, 64)
        path.write_bytes(kept)
    dataset.view(100, 64)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("depth/0000.png", lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2])),
        ("depth/0000.png", lambda p: Image.fromarray(np.zeros((144, 256), np.uint8)).save(p)),
        ("label/0000.png", lambda p: Image.fromarray(np.zeros((10, 10), np.uint8)).save(p)),
        ("label/0000.png", lambda p: p.write_bytes(b"")),
        ("annotations/0000.xml", lambda p: p.write_text(p.read_text()[:200])),
        (
            "annotations/0000.xml",
            lambda p: p.write_text(p.read_text().replace("<pos_in_world>", "<pos_in_world>nan ", 1)),
        ),
        ("camera_poses.npy", lambda p: np.save(p, np.full((256, 4, 4), np.nan))),
        ("camera_poses.npy", lambda p: np.save(p, np.zeros((255, 4, 4)))),
        ("camK.npy", lambda p: np.save(p, np.array([{}], dtype=object), allow_pickle=True)),
        ("meta/0000.mat", lambda p: p.write_bytes(p.read_bytes()[:100])),
    ],
)
def test_a_broken_file_is_named_with_a_remedy(box_world, name: str, damage) -> None:
    path = box_world.root / "scenes/scene_0100/realsense" / name
    damage(path)
    with pytest.raises(DatasetError) as caught:
        GraspNetDataset(box_world.root, "realsense").view(100, 0)
    assert str(path) in str(caught.value) and "fetch" in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_dataset_says_so(box_world, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="scenes"):
        GraspNetDataset(tmp_path, "realsense")
    with pytest.raises(DatasetError, match="realsense and kinect"):
        GraspNetDataset(box_world.root, "webcam")
    with pytest.raises(DatasetError, match=r"manifest\.json"):
        GraspNetDataset(box_world.root, "realsense").view_ids(5)
    with pytest.raises(DatasetError, match="190"):
        GraspNetDataset(box_world.root, "realsense").split_of(190)


# Observation clouds


def test_clouds_of_a_view_are_on_the_objects_and_in_the_workspace(box_world) -> None:
    view = GraspNetDataset(box_world.root, "realsense").view(100, 0)
    seen = object_clouds(view)
    for object_id, cloud, T in zip(view.object_ids, seen.objects.clouds, view.T_camera_object, strict=True):
        assert cloud.dtype == np.float32 and len(cloud) > 64
        # a voxel's mean may lie inside a corner, by less than the voxel
        assert distance_to_box(transform_points(invert(T), cloud), box_world.extents[object_id]).max() < 3e-3
    in_table = transform_points(seen.T_table_camera, seen.background)
    assert len(in_table) > 1000 and ((in_table >= WORKSPACE[0]) & (in_table <= WORKSPACE[1])).all()
    assert len(object_clouds(view, background=False).background) == 0


def test_an_invisible_object_keeps_its_place(box_world) -> None:
    view = GraspNetDataset(box_world.root, "realsense").view(100, 0)
    view.label[view.label == 8] = 0
    seen = object_clouds(view)
    assert seen.objects.object_ids.tolist() == [7, 3]
    assert seen.objects.clouds[0].shape == (0, 3) and seen.objects.status == (NOT_VISIBLE, "ok")
    view.depth[:] = np.nan
    assert object_clouds(view).objects.status == (NOT_VISIBLE, NOT_VISIBLE)


def test_a_flying_pixel_goes_and_a_wire_stays() -> None:
    wire = np.zeros((200, 3), np.float32)
    wire[:, 0] = np.linspace(0, 0.1, 200)
    flying = np.array([[0.05, 0.03, 0.0]], np.float32)
    cleaned = clean_cloud(np.concatenate([wire, flying]), 0.003)
    assert np.abs(cleaned[:, 1]).max() == 0 and np.ptp(cleaned[:, 0]) > 0.095


# The network's frame


@settings(deadline=None)
@given(st.floats(-np.pi, np.pi), st.floats(0.05, 1.5), st.floats(-np.pi, np.pi))
def test_viewing_frame_stands_on_the_table_and_forgets_yaw(yaw: float, pitch: float, roll: float) -> None:
    # camera axes in the table frame: z looks down by `pitch`, then rolled about z
    T = np.eye(4)
    level = Rotation.from_euler("xz", [-np.pi / 2 - pitch, yaw]).as_matrix()
    T[:3, :3] = level @ Rotation.from_euler("z", roll).as_matrix()
    R = viewing_frame(T)
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(R) == pytest.approx(1)
    np.testing.assert_allclose(R @ T[2, :3], [0, 0, 1], atol=1e-9)  # the table's normal is z
    optical = R @ [0, 0, 1]
    assert abs(optical[1]) < 1e-9 and optical[0] > 0 and optical[2] < 0
    turned = T.copy()
    turned[:3, :3] = Rotation.from_euler("z", 1.0).as_matrix() @ T[:3, :3]
    np.testing.assert_allclose(viewing_frame(turned), R, atol=1e-9)


def test_viewing_frame_looking_straight_down_is_the_limit_of_a_tilt() -> None:
    def at(pitch: float) -> np.ndarray:
        T = np.eye(4)
        T[:3, :3] = Rotation.from_euler("xz", [-np.pi / 2 - pitch, 0.4]).as_matrix()
        return viewing_frame(T)

    np.testing.assert_allclose(at(np.pi / 2), at(np.pi / 2 - 0.01), atol=0.02)
    with pytest.raises(ValueError, match="finite"):
        viewing_frame(np.full((4, 4), np.nan))


@pytest.mark.real_data
def test_real_scene_labels_lie_on_the_posed_models(real_data: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    from scipy.spatial import cKDTree

    dataset = GraspNetDataset(real_data / "graspnet_real", "realsense")
    assert dataset.object_ids(0) == (14, 0, 5, 15, 20, 48, 66, 70, 46) and len(dataset.view_ids(0)) == 256
    clouds = object_clouds(dataset.view(0, 200))
    assert {i for i, s in zip(clouds.objects.object_ids, clouds.objects.status, strict=True) if s == NOT_VISIBLE} == {
        48,
        70,
    }
    view = dataset.view(0, 0)
    points = backproject(view.depth, view.intrinsics)
    for object_id, T in zip(view.object_ids, view.T_camera_object, strict=True):
        mesh = trimesh.load(dataset.model_dir(object_id) / "nontextured.ply", process=False)
        surface, _ = trimesh.sample.sample_surface(mesh, 40000, seed=0)
        seen = transform_points(invert(T), points[view.label == object_id + 1][::37])
        distance, _ = cKDTree(surface).query(seen)
        assert np.median(distance) < (0.005 if object_id == 46 else 0.0015), object_id
