"""Small pair files made in code (boxes and cylinders on a table, seen from one side) and untrained checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from completion import checkpoint
from completion.networks import PCN

_SMALL_PCN = {
    "num_coarse": 16,
    "grid": 2,
    "encoder_channels": [8, 12, 16, 20],
    "decoder_channels": 16,
    "folding_channels": 12,
}


def _surface(kind: str, size: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points and outward normals on a box or a cylinder of the given extents."""
    if kind == "box":
        area = np.array([size[1] * size[2], size[0] * size[2], size[0] * size[1]])
        axis = rng.choice(3, count, p=area / area.sum())
        points, normals = rng.uniform(-0.5, 0.5, (count, 3)), np.zeros((count, 3))
        points[np.arange(count), axis] = rng.choice([-0.5, 0.5], count)
        normals[np.arange(count), axis] = np.sign(points[np.arange(count), axis])
        return points * size, normals
    radius, height = size[0] / 2, size[2]
    turn, on_side = rng.uniform(0, 2 * np.pi, count), rng.random(count) < height / (height + radius)
    r = np.where(on_side, radius, radius * np.sqrt(rng.random(count)))
    z = np.where(on_side, rng.uniform(-0.5, 0.5, count), rng.choice([-0.5, 0.5], count)) * height
    side = np.stack([np.cos(turn), np.sin(turn), 0 * turn], axis=1)
    cap = np.stack([0 * turn, 0 * turn, np.sign(z)], axis=1)
    return np.stack([r * np.cos(turn), r * np.sin(turn), z], axis=1), np.where(on_side[:, None], side, cap)


def pair_arrays(objects: int = 3, views: int = 4, seed: int = 0, samples: int = 4096) -> dict[str, np.ndarray]:
    """The arrays of a pair file: each object turned about z, and of it the points that face the camera."""
    rng = np.random.default_rng(seed)
    clouds, partials, poses, index = [], [], [], []
    for k in range(objects):
        points, normals = _surface("box" if k % 2 else "cylinder", rng.uniform(0.03, 0.15, 3), samples, rng)
        clouds.append(points)
        for _ in range(views):
            angle = rng.uniform(0, 2 * np.pi)
            T = np.eye(4)
            T[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
            T[:3, 3] = [0.6, rng.uniform(-0.1, 0.1), -0.4]
            seen = points @ T[:3, :3].T + T[:3, 3]
            seen = seen[np.einsum("ij,ij->i", normals @ T[:3, :3].T, seen) < 0]
            partials.append(seen[rng.permutation(len(seen))[: rng.integers(100, 1500)]])
            poses.append(T)
            index.append(k)
    return {
        "format_version": np.array(1),
        "partial_points": np.concatenate(partials).astype(np.float32),
        "partial_offsets": np.cumsum([0] + [len(p) for p in partials]).astype(np.int64),
        "T_net_object": np.array(poses, np.float32),
        "object_index": np.array(index, np.int32),
        "object_id": np.arange(objects, dtype=np.int32),
        "object_points": np.array(clouds, np.float32),
        "scene": np.zeros(len(index), np.int64),
        "view": np.arange(len(index)),
        "camera": np.array("realsense"),
        "frame": np.array("table"),
        "source": np.array("{}"),
    }


@pytest.fixture
def write_pairs(tmp_path: Path) -> Callable[..., Path]:
    """``write_pairs(name, **overrides of arrays, objects=, views=, seed=)`` -> path."""

    def write(name: str = "pairs.npz", objects: int = 3, views: int = 4, seed: int = 0, **changes: object) -> Path:
        arrays: dict = {**pair_arrays(objects, views, seed), **changes}
        np.savez(tmp_path / name, **{key: value for key, value in arrays.items() if value is not None})
        return tmp_path / name

    return write


@pytest.fixture(scope="session")
def inference_config() -> dict[str, Any]:
    """What ``config.json`` must hold, for a small PCN of 64 -> 64 points."""
    return {
        "network": {"name": "pcn", "parameters": _SMALL_PCN},
        "input_points": 64,
        "output_points": 64,
        "unit": "m",
        "normalisation": "partial",
        "frame": "table",
        "merge": "append",
        "loss": {"name": "cd_l1", "parameters": {}},
    }


@pytest.fixture(scope="session")
def fresh_network() -> Callable[[], PCN]:
    """``fresh_network()`` -> the small PCN, always with the same weights."""

    def make() -> PCN:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return PCN(**_SMALL_PCN)

    return make


@pytest.fixture(scope="session")
def save_checkpoint(inference_config: dict[str, Any], fresh_network: Callable[[], PCN]) -> Callable[..., Path]:
    """``save_checkpoint(folder, **changes of config.json)`` -> folder, of an untrained network."""

    def save(folder: Path, **changes: Any) -> Path:
        return checkpoint.save(folder, fresh_network(), {**inference_config, **changes}, "# card\n")

    return save


@pytest.fixture(scope="session")
def pair_file() -> Callable[..., Path]:
    """``pair_file(path, objects=, views=, seed=)`` -> path, for fixtures that outlive a test."""

    def write(path: Path, objects: int = 3, views: int = 4, seed: int = 0) -> Path:
        np.savez(path, **pair_arrays(objects, views, seed))
        return path

    return write


@pytest.fixture(scope="session")
def training_keys() -> Callable[..., dict[str, Any]]:
    """``training_keys(pair file, **changes)`` -> the keys of a training file that takes a moment."""

    def keys(pairs: Path, **changes: Any) -> dict[str, Any]:
        content = {
            "pairs": [str(pairs)],
            "network": {"name": "pcn", "parameters": _SMALL_PCN},
            "loss": {"name": "cd_l1"},
            "steps": 6,
            "batch_size": 4,
            "input_points": 64,
            "target_points": 64,
            "warmup_steps": 2,
            "log_every": 2,
            "checkpoint_every": 2,
        }
        return {**content, **changes}

    return keys
