"""A program in another environment, run once: it is handed one folder and fills another.

What the folders hold is said by those that call it: :mod:`pipeline.command_completer` (clouds in, clouds out) and
:mod:`pipeline.command_generator` (clouds in, grasps out). No shell is between. What the program starts is ended with
it, when it takes too long as well as at Ctrl-C.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

# Seconds that a program is given to end by itself before it is killed.
_GRACE = 5.0
_SHOWN = 1500  # characters of a failed program's standard error
_REASON = 300  # characters of what it says of one output


class CommandError(ValueError):
    """A command that cannot be run, failed, or took too long; the message says how."""


class OutputError(ValueError):
    """One output that the command did not write, or not as it should, with the reason."""


@dataclass(frozen=True)
class Program:
    """A command, ready to be run.

    Attributes:
        command: the program and its arguments; ``{input}`` and ``{output}`` in them become absolute paths.
        directory: where it runs.
        timeout: seconds for one run.
        owner: whose ``command:`` and ``timeout:`` a message names, such as ``the arm``.
    """

    command: tuple[str, ...]
    directory: Path
    timeout: float
    owner: str

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
                f"no program {program!r} that can be run (from {self.directory}); correct {self.owner}'s `command:`"
            )

    def run(self, source: Path, target: Path, work: Path) -> None:
        """Run it on a folder, and wait for its end.

        Args:
            source, target: what ``{input}`` and ``{output}`` become.
            work: in which both lie, and to which its ``stdout.txt`` and ``stderr.txt`` are written.

        Raises:
            CommandError: it cannot be started, takes too long, ends with another status than 0, or writes nothing.
        """
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
                    f"{shlex.join(self.command)} took longer than {self.timeout:g} s{_end_of(told)}; raise "
                    f"{self.owner}'s `timeout:`, or look into {work}"
                ) from None
            finally:
                _end(process)
        if status != 0:
            how = f"exit status {status}" if status > 0 else f"signal {-status}"
            raise CommandError(f"{shlex.join(self.command)} failed with {how}{_end_of(told)} (see {work})")
        if not any(target.iterdir()):  # what it said meanwhile is all there is to find out why
            raise CommandError(f"{shlex.join(self.command)} wrote nothing into {{output}}{_end_of(told)} (see {work})")


def new_folders(work: Path) -> tuple[Path, Path]:
    """Make the folders of one run, input and output, below one that does not exist yet."""
    source, target = work / "in", work / "out"
    source.mkdir(parents=True)
    target.mkdir()
    return source, target


def output_file(target: Path, name: str) -> Path:
    """Return the file ``NAME.npy`` that the command wrote.

    Raises:
        OutputError: there is none; with what the command says of it in ``NAME.txt``, where it says anything.
    """
    path = target / f"{name}.npy"
    if path.is_file():
        return path
    reason = target / f"{name}.txt"
    if reason.is_file():
        with reason.open(encoding="utf-8", errors="replace") as stream:
            raise OutputError(f"the command: {' '.join(stream.read(_REASON).split()) or 'no reason given'}")
    raise OutputError(f"the command wrote no {path.name}")


def named_files(command: Sequence[str], directory: Path, hashes: Callable[[Path], str]) -> dict[str, str]:
    """Return hashes of the files that a command's arguments name, and of a program given by its path.

    An interpreter that is found on PATH is left to the ``version`` that goes with the command.
    """
    named = {}
    for index, word in enumerate(command):
        path = directory / word
        if (index > 0 or "/" in word) and "{" not in word and path.is_file():
            named[word] = hashes(path)
    return named


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
