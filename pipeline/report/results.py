"""What the page shows of one way of generating and scoring, and of one camera's completion."""

from __future__ import annotations

from typing import Any

import pandas as pd

from pipeline.report import answer, counts, figures, inference, intervals, tables
from pipeline.report.counts import GraspCounts
from pipeline.report.exhibits import Figure
from pipeline.report.inputs import RunData, Setting
from pipeline.report.metrics import metric
from pipeline.report.rank_free import set_apart
from pipeline.report.style import Look
from pipeline.table_files import WHOLE

_FOREST = ("feasible", "quality", "coverage@5mm")
_FRICTIONS = (0.4, 0.8)  # of the curves over k


def pairs_of(data: RunData) -> list[tuple[str, str]]:
    """Return the comparisons, those that answer the question first."""
    return list(dict.fromkeys([*answer.headline_pairs(data), *data.compared]))


def results(data: RunData, setting: Setting, look: dict[str, Look], prefix: str) -> dict[str, Any]:
    """Return everything that belongs to one generator, scorer and camera."""
    primary = data.experiment.primary_metric
    utility = setting.of(data.utility)
    whole = utility[(utility["split"] == WHOLE) & (utility["object"] == WHOLE)]
    compared = setting.of(data.comparisons)
    apart = set_apart(primary)
    listed, differing = (table[~table["metric"].isin(apart)] for table in (utility, compared))
    both = pd.concat([compared, setting.completion_of(data.comparisons)])
    pairs = pairs_of(data)
    forests = [
        Figure(
            intervals.forest(both, name, pairs, data.splits if name == primary else [], f"{prefix}-f{index}"),
            metric(name).meaning,
            f"differences in {name}",
        )
        for index, name in enumerate(dict.fromkeys([primary, *_FOREST]))
        if (both["metric"] == name).any()
    ]
    recovered_table, recovered_note = tables.recovered(data, setting, apart)
    grasps, views = data.counted(setting), setting.of(data.views)
    views = views[views["object"] == -1]
    return {
        "setting": setting,
        "within": setting.title if len(data.settings) > 1 else "",
        "primary": Figure(
            intervals.arm_intervals(whole, primary, data.arms, look, f"{prefix}-p"),
            f"Mean over scenes; {tables.brackets(data, whole, 'lines')}.",
            f"{primary} by arm",
        ),
        "utility": tables.per_arm(data, listed, "Utility"),
        "forests": forests,
        "differences": tables.differences(data, differing, pairs, "Differences in utility") if pairs else None,
        "inference": inference.inference(data, setting, pairs),
        "one_scene": bool((compared["n_scenes"] <= 1).all()),
        "recovered": recovered_table,
        "recovered_note": recovered_note,
        "curves": [
            Figure(
                figures.curves(grasps, views, data.arms, look, k, f"{prefix}-c{k}"),
                "the most confident grasp" if k == 1 else f"the {k} most confident grasps",
                f"success over friction best {k}",
            )
            for k in (1, 5, 10)
        ],
        "over_k": [
            Figure(
                figures.curves_over_k(grasps, views, data.arms, look, friction, f"{prefix}-k{index}"),
                f"at friction µ ≤ {friction:g}",
                f"success over k mu {friction:g}",
            )
            for index, friction in enumerate(_FRICTIONS)
        ],
        "outcomes": _outcomes(data, grasps, views, prefix),
        "objects": _objects(data, setting, look, prefix),
    }


def _outcomes(data: RunData, grasps: dict[str, GraspCounts], views: pd.DataFrame, prefix: str) -> dict[str, Any]:
    by_arm = {arm: (grasps[arm], views[views["arm"] == arm]) for arm in data.arms}
    ranks = {arm: counts.ranks_by_outcome(*rows) for arm, rows in by_arm.items()}
    candidates = {arm: counts.candidates_by_outcome(*rows) for arm, rows in by_arm.items()}
    empty = {arm: counts.views_without_grasps(*rows) for arm, rows in by_arm.items()}
    if any(empty.values()):
        listed = ", ".join(f"{arm} {n}" for arm, n in empty.items())
        each = len(views) // len(data.arms)
        note = f"Views without any grasp, which count as zero everywhere: {listed} (of {each} an arm)."
    else:
        note = "Every view of every arm has at least one grasp to grade."
    return {
        "figures": [
            Figure(
                figures.outcome_bars(ranks, "of a view's ten best grasps", f"{prefix}-o0"),
                "What becomes of the ten most confident grasps of a view, on average.",
                "outcomes of best ten",
            ),
            Figure(
                figures.outcome_bars(candidates, "candidates per view", f"{prefix}-o1"),
                "All candidates that survive suppression.",
                "outcomes of candidates",
            ),
        ],
        "note": note,
    }


def _objects(data: RunData, setting: Setting, look: dict[str, Look], prefix: str) -> dict[str, Any] | None:
    utility = setting.of(data.utility)
    completion = setting.completion_of(data.completion)
    objects = sorted(set(utility["object"]) - {WHOLE}, key=int)
    if not objects:
        return None
    # AP averages over fifty ranks, of which one object can fill ten: it says little of one object.
    name = "quality" if data.experiment.primary_metric.startswith("ap") else data.experiment.primary_metric
    names = [name, "coverage@5mm"]
    figure_list = [
        Figure(
            figures.by_object(
                table,
                item,
                objects,
                lambda number: tables.object_title(data, number),
                data.arms,
                look,
                f"{prefix}-b{i}",
            ),
            metric(item).meaning,
            f"{item} by object",
        )
        for i, (item, table) in enumerate(zip(names, (utility, completion), strict=True))
    ]
    return {
        "figures": figure_list,
        "table": tables.by_object(data, utility, completion, objects, names),
        "note": "AP counts fifty ranks and one object fills ten at most, so quality stands here."
        if name == "quality"
        else "",
    }


def completion(data: RunData, setting: Setting, look: dict[str, Look], camera: str) -> dict[str, Any]:
    table = setting.completion_of(data.completion)
    whole = table[(table["split"] == WHOLE) & (table["object"] == WHOLE)]
    compared, pairs = setting.completion_of(data.comparisons), pairs_of(data)
    return {
        "camera": camera,
        "within": camera if len({item.camera for item in data.settings}) > 1 else "",
        "figures": [
            Figure(
                figures.trade_off(whole, data.arms, look, "5mm", f"t-{camera}-5"),
                "within 5 mm",
                "coverage against spurious 5 mm",
            ),
            Figure(
                figures.trade_off(whole, data.arms, look, "0.03", f"t-{camera}-3"),
                "within 3 % of the observed object's diagonal",
                "coverage against spurious 3 percent",
            ),
        ],
        "tables": tables.per_arm(data, table, "Completion"),
        "differences": tables.differences(data, compared, pairs, "Differences in completion") if pairs else None,
    }
