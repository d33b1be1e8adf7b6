"""``grasp-utility status``: where a run stands. Arguments in, one call, lines out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli_options import TrustCode

app = typer.Typer()


@app.command(rich_help_panel="Main job")
def status(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder: what `--out` named.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="The same for programs (pipeline.run_status says how).")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="From the run folder alone: do not look for what is stale.")
    ] = False,
    trust_code: TrustCode = False,
) -> None:
    """Where a run stands, also while it works, from any machine that sees its folder. Writes nothing."""
    from pipeline import console_run
    from pipeline.run_status import read_status

    found = read_status(run.resolve(), quick=quick, trust_code=trust_code)
    if as_json:
        print(json.dumps(found.content(), indent=1))
    else:
        console_run.show_status(found)
