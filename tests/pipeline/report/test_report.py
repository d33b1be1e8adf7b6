from __future__ import annotations

import base64
import hashlib
import html
import io
import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from grasping.utility import FRICTIONS
from pipeline import aggregate, console, report, summary
from pipeline.artifacts import ArtifactError, write_json
from pipeline.config import load_experiment
from pipeline.physics_utility import HELD_METRICS
from pipeline.report import answer, choice, counts, inputs, intervals, page, physics, pictures, style, tables, views
from pipeline.report.metrics import metric, number
from pipeline.run_folder import FAILURE, STAMP, unit_folder

SETTING = inputs.Setting("antipodal", "analytic", "realsense")


@pytest.fixture(scope="module")
def data(plain_run) -> inputs.RunData:
    return inputs.read(plain_run.experiment, plain_run.folder)


@pytest.fixture(scope="module")
def text(plain_run, plain_page: Path) -> str:
    assert plain_page == plain_run.folder.report
    assert not list(plain_page.parent.rglob(".*.tmp"))  # nothing half-written stays
    return plain_page.read_text(encoding="utf-8")


def without_programs(text: str) -> str:
    return re.sub(r"<script\b.*?</script>", "", text, flags=re.S)


def words(text: str) -> str:
    """What a reader sees of a page, without figures."""
    body = re.sub(r"<(svg|style|script)\b.*?</\1>", " ", text, flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_the_page_asks_the_network_for_nothing(text: str) -> None:
    own = without_programs(text)
    assert "http://" not in own and "https://" not in own and "//cdn" not in own
    targets = re.findall(r"\b(?:src|href)=\"([^\"]*)\"", own)
    assert len(targets) > 30
    assert all(target.startswith(("data:", "#", "report/figures/", "report/tables/")) for target in targets)
    assert "url(" not in re.sub(r"url\(#", "", own) and "@import" not in own
    assert len(text.encode()) < 15e6


def test_the_policy_lets_the_pages_own_programs_run_and_nothing_else(text: str) -> None:
    policy = html.unescape(re.findall(r'Content-Security-Policy" content="([^"]*)"', text)[0])
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src ")
    assert "eval" not in policy and "unsafe-inline" not in policy.split("script-src")[1] and "connect" not in policy
    programs = re.findall(r"<script(?: type=\"text/plain\" id=\"plotly-source\")?>(.*?)</script>", text, re.S)
    assert len(programs) == 3 and max(map(len, programs)) > 1e6
    for program in programs:
        digest = base64.b64encode(hashlib.sha256(program.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert not re.search(r"\son\w+=\"", without_programs(text))


def test_ids_are_unique_and_links_inside_arrive(text: str) -> None:
    text = without_programs(text)
    ids = re.findall(r"\bid=\"([^\"]+)\"", text)
    assert len(ids) == len(set(ids)) > 100
    inside = set(re.findall(r"href=\"#([^\"]+)\"", text)) | set(re.findall(r"url\(#([^)]+)\)", text))
    assert inside and inside <= set(ids)


def test_figures_follow_the_scheme_of_the_page(text: str) -> None:
    assert "#0a0b" not in text and "#0a0c" not in text and "#0a0d" not in text  # every stand-in has become a variable
    used = set(re.findall(r"var\(--([\w-]+)\)", without_programs(text)))
    for dark in (False, True):
        assert used <= set(re.findall(r"--([\w-]+):", style.css_variables(dark)))


def test_every_section_is_there_and_says_what_the_run_holds(plain_run, text: str) -> None:
    said = words(text)
    listed = page.sections(inputs.read(plain_run.experiment, plain_run.folder))
    assert [section.id for section in listed] == re.findall(r'<a href="#(\w+)">[^<]*</a>', text[text.index("<nav") :])
    for section in listed:
        title = html.escape(section.title)
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
    assert "complete 32.0 s 16 units" in said and "8.0 s 4 units" in said
    assert "suppression_translation" in said and "numpy" in said
    assert without_programs(text).count("data:image/png;base64,") == 2 * 4 * text.count('class="views"')


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
    whole = data.views[(data.views["arm"] == arm) & (data.views["object"] == -1)]
    for view in whole.itertuples():
        own = data.grasps[
            (data.grasps["arm"] == arm) & (data.grasps["scene"] == view.scene) & (data.grasps["view"] == view.view)
        ]
        best = own.sort_values("rank").head(k)
        scenes.setdefault(view.scene, []).append(sum(mu <= friction for mu in best["min_friction"]) / k)
    return float(np.mean([np.mean(values) for values in scenes.values()]))


@pytest.mark.parametrize("friction", [0.4, 0.8])
def test_success_over_k_is_success_over_friction_seen_from_the_side(data: inputs.RunData, friction: float) -> None:
    for arm in data.arms:
        own = data.views[(data.views["arm"] == arm) & (data.views["object"] == -1)]
        curve = counts.success_over_k(data.grasps[data.grasps["arm"] == arm], own, friction, 50)
        assert curve.index.tolist() == list(range(1, 51))
        for k in (1, 2, 7, 10, 40, 41, 50):  # a view has forty grasps at most
            assert curve[k] == pytest.approx(naive_success(data, arm, k, friction))


def test_success_over_k_of_an_arm_without_grasps_is_zero(data: inputs.RunData) -> None:
    own = data.views[(data.views["arm"] == "partial") & (data.views["object"] == -1)]
    assert (counts.success_over_k(data.grasps.iloc[:0], own, 0.8, 5) == 0).all()


@pytest.mark.parametrize("k", [1, 5, 10])
def test_success_curves_count_missing_ranks_and_empty_views(data: inputs.RunData, k: int) -> None:
    for arm in data.arms:
        own = data.views[(data.views["arm"] == arm) & (data.views["object"] == -1)]
        curve = counts.success_curves(data.grasps[data.grasps["arm"] == arm], own, k)
        assert curve.tolist() == pytest.approx([naive_success(data, arm, k, friction) for friction in FRICTIONS])
        table = data.utility[(data.utility["arm"] == arm) & (data.utility["split"] == "all")]
        table = table[table["object"] == "all"].set_index("metric")["value"]
        for friction in (0.4, 0.8):
            assert curve[friction] == pytest.approx(table[f"success@{k}_mu{friction}"], abs=1e-5)


def test_the_best_ten_are_ten_with_what_is_missing(data: inputs.RunData) -> None:
    own = data.views[(data.views["arm"] == "partial") & (data.views["object"] == -1)]
    grasps = data.grasps[data.grasps["arm"] == "partial"]
    shown = counts.ranks_by_outcome(grasps, own)
    assert shown.sum() == pytest.approx(10) and shown["missing"] == pytest.approx(10 / 8)
    naive: dict[str, float] = {}
    for row in grasps[grasps["rank"] < 10].itertuples():
        kind = str(row.reason)
        if kind == "success":
            kind = "success_" + ("0.4" if row.min_friction <= 0.4 else "0.8" if row.min_friction <= 0.8 else "1.2")
        naive[kind] = naive.get(kind, 0.0) + 1 / len(own)
    assert shown.drop("missing").to_dict() == pytest.approx(naive)
    assert counts.views_without_grasps(grasps, own) == 1


def test_unknown_outcomes_have_a_colour_of_their_own() -> None:
    reasons = pd.Series(["success", "success", "collides_table", "empty", "melted"], dtype="category")
    kinds = counts.outcome(reasons, pd.Series([0.2, 1.0, np.inf, np.inf, np.inf]))
    assert kinds.tolist() == ["success_0.4", "success_1.2", "collides", "empty", "other"]
    assert set(kinds) <= {key for key, *_ in style.OUTCOMES}


def test_pictures_say_why_they_are_missing(data: inputs.RunData, tmp_path: Path) -> None:
    lost = replace(data, folder=replace(data.folder, root=tmp_path))
    choices, _ = choice.choose(lost, SETTING)
    shown = pictures.show(views.load(lost, SETTING, choices), 0.003)
    assert len(shown) == 3
    assert all("no such file" in picture.missing for view in shown for picture in view.pictures)
    said = words(page.render(lost))
    assert "No picture" in said and "There is nothing to explore" in said


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
    assert "Best: scene 100 (0.00 %), view 0" in said


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


@pytest.fixture(scope="module")
def both(make_run, recipe, tmp_path_factory: pytest.TempPathFactory):
    """A run on which physics gave its opinion too."""
    more = {"scorers": ["analytic", "physics"], "physics": {"friction": 0.5}}
    made = make_run(
        tmp_path_factory.mktemp("both"), recipe(more=more, views=(0,), without_grasps={("partial", 100, 0)})
    )
    return made, report.run(made.experiment, made.folder).read_text(encoding="utf-8")


def test_physics_has_a_section_of_its_own(both) -> None:
    made, page = both
    rows = pd.read_parquet(made.folder.tables / "grasps.parquet").query("scorer == 'physics'")
    passed = rows[rows["min_friction"] <= 0.8]
    held, n = int(passed["held"].sum()), len(passed)
    said = words(page)
    assert "What is analytic AP worth? The physics' opinion" in said
    assert f"Of {n} grasps that the protocol passes at µ ≤ 0.8 physics holds {held} ({100 * held / n:.0f} %)" in said
    assert "closes with 40 N" in said and "Friction 0.5, density 500 kg/m³" in said
    page = without_programs(page)
    section = page[page.index('<section id="physics">') : page.index('<section id="explore">')]
    assert section.count("<svg") == 2 and section.count("<table") == 3 + 1 + 2  # two splits
    ids = re.findall(r"\bid=\"([^\"]+)\"", page)
    assert len(ids) == len(set(ids))
    assert "#0a0b" not in page and "#0a0c" not in page and "#0a0d" not in page
    # The protocol's own figures do not count physics as a second way of scoring.
    assert "scorer physics" not in said and page.count("<h3>Recovered utility</h3>") == 1
    assert not re.search(r"\b(nan|inf|None)\b", said.replace("min_friction", ""))


def test_the_confusion_on_the_page_is_that_of_the_rows(both) -> None:
    made, _ = both
    data = inputs.read(made.experiment, made.folder)
    shown = physics.agreement_table(data, data.physics.agreement)
    rows = pd.read_parquet(made.folder.tables / "grasps.parquet").query("scorer == 'physics' and arm == 'oracle'")
    at = [row[0].text for row in shown.rows].index("oracle")
    assert shown.rows[at][0].sub.startswith(f"{len(rows)} tried, {int(rows['held'].sum())} held; ROC AUC 0.")
    for offset, friction in enumerate((0.4, 0.8, 1.2), start=1):
        passed, held = rows["min_friction"] <= friction, rows["held"].astype(bool)
        expected = [passed & held, passed & ~held, ~passed & held, ~passed & ~held]
        line = shown.rows[at + offset]
        assert line[0].text == f"µ ≤ {friction:g}"
        assert [cell.text for cell in line[1:5]] == [str(int(part.sum())) for part in expected]
        assert line[7].text == f"{100 * (passed == held).mean():.0f} %"


def test_the_terminal_says_it_too(both) -> None:
    made, _ = both
    stream = io.StringIO()
    content = summary.read(made.folder)
    console.print_summary(content, Console(file=stream, width=80, highlight=False))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 80 and "…" not in stream.getvalue()
    assert "Does physics agree? (realsense, generator antipodal, scene, friction 0.5)" in lines
    assert sum(line.startswith("Utility (") for line in lines) == 1
    rows = pd.read_parquet(made.folder.tables / "grasps.parquet").query("scorer == 'physics' and arm == 'oracle'")
    passed = rows["min_friction"] <= 0.8
    shares = [rows["held"].mean(), rows["held"][passed].mean(), rows["held"][~passed].mean()]
    line = next(line for line in lines[::-1] if line.startswith("oracle "))
    assert line.split()[1:5] == [str(len(rows)), *(f"{100 * share:.1f}" for share in shares)]


def test_utility_by_physics_stands_beside_and_is_padded(both) -> None:
    made, _ = both
    utility = pd.read_csv(made.folder.tables / "utility.csv")
    assert set(utility.query("scorer == 'physics'")["metric"]) == set(HELD_METRICS)
    assert not set(utility.query("scorer == 'analytic'")["metric"]) & set(HELD_METRICS)
    assert utility["value"].notna().all()
    grasps = pd.read_parquet(made.folder.tables / "grasps.parquet").query("scorer == 'physics'")
    for arm in ("partial", "oracle"):  # one view a scene; partial has one without grasps
        by_scene = [
            grasps[(grasps["arm"] == arm) & (grasps["scene"] == scene)].sort_values("rank").head(10)["held"].sum() / 10
            for scene in (100, 101, 160, 161)
        ]
        row = utility.query("scorer == 'physics' and split == 'all' and object == 'all' and metric == 'held@10'")
        assert row[row["arm"] == arm]["value"].item() == pytest.approx(np.mean(by_scene), abs=1e-5)
    differences = pd.read_csv(made.folder.tables / "comparisons.csv").query("scorer == 'physics' and object == 'all'")
    assert set(differences["metric"]) == set(HELD_METRICS)


def test_every_row_has_the_outcome_beside_min_friction(both) -> None:
    made, _ = both
    grasps = pd.read_parquet(made.folder.tables / "grasps.parquet")
    key = ["arm", "scene", "view", "row"]
    analytic, tried = (grasps[grasps["scorer"] == name].set_index(key) for name in ("analytic", "physics"))
    assert set(tried.index) == set(analytic[analytic["kept"]].index)
    assert analytic[~analytic["kept"]]["outcome"].isna().all() and analytic[~analytic["kept"]]["held"].isna().all()
    for name in ("outcome", "held", "held_fraction", "slip", "min_friction"):
        assert analytic.loc[tried.index][name].tolist() == tried[name].tolist()
    counts = [row for row in inputs.read(made.experiment, made.folder).summary["counts"] if row["scorer"] == "physics"]
    assert sum(sum(row["outcomes"].values()) for row in counts) == len(tried)
    assert {name for row in counts for name in row["outcomes"]} <= {name for name, *_ in physics.OUTCOMES}


def test_an_arm_that_physics_could_not_try_counts_as_zero(make_run, recipe, tmp_path: Path) -> None:
    more = {"scorers": ["analytic", "physics"]}
    made = make_run(
        tmp_path, recipe(arms=["partial", "oracle"], scenes={"test_seen": [100, 101]}, views=(0,), more=more)
    )
    for scene in (100, 101):
        folder = unit_folder(made.folder.scores("oracle", "antipodal", "physics"), scene, "realsense")
        (folder / STAMP).unlink()
        write_json(folder / FAILURE, {"stage": "score", "reason": "no simulator", "traceback": None})
    tables = aggregate.run(made.experiment, made.folder, made.units)
    utility = tables.utility.query("arm == 'oracle' and object == 'all' and split == 'all'").set_index("metric")
    assert (utility.loc[list(HELD_METRICS), "value"] == 0).all() and utility.loc["ap", "value"] > 0
    assert set(tables.agreement.agreement["arm"]) == {"all", "partial"}
    summary.write(made.experiment, made.folder, made.units, tables, [])
    said = words(report.run(made.experiment, made.folder).read_text(encoding="utf-8"))
    assert "oracle: 2 of 4 views failed" in said


def test_physics_that_tried_nothing_is_said(make_run, recipe, tmp_path: Path) -> None:
    more = {"scorers": ["analytic", "physics"]}
    none = {("partial", 100, 0)}
    made = make_run(
        tmp_path, recipe(arms=["partial"], scenes={"test_seen": [100]}, views=(0,), without_grasps=none, more=more)
    )
    said = words(report.run(made.experiment, made.folder).read_text(encoding="utf-8"))
    assert "Physics tried no grasp, so nothing can be said." in said


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
