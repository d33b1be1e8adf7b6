"""A small dump of sampled true grasps, most of them shaken, its result, and copies to be broken."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets.graspnet import GraspNetDataset
from pipeline.dump_scene import SceneTruth
from pipeline.score_dump import Request, Scored, prepare_models, scene_jobs, score_dump
from pipeline.true_grasps import sample_scene

CAMERA = "realsense"


@pytest.fixture(scope="session")
def requested(tiny_dataset: Path, tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Request:
    """A dump of both scenes and views of the tiny dataset: sampled true grasps, most of them shaken."""
    dump = tmp_path_factory.mktemp("dump")
    request = Request(dump, tiny_dataset, CAMERA, tiny_cache)
    dataset = GraspNetDataset(tiny_dataset, CAMERA)
    rng = np.random.default_rng(3)
    for scene in dataset.scene_ids():
        ids = dataset.object_ids(scene)
        objects = prepare_models(dataset, sorted(ids), tiny_cache, 1)
        (job,) = scene_jobs(request, {scene: (0, 128)}, {scene: ids}, objects)
        truth = SceneTruth(job)
        sampled = sample_scene(job, truth)
        for view in (0, 128):
            grasps = sampled.transformed(truth.poses(view)[1])
            grasps = grasps[rng.permutation(len(grasps))[:300]]
            shake = rng.choice([0.0, 0.004, 0.02], size=(len(grasps), 1))
            grasps = replace(
                grasps,
                translation=grasps.translation + rng.normal(size=(len(grasps), 3)) * shake,
                width=grasps.width * rng.uniform(0.9, 1.6, len(grasps)),
                confidence=rng.random(len(grasps)),
            )
            save(dump, scene, view, grasps.to_array())
    return request


def save(dump: Path, scene: int, view: int, array: np.ndarray) -> Path:
    path = dump / f"scene_{scene:04d}" / CAMERA / f"{view:04d}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    return path


@pytest.fixture(scope="session")
def scored(requested: Request) -> Scored:
    return score_dump(requested, say=lambda line: None)


@pytest.fixture
def own(requested: Request, tmp_path: Path) -> Request:
    """The same dump, to be broken."""
    shutil.copytree(requested.dump, tmp_path / "dump")
    return replace(requested, dump=tmp_path / "dump")


@pytest.fixture
def own_dataset(own: Request, tmp_path: Path) -> Request:
    """The same dump and dataset, both to be broken."""
    shutil.copytree(own.dataset, tmp_path / "dataset")
    return replace(own, dataset=tmp_path / "dataset")
