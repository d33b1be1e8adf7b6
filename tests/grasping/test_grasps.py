"""The grasp array and its files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

from grasping.grasps import COLUMNS, GraspFileError, Grasps
from grasping.transforms import invert, pose


def some(n: int, seed: int = 0) -> Grasps:
    rng = np.random.default_rng(seed)
    array = rng.normal(size=(n, COLUMNS))
    array[:, 4:13] = Rotation.random(n, random_state=seed).as_matrix().reshape(n, 9)
    array[:, 16] = rng.integers(-1, 88, n)
    return Grasps.from_array(array)


@given(arrays(np.float64, st.tuples(st.integers(0, 5), st.just(17)), elements=st.floats(-1e3, 1e3)))
def test_array_round_trip(array: np.ndarray) -> None:
    array[:, 16] = np.round(array[:, 16])
    assert np.array_equal(Grasps.from_array(array).to_array(), array)


def test_columns_are_those_of_the_dump_format() -> None:
    grasps = Grasps.from_array(np.arange(17.0)[None])
    assert (grasps.confidence, grasps.width, grasps.height, grasps.depth) == (0, 1, 2, 3)
    assert grasps.rotation[0].tolist() == [[4, 5, 6], [7, 8, 9], [10, 11, 12]]
    assert grasps.translation[0].tolist() == [13, 14, 15]
    assert grasps.object_id[0] == 16 and grasps.object_id.dtype == np.int64


def test_from_array_copies() -> None:
    array = np.zeros((2, 17))
    grasps = Grasps.from_array(array)
    array[:] = 1
    assert not grasps.to_array().any()


@pytest.mark.parametrize("shape", [(17,), (2, 16), (0,), (1, 2, 17)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="17"):
        Grasps.from_array(np.zeros(shape))


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 1e300])
def test_object_id_without_meaning_is_unknown(odd: float) -> None:
    array = np.zeros((1, 17))
    array[0, 16] = odd
    assert Grasps.from_array(array).object_id[0] == -1


def test_selection_and_concatenation() -> None:
    grasps = some(6)
    assert np.array_equal(grasps[[4, 1]].to_array(), grasps.to_array()[[4, 1]])
    assert len(grasps[grasps.confidence > 1e9]) == 0
    joined = Grasps.concatenate([grasps[:2], Grasps.empty(), grasps[2:]])
    assert np.array_equal(joined.to_array(), grasps.to_array())
    assert len(Grasps.concatenate([])) == 0


def test_an_empty_list_selects_nothing() -> None:
    assert len(some(3)[[]]) == 0


def test_transformed_back_and_forth() -> None:
    grasps = some(5)
    T = pose(Rotation.random(random_state=3).as_matrix(), [0.1, -2, 3])
    moved = grasps.transformed(T)
    point = grasps.rotation[0] @ [0.1, 0.2, 0.3] + grasps.translation[0]
    assert moved.rotation[0] @ [0.1, 0.2, 0.3] + moved.translation[0] == pytest.approx(T[:3, :3] @ point + T[:3, 3])
    assert moved.transformed(invert(T)).to_array() == pytest.approx(grasps.to_array())


def test_dump_files(tmp_path: Path) -> None:
    path = tmp_path / "0000.npy"
    np.save(path, some(4).to_array())
    assert np.array_equal(Grasps.load(path).to_array(), some(4).to_array())
    np.save(path, np.zeros((0, 17), np.float32))
    assert len(Grasps.load(path)) == 0


def test_bad_dump_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "0007.npy"
    with pytest.raises(GraspFileError, match=r"0007\.npy: no such"):
        Grasps.load(path)
    np.save(path, some(4).to_array())
    whole = path.read_bytes()
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    pickled = path.read_bytes()
    np.save(path, np.zeros((3, 7)))
    narrow = path.read_bytes()
    np.save(path, np.full((1, 17), "x"))
    text = path.read_bytes()
    for content in (whole[:-8], whole[:20], b"", b"no numpy file", pickled, narrow, text):
        path.write_bytes(content)
        with pytest.raises(GraspFileError, match=r"0007\.npy"):
            Grasps.load(path)
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(GraspFileError, match=r"folder\.npy"):
        Grasps.load(tmp_path / "folder.npy")
