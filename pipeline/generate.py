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

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from grasping.cloud_contacts import opposition
from grasping.clouds import voxel_downsample
from grasping.generators import (
    Batched,
    Placed,
    ViewInput,
    for_view,
    identity,
    is_deterministic,
    make_generator,
    sees_background,
)
from grasping.grasps import Grasps
from grasping.transforms import invert
from pipeline.arms import Input
from pipeline.artifacts import ArtifactError, FileHashes, atomic_write, derive_seed, file_hash, fingerprint
from pipeline.cloud_files import ObjectClouds, load_clouds, load_observation
from pipeline.command_generator import CommandGenerator, CommandView
from pipeline.config import Arm, Entry, Experiment, GeneratorSection
from pipeline.engines import GPU
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
    """One unit: the views of one scene, camera and arm.

    Attributes:
        unit, observations, clouds, out: the views, what is known of them, and where their grasps go.
        arm, generator, device: what makes them, see :func:`make`.
        identity: fingerprint of what the generator was when the run was planned.
        entry, density, seed: of the experiment.
    """

    unit: SceneUnit
    observations: Path
    clouds: Path
    out: Path
    arm: str
    generator: GeneratorSection
    identity: str
    entry: Entry
    density: float
    seed: int
    device: str = "cpu"


def plans(
    experiment: Experiment,
    run: RunFolder,
    units: list[SceneUnit],
    hashes: FileHashes,
    known: Known,
    *,
    device: str = "cpu",
) -> list[Plan]:
    """Return one plan an arm, generator, scene and camera; ``device`` is where networks compute."""
    result = []
    for arm in experiment.members():
        for generator in experiment.generators:
            made = make(generator, arm.name, device)
            if generator.name == "dump":
                refuse_packed(made.folder)
            command = made.made_from(hashes) if isinstance(made, CommandGenerator) else None
            for unit in units:
                known_by = command or identity(made, unit.scene, unit.camera, unit.views)
                result.append(_plan(experiment, run, arm, generator, known_by, unit, known, device))
                if isinstance(made, Placed) and made.device == "cuda":
                    result[-1] = replace(result[-1], group=GPU)
    return result


def make(generator: GeneratorSection, arm: str, device: str = "cpu") -> Any:
    """Make the generator of one arm, see :func:`grasping.generators.make_generator`; or its command."""
    if generator.command is not None:
        directory, timeout = generator.directory or Path(), generator.timeout or DEFAULT_TIMEOUT
        return CommandGenerator(generator.command, directory, timeout, generator.deterministic)
    made = make_generator(generator.name, **generator.parameters_for(arm))
    return made.on(device) if isinstance(made, Placed) else made


def describe(experiment: Experiment) -> list[dict[str, Any]]:
    """Return what results say of each generator: ``label, name, input, rerank, deterministic``."""
    first = experiment.members()[0].name
    return [
        {
            "label": generator.label,
            "name": generator.name,
            "input": None if generator.name == "dump" else _mode(generator, made),
            "rerank": generator.rerank,
            "deterministic": is_deterministic(made),
        }
        for generator in experiment.generators
        for made in [make(generator, first)]
    ]


def _mode(generator: GeneratorSection, made: Any) -> Input:
    suits: Input = getattr(made, "default_input", "replace")
    return generator.input or suits


def seed_of(seed: int, scene: int, camera: str, view: int) -> int:
    """Return the seed that a generator is handed for one view, of an experiment's seed: the same for every arm."""
    return derive_seed(seed, scene, camera, view, "generate")


def _plan(
    experiment: Experiment,
    run: RunFolder,
    arm: Arm,
    generator: GeneratorSection,
    known_by: Any,
    unit: SceneUnit,
    known: Known,
    device: str,
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
        "identity": known_by,
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
        identity=fingerprint(known_by),
        entry=entry,
        density=experiment.density,
        seed=experiment.seed,
        device=device,
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


def generate_unit(job: Job) -> list[dict[str, Any]]:
    """Write the dump of one unit; a view whose generator fails gets an empty dump and a problem.

    Raises:
        ArtifactError: the generator is no longer what it was when the run was planned.
    """
    generator = make(job.generator, job.arm, job.device)
    _hold_to_plan(job, generator)
    if isinstance(generator, CommandGenerator):
        problems = _by_command(job, generator)
    elif isinstance(generator, Batched) and generator.batch_size > 1:
        problems = _in_batches(job, generator)
    else:
        problems = [
            problem
            for view, given in _inputs(job, generator)
            for problem in _written(job, view, partial(_find, job, generator, view, given))
        ]
    _hold_to_plan(job, generator)  # as it is afterwards: its files may have changed meanwhile
    return problems


def _hold_to_plan(job: Job, generator: Any) -> None:
    unit = job.unit
    is_command = isinstance(generator, CommandGenerator)
    found = generator.made_from(file_hash) if is_command else identity(generator, unit.scene, unit.camera, unit.views)
    if fingerprint(found) != job.identity:
        raise ArtifactError(
            f"{'the command of ' if is_command else ''}generator {job.generator.label!r}, or a file that it "
            f"{'names' if is_command else 'reads'}, changed after the run began; run again"
        )


def _by_command(job: Job, generator: CommandGenerator) -> list[dict[str, Any]]:
    views = (CommandView.of_input(view, given) for view, given in _inputs(job, generator))
    with generator.generate(job.out / ".command", job.unit.scene, job.unit.camera, views) as read:
        return [problem for view in _observed(job) for problem in _written(job, view, partial(read, view))]


def _in_batches(job: Job, generator: Any) -> list[dict[str, Any]]:
    """Where several views fail together, each is tried alone: the others' grasps are not lost with it."""
    problems = []
    inputs = _inputs(job, generator)
    while views := list(itertools.islice(inputs, generator.batch_size)):
        try:
            found = dict(zip((view for view, _ in views), generator.batch([given for _, given in views]), strict=True))
        except Exception:  # a plug-in may raise anything, or give grasps of too few views
            found = {}
        for view, given in views:
            find = partial(found.__getitem__, view) if view in found else partial(_find, job, generator, view, given)
            problems += _written(job, view, find)
    return problems


def _observed(job: Job) -> Iterator[int]:
    """Views that could be observed; of the others `observe` has recorded why not."""
    return (view for view in job.unit.views if has_view(view_file(job.observations, view, ".npz")))


def _inputs(job: Job, generator: Any) -> Iterator[tuple[int, ViewInput]]:
    """Yield each view's number, and what a generator is called with for it."""
    mode = "observed" if job.entry == "collision" else _mode(job.generator, generator)
    for view in _observed(job):
        observation = load_observation(view_file(job.observations, view, ".npz"))
        completed = load_clouds(view_file(job.clouds, view, ".npz"))
        observed = at_density(observation.objects, job.density)
        avoided = completed if job.entry in ("collision", "both") else observed
        background = voxel_downsample(observation.background, job.density)
        points, ids = generator_input(
            mode, observed, completed, background, job.density, sees_background=sees_background(generator)
        )
        yield (
            view,
            ViewInput(
                cloud=points,
                object_ids_of_points=ids,
                collision_cloud=np.concatenate([background, avoided.points]),
                T_camera_table=invert(observation.T_table_camera),
                viewpoint=np.zeros(3),
                seed=seed_of(job.seed, job.unit.scene, job.unit.camera, view),
            ),
        )


def _find(job: Job, generator: Any, view: int, given: ViewInput) -> Grasps:
    return for_view(generator, job.unit.scene, job.unit.camera, view)(*given)


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
