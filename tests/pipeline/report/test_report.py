from __future__ import annotations

import base64
import hashlib
import html
import itertools
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline import report
from pipeline.artifacts import ArtifactError
from pipeline.config import load_experiment
from pipeline.report import answer, choice, inputs, intervals, page, pictures, style, tables, views
from pipeline.report.metrics import metric, number
from pipeline.run_folder import RunFolder

SETTING = inputs.Setting("antipodal", "analytic", "realsense")
AGREES: dict[str, Any] = {
    "p_value": 0.012,
    "p_holm": np.nan,
    "in_family": False,
    "mde": 2.5,
    "seeds_a": 1,
    "seeds_b": 1,
}
UNTESTED = AGREES | {"p_value": np.nan, "mde": np.nan}


@pytest.fixture(scope="module")
def data(plain_run) -> inputs.RunData:
    return inputs.read(plain_run.experiment, plain_run.folder)


@pytest.fixture(scope="module")
def text(plain_run, plain_page: Path) -> str:
    assert plain_page == plain_run.folder.report
    assert not list(plain_page.parent.rglob(".*.tmp"))  # nothing half-written stays
    return plain_page.read_text(encoding="utf-8")


def test_the_page_asks_the_network_for_nothing(text: str, without_programs) -> None:
    own = without_programs(text)
    assert "http://" not in own and "https://" not in own and "//cdn" not in own
    targets = re.findall(r"\b(?:src|href)=\"([^\"]*)\"", own)
    assert len(targets) > 30
    assert all(target.startswith(("data:", "#", "report/figures/", "report/tables/")) for target in targets)
    assert "url(" not in re.sub(r"url\(#", "", own) and "@import" not in own
    assert len(text.encode()) < 15e6


def test_the_policy_lets_the_pages_own_programs_run_and_nothing_else(text: str, without_programs) -> None:
    policy = html.unescape(re.findall(r'Content-Security-Policy" content="([^"]*)"', text)[0])
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src ")
    assert "eval" not in policy and "unsafe-inline" not in policy.split("script-src")[1] and "connect" not in policy
    programs = re.findall(r"<script(?: type=\"text/plain\" id=\"plotly-source\")?>(.*?)</script>", text, re.S)
    assert len(programs) == 3 and max(map(len, programs)) > 1e6
    for program in programs:
        digest = base64.b64encode(hashlib.sha256(program.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert not re.search(r"\son\w+=\"", without_programs(text))


def test_ids_are_unique_and_links_inside_arrive(text: str, without_programs) -> None:
    text = without_programs(text)
    ids = re.findall(r"\bid=\"([^\"]+)\"", text)
    assert len(ids) == len(set(ids)) > 100
    inside = set(re.findall(r"href=\"#([^\"]+)\"", text)) | set(re.findall(r"url\(#([^)]+)\)", text))
    assert inside and inside <= set(ids)


def test_figures_follow_the_scheme_of_the_page(text: str, without_programs) -> None:
    assert "#0a0b" not in text and "#0a0c" not in text and "#0a0d" not in text  # every stand-in has become a variable
    used = set(re.findall(r"var\(--([\w-]+)\)", without_programs(text)))
    for dark in (False, True):
        assert used <= set(re.findall(r"--([\w-]+):", style.css_variables(dark)))


def test_every_section_is_there_and_says_what_the_run_holds(plain_run, text: str, words, without_programs) -> None:
    said = words(text)
    listed = page.sections(inputs.read(plain_run.experiment, plain_run.folder))
    assert [section.id for section in listed] == re.findall(r'<a href="#(\w+)">[^<]*</a>', text[text.index("<nav") :])
    for section in listed:
        title = re.escape(html.escape(section.title))
        assert re.search(rf'<section id="{section.id}">\s*<h2>{title}</h2>', text), section
    levels = [int(level) for level in re.findall(r"<h([1-6])\b", without_programs(text))]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert plain_run.experiment.question in said
    assert "Only 4 scenes" in said and "8 views" in said
    assert "partial 1, pcn-cd 0, pcn-qal 0, oracle 0 (of 8 an arm)" in said
    assert f"grasp-utility run {plain_run.folder.root}/experiment.json" in said
    assert "pcn-qal a network completes it pcn-qal replace both" in said  # the merge is the checkpoint's
    assert "partial the partial cloud itself – – both" in said
    assert "observe 2.0 s 4 units" in said  # four units of half a second
    assert "aggregate 1.5 s 1 unit" in said
    assert "complete 32.0 s 16 units" in said and "8.0 s 4 units" in said
    assert "suppression_translation" in said and "numpy" in said
    assert without_programs(text).count("data:image/png;base64,") == 2 * 4 * text.count('class="views"')


def test_the_command_reproduces_the_experiment(plain_run) -> None:
    assert load_experiment(plain_run.folder.root / "experiment.json") == plain_run.experiment


def test_what_others_wrote_is_shown_and_not_obeyed(text: str) -> None:
    assert "<b>unit</b>" not in text and "pcn-cd/<b>unit</b>" in html.unescape(text) and "a &amp; b &lt; c" in text


def test_the_answer_is_that_of_the_comparisons(data: inputs.RunData, text: str, words) -> None:
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
    ("difference", "low", "high", "scenes", "tests", "says"),
    [
        (
            1.2,
            -0.4,
            2.8,
            9,
            AGREES,
            "changes AP by +1.20 points [−0.40, +2.80]: the interval holds 0, so this run does",
        ),
        (1.2, -0.4, 2.8, 9, AGREES, "difference (a true one of 2.50 points or more would probably have been found)"),
        (1.2, 0.4, 2.0, 9, AGREES, "raises AP by +1.20 points [+0.40, +2.00]: the 95 % interval excludes 0"),
        (1.2, 0.4, 2.0, 9, AGREES, "and the test over scenes agrees (p = 0.012), so a is better here."),
        (-1.2, -2.0, -0.4, 9, AGREES, "lowers AP by −1.20 points [−2.00, −0.40]: the 95 % interval excludes 0"),
        (-1.2, -2.0, -0.4, 9, AGREES, "so a is worse here."),
        (1.2, 0.4, 2.0, 9, AGREES | {"p_value": 0.0004}, "agrees (p < 0.001)"),
        (
            1.2,
            0.4,
            2.0,
            9,
            AGREES | {"p_value": 0.09},
            "excludes 0 but the test over scenes does not agree (p = 0.090)",
        ),
        (1.2, 0.4, 2.0, 9, AGREES | {"in_family": True, "p_holm": 0.2}, "adjusted for the declared family, does not"),
        (1.2, 0.4, 2.0, 9, AGREES | {"seeds_a": 3, "seeds_b": 3}, "excludes 0 (p = 0.012), so a is better here."),
        (1.2, 0.4, 2.0, 9, AGREES | {"seeds_a": 3, "in_family": True, "p_holm": 0.03}, "family, agrees (p = 0.030)"),
        (
            1.2,
            0.4,
            2.0,
            4,
            AGREES | {"p_value": 0.125},
            "4 scenes are too few for the test over scenes to show anything",
        ),
        (1.2, np.nan, np.nan, 1, UNTESTED, "changes AP by +1.20 points (interval n/a: one scene)"),
        (0.0, 0.0, 0.0, 3, UNTESTED, "changes AP in no scene"),
        (np.nan, np.nan, np.nan, 0, UNTESTED, "nothing can be said"),
    ],
)
def test_sentences_say_no_more_than_the_numbers(
    data: inputs.RunData, difference: float, low: float, high: float, scenes: int, tests: dict[str, Any], says: str
) -> None:
    keys = {"arm_a": "a", "arm_b": "b", "generator": "antipodal", "scorer": "analytic", "camera": "realsense"}
    row = {**keys, "split": "all", "object": "all", "metric": "ap", "difference": difference, **tests}
    table = pd.DataFrame([{**row, "ci_low": low, "ci_high": high, "n_scenes": scenes, "n_views": 4}])
    sentence = answer.sentence(replace(data, comparisons=table), SETTING, ("a", "b"), metric("ap"))
    assert sentence.startswith("a instead of b") and says in sentence


def test_a_family_of_tests_needs_more_scenes_to_show_anything(data: inputs.RunData) -> None:
    keys = {"arm_a": "a", "arm_b": "b", "generator": "antipodal", "scorer": "analytic", "camera": "realsense"}
    row = {**keys, "split": "all", "object": "all", "metric": "ap", "difference": 1.2, **AGREES, "in_family": True}
    ends = {"ci_low": 0.4, "ci_high": 2.0, "n_scenes": 6, "n_views": 6}
    found = [{**row, **ends, "p_value": p, "p_holm": 2 * p, "arm_b": b} for b, p in (("b", 0.03125), ("c", 0.0625))]
    for tests, says in ((2, "6 scenes are too few for the test"), (1, "does not agree (p = 0.062)")):
        one = replace(data, comparisons=pd.DataFrame(found[:tests]))
        assert says in answer.sentence(one, SETTING, ("a", "b"), metric("ap"))


def test_less_of_a_bad_thing_is_better(data: inputs.RunData) -> None:
    keys = {"arm_a": "a", "arm_b": "b", "generator": "", "scorer": "", "camera": "realsense"}
    row = {**keys, "split": "all", "object": "all", "metric": "spurious@5mm", "difference": -0.1, **AGREES}
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


def test_pictures_say_why_they_are_missing(data: inputs.RunData, tmp_path: Path, words) -> None:
    shutil.copytree(data.folder.tables, tmp_path / "tables")  # and neither clouds nor dumps
    lost = replace(data, folder=RunFolder(tmp_path))
    choices, _ = choice.choose(lost, SETTING)
    shown = pictures.show(views.load(lost, SETTING, choices), 0.003)
    assert len(shown) == 3
    assert all("no such file" in picture.missing for view in shown for picture in view.pictures)
    said = words(page.render(lost))
    assert "No picture" in said and "There is nothing to explore" in said


def test_an_arm_of_several_checkpoints_names_them_and_shows_the_first(data: inputs.RunData) -> None:
    listed = [
        {**arm, "checkpoint": None, "checkpoints": ["/w/qal-0", "/w/qal-1"]} if arm["name"] == "pcn-qal" else arm
        for arm in data.summary["arms"]
    ]
    table = tables.arms(replace(data, summary={**data.summary, "arms": listed}))
    (row,) = [row for row in table.rows if row[0].text == "pcn-qal"]
    assert row[2].text == "qal-0, qal-1"
    again = data.views[data.views["arm"] == "pcn-qal"].assign(replicate=1, ap=0.0)
    seeded = replace(data, views=pd.concat([data.views, again], ignore_index=True))
    choices, _ = choice.choose(seeded, SETTING)
    notes = {arm.arm: arm.note for arm in views.load(seeded, SETTING, choices)[0].arms}
    assert "with the first of 2 checkpoints" in notes["pcn-qal"] and "checkpoints" not in notes["pcn-cd"]


def test_splits_stand_in_the_datasets_order(data: inputs.RunData) -> None:
    assert data.splits == ["test_seen", "test_novel"]


def test_the_page_does_not_depend_on_when_it_is_made(data: inputs.RunData, text: str) -> None:
    assert page.render(data) == text.rpartition("\n<!-- made from")[0]


def test_one_scene_without_oracle(make_run, recipe, tmp_path: Path, words) -> None:
    made = make_run(
        tmp_path, recipe(arms=["partial", "pcn-cd"], scenes={"test_novel": [160]}, views=(0,), more={"name": "NA"})
    )
    said = words(report.run(made.experiment, made.folder).read_text(encoding="utf-8"))
    assert "pcn-cd instead of partial changes AP by" in said and "(interval n/a: one scene)" in said
    # What one scene cannot tell is said once, not in every cell.
    assert said.count("n/a") == said.count("interval n/a: one scene") and "brackets" not in said
    assert "one scene cannot tell" in said and "The only scene: scene 160" in said
    assert "No line is fitted: 1 scene, and it takes 3." in said
    assert "this run has no oracle" in said
    assert "Nothing failed in this run" in said
    assert not re.search(r"\b(nan|inf|None)\b", said)


def test_a_single_arm_called_na(make_run, recipe, tmp_path: Path, words) -> None:
    arms = [{"name": "NA", "completion": "none"}]
    made = make_run(
        tmp_path, recipe(arms=arms, scenes={"test_seen": [100]}, views=(0,), without_grasps={("NA", 100, 0)})
    )
    said = words(report.run(made.experiment, made.folder).read_text(encoding="utf-8"))
    assert "This run compares no arms" in said and "no grasp to grade" in said
    assert "The only scene: scene 100 (0.00 %), view 0" in said


def test_two_scorers_stand_apart(make_run, recipe, tmp_path: Path, words) -> None:
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


def test_an_arm_that_failed_counts_as_zero_and_is_named(make_run, recipe, tmp_path: Path, words) -> None:
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
    with pytest.raises(ArtifactError, match=r"summary\.json: missing or broken; run `aggregate`, or"):
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
    arms = [("partial", "none"), ("partial.b", "none"), ("oracle", "truth"), ("oracle.b", "truth")]
    arms = [*arms, *((f"c{index}", "checkpoint") for index in range(20))]
    looks = style.looks(arms)
    assert len({(look.variable, look.marker) for look in looks.values()}) == len(arms)
