"""Training: one flat loop that can be stopped at any step and resumed to the same weights.

Reads pair files (:mod:`completion.datasets.pairs`) and a :class:`~completion.configuration.TrainingConfig`. Writes into
one folder: ``training.pt`` (the resume file), ``log.csv``, and at the end a checkpoint (:mod:`completion.checkpoint`).

A step's data depend on (seed, step) alone, so the resume file holds weights and optimiser and no generator's state. On
the CPU a resumed run ends with the same bits (at the same number of threads); on CUDA, where sums have no fixed order,
with the same values to rounding.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from completion import checkpoint
from completion.checkpoint import build_network, resolve_device
from completion.configuration import ConfigurationError, TrainingConfig, load_config, plain
from completion.datasets.pairs import PairDataset, read_pairs
from completion.losses import LOSSES
from completion.metrics import NETWORK_THRESHOLD, metrics

__all__ = ["DivergenceError", "load_config", "train"]

RESUME = "training.pt"
LOG = "log.csv"
_COLUMNS = ("step", "loss", "coarse", "fine", "fine_weight", "coverage", "spurious", "gradient", "rate", "seconds")
# Keys that may change between a run and its continuation without changing its weights.
_FREE_KEYS = ("checkpoint_every", "log_every", "pairs")


class DivergenceError(ValueError):
    """The loss or its gradient is no longer finite; the message names the step and the term."""


def train(
    config: TrainingConfig,
    out: str | Path,
    device: str | torch.device = "auto",
    resume: bool = True,
    progress: bool = True,
    stop_after: int | None = None,
) -> Path:
    """Train a network; returns the checkpoint folder ``out``.

    Args:
        config: what to train, see :func:`load_config`.
        out: folder for resume file, log and checkpoint.
        resume: continue from ``out/training.pt`` where there is one. Without, an earlier run's resume file,
            checkpoint and evaluation are deleted before the first step, so that they cannot be taken for this run's,
            whenever it is stopped.
        progress: show a progress bar (where tqdm is installed).
        stop_after: leave after this step with the resume file written, before the run's end; no checkpoint then.

    Raises:
        PairFileError, ConfigurationError: bad input, or a resume file made with another configuration.
        CheckpointError: a device that cannot be used.
        DivergenceError: the loss became infinite or NaN.
    """
    out, device = Path(out), resolve_device(device)
    out.mkdir(parents=True, exist_ok=True)
    files = [read_pairs(path) for path in config.pairs]
    dataset = PairDataset(
        files, config.input_points, config.target_points, config.normalisation, config.augmentation, config.seed
    )
    description = {
        **plain(config),
        "pairs": [{"file": Path(path).name, "sha256": _sha256(Path(path))} for path in config.pairs],
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = build_network(config.network, "training configuration").to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    if not resume:
        # The resume file first: as long as it is there, the next run would go on with it.
        for name in (RESUME, checkpoint.CONFIG, checkpoint.WEIGHTS, checkpoint.EVALUATION):
            (out / name).unlink(missing_ok=True)
    start = _resume(out, network, optimiser, description, device)
    if start >= config.steps and (out / checkpoint.CONFIG).exists():
        return out  # finished before; its card may hold an evaluation by now
    fine_loss, coarse_loss = _losses(config)

    last = config.steps if stop_after is None else min(stop_after, config.steps)
    bar = _progress_bar(config.steps, start, out.name) if progress else None
    network.train()
    began = time.monotonic()
    with _Log(out / LOG, start) as log:
        for step in range(start, last):
            partial, truth = (cloud.to(device) for cloud in dataset.batch(step, config.batch_size))
            rate, weight = learning_rate(config, step), fine_weight(config, step)
            for group in optimiser.param_groups:
                group["lr"] = rate
            prediction = network(partial)
            fine = fine_loss(prediction.fine, truth).mean()
            coarse = sum((coarse_loss(cloud, truth).mean() for cloud in prediction.stages[:-1]), fine.new_zeros(()))
            loss = coarse + weight * fine if len(prediction.stages) > 1 else fine
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            gradient = nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm).detach()
            _stop_if_diverged(step, coarse=coarse, fine=fine, gradient=gradient)
            optimiser.step()

            if (step + 1) % config.log_every == 0 or step + 1 == last:
                now = metrics(prediction.fine.detach(), truth, NETWORK_THRESHOLD)
                coverage, spurious = now.coverage.mean().item(), now.spurious.mean().item()
                terms = (term.item() for term in (loss, coarse, fine))
                values = (*terms, weight, coverage, spurious, gradient.item(), rate)
                log.row(step + 1, *values, (time.monotonic() - began) / (step + 1 - start))
                if bar is not None:
                    bar.set_postfix(loss=f"{values[0]:.4f}", coverage=f"{coverage:.3f}", spurious=f"{spurious:.3f}")
            if bar is not None:
                bar.update()
            if (step + 1) % config.checkpoint_every == 0 or step + 1 == last:
                _save_resume(out, step + 1, network, optimiser, description)
    if bar is not None:
        bar.close()
    if last == config.steps:
        inference = {
            "network": description["network"],
            "input_points": config.input_points,
            "output_points": network.output_points,
            "unit": "m",
            "normalisation": config.normalisation,
            "frame": dataset.frame,
            "merge": config.merge,
            "loss": description["loss"],
            "training": {**description, "pairs_source": [_json_or_text(file.source) for file in files]},
        }
        checkpoint.save(out, network.eval(), inference, training_card(out.name, inference))
    return out


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Linear warm-up, then half a cosine down to ``final_rate`` of the peak at the last step."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - 1 - config.warmup_steps)
    return config.learning_rate * (config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * done)))


def fine_weight(config: TrainingConfig, step: int) -> float:
    """α at a step: the last row of ``config.fine_weight`` whose share of the run has been reached."""
    return [weight for start, weight in config.fine_weight if step >= start * config.steps][-1]


def training_card(name: str, config: dict[str, Any]) -> str:
    """The card of a checkpoint that has not been evaluated yet; :mod:`completion.evaluate` writes the full one."""
    lines = [
        f"# {name}",
        "",
        f"Point-cloud completion network `{config['network']['name']}`, {config['input_points']} -> "
        f"{config['output_points']} points, trained with `{config['loss']['name']}`.",
        "",
        f"- network parameters: `{json.dumps(config['network'].get('parameters', {}))}`",
        f"- loss parameters: `{json.dumps(config['loss'].get('parameters', {}))}` (defaults where empty)",
        f"- clouds: metres, frame `{config['frame']}`, normalised from the `{config['normalisation']}` cloud, "
        f"merged by `{config['merge']}`",
    ]
    training = config.get("training")
    if training is None:
        return "\n".join([*lines, "- trained elsewhere: data, seed and schedule are not recorded", ""])
    data = ", ".join(f"{one['file']} (sha256 {one['sha256'][:12]})" for one in training["pairs"])
    coarse = "the same loss" if training["coarse_loss"] == "same" else f"`{training['coarse_loss']}`"
    lines += [
        f"- the coarse stage is trained with {coarse} against the full truth",
        f"- data: {data}, augmented by `{json.dumps(training['augmentation'])}`",
        f"- seed {training['seed']}, {training['steps']} steps of {training['batch_size']} samples, Adam, peak rate "
        f"{training['learning_rate']:g}, cosine; gradient norm cut at {training['clip_norm']:g}",
        "",
    ]
    return "\n".join(lines)


def _losses(config: TrainingConfig) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """The fine and the coarse loss as functions of (prediction, truth)."""

    def fine(prediction: Tensor, truth: Tensor) -> Tensor:
        return LOSSES[config.loss.name](prediction, truth, **config.loss.parameters)

    return fine, fine if config.coarse_loss == "same" else LOSSES[config.coarse_loss]


def _stop_if_diverged(step: int, **terms: Tensor) -> None:
    for name, value in terms.items():
        if not bool(torch.isfinite(value)):
            raise DivergenceError(
                f"training diverged at step {step}: {name} is {value.item()}; lower learning_rate or clip_norm, or "
                "look for values that are not finite in the pairs. The last resume file is from before."
            )


def _save_resume(
    out: Path, step: int, network: nn.Module, optimiser: torch.optim.Optimizer, description: dict[str, Any]
) -> None:
    state = {
        "step": step,
        "network": network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "configuration": json.dumps(description),
    }
    temporary = out / f".{RESUME}.{os.getpid()}"
    torch.save(state, temporary)
    temporary.replace(out / RESUME)


def _resume(
    out: Path, network: nn.Module, optimiser: torch.optim.Optimizer, description: dict[str, Any], device: torch.device
) -> int:
    """Load ``training.pt`` where there is one; returns the step to go on from."""
    path = out / RESUME
    if not path.exists():
        return 0
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        step, before = int(state["step"]), json.loads(state["configuration"])
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise ConfigurationError(f"{path}: not a readable resume file ({error}); remove it to start anew") from error
    differing = [
        key
        for key in sorted(before.keys() | description.keys())
        if key not in _FREE_KEYS and before.get(key) != description.get(key)
    ]
    if [one["sha256"] for one in before["pairs"]] != [one["sha256"] for one in description["pairs"]]:
        differing.append("pairs (content)")
    if differing:
        raise ConfigurationError(
            f"{path}: made with another configuration ({', '.join(differing)} differ); remove it or choose another one"
        )
    network.load_state_dict(state["network"])
    optimiser.load_state_dict(state["optimiser"])
    return step


def _progress_bar(total: int, start: int, name: str) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(total=total, initial=start, desc=name, unit="step", mininterval=1.0)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


class _Log:
    """``log.csv``, one row every ``log_every`` steps; rows beyond the resumed step are dropped first."""

    def __init__(self, path: Path, start: int) -> None:
        kept: list[list[str]] = []
        if start > 0 and path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                kept = [row for row in list(csv.reader(file))[1:] if row and int(row[0]) <= start]
        self._file = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        self._writer.writerow(_COLUMNS)
        self._writer.writerows(kept)

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def row(self, step: int, *values: float) -> None:
        self._writer.writerow([step, *(f"{value:.6g}" for value in values)])
        self._file.flush()
