"""The commands ``checkpoint ...``: arguments in, calls to the rooms, lines out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli_options import Device, DeviceOption, TrustCode
from pipeline.progress import told_progress

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
    paths: Annotated[list[Path], typer.Argument(help="Checkpoint folders, or names of shipped ones.")],
    pairs: Annotated[
        Path | None, typer.Option("--pairs", help="Pair file of objects that the networks never saw.")
    ] = None,
    training: Annotated[
        list[Path] | None,
        typer.Option("--training", help="The pair files they were trained on, for the retrieval baseline."),
    ] = None,
    benchmark: Annotated[
        str | None, typer.Option("--benchmark", help="Instead of pairs: mvp, pcn, shapenet55 or completion3d.")
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help="The benchmark's folder.")] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Of the benchmark. Default: test (completion3d: val).")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", help="KEY=VALUE of the benchmark's reader, for example difficulty=hard, subset=34."),
    ] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", min=1, help="Of the benchmark, evenly spaced, for a trial. Default: all.")
    ] = None,
    all_metrics: Annotated[bool, typer.Option("--all-metrics", help="DCD and EMD too; about a second a pair.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Write the table too: .csv, .md or .json.")] = None,
    trust_code: TrustCode = False,
    device: DeviceOption = Device.auto,
) -> None:
    """Measure checkpoints on novel objects, or on a benchmark in its own metrics; several make one table.

    Checkpoints of the same loss and network are one row: mean and spread over seeds.
    With one folder, its card too gets the figures.
    """
    from completion.comparison import check_output

    if (pairs is None) == (benchmark is None):
        raise ValueError("name what to measure on: --pairs FILE, or --benchmark NAME with --data ROOT; one of the two")
    if out is not None:
        check_output(out)
    idle = {"--data": data, "--split": split, "--option": option, "--samples": samples}
    for flag, value in (idle if benchmark is None else {"--training": training}).items():
        if value:
            raise ValueError(f"{flag} goes with {'--benchmark' if benchmark is None else '--pairs'}; leave it out")
    if benchmark is None:
        _on_pairs(paths, pairs, training or [], all_metrics, out, trust_code, device.value)
        return
    if data is None:
        raise ValueError(f"--benchmark {benchmark}: name its folder with --data")
    from completion.benchmark_evaluation import evaluate_benchmark, write_results
    from pipeline.console_checkpoint import show_benchmarks

    results = []
    for path in paths:
        with told_progress(path.name, "sample") as progress:
            results += evaluate_benchmark(
                path,
                benchmark,
                data,
                split,
                _parameters(option or []),
                samples,
                device=device.value,
                all_metrics=all_metrics,
                trust_code=trust_code,
                progress=progress,
            )
    show_benchmarks(results)
    if out is not None:
        print(f"table      {write_results(results, out)}")


def _on_pairs(
    paths: list[Path],
    pairs: Path | None,
    training: list[Path],
    all_metrics: bool,
    out: Path | None,
    trust_code: bool,
    device: str,
) -> None:
    from completion import checkpoint
    from completion.comparison import compare
    from completion.evaluate import verdicts, write_evaluation
    from pipeline.console_checkpoint import show_comparison

    assert pairs is not None
    with told_progress("evaluate", "checkpoint") as progress:
        comparison = compare(paths, pairs, training, 0, device, all_metrics, trust_code, progress)
    show_comparison(comparison)
    if len(paths) == 1:
        table = comparison.members[0].table
        for sentence in verdicts(table):
            print(sentence.replace("*", ""))
        if str(paths[0]) not in checkpoint.shipped():  # the cards of those are not the user's to change
            print(f"card       {write_evaluation(paths[0].resolve(), table, pairs)}")
    if out is not None:
        print(f"table      {comparison.write(out)}")
