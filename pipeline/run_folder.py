"""Where everything of a run lies."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.artifacts import write_json

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

    @property
    def proposals(self) -> Path:
        """What generators find on observed clouds, for all arms, before obstacles count; a folder each."""
        return self.root / "proposals"

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

    def progress_of(self, share: str | None) -> Path:
        """How far the run is, or one share of it, written while it works: :mod:`pipeline.run_progress`."""
        return self.root / ("progress.json" if share is None else f"progress.{share.replace('/', '-of-')}.json")

    @property
    def hashes(self) -> Path:
        return self.root / ".hashes.json"

    @property
    def work(self) -> Path:
        """Units in the making; what lies here when no run works is left over."""
        return self.root / ".work"


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


@lru_cache(maxsize=2**15)  # plans name one another's folders, and each name anew would take as much as a plan
def unit_folder(base: Path, scene: int, camera: str) -> Path:
    return base / f"scene_{scene:04d}/{camera}"


def view_file(folder: Path, view: int, suffix: str) -> Path:
    return folder / f"{view:04d}{suffix}"
