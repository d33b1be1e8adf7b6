"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


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
