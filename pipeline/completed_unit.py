"""What the stage `complete` does with one unit: the views of one scene, camera and arm.

:mod:`pipeline.complete` says which units there are and what they depend on; this is the work that a worker does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from grasping.clouds import voxel_downsample
from pipeline.arm_completion import Completion, completion_of
from pipeline.artifacts import atomic_write, derive_seed
from pipeline.cloud_files import OK, ObjectClouds, load_observation, save_clouds
from pipeline.command_completer import CommandCompleter, PartialCloud
from pipeline.config import Arm
from pipeline.frames import network_frame
from pipeline.run_command import OutputError
from pipeline.run_folder import view_file
from pipeline.selection import SceneUnit
from pipeline.truth import TrueSurfaces
from pipeline.view_files import has_view

# Fewer points than this say too little of a shape to complete it; the observation is kept as it is.
MIN_POINTS = 16
TOO_FEW = f"fewer than {MIN_POINTS} points: observation kept"
METRICS_FILE = "completion.parquet"
COMMAND_WORK = ".command"  # in a unit's folder, while a command completes it

# Clouds that are gathered over views before they are completed: no network gains by more at once, and so many with
# what is made of them take some 100 MB.
AT_ONCE = 256


@dataclass(frozen=True)
class Job:
    """One unit: the views of one scene, camera and arm.

    Attributes:
        arm, device, trust_code, identity: what completes, see :func:`pipeline.arm_completion.completion_of`.
        unit: which views.
        observations, out: the unit's folders.
        surfaces: true surfaces of the dataset's models.
        density: to which clouds are brought, metres.
        seed: of the experiment.
    """

    arm: Arm
    unit: SceneUnit
    observations: Path
    out: Path
    surfaces: TrueSurfaces
    density: float
    seed: int
    identity: str
    device: str = "cpu"
    trust_code: bool = False


def complete_unit(job: Job) -> list[dict[str, Any]]:
    """Write the clouds and metrics of one unit; an object that cannot be completed is a problem, with its reason."""
    rows: list[dict[str, Any]] = []
    with _completing(job) as complete:
        for views in _gathered(job):
            for view, made in zip(views, complete(views), strict=True):
                rows += _write_view(job, view, made)
    if rows:
        with atomic_write(job.out / METRICS_FILE) as stream:
            pq.write_table(pa.Table.from_pylist(rows), stream)
    failed = [row for row in rows if row["status"].startswith("failed")]
    return [{"view": row["view"], "object": row["object"], "reason": row["status"]} for row in failed]


@dataclass(frozen=True)
class _SeenView:
    """One view's observation, without what lies around the objects."""

    number: int
    objects: ObjectClouds
    T_table_camera: NDArray[np.float64]


def _seen(job: Job) -> Iterator[_SeenView]:
    for number in job.unit.views:
        source = view_file(job.observations, number, ".npz")
        if has_view(source):  # else the view could not be observed; `observe` has recorded why
            observation = load_observation(source)
            yield _SeenView(number, observation.objects, observation.T_table_camera)


def _gathered(job: Job) -> Iterator[list[_SeenView]]:
    """Give the unit's views, several at once; which do not depend on anything but their clouds."""
    views: list[_SeenView] = []
    clouds = 0
    for view in _seen(job):
        if views and clouds + len(view.objects.clouds) > AT_ONCE:
            yield views
            views, clouds = [], 0
        views.append(view)
        clouds += len(view.objects.clouds)
    if views:
        yield views


# Takes views and gives the clouds of each.
_ViewsCompletion = Callable[[list[_SeenView]], list[ObjectClouds]]


@contextmanager
def _completing(job: Job) -> Iterator[_ViewsCompletion]:
    """Give the function that completes views of the unit; a command completes all of them before."""
    loaded = completion_of(job.arm, job.device, job.trust_code, job.identity)
    if isinstance(loaded, CommandCompleter):
        with _completed_by_command(job, loaded) as read:
            yield lambda views: [read(view) for view in views]
    elif loaded is None:  # nothing to be done, or where the true surface is read
        yield lambda views: [view.objects for view in views]
    else:
        yield lambda views: _complete_together(job, views, loaded)


def _complete_together(job: Job, views: list[_SeenView], complete: Completion) -> list[ObjectClouds]:
    """Complete the objects of several views in one call."""
    counts = [len(view.objects.clouds) for view in views]
    together = ObjectClouds(
        np.concatenate([view.objects.object_ids for view in views]),
        tuple(cloud for view in views for cloud in view.objects.clouds),
        tuple(text for view in views for text in view.objects.status),
    )
    poses = np.repeat(np.stack([view.T_table_camera for view in views]), counts, axis=0)
    seeds = [seed for view in views for seed in _seeds(job, view.number, view.objects)]
    made = complete_objects(together, poses, complete, seeds)
    ends = np.cumsum([0, *counts]).tolist()
    return [ObjectClouds(made.object_ids[a:b], made.clouds[a:b], made.status[a:b]) for a, b in pairwise(ends)]


def _seeds(job: Job, view: int, partial: ObjectClouds) -> list[int]:
    where = (job.seed, job.unit.scene, job.unit.camera, view)
    return [derive_seed(*where, int(object_id), "complete") for object_id in partial.object_ids]


@contextmanager
def _completed_by_command(job: Job, command: CommandCompleter) -> Iterator[Callable[[_SeenView], ObjectClouds]]:
    """Have the command complete the unit's clouds, and give the function that reads those of a view."""
    numbers: dict[tuple[int, int], int] = {}  # (view, place in the view) -> place in the request

    def clouds() -> Iterator[PartialCloud]:
        for view in _seen(job):
            R = network_frame(command.frame, view.T_table_camera)
            seeds = _seeds(job, view.number, view.objects)
            for index, cloud in enumerate(view.objects.clouds):
                if len(cloud) >= MIN_POINTS:
                    numbers[view.number, index] = len(numbers)
                    yield PartialCloud((cloud @ R.T).astype(np.float32), seeds[index], view.number)

    with command.complete(job.out / COMMAND_WORK, job.unit.scene, job.unit.camera, clouds()) as read:

        def complete(view: _SeenView) -> ObjectClouds:
            partial = view.objects
            R = network_frame(command.frame, view.T_table_camera)
            made, status = list(partial.clouds), list(partial.status)
            for index, cloud in enumerate(partial.clouds):
                if 0 < len(cloud) < MIN_POINTS:
                    status[index] = TOO_FEW
                if len(cloud) < MIN_POINTS:
                    continue
                try:
                    points = (read(numbers[view.number, index]) @ R).astype(np.float32)
                except OutputError as error:  # one object's failure is that object's row, not the unit's
                    made[index], status[index] = np.zeros((0, 3), np.float32), f"failed: {error}"
                else:
                    made[index] = np.concatenate([cloud, points]) if job.arm.merge == "append" else points
                    status[index] = OK
            return ObjectClouds(partial.object_ids, tuple(made), tuple(status))

        yield complete


def _write_view(job: Job, view: _SeenView, made: ObjectClouds) -> list[dict[str, Any]]:
    """Write one view's clouds, brought to the density, and return their rows."""
    from pipeline.fidelity import fidelity  # torch: what only asks this module for names must not wait for it

    partial = view.objects
    ids = [int(object_id) for object_id in partial.object_ids]
    truth = job.surfaces.posed(ids, job.surfaces.dataset.object_poses(job.unit.scene, view.number, ids))
    if job.arm.completion == "truth":
        made = _perfect(partial, truth)
    clouds = tuple(voxel_downsample(cloud, job.density) for cloud in made.clouds)
    save_clouds(view_file(job.out, view.number, ".npz"), ObjectClouds(made.object_ids, clouds, made.status))
    return [
        {
            "view": view.number,
            "object": ids[index],
            "status": made.status[index],
            "observed_points": len(partial.clouds[index]),
            "completed_points": len(cloud),
            **fidelity(cloud, voxel_downsample(truth[index], job.density), partial.clouds[index]),
        }
        for index, cloud in enumerate(clouds)
    ]


def _perfect(partial: ObjectClouds, truth: list[NDArray[np.float32]]) -> ObjectClouds:
    """Return the true surface of every object that was seen: what was not seen has nothing to complete."""
    empty = np.zeros((0, 3), np.float32)
    clouds = tuple(full if len(seen) else empty for full, seen in zip(truth, partial.clouds, strict=True))
    return ObjectClouds(partial.object_ids, clouds, partial.status)


def complete_objects(
    partial: ObjectClouds, T_table_camera: NDArray[np.float64], complete: Completion, seeds: Sequence[int]
) -> ObjectClouds:
    """Complete objects of one view, or of several.

    Args:
        partial: K clouds, camera frame, metres.
        T_table_camera: ``(4, 4)``, or ``(K, 4, 4)`` where they are of several views.
        complete: see :func:`pipeline.arm_completion.network_completion`.
        seeds: K, one an object.

    Returns:
        Completed clouds. An object with too few points keeps its observation, and one that the network fails on has
        no points (status ``failed: ...``); the others are completed all the same.
    """
    from completion.completer import CompletionError

    clouds: list[NDArray[np.float32]] = list(partial.clouds)
    status = list(partial.status)
    chosen = [index for index, cloud in enumerate(clouds) if len(cloud) >= MIN_POINTS]
    for index, cloud in enumerate(clouds):
        if 0 < len(cloud) < MIN_POINTS:
            status[index] = TOO_FEW
    poses = T_table_camera if T_table_camera.ndim == 2 else T_table_camera[chosen]
    made = complete([clouds[index] for index in chosen], poses, [seeds[index] for index in chosen]) if chosen else ()
    for index, cloud in zip(chosen, made, strict=True):
        # One object's failure is that object's row, not the view's; a completion from outside may give anything.
        if isinstance(cloud, CompletionError):
            clouds[index], status[index] = np.zeros((0, 3), np.float32), f"failed: {cloud.reason}"
        elif np.isfinite(cloud).all():
            clouds[index], status[index] = cloud, OK
        else:
            clouds[index], status[index] = np.zeros((0, 3), np.float32), "failed: points that are not finite"
    return ObjectClouds(partial.object_ids, tuple(clouds), tuple(status))
