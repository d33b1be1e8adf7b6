"""A checkpoint is a folder: ``config.json``, ``model.safetensors``, and a card ``README.md``.

``config.json`` says all that inference must obey::

    format_version 1
    network          {name, parameters}
    input_points, output_points
    unit             "m": what clouds come in and go out as
    normalisation    "partial" | "oracle" (see completion.normalize)
    frame            "table" | "camera": the frame that clouds must be in before they come here
    merge            "append" | "replace": how the prediction joins the observation, done by the caller
    loss             {name, parameters}
    training         what it was trained on and how; information only

Weights are stored in half precision by default and computed with in float32. No file is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from completion.configuration import MERGES, ConfigurationError, Part, check_name, check_part
from completion.networks import NETWORKS, CompletionNetwork
from completion.normalize import NORMALISATIONS

FORMAT_VERSION = 1
FRAMES = ("table", "camera")
PRETRAINED = Path(__file__).parent / "pretrained"
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
EVALUATION = "evaluation.json"  # written by completion.evaluate
_KEYS = ("network", "input_points", "output_points", "unit", "normalisation", "frame", "merge", "loss")


class CheckpointError(ValueError):
    """A checkpoint is missing, broken, or does not fit; the message names the file and the remedy."""


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint: the network in evaluation mode on its device, and ``config.json``."""

    path: Path
    network: CompletionNetwork
    config: Mapping[str, Any]


def shipped() -> list[str]:
    """Names of the checkpoints that come with the package."""
    return sorted(path.parent.name for path in PRETRAINED.glob(f"*/{CONFIG}"))


def resolve(path_or_name: str | Path) -> Path:
    """The folder meant: a bare name means a shipped checkpoint (write ``./name`` for a folder), anything else a path.

    Raises:
        CheckpointError: there is no such folder.
    """
    text = str(path_or_name)
    if text in shipped():
        return PRETRAINED / text
    folder = Path(path_or_name)
    if folder.is_file():
        raise CheckpointError(f"{folder}: a checkpoint is a folder with {CONFIG} and {WEIGHTS}, not a file")
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such checkpoint folder (shipped ones: {', '.join(shipped()) or 'none'})")
    return folder


def resolve_device(device: str | torch.device) -> torch.device:
    """``auto`` means CUDA where there is one, else the CPU.

    Raises:
        CheckpointError: torch knows no such device, or cannot use it here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).item()  # a name alone says nothing: torch may lack the driver, or see fewer
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise CheckpointError(
            f"device {str(device)!r} cannot be used here ({reason}); take --device cpu or auto"
        ) from error
    return found


def build_network(part: Part, where: str) -> CompletionNetwork:
    """Make a network by name, with fresh weights.

    Raises:
        ConfigurationError: unknown name or parameter, or values it cannot be built with.
    """
    check_part(part, NETWORKS, f"{where}: network")
    try:
        return NETWORKS[part.name](**part.parameters)
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        raise ConfigurationError(f"{where}: network {part.name} cannot be built: {error}") from error


def read_config(folder: Path) -> dict[str, Any]:
    """Read and check ``config.json``.

    Raises:
        CheckpointError: missing, broken, another version, or a value that inference cannot obey.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: missing; a checkpoint is a folder with {CONFIG} and {WEIGHTS}") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not readable JSON ({error}); copy the checkpoint again") from error
    if not isinstance(config, dict) or config.get("format_version") != FORMAT_VERSION:
        version = config.get("format_version") if isinstance(config, dict) else None
        raise CheckpointError(f"{path}: format_version {version}, this code reads {FORMAT_VERSION}")
    missing = [key for key in _KEYS if key not in config]
    if missing:
        raise CheckpointError(f"{path}: lacks {', '.join(missing)}")
    try:
        check_name(config["normalisation"], NORMALISATIONS, f"{path}: normalisation")
        check_name(config["frame"], FRAMES, f"{path}: frame")
        check_name(config["merge"], MERGES, f"{path}: merge")
        check_name(config["unit"], ("m",), f"{path}: unit")
    except ConfigurationError as error:
        raise CheckpointError(str(error)) from error
    for key in ("input_points", "output_points"):
        if not isinstance(config[key], int) or config[key] < 1:
            raise CheckpointError(f"{path}: {key} must be a positive whole number, got {config[key]!r}")
    network = config["network"]
    if not isinstance(network, dict) or not isinstance(network.get("name"), str):
        raise CheckpointError(f"{path}: network must be {{name, parameters}}, got {network!r}")
    return config


def load(path_or_name: str | Path, device: str | torch.device = "auto") -> Checkpoint:
    """Load a checkpoint folder or a shipped name.

    Raises:
        CheckpointError: anything missing, broken, or weights that do not fit the network (keys listed).
    """
    folder = resolve(path_or_name)
    config = read_config(folder)
    where = str(folder / CONFIG)
    try:
        network = build_network(Part(config["network"]["name"], config["network"].get("parameters", {})), where)
    except ConfigurationError as error:
        raise CheckpointError(str(error)) from error
    path = folder / WEIGHTS
    try:
        weights = load_file(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: missing; copy the whole checkpoint folder") from error
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error}); copy it again") from error
    expected = network.state_dict()
    missing, unexpected = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    shapes = [
        f"{key} {tuple(weights[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in sorted(expected.keys() & weights.keys())
        if weights[key].shape != expected[key].shape
    ]
    if missing or unexpected or shapes:
        raise CheckpointError(
            f"{path}: does not fit the network of {CONFIG}: missing keys [{', '.join(missing)}], "
            f"unexpected keys [{', '.join(unexpected)}], shapes [{', '.join(shapes)}]; check network.parameters"
        )
    broken = [key for key, value in weights.items() if not torch.isfinite(value).all()]
    if broken:
        raise CheckpointError(f"{path}: values that are not finite in {', '.join(broken)}; train it again")
    network.load_state_dict({key: value.float() for key, value in weights.items()})
    return Checkpoint(folder, network.to(resolve_device(device)).eval(), config)


def save(
    folder: str | Path, network: nn.Module, config: Mapping[str, Any], card: str, dtype: torch.dtype = torch.float16
) -> Path:
    """Write a checkpoint folder; each file atomically, ``config.json`` last, so that a folder that has one is whole."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {key: value.detach().to("cpu", dtype).contiguous() for key, value in network.state_dict().items()}
    temporary = folder / f".{WEIGHTS}.{os.getpid()}"
    save_file(weights, temporary)
    temporary.chmod(0o644)  # safetensors writes files that only their owner reads
    temporary.replace(folder / WEIGHTS)
    write_text(folder / CARD, card)
    write_text(folder / CONFIG, json.dumps({"format_version": FORMAT_VERSION, **config}, indent=2) + "\n")
    read_config(folder)
    return folder


def inspect(path_or_name: str | Path) -> dict[str, Any]:
    """What a person wants to know of a checkpoint: configuration, sizes, hash, metrics; JSON data."""
    checkpoint = load(path_or_name, "cpu")
    weights, record = checkpoint.path / WEIGHTS, checkpoint.path / EVALUATION
    with safetensors.safe_open(weights, "pt") as file:
        stored = sorted({str(file.get_slice(key).get_dtype()) for key in file.keys()})  # noqa: SIM118
    return {
        "path": str(checkpoint.path),
        "parameters": sum(value.numel() for value in checkpoint.network.parameters()),
        "stored_as": stored,
        "bytes": weights.stat().st_size,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "config": dict(checkpoint.config),
        "evaluation": json.loads(record.read_text(encoding="utf-8")) if record.is_file() else None,
    }


def write_text(path: Path, text: str) -> None:
    """Write atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
