"""Stage: partial clouds -> completed clouds, one folder an arm, all alike.

Reads
    ``observations/scene_SSSS/<camera>/VVVV.npz`` (camera frame, metres), a checkpoint or what a command makes
    (:mod:`pipeline.command_completer`), and, for the arm that completes perfectly and for the metrics, the true models
    and poses.
Writes
    ``arms/<arm>/clouds/scene_SSSS/<camera>/VVVV.npz``: one cloud an object, camera frame, metres, one point a
    voxel of the experiment's density; beside them ``completion.parquet``, one row an object and view, with the
    completion metrics against the true surface.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from grasping.clouds import voxel_downsample
from pipeline.artifacts import FileHashes, atomic_write, derive_seed, file_hash, read_stamp, why_stale
from pipeline.cloud_files import OK, ObjectClouds, Observation, load_observation, save_clouds
from pipeline.command_completer import FORMAT_VERSION as COMMAND_FORMAT
from pipeline.command_completer import CommandCompleter, OutputError, PartialCloud, named_files
from pipeline.config import Arm, Experiment
from pipeline.datasets.graspnet import DatasetError, GraspNetDataset
from pipeline.frames import network_frame
from pipeline.run_folder import STAMP, Plan, RunFolder, StageReport, carry_out, unit_folder, view_file
from pipeline.selection import SceneUnit
from pipeline.truth import SURFACE_VERSION, TrueSurfaces

VERSION = 1
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


def run(
    experiment: Experiment, run: RunFolder, units: list[SceneUnit], *, device: str, trust_code: bool = False
) -> StageReport:
    """Complete what is missing or stale, in this process: it holds the network on its device.

    ``trust_code``: whether a checkpoint may name code (``module:Class``) that is then imported and run.
    """
    hashes = FileHashes(run.hashes)
    reports = []
    for arm in experiment.members():
        made_from, load = describe_arm(arm, device, trust_code, hashes)
        plans = [_plan(experiment, run, arm, made_from, unit, hashes) for unit in units]
        hashes.save()
        if load is not None and any(why_stale(plan.stamp, plan.made_from) is not None for plan in plans):
            complete = load()  # an error here is the arm's, not an object's
            plans = [replace(plan, job=replace(plan.job, complete=complete)) for plan in plans]
        reports.append(carry_out(f"complete {arm.name}", complete_unit, plans, workers=1))
    return StageReport.of("complete", reports)


def describe_arm(
    arm: Arm, device: str, trust_code: bool = False, hashes: Callable[[Path], str] = file_hash
) -> tuple[dict[str, Any], Callable[[], Completion | CommandCompleter] | None]:
    """Return what an arm's clouds depend on, and how to load what completes them (None where nothing does).

    Args:
        arm: see :class:`pipeline.arms.Arm`.
        device: where a network runs.
        trust_code: whether a network ``module:Class`` may be imported and run.
        hashes: gives a file's hash.

    Raises:
        completion.checkpoint.CheckpointError: if the checkpoint is missing, not trusted, or does not fit.
        pipeline.command_completer.CommandError: from the loader, if the program is not there.
    """
    if arm.completion == "command":
        return _describe_command(arm, hashes)
    if arm.completion != "checkpoint":
        return {"completion": arm.completion}, None
    from completion import checkpoint
    from completion.networks.plugins import NetworkError, identity
    from completion.normalize import needs_truth

    assert arm.checkpoint is not None  # Arm has checked it
    folder = checkpoint.resolve(arm.checkpoint)
    declared = checkpoint.read_config(folder)
    if needs_truth(declared["normalisation"]):
        raise checkpoint.CheckpointError(
            f"{folder}: normalisation {declared['normalisation']!r} needs the true shape of what is to be completed, "
            f"which no run hands over; write {declared['normalisation'].replace('oracle', 'partial')!r} in its "
            "config.json"
        )
    merge = arm.merge or declared["merge"]
    made_from = {
        "completion": "checkpoint",
        "merge": merge,
        "weights": file_hash(folder / "model.safetensors"),
        "checkpoint": file_hash(folder / "config.json"),
    }
    try:
        code = identity(declared["network"]["name"], trust_code)
    except NetworkError as error:
        raise checkpoint.CheckpointError(f"{folder / 'config.json'}: network: {error}") from error
    if code:  # of a network from outside; ours are under this stage's version
        made_from["network"] = code
    return made_from, lambda: _network(folder, merge, device, trust_code)


def _describe_command(arm: Arm, hashes: Callable[[Path], str]) -> tuple[dict[str, Any], Callable[[], CommandCompleter]]:
    assert arm.command is not None and arm.frame is not None and arm.timeout is not None  # Arm has seen to it
    command = CommandCompleter(arm.command, arm.directory or Path.cwd(), arm.frame, arm.timeout)
    made_from = {
        "completion": "command",
        "merge": arm.merge,
        "frame": arm.frame,
        "command": list(arm.command),
        "version_of_command": arm.version,
        "files": named_files(arm.command, command.directory, hashes),
        "format": COMMAND_FORMAT,
    }

    def load() -> CommandCompleter:
        command.check()
        return command

    return made_from, load


def caveats(arm: Arm) -> list[str]:
    """Sentences on what the arm's method was made for and an observation cannot give it; none where all is well."""
    if arm.completion == "command" and arm.frame == "canonical":
        return ["the command is given clouds that stand upright, not in the canonical orientation of their object"]
    if arm.completion != "checkpoint" or arm.checkpoint is None:
        return []
    from completion import checkpoint

    try:
        return checkpoint.caveats(checkpoint.read_config(checkpoint.resolve(arm.checkpoint)))
    except checkpoint.CheckpointError:
        return []  # a run whose checkpoint has gone can still be looked at


def _network(folder: Path, merge: str, device: str, trust_code: bool) -> Completion:
    from completion.completer import Completer

    completer = Completer.load(folder, device, trust_code)
    return network_completion(completer, completer.config["frame"], merge)


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


def _plan(
    experiment: Experiment,
    run: RunFolder,
    arm: Arm,
    arm_made_from: dict[str, Any],
    unit: SceneUnit,
    hashes: FileHashes,
) -> Plan:
    observations = unit_folder(run.observations, unit.scene, unit.camera)
    out = unit_folder(run.clouds(arm.name), unit.scene, unit.camera)
    observed = read_stamp(observations / STAMP)
    surfaces = TrueSurfaces(GraspNetDataset(experiment.dataset.root, unit.camera), experiment.cache_folder(), hashes)
    label = f"{arm.name}/{unit.label}"
    blocked = None if observed else f"{observations}: no observations; run `observe` first"
    models: str | None = None
    try:
        models = surfaces.made_from(unit.scene)
    except DatasetError as error:
        blocked = str(error)
    made_from = {
        "stage": "complete",
        "version": VERSION,
        "observations": observed.fingerprint if observed else None,
        **arm_made_from,
        "density": experiment.density,
        "models": models,
        "surfaces": SURFACE_VERSION,
        "seed": experiment.seed,
    }
    job = Job(arm, unit, observations, out, surfaces, experiment.density, experiment.seed)
    return Plan(label, out, made_from, job, blocked)


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
