"""The jobs of one group of workers: as many in Slurm's queue as the profile asks for, whatever becomes of some.

dask-jobqueue submits and cancels them. It replaces no job of several workers that vanishes, and takes a worker that is
being restarted for a lost job after 15 s; so which job is lost is decided here, by the workers and by ``squeue``.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.engines import EngineError
from pipeline.engines.dask_client import Worker
from pipeline.engines.profile import WorkerGroup

_ASK = 10.0  # seconds between two questions to squeue, asked only while a job has no worker
_RESTART = 120.0  # seconds that a job's workers may take to be back after all of them died
_AGAIN = 60.0  # seconds until a job that could not be submitted is tried again
_STILLBORN = 3  # jobs in a row that end without a worker before the profile is to blame


@dataclass
class _Job:
    """What is known of a job.

    Attributes:
        began: when its first worker came.
        seen: when it last had a worker.
        submitted: when it was handed to Slurm.
    """

    submitted: float
    began: float | None = None
    seen: float = 0.0


class Jobs:
    """Keeps the jobs of a group in the queue.

    Args:
        cluster: of dask-jobqueue, without jobs yet.
        group: what the profile says.
        name: of the jobs, as ``squeue`` shows it.
        logs: folder of what the jobs print.
        say: is told what a person should know.
    """

    def __init__(
        self,
        cluster: Any,
        group: WorkerGroup,
        name: str,
        logs: Path,
        longest: Callable[[], float],
        say: Callable[[str], None],
    ) -> None:
        self._cluster, self._group, self._name, self._logs, self._say = cluster, group, name, logs, say
        self._longest = longest
        self._jobs: dict[str, _Job] = {}
        self._numbers = itertools.count()
        self._asked = self._refused = 0.0
        self._stillborn = 0
        self.trouble = False  # a job was lost

    async def fill(self) -> None:
        """Submit what is missing.

        Raises:
            EngineError: Slurm takes no job.
        """
        while len(self._cluster.worker_spec) < self._group.jobs:
            name = f"{self._name}-{next(self._numbers)}"  # dask-jobqueue would use that of a lost one again
            (self._cluster.worker_spec[name],) = self._cluster.new_worker_spec().values()
            self._jobs[name] = _Job(time.monotonic())
        try:
            await self._cluster
        except RuntimeError as error:
            for name, handle in list(self._cluster.workers.items()):
                if handle.job_id is None:
                    self._forget(name)
            raise EngineError(f"Slurm takes no job of the profile: {_last_line(str(error))}") from None
        except OSError as error:
            raise EngineError(f"no Slurm here ({error}); sbatch, scancel and squeue must be in the PATH") from None

    async def tend(self, workers: Sequence[Worker], busy: Callable[[Worker], bool]) -> None:
        """Replace jobs that are lost, and those near their end that have nothing to do.

        Raises:
            EngineError: job after job ends without a single worker.
        """
        now = time.monotonic()
        of_job: dict[str, list[Worker]] = {name: [] for name in self._jobs}
        for worker in workers:
            of_job.setdefault(self.job_of(worker), []).append(worker)
        for name, theirs in of_job.items():
            if theirs and name in self._jobs:
                job = self._jobs[name]
                job.began, job.seen = job.began or now, now
                self._stillborn = 0
        over = [
            name for name in self._jobs if self._ends_soon(name, now) and not any(busy(one) for one in of_job[name])
        ]
        absent = [name for name in self._jobs if not of_job[name]]
        if absent and now - self._asked > _ASK:
            self._asked = now
            queued = await self._queued()
            for name in absent if queued is not None else ():
                if self._is_lost(name, queued or set(), now):
                    over.append(name)
                    self.trouble = True
                    if self._jobs[name].began is None:
                        self._stillborn += 1
        if self._stillborn >= _STILLBORN:
            raise EngineError(
                f"{self._stillborn} jobs ended without a worker; see what they print in {self._logs}, and prologue, "
                "python, memory and interface in the profile"
            )
        for name in over:
            self._forget(name)
        if len(self._cluster.worker_spec) < self._group.jobs and now - self._refused > _AGAIN:
            try:
                await self.fill()
            except EngineError as error:  # the others work on
                self._refused = now
                self._say(f"{error}; it is tried again in {_AGAIN:.0f} s")

    def _is_lost(self, name: str, queued: set[str], now: float) -> bool:
        job = self._jobs[name]
        handle = self._cluster.workers.get(name)
        if handle is None or handle.job_id is None:
            return now - job.submitted > _AGAIN
        if handle.job_id not in queued:
            return now - job.submitted > _ASK  # squeue may be a little behind sbatch
        return job.began is not None and now - job.seen > _RESTART

    def _forget(self, name: str) -> None:
        self._jobs.pop(name, None)
        self._cluster.worker_spec.pop(name, None)  # dask-jobqueue then cancels it, if it is still there

    def job_of(self, worker: Worker) -> str:
        """Return the job that a worker belongs to: workers are called after it."""
        return worker.name if worker.name in self._jobs else worker.name.rpartition("-")[0]

    def last(self, worker: Worker) -> bool:
        """Return whether a worker's job lasts long enough for another unit."""
        return not self._ends_soon(self.job_of(worker), time.monotonic())

    def _ends_soon(self, name: str, now: float) -> bool:
        job = self._jobs.get(name)
        if job is None:
            return True  # replaced already
        margin = min(max(60.0, 2 * self._longest()), self._group.seconds() / 2)
        return job.began is not None and now - job.began > self._group.seconds() - margin

    async def _queued(self) -> set[str] | None:
        """Return the identifiers of the group's jobs that wait or run; None where Slurm does not say."""
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            process = await asyncio.create_subprocess_exec(
                "squeue", "-h", "-n", self._name, "-t", "PENDING,CONFIGURING,RUNNING,SUSPENDED", "-o", "%A",
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            out, _ = await asyncio.wait_for(process.communicate(), 60)
            if process.returncode == 0:
                return set(out.decode().split())
        return None


def cancel(names: Sequence[str]) -> None:
    """Cancel all jobs of these names, in a session of its own: a second Ctrl-C does not end the command."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(
            ["scancel", f"--name={','.join(names)}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True, timeout=120, check=False,
        )  # fmt: skip


def _last_line(text: str) -> str:
    """Return what sbatch said last: the rest of dask-jobqueue's message is its command."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("stderr")]
    said = [line for line in lines if line.startswith("sbatch:")]
    return (said or lines or ["(no reason given)"])[-1]
