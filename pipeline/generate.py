"""Stage: clouds -> grasps, in the official dump layout.

Reads
    ``observations/scene_SSSS/<camera>/VVVV.npz`` and ``arms/<arm>/clouds/scene_SSSS/<camera>/VVVV.npz``
    (camera frame, metres).
Writes
    ``arms/<arm>/dump/<generator>/scene_SSSS/<camera>/VVVV.npy``, ``(N, 17)`` float64, N >= 0.

Where completion enters is the arm's ``entry``: ``generator`` (grasps are sampled on the completed cloud, and
their collisions tested against the observed one), ``collision`` (the other way round) or ``both``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from grasping.clouds import voxel_downsample
from grasping.generators import for_view, identity, make_generator
from grasping.transforms import invert
from pipeline.artifacts import atomic_write, derive_seed
from pipeline.cloud_files import ObjectClouds, load_clouds, load_observation
from pipeline.config import Arm, Entry, Experiment, GeneratorSection
from pipeline.run_folder import RunFolder, unit_folder, view_file
from pipeline.selection import SceneUnit
from pipeline.units import Known, Plan, blocked_by
from pipeline.view_files import has_view, refuse_packed

VERSION = 1


@dataclass(frozen=True)
class Job:
    """One unit: the views of one scene, camera and arm."""

    unit: SceneUnit
    observations: Path
    clouds: Path
    out: Path
    generator: GeneratorSection
    entry: Entry
    density: float
    seed: int


def plans(experiment: Experiment, run: RunFolder, units: list[SceneUnit], known: Known) -> list[Plan]:
    """Return one plan an arm, generator, scene and camera."""
    made = {
        generator.label: make_generator(generator.name, **generator.parameters) for generator in experiment.generators
    }
    for generator in experiment.generators:
        if generator.name == "dump":
            refuse_packed(Path(generator.parameters["folder"]))
    return [
        _plan(experiment, run, arm, generator, made[generator.label], unit, known)
        for arm in experiment.members()
        for generator in experiment.generators
        for unit in units
    ]


def _plan(
    experiment: Experiment,
    run: RunFolder,
    arm: Arm,
    generator: GeneratorSection,
    made: Any,
    unit: SceneUnit,
    known: Known,
) -> Plan:
    observations = unit_folder(run.observations, unit.scene, unit.camera)
    clouds = unit_folder(run.clouds(arm.name), unit.scene, unit.camera)
    out = unit_folder(run.dump(arm.name, generator.label), unit.scene, unit.camera)
    needs = (
        known.need(observations, f"{observations}: no observations; run `observe` first"),
        known.need(clouds, f"{clouds}: no clouds; run `complete` first"),
    )
    made_from = {
        "stage": "generate",
        "version": VERSION,
        "observations": needs[0].fingerprint,
        "clouds": needs[1].fingerprint,
        "generator": generator.model_dump(),
        "identity": identity(made, unit.scene, unit.camera, unit.views),
        "entry": experiment.entry_of(arm),
        "density": experiment.density,
        "seed": experiment.seed,
    }
    job = Job(unit, observations, clouds, out, generator, experiment.entry_of(arm), experiment.density, experiment.seed)
    return Plan(
        "generate",
        f"{arm.name}/{generator.label}/{unit.label}",
        out,
        unit.scene,
        unit.camera,
        made_from,
        generate_unit,
        job,
        arm=arm.name,
        needs=needs,
        blocked=blocked_by(needs),
    )


def generate_unit(job: Job) -> list[dict[str, Any]]:
    """Write the dump of one unit; a view whose generator fails gets an empty dump and a problem."""
    generator = make_generator(job.generator.name, **job.generator.parameters)
    problems: list[dict[str, Any]] = []
    for view in job.unit.views:
        source = view_file(job.observations, view, ".npz")
        if not has_view(source):
            continue  # the view could not be observed; `observe` has recorded why
        observation = load_observation(source)
        completed = load_clouds(view_file(job.clouds, view, ".npz"))
        observed = at_density(observation.objects, job.density)
        sampled = completed if job.entry in ("generator", "both") else observed
        avoided = completed if job.entry in ("collision", "both") else observed
        background = voxel_downsample(observation.background, job.density)
        try:
            grasps = for_view(generator, job.unit.scene, job.unit.camera, view)(
                sampled.points,
                sampled.ids_of_points,
                np.concatenate([background, avoided.points]),
                invert(observation.T_table_camera),
                np.zeros(3),
                derive_seed(job.seed, job.unit.scene, job.unit.camera, view, "generate"),
            )
            array = grasps.to_array()
        except Exception as error:  # a plug-in may raise anything; the view counts as one without grasps
            problems.append(
                {"view": view, "object": None, "reason": f"generator failed: {type(error).__name__}: {error}"}
            )
            array = np.zeros((0, 17))
        with atomic_write(view_file(job.out, view, ".npy")) as stream:
            np.save(stream, array)
    return problems


def at_density(objects: ObjectClouds, density: float) -> ObjectClouds:
    """Return the same clouds, each brought to one point a voxel of edge ``density`` metres."""
    return ObjectClouds(
        objects.object_ids, tuple(voxel_downsample(cloud, density) for cloud in objects.clouds), objects.status
    )
