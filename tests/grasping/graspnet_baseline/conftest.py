"""A network with weights drawn by lot, and the real ones where they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.io import loadmat

from grasping.clouds import backproject
from grasping.generators.graspnet_baseline.network import GraspNetBaseline


def _drawn(seed: int = 0) -> GraspNetBaseline:
    """Weights by lot, with batch norms that have something to say."""
    generator = torch.Generator().manual_seed(seed)
    network = GraspNetBaseline()
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2.0, generator=generator)
        elif value.ndim > 1:  # a ReLU halves the variance
            value.normal_(0.0, (2.0 / value[0].numel()) ** 0.5, generator=generator)
        elif value.is_floating_point():
            value.normal_(float(name.endswith("weight")), 0.1, generator=generator)
    return network


@pytest.fixture(scope="session")
def drawn_network() -> Callable[..., GraspNetBaseline]:
    return _drawn


@pytest.fixture(scope="session")
def drawn_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "checkpoint-rs.tar"
    torch.save({"epoch": 18, "model_state_dict": _drawn().state_dict()}, path)
    return path


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
