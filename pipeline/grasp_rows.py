"""Scored grasps as a table: one row a candidate, the columns that every scorer shares."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from grasping.grasps import Grasps
from grasping.protocol import ViewScore

COLUMNS = pa.schema(
    [
        ("view", pa.int16()),
        ("row", pa.int32()),  # of the dump file
        ("rank", pa.int32()),  # by confidence among the suppressed candidates of the view, from 0
        ("object", pa.int16()),  # whose sampled points are nearest
        ("confidence", pa.float64()),
        ("width", pa.float64()),  # clipped, metres
        ("kept", pa.bool_()),  # in the protocol's cut (10 an object, 50 a scene)
        ("collided", pa.bool_()),
        ("empty", pa.bool_()),
        ("min_friction", pa.float64()),  # +inf: fails at every friction
        ("reason", pa.string()),
    ]
)

TRIAL_COLUMNS = pa.schema(
    [
        ("outcome", pa.string()),  # of the trial, one of grasping.physics.OUTCOMES
        ("held", pa.bool_()),  # in more than half of its trials
        ("held_fraction", pa.float64()),  # of its trials
        ("slip", pa.float64()),  # of the object in the hand, metres; NaN where it never was in it
    ]
)
"""What physics adds to the rows of the grasps that it tried."""


def grasp_rows(view: int, grasps: Grasps, score: ViewScore, object_ids: Sequence[int]) -> pa.Table:
    """Turn one view's scores into rows, best confidence first.

    Args:
        view: its number.
        grasps: N grasps as they were scored.
        score: S candidates among them.
        object_ids: the dataset's number of each of the view's objects.

    Returns:
        S rows of :data:`COLUMNS`.
    """
    count = len(score)
    ids = np.array(object_ids, np.int16)
    columns = {
        "view": np.full(count, view, np.int16),
        "row": score.index,
        "rank": np.arange(count),
        "object": ids[score.object_index] if count else np.zeros(0, np.int16),
        "confidence": grasps.confidence[score.index],
        "width": score.width,
        "kept": score.kept,
        "collided": score.collided,
        "empty": score.empty,
        "min_friction": score.min_friction,
        "reason": [str(text) for text in score.reason],
    }
    return pa.Table.from_arrays([pa.array(columns[f.name], type=f.type) for f in COLUMNS], schema=COLUMNS)
