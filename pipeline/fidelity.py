"""Completion metrics of one object's cloud against its true surface, in two units by name."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from completion.metrics import METRIC_THRESHOLD, NETWORK_THRESHOLD, cloud_metrics
from completion.normalize import normalisation

_NAMES = ("coverage", "spurious", "precision", "f1")
FIDELITY = (
    *(f"{name}@0.03" for name in _NAMES),
    *(f"{name}@5mm" for name in _NAMES),
    "cd_l1",
    "cd_l2",
    "cd_l1_mm",
)


def fidelity(
    cloud: NDArray[np.float32], truth: NDArray[np.float32], partial: NDArray[np.float32]
) -> dict[str, float | None]:
    """Compare a completed cloud with the truth.

    Args:
        cloud: ``(N, 3)`` metres; may be empty.
        truth: ``(M, 3)`` true surface points, metres.
        partial: ``(P, 3)`` the observation, whose box defines the network's frame.

    Returns:
        Every name of :data:`FIDELITY`. ``@0.03`` metrics, ``cd_l1`` and ``cd_l2`` are in the network's frame (the
        observation's diagonal is 1), ``@5mm`` and ``cd_l1_mm`` metric. An empty cloud covers nothing and has no
        other value; without an observation nothing has.
    """
    missing: dict[str, float | None] = dict.fromkeys(FIDELITY)
    if len(partial) == 0:
        return missing
    if len(cloud) == 0:
        return {**missing, "coverage@0.03": 0.0, "f1@0.03": 0.0, "coverage@5mm": 0.0, "f1@5mm": 0.0}
    metric = cloud_metrics(cloud, truth, METRIC_THRESHOLD)
    values: dict[str, float | None] = {f"{name}@5mm": metric[name] for name in _NAMES}
    values["cd_l1_mm"] = metric["cd_l1"] * 1000
    try:
        frame = normalisation("partial", partial)
    except ValueError:  # a single point has no diagonal to measure by
        return {**missing, **values}
    relative = cloud_metrics(frame.to_network(cloud), frame.to_network(truth), NETWORK_THRESHOLD)
    values.update({f"{name}@0.03": relative[name] for name in _NAMES})
    return {name: {**values, "cd_l1": relative["cd_l1"], "cd_l2": relative["cd_l2"]}[name] for name in FIDELITY}
