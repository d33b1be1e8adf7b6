"""True geometry of a dataset's models through the cache: surfaces sampled once, and objects to score grasps on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from grasping.geometry import GeometryError, ObjectGeometry
from grasping.prepared import prepare_object
from grasping.transforms import transform_points
from pipeline.artifacts import FileHashes, atomic_write, file_hash, fingerprint
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
class FewHashes:
    """Content hashes of a few files, for a worker: those of a whole dataset take longer to send than a unit to make.

    Attributes:
        known: by path; any other file is read when it is asked for.
    """

    known: Mapping[str, str]

    def __call__(self, path: Path) -> str:
        return self.known.get(str(path)) or file_hash(path)


@lru_cache(maxsize=128)  # of 200 kB each
def _stored(path: Path) -> NDArray[np.float32]:
    """Read a derived file, which is named by what it was made from; the views and arms of a scene share it."""
    points = np.load(path, allow_pickle=False)
    points.flags.writeable = False
    return points


@dataclass(frozen=True)
class TrueSurfaces:
    """Surface samples of models, read through a cache.

    Attributes:
        dataset: whose models.
        cache: folder for derived files; entries are named by the model file's content.
        hashes: gives content hashes of the model files.
    """

    dataset: GraspNetDataset
    cache: Path
    hashes: FileHashes | FewHashes

    def of_scene(self, scene: int) -> TrueSurfaces:
        """Return the same to be sent to a worker: with the hashes of one scene's models alone.

        Raises:
            DatasetError: if the scene does not say which objects it has.
        """
        sources = self._sources(scene)
        return replace(self, hashes=FewHashes({str(source): self.hashes(source) for source in sources}))

    def _sources(self, scene: int) -> list[Path]:
        return [self._source(object_id) for object_id in self.dataset.object_ids(scene)]

    def _source(self, object_id: int) -> Path:
        return self.dataset.model_dir(object_id) / "nontextured.ply"

    def made_from(self, scene: int) -> str:
        """Return a fingerprint of the model files of a scene's objects.

        Raises:
            DatasetError: if the scene does not say which objects it has.
        """
        return fingerprint([self.hashes(source) for source in self._sources(scene)])

    def surface(self, object_id: int) -> NDArray[np.float32]:
        """Return ``(16384, 3)`` area-uniform surface points in the object's frame, metres; not to be written to.

        Raises:
            DatasetError: if the model is missing or has no surface.
        """
        source = self._source(object_id)
        try:
            return _stored(self._derived(self.hashes(source), object_id))
        except (OSError, ValueError, EOFError):
            points = object_surface(self.dataset.model_dir(object_id), object_id)
            # Its hash as it is now: a hash that was told before the model changed must not name what others will read.
            with atomic_write(self._derived(file_hash(source), object_id)) as stream:
                np.save(stream, points)
            return points

    def _derived(self, model: str, object_id: int) -> Path:
        return self.cache / "surfaces" / f"{model}_{object_id:03d}_{SURFACE_POINTS}_{SURFACE_VERSION}.npy"

    def posed(self, object_ids: Sequence[int], T_camera_object: NDArray) -> list[NDArray[np.float32]]:
        """Return each object's surface in the camera frame."""
        return [
            transform_points(T, self.surface(int(object_id)))
            for object_id, T in zip(object_ids, T_camera_object, strict=True)
        ]
