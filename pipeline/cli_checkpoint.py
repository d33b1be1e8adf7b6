"""The commands ``checkpoint ...``: arguments in, calls to the rooms, lines out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli_options import Device, DeviceOption

app = typer.Typer(help="Look at checkpoints.", no_args_is_help=True)


@app.command("inspect")
def checkpoint_inspect(
    path: Annotated[str, typer.Argument(help="A checkpoint folder, or the name of a shipped one.")],
) -> None:
    """Say what a checkpoint is: network, size, training, metrics."""
    from completion import checkpoint
    from pipeline import console

    console.show_mapping(checkpoint.inspect(path))


@app.command("evaluate")
def checkpoint_evaluate(
    path: Annotated[Path, typer.Argument(help="A checkpoint folder; its card gets the figures.")],
    pairs: Annotated[Path, typer.Option("--pairs", help="Pair file of objects that the network never saw.")],
    training: Annotated[list[Path], typer.Option("--training", help="The pair files it was trained on.")],
    device: DeviceOption = Device.auto,
) -> None:
    """Measure a checkpoint on novel objects, beside the partial cloud and the nearest training shape."""
    from completion.evaluate import evaluate, verdicts, write_evaluation

    table = evaluate(path.resolve(), pairs, training, device=device.value)
    card = write_evaluation(path.resolve(), table, pairs)
    for sentence in verdicts(table):
        print(sentence.replace("*", ""))
    print(f"card       {card}")
