"""How an arm completes: what its clouds depend on, and the function that makes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts import ArtifactError, file_hash, fingerprint
from pipeline.command_completer import FORMAT_VERSION as COMMAND_FORMAT
from pipeline.command_completer import CommandCompleter
from pipeline.config import Arm
from pipeline.frames import network_frame
from pipeline.run_command import named_files

KEPT = 8
"""Networks that a worker keeps loaded."""

# Takes N partial clouds, T_table_camera ((4, 4), or (N, 4, 4) where they are of several views) and N seeds, gives N
# completed clouds; all in the camera frame, metres. In the place of a cloud that fails stands the CompletionError.
Completion = Callable[[list[NDArray[np.float32]], NDArray[np.float64], list[int]], Sequence[Any]]


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
        pipeline.run_command.CommandError: from the loader, if the program is not there.
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


def network_completion(completer: Any, frame: str, merge: str) -> Completion:
    """Wrap a completer so that it takes and gives camera-frame clouds, merged as asked.

    Args:
        completer: a :class:`completion.completer.Completer`.
        frame: the frame its checkpoint declares, see :func:`pipeline.frames.network_frame`.
        merge: ``replace`` or ``append``.
    """

    def complete(clouds: list[NDArray[np.float32]], T_table_camera: NDArray[np.float64], seeds: list[int]) -> list[Any]:
        frames = [network_frame(frame, T) for T in np.broadcast_to(T_table_camera, (len(clouds), 4, 4))]
        turned = [(cloud @ R.T).astype(np.float32) for cloud, R in zip(clouds, frames, strict=True)]
        made: list[Any] = completer.outcomes(turned, seeds)
        for index, (cloud, R) in enumerate(zip(clouds, frames, strict=True)):
            if isinstance(made[index], np.ndarray):
                made[index] = (made[index] @ R).astype(np.float32)
                if merge == "append":
                    made[index] = np.concatenate([cloud, made[index]])
        return made

    return complete


@lru_cache(maxsize=KEPT)
def completion_of(arm: Arm, device: str, trust_code: bool, identity: str) -> Any:
    """Return what completes an arm's clouds, loaded once a process; None where the arm needs nothing.

    Args:
        arm, device, trust_code: as of :func:`describe_arm`.
        identity: fingerprint of what it depends on, as planned: hours may lie between, and a worker may outlive a run.

    Raises:
        ArtifactError: if it depends on something else by now, which must not pass for what was planned.
    """
    _, load = describe_arm(arm, device, trust_code)
    loaded = None if load is None else load()
    made_from, _ = describe_arm(arm, device, trust_code)  # as it is after loading: it may change meanwhile
    if fingerprint(made_from) != identity:
        what = f"the checkpoint {arm.checkpoint}" if arm.completion == "checkpoint" else "what its command is made of"
        raise ArtifactError(
            f"arm {arm.name}: {what} has changed since the run began; let it rest and run again: what was completed "
            "before is then made anew"
        )
    return loaded
