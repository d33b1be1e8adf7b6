"""What a worker on another machine must have before it is given any unit: our versions, one thread, the run's folder.

:func:`why_unfit` runs on the workers, which import this module: it stays light.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import os
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.engines import EngineError

# Another version of these may give other last digits; of the last, not understand ours.
_ALIKE = ("numpy", "scipy", "numba", "torch", "trimesh", "manifold3d", "mujoco", "open3d", "distributed")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_LATE = 60.0  # seconds that a shared file system may take to show the marker
_MARKER = "driver"


@dataclass(frozen=True)
class Expected:
    """What the driver has, and its workers must have too.

    Attributes:
        python: ``3.11``.
        versions: of grasp-utility and of what its results rest on, by name.
        folder: a new folder inside the run's, with a file in it that the worker must see; None: not asked for.
        token: what that file says.
    """

    python: str
    versions: Mapping[str, str]
    folder: Path | None
    token: str

    def withdraw(self) -> None:
        """Remove the folder that workers were asked to look at."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def expect(run: Path | None) -> Expected:
    """Return what workers must have, and put a file into the run's folder for them to find.

    Raises:
        EngineError: if nothing can be written there.
    """
    token = secrets.token_hex(8)
    folder = None if run is None else run.resolve() / ".work" / f"engine-{token}"
    if folder is not None:
        try:
            folder.mkdir(parents=True)
            (folder / _MARKER).write_text(token)
        except OSError as error:
            raise EngineError(
                f"{folder}: cannot be written ({error.strerror or error}); choose another --out"
            ) from None
    return Expected(_python(), _versions(), folder, token)


async def why_unfit(expected: Expected) -> str | None:
    """Return why the worker that runs this must not be given units, or None. Limits its threads to one."""
    _one_thread()
    if _python() != expected.python:
        return f"runs Python {_python()}, not {expected.python}"
    here = _versions()
    for name, version in expected.versions.items():
        if here[name] != version:
            return f"has {name} {here[name] or '(none)'}, not {version or '(none)'}"
    if several := [name for name in _THREADS if os.environ.get(name) != "1"]:
        return (
            f"may compute with several threads: start it with a nanny (as dask worker does by itself) and "
            f"{' '.join(name + '=1' for name in several)}"
        )
    return None if expected.folder is None else await _why_blind(expected.folder, expected.token)


async def _why_blind(folder: Path, token: str) -> str | None:
    """Return why the run's folder cannot be used here: it is not there, or nothing can be written into it."""
    deadline = time.monotonic() + _LATE
    while True:
        with contextlib.suppress(OSError):
            if (folder / _MARKER).read_text() == token:
                break
        if time.monotonic() > deadline:
            return f"does not see {folder}, where the run lies: it needs a file system that the nodes share"
        await asyncio.sleep(0.5)
    mine = folder / f"{socket.gethostname()}-{os.getpid()}"
    try:
        mine.touch()
        mine.unlink()
    except OSError as error:
        return f"cannot write into {folder} ({error.strerror or error})"
    return None


def _one_thread() -> None:
    # What is loaded already is told; what is not reads its environment when it is.
    os.environ.setdefault("NUMBA_NUM_THREADS", "1")
    for name in ("numba", "torch"):
        if name in sys.modules:
            sys.modules[name].set_num_threads(1)


def _python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _versions() -> dict[str, str]:
    """Return versions without the part that names a build (``2.13.0+cpu``); '' of what is not installed."""
    found = {}
    for name in ("grasp-utility", *_ALIKE):
        try:
            found[name] = importlib.metadata.version(name).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            found[name] = ""
    return found
