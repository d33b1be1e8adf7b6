"""Several checkpoints in one table: groups, spread over seeds, what else differs, and how it is written."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from completion import checkpoint
from completion.comparison import Comparison, ComparisonError, check_output, compare
from completion.datasets.pairs import PairDataset, read_pairs
from completion.evaluate import _extra, evaluate
from completion.losses import LOSSES
from completion.networks import PCN
from completion.tables import COLUMNS
from pipeline.console_checkpoint import show_comparison

TRAINING: dict[str, Any] = {
    "seed": 0,
    "steps": 3,
    "batch_size": 2,
    "pairs": [{"file": "train.npz", "sha256": "0" * 64}],
}


@pytest.fixture
def trained(tmp_path: Path, inference_config: dict[str, Any]) -> Callable[..., Path]:
    """``trained(name, seed, loss=..., network=..., training=...)``: a folder with weights of that seed."""

    def make(name: str, seed: int = 0, weights: int | None = None, **changes: Any) -> Path:
        training = {**TRAINING, "seed": seed, **changes.pop("training", {})}
        network = {**inference_config["network"]["parameters"], **changes.pop("network", {})}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed if weights is None else weights)
            made = PCN(**network)
        config = {
            **inference_config,
            "network": {"name": "pcn", "parameters": network},
            "training": training,
            **changes,
        }
        return checkpoint.save(tmp_path / name, made, {**config, "output_points": made.output_points}, "# card\n")

    return make


def test_groups_have_the_mean_and_spread_of_their_seeds(trained, write_pairs) -> None:
    pairs = write_pairs("novel.npz", objects=2, views=2)
    qal = {"name": "qal", "parameters": {"lambda_attr": 0.5}}
    paths = [
        trained("a", 0),
        trained("b", 0, weights=5, loss=qal),
        trained("c", 1),
        trained("d", 1, weights=6, loss=qal),
        trained("e", 2),
    ]
    told: list[tuple[int, int]] = []
    found = compare(paths, pairs, device="cpu", progress=lambda *now: told.append(now))
    assert told == [(k, 5) for k in range(1, 6)]
    assert [(row.loss, row.network, row.way, row.seeds, row.members) for row in found.rows] == [
        ("-", "-", "partial", 0, ()),
        ("cd_l1", "pcn", "replace", 3, ("a", "c", "e")),
        ("cd_l1", "pcn", "append", 3, ("a", "c", "e")),
        ("qal (lambda_attr 0.5)", "pcn", "replace", 2, ("b", "d")),
        ("qal (lambda_attr 0.5)", "pcn", "append", 2, ("b", "d")),
    ]
    assert (found.samples, found.objects, found.pairs, found.columns) == (4, 2, "novel.npz", COLUMNS)
    alone = {path.name: evaluate(path, pairs, device="cpu") for path in paths}
    assert {member.name: member.table for member in found.members} == alone
    for row in found.rows[1:]:
        for column in COLUMNS:
            values = [alone[name][row.way][column] for name in row.members]
            assert row.mean[column] == pytest.approx(np.mean(values), abs=1e-12)
            assert row.sd[column] == pytest.approx(np.std(values, ddof=1), abs=1e-12)
            assert (row.low[column], row.high[column]) == (min(values), max(values))
    assert any(row.sd["cd_l1"] > 0 for row in found.rows[1:])
    assert found.rows[0].mean["coverage"] == alone["a"]["partial"]["coverage"]
    assert found.notes == ("the groups hold different seeds, so differences are not paired",)


def test_append_is_the_union_of_prediction_and_observation(trained, write_pairs) -> None:
    """The shortcut through two nearest neighbours, beside a search in the joined cloud."""
    pairs, path = write_pairs("novel.npz", objects=1, views=3), trained("a")
    found = evaluate(path, pairs, device="cpu")["append"]
    file, network = read_pairs(pairs), checkpoint.load(path, "cpu").network
    dataset = PairDataset([file], 64, 2048)
    sums = dict.fromkeys(("coverage", "spurious", "cd_l1", "cd_l2", "spurious_5mm", "cd_l1_mm"), 0.0)
    for i in range(len(file)):
        pair = dataset.draw(i, np.random.default_rng([0, 3, i]))
        with torch.no_grad():
            fine = network(torch.from_numpy(pair.partial)[None]).fine[0].numpy()
        joined = np.concatenate([pair.normalisation.to_network(file.partial(i)), fine]).astype(np.float64)
        distances = np.linalg.norm(joined[:, None] - pair.truth[None], axis=2)
        a, b = distances.min(axis=1), distances.min(axis=0)
        scale = pair.normalisation.scale
        sums["coverage"] += (b <= 0.03).mean()
        sums["spurious"] += (a > 0.03).mean()
        sums["cd_l1"] += 0.5 * (a.mean() + b.mean())
        sums["cd_l2"] += (a**2).mean() + (b**2).mean()
        sums["spurious_5mm"] += (a * scale > 0.005).mean()
        sums["cd_l1_mm"] += 500 * scale * (a.mean() + b.mean())
    for column, total in sums.items():
        assert found[column] == pytest.approx(total / len(file), rel=1e-4, abs=2e-4), column


def test_equal_functions_get_equal_labels_and_networks_name_what_differs(trained, write_pairs) -> None:
    pairs = write_pairs("novel.npz", objects=1, views=1)
    found = compare(
        [
            trained("a", 0, loss={"name": "qal", "parameters": {}}),
            trained("b", 1, loss={"name": "qal", "parameters": {"lambda_attr": 1.0}}),
            trained("c", 0, network={"num_coarse": 32}, loss={"name": "qal", "parameters": {}}),
        ],
        pairs,
        device="cpu",
    )
    assert [(row.loss, row.network, row.seeds) for row in found.rows if row.way == "replace"] == [
        ("qal", "pcn (num_coarse 16)", 2),
        ("qal", "pcn (num_coarse 32)", 1),
    ]


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"seed": 0}, "seeds repeat (0, 0)"),
        ({"seed": 1, "weights": 0}, "seeds repeat (0, 1)"),  # the same weights under another name
        ({"seed": 1, "training": {"steps": 9}}, "its checkpoints differ in steps, not in the seed alone"),
        ({"seed": 1, "training": {"pairs": []}}, "its checkpoints differ in pairs, not in the seed alone"),
        ({"seed": 1, "frame": "camera"}, "the pairs are in frame 'table', but checkpoints expect 'camera'"),
        (
            {"seed": 0, "loss": {"name": "cd_l2"}, "training": {"steps": 9}},
            "the groups differ in steps too, not in loss and network alone",
        ),
        (
            {"seed": 0, "loss": {"name": "cd_l2"}},
            "cd_l1, pcn; cd_l2, pcn: one checkpoint each, so nothing is known of their spread",
        ),
        ({"seed": 1, "loss": {"name": "cd_l2"}}, "the groups hold different seeds"),
    ],
)
def test_what_else_differs_is_said(trained, write_pairs, changes, note) -> None:
    found = compare([trained("a"), trained("b", **changes)], write_pairs("novel.npz", 1, 1), device="cpu")
    assert any(note in one for one in found.notes), found.notes


def test_nothing_is_noted_where_only_seeds_differ(trained, write_pairs) -> None:
    assert compare([trained("a", 0), trained("b", 1)], write_pairs("novel.npz", 1, 1), device="cpu").notes == ()


def test_baselines_of_several_normalisations_are_told_apart(trained, write_pairs) -> None:
    pairs = write_pairs("novel.npz", objects=1, views=2)
    found = compare([trained("a"), trained("b", normalisation="oracle")], pairs, [pairs], device="cpu")
    assert [(row.network, row.way) for row in found.rows[:4]] == [
        ("partial, 64 points in", "partial"),
        ("partial, 64 points in", "nearest shape"),
        ("oracle, 64 points in", "partial"),
        ("oracle, 64 points in", "nearest shape"),
    ]
    assert found.rows[0].mean["cd_l1"] != found.rows[2].mean["cd_l1"]


def test_the_table_is_written_as_its_suffix_says(trained, write_pairs, tmp_path) -> None:
    found = compare([trained("a", 0), trained("b", 1)], write_pairs("novel.npz", 1, 2), device="cpu")
    with found.write(tmp_path / "deep" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["way"] for row in rows] == ["partial", "replace", "append"]
    assert float(rows[1]["f1_sd"]) == found.rows[1].sd["f1"] and rows[0]["f1_sd"] == ""
    assert float(rows[2]["cd_l1_mm_max"]) == found.rows[2].high["cd_l1_mm"]
    text = found.write(tmp_path / "table.md").read_text()
    assert f"{found.rows[1].mean['coverage']:.4f} ± {found.rows[1].sd['coverage']:.4f} [" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 5 and len({line.count("|") for line in lines}) == 1
    record = json.loads(found.write(tmp_path / "table.json").read_text())
    assert record["members"][1]["seed"] == 1 and record["rows"][1]["mean"] == found.rows[1].mean
    assert not list(tmp_path.rglob(".table*"))  # nothing half-written is left
    with pytest.raises(ComparisonError, match=r"table\.xlsx: .* \.csv, \.md or \.json"):
        check_output(tmp_path / "table.xlsx")
    with pytest.raises(ComparisonError, match="name at least one checkpoint"):
        compare([], write_pairs())


def test_dcd_and_emd_are_means_over_pairs_and_emd_draws_of_the_larger_cloud() -> None:
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    torch.manual_seed(0)
    truth = 0.3 * torch.randn(3, 40, 3)
    equal = [truth[:2] + 0.01, truth[2:].flip(1)]
    found = _extra(equal, truth, seed=0)
    matched = []
    for ours, theirs in zip(torch.cat(equal), truth, strict=True):
        cost = cdist(ours, theirs)
        matched.append(cost[linear_sum_assignment(cost)].mean())
    assert found["emd"] == pytest.approx(np.mean(matched), abs=0.003)  # the auction's eps
    assert found["dcd"] == pytest.approx(LOSSES["dcd"](torch.cat(equal), truth).mean().item(), abs=1e-6)
    larger = [torch.cat([truth, truth], dim=1)]  # forty of eighty: true points, but not each of them once
    assert 0.003 < _extra(larger, truth, seed=0)["emd"] < 0.3
    assert _extra(larger, truth, seed=0) == _extra(larger, truth, seed=0) != _extra(larger, truth, seed=1)


@pytest.mark.slow
def test_all_metrics_add_dcd_and_emd(trained, write_pairs) -> None:
    pairs, path = write_pairs("novel.npz", objects=1, views=1), trained("a")
    plain, found = (evaluate(path, pairs, device="cpu", all_metrics=more) for more in (False, True))
    for way, row in found.items():
        assert {key: row[key] for key in plain[way]} == plain[way]
        assert 0 < row["dcd"] <= 1 and row["emd"] > 0
    comparison = compare([path], pairs, device="cpu", all_metrics=True)
    assert comparison.columns == (*COLUMNS, "dcd", "emd")
    assert isinstance(comparison, Comparison) and "DCD" in comparison.markdown()
    assert "EMD ×1000" in printed(comparison)


def printed(comparison: Comparison, width: int = 100) -> str:
    text = io.StringIO()
    show_comparison(comparison, Console(file=text, width=width, highlight=False))
    return text.getvalue()


def test_the_terminals_table_is_whole_at_100_columns(trained, write_pairs) -> None:
    loss = {"name": "qal", "parameters": {"lambda_attr": 0.5, "epsilon": 0.01}}
    found = compare(
        [trained("a", 0, loss=loss), trained("b", 1, loss=loss), trained("c", 0, network={"num_coarse": 32})],
        write_pairs("novel.npz", objects=1, views=2),
        device="cpu",
    )
    text = printed(found)
    tables = text[: text.index("note")].splitlines()
    assert max(map(len, tables)) <= 100 and "…" not in text
    row = found.rows[1]
    for column, digits in (("coverage", 3), ("spurious_5mm", 3), ("f1", 3), ("cd_l1_mm", 2)):
        assert f"{row.mean[column]:.{digits}f} ± {row.sd[column]:.{digits}f}" in text
        assert f"{row.low[column]:.{digits}f} to {row.high[column]:.{digits}f}" in text
    assert all(note in text for note in found.notes)
