"""The experiment file: YAML in, validated frozen models out.

Every default of a run lives here, in :mod:`.config_sections` and, of an arm, in :mod:`.arms`.
"""

from __future__ import annotations

import difflib
import os
import types
import typing
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import (
    BaseModel,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from grasping.utility import METRICS
from pipeline.arms import Arm, Entry, FrozenModel
from pipeline.artifacts import default_cache
from pipeline.config_sections import (
    PATH_PARAMETERS,
    DatasetSection,
    GeneratorSection,
    PhysicsSection,
    StatisticsSection,
)
from pipeline.metric_names import FIDELITY
from pipeline.physics_utility import HELD_METRICS
from pipeline.scorers import PHYSICS, check_name

FORMAT_VERSION = 1


class ConfigError(ValueError):
    """An experiment file that cannot be used; the message names the file, the key and the remedy."""


class Experiment(FrozenModel):
    """One comparison of arms.

    Attributes:
        format_version: of this file; 1.
        name: a title for the tables and the report.
        question: what the comparison is to answer, printed on top of the report.
        dataset: the observations.
        arms: names (``partial``, ``oracle``, a shipped checkpoint) or mappings, see :class:`Arm`.
        comparisons: pairs ``[a, b]`` of arms whose difference a - b is reported; left out: every arm against
            ``partial`` and every later checkpoint or command against the first.
        entry: where completion enters: what the generator samples, what its collision filter tests, or both.
            Where it does not enter, the observed cloud is used.
        density: common voxel edge in metres to which every arm's clouds are brought, so that density does not
            pass for quality. Not below 3 mm, the density of the observations themselves.
        generators: grasp generators.
        scorers: ``analytic`` (our implementation of the protocol), ``graspnetapi`` (the referee itself), a plug-in's
            name (:mod:`pipeline.scorers`); and ``physics`` beside one of these, a second opinion on what it keeps.
        physics: see :class:`PhysicsSection`; goes with the scorer ``physics``.
        primary_metric: the one metric that answers the question, declared before the run.
        statistics: see :class:`StatisticsSection`.
        seed: of everything random in the run; arms see the same draws.
        cache: folder for files derived from models (signed distances, surface samples); relative paths count
            from the experiment file. Left out: ``$GRASP_UTILITY_CACHE`` or the user's cache folder.
    """

    format_version: Literal[1]
    name: str = Field(pattern=r"^[^/\\\n.][^/\\\n]*$")
    question: str = "Does a better shape-completion loss give a robot better grasps?"
    dataset: DatasetSection
    arms: tuple[Arm, ...]
    comparisons: tuple[tuple[str, str], ...] | None = None
    entry: Entry = "both"
    density: float = Field(0.003, ge=0.003, le=0.02)
    generators: tuple[GeneratorSection, ...] = (GeneratorSection(),)
    scorers: tuple[str, ...] = ("analytic",)
    physics: PhysicsSection | None = None
    primary_metric: str = "ap"
    statistics: StatisticsSection = StatisticsSection()  # type: ignore[call-arg]
    seed: int = Field(0, ge=0)
    cache: Path | None = None

    @field_validator("arms", mode="before")
    @classmethod
    def _arm_shorthand(cls, arms: Any) -> Any:
        if not isinstance(arms, list | tuple) or not arms:
            raise ValueError("`arms` is a list of names or mappings, for example [partial, pcn-cd, oracle]")
        return [_arm_from_name(arm) if isinstance(arm, str) else arm for arm in arms]

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        names = [arm.name for arm in self.arms]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two arms are called {name!r}; rename one")
        if len(set(self.comparisons or ())) < len(self.comparisons or ()):
            raise ValueError("`comparisons` names one twice; each counts once")
        for pair in self.comparisons or ():
            if pair[0] == pair[1]:
                raise ValueError(f"comparison {list(pair)} is of an arm with itself; name two")
            for name in pair:
                if name not in names:
                    raise ValueError(f"comparison {list(pair)} names an unknown arm {name!r}{_nearest(name, names)}")
        self._check_family()
        if self.primary_metric not in METRICS:
            raise ValueError(f"unknown primary_metric {self.primary_metric!r}{_nearest(self.primary_metric, METRICS)}")
        labels = [generator.label for generator in self.generators]
        if not labels or len(set(labels)) != len(labels):
            raise ValueError("`generators` needs at least one generator, each under a name or `label` of its own")
        if not self.scorers or len(set(self.scorers)) < len(self.scorers):
            raise ValueError("`scorers` names each scorer once, at least one; use [analytic]")
        for scorer in self.scorers:
            check_name(scorer)
        if self.scorers == (PHYSICS,):
            raise ValueError(
                "`physics` is a second opinion on what the protocol keeps; use scorers: [analytic, physics]"
            )
        if self.physics is not None and PHYSICS not in self.scorers:
            raise ValueError("`physics:` goes with the scorer of that name; use scorers: [analytic, physics]")
        return self

    def _check_family(self) -> None:
        family = self.statistics.family
        for pair in family.comparisons or ():
            if pair not in self.compared():
                raise ValueError(f"statistics.family: {list(pair)} is none of the comparisons; add it to them")
        known = (*METRICS, *(HELD_METRICS if PHYSICS in self.scorers else ()), *FIDELITY)
        for name in family.metrics or ():
            if name not in known:
                raise ValueError(f"statistics.family: unknown metric {name!r}{_nearest(name, known)}")
        used = self.dataset.splits
        for split in family.splits:
            if used is not None and split not in ("all", *used):
                raise ValueError(f"statistics.family: split {split!r} is none of dataset.splits: {', '.join(used)}")

    @model_serializer(mode="wrap")
    def _without_what_is_not_used(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Experiments without physics are what they were before there was any: their runs stay current.
        content: dict[str, Any] = handler(self)
        if content.get("physics") is None:
            content.pop("physics", None)
        return content

    def trials(self) -> PhysicsSection:
        """Return how physics tries grasps: what the file says, or the defaults."""
        return self.physics or PhysicsSection()  # type: ignore[call-arg]

    def entry_of(self, arm: Arm) -> Entry:
        return arm.entry or self.entry

    def compared(self) -> tuple[tuple[str, str], ...]:
        """Return the pairs ``(a, b)`` whose difference a - b is reported."""
        if self.comparisons is not None:
            return self.comparisons
        pairs: list[tuple[str, str]] = []
        partial = [arm.name for arm in self.arms if arm.completion == "none"]
        if partial:
            pairs += [(arm.name, partial[0]) for arm in self.arms if arm.name != partial[0]]
        learned = [arm.name for arm in self.arms if arm.is_learned]
        pairs += [(name, learned[0]) for name in learned[1:]]
        return tuple(pairs)

    def questioned(self) -> tuple[tuple[str, str], ...]:
        """Return the comparisons that answer the question, in the file's order.

        Those of checkpoint against checkpoint (a command counts as one) where there are any; else those that involve a
        checkpoint; else all.
        """
        learned = {arm.name for arm in self.arms if arm.is_learned}
        for least in (2, 1, 0):
            pairs = tuple(pair for pair in self.compared() if len(learned.intersection(pair)) >= least)
            if pairs:
                return pairs
        return ()

    def members(self) -> tuple[Arm, ...]:
        """Return every arm of one checkpoint that the run's stages work through, see :meth:`Arm.members`."""
        return tuple(member for arm in self.arms for member in arm.members())

    def cache_folder(self) -> Path:
        return default_cache() if self.cache is None else self.cache


def _arm_from_name(name: str) -> dict[str, Any]:
    if name == "partial":
        return {"name": name, "completion": "none"}
    if name == "oracle":
        return {"name": name, "completion": "truth"}
    return {"name": name, "checkpoint": name}


def _nearest(word: str, known: typing.Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` with the nearest known word, or the list of what is known."""
    options = list(known)
    match = difflib.get_close_matches(word, options, n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else f"; known: {', '.join(options)}"


def load_experiment(path: Path, overrides: dict[str, Any] | None = None) -> Experiment:
    """Read an experiment file.

    Args:
        path: the YAML file. Relative paths inside it count from its folder.
        overrides: values that replace keys of the file, dotted for nested ones (``dataset.root``), already
            absolute where they are paths.

    Raises:
        ConfigError: naming the file, the key and, for an unknown key, the nearest known one.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error}); give an experiment file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file; give an experiment file (YAML)") from None
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: an experiment file is a mapping; see configs/demo.yaml")
    for key, value in (overrides or {}).items():
        target = raw
        *parents, last = key.split(".")
        for parent in parents:
            if not isinstance(target.setdefault(parent, {}), dict):
                raise ConfigError(f"{path}: {parent}: expected a mapping")
            target = target[parent]
        target[last] = value
    try:
        experiment = Experiment.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{path}: " + "; ".join(_explain(item) for item in error.errors())) from None
    return _with_absolute_paths(experiment, path.resolve().parent)


def _explain(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        *parents, key = error["loc"]
        return f"unknown key {where!r}{_nearest(str(key), _known_keys(parents))}"
    if error["type"] == "missing":
        return f"missing key {where!r}"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


def _known_keys(parents: list[Any]) -> list[str]:
    """Return the keys of the model that sits at a path of an error's location."""
    model: type[BaseModel] = Experiment
    for part in parents:
        if not isinstance(part, str) or part not in model.model_fields:
            continue  # an index into a list, or a tag of a union
        found = _model_inside(model.model_fields[part].annotation)
        if found is not None:
            model = found
    return list(model.model_fields)


def _model_inside(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (tuple, list, typing.Union, types.UnionType):
        for argument in typing.get_args(annotation):
            found = _model_inside(argument)
            if found is not None:
                return found
    return None


def _with_absolute_paths(experiment: Experiment, folder: Path) -> Experiment:
    def absolute(path: Path) -> Path:
        return Path(os.path.normpath(folder / path.expanduser()))

    dataset = experiment.dataset.model_copy(update={"root": absolute(experiment.dataset.root)})

    def folder_of(checkpoint: str) -> str:
        # a bare name is a shipped one, ./name a folder
        return str(absolute(Path(checkpoint))) if "/" in checkpoint else checkpoint

    def placed(arm: Arm) -> Arm:
        if arm.checkpoints is not None:
            return arm.model_copy(update={"checkpoints": tuple(map(folder_of, arm.checkpoints))})
        if arm.checkpoint is not None:
            return arm.model_copy(update={"checkpoint": folder_of(arm.checkpoint)})
        if arm.command is not None:
            return arm.model_copy(update={"directory": absolute(arm.directory or Path())})
        return arm

    arms = tuple(placed(arm) for arm in experiment.arms)

    def found(generator: GeneratorSection) -> GeneratorSection:
        if generator.command is not None:
            return generator.model_copy(update={"directory": absolute(generator.directory or Path())})
        key = PATH_PARAMETERS.get(generator.name, "")
        path = generator.parameters.get(key)
        if not isinstance(path, str):
            return generator
        return generator.model_copy(update={"parameters": {**generator.parameters, key: str(absolute(Path(path)))}})

    generators = tuple(found(generator) for generator in experiment.generators)
    cache = absolute(experiment.cache) if experiment.cache is not None else None
    return experiment.model_copy(update={"dataset": dataset, "arms": arms, "generators": generators, "cache": cache})


def shipped_config(name: str) -> Path:
    """Return the path of a configuration that ships with us: ``configs/`` of a checkout, or the wheel's copy.

    Raises:
        ConfigError: if there is none of that name.
    """
    here = Path(__file__).resolve().parent
    for folder in (here.parent / "configs", here / "shipped_configs"):
        if (folder / name).is_file():
            return folder / name
    raise ConfigError(f"{name}: no such shipped configuration; the installation is incomplete, install it again")
