"""Dot-and-interval figures: a metric of every arm, and the differences of every comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pipeline.report.metrics import Metric, is_known, metric
from pipeline.report.style import ROLES, Drawing, Look, inline_svg, panel
from pipeline.table_files import WHOLE

WIDTH = 390.0
_FG, _MUTED, _PAPER = (ROLES[name][0] for name in ("fg", "muted", "paper"))
_CHARACTER = 6.0  # pixels, of the numbers at the right; browsers' fonts are not wider
_FOOT, _HEAD = 42.0, 6.0


@dataclass(frozen=True)
class Row:
    """One line: its label, value and interval, and how it looks; ``strong`` lines are the main ones."""

    label: str
    value: float | None
    low: float | None
    high: float | None
    colour: str = _FG
    marker: str = "o"
    strong: bool = True


def intervals(
    rows: Sequence[Row],
    shown: Metric,
    title: str,
    label: str,
    prefix: str,
    *,
    signed: bool = False,
    beside: bool = False,
) -> Drawing:
    """Draw values with their intervals, one line each, the numbers written at the right.

    Labels stand at the left; those of differences are long and stand above their line, with the weaker lines'
    labels before their numbers.

    Args:
        rows: from top to bottom.
        shown: the metric, for scale and format.
        title: under the axis.
        label: for those who cannot see it.
        prefix: of the ids.
        signed: whether values are differences; then zero is marked.
        beside: whether short labels of differences stand at the left after all.
    """
    above = signed and not beside
    # Where no line has an interval, the page says so once.
    some = any(is_known(row.low) for row in rows)
    texts = [_numbers(row, shown, signed, above, some) for row in rows]
    middles, bottom = _places(rows, above)
    height = bottom + _HEAD + _FOOT
    left = 6.0 if above else max((len(row.label) for row in rows), default=1) * 6.4 + 12
    right = WIDTH - max((len(text) for text in texts), default=1) * _CHARACTER - 10
    with panel(WIDTH, height) as (figure, axes):
        figure.subplots_adjust(
            left=min(left / WIDTH, 0.44), right=right / WIDTH, top=1 - _HEAD / height, bottom=_FOOT / height
        )
        side = axes.get_yaxis_transform()
        for row, text, y in zip(rows, texts, middles, strict=True):
            _interval(axes, y, row, shown.scale)
            colour = _FG if row.strong else _MUTED
            axes.text(1.0, y, f"  {text}", transform=side, va="center", fontsize=10.5, color=colour)
            if above and row.strong:
                plate = {"facecolor": _PAPER, "edgecolor": "none", "pad": 1.5}  # lines of the grid stop at the words
                axes.text(0.0, y - 17, row.label, transform=side, va="center", fontsize=11.5, weight="bold", bbox=plate)
        if signed:
            axes.axvline(0, color=_MUTED, linewidth=1.2, zorder=1)
        if above:
            axes.set_yticks([])
        else:
            axes.set_yticks(middles, [row.label for row in rows])
        axes.set(ylim=(bottom, 0), xlabel=title)
        axes.grid(False, axis="y")
        _room(axes, rows, shown.scale, signed)
        if beside:
            axes.locator_params(axis="x", nbins=3)  # labels and numbers leave little room
        return inline_svg(figure, label, prefix)


def _numbers(row: Row, shown: Metric, signed: bool, above: bool, bracketed: bool) -> str:
    text = (shown.signed if signed else shown.number)(row.value)
    if is_known(row.value) and bracketed:
        text += f" {shown.interval(row.low, row.high, signed=signed)}"
    return text if row.strong or not above else f"{row.label} {text}"


def _places(rows: Sequence[Row], above: bool) -> tuple[list[float], float]:
    """Return the middle of each line, and where the last ends, in pixels from the top."""
    middles, y = [], 0.0
    for row in rows:
        over, under = (13.0, 13.0) if not above else (28.0, 10.0) if row.strong else (9.0, 9.0)
        middles.append(y + over)
        y += over + under
    return middles, y + (4.0 if above else 0.0)


def _interval(axes: Any, y: float, row: Row, scale: float) -> None:
    if row.value is None or not is_known(row.value):
        return
    if is_known(row.low) and row.low is not None and row.high is not None:
        line = 2.4 if row.strong else 1.4
        axes.plot([row.low * scale, row.high * scale], [y, y], color=row.colour, linewidth=line, solid_capstyle="butt")
    size = 8.0 if row.strong else 5.0
    size *= 1.45 if row.marker == "*" else 1.0
    axes.plot(row.value * scale, y, row.marker, color=row.colour, markersize=size, markeredgewidth=0)


def _room(axes: Any, rows: Sequence[Row], scale: float, signed: bool) -> None:
    """Choose limits that show every interval and, for differences, zero."""
    ends = [end * scale for row in rows for end in (row.value, row.low, row.high) if end is not None and is_known(end)]
    ends = [*ends, 0.0] if signed or not ends else ends
    low, high = min(ends), max(ends)
    pad = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    axes.set_xlim(low - pad, high + pad)
    axes.locator_params(axis="x", nbins=5)


def arm_intervals(table: pd.DataFrame, name: str, arms: Sequence[str], look: dict[str, Look], prefix: str) -> Drawing:
    """Draw one metric of every arm; ``table`` has one row an arm for it (all splits, all objects)."""
    shown = metric(name)
    values: dict[Any, Any] = {row.arm: row for row in table[table["metric"] == name].itertuples()}
    rows = []
    for arm in arms:
        if arm in values:
            one = values[arm]
            rows.append(Row(arm, one.value, one.ci_low, one.ci_high, look[arm].stand_in, look[arm].marker))
        else:
            rows.append(Row(arm, None, None, None))
    unit = f" ({shown.unit})" if shown.unit else ""
    label = f"{shown.title} of each arm: " + ", ".join(f"{row.label} {shown.value(row.value)}" for row in rows)
    return intervals(rows, shown, shown.title + unit, label, prefix)


def forest(
    table: pd.DataFrame, name: str, pairs: Sequence[tuple[str, str]], splits: Sequence[str], prefix: str
) -> Drawing:
    """Draw the differences of one metric: each comparison over everything and, where there are several, by split."""
    shown = metric(name)
    chosen = table[(table["metric"] == name) & (table["object"] == WHOLE)]
    known: dict[Any, Any] = {(row.arm_a, row.arm_b, row.split): row for row in chosen.itertuples()}
    rows = []
    for a, b in pairs:
        for split in [WHOLE, *(splits if len(splits) > 1 else ())]:
            one = known.get((a, b, split))
            if one is None:
                continue
            whole = split == WHOLE
            text = f"{a} − {b}" if whole else split.removeprefix("test_")
            colour = _FG if whole else _MUTED
            rows.append(Row(text, one.difference, one.ci_low, one.ci_high, colour, "D" if whole else "o", whole))
    unit = f" ({shown.difference_unit})" if shown.difference_unit else ""
    said = ", ".join(f"{row.label} {shown.signed(row.value)}" for row in rows)
    return intervals(
        rows, shown, f"difference in {shown.title}{unit}", f"Differences in {shown.title}: {said}", prefix, signed=True
    )
