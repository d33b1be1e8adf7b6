"""A program in another environment finds grasps: it is handed a folder of clouds and fills another with dumps.

A generator's ``command`` is called once for each unit (the views of one scene, camera and arm), so that a slow start
is paid once. ``{input}`` and ``{output}`` in it become the absolute paths of two folders (``VVVV`` is the view):

``{input}/request.json``
    ``format_version`` (1), ``unit`` ("m"), ``frame`` ("camera": x right, y down, z forward), ``scene``, ``camera``,
    and ``views``: a list of ``{file, view, seed, viewpoint}``. ``seed`` (below 2³²) is for every random draw on that
    view, ``viewpoint`` where the sensor stood. The arm is not told: all arms are to be treated alike.
``{input}/VVVV.npz``
    what is known of one view, in metres and the camera's frame: ``points`` ``(N, 3)`` float32 of the objects, as the
    arm's ``entry`` and the generator's ``input`` give them to a generator; ``object_ids`` ``(N,)`` int64, the object of
    each; ``background`` ``(B, 3)`` float32, the table and what else stands around; ``collision`` ``(M, 3)`` float32,
    what the gripper must not touch; ``T_camera_table`` ``(4, 4)`` float64, from the table's frame (z up, the table top
    at z = 0). N, B and M differ from view to view, and may be 0.
``{output}/VVVV.npy``
    what the command writes: ``(G, 17)`` numbers in GraspNet-1Billion's dump layout and the camera's frame, one grasp a
    row in any order: confidence, width, height, depth, the rotation row by row (its columns: approach, closing and
    height axis of the gripper), translation, object id (-1: unknown). None found is an array of no rows. In the place
    of a view that cannot be done, ``VVVV.txt`` may say why in a line.

The command ends with status 0. Grasps that are missing, broken or not finite are that view's failure, and the others
count; another status, writing nothing at all, or taking longer than the generator's ``timeout``, is the failure of the
whole unit. Then both folders stay where they are, for a look, until the unit is made again.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grasping.generators import ViewInput
from grasping.grasps import GraspFileError, Grasps
from pipeline.run_command import OutputError, Program, named_files, new_folders, output_file

FORMAT_VERSION = 1
MOST_BYTES = 2**26
"""Of one view's dump: half a million grasps of double precision."""


@dataclass(frozen=True)
class CommandView:
    """One view of a request; clouds in metres, camera frame.

    Attributes:
        view: its number.
        points: ``(N, 3)`` of the objects: where grasps are looked for.
        object_ids: ``(N,)`` int, the object of each point.
        background: ``(B, 3)`` what stands around the objects.
        collision: ``(M, 3)`` what the gripper must not touch.
        T_camera_table: ``(4, 4)``.
        seed: of every random draw on it.
        viewpoint: ``(3,)`` where the sensor stood.
    """

    view: int
    points: NDArray[np.float32]
    object_ids: NDArray[np.int64]
    background: NDArray[np.float32]
    collision: NDArray[np.float32]
    T_camera_table: NDArray[np.float64]
    seed: int
    viewpoint: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @classmethod
    def of_input(cls, view: int, given: ViewInput) -> CommandView:
        """Take what a :class:`grasping.generators.Generator` is called with, points of id -1 being the background."""
        cloud, ids = np.asarray(given.cloud), np.asarray(given.object_ids_of_points)
        collision, T_camera_table = np.asarray(given.collision_cloud), np.asarray(given.T_camera_table)
        x, y, z = np.asarray(given.viewpoint, np.float64)
        seen = ids >= 0
        return cls(view, cloud[seen], ids[seen], cloud[~seen], collision, T_camera_table, given.seed, (x, y, z))


@dataclass(frozen=True)
class CommandGenerator:
    """A generator's command, ready to be run.

    Attributes:
        command: the program and its arguments, with their placeholders.
        directory: where it runs.
        timeout: seconds for one unit.
        deterministic: whether the same input and seed give the same grasps; None where nobody says so.
    """

    sees_background: ClassVar[bool] = True

    command: tuple[str, ...]
    directory: Path
    timeout: float
    deterministic: bool | None = None

    def check(self) -> None:
        """Find out before any work whether the program is there.

        Raises:
            pipeline.run_command.CommandError: naming it.
        """
        self._program().check()

    def made_from(self, hashes: Callable[[Path], str]) -> dict[str, Any]:
        """Return what grasps depend on besides their input, for fingerprints: JSON can say it.

        Args:
            hashes: gives a file's hash.
        """
        files = named_files(self.command, self.directory, hashes)
        return {"command": list(self.command), "files": files, "format": FORMAT_VERSION}

    @contextlib.contextmanager
    def generate(
        self, work: Path, scene: int, camera: str, views: Iterable[CommandView]
    ) -> Iterator[Callable[[int], Grasps]]:
        """Hand the views over, run the command, and give a function that reads the grasps of a view by its number.

        Views are written one by one and read when they are asked for: memory holds one at a time.

        Args:
            work: a folder that does not exist yet; removed in the end, unless the command fails.
            scene, camera: the unit.
            views: where there is none, nothing is run.

        Raises:
            pipeline.run_command.CommandError: the command fails.
            pipeline.run_command.OutputError: from the function, where the grasps of that view are missing or wrong.
        """
        source, target = new_folders(work)
        listed = [_handed_over(view, source) for view in views]
        request = {"format_version": FORMAT_VERSION, "unit": "m", "frame": "camera", "scene": scene, "camera": camera}
        (source / "request.json").write_text(json.dumps({**request, "views": listed}, indent=1), encoding="utf-8")
        if listed:
            self._program().run(source, target, work)
        yield lambda view: _read(target, f"{view:04d}")
        shutil.rmtree(work, ignore_errors=True)

    def _program(self) -> Program:
        return Program(self.command, self.directory, self.timeout, "the generator")


def _handed_over(view: CommandView, source: Path) -> dict[str, Any]:
    """Write one view's clouds, and return its entry in the request."""
    name = f"{view.view:04d}.npz"
    with (source / name).open("xb") as stream:  # a view that comes twice is an error of ours
        np.savez(
            stream,
            allow_pickle=False,
            points=_points(view.points),
            object_ids=np.asarray(view.object_ids, np.int64).reshape(-1),
            background=_points(view.background),
            collision=_points(view.collision),
            T_camera_table=np.asarray(view.T_camera_table, np.float64),
        )
    return {
        "file": name,
        "view": view.view,
        "seed": view.seed % 2**32,
        "viewpoint": [float(value) for value in view.viewpoint],
    }


def _points(cloud: ArrayLike) -> NDArray[np.float32]:
    return np.asarray(cloud, np.float32).reshape(-1, 3)


def _read(folder: Path, name: str) -> Grasps:
    """Read one view's grasps, by falling confidence, those of equal confidence in the file's order."""
    path = output_file(folder, name)
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise OutputError(f"the command's {path.name} has {size} bytes, expected at most {MOST_BYTES}")
    try:
        grasps = Grasps.load(path)
    except GraspFileError as error:  # its folder is gone by the time that this is read
        raise OutputError(str(error).replace(str(path), f"the command's {path.name}")) from None
    wrong = ~np.isfinite(grasps.to_array()).all(axis=1)
    if wrong.any():
        raise OutputError(
            f"the command's {path.name} has numbers that are not finite, in {wrong.sum()} of {len(grasps)} grasps"
        )
    return grasps[np.argsort(-grasps.confidence, kind="stable")]
