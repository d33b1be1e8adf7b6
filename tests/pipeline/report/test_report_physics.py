"""The section on what physics says, in reports of runs that asked for it."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from pipeline import aggregate, console, report, summary
from pipeline.artifacts import write_json
from pipeline.physics_utility import HELD_METRICS
from pipeline.report import inputs, physics
from pipeline.run_folder import FAILURE, STAMP, unit_folder


@pytest.fixture(scope="module")
def both(make_run, recipe, tmp_path_factory: pytest.TempPathFactory):
    """A run on which physics gave its opinion too."""
    more = {"scorers": ["analytic", "physics"], "physics": {"friction": 0.5}}
    made = make_run(
        tmp_path_factory.mktemp("both"), recipe(more=more, views=(0,), without_grasps={("partial", 100, 0)})
    )
    return made, report.run(made.experiment, made.folder).read_text(encoding="utf-8")


def test_physics_has_a_section_of_its_own(both, words, without_programs) -> None:
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
    # ROC, outcomes and reasons; agreement, differences, best grasp, objects, and utility of two splits and of both
    assert section.count("<svg") == 3 and section.count("<table") == 4 + 3
    assert "Is the most confident grasp held?" in said and "McNemar" in said
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


def test_an_arm_that_physics_could_not_try_counts_as_zero(make_run, recipe, tmp_path: Path, words) -> None:
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


def test_physics_that_tried_nothing_is_said(make_run, recipe, tmp_path: Path, words) -> None:
    more = {"scorers": ["analytic", "physics"]}
    none = {("partial", 100, 0)}
    made = make_run(
        tmp_path, recipe(arms=["partial"], scenes={"test_seen": [100]}, views=(0,), without_grasps=none, more=more)
    )
    said = words(report.run(made.experiment, made.folder).read_text(encoding="utf-8"))
    assert "Physics tried no grasp, so nothing can be said." in said
