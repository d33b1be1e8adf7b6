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
from pipeline.row_tables import Rows
from pipeline.scene_values import groups
from pipeline.scorers import PHYSICS
from pipeline.statistics import mcnemar, wilson
from pipeline.table_files import WHOLE_VIEW

BEST_GRASP_COLUMNS = [
    *("arm_a", "arm_b", "generator", "camera", "views", "scenes", "both", "only_a", "only_b", "neither"),
    *("share_a", "share_a_low", "share_a_high", "share_b", "share_b_low", "share_b_high", "p_mcnemar"),
]


_CELLS = ("both", "only_a", "only_b", "neither")
_COUNTED = (*_CELLS, "views", "scenes")


class BestGrasp:
    """The table, from batches of rows."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._found: dict[tuple[str, str], dict[tuple[str, str], _Pair]] = {}

    def add(self, rows: Rows) -> None:
        """Count what physics holds of every view's most confident grasp; a view without grasps holds none."""
        views = rows.views[(rows.views["object"] == WHOLE_VIEW) & (rows.views["scorer"] == PHYSICS)]
        tried = rows.grasps[rows.grasps["scorer"] == PHYSICS]
        key = ["arm", "replicate", "generator", "camera", "scene", "view"]
        first = tried.sort_values("rank", kind="stable").drop_duplicates(key)[[*key, "held"]]
        texts = dict.fromkeys(("arm", "generator", "camera"), object)
        table = views[key].astype(texts).merge(first.astype(texts), on=key, how="left")
        table["held"] = table["held"].astype("boolean").fillna(False).astype(bool)
        for (generator, camera), own in groups(table, ["generator", "camera"]):
            part = table.iloc[own]
            pairs = self._found.setdefault((generator, camera), {pair: _Pair() for pair in self._experiment.compared()})
            for (a, b), counts in pairs.items():
                counts.add(part[part["arm"] == a], part[part["arm"] == b])

    def table(self) -> pd.DataFrame:
        """Return what is said of all rows."""
        result = []
        for generator, camera in sorted(self._found):
            for (a, b), counts in self._found[generator, camera].items():
                row = counts.row(self._experiment.statistics.level)
                if row is not None:
                    result.append({"arm_a": a, "arm_b": b, "generator": generator, "camera": camera, **row})
        return pd.DataFrame(result, columns=BEST_GRASP_COLUMNS)


class _Pair:
    """What is counted of two arms."""

    def __init__(self) -> None:
        self._checkpoints: tuple[set[int], set[int]] = set(), set()
        # By whether checkpoints pair by place: which it is to be is known when all scenes are.
        self._counts = {by_place: dict.fromkeys(_COUNTED, 0) for by_place in (True, False)}

    def add(self, one: pd.DataFrame, other: pd.DataFrame) -> None:
        for places, side in zip(self._checkpoints, (one, other), strict=True):
            places.update(side["replicate"].tolist())
        for by_place, counts in self._counts.items():
            on = ["scene", "view", *(["replicate"] if by_place else [])]
            both = one.merge(other, on=on, suffixes=("_a", "_b"))
            held_a, held_b = both["held_a"].to_numpy(dtype=bool), both["held_b"].to_numpy(dtype=bool)
            counts["both"] += int((held_a & held_b).sum())
            counts["only_a"] += int((held_a & ~held_b).sum())
            counts["only_b"] += int((~held_a & held_b).sum())
            counts["neither"] += int((~held_a & ~held_b).sum())
            counts["views"] += len(both[["scene", "view"]].drop_duplicates())
            counts["scenes"] += both["scene"].nunique()

    def row(self, level: float) -> dict[str, Any] | None:
        # Checkpoints pair by place where both arms have equally many, else each with each.
        found = self._counts[len(self._checkpoints[0]) == len(self._checkpoints[1])]
        views, total = found["views"], sum(found[name] for name in _CELLS)
        if not views:
            return None
        pairs = total / views
        counts = {name: found[name] / pairs for name in _CELLS}
        row: dict[str, Any] = {"views": views, "scenes": found["scenes"], **counts}
        for side in ("a", "b"):
            share = (found["both"] + found[f"only_{side}"]) / total
            low, high = wilson(share * views, views, level)
            row |= {f"share_{side}": share, f"share_{side}_low": low, f"share_{side}_high": high}
        return row | {"p_mcnemar": mcnemar(int(counts["only_a"]), int(counts["only_b"])) if pairs == 1 else np.nan}
