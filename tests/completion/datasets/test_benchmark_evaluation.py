"""Evaluation on the benchmarks: what the network is fed, figures as the benchmark's, and what does not compare."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from completion.benchmark_evaluation import evaluate_benchmark, feeding, write_results
from completion.benchmarks import BENCHMARKS
from completion.checkpoint import Checkpoint
from completion.comparison import ComparisonError
from completion.configuration import Part
from completion.datasets import open_data
from completion.datasets.base import DatasetError
from completion.networks import Completion, CompletionNetwork

IMPORTED = {"frame": "canonical", "trained_normalisation": "oracle"}
IMPORTED_55 = {"frame": "canonical", "trained_normalisation": "oracle-radius"}


class Echo(CompletionNetwork):
    """Answers with its input, and remembers it."""

    output_points = 64

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[torch.Tensor] = []

    def forward(self, partial: torch.Tensor) -> Completion:
        self.seen.append(partial)
        return Completion((partial,))


@pytest.fixture
def echo(tmp_path: Path, inference_config: dict[str, Any]) -> Callable[..., Checkpoint]:
    def make(**changes: Any) -> Checkpoint:
        return Checkpoint(tmp_path / "echo", Echo(), {**inference_config, "input_points": 30, **changes})

    return make


def naive(name: str, prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The benchmark's first figures of one sample, by all distances."""
    distances = np.linalg.norm(prediction[:, None].astype(np.float64) - truth[None], axis=2)
    a, b = distances.min(axis=1), distances.min(axis=0)
    if name == "pcn":
        found = {"cd_l1_x1e3": 500 * (a.mean() + b.mean())}
    else:
        factor, title = (1e3, "cd_l2_x1e3") if name == "shapenet55" else (1e4, "cd_l2_x1e4")
        found = {title: factor * ((a**2).mean() + (b**2).mean())}
    if name != "completion3d":
        precision, recall = (a < 0.01).mean(), (b < 0.01).mean()
        found["f1_0.01"] = 2 * precision * recall / max(precision + recall, 1e-12)
    return found


@pytest.mark.parametrize(
    ("name", "split", "options"),
    [
        ("mvp", "test", {}),
        ("mvp", "train", {}),
        ("pcn", "test", {}),
        ("shapenet55", "test", {"difficulty": "hard"}),
        ("completion3d", None, {}),
    ],
)
def test_figures_are_the_benchmarks_own(write_benchmark, echo, name: str, split: str | None, options: dict) -> None:
    """What an imported network is fed and what comes out, beside a loop over samples."""
    root = write_benchmark(name)
    points = 20
    checkpoint = echo(**(IMPORTED_55 if name == "shapenet55" else IMPORTED), input_points=points)
    (result,) = evaluate_benchmark(checkpoint, name, root, split, options, device="cpu")
    used = split or "val"
    data = open_data(Part(name, {"root": str(root), "split": used, **options}), points, 1)
    assert (result.split, result.samples, result.of, result.fed) == (used, len(data), len(data), "as given")
    inputs = torch.cat(checkpoint.network.seen).numpy()
    rows: dict[str, list[dict[str, float]]] = {}
    for i in range(len(data)):
        sample = data.sample(i)
        # In the benchmark's own scale, untouched.
        assert {tuple(row) for row in inputs[i].tolist()} <= {tuple(row) for row in sample.partial.tolist()}
        rows.setdefault(data.category(i), []).append(naive(name, inputs[i], sample.truth))
    metrics = list(rows[data.category(0)][0])
    assert list(result.overall) == metrics == [one.name for one in BENCHMARKS[name].measures]
    assert result.counts == {category: len(each) for category, each in rows.items()}
    means = {category: [np.mean([row[one] for row in each]) for one in metrics] for category, each in rows.items()}
    for category, each in means.items():
        np.testing.assert_allclose(list(result.categories[category].values()), each, rtol=1e-4)
    if name == "mvp":  # mean over samples
        expected = np.mean([[row[one] for one in metrics] for each in rows.values() for row in each], axis=0)
    else:
        expected = np.mean(list(means.values()), axis=0)
    np.testing.assert_allclose(list(result.overall.values()), expected, rtol=1e-4)
    assert result.overall[metrics[0]] > 0


@pytest.mark.parametrize("mode", ["partial", "oracle"])
def test_a_network_of_ours_is_fed_as_its_configuration_says_and_measured_in_the_benchmarks_scale(
    write_benchmark, echo, mode: str
) -> None:
    root = write_benchmark("shapenet55")
    given, ours = echo(**IMPORTED_55), echo(frame="canonical", normalisation=mode)
    (expected,) = evaluate_benchmark(given, "shapenet55", root, options={"difficulty": "simple"}, device="cpu")
    (result,) = evaluate_benchmark(ours, "shapenet55", root, options={"difficulty": "simple"}, device="cpu")
    data = open_data(Part("shapenet55", {"root": str(root), "split": "test", "difficulty": "simple"}), 30, 1)
    for i, (seen, plain) in enumerate(zip(torch.cat(ours.network.seen), torch.cat(given.network.seen), strict=True)):
        reference = data.sample(i).partial if mode == "partial" else data.sample(i).truth
        low, high = reference.min(axis=0), reference.max(axis=0)
        by_hand = (plain.numpy() - (low + high) / 2) / np.linalg.norm(high - low)
        np.testing.assert_allclose(seen, by_hand, atol=1e-6)
    # Echo's answer is its input, so brought back it is the same cloud.
    assert result.overall == pytest.approx(expected.overall, rel=1e-4)
    assert result.fed == mode and any(f"by '{mode}'" in note for note in result.notes)
    assert not any("as given" in note for note in expected.notes)


def test_all_difficulties_of_shapenet_unless_one_is_chosen(write_benchmark, echo) -> None:
    root = write_benchmark("shapenet55")
    told: list[tuple[int, int]] = []
    results = evaluate_benchmark(
        echo(**IMPORTED_55), "shapenet55", root, device="cpu", progress=lambda *now: told.append(now)
    )
    assert [result.variant for result in results] == ["simple", "median", "hard"]
    errors = [result.overall["cd_l2_x1e3"] for result in results]
    assert errors[0] < errors[1] < errors[2]  # the more is cut away, the worse an echo does
    assert told[-1] == (48, 48) and [done for done, _ in told] == sorted(done for done, _ in told)


def test_what_does_not_compare_with_published_figures_is_said(write_benchmark, echo) -> None:
    root = write_benchmark("pcn")
    (result,) = evaluate_benchmark(echo(), "pcn", root, most=2, device="cpu")
    text = " / ".join(result.notes)
    for part in (
        "expects frame 'table', the benchmark is in 'canonical'",
        "sees 30 points; published figures are for 2048",
        "30 points against a truth of 64",
        "the truth has 64 points; published: 16384",
        "by 'partial'",
        "only part of the split",
    ):
        assert part in text
    assert (result.samples, result.of) == (2, 3) and "2 of 3 samples" in result.title
    assert "by 'oracle-radius'" in " ".join(evaluate_benchmark(echo(**IMPORTED_55), "pcn", root, device="cpu")[0].notes)


def test_clouds_are_given_as_they_are_where_the_network_was_trained_on_such() -> None:
    for trained, by_benchmark in (
        ("oracle", {"pcn": "as given", "mvp": "as given", "shapenet55": "oracle"}),
        ("oracle-radius", {"pcn": "oracle-radius", "shapenet55": "as given"}),
        ("partial", {"pcn": "partial", "shapenet55": "partial"}),
    ):
        config = {"normalisation": "partial", "trained_normalisation": trained}
        assert {name: feeding(config, name) for name in by_benchmark} == by_benchmark
    assert feeding({"normalisation": "oracle"}, "pcn") == "oracle"


def test_categories_and_sizes_are_the_readers(write_benchmark, echo) -> None:
    (result,) = evaluate_benchmark(
        echo(**IMPORTED), "mvp", write_benchmark("mvp"), "train", {"categories": ["chair"]}, most=3, device="cpu"
    )
    assert result.counts == {"chair": 3} and result.of == 26
    with pytest.raises(DatasetError, match="so take split val"):
        evaluate_benchmark(echo(), "completion3d", write_benchmark("completion3d"), "test", device="cpu")


def test_results_are_written_as_their_suffix_says(write_benchmark, echo, tmp_path: Path) -> None:
    results = evaluate_benchmark(echo(**IMPORTED), "shapenet55", write_benchmark("shapenet55"), device="cpu")
    with write_results(results, tmp_path / "out" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9 and [row["category"] for row in rows[:3]] == ["mug", "airplane", "mean"]
    assert float(rows[8]["cd_l2_x1e3"]) == results[2].overall["cd_l2_x1e3"]
    record = json.loads(write_results(results, tmp_path / "table.json").read_text())
    assert record["results"][1]["variant"] == "median" and record["results"][1]["overall"] == results[1].overall
    text = write_results(results, tmp_path / "table.md").read_text()
    assert text.count("| category | samples |") == 3 and f"{results[0].overall['cd_l2_x1e3']:.4g}" in text
    with pytest.raises(ComparisonError, match=r"\.csv, \.md or \.json"):
        write_results(results, tmp_path / "table.txt")
