from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from grasping.utility import RANK_FREE
from pipeline.attribution import Attribution
from pipeline.config import Experiment
from pipeline.crossed import Crossed
from pipeline.estimates import comparisons, estimates
from pipeline.grasp_levels import ADDITIVE, NOTHING
from pipeline.row_tables import Rows

TWO = [{"name": "a", "checkpoint": "pcn-qal"}, {"name": "b", "checkpoint": "pcn-cd"}]
SEEDS = [
    {"name": "a", "checkpoints": ["./a0", "./a1", "./a2"]},
    {"name": "b", "checkpoints": ["./b0", "./b1"]},
]
Make = Callable[..., Any]


def attribution(experiment: Any, rows: Rows) -> pd.DataFrame:
    found = Attribution(experiment)
    found.add(rows)
    return found.table()


def crossed_of(experiment: Any, rows: Rows) -> pd.DataFrame:
    found = Crossed(experiment)
    found.add(rows.crossed_views)
    return found.table()


def _between(tables: pd.DataFrame, factor: str) -> pd.DataFrame:
    chosen = tables[(tables["factor"] == factor) & (tables["arm_a"] == "a") & (tables["arm_b"] == "b")]
    return chosen.set_index("level")


@pytest.mark.parametrize("metric", ["ap", "ap_0.8", "quality", "success@10_mu0.4", *RANK_FREE])
@pytest.mark.parametrize("arms", [TWO, SEEDS], ids=["one checkpoint", "unlike numbers of checkpoints"])
def test_levels_of_a_factor_add_up_to_the_difference(
    experiment_of: Make, by_lot: Make, metric: str, arms: list[Any]
) -> None:
    experiment = experiment_of(arms, comparisons=[["a", "b"]], primary_metric=metric)
    rows = by_lot(experiment, count=3 if metric.startswith("any") else 24)  # of many, some one holds in every arm
    table = attribution(experiment, rows)
    whole = comparisons(experiment, rows.views, [metric]).query("object == 'all' and split == 'all'")
    expected = whole["difference"].item()
    assert abs(expected) > 1e-3
    for factor in ADDITIVE:
        parts = _between(table, factor)
        if metric in RANK_FREE and factor == "reason":
            assert parts.empty  # no perfect list to lose against
            continue
        assert parts["difference"].sum() == pytest.approx(expected, abs=1e-6), factor
        assert (parts["a"] - parts["b"]).to_numpy() == pytest.approx(parts["difference"].to_numpy())


def test_swapped_arms_turn_every_sign(experiment_of: Make, by_lot: Make) -> None:
    experiment = experiment_of(TWO, comparisons=[["a", "b"], ["b", "a"]])
    table = attribution(experiment, by_lot(experiment))
    one = table[table["arm_a"] == "a"].set_index(["factor", "level"])
    other = table[table["arm_a"] == "b"].set_index(["factor", "level"]).loc[one.index]
    assert one["difference"].to_numpy() == pytest.approx(-other["difference"].to_numpy())
    assert one["ci_low"].to_numpy() == pytest.approx(-other["ci_high"].to_numpy(), abs=0.5)
    assert one["grasps_a"].to_numpy() == pytest.approx(other["grasps_b"].to_numpy())


def _better(condition: Callable[[pd.DataFrame], pd.Series]) -> Callable[..., pd.DataFrame]:
    """Let arm a's grasps hold at the least friction where a condition says so, and leave arm b's as drawn."""

    def change(arm: str, replicate: int, scene: int, view: int, grasps: pd.DataFrame) -> pd.DataFrame:
        if arm != "a":
            return grasps
        chosen = condition(grasps).to_numpy()
        friction = np.where(chosen, 0.2, grasps["min_friction"])
        return grasps.assign(min_friction=friction, reason=grasps["reason"].mask(chosen, "success"))

    return change


@pytest.mark.parametrize(
    ("factor", "level", "condition"),
    [
        ("width", "S", lambda g: g["width"] < 0.04),
        ("object", "7", lambda g: g["object"] == 7),
        ("thickness", "< 5 mm", lambda g: g["thickness"] < 0.005),
        ("surface", "completed", lambda g: g["surface"] == "completed"),
    ],
)
def test_a_planted_gain_is_found_where_it_was_planted(
    experiment_of: Make, by_lot: Make, factor: str, level: str, condition: Callable[[pd.DataFrame], pd.Series]
) -> None:
    experiment = experiment_of(TWO, comparisons=[["a", "b"]])
    rows = by_lot(experiment, change=_better(condition), same_draws=True)
    parts = _between(attribution(experiment, rows), factor)
    assert parts.loc[level, "difference"] > 1.0
    assert parts.loc[level, "ci_low"] > 0
    assert parts["difference"].drop(level).abs().max() == pytest.approx(0.0, abs=1e-9)


def test_grasps_that_no_longer_collide_are_a_gain_of_that_reason(experiment_of: Make, by_lot: Make) -> None:
    experiment = experiment_of(TWO, comparisons=[["a", "b"]])
    rows = by_lot(experiment, change=_better(lambda g: (g["reason"] == "collides") & g["hits_target"]), same_draws=True)
    parts = _between(attribution(experiment, rows), "reason")
    assert parts.loc["hits the target", "a"] == 0.0
    assert parts.loc["hits the target", "difference"] > 1.0
    assert parts["difference"].drop("hits the target").abs().max() == pytest.approx(0.0, abs=1e-9)


def test_ranks_without_a_grasp_lose_too(experiment_of: Make, by_lot: Make) -> None:
    def fewer(arm: str, replicate: int, scene: int, view: int, grasps: pd.DataFrame) -> pd.DataFrame:
        return grasps.head(0) if arm == "b" and view == 64 else grasps

    experiment = experiment_of(TWO, comparisons=[["a", "b"]])
    parts = _between(attribution(experiment, by_lot(experiment, change=fewer, same_draws=True)), "reason")
    assert parts.loc[NOTHING, "difference"] > 0
    # What b does not propose it cannot lose by colliding either.
    assert parts.loc["closes on nothing", "difference"] < 0


def test_without_explanations_levels_are_unknown_and_still_add_up(experiment_of: Make, by_lot: Make) -> None:
    experiment = experiment_of(TWO, comparisons=[["a", "b"]])
    rows = by_lot(experiment)
    blank = rows.grasps.assign(
        touches=None, thickness=np.nan, surface="", visible_fraction=np.nan, hits_target=None, hits_neighbour=None
    ).assign(hits_table=None)
    views = rows.views.assign(visible_fraction=np.nan)
    blank_rows = Rows(blank, views, rows.completion_views, rows.crossed_views.head(0))
    table = attribution(experiment, blank_rows)
    for factor in ("thickness", "surface", "visible"):
        assert list(_between(table, factor).index) == ["unknown"]
    assert "collides" in _between(table, "reason").index
    assert _between(table, "occlusion").empty
    assert crossed_of(experiment, blank_rows).empty


def test_occlusion_compares_objects_by_their_own_utility(experiment_of: Make, by_lot: Make) -> None:
    experiment = experiment_of(TWO, comparisons=[["a", "b"]])
    rows = by_lot(experiment)
    parts = _between(attribution(experiment, rows), "occlusion")
    assert list(parts.index) == ["under 30 %", "30-70 %", "70 % or more"]
    objects = rows.views[rows.views["object"] != -1]
    for level, low, high in (("under 30 %", 0, 0.3), ("30-70 %", 0.3, 0.7), ("70 % or more", 0.7, 2)):
        own = objects[(objects["visible_fraction"] >= low) & (objects["visible_fraction"] < high)]
        by_view = own.groupby(["arm", "scene", "view"])["quality"].mean()
        means = by_view.groupby(["arm", "scene"]).mean().groupby("arm").mean()
        assert parts.loc[level, "a"] == pytest.approx(means["a"])
        assert parts.loc[level, "difference"] == pytest.approx(means["a"] - means["b"])


def test_crossed_rows_are_means_and_differences(experiment_of: Make, by_lot: Make) -> None:
    experiment = experiment_of(SEEDS, comparisons=[["a", "b"]])
    rows = by_lot(experiment)
    crossed = crossed_of(experiment, rows).set_index(["arm_a", "arm_b"])
    utility = estimates(experiment, rows.views, ["ap"]).query("object == 'all' and split == 'all'").set_index("arm")
    assert crossed.loc[("a", ""), "value"] == pytest.approx(utility.loc["a", "value"])
    expected = utility.loc["a", "value"] - utility.loc["b", "value"]
    assert crossed.loc[("a", "b"), "value"] == pytest.approx(expected)


def test_an_experiment_without_comparisons_has_empty_tables(experiment_of: Make, by_lot: Make) -> None:
    experiment: Experiment = experiment_of([TWO[0]])
    found = attribution(experiment, by_lot(experiment))
    assert found.empty and list(found.columns)
