"""Runs made apart and compared: what is refused, what is merged, and that it equals one run of all arms."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from pipeline import comparable, compare
from pipeline.artifacts import ArtifactError
from pipeline.cli import app
from pipeline.compare import CompareError
from pipeline.notebook import load_run
from pipeline.view import ViewRequest, collect

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def runs(make_run: Make, recipe: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One run of all arms, and two that have them between them; partial and oracle are in both."""
    home = tmp_path_factory.mktemp("runs")
    arms = {
        "all": ["partial", "pcn-cd", "pcn-qal", "oracle"],
        "monday": ["partial", "pcn-cd", "oracle"],
        "tuesday": ["partial", "pcn-qal", "oracle"],
    }
    return {name: make_run(home / name, recipe(arms=list(chosen))).folder.root for name, chosen in arms.items()}


def _compare(runs: list[Path], out: Path, **options: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"pairs": (), "force": False, "say": lambda line: None, **options}
    folder = compare.run(runs, out, **settings)
    return json.loads(folder.summary.read_text())


def _with(run: Path, to: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    shutil.copytree(run, to)
    summary = json.loads((to / "summary.json").read_text())
    change(summary)
    (to / "summary.json").write_text(json.dumps(summary))
    return to


def test_arms_of_two_runs_stand_side_by_side(runs: dict[str, Path], tmp_path: Path) -> None:
    summary = _compare([runs["monday"], runs["tuesday"]], tmp_path / "both")
    assert [arm["name"] for arm in summary["arms"]] == ["partial", "pcn-cd", "oracle", "pcn-qal"]
    utility = pd.read_csv(tmp_path / "both" / "tables" / "utility.csv")
    for run in ("monday", "tuesday"):
        own = pd.read_csv(runs[run] / "tables" / "utility.csv")
        arm = {"monday": "pcn-cd", "tuesday": "pcn-qal"}[run]
        keys = ["split", "object", "metric"]
        one, other = (table[table["arm"] == arm].set_index(keys)["value"] for table in (own, utility))
        pd.testing.assert_series_equal(one, other.loc[one.index])
    pairs = {(row["arm_a"], row["arm_b"]) for row in summary["comparisons"]}
    assert ("pcn-qal", "pcn-cd") in pairs and ("pcn-qal", "partial") in pairs
    assert "Forced." not in (tmp_path / "both" / "report.html").read_text() and "forced" not in summary
    assert any("declared before" in text for text in summary["warnings"])

    # It says what one run of all arms says. Arms draw by their place in the recipe, so that only those at one place are
    # the same: partial, pcn-cd.
    whole = json.loads((runs["all"] / "summary.json").read_text())

    def difference(content: dict[str, Any]) -> Any:
        (row,) = [
            row
            for row in content["comparisons"]
            if (row["arm_a"], row["arm_b"], row["metric"]) == ("pcn-cd", "partial", "ap")
        ]
        return row

    assert difference(summary) == difference(whole)


@pytest.mark.slow
def test_arms_only_called_alike_get_the_names_of_their_runs(
    make_run: Make, recipe: Any, runs: dict[str, Path], tmp_path: Path
) -> None:
    other = make_run(tmp_path / "wednesday", recipe(arms=["oracle", "pcn-cd", "partial"])).folder.root
    stamp = other / "arms" / "pcn-cd" / "clouds" / "scene_0100" / "realsense" / "stamp.json"
    assert stamp.is_file()

    def otherwise(summary: dict[str, Any]) -> None:
        summary["comparable"]["arms"]["pcn-cd"] = ["of other weights"]

    changed = _with(other, tmp_path / "thursday", otherwise)
    names = [arm["name"] for arm in _compare([runs["monday"], changed], tmp_path / "both")["arms"]]
    assert "pcn-cd" in names and "pcn-cd.thursday" in names
    assert names.count("pcn-cd") == 1


def test_a_run_keeps_its_own_baseline_where_it_shares_it_with_a_later_one_only(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    def otherwise(summary: dict[str, Any]) -> None:
        summary["comparable"]["arms"]["partial"] = ["of other observations"]
        if "pcn-cd" in summary["comparable"]["arms"]:
            summary["comparable"]["arms"]["pcn-qal"] = ["of other weights"]

    second, third = (_with(runs[name], tmp_path / to, otherwise) for name, to in (("tuesday", "2nd"), ("all", "3rd")))
    summary = _compare([runs["monday"], second, third], tmp_path / "three")
    pairs = {(row["arm_a"], row["arm_b"]) for row in summary["comparisons"]}
    baselines = {b for a, b in pairs if a.endswith(".3rd") and b.startswith("partial")}
    assert baselines == {"partial.2nd"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s["comparable"]["protocol"].update(maximum_width=0.08), "protocol.maximum_width: 0.1 | 0.08"),
        (lambda s: s["comparable"]["generators"]["antipodal"]["parameters"].update(samples=9), "samples: absent | 9"),
        (lambda s: s["comparable"].update(density=0.004), "density: 0.003 | 0.004"),
        (lambda s: s["comparable"].update(seed=5), "seed: 0 | 5"),
        (lambda s: s["comparable"].update(primary_metric="quality"), "primary_metric: ap | quality"),
        (lambda s: s["comparable"]["units"]["scene_0100/realsense"].update(views=[0]), "views of scene_0100/realsense"),
        (lambda s: s["comparable"]["units"]["scene_0100/realsense"].update(observations="x"), "observations of scene"),
        (lambda s: s["comparable"]["units"].pop("scene_0161/realsense"), "scenes of the first run alone: scene_0161"),
    ],
)
def test_runs_that_differ_are_refused_with_the_keys(
    runs: dict[str, Path], tmp_path: Path, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    other = _with(runs["tuesday"], tmp_path / "odd", change)
    with pytest.raises(CompareError) as caught:
        _compare([runs["monday"], other], tmp_path / "both")
    assert said in str(caught.value) and "--force" in str(caught.value)
    assert not (tmp_path / "both").exists()


def test_other_views_are_named_once(runs: dict[str, Path]) -> None:
    shared = json.loads((runs["monday"] / "summary.json").read_text())["comparable"]
    other = json.loads(json.dumps(shared))
    other["units"]["scene_0100/realsense"].update(views=[0], observations="x", truth=["y"])
    assert comparable.differing(shared, other) == [
        "views of scene_0100/realsense (scene_0100/realsense: [0, 64] | [0])"
    ]


@pytest.mark.slow
def test_a_comparison_can_be_compared(runs: dict[str, Path], tmp_path: Path) -> None:
    _compare([runs["monday"], runs["tuesday"]], tmp_path / "first")
    _compare([runs["monday"], tmp_path / "first"], tmp_path / "second")
    lies = json.loads((tmp_path / "second" / "sources.json").read_text())["arms"]
    assert lies["pcn-qal"] == {"run": str(runs["tuesday"]), "arm": "pcn-qal"}
    assert "No picture" not in (tmp_path / "second" / "report.html").read_text()
    second = load_run(tmp_path / "second")
    assert second.clouds("pcn-qal", scene=100, view=0).points.shape[1] == 3
    layers = collect(ViewRequest(tmp_path / "second", 100, 0))
    assert layers.arms == ("partial", "pcn-cd", "oracle", "pcn-qal")


@pytest.mark.slow
def test_forced_comparisons_are_stamped(runs: dict[str, Path], tmp_path: Path) -> None:
    def narrower(summary: dict[str, Any]) -> None:
        summary["comparable"]["protocol"].update(maximum_width=0.08)

    other = _with(runs["tuesday"], tmp_path / "odd", narrower)
    summary = _compare([runs["monday"], other], tmp_path / "forced", force=True)
    assert summary["forced"] == ["protocol.maximum_width: 0.1 | 0.08"]
    page = (tmp_path / "forced" / "report.html").read_text()
    assert f"grasp-utility compare {runs['monday']} {other} --pair pcn-qal,pcn-cd" in page
    assert "--force --out NEW_FOLDER" in page
    assert "<strong>Forced.</strong>" in page and "protocol.maximum_width: 0.1 | 0.08" in page


def test_wrong_input_is_one_line_and_status_two(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no run folder"):
        _compare([runs["monday"], tmp_path], tmp_path / "out")
    with pytest.raises(CompareError, match="two or more"):
        _compare([runs["monday"]], tmp_path / "out")
    with pytest.raises(CompareError, match="named twice"):
        _compare([runs["monday"], runs["monday"]], tmp_path / "out")
    with pytest.raises(CompareError, match="choose another --out"):
        _compare([runs["monday"], runs["tuesday"]], runs["monday"])
    with pytest.raises(CompareError, match="unknown arm 'pcn'"):
        _compare([runs["monday"], runs["tuesday"]], tmp_path / "out", pairs=[("pcn", "partial")])
    old = _with(runs["tuesday"], tmp_path / "old", lambda summary: summary.update(format_version=1))
    with pytest.raises(ArtifactError, match="format version 1, this program reads 4; run the experiment again"):
        _compare([runs["monday"], old], tmp_path / "out")
    lost = _with(runs["tuesday"], tmp_path / "lost", lambda summary: None)
    (lost / "tables" / "grasps.parquet").unlink()
    with pytest.raises(ArtifactError, match="no such table"):
        _compare([runs["monday"], lost], tmp_path / "out")


def test_a_generator_is_deterministic_where_every_run_says_so(runs: dict[str, Path], tmp_path: Path) -> None:
    def unsure(summary: dict[str, Any]) -> None:
        summary["generators"][0]["deterministic"] = None

    other = _with(runs["tuesday"], tmp_path / "other", unsure)
    for pair in ([runs["monday"], other], [other, runs["monday"]]):
        described = compare._described(compare._sources(pair))
        assert [item["deterministic"] for item in described] == [None]


@pytest.mark.slow
def test_the_command_prints_the_tables(runs: dict[str, Path], tmp_path: Path) -> None:
    arguments = ["compare", str(runs["monday"]), str(runs["tuesday"]), "--out", str(tmp_path / "both")]
    result = CliRunner().invoke(app, [*arguments, "--pair", "pcn-qal,pcn-cd"])
    assert result.exit_code == 0, result.output
    assert "pcn-qal - pcn-cd" in result.output and "report.html" in result.output.replace("\n", "")
    summary = json.loads((tmp_path / "both" / "summary.json").read_text())
    assert {(row["arm_a"], row["arm_b"]) for row in summary["comparisons"]} == {("pcn-qal", "pcn-cd")}


def test_equal_runs_do_not_differ(runs: dict[str, Path]) -> None:
    shared = json.loads((runs["monday"] / "summary.json").read_text())["comparable"]
    assert comparable.differing(shared, json.loads(json.dumps(shared))) == []
