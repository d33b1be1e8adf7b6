"""The connection to a Dask scheduler: a client, what we ask the scheduler, and what a worker calls.

Dask is imported when it is asked for: it comes with the extra ``cluster``.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import pickle
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.engines import EngineError


@dataclass(frozen=True)
class Worker:
    """A worker process, as its scheduler knows it.

    Attributes:
        identity: of the process; another one at the same address has another.
        address, name: where it listens, and what it is called.
        threads: units that it would take at once.
        gpu: whether it was started with ``--resources GPU=1``.
        ready: whether it takes work now; not while it is paused for memory or about to leave.
    """

    identity: str
    address: str
    name: str
    threads: int
    gpu: bool
    ready: bool


def carry_out(payload: bytes) -> Any:
    """Call a unit's function: what workers run. The payload is ours, so that Dask does not look into arguments."""
    function, argument = pickle.loads(payload)
    return function(argument)


def list_workers(dask_scheduler: Any = None) -> list[tuple[str, str, str, int, bool, bool]]:
    """Return the fields of :class:`Worker` of every worker: what the scheduler runs."""
    return [
        (
            str(state.server_id),
            state.address,
            str(state.name),
            int(state.nthreads),
            state.resources.get("GPU", 0) >= 1,
            state.status.name == "running",
        )
        for state in list(dask_scheduler.workers.values())
    ]


def count_deaths(keys: Sequence[str], dask_scheduler: Any = None) -> dict[str, int]:
    """Return how many workers died with each task: what the scheduler runs. 1 of a task that it no longer knows."""
    tasks = dask_scheduler.tasks
    return {key: tasks[key].suspicious if key in tasks else 1 for key in keys}


def connect(address: Any, timeout: float) -> Any:
    """Return a client of a scheduler or cluster.

    Raises:
        EngineError: without the extra ``cluster``, or where nobody answers.
    """
    distributed = import_cluster("distributed")
    try:
        return distributed.Client(address, timeout=timeout, set_as_default=False, name="grasp-utility")
    except (OSError, ValueError) as error:
        raise EngineError(
            f"no Dask scheduler answers at {address} ({' '.join(str(error).split()) or type(error).__name__}); start "
            "one with `dask scheduler` and give the address that it prints, for example tcp://node1:8786"
        ) from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence Dask's loggers: what matters of what they say is raised here, in one line."""
    names = [name for name in list(logging.root.manager.loggerDict) if name.split(".")[0] == "distributed"]
    before = {logger: logger.level for logger in map(logging.getLogger, names)}
    for logger in before:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in before.items():
            logger.setLevel(level)


def import_cluster(name: str) -> Any:
    """Import one of the packages of the extra ``cluster``.

    Raises:
        EngineError: it is not installed.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        return importlib.import_module(name)
    except ImportError:
        pass
    finally:
        # dask_jobqueue 0.9 has Ctrl-C exit silently, with status 0, once it is imported.
        if before is not None and signal.getsignal(signal.SIGINT) is not before:
            signal.signal(signal.SIGINT, before)
    raise EngineError(f"{name} is not installed; pip install 'grasp-utility[cluster]'")
