"""Stage: clouds -> grasps, in the official dump layout.

Reads
    ``observations/scene_SSSS/<camera>/VVVV.npz`` and ``arms/<arm>/clouds/scene_SSSS/<camera>/VVVV.npz``
    (camera frame, metres).
Writes
    ``arms/<arm>/dump/<generator>/scene_SSSS/<camera>/VVVV.npy``, ``(N, 17)`` float64, N >= 0.

Where completion enters is the arm's ``entry``: ``generator`` (grasps are sampled on the completed cloud, and
their collisions tested against the observed one), ``collision`` (the other way round) or ``both``.
How it enters the generator's input is the generator's ``input`` (:mod:`pipeline.generator_input`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grasping.cloud_contacts import opposition
from grasping.clouds import voxel_downsample
from grasping.generators import for_view, identity, make_generator, sees_background
from grasping.grasps import Grasps
from grasping.transforms import invert
from pipeline.arms import Input
from pipeline.artifacts import ArtifactError, FileHashes, atomic_write, derive_seed, file_hash, fingerprint
from pipeline.cloud_files import ObjectClouds, load_clouds, load_observation
from pipeline.command_generator import CommandGenerator, CommandView
from pipeline.config import Arm, Entry, Experiment, GeneratorSection
from pipeline.generator_input import generator_input
from pipeline.run_command import OutputError
from pipeline.run_folder import RunFolder, unit_folder, view_file
from pipeline.selection import SceneUnit
from pipeline.units import Known, Plan, blocked_by
from pipeline.view_files import has_view, refuse_packed

VERSION = 1
DEFAULT_TIMEOUT = 3600.0
"""Seconds that a generator's command may take for one unit."""


@dataclass(frozen=True)
class Job:
    """One unit: the views of one scene, camera and arm; ``command`` is the fingerprint of a generator's command."""

    unit: SceneUnit
    observations: Path
    clouds: Path
    out: Path
    arm: str
    generator: GeneratorSection
    command: str | None
    entry: Entry
    density: float
    seed: int


def plans(
    experiment: Experiment, run: RunFolder, units: list[SceneUnit], hashes: FileHashes, known: Known
) -> list[Plan]:
    """Return one plan an arm, generator, scene and camera."""
    result = []
    for arm in experiment.members():
        for generator in experiment.generators:
            made = make(generator, arm.name)
            if generator.name == "dump":
                refuse_packed(made.folder)
            command = made.made_from(hashes) if isinstance(made, CommandGenerator) else None
            result += [_plan(experiment, run, arm, generator, made, command, unit, known) for unit in units]
    return result


def make(generator: GeneratorSection, arm: str) -> Any:
    """Make the generator of one arm, see :func:`grasping.generators.make_generator`; or its command."""
    if generator.command is not None:
        directory, timeout = generator.directory or Path(), generator.timeout or DEFAULT_TIMEOUT
        return CommandGenerator(generator.command, directory, timeout, generator.deterministic)
    return make_generator(generator.name, **generator.parameters_for(arm))


def _plan(
    experiment: Experiment,
    run: RunFolder,
    arm: Arm,
    generator: GeneratorSection,
    made: Any,
    command: dict[str, Any] | None,
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
    entry = experiment.entry_of(arm)
    made_from = {
        "stage": "generate",
        "version": VERSION,
        "observations": needs[0].fingerprint,
        "clouds": needs[1].fingerprint,
        "generator": generator.what_counts(),
        "identity": command or identity(made, unit.scene, unit.camera, unit.views),
        "entry": entry,
        "density": experiment.density,
        "seed": experiment.seed,
    }
    job = Job(
        unit=unit,
        observations=observations,
        clouds=clouds,
        out=out,
        arm=arm.name,
        generator=generator,
        command=None if command is None else fingerprint(command),
        entry=entry,
        density=experiment.density,
        seed=experiment.seed,
    )
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


@dataclass(frozen=True)
class _Given:
    """What a generator is called with, for one view; see :class:`grasping.generators.Generator`."""

    view: int
    points: NDArray[np.float32]
    ids: NDArray[np.int64]
    collision: NDArray[np.float32]
    T_camera_table: NDArray[np.float64]
    seed: int


def generate_unit(job: Job) -> list[dict[str, Any]]:
    """Write the dump of one unit; a view whose generator fails gets an empty dump and a problem."""
    generator = make(job.generator, job.arm)
    if not isinstance(generator, CommandGenerator):
        return [
            problem
            for given in _inputs(job, generator)
            for problem in _written(job, given.view, partial(_find, job, generator, given))
        ]
    if fingerprint(generator.made_from(file_hash)) != job.command:
        raise ArtifactError(
            f"the command of generator {job.generator.label!r}, or a file that it names, changed after the run began; "
            "run again"
        )
    views = (
        CommandView.of_cloud(given.view, given.points, given.ids, given.collision, given.T_camera_table, given.seed)
        for given in _inputs(job, generator)
    )
    with generator.generate(job.out / ".command", job.unit.scene, job.unit.camera, views) as read:
        return [problem for view in _observed(job) for problem in _written(job, view, partial(read, view))]


def _observed(job: Job) -> Iterator[int]:
    """Views that could be observed; of the others `observe` has recorded why not."""
    return (view for view in job.unit.views if has_view(view_file(job.observations, view, ".npz")))


def _inputs(job: Job, generator: Any) -> Iterator[_Given]:
    suits: Input = getattr(generator, "default_input", "replace")
    mode = "observed" if job.entry == "collision" else job.generator.input or suits
    for view in _observed(job):
        observation = load_observation(view_file(job.observations, view, ".npz"))
        completed = load_clouds(view_file(job.clouds, view, ".npz"))
        observed = at_density(observation.objects, job.density)
        avoided = completed if job.entry in ("collision", "both") else observed
        background = voxel_downsample(observation.background, job.density)
        points, ids = generator_input(
            mode, observed, completed, background, job.density, sees_background=sees_background(generator)
        )
        yield _Given(
            view,
            points,
            ids,
            np.concatenate([background, avoided.points]),
            invert(observation.T_table_camera),
            derive_seed(job.seed, job.unit.scene, job.unit.camera, view, "generate"),
        )


def _find(job: Job, generator: Any, given: _Given) -> Grasps:
    bound = for_view(generator, job.unit.scene, job.unit.camera, given.view)
    return bound(given.points, given.ids, given.collision, given.T_camera_table, np.zeros(3), given.seed)


def _written(job: Job, view: int, find: Callable[[], Grasps]) -> list[dict[str, Any]]:
    """Write one view's dump, and return what went wrong."""
    problems = []
    try:
        grasps = find()
        if job.generator.rerank:
            grasps = reranked(grasps, load_clouds(view_file(job.clouds, view, ".npz")))
        array = grasps.to_array()
    except Exception as error:  # a plug-in may raise anything; the view counts as one without grasps
        said = str(error) if isinstance(error, OutputError) else f"{type(error).__name__}: {error}"
        problems.append({"view": view, "object": None, "reason": f"generator failed: {said}"})
        array = np.zeros((0, 17))
    with atomic_write(view_file(job.out, view, ".npy")) as stream:
        np.save(stream, array)
    return problems


def reranked(grasps: Grasps, completed: ObjectClouds) -> Grasps:
    """Multiply confidences by what the arm's clouds say of each grasp; those below 0 are as bad as those of 0."""
    confidence = np.maximum(grasps.confidence, 0.0) * opposition(grasps, completed.points)
    order = np.argsort(-confidence, kind="stable")
    return replace(grasps, confidence=confidence)[order]


def at_density(objects: ObjectClouds, density: float) -> ObjectClouds:
    """Return the same clouds, each brought to one point a voxel of edge ``density`` metres."""
    return ObjectClouds(
        objects.object_ids, tuple(voxel_downsample(cloud, density) for cloud in objects.clouds), objects.status
    )
