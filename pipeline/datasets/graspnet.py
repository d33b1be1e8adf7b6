"""Reader for GraspNet-1Billion's layout on disk (Fang et al., CVPR 2020; https://graspnet.net/datasets.html).

::

    ROOT/models/NNN/{nontextured.ply, textured.obj, textured.sdf}
    ROOT/scenes/scene_SSSS/object_id_list.txt
    ROOT/scenes/scene_SSSS/<camera>/{camK.npy (3,3), camera_poses.npy (256,4,4), cam0_wrt_table.npy (4,4)}
    ROOT/scenes/scene_SSSS/<camera>/{depth/VVVV.png uint16, label/VVVV.png uint8, rgb/VVVV.png (optional)}
    ROOT/scenes/scene_SSSS/<camera>/{meta/VVVV.mat, annotations/VVVV.xml}
    ROOT/manifest.json    (synthesized data only: which views were rendered)

Metres throughout; frames as in :mod:`grasping`. Nothing is ever written below ROOT.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from transforms3d.euler import euler2mat, quat2euler

CAMERAS = ("realsense", "kinect")
VIEWS_PER_SCENE = 256
SPLITS: dict[str, range] = {
    "train": range(0, 100),
    "test_seen": range(100, 130),
    "test_similar": range(130, 160),
    "test_novel": range(160, 190),
}
MANIFEST_VERSION = 1

# What Pillow raises on a file that is cut short or is no image, beside its own OSError.
BROKEN_IMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


class DatasetError(ValueError):
    """A dataset file that is missing or broken; the message names the file and the remedy."""


@dataclass(frozen=True, eq=False)
class View:
    """One camera view of one scene.

    Attributes:
        scene, view, camera: which one.
        depth: ``(H, W)`` float32 metres along the optical axis, 0 where the sensor saw nothing.
        label: ``(H, W)`` uint8, 0 = background, otherwise object id + 1.
        color: ``(H, W, 3)`` uint8, or None where the dataset has no ``rgb/``.
        intrinsics: ``(3, 3)`` float64 pinhole matrix, pixels.
        object_ids: the K objects of the scene, visible or not, in the order of view 0's annotation.
        T_camera_object: ``(K, 4, 4)`` float32, exactly as graspnetAPI computes them (see :func:`pose_matrix`).
        T_table_camera: ``(4, 4)`` float64; table frame: z up, table top at z = 0.
    """

    scene: int
    view: int
    camera: str
    depth: NDArray[np.float32]
    label: NDArray[np.uint8]
    color: NDArray[np.uint8] | None
    intrinsics: NDArray[np.float64]
    object_ids: tuple[int, ...]
    T_camera_object: NDArray[np.float32]
    T_table_camera: NDArray[np.float64]


@dataclass(frozen=True)
class GraspNetDataset:
    """A dataset in GraspNet-1Billion's layout, seen through one of its cameras.

    Args:
        root: the folder that holds ``scenes/`` and ``models/``.
        camera: ``realsense`` or ``kinect``.

    Raises:
        DatasetError: if ``root`` holds no ``scenes/``, or the camera's name is unknown.
    """

    root: Path
    camera: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))
        if self.camera not in CAMERAS:
            raise DatasetError(f"unknown camera {self.camera!r}; the layout knows {' and '.join(CAMERAS)}")
        if not (self.root / "scenes").is_dir():
            raise DatasetError(
                f"{self.root}: no folder 'scenes' in it; give the folder that holds the dataset's scenes/ and models/"
            )

    def scene_dir(self, scene: int) -> Path:
        return self.root / f"scenes/scene_{scene:04d}/{self.camera}"

    def model_dir(self, object_id: int) -> Path:
        return self.root / "models" / f"{object_id:03d}"

    def scene_ids(self, split: str | None = None) -> list[int]:
        """List the scenes on disk that this camera saw, of one split ('test' = all three test splits) or of all."""
        if split is not None and split != "test" and split not in SPLITS:
            raise DatasetError(f"unknown split {split!r}; one of {', '.join(SPLITS)}, test")
        found = []
        for folder in (self.root / "scenes").glob("scene_*"):
            number = folder.name.removeprefix("scene_")
            if number.isdigit() and (folder / self.camera).is_dir():
                found.append(int(number))
        if split is None:
            return sorted(found)
        wanted = [ids for name, ids in SPLITS.items() if name == split or (split == "test" and name != "train")]
        return sorted(scene for scene in found if any(scene in ids for ids in wanted))

    def split_of(self, scene: int) -> str:
        """Name the split a scene belongs to, by its number."""
        for name, ids in SPLITS.items():
            if scene in ids:
                return name
        raise DatasetError(f"scene {scene} belongs to no split; GraspNet-1Billion numbers its scenes 0 to 189")

    def view_ids(self, scene: int) -> list[int]:
        """List the views that have depth and labels: the manifest's, or all 256 where there is no manifest."""
        manifest = read_manifest(self.root)
        if manifest is None:
            return list(range(VIEWS_PER_SCENE))
        rendered = manifest["views"].get(self.camera, {}).get(f"{scene:04d}")
        if rendered is None:
            raise DatasetError(
                f"{self.root / 'manifest.json'}: lists no views of scene {scene} for {self.camera}; "
                "synthesize that scene, or leave it out"
            )
        return [int(view) for view in rendered]

    def object_ids(self, scene: int) -> tuple[int, ...]:
        """Return the ids of a scene's objects in the order of view 0's annotation, which holds for all views."""
        return tuple(object_id for object_id, _ in read_annotation(self._file(scene, "annotations", 0, "xml")))

    def view_files(self, scene: int, view: int) -> list[Path]:
        """List every file that :meth:`view` reads, for fingerprints; ``rgb`` only where it exists."""
        folder = self.scene_dir(scene)
        files = [
            self._file(scene, "depth", view, "png"),
            self._file(scene, "label", view, "png"),
            self._file(scene, "meta", view, "mat"),
            self._file(scene, "annotations", view, "xml"),
            folder / "camK.npy",
            folder / "camera_poses.npy",
            folder / "cam0_wrt_table.npy",
        ]
        if view != 0:
            files.append(self._file(scene, "annotations", 0, "xml"))
        color = self._file(scene, "rgb", view, "png")
        return [*files, color] if color.is_file() else files

    def view(self, scene: int, view: int) -> View:
        """Read one view.

        Raises:
            DatasetError: for a missing, truncated or inconsistent file; names it and the remedy.
        """
        depth_file, label_file = self._file(scene, "depth", view, "png"), self._file(scene, "label", view, "png")
        raw = read_depth(depth_file)
        label = read_label(label_file)
        if raw.shape != label.shape:
            raise DatasetError(
                f"{label_file}: is {_size(label)} but {depth_file.name} of depth/ is {_size(raw)}; fetch both again"
            )
        color_file = self._file(scene, "rgb", view, "png")
        color = read_color(color_file) if color_file.is_file() else None
        if color is not None and color.shape[:2] != raw.shape:
            raise DatasetError(f"{color_file}: is {_size(color)} but the depth is {_size(raw)}; fetch both again")
        object_ids = self.object_ids(scene)
        return View(
            scene=scene,
            view=view,
            camera=self.camera,
            depth=(raw / read_depth_factor(self._file(scene, "meta", view, "mat"))).astype(np.float32),
            label=label,
            color=color,
            intrinsics=self.intrinsics(scene),
            object_ids=object_ids,
            T_camera_object=self.object_poses(scene, view, object_ids),
            T_table_camera=self.T_table_camera(scene, view),
        )

    def intrinsics(self, scene: int) -> NDArray[np.float64]:
        """Return the ``(3, 3)`` pinhole matrix of a scene's camera, pixels."""
        path = self.scene_dir(scene) / "camK.npy"
        K = read_matrix(path, (3, 3))
        if not (K[0, 0] > 0 and K[1, 1] > 0):
            raise DatasetError(f"{path}: focal lengths must be positive; fetch the file again")
        return K

    def T_table_camera(self, scene: int, view: int) -> NDArray[np.float64]:
        """Return the ``(4, 4)`` pose of a view's camera in the table frame; known for unrendered views too."""
        return self.table_poses(scene).T_table_camera(view)

    def table_poses(self, scene: int) -> TablePoses:
        """Read a scene's camera poses once, for many views.

        Raises:
            DatasetError: if a file is missing or broken; whether a pose is rigid is asked view by view.
        """
        folder = self.scene_dir(scene)
        return TablePoses(
            folder,
            read_matrix(folder / "camera_poses.npy", (VIEWS_PER_SCENE, 4, 4)),
            read_matrix(folder / "cam0_wrt_table.npy", (4, 4)),
        )

    def object_poses(self, scene: int, view: int, object_ids: Iterable[int] | None = None) -> NDArray[np.float32]:
        """Return ``T_camera_object`` ``(K, 4, 4)`` float32 of a scene's objects in one view, from its annotation."""
        path = self._file(scene, "annotations", view, "xml")
        poses = dict(read_annotation(path))
        ids = self.object_ids(scene) if object_ids is None else tuple(object_ids)
        missing = [object_id for object_id in ids if object_id not in poses]
        if missing:
            raise DatasetError(f"{path}: has no pose of object {missing[0]}, which view 0 names; fetch the file again")
        return np.stack([poses[object_id] for object_id in ids]) if ids else np.zeros((0, 4, 4), np.float32)

    def annotation_file(self, scene: int, view: int) -> Path:
        """Return the file that holds the objects' poses in one view."""
        return self._file(scene, "annotations", view, "xml")

    def _file(self, scene: int, kind: str, view: int, suffix: str) -> Path:
        # In one step: a full split has hundreds of thousands of files, and they are named whenever a run is planned.
        return self.root / f"scenes/scene_{scene:04d}/{self.camera}/{kind}/{view:04d}.{suffix}"


@dataclass(frozen=True, eq=False)
class TablePoses:
    """Where the cameras of one scene stood.

    Attributes:
        folder: the scene's, for messages.
        T_first_camera: ``(256, 4, 4)`` each view's camera in the frame of view 0's.
        T_table_first: ``(4, 4)`` view 0's camera in the table frame.
    """

    folder: Path
    T_first_camera: NDArray[np.float64]
    T_table_first: NDArray[np.float64]

    def T_table_camera(self, view: int) -> NDArray[np.float64]:
        """Return ``(4, 4)`` of one view.

        Raises:
            DatasetError: if there is no such view, or a pose is not rigid.
        """
        if not 0 <= view < VIEWS_PER_SCENE:
            raise DatasetError(f"{self.folder}: a scene has views 0 to {VIEWS_PER_SCENE - 1}, not {view}")
        T = self.T_first_camera[view]
        for name, pose in (("cam0_wrt_table.npy", self.T_table_first), ("camera_poses.npy", T)):
            if not is_rigid(pose):
                raise DatasetError(
                    f"{self.folder / name}: the pose of view {view} is not a rigid transform; fetch the file again"
                )
        return self.T_table_first @ T


def read_manifest(root: Path) -> dict[str, Any] | None:
    """Read ``manifest.json`` of synthesized data; None where there is none, as in the official dataset."""
    path = Path(root) / "manifest.json"
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: not readable as JSON ({error}); synthesize the dataset again") from None
    if not isinstance(manifest, dict) or manifest.get("format_version") != MANIFEST_VERSION:
        raise DatasetError(f"{path}: not a manifest of format_version {MANIFEST_VERSION}; synthesize the dataset again")
    views = manifest.get("views")
    if not isinstance(views, dict) or not all(isinstance(scenes, dict) for scenes in views.values()):
        raise DatasetError(f"{path}: 'views' must map camera -> scene -> list of views; synthesize the dataset again")
    return manifest


def pose_matrix(translation: ArrayLike, quaternion_wxyz: ArrayLike) -> NDArray[np.float32]:
    """Build ``T_camera_object`` as graspnetAPI does: quaternion -> Euler angles in degrees -> float32 matrix.

    The detour matters: of 200 grasps, one got another score with a matrix taken straight from the quaternion.

    Args:
        translation: ``(3,)`` metres.
        quaternion_wxyz: ``(4,)``, need not be normalised.
    """
    # Python's floats round as numpy's scalars do, several times faster.
    degrees = [angle * (180.0 / np.pi) for angle in quat2euler([float(q) for q in np.asarray(quaternion_wxyz)])]
    T = np.eye(4, dtype=np.float32)
    T[:3, :3] = euler2mat(*(angle / 180.0 * np.pi for angle in degrees))
    T[:3, 3] = translation
    return T


def read_annotation(path: Path) -> list[tuple[int, NDArray[np.float32]]]:
    """Read one ``annotations/VVVV.xml``: object id and ``T_camera_object`` ``(4, 4)`` float32, in the file's order.

    Raises:
        DatasetError: if the file is missing or does not parse, or holds a pose that is not one.
    """
    try:
        top = ElementTree.parse(path).getroot()
    except FileNotFoundError:
        raise _missing(path) from None
    except (ElementTree.ParseError, OSError, ValueError) as error:
        raise DatasetError(f"{path}: not readable as XML ({error}); fetch the file again") from None
    objects: list[tuple[int, NDArray[np.float32]]] = []
    for entry in top.iter("obj"):
        try:
            object_id = int(entry.findtext("obj_id", ""))
            translation = [float(text) for text in entry.findtext("pos_in_world", "").split()]
            quaternion = [float(text) for text in entry.findtext("ori_in_world", "").split()]
        except ValueError as error:
            raise DatasetError(f"{path}: object {len(objects)} is unreadable ({error}); fetch the file again") from None
        if len(translation) != 3 or len(quaternion) != 4:
            raise DatasetError(f"{path}: object {object_id} lacks a position or orientation; fetch the file again")
        length = math.hypot(*quaternion)
        if not all(map(math.isfinite, translation)) or not abs(length - 1.0) < 0.01:  # NaN fails the second test too
            raise DatasetError(f"{path}: the pose of object {object_id} is not a rigid pose; fetch the file again")
        if object_id in (known for known, _ in objects):
            raise DatasetError(f"{path}: names object {object_id} twice; the layout knows one instance of each")
        objects.append((object_id, pose_matrix(translation, quaternion)))
    return objects


def read_matrix(path: Path, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Read a ``.npy`` of the stated shape as float64, never unpickling it; every number must be finite."""
    try:
        matrix = np.load(path, allow_pickle=False)
        matrix = np.asarray(matrix, dtype=np.float64)
    except FileNotFoundError:
        raise _missing(path) from None
    except (ValueError, EOFError, OSError, TypeError) as error:
        raise DatasetError(f"{path}: not a readable .npy array ({error}); fetch the file again") from None
    if matrix.shape != shape:
        raise DatasetError(f"{path}: has shape {matrix.shape} where {shape} is due; fetch the file again")
    if not np.isfinite(matrix).all():
        raise DatasetError(f"{path}: holds NaN or infinity; fetch the file again")
    return matrix


def is_rigid(T: NDArray[np.float64]) -> bool:
    """Say whether a ``(4, 4)`` matrix is a rotation and a translation, to 1e-3."""
    R = T[:3, :3]
    return bool(np.abs(R @ R.T - np.eye(3)).max() < 1e-3 and np.linalg.det(R) > 0)


def read_depth(path: Path) -> NDArray[np.uint16]:
    """Read a 16-bit depth image ``(H, W)`` in the camera's own unit (1 / factor_depth metres)."""
    image, mode = _read_image(path)
    if image.ndim != 2 or not mode.startswith("I"):
        raise DatasetError(f"{path}: a depth image must be 16-bit grey, this one is of mode {mode}; fetch it again")
    return image.astype(np.uint16)


def read_label(path: Path) -> NDArray[np.uint8]:
    """Read an 8-bit label image ``(H, W)``: 0 = background, otherwise object id + 1."""
    image, mode = _read_image(path)
    if image.ndim != 2 or mode not in ("L", "P"):
        raise DatasetError(f"{path}: a label image must be 8-bit grey, this one is of mode {mode}; fetch it again")
    return image.astype(np.uint8)


def read_color(path: Path) -> NDArray[np.uint8]:
    """Read a colour image ``(H, W, 3)``."""
    image, mode = _read_image(path)
    if image.ndim != 3 or image.shape[2] not in (3, 4):
        raise DatasetError(f"{path}: a colour image must be RGB, this one is of mode {mode}; fetch it again")
    return image[..., :3].astype(np.uint8)


def read_depth_factor(path: Path) -> float:
    """Read ``factor_depth`` of a ``meta/VVVV.mat``: how many depth units make one metre."""
    if not path.is_file():  # loadmat has an error of its own for that
        raise _missing(path)
    import scipy.io  # lazily: scoring workers read no images, and start in half the time without it

    try:
        factor = float(
            np.asarray(scipy.io.loadmat(path, variable_names=["factor_depth"])["factor_depth"]).reshape(-1)[0]
        )
    except KeyError:
        raise DatasetError(f"{path}: holds no 'factor_depth'; fetch the file again") from None
    except Exception as error:  # loadmat lets many kinds through on damaged files
        raise DatasetError(f"{path}: not a readable .mat file ({error}); fetch the file again") from None
    if not np.isfinite(factor) or factor <= 0:
        raise DatasetError(f"{path}: factor_depth is {factor}, it must be positive; fetch the file again")
    return factor


def _read_image(path: Path) -> tuple[NDArray[Any], str]:
    try:
        with Image.open(path) as image:
            image.load()
            return np.asarray(image), image.mode
    except FileNotFoundError:
        raise _missing(path) from None
    except BROKEN_IMAGE as error:
        raise DatasetError(f"{path}: truncated or not an image ({error}); fetch the file again") from None


def _missing(path: Path) -> DatasetError:
    return DatasetError(
        f"{path}: no such file; fetch it, or run 'grasp-utility dataset check' to list all that is missing"
    )


def _size(image: NDArray[Any]) -> str:
    return f"{image.shape[1]} x {image.shape[0]}"
