"""Stage: partial clouds -> completed clouds, one folder an arm, all alike.

Reads
    ``observations/scene_SSSS/<camera>/VVVV.npz`` (camera frame, metres), a checkpoint or what a command makes
    (:mod:`pipeline.command_completer`), and, for the arm that completes perfectly and for the metrics, the true models
    and poses.
Writes
    ``arms/<arm>/clouds/scene_SSSS/<camera>/VVVV.npz``: one cloud an object, camera frame, metres, one point a
    voxel of the experiment's density; beside them ``completion.parquet``, one row an object and view, with the
    completion metrics against the true surface.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.artifacts import FileHashes, file_hash, read_stamp, why_stale
from pipeline.command_completer import FORMAT_VERSION as COMMAND_FORMAT
from pipeline.command_completer import CommandCompleter, named_files
from pipeline.completed_unit import Completion, Job, complete_unit, network_completion
from pipeline.config import Arm, Experiment
from pipeline.datasets.graspnet import DatasetError, GraspNetDataset
from pipeline.run_folder import STAMP, Plan, RunFolder, StageReport, carry_out, unit_folder
from pipeline.selection import SceneUnit
from pipeline.truth import SURFACE_VERSION, TrueSurfaces

VERSION = 1


def run(
    experiment: Experiment, run: RunFolder, units: list[SceneUnit], *, device: str, trust_code: bool = False
) -> StageReport:
    """Complete what is missing or stale, in this process: it holds the network on its device.

    ``trust_code``: whether a checkpoint may name code (``module:Class``) that is then imported and run.
    """
    hashes = FileHashes(run.hashes)
    reports = []
    for arm in experiment.members():
        made_from, load = describe_arm(arm, device, trust_code, hashes)
        plans = [_plan(experiment, run, arm, made_from, unit, hashes) for unit in units]
        hashes.save()
        if load is not None and any(why_stale(plan.stamp, plan.made_from) is not None for plan in plans):
            complete = load()  # an error here is the arm's, not an object's
            plans = [replace(plan, job=replace(plan.job, complete=complete)) for plan in plans]
        reports.append(carry_out(f"complete {arm.name}", complete_unit, plans, workers=1))
    return StageReport.of("complete", reports)


def describe_arm(
    arm: Arm, device: str, trust_code: bool = False, hashes: Callable[[Path], str] = file_hash
) -> tuple[dict[str, Any], Callable[[], Completion | CommandCompleter] | None]:
    """Return what an arm's clouds depend on, and how to load what completes them (None where nothing does).

    Args:
        arm: see :class:`pipeline.arms.Arm`.
        device: where a network runs.
        trust_code: whether a network ``module:Class`` may be imported and run.
        hashes: gives a file's hash.

    Raises:
        completion.checkpoint.CheckpointError: if the checkpoint is missing, not trusted, or does not fit.
        pipeline.command_completer.CommandError: from the loader, if the program is not there.
    """
    if arm.completion == "command":
        return _describe_command(arm, hashes)
    if arm.completion != "checkpoint":
        return {"completion": arm.completion}, None
    from completion import checkpoint
    from completion.networks.plugins import NetworkError, identity
    from completion.normalize import needs_truth

    assert arm.checkpoint is not None  # Arm has checked it
    folder = checkpoint.resolve(arm.checkpoint)
    declared = checkpoint.read_config(folder)
    if needs_truth(declared["normalisation"]):
        raise checkpoint.CheckpointError(
            f"{folder}: normalisation {declared['normalisation']!r} needs the true shape of what is to be completed, "
            f"which no run hands over; write {declared['normalisation'].replace('oracle', 'partial')!r} in its "
            "config.json"
        )
    merge = arm.merge or declared["merge"]
    made_from = {
        "completion": "checkpoint",
        "merge": merge,
        "weights": file_hash(folder / "model.safetensors"),
        "checkpoint": file_hash(folder / "config.json"),
    }
    try:
        code = identity(declared["network"]["name"], trust_code)
    except NetworkError as error:
        raise checkpoint.CheckpointError(f"{folder / 'config.json'}: network: {error}") from error
    if code:  # of a network from outside; ours are under this stage's version
        made_from["network"] = code
    return made_from, lambda: _network(folder, merge, device, trust_code)


def _describe_command(arm: Arm, hashes: Callable[[Path], str]) -> tuple[dict[str, Any], Callable[[], CommandCompleter]]:
    assert arm.command is not None and arm.frame is not None and arm.timeout is not None  # Arm has seen to it
    command = CommandCompleter(arm.command, arm.directory or Path.cwd(), arm.frame, arm.timeout)
    made_from = {
        "completion": "command",
        "merge": arm.merge,
        "frame": arm.frame,
        "command": list(arm.command),
        "version_of_command": arm.version,
        "files": named_files(arm.command, command.directory, hashes),
        "format": COMMAND_FORMAT,
    }

    def load() -> CommandCompleter:
        command.check()
        return command

    return made_from, load


def caveats(arm: Arm) -> list[str]:
    """Sentences on what the arm's method was made for and an observation cannot give it; none where all is well."""
    if arm.completion == "command" and arm.frame == "canonical":
        return ["the command is given clouds that stand upright, not in the canonical orientation of their object"]
    if arm.completion != "checkpoint" or arm.checkpoint is None:
        return []
    from completion import checkpoint

    try:
        return checkpoint.caveats(checkpoint.read_config(checkpoint.resolve(arm.checkpoint)))
    except checkpoint.CheckpointError:
        return []  # a run whose checkpoint has gone can still be looked at


def _network(folder: Path, merge: str, device: str, trust_code: bool) -> Completion:
    from completion.completer import Completer

    completer = Completer.load(folder, device, trust_code)
    return network_completion(completer, completer.config["frame"], merge)


def _plan(
    experiment: Experiment,
    run: RunFolder,
    arm: Arm,
    arm_made_from: dict[str, Any],
    unit: SceneUnit,
    hashes: FileHashes,
) -> Plan:
    observations = unit_folder(run.observations, unit.scene, unit.camera)
    out = unit_folder(run.clouds(arm.name), unit.scene, unit.camera)
    observed = read_stamp(observations / STAMP)
    surfaces = TrueSurfaces(GraspNetDataset(experiment.dataset.root, unit.camera), experiment.cache_folder(), hashes)
    label = f"{arm.name}/{unit.label}"
    blocked = None if observed else f"{observations}: no observations; run `observe` first"
    models: str | None = None
    try:
        models = surfaces.made_from(unit.scene)
    except DatasetError as error:
        blocked = str(error)
    made_from = {
        "stage": "complete",
        "version": VERSION,
        "observations": observed.fingerprint if observed else None,
        **arm_made_from,
        "density": experiment.density,
        "models": models,
        "surfaces": SURFACE_VERSION,
        "seed": experiment.seed,
    }
    job = Job(arm, unit, observations, out, surfaces, experiment.density, experiment.seed)
    return Plan(label, out, made_from, job, blocked)
