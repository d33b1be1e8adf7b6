"""Kernels are compiled and kept also for a user who may write neither the package nor a home."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from grasping import compiled_cache


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(compiled_cache.os, "access", lambda folder, mode: False)
    monkeypatch.setattr(compiled_cache.tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"grasp-utility-kernels-{os.getuid()}"


def test_a_place_is_found_where_numba_finds_none_and_kept(nowhere: Path) -> None:
    compiled_cache.settle()
    assert os.environ["NUMBA_CACHE_DIR"] == str(nowhere)
    assert nowhere.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("kind", ["open", "link", "file"])
def test_a_folder_that_others_may_write_is_not_used(nowhere: Path, tmp_path: Path, kind: str) -> None:
    if kind == "link":
        (tmp_path / "theirs").mkdir()
        nowhere.symlink_to(tmp_path / "theirs")
    elif kind == "file":
        nowhere.touch()
    else:
        nowhere.mkdir()
        nowhere.chmod(0o777)
    compiled_cache.settle()
    chosen = Path(os.environ["NUMBA_CACHE_DIR"])
    assert chosen != nowhere and chosen.is_dir() and chosen.stat().st_mode & 0o077 == 0


def test_nothing_is_set_where_numba_may_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(compiled_cache.os, "access", lambda folder, mode: True)
    compiled_cache.settle()
    assert "NUMBA_CACHE_DIR" not in os.environ
    monkeypatch.setenv("NUMBA_CACHE_DIR", "mine")
    compiled_cache.settle()
    assert os.environ["NUMBA_CACHE_DIR"] == "mine"
