"""The commands ``train`` and ``train-grid``: arguments in, one call, lines out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli_options import Device, DeviceOption, TrustCode

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
    trust_code: TrustCode = False,
) -> None:
    """Train a completion network. A run that was stopped resumes to the same weights.

    Ctrl-C lets the step end and writes the resume file. Under torchrun, processes share each batch.
    """
    from completion.configuration import load_config
    from completion.train import train as carry_out

    overrides: dict[str, Any] = {} if not pairs else {"pairs": [str(path) for path in pairs]}
    folder = carry_out(
        load_config(config, **overrides), out, device=device.value, resume=not fresh, trust_code=trust_code
    )
    if os.environ.get("RANK", "0") == "0":  # of torchrun's processes, the one that speaks
        print(f"checkpoint {folder}")


@app.command("train-grid", rich_help_panel=PANEL)
def train_grid(
    file: Annotated[Path, typer.Argument(help="The grid file (YAML): configs/training/sanity_grid.yaml.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the grid; each run gets one below it.")],
    evaluate: Annotated[
        list[Path] | None, typer.Option("--evaluate", help="Held-out pair files, instead of those it names.")
    ] = None,
    pairs: Annotated[list[Path] | None, typer.Option("--pairs", help="Training pairs, instead of the file's.")] = None,
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, help="Runs at a time, instead of the file's.")] = None,
    device: DeviceOption = Device.auto,
    trust_code: TrustCode = False,
) -> None:
    """Train a grid of runs, evaluate each on held-out pairs, and put them into one table and one plot.

    What is finished is left alone. Exit status 1: some runs failed; the table names them.
    """
    from completion.grid import carry_out, load_grid
    from pipeline.console_checkpoint import show_grid

    grid = load_grid(file, pairs=pairs, evaluate=evaluate, jobs=jobs)
    result = carry_out(grid, out, device=device.value, trust_code=trust_code, say=lambda line: print(line, flush=True))
    show_grid(result.rows)
    for path in result.written:
        print(f"written    {path}")
    if result.failed:
        raise typer.Exit(1)
