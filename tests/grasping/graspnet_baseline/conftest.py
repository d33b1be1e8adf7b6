"""The real weights, and a real view, where they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.io import loadmat

from grasping.clouds import backproject


@pytest.fixture(scope="session")
def real_weights(real_data: Path) -> Path:
    path = real_data / "weights" / "graspnet_baseline" / "grasp.pth"
    if not path.is_file():
        pytest.skip("real data is not ours to ship: it holds no trained weights of GraspNet-baseline")
    return path


@pytest.fixture(scope="session")
def kinect_view(real_data: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The real Kinect view within its workspace mask: ``(N, 3)`` metres, and the object of each point."""
    folder = real_data / "frames" / "graspnet_kinect"
    if not folder.is_dir():
        pytest.skip("real data is not ours to ship: it holds no Kinect view")
    depth = np.asarray(Image.open(folder / "depth.png")).astype(np.float64)
    meta = loadmat(folder / "meta.mat")
    inside = (np.asarray(Image.open(folder / "workspace_mask.png")) > 0) & (depth > 0)
    points = backproject(depth / float(meta["factor_depth"].item()), meta["intrinsic_matrix"])[inside]
    label = np.asarray(Image.open(folder / "label_rendered.png")).astype(np.int64)
    return points, label[inside] - 1
