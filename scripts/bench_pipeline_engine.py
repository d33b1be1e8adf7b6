"""An engine that measures what each unit costs, a run's units carried out on it, and what processes use."""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline import score
from pipeline.config import Experiment
from pipeline.engines import CPU, Engine
from pipeline.experiment import UNIT_STAGES, plan_units
from pipeline.run_folder import RunFolder
from pipeline.run_progress import Progress
from pipeline.schedule import StageReport, carry_out
from pipeline.selection import SceneUnit
from pipeline.units import Order, Plan, Workshop, make_unit


@dataclass(frozen=True)
class Cost:
    """What one unit cost its worker.

    Attributes:
        stage, arm, label: which unit; ``visibility`` is told apart from ``explain``, of which it is a part.
        views: that it holds.
        wall, cpu: seconds, CPU of all of the worker's threads.
        process: the worker's.
        peak_mib: most memory (VmHWM) that the worker had used by then.
    """

    stage: str
    arm: str
    label: str
    views: int
    wall: float
    cpu: float
    process: int
    peak_mib: float


class MeasuringEngine:
    """Another engine, with the costs of the units that went through it; see :class:`pipeline.engines.Engine`."""

    def __init__(self, inner: Engine) -> None:
        self.inner, self.name = inner, inner.name
        self.costs: list[Cost] = []

    def groups(self) -> frozenset[str]:
        return self.inner.groups()

    def capacity(self, group: str) -> int:
        return self.inner.capacity(group)

    def submit(self, group: str, function: Callable[[Any], Any], argument: Any) -> Future[Any]:
        given: Future[Any] = Future()
        inner = self.inner.submit(group, measured, (function, argument))
        inner.add_done_callback(lambda done: self._pass_on(done, given, argument))
        return given

    def close(self, now: bool = False) -> None:
        self.inner.close(now)

    def _pass_on(self, done: Future[Any], given: Future[Any], argument: Any) -> None:
        error = done.exception()
        if error is not None:
            given.set_exception(error)
            return
        value, wall, cpu, process, peak = done.result()
        if isinstance(argument, Order):
            plan = argument.plan
            stage = "visibility" if plan.label.startswith("visibility/") else plan.stage
            views = len(plan.job.unit.views) if hasattr(plan.job, "unit") else 0
            self.costs.append(Cost(stage, plan.arm, plan.label, views, wall, cpu, process, peak))
        given.set_result(value)


def measured(argument: tuple[Callable[[Any], Any], Any]) -> tuple[Any, float, float, int, float]:
    """Call a function in a worker; its value, wall and CPU seconds, and the process with its peak memory in MiB."""
    function, given = argument
    wall, cpu = time.perf_counter(), time.process_time()
    value = function(given)
    return value, time.perf_counter() - wall, time.process_time() - cpu, os.getpid(), peak_mib()


def peak_mib() -> float:
    """Return the most memory that this process has used, MiB (VmHWM: a child begins with its own)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


@dataclass(frozen=True)
class Carried:
    """How a run's units were carried out.

    Attributes:
        reports: of the stages.
        plans: how many units.
        planning, preparing, working: wall seconds: before the first unit, of reading models, and of the schedule.
        planning_cpu, working_cpu: CPU seconds of this process, the driver.
        planning_mib: the driver's peak memory when all was planned.
    """

    reports: list[StageReport]
    plans: int
    planning: float
    preparing: float
    working: float
    planning_cpu: float
    working_cpu: float
    planning_mib: float


def carry(
    experiment: Experiment,
    folder: RunFolder,
    units: list[SceneUnit],
    engine: Engine,
    *,
    stages: tuple[str, ...] = UNIT_STAGES,
    change: Callable[[Plan], Plan] | None = None,
) -> Carried:
    """Plan the units of some stages and carry them out as ``grasp-utility run`` does.

    Args:
        experiment, folder, units: what, where, of which scenes.
        engine: started, and left running.
        stages: which.
        change: is given every plan before it is carried out.

    Raises:
        RuntimeError: if a unit failed: figures of a run that did less than was asked mean nothing.
    """
    folder.root.mkdir(parents=True, exist_ok=True)
    clock, cpu = [time.perf_counter()], [time.process_time()]
    plans: Sequence[Plan] = plan_units(experiment, folder, units, stages=stages)
    clock.append(time.perf_counter())
    cpu.append(time.process_time())
    planned = peak_mib()
    with contextlib.redirect_stderr(io.StringIO()):  # of progress bars
        if "score" in stages and change is None:
            score.prepare_models(plans, engine)
        if change is not None:
            plans = [change(plan) for plan in plans]
        clock.append(time.perf_counter())
        cpu.append(time.process_time())
        reports = carry_out(
            plans,
            engine,
            Workshop(folder.work),
            stages=stages,
            retries=0,
            progress=Progress(folder.progress_of(None), engine.name),
            say=lambda _: None,
        )
        clock.append(time.perf_counter())
        cpu.append(time.process_time())
    failed = [outcome for report in reports for outcome in report.failures]
    if failed:
        raise RuntimeError(f"{len(failed)} units failed; the first, {failed[0].label}: {failed[0].error}")
    return Carried(
        reports,
        len(plans),
        planning=clock[1] - clock[0],
        preparing=clock[2] - clock[1],
        working=clock[3] - clock[2],
        planning_cpu=cpu[1] - cpu[0],
        working_cpu=cpu[3] - cpu[2],
        planning_mib=planned,
    )


def nothing(job: Any) -> list[dict[str, Any]]:
    """A unit that does almost nothing: one small file."""
    (job.out / "0000.npy").write_bytes(b"nothing")
    return []


def emptied(plan: Plan) -> Plan:
    """The same unit, with nothing to do."""
    return replace(plan, function=nothing)


@dataclass(frozen=True)
class Warmed:
    """CPU seconds of a worker: what it spent on some units, and all since it was started, imports included."""

    spent: float
    since_start: float


def warm(engine: Engine, plans: Callable[[int], Sequence[Plan]], folder: Path) -> list[Warmed]:
    """Have every worker of an engine make units at the same time, so that each has read and compiled what it needs.

    Args:
        engine: with idle workers.
        plans: gives a worker's units by its number, in an order in which they can be made.
        folder: for units in the making.

    Raises:
        RuntimeError: if a unit failed.
    """
    orders = []
    for worker in range(engine.capacity(CPU)):
        workshop = Workshop(folder / f".work-{worker}")
        orders.append([Order(replace(plan, needs=(), wants=()), workshop) for plan in plans(worker)])
    return [future.result() for future in [engine.submit(CPU, _make_all, some) for some in orders]]


def _make_all(orders: Sequence[Order]) -> Warmed:
    before = time.process_time()
    for order in orders:
        made = make_unit(order)
        if made.error is not None:
            raise RuntimeError(f"{order.plan.label}: {made.error}")
    return Warmed(time.process_time() - before, time.process_time())
