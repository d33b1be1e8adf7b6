from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import stats

from pipeline.statistics import (
    compare,
    difference,
    minimum_detectable_effect,
    probability_of_improvement,
    recovered_utility,
    scene_differences,
    scene_mean,
    sign_flip,
    wilcoxon,
)
from pipeline.statistics.comparison import SIGN_FLIP
from pipeline.statistics.intervals import TWO_WAY


def arms(seeds: int, shift: float = 0.3, scenes: int = 12) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(seeds)
    shared = rng.normal(5, 2, scenes)
    a, b = (shared + rng.normal(0, 0.1, (seeds, 1)) + rng.normal(0, 0.4, (seeds, scenes)) for _ in range(2))
    return a + shift, b, ["x"] * 7 + ["y"] * (scenes - 7)


def test_a_comparison_of_single_checkpoints_is_made_of_its_parts() -> None:
    a, b, strata = arms(1)
    found = compare(a[0], b[0], strata, level=0.9, seed=3)
    d = (a - b)[0]
    assert found.estimate == scene_mean(d, strata, 0.9, seed=3) and found.estimate.method == "studentised"
    assert found.p_permutation == sign_flip(d) == found.p_value and found.p_method == SIGN_FLIP
    assert found.p_wilcoxon == wilcoxon(d)
    assert found.mde == minimum_detectable_effect(found.estimate, 0.9)
    assert found.improvement == probability_of_improvement(d, 0.9)
    assert (found.seeds_a, found.seeds_b) == (1, 1)
    assert compare(a, b, strata, level=0.9, seed=3) == found
    other = compare(a, b, strata, method="t", power=0.9)
    assert other.estimate == scene_mean(d, strata, method="t") and other.p_value == found.p_value
    assert other.mde == minimum_detectable_effect(other.estimate, power=0.9)


@pytest.mark.parametrize("rows", [(4, 4), (4, 2), (4, 1), (1, 4)])
def test_with_training_seeds_p_is_dual_to_the_interval(rows: tuple[int, int]) -> None:
    a, b, strata = arms(4)
    a, b = a[: rows[0]], b[: rows[1]]
    found = compare(a, b, strata)
    assert found.p_method == TWO_WAY == found.estimate.method and (found.seeds_a, found.seeds_b) == rows
    assert found.estimate == difference(a, b, strata)
    # At the level 1 - p one end of the interval is 0.
    at = difference(a, b, strata, level=1 - found.p_value)
    assert min(abs(at.low), abs(at.high)) == pytest.approx(0, abs=1e-9)
    assert (found.p_value < 0.05) == found.estimate.excludes_zero


@pytest.mark.parametrize("rows", [(1, 1), (4, 4), (4, 2), (1, 3)])
def test_swapping_the_arms_mirrors_all(rows: tuple[int, int]) -> None:
    a, b, strata = arms(4)
    one, other = compare(a[: rows[0]], b[: rows[1]], strata), compare(b[: rows[1]], a[: rows[0]], strata)
    assert other.estimate.value == pytest.approx(-one.estimate.value)
    assert (other.estimate.low, other.estimate.high) == pytest.approx((-one.estimate.high, -one.estimate.low))
    assert (other.p_permutation, other.p_wilcoxon) == (one.p_permutation, one.p_wilcoxon)
    assert (other.p_value, other.mde) == pytest.approx((one.p_value, one.mde))
    value, low, high = one.improvement
    assert other.improvement == pytest.approx((1 - value, 1 - high, 1 - low))


@pytest.mark.parametrize("seeds", [1, 3])
def test_scenes_that_tie_but_for_rounding_tie(seeds: int) -> None:
    tenths = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    # The same tenths, added up in another order: some sums differ in the last bit.
    a = np.tile((0.1 + tenths) + 0.2, (seeds, 1))
    b = np.tile(0.1 + (tenths + 0.2), (seeds, 1))
    assert 0 < np.count_nonzero(a != b) < a.size
    strata = ["x"] * 9
    assert not scene_differences(a, b).any()
    found = compare(a, b, strata)
    assert (found.estimate.low, found.estimate.high, found.improvement[0]) == (0, 0, 0.5)
    assert found.p_value == found.p_wilcoxon == 1.0
    # Differences that are alike but for rounding share a rank, and sums of them a place.
    alike = np.array([0.3 - 0.2, 0.1, 0.2 - 0.1, 0.9 - 0.8, 0.2 - 0.4, 0.7 - 0.9, 0.1 - 0.2])
    assert len(set(np.abs(alike))) > len(set(np.abs(np.round(alike, 9))))
    assert wilcoxon(alike) == wilcoxon(np.round(alike, 9))
    assert sign_flip(alike) == sign_flip(np.round(10 * alike))


def test_an_arm_against_itself_and_against_a_constant_shift() -> None:
    for seeds in (1, 3):
        a, _, strata = arms(seeds)
        itself, shifted = compare(a, a, strata), compare(a + 0.25, a, strata)
        assert itself.p_value == 1.0 and itself.improvement[0] == 0.5 and np.isnan(itself.mde)
        assert (itself.estimate.value, itself.estimate.low, itself.estimate.high) == (0, 0, 0)
        assert shifted.p_value < 1e-3 and shifted.improvement[0] == 1.0
        assert shifted.estimate.low == pytest.approx(0.25)


def test_one_scene_says_nothing_but_its_value() -> None:
    found = compare([[3.0], [4.0]], [1.0], ["a"])
    assert found.estimate.value == 2.5
    assert np.isnan([found.p_value, found.p_permutation, found.p_wilcoxon, found.mde, found.estimate.low]).all()


def test_thirty_scenes_take_little_time() -> None:
    rng = np.random.default_rng(0)
    a, b, strata = rng.normal(0.3, 1, (5, 30)), rng.normal(0, 1, (3, 30)), ["x"] * 15 + ["y"] * 15
    for left, right in ((a[0], b[0]), (a, b)):
        compare(left, right, strata)
        start = time.process_time()
        for _ in range(20):
            compare(left, right, strata)
        assert (time.process_time() - start) / 20 < 0.05


def test_the_minimum_detectable_effect_by_hand() -> None:
    x = np.random.default_rng(1).normal(0, 1, 16)
    estimate = scene_mean(x, ["a"] * 16)
    expected = (stats.t.ppf(0.975, 15) + stats.t.ppf(0.8, 15)) * stats.sem(x)
    assert minimum_detectable_effect(estimate) == pytest.approx(expected)
    assert minimum_detectable_effect(estimate, power=0.9) > expected
    assert np.isnan(minimum_detectable_effect(scene_mean([1.0], ["a"])))


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


def test_recovered_utility_over_training_seeds() -> None:
    rng = np.random.default_rng(4)
    partial = rng.normal(10, 1, 30)
    oracle = partial + rng.normal(20, 1, 30)
    arm = partial + 0.25 * (oracle - partial) + rng.normal(0, 2, 30)
    strata = ["a"] * 20 + ["b"] * 10
    assert recovered_utility([arm] * 3, partial, oracle, strata).low == pytest.approx(
        recovered_utility(arm, partial, oracle, strata).low
    )
    # Seeds of which each gains another share of the way: the ratio of a draw is the mean share of the drawn seeds.
    shares = np.array([[0.1], [0.2], [0.6]])
    found = recovered_utility(partial + shares * (oracle - partial), partial, oracle, strata)
    assert (found.value, found.low, found.high) == pytest.approx((0.3, 0.1, 0.6))


def test_recovered_utility_is_undefined_without_a_gain_to_recover() -> None:
    rng = np.random.default_rng(3)
    partial = rng.normal(10, 1, 8)
    flat = recovered_utility(partial, partial, partial + rng.normal(0, 1, 8) - 0.0, ["a"] * 8)
    assert np.isnan(flat.value) and "holds 0" in flat.reason
    single = recovered_utility([1.0], [0.0], [2.0], ["a"])
    assert np.isnan(single.value) and "too few scenes" in single.reason
