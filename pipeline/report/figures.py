"""The other figures: each a function from the tables to one inline SVG of phone width, so that none needs zooming."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from grasping.utility import FRICTIONS
from pipeline.report.counts import MOST_RANKS, GraspCounts, success_curves, success_over_k
from pipeline.report.intervals import WIDTH
from pipeline.report.metrics import is_known, metric
from pipeline.report.style import OUTCOMES, ROLES, Drawing, Look, arm_keys, inline_svg, outcome_stand_in, panel
from pipeline.table_files import WHOLE

_PAPER = ROLES["paper"][0]
_MARK_EVERY = 10


def curves(
    grasps: Mapping[str, GraspCounts],
    views: pd.DataFrame,
    arms: Sequence[str],
    look: dict[str, Look],
    k: int,
    prefix: str,
) -> Drawing:
    """Draw the success of the best k grasps over friction, one line an arm."""
    with panel(360, 270) as (figure, axes):
        figure.subplots_adjust(left=0.13, right=0.97, top=0.96, bottom=0.16)
        said = []
        for arm in arms:
            values = 100 * success_curves(grasps[arm], views[views["arm"] == arm], k)
            size = 10 if look[arm].marker == "*" else 6.5
            axes.plot(
                FRICTIONS,
                values,
                color=look[arm].stand_in,
                marker=look[arm].marker,
                markersize=size,
                markeredgewidth=0,
                linewidth=1.8,
                clip_on=False,
            )
            said.append(f"{arm} {values.iloc[1]:.0f} %")
        axes.set(xlabel="friction µ", xticks=FRICTIONS, ylim=(0, None))
        axes.set_ylim(0, min(102, max(10.0, axes.get_ylim()[1])))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0f} %")
        return inline_svg(
            figure, f"success of the best {k} over friction; at 0.4: {', '.join(said)}", prefix, arm_keys(arms, look)
        )


def curves_over_k(
    grasps: Mapping[str, GraspCounts],
    views: pd.DataFrame,
    arms: Sequence[str],
    look: dict[str, Look],
    friction: float,
    prefix: str,
) -> Drawing:
    """Draw the success at one friction of the best k grasps over k, one line an arm."""
    with panel(360, 270) as (figure, axes):
        figure.subplots_adjust(left=0.13, right=0.97, top=0.96, bottom=0.16)
        said = []
        for index, arm in enumerate(arms):
            values = 100 * success_over_k(grasps[arm], views[views["arm"] == arm], friction, MOST_RANKS)
            axes.plot(
                values.index,
                values,
                color=look[arm].stand_in,
                marker=look[arm].marker,
                markersize=10 if look[arm].marker == "*" else 6.5,
                markeredgewidth=0,
                markevery=(index * 2 % _MARK_EVERY, _MARK_EVERY),  # where lines meet their marks do not
                linewidth=1.8,
                clip_on=False,
            )
            said.append(f"{arm} {values.iloc[-1]:.0f} %")
        axes.set(xlabel="k most confident grasps of a view", xlim=(0, MOST_RANKS))
        axes.set_xticks([1, *range(10, MOST_RANKS + 1, 10)])
        axes.set_ylim(0, min(102, max(10.0, axes.get_ylim()[1])))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0f} %")
        label = f"success at µ ≤ {friction:g} of the best k over k; of the best {MOST_RANKS}: {', '.join(said)}"
        return inline_svg(figure, label, prefix, arm_keys(arms, look))


def trade_off(table: pd.DataFrame, arms: Sequence[str], look: dict[str, Look], unit: str, prefix: str) -> Drawing:
    """Draw coverage against spurious points, a dot an arm with both intervals; up and left is better."""
    value: dict[Any, Any] = {(row.arm, row.metric): row for row in table.itertuples()}
    with panel(WIDTH, 330) as (figure, axes):
        figure.subplots_adjust(left=0.13, right=0.96, top=0.96, bottom=0.14)
        said = []
        for arm in arms:
            cover, spurious = value.get((arm, f"coverage@{unit}")), value.get((arm, f"spurious@{unit}"))
            if cover is None or spurious is None or not (is_known(cover.value) and is_known(spurious.value)):
                continue
            x, y, colour = 100 * spurious.value, 100 * cover.value, look[arm].stand_in
            if is_known(spurious.ci_low):
                axes.plot([100 * spurious.ci_low, 100 * spurious.ci_high], [y, y], color=colour, linewidth=1.3)
            if is_known(cover.ci_low):
                axes.plot([x, x], [100 * cover.ci_low, 100 * cover.ci_high], color=colour, linewidth=1.3)
            size = 13 if look[arm].marker == "*" else 8.5
            axes.plot(x, y, look[arm].marker, color=colour, markersize=size, markeredgewidth=0)
            said.append(f"{arm} {y:.0f} % at {x:.0f} %")
        axes.margins(0.09)
        axes.autoscale_view()
        left, right = axes.get_xlim()
        axes.set_xlim(
            left if left < -1 else -0.25, max(right, 5.0)
        )  # without spurious points the axis still has a scale
        axes.set(xlabel="spurious points (%)", ylabel="covered surface (%)")
        return inline_svg(figure, f"coverage against spurious points: {', '.join(said)}", prefix, arm_keys(arms, look))


def by_object(
    table: pd.DataFrame,
    name: str,
    objects: Sequence[str],
    title_of: Callable[[str], str],
    arms: Sequence[str],
    look: dict[str, Look],
    prefix: str,
) -> Drawing:
    """Draw one metric of every object, a marker an arm on one line an object."""
    shown = metric(name)
    chosen = table[(table["metric"] == name) & (table["split"] == WHOLE)].set_index(["object", "arm"])["value"]
    height = 46 + 19.0 * len(objects)
    with panel(WIDTH, height) as (figure, axes):
        names = max((len(title_of(item)) for item in objects), default=1)
        figure.subplots_adjust(
            left=min(0.4, (names * 6.0 + 12) / WIDTH), right=0.97, top=1 - 6 / height, bottom=40 / height
        )
        for y, item in enumerate(objects):
            known = {arm: chosen.get((item, arm)) for arm in arms}
            values = [shown.scale * value for value in known.values() if value is not None and is_known(value)]
            if values:
                axes.plot([min(values), max(values)], [y, y], color=ROLES["grid"][0], linewidth=3, zorder=1)
            for arm, value in known.items():
                if value is not None and is_known(value):
                    size = 10 if look[arm].marker == "*" else 6.5
                    x = shown.scale * value
                    axes.plot(x, y, look[arm].marker, color=look[arm].stand_in, markersize=size, markeredgewidth=0)
        axes.set(ylim=(len(objects) - 0.4, -0.6))
        axes.set_xlabel(shown.title + (f" ({shown.unit})" if shown.unit else ""))
        axes.set_yticks(range(len(objects)), [title_of(item) for item in objects])
        axes.grid(False, axis="y")
        axes.locator_params(axis="x", nbins=6)
        label = f"{shown.title} by object and arm; the numbers stand in the table below"
        return inline_svg(figure, label, prefix, arm_keys(arms, look))


def outcome_bars(parts: dict[str, pd.Series], title: str, prefix: str) -> Drawing:
    """Draw stacked bars, one an arm; ``parts`` holds each arm's outcomes by key of :data:`style.OUTCOMES`."""
    return stacked_bars(parts, [(key, text, outcome_stand_in(key)) for key, text, *_ in OUTCOMES], title, prefix)


def stacked_bars(
    parts: dict[str, pd.Series], pieces: Sequence[tuple[str, str, str]], title: str, prefix: str
) -> Drawing:
    """Draw stacked bars, one an entry of ``parts``, of pieces ``(key, text, colour)`` from left to right."""
    height = 46 + 30.0 * len(parts)
    with panel(WIDTH, height) as (figure, axes):
        names = max((len(name) for name in parts), default=1)
        figure.subplots_adjust(
            left=min(0.4, (names * 6.3 + 12) / WIDTH), right=0.97, top=1 - 6 / height, bottom=40 / height
        )
        total = max([float(part.sum()) for part in parts.values()], default=0.0)
        for y, part in enumerate(parts.values()):
            start = 0.0
            for key, _, colour in pieces:
                length = float(part.get(key, 0.0))
                if length <= 0:
                    continue
                axes.barh(y, length, left=start, height=0.68, color=colour, linewidth=0)
                start += length
            # Thin gaps, so that neighbours part without their hues.
            edges = np.cumsum([float(part.get(key, 0.0)) for key, *_ in pieces])
            axes.vlines(edges[(edges > 0) & (edges < start)], y - 0.34, y + 0.34, color=_PAPER, linewidth=1)
        axes.set(ylim=(len(parts) - 0.45, -0.55), xlim=(0, total or 1.0), xlabel=title)
        axes.set_yticks(range(len(parts)), list(parts))
        axes.grid(False, axis="y")
        said = "; ".join(
            f"{name}: " + ", ".join(f"{text} {part.get(key, 0.0):.1f}" for key, text, _ in pieces if key in part)
            for name, part in parts.items()
        )
        # Pieces that occur nowhere would fill the legend of a file.
        keys = [
            (text, colour, "s")
            for key, text, colour in pieces
            if any(part.get(key, 0.0) > 0 for part in parts.values())
        ]
        return inline_svg(figure, f"{title}: {said}", prefix, keys)
