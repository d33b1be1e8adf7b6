"""How far a run is: ``progress.json`` in the run folder, written while it works, read by ``status`` from anywhere.

Schema (``format_version`` 1)
-----------------------------
``state``
    ``preparing`` (files are hashed, units planned, models read), ``working``, ``stopping`` (Ctrl-C: units in progress
    are finished), ``tables`` (units are done), ``finished`` or ``stopped`` (with ``reason``).
``started, updated``
    UTC, ISO 8601, by the clock of ``host``. The file's own time is set every :data:`EVERY` seconds while the process
    lives, whatever it waits for.
``host, process, engine, share``
    who works; ``share`` is ``I/N`` of a job array's task, else null.
``units``
    list of ``{stage, arm, total, current, made, stored, failed, running}`` in the order of the stages; ``current`` were
    up to date, ``made`` are new, ``stored`` of these came out of the store; the rest waits.
``running``
    list of ``{stage, unit, since}``, the longest first.
``seconds``
    ``{stage: {made, seconds}}``: units that were made (not fetched), and their seconds in all.
``lately``
    ``{seconds, made: {stage: n}, workers}``: in the last :data:`LATELY` seconds, which units were made or fetched, and
    how many were in work at once.
``seconds_left``
    a guess: what waits, times the mean seconds of a unit of its stage, shared among these workers; tables aside. Null
    while a stage that has units waiting has finished none.
``slowest``
    list of ``{stage, unit, seconds, where}``.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.artifacts import write_json
from pipeline.units import Made, Plan

FORMAT_VERSION = 1
EVERY = 2.0
"""Seconds between writes."""
LATELY = 300.0
SLOWEST = 10

PREPARING, WORKING, STOPPING, TABLES = "preparing", "working", "stopping", "tables"
FINISHED, STOPPED = "finished", "stopped"


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def short_time(seconds: float) -> str:
    """Say a time as people do: ``3.2 s``, ``48 s``, ``12 min``, ``3 h 05 min``, ``2 d 4 h``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def ending(error: BaseException) -> str:
    """Say in one line why a run ended before its time."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, SystemExit):
        return "terminated"
    return " ".join(str(error).split()) or type(error).__name__


@dataclass
class Counts:
    """Of one stage and arm."""

    total: int = 0
    current: int = 0
    made: int = 0
    stored: int = 0
    failed: int = 0
    running: int = 0


@dataclass
class Progress:
    """Counts what a run does and writes it down.

    Attributes:
        path: of ``progress.json``; None writes nothing.
        engine: its name.
        share: ``I/N``, or None.
    """

    path: Path | None
    engine: str
    share: str | None = None
    state: str = WORKING
    reason: str | None = None
    started: str = field(default_factory=now)
    counts: dict[tuple[str, str], Counts] = field(default_factory=dict)
    _running: dict[Path, tuple[Plan, str]] = field(default_factory=dict)
    _seconds: dict[str, list[float]] = field(default_factory=dict)
    _slowest: list[tuple[float, str, str, str]] = field(default_factory=list)
    _lately: deque[tuple[float, str, int]] = field(default_factory=lambda: deque(maxlen=20_000))
    _begun: float = field(default_factory=time.monotonic)
    _written: float = 0.0

    @contextlib.contextmanager
    def kept_up(self) -> Iterator[None]:
        """Write the file, show by its time that this process lives until the block ends, and say then how it ended."""
        over = threading.Event()
        beat = threading.Thread(target=self._beat, args=(over,), daemon=True)
        self.enter(PREPARING)
        beat.start()
        try:
            yield
        except BaseException as error:
            self.finish(STOPPED, ending(error))
            raise
        finally:
            over.set()
        self.finish(FINISHED)

    def _beat(self, over: threading.Event) -> None:
        while self.path is not None and not over.wait(EVERY):
            with contextlib.suppress(OSError):
                os.utime(self.path)

    def enter(self, state: str) -> None:
        self.state = state
        self.write(at_once=True)

    def expect(self, plans: Iterable[Plan]) -> None:
        self._begun = time.monotonic()
        for plan in plans:
            self._of(plan).total += 1

    def current(self, plan: Plan, count: int = 1) -> None:
        self._of(plan).current += count

    def begun(self, plan: Plan) -> None:
        self._of(plan).running += 1
        self._running[plan.folder] = (plan, now())

    def ended(self, plan: Plan) -> None:
        """A try is over: the unit runs no more, whatever became of it."""
        if self._running.pop(plan.folder, None) is not None:
            self._of(plan).running -= 1

    def made(self, plan: Plan, made: Made) -> None:
        counts = self._of(plan)
        counts.made += 1
        self._lately.append((time.monotonic(), plan.stage, len(self._running) + 1))
        if made.stored:
            counts.stored += 1
            return
        known = self._seconds.setdefault(plan.stage, [0, 0.0])
        known[0] += 1
        known[1] += made.seconds
        heapq.heappush(self._slowest, (made.seconds, plan.stage, plan.label, made.where))
        if len(self._slowest) > SLOWEST:
            heapq.heappop(self._slowest)

    def failed(self, plan: Plan, was_current: bool = False) -> None:
        counts = self._of(plan)
        counts.failed += 1
        counts.current -= was_current

    def finish(self, state: str, reason: str | None = None) -> None:
        self.reason = reason
        self.enter(state)

    def in_short(self) -> str:
        """Say in few words how long it may take, what is in work and failed: ``~12 min left, 2 score, 1 FAILED``."""
        left = self.seconds_left()
        running = Counter(plan.stage for plan, _ in self._running.values())
        failed = sum(counts.failed for counts in self.counts.values())
        parts = [
            f"~{short_time(left)} left" if left else "",
            " ".join(
                f"{running[stage]} {stage}"
                for stage in dict.fromkeys(stage for stage, _ in self.counts)
                if running[stage]
            ),
            f"{failed} FAILED" if failed else "",
        ]
        return ", ".join(part for part in parts if part)

    def seconds_left(self) -> float | None:
        """Guess how long the units that wait will take; None while that cannot be known."""
        waiting: Counter[str] = Counter()
        for (stage, _), counts in self.counts.items():
            waiting[stage] += max(0, counts.total - counts.current - counts.made - counts.failed)
        left = 0.0
        for stage, count in waiting.items():
            made, seconds = self._seconds.get(stage, (0, 0.0))
            if count and not made:
                return None
            left += count * seconds / made if count else 0.0
        return left / max(1, self._workers())

    def _workers(self) -> int:
        """Return how many units were in work at once, lately."""
        since = time.monotonic() - LATELY
        return max([len(self._running), *(at_once for when, _, at_once in self._lately if when >= since)])

    def write(self, at_once: bool = False) -> None:
        """Write ``progress.json`` if it is time to; a disk that is full is no reason to stop."""
        if self.path is None or (not at_once and time.monotonic() < self._written + EVERY):
            return
        self._written = time.monotonic()
        with contextlib.suppress(OSError):
            write_json(self.path, self._content())

    def _of(self, plan: Plan) -> Counts:
        return self.counts.setdefault((plan.stage, plan.arm), Counts())

    def _content(self) -> dict[str, Any]:
        since = max(time.monotonic() - LATELY, self._begun)
        left = self.seconds_left()
        while self._lately and self._lately[0][0] < since:
            self._lately.popleft()
        if len(self._lately) == self._lately.maxlen:
            since = self._lately[0][0]
        running = [
            {"stage": plan.stage, "unit": plan.label, "since": since} for plan, since in list(self._running.values())
        ]
        return {
            "format_version": FORMAT_VERSION,
            "state": self.state,
            "reason": self.reason,
            "started": self.started,
            "updated": now(),
            "host": socket.gethostname(),
            "process": os.getpid(),
            "engine": self.engine,
            "share": self.share,
            "units": [{"stage": stage, "arm": arm, **vars(counts)} for (stage, arm), counts in self.counts.items()],
            "running": sorted(running, key=lambda entry: str(entry["since"])),
            "seconds": {stage: {"made": n, "seconds": round(s, 3)} for stage, (n, s) in self._seconds.items()},
            "lately": {
                "seconds": round(time.monotonic() - since, 1),
                "made": dict(Counter(stage for _, stage, _ in self._lately)),
                "workers": self._workers(),
            },
            "seconds_left": None if left is None else round(left, 1),
            "slowest": [
                {"seconds": round(seconds, 3), "stage": stage, "unit": unit, "where": where}
                for seconds, stage, unit, where in sorted(self._slowest, reverse=True)
            ],
        }
