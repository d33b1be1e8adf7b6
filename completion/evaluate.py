"""What a checkpoint is worth on objects that it never saw, beside two baselines that need no training.

- ``partial``: the observation itself, as many points as the network puts out (all of it, and some twice, where it has
  fewer);
- ``nearest shape``: retrieval. Every training pair's true cloud, in the network frame of its own partial, is a
  candidate; the candidate whose *partial* is closest to the observation (CD-L1 both ways) or whose *true cloud* covers
  it best (mean distance from observation to candidate) is taken, whichever of the two rules has the lower mean CD on
  the evaluated pairs. That choice looks at the truth, so the baseline is a little stronger than any that could be run.

Reads pair files; returns a table and writes ``evaluation.json`` and the card into the checkpoint's folder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from completion.checkpoint import CARD, EVALUATION, Checkpoint, load, write_text
from completion.datasets.pairs import PairDataset, PairFile, read_pairs
from completion.metrics import METRIC_THRESHOLD, NETWORK_THRESHOLD, metrics
from completion.nearest import nearest_neighbours
from completion.points import sample_indices
from completion.train import training_card

_COLUMNS = (
    "coverage",
    "spurious",
    "precision",
    "f1",
    "coverage_5mm",
    "spurious_5mm",
    "f1_5mm",
    "cd_l1",
    "cd_l1_mm",
    "cd_l2",
)
_CHUNK = 32
# Points a cloud while candidates are searched; the chosen one is compared in full.
_SEARCH_POINTS = 128

Table = dict[str, dict[str, float]]


def evaluate(
    checkpoint: Checkpoint | str | Path,
    pairs: str | Path,
    training_pairs: Sequence[str | Path],
    seed: int = 0,
    most_candidates: int = 2000,
    device: str = "auto",
    baselines: Table | None = None,
) -> Table:
    """Rows ``partial``, ``nearest shape``, ``replace``, ``append``; columns are metrics averaged over pairs.

    Columns: ``coverage``, ``precision``, ``spurious``, ``f1`` at τ = 0.03 of the network frame, the same with ``_5mm``
    at 5 mm, ``cd_l1`` and ``cd_l2`` in the network frame, ``cd_l1_mm`` in millimetres. ``replace`` is the prediction
    alone, ``append`` the prediction together with the whole observation, as a run appends it.

    Args:
        checkpoint: loaded, or a folder or shipped name.
        pairs: pair file of novel objects.
        training_pairs: what the checkpoint was trained on, for the retrieval baseline.
        seed: of the points that are drawn.
        most_candidates: retrieval candidates; more training pairs are thinned at random.
        device: where the network runs.
        baselines: a table made from the same files, seed and normalisation, whose first two rows are taken over: the
            search is most of the work, and the same for every checkpoint of a comparison.
    """
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = load(checkpoint, device)
    config = checkpoint.config
    file = read_pairs(pairs)
    clouds = _clouds(file, config["normalisation"], config["input_points"], 2048, seed)
    truth, scale = clouds.truth, clouds.scale
    if baselines is None:
        candidates = _candidates([read_pairs(path) for path in training_pairs], config, most_candidates, seed)
        retrieved = [
            _row(candidates[1][chosen].split(_CHUNK), truth, scale) for chosen in _retrieve(clouds.search, candidates)
        ]
        nearest = min(retrieved, key=lambda row: row["cd_l1"])
        baselines = {"partial": _row(clouds.dense.split(_CHUNK), truth, scale), "nearest shape": nearest}
    where = next(checkpoint.network.parameters()).device
    with torch.no_grad():
        parts = [checkpoint.network(part.to(where)).fine.float().cpu() for part in clouds.inputs.split(_CHUNK)]
    # One by one: observations differ in size.
    appended = [torch.cat([cloud, more])[None] for cloud, more in zip(clouds.whole, torch.cat(parts), strict=True)]
    return {
        "partial": baselines["partial"],
        "nearest shape": baselines["nearest shape"],
        "replace": _row(parts, truth, scale),
        "append": _row(appended, truth, scale),
    }


def write_evaluation(checkpoint: Checkpoint | str | Path, table: Table, pairs: str | Path) -> Path:
    """Write ``evaluation.json`` and the card into the checkpoint's folder; returns the card's path."""
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = load(checkpoint, "cpu")
    file = read_pairs(pairs)
    record = {"format_version": 1, "pairs": Path(pairs).name, "samples": len(file), "table": table}
    write_text(checkpoint.path / EVALUATION, json.dumps(record, indent=2) + "\n")
    card = training_card(checkpoint.path.name, dict(checkpoint.config))
    write_text(checkpoint.path / CARD, card + "\n" + evaluation_text(table, file))
    return checkpoint.path / CARD


def verdicts(table: Table) -> list[str]:
    """Plain sentences: does the prediction beat the partial in coverage and the nearest shape in CD?"""
    comparisons = (
        ("coverage at τ = 0.03", "coverage", "partial", "the partial cloud itself", 1),
        ("coverage at 5 mm", "coverage_5mm", "partial", "the partial cloud itself", 1),
        ("F1 at τ = 0.03", "f1", "partial", "the partial cloud itself", 1),
        ("CD-L1", "cd_l1", "nearest shape", "the nearest training shape", -1),
        ("CD-L1", "cd_l1", "partial", "the partial cloud itself", -1),
    )
    sentences = []
    for label, column, row, name, sign in comparisons:
        ours, theirs = table["replace"][column], table[row][column]
        won = sign * (ours - theirs) > 0
        sentences.append(
            f"{'Beats' if won else '**Does not beat**'} {name} in {label} ({ours:.4f} against {theirs:.4f})."
        )
    return sentences


def evaluation_text(table: Table, file: PairFile) -> str:
    """The part of the card that holds the figures."""
    lines = [
        "## On objects it never saw",
        "",
        f"{len(file)} pairs of {len(np.unique(file.object_index))} objects (`{file.path.name}`), means over pairs.",
        f"Coverage, precision, spurious (1 − precision), F1 at τ = {NETWORK_THRESHOLD} of the partial's diagonal, and",
        f"at {1000 * METRIC_THRESHOLD:g} mm; CD-L1 in diagonals and mm, CD-L2 in squared diagonals; 2,048 true points.",
        "`replace` is the prediction alone, `append` prediction and whole observation (which flatters coverage),",
        "`nearest shape` the retrieval baseline of `completion.evaluate`.",
        "",
        "| | " + " | ".join(_COLUMNS) + " |",
        "|---|" + "---:|" * len(_COLUMNS),
    ]
    for name, row in table.items():
        cells = (f"{row[column]:.5f}" if column == "cd_l2" else f"{row[column]:.4f}" for column in _COLUMNS)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", *(f"- {sentence}" for sentence in verdicts(table)), ""]
    lines += ["One checkpoint a loss compares two checkpoints, not two losses.", ""]
    return "\n".join(lines)


class _Clouds(NamedTuple):
    """The evaluated pairs in the network frame; of a pair, all clouds under one normalisation."""

    inputs: Tensor  # (P, input points, 3) what the network sees
    whole: list[Tensor]  # (N, 3) each: all that was observed
    dense: Tensor  # (P, target, 3) drawn from the observation
    search: Tensor  # (P, search points, 3) drawn from the observation
    truth: Tensor  # (P, target, 3)
    scale: Tensor  # (P,) metres a unit


def _clouds(file: PairFile, mode: str, points: int, target: int, seed: int) -> _Clouds:
    dataset = PairDataset([file], points, target, mode)
    drawn = [dataset.draw(i, np.random.default_rng([seed, 3, i])) for i in range(len(dataset))]
    whole = [torch.from_numpy(pair.normalisation.to_network(file.partial(i))) for i, pair in enumerate(drawn)]

    def again(count: int, stream: int) -> Tensor:
        # Of the whole observation, not the first of `inputs`: a small one stands there in the order of its voxels.
        return torch.stack(
            [
                cloud[sample_indices(len(cloud), count, np.random.default_rng([seed, stream, i]))]
                for i, cloud in enumerate(whole)
            ]
        )

    return _Clouds(
        inputs=torch.from_numpy(np.stack([pair.partial for pair in drawn])),
        whole=whole,
        dense=again(target, 4),
        search=again(_SEARCH_POINTS, 7),
        truth=torch.from_numpy(np.stack([pair.truth for pair in drawn])),
        scale=torch.tensor([pair.normalisation.scale for pair in drawn], dtype=torch.float32),
    )


def _candidates(files: list[PairFile], config: Any, most: int, seed: int) -> tuple[Tensor, Tensor]:
    """Training pairs in the network frame: partials ``(C, search points, 3)`` and truths ``(C, 2048, 3)``."""
    dataset = PairDataset(files, _SEARCH_POINTS, 2048, config["normalisation"])
    chosen = np.sort(np.random.default_rng([seed, 5]).permutation(len(dataset))[:most])
    drawn = [dataset.draw(int(i), np.random.default_rng([seed, 6, int(i)])) for i in chosen]
    partials = torch.from_numpy(np.stack([pair.partial for pair in drawn]))
    return partials, torch.from_numpy(np.stack([pair.truth for pair in drawn]))


def _retrieve(search: Tensor, candidates: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Index of the best candidate for each observation, by either rule of the module's docstring."""
    partials, truths = candidates[0], candidates[1][:, :_SEARCH_POINTS].contiguous()
    by_partial, by_truth = [], []
    for cloud in search:
        one = cloud.expand(len(partials), -1, -1).contiguous()
        near = nearest_neighbours(one, partials)
        by_partial.append(int((near.dist_a.mean(1) + near.dist_b.mean(1)).argmin()))
        by_truth.append(int(nearest_neighbours(one, truths).dist_a.mean(1).argmin()))
    return torch.tensor(by_partial), torch.tensor(by_truth)


def _row(batches: Sequence[Tensor], truth: Tensor, scale: Tensor) -> dict[str, float]:
    """Means over pairs of all columns; clouds in the network frame, ``scale`` metres a unit.

    Args:
        batches: predictions ``(b, N, 3)`` of consecutive pairs, P in all; N may differ between batches.
        truth: ``(P, M, 3)``.
        scale: ``(P,)``.
    """
    values: dict[str, list[Tensor]] = {}
    sizes = [len(batch) for batch in batches]
    for cloud, target, size in zip(batches, truth.split(sizes), scale.split(sizes), strict=True):
        for name, value in metrics(cloud, target, NETWORK_THRESHOLD)._asdict().items():
            values.setdefault(name, []).append(value)
        metres = metrics(cloud * size[:, None, None], target * size[:, None, None], METRIC_THRESHOLD)
        for name in ("coverage", "precision", "spurious", "f1"):
            values.setdefault(f"{name}_5mm", []).append(getattr(metres, name))
        values.setdefault("cd_l1_mm", []).append(1000 * metres.cd_l1)
    return {name: round(torch.cat(parts).double().mean().item(), 6) for name, parts in values.items()}
