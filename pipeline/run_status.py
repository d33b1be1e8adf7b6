"""Where a run stands, told from its folder alone, on any machine that sees it; nothing is written.

Reads
    ``progress*.json`` (:mod:`pipeline.run_accounts`), ``experiment.json``, stamps, ``failure.json`` of units; where the
    dataset can be seen too, its files' sizes and times, to find out which units are stale.

Schema of ``status --json`` (``format_version`` 1)
--------------------------------------------------
``run, name``
    the folder, and the experiment's name (null before a run has written it).
``state, reason``
    of all processes together: ``working``, ``preparing``, ``stopping``, ``tables``, ``finished``, ``stopped`` (these as
    in :mod:`pipeline.run_progress`), ``seems dead``, or ``unknown`` where no process left an account.
``processes``
    list of ``{share, state, reason, host, process, engine, started, silent}``; ``silent``: seconds since the process
    was last heard of, by the reader's clock. Tasks of a job array that have not begun are absent; ``expected`` counts
    how many there are.
``units``
    list of ``{stage, arm, total, done, running, failed, waiting, stale}`` that sum up to ``total``; ``arm`` is '' where
    units are all arms'. ``stale``: made, but from something else than a run would make them from now; null with
    ``stale_unknown`` (why), where that cannot be told; then they count as ``done``. ``total`` and ``waiting`` are null
    where nobody knows how many there are.
``stages``
    list of ``{stage, a_minute, seconds}``: units of the last minutes, and the mean seconds of a unit; null: unknown.
``a_minute, workers, seconds_left``
    of all processes that live; ``seconds_left`` is a guess, tables aside, null where nothing is known.
``slowest, running``
    lists of ``{stage, unit, seconds, where}`` (``where`` null: unknown) and ``{stage, unit, since, seconds}``.
``failures``
    list of ``{stage, unit, reason, because_of, tries, where, when, log}``: those at fault first, then what needs them.
``remarks``
    objects and views that failed inside finished units; null with ``stale_unknown``.
``tables``
    whether ``summary.json`` is there.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.artifacts import ArtifactError, read_stamp
from pipeline.config import Experiment, load_experiment
from pipeline.experiment import UNIT_STAGES, plan_units, unit_bases
from pipeline.failures import Failure, read_failure
from pipeline.run_accounts import DEAD, PATIENCE, Account, read_accounts
from pipeline.run_folder import FAILURE, STAMP, RunFolder
from pipeline.run_progress import FINISHED, PREPARING, SLOWEST, STOPPED, STOPPING, TABLES, WORKING
from pipeline.selection import select
from pipeline.units import Plan

FORMAT_VERSION = 1
UNKNOWN = "unknown"
_WORST_FIRST = (WORKING, TABLES, PREPARING, STOPPING, DEAD, STOPPED, FINISHED)
_READERS, _PART = 16, 32  # a network file system answers many at once as fast as one


@dataclass
class Units:
    """How many units of one stage and arm are in which state; see the schema."""

    stage: str
    arm: str
    total: int | None = 0
    done: int = 0
    running: int = 0
    failed: int = 0
    waiting: int | None = 0
    stale: int | None = None


@dataclass(frozen=True)
class RunStatus:
    """See the schema; ``accounts`` are the processes, ``expected`` how many there should be."""

    folder: RunFolder
    name: str | None
    accounts: tuple[Account, ...]
    expected: int
    units: tuple[Units, ...]
    failures: tuple[Failure, ...]
    running: tuple[dict[str, Any], ...]
    slowest: tuple[dict[str, Any], ...]
    stale_unknown: str | None
    remarks: int | None

    @property
    def state(self) -> str:
        states = {account.state for account in self.accounts}
        return next((state for state in _WORST_FIRST if state in states), UNKNOWN)

    @property
    def alive(self) -> list[Account]:
        return [account for account in self.accounts if account.alive]

    def stages(self) -> list[dict[str, Any]]:
        """Return pace and mean seconds of a unit by stage."""
        pace, made, seconds = Counter[str](), Counter[str](), Counter[str]()
        for account in self.accounts:
            for stage, known in account.content["seconds"].items():
                made[stage] += known["made"]
                seconds[stage] += known["seconds"]
        for account in self.alive:
            for stage, count in account.content["lately"]["made"].items():
                pace[stage] += 60 * count / max(1.0, account.content["lately"]["seconds"])
        return [
            {
                "stage": stage,
                "a_minute": pace[stage] if self.alive else None,
                "seconds": seconds[stage] / made[stage] if made[stage] else None,
            }
            for stage in dict.fromkeys(row.stage for row in self.units)
        ]

    def workers(self) -> int:
        return sum(account.content["lately"]["workers"] for account in self.alive)

    def seconds_left(self) -> float | None:
        """Guess when the last of the processes will be through with its own units."""
        guesses = [account.content["seconds_left"] for account in self.alive]
        return max(guesses) if guesses and None not in guesses and len(self.accounts) == self.expected else None

    def content(self) -> dict[str, Any]:
        """Return all of it as the schema says."""
        failure_keys = ("stage", "unit", "reason", "because_of", "tries", "where", "when")
        return {
            "format_version": FORMAT_VERSION,
            "run": str(self.folder.root),
            "name": self.name,
            "state": self.state,
            "reason": next((a.content["reason"] for a in self.accounts if a.state == self.state), None),
            "processes": [
                {
                    **{key: a.content[key] for key in ("share", "reason", "host", "process", "engine", "started")},
                    "state": a.state,
                    "silent": round(a.silent, 1),
                }
                for a in self.accounts
            ],
            "expected": self.expected,
            "units": [asdict(row) for row in self.units],
            "stale_unknown": self.stale_unknown,
            "stages": self.stages(),
            "a_minute": sum(row["a_minute"] for row in self.stages()) if self.alive else None,
            "workers": self.workers(),
            "seconds_left": self.seconds_left(),
            "slowest": list(self.slowest),
            "running": list(self.running),
            "failures": [
                {**{key: getattr(failure, key) for key in failure_keys}, "log": str(failure.log)}
                for failure in self.failures
            ],
            "remarks": self.remarks,
            "tables": self.folder.summary.is_file(),
        }


def read_status(path: Path, *, quick: bool = False, trust_code: bool = False, patience: float = PATIENCE) -> RunStatus:
    """Find out where a run stands.

    Args:
        path: the run folder.
        quick: do not look at the dataset; stale units then count as done.
        trust_code: whether a checkpoint may name code that is then imported, to tell whether its units are stale.
        patience: seconds to watch the file of a process that may be dead.

    Raises:
        ArtifactError: it is no run folder, or of another version's format.
    """
    folder = RunFolder(path)
    if folder.sources_file.exists():
        raise ArtifactError(f"{path}: a comparison of runs, which has no units; give one of the runs it compares")
    accounts = read_accounts(folder, patience)
    experiment = _experiment(folder)
    if experiment is None and not accounts:
        raise ArtifactError(
            f"{path}: no run folder, for it has neither {folder.experiment_file.name} nor "
            f"{folder.progress_of(None).name}; give what `--out` named"
        )
    plans, unknown = _plans(experiment, folder, quick, trust_code)
    if plans is None:
        units, failed = _as_told(experiment, folder, accounts)
        seen = _Seen()
    else:
        units, failed, seen = _as_planned(plans, accounts)
    failures = sorted(failed, key=lambda failure: failure.because_of is not None)
    told = [entry for account in accounts for entry in account.content["slowest"]]
    slowest = sorted(told or seen.slowest, key=lambda entry: -entry["seconds"])[:SLOWEST]
    return RunStatus(
        folder,
        None if experiment is None else experiment.name,
        tuple(accounts),
        max(1, accounts[0].parts) if accounts else 0,
        tuple(units),
        tuple(failures),
        tuple(_running(accounts, seen)),
        tuple(slowest),
        unknown,
        None if plans is None else seen.remarks,
    )


def _running(accounts: list[Account], seen: _Seen) -> list[dict[str, Any]]:
    """List the units in work, the longest first, without those that have been finished since it was told."""
    rows = [
        {**entry, "seconds": account.age(entry["since"])}
        for account in accounts
        if account.alive
        for entry in account.content["running"]
        if (entry["stage"], entry["unit"]) not in seen.finished
    ]
    return sorted(rows, key=lambda row: -row["seconds"])


def _experiment(folder: RunFolder) -> Experiment | None:
    if not folder.experiment_file.is_file():
        return None
    try:
        return load_experiment(folder.experiment_file)
    except ValueError as error:
        raise ArtifactError(f"{error}; look with the version that the run was made with") from None


def _plans(
    experiment: Experiment | None, folder: RunFolder, quick: bool, trust_code: bool
) -> tuple[list[Plan] | None, str | None]:
    """Plan the run's units, or say why that cannot be done here."""
    if quick:
        return None, "the dataset was not looked at (--quick)"
    if experiment is None or not folder.hashes.exists():
        return None, "the run has not planned its units yet"  # and to hash a dataset is not what one asks for here
    try:
        units = select(experiment)
        return plan_units(experiment, folder, units, remember=False, trust_code=trust_code), None
    except (ValueError, OSError, ImportError) as error:
        return None, " ".join(str(error).split())


@dataclass
class _Seen:
    """What stamps say beside whether units are current."""

    slowest: list[dict[str, Any]] = field(default_factory=list)
    finished: set[tuple[str, str]] = field(default_factory=set)
    remarks: int = 0


def _as_planned(plans: list[Plan], accounts: list[Account]) -> tuple[list[Units], list[Failure], _Seen]:
    """Count units by what lies in their folders now, held against what would be made."""
    rows: dict[tuple[str, str], Units] = {}
    running = {(e["stage"], e["unit"]) for a in accounts if a.alive for e in a.content["running"]}
    failures: list[Failure] = []
    seen, times = _Seen(), []
    with ThreadPoolExecutor(_READERS) as pool:
        parts = pool.map(
            lambda first: [_look(plan) for plan in plans[first : first + _PART]], range(0, len(plans), _PART)
        )
        found = dict(zip((plan.folder for plan in plans), (look for part in parts for look in part), strict=True))
    for plan in plans:
        row = rows.setdefault((plan.stage, plan.arm), Units(plan.stage, plan.arm, stale=0))
        assert row.total is not None and row.waiting is not None and row.stale is not None
        row.total += 1
        made = found[plan.folder]
        current = False
        if isinstance(made, Failure):
            failures.append(made)
        elif made is not None:
            made_from, seconds, remarks = made
            current = made_from in _fingerprints(plan, found)
            seen.remarks += remarks
            times.append((seconds, plan))
        if (plan.stage, plan.label) in running and not current:
            row.running += 1
        elif isinstance(made, Failure):
            row.failed += 1
        elif made is None:
            row.waiting += 1
        elif current:
            row.done += 1
            seen.finished.add((plan.stage, plan.label))
        else:
            row.stale += 1
    slowest = sorted(times, key=lambda entry: -entry[0])[:SLOWEST]
    seen.slowest = [{"stage": p.stage, "unit": p.label, "seconds": s, "where": None} for s, p in slowest]
    return list(rows.values()), failures, seen


def _look(plan: Plan) -> tuple[str, float, int] | Failure | None:
    """Return fingerprint, seconds and number of problems of a finished unit, or its failure, or None without either."""
    stamp = read_stamp(plan.stamp)
    if stamp is not None:
        return stamp.fingerprint, stamp.seconds, len(stamp.problems)
    return read_failure(plan.folder)


def _fingerprints(plan: Plan, found: dict[Path, Any]) -> tuple[str, ...]:
    """Return what a current unit may be made from: without what it wants, too, where that failed."""
    if plan.blocked is not None:
        return ()
    if any(isinstance(found.get(want.folder), Failure) for want in plan.wants):
        return plan.fingerprint, plan.lacking_what_it_wants().fingerprint
    return (plan.fingerprint,)


def _as_told(
    experiment: Experiment | None, folder: RunFolder, accounts: list[Account]
) -> tuple[list[Units], list[Failure]]:
    """Count units as those who made them say; what they do not speak of, by the stamps and failures that lie there."""
    rows: dict[tuple[str, str], Units] = {}
    complete = bool(accounts) and len(accounts) == max(1, accounts[0].parts)
    told: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for account in accounts:
        for entry in account.content["units"]:
            numbers = {key: entry[key] for key in ("total", "current", "made", "failed")}
            told[entry["stage"], entry["arm"]].update(numbers | {"running": entry["running"] if account.alive else 0})
    failures: list[Failure] = []
    bases = [] if experiment is None else unit_bases(experiment, folder)
    for stage, arm, base in bases:
        done, failed = _count(base)
        failures += failed
        row = rows.setdefault((stage, arm), Units(stage, arm, total=None, waiting=None))
        row.done, row.failed = row.done + done, row.failed + len(failed)
    for key, number in told.items():
        row = rows.setdefault(key, Units(*key, total=None, waiting=None))
        row.running = number["running"]
        if complete:
            row.total, row.done, row.failed = number["total"], number["current"] + number["made"], number["failed"]
            row.waiting = max(0, row.total - row.done - row.failed - row.running)
    order = {stage: place for place, stage in enumerate(UNIT_STAGES)}
    return sorted(rows.values(), key=lambda row: order.get(row.stage, len(order))), failures


def _count(base: Path) -> tuple[int, list[Failure]]:
    """Count the finished units below a folder, and read the failed ones."""
    done, failures = 0, []
    for scene in _folders(base):
        if scene.name.startswith("scene_"):
            for unit in _folders(scene):
                if (unit / STAMP).exists():
                    done += 1
                elif (unit / FAILURE).exists() and (failure := read_failure(unit)) is not None:
                    failures.append(failure)
    return done, failures


def _folders(base: Path) -> list[Path]:
    try:
        with os.scandir(base) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir())
    except OSError:
        return []
