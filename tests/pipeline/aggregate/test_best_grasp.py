from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipeline.best_grasp import BestGrasp
from pipeline.row_tables import Rows

Make = Callable[..., Any]
TWO = [{"name": "a", "checkpoint": "pcn-qal"}, {"name": "b", "checkpoint": "pcn-cd"}]


def best_grasp(experiment: Any, rows: Rows) -> pd.DataFrame:
    found = BestGrasp(experiment)
    found.add(rows)
    return found.table()


@pytest.fixture
def tried(experiment_of: Make, by_lot: Make) -> tuple[Any, Rows]:
    experiment = experiment_of(TWO, comparisons=[["a", "b"]], scorers=["analytic", "physics"])
    rows = by_lot(experiment)
    rng = np.random.default_rng(3)
    grasps = rows.grasps.assign(scorer="physics", held=rng.uniform(size=len(rows.grasps)) < 0.5)
    return experiment, Rows(grasps, rows.views.assign(scorer="physics"), rows.completion_views, rows.crossed_views)


def test_counts_equal_plain_loops(tried: tuple[Any, Rows]) -> None:
    experiment, rows = tried
    counts = {"both": 0, "only_a": 0, "only_b": 0, "neither": 0}
    names = {(True, True): "both", (True, False): "only_a", (False, True): "only_b", (False, False): "neither"}
    for _, view in rows.grasps.groupby(["scene", "view"]):
        best = view.sort_values("rank").groupby("arm").first()["held"]
        counts[names[bool(best["a"]), bool(best["b"])]] += 1
    row = best_grasp(experiment, rows).iloc[0]
    assert {name: int(row[name]) for name in counts} == counts
    assert row["views"] == 24 and row["scenes"] == 8
    expected = stats.binomtest(counts["only_a"], counts["only_a"] + counts["only_b"]).pvalue
    assert row["p_mcnemar"] == pytest.approx(expected)
    held = counts["both"] + counts["only_a"]
    interval = stats.binomtest(held, 24).proportion_ci(method="wilson")
    assert (row["share_a_low"], row["share_a_high"]) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_a_view_without_grasps_holds_none(tried: tuple[Any, Rows]) -> None:
    experiment, rows = tried
    grasps = rows.grasps[~((rows.grasps["arm"] == "a") & (rows.grasps["scene"] == 100))]
    always = grasps.assign(held=True)
    row = best_grasp(experiment, Rows(always, rows.views, rows.completion_views, rows.crossed_views)).iloc[0]
    assert (row["both"], row["only_a"], row["only_b"], row["neither"]) == (21, 0, 3, 0)


def test_checkpoints_are_no_further_views(tried: tuple[Any, Rows]) -> None:
    experiment, rows = tried
    again = pd.concat([rows.views, rows.views[rows.views["arm"] == "a"].assign(replicate=1)])
    grasps = pd.concat([rows.grasps, rows.grasps[rows.grasps["arm"] == "a"].assign(replicate=1)])
    one = best_grasp(experiment, rows).iloc[0]
    both = best_grasp(experiment, Rows(grasps, again, rows.completion_views, rows.crossed_views)).iloc[0]
    pd.testing.assert_series_equal(both.drop("p_mcnemar"), one.drop("p_mcnemar"))
    assert np.isnan(both["p_mcnemar"])  # whose counts are means over pairs of checkpoints


def test_checkpoints_that_disagree_count_in_part(tried: tuple[Any, Rows]) -> None:
    experiment, rows = tried
    of_a = rows.grasps["arm"] == "a"
    held = rows.grasps.assign(held=~of_a)  # in every view b alone
    other = held[of_a].assign(replicate=1, held=True)
    again = pd.concat([rows.views, rows.views[rows.views["arm"] == "a"].assign(replicate=1)])
    found = Rows(pd.concat([held, other]), again, rows.completion_views, rows.crossed_views)
    row = best_grasp(experiment, found).iloc[0]
    assert (row["both"], row["only_a"], row["only_b"], row["neither"]) == (12, 0, 12, 0)
    assert (row["views"], row["share_a"], row["share_b"]) == (24, 0.5, 1.0)
    assert row["share_a_low"] == pytest.approx(stats.binomtest(12, 24).proportion_ci(method="wilson").low)
