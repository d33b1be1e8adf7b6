"""Predictions -> grasps, as the published code decodes them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from grasping.generators.graspnet_baseline.directions import rotations
from grasping.generators.graspnet_baseline.network import ANGLES, DEPTHS, Predictions
from grasping.grasps import Grasps
from grasping.gripper import GRASPNET_GRIPPER

WIDENED = 1.2
"""The opening is this many times the width that the network predicts."""
GREATEST_TOLERANCE = 0.05
"""Metres; the confidence is the score times tolerance over this."""


@torch.no_grad()
def decode(predictions: Predictions) -> list[tuple[Grasps, Tensor]]:
    """At most one grasp a seed that says it lies on an object: the best depth, at each depth's likeliest angle.

    Args:
        predictions: of a batch of B clouds.

    Returns:
        B pairs: the grasps in the camera frame, in the order of their seeds, ``object_id`` -1; and the seeds'
        numbers ``(K,)`` int64.
    """
    p = predictions
    angle = p.angle.argmax(dim=-1, keepdim=True)  # (B, S, D, 1)
    score, width, tolerance = (values.gather(-1, angle)[..., 0] for values in (p.score, p.width, p.tolerance))
    depth = score.argmax(dim=-1, keepdim=True)  # (B, S, 1)
    score, width, tolerance, angle = (
        values.gather(-1, depth)[..., 0] for values in (score, width, tolerance, angle[..., 0])
    )
    on_object = p.objectness.argmax(dim=-1) == 1
    turn = angle.to(p.approach.dtype) * (math.pi / ANGLES)
    columns = torch.cat(
        [
            (score * tolerance / GREATEST_TOLERANCE)[..., None],
            (WIDENED * width).clamp(0.0, GRASPNET_GRIPPER.max_width)[..., None],
            torch.full_like(score, GRASPNET_GRIPPER.height)[..., None],
            torch.tensor(DEPTHS, dtype=score.dtype, device=score.device)[depth],
            rotations(p.approach, turn).flatten(-2),
            p.seeds,
            torch.full_like(score, -1.0)[..., None],
        ],
        dim=-1,
    )
    result = []
    for rows, chosen in zip(columns, on_object, strict=True):
        seeds = torch.nonzero(chosen)[:, 0]
        result.append((Grasps.from_array(rows[seeds].double().cpu().numpy()), seeds.cpu()))
    return result
