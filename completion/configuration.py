"""The training file: YAML -> one validated, frozen value. Defaults live here and nowhere else.

Checked by hand rather than by a validation library, because ``completion`` imports with torch, numpy and safetensors
alone.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from completion.datasets.pairs import Augmentation
from completion.losses import LOSSES
from completion.networks import NETWORKS
from completion.normalize import NORMALISATIONS

FORMAT_VERSION = 1
MERGES = ("append", "replace")


class ConfigurationError(ValueError):
    """A training file or checkpoint configuration is wrong; the message names the file, the key and the remedy."""


@dataclass(frozen=True)
class Part:
    """Something chosen by name, with its parameters: a network or a loss."""

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingConfig:
    """A training run. Two runs that compare losses differ in ``loss`` alone.

    Attributes:
        pairs: pair files; relative paths start at the working directory.
        network: name in ``NETWORKS`` and its parameters.
        loss: name in ``LOSSES`` and its parameters; distances in the network frame.
        coarse_loss: ``same`` (the coarse cloud is trained with ``loss`` too, against the full truth) or a name in
        LOSSES. fine_weight: steps of the fine loss's weight α as (fraction of the run, α); total = coarse + α · fine.
            The default is the schedule of MVP's PCN (.01/.1/.5/1 at epochs 0/5/15/30 of 100) scaled to the run's
            length.
        steps, batch_size, seed: length, samples a step, and the seed of weights and data.
        learning_rate: peak of Adam's rate: linear warm-up over ``warmup_steps``, then a cosine down to
            ``final_rate`` · ``learning_rate``.
        clip_norm: the gradient's norm is cut to this. Losses are not brought to one scale: Adam does not mind, the clip
            would, so keep it well above the usual norm (``gradient`` in log.csv).
        input_points, target_points: points drawn from the partial and the true cloud at each visit.
        normalisation: ``partial`` or ``oracle`` (diagnosis alone).
        merge: how inference joins the prediction to the observation: ``append`` or ``replace``.
        augmentation: see :class:`completion.datasets.pairs.Augmentation`.
        checkpoint_every, log_every: steps between resume files and between log rows.
    """

    pairs: tuple[str, ...]
    network: Part
    loss: Part
    steps: int
    coarse_loss: str = "same"
    fine_weight: tuple[tuple[float, float], ...] = ((0.0, 0.01), (0.05, 0.1), (0.15, 0.5), (0.3, 1.0))
    batch_size: int = 32
    seed: int = 0
    learning_rate: float = 1e-3
    warmup_steps: int = 50
    final_rate: float = 0.01
    clip_norm: float = 10.0
    input_points: int = 1024
    target_points: int = 2048
    normalisation: str = "partial"
    merge: str = "append"
    augmentation: Augmentation = field(default_factory=Augmentation)
    checkpoint_every: int = 100
    log_every: int = 20
    format_version: int = FORMAT_VERSION


def load_config(path: str | Path, **overrides: Any) -> TrainingConfig:
    """Read a training file; ``overrides`` replace top-level keys (``pairs``, ``steps``, …).

    Raises:
        ConfigurationError: unreadable, unknown or missing key, wrong type or value.
    """
    import yaml  # only here: a machine that trains from a TrainingConfig needs no YAML

    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"{path}: cannot be read ({error.strerror}); name an existing training file"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path}: expected keys and values, got {type(content).__name__}")
    return parse_config({**content, **overrides}, source=str(path))


def parse_config(content: Mapping[str, Any], source: str = "configuration") -> TrainingConfig:
    """Plain data -> validated configuration; ``source`` stands in messages."""
    config: TrainingConfig = _build(TrainingConfig, content, source, "")
    if config.format_version != FORMAT_VERSION:
        raise ConfigurationError(f"{source}: format_version {config.format_version}, this code reads {FORMAT_VERSION}")
    check_part(config.network, NETWORKS, f"{source}: network")
    check_part(config.loss, LOSSES, f"{source}: loss", skip=2)
    if config.coarse_loss != "same":
        check_name(config.coarse_loss, LOSSES, f"{source}: coarse_loss")
    check_name(config.normalisation, NORMALISATIONS, f"{source}: normalisation")
    check_name(config.merge, MERGES, f"{source}: merge")
    if not config.pairs:
        raise ConfigurationError(f"{source}: pairs is empty; name at least one pair file")
    positive = ("steps", "batch_size", "learning_rate", "clip_norm", "input_points", "target_points", "log_every")
    for name in (*positive, "checkpoint_every"):
        if not getattr(config, name) > 0:
            raise ConfigurationError(f"{source}: {name} must be above 0, got {getattr(config, name)}")
    for name in ("seed", "warmup_steps", "final_rate"):
        if not getattr(config, name) >= 0:
            raise ConfigurationError(f"{source}: {name} must not be negative, got {getattr(config, name)}")
    starts = [start for start, _ in config.fine_weight]
    if not starts or starts[0] != 0 or starts != sorted(starts):
        raise ConfigurationError(f"{source}: fine_weight must be [fraction, weight] rows in order, the first at 0")
    return config


def plain(config: TrainingConfig) -> dict[str, Any]:
    """The configuration as JSON data; ``parse_config(plain(config)) == config``."""
    data: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return data


def check_name(name: str, known: Iterable[str], where: str) -> None:
    """Raise ConfigurationError naming the nearest known name unless ``name`` is known."""
    known = list(known)
    if name not in known:
        raise ConfigurationError(f"{where}: unknown name {name!r}{nearest_name(name, known)}")


def nearest_name(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'? known: …)``, for the end of a message."""
    known = sorted(known)
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    meant = f"did you mean {close[0]!r}? " if close else ""
    return f" ({meant}known: {', '.join(known)})"


def check_part(part: Part, known: Mapping[str, Callable[..., Any]], where: str, skip: int = 0) -> None:
    """Check name and parameter names of a network or loss; the first ``skip`` arguments are clouds."""
    check_name(part.name, known, where)
    allowed = list(inspect.signature(known[part.name]).parameters)[skip:]
    for key in part.parameters:
        if key not in allowed:
            raise ConfigurationError(f"{where} {part.name}: unknown parameter {key!r}{nearest_name(key, allowed)}")


def _build(kind: Any, value: Any, source: str, key: str) -> Any:
    """Convert plain data to the annotated type ``kind``: dataclasses, tuples, mappings and scalars."""
    where = f"{source}: {key}" if key else source
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, Mapping):
            raise ConfigurationError(f"{where}: expected keys and values, got {value!r}")
        hints = typing.get_type_hints(kind)
        for name in value:
            if name not in hints:
                raise ConfigurationError(f"{where}: unknown key {name!r}{nearest_name(name, hints)}")
        for entry in dataclasses.fields(kind):
            required = entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
            if required and entry.name not in value:
                raise ConfigurationError(f"{where}: key {entry.name!r} is missing")
        prefix = f"{key}." if key else ""
        return kind(**{name: _build(hints[name], entry, source, prefix + name) for name, entry in value.items()})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            value = [value] if arguments[0] is str and isinstance(value, str) else value
        if not isinstance(value, list | tuple):
            raise ConfigurationError(f"{where}: expected a list, got {value!r}")
        inner = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(inner) != len(value):
            raise ConfigurationError(f"{where}: expected {len(inner)} values, got {value!r}")
        return tuple(_build(one, entry, source, key) for one, entry in zip(inner, value, strict=True))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigurationError(f"{where}: expected keys and values, got {value!r}")
        return dict(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        hint = " (YAML reads 1e-3 as text: write 1.0e-3)" if kind is float and isinstance(value, str) else ""
        raise ConfigurationError(f"{where}: expected {kind.__name__}, got {value!r}{hint}")
    return value
