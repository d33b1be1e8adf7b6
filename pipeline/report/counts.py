"""What the report counts from the rows of grasps: success over friction and rank, and what became of the best ten."""

from __future__ import annotations

import numpy as np
import pandas as pd

from grasping.utility import FRICTIONS
from pipeline.report.style import SUCCESS_STEPS

_VIEW = ["replicate", "split", "scene", "view"]
RANKS = 10
_EPSILON = 1e-6


def success_curves(grasps: pd.DataFrame, views: pd.DataFrame, k: int) -> pd.Series:
    """Return the success of a view's best k grasps over friction: one value for each of ``FRICTIONS``.

    Best is by confidence after suppression, a missing rank fails, a view without grasps counts 0; the mean is over
    the views of a scene, then over scenes: as ``success@k`` of the utility tables, at more frictions.

    Args:
        grasps: rows of one arm in one setting (columns of ``tables/grasps.parquet``).
        views: its views, one row each (``tables/views.parquet``, object -1).
    """
    best = grasps[grasps["rank"] < k]
    rows = views[_VIEW].drop_duplicates().set_index(_VIEW)
    for friction in FRICTIONS:
        closing = best[best["min_friction"] <= friction + _EPSILON]
        rows[friction] = (closing.groupby(_VIEW, observed=True).size() / k).reindex(rows.index, fill_value=0.0)
    return rows.groupby(["split", "scene"], observed=True).mean().mean()


def success_over_k(grasps: pd.DataFrame, views: pd.DataFrame, friction: float, most: int) -> pd.Series:
    """Return the success at one friction of a view's best k grasps, for each k of 1..``most``.

    Counted as by :func:`success_curves`, which it equals at each k and friction.
    """
    rows = pd.MultiIndex.from_frame(views[_VIEW].drop_duplicates().astype({"split": object}))
    closing = grasps[(grasps["rank"] < most) & (grasps["min_friction"] <= friction + _EPSILON)]
    closing = closing[[*_VIEW, "rank"]].astype({"split": object})
    holds = closing.groupby([*_VIEW, "rank"]).size().unstack("rank", fill_value=0)
    holds = holds.reindex(index=rows, columns=range(most), fill_value=0)
    shares = holds.cumsum(axis=1).div(np.arange(1, most + 1), axis=1)
    mean = shares.groupby(["split", "scene"]).mean().mean()
    return pd.Series(mean.to_numpy(), index=range(1, most + 1))


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


def ranks_by_outcome(grasps: pd.DataFrame, views: pd.DataFrame) -> pd.Series:
    """Return how many of a view's best ten ranks have which outcome, on average over views; they sum to ten."""
    best = grasps[grasps["rank"] < RANKS]
    counts = outcome(best["reason"], best["min_friction"]).value_counts()
    shown = counts / max(len(views), 1)
    shown["missing"] = RANKS - shown.sum() if len(views) else 0.0
    return shown


def candidates_by_outcome(grasps: pd.DataFrame, views: pd.DataFrame) -> pd.Series:
    """Return how many suppressed candidates a view has of which outcome, on average over views."""
    return outcome(grasps["reason"], grasps["min_friction"]).value_counts() / max(len(views), 1)


def views_without_grasps(grasps: pd.DataFrame, views: pd.DataFrame) -> int:
    """Count the views in which nothing could be graded."""
    key = ["replicate", "scene", "view"]
    with_grasps = set(map(tuple, grasps[key].drop_duplicates().to_numpy().tolist()))
    return int(np.sum([tuple(row) not in with_grasps for row in views[key].to_numpy().tolist()]))
