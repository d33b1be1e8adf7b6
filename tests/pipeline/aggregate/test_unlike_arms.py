"""What is compared where arms are not alike in what they have: views, units, cameras, opinions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from grasping.utility import METRICS
from pipeline import aggregate
from pipeline.grasp_levels import ADDITIVE, NOTHING
from pipeline.physics_utility import HELD_METRICS, held_utility
from pipeline.row_tables import Rows

Make = Callable[..., Any]
TWO = [{"name": "a", "checkpoint": "pcn-qal"}, {"name": "b", "checkpoint": "pcn-cd"}]
SEEDS = [{"name": "a", "checkpoints": ["./a0", "./a1", "./a2"]}, {"name": "b", "checkpoints": ["./b0", "./b1"]}]


def _without(rows: Rows, gone: Callable[[pd.DataFrame], pd.Series]) -> Rows:
    return Rows(*(table[~gone(table)] for table in vars(rows).values()))


def _whole(tables: aggregate.Tables, metric: str) -> pd.Series:
    chosen = tables.comparisons.query("object == 'all' and split == 'all' and metric == @metric")
    assert len(chosen) == 1
    return chosen.iloc[0]


def _check_sums(tables: aggregate.Tables, metric: str, factors: list[str]) -> None:
    expected = _whole(tables, metric)["difference"]
    assert abs(expected) > 1e-4
    for factor in factors:
        own = tables.attribution[tables.attribution["factor"] == factor]
        assert own["difference"].sum() == pytest.approx(expected, abs=1e-6), factor


@pytest.mark.parametrize("arms", [TWO, SEEDS], ids=["one checkpoint", "several"])
def test_views_that_one_arm_lacks_are_left_out_of_differences_and_of_their_parts(
    experiment_of: Make, by_lot: Make, arms: list[Any]
) -> None:
    experiment = experiment_of(arms, comparisons=[["a", "b"]])
    rows = by_lot(experiment)
    lacking = _without(rows, lambda t: (t["arm"] == "b") & (t["scene"] == 101) & (t["view"] == 64))
    found = aggregate.make(experiment, [lacking])
    expected = aggregate.make(experiment, [_without(rows, lambda t: (t["scene"] == 101) & (t["view"] == 64))])
    _check_sums(found, "ap", ADDITIVE)
    counts = ["grasps_a", "grasps_b", "rate_a", "rate_b"]  # of what an arm has, compared or not
    for name in ("comparisons", "mediation", "mediation_points"):
        pd.testing.assert_frame_equal(getattr(found, name), getattr(expected, name))
    pd.testing.assert_frame_equal(
        found.attribution.drop(columns=counts), expected.attribution.drop(columns=counts), check_exact=False
    )


@pytest.mark.parametrize("arms", [TWO, SEEDS], ids=["one checkpoint", "several"])
def test_a_unit_that_failed_is_zero_in_differences_and_in_their_parts(
    experiment_of: Make, by_lot: Make, arms: list[Any]
) -> None:
    experiment = experiment_of(arms, comparisons=[["a", "b"]])
    rows = by_lot(experiment)

    def failed(table: pd.DataFrame) -> pd.Series:
        return (table["arm"] == "a") & (table["replicate"] == 0) & (table["scene"] == 162)

    of_unit = failed(rows.views)
    measured = [name for name in rows.views if name in METRICS]
    views = rows.views.assign(failed=of_unit)
    views.loc[of_unit, measured] = 0.0
    crossed, completion = (t[~failed(t)] for t in (rows.crossed_views, rows.completion_views))
    tables = aggregate.make(experiment, [Rows(rows.grasps[~failed(rows.grasps)], views, completion, crossed)])
    _check_sums(tables, "ap", ADDITIVE)
    assert _whole(tables, "ap")["n_scenes"] == 8
    nothing = tables.attribution.query("factor == 'reason' and level == @NOTHING").iloc[0]
    assert nothing["difference"] < 0
    # What has no cloud has no completion metrics: the scene is left out of both arms there.
    assert _whole(tables, "cd_l1_mm")["n_scenes"] == 7
    assert set(tables.crossed["n_scenes"]) == {7, 8}


@pytest.mark.slow
def test_cameras_never_mix(experiment_of: Make, by_lot: Make) -> None:
    experiment = experiment_of(TWO, comparisons=[["a", "b"]])
    one, other = by_lot(experiment, seed=1), by_lot(experiment, seed=2)
    other = Rows(*(table.assign(camera="kinect") for table in vars(other).values()))
    both = aggregate.make(
        experiment, [Rows(*(pd.concat(pair, ignore_index=True) for pair in zip(*_tables(one, other), strict=True)))]
    )
    for camera, rows in (("realsense", one), ("kinect", other)):
        alone = aggregate.make(experiment, [rows])
        for name in ("utility", "completion", "comparisons", "attribution", "crossed", "mediation", "mediation_points"):
            mine = getattr(both, name)
            mine = mine[mine["camera"] == camera].reset_index(drop=True)
            expected = getattr(alone, name)
            hidden = ["p_holm"] if name == "comparisons" else []  # adjusted over the settings of the whole run
            pd.testing.assert_frame_equal(mine.drop(columns=hidden), expected.drop(columns=hidden))
    family = both.comparisons[both.comparisons["in_family"]]
    assert len(family) == 2 and family["p_holm"].max() >= min(2 * family["p_value"].min(), 1.0)


def _tables(*several: Rows) -> list[list[pd.DataFrame]]:
    return [list(vars(rows).values()) for rows in several]


def test_arms_without_a_common_view_have_no_difference(experiment_of: Make, by_lot: Make) -> None:
    experiment = experiment_of(["partial", *TWO, "oracle"], comparisons=[["a", "b"], ["a", "partial"]])
    rows = _without(by_lot(experiment), lambda t: (t["arm"] == "a") == (t["view"] == 64))  # b: view 64 alone
    tables = aggregate.make(experiment, [rows])
    for name in ("comparisons", "attribution", "mediation", "mediation_points"):
        assert getattr(tables, name).empty, name
    of_pairs = tables.crossed[tables.crossed["arm_b"] != ""]
    assert of_pairs["value"].isna().all() and (of_pairs["n_scenes"] == 0).all()
    assert tables.utility["value"].notna().all()


def test_objects_that_cannot_be_measured_in_one_arm_are_left_out_of_both(experiment_of: Make, by_lot: Make) -> None:
    experiment = experiment_of(TWO, comparisons=[["a", "b"]])
    rows = by_lot(experiment)
    completion = rows.completion_views.copy()
    # An empty cloud covers nothing and has no distance; were its object left out of arm a alone, a would look better.
    hard = completion["object"] == 7
    completion.loc[hard, "cd_l1_mm"] += 10.0
    completion.loc[hard & (completion["arm"] == "a"), ["cd_l1_mm", "spurious@5mm"]] = np.nan
    completion.loc[hard & (completion["arm"] == "a"), "coverage@5mm"] = 0.0
    tables = aggregate.make(experiment, [Rows(rows.grasps, rows.views, completion, rows.crossed_views)])
    rest = aggregate.make(experiment, [Rows(rows.grasps, rows.views, completion[~hard], rows.crossed_views)])
    assert _whole(tables, "cd_l1_mm")["difference"] == pytest.approx(_whole(rest, "cd_l1_mm")["difference"])
    by_view = completion.groupby(["arm", "scene", "view"])["coverage@5mm"].mean().groupby("arm").mean()
    assert _whole(tables, "coverage@5mm")["difference"] == pytest.approx(by_view["a"] - by_view["b"])


@pytest.fixture
def by_physics(experiment_of: Make, by_lot: Make, one_by_one: Make) -> tuple[Any, Rows]:
    """Rows that physics graded too: of every kept grasp, the share of trials in which it was held."""
    experiment = experiment_of(SEEDS, comparisons=[["a", "b"]], scorers=["analytic", "physics"])
    rows = by_lot(experiment)
    rng = np.random.default_rng(4)
    kept = rows.grasps[rows.grasps["kept"]]
    share = rng.choice([0.0, 0.25, 0.75, 1.0], len(kept))
    outcome = np.where(share > 0.5, "held", rng.choice(["slipped", "collided", "lost"], len(kept)))
    trials = {"held_fraction": share, "held": share > 0.5, "outcome": outcome, "slip": 0.001}
    tried = kept.assign(scorer="physics", **trials)
    views = rows.views[rows.views["object"] == -1][
        ["arm", "replicate", "generator", "camera", "split", "scene", "view"]
    ]
    views = views.assign(scorer="physics", objects="3,7,11", reason="")
    of_physics = one_by_one(tried, views)
    seen = rows.views[["view", "object", "visible_fraction"]].drop_duplicates()
    of_physics = of_physics.merge(seen, on=["view", "object"], how="left")
    empty = rows.grasps.assign(held_fraction=np.nan, held=pd.NA, outcome=None, slip=np.nan)
    grasps = pd.concat([empty, tried], ignore_index=True).astype({"held": "boolean"})
    return experiment, Rows(grasps, pd.concat([rows.views, of_physics]), rows.completion_views, rows.crossed_views)


def test_what_physics_holds_is_parted_by_its_own_metric(by_physics: tuple[Any, Rows]) -> None:
    experiment, rows = by_physics
    tables = aggregate.make(experiment, [rows])
    parts = tables.attribution[tables.attribution["scorer"] == "physics"]
    assert set(parts.query("additive")["metric"]) == {"held"}
    assert set(parts.query("factor == 'occlusion'")["metric"]) == {"held@10"}
    _check_sums_of(tables, parts, "held")
    _check_sums_of(tables, tables.attribution[tables.attribution["scorer"] == "analytic"], "ap")
    assert {NOTHING, "slipped", "collided", "held in part"} <= set(parts.query("factor == 'reason'")["level"])
    lines = tables.mediation[tables.mediation["scorer"] == "physics"]
    assert set(lines["metric"]) == {"held@10"} and lines["slope"].notna().all()
    whole = tables.comparisons.query("object == 'all' and split == 'all'")
    assert set(whole[whole["scorer"] == "physics"]["metric"]) == set(HELD_METRICS)
    view = rows.grasps.query("scorer == 'physics' and arm == 'a' and replicate == 1 and scene == 100 and view == 64")
    row = rows.views.query(
        "scorer == 'physics' and arm == 'a' and replicate == 1 and scene == 100 and view == 64 and object == -1"
    )
    assert row["held@10"].item() == held_utility(view["held_fraction"])["held@10"]


def _check_sums_of(tables: aggregate.Tables, parts: pd.DataFrame, metric: str) -> None:
    expected = _whole(tables, metric)["difference"]
    assert abs(expected) > 1e-4
    for factor in ADDITIVE:
        assert parts[parts["factor"] == factor]["difference"].sum() == pytest.approx(expected, abs=1e-6), factor


@pytest.mark.parametrize("metric", ["feasible", "oracle_ap"])
def test_a_primary_metric_without_ranks_has_parts_but_no_shortfall(
    experiment_of: Make, by_lot: Make, metric: str
) -> None:
    experiment = experiment_of(SEEDS, comparisons=[["a", "b"]], primary_metric=metric)
    tables = aggregate.make(experiment, [by_lot(experiment)])
    assert "reason" not in set(tables.attribution["factor"])
    assert set(tables.mediation["metric"]) == {metric}
    assert tables.crossed["ci_high"].notna().all()
    assert tables.comparisons[tables.comparisons["in_family"]]["metric"].tolist() == [metric]
