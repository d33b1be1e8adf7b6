"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipeline.engine_options import Execution


class Device(StrEnum):
    """Where networks run."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


DeviceOption = Annotated[Device, typer.Option("--device", help="Where networks run; auto takes CUDA if there is one.")]
TrustCode = Annotated[
    bool,
    typer.Option("--trust-code", help="Import and run Python code that a checkpoint or file names (module:thing)."),
]


class EngineName(StrEnum):
    """Where units of work run."""

    local = "local"
    dask = "dask"
    slurm = "slurm"


_PANEL = "How it is carried out (nothing here changes what comes out)"
Workers = Annotated[
    int, typer.Option("--workers", min=0, help="Processes of this machine; 0 takes one a core.", rich_help_panel=_PANEL)
]
EngineOption = Annotated[
    EngineName,
    typer.Option(
        "--engine",
        help="local: processes of this machine; dask: a running cluster; slurm: jobs of their own.",
        rich_help_panel=_PANEL,
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option("--scheduler", help="Of --engine dask: its address, tcp://HOST:PORT.", rich_help_panel=_PANEL),
]
Profile = Annotated[
    Path | None,
    typer.Option(
        "--profile",
        help="Of --engine slurm: what to ask for, for example configs/slurm/cpu.yaml.",
        rich_help_panel=_PANEL,
    ),
]
Retries = Annotated[
    int, typer.Option("--retries", min=0, help="Further tries at a unit that fails.", rich_help_panel=_PANEL)
]
StoreFolder = Annotated[
    Path | None,
    typer.Option("--store", help="Folder of finished units that runs share.", rich_help_panel=_PANEL),
]
Pack = Annotated[
    bool, typer.Option("--pack", help="Join each unit's files of single views in one zip.", rich_help_panel=_PANEL)
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be made and why, and make nothing.")]
Share = Annotated[
    str | None,
    typer.Option(
        "--share",
        metavar="I/N",
        help="For job arrays: make only every N-th scene, from the I-th on (I from 0), and no tables.",
        rich_help_panel=_PANEL,
    ),
]


def execution(
    engine: EngineName,
    workers: int,
    scheduler: str | None,
    profile: Path | None,
    retries: int,
    store: Path | None,
    pack: bool,
    share: str | None = None,
) -> Execution:
    """Turn the options into what a run is told.

    Raises:
        EngineError: they do not go together.
    """
    from pipeline.engine_options import Execution, parse_share
    from pipeline.engines.local import default_workers

    return Execution(
        engine.value,
        workers or default_workers(),
        scheduler,
        profile,
        retries,
        None if store is None else store.resolve(),
        pack,
        None if share is None else parse_share(share),
    )
