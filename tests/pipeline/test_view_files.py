"""A unit's files of single views, loose and packed: the same to every reader."""

from __future__ import annotations

import io
import os
import resource
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grasping.grasps import COLUMNS, GraspFileError, GraspFileMissingError, Grasps, read_dump_file
from pipeline import view_files
from pipeline.artifacts import ArtifactError
from pipeline.cloud_files import OK, ObjectClouds, load_clouds, save_clouds
from pipeline.run_folder import unit_folder, view_file
from pipeline.view_files import (
    PACK,
    arrange,
    has_view,
    load_grasps,
    open_view,
    pack,
    read_grasps,
    refuse_packed,
    unpack,
    views_in,
)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def read(path: Path) -> bytes:
    with open_view(path) as stream:
        return stream.read()


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """Three views' clouds and what else lies in a unit."""
    folder = tmp_path / "unit"
    rng = np.random.default_rng(0)
    for view in (0, 64, 200):
        clouds = tuple(rng.normal(size=(n, 3)).astype(np.float32) for n in (5, 0, 7))
        save_clouds(view_file(folder, view, ".npz"), ObjectClouds(np.array([3, 4, 5]), clouds, (OK, "empty", OK)))
    (folder / "metrics.parquet").write_bytes(b"metrics")
    (folder / "stamp.json").write_text("{}")
    return folder


def test_a_packed_unit_holds_one_file_for_its_views_and_reads_alike(unit: Path) -> None:
    before = content(unit)
    pack(unit)
    assert sorted(content(unit)) == ["metrics.parquet", "stamp.json", PACK]
    assert views_in(unit, ".npz") == [0, 64, 200] and views_in(unit, ".npy") == []
    for view in (0, 64, 200):
        path = view_file(unit, view, ".npz")
        assert has_view(path) and read(path) == before[path.name]
        assert [len(cloud) for cloud in load_clouds(path).clouds] == [5, 0, 7]
    assert not has_view(view_file(unit, 1, ".npz")) and not has_view(view_file(unit, 0, ".npy"))


def test_equal_files_make_an_equal_pack_whenever_and_in_whatever_order_they_were_written(
    unit: Path, tmp_path: Path
) -> None:
    shutil.copytree(unit, tmp_path / "later")
    for place, path in enumerate(reversed(sorted((tmp_path / "later").iterdir()))):
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)
        os.utime(path, (place, place))
        path.chmod(0o600)
    pack(unit)
    pack(tmp_path / "later")
    assert content(unit) == content(tmp_path / "later")
    before = (unit / PACK).stat()
    pack(unit)  # nothing is loose any more
    assert (unit / PACK).stat().st_mtime_ns == before.st_mtime_ns


NAMES = st.builds("{:04d}.{}".format, st.integers(0, 255), st.sampled_from(["npz", "npy"]))


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(NAMES, st.binary(max_size=300), max_size=8), st.dictionaries(NAMES, st.binary(max_size=300)))
def test_packing_and_unpacking_lose_nothing(first: dict[str, bytes], second: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home, "unit")
        folder.mkdir()
        for files in (first, second):  # what is made anew replaces what is packed
            for name, data in files.items():
                (folder / name).write_bytes(data)
            for name, data in (first | files).items():
                assert read(folder / name) == data
            pack(folder)
        assert len(list(folder.iterdir())) == bool(first | second)
        assert unpack(folder, Path(home, "out")) == len(first | second)
        assert not (first | second) or content(Path(home, "out")) == first | second
        unpack(folder, folder)
        assert content(folder) == first | second


def test_a_unit_is_given_the_form_that_is_wanted(unit: Path) -> None:
    before = content(unit)
    assert not arrange(unit, packed=False) and content(unit) == before
    assert arrange(unit, packed=True) and PACK in content(unit)
    assert not arrange(unit, packed=True)
    assert arrange(unit, packed=False) and content(unit) == before


def test_a_packed_dump_is_refused_where_files_are_read_one_by_one(tmp_path: Path) -> None:
    folder = unit_folder(tmp_path / "dump", 100, "kinect")
    folder.mkdir(parents=True)
    np.save(view_file(folder, 0, ".npy"), np.zeros((1, COLUMNS)))
    refuse_packed(tmp_path / "dump")
    pack(folder)
    with pytest.raises(ArtifactError, match=rf"{PACK}: a packed run's; .* `grasp-utility dump-export`"):
        refuse_packed(tmp_path / "dump")


def test_a_pack_is_an_archive_that_others_read(unit: Path, tmp_path: Path) -> None:
    before = content(unit)
    pack(unit)
    with zipfile.ZipFile(unit / PACK) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()}.items() <= before.items()
    if shutil.which("unzip"):
        subprocess.run(["unzip", "-q", str(unit / PACK), "-d", str(tmp_path / "out")], check=True)
        assert content(tmp_path / "out").items() <= before.items()


def test_one_view_is_read_alone_and_the_directory_once(unit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for view in range(40):
        view_file(unit, view, ".npy").write_bytes(bytes(10_000))
    pack(unit)
    before, opened = len(os.listdir("/proc/self/fd")), []  # noqa: PTH208
    real = zipfile.ZipFile
    monkeypatch.setattr(view_files.zipfile, "ZipFile", lambda *a, **k: opened.append(a) or real(*a, **k))
    asked = read_bytes_of_process()
    for view in range(40):
        assert read(view_file(unit, view, ".npy")) == bytes(10_000)
    assert len(opened) == 1
    assert read_bytes_of_process() - asked < 40 * 10_000 + 100_000  # the pack is 400 kB: not once a view
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def read_bytes_of_process() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def test_a_pack_that_was_replaced_is_read_anew(unit: Path) -> None:
    path = view_file(unit, 0, ".npz")
    pack(unit)
    old = read(path)
    path.write_bytes(b"new")
    assert read(path) == b"new"  # the loose one counts
    pack(unit)
    assert read(path) == b"new" != old


def test_what_is_missing_is_named_in_both_places(unit: Path) -> None:
    pack(unit)
    missing = view_file(unit, 7, ".npz")
    with pytest.raises(FileNotFoundError, match=rf"0007\.npz: no such file, nor is it in a {PACK} beside"):
        open_view(missing)
    with pytest.raises(ArtifactError, match=rf"0007\.npz: no such file.*{PACK}.*run the stage"):
        load_clouds(missing)
    with pytest.raises(GraspFileMissingError, match=r"0007\.npy: no such grasp file"):
        load_grasps(view_file(unit, 7, ".npy"))
    nowhere = view_file(unit / "nowhere", 7, ".npz")
    assert not has_view(nowhere) and views_in(nowhere.parent, ".npz") == []
    with pytest.raises(FileNotFoundError, match=r"0007\.npz"):
        open_view(nowhere)


@pytest.mark.parametrize("keep", [0, 10, 200, -30, "a view"])
def test_a_pack_cut_short_is_broken_and_never_empty(unit: Path, keep: int | str) -> None:
    pack(unit)
    data = (unit / PACK).read_bytes()
    if keep == "a view":  # ends as an archive does
        keep = data.index(b"PK\x05\x06") + 22
        assert zipfile.is_zipfile(io.BytesIO(data[:keep]))
    (unit / PACK).write_bytes(data[: int(keep)])
    path = view_file(unit, 0, ".npz")
    for reader in (has_view, open_view, load_clouds):
        with pytest.raises(ArtifactError, match=rf"{PACK}: broken .*run again"):
            reader(path)
    with pytest.raises(GraspFileError, match=f"{PACK}: broken"):
        load_grasps(view_file(unit, 0, ".npy"))


def test_a_whole_pack_that_cannot_be_read_just_now_is_not_called_broken(unit: Path) -> None:
    np.save(view_file(unit, 0, ".npy"), np.zeros((2, COLUMNS)))
    pack(unit)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        with pytest.raises(ArtifactError, match=rf"{PACK}: cannot be read \(Too many open files\); see to that"):
            has_view(view_file(unit, 0, ".npz"))
        with pytest.raises(GraspFileError, match="cannot be read"):
            load_grasps(view_file(unit, 0, ".npy"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(load_grasps(view_file(unit, 0, ".npy"))) == 2


def test_a_changed_byte_is_seen(unit: Path) -> None:
    pack(unit)
    data = bytearray((unit / PACK).read_bytes())
    data[200] ^= 1
    (unit / PACK).write_bytes(data)
    with pytest.raises(ArtifactError, match=rf"{PACK}/0000\.npz: broken \(its checksum is another\)"):
        load_clouds(view_file(unit, 0, ".npz"))
    assert len(load_clouds(view_file(unit, 64, ".npz")).clouds) == 3


def test_a_compressed_archive_is_no_pack(unit: Path) -> None:
    with zipfile.ZipFile(unit / PACK, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(view_file(unit, 0, ".npz"), "0001.npz")
    with pytest.raises(ArtifactError, match="compressed"):
        has_view(view_file(unit, 1, ".npz"))


ODD = {
    "nothing": b"",
    "text": b"not an array",
    "an archive": b"PK\x03\x04" + bytes(60),
}


def arrays() -> dict[str, np.ndarray]:
    rows = np.arange(3 * COLUMNS, dtype=np.float64).reshape(3, COLUMNS)
    return {
        "float64": rows,
        "float16": rows.astype(np.float16),
        "int": rows.astype(np.int32),
        "one row": rows[0],
        "none": np.zeros((0, COLUMNS)),
        "an empty list": np.array([]),
        "fortran": np.asfortranarray(rows),
        "wide": np.zeros((3, 4)),
        "complex": rows.astype(complex),
        "text": np.array(["a"] * COLUMNS),
    }


def told(function, argument) -> object:
    """What comes of reading: an array and a note, or the error's text without the name of the file."""
    try:
        grasps, note = function(argument)
    except GraspFileError as error:
        return str(error).partition(": ")[2]
    return grasps.to_array().tolist(), note


@pytest.mark.parametrize("name", arrays())
def test_grasps_are_read_packed_by_the_rules_of_loose_ones(tmp_path: Path, name: str) -> None:
    path = view_file(tmp_path, 0, ".npy")
    np.save(path, arrays()[name])
    loose = told(read_dump_file, path)
    assert told(read_grasps, path) == loose
    pack(tmp_path)
    assert not path.exists() and told(read_grasps, path) == loose


@pytest.mark.parametrize("data", [*ODD.values(), None], ids=[*ODD, "claims a terabyte"])
def test_broken_grasps_in_a_pack_are_named(tmp_path: Path, data: bytes | None) -> None:
    path = view_file(tmp_path, 0, ".npy")
    if data is None:
        np.save(path, np.zeros((2, COLUMNS)))
        data = path.read_bytes().replace(b"(2, 17), }          ", b"(9999999999, 17), } ")
        assert b"9999999999" in data
    path.write_bytes(data)
    pack(tmp_path)
    with pytest.raises(GraspFileError, match=rf"{PACK}/0000\.npy: not a grasp dump.*write it again"):
        Grasps.load(open_view(path))
    with pytest.raises(GraspFileError, match=rf"{PACK}/0000\.npy"):
        load_grasps(path)
