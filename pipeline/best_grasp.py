"""The grasp a robot would try: is the most confident one of a view held, and does an arm hold it more often?

Table ``best_grasp.csv``, only where physics was asked; a row a comparison, generator and camera: of the views that both
arms have, in how many is the most confident kept grasp held by both, by arm a alone, by arm b alone, by neither;
share_a and share_b with Wilson's intervals; p_mcnemar, McNemar's exact test of the two that differ. Both treat views as
independent, and views of one scene are not: the difference clustered by scene, which stands beside as ``held@1`` of
``comparisons.csv``, decides; these are what other papers print.

Of several checkpoints the counts are means over their pairs, so that a view counts once however many there are; such
counts are no whole numbers, and McNemar's test has nothing to say of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from pipeline.config import Experiment
from pipeline.run_rows import WHOLE_VIEW, Rows
from pipeline.scorers import PHYSICS
from pipeline.statistics import mcnemar, wilson

BEST_GRASP_COLUMNS = [
    *("arm_a", "arm_b", "generator", "camera", "views", "scenes", "both", "only_a", "only_b", "neither"),
    *("share_a", "share_a_low", "share_a_high", "share_b", "share_b_low", "share_b_high", "p_mcnemar"),
]


def best_grasp(experiment: Experiment, rows: Rows) -> pd.DataFrame:
    """Count what physics holds of every view's most confident grasp; a view without grasps holds none."""
    views = rows.views[(rows.views["object"] == WHOLE_VIEW) & (rows.views["scorer"] == PHYSICS)]
    tried = rows.grasps[rows.grasps["scorer"] == PHYSICS]
    key = ["arm", "replicate", "generator", "camera", "scene", "view"]
    first = tried.sort_values("rank", kind="stable").drop_duplicates(key)[[*key, "held"]]
    table = views[key].merge(first, on=key, how="left")
    table["held"] = table["held"].astype("boolean").fillna(False).astype(bool)
    result = []
    for (generator, camera), part in table.groupby(["generator", "camera"], sort=True, observed=True):
        for a, b in experiment.compared():
            row = _row(part, a, b, experiment.statistics.level)
            if row is not None:
                result.append({"arm_a": a, "arm_b": b, "generator": generator, "camera": camera, **row})
    return pd.DataFrame(result, columns=BEST_GRASP_COLUMNS)


def _row(part: pd.DataFrame, a: str, b: str, level: float) -> dict[str, Any] | None:
    one, other = part[part["arm"] == a], part[part["arm"] == b]
    # Checkpoints pair by place where both arms have equally many, else each with each.
    on = ["scene", "view"]
    if one["replicate"].nunique() == other["replicate"].nunique():
        on = [*on, "replicate"]
    both = one.merge(other, on=on, suffixes=("_a", "_b"))
    if both.empty:
        return None
    held_a, held_b = both["held_a"].to_numpy(), both["held_b"].to_numpy()
    views = len(both[["scene", "view"]].drop_duplicates())
    pairs = len(both) / views
    counts = {
        "both": (held_a & held_b).sum() / pairs,
        "only_a": (held_a & ~held_b).sum() / pairs,
        "only_b": (~held_a & held_b).sum() / pairs,
        "neither": (~held_a & ~held_b).sum() / pairs,
    }
    row: dict[str, Any] = {"views": views, "scenes": both["scene"].nunique(), **counts}
    for side, held in (("a", held_a), ("b", held_b)):
        share = float(held.mean())
        low, high = wilson(share * views, views, level)
        row |= {f"share_{side}": share, f"share_{side}_low": low, f"share_{side}_high": high}
    return row | {"p_mcnemar": mcnemar(int(counts["only_a"]), int(counts["only_b"])) if pairs == 1 else np.nan}
