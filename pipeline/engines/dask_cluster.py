"""``--engine dask --scheduler ADDRESS``: the workers of a Dask cluster that somebody has started.

Workers that were started with ``--resources GPU=1`` are the group gpu; the others do everything else (all do, where
every one has a GPU). The cluster is left as it was found: nothing is installed, set or restarted in it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from pipeline.engines import CPU, GPU, EngineError
from pipeline.engines.dask_client import Worker, connect, import_cluster, quiet
from pipeline.engines.dask_crew import Crew
from pipeline.engines.worker_check import expect

_CONNECT = 15.0


class DaskEngine:
    """The workers of a running Dask cluster; see :class:`pipeline.engines.Engine`.

    Workers that come later are taken as well; one that does not fit is left out then, and said.

    Args:
        scheduler: its address, for example ``tcp://node1:8786``.
        folder: the run's; workers must see it. None: not asked for.
        say: is told what a person should know.
        patience: seconds without a single worker after which the run is given up.

    Raises:
        EngineError: nobody answers there, or workers do not fit; the message names the remedy.
    """

    name = "dask"

    def __init__(
        self, scheduler: str, folder: Path | None = None, *, say: Callable[[str], None] = print, patience: float = 300.0
    ) -> None:
        import_cluster("distributed")
        self._address = scheduler
        expected = expect(folder)
        self._gpu_seen = False
        self._open = contextlib.ExitStack()
        try:
            self._open.enter_context(quiet())
            self._client = connect(scheduler, _CONNECT)
            self._open.callback(self._client.close)
            self._crew = Crew(
                self._client,
                sort=self._sort,
                expected=expected,
                expected_workers=lambda group: 1,
                awaited=self._awaited,
                patience=patience,
                say=say,
            )
            self._begin()
        except BaseException:
            expected.withdraw()
            self._open.close()
            raise

    def _begin(self) -> None:
        try:
            self._crew.start()
        except EngineError:
            raise
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise EngineError(
                f"the scheduler at {self._address} cannot be asked ({reason}); start it in the environment that "
                "grasp-utility is installed in"
            ) from None
        if self._crew.unfit:
            why = next(iter(self._crew.unfit.values()))
            raise EngineError(
                f"{len(self._crew.unfit)} of the workers at {self._address} cannot be used: {why}; start them with "
                f"`{self._command()}` in the environment that this runs in"
            )

    def _command(self) -> str:
        return f"dask worker {self._address} --nthreads 1 --nworkers N"

    def _awaited(self, group: str) -> str:
        resources = " --resources GPU=1" if group == GPU else ""
        return f"a {group} worker at {self._address}; start some with `{self._command()}{resources}`"

    def _sort(self, workers: Sequence[Worker]) -> dict[str, list[Worker]]:
        with_gpu = [worker for worker in workers if worker.gpu]
        self._gpu_seen = self._gpu_seen or bool(with_gpu)
        return {CPU: [worker for worker in workers if not worker.gpu] or with_gpu, GPU: with_gpu}

    def groups(self) -> frozenset[str]:
        return frozenset({CPU, GPU} if self._gpu_seen else {CPU})

    def capacity(self, group: str) -> int:
        return self._crew.count(group)

    def submit(self, group: str, function: Callable[[Any], Any], argument: Any) -> Future[Any]:
        return self._crew.submit(group, function, argument)

    def close(self, now: bool = False) -> None:
        """Leave the cluster. A unit that is dropped runs to its end there, and harms nobody: its worker is not ours."""
        self._crew.close(now)
        self._open.close()
