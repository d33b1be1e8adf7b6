"""True surfaces of a dataset's models, sampled once and kept in the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from grasping.transforms import transform_points
from pipeline.artifacts import FileHashes, atomic_write
from pipeline.datasets.graspnet import GraspNetDataset
from pipeline.pairs import SURFACE_POINTS, object_surface

SURFACE_VERSION = 1  # raise when object_surface gives other points


def model_files(dataset: GraspNetDataset, object_id: int) -> list[Path]:
    """List the files that define an object's true geometry; the signed distances may be absent."""
    folder = dataset.model_dir(object_id)
    return [folder / "nontextured.ply", folder / "textured.sdf"]


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
