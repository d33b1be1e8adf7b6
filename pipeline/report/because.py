"""Why, in sentences: which failures, which part of the method, and whether coverage goes with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from pipeline.attribution import parted_metric
from pipeline.mediation import COVERAGE, SPURIOUS
from pipeline.report.inputs import RunData, Setting
from pipeline.report.metrics import Metric, is_known, metric, number

_LEAST_PART = 0.1  # of all that reasons move, either way, for one to be named
_MOST_PARTS = 3
_REASONS = {  # of a level: what less is lost to where it gains
    "no grasp at this rank": "ranks without a grasp",
    "hits the target": "grasps that hit their own object",
    "hits a neighbour": "grasps that hit a neighbour",
    "hits the table": "grasps that hit the table",
    "collides": "grasps that collide",
    "closes on nothing": "grasps that close on nothing",
    "no contact": "grasps without contact",
    "contacts do not close": "contacts that do not close",
    "holds at more friction": "grasps that hold at more friction only",
    "collided": "grasps that collide on approach",
    "no_contact": "grasps without contact",
    "slipped": "grasps that slip",
    "lost": "grasps lost while shaking",
    "dragged": "neighbours dragged along",
}


def because(data: RunData, setting: Setting, pair: tuple[str, str]) -> list[str]:
    """Return what can be said of why two arms differ; nothing where the run was not explained."""
    found = (_of_reasons(data, setting, pair), _of_crossings(data, setting, pair), _of_coverage(data, setting, pair))
    return [sentence for sentence in found if sentence]


def of_pair(table: pd.DataFrame, pair: tuple[str, str]) -> list[dict[str, Any]]:
    """Return the rows of one comparison."""
    chosen = table[(table["arm_a"] == pair[0]) & (table["arm_b"] == pair[1])]
    return [{str(key): value for key, value in row.items()} for row in chosen.to_dict("records")]


def amount(row: Mapping[str, Any], shown: Metric, column: str = "difference") -> str:
    """Write a difference with its unit and interval."""
    unit = f" {shown.difference_unit}" if shown.difference_unit else ""
    text = f"{shown.signed(row[column])}{unit}"
    return f"{text} {shown.interval(row['ci_low'], row['ci_high'], signed=True)}" if is_known(row["ci_low"]) else text


def _sure(row: Mapping[str, Any]) -> bool:
    return bool(is_known(row["ci_low"]) and (row["ci_low"] > 0 or row["ci_high"] < 0))


def _of_reasons(data: RunData, setting: Setting, pair: tuple[str, str]) -> str:
    shown = metric(parted_metric(data.experiment, setting.scorer))
    rows = [row for row in of_pair(setting.of(data.attribution), pair) if row["factor"] == "reason"]
    least = _LEAST_PART * sum(abs(row["difference"]) for row in rows)
    rows = [row for row in rows if row["difference"] != 0 and abs(row["difference"]) >= least]
    if not rows:
        return ""
    ordered = sorted(rows, key=lambda row: -abs(row["difference"]))[:_MOST_PARTS]
    parts = []
    for row in ordered:
        # Not fewer or more of them: a grasp counts by its rank, and few at the top outweigh many below.
        direction = "less" if row["difference"] > 0 else "more"
        name = _REASONS.get(str(row["level"]), str(row["level"]))
        parts.append(f"{direction} lost to {name} ({amount(row, shown)})")
    sure = [_sure(row) for row in ordered]
    if all(sure) or not any(is_known(row["ci_low"]) for row in ordered):
        caution = ""
    else:
        caution = "; not every part is sure by itself" if any(sure) else "; no part is sure by itself"
    return f"By what fails: {', '.join(parts)}{caution}."


def _of_crossings(data: RunData, setting: Setting, pair: tuple[str, str]) -> str:
    """Say how much of a difference is left when both arms know the true collision geometry."""
    shown = metric(data.experiment.primary_metric)
    table = data.crossed
    table = table[(table["generator"] == setting.generator) & (table["camera"] == setting.camera)]
    rows = {row["combination"]: row for row in of_pair(table, pair) if is_known(row["value"])}
    if not {"own", "true_collisions"} <= set(rows):
        return ""
    sentence = (
        "If both knew the true collision geometry, the difference would be "
        f"{amount(rows['true_collisions'], shown, 'value')} instead of {shown.signed(rows['own']['value'])}"
    )
    if "arm_collisions" in rows:
        sentence += (
            "; filtering one and the same perfect set of grasps by each arm's geometry differs by "
            f"{amount(rows['arm_collisions'], shown, 'value')}"
        )
    return f"{sentence}."


def _of_coverage(data: RunData, setting: Setting, pair: tuple[str, str]) -> str:
    rows = [row for row in of_pair(setting.of(data.mediation), pair) if row["model"] == "both"]
    known = {str(row["term"]): row for row in rows if is_known(row["slope"]) and is_known(row["effect"])}
    if not {COVERAGE, SPURIOUS} <= set(known):
        return ""
    shown = metric(str(known[COVERAGE]["metric"]))
    parts = []
    shown_to, not_shown = [], []
    for term, name, go in ((COVERAGE, "coverage", "goes"), (SPURIOUS, "spurious points", "go")):
        row = known[term]
        # What the change that there was goes with, not a change of 10 points that no object may have seen.
        effect = f"{shown.signed(row['effect'])} {shown.interval(row['effect_low'], row['effect_high'], signed=True)}"
        parts.append(f"{number(100 * row['mean_change'], 1, signed=True)} points of {name} go with {effect}")
        if row["ci_low"] <= 0 <= row["ci_high"]:
            not_shown.append(name)
        else:
            shown_to.append(f"more {name} {go} with {'more' if row['slope'] > 0 else 'less'} utility")
    verdict = " and ".join(shown_to)
    if len(not_shown) == len(parts):
        verdict = "neither is shown to matter here"
    elif not_shown:
        verdict += f", {not_shown[0]} not shown to matter"
    unit = f" ({shown.difference_unit})" if shown.difference_unit else ""
    return f"Over objects, in {shown.title}{unit}: {' and '.join(parts)}; {verdict}."
