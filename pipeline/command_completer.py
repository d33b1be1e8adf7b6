"""A method in another environment completes clouds: it is handed a folder of partial clouds and fills another.

An arm's ``command`` is called once for each unit (the views of one scene and camera), so that a slow start is paid
once. ``{input}`` and ``{output}`` in it become the absolute paths of two folders:

``{input}/request.json``
    ``format_version`` (1), ``unit`` ("m"), ``frame`` (see :mod:`pipeline.frames`), ``scene``, ``camera``, and
    ``clouds``: a list of ``{file, seed, points, view}``. ``seed`` (below 2³²) is for every random draw on that cloud.
``{input}/0000.npy``, ``0001.npy``, ...
    the partial clouds, ``(N, 3)`` float32, metres, each of one object, in that frame; N differs, and is at least 16.
``{output}/0000.npy``, ...
    what the command writes: a completed cloud of the same name for each, ``(M, 3)`` numbers, metres, same frame. In
    the place of one that cannot be completed, ``0000.txt`` may say why in a line.

The command ends with status 0. A cloud that is missing, broken or not finite is that object's failure, and the others
count; another status, writing nothing at all, or taking longer than the arm's ``timeout``, is the failure of the whole
unit. Then both folders stay where they are, for a look, until the unit is made again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FORMAT_VERSION = 1
MOST_POINTS = 1_000_000
# Seconds that a command is given to end by itself before it is killed.
_GRACE = 5.0
_SHOWN = 1500  # characters of a failed command's standard error


class CommandError(ValueError):
    """A command that cannot be run, failed, or took too long; the message says how."""


class OutputError(ValueError):
    """A cloud that the command did not complete, with the reason."""


@dataclass(frozen=True)
class PartialCloud:
    """One cloud of a request.

    Attributes:
        points: ``(N, 3)`` metres, in the frame that the arm declares.
        seed: of every random draw on it.
        view: that it was seen in.
    """

    points: NDArray[np.float32]
    seed: int
    view: int


@dataclass(frozen=True)
class CommandCompleter:
    """An arm's command, ready to be run.

    Attributes:
        command: the program and its arguments, with their placeholders.
        directory: where it runs.
        frame: in which clouds are handed over.
        timeout: seconds for one unit.
    """

    command: tuple[str, ...]
    directory: Path
    frame: str
    timeout: float

    def check(self) -> None:
        """Find out before any work whether the program is there.

        Raises:
            CommandError: naming it.
        """
        program = self.command[0]
        if not self.directory.is_dir():
            raise CommandError(f"{self.directory}: no such folder to run {program!r} in; correct `directory:`")
        found = shutil.which(str(self.directory / program)) if "/" in program else shutil.which(program)
        if found is None:
            raise CommandError(
                f"no program {program!r} that can be run (from {self.directory}); correct the arm's `command:`"
            )

    @contextlib.contextmanager
    def complete(
        self, work: Path, scene: int, camera: str, clouds: Iterable[PartialCloud]
    ) -> Iterator[Callable[[int], NDArray[np.float32]]]:
        """Hand the clouds over, run the command, and give a function that reads the completed cloud of an index.

        Clouds are written one by one and read when they are asked for: memory holds one at a time.

        Args:
            work: a folder that does not exist yet; removed in the end, unless the command fails.
            scene, camera: the unit.
            clouds: what is to be completed; where there is none, nothing is run.

        Raises:
            CommandError: the command fails.
            OutputError: from the function, where the output of that index is missing or wrong.
        """
        source, target = work / "in", work / "out"
        source.mkdir(parents=True)
        target.mkdir()
        listed: list[dict[str, Any]] = []
        for cloud in clouds:
            name = f"{len(listed):04d}.npy"
            np.save(source / name, np.ascontiguousarray(cloud.points, np.float32), allow_pickle=False)
            entry = {"file": name, "seed": cloud.seed % 2**32, "points": len(cloud.points), "view": cloud.view}
            listed.append(entry)
        request = {"format_version": FORMAT_VERSION, "unit": "m", "frame": self.frame, "scene": scene, "camera": camera}
        (source / "request.json").write_text(json.dumps({**request, "clouds": listed}, indent=1), encoding="utf-8")
        if listed:
            self._run(source, target, work)
        yield lambda index: _read(target, f"{index:04d}")
        shutil.rmtree(work, ignore_errors=True)

    def _run(self, source: Path, target: Path, work: Path) -> None:
        folders = {"{input}": str(source.resolve()), "{output}": str(target.resolve())}
        words = [_filled(word, folders) for word in self.command]
        told = work / "stderr.txt"
        with (work / "stdout.txt").open("wb") as out, told.open("wb") as errors:
            try:
                # A session of its own: what the program starts is ended with it, and Ctrl-C reaches it through us.
                process = subprocess.Popen(
                    words,
                    cwd=self.directory,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=errors,
                    start_new_session=True,
                )
            except OSError as error:
                raise CommandError(f"{shlex.join(words)}: cannot be run ({error.strerror or error})") from None
            try:
                status = process.wait(self.timeout)
            except subprocess.TimeoutExpired:
                raise CommandError(
                    f"{shlex.join(self.command)} took longer than {self.timeout:g} s{_end_of(told)}; raise the arm's "
                    f"`timeout:`, or look into {work}"
                ) from None
            finally:
                _end(process)
        if status != 0:
            how = f"exit status {status}" if status > 0 else f"signal {-status}"
            raise CommandError(f"{shlex.join(self.command)} failed with {how}{_end_of(told)} (see {work})")
        if not any(target.iterdir()):  # what it said meanwhile is all there is to find out why
            raise CommandError(f"{shlex.join(self.command)} wrote nothing into {{output}}{_end_of(told)} (see {work})")


def _filled(word: str, folders: dict[str, str]) -> str:
    for place, folder in folders.items():
        word = word.replace(place, folder)
    return word


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program that still runs, and all that it started: first kindly."""
    if process.poll() is not None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):  # Ctrl-C again: do not wait
        process.wait(_GRACE)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # also what it started and left behind
    process.wait()


def _end_of(told: Path) -> str:
    """The last words of a program's standard error, for a message."""
    with told.open("rb") as stream:
        stream.seek(max(0, told.stat().st_size - _SHOWN))
        text = " ".join(stream.read().decode("utf-8", "replace").split())
    return f": {text}" if text else ", and said nothing on standard error"


def _read(folder: Path, name: str) -> NDArray[np.float32]:
    path = folder / f"{name}.npy"
    if not path.is_file():
        reason = folder / f"{name}.txt"
        if reason.is_file():
            with reason.open(encoding="utf-8", errors="replace") as stream:
                raise OutputError(f"the command: {' '.join(stream.read(300).split()) or 'no reason given'}")
        raise OutputError(f"the command wrote no {path.name}")
    try:
        cloud = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise OutputError(f"the command's {path.name} is no readable array ({error})") from None
    if not isinstance(cloud, np.ndarray) or cloud.ndim != 2 or cloud.shape[1] != 3 or cloud.dtype.kind not in "fiu":
        what = f"{cloud.dtype}{cloud.shape}" if isinstance(cloud, np.ndarray) else "an archive"
        raise OutputError(f"the command's {path.name} is {what}, expected numbers of shape (M, 3)")
    if not 1 <= len(cloud) <= MOST_POINTS:
        raise OutputError(f"the command's {path.name} has {len(cloud)} points, expected 1 to {MOST_POINTS}")
    with np.errstate(over="ignore"):  # too large a number is not finite, below
        points = np.array(cloud, np.float32)
    if not np.isfinite(points).all():
        raise OutputError(f"the command's {path.name} has points that are not finite")
    return points


def named_files(command: Sequence[str], directory: Path, hashes: Callable[[Path], str]) -> dict[str, str]:
    """Return hashes of the files that a command's arguments name, and of a program given by its path.

    An interpreter that is found on PATH is left to the arm's ``version``.
    """
    named = {}
    for index, word in enumerate(command):
        path = directory / word
        if (index > 0 or "/" in word) and "{" not in word and path.is_file():
            named[word] = hashes(path)
    return named
