"""What the report counts from the rows of grasps, against counting one by one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from grasping.utility import FRICTIONS
from pipeline.report import counts, inputs, style

SETTING = inputs.Setting("antipodal", "analytic", "realsense")


@pytest.fixture(scope="module")
def data(plain_run) -> inputs.RunData:
    return inputs.read(plain_run.experiment, plain_run.folder)


@pytest.fixture(scope="module")
def rows(plain_run) -> pd.DataFrame:
    return pd.read_parquet(plain_run.folder.tables / "grasps.parquet")


def naive_success(data: inputs.RunData, rows: pd.DataFrame, arm: str, k: int, friction: float) -> float:
    scenes: dict[int, list[float]] = {}
    whole = data.views[(data.views["arm"] == arm) & (data.views["object"] == -1)]
    for view in whole.itertuples():
        own = rows[(rows["arm"] == arm) & (rows["scene"] == view.scene) & (rows["view"] == view.view)]
        best = own.sort_values("rank").head(k)
        scenes.setdefault(view.scene, []).append(sum(mu <= friction for mu in best["min_friction"]) / k)
    return float(np.mean([np.mean(values) for values in scenes.values()]))


@pytest.mark.parametrize("friction", [0.4, 0.8])
def test_success_over_k_is_success_over_friction_seen_from_the_side(
    data: inputs.RunData, rows: pd.DataFrame, friction: float
) -> None:
    for arm in data.arms:
        own = data.views[(data.views["arm"] == arm) & (data.views["object"] == -1)]
        curve = counts.success_over_k(data.counted(SETTING)[arm], own, friction, 50)
        assert curve.index.tolist() == list(range(1, 51))
        for k in (1, 2, 7, 10, 40, 41, 50):  # a view has forty grasps at most
            assert curve[k] == pytest.approx(naive_success(data, rows, arm, k, friction))


def test_success_over_k_of_an_arm_without_grasps_is_zero(data: inputs.RunData) -> None:
    own = data.views[(data.views["arm"] == "partial") & (data.views["object"] == -1)]
    assert (counts.success_over_k(counts.GraspCounts(), own, 0.8, 5) == 0).all()


@pytest.mark.parametrize("k", [1, 5, 10])
def test_success_curves_count_missing_ranks_and_empty_views(data: inputs.RunData, rows: pd.DataFrame, k: int) -> None:
    for arm in data.arms:
        own = data.views[(data.views["arm"] == arm) & (data.views["object"] == -1)]
        curve = counts.success_curves(data.counted(SETTING)[arm], own, k)
        assert curve.tolist() == pytest.approx([naive_success(data, rows, arm, k, friction) for friction in FRICTIONS])
        table = data.utility[(data.utility["arm"] == arm) & (data.utility["split"] == "all")]
        table = table[table["object"] == "all"].set_index("metric")["value"]
        for friction in (0.4, 0.8):
            assert curve[friction] == pytest.approx(table[f"success@{k}_mu{friction}"], abs=1e-5)


def test_the_best_ten_are_ten_with_what_is_missing(data: inputs.RunData, rows: pd.DataFrame) -> None:
    own = data.views[(data.views["arm"] == "partial") & (data.views["object"] == -1)]
    grasps = data.counted(SETTING)["partial"]
    shown = counts.ranks_by_outcome(grasps, own)
    assert shown.sum() == pytest.approx(10) and shown["missing"] == pytest.approx(10 / 8)
    naive: dict[str, float] = {}
    for row in rows[(rows["arm"] == "partial") & (rows["rank"] < 10)].itertuples():
        kind = str(row.reason)
        if kind == "success":
            kind = "success_" + ("0.4" if row.min_friction <= 0.4 else "0.8" if row.min_friction <= 0.8 else "1.2")
        naive[kind] = naive.get(kind, 0.0) + 1 / len(own)
    assert shown.drop("missing").to_dict() == pytest.approx(naive)
    assert counts.views_without_grasps(grasps, own) == 1


def test_rows_are_counted_in_pieces_as_at_once(plain_run, monkeypatch: pytest.MonkeyPatch) -> None:
    path = plain_run.folder.tables / "grasps.parquet"
    whole = counts.read(path)
    monkeypatch.setattr(counts, "_BATCH", 7)
    pieces = counts.read(path)
    assert set(pieces) == set(whole) and len(whole) == 4
    for key, found in pieces.items():
        expected = whole[key]
        assert (found.best, found.every, found.first) == (expected.best, expected.every, expected.first)
        assert all((found.ranked[scene] == table).all() for scene, table in expected.ranked.items())
    assert sum(sum(found.every.values()) for found in whole.values()) == len(pd.read_parquet(path))


def test_unknown_outcomes_have_a_colour_of_their_own() -> None:
    reasons = pd.Series(["success", "success", "collides_table", "empty", "melted"], dtype="category")
    kinds = counts.outcome(reasons, pd.Series([0.2, 1.0, np.inf, np.inf, np.inf]))
    assert kinds.tolist() == ["success_0.4", "success_1.2", "collides", "empty", "other"]
    assert set(kinds) <= {key for key, *_ in style.OUTCOMES}
