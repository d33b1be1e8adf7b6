from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.mediation import COVERAGE, INTERCEPT, SPURIOUS, Mediation
from pipeline.row_tables import Rows

Make = Callable[..., Any]
TWO = [{"name": "a", "checkpoint": "pcn-qal"}, {"name": "b", "checkpoint": "pcn-cd"}]


def _mediation(experiment: Any, rows: Rows) -> tuple[pd.DataFrame, pd.DataFrame]:
    found = Mediation(experiment)
    found.add(rows)
    return found.tables()


def _with_utility(rows: Rows, of: Callable[[pd.DataFrame], pd.Series]) -> Rows:
    """Let the quality of every object in a view follow from its completion metrics."""
    key = ["arm", "replicate", "camera", "split", "scene", "view", "object"]
    known = rows.completion_views.assign(quality=of(rows.completion_views))[[*key, "quality"]]
    views = rows.views.drop(columns="quality").merge(known, on=key, how="left")
    return Rows(rows.grasps, views, rows.completion_views, rows.crossed_views)


def test_a_planted_line_is_found_and_its_parts_add_up(experiment_of: Make, by_lot: Make) -> None:
    experiment = experiment_of(TWO, comparisons=[["a", "b"]])
    rows = _with_utility(by_lot(experiment), lambda c: 0.1 + 0.5 * c[COVERAGE] - 0.3 * c[SPURIOUS])
    lines, points = _mediation(experiment, rows)
    both = lines.query("model == 'both'").set_index("term")
    assert both.loc[COVERAGE, "slope"] == pytest.approx(0.5)
    assert both.loc[SPURIOUS, "slope"] == pytest.approx(-0.3)
    assert both.loc[INTERCEPT, "slope"] == pytest.approx(0.0, abs=1e-9)
    assert len(points) == 8 * 3
    assert both["effect"].sum() == pytest.approx(points["utility"].mean())


def test_noise_widens_the_interval_and_the_truth_mostly_stays_inside(experiment_of: Make, by_lot: Make) -> None:
    experiment = experiment_of(TWO, comparisons=[["a", "b"]])
    rows, rng = by_lot(experiment), np.random.default_rng(1)
    inside, widths = 0, []
    for _ in range(40):
        noisy = _with_utility(rows, lambda c: 0.5 * c[COVERAGE] + rng.normal(0, 0.2, len(c)))
        line = _mediation(experiment, noisy)[0].query("model == 'both'").set_index("term").loc[COVERAGE]
        inside += line["ci_low"] < 0.5 < line["ci_high"]
        widths.append(line["ci_high"] - line["ci_low"])
    assert inside >= 32  # eight clusters: the interval is known to be a little short
    assert np.median(widths) > 0.05


def test_points_are_differences_of_means(experiment_of: Make, by_lot: Make) -> None:
    experiment = experiment_of(TWO, comparisons=[["a", "b"]])
    rows = by_lot(experiment)
    points = _mediation(experiment, rows)[1].set_index(["scene", "object"])
    completion = rows.completion_views.set_index(["arm", "scene", "object"])[COVERAGE]
    for scene, item in ((100, 3), (163, 11)):
        expected = completion.loc[("a", scene, item)].mean() - completion.loc[("b", scene, item)].mean()
        assert points.loc[(scene, item), COVERAGE] == pytest.approx(expected)


def test_what_never_changes_gives_no_slope_but_a_reason(experiment_of: Make, by_lot: Make) -> None:
    experiment = experiment_of(TWO, comparisons=[["a", "b"]])
    rows = by_lot(experiment)
    flat = rows.completion_views.assign(**{SPURIOUS: 0.25})
    lines, _ = _mediation(experiment, Rows(rows.grasps, rows.views, flat, rows.crossed_views))
    both = lines.query("model == 'both'")
    assert both["slope"].isna().all() and (both["reason"] != "").all()
    assert lines.query("model == 'coverage alone'")["slope"].notna().all()
