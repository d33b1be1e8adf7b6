"""The answer in plain sentences, from the paired differences of the primary metric."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from pipeline.report.because import because
from pipeline.report.inference import p_text
from pipeline.report.inputs import RunData, Setting
from pipeline.report.metrics import Metric, is_known, metric
from pipeline.table_files import WHOLE

MOST_SENTENCES = 3


@dataclass(frozen=True)
class Answer:
    """What one setting says.

    Attributes:
        setting: of generator, scorer and camera.
        sentences: about the pairs that the question is about.
        reasons: of the first of them, why, as far as it can be told.
        scale: sentences that say how much completing at all could change.
    """

    setting: Setting
    sentences: tuple[str, ...]
    reasons: tuple[str, ...]
    scale: tuple[str, ...]


def answers(data: RunData) -> list[Answer]:
    """Return one answer a setting."""
    return [_answer(data, setting) for setting in data.settings]


def headline_pairs(data: RunData) -> list[tuple[str, str]]:
    """Return the comparisons that answer the question, in the experiment's order.

    Also those that have no results: that nothing can be said is an answer too.
    """
    return list(data.experiment.questioned())


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
    reasons = because(data, setting, pairs[0]) if pairs else []
    return Answer(setting, tuple(sentences), tuple(reasons), tuple(scale))


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
            f"the interval holds 0, so this run does not show a difference{_could_show(row, shown)}."
        )
    p, test = _p(row)
    if is_known(p) and p > 1 - data.experiment.statistics.level:
        # The p of a difference that has one sign in every scene; Holm multiplies the family's least by its size.
        tests = int(data.comparisons["in_family"].astype(bool).sum()) if bool(row["in_family"]) else 1
        least = 2.0 ** (1 - int(row["n_scenes"])) * tests
        if least > 1 - data.experiment.statistics.level and max(row["seeds_a"], row["seeds_b"]) == 1:
            return (
                f"{a} instead of {b} changes {shown.title} by {amount}: the {confidence} interval excludes 0, but "
                f"{int(row['n_scenes'])} scenes are too few for the test over scenes to show anything."
            )
        return (
            f"{a} instead of {b} changes {shown.title} by {amount}: the {confidence} interval excludes 0 but {test} "
            f"does not agree (p = {p_text(p)}), so this run does not show a difference{_could_show(row, shown)}."
        )
    verb = "raises" if row["difference"] > 0 else "lowers"
    better = (row["difference"] > 0) == shown.more_is_better
    agrees = ""
    if is_known(p):
        written = f"p {'' if p < 0.001 else '= '}{p_text(p)}"
        agrees = f" and {test} agrees ({written})"
        if max(row["seeds_a"], row["seeds_b"]) > 1 and p == row["p_value"]:
            agrees = f" ({written})"  # of the very interval: no second opinion
    return (
        f"{a} instead of {b} {verb} {shown.title} by {amount}: the {confidence} interval excludes 0{agrees}, "
        f"so {a} is {'better' if better else 'worse'} here."
    )


def _p(row: pd.Series) -> tuple[float, str]:
    """Return the p that decides, and what test it is of: adjusted where the test was declared."""
    test = "the test over scenes" + (" and seeds" if max(row["seeds_a"], row["seeds_b"]) > 1 else "")
    if bool(row["in_family"]) and is_known(row["p_holm"]):
        return float(row["p_holm"]), f"{test}, adjusted for the declared family,"
    return float(row["p_value"]), test


def _could_show(row: pd.Series, shown: Metric) -> str:
    """Say what could have been found."""
    if not is_known(row["mde"]):
        return ""
    unit = f" {shown.difference_unit}" if shown.difference_unit else ""
    return f" (a true one of {shown.number(row['mde'])}{unit} or more would probably have been found)"


def _amount(row: pd.Series, shown: Metric) -> str:
    unit = f" {shown.difference_unit}" if shown.difference_unit else ""
    text = f"{shown.signed(row['difference'])}{unit}"
    if is_known(row["ci_low"]):
        text += f" {shown.interval(row['ci_low'], row['ci_high'], signed=True)}"
    return text
