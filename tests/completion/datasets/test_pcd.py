"""The reader of .pcd files, beside open3d and hand-made bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from completion.datasets.base import DatasetError
from completion.datasets.pcd import read_pcd


def header(fields: str, sizes: str, types: str, counts: str, points: int, data: str) -> bytes:
    text = f"VERSION .7\nFIELDS {fields}\nSIZE {sizes}\nTYPE {types}\nCOUNT {counts}\nWIDTH {points}\nHEIGHT 1\n"
    return f"# made by hand\n{text}VIEWPOINT 0 0 0 1 0 0 0\nPOINTS {points}\nDATA {data}\n".encode()


@pytest.mark.parametrize("ascii_text", [True, False])
def test_reads_what_open3d_writes(tmp_path: Path, ascii_text: bool) -> None:
    open3d = pytest.importorskip("open3d")
    points = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
    made = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points.astype(np.float64)))
    made.colors = open3d.utility.Vector3dVector(np.full((50, 3), 0.25))  # a field more than is asked for
    path = tmp_path / "cloud.pcd"
    assert open3d.io.write_point_cloud(str(path), made, write_ascii=ascii_text)
    read = read_pcd(path)
    assert read.dtype == np.float32 and read.shape == (50, 3)
    theirs = np.asarray(open3d.io.read_point_cloud(str(path)).points)
    np.testing.assert_allclose(read, theirs, atol=1e-6)
    np.testing.assert_allclose(read, points, atol=1e-5)


def test_finds_coordinates_among_other_fields(tmp_path: Path) -> None:
    record = np.dtype([("label", "<u2"), ("histogram", "<f4", (3,)), ("z", "<f8"), ("x", "<f8"), ("y", "<f8")])
    rows = np.zeros(4, record)
    rows["label"], rows["histogram"] = 7, 9.0
    rows["x"], rows["y"], rows["z"] = np.arange(4), np.arange(4) + 10, np.arange(4) + 20
    expected = np.stack([rows["x"], rows["y"], rows["z"]], axis=1)
    path = tmp_path / "cloud.pcd"
    fields = ("label histogram z x y", "2 4 8 8 8", "U F F F F", "1 3 1 1 1", 4)
    path.write_bytes(header(*fields, "binary") + rows.tobytes())
    np.testing.assert_array_equal(read_pcd(path), expected)
    lines = [f"7 9 9 9 {z} {x} {y}" for x, y, z in expected]
    path.write_bytes(header(*fields, "ascii") + "\n".join(lines).encode())
    np.testing.assert_array_equal(read_pcd(path), expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header("x y z", "4 4 4", "F F F", "1 1 1", 3, "binary") + bytes(30), "30 bytes for 3 points of 12: cut short"),
        (header("x y z", "4 4 4", "F F F", "1 1 1", 3, "ascii") + b"0 0 0\n1 1 1\n", "2 of 3 points: cut short"),
        (header("x y z", "4 4 4", "F F F", "1 1 1", 3, "ascii") + b"0 0\n", "not readable as ascii"),
        (header("x y z", "4 4 4", "F F F", "1 1 1", 3, "binary_compressed"), "write it anew as binary"),
        (header("x y", "4 4", "F F", "1 1", 3, "binary"), "header of this .pcd is not understood"),
        (header("x y z", "4 4 4", "F F F", "1 1 1", 3, "binary").replace(b"POINTS", b"PINTS"), "not understood"),
        (b"ply\nformat ascii 1.0\n", "no DATA line"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "broken.pcd"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=message) as caught:
        read_pcd(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none\.pcd: cannot be read"):
        read_pcd(tmp_path / "none.pcd")
