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

from dataclasses import replace
from typing import Any

from pipeline.arm_completion import describe_arm
from pipeline.artifacts import FileHashes, fingerprint
from pipeline.completed_unit import Job, complete_unit
from pipeline.config import Arm, Experiment
from pipeline.datasets.graspnet import DatasetError, GraspNetDataset
from pipeline.engines import GPU
from pipeline.run_folder import RunFolder, unit_folder
from pipeline.selection import SceneUnit
from pipeline.truth import SURFACE_VERSION, TrueSurfaces
from pipeline.units import Known, Plan, blocked_by

VERSION = 2  # 2: clouds are completed one by one on a CPU, which changes the last bits


def plans(
    experiment: Experiment,
    run: RunFolder,
    units: list[SceneUnit],
    hashes: FileHashes,
    known: Known,
    *,
    device: str,
    trust_code: bool = False,
) -> list[Plan]:
    """Return one plan an arm, scene and camera.

    ``trust_code``: whether a checkpoint may name code (``module:Class``) that is then imported and run.
    """
    truths = {unit: _true_surfaces(experiment, unit, hashes) for unit in units}
    result = []
    for arm in experiment.members():
        made_from, load = describe_arm(arm, device, trust_code, hashes)
        on_gpu = arm.completion == "checkpoint" and device == "cuda" and load is not None
        for unit in units:
            plan = _plan(experiment, run, arm, made_from, unit, truths[unit], known, device, trust_code)
            result.append(replace(plan, group=GPU) if on_gpu else plan)
    return result


def _true_surfaces(
    experiment: Experiment, unit: SceneUnit, hashes: FileHashes
) -> tuple[TrueSurfaces, str | None, str | None]:
    """Return a scene's true surfaces, alike for all arms, and their fingerprint, or None and why there is none."""
    dataset = GraspNetDataset(experiment.dataset.root, unit.camera)
    surfaces = TrueSurfaces(dataset, experiment.cache_folder(), hashes)
    try:
        surfaces = surfaces.of_scene(unit.scene)
        return surfaces, surfaces.made_from(unit.scene), None
    except DatasetError as error:
        return surfaces, None, str(error)


def _plan(
    experiment: Experiment,
    run: RunFolder,
    arm: Arm,
    arm_made_from: dict[str, Any],
    unit: SceneUnit,
    truth: tuple[TrueSurfaces, str | None, str | None],
    known: Known,
    device: str,
    trust_code: bool,
) -> Plan:
    observations = unit_folder(run.observations, unit.scene, unit.camera)
    observed = known.need(observations, f"{observations}: no observations; run `observe` first")
    surfaces, measured_on, untrue = truth
    blocked = untrue or blocked_by([observed])
    made_from = {
        "stage": "complete",
        "version": VERSION,
        "observations": observed.fingerprint,
        **arm_made_from,
        "density": experiment.density,
        "models": measured_on,
        "surfaces": SURFACE_VERSION,
        "seed": experiment.seed,
    }
    job = Job(
        arm=arm,
        unit=unit,
        observations=observations,
        out=unit_folder(run.clouds(arm.name), unit.scene, unit.camera),
        surfaces=surfaces,
        density=experiment.density,
        seed=experiment.seed,
        device=device,
        trust_code=trust_code,
        identity=fingerprint(arm_made_from),
    )
    return Plan(
        "complete",
        f"{arm.name}/{unit.label}",
        job.out,
        unit.scene,
        unit.camera,
        made_from,
        complete_unit,
        job,
        arm=arm.name,
        needs=(observed,),
        blocked=blocked,
    )
