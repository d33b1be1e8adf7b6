"""What came out of a grid of runs: figures on held-out pairs, by run and by group of seeds, as tables and a plot.

Evaluated and tabulated as a comparison of checkpoints is (:mod:`completion.evaluate`, :mod:`completion.tables`);
figures are those of the prediction alone (``replace``). What a grid has besides: its groups are named by their cell, it
may have several held-out sources, and runs that failed.

Writes ``runs.csv`` (a row a run), ``summary.csv`` and ``summary.md`` (a row a group), and, where matplotlib is
installed, ``coverage_spurious.png`` and ``.svg``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from completion.checkpoint import load, write_text
from completion.datasets.pairs import chosen, read_pairs
from completion.evaluate import PairEvaluation
from completion.tables import COLUMNS, LEGEND, Group, csv_table, csv_text, markdown_table, statistics_of

# Okabe and Ito's colours, told apart by colour-blind readers too; markers repeat what they say.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
_MARKERS = "os^Dv<>P"


class Outcome(NamedTuple):
    """One run on one held-out source; ``values`` is empty and ``failed`` says why where it failed."""

    run: str
    group: str
    loss: str
    seed: int
    pairs: str
    values: dict[str, float]
    failed: str = ""


@dataclass(frozen=True)
class CellGroup(Group):
    """The finished runs of one cell of the grid on one held-out source.

    Attributes:
        group: name of the cell, with what varies in it besides the seed.
        loss: name of the loss.
        pairs: the held-out source.
    """

    group: str
    loss: str
    pairs: str


def evaluate_run(
    folder: Path,
    pairs: str,
    objects: Sequence[int | str],
    scenes: Sequence[int],
    device: str,
    trust_code: bool = False,
) -> dict[str, float]:
    """The figures of one checkpoint's prediction on a pair file, or on some objects and scenes of it.

    Raises:
        PairFileError, CheckpointError: bad input.
    """
    evaluation = PairEvaluation(chosen(read_pairs(pairs), objects, scenes))
    row = evaluation.table(load(folder, device, trust_code=trust_code))["replace"]
    return {name: row[name] for name in COLUMNS}


def summarise(outcomes: Sequence[Outcome]) -> dict[str, list[CellGroup]]:
    """Groups by held-out source, both in the order of their first run; without the runs that failed."""
    groups: dict[str, dict[str, list[Outcome]]] = {}
    for one in outcomes:
        of_source = groups.setdefault(one.pairs, {})
        if one.values:
            of_source.setdefault(one.group, []).append(one)
    return {
        pairs: [
            CellGroup(
                **statistics_of([(one.run, one.values) for one in members], COLUMNS),
                group=name,
                loss=members[0].loss,
                pairs=pairs,
            )
            for name, members in of_source.items()
        ]
        for pairs, of_source in groups.items()
    }


def failures(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """The reasons of the runs that failed, by run."""
    return {one.run: one.failed for one in outcomes if one.failed}


def write_results(out: Path, outcomes: Sequence[Outcome]) -> list[Path]:
    """Write tables and, where matplotlib is installed, the plot; returns the paths."""
    groups = summarise(outcomes)
    runs: list[Sequence[Any]] = [("run", "group", "loss", "seed", "pairs", *COLUMNS, "failed")]
    runs += [(*one[:5], *(one.values.get(key, "") for key in COLUMNS), one.failed) for one in outcomes]
    every = [group for of_source in groups.values() for group in of_source]
    texts = {
        "runs.csv": csv_text(runs),
        "summary.csv": csv_table(("group", "loss", "pairs"), COLUMNS, every),
        "summary.md": _markdown(groups, failures(outcomes)),
    }
    for name, text in texts.items():
        write_text(out / name, text)
    return [*(out / name for name in texts), *_plot(out, [one for one in outcomes if one.values])]


def _markdown(groups: Mapping[str, Sequence[CellGroup]], failed: Mapping[str, str]) -> str:
    lines = []
    for pairs, of_source in groups.items():
        lines += [f"Held-out pairs: `{pairs}`, means over pairs, then over seeds; {LEGEND}", ""]
        lines += [*markdown_table(("group",), COLUMNS, of_source), ""]
    lines += [f"- failed: {name}: {reason}" for name, reason in failed.items()]
    return "\n".join(lines).rstrip() + "\n"


def _plot(out: Path, outcomes: Sequence[Outcome]) -> list[Path]:
    """Coverage against spurious points: a dot a run, a colour and marker a loss, a panel a held-out source."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return []
    sources = list(dict.fromkeys(one.pairs for one in outcomes))
    losses = list(dict.fromkeys(one.loss for one in outcomes))
    if not sources:
        return []
    figure = Figure(figsize=(6.0 * len(sources), 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    for i, pairs in enumerate(sources):
        axes = figure.add_subplot(1, len(sources), i + 1)
        for k, loss in enumerate(losses):
            members = [one for one in outcomes if one.pairs == pairs and one.loss == loss]
            axes.scatter(
                [one.values["spurious"] for one in members],
                [one.values["coverage"] for one in members],
                color=_COLOURS[k % len(_COLOURS)],
                marker=_MARKERS[k % len(_MARKERS)],
                s=42,
                alpha=0.85,
                edgecolors="white",
                linewidths=0.6,
                label=loss,
            )
        axes.set_xlabel("spurious at τ = 0.03 (less is better)")
        axes.set_ylabel("coverage at τ = 0.03 (more is better)")
        axes.set_title(f"{pairs}: a dot a run")
        # Not less than a tenth, or noise would fill the picture.
        for low, high, limit in ((*axes.get_xlim(), axes.set_xlim), (*axes.get_ylim(), axes.set_ylim)):
            more = max(0.0, 0.1 - (high - low)) / 2
            limit(low - more, high + more)
        axes.grid(alpha=0.3)
        axes.legend(title="loss")
    written = []
    for suffix in ("png", "svg"):
        path = out / f"coverage_spurious.{suffix}"
        temporary = path.with_name(f".{path.name}")
        # No date: the same figures give the same file.
        figure.savefig(temporary, format=suffix, dpi=150, metadata={"Date": None} if suffix == "svg" else None)
        temporary.replace(path)
        written.append(path)
    return written
