"""A checkpoint is a folder: ``config.json``, ``model.safetensors``, and a card ``README.md``.

``config.json`` says all that inference must obey::

    format_version 1
    network          {name, parameters}: a name of completion.networks.plugins, so also one from outside
    input_points, output_points
    unit             "m": what clouds come in and go out as
    normalisation    what clouds are shifted and scaled by, a name of completion.normalize
    frame            "table" | "camera" | "canonical": the frame that clouds must be in before they come here;
                     canonical: the axes of ShapeNet's models, y up, the front towards -z
    merge            "append" | "replace": how the prediction joins the observation, done by the caller
    loss             {name, parameters}
    training         what it was trained on and how; information only
    trained_normalisation, imported
                     of a checkpoint made elsewhere (completion.importers): how its training data was normalised, where
                     inference cannot do the same, and where it comes from

Weights are stored in half precision by default and computed with in float32. No file is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from completion.configuration import MERGES, ConfigurationError, Part, check_name, check_part
from completion.networks import NETWORKS, CompletionNetwork
from completion.networks.plugins import NetworkError, adopt, find_network, is_own
from completion.normalize import NORMALISATIONS, needs_truth

FORMAT_VERSION = 1
FRAMES = ("table", "camera", "canonical")
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

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        state = (*self.network.parameters(), *self.network.buffers(), torch.zeros(0))
        return state[0].device


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


def build_network(part: Part, where: str, trust_code: bool = False) -> CompletionNetwork:
    """Make a network by name, with fresh weights; one from outside is made to answer as ours do.

    Args:
        part: its name, as :func:`completion.networks.plugins.find_network` knows it, and its parameters.
        where: for messages.
        trust_code: whether a name ``module:Class`` may be imported.

    Raises:
        ConfigurationError: unknown name or parameter, values it cannot be built with, or code that is not trusted.
    """
    try:
        factory = find_network(part.name, trust_code)
    except NetworkError as error:
        raise ConfigurationError(f"{where}: network: {error}") from error
    if is_own(part.name):
        check_part(part, NETWORKS, f"{where}: network")
        try:
            network = NETWORKS[part.name](**part.parameters)
            if network.output_points < 1:
                raise ValueError(f"it would give {network.output_points} points")
            return network
        except (TypeError, ValueError, RuntimeError, IndexError) as error:
            raise ConfigurationError(f"{where}: network {part.name} cannot be built: {error}") from error
    try:
        made = factory(**part.parameters)
    except Exception as error:  # a stranger's constructor may raise anything
        raise ConfigurationError(
            f"{where}: network {part.name} cannot be built: {type(error).__name__}: {error}"
        ) from error
    try:
        return cast(CompletionNetwork, adopt(made, part.name))
    except NetworkError as error:
        raise ConfigurationError(f"{where}: network {error}") from error


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
        check_name(trained_normalisation(config), NORMALISATIONS, f"{path}: trained_normalisation")
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


def trained_normalisation(config: Mapping[str, Any]) -> str:
    """How the clouds were normalised that the network was trained on; at inference it is ``normalisation``."""
    name: str = config.get("trained_normalisation", config["normalisation"])
    return name


def caveats(config: Mapping[str, Any]) -> list[str]:
    """Sentences on what inference on a table cannot give the network of this ``config.json`` as its training did."""
    found = []
    if config["frame"] == "canonical":
        found.append(
            "the network expects objects in their canonical orientation (ShapeNet's axes, y up), which an observation "
            "does not tell: clouds stand upright as the table does, with their heading as the camera sees it"
        )
    trained, used = trained_normalisation(config), config["normalisation"]
    if needs_truth(trained) and not needs_truth(used):
        found.append(
            f"the network was trained on clouds placed and scaled by the complete shape ({trained}); the observation "
            f"is all there is here ({used}), so that its input is off centre and too large"
        )
    return found


def load(path_or_name: str | Path, device: str | torch.device = "auto", trust_code: bool = False) -> Checkpoint:
    """Load a checkpoint folder or a shipped name.

    Args:
        path_or_name: see :func:`resolve`.
        device: where the network goes.
        trust_code: whether a network ``module:Class`` that ``config.json`` names may be imported and run.

    Raises:
        CheckpointError: anything missing, broken or not trusted, or weights that do not fit the network (keys listed).
    """
    folder = resolve(path_or_name)
    config = read_config(folder)
    where = str(folder / CONFIG)
    part = Part(config["network"]["name"], config["network"].get("parameters", {}))
    try:
        network = build_network(part, where, trust_code)
    except ConfigurationError as error:
        raise CheckpointError(str(error)) from error
    path = folder / WEIGHTS
    try:
        weights = load_file(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: missing; copy the whole checkpoint folder") from error
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error}); copy it again") from error
    unlike = mismatch(network.state_dict(), weights)
    if unlike is not None:
        raise CheckpointError(f"{path}: does not fit the network of {CONFIG}: {unlike}; check network.parameters")
    broken = [key for key, value in weights.items() if not torch.isfinite(value).all()]
    if broken:
        raise CheckpointError(f"{path}: values that are not finite in {shortened(broken)}; train it again")
    network.load_state_dict(
        {key: value.float() if value.is_floating_point() else value for key, value in weights.items()}
    )
    loaded = Checkpoint(folder, network.to(resolve_device(device)).eval(), config)
    if not is_own(part.name):
        _try(loaded)
    return loaded


def _try(checkpoint: Checkpoint) -> None:
    """Run a network from outside once: what is wrong with it should show before any work begins."""
    points = checkpoint.config["input_points"]
    cloud = torch.rand(1, points, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    where = f"{checkpoint.path / CONFIG}: network {checkpoint.config['network']['name']}"
    try:
        with torch.no_grad():
            found = checkpoint.network(cloud.to(checkpoint.device)).fine.shape[1]
    except NetworkError as error:
        raise CheckpointError(f"{checkpoint.path / CONFIG}: network {error}") from error
    except Exception as error:  # a stranger's forward may raise anything
        raise CheckpointError(f"{where} fails on {points} points: {type(error).__name__}: {error}") from error
    if found != checkpoint.config["output_points"]:
        raise CheckpointError(
            f"{where} returns {found} points, but output_points is {checkpoint.config['output_points']}; correct it"
        )


def mismatch(expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> str | None:
    """How two state dicts differ in keys and shapes, in one line, or None."""
    missing, unexpected = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    shapes = [
        f"{key} {tuple(found[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in sorted(expected.keys() & found.keys())
        if found[key].shape != expected[key].shape
    ]
    if not (missing or unexpected or shapes):
        return None
    return (
        f"missing keys [{shortened(missing)}], unexpected keys [{shortened(unexpected)}], shapes [{shortened(shapes)}]"
    )


def shortened(names: Sequence[str], most: int = 8) -> str:
    """A list for a message: the first few, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def save(
    folder: str | Path, network: nn.Module, config: Mapping[str, Any], card: str, dtype: torch.dtype = torch.float16
) -> Path:
    """Write a checkpoint folder; each file atomically, ``config.json`` last, so that a folder that has one is whole.

    Whole numbers keep their type, and what does not fit into ``dtype`` (a batch norm's large variance in half
    precision) stays as it is.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {key: _stored(value.detach().cpu(), dtype) for key, value in network.state_dict().items()}
    temporary = folder / f".{WEIGHTS}.{os.getpid()}"
    save_file(weights, temporary)
    temporary.chmod(0o644)  # safetensors writes files that only their owner reads
    temporary.replace(folder / WEIGHTS)
    write_text(folder / CARD, card)
    write_text(folder / CONFIG, json.dumps({"format_version": FORMAT_VERSION, **config}, indent=2) + "\n")
    read_config(folder)
    return folder


def _stored(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if value.is_floating_point():
        small = value.to(dtype)
        if torch.equal(torch.isfinite(small), torch.isfinite(value)):
            value = small
    return value.clone(memory_format=torch.contiguous_format)  # safetensors refuses tensors that share memory


def inspect(path_or_name: str | Path, trust_code: bool = False) -> dict[str, Any]:
    """What a person wants to know of a checkpoint: configuration, sizes, hash, metrics; JSON data."""
    checkpoint = load(path_or_name, "cpu", trust_code)
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
        "caveats": caveats(checkpoint.config),
        "evaluation": json.loads(record.read_text(encoding="utf-8")) if record.is_file() else None,
    }


def write_text(path: Path, text: str) -> None:
    """Write atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
