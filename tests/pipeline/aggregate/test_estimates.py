from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.estimates import adjusted, comparisons, estimates
from pipeline.scene_values import Gathered, Measured, SceneNumbers
from pipeline.statistics import scene_mean

Make = Callable[..., Any]
SEEDS = [
    "partial",
    {"name": "a", "checkpoints": ["./a0", "./a1", "./a2"]},
    {"name": "b", "checkpoints": ["./b0", "./b1", "./b2"]},
    {"name": "c", "checkpoint": "./c"},
    "oracle",
]


def _naive(table: pd.DataFrame, arm: str, metric: str, split: str) -> np.ndarray:
    """``(R, S)`` by plain loops."""
    own = table[(table["arm"] == arm) & (table["object"] == -1)]
    if split != "all":
        own = own[own["split"] == split]
    order = own[["split", "scene"]].drop_duplicates().sort_values(["split", "scene"]).to_numpy().tolist()
    result = []
    for replicate in sorted(set(own["replicate"])):
        row = []
        for _, scene in order:
            chosen = own[(own["scene"] == scene) & (own["replicate"] == replicate)]
            row.append(sum(chosen[metric]) / len(chosen))
        result.append(row)
    return np.array(result)


@pytest.mark.parametrize("split", ["all", "test_seen"])
def test_means_and_differences_equal_plain_loops(experiment_of: Make, by_lot: Make, split: str) -> None:
    experiment = experiment_of(SEEDS)
    rows = by_lot(experiment)
    utility = estimates(experiment, rows.views, ["ap"])
    utility = utility.query("object == 'all' and split == @split").set_index("arm")
    for arm in ("partial", "a", "c"):
        expected = _naive(rows.views, arm, "ap", split)
        assert utility.loc[arm, "value"] == pytest.approx(expected.mean())
        assert utility.loc[arm, "n_seeds"] == len(expected)
        assert utility.loc[arm, "n_views"] == 3 * expected.shape[1]
    compared = comparisons(experiment, rows.views, ["ap"]).query("object == 'all' and split == @split")
    compared = compared.set_index(["arm_a", "arm_b"])
    for a, b in (("b", "a"), ("c", "a"), ("a", "partial")):
        row = compared.loc[(a, b)]
        difference = _naive(rows.views, a, "ap", split).mean() - _naive(rows.views, b, "ap", split).mean()
        assert row["difference"] == pytest.approx(difference)
    assert (compared.loc[("c", "a"), ["seeds_a", "seeds_b"]] == [1, 3]).all()


def test_intervals_of_a_mean_stay_where_the_metric_can_be(experiment_of: Make, by_lot: Make) -> None:
    experiment = experiment_of(SEEDS)
    names = ["ap", "quality", "feasible", "any_mu0.4", "oracle_ap"]
    for count in (2, 60):
        found = estimates(experiment, by_lot(experiment, count=count).views, names)
        assert (found["ci_low"] >= 0).all() and (found["ci_low"] <= found["value"]).all()
        for name, most in zip(names, (100, 0.9, np.inf, 1, 100), strict=True):
            own = found[found["metric"] == name]
            assert (own["value"] <= own["ci_high"]).all() and (own["ci_high"] <= most).all(), name


def test_a_view_that_one_checkpoint_lacks_is_left_out_of_both_arms(experiment_of: Make, by_lot: Make) -> None:
    experiment = experiment_of(SEEDS, comparisons=[["a", "b"]])
    views = by_lot(experiment).views
    gone = (views["arm"] == "a") & (views["replicate"] == 1) & (views["scene"] == 100) & (views["view"] == 64)
    rest = views[~((views["scene"] == 100) & (views["view"] == 64))]
    found, expected = (comparisons(experiment, table, ["ap"]) for table in (views[~gone], rest))
    pd.testing.assert_frame_equal(found, expected)


def test_seeds_widen_the_interval_of_losses_that_differ_by_seed(experiment_of: Make, by_lot: Make) -> None:
    def lucky(arm: str, replicate: int, scene: int, view: int, grasps: pd.DataFrame) -> pd.DataFrame:
        if arm != "a":
            return grasps
        friction = grasps["min_friction"].to_numpy(copy=True)
        friction[: 3 * replicate] = 0.2  # the third checkpoint is much better than the first, in every scene
        return grasps.assign(min_friction=friction)

    experiment = experiment_of(SEEDS, comparisons=[["a", "b"]])
    rows = by_lot(experiment, change=lucky, same_draws=True)
    whole = comparisons(experiment, rows.views, ["ap"]).query("object == 'all' and split == 'all'").iloc[0]
    naive = _naive(rows.views, "a", "ap", "all") - _naive(rows.views, "b", "ap", "all")
    strata = ["test_novel"] * 4 + ["test_seen"] * 4
    over_scenes_alone = scene_mean(naive.mean(axis=0), strata)
    assert whole["difference"] == pytest.approx(naive.mean())
    assert whole["ci_high"] - whole["ci_low"] > 2 * (over_scenes_alone.high - over_scenes_alone.low)
    assert "seed" in whole["interval"] and "seed" in whole["p_method"]


def test_holm_adjusts_over_the_declared_family_alone(experiment_of: Make, by_lot: Make) -> None:
    family = {"metrics": ["ap", "quality"], "splits": ["all", "test_seen"]}
    experiment = experiment_of(SEEDS, statistics={"draws": 500, "family": family})
    table = adjusted(comparisons(experiment, by_lot(experiment).views, ["ap", "quality", "feasible"]))
    inside = table[table["in_family"]]
    learned = {"a", "b", "c"}
    assert set(inside["metric"]) == {"ap", "quality"} and set(inside["split"]) == {"all", "test_seen"}
    assert all({a, b} <= learned for a, b in zip(inside["arm_a"], inside["arm_b"], strict=True))
    assert len(inside) == 2 * 2 * 2  # two comparisons with the first learned arm
    assert table.loc[~table["in_family"], "p_holm"].isna().all()
    order = np.argsort(inside["p_value"].to_numpy(), kind="stable")
    p = inside["p_value"].to_numpy()[order]
    expected = np.minimum(1.0, np.maximum.accumulate(p * (len(p) - np.arange(len(p)))))
    assert inside["p_holm"].to_numpy()[order] == pytest.approx(expected)


def test_missing_values_leave_a_view_out_of_that_metric_only(experiment_of: Make, by_lot: Make) -> None:
    experiment = experiment_of(SEEDS)
    views = by_lot(experiment).views
    whole = views[(views["object"] == -1) & (views["arm"] == "c")].copy()
    whole.loc[(whole["scene"] == 101) & (whole["view"] == 0), "quality"] = np.nan
    whole.loc[whole["scene"] == 102, "quality"] = np.nan
    numbers = SceneNumbers()
    gathered = Gathered(numbers)
    gathered.add([Measured.of(whole, ["ap", "quality"], numbers).by_view(np.arange(len(whole)))], ("ap", "quality"))
    ap, quality = gathered.of("ap"), gathered.of("quality")
    assert ap.views.tolist() == [3] * 8 and len(quality.scenes) == 7
    assert quality.views[quality.scenes.index(101)] == 2
    assert 102 not in quality.scenes


def test_intervals_stay_inside_the_metrics_range(experiment_of: Make, by_lot: Make) -> None:
    experiment = experiment_of(["partial", "oracle"])
    table = estimates(experiment, by_lot(experiment).views, ["ap", "quality", "success@1_mu0.4"])
    assert (table["ci_low"] >= 0).all()
    assert (table.query("metric == 'quality'")["ci_high"] <= 0.9).all()
    assert (table.query("metric == 'success@1_mu0.4'")["ci_high"] <= 1).all()
