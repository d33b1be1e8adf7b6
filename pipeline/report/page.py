"""The page: what stands where. The templates in ``web/`` draw it, this module fills them."""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Mapping
from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.report import (
    answer,
    choice,
    explore,
    inference,
    physics,
    pictures,
    rank_free,
    results,
    style,
    tables,
    timings,
    views,
    why,
)
from pipeline.report.exhibits import Key, Section
from pipeline.report.exports import Exports
from pipeline.report.inputs import RunData, Setting
from pipeline.report.metrics import HELD, UTILITY, metric

_WEB = Path(__file__).resolve().parent / "web"
_SCRIPTS = ("tables.js", "explore.js")
_ENTRIES = {
    "both": "where grasps are sampled and where collisions are tested (both)",
    "generator": "where grasps are sampled (generator)",
    "collision": "where collisions are tested (collision)",
}


def sections(data: RunData) -> list[Section]:
    """Return the sections below the answer, in the page's order; each has a template of its own."""
    listed = [
        Section("utility", "Utility"),
        Section("differences", "Differences"),
        Section("rankfree", "Rank-free utility", "Rank-free"),
        Section("why", "Where the differences arise", "Why"),
        Section("mediation", "Does coverage help grasping?", "Coverage"),
        Section("curves", "Success over friction and k", "Success curves"),
        Section("completion", "Completion"),
        Section("outcomes", "Outcomes"),
        Section("physics", "What is analytic AP worth? The physics' opinion", "Physics"),
        Section("explore", "Explore in 3-D"),
        Section("pictures", "Pictures"),
        Section("objects", "By object"),
        Section("arms", "Arms, generators, scenes", "Arms"),
        Section("timings", "Timings"),
        Section("problems", "Problems"),
        Section("provenance", "Provenance"),
    ]
    return [section for section in listed if section.id != "physics" or data.physics is not None]


def render(data: RunData, files: Exports | None = None) -> str:
    """Return the page as HTML.

    Args:
        data: the run.
        files: takes in what the page shows, to be written beside it.

    Raises:
        ArtifactError: if the tables do not belong together.
    """
    look = style.looks([(arm.name, arm.completion) for arm in data.experiment.arms])
    environment = Environment(
        loader=FileSystemLoader(_WEB), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    first = data.settings[0]
    choices, rule = choice.choose(data, first)
    seen = views.load(data, first, choices)
    panel = explore.panel(data, first, seen)
    scripts = {name: _script(name) for name in _SCRIPTS}
    # Data that no program can be made of, and as large as it is: it becomes one when the panel is first needed.
    library = explore.library() if panel.scenes else Markup("")
    problem_table, problem_note = tables.problems(data)
    opinions = physics.opinions(data, look)
    environment.globals["files"] = Exports() if files is None else files
    return environment.get_template("page.html").render(
        css=Markup(
            (_WEB / "page.css").read_text(encoding="utf-8") + (_WEB / "explore.css").read_text(encoding="utf-8")
        ),
        light=Markup(style.css_variables(dark=False)),
        dark=Markup(style.css_variables(dark=True)),
        policy=_policy({**scripts, "plotly": library}),
        scripts=list(scripts.values()),
        library=library,
        panel=panel,
        sections=sections(data),
        summary=data.summary,
        primary=metric(data.experiment.primary_metric),
        several=len(data.settings) > 1,
        answers=answer.answers(data),
        results=[results.results(data, setting, look, f"s{index}") for index, setting in enumerate(data.settings)],
        rank_free=rank_free.rank_free(data, results.pairs_of(data)),
        whys=[why.why(data, setting, f"w{index}") for index, setting in enumerate(data.settings)],
        family=inference.declared_family(data),
        forced=data.summary.get("forced", []),
        opinions=opinions,
        physics_keys=[Key(*entry) for entry in physics.legend()],
        completion=[results.completion(data, setting, look, camera) for camera, setting in _cameras(data).items()],
        arm_keys=[Key(arm, look[arm].variable, look[arm].marker_text) for arm in data.arms],
        outcome_keys=[Key(title, style.outcome_variable(key)) for key, title, *_ in style.OUTCOMES],
        picture_keys=_picture_keys(),
        warnings=_warnings(data),
        compared=_compared(data),
        arms=tables.arms(data),
        generators=tables.generators(data),
        scenes=tables.scenes(data, first),
        shown=pictures.show(seen, data.experiment.density),
        rule=rule,
        picture_setting=first.title,
        most_grasps=views.MOST_GRASPS,
        timing_table=timings.table(data),
        timing_figure=timings.figure(data, look),
        problem_table=problem_table,
        problem_note=problem_note,
        meanings=[(item.title, item.meaning) for item in (*UTILITY, *(HELD if opinions else ()))],
        provenance=_provenance(data),
        command=_command(data),
        configuration=yaml.safe_dump(data.experiment.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
    )


def _script(name: str) -> Markup:
    return Markup((_WEB / name).read_text(encoding="utf-8"))


def _policy(scripts: Mapping[str, str]) -> str:
    """Return the page's Content-Security-Policy: nothing from anywhere, and only the page's own programs by hash."""
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in scripts.values()
        if text
    ]
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {' '.join(hashes)}"


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
    forced = bool(data.summary.get("forced"))
    size = f"{tables.counted(dataset['scenes'], 'scene')}, {tables.counted(dataset['views'], 'view')}"
    return [
        ("arms", f"{tables.counted(len(data.arms), 'arm')}: {', '.join(data.arms)}"),
        ("training seeds", _seeds(data)),
        ("observations", f"{size}, {cameras}"),
        ("splits", ", ".join(data.splits)),
        ("completion enters", _ENTRIES[data.experiment.entry]),
        ("one point a voxel of", f"{1000 * data.summary['density']:g} mm{'' if forced else ', in every arm'}"),
        ("seed", str(data.summary["seed"])),
    ]


def _seeds(data: RunData) -> str:
    """Say how many checkpoints stand behind the arms that have any."""
    counts = {arm.name: len(arm.members()) for arm in data.experiment.arms if arm.completion == "checkpoint"}
    if not counts:
        return "no arm has a checkpoint"
    if len(set(counts.values())) == 1:
        return f"{next(iter(counts.values()))} of each arm that has a checkpoint"
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _command(data: RunData) -> str:
    """Return what makes this page again."""
    runs = data.summary["provenance"].get("runs", ())
    if not runs:
        return f"grasp-utility run {shlex.quote(str(data.folder.root / 'experiment.json'))} --out NEW_FOLDER"
    words = ["grasp-utility", "compare", *(str(run["run"]) for run in runs)]
    words += [word for a, b in data.experiment.compared() for word in ("--pair", f"{a},{b}")]
    words += ["--force"] if data.summary.get("forced") else []
    return f"{shlex.join(words)} --out NEW_FOLDER"


def _provenance(data: RunData) -> list[tables.Table]:
    provenance = data.summary["provenance"]
    run = {
        "run folder": str(data.folder.root),
        "dataset": data.summary["dataset"]["root"],
        "seed": data.summary["seed"],
        "fingerprint of everything the tables rest on": provenance["fingerprint"],
        "level of intervals": data.experiment.statistics.level,
        "draws of scenes": data.experiment.statistics.draws,
    }
    for entry in data.summary["declarations"]:
        run[f"declared {entry['at'].replace('T', ' ')}"] = ", ".join(
            [
                f"primary metric {entry['declared']['primary_metric']}",
                *(["after results were there"] if entry["after_results"] else []),
            ]
        )
    for source in provenance.get("runs", ()):
        run[f"run {source['name']}"] = f"{source['run']}, fingerprint {source['fingerprint']}"
    return [
        tables.mapping("Run", ("", ""), run),
        tables.mapping("Protocol of the scores", ("constant", "value"), provenance["protocol"]),
        tables.mapping("Versions", ("package", "version"), provenance["versions"]),
    ]
