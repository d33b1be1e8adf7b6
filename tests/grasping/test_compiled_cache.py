"""Kernels are compiled and kept also for a user who may write neither the package nor a home."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from grasping import compiled_cache

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is told beforehand, and what is settled here is not left to the tests that follow."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", "to be restored afterwards")
    monkeypatch.delenv("NUMBA_CACHE_DIR")


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
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
    monkeypatch.setattr(compiled_cache.os, "access", lambda folder, mode: True)
    compiled_cache.settle()
    assert "NUMBA_CACHE_DIR" not in os.environ
    monkeypatch.setenv("NUMBA_CACHE_DIR", "mine")
    compiled_cache.settle()
    assert os.environ["NUMBA_CACHE_DIR"] == "mine"


UNPRIVILEGED = """
import os
from grasping import compiled_cache
os.environ.pop("NUMBA_CACHE_DIR", None)
os.setgid(65534); os.setuid(65534)  # not before: Python itself may lie where others cannot read
compiled_cache.settle()
print(os.environ["NUMBA_CACHE_DIR"])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody who may not look into the home")
def test_a_home_that_may_not_be_looked_into_is_as_none() -> None:
    home = Path(tempfile.mkdtemp(dir="/tmp"))  # pytest's own folders are closed to others
    try:
        home.chmod(0o777)
        (home / "closed").mkdir(mode=0o700)
        environment = {name: value for name, value in os.environ.items() if name != "XDG_CACHE_HOME"}
        environment |= {"HOME": str(home / "closed"), "TMPDIR": str(home)}
        done = subprocess.run(
            [sys.executable, "-c", UNPRIVILEGED], capture_output=True, text=True, cwd=ROOT, env=environment, check=True
        )
        assert done.stdout.strip() == str(home / "grasp-utility-kernels-65534")
    finally:
        shutil.rmtree(home)
