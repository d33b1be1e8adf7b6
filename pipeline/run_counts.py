"""How many views and grasps every arm has, and what became of them: failures are counted aloud."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from pipeline.estimates import SETTING
from pipeline.row_tables import Rows
from pipeline.scene_values import groups
from pipeline.scorers import PHYSICS
from pipeline.table_files import WHOLE_VIEW

_KEY = ["arm", *SETTING]


@dataclass
class Count:
    """What is counted of an arm and setting.

    Attributes:
        views: of all checkpoints.
        failed: views of units that failed.
        without_grasps: views in which nothing could be graded.
        outcomes: grasps by the protocol's reason; of the scorer ``physics``, by what came of the trial.
    """

    views: int = 0
    failed: int = 0
    without_grasps: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)


@dataclass
class Counts:
    """The counts of a run by arm, generator, scorer and camera, from batches of rows."""

    of: dict[tuple[str, ...], Count] = field(default_factory=dict)

    def add(self, rows: Rows) -> None:
        """Take the rows of some scenes."""
        grasps = dict(groups(rows.grasps, _KEY))
        whole = rows.views[rows.views["object"] == WHOLE_VIEW]
        failed = whole["failed"].to_numpy(dtype=bool)
        for key, views in groups(whole, _KEY):
            count = self.of.setdefault(key, Count())
            own = rows.grasps.iloc[grasps.get(key, np.zeros(0, np.int64))]
            count.views += len(views)
            count.failed += int(failed[views].sum())
            count.without_grasps += len(views) - len(own[["replicate", "scene", "view"]].drop_duplicates())
            what = "outcome" if key[_KEY.index("scorer")] == PHYSICS else "reason"
            for outcome, n in own[what].value_counts().items():
                if n:
                    count.outcomes[str(outcome)] = count.outcomes.get(str(outcome), 0) + int(n)

    def table(self) -> pd.DataFrame:
        """Return arm, generator, scorer, camera, views, failed, without_grasps and outcomes, sorted."""
        rows: list[dict[str, Any]] = [
            {**dict(zip(_KEY, key, strict=True)), **vars(self.of[key])} for key in sorted(self.of)
        ]
        return pd.DataFrame(rows, columns=[*_KEY, "views", "failed", "without_grasps", "outcomes"])
