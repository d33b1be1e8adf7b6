"""The generators of an experiment: made for an arm, held to what they were, described for results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from grasping.generators import Placed, Proposing, identity, is_deterministic, make_generator
from pipeline.arms import Input
from pipeline.artifacts import ArtifactError, derive_seed, file_hash, fingerprint
from pipeline.command_generator import CommandGenerator
from pipeline.config import Entry, Experiment, GeneratorSection
from pipeline.engines import CPU, GPU
from pipeline.selection import SceneUnit

DEFAULT_TIMEOUT = 3600.0
"""Seconds that a generator's command may take for one unit."""


def make(generator: GeneratorSection, arm: str, device: str = "cpu") -> Any:
    """Make the generator of one arm, see :func:`grasping.generators.make_generator`; or its command.

    Args:
        generator, arm: which, for whom.
        device: ``cpu`` or ``cuda``, where networks compute.
    """
    if generator.command is not None:
        directory, timeout = generator.directory or Path(), generator.timeout or DEFAULT_TIMEOUT
        return CommandGenerator(generator.command, directory, timeout, generator.deterministic)
    made = make_generator(generator.name, **generator.parameters_for(arm))
    return made.on(device) if isinstance(made, Placed) else made


def group_of(made: Any, device: str) -> str:
    """Return the group of workers that a generator wants; the cores where the run has no GPU, whatever it says."""
    return GPU if device == "cuda" and isinstance(made, Placed) and made.device == "cuda" else CPU


def mode_of(generator: GeneratorSection, made: Any, entry: Entry = "both") -> Input:
    """Return how completion enters a generator's cloud, for an arm where it enters at ``entry``."""
    if entry == "collision":
        return "observed"
    suits: Input = getattr(made, "default_input", "replace")
    return generator.input or suits


def seed_of(seed: int, scene: int, camera: str, view: int) -> int:
    """Return the seed that a generator is handed for one view, of an experiment's seed: the same for every arm."""
    return derive_seed(seed, scene, camera, view, "generate")


def hold_to_plan(label: str, made: Any, unit: SceneUnit, planned: str) -> None:
    """Find out whether a generator still is what it was when the run was planned.

    Args:
        label: its name in the experiment.
        made: the generator.
        unit: the views that it is to answer for.
        planned: fingerprint of its identity.

    Raises:
        ArtifactError: it is not.
    """
    is_command = isinstance(made, CommandGenerator)
    found = made.made_from(file_hash) if is_command else identity(made, unit.scene, unit.camera, unit.views)
    if fingerprint(found) != planned:
        raise ArtifactError(
            f"{'the command of ' if is_command else ''}generator {label!r}, or a file that it "
            f"{'names' if is_command else 'reads'}, changed after the run began; run again"
        )


def describe(experiment: Experiment) -> list[dict[str, Any]]:
    """Return what results say of each generator: ``label, name, input, rerank, deterministic``."""
    first = experiment.members()[0].name
    return [
        {
            "label": generator.label,
            "name": generator.name,
            "input": None if generator.name == "dump" else mode_of(generator, made),
            "rerank": generator.rerank,
            "deterministic": is_deterministic(made),
        }
        for generator in experiment.generators
        for made in [make(generator, first)]
    ]


def shares_proposals(generator: GeneratorSection, made: Any, entry: Entry) -> bool:
    """Say whether what a generator proposes for an arm is the same for all arms: see :mod:`pipeline.proposals`."""
    return isinstance(made, Proposing) and mode_of(generator, made, entry) == "observed"


def proposals_name(generator: GeneratorSection) -> str:
    """Name the folder of what a generator proposes: alike for generators of one name and parameters."""
    return f"{generator.name}-{fingerprint(generator.what_counts()['parameters'])[:8]}"


def may_share_proposals(experiment: Experiment, generator: GeneratorSection) -> bool:
    """Say whether any arm may take shared proposals, as far as the experiment's file tells."""
    return generator.input in (None, "observed") or any(
        experiment.entry_of(arm) == "collision" for arm in experiment.members()
    )
