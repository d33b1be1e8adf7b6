from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from grasping.utility import FRICTIONS
from pipeline import report
from pipeline.artifacts import ArtifactError
from pipeline.config import load_experiment
from pipeline.report import answer, counts, inputs, intervals, page, pictures, style, tables
from pipeline.report.metrics import metric, number

SETTING = inputs.Setting("antipodal", "analytic", "realsense")


@pytest.fixture(scope="module")
def data(plain_run) -> inputs.RunData:
    return inputs.read(plain_run.experiment, plain_run.folder)


@pytest.fixture(scope="module")
def text(plain_run) -> str:
    path = report.run(plain_run.experiment, plain_run.folder)
    assert path == plain_run.folder.report
    assert not list(path.parent.glob(".report.html*"))  # nothing half-written stays
    return path.read_text(encoding="utf-8")


def words(text: str) -> str:
    """What a reader sees of a page, without figures."""
    body = re.sub(r"<(svg|style)\b.*?</\1>", " ", text, flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_the_page_asks_the_network_for_nothing(text: str) -> None:
    assert "http://" not in text and "https://" not in text and "//cdn" not in text
    targets = re.findall(r"\b(?:src|href)=\"([^\"]*)\"", text)
    assert len(targets) > 30
    assert all(target.startswith(("data:", "#")) for target in targets)
    assert "url(" not in re.sub(r"url\(#", "", text) and "@import" not in text
    assert "default-src 'none'" in text and "<script" not in text
    assert len(text.encode()) < 15e6


def test_ids_are_unique_and_links_inside_arrive(text: str) -> None:
    ids = re.findall(r"\bid=\"([^\"]+)\"", text)
    assert len(ids) == len(set(ids)) > 100
    inside = set(re.findall(r"href=\"#([^\"]+)\"", text)) | set(re.findall(r"url\(#([^)]+)\)", text))
    assert inside and inside <= set(ids)


def test_figures_follow_the_scheme_of_the_page(text: str) -> None:
    assert "#0a0b" not in text and "#0a0c" not in text and "#0a0d" not in text  # every stand-in has become a variable
    used = set(re.findall(r"var\(--([\w-]+)\)", text))
    for dark in (False, True):
        assert used <= set(re.findall(r"--([\w-]+):", style.css_variables(dark)))


def test_every_section_is_there_and_says_what_the_run_holds(plain_run, text: str) -> None:
    said = words(text)
    for part in ("Utility", "Differences", "Success over friction", "Completion", "Outcomes", "Pictures", "By object"):
        assert re.search(rf"<h2>{part}</h2>", text), part
    assert plain_run.experiment.question in said
    assert "Only 4 scenes" in said and "8 views" in said
    assert "partial 1, pcn-cd 0, pcn-qal 0, oracle 0 (of 8 an arm)" in said
    assert f"grasp-utility run {plain_run.folder.root}/experiment.json" in said
    assert "pcn-qal a network completes it pcn-qal replace both" in said  # the merge is the checkpoint's
    assert "partial the partial cloud itself – – both" in said
    assert "observe 2.0 s" in said  # four units of half a second
    assert "suppression_translation" in said and "numpy" in said
    assert text.count("data:image/png;base64,") == 2 * 4 * text.count('class="views"')


def test_the_command_reproduces_the_experiment(plain_run) -> None:
    assert load_experiment(plain_run.folder.root / "experiment.json") == plain_run.experiment


def test_what_others_wrote_is_shown_and_not_obeyed(text: str) -> None:
    assert "<b>unit</b>" not in text and "pcn-cd/<b>unit</b>" in html.unescape(text) and "a &amp; b &lt; c" in text


def test_the_answer_is_that_of_the_comparisons(data: inputs.RunData, text: str) -> None:
    row = next(
        row
        for row in data.summary["comparisons"]
        if (row["arm_a"], row["arm_b"], row["metric"]) == ("pcn-qal", "pcn-cd", "ap")
    )
    amount = f"{row['difference']:+.2f} points [{row['ci_low']:+.2f}, {row['ci_high']:+.2f}]".replace("-", "−")
    assert row["ci_low"] < 0 < row["ci_high"]
    sentence = f"pcn-qal instead of pcn-cd changes AP by {amount}: the interval holds 0"
    assert sentence in words(text)


@pytest.mark.parametrize(
    ("difference", "low", "high", "scenes", "says"),
    [
        (1.2, -0.4, 2.8, 9, "changes AP by +1.20 points [−0.40, +2.80]: the interval holds 0"),
        (1.2, 0.4, 2.0, 9, "raises AP by +1.20 points [+0.40, +2.00]: the 95 % interval excludes 0, so a is better"),
        (-1.2, -2.0, -0.4, 9, "lowers AP by −1.20 points [−2.00, −0.40]: the 95 % interval excludes 0, so a is worse"),
        (1.2, np.nan, np.nan, 1, "changes AP by +1.20 points (interval n/a: one scene)"),
        (0.0, 0.0, 0.0, 3, "changes AP in no scene"),
        (np.nan, np.nan, np.nan, 0, "nothing can be said"),
    ],
)
def test_sentences_say_no_more_than_the_numbers(
    data: inputs.RunData, difference: float, low: float, high: float, scenes: int, says: str
) -> None:
    keys = {"arm_a": "a", "arm_b": "b", "generator": "antipodal", "scorer": "analytic", "camera": "realsense"}
    row = {**keys, "split": "all", "object": "all", "metric": "ap", "difference": difference}
    table = pd.DataFrame([{**row, "ci_low": low, "ci_high": high, "n_scenes": scenes, "n_views": 4}])
    sentence = answer.sentence(replace(data, comparisons=table), SETTING, ("a", "b"), metric("ap"))
    assert sentence.startswith("a instead of b") and says in sentence


def test_less_of_a_bad_thing_is_better(data: inputs.RunData) -> None:
    keys = {"arm_a": "a", "arm_b": "b", "generator": "", "scorer": "", "camera": "realsense"}
    row = {**keys, "split": "all", "object": "all", "metric": "spurious@5mm", "difference": -0.1}
    table = pd.DataFrame([{**row, "ci_low": -0.2, "ci_high": -0.05, "n_scenes": 9, "n_views": 9}])
    sentence = answer.sentence(replace(data, comparisons=table), SETTING, ("a", "b"), metric("spurious@5mm"))
    assert "lowers spurious 5 mm by −10.0 points [−20.0, −5.0]" in sentence and "a is better" in sentence


def test_checkpoints_against_each_other_answer_first(data: inputs.RunData) -> None:
    def headline(*pairs: tuple[str, str]) -> list[tuple[str, str]]:
        experiment = data.experiment.model_copy(update={"comparisons": pairs})
        return answer.headline_pairs(replace(data, experiment=experiment))

    assert answer.headline_pairs(data) == [("pcn-qal", "pcn-cd")]
    assert headline(("oracle", "partial"), ("pcn-cd", "oracle")) == [("pcn-cd", "oracle")]
    assert headline(("oracle", "partial")) == [("oracle", "partial")]
    assert headline() == []


def naive_success(data: inputs.RunData, arm: str, k: int, friction: float) -> float:
    scenes: dict[int, list[float]] = {}
    views = data.views[(data.views["arm"] == arm) & (data.views["object"] == -1)]
    for view in views.itertuples():
        own = data.grasps[
            (data.grasps["arm"] == arm) & (data.grasps["scene"] == view.scene) & (data.grasps["view"] == view.view)
        ]
        best = own.sort_values("rank").head(k)
        scenes.setdefault(view.scene, []).append(sum(mu <= friction for mu in best["min_friction"]) / k)
    return float(np.mean([np.mean(values) for values in scenes.values()]))


@pytest.mark.parametrize("k", [1, 5, 10])
def test_success_curves_count_missing_ranks_and_empty_views(data: inputs.RunData, k: int) -> None:
    for arm in data.arms:
        views = data.views[(data.views["arm"] == arm) & (data.views["object"] == -1)]
        curve = counts.success_curves(data.grasps[data.grasps["arm"] == arm], views, k)
        assert curve.tolist() == pytest.approx([naive_success(data, arm, k, friction) for friction in FRICTIONS])
        table = data.utility[(data.utility["arm"] == arm) & (data.utility["split"] == "all")]
        table = table[table["object"] == "all"].set_index("metric")["value"]
        for friction in (0.4, 0.8):
            assert curve[friction] == pytest.approx(table[f"success@{k}_mu{friction}"], abs=1e-5)


def test_the_best_ten_are_ten_with_what_is_missing(data: inputs.RunData) -> None:
    views = data.views[(data.views["arm"] == "partial") & (data.views["object"] == -1)]
    grasps = data.grasps[data.grasps["arm"] == "partial"]
    shown = counts.ranks_by_outcome(grasps, views)
    assert shown.sum() == pytest.approx(10) and shown["missing"] == pytest.approx(10 / 8)
    naive: dict[str, float] = {}
    for row in grasps[grasps["rank"] < 10].itertuples():
        kind = str(row.reason)
        if kind == "success":
            kind = "success_" + ("0.4" if row.min_friction <= 0.4 else "0.8" if row.min_friction <= 0.8 else "1.2")
        naive[kind] = naive.get(kind, 0.0) + 1 / len(views)
    assert shown.drop("missing").to_dict() == pytest.approx(naive)
    assert counts.views_without_grasps(grasps, views) == 1


def test_unknown_outcomes_have_a_colour_of_their_own() -> None:
    reasons = pd.Series(["success", "success", "collides_table", "empty", "melted"], dtype="category")
    kinds = counts.outcome(reasons, pd.Series([0.2, 1.0, np.inf, np.inf, np.inf]))
    assert kinds.tolist() == ["success_0.4", "success_1.2", "collides", "empty", "other"]
    assert set(kinds) <= {key for key, *_ in style.OUTCOMES}


def test_views_are_chosen_by_the_rule_it_states(data: inputs.RunData) -> None:
    choices, rule = pictures.choose(data, SETTING)
    assert "pcn-qal − pcn-cd in AP" in rule
    whole = data.views[data.views["object"] == -1]
    difference = {}
    for row in whole[whole["arm"] == "pcn-qal"].itertuples():
        other = whole[(whole["arm"] == "pcn-cd") & (whole["scene"] == row.scene) & (whole["view"] == row.view)]
        difference[(row.scene, row.view)] = row.ap - float(other["ap"].iloc[0])
    ranked = sorted(difference.values())
    assert [choice.why for choice in choices] == ["largest gain", "largest loss", "median"]
    assert [choice.difference for choice in choices] == pytest.approx([ranked[-1], ranked[0], ranked[3]])
    assert all(difference[(c.scene, c.view)] == pytest.approx(c.difference) for c in choices)


def test_pictures_say_why_they_are_missing(data: inputs.RunData, tmp_path: Path) -> None:
    lost = replace(data, folder=replace(data.folder, root=tmp_path))
    shown, _ = pictures.show(lost, SETTING)
    assert all("no such file" in picture.missing for view in shown for picture in view.pictures)
    assert "No picture" in words(page.render(lost))


def test_the_page_does_not_depend_on_when_it_is_made(data: inputs.RunData, text: str) -> None:
    assert page.render(data) == text.rpartition("\n<!-- made from")[0]


def test_one_scene_without_oracle(make_run, recipe, tmp_path: Path) -> None:
    made = make_run(
        tmp_path, recipe(arms=["partial", "pcn-cd"], scenes={"test_novel": [160]}, views=(0,), more={"name": "NA"})
    )
    said = words(report.run(made.experiment, made.folder).read_text(encoding="utf-8"))
    assert "pcn-cd instead of partial changes AP by" in said and "(interval n/a: one scene)" in said
    assert "this run has no oracle" in said
    assert "Nothing failed in this run" in said
    assert not re.search(r"\b(nan|inf|None)\b", said)


def test_a_single_arm_called_na(make_run, recipe, tmp_path: Path) -> None:
    arms = [{"name": "NA", "completion": "none"}]
    made = make_run(
        tmp_path, recipe(arms=arms, scenes={"test_seen": [100]}, views=(0,), without_grasps={("NA", 100, 0)})
    )
    said = words(report.run(made.experiment, made.folder).read_text(encoding="utf-8"))
    assert "This run compares no arms" in said and "no grasp to grade" in said
    assert "Best: scene 100, view 0" in said


def test_two_scorers_stand_apart(make_run, recipe, tmp_path: Path) -> None:
    more = {"scorers": ["analytic", "graspnetapi"]}
    made = make_run(
        tmp_path, recipe(arms=["partial", "oracle"], scenes={"test_seen": [100, 101]}, views=(0,), more=more)
    )
    page = report.run(made.experiment, made.folder).read_text(encoding="utf-8")
    ids = re.findall(r"\bid=\"([^\"]+)\"", page)
    assert len(ids) == len(set(ids))
    for scorer in more["scorers"]:
        assert page.count(f"<h3>realsense · generator antipodal · scorer {scorer}</h3>") >= 5
    assert words(page).count("oracle instead of partial") == 2


def test_an_arm_that_failed_counts_as_zero_and_is_named(make_run, recipe, tmp_path: Path) -> None:
    arms = ["partial", "pcn-cd", "pcn-qal", "oracle"]
    made = make_run(tmp_path, recipe(arms=arms, scenes={"test_seen": [100, 101]}, views=(0,), lost={"pcn-qal"}))
    said = words(report.run(made.experiment, made.folder).read_text(encoding="utf-8"))
    assert "pcn-qal: 2 of 2 views failed and count as zero" in said
    assert "pcn-cd − partial: " in said


def test_recovered_says_why_it_is_undefined(data: inputs.RunData) -> None:
    table = data.recovered.copy()
    table[["value", "ci_low", "ci_high"]] = np.nan
    table["reason"] = "undefined: the interval of oracle - partial holds 0"
    shown, sentence = tables.recovered(replace(data, recovered=table), SETTING)
    assert shown is None and sentence == "Undefined: the interval of oracle - partial holds 0."


def test_missing_tables_name_the_remedy(plain_run, tmp_path: Path) -> None:
    empty = replace(plain_run.folder, root=tmp_path)
    with pytest.raises(ArtifactError, match=r"summary\.json: missing or broken; run `aggregate` first"):
        report.run(plain_run.experiment, empty)
    (tmp_path / "summary.json").write_bytes(plain_run.folder.summary.read_bytes())
    with pytest.raises(ArtifactError, match=r"utility\.csv: no such table; run `aggregate` first"):
        report.run(plain_run.experiment, empty)


@pytest.mark.parametrize(
    ("value", "digits", "signed", "text"),
    [
        (1.005, 1, False, "1.0"),
        (-0.04, 1, True, "0.0"),
        (-1234.5, 1, True, "−1,234.5"),
        (2.0, 2, True, "+2.00"),
        (None, 2, False, "n/a"),
        (float("nan"), 2, False, "n/a"),
        (float("inf"), 2, False, "n/a"),
    ],
)
def test_numbers(value: Any, digits: int, signed: bool, text: str) -> None:
    assert number(value, digits, signed=signed) == text


def test_metrics_show_their_units() -> None:
    assert metric("coverage@5mm").value(0.4567) == "45.7 %" and metric("ap").value(45.67) == "45.67 %"
    assert metric("quality").interval(0.1, None) == "n/a"
    assert metric("somebody_elses").value(1.5) == "1.500"


def test_labels_in_figures_are_escaped() -> None:
    rows = [intervals.Row('<b>"x"</b>', 1.0, 0.5, 1.5), intervals.Row("none", None, None, None)]
    drawn = str(intervals.intervals(rows, metric("ap"), "a < b", '"><script>', "p", signed=True))
    assert "<b>" not in drawn and "<script" not in drawn and "n/a" in drawn
    assert drawn.startswith('<svg viewBox="0 0 ') and drawn.rstrip().endswith("</svg>")


def test_arms_never_share_hue_and_marker() -> None:
    arms = [("partial", "none"), ("oracle", "truth"), *((f"c{index}", "checkpoint") for index in range(20))]
    looks = style.looks(arms)
    assert len({(look.variable, look.marker) for look in looks.values()}) == len(arms)
