"""How far a run is: ``progress.json`` in the run folder, written while it works, read by ``status`` from anywhere.

Schema (``format_version`` 1)
-----------------------------
``state``
    ``working``, ``stopping`` (Ctrl-C: units in progress are finished), ``finished`` or ``stopped`` (with ``reason``).
``started, updated``
    UTC, ISO 8601; ``updated`` is at most some seconds old while a run works.
``host, process, engine, share``
    who works; ``share`` is ``I/N`` of a job array's task, else null.
``units``
    list of ``{stage, arm, total, current, made, stored, failed, running}`` in the order of the stages; ``current`` were
    up to date, ``made`` are new, ``stored`` of these came out of the store; the rest waits.
``running``
    list of ``{stage, unit, since}``, the longest first.
``seconds``
    ``{stage: {made, seconds}}``: units that were made (not fetched), and their seconds in all.
``slowest``
    list of ``{stage, unit, seconds, where}``.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.artifacts import write_json
from pipeline.units import Made, Plan

FORMAT_VERSION = 1
EVERY = 2.0
"""Seconds between writes."""
SLOWEST = 10
SHOWN_RUNNING = 200

WORKING, STOPPING, FINISHED, STOPPED = "working", "stopping", "finished", "stopped"


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


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
    _written: float = 0.0

    def expect(self, plans: Iterable[Plan]) -> None:
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
        self.state, self.reason = state, reason
        self.write(at_once=True)

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
            "running": sorted(running, key=lambda entry: str(entry["since"]))[:SHOWN_RUNNING],
            "seconds": {stage: {"made": n, "seconds": round(s, 3)} for stage, (n, s) in self._seconds.items()},
            "slowest": [
                {"seconds": round(seconds, 3), "stage": stage, "unit": unit, "where": where}
                for seconds, stage, unit, where in sorted(self._slowest, reverse=True)
            ],
        }
