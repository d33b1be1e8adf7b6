"""Parameters of a loss that change while a network trains.

A parameter is a number, or a mapping::

    epsilon: {schedule: linear, from: 0.01, to: 0.001}

with ``constant`` (``from`` alone), ``linear``, or ``cosine`` (half a cosine, flat at both ends) over the whole run.
Whether QAL's ε and λ should change during training is the open question of its paper (arXiv 2511.17824).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from completion.losses.declared import DECLARED

SCHEDULES = ("constant", "linear", "cosine")


def is_scheduled(value: Any) -> bool:
    """Whether a parameter's value is a schedule (well formed or not) rather than a number."""
    return isinstance(value, Mapping)


def resolve(parameters: Mapping[str, Any], share: float) -> dict[str, Any]:
    """The parameters' values when ``share`` of the run (0 at the first step, 1 at the last) is done.

    Plain values pass as they are, so that a loss without schedules gets the very numbers of its training file.

    Raises:
        ValueError: on a share outside [0, 1] or a schedule that :func:`check` would refuse.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"a share of the run lies in [0, 1], got {share}")
    return {name: _value(name, value, share) if is_scheduled(value) else value for name, value in parameters.items()}


def check(parameters: Mapping[str, Any], loss: str | None = None) -> None:
    """Raise ValueError, naming parameter and remedy, on a schedule that cannot be followed.

    Args:
        parameters: of one loss, from a training file.
        loss: its name; a schedule is then allowed only for what the loss declares as schedulable. A loss that declares
            nothing (a user's own) may schedule every parameter.
    """
    allowed = DECLARED[loss].schedulable if loss in DECLARED else None
    for name, value in parameters.items():
        if not is_scheduled(value):
            continue
        if allowed is not None and name not in allowed:
            may = f"only {', '.join(allowed)} can" if allowed else "none of its parameters can"
            raise ValueError(f"{name} of {loss} cannot follow a schedule ({may}); give a number")
        _value(name, value, 0.0)


def _value(name: str, schedule: Mapping[str, Any], share: float) -> float:
    unknown = sorted(str(key) for key in schedule.keys() - {"schedule", "from", "to"})
    if unknown:
        raise ValueError(f"{name}: unknown key {unknown[0]!r} in a schedule (known: schedule, from, to)")
    kind = schedule.get("schedule")
    if kind not in SCHEDULES:
        raise ValueError(f"{name}: unknown schedule {kind!r} (known: {', '.join(SCHEDULES)})")
    start = _number(name, schedule, "from")
    if kind == "constant":
        if "to" in schedule and _number(name, schedule, "to") != start:
            raise ValueError(f"{name}: a constant schedule does not change; drop 'to', or choose linear or cosine")
        return start
    stop = _number(name, schedule, "to")
    done = share if kind == "linear" else 0.5 * (1 - math.cos(math.pi * share))
    # Exactly `from` at 0 and `to` at 1.
    return (1 - done) * start + done * stop


def _number(name: str, schedule: Mapping[str, Any], key: str) -> float:
    value = schedule.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        hint = " (YAML reads 1e-3 as text: write 1.0e-3)" if isinstance(value, str) else ""
        raise ValueError(f"{name}: a schedule's {key!r} must be a finite number, got {value!r}{hint}")
    return float(value)
