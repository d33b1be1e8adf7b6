"""What no confidence enters: tables of their own, on the page and on the terminal."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from pipeline import console, report, summary
from pipeline.report import inputs, page, tables
from pipeline.report.metrics import metric
from pipeline.report.rank_free import rank_free, set_apart
from pipeline.report.results import pairs_of

COLUMNS = ("feasible", "any_mu0.8", "any_mu0.4", "oracle_ap")


@pytest.fixture(scope="module")
def data(plain_run) -> inputs.RunData:
    return inputs.read(plain_run.experiment, plain_run.folder)


def _other(table: pd.DataFrame) -> pd.DataFrame:
    """The same of another generator, whose every number is half."""
    numbers = [name for name in ("value", "difference", "ci_low", "ci_high") if name in table]
    halved = table[table["generator"] == "antipodal"].assign(generator="other")
    halved[numbers] /= 2
    return pd.concat([table, halved], ignore_index=True)


@pytest.fixture
def two_generators(data: inputs.RunData) -> inputs.RunData:
    return replace(data, utility=_other(data.utility), comparisons=_other(data.comparisons))


def _whole(table: pd.DataFrame) -> pd.DataFrame:
    return table[(table["split"] == "all") & (table["object"] == "all")]


def test_values_and_differences_are_those_of_the_tables(data: inputs.RunData) -> None:
    (shown,) = rank_free(data, pairs_of(data))
    assert [row[0].text for row in shown.arms.rows] == data.arms
    assert shown.differences is not None
    utility = _whole(data.utility).set_index(["arm", "metric"])
    for row in shown.arms.rows:
        for name, cell in zip(COLUMNS, row[1:], strict=True):
            one, scale = utility.loc[(row[0].text, name)], metric(name).scale
            assert (cell.value, cell.low, cell.high) == pytest.approx(
                tuple(scale * one[key] for key in ("value", "ci_low", "ci_high"))
            )
            assert cell.text == metric(name).number(one["value"])
    compared = _whole(data.comparisons).set_index(["arm_a", "arm_b", "metric"])
    assert len(shown.differences.rows) == len(pairs_of(data))
    for pair, row in zip(pairs_of(data), shown.differences.rows, strict=True):
        assert row[0].text == " − ".join(pair)
        for name, cell in zip(COLUMNS, row[1:], strict=True):
            one = compared.loc[(*pair, name)]
            assert cell.value == pytest.approx(metric(name).scale * one["difference"])
            assert (cell.kind == "sure") == (one["ci_low"] > 0 or one["ci_high"] < 0)
    assert "brackets: 95 % interval over scenes" in shown.arms.note


def test_the_rows_of_the_run_stand_behind_them(data: inputs.RunData) -> None:
    grasps = pd.read_parquet(data.folder.tables / "grasps.parquet").query("arm == 'pcn-qal'")
    every = [
        (split, scene, view) for split, scene, view in data.views[["split", "scene", "view"]].itertuples(index=False)
    ]
    holds = {key: (own["min_friction"] <= 0.4).any() for key, own in grasps.groupby(["split", "scene", "view"])}
    by_view = pd.DataFrame(
        [(scene, float(holds.get((split, scene, view), False))) for split, scene, view in dict.fromkeys(every)],
        columns=["scene", "any"],
    )
    expected = by_view.groupby("scene")["any"].mean().mean()
    found = _whole(data.utility).query("arm == 'pcn-qal' and metric == 'any_mu0.4'")["value"].item()
    assert found == pytest.approx(expected, abs=1e-6)


def test_generators_stand_below_one_another_and_are_never_mixed(two_generators: inputs.RunData) -> None:
    (shown,) = rank_free(two_generators, pairs_of(two_generators))
    heads = [row[0].text for row in shown.arms.rows if len(row) == 1]
    assert heads == ["generator antipodal", "generator other"]
    arms = len(two_generators.arms)
    one, other = shown.arms.rows[1 : 1 + arms], shown.arms.rows[2 + arms :]
    assert [row[0].text for row in one] == [row[0].text for row in other] == two_generators.arms
    for row, halved in zip(one, other, strict=True):
        assert [cell.value for cell in halved[1:]] == pytest.approx([cell.value / 2 for cell in row[1:]])
    assert shown.differences is not None
    assert [row[0].text for row in shown.differences.rows if len(row) == 1] == heads


def test_no_other_table_grows(plain_run, plain_page, words) -> None:
    said = words(plain_page.read_text(encoding="utf-8"))
    assert "is on a scale of its own and is never compared with another's" in said
    (folder,) = [plain_page.with_suffix("") / "tables"]
    title = metric("oracle_ap").title
    with_it = {path.name for path in folder.glob("*.csv") if title in path.read_text(encoding="utf-8")}
    assert with_it == {"rank-free-utility.csv", "differences-in-rank-free-utility.csv"}
    assert "feasible" in (folder / "utility-all-splits.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize("primary", ["oracle_ap", pytest.param("any_mu0.4", marks=pytest.mark.slow)])
def test_a_primary_metric_without_ranks_stands_in_every_table(make_run, recipe, tmp_path, words, primary: str) -> None:
    made = make_run(
        tmp_path,
        recipe(
            arms=["partial", "pcn-cd", "oracle"],
            scenes={"test_seen": [100, 101, 102]},
            views=(0,),
            more={"primary_metric": primary},
        ),
    )
    assert primary not in set_apart(primary)
    said = words(report.run(made.experiment, made.folder).read_text(encoding="utf-8"))
    title = " ".join(metric(primary).title.split())
    assert any(f"pcn-cd instead of partial {verb} {title} " in said for verb in ("changes", "raises", "lowers"))
    data = inputs.read(made.experiment, made.folder)
    (utility,) = tables.per_arm(data, data.utility[~data.utility["metric"].isin(set_apart(primary))], "Utility")
    assert [row[0].text for row in utility.rows if row[0].kind == "primary"] == [metric(primary).title]


def test_a_run_without_comparisons_and_intervals_has_no_empty_brackets(make_run, recipe, tmp_path, words) -> None:
    made = make_run(tmp_path, recipe(arms=["partial"], scenes={"test_seen": [100]}, views=(0,)))
    data = inputs.read(made.experiment, made.folder)
    (shown,) = rank_free(data, pairs_of(data))
    assert shown.differences is None and not any(cell.sub for row in shown.arms.rows for cell in row)
    assert tables.NO_INTERVALS in shown.arms.note
    assert "n/a" not in words(page.render(data)).split("never compared")[1].split("Where the differences arise")[0]


def _printed(content: dict[str, Any]) -> list[str]:
    stream = io.StringIO()
    console.print_summary(content, Console(file=stream, width=80, highlight=False))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 80 and "…" not in stream.getvalue()
    return lines[next(at for at, line in enumerate(lines) if line.startswith("Rank-free")) :]


def test_the_terminal_says_it_too(plain_run) -> None:
    content = summary.read(plain_run.folder)
    lines = _printed(content)
    assert lines[0] == "Rank-free (realsense, generator antipodal, scorer analytic)"
    assert lines[2].endswith("confidences of different generators are never compared")
    values = {(row["arm"], row["metric"]): row["value"] for row in content["utility"]}
    for arm in ("partial", "oracle"):
        (line,) = [line for line in lines if line.split()[:1] == [arm] and "-" not in line.split()[1]]
        assert line.split()[1:5] == [f"{values[arm, name]:.2f}" for name in COLUMNS]
    (line,) = [line for line in lines if line.startswith("oracle - partial")]
    found = {
        row["metric"]: row["difference"]
        for row in content["comparisons"]
        if (row["arm_a"], row["arm_b"]) == ("oracle", "partial")
    }
    assert line.split()[3:7] == [f"{found[name]:+.2f}" for name in COLUMNS]


def test_the_terminal_shows_generators_one_after_the_other(plain_run) -> None:
    content = summary.read(plain_run.folder)
    for table in ("utility", "comparisons", "recovered"):
        own = [row for row in content[table] if row["generator"]]
        content[table] += [row | {"generator": "other"} for row in own]
    lines = _printed(content)
    assert lines[0] == "Rank-free (realsense, generator antipodal, other, scorer analytic)"
    marks = [at for at, line in enumerate(lines) if line.strip() in ("antipodal", "other")]
    assert [lines[at].strip() for at in marks] == ["antipodal", "other"]
    assert [line for line in lines[marks[0] + 1 : marks[1]]] == lines[marks[1] + 1 : 2 * marks[1] - marks[0]]
