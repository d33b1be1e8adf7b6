"""What is analytic AP worth? The second opinion, as figures and tables; only in reports of runs that asked for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline.agreement import THRESHOLDS, sentences
from pipeline.report import answer, figures, style, tables, why
from pipeline.report.counts import outcome
from pipeline.report.exhibits import Figure
from pipeline.report.inference import p_text
from pipeline.report.inputs import RunData, Setting
from pipeline.report.metrics import NOT_AVAILABLE, is_known, number
from pipeline.report.style import ROLES, Drawing, Look, inline_svg, outcome_stand_in, outcome_variable, panel
from pipeline.report.tables import Cell, Table
from pipeline.scorers import PHYSICS
from pipeline.table_files import WHOLE

FRICTION = THRESHOLDS[1]

# What physics says, in colours that the page has already: (outcome, title, key of style.OUTCOMES).
OUTCOMES = (
    ("held", "held to the end", "success_0.4"),
    ("lost", "lost while shaking", "success_1.2"),
    ("slipped", "slipped while lifting", "no_closure"),
    ("no_contact", "no contact", "no_contact"),
    ("dragged", "dragged a neighbour", "empty"),
    ("collided", "collided on approach", "collides"),
    ("other", "other", "other"),
)


_ROC = "ROC. Marks: µ 0.2, 0.4, … 1.2 from the left; the straight line is chance."
_BARS_SAY = "Left: what the protocol says, and of how many grasps; bars: what physics says of them. All arms."


@dataclass(frozen=True)
class Opinion:
    """Everything that one generator and camera show of it; tables and captions are ready to draw."""

    setting: Setting
    title: str
    sentences: tuple[str, ...]
    how: str
    utility: tuple[Table, ...]
    differences: Table | None
    agreement: Table
    roc: Figure | None
    outcomes: Figure | None
    best: Table | None
    parts: tuple[Figure, ...]
    objects: Table | None


def legend() -> list[tuple[str, str]]:
    """Return the legend of the outcomes: texts and CSS variables."""
    return [(title, outcome_variable(key)) for name, title, key in OUTCOMES if name != "other"]


def opinions(data: RunData, look: dict[str, Look]) -> list[Opinion]:
    """Return one opinion a generator and camera; none where physics was not asked."""
    if data.physics is None:
        return []
    found = data.physics.agreement[["generator", "camera"]].drop_duplicates()
    keys = data.utility[data.utility["scorer"] == PHYSICS][["generator", "camera"]].drop_duplicates()
    several = len(keys) > 1
    made = []
    for index, (generator, camera) in enumerate(keys.itertuples(index=False, name=None)):
        tried = bool(((found["generator"] == generator) & (found["camera"] == camera)).any())
        made.append(_opinion(data, Setting(generator, PHYSICS, camera), look, f"y{index}", several, tried))
    return made


def _of(table: pd.DataFrame, setting: Setting) -> pd.DataFrame:
    return table[(table["generator"] == setting.generator) & (table["camera"] == setting.camera)]


def _opinion(
    data: RunData, setting: Setting, look: dict[str, Look], prefix: str, several: bool, tried: bool
) -> Opinion:
    assert data.physics is not None
    rows, roc = _of(data.physics.agreement, setting), _of(data.physics.roc, setting)
    pairs = list(dict.fromkeys([*answer.headline_pairs(data), *data.compared]))
    compared = setting.of(data.comparisons)
    counted = _of(data.physics.physics_outcomes, setting)
    return Opinion(
        setting,
        f"{setting.camera} · generator {setting.generator}" if several else "",
        tuple(sentences([dict(row) for _, row in rows.iterrows()])),
        _how(data),
        tuple(tables.per_arm(data, setting.of(data.utility), "Held by physics")),
        tables.differences(data, compared, pairs, "Differences in what physics holds") if pairs else None,
        agreement_table(data, rows),
        Figure(roc_figure(roc, rows, data.arms, look, f"{prefix}-r"), _ROC, "physics-roc") if tried else None,
        Figure(outcome_figure(counted, f"{prefix}-o"), _BARS_SAY, "physics-outcomes-by-reason") if tried else None,
        best_table(data, setting, pairs),
        tuple(part for pair in pairs[:1] for part in why.parts(data, setting, pair, f"{prefix}-w", ("reason",))),
        objects_table(data, rows) if tried else None,
    )


def _how(data: RunData) -> str:
    how = data.experiment.trials()
    where = "in the settled scene" if how.mode == "scene" else "on the object alone, without table and neighbours"
    times = "once" if how.repeats == 1 else f"{how.repeats} times, slightly perturbed (held: in more than half of them)"
    return (
        f"A free-floating gripper of the protocol's dimensions tries every grasp of the protocol's cut {times} {where} "
        f"(MuJoCo): it approaches, closes with {how.closing_force:g} N, lifts, shakes and holds. Friction "
        f"{how.friction:g}, density {how.density:g} kg/m³. It is a second opinion, not the truth: one simulator, "
        "rigid convex parts, one friction for all."
    )


def _share(value: Any) -> Cell:
    return Cell(f"{100 * value:.0f} %", value=100 * value) if is_known(value) else Cell(NOT_AVAILABLE, "", "none")


def _auc(row: pd.Series) -> Cell:
    if not is_known(row["auc"]):
        return Cell(NOT_AVAILABLE, "", "none")
    low, high = row["auc_low"], row["auc_high"]
    return Cell(number(row["auc"], 2), f"[{low:.2f}, {high:.2f}]" if is_known(low) else "", value=row["auc"])


def agreement_table(data: RunData, rows: pd.DataFrame) -> Table:
    """Return the confusion of both opinions at three frictions, all arms first, then each."""
    whole = rows[rows["object"] == WHOLE]
    lines: list[tuple[Cell, ...]] = []
    arms = [WHOLE, *data.arms] if len(data.arms) > 1 else data.arms
    for arm in arms:
        own = whole[whole["arm"] == arm]
        if own.empty:
            continue
        first = own.iloc[0]
        area = _auc(first)
        title = "all arms" if arm == WHOLE else arm
        tried = f"{int(first['n']):,} tried, {int(first['n_held']):,} held; ROC AUC {area.text} {area.sub}".rstrip()
        lines.append((Cell(title, tried, "primary"),))
        for _, row in own.iterrows():
            counts = [tables.count(row[name]) for name in ("both", "analytic_only", "physics_only", "neither")]
            rates = [_share(row[name]) for name in ("held_if_passed", "held_if_failed", "accuracy")]
            lines.append((Cell(f"µ ≤ {row['friction']:g}"), *counts, *rates, tables.plain(row["kappa"], 2)))
    heads = ("friction", "both", "protocol only", "physics only", "neither")
    rates_heads = ("held if passed", "held if failed", "agree", "Cohen's κ")
    note = (
        "At each friction µ the protocol passes a grasp whose min_friction is µ or less. Brackets: "
        f"{100 * data.experiment.statistics.level:g} % interval of the area, scenes resampled within their splits."
    )
    return Table("How often the two opinions say yes", (*heads, *rates_heads), tuple(lines), note)


def best_table(data: RunData, setting: Setting, pairs: list[tuple[str, str]]) -> Table | None:
    """Return how often each arm's most confident grasp is held, comparison by comparison."""
    if data.best_grasp is None:
        return None
    known = {(row["arm_a"], row["arm_b"]): row for row in _of(data.best_grasp, setting).to_dict("records")}
    lines: list[tuple[Cell, ...]] = []
    for a, b in pairs:
        row = known.get((a, b))
        if row is None:
            continue
        shares = []
        for side in ("a", "b"):
            value, low, high = (100 * row[f"share_{side}{end}"] for end in ("", "_low", "_high"))
            shares.append(Cell(f"{value:.0f} %", f"[{low:.0f}, {high:.0f}]", "", value, low, high))
        sides = [row[name] for name in ("both", "only_a", "only_b", "neither")]
        digits = 0 if all(float(value).is_integer() for value in sides) else 1  # of several checkpoints, means
        counts = [tables.plain(value, digits) for value in sides]
        known_p = is_known(row["p_mcnemar"])
        p = Cell(p_text(row["p_mcnemar"]), value=row["p_mcnemar"]) if known_p else Cell(NOT_AVAILABLE, "", "none")
        size = f"{int(row['views']):,} views, {int(row['scenes'])} scenes"
        lines.append((Cell(f"{a} − {b}", size), *shares, *counts, p))
    if not lines:
        return None
    heads = ("difference", "first holds", "second holds", "both", "first only", "second only", "neither", "p, McNemar")
    note = (
        "Brackets: Wilson's interval; p: McNemar's exact test, where each arm has one checkpoint; of several, counts "
        "are means over their pairs. Both take views for independent, which those of one scene are not: the difference "
        "in held, best grasp, above counts scenes, and decides."
    )
    return Table("Is the most confident grasp held?", heads, tuple(lines), note)


def objects_table(data: RunData, rows: pd.DataFrame) -> Table:
    """Return the agreement by object, over all arms, where it is worst first."""
    own = rows[(rows["object"] != WHOLE) & (rows["arm"] == WHOLE) & (rows["friction"] == FRICTION)]
    own = own.sort_values(["accuracy", "object"], kind="stable")
    lines = []
    for _, row in own.iterrows():
        passed = int(row["both"] + row["analytic_only"])
        share = _share(row["n_held"] / row["n"])
        rates = [_share(row[name]) for name in ("held_if_passed", "held_if_failed", "accuracy")]
        cells = [tables.count(row["n"]), share, tables.count(passed), *rates]
        lines.append((Cell(tables.object_title(data, row["object"])), *cells, tables.plain(row["auc"], 2)))
    heads = ("object", "tried", "held", "passed", "held if passed", "held if failed", "agree", "ROC AUC")
    note = f"All arms, µ ≤ {FRICTION:g}; where the two agree least stands first."
    return Table("Physics by object", heads, tuple(lines), note)


def roc_figure(
    roc: pd.DataFrame, rows: pd.DataFrame, arms: Sequence[str], look: dict[str, Look], prefix: str
) -> Drawing:
    """Draw the ROC curve of min_friction against held, a line an arm; its corners are the frictions."""
    areas = rows[rows["object"] == WHOLE].drop_duplicates("arm").set_index("arm")["auc"]
    with panel(360, 330) as (figure, axes):
        figure.subplots_adjust(left=0.15, right=0.96, top=0.97, bottom=0.15)
        axes.plot([0, 100], [0, 100], color=ROLES["grid"][0], linewidth=1.6, zorder=1)
        said = []
        for arm in arms:
            own = roc[roc["arm"] == arm].sort_values("friction")
            x, y = 100 * own["false_positive_rate"], 100 * own["true_positive_rate"]
            if own.empty or not np.isfinite([*x, *y]).all():
                continue
            size = 9 if look[arm].marker == "*" else 5.5
            colour = look[arm].stand_in
            axes.plot([0, *x], [0, *y], color=colour, linewidth=1.6, clip_on=False)
            # The last corner is (100, 100) of every curve: no mark there.
            axes.plot(
                x.iloc[:-1],
                y.iloc[:-1],
                look[arm].marker,
                color=colour,
                markersize=size,
                markeredgewidth=0,
                clip_on=False,
            )
            said.append(f"{arm} {areas.get(arm, np.nan):.2f}")
        axes.set(xlim=(0, 100), ylim=(0, 100), xlabel="passed, of what physics does not hold (%)")
        axes.set_ylabel("passed, of what it holds (%)")
        axes.set_xticks(range(0, 101, 25))
        axes.set_yticks(range(0, 101, 25))
        text = f"ROC of min_friction against held; area: {', '.join(said) or NOT_AVAILABLE}"
        return inline_svg(figure, text, prefix, style.arm_keys(arms, look))


def outcome_figure(counts: pd.DataFrame, prefix: str) -> Drawing:
    """Draw what physics says of the grasps of each reason of the protocol, all arms, in percent of the reason."""
    own = counts[counts["arm"] == WHOLE]
    kinds = outcome(own["reason"].astype(object), own["min_friction"])
    parts = {}
    for key, title, *_ in style.OUTCOMES:
        rows = own[kinds == key]
        if rows.empty:
            continue
        total = rows["n"].sum()
        shares = 100 * rows.groupby("outcome", observed=True)["n"].sum() / total
        parts[f"{title} ({total:,})"] = shares.rename(lambda name: name if name in _NAMES else "other")
    return figures.stacked_bars(parts, _BARS, "of the grasps with this reason (%)", prefix)


_NAMES = {name for name, *_ in OUTCOMES}
_BARS = [(name, title, outcome_stand_in(key)) for name, title, key in OUTCOMES]
