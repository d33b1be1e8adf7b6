"""Many calls of one function, with a progress bar: for work that is no unit of a run."""

from __future__ import annotations

import sys
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from tqdm import tqdm

from pipeline.engines import CPU, Engine, WorkerDied
from pipeline.engines.local import HereEngine, LocalEngine
from pipeline.progress import shortest_interval

_POLL = 2.0  # seconds after which an engine is asked again how many units it can take


@dataclass(frozen=True)
class Outcome:
    """What became of one call, or of one unit.

    Attributes:
        label: for people.
        value: what the function returned; None where it failed.
        error: one line naming the failure; None where it did not fail.
        trace: the traceback of an unexpected failure.
    """

    label: str
    value: Any = None
    error: str | None = None
    trace: str | None = None


def run_units(
    function: Callable[[Any], Any],
    units: Sequence[tuple[str, Any]],
    *,
    title: str,
    workers: int = 1,
    engine: Engine | None = None,
    expected: tuple[type[Exception], ...] = (ValueError, OSError),
) -> list[Outcome]:
    """Run ``function(argument)`` for every ``(label, argument)``.

    Args:
        function: importable by name; called in another process where there are several.
        units: labels and arguments.
        title: of the progress bar.
        workers: processes, where no engine is given; 1 runs in this one.
        engine: where to run instead.
        expected: errors whose message says all; others keep their traceback.

    Returns:
        One outcome a unit, in the order of ``units``. A unit that kills its process is tried once more, then recorded
        as failed.
    """
    with tqdm(
        total=len(units),
        desc=title,
        unit="unit",
        disable=not units,
        dynamic_ncols=True,
        mininterval=shortest_interval(),
    ) as bar:
        if engine is not None:
            return _run(function, units, engine, expected, bar)
        alone = workers <= 1 or len(units) <= 1
        own: Engine = HereEngine() if alone else LocalEngine(min(workers, len(units)))
        try:
            return _run(function, units, own, expected, bar)
        except KeyboardInterrupt:
            bar.write("stopping: units in progress are finished first; Ctrl-C again drops them", file=sys.stderr)
            try:
                own.close()
            except KeyboardInterrupt:
                own.close(now=True)
            raise
        except BaseException:
            own.close(now=True)
            raise
        finally:
            own.close()


def _run(
    function: Callable[[Any], Any],
    units: Sequence[tuple[str, Any]],
    engine: Engine,
    expected: tuple[type[Exception], ...],
    bar: Any,
) -> list[Outcome]:
    results: dict[int, Outcome] = {}
    waiting, died = deque(range(len(units))), set[int]()
    in_flight: dict[Future[Outcome], int] = {}
    ended: SimpleQueue[Future[Outcome]] = SimpleQueue()
    while waiting or in_flight:
        while waiting and len(in_flight) < engine.capacity(CPU):
            index = waiting.popleft()
            future = engine.submit(CPU, _guarded, (function, *units[index], expected))
            in_flight[future] = index
            future.add_done_callback(ended.put)
        try:
            future = ended.get(timeout=_POLL)
        except Empty:  # also where nothing is in flight: workers are yet to come
            continue
        index = in_flight.pop(future)
        try:
            results[index] = future.result()
        except WorkerDied:
            if index not in died:
                died.add(index)
                waiting.append(index)
                continue
            results[index] = Outcome(units[index][0], error="the worker process died twice (out of memory?)")
        bar.update()
    return [results[index] for index in range(len(units))]


def _guarded(argument: tuple[Callable[[Any], Any], str, Any, tuple[type[Exception], ...]]) -> Outcome:
    function, label, given, expected = argument
    try:
        return Outcome(label, value=function(given))
    except expected as error:
        return Outcome(label, error=" ".join(str(error).split()) or type(error).__name__)
    except Exception as error:
        line = " ".join(f"{type(error).__name__}: {error}".split())
        return Outcome(label, error=line, trace=traceback.format_exc())
