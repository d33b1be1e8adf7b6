"""``grasp-utility view``: any view of a run, interactive. Arguments in, one call, lines out."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command(rich_help_panel="Main job")
def view(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    scene: Annotated[int, typer.Option("--scene", min=0, help="Scene number.")],
    number: Annotated[int, typer.Option("--view", min=0, max=255, help="View number.")],
    camera: Annotated[
        str | None, typer.Option("--camera", help="realsense or kinect; default: the run's first.")
    ] = None,
    generator: Annotated[str | None, typer.Option("--generator", help="Generator of the run; default: first.")] = None,
    arm: Annotated[
        list[str] | None,
        typer.Option("--arm", help="A folder below RUN/arms; repeat for more. Default: the experiment's arms."),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option("--save", help="Write a page that any browser opens (.html), or .viser; nothing is served."),
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Of the viewer; 0: any that is free.")] = 8080,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser here.")] = True,
) -> None:
    """Look at a view of a run: observed, completed and true points, and the kept grasps coloured by outcome."""
    from pipeline import viewer
    from pipeline.view import ViewRequest, collect

    viewer.load_viser()
    layers = collect(ViewRequest(run, scene, number, camera, tuple(arm or ()), generator))
    print(f"view       {layers.title}")
    for note in layers.notes:
        print(f"note       {note}")
    if save is not None:
        viewer.save(layers, save)
        print(f"saved      {save}")
        return
    try:
        viewer.serve(layers, port, browser, _say, threading.Event())
    except KeyboardInterrupt:
        print("viewer     closed")


def _say(address: str) -> None:
    print(f"viewer     {address}; Ctrl-C closes it", flush=True)
