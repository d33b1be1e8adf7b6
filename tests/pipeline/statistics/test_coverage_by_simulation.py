"""Do the intervals cover and the tests keep their level? 2,000 experiments a row.

To print the tables: python -m pytest -m slow -q -s tests/pipeline/statistics/test_coverage_by_simulation.py
The outcome lies in scripts/results/statistics_coverage.txt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.statistics import (
    clustered_slope,
    mediated,
    minimum_detectable_effect,
    nested_draws,
    scene_mean,
    sign_flip,
)
from pipeline.statistics.intervals import may_studentise
from pipeline.statistics.resampling import scene_groups
from pipeline.statistics.stratified import (
    crossed,
    percentile_ends,
    scene_part,
    seed_parts,
    studentised_ends,
    t_ends,
)

pytestmark = pytest.mark.slow

FloatArray = NDArray[np.float64]
Ends = tuple[FloatArray, FloatArray]

EXPERIMENTS, VIEWS, DRAWS = 2_000, 8, 10_000
NOISE = 3 * (0.05 * 0.95 / EXPERIMENTS) ** 0.5  # three standard errors of a coverage of 95 %
SCENES = (5, 10, 30)
KINDS = ("normal", "exponential", "lognormal", "ceiling", "sparse")


def strata(scenes: int) -> list[str]:
    """5 = 3 + 2, 10 = 5 + 5, 30 = 15 + 15."""
    return ["a"] * (scenes - scenes // 2) + ["b"] * (scenes // 2)


def experiments(kind: str, scenes: int, rng: np.random.Generator) -> tuple[FloatArray, float]:
    """Return ``(E, S)`` scene differences, means over views that share their scene's effect, and their true mean."""
    shape, first = (EXPERIMENTS, scenes), np.array(strata(scenes)) == "a"
    mean = np.where(first, -0.3, 0.5)
    views = rng.normal(0, 1 if kind == "normal" else 0.5, (*shape, VIEWS)).mean(axis=-1)
    if kind == "normal":
        return mean + rng.normal(0, 1, shape) + views, float(mean.mean())
    if kind == "exponential":
        return mean + rng.exponential(1, shape) - 1 + views, float(mean.mean())
    if kind == "lognormal":
        return mean + rng.lognormal(0, 1, shape) - np.exp(0.5) + views, float(mean.mean())
    if kind == "ceiling":  # successes of the views of a scene: nearly all of one arm's, most of the other's
        better, worse = np.full(scenes, 20.0), np.where(first, 4.0, 2.0)
        rates = rng.beta(better, 1, shape), rng.beta(worse, 1, shape)
        found = [rng.binomial(VIEWS, rate) / VIEWS for rate in rates]
        return found[0] - found[1], float((better / (better + 1) - worse / (worse + 1)).mean())
    # sparse: the arms differ in 15 % of scenes only
    return rng.exponential(1, shape) * (rng.random(shape) < 0.15), 0.15


def in_chunks(ends: Callable[..., Ends], x: FloatArray, groups: list[NDArray[np.int64]]) -> Ends:
    parts = [ends(x[i : i + 100], groups, 0.95, DRAWS, 0) for i in range(0, len(x), 100)]
    return np.concatenate([low for low, _ in parts]), np.concatenate([high for _, high in parts])


def all_methods(x: FloatArray, labels: list[str]) -> dict[str, Ends]:
    groups = scene_groups(labels)
    t = t_ends(x.mean(axis=1), scene_part(x, groups), 0.95)
    studentised = in_chunks(studentised_ends, x, groups)
    use = np.isfinite(studentised).all(axis=0) & may_studentise(groups)
    auto = np.where(use, studentised[0], t[0]), np.where(use, studentised[1], t[1])
    return {"t": t, "studentised": studentised, "percentile": in_chunks(percentile_ends, x, groups), "auto": auto}


def coverage(ends: Ends, truth: float) -> float:
    return float(np.mean((ends[0] <= truth) & (truth <= ends[1])))


def test_coverage_of_each_method_at_each_number_of_scenes() -> None:
    print(f"\n\ncoverage of nominal 95 % (in brackets the median width); noise ± {100 * NOISE:.1f} points")
    names = ("t", "studentised", "percentile", "auto")
    print(f"{'differences':12} {'scenes':>6} " + " ".join(f"{name:>15}" for name in names))
    for kind in KINDS:
        for scenes in SCENES:
            x, truth = experiments(kind, scenes, np.random.default_rng([1, scenes]))
            found = all_methods(x, strata(scenes))
            covered = {name: coverage(ends, truth) for name, ends in found.items()}
            widths = {name: float(np.median(high - low)) for name, (low, high) in found.items()}
            cells = [f"{f'{100 * covered[name]:.1f} ({widths[name]:.2f})':>15}" for name in names]
            print(f"{kind:12} {scenes:6} " + " ".join(cells))
            assert covered["auto"] >= covered["percentile"] - NOISE
            if kind == "normal" and scenes == 30:
                assert 0.93 <= covered["auto"] <= 0.97
            for row in range(3):  # the vectorised table is of what a comparison calls
                for name in names:
                    one = scene_mean(x[row], strata(scenes), method=name)  # type: ignore[arg-type]
                    np.testing.assert_allclose([one.low, one.high], [end[row] for end in found[name]], atol=1e-9)


def test_the_permutation_test_keeps_its_level() -> None:
    print("\n\nsign-flip permutation test: % rejected at a nominal 5 % where nothing differs")
    nulls = {
        "normal": lambda rng, n: rng.normal(0, 1, n),
        "lognormal, symmetric": lambda rng, n: rng.lognormal(0, 1, n) * rng.choice([-1, 1], n),
        "sparse, symmetric": lambda rng, n: rng.exponential(1, n) * rng.choice([-1, 0, 0, 0, 1], n),
        "exponential, skewed": lambda rng, n: rng.exponential(1, n) - 1,  # outside the null: printed only
    }
    for kind, draw in nulls.items():
        rates = []
        for scenes in SCENES:
            rng = np.random.default_rng([2, scenes])
            p = [sign_flip(draw(rng, scenes), draws=1_000, seed=i) for i in range(EXPERIMENTS)]
            rates.append(float(np.mean(np.array(p) <= 0.05)))
            assert rates[-1] <= 0.05 + NOISE or "skewed" in kind
        print(f"{kind:22}" + "".join(f"  {n} scenes {100 * rate:4.1f}" for n, rate in zip(SCENES, rates, strict=True)))


def test_coverage_over_scenes_and_training_seeds() -> None:
    print("\n\ntwo-way interval: coverage of nominal 95 %; sd of scenes 1, of seed x scene 0.5, of seeds as said")
    print(
        f"{'scenes x seeds':15}"
        + "".join(f"{f'sd {sd:g}':>9}" for sd in (0.0, 0.1, 0.2, 0.5))
        + "   scenes only, sd 0.2"
    )
    for scenes in SCENES:
        for seeds in (2, 3, 5):
            rates, alone = [], np.nan
            for sd in (0.0, 0.1, 0.2, 0.5):
                rng = np.random.default_rng([3, scenes, seeds, int(10 * sd)])
                shape = (EXPERIMENTS, seeds, scenes)
                mean = np.where(np.array(strata(scenes)) == "a", -0.3, 0.5)
                x = mean + rng.normal(0, 1, (EXPERIMENTS, 1, scenes)) + rng.normal(0, 0.5, shape)
                x += rng.normal(0, sd, (EXPERIMENTS, seeds, 1)) if sd else 0.0
                groups, averaged = scene_groups(strata(scenes)), x.mean(axis=1)
                by_scene = scene_part(averaged, groups)
                part = crossed(by_scene, [seed_parts(x, groups)])
                rates.append(coverage(t_ends(averaged.mean(axis=1), part, 0.95), float(mean.mean())))
                if sd == 0.2:
                    alone = coverage(t_ends(averaged.mean(axis=1), by_scene, 0.95), float(mean.mean()))
                one = scene_mean(x[0], strata(scenes))
                assert (one.se, one.freedom) == (
                    pytest.approx(part.variance[0] ** 0.5),
                    pytest.approx(part.freedom[0]),
                )
                assert rates[-1] >= 0.92 or (scenes, seeds) != (30, 5)
            cells = "".join(f"{100 * rate:9.1f}" for rate in rates)
            print(f"{f'{scenes} x {seeds}':15}{cells}{100 * alone:12.1f}")


def test_coverage_of_two_arms_with_other_numbers_of_seeds() -> None:
    print("\n\nthe same of a difference, seeds not paired (sd 0.2): ", end="")
    for left, right, scenes in ((5, 1, 30), (5, 3, 30), (3, 2, 30), (5, 3, 10)):
        rng = np.random.default_rng([4, left, right])
        groups = scene_groups(strata(scenes))
        shared = rng.normal(0, 1, (EXPERIMENTS, 1, scenes))
        sides = [
            shared * scale + rng.normal(0, 0.5, (EXPERIMENTS, n, scenes)) for n, scale in ((left, 1.5), (right, 1))
        ]
        sides = [side + (rng.normal(0, 0.2, (*side.shape[:2], 1)) if side.shape[1] > 1 else 0.0) for side in sides]
        averaged = sides[0].mean(axis=1) - sides[1].mean(axis=1)
        seeds = [seed_parts(side, groups) for side in sides if side.shape[1] > 1]
        rate = coverage(t_ends(averaged.mean(axis=1), crossed(scene_part(averaged, groups), seeds), 0.95), 0.0)
        print(f" {left} - {right} seeds, {scenes} scenes {100 * rate:.1f};", end="")
        assert rate >= 0.92 or scenes < 30
    print()


def test_coverage_of_percentiles_of_nested_draws() -> None:
    print("\n\npercentiles of nested draws (400 experiments, sd of seeds 0.2): ", end="")
    for scenes, seeds in ((10, 3), (30, 3), (30, 5)):
        rng, hits = np.random.default_rng([5, scenes, seeds]), []
        for i in range(400):
            x = rng.normal(0, 1, scenes) + rng.normal(0, 0.5, (seeds, scenes)) + rng.normal(0, 0.2, (seeds, 1))
            low, high = np.quantile(
                nested_draws(x, np.zeros((seeds, scenes)), strata(scenes), 1_000, i), [0.025, 0.975]
            )
            hits.append(low <= 0 <= high)
        print(f" {scenes} x {seeds} {100 * np.mean(hits):.1f};", end="")
        assert np.mean(hits) >= 0.85
    print()


def test_the_minimum_detectable_effect_is_found_four_times_in_five() -> None:
    print("\n\npower at the minimum detectable effect of the true standard error: ", end="")
    for scenes in (10, 30):
        rng = np.random.default_rng([6, scenes])
        groups, true_se = scene_groups(strata(scenes)), scenes**-0.5
        known = scene_mean(rng.normal(0, 1, scenes), strata(scenes), method="t")
        effect = minimum_detectable_effect(replace(known, se=true_se, freedom=scenes - 2.0))
        x = rng.normal(effect, 1, (EXPERIMENTS, scenes))
        low, high = t_ends(x.mean(axis=1), scene_part(x, groups), 0.95)
        power = float(np.mean((low > 0) | (high < 0)))
        print(f" {scenes} scenes {100 * power:.1f} %;", end="")
        assert abs(power - 0.8) <= 3 * (0.8 * 0.2 / EXPERIMENTS) ** 0.5 + 0.01  # t is central here, in truth it is not
    print()


def test_coverage_of_the_parts_of_a_mean() -> None:
    """Two mediators with scene effects, 20 views a scene; the jackknife beside percentiles of drawn scenes."""
    print("\n\nmediation: coverage of nominal 95 % of the direct part and of two mediators (1,000 experiments);")
    print("clustered: of the two slopes, by the cluster-robust covariance")
    views, slopes, means = 20, np.array([2.0, -1.0]), np.array([0.5, 1.0])
    truth = np.array([0.3, *(slopes * means)])
    for scenes in SCENES:
        rng, member = np.random.default_rng([7, scenes]), np.repeat(np.arange(scenes), views)
        jackknife, percentile, robust = np.zeros(3), np.zeros(3), np.zeros(2)
        for _ in range(1_000):
            X = means + rng.normal(0, 0.5, (scenes, 2))[member] + rng.normal(0, 1, (len(member), 2))
            y = 0.3 + X @ slopes + rng.normal(0, 0.5, scenes)[member] + rng.normal(0, 1, len(member))
            found = mediated(y, X, member)
            jackknife += (found.low <= truth) & (truth <= found.high)
            low, high = np.quantile(drawn_parts(y, X, scenes, views, rng), [0.025, 0.975], axis=0)
            percentile += (low <= truth) & (truth <= high)
            fit = clustered_slope(y, X, member)
            robust += (fit.low[1:] <= slopes) & (slopes <= fit.high[1:])
        rows = [", ".join(f"{100 * rate:.1f}" for rate in hits / 1_000) for hits in (jackknife, percentile, robust)]
        print(f"{scenes:3} scenes  jackknife {rows[0]}   percentile {rows[1]}   clustered {rows[2]}")
        assert (jackknife / 1_000 >= 0.92).all() or scenes < 30
        assert (robust / 1_000 >= 0.92).all() or scenes < 30
        assert jackknife.sum() >= percentile.sum()


def drawn_parts(y: FloatArray, X: FloatArray, scenes: int, views: int, rng: np.random.Generator) -> FloatArray:
    """Return ``(draws, 3)`` parts of the mean where scenes are drawn anew."""
    design = np.column_stack([np.ones(len(y)), X]).reshape(scenes, views, 3)
    gram = np.einsum("gvi,gvj->gij", design, design)
    right = np.einsum("gvi,gv->gi", design, y.reshape(scenes, views))
    weights = rng.multinomial(scenes, np.full(scenes, 1 / scenes), 500).astype(float)
    grams = np.einsum("dg,gij->dij", weights, gram)
    b = np.linalg.solve(grams, (weights @ right)[..., None])[..., 0]
    parts: FloatArray = b * grams[:, 0] / grams[:, 0, :1]
    return parts
