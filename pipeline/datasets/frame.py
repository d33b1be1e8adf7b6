"""One RGB-D image of the user's own: read it, whatever common form it comes in, and refuse what cannot be right."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from numpy.typing import NDArray
from PIL import Image

from pipeline.datasets.graspnet import BROKEN_IMAGE

# Names under which archives of the wild keep things.
DEPTH_KEYS = ("depth",)
COLOR_KEYS = ("color", "image", "rgb")
INTRINSICS_KEYS = ("intrinsics", "intrinsics_matrix", "intrinsic_matrix", "K", "camera_matrix")
MILLIMETRES = 1000.0


class FrameError(ValueError):
    """An image, or a description of its camera, that cannot be used; the message names the file and the remedy."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One RGB-D image.

    Attributes:
        depth: ``(H, W)`` float32 metres, 0 where the sensor saw nothing.
        intrinsics: ``(3, 3)`` float64 pinhole matrix, pixels.
        color: ``(H, W, 3)`` uint8, or None.
        mask: ``(H, W)``: bool = where to look for objects; int64 = one number an object, 0 = none; or None.
    """

    depth: NDArray[np.float32]
    intrinsics: NDArray[np.float64]
    color: NDArray[np.uint8] | None
    mask: NDArray[np.bool_] | NDArray[np.int64] | None


def read_frame(
    depth: Path,
    intrinsics: str | None = None,
    *,
    mask: Path | None = None,
    color: Path | None = None,
    depth_scale: float | None = None,
) -> Frame:
    """Read one RGB-D image.

    Args:
        depth: 16-bit image (millimetres), float image, ``.npy``, or ``.npz`` with a key ``depth`` (metres if floating).
        intrinsics: ``fx,fy,cx,cy``, or a ``.npy`` / ``.txt`` with a ``(3, 3)`` matrix, or a ``.mat`` with
            ``intrinsic_matrix`` (and, as GraspNet-1Billion's meta files, ``factor_depth``). May be left out where the
            depth's ``.npz`` holds it.
        mask: image or ``.npy``. Boolean, or two-valued {0, 1} or {0, 255}: where to look for objects. Else: a number an
            object, 0 for none.
        color: image or ``.npy``; where left out, the depth's ``.npz`` may hold it.
        depth_scale: depth units per metre; None = the ``.mat``'s, else 1000 for integers and 1 for floats.

    Raises:
        FrameError: names the file and the remedy.
    """
    archive = _read_arrays(depth) if depth.suffix == ".npz" else None
    if intrinsics is not None:
        K, factor = read_intrinsics(intrinsics)
    elif archive is not None and (found := _pick(archive, INTRINSICS_KEYS)) is not None:
        K, factor = _intrinsic_matrix(found, str(depth)), None
    else:
        raise FrameError(
            f"{depth}: says nothing of its camera; give --intrinsics fx,fy,cx,cy or a file with the matrix"
        )
    metres = _read_depth(depth, archive, factor if depth_scale is None else depth_scale)

    picture = None
    if color is not None:
        picture = _read_color(color)
    elif archive is not None and (found := _pick(archive, COLOR_KEYS)) is not None:
        picture = _color_array(found, str(depth))
    region = _read_mask(mask) if mask is not None else None
    for array, name, path in ((picture, "color", color or depth), (region, "mask", mask)):
        if array is not None and array.shape[:2] != metres.shape:
            raise FrameError(
                f"{path}: the {name} is {_size(array)}, the depth {_size(metres)}; give one registered to the depth"
            )
    if not (0 <= K[0, 2] < metres.shape[1] and 0 <= K[1, 2] < metres.shape[0]):
        raise FrameError(
            f"{intrinsics or depth}: the principal point ({K[0, 2]:g}, {K[1, 2]:g}) lies outside the {_size(metres)} "
            "depth; give the intrinsics of this image's size"
        )
    return Frame(metres, K, picture, region)


def read_intrinsics(text: str) -> tuple[NDArray[np.float64], float | None]:
    """Read ``fx,fy,cx,cy`` or a file; return the ``(3, 3)`` matrix and the depth factor that a ``.mat`` may hold."""
    parts = text.split(",")
    if len(parts) == 4:
        try:
            fx, fy, cx, cy = (float(part) for part in parts)
        except ValueError:
            raise FrameError(f"--intrinsics {text}: not four numbers; write fx,fy,cx,cy in pixels") from None
        return _intrinsic_matrix(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), f"--intrinsics {text}"), None
    path = Path(text)
    if not path.is_file():
        raise FrameError(f"--intrinsics {text}: neither four numbers nor a file; write fx,fy,cx,cy or name a file")
    factor = None
    try:
        if path.suffix == ".mat":
            content: Any = scipy.io.loadmat(path)
            matrix = _pick(content, INTRINSICS_KEYS)
            if "factor_depth" in content:
                factor = float(np.asarray(content["factor_depth"]).reshape(-1)[0])
        elif path.suffix == ".npz":
            matrix = _pick(_read_arrays(path), INTRINSICS_KEYS)
        elif path.suffix == ".npy":
            matrix = np.load(path, allow_pickle=False)
        else:
            matrix = np.loadtxt(path, delimiter="," if "," in path.read_text() else None)
    except FrameError:
        raise
    except Exception as error:  # loadmat lets many kinds through on damaged files
        raise FrameError(f"{path}: unreadable ({_line(error)}); give a .npy, .txt or .mat with the matrix") from None
    if matrix is None:
        raise FrameError(f"{path}: holds none of {', '.join(INTRINSICS_KEYS)}; write fx,fy,cx,cy instead")
    if factor is not None and not (np.isfinite(factor) and factor > 0):
        raise FrameError(f"{path}: factor_depth is {factor}; give --depth-scale and a file without it")
    return _intrinsic_matrix(matrix, str(path)), factor


def _intrinsic_matrix(matrix: NDArray[Any], name: str) -> NDArray[np.float64]:
    K = np.asarray(matrix)
    if K.shape != (3, 3) or not np.issubdtype(K.dtype, np.number):
        raise FrameError(f"{name}: intrinsics have shape {K.shape}; a (3, 3) pinhole matrix in pixels is due")
    K = K.astype(np.float64)
    if not np.isfinite(K).all() or K[0, 0] <= 1 or K[1, 1] <= 1 or not np.allclose(K[2], [0, 0, 1]):
        raise FrameError(f"{name}: not a pinhole matrix [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels; check it")
    return K


def _read_depth(path: Path, archive: dict[str, NDArray[Any]] | None, scale: float | None) -> NDArray[np.float32]:
    raw = _pick(archive, DEPTH_KEYS) if archive is not None else _read_array_or_image(path)
    if raw is None:
        raise FrameError(f"{path}: holds no array 'depth'; its arrays are {', '.join(archive or {})}")
    if raw.ndim == 3 and raw.shape[2] == 1:
        raw = raw[..., 0]
    if raw.ndim != 2 or raw.dtype == np.uint8 or not np.issubdtype(raw.dtype, np.number):
        raise FrameError(
            f"{path}: shape {raw.shape} of {raw.dtype} is no depth image; give 16-bit millimetres or float metres"
        )
    if scale is not None and not (np.isfinite(scale) and scale > 0):
        raise FrameError(f"--depth-scale {scale}: must be positive, for example 1000 for millimetres")
    if scale is None:
        scale = MILLIMETRES if np.issubdtype(raw.dtype, np.integer) else 1.0
    metres = raw.astype(np.float64) / scale
    depth = np.where(np.isfinite(metres) & (metres > 0), metres, 0.0).astype(np.float32)
    if not depth.any():
        raise FrameError(f"{path}: no pixel has a depth; take the image again")
    middle = float(np.median(depth[depth > 0]))
    if not 0.05 < middle < 20.0:
        raise FrameError(f"{path}: the median depth is {middle:g} m; give --depth-scale, the depth units per metre")
    return depth


def _read_color(path: Path) -> NDArray[np.uint8]:
    return _color_array(_read_array_or_image(path, convert="RGB"), str(path))


def _color_array(array: NDArray[Any], name: str) -> NDArray[np.uint8]:
    if array.ndim != 3 or array.shape[2] not in (3, 4) or array.dtype != np.uint8:
        raise FrameError(f"{name}: shape {array.shape} of {array.dtype} is no colour image; (H, W, 3) uint8 is due")
    return np.ascontiguousarray(array[..., :3])


def _read_mask(path: Path) -> NDArray[np.bool_] | NDArray[np.int64]:
    array = _read_array_or_image(path)
    if array.ndim != 2 or not (array.dtype == np.bool_ or np.issubdtype(array.dtype, np.integer)):
        raise FrameError(f"{path}: shape {array.shape} of {array.dtype} is no mask; give one channel of integers")
    values = {int(value) for value in np.unique(array)}
    if values <= {0}:
        raise FrameError(f"{path}: the mask is empty; mark the objects or the workspace in it")
    if array.dtype == np.bool_ or values <= {0, 1} or values <= {0, 255}:
        return array > 0
    if min(values) < 0:
        raise FrameError(f"{path}: a mask numbers its objects from 1, with 0 for none; it holds {min(values)}")
    return array.astype(np.int64)


def _read_array_or_image(path: Path, convert: str | None = None) -> NDArray[Any]:
    if path.suffix == ".npy":
        try:
            return np.load(path, allow_pickle=False)
        except FileNotFoundError:
            raise FrameError(f"{path}: no such file") from None
        except (ValueError, EOFError, OSError) as error:
            raise FrameError(f"{path}: not a readable .npy array ({_line(error)}); write it again") from None
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert(convert) if convert else image)
    except FileNotFoundError:
        raise FrameError(f"{path}: no such file") from None
    except BROKEN_IMAGE as error:
        raise FrameError(f"{path}: truncated or not an image ({_line(error)}); write it again") from None


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    wanted = {*DEPTH_KEYS, *COLOR_KEYS, *INTRINSICS_KEYS}
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files if name in wanted}
    except FileNotFoundError:
        raise FrameError(f"{path}: no such file") from None
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise FrameError(f"{path}: not a readable .npz archive ({_line(error)}); write it again") from None


def _pick(arrays: Any, names: tuple[str, ...]) -> NDArray[Any] | None:
    return next((np.asarray(arrays[name]) for name in names if name in arrays), None)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _size(image: NDArray[Any]) -> str:
    return f"{image.shape[1]} x {image.shape[0]}"
