"""Where units of work run: local processes. A unit that fails is reported, never lost, and stops nobody else."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

# One thread a worker: the workers are the parallelism, and cores that are shared twice are slower.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Outcome:
    """What became of one unit.

    Attributes:
        label: the unit, for people.
        value: what the unit's function returned; None where it failed.
        error: one line naming the failure; None where it did not fail.
        trace: the traceback of an unexpected failure.
    """

    label: str
    value: Any = None
    error: str | None = None
    trace: str | None = None


def default_workers() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_units(
    function: Callable[[Any], Any],
    units: Sequence[tuple[str, Any]],
    *,
    workers: int,
    title: str,
    expected: tuple[type[Exception], ...] = (ValueError, OSError),
) -> list[Outcome]:
    """Run ``function(argument)`` for every ``(label, argument)``, in processes, with a progress bar.

    Args:
        function: importable by name; called in another process where ``workers`` > 1.
        units: labels and arguments.
        workers: processes; 1 runs in this one.
        title: of the progress bar.
        expected: errors whose message says all; others keep their traceback.

    Returns:
        One outcome a unit, in the order of ``units``. A unit that kills its process is tried once more alone,
        then recorded as failed.
    """
    results: dict[int, Outcome] = {}
    with tqdm(total=len(units), desc=title, unit="unit", disable=not units, leave=True, dynamic_ncols=True) as bar:
        if workers <= 1 or len(units) <= 1:
            for index, (label, argument) in enumerate(units):
                results[index] = _guarded(function, label, argument, expected)
                bar.update()
        else:
            remaining = list(range(len(units)))
            suspects = _run_pool(function, units, remaining, results, min(workers, len(units)), expected, bar)
            for index in suspects:  # a process died: find the unit that kills, one process each
                died = _run_pool(function, units, [index], results, 1, expected, bar)
                if died:
                    results[index] = Outcome(units[index][0], error="the worker process died twice (out of memory?)")
                    bar.update()
    return [results[index] for index in range(len(units))]


def _run_pool(
    function: Callable[[Any], Any],
    units: Sequence[tuple[str, Any]],
    indices: list[int],
    results: dict[int, Outcome],
    workers: int,
    expected: tuple[type[Exception], ...],
    bar: Any,
) -> list[int]:
    """Run units in a pool of their own; return those that had no result when a process died."""
    with single_threaded_children():
        pool = ProcessPoolExecutor(
            workers, mp_context=multiprocessing.get_context("spawn"), initializer=_leave_interrupts_to_parent
        )
        try:
            with _interrupts_ignored():  # workers start at the first submissions and inherit this
                pending: dict[Future[Outcome], int] = {
                    pool.submit(_guarded, function, *units[index], expected): index for index in indices
                }
            while pending:
                done, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    index = pending[future]
                    try:
                        results[index] = future.result()
                    except BrokenProcessPool:
                        return sorted(pending.values())
                    del pending[future]
                    bar.update()
            return []
        except KeyboardInterrupt:
            bar.write("stopping: units in progress are finished first; Ctrl-C again drops them", file=sys.stderr)
            try:
                pool.shutdown(wait=True, cancel_futures=True)
            except KeyboardInterrupt:
                for child in multiprocessing.active_children():
                    child.terminate()  # a dropped unit leaves no half-written file: every write is atomic
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)  # what has not begun is dropped


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # signals can be set in the main thread only
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _leave_interrupts_to_parent() -> None:
    """Ctrl-C reaches the whole process group; the parent decides, and workers end the unit they have begun."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def single_threaded_children() -> Iterator[None]:
    """Set the thread counts that child processes read at their start, and put ours back."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _guarded(
    function: Callable[[Any], Any], label: str, argument: Any, expected: tuple[type[Exception], ...]
) -> Outcome:
    try:
        return Outcome(label, value=function(argument))
    except expected as error:
        return Outcome(label, error=" ".join(str(error).split()) or type(error).__name__)
    except Exception as error:
        line = " ".join(f"{type(error).__name__}: {error}".split())
        return Outcome(label, error=line, trace=traceback.format_exc())
