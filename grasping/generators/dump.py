"""Somebody else's grasps: a folder in the official dump layout, read view by view."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from grasping.grasps import GraspFileError, Grasps


@dataclass(frozen=True)
class DumpGenerator:
    """Read ``<folder>/scene_SSSS/<camera>/VVVV.npy``, the layout of graspnetAPI's evaluation.

    Attributes:
        folder: the dump's root, the folder that holds ``scene_SSSS``.

    Raises:
        GraspFileError: if the folder does not exist or holds no scene.
    """

    deterministic: ClassVar[bool] = True

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))
        if not self.folder.is_dir():
            raise GraspFileError(f"{self.folder}: no such dump folder; give the folder that holds scene_SSSS")
        if not any(self.folder.glob("scene_*")):
            raise GraspFileError(f"{self.folder}: holds no scene_SSSS; give the folder right above the scenes")

    def path(self, scene: int, camera: str, view: int) -> Path:
        return self.folder / f"scene_{scene:04d}" / camera / f"{view:04d}.npy"

    def identity(self, scene: int, camera: str, views: Sequence[int]) -> list[str]:
        """Return content hashes of the files of some views: what the grasps of these views depend on."""
        return [_content(self.path(scene, camera, view)) for view in views]

    def for_view(self, scene: int, camera: str, view: int) -> ViewDump:
        return ViewDump(self.path(scene, camera, view))


@dataclass(frozen=True)
class ViewDump:
    """The grasps of one view, as its file has them; clouds and seed change nothing.

    Attributes:
        path: the view's ``(N, 17)`` ``.npy`` file.
    """

    path: Path

    def __call__(
        self,
        cloud: ArrayLike = (),
        object_ids_of_points: ArrayLike = (),
        collision_cloud: ArrayLike = (),
        T_camera_table: ArrayLike = (),
        viewpoint: ArrayLike = (0.0, 0.0, 0.0),
        seed: int = 0,
    ) -> Grasps:
        """Return the file's grasps by falling confidence, those of equal confidence in the file's order.

        Rows that are not finite are kept: the scorer refuses them row by row, so that none is lost unsaid.

        Raises:
            GraspFileError: if the file is missing, truncated, pickled or of another shape.
        """
        grasps = Grasps.load(self.path)
        # NaN sorts last under negation as under identity, and a stable sort leaves ties alone.
        return grasps[np.argsort(-grasps.confidence, kind="stable")]


def _content(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:20]
    except OSError:
        return "absent"
