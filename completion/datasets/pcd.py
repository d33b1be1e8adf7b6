"""A reader of ``.pcd`` files (Point Cloud Library, version 0.7): the coordinates, from ascii or binary files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from completion.datasets.base import DatasetError

_TYPES = {"F": "f", "I": "i", "U": "u"}


def read_pcd(path: Path) -> NDArray[np.float32]:
    """The points of a file, ``(N, 3)`` float32; other fields are skipped.

    Raises:
        DatasetError: missing, truncated, no coordinates, or compressed.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror}); unpack the whole benchmark") from error
    header, body = _split(path, content)
    try:
        names = header["FIELDS"]
        counts = [int(one) for one in header.get("COUNT", ["1"] * len(names))]
        types = [f"<{_TYPES[kind]}{int(size)}" for kind, size in zip(header["TYPE"], header["SIZE"], strict=True)]
        points, encoding = int(header["POINTS"][0]), header["DATA"][0].lower()
        columns = [sum(counts[: names.index(axis)]) for axis in "xyz"]
        fields = zip(names, types, counts, strict=True)
        record = np.dtype([(f"{i} {name}", kind, (count,)) for i, (name, kind, count) in enumerate(fields)])
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise DatasetError(f"{path}: the header of this .pcd is not understood ({error}); download it again") from error
    if encoding == "ascii":
        return _ascii(path, body, points, columns)
    if encoding != "binary":
        raise DatasetError(
            f"{path}: DATA {encoding} is not read here; write it anew as binary, for instance with open3d"
        )
    if len(body) < points * record.itemsize:
        raise DatasetError(
            f"{path}: {len(body)} bytes for {points} points of {record.itemsize}: cut short; copy it again"
        )
    rows = np.frombuffer(body, record, points)
    return np.stack([rows[f"{names.index(axis)} {axis}"][:, 0] for axis in "xyz"], axis=1).astype(np.float32)


def _split(path: Path, content: bytes) -> tuple[dict[str, list[str]], bytes]:
    """Header fields and what comes after the DATA line."""
    header: dict[str, list[str]] = {}
    start = 0
    while (end := content.find(b"\n", start)) >= 0 and end - start < 1000:
        line = content[start:end].decode("latin-1").strip()
        start = end + 1
        if line and not line.startswith("#"):
            key, *values = line.split()
            header[key.upper()] = values
            if key.upper() == "DATA":
                return header, content[start:]
    raise DatasetError(f"{path}: not a .pcd file: its header has no DATA line; download it again")


def _ascii(path: Path, body: bytes, points: int, columns: list[int]) -> NDArray[np.float32]:
    try:
        rows: NDArray[Any] = np.loadtxt(io.BytesIO(body), dtype=np.float64, usecols=columns, ndmin=2, max_rows=points)
    except ValueError as error:
        raise DatasetError(f"{path}: not readable as ascii ({error}); copy it again") from error
    if len(rows) < points:
        raise DatasetError(f"{path}: {len(rows)} of {points} points: cut short; copy it again")
    return rows.astype(np.float32)
