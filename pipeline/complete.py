"""Stage: partial clouds -> completed clouds, one folder an arm, all alike.

Reads
    ``observations/scene_SSSS/<camera>/VVVV.npz`` (camera frame, metres), a checkpoint, and, for the arm that
    completes perfectly and for the metrics, the true models and poses.
Writes
    ``arms/<arm>/clouds/scene_SSSS/<camera>/VVVV.npz``: one cloud an object, camera frame, metres, one point a
    voxel of the experiment's density; beside them ``completion.parquet``, one row an object and view, with the
    completion metrics against the true surface.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from grasping.clouds import voxel_downsample
from pipeline.artifacts import FileHashes, atomic_write, derive_seed, file_hash, fingerprint, read_stamp, why_stale
from pipeline.cloud_files import OK, ObjectClouds, load_observation, save_clouds
from pipeline.config import Arm, Experiment
from pipeline.datasets.graspnet import DatasetError, GraspNetDataset
from pipeline.fidelity import fidelity
from pipeline.frames import viewing_frame
from pipeline.run_folder import STAMP, Plan, RunFolder, StageReport, carry_out, unit_folder, view_file
from pipeline.selection import SceneUnit
from pipeline.truth import SURFACE_VERSION, TrueSurfaces

VERSION = 1
# Fewer points than this say too little of a shape to complete it; the observation is kept as it is.
MIN_POINTS = 16
TOO_FEW = f"fewer than {MIN_POINTS} points: observation kept"
METRICS_FILE = "completion.parquet"

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
    complete: Completion | None = None


def run(experiment: Experiment, run: RunFolder, units: list[SceneUnit], *, device: str) -> StageReport:
    """Complete what is missing or stale, in this process: it holds the network on its device."""
    hashes = FileHashes(run.hashes)
    reports = []
    for arm in experiment.arms:
        made_from, load = describe_arm(arm, device)
        plans = [_plan(experiment, run, arm, made_from, unit, hashes) for unit in units]
        hashes.save()
        if load is not None and any(why_stale(plan.stamp, plan.made_from) is not None for plan in plans):
            complete = load()  # an error here is the arm's, not an object's
            plans = [replace(plan, job=replace(plan.job, complete=complete)) for plan in plans]
        reports.append(carry_out(f"complete {arm.name}", complete_unit, plans, workers=1))
    return StageReport(
        "complete",
        made=sum(report.made for report in reports),
        current=sum(report.current for report in reports),
        failures=tuple(failure for report in reports for failure in report.failures),
        stale={label: reason for report in reports for label, reason in report.stale.items()},
    )


def describe_arm(arm: Arm, device: str) -> tuple[dict[str, Any], Callable[[], Completion] | None]:
    """Return what an arm's clouds depend on, and how to load its network (None where it has none).

    Raises:
        completion.checkpoint.CheckpointError: if the checkpoint is missing or does not fit.
    """
    if arm.completion != "checkpoint":
        return {"completion": arm.completion}, None
    from completion import checkpoint

    assert arm.checkpoint is not None  # Arm has checked it
    folder = checkpoint.resolve(arm.checkpoint)
    declared = checkpoint.read_config(folder)
    merge = arm.merge or declared["merge"]
    made_from = {
        "completion": "checkpoint",
        "merge": merge,
        "weights": file_hash(folder / "model.safetensors"),
        "checkpoint": file_hash(folder / "config.json"),
    }
    return made_from, lambda: _network(folder, merge, device)


def _network(folder: Path, merge: str, device: str) -> Completion:
    from completion.completer import Completer

    completer = Completer.load(folder, device=device)
    return network_completion(completer, completer.config["frame"], merge)


def network_completion(completer: Any, frame: str, merge: str) -> Completion:
    """Wrap a completer so that it takes and gives camera-frame clouds, merged as asked.

    Args:
        completer: a :class:`completion.completer.Completer`.
        frame: the frame its checkpoint declares: ``camera`` or ``table`` (see :mod:`pipeline.frames`).
        merge: ``replace`` or ``append``.
    """

    def complete(
        clouds: list[NDArray[np.float32]], T_table_camera: NDArray[np.float64], seeds: list[int]
    ) -> list[NDArray[np.float32]]:
        R = viewing_frame(T_table_camera) if frame == "table" else np.eye(3)
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
    dataset = GraspNetDataset(experiment.dataset.root, unit.camera)
    label = f"{arm.name}/{unit.label}"
    blocked = None if observed else f"{observations}: no observations; run `observe` first"
    models: str | None = None
    try:
        ids = dataset.object_ids(unit.scene)
        models = fingerprint([hashes(dataset.model_dir(object_id) / "nontextured.ply") for object_id in ids])
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
    surfaces = TrueSurfaces(dataset, experiment.cache_folder(), hashes)
    job = Job(arm, unit, observations, out, surfaces, experiment.density, experiment.seed)
    return Plan(label, out, made_from, job, blocked)


def complete_unit(job: Job) -> list[dict[str, Any]]:
    """Write the clouds and metrics of one unit; an object that cannot be completed is a problem, with its reason."""
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
        if job.arm.completion == "none":
            made = partial
        elif job.arm.completion == "truth":
            made = _perfect(partial, truth)
        else:
            assert job.complete is not None  # run has loaded it
            where = (job.seed, job.unit.scene, job.unit.camera, view)
            seeds = [derive_seed(*where, int(object_id), "complete") for object_id in partial.object_ids]
            made = complete_objects(partial, observation.T_table_camera, job.complete, seeds)
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
