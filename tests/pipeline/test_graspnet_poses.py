"""Poses are read fast, and to the last bit as through numpy's scalars and one file a view."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transforms3d.euler import euler2mat, quat2euler

from pipeline.datasets.graspnet import DatasetError, GraspNetDataset, pose_matrix, read_annotation, read_matrix

COMPONENT = st.floats(-1, 1) | st.integers(-10_000, 10_000).map(lambda n: n / 10_000)  # files hold four decimals


def pose_through_numpy_scalars(translation: np.ndarray, quaternion: np.ndarray) -> np.ndarray:
    """Quaternion to Euler degrees to float32, every step on numpy's numbers, as graspnetAPI takes it."""
    degrees = np.array(quat2euler(np.asarray(quaternion, np.float64))) * (180.0 / np.pi)
    T = np.eye(4, dtype=np.float32)
    T[:3, :3] = euler2mat(*(degrees / 180.0 * np.pi))
    T[:3, 3] = translation
    return T


@settings(deadline=None, max_examples=500)
@given(st.lists(COMPONENT, min_size=4, max_size=4).filter(lambda q: np.linalg.norm(q) > 0.1))
@example([1.0, 0.0, 0.0, 0.0])
@example([0.7071, 0.0, 0.7071, 0.0])  # the angles' own singularity
@example([0.5, 0.5, 0.5, 0.5])
def test_pose_has_the_bits_of_the_detour_through_numpy(quaternion: list[float]) -> None:
    translation = np.array([0.1, -0.2, 0.3])
    expected = pose_through_numpy_scalars(translation, np.array(quaternion))
    for given_as in (quaternion, np.array(quaternion), tuple(quaternion)):
        assert pose_matrix(translation, given_as).tobytes() == expected.tobytes()


def test_poses_of_many_views_are_those_of_each(box_world) -> None:
    dataset = GraspNetDataset(box_world.root, "realsense")
    together = dataset.table_poses(100)
    folder = dataset.scene_dir(100)
    first, poses = (
        read_matrix(folder / "cam0_wrt_table.npy", (4, 4)),
        read_matrix(folder / "camera_poses.npy", (256, 4, 4)),
    )
    for view in range(256):
        expected = (first @ poses[view]).tobytes()
        assert together.T_table_camera(view).tobytes() == dataset.T_table_camera(100, view).tobytes() == expected
    with pytest.raises(DatasetError, match="not 256"):
        together.T_table_camera(256)


@pytest.mark.parametrize("pose", ["1 2", "nan 0 0", "0 0 0 0", "inf 0 0"])
def test_broken_positions_are_refused(tmp_path: Path, pose: str) -> None:
    path = tmp_path / "0000.xml"
    path.write_text(
        f"<scene><obj><obj_id>1</obj_id><pos_in_world>{pose}</pos_in_world>"
        "<ori_in_world>1 0 0 0</ori_in_world></obj></scene>"
    )
    with pytest.raises(DatasetError, match="object 1"):
        read_annotation(path)
