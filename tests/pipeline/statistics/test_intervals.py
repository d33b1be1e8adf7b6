from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.statistics import Estimate, difference, nested_draws, resample_scenes, resampling, scene_mean, stratified
from pipeline.statistics.intervals import TWO_WAY

METHODS = ("auto", "t", "studentised", "percentile")
values = st.lists(st.floats(-100, 100), min_size=2, max_size=20)


def ends(estimate: Estimate) -> list[float]:
    return [estimate.low, estimate.high]


def sample(scenes: int = 30, seeds: int | None = None, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    scene = rng.exponential(1, scenes)
    if seeds is None:
        return scene
    return scene + rng.normal(0, 0.3, (seeds, 1)) + rng.normal(0, 0.5, (seeds, scenes))


def two_strata(scenes: int) -> list[str]:
    return ["a"] * (scenes - scenes // 3) + ["b"] * (scenes // 3)


@given(values)
def test_one_stratum_is_the_plain_t_interval(x: list[float]) -> None:
    estimate = scene_mean(x, ["a"] * len(x), method="t")
    assert estimate.value == pytest.approx(np.mean(x))
    spread = np.std(x, ddof=1)
    if spread > 1e-9:
        low, high = stats.t.interval(0.95, len(x) - 1, np.mean(x), spread / len(x) ** 0.5)
        assert ends(estimate) == [pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9)]
        assert estimate.se == pytest.approx(stats.sem(x)) and estimate.freedom == pytest.approx(len(x) - 1)


def test_differences_between_strata_are_not_noise() -> None:
    x = [1.0, 1.1, 0.9, 11.0, 11.1, 10.9]
    pooled = scene_mean(x, ["a"] * 6)
    stratified = scene_mean(x, ["a"] * 3 + ["b"] * 3)
    assert stratified.value == pytest.approx(pooled.value)
    assert stratified.high - stratified.low < (pooled.high - pooled.low) / 20


@pytest.mark.parametrize("method", METHODS)
def test_moving_a_stratum_moves_the_interval_and_does_not_widen_it(method: str) -> None:
    x, strata = sample(), two_strata(30)
    near = scene_mean(x, strata, method=method)  # type: ignore[arg-type]
    far = scene_mean(x + 1e3 * (np.array(strata) == "b"), strata, method=method)  # type: ignore[arg-type]
    np.testing.assert_allclose(ends(far), np.add(ends(near), 1e3 / 3), rtol=1e-9)


def test_two_equal_strata_give_welchs_degrees_of_freedom() -> None:
    # The mean of two independent means is half their sum: Welch's interval of a difference, reflected and halved.
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, 5), rng.normal(3, 2, 5)
    estimate = scene_mean([*a, *b], ["a"] * 5 + ["b"] * 5, method="t")
    welch = stats.ttest_ind(a, -b, equal_var=False).confidence_interval(0.95)
    assert ends(estimate) == [pytest.approx(welch.low / 2), pytest.approx(welch.high / 2)]


@pytest.mark.parametrize("shape", [(1,), (3, 1)])
def test_one_scene_gives_no_interval(shape: tuple[int, ...]) -> None:
    estimate = scene_mean(np.full(shape, 3.0), ["a"])
    assert estimate.value == 3.0 and estimate.scenes == 1 and estimate.method == ""
    assert np.isnan([estimate.low, estimate.high, estimate.se, estimate.freedom]).all()
    assert not estimate.excludes_zero


def test_a_lone_scene_of_a_stratum_gives_no_interval_and_two_lone_ones_are_pooled() -> None:
    assert np.isnan(scene_mean([1.0, 2.0, 3.0], ["a", "a", "b"]).low)
    pooled, named = scene_mean([1.0, 2.0, 3.0, 5.0], list("aabc")), scene_mean([1.0, 2.0, 3.0, 5.0], list("aabb"))
    assert pooled == named and np.isfinite(pooled.low)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rows", [1, 3])
def test_equal_scenes_give_an_interval_of_no_width(method: str, rows: int) -> None:
    estimate = scene_mean(np.full((rows, 12), 0.1), ["a"] * 12, method=method)  # type: ignore[arg-type]
    assert ends(estimate) == [estimate.value] * 2 and estimate.se == 0 and estimate.value == pytest.approx(0.1)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_no_numbers_spoil_the_estimate_aloud(bad: float) -> None:
    assert not np.isfinite(scene_mean([bad, *range(12)], ["a"] * 13).value)
    assert np.isnan(scene_mean([bad, *range(12)], ["a"] * 13).low)
    assert scene_mean([], []).scenes == 0


def test_shapes_that_do_not_fit_are_refused() -> None:
    for wrong in (np.zeros(4), np.zeros((4, 3)).T, np.zeros((0, 3)), np.zeros((2, 2, 3))):
        with pytest.raises(ValueError, match="do not fit 3 strata"):
            scene_mean(wrong, ["a"] * 3)
    with pytest.raises(ValueError, match="unknown method"):
        scene_mean([1.0, 2.0], ["a"] * 2, method="bca")  # type: ignore[arg-type]


def test_auto_studentises_where_scenes_suffice_and_the_outcome_is_finite() -> None:
    cases = {(9,): "studentised", (8,): "t", (5, 5): "studentised", (3, 2): "t", (15, 3): "studentised", (15, 2): "t"}
    for sizes, method in cases.items():
        strata = [str(h) for h, size in enumerate(sizes) for _ in range(size)]
        assert scene_mean(sample(sum(sizes)), strata).method == method, sizes
    sparse = np.zeros(30)
    sparse[:2] = 1.0, 2.0  # every eighth draw holds neither
    assert np.isneginf(scene_mean(-sparse, ["a"] * 30, method="studentised").low)
    assert scene_mean(sparse, ["a"] * 30).method == "t"
    assert ends(scene_mean(sparse, ["a"] * 30)) == ends(scene_mean(sparse, ["a"] * 30, method="t"))


def slow_bootstrap_t(x: np.ndarray, strata: list[str], draws: int, seed: int) -> tuple[float, float]:
    """The studentised interval, a draw at a time."""
    t = []
    for picks in resample_scenes(strata, draws, seed):
        drawn = scene_mean(x[picks], np.array(strata)[picks], method="t")
        t.append((drawn.value - x.mean()) / drawn.se)
    t.sort()
    whole, skip = scene_mean(x, strata, method="t"), int((draws + 1) * 0.025)
    return whole.value - t[draws - skip] * whole.se, whole.value - t[skip - 1] * whole.se


def test_the_studentised_interval_is_that_of_its_slow_twin() -> None:
    x, strata = sample(14), two_strata(14)
    expected = slow_bootstrap_t(x, strata, 999, 5)
    assert ends(scene_mean(x, strata, method="studentised", draws=999, seed=5)) == pytest.approx(expected)


def test_percentiles_are_those_of_scipys_bootstrap() -> None:
    x = sample(20)
    theirs = stats.bootstrap((x,), np.mean, method="percentile", n_resamples=100_000, rng=1).confidence_interval
    ours = scene_mean(x, ["a"] * 20, method="percentile", draws=100_000)
    assert ends(ours) == [pytest.approx(theirs.low, abs=0.01), pytest.approx(theirs.high, abs=0.01)]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seeds", [None, 3])
def test_shift_scale_sign_and_order(method: str, seeds: int | None) -> None:
    x, strata = sample(30, seeds), two_strata(30)

    def estimate(values: np.ndarray, labels: list[str] = strata) -> np.ndarray:
        return np.array(ends(scene_mean(values, labels, method=method)))  # type: ignore[arg-type]

    whole = estimate(x)
    np.testing.assert_allclose(estimate(x + 7), whole + 7)
    np.testing.assert_allclose(estimate(x * 3), whole * 3)
    np.testing.assert_allclose(estimate(-x), -whole[::-1], atol=1e-9)
    moved = np.random.default_rng(1).permutation(30)
    # Another order draws other scenes: alike but for the noise of 10,000 draws.
    same = dict(rtol=1e-9) if seeds or method == "t" else dict(atol=0.04)
    np.testing.assert_allclose(estimate(x[..., moved], [strata[i] for i in moved]), whole, **same)


def test_a_seed_fixes_the_draws_and_another_changes_them_little() -> None:
    x, strata = sample(), two_strata(30)
    first, again, other = (scene_mean(x, strata, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    np.testing.assert_allclose(ends(first), ends(other), atol=0.04)


@given(values)
@settings(max_examples=30)
def test_identical_training_seeds_are_one(x: list[float]) -> None:
    strata = two_strata(len(x))
    one, four = scene_mean(x, strata, method="t"), scene_mean([x] * 4, strata)
    assert four.replicates == 4 and (four.method == TWO_WAY or np.isnan(four.low))
    np.testing.assert_allclose([four.value, *ends(four)], [one.value, *ends(one)], rtol=1e-6, atol=1e-9)


def test_seeds_alone_are_the_t_interval_of_their_means() -> None:
    means = np.array([1.0, 2.0, 4.0])
    estimate = scene_mean(np.repeat(means[:, None], 10, axis=1), ["a"] * 10)
    assert ends(estimate) == pytest.approx(stats.t.interval(0.95, 2, means.mean(), stats.sem(means)))


def test_the_two_way_variance_is_that_of_the_textbook() -> None:
    """Two-way random effects without replication: (MS scenes + MS seeds - MS interaction) / (R S)."""
    x = sample(12, 4)
    R, S = x.shape
    scenes = R * np.var(x.mean(axis=0), ddof=1)
    seeds = S * np.var(x.mean(axis=1), ddof=1)
    rest = (x - x.mean(axis=0) - x.mean(axis=1)[:, None] + x.mean()).ravel()
    interaction = rest @ rest / ((R - 1) * (S - 1))
    total = (scenes + seeds - interaction) / (R * S)
    assert total > max(scenes, seeds) / (R * S)  # the floor plays no part here
    estimate = scene_mean(x, ["a"] * S)
    assert estimate.se**2 == pytest.approx(total)
    parts = [(scenes, S - 1), (seeds, R - 1), (interaction, (R - 1) * (S - 1))]
    assert estimate.freedom == pytest.approx((total * R * S) ** 2 / sum(part**2 / freedom for part, freedom in parts))


@given(st.integers(2, 5), st.integers(4, 15), st.integers(0, 10**6))
@settings(max_examples=50)
def test_seeds_never_make_an_interval_surer_than_scenes_alone(seeds: int, scenes: int, seed: int) -> None:
    x = sample(scenes, seeds, seed)
    both = scene_mean(x, ["a"] * scenes)
    assert both.se >= scene_mean(x.mean(axis=0), ["a"] * scenes).se - 1e-12
    assert both.se >= stats.sem(x.mean(axis=1)) - 1e-12
    assert min(seeds, scenes) - 1 - 1e-9 <= both.freedom <= seeds * scenes


def test_a_difference_pairs_seeds_by_place_and_else_adds_their_variances() -> None:
    strata = two_strata(12)
    a, b = sample(12, 4), sample(12, 4, seed=1)
    assert difference(a, b, strata) == scene_mean(a - b, strata)
    assert difference(a[0], b[0], strata) == scene_mean(a[0] - b[0], strata)
    unpaired = difference(a, b[:3], strata)
    assert unpaired.value == pytest.approx(a.mean() - b[:3].mean()) and unpaired.replicates == 3
    # Seeds that shift all scenes alike: the interaction is nothing and the variances add.
    left, right = a[0] + np.array([[0.0], [1.0], [3.0]]), b[0] + np.array([[0.0], [2.0]])
    found = difference(left, right, strata)
    scene = scene_mean(a[0] - b[0], strata, method="t").se
    assert found.se**2 == pytest.approx(scene**2 + np.var([0, 1, 3], ddof=1) / 3 + np.var([0, 2], ddof=1) / 2)
    mirrored = difference(right, left, strata)
    assert [mirrored.value, *ends(mirrored)] == pytest.approx([-found.value, -found.high, -found.low])


def test_a_difference_against_an_untrained_arm_has_the_variance_of_one_sides_seeds() -> None:
    a, b, strata = sample(12, 4), sample(12, seed=1), two_strata(12)
    found, subtracted = difference(a, b, strata), scene_mean(a - b, strata)
    assert (found.value, found.se, found.freedom) == pytest.approx(
        (subtracted.value, subtracted.se, subtracted.freedom)
    )


def test_nested_draws_of_single_rows_are_those_of_scenes() -> None:
    a, b, strata = sample(9), sample(9, seed=1), two_strata(9)
    expected = (a - b)[resample_scenes(strata, 5_000, 3)].mean(axis=1)
    np.testing.assert_allclose(nested_draws(a, b, strata, 5_000, 3), expected)


def test_nested_draws_have_the_variance_of_crossed_draws() -> None:
    """The pigeonhole bootstrap's variance in closed form, for paired and for independent seeds."""
    a, b, strata = sample(8, 4), sample(8, 4, seed=1), ["a"] * 8

    def expected(x: np.ndarray) -> tuple[float, float]:
        R, S = x.shape
        rest = x - x.mean(axis=0) - x.mean(axis=1)[:, None] + x.mean()
        return float(x.mean(axis=0).var() / S), float(x.mean(axis=1).var() / R + (rest**2).mean() / (R * S))

    paired = nested_draws(a, b, strata, 40_000, 0)
    assert paired.mean() == pytest.approx((a - b).mean(), abs=0.01)
    assert paired.var() == pytest.approx(sum(expected(a - b)), rel=0.04)
    apart = nested_draws(a, b[:3], strata, 40_000, 0)
    scene = float((a.mean(axis=0) - b[:3].mean(axis=0)).var() / 8)
    assert apart.var() == pytest.approx(scene + expected(a)[1] + expected(b[:3])[1], rel=0.04)
    np.testing.assert_array_equal(apart, nested_draws(a, b[:3], strata, 40_000, 0))
    only_seeds = np.repeat(np.arange(5.0)[:, None], 8, axis=1)
    first, other = (nested_draws(only_seeds, np.zeros(8), strata, 100, seed) for seed in (0, 1))
    assert (first != other).any()


def test_draws_are_those_of_one_call_however_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "_AT_ONCE", 9_001)
    strata, draws = ["a"] * 7 + ["b"] * 5, 4_321
    rng = np.random.default_rng(11)
    expected = np.hstack([rng.integers(0, 7, (draws, 7)), 7 + rng.integers(0, 5, (draws, 5))])
    np.testing.assert_array_equal(resample_scenes(strata, draws, 11), expected)
    for counts, members in zip(resampling.draw_counts((7, 5), draws, 11), (range(7), range(7, 12)), strict=True):
        assert counts.tolist() == [[row.count(scene) for scene in members] for row in expected.tolist()]


def test_many_scenes_are_drawn_in_parts_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values, strata = np.random.default_rng(2).gamma(2.0, size=24), ["a"] * 12 + ["b"] * 12
    whole = scene_mean(values, strata, method="studentised", seed=3)
    for module in (resampling, stratified):
        monkeypatch.setattr(module, "MOST_FLOATS", 36_000)  # of 12 scenes 3,000 draws at once
    resampling.draw_counts.cache_clear()
    parts = scene_mean(values, strata, method="studentised", seed=3)
    assert resampling.draw_counts((12, 12), 10_000, 3)[0].dtype == np.uint8
    resampling.draw_counts.cache_clear()  # what other tests ask for is floats
    assert (parts.low, parts.high) == (pytest.approx(whole.low, rel=1e-12), pytest.approx(whole.high, rel=1e-12))
