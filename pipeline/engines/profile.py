"""A profile for ``--engine slurm``: what is asked of Slurm for each group of workers. YAML in, frozen models out."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline.engines import CPU, GPU, EngineError

_WALLTIME = re.compile(r"(?:(\d+)-)?(\d{1,5})(?::(\d{2}))?(?::(\d{2}))?")
_MEMORY = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]i?B)", re.IGNORECASE)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WorkerGroup(_Frozen):
    """The jobs of one group, all alike. A job is one node's share; its worker processes carry out one unit each.

    Attributes:
        jobs: how many are kept in the queue; one that vanishes is replaced.
        cores: of a job.
        processes: worker processes of a job; left out: as many as cores, and one in the group gpu. Each computes with
            one thread.
        memory: of a job, for example ``32 GiB``. A worker that exceeds its equal part of it is ended, with its unit.
        partition, account: as ``sbatch`` wants them; left out: Slurm's own defaults.
        walltime: of a job, as ``sbatch`` wants it (``HH:MM:SS``, ``D-HH:MM:SS``). Workers get no unit that would
            outlast it, and a job that nears its end is replaced.
        gres: for example ``gpu:1``; one GPU a job.
        interface: the network interface over which driver and workers meet, for example ``ib0``; left out: the default.
        local_directory: where workers put their scratch files; left out: the temporary folder of their node.
        prologue: lines of shell before the workers start, such as ``module load …``.
        directives: further options of ``sbatch``, such as ``--constraint=a100``.
        python: the interpreter with grasp-utility in it, on the nodes; left out: the one that runs this.
    """

    jobs: int = Field(1, ge=1)
    cores: int = Field(1, ge=1)
    processes: int | None = Field(None, ge=1)
    memory: str
    partition: str | None = None
    account: str | None = None
    walltime: str = "04:00:00"
    gres: str | None = None
    interface: str | None = None
    local_directory: str | None = None
    prologue: tuple[str, ...] = ()
    directives: tuple[str, ...] = ()
    python: str | None = None

    @field_validator("walltime", mode="before")
    @classmethod
    def _in_minutes(cls, walltime: Any) -> Any:
        return str(walltime) if isinstance(walltime, int) else walltime

    @field_validator("walltime")
    @classmethod
    def _known_walltime(cls, walltime: str) -> str:
        if _seconds(walltime) < 60:
            raise ValueError(f"{walltime!r} is no walltime of a minute or more; write HH:MM:SS, for example '04:00:00'")
        return walltime

    @field_validator("memory")
    @classmethod
    def _known_memory(cls, memory: str) -> str:
        if not _MEMORY.fullmatch(memory.strip()):
            raise ValueError(f"{memory!r} is no amount of memory; write for example 32 GiB")
        return memory.strip()

    @field_validator("directives")
    @classmethod
    def _options(cls, directives: tuple[str, ...]) -> tuple[str, ...]:
        plain = tuple(line.removeprefix("#SBATCH").strip() for line in directives)
        for line in plain:
            if not line.startswith("-"):
                raise ValueError(f"{line!r} is no option of sbatch; write for example --constraint=a100")
        return plain

    @model_validator(mode="after")
    def _one_gpu_a_job(self) -> WorkerGroup:
        if self.processes is not None and self.processes > self.cores:
            raise ValueError(f"{self.processes} processes on {self.cores} cores; give each a core of its own")
        if self.gres is not None and re.fullmatch(r"gpu(:[^:]+)?:([2-9]|\d\d+)", self.gres):
            raise ValueError(
                f"gres: {self.gres} gives a job several GPUs, of which it would use one; ask for more jobs"
            )
        return self

    def seconds(self) -> float:
        """Return the walltime in seconds."""
        return _seconds(self.walltime)


class Profile(_Frozen):
    """What is asked of Slurm.

    Attributes:
        format_version: of this file; 1.
        cpu: the workers that do everything but learned completion.
        gpu: the workers that complete, each with a GPU; left out: the others complete too, on their cores.
        patience: seconds without a single worker of a group after which the run gives up.
    """

    format_version: Literal[1]
    cpu: WorkerGroup
    gpu: WorkerGroup | None = None
    patience: float = Field(3600.0, gt=0)

    def groups(self) -> dict[str, WorkerGroup]:
        """Return what is asked for, by group of workers."""
        return {CPU: self.cpu} if self.gpu is None else {CPU: self.cpu, GPU: self.gpu}

    def processes(self, group: str) -> int:
        """Return the worker processes of one job of a group."""
        asked = self.groups()[group]
        return asked.processes or (1 if group == GPU else asked.cores)


def _seconds(walltime: str) -> float:
    """Return a walltime in seconds; 0 where it is none."""
    match = _WALLTIME.fullmatch(walltime.strip())
    if match is None:
        return 0.0
    days, first, second, third = match.groups()
    if days is not None or third is not None:  # D-HH[:MM[:SS]], HH:MM:SS
        return int(days or 0) * 86400.0 + int(first) * 3600.0 + int(second or 0) * 60.0 + int(third or 0)
    return int(first) * 60.0 + int(second or 0)  # MM[:SS]


class _Loader(yaml.SafeLoader):
    """Safe YAML without numbers in base 60: sbatch would take the 86400 that 24:00:00 else becomes for minutes."""


def _number(loader: _Loader, node: yaml.ScalarNode) -> int | str:
    return str(node.value) if ":" in node.value else loader.construct_yaml_int(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _number)


def load_profile(path: Path) -> Profile:
    """Read a profile.

    Raises:
        EngineError: naming the file, the key and, for an unknown key, the nearest known one.
    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise EngineError(f"{path}: cannot be read ({error.strerror or error}); see configs/slurm/cpu.yaml") from None
    except UnicodeDecodeError:
        raise EngineError(f"{path}: not a text file; see configs/slurm/cpu.yaml") from None
    except yaml.YAMLError as error:
        raise EngineError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise EngineError(f"{path}: a profile is a mapping; see configs/slurm/cpu.yaml")
    try:
        return Profile.model_validate(raw)
    except ValidationError as error:
        raise EngineError(f"{path}: " + "; ".join(_explain(item) for item in error.errors())) from None


def _explain(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        *parents, key = error["loc"]
        known = list((WorkerGroup if parents else Profile).model_fields)
        match = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
        return f"unknown key {where!r}" + (f"; did you mean {match[0]!r}?" if match else f"; known: {', '.join(known)}")
    if error["type"] == "missing":
        return f"missing key {where!r}"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
