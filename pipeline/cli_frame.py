"""``grasp-utility frame``: one image of the user's own. Arguments in, one call, lines out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli_options import Device, DeviceOption, TrustCode

app = typer.Typer()


@app.command(rich_help_panel="Main job")
def frame(
    depth: Annotated[Path, typer.Option("--depth", help="Depth image: PNG (16 bit), .npy or .npz (metres).")],
    out: Annotated[Path, typer.Option("--out", help="Folder for picture, clouds and grasps.")],
    intrinsics: Annotated[
        str | None, typer.Option("--intrinsics", help="fx,fy,cx,cy, or a file: 3x3 .npy/.txt, or meta.mat.")
    ] = None,
    mask: Annotated[
        Path | None, typer.Option("--mask", help="Object labels or a workspace mask; without: table removal.")
    ] = None,
    color: Annotated[Path | None, typer.Option("--color", help="Colour image, for the picture.")] = None,
    depth_scale: Annotated[float | None, typer.Option("--depth-scale", help="Depth units a metre.")] = None,
    checkpoint: Annotated[
        str, typer.Option("--checkpoint", help="Completion network: a folder or a shipped name; 'partial': none.")
    ] = "pcn-qal",
    generator: Annotated[
        str, typer.Option("--generator", help="Grasp generator: antipodal, graspnet_baseline or a plug-in's name.")
    ] = "antipodal",
    weights: Annotated[
        Path | None, typer.Option("--weights", help="The generator's weights, where it is a network.")
    ] = None,
    best: Annotated[
        int | None,
        typer.Option("--best", min=1, help="Draw so many of all grasps, after suppression, not a few of each object."),
    ] = None,
    device: DeviceOption = Device.auto,
    trust_code: TrustCode = False,
) -> None:
    """Complete, grasp and draw one RGB-D image of your own. There is no truth to score against, and it says so."""
    from pipeline.frame import FrameOptions
    from pipeline.frame import run as carry_out

    options = FrameOptions(
        depth,
        out,
        checkpoint,
        intrinsics,
        mask,
        color,
        depth_scale,
        device=device.value,
        generator=generator,
        generator_parameters={} if weights is None else {"weights": weights},
        best=best,
        trust_code=trust_code,
    )
    result = carry_out(options)
    elsewhere = result.summary["grasps_on_no_object"]
    aside = f" ({elsewhere} of them on no object, not drawn)" if elsewhere else ""
    print(f"objects    {len(result.partial.object_ids)}, grasps {len(result.grasps)}{aside}")
    print(f"picture    {result.picture}")
    for note in (*result.summary["caveats"], result.summary["note"]):
        print(f"note       {note}")
