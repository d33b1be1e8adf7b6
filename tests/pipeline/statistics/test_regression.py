from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.statistics import clustered_slope, mediated, scene_mean


def data(scenes: int, columns: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scenes of 2 to 9 observations."""
    rng = np.random.default_rng(seed)
    member = np.repeat(np.arange(scenes), rng.integers(2, 10, scenes))
    X = rng.normal(0.5, 1, (len(member), columns)) + rng.normal(0, 1, (scenes, columns))[member]
    y = 0.3 + X @ rng.normal(0, 1, columns) + rng.normal(0, 1, scenes)[member] + rng.normal(0, 1, len(member))
    return y, X, member


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 15), st.integers(1, 3), st.integers(0, 10**6))
def test_the_slopes_are_those_of_statsmodels(scenes: int, columns: int, seed: int) -> None:
    y, X, member = data(scenes, columns, seed)
    if len(y) <= 2 * columns + 2:
        return
    ours = clustered_slope(y, X, member, level=0.9)
    theirs = sm.OLS(y, sm.add_constant(X, has_constant="add")).fit(
        cov_type="cluster", cov_kwds={"groups": member}, use_t=True
    )
    np.testing.assert_allclose(ours.coefficients, theirs.params, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(ours.se, theirs.bse, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(ours.p, theirs.pvalues, rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(np.column_stack([ours.low, ours.high]), theirs.conf_int(0.1), rtol=1e-5, atol=1e-8)
    assert (ours.clusters, ours.observations, ours.reason) == (scenes, len(y), "")


def test_scaling_shifting_order_and_names_of_scenes() -> None:
    y, X, member = data(8, 2, 0)
    base = clustered_slope(y, X, member)
    scaled = clustered_slope(5 * y, X * [1.0, 1e-6], member)
    np.testing.assert_allclose(scaled.coefficients, base.coefficients * [5, 5, 5e6])
    np.testing.assert_allclose(scaled.se, base.se * [5, 5, 5e6])
    order = np.random.default_rng(1).permutation(len(y))
    renamed = np.array([f"scene_{i:04d}" for i in member])
    again = clustered_slope(y[order], X[order], renamed[order])
    np.testing.assert_allclose([again.coefficients, again.se], [base.coefficients, base.se])


def test_clusters_count_not_observations() -> None:
    """Each observation twice says no more."""
    y, X, member = data(10, 1, 2)
    once, twice = clustered_slope(y, X, member), clustered_slope(np.tile(y, 2), np.tile(X, (2, 1)), np.tile(member, 2))
    n = len(y)
    np.testing.assert_allclose(twice.se**2 * (2 * n - 2) / (2 * n - 1), once.se**2 * (n - 2) / (n - 1))


@pytest.mark.parametrize("fit", [clustered_slope, mediated])
def test_what_has_no_fit_says_why(fit) -> None:  # type: ignore[no-untyped-def]
    y, X, member = data(8, 1, 0)
    cases = {
        "2 scenes": (y, X, member % 2),
        "singular": (y, np.column_stack([X, 2 * X]), member),
        "constant": (y, np.full_like(X, 0.7), member),
        "missing": (np.where(member == 3, np.nan, y), X, member),
        "observations for": (y[[0, 20, -1]], np.column_stack([X, X**2])[[0, 20, -1]], [0, 1, 2]),
        "singular without one": (y, (member == 2).astype(float), member),
    }
    for reason, arguments in cases.items():
        if reason == "singular without one" and fit is clustered_slope:
            continue
        found = fit(*arguments)
        assert reason in found.reason, reason
        assert np.isnan([found.low, found.high, found.se]).all()
    with pytest.raises(ValueError, match="clusters"):
        fit(y, X, member[1:])


def test_the_parts_add_to_the_mean_and_each_is_slope_times_mean() -> None:
    y, X, member = data(9, 2, 3)
    found, fit = mediated(y, X, member), clustered_slope(y, X, member)
    assert found.effects.sum() == pytest.approx(y.mean()) == found.total
    np.testing.assert_allclose(found.effects, fit.coefficients * [1.0, *X.mean(axis=0)])


def test_the_jackknife_is_that_of_its_slow_twin() -> None:
    y, X, member = data(9, 2, 4)
    left_out = []
    for scene in range(9):
        kept = member != scene
        b = np.linalg.lstsq(np.column_stack([np.ones(kept.sum()), X[kept]]), y[kept])[0]
        left_out.append(b * [1.0, *X[kept].mean(axis=0)])
    np.testing.assert_allclose(mediated(y, X, member).se, (8 / 9 * 9 * np.var(left_out, axis=0)) ** 0.5)


def test_weights_let_scenes_weigh_alike() -> None:
    y, X, member = data(9, 1, 5)
    weights = 1.0 / np.bincount(member)[member]
    scenes = np.array([y[member == scene].mean() for scene in range(9)])
    found = mediated(y, X, member, weights=weights)
    assert found.total == pytest.approx(scene_mean(scenes, ["a"] * 9).value) == found.effects.sum()
    theirs = sm.WLS(y, sm.add_constant(X), weights=weights).fit()
    np.testing.assert_allclose(found.effects, theirs.params * [1.0, np.average(X[:, 0], weights=weights)])


def test_a_mean_that_goes_wholly_by_way_of_x() -> None:
    _, X, member = data(20, 1, 6)
    y = 2 * X[:, 0]
    found = mediated(y, X, member)
    np.testing.assert_allclose(found.effects, [0, y.mean()], atol=1e-9)
