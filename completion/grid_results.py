"""What came out of a grid of runs: figures on held-out pairs, by run and by group of seeds, as tables and a plot.

Figures are means over pairs of the prediction alone (not joined to the observation): coverage, spurious (1 − precision)
and F1 at τ = 0.03 of the network frame and at 5 mm, CD-L1 in the network frame and in mm.

Writes ``runs.csv`` (a row a run), ``summary.csv`` and ``summary.md`` (a row a group: mean, SD, least and greatest over
its seeds), and, where matplotlib is installed, ``coverage_spurious.png`` and ``.svg``.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from completion.checkpoint import load, write_text
from completion.datasets.pairs import chosen

COLUMNS = ("coverage", "spurious", "f1", "cd_l1", "coverage_5mm", "spurious_5mm", "f1_5mm", "cd_l1_mm")
_TITLES = {
    "coverage": "coverage",
    "spurious": "spurious",
    "f1": "F1",
    "cd_l1": "CD-L1",
    "coverage_5mm": "coverage 5 mm",
    "spurious_5mm": "spurious 5 mm",
    "f1_5mm": "F1 5 mm",
    "cd_l1_mm": "CD-L1 mm",
}
# Okabe and Ito's colours, told apart by colour-blind readers too; markers repeat what they say.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
_MARKERS = "os^Dv<>P"


class Row(NamedTuple):
    """One run on one held-out source; ``values`` is empty and ``failed`` says why where it failed."""

    run: str
    group: str
    loss: str
    seed: int
    pairs: str
    values: dict[str, float]
    failed: str = ""


class Spread(NamedTuple):
    """A figure over the seeds of a group; the SD is the sample's, and 0 for one seed."""

    mean: float
    sd: float
    low: float
    high: float


class Group(NamedTuple):
    """The finished runs of one group on one held-out source."""

    name: str
    loss: str
    pairs: str
    seeds: int
    spreads: dict[str, Spread]


def evaluate_run(
    folder: Path,
    pairs: str,
    objects: Sequence[int | str],
    scenes: Sequence[int],
    device: str,
    trust_code: bool = False,
) -> dict[str, float]:
    """The figures of one checkpoint, see the module's docstring.

    Raises:
        PairFileError, CheckpointError: bad input.
    """
    from completion.evaluate import PairEvaluation

    evaluation = PairEvaluation(pairs)
    evaluation.file = chosen(evaluation.file, objects, scenes)
    row = evaluation.table(load(folder, device, trust_code=trust_code))["replace"]
    return {name: row[name] for name in COLUMNS}


def summarise(rows: Sequence[Row]) -> list[Group]:
    """Group runs that differ in the seed alone, in the order of their first one."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.values:
            groups.setdefault((row.pairs, row.group), []).append(row)
    return [
        Group(
            name,
            members[0].loss,
            pairs,
            len(members),
            {key: _spread([m.values[key] for m in members]) for key in COLUMNS},
        )
        for (pairs, name), members in groups.items()
    ]


def _spread(values: Sequence[float]) -> Spread:
    sd = statistics.stdev(values) if len(values) > 1 else 0.0
    return Spread(statistics.fmean(values), sd, min(values), max(values))


def table_text(rows: Sequence[Row]) -> str:
    """The summary for a console: a line a group, mean ± SD [least, greatest]; then what failed."""
    groups = summarise(rows)
    lines = []
    for pairs in dict.fromkeys(row.pairs for row in rows):
        cells = [["", "seeds", "coverage", "spurious", "F1", "CD-L1", "F1 5 mm"]]
        for group in (one for one in groups if one.pairs == pairs):
            shown = (_cell(group.spreads[key]) for key in ("coverage", "spurious", "f1", "cd_l1", "f1_5mm"))
            cells.append([group.name, str(group.seeds), *shown])
        widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
        lines.append(f"{pairs} (means over pairs; mean ± SD [least, greatest] over seeds)")
        lines += [
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in cells
        ]
    lines += [
        f"failed     {name}: {reason}" for name, reason in dict.fromkeys((r.run, r.failed) for r in rows if r.failed)
    ]
    return "\n".join(lines)


def _cell(spread: Spread) -> str:
    if spread.sd == 0:
        return f"{spread.mean:.4f}"
    return f"{spread.mean:.4f} ± {spread.sd:.4f} [{spread.low:.4f}, {spread.high:.4f}]"


def write_results(out: Path, rows: Sequence[Row]) -> list[Path]:
    """Write tables and, where matplotlib is installed, the plot; returns the paths."""
    groups = summarise(rows)
    runs: list[list[Any]] = [["run", "group", "loss", "seed", "pairs", *COLUMNS, "failed"]]
    for row in rows:
        runs.append([*row[:5], *(row.values.get(key, "") for key in COLUMNS), row.failed])
    summary: list[list[Any]] = [
        ["group", "loss", "pairs", "seeds", *(f"{key}_{part}" for key in COLUMNS for part in Spread._fields)]
    ]
    for group in groups:
        figures = (round(value, 6) for key in COLUMNS for value in group.spreads[key])
        summary.append([group.name, group.loss, group.pairs, group.seeds, *figures])
    written = []
    for name, text in (
        ("runs.csv", _csv(runs)),
        ("summary.csv", _csv(summary)),
        ("summary.md", _markdown(rows, groups)),
    ):
        write_text(out / name, text)
        written.append(out / name)
    return written + _plot(out, [row for row in rows if row.values])


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()


def _markdown(rows: Sequence[Row], groups: Sequence[Group]) -> str:
    lines = []
    for pairs in dict.fromkeys(row.pairs for row in rows):
        lines += [
            f"Held-out pairs: `{pairs}`. Means over pairs; mean ± SD [least, greatest] over seeds. Coverage, spurious",
            "(1 − precision), F1 at τ = 0.03 of the partial's diagonal and at 5 mm; CD-L1 in diagonals and mm.",
            "",
            "| | seeds | " + " | ".join(_TITLES[key] for key in COLUMNS) + " |",
            "|---|---:|" + "---:|" * len(COLUMNS),
        ]
        for group in (one for one in groups if one.pairs == pairs):
            cells = " | ".join(_cell(group.spreads[key]) for key in COLUMNS)
            lines.append(f"| {group.name} | {group.seeds} | {cells} |")
        lines.append("")
    lines += [
        f"- failed: {name}: {reason}" for name, reason in dict.fromkeys((r.run, r.failed) for r in rows if r.failed)
    ]
    return "\n".join(lines).rstrip() + "\n"


def _plot(out: Path, rows: Sequence[Row]) -> list[Path]:
    """Coverage against spurious points: a dot a run, a colour and marker a loss, a panel a held-out source."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return []
    sources, losses = list(dict.fromkeys(row.pairs for row in rows)), list(dict.fromkeys(row.loss for row in rows))
    if not sources:
        return []
    figure = Figure(figsize=(6.0 * len(sources), 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    for i, pairs in enumerate(sources):
        axes = figure.add_subplot(1, len(sources), i + 1)
        for k, loss in enumerate(losses):
            members = [row for row in rows if row.pairs == pairs and row.loss == loss]
            axes.scatter(
                [row.values["spurious"] for row in members],
                [row.values["coverage"] for row in members],
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
