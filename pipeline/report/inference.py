"""How sure: tests, adjustment, what could have been found, and how often an arm is better, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from pipeline.report.inputs import RunData, Setting
from pipeline.report.metrics import NOT_AVAILABLE, Metric, is_known, metric
from pipeline.report.tables import Cell, Table, plain
from pipeline.table_files import WHOLE


def p_text(value: Any) -> str:
    """Write a p-value."""
    if not is_known(value):
        return NOT_AVAILABLE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def declared_family(data: RunData) -> str:
    """Say which tests were declared, and so adjusted for one another."""
    family = data.summary.get("family")
    if not family:
        return ""
    metrics = ", ".join(metric(name).title for name in family["metrics"])
    pairs = "; ".join(f"{a} − {b}" for a, b in family["comparisons"]) or "none"
    splits = ", ".join("all splits together" if split == WHOLE else split for split in family["splits"])
    return f"Declared family: {metrics}; {pairs}; {splits}; in every setting."


def inference(data: RunData, setting: Setting, pairs: list[tuple[str, str]]) -> Table | None:
    """Return the primary metric's comparisons and every other test of the family: comparisons down."""
    table = pd.concat([setting.of(data.comparisons), setting.completion_of(data.comparisons)])
    table = table[table["object"] == WHOLE]
    primary = data.experiment.primary_metric
    if (table["n_scenes"] <= 1).all():
        return None
    lines: list[tuple[Cell, ...]] = []
    for a, b in pairs:
        own = table[(table["arm_a"] == a) & (table["arm_b"] == b)]
        main = (own["metric"] == primary) & (own["split"] == WHOLE)
        for row in own[main | own["in_family"].astype(bool)].to_dict("records"):
            lines.append(_line(row, primary))
    if not lines:
        return None
    heads = ("difference", "value", "p, sign flips", "p, Wilcoxon", "p reported", "p, Holm")
    more = ("detectable", "better in", "scenes that differ", "seeds")
    note = (
        f"{declared_family(data)} p reported: of sign flips over scenes; where an arm has several checkpoints, of the "
        "t interval over scenes and seeds, since flips of scenes know nothing of seeds. Holm: adjusted over the "
        f"declared family. Detectable: the true difference that a run like this finds with power "
        f"{100 * data.experiment.statistics.power:g} %, before Holm's adjustment. "
        "Better in: share of scenes, ties half, with Wilson's interval."
    )
    return Table("How sure is that?", (*heads, *more), tuple(lines), note)


def _line(row: Mapping[Any, Any], primary: str) -> tuple[Cell, ...]:
    shown = metric(str(row["metric"]))
    where = "" if row["split"] == WHOLE else f", {row['split']}"
    kind = "primary" if row["metric"] == primary and row["split"] == WHOLE else ""
    head = Cell(f"{row['arm_a']} − {row['arm_b']}", f"{shown.title}{where}", kind)
    seeds = f"{int(row['seeds_a'])} | {int(row['seeds_b'])}"
    return (
        head,
        _difference(row, shown),
        *(_p(row[name]) for name in ("p_permutation", "p_wilcoxon", "p_value")),
        _p(row["p_holm"]) if bool(row["in_family"]) else Cell("not in the family", "", "none"),
        Cell(shown.number(row["mde"]), value=shown.scale * row["mde"]) if is_known(row["mde"]) else plain(None, 1),
        _share(row),
        Cell(f"{int(row['n_differ'])} of {int(row['n_scenes'])}", value=int(row["n_differ"])),
        Cell(seeds),
    )


def _difference(row: Mapping[Any, Any], shown: Metric) -> Cell:
    low, high = row["ci_low"], row["ci_high"]
    known = is_known(low)
    ends = (shown.scale * low, shown.scale * high) if known else (None, None)
    kind = "sure" if known and (low > 0 or high < 0) else ""
    text = shown.interval(low, high, signed=True)
    return Cell(shown.signed(row["difference"]), text, kind, shown.scale * row["difference"], *ends)


def _p(value: Any) -> Cell:
    return Cell(p_text(value), value=value) if is_known(value) else Cell(NOT_AVAILABLE, "", "none")


def _share(row: Mapping[Any, Any]) -> Cell:
    if not is_known(row["improvement"]):
        return Cell(NOT_AVAILABLE, "", "none")
    value, low, high = (100 * row[name] for name in ("improvement", "improvement_low", "improvement_high"))
    return Cell(f"{value:.0f} %", f"[{low:.0f}, {high:.0f}]", "", value, low, high)
