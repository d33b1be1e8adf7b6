"""Commands: arguments in, calls to the rooms, lines out. No logic, and no heavy import before it is needed."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli_checkpoint import app as checkpoint_app
from pipeline.cli_compare import app as compare_app
from pipeline.cli_export import app as export_app
from pipeline.cli_frame import app as frame_app
from pipeline.cli_options import Workers
from pipeline.cli_run import app as run_app
from pipeline.cli_scoring import app as scoring_app
from pipeline.cli_scoring import number_list
from pipeline.cli_status import app as status_app
from pipeline.cli_store import app as store_app
from pipeline.cli_training import app as training_app
from pipeline.cli_trial import app as trial_app
from pipeline.cli_view import app as view_app
from pipeline.progress import told_progress

app = typer.Typer(
    name="grasp-utility",
    help="Does a better shape-completion loss give a robot better grasps?\n\n"
    "Start with [bold]grasp-utility demo[/bold]. An experiment file names a dataset and the arms to compare; "
    "[bold]run[/bold] carries it out, and each stage is a command of its own.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
)
dataset_app = typer.Typer(help="Make, check and turn datasets into training pairs.", no_args_is_help=True)
app.add_typer(dataset_app, name="dataset", rich_help_panel="Data and networks")
app.add_typer(checkpoint_app, name="checkpoint", rich_help_panel="Data and networks")
app.add_typer(store_app, name="store", rich_help_panel="Data and networks")
app.add_typer(run_app)
app.add_typer(status_app)
app.add_typer(frame_app)
app.add_typer(compare_app)
app.add_typer(scoring_app)
app.add_typer(export_app)
app.add_typer(trial_app)
app.add_typer(view_app)
app.add_typer(training_app)

INTERRUPTED, TERMINATED = 130, 128 + signal.SIGTERM


def main() -> None:
    """Run the command line: bad input ends in one line and status 2, Ctrl-C in one line and status 130.

    SIGTERM, by which batch systems end jobs, drops the units in progress and ends with status 143.
    """
    signal.signal(signal.SIGTERM, _terminated)
    try:
        app(standalone_mode=True)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer turns Ctrl-C into a silent exit
            _fail("interrupted; what is finished is kept, the same command goes on from there", INTERRUPTED)
        raise
    except (ValueError, OSError) as error:
        sys.exit(_fail(" ".join(str(error).split()), 2))


def _terminated(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise SystemExit(_fail("terminated; what is finished is kept, the same command goes on from there", TERMINATED))


def _fail(message: str, status: int) -> int:
    print(f"grasp-utility: {message}", file=sys.stderr)
    return status


@dataset_app.command("synthesize")
def dataset_synthesize(
    out: Annotated[Path, typer.Argument(help="Root of the dataset to be.")],
    preset: Annotated[str, typer.Option("--preset", help="sample, training or novel.")] = "sample",
    scenes: Annotated[
        str | None, typer.Option("--scenes", help="Numbers, such as 0-9,100; default: the preset's.")
    ] = None,
    views: Annotated[
        str | None, typer.Option("--views", help="Numbers to render, 0-255; default: the preset's.")
    ] = None,
    camera: Annotated[list[str] | None, typer.Option("--camera", help="realsense, kinect, or both (twice).")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of everything random.")] = 0,
    models: Annotated[Path | None, typer.Option("--models", help="A folder of meshes to use instead of ours.")] = None,
    unit: Annotated[str, typer.Option("--unit", help="Unit of those meshes: m or mm.")] = "m",
    workers: Workers = 0,
) -> None:
    """Make a dataset in GraspNet-1Billion's layout: objects by code, settled scenes, ray-cast views."""
    from pipeline.datasets.synthetic import PRESETS
    from pipeline.datasets.synthetic import synthesize as carry_out
    from pipeline.engines.local import default_workers

    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; one of {', '.join(PRESETS)}")
    overrides: dict[str, Any] = {"seed": seed, "models": models, "unit": unit}
    overrides |= {"scenes": number_list(scenes), "views": number_list(views), "cameras": tuple(camera or ()) or None}
    given = {key: value for key, value in overrides.items() if value is not None}
    with told_progress("synthesize", "step") as progress:
        carry_out(out, **{**vars(PRESETS[preset]), **given}, workers=workers or default_workers(), progress=progress)
    print(f"dataset    {out}", flush=True)


@dataset_app.command("check")
def dataset_check(
    root: Annotated[Path, typer.Argument(help="Root of a dataset in GraspNet-1Billion's layout.")],
    camera: Annotated[
        str | None, typer.Option("--camera", help="realsense or kinect; default: both that exist.")
    ] = None,
) -> None:
    """Report everything missing or broken in a dataset, by file."""
    from pipeline import console
    from pipeline.datasets.check import check_dataset

    with told_progress("check", "view") as progress:
        problems = check_dataset(root, camera, progress=progress)
    if console.show_check(root, problems):
        raise typer.Exit(1)


@dataset_app.command("pairs")
def dataset_pairs(
    root: Annotated[Path, typer.Argument(help="Root of a dataset in GraspNet-1Billion's layout.")],
    out: Annotated[Path, typer.Argument(help="The pair file (.npz) to be.")],
    split: Annotated[
        str, typer.Option("--split", help="train, test_seen, test_similar, test_novel or test.")
    ] = "train",
    camera: Annotated[str, typer.Option("--camera", help="realsense or kinect.")] = "realsense",
    every: Annotated[int, typer.Option("--every", min=1, help="Use every n-th rendered view.")] = 1,
    workers: Workers = 0,
) -> None:
    """Turn posed models and views into (partial, complete) training pairs."""
    from pipeline.datasets.graspnet import GraspNetDataset
    from pipeline.engines.local import default_workers
    from pipeline.pairs import make_pairs

    dataset = GraspNetDataset(root, camera)
    scenes = dataset.scene_ids(split)
    if not scenes:
        raise ValueError(f"{root}: no scene of split {split!r} for camera {camera!r}; choose another --split")
    views = None if every == 1 else dataset.view_ids(scenes[0])[::every]
    with told_progress("pairs", "view") as progress:
        made = make_pairs(dataset, scenes, views, out, workers=workers or default_workers(), progress=progress)
    print(f"pairs      {made.path}: {made.pairs} pairs of {made.objects} objects")


if __name__ == "__main__":
    main()
