"""What the candidates are worth, however their generator ranks them: arms and differences, generator by generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from grasping.utility import RANK_FREE
from pipeline.report import tables
from pipeline.report.inputs import RunData, Setting
from pipeline.report.metrics import Metric, order
from pipeline.report.tables import Cell, Table
from pipeline.table_files import WHOLE


@dataclass(frozen=True)
class RankFree:
    """One camera's views as one scorer graded them: all generators' candidates together in two tables."""

    within: str
    arms: Table
    differences: Table | None


def rank_free(data: RunData, pairs: Sequence[tuple[str, str]]) -> list[RankFree]:
    """Return the tables of every scorer and camera.

    Args:
        data: the run.
        pairs: comparisons, in the order in which they are shown.
    """
    together: dict[tuple[str, str], list[Setting]] = {}
    for setting in data.settings:
        together.setdefault((setting.scorer, setting.camera), []).append(setting)
    result = []
    for (scorer, camera), settings in together.items():
        within = f"{camera} · scorer {scorer}" if len(together) > 1 else ""
        compared = _differences(data, settings, pairs) if pairs else None
        result.append(RankFree(within, _arms(data, settings), compared))
    return result


def set_apart(primary_metric: str) -> list[str]:
    """Return the metrics that stand in these tables alone, and do not lengthen others."""
    return [name for name in RANK_FREE if name not in ("feasible", primary_metric)]


def _shown() -> list[Metric]:
    return order(list(RANK_FREE))


def _arms(data: RunData, settings: Sequence[Setting]) -> Table:
    whole = data.utility[(data.utility["object"] == WHOLE) & (data.utility["split"] == WHOLE)]
    rows: list[tuple[Cell, ...]] = []
    for setting in settings:
        own = setting.of(whole)
        rows += _heading(setting, settings)
        for arm in data.arms:
            of_arm = own[own["arm"] == arm]
            cells = (tables.estimate(of_arm[of_arm["metric"] == m.name], m, "value") for m in _shown())
            rows.append((Cell(arm), *cells))
    note = f"Mean over scenes; {tables.brackets(data, whole)}."
    return _table("Rank-free utility", "arm", rows, note, difference=False)


def _differences(data: RunData, settings: Sequence[Setting], pairs: Sequence[tuple[str, str]]) -> Table:
    whole = data.comparisons[(data.comparisons["object"] == WHOLE) & (data.comparisons["split"] == WHOLE)]
    rows: list[tuple[Cell, ...]] = []
    for setting in settings:
        own = setting.of(whole)
        rows += _heading(setting, settings)
        for a, b in pairs:
            pair = own[(own["arm_a"] == a) & (own["arm_b"] == b)]
            cells = (_difference(pair[pair["metric"] == m.name], m) for m in _shown())
            rows.append((Cell(f"{a} − {b}"), *cells))
    note = f"Paired by view, averaged by scene; {tables.brackets(data, whole)}."
    note += " Bold where it excludes 0, not adjusted for how many there are." if tables.bracketed(rows) else ""
    return _table("Differences in rank-free utility", "difference", rows, note, difference=True)


def _difference(row: pd.DataFrame, shown: Metric) -> Cell:
    return tables.estimate(row, shown, "difference", signed=True)


def _heading(setting: Setting, settings: Sequence[Setting]) -> list[tuple[Cell, ...]]:
    """Return the line above a generator's arms, where there are several generators."""
    return [(Cell(f"generator {setting.generator}", "", "primary"),)] if len(settings) > 1 else []


def _table(caption: str, first: str, rows: list[tuple[Cell, ...]], note: str, *, difference: bool) -> Table:
    units = [metric.difference_unit if difference else metric.unit for metric in _shown()]
    titles = [f"{m.title}{f' ({unit})' if unit else ''}" for m, unit in zip(_shown(), units, strict=True)]
    shown = tuple(rows) if tables.bracketed(rows) else tables.unbracketed(rows)
    return Table(caption, (first, *titles), shown, note)
