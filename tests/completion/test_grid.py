"""Grids of runs: from one file to validated runs, to one table; resumed, evaluated as evaluate does, failures told."""

from __future__ import annotations

import csv
import io
import json
import os
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from completion import grid as grids
from completion.comparison import compare
from completion.configuration import ConfigurationError, load_config
from completion.evaluate import evaluate
from completion.grid import Grid, carry_out, load_grid, with_key
from completion.grid_results import Outcome, summarise, write_results
from completion.losses import LOSSES, cd_l1
from completion.tables import COLUMNS
from pipeline.console_checkpoint import show_grid

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "training"


@pytest.fixture
def grid_file(write_pairs, training_keys, tmp_path):
    """``grid_file(**changes)`` -> path of a grid of cd_l1 and two of qal, two seeds each."""

    def write(**changes) -> Path:
        base = training_keys(write_pairs(), steps=2)
        content = {
            "base": base,
            "vary": {"seed": [0, 1]},
            "cells": [
                {"name": "cd_l1", "loss": "cd_l1"},
                {"name": "qal", "loss": "qal", "vary": {"loss.parameters.omega": [1.0, 100.0]}},
            ],
            "evaluate": [str(write_pairs("held.npz", seed=5, objects=2, views=1))],
        }
        path = tmp_path / "grid.yaml"
        path.write_text(yaml.safe_dump({**content, **changes}, sort_keys=False))
        return path

    return write


def carried(grid: Grid, out: Path) -> grids.GridResult:
    return carry_out(grid, out, "cpu", say=lambda line: None)


def printed(result: grids.GridResult) -> str:
    text = io.StringIO()
    show_grid(result.rows, Console(file=text, width=100, highlight=False))
    return text.getvalue()


def test_cells_are_every_combination_the_first_key_outermost(grid_file) -> None:
    grid = load_grid(grid_file())
    assert [cell.name for cell in grid.cells] == [
        f"{group}-seed{seed}" for seed in (0, 1) for group in ("cd_l1", "qal-omega1", "qal-omega100")
    ]
    last = grid.cells[-1]
    assert last.group == "qal-omega100" and last.config.seed == 1
    assert last.config.loss.parameters == {"omega": 100.0} and last.config.loss.name == "qal"
    plainly = load_grid(grid_file(cells=[], vary={"loss": ["cd_l1", "qal"], "batch_size": [2, 4]}))
    assert [cell.name for cell in plainly.cells] == [
        *("cd_l1-batch_size2", "cd_l1-batch_size4", "qal-batch_size2", "qal-batch_size4")
    ]


def test_dotted_keys_change_a_copy() -> None:
    base = {"loss": "qal", "steps": 3}
    assert with_key(base, "loss.parameters.omega", 2.0)["loss"] == {"name": "qal", "parameters": {"omega": 2.0}}
    assert with_key(base, "loss", {"name": "cd_l1"})["loss"] == {"name": "cd_l1"}
    assert with_key(base, "augmentation.mirror", True)["augmentation"] == {"mirror": True}
    assert base == {"loss": "qal", "steps": 3}
    with pytest.raises(ConfigurationError, match="steps holds no keys"):
        with_key(base, "steps.many", 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"celles": []}, r"unknown key 'celles' \(did you mean 'cells'\?"),
        ({"vary": {"sead": [0]}}, r"run cd_l1-sead0: unknown key 'sead' \(did you mean 'seed'\?"),
        ({"vary": {"seed": 3}}, "vary: expected a list of values"),
        ({"cells": [{"loss": "cd_l1"}, {"loss": "qal"}]}, "several runs are called base-seed0, base-seed1"),
        ({"cells": [{"name": "a", "loss": "qol"}]}, r"run a-seed0: loss: unknown name 'qol'"),
        ({"evaluate": []}, "evaluate is empty"),
        ({"evaluate": [{"pairs": "x", "object": ["mug"]}]}, r"unknown key 'object' \(did you mean 'objects'\?"),
        ({"threads": 0}, "threads and jobs must be above 0"),
        ({"base": "none.yaml"}, r"none\.yaml: cannot be read"),
        ({"cells": [{"name": "../a"}]}, "cannot name a folder"),
        ({"format_version": 2}, "format_version 2"),
    ],
)
def test_mistakes_are_named_before_anything_runs(grid_file, changes, message) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_grid(grid_file(**changes))


def test_a_grid_trains_evaluates_resumes_and_tabulates(grid_file, tmp_path, monkeypatch) -> None:
    grid, out = load_grid(grid_file()), tmp_path / "out"
    trained: list[Path] = []
    train = grids.train

    def counted(config, folder, *rest, **options):
        trained.append(folder)
        if len(trained) == 4 and not (out / "stop").exists():
            (out / "stop").touch()
            raise KeyboardInterrupt
        return train(config, folder, *rest, **options)

    monkeypatch.setattr(grids, "train", counted)
    with pytest.raises(KeyboardInterrupt):
        carried(grid, out)
    assert len(trained) == 4
    result = carried(grid, out)
    assert len(trained) == 4 + 3  # the three that were finished are left alone
    assert len(result.rows) == 6 and not result.failed
    for row in result.rows:
        by_itself = evaluate(out / row.run, grid.evaluate[0].pairs, device="cpu")["replace"]
        assert row.values == {name: by_itself[name] for name in COLUMNS}
    assert {path.name for path in result.written} >= {"runs.csv", "summary.csv", "summary.md"}
    with (out / "runs.csv").open() as file:
        runs = list(csv.DictReader(file))
    with (out / "summary.csv").open() as file:
        summary = {row["group"]: row for row in csv.DictReader(file)}
    values = [float(row["coverage"]) for row in runs if row["group"] == "qal-omega1"]
    assert len(values) == 2 and summary["qal-omega1"]["seeds"] == "2"
    assert float(summary["qal-omega1"]["coverage"]) == pytest.approx(statistics.fmean(values), abs=1e-5)
    assert float(summary["qal-omega1"]["coverage_sd"]) == pytest.approx(statistics.stdev(values), abs=1e-5)
    assert float(summary["qal-omega1"]["coverage_max"]) == pytest.approx(max(values), abs=1e-5)
    assert summary["qal-omega1"]["checkpoints"] == "qal-omega1-seed0 qal-omega1-seed1"
    text = printed(result)
    assert all(name in text for name in ("cd_l1", "qal-omega1", "qal-omega100", "coverage", "spurious"))
    assert max(map(len, text.splitlines())) <= 100
    assert str(tmp_path) not in (out / "summary.md").read_text()
    # Another evaluation does not train again; another grid of the same names does not mix with it.
    carried(load_grid(grid_file(), evaluate=[grid.cells[0].config.pairs[0]]), out)
    assert len(trained) == 7 + 6 and all(
        json.loads((out / cell.name / "log.csv").with_name("config.json").read_text())["training"]["steps"] == 2
        for cell in grid.cells
    )
    base = yaml.safe_load(grid_file().read_text())["base"]
    refused = carried(load_grid(grid_file(base={**base, "learning_rate": 0.5})), out)
    assert len(refused.failed) == 6 and "learning_rate differ" in refused.rows[0].failed


def test_a_grid_and_a_comparison_of_its_checkpoints_give_the_same_numbers(grid_file, tmp_path) -> None:
    grid, out = load_grid(grid_file(cells=[{"name": "a", "loss": "cd_l1"}, {"name": "b", "loss": "qal"}])), tmp_path
    result = carried(grid, out)
    found = compare([out / cell.name for cell in grid.cells], grid.evaluate[0].pairs, device="cpu")
    compared = [row for row in found.rows if row.way == "replace"]
    groups = summarise(result.rows)["held"]
    assert [(group.loss, group.members) for group in groups] == [(row.loss, row.members) for row in compared]
    for group, row in zip(groups, compared, strict=True):
        assert group.seeds == row.seeds == 2
        assert (group.mean, group.sd, group.low, group.high) == (row.mean, row.sd, row.low, row.high)
    lines = (out / "summary.md").read_text(), found.markdown()
    of_a, of_all = ([line for line in text.splitlines() if line.startswith("|")] for text in lines)
    assert all(any(line.endswith(one.partition("|")[2].partition("|")[2]) for line in of_all) for one in of_a[2:])


def test_a_run_that_fails_is_a_row_with_its_reason(grid_file, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(LOSSES, "bad", lambda a, b: cd_l1(a, b) * float("nan"))
    cells = [{"name": "bad", "loss": "bad"}, {"name": "cd_l1", "loss": "cd_l1"}]
    result = carried(load_grid(grid_file(cells=cells, vary={})), tmp_path / "out")
    assert result.failed == ["bad"]
    assert [bool(row.values) for row in result.rows] == [False, True]
    assert "diverged at step 0" in result.rows[0].failed
    assert "failed     bad: training diverged" in printed(result)
    assert "diverged" in (tmp_path / "out" / "summary.md").read_text()


def test_code_that_is_not_trusted_is_refused_before_anything_runs(grid_file, tmp_path) -> None:
    cells = [{"name": "ours", "loss": "cd_l1"}, {"name": "theirs", "loss": "no_such_module:loss"}]
    out = tmp_path / "out"
    with pytest.raises(ConfigurationError, match=r"run theirs-seed0: loss: .*--trust-code"):
        carried(load_grid(grid_file(cells=cells)), out)
    assert not list(out.iterdir())


def test_held_out_objects_and_scenes(grid_file, write_pairs, tmp_path) -> None:
    held = write_pairs("held.npz", seed=5, objects=2, views=1)
    some = {"pairs": str(held), "objects": [1], "scenes": [0]}
    grid = load_grid(grid_file(cells=[], vary={}), evaluate=None)
    both = Grid(grid.cells, (*grid.evaluate, *load_grid(grid_file(evaluate=[some])).evaluate), 1, 1)
    result = carried(both, tmp_path / "out")
    assert [row.pairs for row in result.rows] == ["held", "held 1 scene0"]
    assert result.rows[0].values != result.rows[1].values


def test_the_plot_is_written_and_the_same_each_time(tmp_path) -> None:
    pytest.importorskip("matplotlib")
    values = dict.fromkeys(COLUMNS, 0.5)
    rows = [
        Outcome(f"{loss}-{k}", loss, loss, k, "held", {**values, "coverage": 0.1 * k})
        for loss in LOSSES
        for k in range(2)
    ]
    written = {path.name: path for path in write_results(tmp_path, rows)}
    assert written["coverage_spurious.png"].read_bytes().startswith(b"\x89PNG")
    svg = written["coverage_spurious.svg"].read_text()
    assert "<svg" in svg and len(summarise(rows)["held"]) == len(LOSSES)
    one = written["coverage_spurious.png"].read_bytes()
    write_results(tmp_path, rows)
    assert written["coverage_spurious.png"].read_bytes() == one


def test_shipped_grids_are_the_papers_and_the_campaigns() -> None:
    sanity = load_grid(CONFIGS / "sanity_grid.yaml")
    assert len(sanity.cells) == 2 * (2 * 3 * 3 + 2)
    assert {cell.config.loss.name for cell in sanity.cells} == {"cd_l1", "cd_asymmetric", "qal"}
    combinations = {
        tuple(sorted(c.config.loss.parameters.items())) for c in sanity.cells if c.config.loss.name == "qal"
    }
    assert combinations == {
        (("epsilon", e), ("lambda_attr", a), ("omega", o))
        for e in (0.001, 0.01)
        for o in (1.0, 10.0, 100.0)
        for a in (0.0, 0.5, 1.0)
    }
    comparison = load_grid(CONFIGS / "loss_comparison.yaml")
    assert comparison.threads == 1 and len(comparison.cells) == 18
    one = comparison.cells[5]
    assert one.name == "qal_half-seed0" and one.config.loss.parameters == {"lambda_attr": 0.5}
    expected = load_config(
        CONFIGS / "pcn_cd.yaml",
        batch_size=16,
        steps=1500,
        loss={"name": "qal", "parameters": {"lambda_attr": 0.5}},
    )
    assert one.config == expected
    second = load_grid(CONFIGS / "loss_comparison_adapointr.yaml")
    names = ("cd_l1", "cd_asymmetric", "qal")
    assert [cell.name for cell in second.cells] == [f"{name}-seed{seed}" for seed in range(3) for name in names]
    for cell in second.cells:
        assert cell.config.network.name == "adapointr" and cell.config.steps == 1000
        assert replace(cell.config, network=expected.network, loss=expected.loss, steps=1500, seed=0) == expected
    seeds = load_grid(CONFIGS / "loss_seeds.yaml")
    assert [cell.name for cell in seeds.cells] == [f"{name}-seed{seed}" for seed in range(5) for name in names]
    for cell in seeds.cells:
        shipped = load_config(CONFIGS / f"pcn_{cell.config.loss.name.removesuffix('_l1')}.yaml")
        assert replace(cell.config, seed=0) == shipped


@pytest.mark.slow
def test_several_jobs_give_the_same_table(grid_file, tmp_path) -> None:
    one = carried(load_grid(grid_file()), tmp_path / "one")
    two = carried(load_grid(grid_file(), jobs=2), tmp_path / "two")
    assert one.rows == two.rows
    assert os.environ.get("RANK") is None
