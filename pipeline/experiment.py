"""A run: names every path on top, then calls the stages in order."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifacts import FileHashes, read_stamp, run_lock, write_json
from pipeline.config import ConfigError, Experiment
from pipeline.engine_options import Execution, device_of, make_engine
from pipeline.failures import read_failure
from pipeline.run_folder import STAMP, RunFolder, unit_folder
from pipeline.run_progress import TABLES, Progress
from pipeline.schedule import StageReport, carry_out
from pipeline.selection import SceneUnit, select
from pipeline.units import Known, Plan, clear, open_workshop

UNIT_STAGES = ("observe", "complete", "generate", "score", "explain")
STAGES = (*UNIT_STAGES, "aggregate", "report")


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
    workers: int = 0,
    execution: Execution | None = None,
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
        workers: processes on this machine; 0 makes every unit in this one.
        execution: how else to carry it out; ``workers`` is then of no account.
        stages: in the order of :data:`STAGES`.
        say: is told one line at a time what goes on.
        trust_code: whether a checkpoint may name code (``module:Class``) that is then imported and run. Never read
            from the experiment file: it is not the file's to say.
        source: the experiment file, for messages.

    Raises:
        ConfigError, DatasetError, CheckpointError, ScorerError, ArtifactError, EngineError, StoreError: for what makes
            the whole run impossible.
    """
    from pipeline import aggregate, report, summary

    execution = execution or Execution(workers=workers)
    folder, units = RunFolder(out), select(experiment)
    shared = execution.of_share(units)
    _writable(experiment.cache_folder())
    try:
        # The machine that hands out the work need not have the GPUs of those that do it.
        check_parts(experiment, device if execution.engine == "local" else "cpu", stages, trust_code)
    except ArmError as error:
        raise ConfigError(f"{'' if source is None else f'{source}: '}{error}") from error
    share = None if execution.share is None else "{}/{}".format(*execution.share)
    of_units = tuple(stage for stage in stages if stage in UNIT_STAGES)
    progress = Progress(folder.progress_of(share) if of_units else None, execution.engine, share)
    with run_lock(out, execution.share), progress.kept_up():
        if execution.share is None:
            clear(folder.work)  # left over by what was killed
        reports = _carry_out_units(
            experiment, folder, shared, execution, device, of_units, progress, say=say, trust_code=trust_code
        )
        if execution.share is None:
            clear(folder.work)  # left over by workers that died meanwhile
        else:
            problems = collect_problems(experiment, folder, shared)
            return RunResult(folder, tuple(reports), tuple(problems))
        progress.enter(TABLES)
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


def _carry_out_units(
    experiment: Experiment,
    folder: RunFolder,
    units: list[SceneUnit],
    execution: Execution,
    device: str,
    stages: tuple[str, ...],
    progress: Progress,
    *,
    say: Callable[[str], None],
    trust_code: bool,
) -> list[StageReport]:
    """Make what stages before ``aggregate`` lack, and say what each has done."""
    from pipeline import arm_completion, score

    if not stages:
        _record(experiment, folder)
        return []
    if execution.store is not None:
        from pipeline.store import open_store

        open_store(execution.store).register(folder.root)
    device = device if {"complete", "generate"} & set(stages) else "cpu"
    engine = make_engine(execution, folder.root, device, say)
    try:
        device = device if device == "cpu" else device_of(engine, device)
        _record(experiment, folder)
        if "complete" in stages:
            for arm in experiment.members():
                for caveat in arm_completion.caveats(arm):
                    say(f"note       {arm.name}: {caveat}")
        plans = plan_units(experiment, folder, units, stages=stages, device=device, trust_code=trust_code)
        if "score" in stages:
            score.prepare_models(plans, engine)
        reports = carry_out(
            plans,
            engine,
            open_workshop(folder.work, execution.store, execution.packed),
            stages=stages,
            retries=execution.retries,
            progress=progress,
            say=say,
        )
    except BaseException:
        engine.close(now=True)
        raise
    engine.close()
    for stage in reports:
        say(_line(stage))
    return reports


def plan_units(
    experiment: Experiment,
    folder: RunFolder,
    units: list[SceneUnit],
    *,
    stages: tuple[str, ...] = UNIT_STAGES,
    device: str = "cpu",
    trust_code: bool = False,
    remember: bool = True,
) -> list[Plan]:
    """Plan every unit of some stages, before anything that they read is made.

    Args:
        experiment, folder, units: what, where, of which scenes.
        stages: of :data:`UNIT_STAGES`; what others make is taken as it lies in the run folder.
        device, trust_code: see :func:`run_experiment`.
        remember: whether the hashes of files that were read may be written into the run folder.
    """
    from pipeline import complete, explain, generate, observe, score

    hashes, known = FileHashes(folder.hashes), Known()
    planners: dict[str, Callable[[], list[Plan]]] = {
        "observe": lambda: observe.plans(experiment, folder, units, hashes),
        "complete": lambda: complete.plans(
            experiment, folder, units, hashes, known, device=device, trust_code=trust_code
        ),
        "generate": lambda: generate.plans(experiment, folder, units, hashes, known, device=device),
        "score": lambda: score.plans(experiment, folder, units, hashes, known),
        "explain": lambda: explain.plans(experiment, folder, units, hashes, known),
    }
    plans: list[Plan] = []
    for stage in stages:
        made = planners[stage]()
        known.add(made)
        plans += made
    if remember:
        hashes.save()
    return plans


def _writable(cache: Path) -> None:
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{cache}: cannot be the cache folder ({error.strerror}); choose another --cache") from None


def check_parts(experiment: Experiment, device: str, stages: tuple[str, ...], trust_code: bool) -> None:
    """Find out before the work begins whether every arm, generator and scorer can be had.

    Raises:
        ArmError, ScorerError, ValueError: one cannot.
    """
    from pipeline import generators
    from pipeline.arm_completion import describe_arm
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
        for arm in experiment.members():
            made = generators.make(generator, arm.name)
            if generator.command is not None and "generate" in stages:
                made.check()


def _record(experiment: Experiment, folder: RunFolder) -> None:
    from pipeline import declaration

    write_json(folder.experiment_file, experiment.model_dump(mode="json"))
    declaration.record(experiment, folder)


def _line(report: StageReport) -> str:
    stored = f" ({report.stored} from the store)" if report.stored else ""
    parts = [
        f"{report.made} made{stored}" if report.made else "",
        f"{report.current} up to date" if report.current else "",
    ]
    parts.append(f"{len(report.failures)} FAILED" if report.failures else "")
    return f"{report.stage:<10} {', '.join(part for part in parts if part) or 'nothing to do'}"


def collect_problems(experiment: Experiment, folder: RunFolder, units: list[SceneUnit]) -> list[dict[str, Any]]:
    """List what failed in the experiment's units, in this run or one before: whole units, and rows inside others."""
    problems: list[dict[str, Any]] = []
    for stage, arm, base in unit_bases(experiment, folder):
        for unit in units:
            path = unit_folder(base, unit.scene, unit.camera)
            stamp = read_stamp(path / STAMP)
            name = path.relative_to(folder.root).as_posix()
            if stamp is not None and (stage, arm) == ("generate", ""):
                continue  # of a view in which nothing can be proposed each arm has the reason
            if stamp is not None:
                problems += [{"stage": stamp.made_from.get("stage"), "unit": name, **row} for row in stamp.problems]
            elif (failure := read_failure(path)) is not None:
                problems.append({**failure.row(), "unit": name, "view": None, "object": None})
    return problems


def _proposals(experiment: Experiment, folder: RunFolder) -> list[Path]:
    """Return where proposals lie that arms may take: most runs have none."""
    from pipeline.generators import may_share_proposals, proposals_name

    if not folder.proposals.is_dir():
        return []
    chosen = (generator for generator in experiment.generators if may_share_proposals(experiment, generator))
    paths = dict.fromkeys(folder.proposals / proposals_name(generator) for generator in chosen)
    return [path for path in paths if path.is_dir()]


def unit_bases(experiment: Experiment, folder: RunFolder) -> list[tuple[str, str, Path]]:
    """Return stage, arm ('' for all arms') and folder below which its units lie, in the order of the stages."""
    arms = [arm.name for arm in experiment.members()]
    generators = [generator.label for generator in experiment.generators]
    return [
        ("observe", "", folder.observations),
        *(("complete", arm, folder.clouds(arm)) for arm in arms),
        *(("generate", "", path) for path in _proposals(experiment, folder)),
        *(("generate", arm, folder.dump(arm, generator)) for arm in arms for generator in generators),
        *(
            ("score", arm, folder.scores(arm, generator, scorer))
            for arm in arms
            for generator in generators
            for scorer in experiment.scorers
        ),
        ("explain", "", folder.visibility),
        *(("explain", arm, folder.explained(arm, generator)) for arm in arms for generator in generators),
    ]
