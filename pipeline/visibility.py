"""How much of each object a view shows: part of the stage ``explain``, the same for every arm.

Reads
    ``observations/scene_SSSS/<camera>/VVVV.npz`` and the dataset's models, poses and intrinsics.
Writes
    ``visibility/scene_SSSS/<camera>/visibility.parquet``: view, object, visible_fraction; one row an observed view and
    object of the scene.

The visible fraction of an object is, of the true surface that this camera would see if the object stood alone, the
share that was observed: that has an observed point of the object within :data:`OBSERVED_WITHIN`. What lies outside the
image is not seen alone either. An object of which nothing was observed has 0; NaN stands where there was nothing to see
(the object is out of the image) or the true surface cannot be had.

What would be seen alone is told by a z-buffer of surface samples: the nearest of the samples in each cell of a pixel
grid. Behind a cell that the near side happens to miss the far side would show through, so cells are as large as the
samples are sparse (:data:`SAMPLES_PER_CELL`). Each cell counts once, so the share is one of the image, as if
rendered pixels were counted; against rendering (``tests/pipeline/test_visibility.py``) it is off by 0.004 on average.
The 5 mm reach a little behind the edge of what hides an object, and over small holes of the sensor: the share of its
pixels that are observed is lower, by 0.07 on average. A sensor that sees a surface more than 5 mm off sees nothing, by
this measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from scipy.spatial import cKDTree

from grasping.transforms import transform_points
from pipeline.artifacts import FileHashes, atomic_write
from pipeline.cloud_files import load_observation
from pipeline.config import Experiment
from pipeline.datasets.graspnet import DatasetError, GraspNetDataset
from pipeline.run_folder import RunFolder, unit_folder, view_file
from pipeline.selection import SceneUnit
from pipeline.truth import SURFACE_VERSION, TrueSurfaces
from pipeline.units import Known, Plan, blocked_by
from pipeline.view_files import has_view

VERSION = 1
VISIBILITY_FILE = "visibility.parquet"
OBSERVED_WITHIN = 0.005
"""Metres."""
SAMPLES_PER_CELL = 8
"""Samples of a surface that faces the camera, on average: exp(-8) of its cells have none and let the far side show. A
tilted surface has more of them."""
_PROBES = 1000  # samples whose nearest neighbours tell the density

VISIBILITY_COLUMNS = pa.schema([("view", pa.int16()), ("object", pa.int16()), ("visible_fraction", pa.float64())])


def visible_fraction(
    observed: ArrayLike,
    surface: ArrayLike,
    density: float,
    intrinsics: ArrayLike,
    image_size: tuple[int, int],
) -> float:
    """Return the share of what one camera would see of an object alone that it did observe; NaN for nothing to see.

    Args:
        observed: ``(N, 3)`` the object's observed points, camera frame, metres.
        surface: ``(M, 3)`` samples of its whole true surface, camera frame, metres.
        density: samples a square metre, see :func:`sampling_density`.
        intrinsics: ``(3, 3)``, pixels.
        image_size: width and height, pixels.
    """
    alone = seen_alone(surface, density, intrinsics, image_size)
    points = np.asarray(observed, dtype=np.float64).reshape(-1, 3)
    if len(alone) == 0:
        return float("nan")
    if len(points) == 0:
        return 0.0
    distance, _ = cKDTree(points).query(alone, distance_upper_bound=OBSERVED_WITHIN)
    return float(np.isfinite(distance).mean())


def seen_alone(
    surface: ArrayLike, density: float, intrinsics: ArrayLike, image_size: tuple[int, int]
) -> NDArray[np.float64]:
    """Return the surface samples ``(V, 3)`` that a camera sees of an object that stands alone, one a cell.

    Args: see :func:`visible_fraction`.
    """
    points = np.asarray(surface, dtype=np.float64).reshape(-1, 3)
    points = points[points[:, 2] > 0]
    K = np.asarray(intrinsics, dtype=np.float64)
    on_plane = points[:, :2] / points[:, 2:]
    pixels = on_plane * [K[0, 0], K[1, 1]] + K[:2, 2]  # centres of pixels are whole numbers
    inside = np.all((pixels >= -0.5) & (pixels < np.array(image_size) - 0.5), axis=1)
    points, on_plane = points[inside], on_plane[inside]
    if len(points) == 0:
        return points
    # As large as that many samples are apart at the object's middle; near parts have somewhat fewer, far ones more.
    cell = np.sqrt(SAMPLES_PER_CELL / density) / np.median(points[:, 2])
    cells = np.floor(on_plane / cell).astype(np.int64)
    cells -= cells.min(axis=0)
    columns = cells[:, 1].max() + 1
    key = cells[:, 0] * columns + cells[:, 1]
    nearest = np.full((cells[:, 0].max() + 1) * columns, np.inf)
    np.minimum.at(nearest, key, points[:, 2])
    return points[points[:, 2] == nearest[key]]


def sampling_density(surface: ArrayLike) -> float:
    """Samples a square metre of a surface that was sampled uniformly by area, from how near they lie to one another.

    The mean distance to the nearest of points strewn in a plane is half the root of the area of each.

    Args:
        surface: ``(M, 3)`` metres, M at least 2.
    """
    points = np.asarray(surface, dtype=np.float64).reshape(-1, 3)
    distance, _ = cKDTree(points).query(points[:: max(1, len(points) // _PROBES)], k=2)
    return float(0.25 / distance[:, 1].mean() ** 2)


@dataclass(frozen=True)
class Job:
    """One unit: the views of one scene and camera."""

    unit: SceneUnit
    observations: Path
    out: Path
    surfaces: TrueSurfaces


def plans(
    experiment: Experiment, run: RunFolder, units: Sequence[SceneUnit], hashes: FileHashes, known: Known
) -> list[Plan]:
    """Return one plan a scene and camera."""
    return [_plan(experiment, run, unit, hashes, known) for unit in units]


def _plan(experiment: Experiment, run: RunFolder, unit: SceneUnit, hashes: FileHashes, known: Known) -> Plan:
    observations = unit_folder(run.observations, unit.scene, unit.camera)
    out = unit_folder(run.visibility, unit.scene, unit.camera)
    observed = known.need(observations, f"{observations}: no observations; run `observe` first")
    surfaces = TrueSurfaces(GraspNetDataset(experiment.dataset.root, unit.camera), experiment.cache_folder(), hashes)
    blocked = blocked_by([observed])
    models: str | None = None
    try:
        surfaces = surfaces.of_scene(unit.scene)
        models = surfaces.made_from(unit.scene)
    except DatasetError as error:
        blocked = str(error)
    made_from = {
        "stage": "explain",
        "version": VERSION,
        "observations": observed.fingerprint,
        "models": models,
        "surfaces": SURFACE_VERSION,
        "observed_within": OBSERVED_WITHIN,
        "samples_per_cell": SAMPLES_PER_CELL,
    }
    job = Job(unit, observations, out, surfaces)
    return Plan(
        "explain",
        f"visibility/{unit.label}",
        out,
        unit.scene,
        unit.camera,
        made_from,
        visibility_unit,
        job,
        needs=(observed,),
        blocked=blocked,
    )


def visibility_unit(job: Job) -> list[dict[str, Any]]:
    """Write the visible fractions of one unit; an object or view that has none is a problem, with its reason."""
    dataset, scene = job.surfaces.dataset, job.unit.scene
    problems: list[dict[str, Any]] = []
    surfaces: dict[int, tuple[NDArray[np.float32], float]] = {}
    for object_id in dataset.object_ids(scene):
        try:
            surface = job.surfaces.surface(object_id)
            surfaces[object_id] = surface, sampling_density(surface)
        except (ValueError, OSError) as error:
            problems.append({"view": None, "object": object_id, "reason": f"visible fraction not known: {error}"})
    rows = []
    for view in job.unit.views:
        source = view_file(job.observations, view, ".npz")
        if not has_view(source):
            continue  # the view could not be observed; `observe` has recorded why
        try:
            objects = load_observation(source).objects
            ids = [int(object_id) for object_id in objects.object_ids]
            poses, intrinsics = dataset.object_poses(scene, view, ids), dataset.intrinsics(scene)
            with Image.open(dataset.view_files(scene, view)[0]) as image:
                size = image.size
        except (ValueError, OSError) as error:
            problems.append({"view": view, "object": None, "reason": f"visible fractions not known: {error}"})
            continue
        for object_id, cloud, T in zip(ids, objects.clouds, poses, strict=True):
            share = float("nan")
            if object_id in surfaces:
                surface, density = surfaces[object_id]
                share = visible_fraction(cloud, transform_points(T, surface), density, intrinsics, size)
            rows.append({"view": view, "object": object_id, "visible_fraction": share})
    with atomic_write(job.out / VISIBILITY_FILE) as stream:
        pq.write_table(pa.Table.from_pylist(rows, schema=VISIBILITY_COLUMNS), stream)
    return problems
