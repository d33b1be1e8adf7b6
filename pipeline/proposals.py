"""A part of the stage `generate`: what a detector finds on observed clouds, before it thinks of obstacles.

That is alike for every arm, and for every generator of the same name and parameters, and costs a network nearly all of
its time; so it is made once. The arms then take from it what touches nothing in their own clouds
(:class:`grasping.generators.Proposing`).

Reads
    ``observations/scene_SSSS/<camera>/VVVV.npz`` (camera frame, metres).
Writes
    ``proposals/<generator>/scene_SSSS/<camera>/VVVV.npy``, ``(N, 17)`` float64, not sorted. A view whose detector fails
    has none: then each arm tries by itself, and has it on record.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from grasping.generators import Placed, ViewInput, identity, sees_background
from grasping.grasps import Grasps
from pipeline.artifacts import atomic_write, fingerprint
from pipeline.cloud_files import load_observation
from pipeline.config import Experiment, GeneratorSection
from pipeline.engines import CPU, GPU
from pipeline.generator_input import view_input
from pipeline.generators import hold_to_plan, make, seed_of
from pipeline.run_folder import RunFolder, unit_folder, view_file
from pipeline.selection import SceneUnit
from pipeline.units import Known, Plan, blocked_by
from pipeline.view_files import has_view

VERSION = 1


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
    out = unit_folder(run.proposals(generator.label), unit.scene, unit.camera)
    known_by = identity(made, unit.scene, unit.camera, unit.views)
    made_from = {
        "stage": "generate",
        "proposals": VERSION,
        "observations": observed.fingerprint,
        "generator": {"name": generator.name, "identity": known_by},
        "density": experiment.density,
        "seed": experiment.seed,
    }
    job = Job(unit, observations, out, generator, device, fingerprint(known_by), experiment.density, experiment.seed)
    return Plan(
        "generate",
        f"proposals/{generator.label}/{unit.label}",
        out,
        unit.scene,
        unit.camera,
        made_from,
        proposals_unit,
        job,
        needs=(observed,),
        blocked=blocked_by([observed]),
        group=GPU if isinstance(made, Placed) and made.device == "cuda" else CPU,
    )


def proposals_unit(job: Job) -> list[dict[str, Any]]:
    """Write what is proposed in the views of one unit.

    Raises:
        ArtifactError: the generator is no longer what it was when the run was planned.
    """
    made = make(job.generator, "", job.device)
    hold_to_plan(job.generator.label, made, job.unit, job.identity)
    inputs = _inputs(job, made)
    while views := list(itertools.islice(inputs, getattr(made, "batch_size", 1))):
        for view, grasps in together(made.propose, views).items():
            with atomic_write(view_file(job.out, view, ".npy")) as stream:
                np.save(stream, grasps.to_array())
    hold_to_plan(job.generator.label, made, job.unit, job.identity)  # its files may have changed meanwhile
    return []


def together(function: Any, views: list[tuple[int, ViewInput]]) -> dict[int, Grasps]:
    """Return what a function of several views gives for each, by the view's number.

    Where it fails, or gives grasps of too few views, each view is tried alone, and those that fail are left out.
    """
    try:
        return dict(zip((view for view, _ in views), function([given for _, given in views]), strict=True))
    except Exception:  # a plug-in may raise anything
        if len(views) == 1:
            return {}
        return {number: grasps for view in views for number, grasps in together(function, [view]).items()}


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
