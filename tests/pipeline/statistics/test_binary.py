from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar
from statsmodels.stats.proportion import proportion_confint

from pipeline.statistics import mcnemar, probability_of_improvement, wilson

counts = st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts, st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_is_that_of_statsmodels(count: tuple[int, int], level: float) -> None:
    theirs = proportion_confint(*count, alpha=1 - level, method="wilson")
    assert wilson(*count, level) == pytest.approx(theirs, abs=1e-12)


@given(counts)
def test_wilson_mirrors_and_holds_the_share(count: tuple[int, int]) -> None:
    successes, n = count
    low, high = wilson(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    assert wilson(n - successes, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_wilson_of_nothing_and_of_too_many() -> None:
    assert np.isnan(wilson(0, 0)).all()
    with pytest.raises(ValueError, match="4 successes of 3"):
        wilson(4, 3)


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_that_of_statsmodels(only_a: int, only_b: int) -> None:
    theirs = their_mcnemar([[7, only_a], [only_b, 3]], exact=True).pvalue if only_a + only_b else 1.0
    assert mcnemar(only_a, only_b) == pytest.approx(theirs) and mcnemar(only_b, only_a) == mcnemar(only_a, only_b)


@given(st.lists(st.integers(-2, 2), min_size=1, max_size=20))
def test_improvement_counts_ties_half_and_mirrors(d: list[int]) -> None:
    value, low, high = probability_of_improvement(d)
    assert value == pytest.approx(np.mean([1.0 if x > 0 else 0.5 if x == 0 else 0.0 for x in d]))
    assert (low, high) == wilson(value * len(d), len(d))
    assert probability_of_improvement(np.negative(d)) == pytest.approx((1 - value, 1 - high, 1 - low))


def test_improvement_with_training_seeds_is_over_as_many_scenes() -> None:
    d = np.array([[1.0, -1.0, 2.0, 0.0], [1.0, 1.0, 2.0, 0.0]])
    assert probability_of_improvement(d) == (0.75, *wilson(3.0, 4))
    assert probability_of_improvement([d[0]] * 5) == pytest.approx(probability_of_improvement(d[0]))
    assert np.isnan(probability_of_improvement([])).all() and np.isnan(probability_of_improvement([1, np.nan])).all()
