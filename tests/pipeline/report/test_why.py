"""What the report says of why arms differ, and how sure it is: no more than the tables say."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from pipeline.report import because, inference, inputs, style, why

SETTING = inputs.Setting("antipodal", "analytic", "realsense")
PAIR = ("pcn-qal", "pcn-cd")


@pytest.fixture(scope="module")
def data(plain_run) -> inputs.RunData:
    return inputs.read(plain_run.experiment, plain_run.folder)


def _reasons(**levels: tuple[float, float, float]) -> pd.DataFrame:
    keys = {"arm_a": PAIR[0], "arm_b": PAIR[1], "generator": "antipodal", "scorer": "analytic", "camera": "realsense"}
    rows = [
        {
            **keys,
            "factor": "reason",
            "level": level.replace("_", " "),
            "difference": value,
            "ci_low": low,
            "ci_high": high,
        }
        for level, (value, low, high) in levels.items()
    ]
    return pd.DataFrame(rows)


def _said(data: inputs.RunData, **changes: Any) -> str:
    return " ".join(because.because(replace(data, **changes), SETTING, PAIR))


def test_reasons_are_named_largest_first_with_their_direction(data: inputs.RunData) -> None:
    table = _reasons(hits_the_target=(1.0, 0.5, 1.5), no_contact=(-3.0, -4.0, -2.0), closes_on_nothing=(0.1, 0.05, 0.2))
    said = _said(data, attribution=table)
    assert "more lost to grasps without contact (−3.00 points [−4.00, −2.00]), less lost to grasps that hit" in said
    assert "close on nothing" not in said  # a fortieth of all that moves
    assert "sure by itself" not in said


def test_parts_that_are_not_sure_are_called_so(data: inputs.RunData) -> None:
    none = _reasons(hits_the_target=(1.0, -0.5, 1.5), no_contact=(-3.0, -4.0, 2.0))
    assert "no part is sure by itself" in _said(data, attribution=none)
    some = _reasons(hits_the_target=(1.0, 0.5, 1.5), no_contact=(-3.0, -4.0, 2.0))
    assert "not every part is sure by itself" in _said(data, attribution=some)


def test_nothing_is_said_where_nothing_was_explained(data: inputs.RunData) -> None:
    empty = {name: getattr(data, name).head(0) for name in ("attribution", "crossed", "mediation", "mediation_points")}
    assert because.because(replace(data, **empty), SETTING, PAIR) == []
    shown = why.why(replace(data, **empty), SETTING, "w")
    assert shown.pairs == () and "nothing to part" in shown.note and shown.crossed is None


@pytest.mark.parametrize(
    ("coverage", "spurious", "verdict"),
    [
        ((-0.1, 0.9), (-0.9, 0.1), "neither is shown to matter here"),
        (
            (0.1, 0.9),
            (-0.9, -0.1),
            "more coverage goes with more utility and more spurious points go with less utility.",
        ),
        ((0.1, 0.9), (-0.9, 0.1), "more coverage goes with more utility, spurious points not shown to matter."),
        ((-0.1, 0.9), (0.1, 0.9), "more spurious points go with more utility, coverage not shown to matter."),
    ],
)
def test_coverage_is_judged_by_its_interval(
    data: inputs.RunData, coverage: tuple[float, float], spurious: tuple[float, float], verdict: str
) -> None:
    keys = {"arm_a": PAIR[0], "arm_b": PAIR[1], "generator": "antipodal", "scorer": "analytic", "camera": "realsense"}
    rows = [
        {
            **keys,
            "metric": "quality",
            "model": "both",
            "term": term,
            "slope": sum(ends) / 2,
            "ci_low": ends[0],
            "ci_high": ends[1],
            "mean_change": -0.02,
            "effect": -0.01 * sum(ends),
            "effect_low": -0.02 * ends[1],
            "effect_high": -0.02 * ends[0],
        }
        for term, ends in (("coverage@5mm", coverage), ("spurious@5mm", spurious))
    ]
    said = _said(data, mediation=pd.DataFrame(rows))
    assert verdict in said
    ends = f"[{-0.02 * coverage[1]:.3f}, {-0.02 * coverage[0]:+.3f}]".replace("-", "−")
    assert f"−2.0 points of coverage go with −{0.01 * sum(coverage):.3f} {ends}" in said


def test_the_section_shows_every_factor_and_its_numbers(data: inputs.RunData) -> None:
    shown = why.why(data, SETTING, "w")
    first = shown.pairs[0]
    assert first.title == "pcn-qal − pcn-cd" and len(first.sentences) == 3
    drawn = [figure.caption.partition(".")[0] for figure in first.figures]
    assert drawn[0] == "By what fails" and "By width of the grasp" in drawn and len(drawn) == 5
    table = data.attribution
    own = table[(table["arm_a"] == PAIR[0]) & (table["arm_b"] == PAIR[1])]
    rows = [row for row in first.table.rows if len(row) > 1]
    assert len(rows) == len(own)
    assert sorted(row[3].value for row in rows) == pytest.approx(sorted(own["difference"]))
    assert len(set(first.table.head)) == len(first.table.head)
    assert len(first.scatter) == 2 and first.slopes is not None
    whole = data.comparisons.query("arm_a == @PAIR[0] and arm_b == @PAIR[1] and object == 'all' and split == 'all'")
    expected = whole[whole["metric"] == "ap"]["difference"].item()
    for factor, part in own[own["additive"]].groupby("factor"):
        assert part["difference"].sum() == pytest.approx(expected, abs=1e-3), factor


def test_the_crossed_table_has_arms_and_differences(data: inputs.RunData) -> None:
    table = why.why(data, SETTING, "w").crossed
    assert table is not None
    heads = [row[0].text for row in table.rows]
    assert heads[:4] == data.arms and "pcn-qal − pcn-cd" in heads
    assert table.head == (
        "arm, difference",
        "own grasps",
        "own grasps, true collisions",
        "true models' grasps, own collisions",
    )


def test_a_drawing_says_its_numbers_to_those_who_cannot_see(data: inputs.RunData) -> None:
    figure = why.why(data, SETTING, "w").pairs[0].figures[0]
    assert isinstance(figure.svg, style.Drawing)
    label = re.findall(r'aria-label="([^"]*)"', str(figure.svg))[0]
    assert label.startswith("Difference in AP, pcn-qal − pcn-cd, by what fails: ")


def test_tests_are_shown_with_what_was_declared(data: inputs.RunData) -> None:
    table = inference.inference(data, SETTING, data.compared)
    assert table is not None
    heads = [row[0].text for row in table.rows]
    assert heads[0] == "pcn-qal − pcn-cd" or "pcn-qal − pcn-cd" in heads
    assert "Declared family: AP; pcn-qal − pcn-cd; all splits together" in table.note
    column = table.head.index("p, Holm")
    for row in table.rows:
        inside = row[0].text == "pcn-qal − pcn-cd"
        assert (row[column].text == "not in the family") != inside


@pytest.mark.parametrize(
    ("value", "text"), [(0.0412, "0.041"), (0.0004, "< 0.001"), (1.0, "1.000"), (None, "n/a"), (float("nan"), "n/a")]
)
def test_p_values_are_written_plainly(value: float | None, text: str) -> None:
    assert inference.p_text(value) == text
