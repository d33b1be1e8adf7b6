"""Accuracy table, AP and the other utilities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grasping.utility import FRICTIONS, METRICS, accuracy_table, average_precision, view_utility

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
