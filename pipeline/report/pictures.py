"""Pictures of the chosen views: every arm's clouds and its best grasps, coloured by outcome."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.progress import shortest_interval
from pipeline.report import render
from pipeline.report.choice import Choice
from pipeline.report.style import OUTCOMES, POINTS, rgb
from pipeline.report.views import MOST_GRASPS, ArmView, View

WIDTH, HEIGHT = 620, 430
FULL_SIZE_PICTURES = 48  # with more of them each gets smaller, so that the page stays below its 15 MB
TABLE = (150, 156, 163)
_FAR_SIDE_ELEVATION = np.radians(28.0)
_FAR_SIDE_DISTANCE = 1.5  # times the real camera's: what stands in front must not fill the picture


@dataclass(frozen=True)
class Picture:
    """One arm's view of a scene: two pictures as data URLs, or why there is none."""

    arm: str
    from_camera: str
    from_behind: str
    note: str
    missing: str = ""


@dataclass(frozen=True)
class Shown:
    """A chosen view with one picture an arm."""

    choice: Choice
    title: str
    pictures: tuple[Picture, ...]


def show(views: Sequence[View], density: float) -> list[Shown]:
    """Draw the chosen views; ``density`` is the edge of what a point stands for, metres."""
    count = sum(2 * len(view.arms) for view in views)
    shrink = min(1.0, (FULL_SIZE_PICTURES / max(count, 1)) ** 0.5)
    size = (round(WIDTH * shrink), round(HEIGHT * shrink))
    result = []
    with tqdm(
        total=count // 2, desc="pictures ", unit="picture", dynamic_ncols=True, mininterval=shortest_interval()
    ) as progress:
        for view in views:
            pictures = []
            for arm in view.arms:
                pictures.append(_picture(view, arm, density, size))
                progress.update()
            result.append(Shown(view.choice, view.choice.title, tuple(pictures)))
    return result


def _picture(view: View, arm: ArmView, density: float, size: tuple[int, int]) -> Picture:
    if arm.missing:
        return Picture(arm.arm, "", "", arm.note, arm.missing)
    colours = {key: rgb(light) for key, _, light, _ in OUTCOMES}
    best = zip(arm.strokes[:MOST_GRASPS], arm.outcomes[:MOST_GRASPS], strict=True)
    wires = [render.Wire(lines, colours[kind]) for lines, kind in best]
    completed = [] if arm.completed is None else [arm.completed]
    pair = [
        _draw(camera, view.observed, completed, view.background, wires, density)
        for camera in _cameras(view.observed, view.T_table_camera, size)
    ]
    return Picture(arm.arm, pair[0], pair[1], arm.note)


def _cameras(
    observed: NDArray, T_table_camera: NDArray[np.float64], size: tuple[int, int]
) -> tuple[render.Camera, render.Camera]:
    """Return a camera where the real one stood, and one on the far side, both turned to the objects."""
    framed = observed if len(observed) else np.zeros((1, 3))
    target = (framed.min(axis=0) + framed.max(axis=0)) / 2
    eye = T_table_camera[:3, 3]
    away = eye - target
    distance = float(np.linalg.norm(away))
    flat = np.array([away[0], away[1], 0.0])
    if np.linalg.norm(flat) < 0.05 * distance:
        flat = np.array([0.0, -1.0, 0.0])
    flat /= np.linalg.norm(flat)
    behind = target + _FAR_SIDE_DISTANCE * distance * (
        -np.cos(_FAR_SIDE_ELEVATION) * flat + np.sin(_FAR_SIDE_ELEVATION) * np.array([0.0, 0.0, 1.0])
    )
    return render.look_at(eye, target, framed, *size), render.look_at(behind, target, framed, *size)


def _draw(
    camera: render.Camera,
    observed: NDArray,
    completed: list[NDArray],
    table: NDArray,
    wires: list[render.Wire],
    density: float,
) -> str:
    layers = [render.Layer(table, TABLE, 0.003, opacity=0.28)]
    layers += [render.Layer(points, rgb(POINTS["completed"]), density) for points in completed]
    # The observation lies in front of what completes it within the noise of both.
    layers.append(render.Layer(observed, rgb(POINTS["observed"]), 0.003, nearer=0.004 if completed else 0.0))
    data = render.png(render.draw(camera, layers, wires))
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")
