"""The commands ``checkpoint ...``: arguments in, calls to the rooms, lines out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli_options import Device, DeviceOption, TrustCode

app = typer.Typer(help="Look at checkpoints, import public ones, measure them.", no_args_is_help=True)


@app.command("inspect")
def checkpoint_inspect(
    path: Annotated[str, typer.Argument(help="A checkpoint folder, the name of a shipped one, or somebody's file.")],
    trust_code: TrustCode = False,
) -> None:
    """Say what a checkpoint is: network, size, training, metrics; of a file, how it could be imported."""
    from completion import checkpoint, importers
    from pipeline import console

    if Path(path).is_file():
        console.show_mapping(importers.inspect_file(path))
    else:
        console.show_mapping(checkpoint.inspect(path, trust_code))


@app.command("import")
def checkpoint_import(
    file: Annotated[Path, typer.Argument(help="Somebody's checkpoint: a torch file or safetensors; never unpickled.")],
    family: Annotated[str, typer.Option("--family", help="Who saved it: pointr, mvp, snowflakenet, dlr or qal.")],
    network: Annotated[str, typer.Option("--network", help="Which network it is: pcn, topnet, pointr, ...")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the checkpoint to be.")],
    frame: Annotated[
        str | None,
        typer.Option("--frame", help="Frame it expects: canonical, table or camera. Default: the family's."),
    ] = None,
    normalisation: Annotated[
        str | None,
        typer.Option(
            "--normalisation",
            help="How its training data was: oracle (box diagonal 1 of the true shape: PCN, MVP), oracle-radius "
            "(ShapeNet-55), partial, partial-radius. Default: the family's.",
        ),
    ] = None,
    merge: Annotated[str, typer.Option("--merge", help="replace or append.")] = "replace",
    input_points: Annotated[
        int | None, typer.Option("--input-points", min=1, help="Points it is shown. Default: as published.")
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", help="KEY=VALUE of the network, where shapes do not tell; may be repeated."),
    ] = None,
    averaged: Annotated[
        bool, typer.Option("--ema/--no-ema", help="Take averaged weights where there are some.")
    ] = True,
) -> None:
    """Turn a public checkpoint into one of ours: keys, shapes, and what the network expects of its input."""
    from completion.importers import import_checkpoint

    made = import_checkpoint(
        file,
        family,
        network,
        out,
        frame=frame,
        normalisation=normalisation,
        merge=merge,
        input_points=input_points,
        parameters=_parameters(parameter or []),
        averaged=averaged,
    )
    config = made.config
    print(f"checkpoint {made.folder}")
    print(f"network    {network} {config['network']['parameters']}, as {config['imported']['published']} holds it")
    if made.inferred:
        print(f"inferred   {made.inferred}, from the shapes")
    print(f"points     {config['input_points']} -> {config['output_points']}; merge {config['merge']}")
    print(f"input      frame {config['frame']}, trained by normalisation {config['trained_normalisation']}")
    for caveat in made.caveats:
        print(f"note       {caveat}")


def _parameters(given: list[str]) -> dict[str, Any]:
    """``KEY=VALUE`` texts -> parameters; values as in YAML."""
    import yaml

    result: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ValueError(f"--parameter {text!r}: write KEY=VALUE, for example num_coarse=512")
        try:
            result[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ValueError(f"--parameter {text!r}: the value is not YAML") from None
    return result


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
