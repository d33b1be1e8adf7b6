"""Everything that the report reads, read once."""

from __future__ import annotations

import json
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from pipeline import summary
from pipeline.agreement import Agreement
from pipeline.artifacts import ArtifactError, read_stamp
from pipeline.config import Experiment
from pipeline.config_sections import Split
from pipeline.report import counts
from pipeline.report.counts import GraspCounts
from pipeline.run_folder import STAMP, RunFolder, located
from pipeline.scorers import PHYSICS
from pipeline.table_files import TEXT_COLUMNS, WHOLE, WHOLE_VIEW, read_table

_KEYS = ["arm", "replicate", "generator", "scorer", "camera", "split", "scene", "view"]
_GRASP_COLUMNS = [*_KEYS, "row", "rank", "width", "kept", "min_friction", "reason"]


@dataclass(frozen=True)
class Setting:
    """One way of generating and scoring: utilities of two settings are never mixed."""

    generator: str
    scorer: str
    camera: str

    @property
    def title(self) -> str:
        return f"{self.camera} · generator {self.generator} · scorer {self.scorer}"

    def of(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of this setting."""
        chosen = (
            (table["generator"] == self.generator) & (table["scorer"] == self.scorer) & (table["camera"] == self.camera)
        )
        return table[chosen]

    def completion_of(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of this setting's camera that belong to no generator: the completion metrics."""
        return table[(table["generator"] == "") & (table["camera"] == self.camera)]


@dataclass(frozen=True)
class RunData:
    """A run as the report needs it; the tables are those of :mod:`pipeline.aggregate`.

    Of the long ones ``counts`` counts the grasps (:func:`pipeline.report.counts.read`), and ``views`` holds the primary
    metric of whole views alone.
    """

    experiment: Experiment
    folder: RunFolder
    summary: dict[str, Any]
    utility: pd.DataFrame
    completion: pd.DataFrame
    comparisons: pd.DataFrame
    recovered: pd.DataFrame
    attribution: pd.DataFrame
    crossed: pd.DataFrame
    mediation: pd.DataFrame
    mediation_points: pd.DataFrame
    counts: dict[tuple[str, ...], GraspCounts]
    views: pd.DataFrame
    problems: list[dict[str, Any]] | None
    timings: pd.DataFrame
    object_names: dict[str, str]
    merges: dict[str, str]
    physics: Agreement | None = None
    best_grasp: pd.DataFrame | None = None

    @property
    def arms(self) -> list[str]:
        """Arms that have results, in the experiment's order."""
        present = set(self.utility["arm"])
        return [arm.name for arm in self.experiment.arms if arm.name in present]

    @property
    def settings(self) -> list[Setting]:
        """The settings that the protocol graded; what physics says stands in a section of its own."""
        graded = self.utility[self.utility["scorer"] != PHYSICS]
        keys = graded[["generator", "scorer", "camera"]].drop_duplicates()
        return [Setting(*row) for row in keys.itertuples(index=False, name=None)]

    def counted(self, setting: Setting) -> dict[str, GraspCounts]:
        """Return the counts of every arm's grasps in a setting."""
        key = (setting.generator, setting.scorer, setting.camera)
        return {arm: self.counts.get((*key, arm), GraspCounts()) for arm in self.arms}

    def grasps_of(self, setting: Setting, places: Sequence[tuple[int, int]]) -> pd.DataFrame:
        """Return the rows of ``tables/grasps.parquet`` of some scenes and views; of an arm's checkpoints the first's.

        Args:
            places: scene and view.
        """
        chosen = [[("scene", "==", scene), ("view", "==", view), ("replicate", "==", 0)] for scene, view in places]
        path = self.folder.tables / "grasps.parquet"
        if not chosen:
            return setting.of(_parquet(path, _GRASP_COLUMNS, [[("scene", "==", -1)]]))
        return setting.of(_parquet(path, _GRASP_COLUMNS, chosen))

    @property
    def splits(self) -> list[str]:
        """Splits with results, in the dataset's order."""
        known = list(typing.get_args(Split))
        present = sorted(set(self.utility["split"]) - {WHOLE})
        return sorted(present, key=lambda split: known.index(split) if split in known else len(known))

    @property
    def compared(self) -> list[tuple[str, str]]:
        """Pairs with results, in the experiment's order."""
        present = set(zip(self.comparisons["arm_a"], self.comparisons["arm_b"], strict=True))
        return [pair for pair in self.experiment.compared() if pair in present]

    @property
    def interval_over(self) -> str:
        """What the intervals are over, for people."""
        several = any(len(arm.members()) > 1 for arm in self.experiment.arms)
        return "scenes, and over training seeds where an arm has several" if several else "scenes"

    def completion_kind(self, arm: str) -> str:
        return next(item.completion for item in self.experiment.arms if item.name == arm)


def read(experiment: Experiment, folder: RunFolder) -> RunData:
    """Read a run's tables.

    Raises:
        ArtifactError: if the run is not aggregated, or by another version.
    """
    content = summary.read_finished(folder)
    try:
        problems = json.loads(folder.problems.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        problems = None
    folder = located(folder, experiment)
    return RunData(
        experiment=experiment,
        folder=folder,
        summary=content,
        utility=_csv(folder.tables / "utility.csv"),
        completion=_csv(folder.tables / "completion.csv"),
        comparisons=_csv(folder.tables / "comparisons.csv"),
        recovered=_csv(folder.tables / "recovered.csv"),
        attribution=_csv(folder.tables / "attribution.csv"),
        crossed=_csv(folder.tables / "crossed.csv"),
        mediation=_csv(folder.tables / "mediation.csv"),
        mediation_points=_csv(folder.tables / "mediation_points.csv"),
        counts=_counted(folder.tables / "grasps.parquet"),
        views=_parquet(
            folder.tables / "views.parquet",
            [*_KEYS, "object", experiment.primary_metric],
            [[("object", "==", WHOLE_VIEW)]],
        ),
        problems=problems,
        timings=_timings(experiment, folder, content["provenance"].get("aggregate_seconds")),
        object_names=_object_names(experiment.dataset.root),
        merges={arm.name: merge for arm in experiment.arms if (merge := _merge(folder.clouds(arm.name)))},
        physics=_physics(folder) if PHYSICS in experiment.scorers else None,
        best_grasp=_csv(folder.tables / "best_grasp.csv") if PHYSICS in experiment.scorers else None,
    )


def _physics(folder: RunFolder) -> Agreement:
    return Agreement(*(_csv(folder.tables / f"{name}.csv") for name in ("agreement", "roc", "physics_outcomes")))


def _csv(path: Path) -> pd.DataFrame:
    return read_table(path.parent, path.stem)


Filters = list[list[tuple[str, str, int]]]
"""Rows that hold all conditions of any list."""


def _parquet(path: Path, columns: list[str], filters: Filters) -> pd.DataFrame:
    """Read some rows of a table, with its texts as categories: a large run has tens of millions of grasps."""
    _require(path)
    try:
        return pq.read_table(path, columns=columns, filters=filters, read_dictionary=list(TEXT_COLUMNS)).to_pandas()
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: broken ({error}); run `aggregate` again") from None


def _counted(path: Path) -> dict[tuple[str, ...], GraspCounts]:
    _require(path)
    try:
        return counts.read(path)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: broken ({error}); run `aggregate` again") from None


def _require(path: Path) -> None:
    if not path.exists():
        raise ArtifactError(f"{path}: no such table; run `aggregate` first")


def _timings(experiment: Experiment, folder: RunFolder, aggregate: float | None) -> pd.DataFrame:
    """Return ``stage, arm, units, seconds`` of the finished units; ``arm`` is empty where all arms share the work."""
    arms = {member.name: arm.name for arm in experiment.arms for member in arm.members()}
    rows = []
    for path in folder.root.glob(f"**/{STAMP}"):
        stamp = read_stamp(path)
        if stamp is None:
            continue  # an unfinished unit; its problem is on record
        parts = path.relative_to(folder.root).parts
        arm = parts[1] if parts[0] == "arms" else ""
        if arm and arm not in arms:
            continue  # of an experiment that this folder held before
        stage = str(stamp.made_from.get("stage"))
        if stage == "score" and len(experiment.scorers) > 1:
            stage = f"score, {stamp.made_from.get('scorer', parts[4])}"
        rows.append((stage, arms.get(arm, ""), 1, stamp.seconds))
    if rows and aggregate is not None:
        rows.append(("aggregate", "", 1, aggregate))
    table = pd.DataFrame(rows, columns=["stage", "arm", "units", "seconds"])
    return table.groupby(["stage", "arm"], sort=False, as_index=False).sum()


def _merge(clouds: Path) -> str | None:
    """Return how an arm's network merged its points with the observation, as its clouds have it on record."""
    for path in clouds.glob(f"**/{STAMP}"):
        stamp = read_stamp(path)
        if stamp is not None:
            return stamp.made_from.get("merge")
    return None


def _object_names(root: Path) -> dict[str, str]:
    """Return names of objects by number, where the dataset's manifest tells them."""
    try:
        objects = json.loads((root / "manifest.json").read_text(encoding="utf-8"))["objects"]
        return {str(int(number)): str(entry["name"]).replace("_", " ") for number, entry in objects.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
