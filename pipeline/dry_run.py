"""What a run would make, and why: planned as for a run, with nothing written anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import ConfigError, Experiment
from pipeline.engine_options import Execution
from pipeline.experiment import STAGES, UNIT_STAGES, ArmError, check_parts, plan_units
from pipeline.failures import read_failure
from pipeline.run_folder import RunFolder
from pipeline.selection import select
from pipeline.units import Plan

if TYPE_CHECKING:
    from pipeline.store import Store

FAILED_BEFORE = "not made yet: it failed the last time"


@dataclass(frozen=True)
class Unit:
    """A unit that a run would make, or cannot make.

    Attributes:
        stage, arm, label: which.
        reason: why it is stale, or why it cannot be made.
        stored: whether it lies in the store.
    """

    stage: str
    arm: str
    label: str
    reason: str
    stored: bool = False


@dataclass(frozen=True)
class Stale:
    """What a run would do.

    Attributes:
        folder: the run's.
        current: how many units are up to date, by stage and arm ('' where units are all arms'); every pair is there.
        stale: units that would be made, in the order of the stages.
        blocked: units that cannot be made.
        tables, report: whether they would be made; None where the run is not asked for them.
        store: the store that was looked into.
    """

    folder: RunFolder
    current: dict[tuple[str, str], int]
    stale: tuple[Unit, ...]
    blocked: tuple[Unit, ...]
    tables: bool | None
    report: bool | None
    store: Path | None


def stale_units(
    experiment: Experiment,
    folder: Path,
    told: Execution,
    stages: tuple[str, ...] | None,
    device: str,
    trust_code: bool,
    source: Path | None = None,
) -> Stale:
    """Plan a run and say what it would make.

    Args:
        experiment, folder, told, device, trust_code, source: as of :func:`pipeline.experiment.run_experiment`.
        stages: of these alone; None for all.

    Raises:
        ConfigError, DatasetError, CheckpointError, ScorerError, StoreError: what would make the run impossible, too.
    """
    run, stages = RunFolder(folder), stages or STAGES
    units = told.of_share(select(experiment))
    try:
        check_parts(experiment, device if told.engine == "local" else "cpu", stages, trust_code)
    except ArmError as error:
        raise ConfigError(f"{'' if source is None else f'{source}: '}{error}") from error
    of_units = tuple(stage for stage in stages if stage in UNIT_STAGES)
    # The device decides who completes, not what comes out.
    plans = plan_units(experiment, run, units, stages=of_units, device="cpu", trust_code=trust_code, remember=False)
    store = _store(told.store)
    current = dict.fromkeys(((plan.stage, plan.arm) for plan in plans), 0)
    stale, blocked = [], []
    for plan in plans:
        if plan.blocked is not None:
            blocked.append(Unit(plan.stage, plan.arm, plan.label, plan.blocked))
        elif (reason := plan.why_stale()) is None:
            current[plan.stage, plan.arm] += 1
        else:
            if not plan.stamp.exists() and read_failure(plan.folder) is not None:
                reason = FAILED_BEFORE
            stale.append(Unit(plan.stage, plan.arm, plan.label, reason, _is_stored(plan, store)))
    tables, report = None, None
    if told.share is None:
        tables, report = _tables_and_report(experiment, run, stages, bool(stale))
    return Stale(run, current, tuple(stale), tuple(blocked), tables, report, told.store)


def _store(root: Path | None) -> Store | None:
    from pipeline.store import MARK, find_store

    return None if root is None or not (root / MARK).exists() else find_store(root)  # a run would make it


def _is_stored(plan: Plan, store: Store | None) -> bool:
    return store is not None and store.entry(store.key(plan.made_from, plan.scene, plan.camera)).is_dir()


def _tables_and_report(
    experiment: Experiment, run: RunFolder, stages: tuple[str, ...], fresh: bool
) -> tuple[bool | None, bool | None]:
    """Say whether a run would make them; a run decides the same way once its units are made."""
    from pipeline import report, summary

    tables = None
    if "aggregate" in stages:
        tables = fresh or len(stages) == 1 or not summary.is_current(experiment, run)
    wanted = None
    if "report" in stages:
        wanted = bool(tables) or not report.is_current(run)
    return tables, wanted
