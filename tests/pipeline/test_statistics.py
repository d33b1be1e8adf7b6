from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipeline.statistics import recovered_utility, scene_mean

values = st.lists(st.floats(-100, 100), min_size=2, max_size=20)


@given(values)
def test_one_stratum_is_the_plain_t_interval(x: list[float]) -> None:
    estimate = scene_mean(x, ["a"] * len(x))
    assert estimate.value == pytest.approx(np.mean(x))
    spread = np.std(x, ddof=1)
    if spread > 1e-9:
        low, high = stats.t.interval(0.95, len(x) - 1, np.mean(x), spread / len(x) ** 0.5)
        assert (estimate.low, estimate.high) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))


def test_differences_between_strata_are_not_noise() -> None:
    x = [1.0, 1.1, 0.9, 11.0, 11.1, 10.9]
    pooled = scene_mean(x, ["a"] * 6)
    stratified = scene_mean(x, ["a"] * 3 + ["b"] * 3)
    assert stratified.value == pytest.approx(pooled.value)
    assert stratified.high - stratified.low < (pooled.high - pooled.low) / 20


def test_two_equal_strata_give_welchs_degrees_of_freedom() -> None:
    # The mean of two independent means is half their sum: Welch's interval of a difference, reflected and halved.
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, 5), rng.normal(3, 2, 5)
    estimate = scene_mean([*a, *b], ["a"] * 5 + ["b"] * 5)
    welch = stats.ttest_ind(a, -b, equal_var=False).confidence_interval(0.95)
    assert (estimate.low, estimate.high) == (pytest.approx(welch.low / 2), pytest.approx(welch.high / 2))


def test_one_scene_gives_no_interval() -> None:
    estimate = scene_mean([3.0], ["a"])
    assert estimate.value == 3.0
    assert np.isnan(estimate.low) and np.isnan(estimate.high)
    assert not estimate.excludes_zero


def test_coverage_of_the_interval_by_simulation() -> None:
    rng = np.random.default_rng(1)
    strata = ["a"] * 4 + ["b"] * 4
    hits = 0
    for _ in range(2000):
        x = np.concatenate([rng.normal(0, 1, 4), rng.normal(2, 1, 4)])
        estimate = scene_mean(x, strata)
        hits += estimate.low <= 1.0 <= estimate.high
    assert 0.935 <= hits / 2000 <= 0.975


def test_recovered_utility_of_known_ratio() -> None:
    rng = np.random.default_rng(2)
    partial = rng.normal(10, 1, 30)
    oracle = partial + rng.normal(20, 1, 30)
    arm = partial + 0.25 * (oracle - partial)
    result = recovered_utility(arm, partial, oracle, ["a"] * 30)
    assert result.value == pytest.approx(0.25)
    assert result.low == pytest.approx(0.25) and result.high == pytest.approx(0.25)
    noisy = recovered_utility(arm + rng.normal(0, 2, 30), partial, oracle, ["a"] * 30)
    assert noisy.low < noisy.value < noisy.high


def test_recovered_utility_is_undefined_without_a_gain_to_recover() -> None:
    rng = np.random.default_rng(3)
    partial = rng.normal(10, 1, 8)
    flat = recovered_utility(partial, partial, partial + rng.normal(0, 1, 8) - 0.0, ["a"] * 8)
    assert np.isnan(flat.value) and "holds 0" in flat.reason
    single = recovered_utility([1.0], [0.0], [2.0], ["a"])
    assert np.isnan(single.value) and "too few scenes" in single.reason
