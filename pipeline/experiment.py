"""A run: names every path on top, then calls the stages in order."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifacts import read_stamp, run_lock, write_json
from pipeline.config import ConfigError, Experiment
from pipeline.run_folder import FAILURE, STAMP, RunFolder, StageReport, unit_folder
from pipeline.selection import SceneUnit, select

STAGES = ("observe", "complete", "generate", "score", "explain", "aggregate", "report")


class ArmError(ValueError):
    """An arm that cannot be had; the message names it."""


@dataclass(frozen=True)
class RunResult:
    """What a run did.

    Attributes:
        folder: where everything lies.
        stages: what each stage made, found current or failed at.
        problems: rows ``{stage, unit, view, object, reason}`` of all that failed, in this run or one before.
    """

    folder: RunFolder
    stages: tuple[StageReport, ...]
    problems: tuple[dict[str, Any], ...]


def run_experiment(
    experiment: Experiment,
    out: Path,
    *,
    device: str,
    workers: int,
    stages: tuple[str, ...] = STAGES,
    say: Callable[[str], None],
    trust_code: bool = False,
    source: Path | None = None,
) -> RunResult:
    """Carry out an experiment, or the named stages of it.

    Args:
        experiment: what to compare.
        out: the run folder; what is finished and current in it is left alone.
        device: ``auto``, ``cpu`` or ``cuda``.
        workers: processes.
        stages: in the order of :data:`STAGES`.
        say: is told one line at a time what goes on.
        trust_code: whether a checkpoint may name code (``module:Class``) that is then imported and run. Never read
            from the experiment file: it is not the file's to say.
        source: the experiment file, for messages.

    Raises:
        ConfigError, DatasetError, CheckpointError, ScorerError, ArtifactError: for what makes the whole run impossible.
    """
    from pipeline import aggregate, complete, explain, generate, observe, report, score, summary

    folder = RunFolder(out)
    units = select(experiment)
    _writable(experiment.cache_folder())
    try:
        _check_parts(experiment, device, stages, trust_code)
    except ArmError as error:
        raise ConfigError(f"{'' if source is None else f'{source}: '}{error}") from error
    reports: list[StageReport] = []
    with run_lock(out):
        _record(experiment, folder)
        if "observe" in stages:
            reports.append(observe.run(experiment, folder, units, workers=workers))
            say(_line(reports[-1]))
        if "complete" in stages:
            for arm in experiment.members():
                for caveat in complete.caveats(arm):
                    say(f"note       {arm.name}: {caveat}")
            reports.append(complete.run(experiment, folder, units, device=device, trust_code=trust_code))
            say(_line(reports[-1]))
        if "generate" in stages:
            reports.append(generate.run(experiment, folder, units, workers=workers))
            say(_line(reports[-1]))
        if "score" in stages:
            reports.append(score.run(experiment, folder, units, workers=workers))
            say(_line(reports[-1]))
        if "explain" in stages:
            reports.append(explain.run(experiment, folder, units, workers=workers))
            say(_line(reports[-1]))
        problems = collect_problems(experiment, folder, units)
        write_json(folder.problems, problems)
        fresh = any(report.made for report in reports)
        if "aggregate" in stages and (fresh or not summary.is_current(experiment, folder) or len(stages) == 1):
            start = time.perf_counter()
            tables = aggregate.run(experiment, folder, units)
            seconds = time.perf_counter() - start
            summary.write(experiment, folder, units, tables, problems, seconds=seconds)
            say(f"aggregate  tables in {folder.tables}")
        if "report" in stages and not report.is_current(folder):
            report.run(experiment, folder)
            say(f"report     {folder.report}")
        elif stages == ("report",):
            say(f"report     up to date: {folder.report}")
    return RunResult(folder, tuple(reports), tuple(problems))


def _writable(cache: Path) -> None:
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{cache}: cannot be the cache folder ({error.strerror}); choose another --cache") from None


def _check_parts(experiment: Experiment, device: str, stages: tuple[str, ...], trust_code: bool) -> None:
    """Find out before the work begins whether every arm, generator and scorer can be had."""
    from grasping.generators import make_generator
    from pipeline.complete import describe_arm
    from pipeline.scorers import check_available

    for arm in experiment.members() if "complete" in stages else ():
        try:
            _, load = describe_arm(arm, device, trust_code)
            if load is not None:
                load()
        except ValueError as error:
            raise ArmError(f"arm {arm.name!r}: {error}") from error
    for scorer in experiment.scorers if "score" in stages else ():
        check_available(scorer)
    for generator in experiment.generators:
        make_generator(generator.name, **generator.parameters)


def _record(experiment: Experiment, folder: RunFolder) -> None:
    from pipeline import declaration

    write_json(folder.experiment_file, experiment.model_dump(mode="json"))
    declaration.record(experiment, folder)


def _line(report: StageReport) -> str:
    parts = [f"{report.made} made" if report.made else "", f"{report.current} up to date" if report.current else ""]
    parts.append(f"{len(report.failures)} FAILED" if report.failures else "")
    return f"{report.stage:<10} {', '.join(part for part in parts if part) or 'nothing to do'}"


def collect_problems(experiment: Experiment, folder: RunFolder, units: list[SceneUnit]) -> list[dict[str, Any]]:
    """List what failed in the experiment's units, in this run or one before: whole units, and rows inside others."""
    problems: list[dict[str, Any]] = []
    for base in _unit_bases(experiment, folder):
        for unit in units:
            path = unit_folder(base, unit.scene, unit.camera)
            stamp = read_stamp(path / STAMP)
            name = path.relative_to(folder.root).as_posix()
            if stamp is not None:
                problems += [{"stage": stamp.made_from.get("stage"), "unit": name, **row} for row in stamp.problems]
            elif (path / FAILURE).exists():
                failure = json.loads((path / FAILURE).read_text())
                problems.append({**failure, "unit": name, "view": None, "object": None})
    return problems


def _unit_bases(experiment: Experiment, folder: RunFolder) -> list[Path]:
    """Return the folders below which the stages' units lie, in the order of the stages."""
    arms = [arm.name for arm in experiment.members()]
    generators = [generator.label for generator in experiment.generators]
    return [
        folder.observations,
        *(folder.clouds(arm) for arm in arms),
        *(folder.dump(arm, generator) for arm in arms for generator in generators),
        *(
            folder.scores(arm, generator, scorer)
            for arm in arms
            for generator in generators
            for scorer in experiment.scorers
        ),
        folder.visibility,
        *(folder.explained(arm, generator) for arm in arms for generator in generators),
    ]
