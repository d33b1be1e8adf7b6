"""``summary.json``: a run in one file, for programs.

Schema (``format_version`` 4: ``generators``)
-----------------------------
``name, question, primary_metric, seed, level, entry, density``
    from the experiment.
``family``
    ``{metrics, splits, comparisons}``: the tests declared beforehand, over which Holm adjusts.
``dataset``
    ``{root, cameras, scenes, views, splits}``: counts, and the names of the splits.
``arms``
    list of ``{name, completion, checkpoint, merge, entry, seeds}``, ``checkpoints`` where there are several and
    ``command`` where there is one; ``seeds`` counts the checkpoints.
``generators``
    list of ``{label, name, input, rerank, deterministic}``; ``input`` as it enters where completion enters the input at
    all (null: a dump's, which is taken as it is), ``deterministic`` null where nobody says so. The seed that one was
    handed for a view is :func:`pipeline.generators.seed_of`: the first 63 bits of the SHA-256 of
    ``SEED/SCENE/CAMERA/VIEW/generate``, ``SEED`` being ``seed`` above, whatever the arm.
``utility``
    list of ``{arm, generator, scorer, camera, metric, value, ci_low, ci_high, n_scenes, n_views, n_seeds}`` over all
    splits and objects; ``ci_*`` null where scenes are too few for an interval.
``completion``
    the same for the completion metrics.
``comparisons``
    list of the rows of ``comparisons.csv`` over all splits and objects.
``recovered``
    list of ``{arm, generator, scorer, camera, metric, value, ci_low, ci_high, reason}``.
``counts``
    list of ``{arm, generator, scorer, camera, views, views_failed, views_without_grasps,
    outcomes: {reason: n}}``: failures are
    counted aloud. Of the scorer ``physics``, what came of its trials.
``agreement``
    only where physics gave its opinion: ``{physics, agreement, physics_outcomes}``, how it tried grasps, and the rows
    of the tables of :mod:`pipeline.agreement` (``min_friction`` null: +inf).
``crossed``
    the rows of ``crossed.csv``.
``why``
    rows of ``attribution.csv`` of the comparisons that the question is about.
``mediation``
    the same of ``mediation.csv``.
``problems``
    how many rows ``problems.json`` has.
``warnings``
    sentences that a reader must see beside the numbers.
``comparable``
    what another run must share to be compared with this one (:mod:`pipeline.comparable`).
``declarations``
    of :mod:`pipeline.declaration`, the first made first.
``forced``
    only of a comparison of runs that was forced: in what they differ.
``provenance``
    ``{fingerprint, protocol, versions, aggregate_seconds}``; of a comparison of runs, ``runs`` with each one's own.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from grasping import protocol
from pipeline import aggregate, comparable, declaration, generators
from pipeline.aggregate import Tables
from pipeline.arm_completion import caveats
from pipeline.artifacts import ArtifactError, check_version, fingerprint, read_stamp, write_json
from pipeline.config import Experiment
from pipeline.run_folder import STAMP, RunFolder
from pipeline.scorers import PHYSICS
from pipeline.selection import SceneUnit
from pipeline.table_files import WHOLE, table_file

FORMAT_VERSION = 4
_PACKAGES = ("grasp-utility", "numpy", "scipy", "torch", "open3d", "numba", "pandas")
_PHYSICS_PACKAGES = ("mujoco", "coacd")
FEW_SCENES = 10
FEW_SEEDS = 5


def write(
    experiment: Experiment,
    folder: RunFolder,
    units: list[SceneUnit],
    tables: Tables,
    problems: list[dict[str, Any]],
    *,
    shared: dict[str, Any] | None = None,
    described: list[dict[str, Any]] | None = None,
    forced: Sequence[str] = (),
    runs: Sequence[dict[str, Any]] = (),
    seconds: float | None = None,
) -> dict[str, Any]:
    """Write ``summary.json`` and return its content.

    Args:
        shared: of a comparison of runs, what they have in common; else it is read from the run's stamps.
        described: of a comparison of runs, the generators of the first; else they are asked.
        forced: of a comparison of runs that differ, in what.
        runs: of a comparison of runs, each one's provenance.
        seconds: that the tables took to make, where that is known.
    """
    packages = (*_PACKAGES, *(_PHYSICS_PACKAGES if PHYSICS in experiment.scorers else ()))
    summary: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "name": experiment.name,
        "question": experiment.question,
        "primary_metric": experiment.primary_metric,
        "seed": experiment.seed,
        "level": experiment.statistics.level,
        "entry": experiment.entry,
        "density": experiment.density,
        "family": declaration.declared(experiment)["family"],
        "dataset": {
            "root": str(experiment.dataset.root),
            "cameras": list(experiment.dataset.cameras),
            "scenes": len({unit.scene for unit in units}),
            "views": sum(len(unit.views) for unit in units),
            "splits": sorted({unit.split for unit in units}),
        },
        "arms": [
            {
                "name": arm.name,
                "completion": arm.completion,
                "checkpoint": arm.checkpoint,
                "merge": arm.merge,
                "entry": experiment.entry_of(arm),
                "seeds": len(arm.members()),
                **({} if arm.checkpoints is None else {"checkpoints": list(arm.checkpoints)}),
                **({} if arm.command is None else {"command": list(arm.command)}),
            }
            for arm in experiment.arms
        ],
        "generators": generators.describe(experiment) if described is None else described,
        "utility": _whole(tables.utility),
        "completion": _whole(tables.completion),
        "comparisons": _whole(tables.comparisons),
        "recovered": _records(tables.recovered[tables.recovered["split"] == WHOLE].drop(columns="split")),
        "crossed": _records(tables.crossed),
        "why": _records(_questioned(experiment, tables.attribution)),
        "mediation": _records(_questioned(experiment, tables.mediation)),
        "counts": _counts(tables),
        "problems": len(problems),
        "warnings": _warnings(experiment, folder, units, tables, problems),
        "comparable": shared if shared is not None else comparable.describe(experiment, folder, units),
        "declarations": declaration.read(folder),
        "provenance": {
            "fingerprint": _state(experiment, folder),
            "protocol": protocol.fingerprint(),
            "versions": {"python": platform.python_version(), **{name: _version(name) for name in packages}},
        },
    }
    if tables.agreement is not None:
        summary["agreement"] = {
            "physics": experiment.trials().model_dump(mode="json"),
            "agreement": _records(tables.agreement.agreement),
            "physics_outcomes": _records(tables.agreement.physics_outcomes),
        }
    if seconds is not None:
        summary["provenance"]["aggregate_seconds"] = round(seconds, 3)
    if forced:
        summary["forced"] = list(forced)
    if runs:
        summary["provenance"]["runs"] = list(runs)
        summary["warnings"].append(
            "What is compared here was chosen when runs with results were compared: only what each run declared itself "
            "was declared before."
        )
    summary["warnings"] += _of_chance(summary["generators"])
    write_json(folder.summary, summary)
    return summary


def read(folder: RunFolder) -> dict[str, Any] | None:
    """Return a run's summary, or None where there is none (or none that is whole)."""
    try:
        summary = json.loads(folder.summary.read_text())
    except (OSError, ValueError):
        return None
    return summary if isinstance(summary, dict) else None


def read_finished(folder: RunFolder) -> dict[str, Any]:
    """Return the summary of a run that is aggregated by this version.

    Raises:
        ArtifactError: if there is none, or another version wrote it.
    """
    summary = read(folder)
    if summary is None:
        raise ArtifactError(f"{folder.summary}: missing or broken; run `aggregate`, or the whole experiment, first")
    check_version(folder.summary, summary, FORMAT_VERSION)
    return summary


def is_current(experiment: Experiment, folder: RunFolder) -> bool:
    """Say whether the summary was made from exactly what now lies in the run folder."""
    summary = read(folder)
    known = (summary or {}).get("provenance")
    if not all(table_file(folder.tables, name).exists() for name in aggregate.names(experiment)):
        return False
    return isinstance(known, dict) and known.get("fingerprint") == _state(experiment, folder)


def _state(experiment: Experiment, folder: RunFolder) -> str:
    stamps = {
        path.parent.relative_to(folder.root).as_posix(): _stamped(path)
        for below in ("arms/*/scores", "arms/*/clouds", "arms/*/explained", "visibility")
        for path in sorted(folder.root.glob(f"{below}/**/{STAMP}"))
    }
    return fingerprint([FORMAT_VERSION, aggregate.VERSION, experiment.model_dump(mode="json"), stamps])


def _stamped(path: Path) -> str | None:
    stamp = read_stamp(path)
    return stamp.fingerprint if stamp else None


def _whole(table: pd.DataFrame) -> list[dict[str, Any]]:
    chosen = table[(table["split"] == WHOLE) & (table["object"] == WHOLE)]
    return _records(chosen.drop(columns=["split", "object"]))


def _questioned(experiment: Experiment, table: pd.DataFrame) -> pd.DataFrame:
    pairs = set(experiment.questioned())
    return table[[pair in pairs for pair in zip(table["arm_a"], table["arm_b"], strict=True)]]


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            str(key): None if value is None or (isinstance(value, float) and not math.isfinite(value)) else value
            for key, value in row.items()
        }
        for row in table.to_dict("records")
    ]


def _counts(tables: Tables) -> list[dict[str, Any]]:
    names = {"failed": "views_failed", "without_grasps": "views_without_grasps"}
    return [{names.get(str(key), str(key)): value for key, value in row.items()} for row in _records(tables.counts)]


def _warnings(
    experiment: Experiment,
    folder: RunFolder,
    units: list[SceneUnit],
    tables: Tables,
    problems: list[dict[str, Any]],
) -> list[str]:
    warnings = [*declaration.changes(folder), *_of_seeds(experiment), *_of_differing(experiment)]
    scenes = len({unit.scene for unit in units})
    if scenes == 1:
        warnings.insert(0, "One scene: differences have no interval, and say nothing about other scenes.")
    elif scenes < FEW_SCENES:
        warnings.insert(
            0,
            f"Only {scenes} scenes: intervals are wide, rest on the t distribution, and cover less than they say where "
            "differences are skewed.",
        )
    by_arm = tables.counts.groupby("arm")[["failed", "views"]].sum()
    for arm_name, count, total in by_arm[by_arm["failed"] > 0].itertuples():
        warnings.append(
            f"{arm_name}: {count} of {total} views failed and count as zero; see the problems before its numbers."
        )
    for arm in experiment.arms:
        of_members = dict.fromkeys(caveat for member in arm.members() for caveat in caveats(member))
        warnings += [f"{arm.name}: {caveat}." for caveat in of_members]
    if problems:
        warnings.append(
            f"{len(problems)} problems are on record in problems.json. What failed in an arm counts as zero there; "
            "views that could not be observed are left out of every arm."
        )
    if "oracle" in set(tables.utility["arm"]) and "partial" in set(tables.utility["arm"]):
        whole = tables.utility[(tables.utility["split"] == WHOLE) & (tables.utility["object"] == WHOLE)]
        primary = whole[whole["metric"] == experiment.primary_metric].groupby("arm")["value"].mean()
        if primary["oracle"] < primary["partial"]:
            warnings.append(
                "The oracle is below the partial cloud: with this generator a perfect completion does not help."
            )
    return warnings


def _of_seeds(experiment: Experiment) -> list[str]:
    """Say where checkpoints are compared and not losses, and where seeds are few."""
    by_count = {arm.name: len(arm.members()) for arm in experiment.arms if arm.completion == "checkpoint"}
    single = [name for name, count in by_count.items() if count == 1]
    several = {count for count in by_count.values() if count > 1}
    sentences = []
    if single and not several:
        sentences.append(
            "One checkpoint a loss: this compares checkpoints, not losses; train more seeds to compare losses."
        )
    elif single:
        sentences.append(f"One checkpoint only of {', '.join(single)}: what is said of it holds for that checkpoint.")
    if several and min(several) < FEW_SEEDS:
        sentences.append(f"Only {min(several)} training seeds: intervals over seeds are wide and rest on few of them.")
    return sentences


def _of_chance(generators: Sequence[dict[str, Any]]) -> list[str]:
    """Say whose grasps may be others if they are made again."""
    says = {
        False: "says that the same input and seed may give other grasps",
        None: "does not say whether it is deterministic",
    }
    return [
        f"Generator {item['label']} {says[item['deterministic']]}: some of each difference may be its own chance, "
        "and made again, numbers may be others."
        for item in generators
        if item["deterministic"] is not True
    ]


def _of_differing(experiment: Experiment) -> list[str]:
    """Say which compared arms differ in more than what completes them."""
    arms = {arm.name: arm for arm in experiment.arms}
    sentences = []
    for a, b in experiment.questioned():
        one, other = arms[a], arms[b]
        if not (one.is_learned and other.is_learned):
            continue
        differing = [
            title
            for title, left, right in (
                ("where completion enters", experiment.entry_of(one), experiment.entry_of(other)),
                ("how predictions are merged", one.merge, other.merge),
            )
            if left != right
        ]
        if differing:
            sentences.append(f"{a} and {b} differ in more than what completes them: {' and '.join(differing)}.")
    return sentences


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"
