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
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.run_command import OutputError, Program, new_folders, output_file

FORMAT_VERSION = 1
MOST_POINTS = 1_000_000


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
            pipeline.run_command.CommandError: naming it.
        """
        self._program().check()

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
            pipeline.run_command.CommandError: the command fails.
            OutputError: from the function, where the output of that index is missing or wrong.
        """
        source, target = new_folders(work)
        listed: list[dict[str, Any]] = []
        for cloud in clouds:
            name = f"{len(listed):04d}.npy"
            np.save(source / name, np.ascontiguousarray(cloud.points, np.float32), allow_pickle=False)
            entry = {"file": name, "seed": cloud.seed % 2**32, "points": len(cloud.points), "view": cloud.view}
            listed.append(entry)
        request = {"format_version": FORMAT_VERSION, "unit": "m", "frame": self.frame, "scene": scene, "camera": camera}
        (source / "request.json").write_text(json.dumps({**request, "clouds": listed}, indent=1), encoding="utf-8")
        if listed:
            self._program().run(source, target, work)
        yield lambda index: _read(target, f"{index:04d}")
        shutil.rmtree(work, ignore_errors=True)

    def _program(self) -> Program:
        return Program(self.command, self.directory, self.timeout, "the arm")


def _read(folder: Path, name: str) -> NDArray[np.float32]:
    path = output_file(folder, name)
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
