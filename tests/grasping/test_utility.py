"""Accuracy table, AP and the other utilities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grasping.utility import (
    FRICTIONS,
    METRICS,
    PERFECT,
    RANK_FREE,
    accuracy_table,
    average_precision,
    contributions,
    shortfall,
    utilities,
    view_utility,
)
from pipeline.physics_utility import (
    HELD_METRICS,
    held_contributions,
    held_shortfall,
    held_utilities,
    held_utility,
)

frictions = st.lists(st.sampled_from([*FRICTIONS, np.inf]), max_size=70)


@given(frictions, st.integers(1, 60))
def test_accuracy_against_its_definition(values: list[float], top_k: int) -> None:
    table = accuracy_table(values, top_k)
    assert table.shape == (top_k, 6)
    for k in range(top_k):
        for column, mu in enumerate(FRICTIONS):
            assert table[k, column] == pytest.approx(sum(v <= mu for v in values[: k + 1]) / (k + 1))


def test_average_precision_by_hand() -> None:
    assert average_precision(accuracy_table([0.2] * 50)) == {"ap": 100, "ap_0.4": 100, "ap_0.8": 100}
    assert average_precision(accuracy_table([])) == {"ap": 0, "ap_0.4": 0, "ap_0.8": 0}
    one = average_precision(accuracy_table([0.8]))
    harmonic = sum(1 / k for k in range(1, 51)) / 50
    assert one["ap"] == pytest.approx(100 * harmonic * 3 / 6)
    assert one["ap_0.4"] == 0 and one["ap_0.8"] == pytest.approx(100 * harmonic)
    views = np.stack([accuracy_table([0.2] * 50), accuracy_table([])])
    assert average_precision(views)["ap"] == pytest.approx(50)


def test_view_utility_by_hand() -> None:
    friction = [0.4, np.inf, 0.8, 1.2, 0.2]
    kept = [True, False, True, True, False]
    result = view_utility(friction, kept)
    assert tuple(result) == METRICS
    assert result["feasible"] == 3
    assert result["quality"] == pytest.approx((0.7 + 0 + 0.3 + 0 + 0.9) / 10)
    assert (
        result["success@1_mu0.4"] == 1 and result["success@5_mu0.4"] == 2 / 5 and result["success@10_mu0.8"] == 3 / 10
    )
    assert result["ap"] == average_precision(accuracy_table([0.4, 0.8, 1.2]))["ap"]


def test_nothing_is_worth_nothing() -> None:
    assert set(view_utility([], []).values()) == {0.0}
    assert set(view_utility([np.inf] * 30, [True] * 30).values()) == {0.0}


@given(frictions)
def test_less_friction_is_never_worse(values: list[float]) -> None:
    kept = [True] * len(values)
    before = view_utility(values, kept)
    after = view_utility([0.2 if v == 0.4 else v for v in values], kept)
    assert all(after[name] >= before[name] - 1e-12 for name in METRICS)


candidates = st.lists(st.tuples(st.sampled_from([*FRICTIONS, 0.0, 0.5, 1.3, np.inf]), st.booleans()), max_size=120)


@given(candidates, st.sampled_from(METRICS))
def test_contributions_add_up_to_the_metric(values: list[tuple[float, bool]], metric: str) -> None:
    friction, kept = [friction for friction, _ in values], [kept for _, kept in values]
    parts = contributions(metric, friction, kept)
    assert parts.shape == (len(values),)
    assert parts.sum() == pytest.approx(view_utility(friction, kept)[metric], rel=0, abs=1e-9)
    assert all(part == 0 for part, value in zip(parts, friction, strict=True) if value == np.inf)


# Where there are no ranks, who fails makes room for others; but each counts for itself in a count.
@given(candidates, st.sampled_from([name for name in METRICS if name == "feasible" or name not in RANK_FREE]))
def test_a_contribution_is_what_is_lost_when_the_grasp_fails(values: list[tuple[float, bool]], metric: str) -> None:
    friction, kept = [friction for friction, _ in values], [kept for _, kept in values]
    before = view_utility(friction, kept)[metric]
    for row, part in enumerate(contributions(metric, friction, kept)):
        failing = [*friction[:row], np.inf, *friction[row + 1 :]]
        assert before - view_utility(failing, kept)[metric] == pytest.approx(part, rel=0, abs=1e-9)


@given(candidates, st.sampled_from(sorted(PERFECT)))
def test_losses_add_up_to_what_a_perfect_list_has_more(values: list[tuple[float, bool]], metric: str) -> None:
    friction, kept = [friction for friction, _ in values], [kept for _, kept in values]
    losses, missing = shortfall(metric, friction, kept)
    value = view_utility(friction, kept)[metric]
    assert losses.sum() + missing == pytest.approx(PERFECT[metric] - value, rel=0, abs=1e-9)
    if min(friction, default=0.2) >= 0.2:
        assert missing >= 0 and (losses >= -1e-12).all()
    assert missing <= PERFECT[metric] + 1e-12


def test_perfect_lists_lose_nothing_and_empty_ones_everything() -> None:
    for metric, perfect in PERFECT.items():
        assert view_utility([0.2] * 60, [True] * 60)[metric] == pytest.approx(perfect)
        losses, missing = shortfall(metric, [0.2] * 60, [True] * 60)
        assert np.abs(losses).max() < 1e-12 and missing == 0
        assert shortfall(metric, [], [])[1] == pytest.approx(perfect)


def test_the_first_grasp_weighs_most_in_average_precision() -> None:
    parts = contributions("ap", [0.2, 0.2, np.inf, 0.8], [True, False, True, True])
    harmonic = np.cumsum(1 / np.arange(1, 51))
    assert parts == pytest.approx([2 * harmonic[49], 0, 0, (harmonic[49] - harmonic[1]) * 2 * 3 / 6])


def test_unknown_metrics_and_those_without_a_bound_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown metric 'apple'"):
        contributions("apple", [0.2], [True])
    for metric in RANK_FREE:
        with pytest.raises(ValueError, match=f"'{metric}' has no ranks: no list is perfect"):
            shortfall(metric, [0.2], [True])
    with pytest.raises(ValueError, match="unknown metric 'hold'"):
        held_shortfall("hold", [1.0])


@given(st.lists(st.sampled_from([0.0, 0.25, 2 / 3, 1.0]), max_size=70), st.sampled_from(HELD_METRICS))
def test_parts_of_what_physics_holds_add_up(held: list[float], metric: str) -> None:
    value = held_utility(held)[metric]
    assert held_contributions(metric, held).sum() == pytest.approx(value, rel=0, abs=1e-9)
    losses, missing = held_shortfall(metric, held)
    assert losses.shape == (len(held),) and (losses >= 0).all()
    assert losses.sum() + missing == pytest.approx(1 - value, rel=0, abs=1e-9)


several = st.lists(candidates, max_size=12)


@given(several)
def test_many_lists_at_once_are_graded_as_each_alone(lists: list[list[tuple[float, bool]]]) -> None:
    friction = [friction for values in lists for friction, _ in values]
    kept = [kept for values in lists for _, kept in values]
    lengths = [len(values) for values in lists]
    alone = [view_utility([f for f, _ in values], [k for _, k in values]) for values in lists]
    found = utilities(friction, kept, lengths)
    assert tuple(found) == METRICS
    for metric in METRICS:
        assert found[metric].tolist() == [values[metric] for values in alone]  # to the last bit


@given(several, st.sampled_from(sorted(PERFECT)))
def test_many_lists_at_once_are_parted_as_each_alone(lists: list[list[tuple[float, bool]]], metric: str) -> None:
    friction = [friction for values in lists for friction, _ in values]
    kept = [kept for values in lists for _, kept in values]
    lengths = [len(values) for values in lists]
    losses, missing = shortfall(metric, friction, kept, lengths)
    alone = [([f for f, _ in values], [k for _, k in values]) for values in lists]
    for name in (metric, *RANK_FREE):
        gains = contributions(name, friction, kept, lengths)
        assert gains.tolist() == [part for one in alone for part in contributions(name, *one)]
    assert losses.tolist() == [part for one in alone for part in shortfall(metric, *one)[0]]
    assert missing.tolist() == [part for one in alone for part in shortfall(metric, *one)[1]]


@given(st.lists(st.lists(st.sampled_from([0.0, 0.1, 1 / 3, 2 / 3, 1.0]), max_size=70), max_size=8))
def test_many_lists_at_once_are_held_as_each_alone(lists: list[list[float]]) -> None:
    held, lengths = [share for shares in lists for share in shares], [len(shares) for shares in lists]
    found = held_utilities(held, lengths)
    assert tuple(found) == HELD_METRICS
    for metric in HELD_METRICS:
        assert found[metric].tolist() == [held_utility(shares)[metric] for shares in lists]
        gains, (losses, missing) = (part(metric, held, lengths) for part in (held_contributions, held_shortfall))
        assert gains.tolist() == [part for shares in lists for part in held_contributions(metric, shares)]
        assert losses.tolist() == [part for shares in lists for part in held_shortfall(metric, shares)[0]]
        assert missing.tolist() == [part for shares in lists for part in held_shortfall(metric, shares)[1]]
