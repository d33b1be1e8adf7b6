"""The data of the panel in 3-D: the chosen views as packed points, and the program that draws them.

The panel is drawn by plotly.js, which comes out of the installed Python package and is embedded in the page. Points are
packed as base64 of little-endian int16, all x, then all y, then all z, in steps of 0.1 mm from the scene's middle.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from grasping.clouds import voxel_downsample
from grasping.transforms import transform_points
from pipeline.artifacts import FileHashes
from pipeline.datasets.graspnet import DatasetError, GraspNetDataset
from pipeline.report import choice, style, tables
from pipeline.report.inputs import RunData, Setting
from pipeline.report.views import MOST_GRASPS, ArmView, View
from pipeline.truth import TrueSurfaces

STEP = 1e-4  # metres
MOST_BYTES = 5_000_000  # of all points, so that the page stays below its 15 MB
_BYTES_A_POINT = 8  # three int16 in base64
_FIELD = np.radians(45.0)  # plotly's field of view
_SLACK = 0.97  # of the start camera's distance, for the objects fill no ball


@dataclass(frozen=True)
class Key:
    """One checkbox: the trace it shows, its text, marker and CSS colour, and whether it starts ticked."""

    trace: str
    text: str
    marker: str
    variable: str
    ticked: bool = True


@dataclass(frozen=True)
class Panel:
    """What the template draws.

    Attributes:
        scenes: titles of the chosen views; none where nothing can be shown.
        arms: names.
        sides: the two arms that stand side by side at first.
        keys: the checkboxes.
        counts: how many grasps can be shown at once.
        notes: what a reader must know of the points.
        data: JSON for the page's script.
    """

    scenes: tuple[str, ...]
    arms: tuple[str, ...]
    sides: tuple[str, str]
    keys: tuple[Key, ...]
    counts: tuple[int, ...]
    notes: tuple[str, ...]
    data: Markup


def panel(data: RunData, setting: Setting, views: Sequence[View]) -> Panel:
    """Return the panel of the chosen views."""
    views = [view for view in views if not view.missing]
    truths = [_truth(data, setting, view) for view in views]
    clouds = sum(1 + len(view.arms) for view in views)
    thin = _Thinning(MOST_BYTES // _BYTES_A_POINT // max(clouds, 1), data.experiment.density)
    scenes = [_scene(data, view, truth, thin) for view, truth in zip(views, truths, strict=True)]
    shown = {kind for view in views for arm in view.arms for kind in arm.outcomes}
    outcomes = [entry for entry in style.OUTCOMES if entry[0] in shown or entry[0] not in ("other", "missing")]
    keys = [
        Key("observed", "observed points", "●", "points-observed"),
        Key("completed", "completed points", "●", "points-completed"),
        Key("truth", "true surface", "●", "fg", False),
        *(Key(key, title, "▬", style.outcome_variable(key)) for key, title, *_ in outcomes),
    ]
    pair = choice.headline_pair(data, setting)
    most = max((len(arm.outcomes) for view in views for arm in view.arms), default=0)
    notes = []
    if views and not any(len(truth) for truth in truths):
        notes.append("The true surface is left out: no arm of this run has it, and the dataset is not where it was.")
        keys = [key for key in keys if key.trace != "truth"]
    if thin.voxel > data.experiment.density:
        notes.append(f"Large clouds are thinned here to one point a voxel of {1000 * thin.voxel:.1f} mm.")
    drawn = [{"trace": key.trace, "variable": key.variable, "text": key.text} for key in keys]
    content = {"keys": drawn, "scenes": scenes}
    return Panel(
        tuple(view.choice.title for view in views),
        tuple(data.arms),
        (pair[1], pair[0]) if pair else (data.arms[0], data.arms[-1]),
        tuple(keys),
        tuple(sorted({count for count in (5, MOST_GRASPS, most) if count <= most})),
        tuple(notes),
        script_json(content),
    )


def _truth(data: RunData, setting: Setting, view: View) -> NDArray:
    """Return the true surface of what was seen, ``(N, 3)`` in the table frame; empty where it cannot be had."""
    for arm in view.arms:
        if data.completion_kind(arm.arm) == "truth" and arm.completed is not None:
            return arm.completed
    try:
        dataset = GraspNetDataset(data.experiment.dataset.root, setting.camera)
        numbers = [int(number) for number in view.object_ids]
        cache = data.experiment.cache_folder()
        surfaces = TrueSurfaces(dataset, cache, FileHashes(data.folder.hashes))
        posed = surfaces.posed(numbers, dataset.object_poses(view.choice.scene, view.choice.view, numbers))
    except (DatasetError, OSError):
        return np.zeros((0, 3), np.float32)
    clouds = [voxel_downsample(cloud, data.experiment.density) for cloud in posed]
    return transform_points(view.T_table_camera, np.concatenate([np.zeros((0, 3), np.float32), *clouds]))


class _Thinning:
    """Thins clouds to a number of points, and remembers the largest voxel it needed."""

    def __init__(self, most: int, density: float) -> None:
        self.most = most
        self.density = density
        self.voxel = 0.0

    def __call__(self, points: NDArray) -> NDArray:
        voxel, thinned = self.density, points
        while len(thinned) > self.most:
            voxel *= 1.1
            thinned = voxel_downsample(points, voxel)
            self.voxel = max(self.voxel, voxel)
        return thinned


def _scene(data: RunData, view: View, truth: NDArray, thin: _Thinning) -> dict[str, Any]:
    framed = view.observed if len(view.observed) else np.zeros((1, 3))
    middle = (framed.min(axis=0) + framed.max(axis=0)) / 2
    clouds = [view.observed, truth, *(arm.completed for arm in view.arms if arm.completed is not None)]
    drawn = np.concatenate([*clouds, *(arm.strokes.reshape(-1, 3) for arm in view.arms), framed]) - middle
    half = 1.02 * float(np.abs(drawn).max())
    step = max(STEP, half / np.iinfo(np.int16).max)
    away = view.T_table_camera[:3, 3] - middle
    radius = float(np.linalg.norm(framed - middle, axis=1).max())
    return {
        "title": view.choice.title,
        "step": step,
        "half": half,
        # From where the camera stood, as near as shows every object.
        "eye": (_SLACK * max(radius, 0.05) / np.sin(_FIELD / 2) * away / np.linalg.norm(away)).tolist(),
        "floor": -float(middle[2]),
        "observed": pack(thin(view.observed) - middle, step),
        "truth": pack(thin(truth) - middle, step),
        "arms": [_arm(data, arm, middle, step, thin) for arm in view.arms],
    }


def _arm(data: RunData, arm: ArmView, middle: NDArray, step: float, thin: _Thinning) -> dict[str, Any]:
    completed: str | None = None
    if arm.completed is not None:
        # The true arm's cloud is the scene's truth: it travels once.
        is_truth = data.completion_kind(arm.arm) == "truth"
        completed = "truth" if is_truth else pack(thin(arm.completed) - middle, step)
    return {
        "name": arm.arm,
        "note": f"No data: {arm.missing}" if arm.missing else arm.note,
        "completed": completed,
        "strokes": pack(arm.strokes.reshape(-1, 3) - middle, step),
        "outcomes": arm.outcomes,
        "rank": [int(rank) + 1 for rank in arm.rows["rank"]],
        "friction": [round(float(value), 3) if np.isfinite(value) else None for value in arm.rows["min_friction"]],
        "confidence": [round(float(value), 3) for value in arm.confidence],
        "object": [tables.object_title(data, str(number)) for number in arm.object_ids],
    }


def pack(points: NDArray, step: float = STEP) -> str:
    """Return ``(N, 3)`` metres as base64 of int16 steps, all x before all y before all z."""
    steps = np.rint(np.asarray(points, np.float64).reshape(-1, 3) / step)
    return base64.b64encode(steps.T.astype("<i2").tobytes()).decode("ascii")


def unpack(text: str, step: float = STEP) -> NDArray[np.float64]:
    """Return what :func:`pack` was given, to half a step."""
    return np.frombuffer(base64.b64decode(text), "<i2").reshape(3, -1).T * step


def script_json(content: Any) -> Markup:
    """Return JSON that can stand in a ``<script>``: no text in it can end the element."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def library() -> Markup:
    """Return plotly.js as it is installed, so that it can stand in a ``<script>``."""
    from plotly.offline import get_plotlyjs

    # A page's parser reads every line end as a line feed, and the policy's hash is of what it reads.
    text = get_plotlyjs().replace("\r\n", "\n").replace("\r", "\n")
    # Inside the strings of a program a backslash more changes nothing.
    return Markup(text.replace("</script", "<\\/script").replace("<!--", "<\\!--"))
