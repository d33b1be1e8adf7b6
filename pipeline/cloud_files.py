"""One ``.npz`` a view, loose or packed: the clouds of its objects, and, for observations, what lies around them."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts import ArtifactError, atomic_write
from pipeline.view_files import open_view

FORMAT_VERSION = 1
OK = "ok"


@dataclass(frozen=True)
class ObjectClouds:
    """The clouds of one view's objects, in the camera frame.

    Attributes:
        object_ids: ``(K,)`` int64.
        clouds: K arrays ``(N_k, 3)`` float32, metres; empty where there is none.
        status: K texts: ``ok``, or the reason why the cloud is not what it should be.
    """

    object_ids: NDArray[np.int64]
    clouds: tuple[NDArray[np.float32], ...]
    status: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.object_ids) == len(self.clouds) == len(self.status):
            raise ValueError("object_ids, clouds and status must have one entry an object")

    @property
    def points(self) -> NDArray[np.float32]:
        """All objects' points, ``(N, 3)``."""
        return np.concatenate([np.zeros((0, 3), np.float32), *self.clouds])

    @property
    def ids_of_points(self) -> NDArray[np.int64]:
        """The object of every point of :attr:`points`, ``(N,)``."""
        return np.repeat(self.object_ids, [len(cloud) for cloud in self.clouds])


@dataclass(frozen=True)
class Observation:
    """What a camera saw of one view, in the camera frame.

    Attributes:
        objects: partial clouds.
        background: ``(B, 3)`` float32 points of no object (table, surroundings), metres.
        T_table_camera: ``(4, 4)`` float64.
    """

    objects: ObjectClouds
    background: NDArray[np.float32]
    T_table_camera: NDArray[np.float64]


def save_clouds(path: Path, clouds: ObjectClouds) -> None:
    with atomic_write(path) as stream:
        np.savez(stream, allow_pickle=False, **_arrays(clouds))


def save_observation(path: Path, observation: Observation) -> None:
    with atomic_write(path) as stream:
        np.savez(
            stream,
            allow_pickle=False,
            **_arrays(observation.objects),
            background=observation.background.astype(np.float32),
            T_table_camera=observation.T_table_camera,
        )


def load_clouds(path: Path) -> ObjectClouds:
    return _clouds(_read(path))


def load_observation(path: Path) -> Observation:
    arrays = _read(path)
    return Observation(_clouds(arrays), arrays["background"], arrays["T_table_camera"])


def _arrays(clouds: ObjectClouds) -> dict[str, NDArray]:
    return {
        "format_version": np.array(FORMAT_VERSION),
        "object_ids": np.asarray(clouds.object_ids, np.int64),
        "offsets": np.cumsum([0, *(len(cloud) for cloud in clouds.clouds)]),
        "points": clouds.points,
        "status": np.array(clouds.status, dtype=np.str_).reshape(-1),
    }


def _read(path: Path) -> dict[str, NDArray]:
    try:
        with open_view(path) as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        version = int(arrays["format_version"])
    except FileNotFoundError as error:
        raise ArtifactError(f"{error}; run the stage that writes it again") from None
    except ArtifactError:
        raise
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{path}: broken ({error}); delete it and its folder's stamp, and run again") from None
    if version != FORMAT_VERSION:
        raise ArtifactError(
            f"{path}: format version {version}, this program reads {FORMAT_VERSION}; run the stage again"
        )
    return arrays


def _clouds(arrays: dict[str, NDArray]) -> ObjectClouds:
    offsets = arrays["offsets"]
    return ObjectClouds(
        arrays["object_ids"],
        tuple(arrays["points"][a:b] for a, b in pairwise(offsets)),
        tuple(str(text) for text in arrays["status"]),
    )
