"""What changes while a network trains: the learning rate and the fine loss's weight, as functions of the step."""

from __future__ import annotations

import math

from completion.configuration import TrainingConfig


def learning_rate(config: TrainingConfig, step: int, pairs: int = 0) -> float:
    """Linear warm-up to ``config.learning_rate``, then ``config.schedule``.

    Args:
        config: of the run.
        step: counted from 0; a cosine reaches ``final_rate`` of the peak at the last one.
        pairs: samples an epoch, needed by a schedule that counts epochs.

    Raises:
        ValueError: a schedule counts epochs and ``pairs`` is not above 0.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    schedule = config.schedule
    if schedule.name == "constant":
        return config.learning_rate
    if schedule.name == "step":
        if schedule.unit == "epochs" and pairs < 1:
            raise ValueError("a schedule that counts epochs needs the number of pairs")
        done = step if schedule.unit == "steps" else step * config.batch_size // pairs
        return config.learning_rate * schedule.gamma ** (done // schedule.every)
    share = (step - config.warmup_steps) / max(1, config.steps - 1 - config.warmup_steps)
    return config.learning_rate * (config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * share)))


def fine_weight(config: TrainingConfig, step: int) -> float:
    """α at a step: the last row of ``config.fine_weight`` whose share of the run has been reached."""
    return [weight for start, weight in config.fine_weight if step >= start * config.steps][-1]


def share_of_run(config: TrainingConfig, step: int) -> float:
    """0 at the first step, 1 at the last: where a loss parameter's schedule stands."""
    return step / max(1, config.steps - 1)
