"""``grasp-utility dump-export``: arguments in, one call, lines out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command("dump-export", rich_help_panel="Main job")
def dump_export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new or an empty folder.")],
    arm: Annotated[str, typer.Option("--arm", help="A folder below RUN/arms.")],
    generator: Annotated[str | None, typer.Option("--generator", help="Generator of the run; default: first.")] = None,
) -> None:
    """Write an arm's grasps in the official layout, one file a view, as graspnetAPI reads them."""
    from pipeline.dump_export import export_dump
    from pipeline.dump_result import counted

    done = export_dump(run, arm, out, generator)
    print(
        f"dump       {out}: {counted(done.views, 'view')} of {counted(done.units, 'scene')} by camera, {done.generator}"
    )
    for folder in done.unfinished:
        print(f"note       {folder}: not finished; left out")
