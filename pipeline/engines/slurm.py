"""``--engine slurm --profile FILE``: workers in Slurm jobs that are kept in the queue while the run lasts.

Each group of workers (cpu, gpu) is a cluster of dask-jobqueue: its jobs, and a Dask scheduler in this process. Workers
end with this process, also when it is killed outright: they lose their scheduler, and those that start later give up
after :data:`DEATH_TIMEOUT`.
"""

from __future__ import annotations

import contextlib
import secrets
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from pipeline.engines import EngineError
from pipeline.engines.dask_client import Worker, connect, import_cluster, quiet
from pipeline.engines.dask_crew import Crew
from pipeline.engines.profile import Profile, WorkerGroup, load_profile
from pipeline.engines.slurm_jobs import Jobs, cancel
from pipeline.engines.worker_check import expect

DEATH_TIMEOUT = 120
"""Seconds after which a worker that finds no scheduler ends, and its job with it."""
_CONNECT = 30.0
_KEYS = "keys"
# Read by the workers and their nannies before anything is loaded. A worker holds no data of ours that it could put
# aside: where its memory runs out it is ended (at 95 % of its part), not paused for ever.
_ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"),
    **{f"DASK_DISTRIBUTED__WORKER__MEMORY__{what}": "False" for what in ("TARGET", "SPILL", "PAUSE")},
    "DASK_DISTRIBUTED__WORKER__DAEMON": "False",
}


class SlurmEngine:
    """Workers in Slurm jobs; see :class:`pipeline.engines.Engine`.

    Args:
        profile: the file that says what to ask for.
        folder: the run's; workers must see it. None: not asked for.
        say: is told what a person should know.

    Raises:
        EngineError: the profile cannot be used, Slurm is not there, or it takes no job.
    """

    name = "slurm"

    def __init__(self, profile: Path, folder: Path | None = None, *, say: Callable[[str], None] = print) -> None:
        self._file, self._profile = profile, load_profile(profile)
        import_cluster("dask_jobqueue")
        self._token = secrets.token_hex(4)
        self._groups: dict[str, _Group] = {}
        self._open = contextlib.ExitStack()
        self._open.enter_context(quiet())
        self._closed = False
        try:
            for group in self._profile.groups():
                self._groups[group] = _Group(self._profile, group, self._job_name(group), folder, say)
        except EngineError as error:
            self.close(now=True)
            raise EngineError(f"{profile}: {error}") from None
        except BaseException:
            self.close(now=True)
            raise
        names = ",".join(self._job_name(group) for group in self._groups)
        say(f"jobs       squeue --name {names}")

    def _job_name(self, group: str) -> str:
        return f"grasp-utility-{self._token}-{group}"

    def groups(self) -> frozenset[str]:
        return frozenset(self._groups)

    def capacity(self, group: str) -> int:
        return self._groups[group].crew.count(group)

    def submit(self, group: str, function: Callable[[Any], Any], argument: Any) -> Future[Any]:
        return self._groups[group].crew.submit(group, function, argument)

    def close(self, now: bool = False) -> None:
        """Cancel the jobs: after the units that run, or at once. None is left in the queue."""
        if self._closed:
            return
        self._closed = True
        names = [self._job_name(group) for group in self._profile.groups()]
        try:
            for group in self._groups.values():
                group.crew.close(now)
        finally:
            cancel(names)  # one command for all; what follows would cancel one by one
            for group in self._groups.values():
                group.close()
            cancel(names)  # one that was being submitted meanwhile
            self._open.close()


class _Group:
    """One group's jobs, the scheduler that their workers speak to, and the connection to it."""

    def __init__(
        self, profile: Profile, group: str, name: str, folder: Path | None, say: Callable[[str], None]
    ) -> None:
        self._asked, self._name = profile.groups()[group], name
        # On a file system that the nodes share, or Slurm cannot start the jobs; sbatch's own default is here as well.
        self._logs = (folder.resolve() / "logs" if folder is not None else Path.cwd()) / name
        self._expected = expect(folder)
        self._cluster: Any = None
        self._client: Any = None
        self._crew: Crew | None = None
        try:
            self._cluster = _cluster(self._asked, profile.processes(group), name, self._logs)
            self._client = connect(self._cluster, _CONNECT)
            self._jobs = Jobs(self._cluster, self._asked, name, self._logs, lambda: self.crew.longest, say)
            self._crew = Crew(
                self._client,
                sort=lambda workers: {group: [worker for worker in workers if self._jobs.last(worker)]},
                expected=self._expected,
                expected_workers=lambda _: self._asked.jobs * profile.processes(group),
                awaited=self._awaited,
                patience=profile.patience,
                say=say,
                tend=self._tend,
            )
            self._client.sync(self._jobs.fill)
            self._crew.start()
        except BaseException:
            cancel([name])
            self.close()
            raise

    @property
    def crew(self) -> Crew:
        assert self._crew is not None
        return self._crew

    async def _tend(self, workers: Sequence[Worker]) -> None:
        await self._jobs.tend(workers, self.crew.busy)

    def _awaited(self, group: str) -> str:
        where = f" in the partition {self._asked.partition}" if self._asked.partition else ""
        return f"Slurm to start one of {self._asked.jobs} {group} jobs{where} (squeue --name {self._name})"

    def close(self) -> None:
        if self._crew is not None:
            self._crew.close(now=True)
        self._expected.withdraw()
        # Dask complains of jobs that are cancelled already; they are what we want gone.
        with contextlib.suppress(Exception):
            if self._client is not None:
                self._client.close()
        with contextlib.suppress(Exception):
            if self._cluster is not None:
                self._cluster.close(timeout=60)
        shutil.rmtree(self._logs / _KEYS, ignore_errors=True)
        if self._crew is not None and not self._crew.trouble and not self._jobs.trouble:
            shutil.rmtree(self._logs, ignore_errors=True)  # they tell of nothing
            with contextlib.suppress(OSError):
                self._logs.parent.rmdir()


def _cluster(group: WorkerGroup, processes: int, name: str, logs: Path) -> Any:
    """Return dask-jobqueue's cluster of a group, without jobs yet.

    Raises:
        EngineError: the interface is unknown, or no port can be had.
    """
    dask, jobqueue = import_cluster("dask"), import_cluster("dask_jobqueue")
    # Which job is lost is slurm_jobs' to say; this would cancel one whose only worker is being restarted.
    dask.config.set({"distributed.deploy.lost-worker-timeout": "3650 days"})
    exports = [f"export {key}={value}" for key, value in _ENVIRONMENT.items()]
    directives = ["--no-requeue", *([f"--gres={group.gres}"] if group.gres else []), *group.directives]
    try:
        return jobqueue.SLURMCluster(
            name=name,
            job_name=name,
            cores=processes,  # of which dask-jobqueue makes the threads of each process: one
            processes=processes,
            job_cpu=group.cores,
            memory=group.memory,
            queue=group.partition,
            account=group.account,
            walltime=group.walltime,
            interface=group.interface,
            local_directory=group.local_directory or "${TMPDIR:-/tmp}",
            job_script_prologue=[*exports, *group.prologue],
            job_extra_directives=directives,
            log_directory=str(logs),
            # exec: Slurm then ends the workers themselves, not only the shell that waits for them.
            python=f"exec {shlex.quote(group.python or sys.executable)}",
            death_timeout=DEATH_TIMEOUT,
            nanny=True,
            # A unit that kills its worker comes back at once; the schedule decides whether it is tried again.
            # A worker that says nothing may be deep in native code; one whose node is gone loses its connection.
            scheduler_options={
                "allowed_failures": 0,
                "worker_ttl": "30 minutes",
                "dashboard": False,
                "dashboard_address": ":0",
            },
            silence_logs="critical",
            security=_own_keys(logs / _KEYS),
            protocol="tls://",
        )
    except EngineError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise EngineError(f"no Dask scheduler can be started here ({' '.join(str(error).split())})") from None


def _own_keys(folder: Path) -> Any:
    """Return what lets this run's workers alone speak to its scheduler, to which whoever reaches it could give orders.

    The key lies in a file that only this user can read, and goes with the cluster.
    """
    distributed = import_cluster("distributed")
    import_cluster("cryptography")
    made = distributed.Security.temporary().get_tls_config_for_role("scheduler")
    folder.mkdir(parents=True, mode=0o700)
    paths = {name: folder / f"{name}.pem" for name in ("ca_file", "cert", "key")}
    for name, path in paths.items():
        path.touch(mode=0o600)
        path.write_text(made[name])
    roles = ("scheduler", "worker", "client")
    of_roles = {f"tls_{role}_{name}": str(paths[name]) for role in roles for name in ("cert", "key")}
    return distributed.Security(require_encryption=True, tls_ca_file=str(paths["ca_file"]), **of_roles)
