"""The rule by which views are shown, against a reading of it that goes scene by scene."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline.report import inputs
from pipeline.report.choice import choose

SETTING = inputs.Setting("antipodal", "analytic", "realsense")


@pytest.fixture(scope="module")
def data(plain_run) -> inputs.RunData:
    return inputs.read(plain_run.experiment, plain_run.folder)


def with_differences(data: inputs.RunData, differences: dict[int, list[float]]) -> inputs.RunData:
    """Give pcn-qal these differences in AP over pcn-cd, by scene and view."""
    keys = {"generator": "antipodal", "scorer": "analytic", "camera": "realsense", "split": "test_seen", "object": -1}
    rows = []
    for scene, values in differences.items():
        for view, value in enumerate(values):
            rows.append({**keys, "arm": "pcn-cd", "scene": scene, "view": view, "ap": 50.0})
            rows.append({**keys, "arm": "pcn-qal", "scene": scene, "view": view, "ap": 50.0 + value})
    return replace(data, views=pd.DataFrame(rows))


def test_scenes_are_chosen_by_their_means_and_views_by_their_scene(data: inputs.RunData) -> None:
    made = {7: [1.0, 2.0, 6.0], 3: [-4.0, 0.0], 5: [0.5, 0.7], 9: [9.0, 3.0, 6.5], 4: [1.0, 1.0]}
    choices, rule = choose(with_differences(data, made), SETTING)
    assert "pcn-qal − pcn-cd in AP" in rule and "nearest to its mean" in rule
    # Means: 3, -2, 0.6, 6.17, 1. In scene 3 both views are as near: the lower number wins.
    assert [(c.why, c.scene, c.view) for c in choices] == [
        ("largest gain", 9, 2),
        ("largest loss", 3, 0),
        ("median difference", 4, 0),
    ]
    assert [c.value for c in choices] == pytest.approx([18.5 / 3, -2.0, 1.0])
    assert choices[0].title == "Largest gain: scene 9 (+6.17 points), view 2, test_seen"


def test_it_is_the_rule_on_a_run(data: inputs.RunData) -> None:
    whole = data.views[data.views["object"] == -1]
    by_scene: dict[int, dict[int, float]] = {}
    for row in whole[whole["arm"] == "pcn-qal"].itertuples():
        other = whole[(whole["arm"] == "pcn-cd") & (whole["scene"] == row.scene) & (whole["view"] == row.view)]
        by_scene.setdefault(row.scene, {})[row.view] = row.ap - float(other["ap"].iloc[0])
    means = {scene: np.mean(list(own.values())) for scene, own in by_scene.items()}
    ranked = sorted(means, key=lambda scene: (means[scene], scene))
    choices, _ = choose(data, SETTING)
    assert [c.scene for c in choices] == [ranked[-1], ranked[0], ranked[1]]  # of four the lower middle one
    for c in choices:
        distance = {view: abs(value - means[c.scene]) for view, value in by_scene[c.scene].items()}
        assert distance[c.view] == pytest.approx(min(distance.values()))


def test_ties_go_to_the_lower_scene_and_no_scene_comes_twice(data: inputs.RunData) -> None:
    choices, _ = choose(with_differences(data, {12: [0.0], 8: [0.0], 10: [0.0], 9: [0.0]}), SETTING)
    assert [c.scene for c in choices] == [8, 9, 10]
    assert [c.why for c in choices][:2] == ["highest difference (no scene gains)", "lowest difference (no scene loses)"]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_scenes_show_fewer(data: inputs.RunData, count: int) -> None:
    made = with_differences(data, {100 + index: [float(index + 1)] for index in range(count)} or {100: [np.nan]})
    choices, rule = choose(made, SETTING)
    assert len(choices) == count == len({c.scene for c in choices})
    assert ([c.why for c in choices] == ["the only scene"]) == (count == 1)
    assert bool(rule)


def test_without_a_pair_an_arm_is_measured(data: inputs.RunData) -> None:
    alone = replace(data, experiment=data.experiment.model_copy(update={"comparisons": ()}))
    choices, rule = choose(alone, SETTING)
    assert "AP of partial" in rule and [c.why for c in choices] == ["best", "worst", "median"]
    assert "%" in choices[0].title
