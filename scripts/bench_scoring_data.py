"""What bench_scoring.py measures on: scenes in the official layout, and dumps of seeded grasps, good and bad."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from grasping import protocol
from grasping.geometry import ObjectGeometry, load_object
from grasping.grasps import Grasps
from pipeline.datasets.graspnet import GraspNetDataset

FloatArray = NDArray[np.float64]

CAMERA = "realsense"
OBJECTS = 9
POOL = 6  # grasps sampled for each that a view is given
CLEAR_BONUS = 0.12  # by which the confidence of a grasp that hits nothing is raised


@dataclass(frozen=True, eq=False)
class Scene:
    """One scene: its number, objects (loaded through the cache) and where they stand on the table."""

    number: int
    objects: list[ObjectGeometry]
    T_table_object: FloatArray


@dataclass(frozen=True, eq=False)
class View:
    """What both scorers are given for one view."""

    grasps: Grasps
    objects: list[ObjectGeometry]
    T_camera_object: NDArray[np.float32]
    T_camera_table: FloatArray


def make_dataset(folder: Path, scenes: int) -> Path:
    """Synthesize scenes of the test split with nine objects each (256 annotated views, one of them rendered)."""
    from pipeline.datasets.synthetic import synthesize

    root = folder / f"dataset-{scenes}"
    numbers = range(100, 100 + scenes)
    synthesize(root, scenes=numbers, views=(0,), seed=3, seen_pool=14, objects_per_scene=(OBJECTS, OBJECTS), workers=2)
    return root


def read_scenes(root: Path, cache: Path, most: int) -> list[Scene]:
    """Load up to so many scenes of a dataset."""
    dataset = GraspNetDataset(root, CAMERA)
    scenes = []
    for number in dataset.scene_ids()[:most]:
        objects = [load_object(dataset.model_dir(i), i, cache) for i in dataset.object_ids(number)]
        poses = dataset.T_table_camera(number, 0) @ dataset.object_poses(number, 0).astype(np.float64)
        scenes.append(Scene(number, objects, poses))
    return scenes


def write_dumps(root: Path, scenes: list[Scene], out: Path, views: int, candidates: int) -> None:
    """Write every scene's first views, ``candidates`` grasps each, once: the same arguments give the same files."""
    dataset = GraspNetDataset(root, CAMERA)
    for scene in scenes:
        folder = out / f"scene_{scene.number:04d}" / CAMERA
        if (folder / f"{views - 1:04d}.npy").is_file():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(scene.number)
        pool = _pool(scene, POOL * candidates, rng)
        worth = _worth(pool, scene)
        for view in range(views):
            some = rng.permutation(len(pool))[:candidates]
            array = pool[some].transformed(np.linalg.inv(dataset.T_table_camera(scene.number, view))).to_array()
            array[:, 0] = 0.9 * rng.random(candidates) + CLEAR_BONUS * worth[some]
            np.save(folder / f"{view:04d}.npy", array)


def read_view(root: Path, scene: Scene, dump: Path, view: int) -> View:
    """Read one view's dump and poses."""
    dataset = GraspNetDataset(root, CAMERA)
    return View(
        Grasps.load(dump / f"scene_{scene.number:04d}" / CAMERA / f"{view:04d}.npy"),
        scene.objects,
        dataset.object_poses(scene.number, view),
        np.asarray(np.linalg.inv(dataset.T_table_camera(scene.number, view)), np.float64),
    )


def _pool(scene: Scene, count: int, rng: np.random.Generator) -> Grasps:
    """Grasps in the table frame, shared out evenly among the objects."""
    each = -(-count // len(scene.objects))
    parts = [_across(g, T, each, rng) for g, T in zip(scene.objects, scene.T_table_object, strict=True)]
    return Grasps.concatenate(parts)


def _worth(pool: Grasps, scene: Scene) -> FloatArray:
    """1 where a grasp hits nothing and has something between its fingers, else 0."""
    models = [g.points @ T[:3, :3].T + T[:3, 3] for g, T in zip(scene.objects, scene.T_table_object, strict=True)]
    owner = protocol.assign(pool.translation, models)
    collided, empty = protocol.collisions(pool, owner, models, np.eye(4))
    return (~(collided | empty)).astype(float)


def _across(geometry: ObjectGeometry, T_table_object: FloatArray, count: int, rng: np.random.Generator) -> Grasps:
    """Grasps that close across an object's thickness, from a surface cell along its gradient, tilted more or less."""
    sdf = geometry.sdf
    assert sdf is not None
    values, size, edge = np.asarray(sdf.values), np.array(sdf.values.shape), sdf.resolution
    cells = np.argwhere(np.abs(values[1:-1, 1:-1, 1:-1]) < 0.6 * edge) + 1
    cells = cells[rng.integers(0, len(cells), count)]
    steps = np.eye(3, dtype=int)
    gradient = np.stack([values[tuple((cells + s).T)] - values[tuple((cells - s).T)] for s in steps], axis=1)
    axis = _unit(-_unit(gradient + 1e-12) + rng.normal(size=(count, 3)) * rng.choice([0.02, 0.1, 0.4], (count, 1)))
    start = sdf.origin + edge * cells
    reach = np.arange(0, 0.12, 0.5 * edge)
    line = np.rint((start[:, None] + axis[:, None] * reach[:, None] - sdf.origin) / edge).astype(int)
    along = values[tuple(np.clip(line, 0, size - 1).transpose(2, 0, 1))]
    through = (np.cumsum(along < -0.3 * edge, axis=1) > 0) & (along > 0)
    thickness = np.where(through.any(axis=1), reach[through.argmax(axis=1)], 0.05)

    R, t = T_table_object[:3, :3], T_table_object[:3, 3]
    centre, axis = (start + axis * thickness[:, None] / 2) @ R.T + t, axis @ R.T
    down = np.array([0.0, 0.0, -1.0]) + rng.normal(size=(count, 3)) * rng.choice([0.3, 1.0], (count, 1))
    approach = _unit(down - (down * axis).sum(axis=1, keepdims=True) * axis)
    depth = rng.choice([0.01, 0.02, 0.03, 0.04], count)
    return Grasps(
        confidence=np.zeros(count),
        width=np.minimum(thickness + rng.uniform(0.005, 0.04, count), 0.1),
        height=np.full(count, 0.02),
        depth=depth,
        rotation=np.stack([approach, axis, np.cross(approach, axis)], axis=2),
        translation=centre - approach * depth[:, None] * rng.choice([1.0, 0.7], (count, 1)),
        object_id=np.full(count, geometry.object_id),
    )


def _unit(vectors: FloatArray) -> FloatArray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
