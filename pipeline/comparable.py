"""What two runs must share, so that a difference between their arms is one of the arms.

Protocol, scorers, generators, density, seed of the draws, the primary metric, and of every scene and camera its views,
observations (which say the crop and the files) and true models. Arms themselves may differ: that is the question.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grasping import protocol
from grasping.generators import identity, make_generator
from pipeline import physics_score
from pipeline.artifacts import fingerprint, read_stamp
from pipeline.config import Experiment, GeneratorSection
from pipeline.run_folder import STAMP, RunFolder, unit_folder
from pipeline.scorers import PHYSICS
from pipeline.selection import SceneUnit


def describe(experiment: Experiment, folder: RunFolder, units: list[SceneUnit]) -> dict[str, Any]:
    """Return what of a run counts, as JSON can say it.

    Beside it, ``arms``: a fingerprint of each arm's clouds by member, by which :mod:`pipeline.compare` knows the same
    arm in two runs.
    """
    generators = {}
    for generator in experiment.generators:
        content = generator.what_counts()
        if generator.command is None and generator.parameters_for("a") == generator.parameters_for("b"):
            content["identity"] = _identity(experiment, folder, generator, units[0])
        # else a dump an arm: part of the arm, as its clouds are
        generators[generator.label] = content
    physics = PHYSICS in experiment.scorers
    return {
        "protocol": protocol.fingerprint(),
        "scorers": list(experiment.scorers),
        "physics": physics_score.identity(experiment.trials(), experiment.seed) if physics else None,
        "generators": generators,
        "density": experiment.density,
        "seed": experiment.seed,
        "primary_metric": experiment.primary_metric,
        "units": {unit.label: _unit(experiment, folder, unit) for unit in units},
        "arms": {
            arm.name: [_clouds(folder, member.name, units) for member in arm.members()] for arm in experiment.arms
        },
    }


def _identity(experiment: Experiment, folder: RunFolder, generator: GeneratorSection, unit: SceneUnit) -> Any:
    """Return what a generator was when it made the unit's grasps; where no arm's are there, what it is now."""
    for arm in experiment.members():
        made = read_stamp(unit_folder(folder.dump(arm.name, generator.label), unit.scene, unit.camera) / STAMP)
        if made is not None:
            return made.made_from.get("identity")
    return identity(make_generator(generator.name, **generator.parameters), unit.scene, unit.camera, unit.views)


def _unit(experiment: Experiment, folder: RunFolder, unit: SceneUnit) -> dict[str, Any]:
    observed = read_stamp(unit_folder(folder.observations, unit.scene, unit.camera) / STAMP)
    truths = set()
    for arm in experiment.members():
        for generator in experiment.generators:
            scores = folder.scores(arm.name, generator.label, experiment.scorers[0])
            stamp = read_stamp(unit_folder(scores, unit.scene, unit.camera) / STAMP)
            if stamp is not None:
                truths.add(stamp.made_from.get("truth"))
    return {
        "split": unit.split,
        "views": list(unit.views),
        "observations": observed.fingerprint if observed else None,
        "truth": sorted(map(str, truths)),
    }


def _clouds(folder: RunFolder, member: str, units: list[SceneUnit]) -> str:
    stamps = [read_stamp(unit_folder(folder.clouds(member), unit.scene, unit.camera) / STAMP) for unit in units]
    return fingerprint([stamp.fingerprint if stamp else None for stamp in stamps])


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Say in a line each in what two runs differ, key by key; nothing where they can be compared."""
    lines = []
    for key in sorted((set(one) | set(other)) - {"units", "arms"}):
        lines += [f"{name}: {left} | {right}" for name, left, right in _flat(key, one.get(key), other.get(key))]
    return lines + _differing_units(one.get("units", {}), other.get("units", {}))


_NOTHING = "absent"


def _flat(key: str, one: Any, other: Any) -> list[tuple[str, Any, Any]]:
    if one == other:
        return []
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        names = sorted(set(one) | set(other))
        return [
            line
            for name in names
            for line in _flat(f"{key}.{name}", one.get(name, _NOTHING), other.get(name, _NOTHING))
        ]
    return [(key, one, other)]


def _differing_units(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Name scenes that only one has, and of the common ones those that differ, by what."""
    lines = []
    for title, left, right in (("first", one, other), ("other", other, one)):
        only = sorted(set(left) - set(right))
        if only:
            lines.append(f"scenes of the {title} run alone: {_listed(only)}")
    common = sorted(set(one) & set(other))
    for key, what in (("split", "splits"), ("views", "views"), ("observations", "observations"), ("truth", "models")):
        odd = [name for name in common if one[name].get(key) != other[name].get(key)]
        if key in ("observations", "truth"):  # other views are other observations and poses: that is said already
            odd = [name for name in odd if one[name].get("views") == other[name].get("views")]
        if not odd:
            continue
        example = ""
        if key in ("split", "views"):
            example = f" ({odd[0]}: {one[odd[0]].get(key)} | {other[odd[0]].get(key)})"
        lines.append(f"{what} of {_listed(odd)}{example}")
    return lines


def _listed(names: list[str], most: int = 4) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
