"""Commands: arguments in, calls to the rooms, lines out. No logic, and no heavy import before it is needed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli_checkpoint import app as checkpoint_app
from pipeline.cli_compare import app as compare_app
from pipeline.cli_options import Device, DeviceOption, TrustCode
from pipeline.cli_scoring import app as scoring_app
from pipeline.cli_scoring import number_list
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
app.add_typer(compare_app)
app.add_typer(scoring_app)
app.add_typer(trial_app)
app.add_typer(view_app)
app.add_typer(training_app)

INTERRUPTED = 130
MAIN, STAGES = "Main job", "Single stages of an experiment"


ExperimentFile = Annotated[Path, typer.Argument(help="The experiment file (YAML), for example configs/demo.yaml.")]
Out = Annotated[Path | None, typer.Option("--out", help="Run folder. Default: runs/NAME.")]
Dataset = Annotated[Path | None, typer.Option("--dataset", help="Dataset root, instead of the one the file names.")]
Cache = Annotated[Path | None, typer.Option("--cache", help="Folder for files derived from models.")]
Workers = Annotated[int, typer.Option("--workers", min=0, help="Processes; 0 takes one a core.")]


def main() -> None:
    """Run the command line: bad input ends in one line and status 2, Ctrl-C in one line and status 130."""
    try:
        app(standalone_mode=True)
    except SystemExit as end:
        if end.code == INTERRUPTED and not getattr(end, "told", False):  # typer turns Ctrl-C into a silent exit
            _fail("interrupted; what is finished is kept, the same command goes on from there", INTERRUPTED)
        raise
    except (ValueError, OSError) as error:
        sys.exit(_fail(" ".join(str(error).split()), 2))


def _fail(message: str, status: int) -> int:
    print(f"grasp-utility: {message}", file=sys.stderr)
    return status


@app.command(rich_help_panel=MAIN)
def demo(
    out: Annotated[Path, typer.Option("--out", help="Everything goes below: dataset, caches, run.")] = Path(
        "grasp-utility-demo"
    ),
    device: DeviceOption = Device.auto,
    workers: Workers = 0,
) -> None:
    """Make the sample dataset, compare the arms of configs/demo.yaml on it, print the table, write the report."""
    from pipeline.config import load_experiment, shipped_config

    home = out.resolve()
    _synthesize(home / "dataset", workers, preset="sample")
    overrides = {"dataset.root": str(home / "dataset"), "cache": str(home / "cache")}
    _carry_out(load_experiment(shipped_config("demo.yaml"), overrides), home / "run", device, workers, None)


@app.command(rich_help_panel=MAIN)
def run(
    experiment: ExperimentFile,
    out: Out = None,
    dataset: Dataset = None,
    cache: Cache = None,
    device: DeviceOption = Device.auto,
    workers: Workers = 0,
    trust_code: TrustCode = False,
) -> None:
    """Carry out a whole experiment. What is finished and up to date is left alone."""
    _stages(experiment, out, dataset, cache, device, workers, None, trust_code)


@app.command(rich_help_panel=MAIN)
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
    device: DeviceOption = Device.auto,
    trust_code: TrustCode = False,
) -> None:
    """Complete, grasp and draw one RGB-D image of your own. There is no truth to score against, and it says so."""
    from pipeline.frame import FrameOptions
    from pipeline.frame import run as carry_out

    options = FrameOptions(
        depth, out, checkpoint, intrinsics, mask, color, depth_scale, device=device.value, trust_code=trust_code
    )
    result = carry_out(options)
    print(f"objects    {len(result.partial.object_ids)}, grasps {len(result.grasps)}")
    print(f"picture    {result.picture}")
    for note in (*result.summary["caveats"], result.summary["note"]):
        print(f"note       {note}")


@app.command(rich_help_panel=STAGES)
def observe(
    experiment: ExperimentFile, out: Out = None, dataset: Dataset = None, cache: Cache = None, workers: Workers = 0
) -> None:
    """Dataset views -> per-object partial clouds."""
    _stages(experiment, out, dataset, cache, Device.auto, workers, ("observe",))


@app.command(rich_help_panel=STAGES)
def complete(
    experiment: ExperimentFile,
    out: Out = None,
    dataset: Dataset = None,
    cache: Cache = None,
    device: DeviceOption = Device.auto,
    trust_code: TrustCode = False,
) -> None:
    """Partial clouds -> completed clouds, arm by arm."""
    _stages(experiment, out, dataset, cache, device, 0, ("complete",), trust_code)


@app.command(rich_help_panel=STAGES)
def generate(
    experiment: ExperimentFile, out: Out = None, dataset: Dataset = None, cache: Cache = None, workers: Workers = 0
) -> None:
    """Clouds -> grasps, in the official dump layout."""
    _stages(experiment, out, dataset, cache, Device.auto, workers, ("generate",))


@app.command(rich_help_panel=STAGES)
def score(
    experiment: ExperimentFile, out: Out = None, dataset: Dataset = None, cache: Cache = None, workers: Workers = 0
) -> None:
    """Grasps + true geometry -> one row per grasp."""
    _stages(experiment, out, dataset, cache, Device.auto, workers, ("score",))


@app.command(rich_help_panel=STAGES)
def explain(
    experiment: ExperimentFile, out: Out = None, dataset: Dataset = None, cache: Cache = None, workers: Workers = 0
) -> None:
    """Rows + what was seen and completed -> why each grasp succeeded or failed."""
    _stages(experiment, out, dataset, cache, Device.auto, workers, ("explain",))


@app.command(rich_help_panel=STAGES)
def aggregate(experiment: ExperimentFile, out: Out = None, dataset: Dataset = None, cache: Cache = None) -> None:
    """Rows -> utility tables and paired comparisons."""
    _stages(experiment, out, dataset, cache, Device.auto, 0, ("aggregate",))


@app.command(rich_help_panel=STAGES)
def report(experiment: ExperimentFile, out: Out = None, dataset: Dataset = None, cache: Cache = None) -> None:
    """Tables -> one self-contained HTML page."""
    _stages(experiment, out, dataset, cache, Device.auto, 0, ("report",))


def _stages(
    path: Path,
    out: Path | None,
    dataset: Path | None,
    cache: Path | None,
    device: Device,
    workers: int,
    stages: tuple[str, ...] | None,
    trust_code: bool = False,
) -> None:
    from pipeline.config import load_experiment

    given = {"dataset.root": dataset, "cache": cache}
    overrides = {key: str(value.resolve()) for key, value in given.items() if value is not None}
    experiment = load_experiment(path, overrides)
    folder = (out or Path("runs") / experiment.name).resolve()
    _carry_out(experiment, folder, device, workers, stages, trust_code, source=path)


def _carry_out(
    experiment: Any,
    out: Path,
    device: Device,
    workers: int,
    stages: tuple[str, ...] | None,
    trust_code: bool = False,
    source: Path | None = None,
) -> None:
    from pipeline import console
    from pipeline.experiment import STAGES as ALL
    from pipeline.experiment import run_experiment

    result = run_experiment(
        experiment,
        out,
        device=device.value,
        workers=_workers(workers),
        stages=stages or ALL,
        say=lambda line: print(line, flush=True),
        trust_code=trust_code,
        source=source,
    )
    console.show(result, whole=stages is None)
    if result.problems:
        raise typer.Exit(1)


def _workers(asked: int) -> int:
    from pipeline.engine import default_workers

    return asked or default_workers()


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
    overrides: dict[str, Any] = {"scenes": number_list(scenes), "views": number_list(views)}
    overrides["cameras"] = tuple(camera) if camera else None
    _synthesize(out, workers, preset=preset, seed=seed, models=models, unit=unit, **overrides)


def _synthesize(out: Path, workers: int, *, preset: str, **overrides: Any) -> None:
    from pipeline.datasets.synthetic import PRESETS, synthesize

    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; one of {', '.join(PRESETS)}")
    given = {key: value for key, value in overrides.items() if value is not None}
    with told_progress("synthesize", "step") as progress:
        synthesize(out, **{**vars(PRESETS[preset]), **given}, workers=_workers(workers), progress=progress)
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
    from pipeline.pairs import make_pairs

    dataset = GraspNetDataset(root, camera)
    scenes = dataset.scene_ids(split)
    if not scenes:
        raise ValueError(f"{root}: no scene of split {split!r} for camera {camera!r}; choose another --split")
    views = None if every == 1 else dataset.view_ids(scenes[0])[::every]
    with told_progress("pairs", "view") as progress:
        made = make_pairs(dataset, scenes, views, out, workers=_workers(workers), progress=progress)
    print(f"pairs      {made.path}: {made.pairs} pairs of {made.objects} objects")


if __name__ == "__main__":
    main()
