"""Which views the report shows: one rule for the pictures and for the panel in 3-D."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from pipeline.report import answer
from pipeline.report.inputs import RunData, Setting
from pipeline.report.metrics import metric

_SCENE = ["split", "scene"]


@dataclass(frozen=True)
class Choice:
    """One view and why it is shown.

    Attributes:
        why: the rule's word for its scene.
        split, scene, view: which.
        value: what the scene was chosen by: the mean over its views, in the metric's own unit.
        shown: the same with its unit, for people.
    """

    why: str
    split: str
    scene: int
    view: int
    value: float
    shown: str

    @property
    def title(self) -> str:
        where = f"scene {self.scene} ({self.shown}), view {self.view}, {self.split}"
        return f"{self.why[:1].upper()}{self.why[1:]}: {where}"


def headline_pair(data: RunData, setting: Setting) -> tuple[str, str] | None:
    """Return the first pair that answers the question and has views in both arms, or None."""
    scored = set(setting.of(data.views)["arm"])
    return next((pair for pair in answer.headline_pairs(data) if set(pair) <= scored), None)


def choose(data: RunData, setting: Setting) -> tuple[list[Choice], str]:
    """Choose up to three scenes by the primary metric, a view of each, and say by which rule.

    The pair is the first that answers the question: its scene of the largest gain, that of the largest loss and that
    of the median difference; of each the view whose difference is nearest to its scene's mean. Ties go to the lower
    number. Without a pair it is the best, the worst and the median scene of the first arm.
    """
    primary = metric(data.experiment.primary_metric)
    views = setting.of(data.views)
    wide = views[views["object"] == -1].pivot_table(
        index=[*_SCENE, "view"], columns="arm", values=primary.name, sort=True, observed=True
    )
    pair = headline_pair(data, setting)
    nearest = "of each scene the view nearest to its mean; ties go to the lower number."
    if pair is not None:
        a, b = pair
        wide = wide.reindex(columns=list(pair))  # a column without any value is dropped above
        values = (wide[a] - wide[b]).dropna()
        rule = (
            f"Chosen by rule, from the difference {a} − {b} in {primary.title} of each scene: the largest gain, the "
            f"largest loss and the median; {nearest}"
        )
    else:
        values = wide.reindex(columns=data.arms)[data.arms[0]].dropna()
        rule = (
            f"Chosen by rule, from {primary.title} of {data.arms[0]} in each scene: the best, the worst and the "
            f"median; {nearest}"
        )
    if values.empty:
        return [], "No view was scored in both arms of the comparison, so none is shown."
    means = values.groupby(_SCENE, observed=True).mean()
    if len(means) == 1:
        rule = "The view nearest to the mean of the only scene; ties go to the lower number."
    choices = []
    for why, key in _three(means, pair is not None):
        of_scene = values.loc[key]
        view = (of_scene - means[key]).abs().round(9).idxmin()
        value = float(means[key])
        amount = f"{primary.signed(value)} {primary.difference_unit}".rstrip() if pair else primary.value(value)
        choices.append(Choice(why, key[0], key[1], int(view), value, amount))
    return choices, rule


def _three(means: pd.Series, is_difference: bool) -> list[tuple[str, tuple[str, int]]]:
    """Return up to three different scenes, each with its word; ``means`` is indexed by split and scene."""
    left = means.sort_index(level="scene", sort_remaining=True)
    # The lower of the two middle ones where there is no middle.
    middle = left.sort_values(kind="stable").iloc[(len(left) - 1) // 2]
    chosen: list[tuple[str, tuple[str, int]]] = []
    for index in range(min(3, len(means))):
        wanted = (left, -left, -(left - middle).abs())[index]
        at = int(wanted.to_numpy().argmax())  # the first of equals, and that is the lower scene
        split, scene = left.index[at]
        chosen.append((_word(index, float(left.iloc[at]), is_difference, len(means)), (str(split), int(scene))))
        left = left.drop([(split, scene)])
    return chosen


def _word(index: int, value: float, is_difference: bool, count: int) -> str:
    if count == 1:
        return "the only scene"
    if not is_difference:
        return ("best", "worst", "median")[index]
    if index == 0:
        return "largest gain" if value > 0 else "highest difference (no scene gains)"
    if index == 1:
        return "largest loss" if value < 0 else "lowest difference (no scene loses)"
    return "median difference"
