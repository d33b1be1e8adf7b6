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
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from completion.checkpoint import CARD, EVALUATION, Checkpoint, load, write_text
from completion.datasets.pairs import PairDataset, PairFile, read_pairs
from completion.metrics import METRIC_THRESHOLD, NETWORK_THRESHOLD, dcd, emd, from_distances
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
EXTRA_COLUMNS = ("dcd", "emd")  # with all_metrics
_CHUNK = 32
# Points a cloud while candidates are searched; the chosen one is compared in full.
_SEARCH_POINTS = 128

BASELINES = ("partial", "nearest shape")

Table = dict[str, dict[str, float]]
Distances = tuple[Tensor, Tensor]  # (b, N) of a cloud to the truth and (b, M) of the truth to it, network frame


def evaluate(
    checkpoint: Checkpoint | str | Path,
    pairs: str | Path,
    training_pairs: Sequence[str | Path] = (),
    seed: int = 0,
    most_candidates: int = 2000,
    device: str = "auto",
    baselines: Table | None = None,
    all_metrics: bool = False,
) -> Table:
    """Rows ``partial``, ``nearest shape``, ``replace``, ``append``; columns are metrics averaged over pairs.

    Columns: ``coverage``, ``precision``, ``spurious``, ``f1`` at τ = 0.03 of the network frame, the same with ``_5mm``
    at 5 mm, ``cd_l1`` and ``cd_l2`` in the network frame, ``cd_l1_mm`` in millimetres. ``replace`` is the prediction
    alone, ``append`` the prediction together with the whole observation, as a run appends it.

    Args:
        checkpoint: loaded, or a folder or shipped name.
        pairs: pair file of novel objects.
        training_pairs: what the checkpoint was trained on, for the retrieval baseline; without, it is left out.
        seed: of the points that are drawn.
        most_candidates: retrieval candidates; more training pairs are thinned at random.
        device: where the network runs.
        baselines: a table made from the same files, seed and normalisation, whose first rows are taken over: the
            search is most of the work, and the same for every checkpoint of a comparison.
        all_metrics: also ``dcd`` and ``emd``, in the network frame; they take most of the time then.
    """
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = load(checkpoint, device)
    return PairEvaluation(pairs, training_pairs, seed, most_candidates, all_metrics).table(checkpoint, baselines)


class PairEvaluation:
    """Evaluates checkpoints on the same pairs, one after the other; what they share is drawn and searched once.

    Arguments as of :func:`evaluate`; pairs that were read (and chosen from) before may be given in place of a file.
    """

    def __init__(
        self,
        pairs: str | Path | PairFile,
        training_pairs: Sequence[str | Path] = (),
        seed: int = 0,
        most_candidates: int = 2000,
        all_metrics: bool = False,
    ) -> None:
        self.file = pairs if isinstance(pairs, PairFile) else read_pairs(pairs)
        self._training = [read_pairs(path) for path in training_pairs]
        self._seed, self._most, self._all = seed, most_candidates, all_metrics
        self._clouds: dict[tuple[str, int], _Clouds] = {}
        self._seen: dict[tuple[str, int], list[Distances]] = {}
        self._baselines: dict[tuple[str, int], Table] = {}

    def table(self, checkpoint: Checkpoint, baselines: Table | None = None) -> Table:
        """The table of :func:`evaluate` for one checkpoint."""
        clouds = self._prepared(checkpoint)
        where = next(checkpoint.network.parameters()).device
        with torch.no_grad():
            parts = [checkpoint.network(part.to(where)).fine.float().cpu() for part in clouds.inputs.split(_CHUNK)]
        replaced = _distances(parts, clouds.truth)
        # The nearest of a union is the nearer of the two nearest, so what the observation has need be searched once.
        alone = [(a[None], b[None]) for near in replaced for a, b in zip(*near, strict=True)]
        appended = [
            (torch.cat([seen_a, a], dim=1), torch.minimum(seen_b, b))
            for (seen_a, seen_b), (a, b) in zip(self._observed(checkpoint), alone, strict=True)
        ]
        joined = (torch.cat([cloud, more])[None] for cloud, more in zip(clouds.whole, torch.cat(parts), strict=True))
        shared = self.baselines(checkpoint) if baselines is None else baselines
        return {
            **{name: shared[name] for name in BASELINES if name in shared},
            "replace": self._row(replaced, parts, clouds),
            "append": self._row(appended, joined, clouds),
        }

    def baselines(self, checkpoint: Checkpoint) -> Table:
        """The rows that need no network, for the checkpoint's normalisation and number of input points."""
        key = _key(checkpoint)
        if key not in self._baselines:
            clouds = self._prepared(checkpoint)
            table = {"partial": self._searched(clouds.dense, clouds)}
            if self._training:
                candidates = _candidates(self._training, checkpoint.config, self._most, self._seed)
                rows = [
                    self._searched(candidates[1][chosen], clouds) for chosen in _retrieve(clouds.search, candidates)
                ]
                table["nearest shape"] = min(rows, key=lambda row: row["cd_l1"])
            self._baselines[key] = table
        return self._baselines[key]

    def _observed(self, checkpoint: Checkpoint) -> list[Distances]:
        """Between all of each observation and the truth; one by one, since observations differ in size."""
        key = _key(checkpoint)
        if key not in self._seen:
            clouds = self._prepared(checkpoint)
            self._seen[key] = _distances([cloud[None] for cloud in clouds.whole], clouds.truth)
        return self._seen[key]

    def _prepared(self, checkpoint: Checkpoint) -> _Clouds:
        key = _key(checkpoint)
        if key not in self._clouds:
            self._clouds[key] = _clouds(self.file, *key, 2048, self._seed)
        return self._clouds[key]

    def _searched(self, points: Tensor, clouds: _Clouds) -> dict[str, float]:
        batches = points.split(_CHUNK)
        return self._row(_distances(batches, clouds.truth), batches, clouds)

    def _row(self, distances: Sequence[Distances], batches: Iterable[Tensor], clouds: _Clouds) -> dict[str, float]:
        row = _means(distances, clouds.scale)
        return {**row, **_extra(batches, clouds.truth, self._seed)} if self._all else row


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
        if row not in table:
            continue
        ours, theirs = table["replace"][column], table[row][column]
        won = sign * (ours - theirs) > 0
        sentences.append(
            f"{'Beats' if won else '**Does not beat**'} {name} in {label} ({ours:.4f} against {theirs:.4f})."
        )
    return sentences


def evaluation_text(table: Table, file: PairFile) -> str:
    """The part of the card that holds the figures."""
    columns = [*_COLUMNS, *(name for name in EXTRA_COLUMNS if name in table["replace"])]
    lines = [
        "## On objects it never saw",
        "",
        f"{len(file)} pairs of {len(np.unique(file.object_index))} objects (`{file.path.name}`), means over pairs.",
        f"Coverage, precision, spurious (1 − precision), F1 at τ = {NETWORK_THRESHOLD} of the partial's diagonal, and",
        f"at {1000 * METRIC_THRESHOLD:g} mm; CD-L1 in diagonals and mm, CD-L2 in squared diagonals; 2,048 true points.",
        "`replace` is the prediction alone, `append` prediction and whole observation (which flatters coverage)"
        + (",\n`nearest shape` the retrieval baseline of `completion.evaluate`." if "nearest shape" in table else "."),
        "",
        "| | " + " | ".join(columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    for name, row in table.items():
        cells = (f"{row[column]:.5f}" if column == "cd_l2" else f"{row[column]:.4f}" for column in columns)
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


def _key(checkpoint: Checkpoint) -> tuple[str, int]:
    """What the clouds of an evaluation depend on."""
    return checkpoint.config["normalisation"], checkpoint.config["input_points"]


def _distances(batches: Iterable[Tensor], truth: Tensor) -> list[Distances]:
    """Nearest-neighbour distances of consecutive batches ``(b, N, 3)`` to ``truth (P, M, 3)`` and back."""
    found, start = [], 0
    for cloud in batches:
        near = nearest_neighbours(cloud, truth[start : start + len(cloud)])
        found.append((near.dist_a, near.dist_b))
        start += len(cloud)
    return found


def _means(distances: Sequence[Distances], scale: Tensor) -> dict[str, float]:
    """Means over pairs of all columns; ``scale (P,)`` metres a unit. The number of points may differ by batch."""
    values: dict[str, list[Tensor]] = {}
    for (a, b), size in zip(distances, scale.split([len(a) for a, _ in distances]), strict=True):
        for name, value in from_distances(a, b, NETWORK_THRESHOLD)._asdict().items():
            values.setdefault(name, []).append(value)
        metres = from_distances(a * size[:, None], b * size[:, None], METRIC_THRESHOLD)
        for name in ("coverage", "precision", "spurious", "f1"):
            values.setdefault(f"{name}_5mm", []).append(getattr(metres, name))
        values.setdefault("cd_l1_mm", []).append(1000 * metres.cd_l1)
    return {name: _mean(parts) for name, parts in values.items()}


def _extra(batches: Iterable[Tensor], truth: Tensor, seed: int) -> dict[str, float]:
    """Mean DCD and EMD; EMD matches one to one, so of the larger cloud as many points are drawn as the other has."""
    values: dict[str, list[Tensor]] = {"dcd": [], "emd": []}
    start = 0
    for cloud in batches:
        target = truth[start : start + len(cloud)]
        count, rng = min(cloud.shape[1], target.shape[1]), np.random.default_rng([seed, 8, start])
        ours, theirs = (one[:, sample_indices(one.shape[1], count, rng)] for one in (cloud, target))
        values["dcd"].append(dcd(cloud, target))
        values["emd"].append(emd(ours, theirs))
        start += len(cloud)
    return {name: _mean(parts) for name, parts in values.items()}


def _mean(parts: Sequence[Tensor]) -> float:
    return round(torch.cat(list(parts)).double().mean().item(), 6)
