"""The command ``train``: arguments in, one call, lines out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli_options import Device, DeviceOption

app = typer.Typer()
PANEL = "Data and networks"


@app.command(rich_help_panel=PANEL)
def train(
    config: Annotated[
        Path, typer.Argument(help="The training file (YAML), for example configs/training/pcn_qal.yaml.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of the checkpoint to be.")],
    pairs: Annotated[list[Path] | None, typer.Option("--pairs", help="Pair files, instead of those it names.")] = None,
    device: DeviceOption = Device.auto,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew instead of resuming.")] = False,
) -> None:
    """Train a completion network. A run that was stopped resumes to the same weights."""
    from completion.configuration import load_config
    from completion.train import train as carry_out

    overrides: dict[str, Any] = {} if not pairs else {"pairs": [str(path) for path in pairs]}
    folder = carry_out(load_config(config, **overrides), out, device=device.value, resume=not fresh)
    print(f"checkpoint {folder}")
