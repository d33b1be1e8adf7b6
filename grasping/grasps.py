"""Grasps, and the only place that knows the seventeen columns of GraspNet-1Billion's dump files."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

COLUMNS = 17


class GraspFileError(ValueError):
    """A grasp file that cannot be read; the message names the file and the remedy."""


class GraspFileMissingError(GraspFileError):
    """There is no such grasp file."""


@dataclass(frozen=True)
class Grasps:
    """N parallel-jaw grasps in one frame (the camera's, unless a name says otherwise).

    Attributes:
        confidence: ``(N,)`` what the generator says of each grasp; higher is better.
        width: ``(N,)`` opening, metres.
        height: ``(N,)`` finger height, metres (the protocol overrules it).
        depth: ``(N,)`` how far the finger tips reach beyond ``translation`` along the approach axis, metres.
        rotation: ``(N, 3, 3)`` columns are the approach, closing and height axes.
        translation: ``(N, 3)`` metres.
        object_id: ``(N,)`` int64 object the generator aimed at, -1 where unknown.
    """

    confidence: NDArray[np.float64]
    width: NDArray[np.float64]
    height: NDArray[np.float64]
    depth: NDArray[np.float64]
    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]
    object_id: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.confidence)

    def __getitem__(self, index: ArrayLike | slice) -> Grasps:
        """Select grasps by a slice, a mask or an index array (never a single integer)."""
        key = index if isinstance(index, slice) else np.asarray(index)
        if not isinstance(key, slice) and key.size == 0 and key.dtype != bool:
            key = key.astype(np.intp)  # an empty list is an array of floats
        return Grasps(**{f.name: getattr(self, f.name)[key] for f in fields(self)})

    @classmethod
    def empty(cls) -> Grasps:
        return cls.from_array(np.zeros((0, COLUMNS)))

    @classmethod
    def concatenate(cls, parts: Sequence[Grasps]) -> Grasps:
        if not parts:
            return cls.empty()
        return cls(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)})

    @classmethod
    def from_array(cls, array: ArrayLike) -> Grasps:
        """Read the ``(N, 17)`` layout of graspnetAPI's ``GraspGroup``.

        Raises:
            ValueError: if the shape is not ``(N, 17)``.
        """
        with np.errstate(over="ignore"):  # wider floats become infinite, and are refused as such
            a = np.array(array, dtype=np.float64)  # a copy: views into the caller's array would not be frozen
        if a.ndim != 2 or a.shape[1] != COLUMNS:
            raise ValueError(f"expected an (N, {COLUMNS}) array of grasps, got shape {a.shape}")
        with np.errstate(invalid="ignore"):
            object_id = np.where(np.abs(a[:, 16]) < 2**53, a[:, 16], -1).astype(np.int64)  # also NaN becomes -1
        return cls(
            confidence=a[:, 0],
            width=a[:, 1],
            height=a[:, 2],
            depth=a[:, 3],
            rotation=a[:, 4:13].reshape(-1, 3, 3),
            translation=a[:, 13:16],
            object_id=object_id,
        )

    def to_array(self) -> NDArray[np.float64]:
        """Return the ``(N, 17)`` float64 layout of graspnetAPI's ``GraspGroup``."""
        return np.concatenate(
            [
                np.stack([self.confidence, self.width, self.height, self.depth], axis=1),
                self.rotation.reshape(-1, 9),
                self.translation,
                self.object_id[:, None].astype(np.float64),
            ],
            axis=1,
        )

    def transformed(self, T_a_b: ArrayLike) -> Grasps:
        """Return the same grasps given in frame a, from grasps given in frame b."""
        T = np.asarray(T_a_b, dtype=np.float64)
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["rotation"] = T[:3, :3] @ self.rotation
        values["translation"] = self.translation @ T[:3, :3].T + T[:3, 3]
        return Grasps(**values)

    @classmethod
    def load(cls, source: Path | BinaryIO) -> Grasps:
        """Read one ``.npy`` dump file, or a stream of one, by the rules of :func:`read_dump_file`.

        Raises:
            GraspFileError: if the file is missing, truncated, pickled or of another shape or type.
        """
        return read_dump_file(source)[0]


def read_dump_file(source: Path | BinaryIO) -> tuple[Grasps, str]:
    """Read one ``.npy`` dump file, never unpickling it and never believing a size that its header only claims.

    Read are ``(N, 17)`` arrays of floats or integers of any width, which become float64. Any array without elements,
    such as the ``(0,)`` of an empty list, is a view without grasps; a single ``(17,)`` row is one grasp. Numbers are
    not looked at: which rows can be graded is the scorer's business.

    Args:
        source: the file; or a seekable stream of such a file, whose attribute ``name`` says in messages what it is.

    Returns:
        The grasps, and a note on what was repaired ('' where nothing was).

    Raises:
        GraspFileMissingError: if there is no such file.
        GraspFileError: if it is no file, cannot be opened, is truncated, pickled, or of another shape or type.
    """
    stream = None if isinstance(source, str | os.PathLike) else source
    name = str(source if stream is None else getattr(stream, "name", "a stream"))
    try:
        if stream is not None:
            array = _read_stream(stream)
        else:
            path = Path(name)
            if not path.is_file():
                if path.exists():
                    raise GraspFileError(f"{path}: a folder or device, where a grasp file is due; remove it")
                raise GraspFileMissingError(f"{path}: no such grasp file")
            # Mapped: numpy then compares the header's claim with the file's size before anything is allocated.
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except GraspFileError:
        raise
    except OSError as error:
        raise GraspFileError(f"{name}: cannot be opened ({error.strerror or error}); write it again") from None
    except Exception as error:  # numpy lets what its parsers meet through: header syntax, zip archives, sizes
        reason = " ".join(str(error).split()).split(". ")[0]  # numpy goes on to advise unpickling
        raise _not_a_dump(name, reason or type(error).__name__) from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise _not_a_dump(name, "an archive of arrays")
    if array.dtype.kind not in "fiu":
        raise _not_a_dump(name, f"an array of type {array.dtype}, not of numbers")
    if array.size == 0:
        return Grasps.empty(), "" if array.shape == (0, COLUMNS) else f"shape {array.shape} read as no grasps"
    if array.shape == (COLUMNS,):
        return Grasps.from_array(array[None]), f"shape {array.shape} read as one grasp"
    if array.ndim != 2 or array.shape[1] != COLUMNS:
        raise _not_a_dump(name, f"shape {array.shape}")
    return Grasps.from_array(array), ""


def _read_stream(stream: BinaryIO) -> Any:
    """Read an array from a stream, whose length its header must not exceed."""
    start, end = stream.tell(), stream.seek(0, os.SEEK_END)
    stream.seek(start)
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    read_header = headers.get(np.lib.format.read_magic(stream))
    if read_header is None:
        raise ValueError("a format version that no array of numbers has")
    shape, _, dtype = read_header(stream)
    if math.prod(shape) * dtype.itemsize > end - stream.tell():
        raise ValueError("shorter than its header says")
    stream.seek(start)
    return np.load(stream, allow_pickle=False)


def _not_a_dump(name: str, why: str) -> GraspFileError:
    return GraspFileError(f"{name}: not a grasp dump of shape (N, {COLUMNS}) ({why[:200]}); write it again")
