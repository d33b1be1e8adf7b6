"""The chosen views, read once: what was observed, what every arm made of it, and its graded grasps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from grasping.grasps import GraspFileError, Grasps
from grasping.transforms import transform_points
from pipeline.artifacts import ArtifactError
from pipeline.cloud_files import Observation, load_clouds, load_observation
from pipeline.frame_picture import wireframes
from pipeline.report.choice import Choice
from pipeline.report.counts import outcome
from pipeline.report.inputs import RunData, Setting
from pipeline.report.metrics import metric
from pipeline.view_files import load_grasps

MOST_GRASPS = 15  # of the pictures; the panel in 3-D shows more on demand


@dataclass(frozen=True)
class ArmView:
    """What one arm made of a view, in the table frame, metres.

    Attributes:
        arm: its name.
        note: what the view is worth in this arm.
        missing: why there is nothing to show; empty otherwise.
        completed: ``(N, 3)``, or None where the arm completes nothing.
        rows: the protocol's cut, most confident first (columns of ``tables/grasps.parquet``).
        outcomes: one key of :data:`pipeline.report.style.OUTCOMES` a row.
        strokes: ``(K, 4, 2, 3)``, the gripper of each row as it was graded.
        confidence, object_ids: ``(K,)``.
    """

    arm: str
    note: str
    missing: str
    completed: NDArray | None
    rows: pd.DataFrame
    outcomes: list[str]
    strokes: NDArray[np.float64]
    confidence: NDArray[np.float64]
    object_ids: NDArray[np.int64]


@dataclass(frozen=True)
class View:
    """A chosen view, in the table frame, metres; ``missing`` says why there is none."""

    choice: Choice
    missing: str
    observed: NDArray
    background: NDArray
    T_table_camera: NDArray[np.float64]
    object_ids: NDArray[np.int64]
    arms: tuple[ArmView, ...]


def load(data: RunData, setting: Setting, choices: Sequence[Choice]) -> list[View]:
    """Read the chosen views of one setting."""
    # Of an arm of several checkpoints the first is shown.
    grasps = data.grasps_of(setting, [(choice.scene, choice.view) for choice in choices])
    return [_view(data, setting, choice, grasps) for choice in choices]


def _view(data: RunData, setting: Setting, choice: Choice, grasps: pd.DataFrame) -> View:
    unit = f"scene_{choice.scene:04d}/{setting.camera}/{choice.view:04d}"
    own = grasps[(grasps["scene"] == choice.scene) & (grasps["view"] == choice.view) & grasps["kept"]]
    found = _observation(data, unit)
    if isinstance(found, str):
        arms = [_without(arm, _note(data, setting, choice, arm, own), found) for arm in data.arms]
        nothing = np.zeros((0, 3))
        return View(choice, found, nothing, nothing, np.eye(4), np.zeros(0, np.int64), tuple(arms))
    T = found.T_table_camera
    return View(
        choice,
        "",
        transform_points(T, found.objects.points),
        transform_points(T, found.background),
        T,
        found.objects.object_ids[[len(cloud) > 0 for cloud in found.objects.clouds]],
        tuple(_arm(data, setting, choice, arm, unit, own, T) for arm in data.arms),
    )


def _observation(data: RunData, unit: str) -> Observation | str:
    try:
        return load_observation(data.folder.observations / f"{unit}.npz")
    except ArtifactError as error:
        return str(error)


def _arm(
    data: RunData, setting: Setting, choice: Choice, arm: str, unit: str, own: pd.DataFrame, T: NDArray[np.float64]
) -> ArmView:
    note = _note(data, setting, choice, arm, own)
    try:
        clouds = load_clouds(data.folder.clouds(arm) / f"{unit}.npz")
        grasps = load_grasps(data.folder.dump(arm, setting.generator) / f"{unit}.npy")
    except (ArtifactError, GraspFileError) as error:
        return _without(arm, note, str(error))
    rows = own[(own["arm"] == arm) & (own["row"] < len(grasps))].sort_values("rank", kind="stable")
    chosen = grasps[rows["row"].to_numpy(np.int64)]
    # What was graded has its width clipped, and that is what is drawn.
    graded = Grasps(**{**vars(chosen), "width": rows["width"].to_numpy(np.float64)})
    return ArmView(
        arm,
        note,
        "",
        None if data.completion_kind(arm) == "none" else transform_points(T, clouds.points),
        rows,
        outcome(rows["reason"], rows["min_friction"]).tolist(),
        transform_points(T, wireframes(graded)),
        chosen.confidence,
        chosen.object_id,
    )


def _without(arm: str, note: str, missing: str) -> ArmView:
    rows = pd.DataFrame({"rank": [], "min_friction": []})
    return ArmView(arm, note, missing, None, rows, [], np.zeros((0, 4, 2, 3)), np.zeros(0), np.zeros(0, np.int64))


def _note(data: RunData, setting: Setting, choice: Choice, arm: str, own: pd.DataFrame) -> str:
    """Say what the view is worth in this arm."""
    primary = metric(data.experiment.primary_metric)
    views = setting.of(data.views)
    views = views[(views["arm"] == arm) & (views["scene"] == choice.scene) & (views["view"] == choice.view)]
    views = views[views["object"] == -1]
    shown = views[views["replicate"] == 0]
    if shown.empty:
        return "not scored"
    value = f"{primary.title} {primary.value(float(shown.iloc[0][primary.name]))}"
    if len(views) > 1:
        value += f" with the first of {len(views)} checkpoints, {primary.number(views[primary.name].mean())} on average"
    rows = own[own["arm"] == arm].nsmallest(MOST_GRASPS, "rank")
    if rows.empty:
        return f"{value}; no grasp to grade"
    holding = int(np.isfinite(rows["min_friction"].to_numpy()).sum())
    return f"{value}; {holding} of the best {len(rows)} hold"
