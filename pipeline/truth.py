"""True geometry of a dataset's models through the cache: surfaces sampled once, and objects to score grasps on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from grasping.geometry import GeometryError, ObjectGeometry
from grasping.prepared import prepare_object
from grasping.transforms import transform_points
from pipeline.artifacts import FileHashes, atomic_write
from pipeline.datasets.graspnet import GraspNetDataset
from pipeline.pairs import SURFACE_POINTS, object_surface

SURFACE_VERSION = 1  # raise when object_surface gives other points


def model_files(dataset: GraspNetDataset, object_id: int) -> list[Path]:
    """List the files that define an object's true geometry; the signed distances may be absent."""
    folder = dataset.model_dir(object_id)
    return [folder / "nontextured.ply", folder / "textured.sdf"]


def scored_object(dataset: GraspNetDataset, object_id: int, cache: Path) -> tuple[ObjectGeometry, tuple[str, ...]]:
    """Return an object's geometry and what is odd about its files, by the rules of :mod:`grasping.prepared`.

    Distances that cannot be read are made anew from the mesh; how near a surface comes to its grid's border is left to
    ``score-dump`` to say. Other than in ``score-dump``, a scene with a model that
    is missing, or that nothing can be closed on, is refused: arms are compared on whole scenes only.

    Raises:
        GeometryError: if the model cannot be used.
    """
    files = [path.stat() if path.is_file() else None for path in model_files(dataset, object_id)]
    state = tuple((file.st_size, file.st_mtime_ns) if file else None for file in files)
    return _scored_object(dataset.model_dir(object_id), object_id, cache, state)


@lru_cache(maxsize=128)
def _scored_object(
    folder: Path, object_id: int, cache: Path, state: tuple[tuple[int, int] | None, ...]
) -> tuple[ObjectGeometry, tuple[str, ...]]:
    """Cached while the files keep size and time (``state``)."""
    prepared = prepare_object(folder, object_id, cache)
    if not (prepared.usable and prepared.closable):
        raise GeometryError("; ".join(prepared.problems))
    return prepared.open(), prepared.problems


@dataclass(frozen=True)
class TrueSurfaces:
    """Surface samples of models, read through a cache.

    Attributes:
        dataset: whose models.
        cache: folder for derived files; entries are named by the model file's content.
        hashes: content hashes of the model files.
    """

    dataset: GraspNetDataset
    cache: Path
    hashes: FileHashes

    def made_from(self, scene: int) -> str:
        """Return a fingerprint of the model files of a scene's objects.

        Raises:
            DatasetError: if the scene does not say which objects it has.
        """
        sources = [
            self.dataset.model_dir(object_id) / "nontextured.ply" for object_id in self.dataset.object_ids(scene)
        ]
        return self.hashes.many(sources)

    def surface(self, object_id: int) -> NDArray[np.float32]:
        """Return ``(16384, 3)`` area-uniform surface points in the object's frame, metres.

        Raises:
            DatasetError: if the model is missing or has no surface.
        """
        source = self.dataset.model_dir(object_id) / "nontextured.ply"
        stored = (
            self.cache / "surfaces" / f"{self.hashes(source)}_{object_id:03d}_{SURFACE_POINTS}_{SURFACE_VERSION}.npy"
        )
        try:
            return np.load(stored, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            points = object_surface(self.dataset.model_dir(object_id), object_id)
            with atomic_write(stored) as stream:
                np.save(stream, points)
            return points

    def posed(self, object_ids: Sequence[int], T_camera_object: NDArray) -> list[NDArray[np.float32]]:
        """Return each object's surface in the camera frame."""
        return [
            transform_points(T, self.surface(int(object_id)))
            for object_id, T in zip(object_ids, T_camera_object, strict=True)
        ]
