"""How a run is carried out, as the command line says it: nothing here changes what comes out."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.engines import GPU, Engine, EngineError
from pipeline.selection import SceneUnit

ENGINES = ("local", "dask", "slurm")


@dataclass(frozen=True)
class Execution:
    """How a run is carried out.

    Attributes:
        engine: one of :data:`ENGINES`.
        workers: processes of the engine ``local``; 0 makes every unit in the calling process.
        scheduler: address of a running Dask scheduler.
        profile: file that says what to ask Slurm for.
        retries: further tries at a unit that fails.
        store: folder of finished units that runs share.
        packed: whether a unit's files of single views are joined in one.
        share: ``(I, N)``: make only every N-th scene's units, from the I-th on, and no tables: for job arrays.
    """

    engine: str = "local"
    workers: int = 0
    scheduler: str | None = None
    profile: Path | None = None
    retries: int = 1
    store: Path | None = None
    packed: bool = False
    share: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise EngineError(f"--engine {self.engine}: unknown; one of {', '.join(ENGINES)}")
        for needed, value, engine in (("--scheduler", self.scheduler, "dask"), ("--profile", self.profile, "slurm")):
            if value is not None and self.engine != engine:
                raise EngineError(f"{needed} goes with --engine {engine}")
            if value is None and self.engine == engine:
                raise EngineError(f"--engine {engine} needs {needed}")
        if self.retries < 0:
            raise EngineError("--retries must not be negative")

    def of_share(self, units: list[SceneUnit]) -> list[SceneUnit]:
        """Return the scenes of this share: all where there is none."""
        if self.share is None:
            return units
        index, count = self.share
        return units[index::count]


def parse_share(text: str) -> tuple[int, int]:
    """Read ``I/N``, I from 0 to N - 1.

    Raises:
        EngineError: saying what was expected.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if not found or not int(found[1]) < int(found[2]):
        raise EngineError(f"--share {text}: expected I/N with I from 0 to N - 1, for example 0/8")
    return int(found[1]), int(found[2])


def make_engine(execution: Execution, run: Path, device: str, say: Callable[[str], None]) -> Engine:
    """Start an engine.

    Args:
        execution: which.
        run: the run's folder, which all workers must see.
        device: ``auto``, ``cpu`` or ``cuda``: whether GPUs are wanted.
        say: is told what it waits for.

    Raises:
        EngineError: it cannot be had.
    """
    if execution.engine == "dask":
        from pipeline.engines.dask_cluster import DaskEngine

        return DaskEngine(execution.scheduler or "", run, say=say)
    if execution.engine == "slurm":
        from pipeline.engines.slurm import SlurmEngine

        assert execution.profile is not None  # Execution has seen to it
        return SlurmEngine(execution.profile, run, say=say)
    from pipeline.engines.local import HereEngine, LocalEngine

    if execution.workers == 0:
        return HereEngine()
    return LocalEngine(execution.workers, _gpus(device))


def device_of(engine: Engine, asked: str) -> str:
    """Return where networks run: ``cpu`` or ``cuda``.

    Raises:
        EngineError: ``cuda`` is asked for, and the engine has no GPU.
    """
    if engine.name == "local":
        from completion.checkpoint import resolve_device

        return str(resolve_device(asked).type)
    if asked == "cuda" and GPU not in engine.groups():
        raise EngineError(
            f"--device cuda: the engine {engine.name} has no GPU workers; add a gpu section to the profile, or start "
            "workers with `dask worker ADDRESS --nthreads 1 --resources GPU=1`"
        )
    return "cuda" if GPU in engine.groups() and asked != "cpu" else "cpu"


def _gpus(device: str) -> int:
    if device == "cpu":
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
