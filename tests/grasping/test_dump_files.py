"""Dump files in any state: read, repaired or refused by a rule, never a crash, never unpickled."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, floating_dtypes, integer_dtypes, unsigned_integer_dtypes

from grasping import protocol
from grasping.grasps import COLUMNS, GraspFileError, GraspFileMissingError, Grasps, read_dump_file
from grasping.suppression import suppress

ROWS = np.random.default_rng(0).normal(size=(5, COLUMNS))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "g", "i1", "i4", "i8", "u2", ">f8", ">i4"])
def test_numbers_of_any_width_become_float64(tmp_path: Path, dtype: str) -> None:
    array = (ROWS * 50).astype(dtype) if np.dtype(dtype).kind == "f" else np.abs(ROWS * 50).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    grasps, note = read_dump_file(tmp_path / "a.npy")
    assert note == ""
    np.testing.assert_array_equal(grasps.to_array()[:, :16], array.astype(np.float64)[:, :16])


def test_order_in_memory_is_no_matter(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.asfortranarray(ROWS))
    np.testing.assert_array_equal(read_dump_file(tmp_path / "a.npy")[0].translation, ROWS[:, 13:16])


@pytest.mark.parametrize("shape", [(0, 17), (0,), (0, 16), (3, 0), (0, 17, 2)])
def test_an_array_without_elements_is_a_view_without_grasps(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape))
    grasps, note = read_dump_file(tmp_path / "a.npy")
    assert len(grasps) == 0 and (note == "") == (shape == (0, 17))
    assert shape == (0, 17) or str(shape) in note


def test_a_single_row_is_one_grasp_and_told(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ROWS[0])
    grasps, note = read_dump_file(tmp_path / "a.npy")
    assert len(grasps) == 1 and "one grasp" in note
    np.testing.assert_array_equal(grasps.rotation[0].ravel(), ROWS[0, 4:13])


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((3, 16)), "(3, 16)"),
        (np.zeros((3, 18)), "(3, 18)"),
        (np.zeros(16), "(16,)"),
        (np.zeros((1, 3, 17)), "(1, 3, 17)"),
        (np.float64(3), "()"),
        (np.zeros((3, 17), complex), "complex128"),
        (np.zeros((3, 17), bool), "bool"),
        (np.full((3, 17), "1.0"), "<U3"),
        (np.zeros(3, [("score", "f8")]), "score"),
        (np.zeros((3, 17), "M8[s]"), "datetime64"),
    ],
)
def test_other_shapes_and_types_are_refused_by_name(tmp_path: Path, array: np.ndarray, says: str) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(GraspFileError) as caught:
        read_dump_file(tmp_path / "a.npy")
    message = str(caught.value)
    assert says in message and str(tmp_path / "a.npy") in message and "write it again" in message


class _Bomb:
    def __reduce__(self):  # type: ignore[no-untyped-def]
        return os.mkdir, ("unpickled",)


def test_nothing_is_ever_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bomb = np.empty(1, object)
    bomb[0] = _Bomb()
    np.save("object.npy", bomb, allow_pickle=True)
    Path("pickle.npy").write_bytes(pickle.dumps(_Bomb()))
    np.savez("archive.npz", ROWS)
    Path("archive.npz").rename("archive.npy")
    for name in ("object.npy", "pickle.npy", "archive.npy"):
        with pytest.raises(GraspFileError, match=name) as caught:
            read_dump_file(Path(name))
        assert "unsafely" not in str(caught.value)
    assert not Path("unpickled").exists()


def test_a_header_is_not_believed_beyond_the_files_size(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, ROWS)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"(5, 17)", b"(5000000000, 17)").replace(b" " * 9 + b"\n", b"\n", 1))
    with pytest.raises(GraspFileError):
        read_dump_file(path)
    for length in (*range(0, 140, 7), len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(GraspFileError):
            read_dump_file(path)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(GraspFileMissingError):
        read_dump_file(tmp_path / "absent.npy")
    (tmp_path / "folder.npy").mkdir()
    os.mkfifo(tmp_path / "pipe.npy")  # opening it would wait for ever
    for name in ("folder.npy", "pipe.npy"):
        with pytest.raises(GraspFileError, match="folder or device") as caught:
            read_dump_file(tmp_path / name)
        assert not isinstance(caught.value, GraspFileMissingError)


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, ROWS)
    path.chmod(0)
    user = os.geteuid()
    if user == 0:  # root may read everything: ask as nobody
        os.seteuid(65534)
    try:
        with pytest.raises(GraspFileError, match="Permission denied"):
            read_dump_file(path)
    finally:
        os.seteuid(user)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300), st.integers(0, 2))
def test_any_bytes_are_grasps_or_refused(tmp_path: Path, data: bytes, kind: int) -> None:
    path = tmp_path / "a.npy"
    np.save(path, ROWS)
    whole = path.read_bytes()
    path.write_bytes((data, b"\x93NUMPY\x01\x00" + data, data.join([whole[:20], whole[20:]]))[kind])
    try:
        assert isinstance(read_dump_file(path)[0], Grasps)
    except GraspFileError as error:
        assert str(path) in str(error) and len(str(error)) < 500


NUMBERS = floating_dtypes(endianness="?") | integer_dtypes(endianness="?") | unsigned_integer_dtypes(endianness="?")


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(NUMBERS.flatmap(lambda t: arrays(t, array_shapes(max_dims=3, max_side=18) | st.just((3, 17)))))
def test_any_array_of_numbers_is_read_by_its_shape(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    if array.shape == (COLUMNS,) or (array.ndim == 2 and array.shape[1] == COLUMNS):
        grasps, _ = read_dump_file(tmp_path / "a.npy")
        np.testing.assert_array_equal(grasps.to_array()[:, :16], array.reshape(-1, COLUMNS)[:, :16].astype(np.float64))
    else:
        with pytest.raises(GraspFileError):
            read_dump_file(tmp_path / "a.npy")


@pytest.mark.real_data
@pytest.mark.graspnetapi
def test_real_dumps_are_read_and_suppressed_as_the_referee_does(real_data: Path) -> None:
    grasp = pytest.importorskip("graspnetAPI.grasp", reason="install it with scripts/install_referee.sh")
    files = sorted((real_data / "dumps" / "scene_0100_kinect").glob("*.npy"))
    assert len(files) == 16
    rows = kept = distinct = 0
    for path in files:
        ours, note = read_dump_file(path)
        theirs = grasp.GraspGroup().from_npy(str(path))
        assert note == ""
        np.testing.assert_array_equal(ours.to_array(), theirs.grasp_group_array)
        survivors = ours[suppress(ours, protocol.SUPPRESSION_TRANSLATION, protocol.SUPPRESSION_ANGLE)].to_array()
        expected = theirs.nms(protocol.SUPPRESSION_TRANSLATION, protocol.SUPPRESSION_ANGLE).grasp_group_array
        if len(np.unique(ours.confidence)) < len(ours):  # the order of equals is the referee's chance
            np.testing.assert_array_equal(survivors[:, 0], expected[:, 0])
            survivors, expected = (a[np.lexsort(a.T)] for a in (survivors, expected))
        else:
            distinct += 1
        np.testing.assert_array_equal(survivors, expected)
        rows, kept = rows + len(ours), kept + len(survivors)
    assert distinct == 10 and rows == 448 and kept == 310
