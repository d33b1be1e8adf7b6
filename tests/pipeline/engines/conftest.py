"""What units do in these tests, and a real Slurm of two emulated nodes for those that are marked so."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

EMULATE = Path(__file__).resolve().parents[3] / "scripts" / "slurm" / "emulate.sh"

# What tells of times, and so differs between any two runs.
OF_TIMES = ("declared.json", ".hashes.json", "report.html", "report/contents.json")
TIME_TABLES = ("timings", "time-of-the-units", "run")

# Workers import functions by name, so they have to live in an importable module.
UNITS = """
import os
import time
from pathlib import Path

def double(number):
    return 2 * number

def fail(text):
    raise ValueError(text)

def die(_):
    os.kill(os.getpid(), 9)

def where(_):
    return os.environ.get("SLURMD_NODENAME"), os.environ.get("SLURM_JOB_PARTITION"), os.getpid()

def threads(_):
    import numpy
    import threadpoolctl
    import torch
    pools = {pool["num_threads"] for pool in threadpoolctl.threadpool_info()}
    return pools | {torch.get_num_threads()}, os.environ["NUMBA_NUM_THREADS"]

def hold(folder):
    # says where it runs, and waits until it is let go
    folder = Path(folder)
    mine = folder / f"begun-{os.environ.get('SLURMD_NODENAME', '')}-{os.getpid()}"
    mine.touch()
    until = time.monotonic() + 120
    while not (folder / "go").exists() and time.monotonic() < until:
        time.sleep(0.05)
    return os.getpid()
"""


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The functions above, as a module that lies in the folder of its file, which belongs into PYTHONPATH."""
    file = tmp_path_factory.mktemp("units") / "engine_units.py"
    file.write_text(UNITS)
    spec = importlib.util.spec_from_file_location("engine_units", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules["engine_units"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["engine_units"]


@pytest.fixture(scope="module")
def searched(units: ModuleType) -> str:
    """PYTHONPATH for workers."""
    return os.pathsep.join([str(Path(units.__file__).parent), str(EMULATE.parents[2])])


def wait_until(true: Callable[[], Any], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.fixture(name="wait_until")
def _wait_until() -> Callable[..., None]:
    return wait_until


@dataclass(frozen=True)
class EmulatedSlurm:
    folder: Path

    def lose(self, node: str) -> None:
        subprocess.run(["bash", EMULATE, "lose", self.folder, node], check=True)

    def queue(self) -> list[str]:
        """Names of the jobs in the queue, those included that are being cleared away."""
        done = subprocess.run(["squeue", "-h", "-o", "%j"], capture_output=True, text=True, check=True)
        return done.stdout.split()


def _bring_up(folder: Path) -> EmulatedSlurm:
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if not _which(name)]
    if missing:
        pytest.skip(f"no Slurm here ({', '.join(missing)} missing): apt-get install slurm-wlm munge")
    if os.geteuid() != 0:
        pytest.skip("slurmd needs root")
    subprocess.run(["bash", EMULATE, "up", folder], check=True, capture_output=True, text=True, timeout=60)
    return EmulatedSlurm(folder)


def _which(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedSlurm]:
    """A Slurm of two nodes with four processors each, for the tests of a module; nobody may lose a node of it."""
    folder = tmp_path_factory.mktemp("slurm")
    try:
        up = _bring_up(folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
            yield up
    finally:
        subprocess.run(["bash", EMULATE, "down", folder], check=True)


@pytest.fixture
def slurm_to_break(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmulatedSlurm]:
    """One for a single test."""
    folder = tmp_path / "slurm"
    try:
        up = _bring_up(folder)
        monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        yield up
    finally:
        subprocess.run(["bash", EMULATE, "down", folder], check=True)


@pytest.fixture(scope="session")
def content_of() -> Callable[[Path], dict[str, object]]:
    return content


@pytest.fixture(scope="session")
def assert_same() -> Callable[[dict[str, object], dict[str, object]], None]:
    def check(theirs: dict[str, object], reference: dict[str, object]) -> None:
        assert set(theirs) == set(reference)
        assert [name for name in reference if theirs[name] != reference[name]] == []

    return check


def content(run: Path) -> dict[str, object]:
    """Every file of a run, less what tells of times."""
    found: dict[str, object] = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if not path.is_file() or name in OF_TIMES or path.stem in TIME_TABLES or "progress" in name or "lock" in name:
            continue
        if path.suffix == ".json":
            value = json.loads(path.read_text())
            if path.name == "stamp.json":
                del value["seconds"]
            elif name == "summary.json":
                del value["provenance"]["aggregate_seconds"], value["declarations"]
            found[name] = value
        else:
            found[name] = path.read_bytes()
    return found
