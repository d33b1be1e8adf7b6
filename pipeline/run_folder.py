"""Where everything of a run lies, and the units that its stages work through."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.artifacts import Stamp, file_sizes, why_stale, write_json, write_stamp
from pipeline.engine import Outcome, run_units

if TYPE_CHECKING:  # it brings numba, which a worker of another stage does not need
    from pipeline.config import Experiment

STAMP = "stamp.json"
FAILURE = "failure.json"  # instead of a stamp, where a unit failed as a whole
SOURCES_VERSION = 1


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run. Folders of units end in ``scene_SSSS/<camera>``, as GraspNet-1Billion's do.

    Attributes:
        root: of the run.
        sources: for arms whose units lie elsewhere, the root and the folder's name there (see :func:`located`).
    """

    root: Path
    sources: Mapping[str, tuple[Path, str]] = field(default_factory=dict)

    @property
    def experiment_file(self) -> Path:
        """Every setting of the run, defaults included."""
        return self.root / "experiment.json"

    @property
    def observations(self) -> Path:
        roots = [root for root, _ in self.sources.values()]
        return (roots[0] if roots else self.root) / "observations"

    def _arm(self, arm: str) -> Path:
        root, name = self.sources.get(arm, (self.root, arm))
        return root / "arms" / name

    def clouds(self, arm: str) -> Path:
        return self._arm(arm) / "clouds"

    def dump(self, arm: str, generator: str) -> Path:
        """The arm's grasps, in the official dump layout."""
        return self._arm(arm) / "dump" / generator

    def scores(self, arm: str, generator: str, scorer: str) -> Path:
        return self._arm(arm) / "scores" / generator / scorer

    def explained(self, arm: str, generator: str) -> Path:
        """What became of the arm's grasps and why, and its utility with one part of it exchanged."""
        return self._arm(arm) / "explained" / generator

    @property
    def visibility(self) -> Path:
        """How much each view shows of each object."""
        return self.root / "visibility"

    @property
    def tables(self) -> Path:
        return self.root / "tables"

    @property
    def summary(self) -> Path:
        return self.root / "summary.json"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def problems(self) -> Path:
        return self.root / "problems.json"

    @property
    def declared(self) -> Path:
        return self.root / "declared.json"

    @property
    def sources_file(self) -> Path:
        """Of a comparison of runs: from which run each arm comes."""
        return self.root / "sources.json"

    @property
    def hashes(self) -> Path:
        return self.root / ".hashes.json"


def record_sources(folder: RunFolder, sources: Mapping[str, tuple[Path, str]]) -> None:
    """Write down where the units of each arm of a comparison lie: the run's root, and the folder's name there."""
    arms = {arm: {"run": str(root), "arm": name} for arm, (root, name) in sources.items()}
    write_json(folder.sources_file, {"format_version": SOURCES_VERSION, "arms": arms})


def located(folder: RunFolder, experiment: Experiment) -> RunFolder:
    """Return the folder as one looks into it for pictures: every arm of the experiment where its units lie.

    An arm of several checkpoints is shown by its first; an arm of a comparison of runs lies in its own run.
    """
    members = {arm.name: arm.members()[0].name for arm in experiment.arms}
    sources = {arm: (folder.root, member) for arm, member in members.items()}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(folder.sources_file.read_text(encoding="utf-8"))
        sources |= {str(arm): (Path(entry["run"]), str(entry["arm"])) for arm, entry in known["arms"].items()}
    return RunFolder(folder.root, sources)


def unit_folder(base: Path, scene: int, camera: str) -> Path:
    return base / f"scene_{scene:04d}" / camera


def view_file(folder: Path, view: int, suffix: str) -> Path:
    return folder / f"{view:04d}{suffix}"


@dataclass(frozen=True)
class Plan:
    """One unit: what it depends on, and the argument of the function that makes it.

    Attributes:
        label: for people.
        folder: the unit's own folder; its stamp lies in it.
        made_from: everything the unit depends on.
        job: handed to the stage's function, which returns the unit's problems.
        blocked: why the unit cannot be made, where an input of it failed.
    """

    label: str
    folder: Path
    made_from: dict[str, Any]
    job: Any
    blocked: str | None = None

    @property
    def stamp(self) -> Path:
        return self.folder / STAMP


@dataclass(frozen=True)
class StageReport:
    """What a stage did.

    Attributes:
        stage: its name.
        made: units made now.
        current: units that were finished and up to date.
        failures: units that failed, with the reason.
        stale: why each unit was made, by label.
    """

    stage: str
    made: int = 0
    current: int = 0
    failures: tuple[Outcome, ...] = ()
    stale: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, stage: str, parts: Sequence[StageReport]) -> StageReport:
        """Return what a stage did that carries out its units in several parts."""
        return cls(
            stage,
            made=sum(part.made for part in parts),
            current=sum(part.current for part in parts),
            failures=tuple(failure for part in parts for failure in part.failures),
            stale={label: reason for part in parts for label, reason in part.stale.items()},
        )


def carry_out(
    stage: str,
    function: Callable[[Any], list[dict[str, Any]]],
    plans: Sequence[Plan],
    *,
    workers: int,
) -> StageReport:
    """Make the units that are not finished or stale, and leave the others alone.

    Args:
        stage: its name, for the progress bar.
        function: makes one unit from its plan's job and returns its problems.
        plans: all units of the stage.
        workers: processes.
    """
    for plan in plans:
        if plan.blocked is not None:
            plan.stamp.unlink(missing_ok=True)  # what it was made from is gone: it must not pass for current
    blocked = [Outcome(plan.label, error=plan.blocked) for plan in plans if plan.blocked is not None]
    possible = [plan for plan in plans if plan.blocked is None]
    stale = {plan.label: reason for plan in possible if (reason := why_stale(plan.stamp, plan.made_from)) is not None}
    units = [(plan.label, plan) for plan in possible if plan.label in stale]
    outcomes = run_units(partial(_make, function), units, workers=workers, title=f"{stage:<9}")
    failures = (*blocked, *(outcome for outcome in outcomes if outcome.error is not None))
    folders = {plan.label: plan.folder for plan in plans}
    for failure in failures:
        record = {"stage": stage.split()[0], "reason": failure.error, "traceback": failure.trace}
        write_json(folders[failure.label] / FAILURE, record)
    return StageReport(
        stage,
        made=sum(outcome.error is None for outcome in outcomes),
        current=len(possible) - len(units),
        failures=failures,
        stale=stale,
    )


def _make(function: Callable[[Any], list[dict[str, Any]]], plan: Plan) -> None:
    # The stamp goes first and comes last: a folder without one is not finished, whatever lies in it.
    plan.stamp.unlink(missing_ok=True)
    shutil.rmtree(plan.folder, ignore_errors=True)
    plan.folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    problems = function(plan.job)
    write_stamp(plan.stamp, Stamp(plan.made_from, problems, time.perf_counter() - start, file_sizes(plan.folder)))
