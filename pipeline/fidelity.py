"""Completion metrics of one object's cloud against its true surface, in two units by name."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from completion.metrics import METRIC_THRESHOLD, NETWORK_THRESHOLD, from_distances
from completion.nearest import nearest_neighbours
from completion.normalize import normalisation
from pipeline.metric_names import FIDELITY, FIDELITY_PARTS


def fidelity(
    cloud: NDArray[np.float32], truth: NDArray[np.float32], partial: NDArray[np.float32]
) -> dict[str, float | None]:
    """Compare a completed cloud with the truth.

    Args:
        cloud: ``(N, 3)`` metres; may be empty.
        truth: ``(M, 3)`` true surface points, metres.
        partial: ``(P, 3)`` the observation, whose box defines the network's frame.

    Returns:
        Every name of :data:`pipeline.metric_names.FIDELITY`. ``@0.03`` metrics, ``cd_l1`` and ``cd_l2`` are in the
        network's frame (the observation's diagonal is 1), ``@5mm`` and ``cd_l1_mm`` metric. An empty cloud covers
        nothing and has no other value; without an observation nothing has.
    """
    missing: dict[str, float | None] = dict.fromkeys(FIDELITY)
    if len(partial) == 0:
        return missing
    if len(cloud) == 0:
        return {**missing, "coverage@0.03": 0.0, "f1@0.03": 0.0, "coverage@5mm": 0.0, "f1@5mm": 0.0}
    one, other = (torch.as_tensor(points, dtype=torch.float32)[None] for points in (cloud, truth))
    near = nearest_neighbours(one, other)
    metric = from_distances(near.dist_a, near.dist_b, METRIC_THRESHOLD)
    values: dict[str, float | None] = {f"{name}@5mm": float(getattr(metric, name)) for name in FIDELITY_PARTS}
    values["cd_l1_mm"] = float(metric.cd_l1) * 1000
    try:
        scale = normalisation("partial", partial).scale
    except ValueError:  # a single point has no diagonal to measure by
        return {**missing, **values}
    relative = from_distances(near.dist_a / scale, near.dist_b / scale, NETWORK_THRESHOLD)
    values |= {f"{name}@0.03": float(getattr(relative, name)) for name in FIDELITY_PARTS}
    values |= {"cd_l1": float(relative.cd_l1), "cd_l2": float(relative.cd_l2)}
    return {name: values[name] for name in FIDELITY}
