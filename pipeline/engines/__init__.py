"""Where units of work run: local processes, a Dask cluster, Slurm through dask-jobqueue.

An *engine* is handed units one by one and gives futures; what is to be done, in which order, and what becomes of a
unit that fails is not its business (:mod:`pipeline.schedule`). Every engine runs the same function on the same
argument with one thread, so that results are the same to the bit; the workers are the parallelism.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

CPU, GPU = "cpu", "gpu"
"""The groups of workers: completion takes the GPUs where there are any, everything else the cores."""


class EngineError(ValueError):
    """An engine that cannot be had, or is lost; the message names the remedy."""


class WorkerDied(RuntimeError):
    """The process that worked on a unit, or its node, vanished."""


class Engine(Protocol):
    """Workers, in one or two groups.

    Attributes:
        name: ``local``, ``dask`` or ``slurm``.
    """

    name: str

    def groups(self) -> frozenset[str]:
        """Return the groups there are; :data:`CPU` always."""

    def capacity(self, group: str) -> int:
        """Return how many units the group can be given at once; it may change as workers come and go."""

    def submit(self, group: str, function: Callable[[Any], Any], argument: Any) -> Future[Any]:
        """Have one worker of the group call ``function(argument)``.

        The future gives the value, or raises :class:`WorkerDied`, :class:`EngineError`, or what the function raised.
        """

    def close(self, now: bool = False) -> None:
        """End the workers: after the units that they have begun, or at once."""
