"""Training pairs for completion networks: what a view shows of an object, and the object's whole surface.

Reads a dataset (:mod:`pipeline.datasets.graspnet`): views with depth, labels and poses, and the models.
Writes one pair file (``.npz``, no pickles), metres, in the network's frame (:mod:`pipeline.frames`; camera origin):

==================  ======================  =========================================================================
array               shape, type             what
==================  ======================  =========================================================================
format_version      () int64                1
partial_points      (S, 3) float32          the partial clouds one after the other
partial_offsets     (P + 1,) int64          pair p is ``partial_points[offsets[p]:offsets[p + 1]]``
T_net_object        (P, 4, 4) float32       takes ``object_points`` to the partial's frame
object_index        (P,) int32              row of ``object_id`` and ``object_points``
object_id           (K,) int32              ascending
object_points       (K, 16384, 3) float32   area-uniform surface samples, object frame
scene, view         (P,) int32              where the partial was seen
camera, frame       () str                  frame is ``table``
source              () str                  JSON: what the pairs were made from; families by id where they are known
==================  ======================  =========================================================================
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from completion.datasets.pair_format import FORMAT_VERSION, SURFACE_POINTS
from grasping.transforms import pose
from pipeline.artifacts import atomic_write
from pipeline.datasets.graspnet import DatasetError, GraspNetDataset
from pipeline.frames import viewing_frame
from pipeline.observe import object_clouds


@dataclass(frozen=True)
class PairSummary:
    """What :func:`make_pairs` wrote: the file, how many pairs of how many objects, and how many were too small."""

    path: Path
    pairs: int
    objects: int
    too_few_points: int


@dataclass(frozen=True, eq=False)
class _Partial:
    object_id: int
    points: NDArray[np.float32]
    T_net_object: NDArray[np.float32]
    scene: int
    view: int


def make_pairs(
    dataset: GraspNetDataset,
    scenes: Sequence[int],
    views: Sequence[int] | None,
    out: Path,
    *,
    voxel: float = 0.003,
    min_points: int = 64,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> PairSummary:
    """Make one pair of each object in each view that shows at least ``min_points`` downsampled points of it.

    Args:
        dataset: where views and models are read from.
        scenes: scene numbers.
        views: view numbers, the same for all scenes; None = every view that the dataset has rendered.
        out: the ``.npz`` to write, atomically.
        voxel: grid of the partial clouds, metres; the observations of a run use the same.
        min_points: a partial with fewer points is left out, and counted.
        workers: threads; the result does not depend on them.
        progress: called with (views done, views in all).

    Raises:
        DatasetError: for a missing or broken file, or where no pair came out.
    """
    units = [(s, v) for s in scenes for v in (dataset.view_ids(s) if views is None else views)]

    def partials_of(unit: tuple[int, int]) -> tuple[list[_Partial], int]:
        view = dataset.view(*unit)
        clouds = object_clouds(view, voxel, background=False).objects.clouds
        T_net_camera = pose(viewing_frame(view.T_table_camera), np.zeros(3))
        partials = [
            _Partial(
                object_id,
                (cloud.astype(np.float64) @ T_net_camera[:3, :3].T).astype(np.float32),
                (T_net_camera @ T_camera_object).astype(np.float32),
                *unit,
            )
            for object_id, cloud, T_camera_object in zip(view.object_ids, clouds, view.T_camera_object, strict=True)
            if len(cloud) >= min_points
        ]
        return partials, len(clouds) - len(partials)

    partials: list[_Partial] = []
    too_few = 0
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for done, (found, small) in enumerate(pool.map(partials_of, units), start=1):
            partials += found
            too_few += small
            if progress is not None:
                progress(done, len(units))
    if not partials:
        raise DatasetError(
            f"{dataset.root}: no object of scenes {list(scenes)} shows {min_points} points in any view; "
            "name other scenes or views, or lower min_points"
        )

    object_id = sorted({partial.object_id for partial in partials})
    row = {known: index for index, known in enumerate(object_id)}
    source = {
        "dataset": dataset.root.name,
        "scenes": [int(scene) for scene in scenes],
        "views": None if views is None else [int(view) for view in views],
        "voxel": voxel,
        "min_points": min_points,
        "too_few_points": too_few,
        "families": _families(dataset.root, object_id),
    }
    arrays: dict[str, NDArray | np.int64] = dict(
        format_version=np.int64(FORMAT_VERSION),
        partial_points=np.concatenate([partial.points for partial in partials]),
        partial_offsets=np.cumsum([0, *(len(partial.points) for partial in partials)], dtype=np.int64),
        T_net_object=np.stack([partial.T_net_object for partial in partials]),
        object_index=np.array([row[partial.object_id] for partial in partials], np.int32),
        object_id=np.array(object_id, np.int32),
        object_points=np.stack([object_surface(dataset.model_dir(known), known) for known in object_id]),
        scene=np.array([partial.scene for partial in partials], np.int32),
        view=np.array([partial.view for partial in partials], np.int32),
        camera=np.array(dataset.camera),
        frame=np.array("table"),
        source=np.array(json.dumps(source)),
    )
    with atomic_write(Path(out)) as stream:
        np.savez(stream, allow_pickle=False, **arrays)
    return PairSummary(Path(out), len(partials), len(object_id), too_few)


def _families(root: Path, object_ids: Sequence[int]) -> dict[str, str]:
    """Families of objects as a synthesized dataset's manifest names them; empty for other datasets."""
    try:
        objects = json.loads((root / "manifest.json").read_text(encoding="utf-8"))["objects"]
        return {str(known): str(objects[f"{known:03d}"]["family"]) for known in object_ids}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def object_surface(model_dir: Path, object_id: int, count: int = SURFACE_POINTS) -> NDArray[np.float32]:
    """Return ``(count, 3)`` surface samples of a model in its own frame, the same ones at every call."""
    from grasping.geometry import read_mesh

    path = model_dir / "nontextured.ply"
    if not path.is_file():
        raise DatasetError(
            f"{path}: no such model; fetch the dataset's models, or leave scenes with object {object_id} out"
        )
    vertices, faces = read_mesh(path)
    try:
        return sample_surface(vertices, faces, count, np.random.default_rng([SURFACE_POINTS, object_id]))
    except ValueError as error:
        raise DatasetError(f"{path}: {error}; fetch the model again") from None


def sample_surface(
    vertices: NDArray[np.float64], faces: NDArray[np.int64], count: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Draw ``(count, 3)`` points from a triangle mesh, uniform by area.

    Raises:
        ValueError: if the mesh has no area.
    """
    corners = np.asarray(vertices, dtype=np.float64)[np.asarray(faces)]
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2.0
    total = float(area.sum())
    if not np.isfinite(total) or total <= 0:
        raise ValueError("the mesh has no surface")
    chosen = rng.choice(len(area), size=count, p=area / total)
    u, v = rng.random((2, count, 1))
    beyond = u + v > 1.0  # fold the parallelogram's far half back onto the triangle
    u, v = np.where(beyond, 1.0 - u, u), np.where(beyond, 1.0 - v, v)
    return (a[chosen] + u * (b - a)[chosen] + v * (c - a)[chosen]).astype(np.float32)
