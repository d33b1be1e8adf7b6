"""What the stage `complete` does with one unit: the views of one scene, camera and arm.

:mod:`pipeline.complete` says which units there are and what they depend on; this is the work that a worker does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from grasping.clouds import voxel_downsample
from pipeline.artifacts import atomic_write, derive_seed
from pipeline.cloud_files import OK, ObjectClouds, Observation, load_observation, save_clouds
from pipeline.command_completer import CommandCompleter, OutputError, PartialCloud
from pipeline.config import Arm
from pipeline.frames import network_frame
from pipeline.run_folder import view_file
from pipeline.selection import SceneUnit
from pipeline.truth import TrueSurfaces

# Fewer points than this say too little of a shape to complete it; the observation is kept as it is.
MIN_POINTS = 16
TOO_FEW = f"fewer than {MIN_POINTS} points: observation kept"
METRICS_FILE = "completion.parquet"
COMMAND_WORK = ".command"  # in a unit's folder, while a command completes it

# Takes partial clouds, T_table_camera and one seed a cloud, gives completed clouds; all in the camera frame, metres.
Completion = Callable[[list[NDArray[np.float32]], NDArray[np.float64], list[int]], list[NDArray[np.float32]]]


@dataclass(frozen=True)
class Job:
    """One unit: the views of one scene, camera and arm."""

    arm: Arm
    unit: SceneUnit
    observations: Path
    out: Path
    surfaces: TrueSurfaces
    density: float
    seed: int
    complete: Completion | CommandCompleter | None = None


def network_completion(completer: Any, frame: str, merge: str) -> Completion:
    """Wrap a completer so that it takes and gives camera-frame clouds, merged as asked.

    Args:
        completer: a :class:`completion.completer.Completer`.
        frame: the frame its checkpoint declares, see :func:`pipeline.frames.network_frame`.
        merge: ``replace`` or ``append``.
    """

    def complete(
        clouds: list[NDArray[np.float32]], T_table_camera: NDArray[np.float64], seeds: list[int]
    ) -> list[NDArray[np.float32]]:
        R = network_frame(frame, T_table_camera)
        turned = [(cloud @ R.T).astype(np.float32) for cloud in clouds]
        made = [(np.asarray(cloud) @ R).astype(np.float32) for cloud in completer(turned, seeds)]
        if merge == "append":
            made = [np.concatenate([cloud, more]) for cloud, more in zip(clouds, made, strict=True)]
        return made

    return complete


def complete_unit(job: Job) -> list[dict[str, Any]]:
    """Write the clouds and metrics of one unit; an object that cannot be completed is a problem, with its reason."""
    with _completing(job) as complete:
        return _complete_views(job, complete)


# Takes a view's number, what was observed, and the true surfaces; gives the completed clouds.
_ViewCompletion = Callable[[int, Observation, list[NDArray[np.float32]]], ObjectClouds]


@contextmanager
def _completing(job: Job) -> Iterator[_ViewCompletion]:
    """Give the function that completes a view of the unit; a command completes all of them before."""
    if isinstance(job.complete, CommandCompleter):
        with _completed_by_command(job, job.complete) as read:
            yield read
        return

    def complete(view: int, observation: Observation, truth: list[NDArray[np.float32]]) -> ObjectClouds:
        partial = observation.objects
        if job.arm.completion == "none":
            return partial
        if job.arm.completion == "truth":
            return _perfect(partial, truth)
        assert job.complete is not None and not isinstance(job.complete, CommandCompleter)  # run has loaded it
        return complete_objects(partial, observation.T_table_camera, job.complete, _seeds(job, view, partial))

    yield complete


def _seeds(job: Job, view: int, partial: ObjectClouds) -> list[int]:
    where = (job.seed, job.unit.scene, job.unit.camera, view)
    return [derive_seed(*where, int(object_id), "complete") for object_id in partial.object_ids]


@contextmanager
def _completed_by_command(job: Job, command: CommandCompleter) -> Iterator[_ViewCompletion]:
    """Have the command complete the unit's clouds, and give the function that reads those of a view."""
    numbers: dict[tuple[int, int], int] = {}  # (view, place in the view) -> place in the request

    def clouds() -> Iterator[PartialCloud]:
        for view in job.unit.views:
            source = view_file(job.observations, view, ".npz")
            if not source.exists():
                continue
            observation = load_observation(source)
            R = network_frame(command.frame, observation.T_table_camera)
            seeds = _seeds(job, view, observation.objects)
            for index, cloud in enumerate(observation.objects.clouds):
                if len(cloud) >= MIN_POINTS:
                    numbers[view, index] = len(numbers)
                    yield PartialCloud((cloud @ R.T).astype(np.float32), seeds[index], view)

    with command.complete(job.out / COMMAND_WORK, job.unit.scene, job.unit.camera, clouds()) as read:

        def complete(view: int, observation: Observation, _: list[NDArray[np.float32]]) -> ObjectClouds:
            partial = observation.objects
            R = network_frame(command.frame, observation.T_table_camera)
            made, status = list(partial.clouds), list(partial.status)
            for index, cloud in enumerate(partial.clouds):
                if 0 < len(cloud) < MIN_POINTS:
                    status[index] = TOO_FEW
                if len(cloud) < MIN_POINTS:
                    continue
                try:
                    points = (read(numbers[view, index]) @ R).astype(np.float32)
                except OutputError as error:  # one object's failure is that object's row, not the unit's
                    made[index], status[index] = np.zeros((0, 3), np.float32), f"failed: {error}"
                else:
                    made[index] = np.concatenate([cloud, points]) if job.arm.merge == "append" else points
                    status[index] = OK
            return ObjectClouds(partial.object_ids, tuple(made), tuple(status))

        yield complete


def _complete_views(job: Job, complete: _ViewCompletion) -> list[dict[str, Any]]:
    from pipeline.fidelity import fidelity  # torch: what only asks this module for names must not wait for it

    problems: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for view in job.unit.views:
        source = view_file(job.observations, view, ".npz")
        if not source.exists():
            continue  # the view could not be observed; `observe` has recorded why
        observation = load_observation(source)
        partial = observation.objects
        poses = job.surfaces.dataset.object_poses(job.unit.scene, view, [int(i) for i in partial.object_ids])
        truth = job.surfaces.posed([int(i) for i in partial.object_ids], poses)
        made = complete(view, observation, truth)
        clouds = ObjectClouds(
            made.object_ids, tuple(voxel_downsample(cloud, job.density) for cloud in made.clouds), made.status
        )
        save_clouds(view_file(job.out, view, ".npz"), clouds)
        for index, object_id in enumerate(clouds.object_ids):
            if clouds.status[index].startswith("failed"):
                problems.append({"view": view, "object": int(object_id), "reason": clouds.status[index]})
            rows.append(
                {
                    "view": view,
                    "object": int(object_id),
                    "status": clouds.status[index],
                    "observed_points": len(partial.clouds[index]),
                    "completed_points": len(clouds.clouds[index]),
                    **fidelity(
                        clouds.clouds[index], voxel_downsample(truth[index], job.density), partial.clouds[index]
                    ),
                }
            )
    if rows:
        with atomic_write(job.out / METRICS_FILE) as stream:
            pq.write_table(pa.Table.from_pylist(rows), stream)
    return problems


def _perfect(partial: ObjectClouds, truth: list[NDArray[np.float32]]) -> ObjectClouds:
    """Return the true surface of every object that was seen: what was not seen has nothing to complete."""
    empty = np.zeros((0, 3), np.float32)
    clouds = tuple(full if len(seen) else empty for full, seen in zip(truth, partial.clouds, strict=True))
    return ObjectClouds(partial.object_ids, clouds, partial.status)


def complete_objects(
    partial: ObjectClouds, T_table_camera: NDArray[np.float64], complete: Completion, seeds: Sequence[int]
) -> ObjectClouds:
    """Complete one view's objects.

    Args:
        partial: K clouds, camera frame, metres.
        T_table_camera: ``(4, 4)``.
        complete: see :func:`network_completion`.
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
    while chosen:
        try:
            made = complete([clouds[index] for index in chosen], T_table_camera, [seeds[index] for index in chosen])
        except CompletionError as error:  # one object's failure is that object's row, not the view's
            failed = chosen.pop(error.index)
            clouds[failed] = np.zeros((0, 3), np.float32)
            status[failed] = f"failed: {error.reason}"
        else:
            for index, cloud in zip(chosen, made, strict=True):
                if np.isfinite(cloud).all():
                    clouds[index], status[index] = cloud, OK
                else:  # a completion from outside may give anything
                    clouds[index], status[index] = np.zeros((0, 3), np.float32), "failed: points that are not finite"
            break
    return ObjectClouds(partial.object_ids, tuple(clouds), tuple(status))
