"""``failure.json``: what is known of a unit that failed as a whole, where its stamp would be; one file a failure.

Schema (``format_version`` 1)
-----------------------------
``stage, unit``
    which.
``reason``
    one line.
``because_of``
    ``STAGE UNIT`` of the unit that failed and that this one needs; null where the fault is its own.
``traceback``
    of the last try; null where its process died, or where there was none.
``stderr``
    the end of what Python wrote there during the last try, warnings among it; '' where nothing is known.
``tries, seconds, where, when``
    tries in all, wall-clock time of the last, ``host:process`` (null where the process died), and UTC.
``software``
    versions, where it was tried last.
"""

from __future__ import annotations

import contextlib
import json
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

from pipeline.artifacts import write_json
from pipeline.run_folder import FAILURE, STAMP

FAILURE_VERSION = 1
KEPT = 4000
"""Characters of standard error."""


@dataclass(frozen=True)
class Failure:
    """See the schema; where the file cannot be read, ``reason`` says so."""

    folder: Path
    stage: str
    unit: str
    reason: str
    because_of: str | None = None
    traceback: str | None = None
    stderr: str = ""
    tries: int = 0
    seconds: float | None = None
    where: str | None = None
    when: str | None = None
    software: str | None = None

    @property
    def log(self) -> Path:
        return self.folder / FAILURE

    def row(self) -> dict[str, Any]:
        """Return what ``problems.json`` says of it; the rest is in its own file."""
        keys = ("stage", "reason", "because_of", "tries", "where", "when")
        return {key: getattr(self, key) for key in keys}


def record_failure(failure: Failure) -> None:
    """Write a failure in place of the unit's stamp; a disk that is full is no reason to stop."""
    content = {key: value for key, value in vars(failure).items() if key != "folder"}
    with contextlib.suppress(OSError):
        (failure.folder / STAMP).unlink(missing_ok=True)  # first: it must not pass for current
        write_json(failure.log, {**content, "format_version": FAILURE_VERSION, "when": failure.when or now()})


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def read_failure(folder: Path) -> Failure | None:
    """Return the failure of a unit; None where there is none."""
    try:
        text = (folder / FAILURE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        return Failure(folder, "", folder.name, f"{folder / FAILURE}: cannot be read ({error.strerror or error})")
    try:
        content = json.loads(text)
        known = {key: content[key] for key in Failure.__dataclass_fields__ if key in content}
        return Failure(**{"folder": folder, "unit": folder.name, "stage": "", "reason": "", **known})
    except (ValueError, TypeError):
        return Failure(folder, "", folder.name, f"{folder / FAILURE}: not readable")


def software() -> str:
    """Return the versions that matter most, in one line."""
    packages = ("grasp-utility", "numpy", "torch")
    versions = [f"{name} {_version(name)}" for name in packages]
    return ", ".join([*versions, f"Python {platform.python_version()}", platform.platform()])


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"


class _Tee:
    """Passes text on and keeps its end."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.kept = ""

    def write(self, text: str) -> int:
        self.kept = (self.kept + text)[-KEPT:]
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def stderr_kept() -> Iterator[_Tee]:
    """Keep the end of what Python writes to standard error in the block; it is shown all the same."""
    tee = _Tee(sys.stderr)
    with contextlib.redirect_stderr(tee):
        yield tee
