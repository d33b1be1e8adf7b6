"""Processes on this machine: the default engine, one process a worker and one more for each GPU.

Every worker is a pool of one, so that it is known whose unit it was when a process dies (out of memory, a crash in
native code), and nobody else loses anything. Workers end with their parent, also when that is killed outright.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any

from pipeline.engines import CPU, GPU, WorkerDied

# One thread a worker: the workers are the parallelism, and cores that are shared twice are slower.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def default_workers() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class LocalEngine:
    """Processes of this machine, each started when it is first needed; see :class:`pipeline.engines.Engine`.

    Args:
        workers: processes for the group CPU.
        gpus: processes for the group GPU, one a device.
    """

    name = "local"

    def __init__(self, workers: int, gpus: int = 0) -> None:
        self._workers = {CPU: [_Worker() for _ in range(max(1, workers))], GPU: [_Worker(i) for i in range(gpus)]}

    def groups(self) -> frozenset[str]:
        return frozenset(group for group, workers in self._workers.items() if workers)

    def capacity(self, group: str) -> int:
        return len(self._workers[group])

    def submit(self, group: str, function: Callable[[Any], Any], argument: Any) -> Future[Any]:
        idle = next(worker for worker in self._workers[group] if worker.idle)  # capacity() is the caller's to keep
        return idle.submit(function, argument)

    def close(self, now: bool = False) -> None:
        for worker in (*self._workers[CPU], *self._workers[GPU]):
            worker.close(now)


class HereEngine:
    """No processes: units run in the caller's, when they are submitted. For tests, and where processes may not be."""

    name = "local"

    def groups(self) -> frozenset[str]:
        return frozenset({CPU, GPU})

    def capacity(self, group: str) -> int:
        return 1

    def submit(self, group: str, function: Callable[[Any], Any], argument: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            with one_thread():
                future.set_result(function(argument))
        except Exception as error:
            future.set_exception(error)
        return future

    def close(self, now: bool = False) -> None:
        pass


class _Worker:
    """One process, replaced when it dies."""

    def __init__(self, gpu: int | None = None) -> None:
        self.idle = True
        self._gpu = gpu
        self._pool: ProcessPoolExecutor | None = None

    def submit(self, function: Callable[[Any], Any], argument: Any) -> Future[Any]:
        self.idle = False
        given: Future[Any] = Future()
        given.set_running_or_notify_cancel()
        try:
            inner = self._start(function, argument) if self._pool is None else self._pool.submit(function, argument)
        except BrokenProcessPool:  # it was killed while it had nothing to do
            inner = self._start(function, argument)
        inner.add_done_callback(lambda done: self._finish(done, given))
        return given

    def _start(self, function: Callable[[Any], Any], argument: Any) -> Future[Any]:
        """Start a process with its first unit; only meanwhile is Ctrl-C ignored, which is then not heard at all."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=_begin, initargs=(self._gpu,))
        with single_threaded_children(), _interrupts_ignored():  # the process inherits both
            return self._pool.submit(function, argument)

    def _finish(self, done: Future[Any], given: Future[Any]) -> None:
        error: BaseException | None = None
        value = None
        if done.cancelled():
            error = WorkerDied("dropped")
        elif (error := done.exception()) is None:
            value = done.result()
        elif isinstance(error, BrokenProcessPool):
            self._pool = None
            error = WorkerDied("the worker process died (out of memory, or a crash in native code?)")
        self.idle = True  # before the result is known: whoever waits for it may submit at once
        if error is None:
            given.set_result(value)
        else:
            given.set_exception(error)

    def close(self, now: bool) -> None:
        pool = self._pool
        if pool is None:
            return
        if now:
            for process in list((pool._processes or {}).values()):
                process.terminate()  # a dropped unit leaves no half-made folder where a finished one belongs
        pool.shutdown(wait=True, cancel_futures=True)
        self._pool = None  # not before: Ctrl-C may come while we wait, and then what runs is to be dropped


def _begin(gpu: int | None) -> None:
    # Ctrl-C reaches the whole process group; the parent decides, and workers end the unit they have begun.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if gpu is not None:
        # Of the devices that this run may see, the one of this worker; torch is not imported yet.
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        os.environ["CUDA_VISIBLE_DEVICES"] = seen[gpu] if len(seen) > gpu and seen[gpu] else str(gpu)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Without this, workers of a parent that was killed outright would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


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


@contextmanager
def single_threaded_children() -> Iterator[None]:
    """Set the thread counts that child processes read at their start, and put ours back."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def one_thread() -> Iterator[None]:
    """Have this process compute with one thread, as workers do: sums come out alike to the last bit."""
    from threadpoolctl import threadpool_limits

    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 0
    with threadpool_limits(1), contextlib.ExitStack() as stack:
        if torch:
            torch.set_num_threads(1)
            stack.callback(torch.set_num_threads, before)
        yield
