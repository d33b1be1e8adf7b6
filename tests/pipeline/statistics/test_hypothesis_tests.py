from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from pipeline.statistics import holm, hypothesis_tests, sign_flip, wilcoxon

differences = st.lists(
    st.integers(-8, 8).map(lambda k: k / 10), min_size=2, max_size=9
)  # many ties, off the binary grid


@given(differences)
def test_all_sign_patterns_are_counted_as_a_slow_twin_counts_them(d: list[float]) -> None:
    tenths = [round(10 * value) for value in d]  # whole numbers: ties are ties
    sums = [
        sum(s * k for s, k in zip(signs, tenths, strict=True)) for signs in itertools.product((-1, 1), repeat=len(d))
    ]
    assert sign_flip(d) == pytest.approx(np.mean(np.abs(sums) >= abs(sum(tenths))))


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.integers(-5000, 5000).map(lambda k: k / 1024), min_size=2, max_size=10)
)  # sums without rounding: scipy takes other sums for ties
def test_the_exact_test_is_scipys(d: list[float]) -> None:
    theirs = stats.permutation_test((np.array(d),), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip(d) == pytest.approx(theirs.pvalue)


def test_drawn_patterns_come_near_the_exact_test() -> None:
    d = np.random.default_rng(0).normal(0.4, 1, 13)
    exact = sign_flip(d, draws=2**13)
    drawn = sign_flip(d, draws=2**13 - 1)
    assert drawn != exact and drawn == pytest.approx(exact, abs=0.01)
    assert drawn == sign_flip(d, draws=2**13 - 1) != sign_flip(d, draws=2**13 - 1, seed=1)


def test_the_least_p() -> None:
    for scenes in range(2, 14):
        assert sign_flip(np.arange(1, scenes + 1)) == 2 / 2**scenes
    assert sign_flip(np.arange(1, 31), draws=999) == 1 / 1000


@pytest.mark.parametrize("scenes", [8, 20])
@pytest.mark.parametrize("test", [sign_flip, wilcoxon])
def test_neither_sign_nor_scale_nor_order_matters(scenes: int, test) -> None:  # type: ignore[no-untyped-def]
    d = np.random.default_rng(1).normal(0.3, 1, scenes)
    assert test(-d) == test(d) == test(4 * d)
    assert test(d[::-1]) == pytest.approx(test(d), abs=0.02 if scenes > 13 and test is sign_flip else 1e-12)


@pytest.mark.parametrize("test", [sign_flip, wilcoxon])
def test_what_cannot_be_tested(test) -> None:  # type: ignore[no-untyped-def]
    assert np.isnan(test([])) and np.isnan(test([1.0])) and np.isnan(test([1.0, np.nan, 2.0]))
    assert test(np.zeros(5)) == 1.0 and test(np.zeros(30)) == 1.0


@settings(max_examples=30, deadline=None)
@given(differences)
def test_wilcoxon_is_scipys_with_the_ranks_of_zeros_kept(d: list[float]) -> None:
    if any(d):
        assert wilcoxon(d) == stats.wilcoxon(d, zero_method="pratt").pvalue


def test_wilcoxon_is_exact_without_ties() -> None:
    d = np.array([0.3, -0.1, 0.7, 1.1, 0.9, -0.2])
    ranks = stats.rankdata(np.abs(d))
    sums = [ranks @ np.array(signs) for signs in itertools.product((-1, 1), repeat=6)]
    assert wilcoxon(d) == pytest.approx(np.mean(np.abs(sums) >= abs(ranks @ np.sign(d))))


@settings(max_examples=15, deadline=None)  # multipletests collects garbage at every call: 65 ms and more
@given(st.lists(st.one_of(st.floats(0, 1), st.just(np.nan)), min_size=1, max_size=12))
def test_holm_is_that_of_statsmodels_over_what_is_known(p: list[float]) -> None:
    adjusted, known = holm(p), ~np.isnan(p)
    assert np.isnan(adjusted[~known]).all()
    if known.any():
        np.testing.assert_allclose(adjusted[known], multipletests(np.array(p)[known], method="holm")[1])


def test_holm_by_hand() -> None:
    np.testing.assert_allclose(holm([0.01, 0.04, np.nan, 0.03]), [0.03, 0.06, np.nan, 0.06])
    assert holm([]).shape == (0,)


def test_many_scenes_are_flipped_in_parts_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    d = np.random.default_rng(3).normal(0.1, 1.0, 40)
    whole = sign_flip(d, seed=5)
    monkeypatch.setattr(hypothesis_tests, "_FLOATS", 10_000)
    assert sign_flip(d, seed=5) == whole
