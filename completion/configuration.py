"""The training file: YAML -> one validated, frozen value. Defaults live here and nowhere else.

Checked by hand rather than by a validation library, because ``completion`` imports with torch, numpy and safetensors
alone.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from completion.datasets.pairs import Augmentation
from completion.losses import LOSSES
from completion.losses import plugins as loss_plugins
from completion.losses import schedules as loss_schedules
from completion.networks import NETWORKS
from completion.networks.plugins import is_own, known_names
from completion.normalize import NORMALISATIONS
from completion.plugins import nearest_name

FORMAT_VERSION = 1
MERGES = ("append", "replace")
RATE_SCHEDULES = ("cosine", "step", "constant")
PRECISIONS = ("float32", "bf16", "fp16")
GRADIENT_SCALES = ("none", "equal")
AS_GIVEN = "as given"  # a benchmark's clouds as they are distributed, see completion.datasets.base


class ConfigurationError(ValueError):
    """A training file or checkpoint configuration is wrong; the message names the file, the key and the remedy."""


@dataclass(frozen=True)
class Part:
    """Something chosen by name, with its parameters: a network or a loss."""

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RateSchedule:
    """How the learning rate goes on after its warm-up.

    Attributes:
        name: ``cosine`` (half a cosine down to ``final_rate`` of the peak), ``step`` (times ``gamma`` once in
            ``every``), or ``constant``.
        every, unit: of ``step``: so many ``steps``, or ``epochs`` (an epoch shows as many samples as there are pairs).
        gamma: of ``step``. MVP's published schedule is ``{name: step, every: 40, unit: epochs, gamma: 0.7}``.
    """

    name: str = "cosine"
    every: int = 0
    unit: str = "steps"
    gamma: float = 0.7


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """A training run. Two runs that compare losses differ in ``loss`` alone.

    Attributes:
        pairs: pair files; relative paths start at the working directory.
        dataset: instead of ``pairs``: a benchmark's files by name, see :func:`completion.datasets.open_data`.
        objects: train on these objects of the pair files alone: ids, or families (``mug``) where the file names them.
        scenes: train on what was seen in these scenes of the pair files alone.
        network: name in ``NETWORKS`` and its parameters.
        loss: name in ``LOSSES`` and its parameters; distances in the network frame. A parameter that the loss declares
            as schedulable may be ``{schedule: linear, from: 0.01, to: 0.001}`` (:mod:`completion.losses.schedules`).
        coarse_loss: ``same`` (the clouds before the last are trained with ``loss`` too, against the full truth) or a
            name in LOSSES.
        fine_weight: steps of the fine loss's weight α as (fraction of the run, α); total = coarse + α · fine.
            The default is the schedule of MVP's PCN (.01/.1/.5/1 at epochs 0/5/15/30 of 100) scaled to the run's
            length.
        denoising_weight: of AdaPoinTr's auxiliary task, for networks that have it (½ in its code).
        gradient_scale: ``none``, or ``equal``: fine and coarse losses are multiplied by what makes their gradient
            magnitude on the first batch that of ``cd_l1``, so that a sum does not differ from a mean by the learning
            rate and the clip alone.
        init: checkpoint folder or shipped name to begin with (the paper's drop-in: fine-tune a CD model with QAL).
        steps, batch_size, seed: length, samples a step (of all processes together), and the seed of weights and data.
        learning_rate: peak of Adam's rate: linear warm-up over ``warmup_steps``, then ``schedule``.
        schedule, final_rate: see :class:`RateSchedule`; ``final_rate`` is the share of the peak at a cosine's end.
        clip_norm: the gradient's norm is cut to this. Losses are not brought to one scale: Adam does not mind, the clip
            would, so keep it well above the usual norm (``gradient`` in log.csv), or ask for ``gradient_scale: equal``.
        precision: of the network's forward pass; losses are always float32. ``bf16`` works everywhere (on most CPUs
            slower than float32), ``fp16`` on CUDA alone, with a scaled loss.
        ema: decay of the weights' exponential moving average, which the checkpoint then stores; 0 is off.
        input_points, target_points: points drawn from the partial and the true cloud at each visit.
        normalisation: a name of :mod:`completion.normalize`, ``partial`` unless for diagnosis; a ``dataset`` may also
            be taken ``as given``.
        merge: how inference joins the prediction to the observation: ``append`` or ``replace``.
        augmentation: see :class:`completion.datasets.pairs.Augmentation`.
        checkpoint_every, log_every: steps between resume files and between log rows.
        tensorboard: write event files beside ``log.csv``.
        compare_with: folder of a run with ``cd_l1`` whose log this run is watched against
            (:mod:`completion.watch`); without, a folder beside ``--out`` that differs in the loss alone.
    """

    pairs: tuple[str, ...] = ()
    dataset: Part | None = None
    objects: tuple[int | str, ...] = ()
    scenes: tuple[int, ...] = ()
    network: Part
    loss: Part
    steps: int
    coarse_loss: str = "same"
    fine_weight: tuple[tuple[float, float], ...] = ((0.0, 0.01), (0.05, 0.1), (0.15, 0.5), (0.3, 1.0))
    denoising_weight: float = 0.5
    gradient_scale: str = "none"
    init: str | None = None
    batch_size: int = 32
    seed: int = 0
    learning_rate: float = 1e-3
    warmup_steps: int = 50
    schedule: RateSchedule = field(default_factory=RateSchedule)
    final_rate: float = 0.01
    clip_norm: float = 10.0
    precision: str = "float32"
    ema: float = 0.0
    input_points: int = 1024
    target_points: int = 2048
    normalisation: str = "partial"
    merge: str = "append"
    augmentation: Augmentation = field(default_factory=Augmentation)
    checkpoint_every: int = 100
    log_every: int = 20
    tensorboard: bool = False
    compare_with: str | None = None
    format_version: int = FORMAT_VERSION


def load_config(path: str | Path, **overrides: Any) -> TrainingConfig:
    """Read a training file; ``overrides`` replace top-level keys (``pairs``, ``steps``, …).

    Raises:
        ConfigurationError: unreadable, unknown or missing key, wrong type or value.
    """
    return parse_config({**read_yaml(path), **overrides}, source=str(path))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The keys and values of a YAML file.

    Raises:
        ConfigurationError: unreadable, not YAML, or something other than keys and values.
    """
    try:
        import yaml  # only here: a machine that trains from a TrainingConfig needs no YAML
    except ImportError as error:
        raise ConfigurationError(f"{path}: reading a YAML file needs pyyaml; pip install pyyaml") from error

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
    return content


def parse_config(content: Mapping[str, Any], source: str = "configuration") -> TrainingConfig:
    """Plain data -> validated configuration; ``source`` stands in messages."""
    if "pairs" not in content and "dataset" not in content:
        raise ConfigurationError(f"{source}: key 'pairs' is missing; name pair files (or a dataset)")
    config: TrainingConfig = build(TrainingConfig, content, source)
    if config.format_version != FORMAT_VERSION:
        raise ConfigurationError(f"{source}: format_version {config.format_version}, this code reads {FORMAT_VERSION}")
    if config.dataset is None and not config.pairs:
        raise ConfigurationError(f"{source}: pairs is empty; name at least one pair file")
    if config.dataset is not None and (config.pairs or config.objects or config.scenes):
        raise ConfigurationError(f"{source}: dataset stands instead of pairs, objects and scenes; keep one of them")
    _check_network(config.network, f"{source}: network")
    check_loss(config.loss, f"{source}: loss")
    if config.coarse_loss != "same" and ":" not in config.coarse_loss:
        check_name(config.coarse_loss, loss_plugins.known_names(), f"{source}: coarse_loss")
    normalisations = NORMALISATIONS if config.dataset is None else (*NORMALISATIONS, AS_GIVEN)
    check_name(config.normalisation, normalisations, f"{source}: normalisation")
    check_name(config.merge, MERGES, f"{source}: merge")
    check_name(config.precision, PRECISIONS, f"{source}: precision")
    check_name(config.gradient_scale, GRADIENT_SCALES, f"{source}: gradient_scale")
    _check_schedule(config.schedule, f"{source}: schedule")
    positive = ("steps", "batch_size", "learning_rate", "clip_norm", "input_points", "target_points", "log_every")
    for name in (*positive, "checkpoint_every"):
        if not getattr(config, name) > 0:
            raise ConfigurationError(f"{source}: {name} must be above 0, got {getattr(config, name)}")
    for name in ("seed", "warmup_steps", "final_rate", "denoising_weight", "ema"):
        if not getattr(config, name) >= 0:
            raise ConfigurationError(f"{source}: {name} must not be negative, got {getattr(config, name)}")
    if not config.ema < 1:
        raise ConfigurationError(f"{source}: ema is a decay below 1 (0.999 is usual; 0 is off), got {config.ema:g}")
    starts = [start for start, _ in config.fine_weight]
    if not starts or starts[0] != 0 or starts != sorted(starts):
        raise ConfigurationError(f"{source}: fine_weight must be [fraction, weight] rows in order, the first at 0")
    return config


def _check_network(part: Part, where: str) -> None:
    if is_own(part.name):
        check_part(part, NETWORKS, where)
    elif ":" not in part.name:  # module:Class is code: build_network imports and checks it, if it is trusted
        check_name(part.name, known_names(), where)


def enter_losses(config: TrainingConfig, trust_code: bool, source: str = "training configuration") -> None:
    """Import the losses that come from outside, and check what :func:`parse_config` could not.

    Raises:
        ConfigurationError: code that is not trusted or cannot be imported, or parameters it does not take.
    """
    coarse = () if config.coarse_loss == "same" else (config.coarse_loss,)
    try:
        for name in (config.loss.name, *coarse):
            loss_plugins.enter(name, trust_code)
    except loss_plugins.LossError as error:
        raise ConfigurationError(f"{source}: loss: {error}") from error
    check_loss(config.loss, f"{source}: loss")


def check_loss(part: Part, where: str) -> None:
    """Check name and parameters; of a loss that was not imported yet, its name alone."""
    if part.name not in LOSSES:
        if ":" not in part.name:  # module:function is code: enter_losses imports and checks it, if it is trusted
            check_name(part.name, loss_plugins.known_names(), where)
        return
    check_part(part, LOSSES, where, skip=2)
    try:
        loss_schedules.check(part.parameters, part.name)
    except ValueError as error:
        raise ConfigurationError(f"{where} {part.name}: {error}") from error
    known = inspect.signature(LOSSES[part.name]).parameters
    ours = part.name in loss_plugins.KIND.own  # somebody's own loss may take lists beside numbers
    for name, value in part.parameters.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = number or loss_schedules.is_scheduled(value) or (value is None and "None" in str(known[name].annotation))
        if isinstance(known[name].default, int | float) and not fits and (ours or isinstance(value, str)):
            hint = " (YAML reads 1e-3 as text: write 1.0e-3)" if isinstance(value, str) else ""
            raise ConfigurationError(f"{where} {part.name}: {name} must be a number, got {value!r}{hint}")


def _check_schedule(schedule: RateSchedule, where: str) -> None:
    check_name(schedule.name, RATE_SCHEDULES, where)
    check_name(schedule.unit, ("steps", "epochs"), f"{where}: unit")
    if schedule.name == "step" and schedule.every < 1:
        raise ConfigurationError(f"{where}: step needs every: n, the {schedule.unit} between two cuts of the rate")
    if not (math.isfinite(schedule.gamma) and schedule.gamma > 0):
        raise ConfigurationError(f"{where}: gamma must be above 0, got {schedule.gamma}")


def plain(config: TrainingConfig) -> dict[str, Any]:
    """The configuration as JSON data; ``parse_config(plain(config)) == config``."""
    data: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return data


def check_name(name: str, known: Iterable[str], where: str) -> None:
    """Raise ConfigurationError naming the nearest known name unless ``name`` is known."""
    known = list(known)
    if name not in known:
        raise ConfigurationError(f"{where}: unknown name {name!r}{nearest_name(name, known)}")


def check_part(part: Part, known: Mapping[str, Callable[..., Any]], where: str, skip: int = 0) -> None:
    """Check name and parameter names of a network or loss; the first ``skip`` arguments are clouds."""
    check_name(part.name, known, where)
    allowed = list(inspect.signature(known[part.name]).parameters)[skip:]
    for key in part.parameters:
        if key not in allowed:
            raise ConfigurationError(f"{where} {part.name}: unknown parameter {key!r}{nearest_name(key, allowed)}")


def build(kind: Any, value: Any, source: str, key: str = "") -> Any:
    """Convert plain data to the annotated type ``kind``: dataclasses, unions, tuples, mappings and scalars.

    A dataclass with a ``name`` may be given by that name alone (``loss: qal``).

    Raises:
        ConfigurationError: naming ``source``, the key, and the nearest known one.
    """
    where = f"{source}: {key}" if key else source
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _build_dataclass(kind, value, source, key)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and types.NoneType in arguments:
            return None
        options = [one for one in arguments if one is not types.NoneType]
        fitting = [one for one in options if isinstance(one, type) and isinstance(value, one)]
        return build((fitting or options)[0], value, source, key)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            value = [value] if arguments[0] in (str, int | str) and isinstance(value, int | str) else value
        if not isinstance(value, list | tuple):
            raise ConfigurationError(f"{where}: expected a list, got {value!r}")
        inner = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(inner) != len(value):
            raise ConfigurationError(f"{where}: expected {len(inner)} values, got {value!r}")
        return tuple(build(one, entry, source, key) for one, entry in zip(inner, value, strict=True))
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


def _build_dataclass(kind: type, value: Any, source: str, key: str) -> Any:
    where = f"{source}: {key}" if key else source
    hints = typing.get_type_hints(kind)
    if isinstance(value, str) and "name" in hints:
        value = {"name": value}
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{where}: expected keys and values, got {value!r}")
    for name in value:
        if name not in hints:
            raise ConfigurationError(f"{where}: unknown key {name!r}{nearest_name(name, hints)}")
    for entry in dataclasses.fields(kind):
        required = entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        if required and entry.name not in value:
            raise ConfigurationError(f"{where}: key {entry.name!r} is missing")
    prefix = f"{key}." if key else ""
    return kind(**{name: build(hints[name], entry, source, prefix + name) for name, entry in value.items()})
