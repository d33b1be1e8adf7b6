"""What both Dask engines share: the workers of one scheduler, each given one unit at a time, as plain futures.

A unit is sent to one named worker that has nothing else of ours, and to no other. So there is never more than one unit
in a process, whatever the scheduler would send ahead; and a unit whose worker dies is back here at once, where the
scheduler by itself would try it on three others (``distributed.scheduler.allowed-failures``). Setting that is not ours
where the scheduler is not: it holds for everybody's work.

Everything here happens in the client's event loop, so nothing needs a lock; other threads only hand units in and read
counts.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import CancelledError, Future, wait
from dataclasses import dataclass, field
from typing import Any

from pipeline.engines import GPU, EngineError, WorkerDied
from pipeline.engines.dask_client import Worker, carry_out, count_deaths, list_workers
from pipeline.engines.worker_check import Expected, why_unfit

GONE = "run the same command again: what is finished is kept"
_EVERY = 1.0  # seconds between two looks at the workers
_ANSWER = 120.0  # seconds that a scheduler or a worker may take to answer


Sort = Callable[[Sequence[Worker]], dict[str, list[Worker]]]
"""Parts workers into groups; may leave some out."""


@dataclass(eq=False)
class _Unit:
    group: str
    payload: bytes
    given: Future[Any] = field(default_factory=Future)
    sent: Any = None  # Dask's future
    worker: str = ""
    since: float = 0.0


class Crew:
    """The workers of one scheduler.

    Args:
        client: connected to it.
        sort: parts workers into groups.
        expected: what workers must have.
        expected_workers: how many of a group may still come, while there are none.
        awaited: what is waited for while a group has no workers, for people.
        patience: seconds of that after which everything is given up.
        say: is told what a person should know.
        tend: called at every look, with all workers; may replace some.
    """

    def __init__(
        self,
        client: Any,
        *,
        sort: Sort,
        expected: Expected,
        expected_workers: Callable[[str], int],
        awaited: Callable[[str], str],
        patience: float,
        say: Callable[[str], None],
        tend: Callable[[Sequence[Worker]], Awaitable[None]] | None = None,
    ) -> None:
        self._client = client
        self._sort, self._expected, self._awaited, self._tend = sort, expected, awaited, tend
        self._expected_workers, self._patience, self._say = expected_workers, patience, say
        self.unfit: dict[str, str] = {}  # identity -> why
        self.longest = 0.0  # seconds that a unit took
        self._fit: set[str] = set()
        self._checking: set[str] = set()
        self._groups: dict[str, list[Worker]] = {}
        self._busy: dict[str, _Unit] = {}  # identity of the worker -> unit
        self._queues: dict[str, deque[_Unit]] = {}
        self._without: dict[str, float] = {}  # group without workers -> since when
        self._said: set[str] = set()
        self._lost: EngineError | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._begun = self._closing = False
        self.trouble = False  # a worker died, or was not fit

    def start(self) -> None:
        """Look at the workers that are there, then again and again.

        Raises:
            EngineError: the scheduler cannot be asked.
        """
        self._client.sync(self._start)

    def count(self, group: str) -> int:
        """Return the units that the group can have at once.

        Raises:
            EngineError: everything is lost.
        """
        if self._lost is not None:
            raise self._lost
        return len(self._groups.get(group, ())) or max(1, self._expected_workers(group))

    def has(self, group: str) -> bool:
        return bool(self._groups.get(group))

    def busy(self, worker: Worker) -> bool:
        return worker.identity in self._busy

    def submit(self, group: str, function: Callable[[Any], Any], argument: Any) -> Future[Any]:
        """Have a worker of the group call ``function(argument)``; see :class:`pipeline.engines.Engine`."""
        import cloudpickle

        unit = _Unit(group, cloudpickle.dumps((function, argument)))
        self._client.loop.add_callback(self._enqueue, unit)
        return unit.given

    def close(self, now: bool = False) -> None:
        """Wait for the units that run, or drop them; those that have not begun are dropped anyway."""
        running = self._client.sync(self._drop, now)
        wait(running)
        self._client.sync(self._stop)
        self._expected.withdraw()

    # From here on, in the event loop only.

    async def _start(self) -> None:
        try:
            await self._look()
        except EngineError as error:
            self._lose(error)
            raise
        self._begun = True
        self._spawn(self._watch())

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self) -> None:
        silent_since: float | None = None
        while not self._closing and self._lost is None:
            await asyncio.sleep(_EVERY)
            try:
                await self._look()
                silent_since = None
            except EngineError as error:
                self._lose(error)
            except Exception as error:  # a connection that is being made again, a scheduler too busy to answer
                silent_since = silent_since or time.monotonic()
                if self._client.status == "closed" or time.monotonic() - silent_since > 2 * _ANSWER:
                    self._lose(EngineError(f"the Dask scheduler is gone ({type(error).__name__}); {GONE}"))

    async def _look(self) -> None:
        rows = await asyncio.wait_for(self._client.run_on_scheduler(list_workers), _ANSWER)
        workers = [Worker(*row) for row in rows]
        present = {worker.identity for worker in workers}
        await self._give_up_on(set(self._busy) - present)
        self._fit &= present
        self.unfit = {identity: why for identity, why in self.unfit.items() if identity in present}
        unknown = [w for w in workers if w.identity not in self._fit | set(self.unfit) | self._checking]
        if unknown:
            self._checking |= {worker.identity for worker in unknown}
            checks = [self._check(worker) for worker in unknown]
            if self._begun:  # a worker that answers late must not keep others waiting
                self._spawn(_all(checks))
            else:
                await _all(checks)
        if self._tend is not None:
            await self._tend(workers)
        self._regroup(workers)
        self._wait_for_workers()

    def _regroup(self, workers: Sequence[Worker]) -> None:
        self._groups = self._sort([worker for worker in workers if worker.ready and worker.identity in self._fit])
        self._hand_out()

    async def _check(self, worker: Worker) -> None:
        """Find out whether a worker may be given units."""
        if worker.threads != 1:
            why: str | None = f"has {worker.threads} threads; start it with --nthreads 1"
        else:
            try:
                ask = self._client.run(why_unfit, self._expected, workers=[worker.address], on_error="return")
                why = (await asyncio.wait_for(ask, _ANSWER))[worker.address]
            except Exception as error:  # it has just gone, or answers too late: then it is asked again
                why = error  # type: ignore[assignment]
            if isinstance(why, ImportError):
                why = f"cannot import grasp-utility ({why}); install it there"
            elif isinstance(why, Exception):
                self._checking.discard(worker.identity)
                return
        self._checking.discard(worker.identity)
        if why is None:
            self._fit.add(worker.identity)
        else:
            self.trouble = True
            self.unfit[worker.identity] = f"the worker {worker.name} {why}"
            self._tell(f"left out: {self.unfit[worker.identity]}")

    def _tell(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._say(line)

    def _wait_for_workers(self) -> None:
        for group, queue in self._queues.items():
            if not queue or self._groups.get(group):
                self._without.pop(group, None)
                continue
            since = self._without.setdefault(group, time.monotonic())
            waited = time.monotonic() - since
            why = next(iter(self.unfit.values()), None)
            if why is not None and not self._fit and len(self.unfit) >= min(3, self._expected_workers(group)):
                raise EngineError(f"no {group} worker can be used: {why}")
            if waited > self._patience:
                awaited = f"{self._awaited(group)}{'' if why is None else f'; {why}'}"
                raise EngineError(f"no {group} worker came in {waited:.0f} s: waited for {awaited}; {GONE}")
            if waited > 5.0:
                self._tell(f"waiting for {self._awaited(group)}")

    def _enqueue(self, unit: _Unit) -> None:
        if self._lost is not None:
            _set_error(unit.given, self._lost)
            return
        self._queues.setdefault(unit.group, deque()).append(unit)
        self._hand_out()

    def _hand_out(self) -> None:
        for group, queue in self._queues.items():
            idle = [worker for worker in self._groups.get(group, ()) if worker.identity not in self._busy]
            while queue and idle:
                unit = queue.popleft()
                if unit.sent is None and not unit.given.set_running_or_notify_cancel():
                    continue
                self._send(unit, idle.pop(0))

    def _send(self, unit: _Unit, worker: Worker) -> None:
        unit.since, unit.worker = time.monotonic(), worker.name
        unit.sent = self._client.submit(
            carry_out,
            unit.payload,
            key=f"unit-{uuid.uuid4().hex}",
            workers=[worker.address],
            allow_other_workers=False,
            resources={"GPU": 1} if worker.gpu and unit.group == GPU else None,
            pure=False,
            retries=0,
        )
        self._busy[worker.identity] = unit
        self._spawn(self._follow(unit, worker, unit.sent))

    async def _follow(self, unit: _Unit, worker: Worker, sent: Any) -> None:
        from distributed.scheduler import KilledWorker

        value: Any = None
        error: Exception | None = None
        try:
            value = await sent
        except KilledWorker:
            error, self.trouble = _died(worker.name), True
            # Not to be sent anything in the second until the next look.
            self._groups = {group: [w for w in ws if w != worker] for group, ws in self._groups.items()}
        except (CancelledError, asyncio.CancelledError):
            if unit.sent is sent and not self._closing:
                self._lose(EngineError(f"the connection to the Dask scheduler is lost; {GONE}"))
            return
        except Exception as raised:  # what the unit's function raised
            error = raised
        if unit.sent is not sent:  # it was given up in the meantime
            return
        sent.release()  # at once, so that neither side keeps it
        self._busy.pop(worker.identity, None)
        self.longest = max(self.longest, time.monotonic() - unit.since)
        if error is None:
            _set_value(unit.given, value)
        else:
            _set_error(unit.given, error)
        self._hand_out()

    async def _give_up_on(self, identities: set[str]) -> None:
        """Take units back from workers that are no longer there."""
        units = {identity: self._busy[identity] for identity in identities}
        if not units:
            return
        keys = [unit.sent.key for unit in units.values()]
        deaths = await asyncio.wait_for(self._client.run_on_scheduler(count_deaths, keys), _ANSWER)
        for identity, unit in units.items():
            if self._busy.get(identity) is not unit:  # it ended after all
                continue
            del self._busy[identity]
            sent, unit.sent = unit.sent, False  # no longer followed
            sent.release()
            if deaths[sent.key] == 0:  # it had not begun there, or the worker left in good order: nobody's fault
                self._queues[unit.group].appendleft(unit)
            else:
                self.trouble = True
                _set_error(unit.given, _died(unit.worker))

    def _lose(self, error: EngineError) -> None:
        if self._lost is not None:
            return
        self._lost, self.trouble = error, True
        for unit in [*self._busy.values(), *(unit for queue in self._queues.values() for unit in queue)]:
            _set_error(unit.given, error)
        self._busy.clear()
        self._queues.clear()

    async def _drop(self, now: bool) -> list[Future[Any]]:
        for queue in self._queues.values():
            while queue:
                unit = queue.popleft()
                if not unit.given.cancel():
                    _set_error(unit.given, WorkerDied("dropped"))
        if now:
            self._closing = True
            for unit in self._busy.values():
                sent, unit.sent = unit.sent, False
                sent.release()
                _set_error(unit.given, WorkerDied("dropped"))
            self._busy.clear()
        return [unit.given for unit in self._busy.values()]

    async def _stop(self) -> None:
        self._closing = True
        for task in list(self._tasks):
            task.cancel()


def _died(worker: str) -> WorkerDied:
    return WorkerDied(
        f"the worker {worker} vanished with the unit (out of memory, a crash in native code, a lost node?)"
    )


def _set_value(given: Future[Any], value: Any) -> None:
    if not given.done():
        given.set_result(value)


def _set_error(given: Future[Any], error: BaseException) -> None:
    if not given.done():
        given.set_exception(error)


async def _all(work: Sequence[Awaitable[None]]) -> None:
    await asyncio.gather(*work)
