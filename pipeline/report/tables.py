"""The tables of the page: plain cells, which the template draws."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from pipeline.report.inputs import RunData, Setting
from pipeline.report.metrics import NOT_AVAILABLE, Metric, is_known, metric, number, order
from pipeline.table_files import WHOLE

MOST_PROBLEMS = 200
NO_INTERVALS = "too few scenes for an interval"


@dataclass(frozen=True)
class Cell:
    """One cell: its text, a smaller second line, and a style class.

    Attributes:
        value: the number behind the text, in the unit shown; sorts the column, and is what the CSV holds.
        low, high: its interval, in the same unit.
    """

    text: str
    sub: str = ""
    kind: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row is its heading, a row of one cell is a heading over the rows below.

    Attributes:
        caption: what it shows.
        head: column titles.
        rows: cells.
        note: printed below.
        numeric: whether the columns after the first hold numbers.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    numeric: bool = True


def _label(shown: Metric, *, primary: str = "", difference: bool = False) -> Cell:
    unit = shown.difference_unit if difference else shown.unit
    is_primary = shown.name == primary
    below = ", ".join(text for text in (unit, "primary metric" if is_primary else "") if text)
    return Cell(shown.title, below, "primary" if is_primary else "")


def estimate(rows: pd.DataFrame, shown: Metric, column: str, *, signed: bool = False) -> Cell:
    """Write one estimate; ``rows`` holds it alone, or nothing."""
    if rows.empty or not is_known(rows.iloc[0][column]):
        return Cell(NOT_AVAILABLE, "", "none")
    row = rows.iloc[0]
    write = shown.signed if signed else shown.number
    kind = ""
    if signed and is_known(row["ci_low"]) and (row["ci_low"] > 0 or row["ci_high"] < 0):
        kind = "sure"
    low, high = row["ci_low"], row["ci_high"]
    ends = (shown.scale * low, shown.scale * high) if is_known(low) and is_known(high) else (None, None)
    return Cell(write(row[column]), shown.interval(low, high, signed=signed), kind, shown.scale * row[column], *ends)


def bracketed(rows: Iterable[tuple[Cell, ...]]) -> bool:
    """Say whether any cell has an interval."""
    return any(cell.low is not None for row in rows for cell in row)


def brackets(data: RunData, table: pd.DataFrame, drawn: str = "brackets") -> str:
    """Say what brackets mean, or that there are none; ``table`` is what is shown."""
    return (
        f"{drawn}: {_confidence(data)} interval over {data.interval_over}"
        if table["ci_low"].notna().any()
        else NO_INTERVALS
    )


def unbracketed(rows: Iterable[tuple[Cell, ...]]) -> tuple[tuple[Cell, ...], ...]:
    """Return the rows without the words that no interval is available, which a note says once instead."""
    return tuple(tuple(replace(cell, sub="") if cell.sub == NOT_AVAILABLE else cell for cell in row) for row in rows)


def count(value: Any) -> Cell:
    """Return a cell with a whole number."""
    return Cell(f"{int(value):,}", value=int(value))


def plain(value: Any, digits: int) -> Cell:
    """Return a cell with a number without unit."""
    return Cell(number(value, digits), value=value) if is_known(value) else Cell(NOT_AVAILABLE, "", "none")


def per_arm(data: RunData, table: pd.DataFrame, caption: str) -> list[Table]:
    """Return one table a split (everything first): metrics down, arms across.

    Args:
        data: the run.
        table: utility or completion rows of one setting.
        caption: begins every table's caption.
    """
    whole = table[table["object"] == WHOLE]
    splits = [WHOLE, *data.splits] if len(data.splits) > 1 else [WHOLE]
    metrics = order(list(dict.fromkeys(whole["metric"])))
    result = []
    for split in splits:
        part = whole[whole["split"] == split]
        rows = []
        for shown in metrics:
            one = part[part["metric"] == shown.name]
            cells = [estimate(one[one["arm"] == arm], shown, "value") for arm in data.arms]
            rows.append((_label(shown, primary=data.experiment.primary_metric), *cells))
        scenes, views = part["n_scenes"].max(), part["n_views"].max()
        title = f"{caption}, {'all splits' if split == WHOLE else split}" if len(splits) > 1 else caption
        size = f"{counted(scenes, 'scene')}, {counted(views, 'view')} an arm"
        how = brackets(data, part)
        cells_of = tuple(rows) if bracketed(rows) else unbracketed(rows)
        result.append(Table(title, ("metric", *data.arms), cells_of, f"Mean over {size}; {how}."))
    return result


def differences(data: RunData, table: pd.DataFrame, pairs: list[tuple[str, str]], caption: str) -> Table:
    """Return the paired differences: metrics down, comparisons across."""
    whole = table[(table["object"] == WHOLE) & (table["split"] == WHOLE)]
    rows = []
    for shown in order(list(dict.fromkeys(whole["metric"]))):
        one = whole[whole["metric"] == shown.name]
        cells = [
            estimate(one[(one["arm_a"] == a) & (one["arm_b"] == b)], shown, "difference", signed=True) for a, b in pairs
        ]
        rows.append((_label(shown, primary=data.experiment.primary_metric, difference=True), *cells))
    heads = ("metric", *(f"{a} − {b}" for a, b in pairs))
    if not bracketed(rows):
        return Table(caption, heads, unbracketed(rows), f"Paired by view, averaged by scene; {NO_INTERVALS}.")
    note = (
        f"Paired by view, averaged by scene; brackets: {_confidence(data)} interval over {data.interval_over}. "
        "Bold where it excludes 0; only the primary metric was declared beforehand, and the intervals of the "
        "others are not adjusted for their number."
    )
    return Table(caption, heads, tuple(rows), note)


def recovered(data: RunData, setting: Setting, without: Sequence[str] = ()) -> tuple[Table | None, str]:
    """Return the recovered utilities, and a sentence where there is nothing or little to show.

    Args:
        data: the run.
        setting: of generator, scorer and camera.
        without: metrics that are not shown.
    """
    table = setting.of(data.recovered)
    table = table[(table["split"] == WHOLE) & ~table["metric"].isin(list(without))]
    if table.empty:
        kinds = {arm.completion for arm in data.experiment.arms}
        missing = [name for kind, name in (("none", "partial"), ("truth", "oracle")) if kind not in kinds]
        if missing:
            return (
                None,
                f"Not computed: it needs the arms partial and oracle, and this run has no {' and no '.join(missing)}.",
            )
        return None, "Not computed: no arm of this run is a checkpoint, or none has scenes in common with the oracle."
    if not table["value"].notna().any():
        return None, "; ".join(_sentence(reason) for reason in dict.fromkeys(table["reason"])) + "."
    arms = [arm for arm in data.arms if arm in set(table["arm"])]
    rows, reasons = [], []
    for shown in order(list(dict.fromkeys(table["metric"]))):
        cells = []
        for arm in arms:
            one = table[(table["metric"] == shown.name) & (table["arm"] == arm)].iloc[0]
            if is_known(one["value"]):
                low, high = one["ci_low"], one["ci_high"]
                ends = (100 * low, 100 * high) if is_known(low) and is_known(high) else (None, None)
                cells.append(Cell(f"{100 * one['value']:.0f} %", _share(low, high), "", 100 * one["value"], *ends))
            else:
                reasons.append(str(one["reason"]))
                cells.append(Cell("undefined", "", "none"))
        rows.append((_label(_plain(shown), primary=data.experiment.primary_metric), *cells))
    note = "; ".join(_sentence(reason) for reason in dict.fromkeys(reasons))
    return Table("Share of the oracle's gain", ("metric", *arms), tuple(rows), note and note + "."), ""


def _plain(shown: Metric) -> Metric:
    return Metric(shown.name, shown.title)


def _share(low: float, high: float) -> str:
    if not (is_known(low) and is_known(high)):
        return NOT_AVAILABLE
    return f"[{number(100 * low, 0)}, {number(100 * high, 0)}]"


def _sentence(reason: str) -> str:
    return reason[:1].upper() + reason[1:]


def by_object(
    data: RunData, utility: pd.DataFrame, completion: pd.DataFrame, objects: list[str], names: list[str]
) -> Table:
    """Return utility and coverage of every object: objects down, arms within metrics across."""
    columns = [
        (name, arm, table) for name, table in zip(names, (utility, completion), strict=True) for arm in data.arms
    ]
    values = {
        (name, row.object, row.arm): row.value
        for name, table in zip(names, (utility, completion), strict=True)
        for row in table[(table["metric"] == name) & (table["split"] == WHOLE)].itertuples()
    }
    rows = []
    for item in objects:
        scenes = utility[(utility["object"] == item) & (utility["split"] == WHOLE)]["n_scenes"]
        cells = [_number(metric(name), values.get((name, item, arm))) for name, arm, _ in columns]
        rows.append((Cell(object_title(data, item), f"{counted(scenes.max(), 'scene')}"), *cells))
    heads = tuple(f"{metric(name).title}: {arm}" for name, arm, _ in columns)
    return Table("By object", ("object", *heads), tuple(rows))


def _number(shown: Metric, value: Any) -> Cell:
    return Cell(shown.number(value), value=shown.scale * value) if is_known(value) else Cell(NOT_AVAILABLE, "", "none")


def object_title(data: RunData, number: str) -> str:
    name = data.object_names.get(number, "")
    return f"{number} {name}".strip()


def arms(data: RunData) -> Table:
    """Say what was compared."""
    kinds = {
        "none": "the partial cloud itself",
        "truth": "the true surface of what was seen",
        "checkpoint": "a network completes it",
        "command": "a program completes it",
    }
    rows = []
    for arm in data.summary["arms"]:
        paths = [arm["checkpoint"]] if arm["checkpoint"] else arm.get("checkpoints") or ()
        name = ", ".join(_last(path) for path in paths) or " ".join(arm.get("command", ()))
        rows.append(
            (
                Cell(arm["name"]),
                Cell(kinds.get(arm["completion"], str(arm["completion"]))),
                Cell(name or "–"),
                Cell(arm["merge"] or data.merges.get(arm["name"]) or "–"),
                Cell(arm["entry"]),
            )
        )
    heads = ("arm", "completion", "checkpoint or command", "merge with the observation", "enters")
    return Table("Arms", heads, tuple(rows), numeric=False)


def generators(data: RunData) -> Table:
    """Say what found the grasps, and whether it would find the same again."""
    inputs = {
        "observed": "what the camera saw (observed)",
        "replace": "completed clouds (replace)",
        "append": "observed and completed points (append)",
        "rerendered": "what the camera would see of the completed scene (rerendered)",
        None: "a dump, taken as it is",
    }
    certain = {True: "yes", False: "no", None: "not declared"}
    rows = tuple(
        (
            Cell(item["label"]),
            Cell(item["name"]),
            Cell(inputs[item["input"]]),
            Cell("by the completed clouds" if item["rerank"] else "its own"),
            Cell(certain[item["deterministic"]]),
        )
        for item in data.summary["generators"]
    )
    heads = ("generator", "kind", "its input", "ranking", "deterministic")
    note = f"Each view has a seed of its own, the same for every arm, from the experiment's ({data.summary['seed']})."
    return Table("Generators", heads, rows, note, numeric=False)


def _last(path: Any) -> str:
    return str(path).rstrip("/").rsplit("/", 1)[-1]


def scenes(data: RunData, setting: Setting) -> Table:
    """Say which scenes and how many views of each."""
    views = setting.of(data.views)
    views = views[views["object"] == -1][["split", "scene", "view"]].drop_duplicates()
    rows = []
    for split, part in views.groupby("split", observed=True):
        counts = part.groupby("scene").size()
        listed = ", ".join(str(scene) for scene in counts.index)
        rows.append((Cell(str(split)), Cell(str(len(counts))), Cell(str(int(counts.sum()))), Cell(listed)))
    return Table("Scenes", ("split", "scenes", "views", "scene numbers"), tuple(rows), numeric=False)


def problems(data: RunData) -> tuple[Table | None, str]:
    """Return what failed, or a sentence that says there is nothing."""
    if data.problems is None:
        return None, f"{data.folder.problems.name} is missing: run the experiment again to know what failed."
    if not data.problems:
        return None, "Nothing failed in this run."
    rows = tuple(
        (
            Cell(_text(row.get("stage"))),
            Cell(_text(row.get("unit"))),
            Cell(_text(row.get("view"))),
            Cell(_text(row.get("object"))),
            Cell(_text(row.get("reason"))),
        )
        for row in data.problems[:MOST_PROBLEMS]
    )
    more = len(data.problems) - len(rows)
    note = f"{more} more stand in {data.folder.problems.name}." if more > 0 else ""
    return Table("What failed, and why", ("stage", "unit", "view", "object", "reason"), rows, note, numeric=False), ""


def mapping(caption: str, heads: tuple[str, str], values: dict[str, Any]) -> Table:
    """Return nested keys and values as two columns."""
    rows = tuple((Cell(key), Cell(text)) for key, text in _flat(values))
    return Table(caption, heads, rows, numeric=False)


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            rows.append((prefix + str(key), ", ".join(_text(item) for item in value)))
        else:
            rows.append((prefix + str(key), _text(value)))
    return rows


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def counted(count: Any, noun: str) -> str:
    n = 0 if pd.isna(count) else int(count)
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _confidence(data: RunData) -> str:
    return f"{100 * data.experiment.statistics.level:g} %"
