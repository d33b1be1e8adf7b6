"""What the report counts of grasps: success over friction and rank, and what became of the best ten."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from grasping.utility import FRICTIONS, TOP_K
from pipeline.report.style import SUCCESS_STEPS
from pipeline.table_files import TEXT_COLUMNS

COLUMNS = ["arm", "generator", "scorer", "camera", "split", "scene", "rank", "min_friction", "reason"]
RANKS = 10
MOST_RANKS = TOP_K
_SCENE = ["split", "scene"]
_BATCH = 2**16
_PARTS = 32  # counted on their own before they are counted together
_EPSILON = 1e-6


def read(path: Path) -> pd.DataFrame:
    """Count the rows of ``tables/grasps.parquet`` that are alike in all that the report asks, some rows at a time.

    A large run has tens of millions of rows; what is counted grows with scenes and arms alone.

    Returns:
        :data:`COLUMNS` and ``n``; texts are categories, and ranks that no figure shows are :data:`MOST_RANKS`.
    """
    names = [name for name in COLUMNS if name in TEXT_COLUMNS]
    parts: list[pd.DataFrame] = []
    for batch in pq.ParquetFile(path, read_dictionary=names).iter_batches(batch_size=_BATCH, columns=COLUMNS):
        parts.append(_counted(batch.to_pandas().assign(n=1)))
        if len(parts) == _PARTS:
            parts = [_counted(pd.concat([part.astype(dict.fromkeys(names, object)) for part in parts]))]
    if not parts:
        return pd.DataFrame(columns=[*COLUMNS, "n"])
    whole = _counted(pd.concat([part.astype(dict.fromkeys(names, object)) for part in parts]))
    return whole.astype(dict.fromkeys(names, "category"))


def _counted(rows: pd.DataFrame) -> pd.DataFrame:
    rows = rows.assign(rank=rows["rank"].clip(upper=MOST_RANKS))
    return rows.groupby(COLUMNS, as_index=False, observed=True, dropna=False)[["n"]].sum()


def success_curves(grasps: pd.DataFrame, views: pd.DataFrame, k: int) -> pd.Series:
    """Return the success of a view's best k grasps over friction: one value for each of ``FRICTIONS``.

    Best is by confidence after suppression, a missing rank fails, a view without grasps counts 0; the mean is over
    the views of a scene, then over scenes: as ``success@k`` of the utility tables, at more frictions.

    Args:
        grasps: counted rows of one arm in one setting (:func:`read`).
        views: its views, one row each (``tables/views.parquet``, object -1).
    """
    of_scene = _views(views)
    best = grasps[grasps["rank"] < k]
    shares = {}
    for friction in FRICTIONS:
        closing = best[best["min_friction"] <= friction + _EPSILON]
        shares[friction] = (_summed(closing, _SCENE) / k).reindex(of_scene.index, fill_value=0.0) / of_scene
    return pd.DataFrame(shares).mean()


def success_over_k(grasps: pd.DataFrame, views: pd.DataFrame, friction: float, most: int) -> pd.Series:
    """Return the success at one friction of a view's best k grasps, for each k of 1..``most``.

    Counted as by :func:`success_curves`, which it equals at each k and friction; ``most`` is at most
    :data:`MOST_RANKS`.
    """
    of_scene = _views(views)
    closing = grasps[(grasps["rank"] < most) & (grasps["min_friction"] <= friction + _EPSILON)]
    holds = _summed(closing, [*_SCENE, "rank"]).unstack("rank", fill_value=0)
    holds = holds.reindex(index=of_scene.index, columns=range(most), fill_value=0)
    shares = holds.cumsum(axis=1).div(np.arange(1, most + 1), axis=1).div(of_scene, axis=0)
    return pd.Series(shares.mean().to_numpy(), index=range(1, most + 1))


def _views(views: pd.DataFrame) -> pd.Series:
    """Return how many views of any checkpoint each scene has."""
    rows = views[["replicate", *_SCENE, "view"]].drop_duplicates().astype({"split": object})
    return rows.groupby(_SCENE).size()


def _summed(grasps: pd.DataFrame, by: list[str]) -> pd.Series:
    return grasps.astype({"split": object}).groupby(by)["n"].sum()


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
    shown = _by_outcome(grasps[grasps["rank"] < RANKS]) / max(len(views), 1)
    shown["missing"] = RANKS - shown.sum() if len(views) else 0.0
    return shown


def candidates_by_outcome(grasps: pd.DataFrame, views: pd.DataFrame) -> pd.Series:
    """Return how many suppressed candidates a view has of which outcome, on average over views."""
    return _by_outcome(grasps) / max(len(views), 1)


def _by_outcome(grasps: pd.DataFrame) -> pd.Series:
    return grasps["n"].groupby(outcome(grasps["reason"], grasps["min_friction"])).sum().sort_values(ascending=False)


def views_without_grasps(grasps: pd.DataFrame, views: pd.DataFrame) -> int:
    """Count the views in which nothing could be graded: no grasp is their first."""
    return len(views) - int(grasps.loc[grasps["rank"] == 0, "n"].sum())
