from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.artifacts import (
    ArtifactError,
    FileHashes,
    Stamp,
    atomic_write,
    derive_seed,
    file_hash,
    fingerprint,
    read_stamp,
    run_lock,
    why_stale,
    write_stamp,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=4), json_values, min_size=2, max_size=5))
def test_fingerprint_ignores_key_order(value: dict) -> None:
    assert fingerprint(value) == fingerprint(dict(reversed(list(value.items()))))


def test_interrupted_write_leaves_the_old_file_and_no_rubbish(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_write(path, "w") as stream:
        stream.write("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["a.txt"]


def test_stamp_says_which_keys_changed(tmp_path: Path) -> None:
    path = tmp_path / "stamp.json"
    assert why_stale(path, {}) == "not made yet"
    write_stamp(path, Stamp({"views": [1, 2], "version": 1}, [], 0.5, {}))
    assert why_stale(path, {"version": 1, "views": (1, 2)}) is None
    assert why_stale(path, {"version": 2, "views": [1, 2], "new": 0}) == "changed: new, version"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"made_from": 3}'])
def test_broken_stamp_means_not_finished(tmp_path: Path, text: str) -> None:
    (tmp_path / "stamp.json").write_text(text)
    assert read_stamp(tmp_path / "stamp.json") is None


def test_hashes_follow_the_content(tmp_path: Path) -> None:
    path, memo = tmp_path / "a", tmp_path / "memo.json"
    path.write_bytes(b"one")
    hashes = FileHashes(memo)
    first = hashes(path)
    hashes.save()
    assert first == file_hash(path) == FileHashes(memo)(path)
    path.write_bytes(b"three")
    assert FileHashes(memo)(path) == file_hash(path) != first
    assert hashes(tmp_path / "none") == "absent"


def _remember(memo: str, names: list[str]) -> None:
    hashes = FileHashes(Path(memo))
    for name in names:
        hashes(Path(name))
    hashes.save()


def test_processes_that_hash_at_once_remember_all(tmp_path: Path) -> None:
    """As tasks of a job array do, each for its own scenes."""
    names = [str(tmp_path / f"file{i}") for i in range(400)]
    for name in names:
        Path(name).write_text(name)
    memo = tmp_path / "memo.json"
    context = multiprocessing.get_context("fork")
    tasks = [context.Process(target=_remember, args=(str(memo), names[first::8])) for first in range(8)]
    for task in tasks:
        task.start()
    for task in tasks:
        task.join()
    assert set(json.loads(memo.read_text())) == set(names)


def test_second_run_on_a_folder_is_refused(tmp_path: Path) -> None:
    with run_lock(tmp_path), pytest.raises(ArtifactError, match="another grasp-utility"), run_lock(tmp_path):
        pass
    with run_lock(tmp_path):
        pass


def test_seed_depends_on_every_part() -> None:
    base = derive_seed(0, 100, "realsense", 64, 3, "complete")
    others = [derive_seed(1, 100, "realsense", 64, 3, "complete"), derive_seed(0, 100, "kinect", 64, 3, "complete")]
    assert base == derive_seed(0, 100, "realsense", 64, 3, "complete")
    assert len({base, *others}) == 3
    assert 0 <= base < 2**63
