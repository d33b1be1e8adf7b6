"""Stage: dataset views -> per-object partial clouds and background.

Reads
    a dataset in GraspNet-1Billion's layout: depth, labels, intrinsics, poses (:mod:`pipeline.datasets.graspnet`).
Writes
    ``observations/scene_SSSS/<camera>/VVVV.npz`` (:class:`pipeline.cloud_files.Observation`): camera frame, metres.

:func:`object_clouds` is the one place where depth and labels become clouds, for the runs' observations as for the
training pairs, so that networks are trained on what they will meet.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from grasping.clouds import voxel_downsample
from grasping.transforms import transform_points
from pipeline.artifacts import FileHashes, fingerprint
from pipeline.cloud_files import OK, ObjectClouds, Observation, save_observation
from pipeline.config import Experiment
from pipeline.datasets.graspnet import DatasetError, GraspNetDataset, View
from pipeline.run_folder import RunFolder, unit_folder, view_file
from pipeline.selection import SceneUnit
from pipeline.units import Plan

VERSION = 1
OBSERVATION_VOXEL = 0.003

# The part of the table that belongs to the scene, in the table frame, metres: (low, high) corners. Sideways it is
# the protocol's table slab: in GraspNet-1Billion objects stand up to 0.35 m from the table frame's origin.
WORKSPACE = (np.array([-0.5, -0.5, -0.02]), np.array([0.5, 0.5, 0.5]))
# A downsampled point stays when this many others lie within this many voxels of it.
OUTLIER_NEIGHBOURS = 3
OUTLIER_RADIUS_VOXELS = 3.0
NOT_VISIBLE = "no visible points"


def object_clouds(view: View, voxel: float = OBSERVATION_VOXEL, *, background: bool = True) -> Observation:
    """Turn one view's depth and labels into clouds in the camera frame, metres, float32.

    Points are downsampled to one a voxel, then isolated ones (flying pixels) are dropped: see :func:`clean_cloud`.
    Background is cut to :data:`WORKSPACE`; objects are not, since their labels say that they belong.

    Args:
        view: one dataset view.
        voxel: edge of the downsampling grid, metres.
        background: whether to make the background as well, which takes most of the time (pairs have no use for it).

    Returns:
        One cloud for each of the scene's objects, in the dataset's order. An object of which nothing is seen keeps its
        place with ``(0, 3)`` points and the status :data:`NOT_VISIBLE`. ``background`` is ``(0, 3)`` if not wanted.
    """
    seen = np.isfinite(view.depth) & (view.depth > 0)
    clouds = tuple(
        clean_cloud(_pixels_to_points(view, seen & (view.label == object_id + 1)), voxel)
        for object_id in view.object_ids
    )
    surroundings = np.zeros((0, 3), np.float32)
    if background:
        points = _pixels_to_points(view, seen & (view.label == 0))
        in_table = transform_points(view.T_table_camera, points)
        inside = np.all((in_table >= WORKSPACE[0]) & (in_table <= WORKSPACE[1]), axis=1)
        surroundings = clean_cloud(points[inside], voxel)
    return Observation(
        objects=ObjectClouds(
            object_ids=np.array(view.object_ids, dtype=np.int64),
            clouds=clouds,
            status=tuple(OK if len(cloud) else NOT_VISIBLE for cloud in clouds),
        ),
        background=surroundings,
        T_table_camera=view.T_table_camera,
    )


def clean_cloud(points: NDArray[np.float32], voxel: float) -> NDArray[np.float32]:
    """Downsample ``(N, 3)`` points to one a voxel and drop the isolated ones.

    A point is isolated when fewer than ``OUTLIER_NEIGHBOURS`` others lie within ``OUTLIER_RADIUS_VOXELS`` voxels (9 mm
    at 3 mm). That is light by intention: a wire of one voxel's width survives, a single flying pixel does not.
    """
    sparse = voxel_downsample(points, voxel)
    if len(sparse) <= OUTLIER_NEIGHBOURS:
        return np.zeros((0, 3), np.float32)
    # The nearest hit is the point itself; a missing neighbour has infinite distance.
    distances, _ = cKDTree(sparse).query(
        sparse, k=[OUTLIER_NEIGHBOURS + 1], distance_upper_bound=OUTLIER_RADIUS_VOXELS * voxel
    )
    return sparse[np.isfinite(distances[:, 0])]


def _pixels_to_points(view: View, chosen: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Back-project the chosen pixels only, as :func:`grasping.clouds.backproject` does for a whole image."""
    v, u = np.nonzero(chosen)
    z = view.depth[v, u].astype(np.float64)
    K = view.intrinsics
    return np.stack([(u - K[0, 2]) / K[0, 0] * z, (v - K[1, 2]) / K[1, 1] * z, z], axis=1).astype(np.float32)


@dataclass(frozen=True)
class Job:
    """One unit: the views of one scene and camera."""

    root: Path
    unit: SceneUnit
    out: Path


def plans(experiment: Experiment, run: RunFolder, units: list[SceneUnit], hashes: FileHashes) -> list[Plan]:
    """Return one plan a scene and camera."""
    datasets: dict[str, GraspNetDataset] = {
        camera: GraspNetDataset(experiment.dataset.root, camera) for camera in experiment.dataset.cameras
    }
    # As text: of a full split they are 400,000, and a Path takes 1 kB.
    files = {
        unit: [[str(path) for path in datasets[unit.camera].view_files(unit.scene, view)] for view in unit.views]
        for unit in units
    }
    hashes.read(path for of_views in files.values() for paths in of_views for path in paths)
    result = []
    for unit in units:
        made_from = {
            "stage": "observe",
            "version": VERSION,
            "views": list(unit.views),
            "files": fingerprint([hashes.many(paths) for paths in files[unit]]),
            "voxel": OBSERVATION_VOXEL,
        }
        folder = unit_folder(run.observations, unit.scene, unit.camera)
        job = Job(experiment.dataset.root, unit, folder)
        result.append(Plan("observe", unit.label, folder, unit.scene, unit.camera, made_from, observe_unit, job))
    return result


def observe_unit(job: Job) -> list[dict[str, Any]]:
    """Write one unit's observations; a view that cannot be read is a problem, and the others go on."""
    dataset = GraspNetDataset(job.root, job.unit.camera)
    problems: list[dict[str, Any]] = []
    for view in job.unit.views:
        try:
            seen = dataset.view(job.unit.scene, view)
        except DatasetError as error:
            problems.append({"view": view, "object": None, "reason": str(error)})
            continue
        strange = sorted(set(np.unique(seen.label).tolist()) - {0, *(object_id + 1 for object_id in seen.object_ids)})
        if strange:
            reason = f"labels {strange} belong to no object of the annotation; their pixels are left out"
            problems.append({"view": view, "object": None, "reason": reason})
        observation = object_clouds(seen, OBSERVATION_VOXEL)
        if not len(observation.objects.points):
            problems.append(
                {"view": view, "object": None, "reason": "no object has a visible point; it counts as zero"}
            )
        save_observation(view_file(job.out, view, ".npz"), observation)
    return problems
