"""``training.pt``: all that a run needs to go on as if it had never been stopped.

A step's data and randomness depend on (seed, step) alone, so no generator's state is kept. The file holds step,
weights, optimiser, configuration; and, where the run has them, averaged weights (``ema``), the loss scaler of fp16
(``scaler``), the factors of ``gradient_scale: equal``, the largest gradient since the last log row and the notes
told so far. It is written under another name and then renamed: a process killed while it writes leaves the one before.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from completion.configuration import ConfigurationError, TrainingConfig

RESUME = "training.pt"
# Keys that may change between a run and its continuation without changing its weights.
FREE_KEYS = ("checkpoint_every", "log_every", "pairs", "tensorboard", "compare_with", "init")


class WeightAverage:
    """Exponential moving average of a network's weights and buffers; whole numbers are copied.

    Args:
        network: whose values it starts with.
        decay: share of the old average that each :meth:`update` keeps.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values: dict[str, Tensor] = {key: value.detach().clone() for key, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move towards the network's present values."""
        for key, value in network.state_dict().items():
            if value.is_floating_point():
                self.values[key].lerp_(value, 1 - self.decay)
            else:
                self.values[key].copy_(value)


@dataclass
class Run:
    """What a run is made of besides its configuration; :func:`save` and :func:`restore` are each other's inverse.

    Attributes:
        network, optimiser, scaler: on the run's device; the scaler does nothing but for fp16.
        average: averaged weights, or None.
        step: steps done.
        factors: what ``gradient_scale: equal`` multiplies each term with; empty without.
        largest_gradient: since the last log row.
        notes: ``[step, name, text]`` of everything that was warned of.
    """

    network: nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: WeightAverage | None = None
    step: int = 0
    factors: dict[str, float] = field(default_factory=dict)
    largest_gradient: float = 0.0
    notes: list[list[Any]] = field(default_factory=list)


def save(out: Path, run: Run, description: dict[str, Any]) -> None:
    """Write ``out/training.pt`` atomically."""
    state = {
        "step": run.step,
        "network": run.network.state_dict(),
        "optimiser": run.optimiser.state_dict(),
        "configuration": json.dumps(description),
        "scaler": run.scaler.state_dict(),
        "ema": None if run.average is None else run.average.values,
        "factors": run.factors,
        "largest_gradient": run.largest_gradient,
        "notes": run.notes,
    }
    temporary = out / f".{RESUME}.{os.getpid()}"
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(out / RESUME)


def clear_leftovers(out: Path) -> None:
    """Remove what processes that were killed while writing left behind."""
    for path in out.glob(f".{RESUME}.*"):
        path.unlink(missing_ok=True)


def restore(out: Path, run: Run, description: dict[str, Any], device: torch.device) -> None:
    """Bring ``run`` to where ``out/training.pt`` stands; nothing happens where there is none.

    Raises:
        ConfigurationError: the file cannot be read, or was made with another configuration (differing keys named).
    """
    path = out / RESUME
    if not path.exists():
        return
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        step, before = int(state["step"]), json.loads(state["configuration"])
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise ConfigurationError(f"{path}: not a readable resume file ({error}); remove it to start anew") from error
    differing = differences(before, description)
    if differing:
        raise ConfigurationError(
            f"{path}: made with another configuration ({', '.join(differing)} differ); remove it or choose another one"
        )
    run.network.load_state_dict(state["network"])
    run.optimiser.load_state_dict(state["optimiser"])
    run.step = step
    if state.get("scaler"):
        run.scaler.load_state_dict(state["scaler"])
    if run.average is not None:
        run.average.values = state["ema"]
    run.factors = state.get("factors", {})
    run.largest_gradient = state.get("largest_gradient", 0.0)
    run.notes = state.get("notes", [])


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Keys in which two described runs differ so that their weights would; a key that one lacks has its default."""
    defaults = {
        one.name: one.default if one.default_factory is dataclasses.MISSING else one.default_factory()
        for one in dataclasses.fields(TrainingConfig)
        if one.default is not dataclasses.MISSING or one.default_factory is not dataclasses.MISSING
    }
    defaults = json.loads(json.dumps(defaults, default=dataclasses.asdict))
    before, now = {**defaults, **before}, {**defaults, **now}
    differing = [
        key for key in sorted(before.keys() | now.keys()) if key not in FREE_KEYS and before.get(key) != now.get(key)
    ]
    if _content(before["pairs"]) != _content(now["pairs"]):
        differing.append("pairs (content)")
    if _content([before["init"] or {}]) != _content([now["init"] or {}]):
        differing.append("init (content)")
    return differing


def _content(described: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What data are, not where they lie."""
    return [{key: value for key, value in one.items() if key not in ("file", "name")} for one in described]
