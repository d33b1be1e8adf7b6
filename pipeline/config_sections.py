"""The sections of an experiment file, with their defaults; :mod:`pipeline.config` puts them together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from pipeline.arms import Command, FrozenModel, Input, VersionText

Camera = Literal["realsense", "kinect"]
Split = Literal["train", "test_seen", "test_similar", "test_novel"]
FamilySplit = Literal["all", "train", "test_seen", "test_similar", "test_novel"]


class DatasetSection(FrozenModel):
    """Which observations: a root in GraspNet-1Billion's layout, and the part of it that is used.

    Attributes:
        root: folder with ``scenes/`` and ``models/``; relative paths count from the experiment file.
        cameras: which of the two cameras.
        splits: whole splits; or, instead,
        scenes: scene numbers. Neither: every scene that the root holds.
        views: view numbers 0..255, or ``all``. Left out: the views that the dataset's manifest lists as
            rendered, or all 256 of a scene where there is no manifest.
    """

    root: Path
    cameras: tuple[Camera, ...] = ("realsense",)
    splits: tuple[Split, ...] | None = None
    scenes: tuple[int, ...] | None = None
    views: tuple[int, ...] | Literal["all"] = "all"

    @model_validator(mode="after")
    def _one_selection(self) -> DatasetSection:
        if self.splits is not None and self.scenes is not None:
            raise ValueError("give either `splits` or `scenes`, not both")
        for name in ("cameras", "splits", "scenes", "views"):
            given = getattr(self, name)
            if given is None or given == "all":
                continue
            if not given:
                raise ValueError(f"`{name}` is empty; leave it out for the default")
            if len(set(given)) < len(given):
                raise ValueError(f"`{name}` names one twice; each counts once")
        return self


COMMAND = "command"
"""The name of every generator that is one."""
_OF_COMMANDS = ("directory", "timeout", "version", "deterministic")
PATH_PARAMETERS = {"dump": "folder", "graspnet_baseline": "weights"}
"""Parameters of generators that are paths."""


class GeneratorSection(FrozenModel):
    """A grasp generator.

    Attributes:
        name: of :data:`grasping.generators.GENERATORS` or of a plug-in.
        parameters: handed on to it as they are; relative paths under ``folder`` and ``weights`` count from the
            experiment file, and ``{arm}`` in ``folder`` becomes the arm's name.
        label: by which tables and folders call it; left out: the name. For one generator in several settings.
        input: how completion enters its input (:mod:`pipeline.generator_input`); left out: what suits
            the generator, ``replace`` unless it says otherwise.
        command: instead of a name, a program in another environment (:mod:`pipeline.command_generator`), as one text or
            a list; it goes with a ``label``, and with
        directory: where it runs; relative paths count from the experiment file, whose folder it is by default.
        timeout: seconds that it may take for one unit (a scene, camera and arm); left out: 3600.
        version: of the method behind it. What it made is stale when the command line, a file that it names or this
            changes; other files of the method are not looked at.
        deterministic: whether the same input and seed give the same grasps; left out: nobody says so.
        rerank: whether each confidence is multiplied by what the arm's cloud says of the grasp
            (:func:`grasping.cloud_contacts.opposition`).
    """

    name: str = "antipodal"
    parameters: dict[str, Any] = Field(default_factory=dict)
    label: str = ""
    input: Input | None = None
    rerank: bool = False
    command: Command | None = None
    directory: Path | None = None
    timeout: Annotated[float, Field(gt=0)] | None = None
    version: VersionText | None = None
    deterministic: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _shorthands(cls, content: Any) -> Any:
        """``{dump: FOLDER}`` for ``{name: dump, parameters: {folder: FOLDER}}``; the label that is left out."""
        if not isinstance(content, dict):
            return content
        if "dump" in content:
            if "name" in content or "parameters" in content:
                raise ValueError("`dump: FOLDER` says all; give no `name` or `parameters` beside it")
            content = {**content, "name": "dump", "parameters": {"folder": content["dump"]}}
            del content["dump"]
        if content.get("command") is not None:
            if content.get("parameters") or content.get("name", COMMAND) != COMMAND:
                raise ValueError("`command` stands in the place of `name` and `parameters`; its arguments are in it")
            content = {**content, "name": COMMAND}
        return {**content, "label": content.get("label") or content.get("name", "antipodal")}

    @field_validator("label")
    @classmethod
    def _plain_label(cls, label: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", label):
            raise ValueError(f"{label!r} names a folder: use letters, digits, '.', '_' and '-'; give a `label`")
        return label

    @model_validator(mode="after")
    def _applies(self) -> GeneratorSection:
        if self.name == "dump" and (self.input is not None or self.rerank):
            raise ValueError("a dump is taken as it is: `input` and `rerank` do not apply")
        if self.command is None:
            if self.name == COMMAND:
                raise ValueError("a generator called `command` needs `command:`, a program with its arguments")
            for key in _OF_COMMANDS:
                if getattr(self, key) is not None:
                    raise ValueError(f"`{key}` goes with `command:`")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_used(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Generators without these are what they were before there were any: their runs stay current.
        content: dict[str, Any] = handler(self)
        if content["label"] == content["name"]:
            del content["label"]
        if not content["rerank"]:
            del content["rerank"]
        return {key: value for key, value in content.items() if value is not None}

    def what_counts(self) -> dict[str, Any]:
        """Return what grasps depend on: not where a command runs, nor how long it may; nor where files lie, for their
        content stands in the generator's identity.
        """
        left_out = {"directory", "timeout", "deterministic"}
        content = {key: value for key, value in self.model_dump(mode="json").items() if key not in left_out}
        path = PATH_PARAMETERS.get(self.name)
        parameters = {key: value for key, value in content["parameters"].items() if key != path}
        return {**content, "parameters": parameters}

    def parameters_for(self, arm: str) -> dict[str, Any]:
        """Return the parameters of one arm's generator."""
        folder = self.parameters.get("folder")
        if self.name != "dump" or not isinstance(folder, str):
            return self.parameters
        return {**self.parameters, "folder": folder.replace("{arm}", arm)}


class FamilySection(FrozenModel):
    """The tests that are declared before the run; their p-values are adjusted for one another (Holm).

    Attributes:
        metrics: of utility or completion; left out: the primary metric alone.
        splits: ``all`` (every split together) or names of splits.
        comparisons: pairs of arms; left out: those that the question is about, see :meth:`Experiment.questioned`.
    """

    metrics: tuple[str, ...] | None = None
    splits: tuple[FamilySplit, ...] = ("all",)
    comparisons: tuple[tuple[str, str], ...] | None = None

    @model_validator(mode="after")
    def _once_each(self) -> FamilySection:
        for name in ("metrics", "splits", "comparisons"):
            given = getattr(self, name)
            if given is not None and not given:
                raise ValueError(f"`{name}` is empty; leave it out for the default")
            if given is not None and len(set(given)) < len(given):
                raise ValueError(f"`{name}` names one twice; each counts once")
        return self


class StatisticsSection(FrozenModel):
    """How arms are compared.

    Attributes:
        level: of the intervals.
        draws: of scenes, for bootstrap and permutation.
        interval: ``auto`` takes what covers best at the number of scenes (:mod:`pipeline.statistics.intervals`).
        power: of which the minimum detectable effect is told.
        family: see :class:`FamilySection`.
    """

    level: float = Field(0.95, gt=0.5, lt=1.0)
    draws: int = Field(10_000, ge=100)
    interval: Literal["auto", "t", "studentised", "percentile"] = "auto"
    power: float = Field(0.8, gt=0.5, lt=1.0)
    family: FamilySection = FamilySection()


class PhysicsSection(FrozenModel):
    """How the scorer ``physics`` tries the grasps that the protocol keeps; every other constant of a trial is
    :class:`grasping.physics.TrialSettings`'s own.

    Attributes:
        mode: ``scene`` (table and neighbours, at rest before the gripper comes) or ``isolation`` (the object alone).
        friction: sliding friction between fingers and object.
        density: of the objects, kg/m³.
        closing_force: with which each finger presses, N.
        repeats: trials a grasp, the first as given and the others slightly perturbed.
    """

    mode: Literal["scene", "isolation"] = "scene"
    friction: float = Field(0.6, ge=0.0, le=5.0)
    density: float = Field(500.0, gt=0.0, le=25_000.0)
    closing_force: float = Field(40.0, gt=0.0, le=1000.0)
    repeats: int = Field(1, ge=1, le=1000)
