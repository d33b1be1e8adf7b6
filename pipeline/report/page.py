"""The page: what stands where. The template draws it, this module fills it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.aggregate import WHOLE
from pipeline.experiment import STAGES
from pipeline.report import answer, counts, figures, intervals, physics, pictures, style, tables
from pipeline.report.inputs import RunData, Setting
from pipeline.report.metrics import HELD, UTILITY, metric

_HERE = Path(__file__).resolve().parent
_FOREST = ("feasible", "quality", "coverage@5mm")


@dataclass(frozen=True)
class Figure:
    """One figure and what stands below it."""

    svg: Markup
    caption: str


@dataclass(frozen=True)
class Key:
    """One entry of a legend: a marker or a swatch in a CSS colour, and its text."""

    text: str
    variable: str
    marker: str = "■"


def render(data: RunData) -> str:
    """Return the page as HTML.

    Raises:
        ArtifactError: if the tables do not belong together.
    """
    look = style.looks([(arm.name, arm.completion) for arm in data.experiment.arms])
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    first = data.settings[0]
    shown, rule = pictures.show(data, first)
    results = [_results(data, setting, look, f"s{index}") for index, setting in enumerate(data.settings)]
    problem_table, problem_note = tables.problems(data)
    opinions = physics.opinions(data, look)
    return environment.get_template("page.html").render(
        css=Markup((_HERE / "page.css").read_text(encoding="utf-8")),
        light=Markup(style.css_variables(dark=False)),
        dark=Markup(style.css_variables(dark=True)),
        summary=data.summary,
        primary=metric(data.experiment.primary_metric),
        confidence=f"{100 * data.experiment.statistics.level:g} %",
        several=len(data.settings) > 1,
        answers=answer.answers(data),
        results=results,
        opinions=opinions,
        physics_keys=[Key(*entry) for entry in physics.legend()],
        completion=[_completion(data, setting, look, camera) for camera, setting in _cameras(data).items()],
        arm_keys=[Key(arm, look[arm].variable, look[arm].marker_text) for arm in data.arms],
        outcome_keys=[Key(title, style.outcome_variable(key)) for key, title, *_ in style.OUTCOMES],
        picture_keys=_picture_keys(),
        warnings=_warnings(data),
        compared=_compared(data),
        arms=tables.arms(data),
        scenes=tables.scenes(data, first),
        shown=shown,
        rule=rule,
        picture_setting=first.title,
        most_grasps=pictures.MOST_GRASPS,
        problem_table=problem_table,
        problem_note=problem_note,
        meanings=[(item.title, item.meaning) for item in (*UTILITY, *(HELD if opinions else ()))],
        provenance=_provenance(data),
        command=f"grasp-utility run {shlex.quote(str(data.folder.root / 'experiment.json'))} --out NEW_FOLDER",
        configuration=yaml.safe_dump(data.experiment.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
    )


def _warnings(data: RunData) -> list[str]:
    missing = [arm.name for arm in data.experiment.arms if arm.name not in data.arms]
    lost = [f"No results of {', '.join(missing)}: see Problems."] if missing else []
    return [*lost, *data.summary["warnings"]]


def _picture_keys() -> list[Key]:
    points = [Key("observed", "points-observed", "●"), Key("what the arm made of it", "points-completed", "●")]
    shown = [(key, title) for key, title, *_ in style.OUTCOMES if key not in ("other", "missing")]
    return points + [Key(title, style.outcome_variable(key), "▬") for key, title in shown]


def _cameras(data: RunData) -> dict[str, Setting]:
    """Return one setting a camera: completion knows nothing of generators and scorers."""
    return {setting.camera: setting for setting in reversed(data.settings)}


def _compared(data: RunData) -> list[tuple[str, str]]:
    dataset = data.summary["dataset"]
    cameras = ", ".join(dataset["cameras"])
    size = f"{tables.counted(dataset['scenes'], 'scene')}, {tables.counted(dataset['views'], 'view')}"
    return [
        ("arms", f"{tables.counted(len(data.arms), 'arm')}: {', '.join(data.arms)}"),
        ("observations", f"{size}, {cameras}"),
        ("splits", ", ".join(dataset["splits"])),
        ("completion enters", str(data.summary["entry"])),
        ("one point a voxel of", f"{1000 * data.summary['density']:g} mm, in every arm"),
        ("seed", str(data.summary["seed"])),
    ]


def _pairs(data: RunData) -> list[tuple[str, str]]:
    """Return the comparisons, those that answer the question first."""
    return list(dict.fromkeys([*answer.headline_pairs(data), *data.compared]))


def _results(data: RunData, setting: Setting, look: dict[str, style.Look], prefix: str) -> dict[str, Any]:
    """Return everything that belongs to one generator, scorer and camera."""
    primary = data.experiment.primary_metric
    utility = setting.of(data.utility)
    whole = utility[(utility["split"] == WHOLE) & (utility["object"] == WHOLE)]
    compared = setting.of(data.comparisons)
    both = pd.concat([compared, setting.completion_of(data.comparisons)])
    pairs = _pairs(data)
    forests = [
        Figure(
            intervals.forest(both, name, pairs, data.splits if name == primary else [], f"{prefix}-f{index}"),
            metric(name).meaning,
        )
        for index, name in enumerate(dict.fromkeys([primary, *_FOREST]))
        if (both["metric"] == name).any()
    ]
    recovered_table, recovered_note = tables.recovered(data, setting)
    grasps, views = setting.of(data.grasps), setting.of(data.views)
    views = views[views["object"] == -1]
    return {
        "setting": setting,
        "id": prefix,
        "primary": intervals.arm_intervals(whole, primary, data.arms, look, f"{prefix}-p"),
        "utility": tables.per_arm(data, utility, "Utility"),
        "forests": forests,
        "differences": tables.differences(data, compared, pairs, "Differences in utility") if pairs else None,
        "recovered": recovered_table,
        "recovered_note": recovered_note,
        "curves": [
            Figure(
                figures.curves(grasps, views, data.arms, look, k, f"{prefix}-c{k}"),
                "the most confident grasp" if k == 1 else f"the {k} most confident grasps",
            )
            for k in (1, 5, 10)
        ],
        "outcomes": _outcomes(data, grasps, views, prefix),
        "objects": _objects(data, setting, look, prefix),
    }


def _outcomes(data: RunData, grasps: pd.DataFrame, views: pd.DataFrame, prefix: str) -> dict[str, Any]:
    by_arm = {arm: (grasps[grasps["arm"] == arm], views[views["arm"] == arm]) for arm in data.arms}
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
            ),
            Figure(
                figures.outcome_bars(candidates, "candidates per view", f"{prefix}-o1"),
                "All candidates that survive suppression.",
            ),
        ],
        "note": note,
    }


def _objects(data: RunData, setting: Setting, look: dict[str, style.Look], prefix: str) -> dict[str, Any] | None:
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


def _completion(data: RunData, setting: Setting, look: dict[str, style.Look], camera: str) -> dict[str, Any]:
    table = setting.completion_of(data.completion)
    whole = table[(table["split"] == WHOLE) & (table["object"] == WHOLE)]
    compared, pairs = setting.completion_of(data.comparisons), _pairs(data)
    return {
        "camera": camera,
        "figures": [
            Figure(figures.trade_off(whole, data.arms, look, "5mm", f"t-{camera}-5"), "within 5 mm"),
            Figure(
                figures.trade_off(whole, data.arms, look, "0.03", f"t-{camera}-3"),
                "within 3 % of the observed object's diagonal",
            ),
        ],
        "tables": tables.per_arm(data, table, "Completion"),
        "differences": tables.differences(data, compared, pairs, "Differences in completion") if pairs else None,
    }


def _provenance(data: RunData) -> list[tables.Table]:
    provenance = data.summary["provenance"]
    run = {
        "run folder": str(data.folder.root),
        "dataset": data.summary["dataset"]["root"],
        "seed": data.summary["seed"],
        "fingerprint of everything the tables rest on": provenance["fingerprint"],
        "level of intervals": data.experiment.statistics.level,
        "draws for recovered utility": data.experiment.statistics.draws,
    }
    result = [
        tables.mapping("Run", ("", ""), run),
        tables.mapping("Protocol of the scores", ("constant", "value"), provenance["protocol"]),
        tables.mapping("Versions", ("package", "version"), provenance["versions"]),
    ]
    if data.seconds:
        stages = [stage for stage in STAGES if stage in data.seconds]
        seconds = {stage: f"{data.seconds[stage]:,.1f} s" for stage in stages}
        result.append(tables.mapping("Time of the units, summed", ("stage", "time"), seconds))
    return result
