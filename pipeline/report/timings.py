"""Where the time of a run went: stage by stage and arm by arm, from what the finished units have on record."""

from __future__ import annotations

import pandas as pd

from pipeline.experiment import STAGES
from pipeline.report import figures
from pipeline.report.exhibits import Figure
from pipeline.report.inputs import RunData
from pipeline.report.style import ROLES, Look
from pipeline.report.tables import Cell, Table, counted

_SHARED = "all arms at once"


def stages(data: RunData) -> list[str]:
    """Return the stages that have units, in the order of a run."""
    present = list(dict.fromkeys(data.timings["stage"]))
    order = {stage: index for index, stage in enumerate(STAGES)}
    return sorted(present, key=lambda name: (order.get(name.split(",")[0], len(order)), name))


def table(data: RunData) -> Table | None:
    """Return seconds and units: stages down, arms across; None where nothing is on record."""
    if data.timings.empty:
        return None
    known = {
        (stage, arm): (float(seconds), int(units))
        for stage, arm, units, seconds in data.timings.itertuples(index=False, name=None)
    }
    arms = [arm.name for arm in data.experiment.arms if arm.name in set(data.timings["arm"])]
    total = float(data.timings["seconds"].sum())
    rows = []
    for stage in stages(data):
        own = data.timings[data.timings["stage"] == stage]
        seconds = float(own["seconds"].sum())
        share = 100 * seconds / total if total else 0.0
        cells = [_cell(seconds, int(own["units"].sum())), Cell(f"{share:.0f} %", value=share)]
        for arm in arms:
            cells.append(_cell(*known[stage, arm]) if (stage, arm) in known else Cell("–", "", "none"))
        rows.append((Cell(stage), *cells))
    note = (
        f"{total:,.1f} s in all, summed over units (a unit is one scene and camera, of one arm after observe). "
        "Several workers run units at the same time; starting and this report come on top."
    )
    return Table("Time of the units", ("stage", "all", "share", *arms), tuple(rows), note)


def _cell(seconds: float, units: int) -> Cell:
    return Cell(f"{seconds:,.1f} s", counted(units, "unit"), value=seconds)


def figure(data: RunData, look: dict[str, Look]) -> Figure | None:
    """Return the same as bars: a bar a stage, a piece an arm."""
    if data.timings.empty or not data.timings["seconds"].sum():
        return None
    parts: dict[str, pd.Series] = {
        stage: data.timings[data.timings["stage"] == stage].set_index("arm")["seconds"] for stage in stages(data)
    }
    pieces = [("", _SHARED, ROLES["grid"][0]), *((arm, arm, look[arm].stand_in) for arm in look)]
    drawing = figures.stacked_bars(parts, pieces, "seconds, summed over units", "timings")
    return Figure(drawing, f"Seconds of each stage by arm; grey: {_SHARED}.", "timings")
