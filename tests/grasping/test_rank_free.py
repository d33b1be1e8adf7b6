"""Metrics that no confidence enters, against what they say in words."""

from __future__ import annotations

from itertools import combinations, permutations
from math import factorial
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grasping.rank_free import RANK_FREE, holding, shares
from grasping.utility import (
    FRICTIONS,
    METRICS,
    accuracy_table,
    average_precision,
    contributions,
    utilities,
    view_utility,
)

frictions = st.sampled_from([*FRICTIONS, 0.0, 0.5, 0.8000000000000002, 1.3, np.inf])
candidates = st.lists(st.tuples(frictions, st.booleans()), max_size=120)


def rank_free(friction: list[float]) -> dict[str, float]:
    """Without any of our functions' shortcuts: the simulator sorts, and the protocol's own table is filled."""
    best_first = sorted(friction)
    hits = [[100 * sum(f <= mu for f in best_first[:k]) / k for mu in FRICTIONS] for k in range(1, 51)]
    return {
        "feasible": sum(f <= 0.8 for f in friction),
        "any_mu0.4": float(any(f <= 0.4 for f in friction)),
        "any_mu0.8": float(any(f <= 0.8 for f in friction)),
        "oracle_ap": sum(map(sum, hits)) / 300,
    }


def graded(friction: list[float], kept: list[bool] | None = None) -> dict[str, float]:
    found = view_utility(friction, [True] * len(friction) if kept is None else kept)
    return {name: found[name] for name in RANK_FREE}


@given(candidates)
def test_they_are_what_their_names_say(values: list[tuple[float, bool]]) -> None:
    friction, kept = [f for f, _ in values], [k for _, k in values]
    assert graded(friction, kept) == pytest.approx(rank_free(friction), rel=0, abs=1e-9)


def test_by_hand() -> None:
    assert set(RANK_FREE) < set(METRICS)
    assert graded([]) == graded([np.inf] * 60) == dict.fromkeys(RANK_FREE, 0.0)
    assert graded([0.2] * 50) == {"feasible": 50, "any_mu0.4": 1, "any_mu0.8": 1, "oracle_ap": 100}
    # One that holds at 0.6, last by confidence and cut by the protocol: worth nothing there, and all that it is here.
    friction, kept = [np.inf] * 80 + [0.6], [True] * 50 + [False] * 31
    assert view_utility(friction, kept)["ap"] == 0 == view_utility(friction, kept)["success@10_mu0.8"]
    harmonic = sum(1 / k for k in range(1, 51)) / 50
    expected = {"feasible": 1, "any_mu0.4": 0, "any_mu0.8": 1, "oracle_ap": 100 * harmonic * 4 / 6}
    assert graded(friction, kept) == pytest.approx(expected)
    # Of one object ten count for the protocol; here all do.
    assert view_utility([0.2] * 30, [True] * 10 + [False] * 20)["ap"] < graded([0.2] * 30)["oracle_ap"]


@given(candidates, st.randoms(use_true_random=False))
def test_no_confidence_and_no_cut_enters(values: list[tuple[float, bool]], lot: Random) -> None:
    before = graded([f for f, _ in values], [k for _, k in values])
    order = list(range(len(values)))
    lot.shuffle(order)
    assert graded([values[at][0] for at in order], [not values[at][1] for at in order]) == before  # to the last bit


@given(st.lists(frictions, max_size=70), frictions, st.integers(0, 70))
def test_a_candidate_more_never_lowers_one(friction: list[float], more: float, place: int) -> None:
    before, after = graded(friction), graded([*friction[:place], more, *friction[place:]])
    assert all(after[name] >= before[name] for name in RANK_FREE)
    if more == np.inf:
        assert after == before


@given(candidates)
def test_no_ranking_and_no_cut_is_better_than_the_simulators(values: list[tuple[float, bool]]) -> None:
    found = view_utility([f for f, _ in values], [k for _, k in values])
    assert found["oracle_ap"] >= found["ap"] - 1e-9
    for k in (1, 5, 10):
        for mu in ("0.4", "0.8"):
            assert found[f"any_mu{mu}"] >= found[f"success@{k}_mu{mu}"]
    assert found["any_mu0.8"] == (found["feasible"] > 0) >= found["any_mu0.4"]
    assert found["oracle_ap"] <= 100


@given(st.lists(frictions, max_size=70))
def test_a_list_in_the_simulators_order_is_worth_its_own_ap(friction: list[float]) -> None:
    ap = average_precision(accuracy_table(sorted(friction)))["ap"]
    assert graded(friction)["oracle_ap"] == pytest.approx(ap, rel=0, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.lists(frictions, min_size=1, max_size=4))
def test_a_share_is_what_a_candidate_adds_over_all_orders(friction: list[float]) -> None:
    every = range(len(friction))
    chosen = [subset for size in range(len(friction) + 1) for subset in combinations(every, size)]
    worth = {frozenset(subset): rank_free([friction[at] for at in subset]) for subset in chosen}
    for metric in RANK_FREE:
        added = np.zeros(len(friction))
        for order in permutations(every):
            for count, at in enumerate(order):
                added[at] += worth[frozenset(order[: count + 1])][metric] - worth[frozenset(order[:count])][metric]
        parts = contributions(metric, friction, [True] * len(friction))
        assert parts == pytest.approx(added / factorial(len(friction)), abs=1e-9)


@given(st.lists(frictions, max_size=60), st.sampled_from(RANK_FREE))
def test_equals_have_equal_shares_and_those_that_fail_none(friction: list[float], metric: str) -> None:
    parts = shares(metric, friction, np.zeros(len(friction)), 1)
    of_friction = dict(zip(friction, parts, strict=True))
    assert parts.tolist() == [of_friction[value] for value in friction]
    assert all(of_friction.get(value, 0.0) == 0 for value in (1.3, np.inf))
    least_first = [of_friction[value] for value in sorted(of_friction)]
    assert least_first == sorted(least_first, reverse=True) and all(part >= 0 for part in parts)


@given(st.lists(st.lists(frictions, max_size=20), max_size=6))
def test_what_holds_is_counted_list_by_list(lists: list[list[float]]) -> None:
    every = [f for values in lists for f in values]
    of = [number for number, values in enumerate(lists) for _ in values]
    counts = holding(every, np.array(of, dtype=np.int64), len(lists))
    assert counts.tolist() == [[sum(f <= mu for f in values) for mu in FRICTIONS] for values in lists]
    found = utilities(every, [True] * len(every), [len(values) for values in lists])
    for metric in RANK_FREE:
        assert found[metric].tolist() == [graded(values)[metric] for values in lists]
