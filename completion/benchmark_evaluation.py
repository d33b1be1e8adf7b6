"""A checkpoint on a public benchmark in the benchmark's own metrics, so that a number can stand beside a published one.

The metrics, their multipliers and thresholds are :mod:`completion.benchmarks`'s; the files :mod:`completion.datasets`'.
A network that was trained on a benchmark's clouds as given, such as public weights, is fed them as given; any other as
its ``config.json`` says, and its prediction is brought back before it is measured.

Reads a benchmark's folder and a checkpoint; returns a table.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from completion.benchmarks import BENCHMARKS, benchmark_metrics, summarise
from completion.checkpoint import Checkpoint, load, write_text
from completion.comparison import check_output
from completion.configuration import Part, check_name
from completion.datasets import open_data
from completion.datasets.base import AS_GIVEN, BenchmarkData, transform_of
from completion.datasets.shapenet55 import DIFFICULTIES

FORMAT_VERSION = 1
# Whose test can be checked: the server keeps Completion3D's.
DEFAULT_SPLIT = {"completion3d": "val"}
_CHUNK = 8


@dataclass(frozen=True)
class BenchmarkResult:
    """Figures in the benchmark's own convention.

    Attributes:
        benchmark, split, variant: what was evaluated; ``variant`` is ShapeNet-55's difficulty, else empty.
        checkpoint: name of its folder.
        samples, of: how many were evaluated, of how many.
        fed: how the network saw the clouds: ``as given`` or by which normalisation.
        overall: by metric, as the benchmark averages.
        categories: by category: number of samples and its means.
        notes: why a figure may not compare with published ones.
    """

    benchmark: str
    split: str
    variant: str
    checkpoint: str
    samples: int
    of: int
    fed: str
    overall: dict[str, float]
    categories: dict[str, dict[str, float]]
    counts: dict[str, int]
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """One line: what this is."""
        what = f"{self.benchmark} {self.split}" + (f" ({self.variant})" if self.variant else "")
        part = "" if self.samples == self.of else f" of {self.of}"
        return f"{self.checkpoint} on {what}: {self.samples}{part} samples, clouds {self.fed}"

    def lines(self) -> list[tuple[str, int, dict[str, float]]]:
        """Rows of the table: categories, then the benchmark's mean."""
        rows = [(name, self.counts[name], figures) for name, figures in self.categories.items()]
        return [*rows, ("mean", self.samples, self.overall)]

    def markdown(self) -> str:
        """The table for a README."""
        names = list(self.overall)
        text = [
            f"{self.title}.",
            "",
            f"| category | samples | {' | '.join(names)} |",
            "|---|" + "---:|" * (1 + len(names)),
        ]
        for name, count, figures in self.lines():
            text.append(f"| {name} | {count} | {' | '.join(f'{figures[one]:.4g}' for one in names)} |")
        return "\n".join([*text, "", *(f"- {note}" for note in self.notes)]).rstrip() + "\n"

    def csv(self) -> str:
        """One line a category and one for the mean."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        what = (self.checkpoint, self.benchmark, self.split, self.variant)
        writer.writerow(["checkpoint", "benchmark", "split", "variant", "category", "samples", *self.overall])
        for name, count, figures in self.lines():
            writer.writerow([*what, name, count, *figures.values()])
        return text.getvalue()


def evaluate_benchmark(
    checkpoint: Checkpoint | str | Path,
    benchmark: str,
    root: str | Path,
    split: str | None = None,
    options: Mapping[str, Any] | None = None,
    most: int | None = None,
    seed: int = 0,
    device: str = "auto",
    all_metrics: bool = False,
    trust_code: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[BenchmarkResult]:
    """Evaluate a checkpoint on one benchmark: one result, or one a difficulty of ShapeNet-55.

    Args:
        checkpoint: loaded, or a folder or shipped name.
        benchmark: name in ``BENCHMARKS``.
        root: its folder, see its reader in :mod:`completion.datasets`.
        split: ``test`` by default, ``val`` for Completion3D, whose test has no public truth.
        options: further parameters of the reader: ``categories``, ``difficulty``, ``subset``, ``points``.
        most: evaluate at most so many samples, evenly spaced, for a trial; the result says so.
        seed: of the points that the network is shown.
        device: where the network runs.
        all_metrics: also what the benchmark's code can report at many times the cost (EMD), where the network puts
            out as many points as the truth has.
        trust_code: see :func:`completion.checkpoint.load`.
        progress: told (done, all) after each batch.

    Raises:
        ConfigurationError: unknown benchmark or option.
        ValueError: ``all_metrics`` with sizes that do not match one to one.
        DatasetError, CheckpointError: what cannot be read.
    """
    check_name(benchmark, BENCHMARKS, "benchmark")
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = load(checkpoint, device, trust_code=trust_code)
    options = dict(options or {})
    split = split or DEFAULT_SPLIT.get(benchmark, "test")
    variants: list[str] = [""]
    if benchmark == "shapenet55" and split == "test":
        variants = [str(options.pop("difficulty"))] if "difficulty" in options else list(DIFFICULTIES)
    opened = []
    for variant in variants:
        given = {"root": str(root), "split": split, **options, **({"difficulty": variant} if variant else {})}
        part = Part(benchmark, given)
        opened.append(open_data(part, checkpoint.config["input_points"], 1, seed=seed, mode=AS_GIVEN))
    chosen = [_evenly(len(data), most) for data in opened]
    total, done, results = sum(map(len, chosen)), 0, []
    for variant, data, indices in zip(variants, opened, chosen, strict=True):
        values: dict[str, list[Tensor]] = {}
        sizes = (0, 0)
        for start in range(0, len(indices), _CHUNK):
            batch = indices[start : start + _CHUNK]
            prediction, truth = _complete(checkpoint, data, batch, seed)
            sizes = prediction.shape[1], truth.shape[1]
            for name, value in benchmark_metrics(benchmark, prediction, truth, all_metrics).items():
                values.setdefault(name, []).append(value.double().cpu())
            done += len(batch)
            if progress is not None:
                progress(done, total)
        figures = summarise(
            benchmark,
            {name: torch.cat(parts) for name, parts in values.items()},
            [data.category(index) for index in indices],
        )
        results.append(
            BenchmarkResult(
                benchmark=benchmark,
                split=split,
                variant=variant,
                checkpoint=checkpoint.path.resolve().name,
                samples=len(indices),
                of=len(data),
                fed=feeding(checkpoint.config, benchmark),
                overall=figures.overall,
                categories=figures.categories,
                counts=figures.counts,
                notes=tuple(_notes(checkpoint.config, benchmark, *sizes, len(indices) < len(data))),
            )
        )
    return results


def write_results(results: list[BenchmarkResult], path: str | Path) -> Path:
    """Write results as .csv, .md or .json, as the suffix says; atomically."""
    path = check_output(path)
    if path.suffix == ".json":
        text = (
            json.dumps({"format_version": FORMAT_VERSION, "results": [asdict(one) for one in results]}, indent=2) + "\n"
        )
    elif path.suffix == ".md":
        text = "\n".join(one.markdown() for one in results)
    else:
        parts = [one.csv() for one in results]
        text = parts[0] + "".join(part.partition("\n")[2] for part in parts[1:])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return path


def feeding(config: Mapping[str, Any], benchmark: str) -> str:
    """How a checkpoint sees a benchmark's clouds: ``as given``, or a normalisation.

    A benchmark's own scale comes from the true clouds. A network that was trained on clouds as some benchmark gives
    them, here or elsewhere, says so by a ``trained_normalisation`` that inference has to replace.
    """
    own = "oracle-radius" if benchmark == "shapenet55" else "oracle"
    trained = str(config.get("trained_normalisation", config["normalisation"]))
    return AS_GIVEN if "trained_normalisation" in config and trained == own else trained


def _notes(config: Mapping[str, Any], benchmark: str, predicted: int, true: int, part: bool) -> list[str]:
    """Why these figures may not stand beside published ones."""
    convention, mode, notes = BENCHMARKS[benchmark], feeding(config, benchmark), []
    if config["frame"] != BenchmarkData.frame:
        notes.append(
            f"the network expects frame {config['frame']!r}, the benchmark is in {BenchmarkData.frame!r}: it sees "
            "objects turned as never in training"
        )
    if config["input_points"] != convention.input_points:
        notes.append(
            f"the network sees {config['input_points']} points; published figures are for {convention.input_points}"
        )
    if predicted != true:
        notes.append(
            f"{predicted} points against a truth of {true}: published networks put out as many as the truth has"
        )
    if true not in convention.truth_points:
        notes.append(f"the truth has {true} points; published: {', '.join(map(str, convention.truth_points))}")
    if mode != AS_GIVEN:
        notes.append(f"clouds were brought to the network frame by {mode!r}, published networks see them as given")
    if part:
        notes.append("only part of the split was evaluated")
    return notes


def _complete(checkpoint: Checkpoint, data: BenchmarkData, indices: list[int], seed: int) -> tuple[Tensor, Tensor]:
    """Predictions ``(b, N, 3)`` and truths ``(b, M, 3)`` in the benchmark's scale."""
    mode = feeding(checkpoint.config, data.name)
    inputs, transforms, truths = [], [], []
    for index in indices:
        sample = data.sample(index)
        transform = transform_of(mode, sample.partial, sample.truth)
        shown = data.shown(sample.partial, np.random.default_rng([seed, 1, index]))
        inputs.append(transform.to_network(shown))
        transforms.append(transform)
        truths.append(sample.truth)
    where = next(checkpoint.network.parameters()).device
    with torch.no_grad():
        fine = checkpoint.network(torch.from_numpy(np.stack(inputs)).to(where)).fine.float()
    scale = torch.tensor([one.scale for one in transforms], dtype=torch.float32, device=where)
    centre = torch.tensor(np.stack([one.centre for one in transforms]), dtype=torch.float32, device=where)
    return fine * scale[:, None, None] + centre[:, None], torch.from_numpy(np.stack(truths)).to(where)


def _evenly(count: int, most: int | None) -> list[int]:
    if most is None or most >= count:
        return list(range(count))
    return np.unique(np.linspace(0, count - 1, most).round().astype(int)).tolist()
