"""Commands that carry out an experiment, whole or stage by stage. Arguments in, one call, lines out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli_options import (
    Device,
    DeviceOption,
    DryRun,
    EngineName,
    EngineOption,
    Pack,
    Profile,
    Retries,
    Scheduler,
    Share,
    StoreFolder,
    TrustCode,
    Workers,
    execution,
)

if TYPE_CHECKING:
    from pipeline.config import Experiment
    from pipeline.engine_options import Execution

app = typer.Typer()

MAIN, STAGES = "Main job", "Single stages of an experiment"
# Which commands there are, in the order of the help: the stage that each carries out, and what it says of itself.
_STAGES = {
    "observe": "Dataset views -> per-object partial clouds.",
    "complete": "Partial clouds -> completed clouds, arm by arm.",
    "generate": "Clouds -> grasps, in the official dump layout.",
    "score": "Grasps + true geometry -> one row per grasp.",
    "explain": "Rows + what was seen and completed -> why each grasp succeeded or failed.",
}
_WHOLE = "Carry out a whole experiment. What is finished and up to date is left alone."
_TABLES = {
    "aggregate": "Rows -> utility tables and paired comparisons.",
    "report": "Tables -> one self-contained HTML page.",
}

ExperimentFile = Annotated[Path, typer.Argument(help="The experiment file (YAML), for example configs/demo.yaml.")]
Out = Annotated[Path | None, typer.Option("--out", help="Run folder. Default: runs/NAME.")]
Dataset = Annotated[Path | None, typer.Option("--dataset", help="Dataset root, instead of the one the file names.")]
Cache = Annotated[Path | None, typer.Option("--cache", help="Folder for files derived from models.")]


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
    from pipeline.datasets.synthetic import PRESETS, synthesize
    from pipeline.engine_options import Execution
    from pipeline.engines.local import default_workers
    from pipeline.progress import told_progress

    home = out.resolve()
    workers = workers or default_workers()
    with told_progress("synthesize", "step") as progress:
        synthesize(home / "dataset", **vars(PRESETS["sample"]), workers=workers, progress=progress)
    print(f"dataset    {home / 'dataset'}", flush=True)
    overrides = {"dataset.root": str(home / "dataset"), "cache": str(home / "cache")}
    experiment = load_experiment(shipped_config("demo.yaml"), overrides)
    _carry_out(experiment, home / "run", device, Execution(workers=workers), None)


def _command(stages: tuple[str, ...] | None) -> Callable[..., None]:
    """Return the command that carries out some stages whose work is done by units, or a whole experiment."""

    def command(
        experiment: ExperimentFile,
        out: Out = None,
        dataset: Dataset = None,
        cache: Cache = None,
        device: DeviceOption = Device.auto,
        trust_code: TrustCode = False,
        dry_run: DryRun = False,
        workers: Workers = 0,
        engine: EngineOption = EngineName.local,
        scheduler: Scheduler = None,
        profile: Profile = None,
        retries: Retries = 1,
        store: StoreFolder = None,
        pack: Pack = False,
        share: Share = None,
    ) -> None:
        told = execution(engine, workers, scheduler, profile, retries, store, pack, share)
        _experiment(experiment, out, dataset, cache, device, told, stages, trust_code, dry_run)

    return command


def _table_command(stage: str) -> Callable[..., None]:
    def command(experiment: ExperimentFile, out: Out = None, dataset: Dataset = None, cache: Cache = None) -> None:
        from pipeline.engine_options import Execution

        _experiment(experiment, out, dataset, cache, Device.auto, Execution(), (stage,), False, False)

    return command


app.command("run", help=_WHOLE, rich_help_panel=MAIN)(_command(None))
for _stage, _help in _STAGES.items():
    app.command(_stage, help=_help, rich_help_panel=STAGES)(_command((_stage,)))
for _stage, _help in _TABLES.items():
    app.command(_stage, help=_help, rich_help_panel=STAGES)(_table_command(_stage))


def _experiment(
    path: Path,
    out: Path | None,
    dataset: Path | None,
    cache: Path | None,
    device: Device,
    told: Execution,
    stages: tuple[str, ...] | None,
    trust_code: bool,
    dry_run: bool,
) -> None:
    from pipeline.config import load_experiment

    given = {"dataset.root": dataset, "cache": cache}
    overrides = {key: str(value.resolve()) for key, value in given.items() if value is not None}
    experiment = load_experiment(path, overrides)
    folder = (out or Path("runs") / experiment.name).resolve()
    if dry_run:
        from pipeline import console_run
        from pipeline.dry_run import stale_units

        console_run.show_stale(stale_units(experiment, folder, told, stages, device.value, trust_code, source=path))
        return
    _carry_out(experiment, folder, device, told, stages, trust_code, source=path)


def _carry_out(
    experiment: Experiment,
    out: Path,
    device: Device,
    told: Execution,
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
        execution=told,
        stages=stages or ALL,
        say=lambda line: print(line, flush=True),
        trust_code=trust_code,
        source=source,
    )
    console.show(result, whole=stages is None and told.share is None, recorded=told.share is None)
    if result.problems:
        raise typer.Exit(1)
