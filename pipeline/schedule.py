"""Carries a run's units out: each as soon as what it reads is finished, the stages streaming past one another.

Nothing is lost here: a unit that fails is tried again as often as asked, then recorded, and what depends on it with it;
a unit at which workers die twice is left alone; what does not depend on either goes on. Where a unit runs is the
engine's business (:mod:`pipeline.engines`), how it is made :func:`pipeline.units.make_unit`'s.
"""

from __future__ import annotations

import heapq
import sys
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue

from tqdm import tqdm

from pipeline.artifacts import ArtifactError, read_stamp
from pipeline.engines import CPU, GPU, Engine, EngineError, WorkerDied
from pipeline.engines.batch import Outcome
from pipeline.failures import Failure, record_failure
from pipeline.progress import UnitsBar
from pipeline.run_folder import STAMP
from pipeline.run_progress import EVERY, STOPPED, STOPPING, WORKING, Progress, ending
from pipeline.units import Made, Order, Plan, Workshop, make_unit

DEATHS = 2
"""Workers that a unit may take with it before it is left alone."""


@dataclass(frozen=True)
class StageReport:
    """What a stage did.

    Attributes:
        stage: its name.
        made: units made now.
        current: units that were finished and up to date.
        stored: of those made now, how many came out of the store.
        failures: units that failed, with the reason.
        stale: why each unit was made, by label.
    """

    stage: str
    made: int = 0
    current: int = 0
    stored: int = 0
    failures: tuple[Outcome, ...] = ()
    stale: dict[str, str] = field(default_factory=dict)


def carry_out(
    plans: Sequence[Plan],
    engine: Engine,
    workshop: Workshop,
    *,
    stages: Sequence[str],
    retries: int,
    progress: Progress,
    say: Callable[[str], None],
) -> list[StageReport]:
    """Make every unit that is not finished or is stale, and leave the others alone.

    Args:
        plans: all units, those that others need before them.
        engine: where they run.
        workshop: how they are made.
        stages: for the reports, in this order.
        retries: further tries at a unit that fails.
        progress: is told what happens.
        say: is told what a person should know at once.

    Returns:
        One report a stage.

    Raises:
        ArtifactError: the disk is full, or nothing can be written.
        EngineError: the engine is lost.
        KeyboardInterrupt: after the units in progress are finished (or dropped, at a second Ctrl-C).
    """
    schedule = _Schedule(plans, engine, workshop, retries, progress, say)
    try:
        schedule.run()
    except KeyboardInterrupt:
        schedule.stop()
        raise
    except BaseException as error:
        progress.finish(STOPPED, ending(error))
        raise
    progress.write(at_once=True)
    return [schedule.report(stage) for stage in stages]


class _Schedule:
    def __init__(
        self,
        plans: Sequence[Plan],
        engine: Engine,
        workshop: Workshop,
        retries: int,
        progress: Progress,
        say: Callable[[str], None],
    ) -> None:
        self.engine, self.workshop, self.retries, self.progress, self.say = engine, workshop, retries, progress, say
        self.plans = {plan.folder: plan for plan in plans}
        self.stale: dict[Path, str] = {}
        self.failures: dict[Path, Outcome] = {}
        self.made: set[Path] = set()
        self.stored: set[Path] = set()
        self.sound: dict[Path, bool] = {}  # of what was asked for, or made now
        self.tries: dict[Path, int] = {}
        self.deaths: dict[Path, int] = {}
        self.open: dict[Path, int] = {}  # folder -> how many units it still waits for
        self.dependents: dict[Path, list[Path]] = {}
        self.in_flight: dict[Future[Made], Path] = {}
        self.done: SimpleQueue[Future[Made]] = SimpleQueue()
        self.said: set[str] = set()
        self.no_room: str | None = None
        # Scene by scene, so that results come early and what is read again is still in memory.
        scenes = {key: place for place, key in enumerate(dict.fromkeys((p.camera, p.scene) for p in plans))}
        stages = {stage: place for place, stage in enumerate(dict.fromkeys(plan.stage for plan in plans))}
        self.rank = {
            plan.folder: (scenes[plan.camera, plan.scene], stages[plan.stage], place)
            for place, plan in enumerate(plans)
        }
        feeds_gpu = {need.folder for plan in plans if plan.group == GPU for need in plan.needs}
        self.queue_of = {plan.folder: "feed" if plan.folder in feeds_gpu else plan.group for plan in plans}
        self.ready: dict[str, list[tuple[tuple[int, int, int], Path]]] = {CPU: [], GPU: [], "feed": []}
        self._sort_out()

    def _sort_out(self) -> None:
        """Part the units into what is current, what cannot be made, what is ready and what waits."""
        self.progress.expect(self.plans.values())
        for folder, plan in self.plans.items():
            if plan.blocked is None and (reason := plan.why_stale()) is not None:
                self.stale[folder] = reason
        for folder, plan in self.plans.items():
            if plan.blocked is not None:
                self._fail(folder, plan.blocked)
                continue
            waits = {need.folder for need in (*plan.needs, *plan.wants) if need.folder in self.stale}
            for other in waits:  # also of what is current: it must not stay so if what it was made from fails now
                self.dependents.setdefault(other, []).append(folder)
            if folder not in self.stale:
                self.progress.current(plan)
            elif waits:
                self.open[folder] = len(waits)
            else:
                self._push(folder)

    def _push(self, folder: Path) -> None:
        heapq.heappush(self.ready[self.queue_of[folder]], (self.rank[folder], folder))

    def _next(self, group: str) -> Path | None:
        """Take the unit that a group should work on next: what the GPUs wait for, if they would be idle."""
        queues = [self.ready[group]]
        if group == CPU:
            queues.append(self.ready["feed"])
            if GPU in self.engine.groups():
                on_gpu = sum(self.plans[folder].group == GPU for folder in self.in_flight.values())
                if len(self.ready[GPU]) + on_gpu < 2 * self.engine.capacity(GPU):
                    queues = queues[::-1] if self.ready["feed"] else queues
                    queue = next((queue for queue in queues if queue), None)
                    return heapq.heappop(queue)[1] if queue else None
        filled = [queue for queue in queues if queue]
        return heapq.heappop(min(filled, key=lambda queue: queue[0]))[1] if filled else None

    def run(self) -> None:
        with UnitsBar() as bar:
            self.progress.enter(WORKING)
            while True:
                if self.no_room is None:
                    self._hand_out()
                done = len(self.made) + len(self.failures.keys() & self.stale.keys())  # looks through the fewer
                bar.show(done, len(self.stale), self.progress.in_short)
                self.progress.write()  # between units a worker has none, and would never be seen at work
                if not self.in_flight and (self.no_room is not None or not any(self.ready.values())):
                    break  # where units are ready and none is in flight, workers are yet to come
                for future in self._ended():
                    self._settle(future)
        if self.no_room is not None:
            raise ArtifactError(
                f"{self.no_room}; what is finished is kept: make room, and the same command goes on from there"
            )

    def _hand_out(self) -> None:
        for group in (GPU, CPU):
            if group not in self.engine.groups():
                continue
            busy = sum(self._group(folder) == group for folder in self.in_flight.values())
            while busy < self.engine.capacity(group) and (folder := self._next(group)) is not None:
                plan = self.plans[folder]
                self.progress.begun(plan)
                # What was there before can be seen from everywhere; what is new may come late.
                fresh = replace(
                    plan,
                    needs=tuple(need for need in plan.needs if need.folder in self.made),
                    wants=tuple(want for want in plan.wants if want.folder in self.made),
                )
                future = self.engine.submit(group, make_unit, Order(fresh, self.workshop, self._inherits(plan)))
                self.in_flight[future] = folder
                future.add_done_callback(self.done.put)
                busy += 1

    def _inherits(self, plan: Plan) -> bool:
        """Return whether something went wrong in what a unit reads, or in what that was made from."""
        for need in (*plan.needs, *plan.wants):
            if need.folder not in self.sound:
                stamp = read_stamp(need.folder / STAMP)
                self.sound[need.folder] = stamp is not None and stamp.is_sound
        return not all(self.sound[need.folder] for need in (*plan.needs, *plan.wants))

    def _ended(self) -> list[Future[Made]]:
        """Wait for tries that are over; none after some seconds, so that progress can be written."""
        ended = []
        try:
            ended.append(self.done.get(timeout=EVERY))
            while True:
                ended.append(self.done.get_nowait())
        except Empty:
            return ended

    def _group(self, folder: Path) -> str:
        return self.plans[folder].group

    def _settle(self, future: Future[Made]) -> None:
        folder = self.in_flight.pop(future)
        plan = self.plans[folder]
        self.progress.ended(plan)
        try:
            made = future.result()
        except WorkerDied as died:
            self._again_or_fail(folder, str(died), died=True)
            return
        except EngineError:
            raise
        except Exception as error:  # of the engine's own: an argument that cannot be sent, a broken connection
            self._again_or_fail(folder, " ".join(f"{type(error).__name__}: {error}".split()))
            return
        if made.error is None:
            self.made.add(folder)
            self.sound[folder] = made.sound
            if made.stored:
                self.stored.add(folder)
            self.progress.made(plan, made)
            if made.remark is not None and made.remark not in self.said:
                self.said.add(made.remark)
                self.say(f"note       {made.remark}")
            self._release(folder)
        elif made.no_room:
            self.no_room = self.no_room or made.error
        else:
            self._again_or_fail(folder, made.error, made)

    def _again_or_fail(self, folder: Path, reason: str, made: Made | None = None, died: bool = False) -> None:
        if died:
            self.deaths[folder] = self.deaths.get(folder, 0) + 1
            again = self.deaths[folder] < DEATHS
            reason = reason if again else f"{reason}; {self.deaths[folder]} times: left alone"
        else:
            self.tries[folder] = self.tries.get(folder, 0) + 1
            again = self.tries[folder] <= self.retries
        if again:
            self._push(folder)
        else:
            tries = self.tries.get(folder, 0) + self.deaths.get(folder, 0)
            self._fail(folder, reason, tries, made)

    def _fail(self, folder: Path, reason: str, tries: int = 0, made: Made | None = None) -> None:
        """Record a failure, and with it those of all units that need this one."""
        failed = deque([(folder, reason, self._fault_of_another(self.plans[folder]))])
        while failed:
            folder, reason, because_of = failed.popleft()
            if folder in self.failures:
                continue
            plan = self.plans[folder]
            trace = None if made is None or made.expected else made.trace
            self.failures[folder] = Outcome(plan.label, error=reason, trace=trace)
            self.progress.failed(plan, was_current=plan.blocked is None and folder not in self.stale)
            failure = Failure(folder, plan.stage, plan.label, reason, because_of, tries=tries)
            if made is not None:
                failure = replace(
                    failure,
                    traceback=made.trace,
                    stderr=made.stderr,
                    seconds=round(made.seconds, 3),
                    where=made.where,
                    software=made.software,
                )
            record_failure(failure)
            cause, tries, made = because_of or f"{plan.stage} {plan.label}", 0, None
            for other in self.dependents.pop(folder, []):
                dependent = self.plans[other]
                need = next((need for need in dependent.needs if need.folder == folder), None)
                if need is not None:
                    failed.append((other, need.missing, cause))
                else:
                    self._lacks(other)

    def _fault_of_another(self, plan: Plan) -> str | None:
        """Name the unit at fault where a unit cannot be made for lack of others; None where the fault is its own."""
        found = None
        while plan.blocked is not None:
            needed = (self.plans.get(need.folder) for need in plan.needs if need.fingerprint is None)
            other = next((other for other in needed if other is not None), None)
            if other is None:
                break
            found = plan = other
        return None if found is None else f"{found.stage} {found.label}"

    def _lacks(self, folder: Path) -> None:
        """A unit must do without one that it wants: it is made from something else, and may be current so."""
        if folder in self.failures:
            return
        before = self.plans[folder]
        plan = self.plans[folder] = before.lacking_what_it_wants()
        reason = plan.why_stale()
        if reason is not None and folder not in self.stale:
            self.progress.current(plan, -1)
            others = {need.folder for need in (*before.needs, *before.wants)}
            waits = sum(folder in self.dependents.get(other, ()) for other in others)
            self.stale[folder], self.open[folder] = reason, 1 + waits
        elif reason is None and self.stale.pop(folder, None) is not None:
            self.progress.current(plan)
            self.open.pop(folder, None)
        self._count_down(folder)

    def _release(self, folder: Path) -> None:
        for other in self.dependents.pop(folder, []):
            self._count_down(other)

    def _count_down(self, folder: Path) -> None:
        if folder not in self.open:
            return
        self.open[folder] -= 1
        if self.open[folder] == 0 and folder not in self.failures:
            del self.open[folder]
            self._push(folder)

    def stop(self) -> None:
        """Ctrl-C: finish what has begun; at a second one, drop it."""
        self.progress.enter(STOPPING)
        tqdm.write("stopping: units in progress are finished first; Ctrl-C again drops them", file=sys.stderr)
        try:
            for future in list(self.in_flight):
                if future.cancel():  # it waits for a worker, who may be long in coming
                    self.progress.ended(self.plans[self.in_flight.pop(future)])
            while self.in_flight:
                # Not from the queue: some that came out of it may not have been looked at when Ctrl-C came.
                for future in wait(self.in_flight, timeout=EVERY, return_when=FIRST_COMPLETED).done:
                    folder = self.in_flight.pop(future)
                    self.progress.ended(self.plans[folder])
                    if future.exception() is None and future.result().error is None:
                        self.progress.made(self.plans[folder], future.result())
                self.progress.write()
        except KeyboardInterrupt:
            self.engine.close(now=True)
        finally:
            self.progress.finish(STOPPED, "interrupted")

    def report(self, stage: str) -> StageReport:
        of_stage = {folder for folder, plan in self.plans.items() if plan.stage == stage}
        failures = tuple(outcome for folder, outcome in self.failures.items() if folder in of_stage)
        return StageReport(
            stage,
            made=len(self.made & of_stage),
            current=sum(
                folder not in self.stale and folder not in self.failures and self.plans[folder].blocked is None
                for folder in of_stage
            ),
            stored=len(self.stored & of_stage),
            failures=failures,
            stale={self.plans[folder].label: reason for folder, reason in self.stale.items() if folder in of_stage},
        )
