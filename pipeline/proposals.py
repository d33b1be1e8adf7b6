"""A part of the stage `generate`: what a detector finds on observed clouds, before it thinks of obstacles.

That is alike for every arm, and for every generator of the same name and parameters, and costs a network nearly all of
its time; so it is made once. The arms then take from it what touches nothing in their own clouds
(:class:`grasping.generators.Proposing`).

Reads
    ``observations/scene_SSSS/<camera>/VVVV.npz`` (camera frame, metres).
Writes
    ``proposals/<generator>/scene_SSSS/<camera>/VVVV.npy``, ``(N, 17)`` float64, not sorted. A view in which the
    detector fails has none: the reason is a problem here, from which each arm takes it over.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from grasping.generators import ViewInput, identity, sees_background
from pipeline.artifacts import atomic_write, fingerprint
from pipeline.cloud_files import load_observation
from pipeline.config import Experiment, GeneratorSection
from pipeline.generator_input import view_input
from pipeline.generators import group_of, hold_to_plan, make, proposals_name, seed_of
from pipeline.run_folder import RunFolder, unit_folder, view_file
from pipeline.selection import SceneUnit
from pipeline.units import Known, Plan, blocked_by
from pipeline.view_files import has_view

T = TypeVar("T")
VERSION = 1  # raise that of `generate` too: dumps are not made from this number


@dataclass(frozen=True)
class Job:
    """One unit: the views of one scene and camera.

    Attributes:
        unit, observations, out: the views, what is known of them, and where their grasps go.
        generator, device: what finds them, see :func:`pipeline.generators.make`.
        identity: fingerprint of what it was when the run was planned.
        density, seed: of the experiment.
    """

    unit: SceneUnit
    observations: Path
    out: Path
    generator: GeneratorSection
    device: str
    identity: str
    density: float
    seed: int


def plan(
    experiment: Experiment,
    run: RunFolder,
    generator: GeneratorSection,
    made: Any,
    unit: SceneUnit,
    known: Known,
    device: str,
) -> Plan:
    """Plan one unit of a generator, which is ``made`` already."""
    observations = unit_folder(run.observations, unit.scene, unit.camera)
    observed = known.need(observations, f"{observations}: no observations; run `observe` first")
    name = proposals_name(generator)
    out = unit_folder(run.proposals / name, unit.scene, unit.camera)
    known_by = identity(made, unit.scene, unit.camera, unit.views)
    made_from = {
        "stage": "generate",
        "proposals": VERSION,
        "observations": observed.fingerprint,
        "generator": {"name": generator.name, "parameters": generator.what_counts()["parameters"]},
        "identity": known_by,
        "density": experiment.density,
        "seed": experiment.seed,
    }
    job = Job(unit, observations, out, generator, device, fingerprint(known_by), experiment.density, experiment.seed)
    return Plan(
        "generate",
        f"proposals/{name}/{unit.label}",
        out,
        unit.scene,
        unit.camera,
        made_from,
        proposals_unit,
        job,
        needs=(observed,),
        blocked=blocked_by([observed]),
        group=group_of(made, device),
    )


def proposals_unit(job: Job) -> list[dict[str, Any]]:
    """Write what is proposed in the views of one unit; a view in which nothing can be is a problem.

    Raises:
        ArtifactError: the generator is no longer what it was when the run was planned.
    """
    made = make(job.generator, "", job.device)
    hold_to_plan(job.generator.label, made, job.unit, job.identity)
    problems = []
    inputs = _inputs(job, made)
    while views := list(itertools.islice(inputs, getattr(made, "batch_size", 1))):
        found, reasons = together(lambda given: [grasps.to_array() for grasps in made.propose(given)], views)
        for view, array in found.items():
            with atomic_write(view_file(job.out, view, ".npy")) as stream:
                np.save(stream, array)
        problems += [{"view": view, "object": None, "reason": reason} for view, reason in reasons.items()]
    hold_to_plan(job.generator.label, made, job.unit, job.identity)  # its files may have changed meanwhile
    return problems


def together(
    function: Callable[[list[ViewInput]], list[T]], views: list[tuple[int, ViewInput]]
) -> tuple[dict[int, T], dict[int, str]]:
    """Return what a function of several views gives for each, and why it gives nothing, by the view's number.

    Where it fails, or gives too little, each view is tried alone: what works is not lost with what does not.
    """
    try:
        return dict(zip((view for view, _ in views), function([given for _, given in views]), strict=True)), {}
    except Exception as error:  # a plug-in may raise anything
        if len(views) == 1:
            return {}, {views[0][0]: f"{type(error).__name__}: {error}"}
    found: dict[int, T] = {}
    reasons: dict[int, str] = {}
    for view in views:
        of_view, why = together(function, [view])
        found |= of_view
        reasons |= why
    return found, reasons


def _inputs(job: Job, made: Any) -> Iterator[tuple[int, ViewInput]]:
    for view in job.unit.views:
        path = view_file(job.observations, view, ".npz")
        if has_view(path):  # else it could not be observed; `observe` has recorded why
            seed = seed_of(job.seed, job.unit.scene, job.unit.camera, view)
            background = sees_background(made)
            yield (
                view,
                view_input("observed", load_observation(path), None, job.density, seed, sees_background=background),
            )
