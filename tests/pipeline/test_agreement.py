from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grasping.utility import FRICTIONS
from pipeline import agreement
from pipeline.agreement import area, confusion, levels, sentences, tables
from pipeline.physics_utility import HELD_METRICS, held_utility

LEVELS = [*FRICTIONS, np.inf]
grasps = st.lists(st.tuples(st.sampled_from(LEVELS), st.booleans()), max_size=60)


def naive_area(friction: list[float], held: list[bool]) -> float:
    """By the definition: over all pairs of a held and a lost grasp."""
    wins = [
        1.0 if a < b else 0.5 if a == b else 0.0
        for a, a_held in zip(friction, held, strict=True)
        for b, b_held in zip(friction, held, strict=True)
        if a_held and not b_held
    ]
    return sum(wins) / len(wins) if wins else np.nan


def counted(friction: list[float], held: list[bool]) -> tuple[np.ndarray, np.ndarray]:
    at, mask = levels(friction), np.array(held, bool)
    return np.bincount(at[mask], minlength=len(LEVELS)), np.bincount(at[~mask], minlength=len(LEVELS))


@given(grasps)
def test_the_area_is_the_share_of_pairs_in_the_right_order(drawn: list[tuple[float, bool]]) -> None:
    friction, held = [f for f, _ in drawn], [h for _, h in drawn]
    assert float(area(*counted(friction, held))) == pytest.approx(naive_area(friction, held), nan_ok=True)


@given(grasps)
def test_the_area_is_that_under_the_curve(drawn: list[tuple[float, bool]]) -> None:
    rows = frame([(f, h, 100, "test_seen", 1) for f, h in drawn])
    if not 0 < rows["held"].sum() < len(rows):
        return
    curve = tables(rows, level=0.95, draws=100, seed=0).roc.query("arm == 'all'")
    x, y = ([0.0, *curve[name]] for name in ("false_positive_rate", "true_positive_rate"))
    assert (x[-1], y[-1]) == (1.0, 1.0)
    expected = naive_area(list(rows["min_friction"]), list(rows["held"]))
    assert np.trapezoid(y, x) == pytest.approx(expected)


@given(grasps, st.sampled_from(agreement.THRESHOLDS))
def test_confusion_accuracy_and_kappa_by_their_definitions(drawn: list[tuple[float, bool]], friction: float) -> None:
    found = confusion([f for f, _ in drawn], [h for _, h in drawn], friction)
    pairs = [(f <= friction, h) for f, h in drawn]
    assert (found.both, found.analytic_only) == (pairs.count((True, True)), pairs.count((True, False)))
    assert (found.physics_only, found.neither) == (pairs.count((False, True)), pairs.count((False, False)))
    if not pairs:
        assert np.isnan(found.accuracy) and np.isnan(found.kappa) and np.isnan(found.held_if_passed)
        return
    agree = np.mean([a == b for a, b in pairs])
    yes_a, yes_b = np.mean([a for a, _ in pairs]), np.mean([b for _, b in pairs])
    chance = yes_a * yes_b + (1 - yes_a) * (1 - yes_b)
    assert found.accuracy == pytest.approx(agree)
    if chance < 1:
        assert found.kappa == pytest.approx((agree - chance) / (1 - chance))
    else:
        assert np.isnan(found.kappa)


def frame(rows: list[tuple[float, bool, int, str, int]], arms: tuple[str, ...] = ("partial",)) -> pd.DataFrame:
    """Rows ``(min_friction, held, scene, split, object)``, the arms taking turns."""
    table = pd.DataFrame(rows, columns=["min_friction", "held", "scene", "split", "object"])
    table = table.astype({"min_friction": float, "held": bool, "scene": int})
    table["arm"] = [arms[i % len(arms)] for i in range(len(table))]
    table["reason"] = np.where(np.isfinite(table["min_friction"]), "success", "no_closure")
    table["outcome"] = np.where(table["held"], "held", "slipped")
    return table.assign(generator="antipodal", camera="realsense")


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    friction = rng.choice(LEVELS, 400)
    held = rng.uniform(size=400) < np.where(friction <= 0.6, 0.8, 0.3)
    scenes = rng.integers(0, 8, 400)
    drawn = [
        (f, bool(h), 100 + int(s), "test_seen" if s < 5 else "test_novel", int(o))
        for f, h, s, o in zip(friction, held, scenes, rng.integers(0, 3, 400), strict=True)
    ]
    return frame(drawn, ("partial", "oracle"))


def test_groups_are_arms_all_arms_and_objects(rows: pd.DataFrame) -> None:
    made = tables(rows, level=0.95, draws=200, seed=0)
    groups = made.agreement[["arm", "object"]].drop_duplicates().to_numpy().tolist()
    assert sorted(map(tuple, groups)) == [
        ("all", "0"),
        ("all", "1"),
        ("all", "2"),
        *((a, "all") for a in ("all", "oracle", "partial")),
    ]
    assert not made.agreement.duplicated(["arm", "object", "friction"]).any()
    for row in made.agreement.itertuples():
        own = rows if row.arm == "all" else rows[rows["arm"] == row.arm]
        own = own if row.object == "all" else own[own["object"] == int(row.object)]
        assert row.n == row.both + row.analytic_only + row.physics_only + row.neither == len(own)
        assert row.n_held == own["held"].sum() and row.n_scenes == own["scene"].nunique()
        assert row.auc == pytest.approx(naive_area(list(own["min_friction"]), list(own["held"])))
    whole = made.physics_outcomes.query("arm == 'all'")
    assert whole["n"].sum() == len(rows)
    held = whole.query("reason == 'success' and min_friction == 0.4 and outcome == 'held'")["n"].item()
    assert held == (rows["held"] & (rows["min_friction"] == 0.4)).sum()


def test_the_interval_is_that_of_drawn_scenes(rows: pd.DataFrame) -> None:
    made = tables(rows, level=0.9, draws=2000, seed=1).agreement.query("arm == 'all' and object == 'all'").iloc[0]
    rng = np.random.default_rng(7)  # other draws, put together grasp by grasp
    strata = [part["scene"].unique() for _, part in rows.groupby("split")]
    drawn = []
    for _ in range(400):
        scenes = np.concatenate([rng.choice(members, len(members)) for members in strata])
        part = pd.concat([rows[rows["scene"] == scene] for scene in scenes])
        drawn.append(float(area(*counted(list(part["min_friction"]), list(part["held"])))))
    assert (made["auc_low"], made["auc_high"]) == pytest.approx(np.quantile(drawn, [0.05, 0.95]), abs=0.012)
    assert made["auc_low"] < made["auc"] < made["auc_high"]
    by_object = tables(rows, level=0.9, draws=200, seed=1).agreement.query("object != 'all'")
    assert by_object["auc_low"].isna().all()


def test_a_single_scene_has_no_interval_and_one_class_no_area() -> None:
    one = tables(frame([(0.2, True, 100, "s", 1), (np.inf, False, 100, "s", 1)]), level=0.95, draws=100, seed=0)
    assert np.isnan(one.agreement["auc_low"]).all() and (one.agreement["auc"] == 1.0).all()
    none = tables(frame([(0.2, False, 100, "s", 1), (np.inf, False, 101, "s", 1)]), level=0.95, draws=100, seed=0)
    assert none.agreement[["auc", "auc_low", "auc_high"]].isna().all().all()
    assert (none.agreement["kappa"] == 0).all()  # who always says no agrees by chance alone
    assert "holds all of them or none" in sentences(none.agreement.to_dict("records"))[1]


def test_nothing_tried_is_said() -> None:
    empty = tables(frame([]), level=0.95, draws=100, seed=0)
    assert len(empty.agreement) == len(empty.roc) == len(empty.physics_outcomes) == 0
    assert sentences([]) == ["Physics tried no grasp, so nothing can be said."]


def test_sentences_say_the_counts() -> None:
    drawn = [(0.4, True)] * 3 + [(0.8, False)] + [(1.2, True)] + [(np.inf, False)] * 3
    made = tables(frame([(f, h, 100, "s", 1) for f, h in drawn]), level=0.95, draws=100, seed=0)
    said = sentences(made.agreement.to_dict("records"))
    assert said[0] == (
        "Of 4 grasps that the protocol passes at µ ≤ 0.8 physics holds 3 (75 %); of 4 that it fails, 1 (25 %)."
    )
    assert f"{naive_area([f for f, _ in drawn], [h for _, h in drawn]):.2f} (0.50 is chance)" in said[1]


@given(st.lists(st.floats(0, 1), max_size=70))
def test_held_of_the_best_counts_missing_ranks_as_failures(fractions: list[float]) -> None:
    values = held_utility(fractions)
    assert tuple(values) == HELD_METRICS
    for name, k in (("held", 50), ("held@1", 1), ("held@5", 5), ("held@10", 10)):
        padded = [*fractions, *[0.0] * k][:k]
        assert values[name] == pytest.approx(np.mean(padded))
