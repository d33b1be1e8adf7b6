"""Stage: clouds -> grasps, in the official dump layout.

Reads
    ``observations/scene_SSSS/<camera>/VVVV.npz`` and ``arms/<arm>/clouds/scene_SSSS/<camera>/VVVV.npz``
    (camera frame, metres).
Writes
    ``arms/<arm>/dump/<generator>/scene_SSSS/<camera>/VVVV.npy``, ``(N, 17)`` float64, N >= 0.

Where completion enters is the arm's ``entry``: ``generator`` (grasps are sampled on the completed cloud, and
their collisions tested against the observed one), ``collision`` (the other way round) or ``both``.
How it enters the generator's input is the generator's ``input`` (:mod:`pipeline.generator_input`). What a detector
finds on observed clouds, before it thinks of obstacles, is made once for all arms: :mod:`pipeline.proposals`.
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
from grasping.generators import Batched, ViewInput, for_view, identity, sees_background
from grasping.grasps import GraspFileError, Grasps
from pipeline import proposals
from pipeline.artifacts import ArtifactError, FileHashes, atomic_write, fingerprint, read_stamp
from pipeline.cloud_files import ObjectClouds, load_clouds, load_observation
from pipeline.command_generator import CommandGenerator, CommandView
from pipeline.config import Arm, Entry, Experiment, GeneratorSection
from pipeline.generator_input import view_input
from pipeline.generators import group_of, hold_to_plan, make, mode_of, proposals_name, seed_of, shares_proposals
from pipeline.run_command import OutputError
from pipeline.run_folder import STAMP, RunFolder, unit_folder, view_file
from pipeline.selection import SceneUnit
from pipeline.units import Known, Plan, blocked_by
from pipeline.view_files import has_view, load_grasps, refuse_packed

VERSION = 1


@dataclass(frozen=True)
class Job:
    """One unit: the views of one scene, camera and arm.

    Attributes:
        unit, observations, clouds, out: the views, what is known of them, and where their grasps go.
        arm, generator, device: what makes them, see :func:`pipeline.generators.make`.
        identity: fingerprint of what the generator was when the run was planned.
        entry, density, seed: of the experiment.
        proposals: folder of what is proposed for all arms, where that is taken.
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
    device: str
    proposals: Path | None = None


def plans(
    experiment: Experiment,
    run: RunFolder,
    units: list[SceneUnit],
    hashes: FileHashes,
    known: Known,
    *,
    device: str = "cpu",
) -> list[Plan]:
    """Return one plan an arm, generator, scene and camera, and before them those of what arms share.

    ``device`` is where networks compute.
    """
    shared: dict[Path, Plan] = {}
    wanted: set[Path] = set()
    result = []
    for arm in experiment.members():
        for generator in experiment.generators:
            made = make(generator, arm.name, device)
            if generator.name == "dump":
                refuse_packed(made.folder)
            command = made.made_from(hashes) if isinstance(made, CommandGenerator) else None
            shares = shares_proposals(generator, made, experiment.entry_of(arm))
            for unit in units:
                known_by = command or identity(made, unit.scene, unit.camera, unit.views)
                plan = _plan(experiment, run, arm, generator, known_by, unit, known, "cpu" if shares else device)
                if not shares:
                    result.append(replace(plan, group=group_of(made, device)))
                    continue
                folder = unit_folder(run.proposals / proposals_name(generator), unit.scene, unit.camera)
                if folder not in shared:
                    shared[folder] = proposals.plan(experiment, run, generator, made, unit, known, device)
                    known.add([shared[folder]])
                if plan.why_stale() is not None:
                    plan = _taking(plan, folder, known)
                    wanted.add(folder)
                result.append(plan)
    # What nobody needs is not made; where it lies there, it is counted.
    return [*(plan for folder, plan in shared.items() if folder in wanted or plan.why_stale() is None), *result]


def _taking(plan: Plan, folder: Path, known: Known) -> Plan:
    """Have an arm's unit take proposals; they are made from what it is made from, so ``made_from`` says all already."""
    needs = (*plan.needs, known.need(folder, f"{folder}: no proposals; run `generate` again"))
    return replace(plan, job=replace(plan.job, proposals=folder), needs=needs, blocked=blocked_by(needs))


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
    hold_to_plan(job.generator.label, generator, job.unit, job.identity)
    if isinstance(generator, CommandGenerator):
        problems = _by_command(job, generator)
    elif job.proposals is not None:
        problems = _from_proposals(job, job.proposals, generator)
    elif isinstance(generator, Batched) and generator.batch_size > 1:
        problems = _in_batches(job, generator)
    else:
        problems = [
            problem
            for view, given in _inputs(job, generator)
            for problem in _written(job, view, partial(_find, job, generator, view, given))
        ]
    hold_to_plan(job.generator.label, generator, job.unit, job.identity)  # its files may have changed meanwhile
    return problems


def _by_command(job: Job, generator: CommandGenerator) -> list[dict[str, Any]]:
    views = (CommandView.of_input(view, given) for view, given in _inputs(job, generator))
    with generator.generate(job.out / ".command", job.unit.scene, job.unit.camera, views) as read:
        return [problem for view in _observed(job) for problem in _written(job, view, partial(read, view))]


def _from_proposals(job: Job, folder: Path, generator: Any) -> list[dict[str, Any]]:
    stamp = read_stamp(folder / STAMP)
    reasons = {row["view"]: row["reason"] for row in (stamp.problems if stamp else [])}
    problems = []
    for view, given in _inputs(job, generator):
        path = view_file(folder, view, ".npy")
        if has_view(path):
            try:
                proposed = load_grasps(path)
            except GraspFileError as error:  # not the generator's failure: the unit is to be made again
                raise ArtifactError(f"{error} (or delete {folder}, and run again)") from None
            problems += _written(job, view, partial(generator.clear, proposed, given.collision_cloud))
        else:
            problems += _written(job, view, partial(_fail, reasons.get(view, "nothing was proposed")))
    return problems


def _fail(reason: str) -> Grasps:
    raise OutputError(reason)


def _in_batches(job: Job, generator: Any) -> list[dict[str, Any]]:
    problems = []
    inputs = _inputs(job, generator)
    while views := list(itertools.islice(inputs, generator.batch_size)):
        found, _ = proposals.together(generator.batch, views)
        for view, given in views:
            find = partial(found.__getitem__, view) if view in found else partial(_find, job, generator, view, given)
            problems += _written(job, view, find)
    return problems


def _observed(job: Job) -> Iterator[int]:
    """Views that could be observed; of the others `observe` has recorded why not."""
    return (view for view in job.unit.views if has_view(view_file(job.observations, view, ".npz")))


def _inputs(job: Job, generator: Any) -> Iterator[tuple[int, ViewInput]]:
    """Yield each view's number, and what a generator is called with for it."""
    mode = mode_of(job.generator, generator, job.entry)
    for view in _observed(job):
        yield (
            view,
            view_input(
                mode,
                load_observation(view_file(job.observations, view, ".npz")),
                load_clouds(view_file(job.clouds, view, ".npz")),
                job.density,
                seed_of(job.seed, job.unit.scene, job.unit.camera, view),
                avoids_completed=job.entry in ("collision", "both"),
                sees_background=sees_background(generator),
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
