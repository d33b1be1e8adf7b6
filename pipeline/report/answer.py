"""The answer in plain sentences, from the paired differences of the primary metric."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from pipeline.aggregate import WHOLE
from pipeline.report.inputs import RunData, Setting
from pipeline.report.metrics import Metric, is_known, metric

MOST_SENTENCES = 3


@dataclass(frozen=True)
class Answer:
    """What one setting says.

    Attributes:
        setting: of generator, scorer and camera.
        sentences: about the pairs that the question is about.
        scale: sentences that say how much completing at all could change.
    """

    setting: Setting
    sentences: tuple[str, ...]
    scale: tuple[str, ...]


def answers(data: RunData) -> list[Answer]:
    """Return one answer a setting."""
    return [_answer(data, setting) for setting in data.settings]


def headline_pairs(data: RunData) -> list[tuple[str, str]]:
    """Return the comparisons that answer the question, in the experiment's order.

    Those of checkpoint against checkpoint (a command counts as one) where there are any; else those that involve a
    checkpoint; else all. Also those that have no results: that nothing can be said is an answer too.
    """
    declared = data.experiment.compared()
    kinds = {pair: [data.completion_kind(arm) for arm in pair] for pair in declared}
    for least in (2, 1, 0):
        pairs = [pair for pair in declared if sum(kind in ("checkpoint", "command") for kind in kinds[pair]) >= least]
        if pairs:
            return pairs
    return []


def _answer(data: RunData, setting: Setting) -> Answer:
    primary = metric(data.experiment.primary_metric)
    pairs = headline_pairs(data)
    sentences = [sentence(data, setting, pair, primary) for pair in pairs[:MOST_SENTENCES]]
    if len(pairs) > MOST_SENTENCES:
        sentences.append(f"{len(pairs) - MOST_SENTENCES} more comparisons stand under Differences.")
    if not pairs:
        sentences.append("This run compares no arms, so it answers nothing yet: name two arms and a comparison.")
    scale = []
    for a, b in data.compared:
        if (a, b) in pairs or data.completion_kind(b) != "none":
            continue
        row = difference(data, setting, (a, b), primary.name)
        if row is not None:
            scale.append(f"{a} − {b}: {_amount(row, primary)}")
    return Answer(setting, tuple(sentences), tuple(scale))


def difference(data: RunData, setting: Setting, pair: tuple[str, str], name: str) -> pd.Series | None:
    """Return the row of one comparison over all splits and objects, or None where there is none."""
    table = data.comparisons
    table = table[(table["arm_a"] == pair[0]) & (table["arm_b"] == pair[1]) & (table["metric"] == name)]
    rows = pd.concat([setting.of(table), setting.completion_of(table)])
    rows = rows[(rows["split"] == WHOLE) & (rows["object"] == WHOLE)]
    return None if rows.empty or not is_known(rows.iloc[0]["difference"]) else rows.iloc[0]


def sentence(data: RunData, setting: Setting, pair: tuple[str, str], shown: Metric) -> str:
    """Say what one comparison says, and no more than it says."""
    a, b = pair
    row = difference(data, setting, pair, shown.name)
    if row is None:
        return f"{a} instead of {b}: no view was scored in both arms, so nothing can be said."
    confidence = f"{100 * data.experiment.statistics.level:g} %"
    amount, low, high = _amount(row, shown), row["ci_low"], row["ci_high"]
    if not is_known(low):
        scenes = int(row["n_scenes"])
        count = "one scene" if scenes == 1 else f"{scenes} scenes, too few for one"
        return (
            f"{a} instead of {b} changes {shown.title} by {amount} (interval n/a: {count}): "
            "true of what was measured here, and nothing can be said about other scenes."
        )
    if low == high == 0:
        return f"{a} instead of {b} changes {shown.title} in no scene of this run."
    if low <= 0 <= high:
        return (
            f"{a} instead of {b} changes {shown.title} by {amount}: "
            "the interval holds 0, so this run does not show a difference."
        )
    verb = "raises" if row["difference"] > 0 else "lowers"
    better = (row["difference"] > 0) == shown.more_is_better
    return (
        f"{a} instead of {b} {verb} {shown.title} by {amount}: the {confidence} interval excludes 0, "
        f"so {a} is {'better' if better else 'worse'} here."
    )


def _amount(row: pd.Series, shown: Metric) -> str:
    unit = f" {shown.difference_unit}" if shown.difference_unit else ""
    text = f"{shown.signed(row['difference'])}{unit}"
    if is_known(row["ci_low"]):
        text += f" {shown.interval(row['ci_low'], row['ci_high'], signed=True)}"
    return text
