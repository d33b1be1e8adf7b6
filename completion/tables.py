"""Tables of groups of checkpoints: mean and spread over the seeds of each, as Markdown and CSV.

Shared by a comparison of checkpoints (:mod:`completion.comparison`) and a grid of runs
(:mod:`completion.grid_results`). Figures are means over pairs, as :mod:`completion.evaluate` has them.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from completion.metrics import METRIC_THRESHOLD, NETWORK_THRESHOLD

COLUMNS = ("coverage", "spurious", "f1", "cd_l1", "coverage_5mm", "spurious_5mm", "f1_5mm", "cd_l1_mm")
TITLES = {
    "coverage": "coverage",
    "spurious": "spurious",
    "f1": "F1",
    "cd_l1": "CD-L1",
    "coverage_5mm": "coverage 5 mm",
    "spurious_5mm": "spurious 5 mm",
    "f1_5mm": "F1 5 mm",
    "cd_l1_mm": "CD-L1 mm",
    "dcd": "DCD",
    "emd": "EMD",
}
LEGEND = (
    "± the standard deviation over seeds, brackets their range. Coverage, spurious (1 − precision) and F1 at "
    f"τ = {NETWORK_THRESHOLD} of the network frame and at {1000 * METRIC_THRESHOLD:g} mm; CD-L1 in the network frame "
    "and in mm."
)


@dataclass(frozen=True)
class Group:
    """Figures of checkpoints that differ in their seed alone, as one line of a table; subclasses add what names it.

    Attributes:
        seeds: checkpoints in the group.
        members: their names.
        mean, sd, low, high: by column, over the checkpoints; the standard deviation is the sample's (n − 1), None for
            one checkpoint.
    """

    seeds: int
    members: tuple[str, ...]
    mean: dict[str, float]
    sd: dict[str, float | None]
    low: dict[str, float]
    high: dict[str, float]


def statistics_of(members: Sequence[tuple[str, Mapping[str, float]]], columns: Iterable[str]) -> dict[str, Any]:
    """The attributes of a :class:`Group` of checkpoints, given their names and figures; several may share a name."""
    values = {column: [figures[column] for _, figures in members] for column in columns}
    return {
        "seeds": len(members),
        "members": tuple(name for name, _ in members),
        "mean": {column: statistics.fmean(each) for column, each in values.items()},
        "sd": {column: statistics.stdev(each) if len(each) > 1 else None for column, each in values.items()},
        "low": {column: min(each) for column, each in values.items()},
        "high": {column: max(each) for column, each in values.items()},
    }


def spread(row: Group, column: str, digits: int = 4) -> str:
    """``mean ± SD [min, max]``, or the mean alone where there is one value."""
    digits = 2 if column.endswith("_mm") else digits
    mean, sd = row.mean[column], row.sd[column]
    if sd is None:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± {sd:.{digits}f} [{row.low[column]:.{digits}f}, {row.high[column]:.{digits}f}]"


def markdown_table(labels: Sequence[str], columns: Sequence[str], rows: Sequence[Group]) -> list[str]:
    """Lines of a table of groups; ``labels`` are attributes of theirs that name them."""
    lines = [
        f"| {' | '.join((*labels, 'seeds', *(TITLES[column] for column in columns)))} |",
        "|" + "---|" * len(labels) + "---:|" * (1 + len(columns)),
    ]
    for row in rows:
        cells = (
            *(getattr(row, label) for label in labels),
            str(row.seeds or ""),
            *(spread(row, column) for column in columns),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def csv_table(labels: Sequence[str], columns: Sequence[str], rows: Sequence[Group]) -> str:
    """The same table with all figures as numbers."""
    names = (column + kind for column in columns for kind in ("", "_sd", "_min", "_max"))
    lines: list[Sequence[Any]] = [(*labels, "seeds", "checkpoints", *names)]
    for row in rows:
        figures = (by[column] for column in columns for by in (row.mean, row.sd, row.low, row.high))
        lines.append((*(getattr(row, label) for label in labels), row.seeds, " ".join(row.members), *figures))
    return csv_text(lines)


def csv_text(lines: Iterable[Sequence[Any]]) -> str:
    """Values as the text of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
