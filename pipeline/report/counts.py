"""What the report counts of grasps: success over friction and rank, and what became of the best ten."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from grasping.utility import FRICTIONS, TOP_K
from pipeline.report.style import SUCCESS_STEPS
from pipeline.scene_values import groups
from pipeline.table_files import TEXT_COLUMNS

RANKS = 10
MOST_RANKS = TOP_K
_SCENE = ["split", "scene"]
_ARM = ["generator", "scorer", "camera", "arm"]
_COLUMNS = [*_ARM, *_SCENE, "rank", "min_friction", "reason"]
_EPSILON = 1e-6
_BATCH = 2**16


@dataclass
class GraspCounts:
    """The grasps of one arm in one setting, counted.

    Attributes:
        ranked: by split and scene ``(50, 6)``, of all views and checkpoints: how many grasps of each rank have each of
            the protocol's frictions as the least at which they hold; those that fail are in none.
        best, every: how many of a view's best ten ranks, and of all candidates, have which outcome.
        first: how many grasps are their view's first: views that have any.
    """

    ranked: dict[tuple[str, int], NDArray[np.int64]] = field(default_factory=dict)
    best: dict[str, int] = field(default_factory=dict)
    every: dict[str, int] = field(default_factory=dict)
    first: int = 0

    def add(self, rows: pd.DataFrame) -> None:
        """Count some rows, with split, scene, rank, min_friction and reason."""
        rank = rows["rank"].to_numpy(np.int64)
        least = np.searchsorted(np.array(FRICTIONS) + _EPSILON, rows["min_friction"].to_numpy(np.float64))
        chosen = (rank < MOST_RANKS) & (least < len(FRICTIONS))
        cell = rank * len(FRICTIONS) + least
        for (split, scene), own in groups(rows, _SCENE):
            found = np.bincount(cell[own][chosen[own]], minlength=MOST_RANKS * len(FRICTIONS))
            table = self.ranked.setdefault((split, scene), np.zeros((MOST_RANKS, len(FRICTIONS)), dtype=np.int64))
            table += found.reshape(table.shape)
        kinds = outcome(rows["reason"], rows["min_friction"])
        for counts, part in ((self.best, kinds[rank < RANKS]), (self.every, kinds)):
            for kind, n in part.value_counts().items():
                counts[str(kind)] = counts.get(str(kind), 0) + int(n)
        self.first += int(np.count_nonzero(rank == 0))


def read(path: Path) -> dict[tuple[str, ...], GraspCounts]:
    """Count the rows of ``tables/grasps.parquet``, some at a time: a large run has tens of millions.

    Returns:
        By generator, scorer, camera and arm.
    """
    found: dict[tuple[str, ...], GraspCounts] = {}
    texts = [name for name in _COLUMNS if name in TEXT_COLUMNS]
    for batch in pq.ParquetFile(path, read_dictionary=texts).iter_batches(batch_size=_BATCH, columns=_COLUMNS):
        rows = batch.to_pandas()
        for key, own in groups(rows, _ARM):
            found.setdefault(key, GraspCounts()).add(rows.iloc[own])
    return found


def success_curves(grasps: GraspCounts, views: pd.DataFrame, k: int) -> pd.Series:
    """Return the success of a view's best k grasps over friction: one value for each of ``FRICTIONS``.

    Best is by confidence after suppression, a missing rank fails, a view without grasps counts 0; the mean is over
    the views of a scene, then over scenes: as ``success@k`` of the utility tables, at more frictions.

    Args:
        grasps: of one arm in one setting.
        views: its views, one row each (``tables/views.parquet``, object -1).
    """
    holds = _holds(grasps, views)[:, :k].sum(axis=1) / k
    return pd.Series(holds.mean(axis=0), index=list(FRICTIONS))


def success_over_k(grasps: GraspCounts, views: pd.DataFrame, friction: float, most: int) -> pd.Series:
    """Return the success at one friction of a view's best k grasps, for each k of 1..``most``.

    Counted as by :func:`success_curves`, which it equals at each k and friction; ``most`` is at most
    :data:`MOST_RANKS`.
    """
    holds = _holds(grasps, views)[:, :most, FRICTIONS.index(friction)]
    shares = holds.cumsum(axis=1) / np.arange(1, most + 1)
    return pd.Series(shares.mean(axis=0), index=range(1, most + 1))


def _holds(grasps: GraspCounts, views: pd.DataFrame) -> NDArray[np.float64]:
    """Return ``(S, 50, 6)``: in what share of a scene's views the grasp of a rank holds at a friction."""
    rows = views[["replicate", *_SCENE, "view"]].drop_duplicates().astype({"split": object})
    of_scene = rows.groupby(_SCENE).size()
    nothing = np.zeros((MOST_RANKS, len(FRICTIONS)))
    ranked = np.array([grasps.ranked.get((str(split), int(scene)), nothing) for split, scene in of_scene.index])
    return ranked.reshape(-1, *nothing.shape).cumsum(axis=2) / of_scene.to_numpy()[:, None, None]


def outcome(reasons: pd.Series, min_friction: pd.Series) -> pd.Series:
    """Return the report's outcome of each grasp: its reason, and success split by friction."""
    reasons = reasons.astype(object)
    result = reasons.where(reasons.isin(["collides", "empty", "no_contact", "no_closure"]), "other")
    # Protocols may tell apart with what a grasp collides; here that is one colour.
    result = result.mask(reasons.str.startswith("collides"), "collides")
    least = min_friction.to_numpy()
    for step in reversed(SUCCESS_STEPS):
        result = result.mask(least <= step + _EPSILON, f"success_{step}")
    return result


def ranks_by_outcome(grasps: GraspCounts, views: pd.DataFrame) -> pd.Series:
    """Return how many of a view's best ten ranks have which outcome, on average over views; they sum to ten."""
    shown = _shares(grasps.best, views)
    shown["missing"] = RANKS - shown.sum() if len(views) else 0.0
    return shown


def candidates_by_outcome(grasps: GraspCounts, views: pd.DataFrame) -> pd.Series:
    """Return how many suppressed candidates a view has of which outcome, on average over views."""
    return _shares(grasps.every, views)


def _shares(counts: Mapping[str, int], views: pd.DataFrame) -> pd.Series:
    return pd.Series(dict(counts), dtype=float).sort_values(ascending=False) / max(len(views), 1)


def views_without_grasps(grasps: GraspCounts, views: pd.DataFrame) -> int:
    """Count the views in which nothing could be graded."""
    return len(views) - grasps.first
