"""The command that compares runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command(rich_help_panel="Main job")
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; the first is what the others are held against.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for tables and report.")] = Path("runs/comparison"),
    pair: Annotated[
        list[str] | None,
        typer.Option("--pair", help="A,B: report the difference A - B of these arms; may be given again."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Compare runs that differ in protocol or input; stamps the report.")
    ] = False,
) -> None:
    """Compare arms of runs made at different times or places: the same tables and report as of one run."""
    from rich.console import Console

    from pipeline import compare as stage
    from pipeline import report, summary
    from pipeline.console import print_answer, print_summary

    pairs = []
    for text in pair or ():
        names = [part.strip() for part in text.split(",")]
        if len(names) != 2 or not all(names) or names[0] == names[1]:
            raise ValueError(f"--pair {text!r}: give two arms with a comma between, for example pcn-qal,pcn-cd")
        pairs.append((names[0], names[1]))
    folder = stage.run(runs, out.resolve(), pairs=pairs, force=force, say=lambda line: print(line, flush=True))
    content = summary.read(folder)
    if content is not None:
        console = Console(highlight=False)
        print_summary(content, console)
        print_answer(report.read_answer(folder), console)
    print(f"tables     {folder.tables}")
    print(f"report     {folder.report}")
