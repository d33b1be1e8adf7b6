"""``grasp-utility trial``: one grasp's trial as a picture strip. Arguments in, one call, lines out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command(rich_help_panel="Main job")
def trial(
    where: Annotated[Path, typer.Argument(help="A run folder or its experiment file; or a dump (then --dataset).")],
    scene: Annotated[int, typer.Option("--scene", min=0, help="Scene number.")],
    view: Annotated[int, typer.Option("--view", min=0, max=255, help="View number.")],
    out: Annotated[Path, typer.Option("--out", help="The picture strip (PNG) to be.")],
    rank: Annotated[int, typer.Option("--rank", min=0, help="Which grasp, by confidence after suppression.")] = 0,
    arm: Annotated[str | None, typer.Option("--arm", help="Arm of the run; default: its first.")] = None,
    generator: Annotated[str | None, typer.Option("--generator", help="Generator of the run; default: first.")] = None,
    camera: Annotated[
        str | None, typer.Option("--camera", help="realsense or kinect; default: the run's first, or realsense.")
    ] = None,
    dataset: Annotated[Path | None, typer.Option("--dataset", help="Dataset root; default: the run's.")] = None,
    cache: Annotated[Path | None, typer.Option("--cache", help="Folder for files derived from models.")] = None,
    friction: Annotated[float | None, typer.Option("--friction", min=0.0, help="Instead of the run's.")] = None,
    isolation: Annotated[bool, typer.Option("--isolation", help="The object alone, without its scene.")] = False,
    gif: Annotated[Path | None, typer.Option("--gif", help="The whole trial as a moving picture, too.")] = None,
) -> None:
    """Try one grasp in physics and draw it: approach, closed, lifted, shaken. Renders without a display (EGL)."""
    from pipeline.physics_trial import TrialRequest, carry_out

    request = TrialRequest(
        where, scene, view, rank, out, arm, generator, camera, dataset, cache, friction, isolation, gif
    )
    result = carry_out(request)
    print(f"trial      {result.caption}")
    print(f"picture    {out}")
    if gif is not None:
        print(f"moving     {gif}")
