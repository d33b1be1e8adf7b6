"""The sections of an experiment file, with their defaults; :mod:`pipeline.config` puts them together."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from pipeline.arms import FrozenModel

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


class GeneratorSection(FrozenModel):
    """A grasp generator by name, with its parameters handed on as they are."""

    name: str = "antipodal"
    parameters: dict[str, Any] = Field(default_factory=dict)

    @property
    def label(self) -> str:
        return self.name


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
