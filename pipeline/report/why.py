"""Where a difference arises: figures and tables of :mod:`pipeline.attribution` and :mod:`pipeline.mediation`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.attribution import object_metric, parted_metric
from pipeline.grasp_levels import FACTORS, OUTCOMES, REASONS, THICKNESSES, VISIBLE, WIDTHS
from pipeline.mediation import COVERAGE, SPURIOUS
from pipeline.report import answer, tables
from pipeline.report.because import because, of_pair
from pipeline.report.exhibits import Figure
from pipeline.report.inputs import RunData, Setting
from pipeline.report.intervals import WIDTH, Row, intervals
from pipeline.report.metrics import NOT_AVAILABLE, Metric, is_known, metric
from pipeline.report.style import ROLES, Drawing, inline_svg, panel
from pipeline.report.tables import Cell, Table

MOST_PAIRS = 3
_DRAWN = ("reason", "surface", "thickness", "width", "visible")
_TITLES = {
    "reason": "by what fails",
    "surface": "by what the fingers touch",
    "thickness": "by thickness at the contacts",
    "width": "by width of the grasp",
    "visible": "by how much of the object is seen",
    "object": "by object",
    "occlusion": "by how much of the object is seen, each object by its own utility",
}
_MEANINGS = {
    "reason": "What is lost against a perfect list, by the reason of failure; right of 0 the first arm loses less.",
    "surface": "Both contacts within 5 mm of observed points; else within 5 mm of the arm's cloud; else of neither.",
    "thickness": "How far a ray from the contact runs inside the true object (the thinner of two contacts).",
    "width": "Opening of the gripper.",
    "visible": "Share of what the camera would see of the object alone that it does see.",
}
_COMBINATIONS = {
    "own": "own grasps",
    "true_collisions": "own grasps, true collisions",
    "arm_collisions": "true models' grasps, own collisions",
}
_LEVELS: dict[str, str] = {"S": "S < 4 cm", "M": "M 4-7 cm", "L": "L ≥ 7 cm"}
_FG = ROLES["fg"][0]

Line = Mapping[str, Any]  # a row of a table of the run


@dataclass(frozen=True)
class Pair:
    """Everything that is shown of one comparison; ``no_slopes`` says why no line goes through the scatter."""

    title: str
    sentences: tuple[str, ...]
    figures: tuple[Figure, ...]
    table: Table
    scatter: tuple[Figure, ...]
    slopes: Table | None
    no_slopes: str


@dataclass(frozen=True)
class Why:
    """What one setting shows; ``note`` says why there is nothing."""

    setting: Setting
    within: str
    pairs: tuple[Pair, ...]
    crossed: Table | None
    note: str = ""


def why(data: RunData, setting: Setting, prefix: str) -> Why:
    """Return the section of one generator, scorer and camera."""
    within = setting.title if len(data.settings) > 1 else ""
    pairs = [pair for pair in answer.headline_pairs(data) if pair in data.compared]
    pairs = list(dict.fromkeys([*pairs, *data.compared]))[:MOST_PAIRS]
    made = [_pair(data, setting, pair, f"{prefix}{index}") for index, pair in enumerate(pairs)]
    shown = tuple(pair for pair in made if pair is not None)
    note = "" if shown else "This run was not explained, or compares no arms: there is nothing to part."
    return Why(setting, within, shown, _crossed(data, setting), note)


def _pair(data: RunData, setting: Setting, pair: tuple[str, str], prefix: str) -> Pair | None:
    own = of_pair(setting.of(data.attribution), pair)
    if not own:
        return None
    name = f"{pair[0]} − {pair[1]}"
    drawn = parts(data, setting, pair, prefix, _DRAWN)
    scatter, slopes, none = _mediation(data, setting, pair, prefix)
    sentences = tuple(because(data, setting, pair))
    return Pair(name, sentences, tuple(drawn), _table(data, setting, pair, own), scatter, slopes, none)


def parts(data: RunData, setting: Setting, pair: tuple[str, str], prefix: str, factors: Sequence[str]) -> list[Figure]:
    """Draw the parts of one comparison by each of these factors; those with a single level say nothing."""
    own = of_pair(setting.of(data.attribution), pair)
    shown = metric(parted_metric(data.experiment, setting.scorer))
    name = f"{pair[0]} − {pair[1]}"
    drawn = []
    for factor in factors:
        rows = _ordered(own, factor)
        if len(rows) > 1:
            drawing = _levels_figure(rows, shown, name, factor, f"{prefix}-{factor}")
            caption = f"{_TITLES[factor][:1].upper()}{_TITLES[factor][1:]}. {_MEANINGS[factor]}"
            drawn.append(Figure(drawing, caption, f"{shown.name} {pair[0]} minus {pair[1]} {_TITLES[factor]}"))
    return drawn


def _ordered(rows: Sequence[Line], factor: str) -> list[Line]:
    """Return the rows of one factor, in its own order or, of objects, the largest first."""
    own = [row for row in rows if row["factor"] == factor]
    orders = {
        "reason": [*REASONS, *OUTCOMES],
        "width": [name for _, name in WIDTHS],
        "thickness": [name for _, name in THICKNESSES],
        "visible": [name for _, name in VISIBLE],
        "occlusion": [name for _, name in VISIBLE],
        "surface": ["observed", "completed", "neither"],
    }
    known = orders.get(factor)
    if known is None:
        return sorted(own, key=lambda row: -abs(row["difference"]))
    return sorted(own, key=lambda row: known.index(row["level"]) if row["level"] in known else len(known))


def _title(row: Line) -> str:
    return _LEVELS.get(str(row["level"]), str(row["level"]))


def _levels_figure(rows: Sequence[Line], shown: Metric, name: str, factor: str, prefix: str) -> Drawing:
    lines = [Row(_title(row), row["difference"], row["ci_low"], row["ci_high"], _FG, "o") for row in rows]
    unit = f" ({shown.difference_unit})" if shown.difference_unit else ""
    said = ", ".join(f"{line.label} {shown.signed(line.value)}" for line in lines)
    label = f"Difference in {shown.title}, {name}, {_TITLES[factor]}: {said}"
    return intervals(
        lines, shown, f"part of the difference in {shown.title}{unit}", label, prefix, signed=True, beside=True
    )


def _table(data: RunData, setting: Setting, pair: tuple[str, str], own: Sequence[Line]) -> Table:
    parted, of_objects = (metric(of(data.experiment, setting.scorer)) for of in (parted_metric, object_metric))
    lines: list[tuple[Cell, ...]] = []
    for factor in FACTORS:
        rows = _ordered(own, factor)
        if not rows:
            continue
        shown = of_objects if factor == "occlusion" else parted
        lines.append((Cell(f"{_TITLES[factor][:1].upper()}{_TITLES[factor][1:]}", shown.title, "primary"),))
        for row in rows:
            title = tables.object_title(data, str(row["level"])) if factor == "object" else _title(row)
            lines.append((Cell(title), *_cells(row, shown, factor)))
    heads = (*pair, "difference", *(f"grasps a view, {arm}" for arm in pair), *(f"hold at 0.8, {arm}" for arm in pair))
    note = (
        "Within a group the differences add up to the whole difference, but for the last, which compares objects one "
        "by one (there the counts are of objects). Grasps: of the protocol's cut."
    )
    if not tables.bracketed(lines):
        note, lines = f"{note} {tables.NO_INTERVALS.capitalize()}.", list(tables.unbracketed(lines))
    return Table(f"Parts of {pair[0]} − {pair[1]}", ("level", *heads), tuple(lines), note)


def _cells(row: Line, shown: Metric, factor: str) -> list[Cell]:
    sure = is_known(row["ci_low"]) and (row["ci_low"] > 0 or row["ci_high"] < 0)
    ends = [None if not is_known(row[end]) else shown.scale * row[end] for end in ("ci_low", "ci_high")]
    difference = Cell(
        shown.signed(row["difference"]),
        shown.interval(row["ci_low"], row["ci_high"], signed=True),
        "sure" if sure else "",
        shown.scale * row["difference"],
        *ends,
    )
    sides = [Cell(shown.number(row[side]), value=shown.scale * row[side]) for side in ("a", "b")]
    digits = 0 if factor == "occlusion" else 1
    counts = [tables.plain(row[side], digits) for side in ("grasps_a", "grasps_b")]
    rates = [
        Cell(f"{100 * row[side]:.0f} %", value=100 * row[side]) if is_known(row[side]) else Cell("", "", "none")
        for side in ("rate_a", "rate_b")
    ]
    return [*sides, difference, *counts, *rates]


def _crossed(data: RunData, setting: Setting) -> Table | None:
    """Return an arm's utility with one part of it exchanged: arms down, combinations across."""
    table = data.crossed
    table = table[(table["generator"] == setting.generator) & (table["camera"] == setting.camera)]
    names = [name for name in _COMBINATIONS if name in set(table["combination"])]
    if table.empty or len(names) < 2:
        return None
    shown = metric(data.experiment.primary_metric)
    lines: list[tuple[Cell, ...]] = []
    keys = zip(table["arm_a"], table["arm_b"], table["combination"], strict=True)
    records: list[Any] = table.to_dict("records")
    own: dict[Any, Line] = dict(zip(keys, records, strict=True))
    for arm in data.arms:
        lines.append((Cell(arm), *(_estimate(own.get((arm, "", name)), shown) for name in names)))
    pairs = [pair for pair in dict.fromkeys([*answer.headline_pairs(data), *data.compared])]
    for a, b in pairs:
        cells = [_estimate(own.get((a, b, name)), shown, signed=True) for name in names]
        lines.append((Cell(f"{a} − {b}"), *cells))
    note = (
        "Own grasps, true collisions: the arm's grasps without those that hit the true scene, before suppression and "
        "cut. True models' grasps, own collisions: what the generator makes of the true shapes, without what hits the "
        "arm's clouds or the observed background. The second column says what better collision geometry would bring an "
        "arm, the third what its collision geometry costs."
    )
    if not tables.bracketed(lines):
        note, lines = f"{note} {tables.NO_INTERVALS.capitalize()}.", list(tables.unbracketed(lines))
    heads = ("arm, difference", *(_COMBINATIONS[name] for name in names))
    return Table(f"{shown.title} with one part exchanged", heads, tuple(lines), note)


def _estimate(row: Line | None, shown: Metric, *, signed: bool = False) -> Cell:
    if row is None or not is_known(row["value"]):
        return Cell(NOT_AVAILABLE, "", "none")
    low, high = row["ci_low"], row["ci_high"]
    write = shown.signed if signed else shown.number
    sure = signed and is_known(low) and (low > 0 or high < 0)
    ends = (shown.scale * low, shown.scale * high) if is_known(low) else (None, None)
    text = shown.interval(low, high, signed=signed)
    return Cell(write(row["value"]), text, "sure" if sure else "", shown.scale * row["value"], *ends)


# ------------------------------------------------------------------------------------------------------- mediation


def _mediation(
    data: RunData, setting: Setting, pair: tuple[str, str], prefix: str
) -> tuple[tuple[Figure, ...], Table | None, str]:
    points, lines = (of_pair(setting.of(table), pair) for table in (data.mediation_points, data.mediation))
    if not points:
        return (), None, ""
    shown = metric(str(points[0]["metric"]))
    name = f"{pair[0]} − {pair[1]}"
    drawn = []
    for term, model, title in (
        (COVERAGE, "coverage alone", "coverage"),
        (SPURIOUS, "spurious alone", "spurious points"),
    ):
        line = {str(row["term"]): row for row in lines if row["model"] == model and is_known(row["slope"])}
        drawing = _scatter(points, line, term, shown, name, title, f"{prefix}-m{title[0]}")
        caption = "A dot an object in a scene" + (f"; the line is fitted to {title} alone." if term in line else ".")
        drawn.append(Figure(drawing, caption, f"{pair[0]} minus {pair[1]} utility against {title}"))
    if not any(is_known(row["slope"]) for row in lines):
        reasons = "; ".join(dict.fromkeys(str(row["reason"]).removeprefix("undefined: ") for row in lines))
        return tuple(drawn), None, f"No line is fitted: {reasons}."
    return tuple(drawn), _slopes(lines, shown, name), ""


def _scatter(
    points: Sequence[Line], line: Mapping[str, Line], term: str, shown: Metric, name: str, title: str, prefix: str
) -> Drawing:
    x = np.array([100 * point[term] for point in points])
    y = np.array([shown.scale * point["utility"] for point in points])
    with panel(WIDTH, 300) as (figure, axes):
        figure.subplots_adjust(left=0.16, right=0.97, top=0.97, bottom=0.16)
        axes.axhline(0, color=ROLES["muted"][0], linewidth=1.0, zorder=1)
        axes.axvline(0, color=ROLES["muted"][0], linewidth=1.0, zorder=1)
        axes.plot(x, y, "o", color="#0a0c00", markersize=5, alpha=0.65, markeredgewidth=0)
        said = "no line could be fitted"
        if term in line:
            slope, start = line[term]["slope"], line["intercept"]["slope"]
            ends = np.array([x.min(), x.max()])
            axes.plot(ends, shown.scale * (start + slope * ends / 100), color=_FG, linewidth=1.8)
            said = f"slope {slope:+.3f} [{line[term]['ci_low']:+.3f}, {line[term]['ci_high']:+.3f}]"
        axes.margins(0.06)
        unit = f" ({shown.difference_unit})" if shown.difference_unit else ""
        axes.set(xlabel=f"Δ {title} (points)", ylabel=f"Δ {shown.title}{unit}")
        label = f"{name}: change of {shown.title} against change of {title}, {len(points)} objects in scenes; {said}"
        return inline_svg(figure, label, prefix)


def _slopes(lines: Sequence[Line], shown: Metric, name: str) -> Table:
    titles = {"intercept": "what remains if neither changes", COVERAGE: "coverage", SPURIOUS: "spurious points"}
    rows: list[tuple[Cell, ...]] = []
    for model in dict.fromkeys(str(line["model"]) for line in lines):
        rows.append((Cell({"both": "Both together"}.get(model, model.capitalize()), "", "primary"),))
        for row in (line for line in lines if line["model"] == model):
            slope = Cell(NOT_AVAILABLE, str(row["reason"]), "none")
            if is_known(row["slope"]):
                factor = 1.0 if row["term"] == "intercept" else 0.1
                low, high, value = (factor * row[key] for key in ("ci_low", "ci_high", "slope"))
                kind = "sure" if low > 0 or high < 0 else ""
                slope = Cell(shown.signed(value), shown.interval(low, high, signed=True), kind, value, low, high)
            change = "" if row["term"] == "intercept" else f"{100 * row['mean_change']:+.1f}".replace("-", "−")
            effect = Cell(NOT_AVAILABLE, "", "none")
            if is_known(row["effect"]):
                ends = (row["effect_low"], row["effect_high"])
                effect = Cell(shown.signed(row["effect"]), shown.interval(*ends, signed=True), "", row["effect"], *ends)
            rows.append((Cell(titles[str(row["term"])]), slope, Cell(change), effect))
    heads = ("term", f"{shown.title}, for 10 points more", "mean change (points)", "slope × mean change")
    note = (
        "Least squares over objects in scenes, errors clustered by scene; checkpoints are averaged, and what training "
        "seeds add is not counted. An association over objects, not an experiment: what moves coverage moves other "
        "things too. Where the mean change is small, 10 points are far from anything seen."
    )
    return Table(f"Does coverage help? {name}", heads, tuple(rows), note)
