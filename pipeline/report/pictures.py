"""Pictures of a few views, chosen by rule: every arm's clouds and its best grasps, coloured by outcome."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from grasping.grasps import GraspFileError, Grasps
from grasping.transforms import transform_points
from pipeline.artifacts import ArtifactError
from pipeline.cloud_files import Observation, load_clouds, load_observation
from pipeline.frame_picture import wireframes
from pipeline.report import answer, render
from pipeline.report.counts import outcome
from pipeline.report.inputs import RunData, Setting
from pipeline.report.metrics import metric
from pipeline.report.style import OUTCOMES, POINTS, rgb

WIDTH, HEIGHT = 620, 430
MOST_GRASPS = 15
FULL_SIZE_PICTURES = 48  # with more of them each gets smaller, so that the page stays below its 15 MB
TABLE = (150, 156, 163)
_FAR_SIDE_ELEVATION = np.radians(28.0)
_FAR_SIDE_DISTANCE = 1.5  # times the real camera's: what stands in front must not fill the picture


@dataclass(frozen=True)
class Choice:
    """One view and why it is shown."""

    why: str
    split: str
    scene: int
    view: int
    difference: float | None


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


def choose(data: RunData, setting: Setting) -> tuple[list[Choice], str]:
    """Choose views by the primary metric's difference, and say by which rule.

    The pair is the first that answers the question; its largest gain, largest loss and the view nearest its median
    are shown (ties: the first by scene and view). Without a pair: the best, the worst and the median view of an arm.
    """
    primary = metric(data.experiment.primary_metric)
    views = setting.of(data.views)
    wide = views[views["object"] == -1].pivot_table(
        index=["split", "scene", "view"], columns="arm", values=primary.name, sort=True, observed=True
    )
    pairs = [pair for pair in answer.headline_pairs(data) if set(pair) <= set(wide.columns)]
    if pairs:
        a, b = pairs[0]
        values = (wide[a] - wide[b]).dropna()
        measure = f"the difference {a} − {b} in {primary.title} of each view"
        rule = f"By {measure}: the largest gain, the largest loss, the median."
    else:
        arm = data.arms[0]
        values = wide[arm].dropna()
        rule = f"By {primary.title} of {arm}: the best view, the worst, the median."
    if values.empty:
        return [], "No view was scored in both arms of the comparison, so none is shown."
    order = values.sort_values(kind="stable").index
    names = ("largest gain", "largest loss", "median") if pairs else ("best", "worst", "median")
    wanted = [values.idxmax(), values.idxmin(), order[(len(order) - 1) // 2]]
    choices: list[Choice] = []
    for why, key in zip(names, wanted, strict=True):
        if key in [(c.split, c.scene, c.view) for c in choices]:
            continue
        value = float(values[key])
        if pairs and why == "largest gain" and value <= 0:
            why = "highest difference (no view gains)"
        if pairs and why == "largest loss" and value >= 0:
            why = "lowest difference (no view loses)"
        split, scene, view = key
        choices.append(Choice(why, str(split), int(scene), int(view), value))
    return choices, rule


def show(data: RunData, setting: Setting) -> tuple[list[Shown], str]:
    """Draw the chosen views of one setting."""
    choices, rule = choose(data, setting)
    data = _only(data, setting, choices)
    count = 2 * len(choices) * len(data.arms)
    shrink = min(1.0, (FULL_SIZE_PICTURES / max(count, 1)) ** 0.5)
    size = (round(WIDTH * shrink), round(HEIGHT * shrink))
    result = []
    with tqdm(total=count // 2, desc="pictures ", unit="picture", dynamic_ncols=True) as progress:
        for choice in choices:
            observation = _observation(data, setting, choice)
            pictures = []
            for arm in data.arms:
                pictures.append(_picture(data, setting, choice, arm, observation, size))
                progress.update()
            result.append(Shown(choice, _title(choice), tuple(pictures)))
    return result, rule


def _only(data: RunData, setting: Setting, choices: list[Choice]) -> RunData:
    """Keep of the grasps what the pictures show: the whole table may be long."""
    grasps = setting.of(data.grasps)
    shown = pd.MultiIndex.from_tuples([(c.scene, c.view) for c in choices] or [(-1, -1)])
    chosen = pd.MultiIndex.from_frame(grasps[["scene", "view"]].astype("int64")).isin(shown)
    return replace(data, grasps=grasps[chosen])


def _title(choice: Choice) -> str:
    where = f"scene {choice.scene}, view {choice.view}, {choice.split}"
    return f"{choice.why[:1].upper()}{choice.why[1:]}: {where}"


def _observation(data: RunData, setting: Setting, choice: Choice) -> Observation | str:
    folder = data.folder.observations / f"scene_{choice.scene:04d}" / setting.camera
    try:
        return load_observation(folder / f"{choice.view:04d}.npz")
    except ArtifactError as error:
        return str(error)


def _picture(
    data: RunData, setting: Setting, choice: Choice, arm: str, observation: Observation | str, size: tuple[int, int]
) -> Picture:
    note = _note(data, setting, choice, arm)
    if isinstance(observation, str):
        return Picture(arm, "", "", note, observation)
    unit = f"scene_{choice.scene:04d}/{setting.camera}/{choice.view:04d}"
    try:
        clouds = load_clouds(data.folder.clouds(arm) / f"{unit}.npz")
        grasps = Grasps.load(data.folder.dump(arm, setting.generator) / f"{unit}.npy")
    except (ArtifactError, GraspFileError) as error:
        return Picture(arm, "", "", note, str(error))
    T = observation.T_table_camera
    rows = _best(data, choice, arm)
    rows = rows[rows["row"] < len(grasps)]
    wires = _wires(grasps, rows, T)
    completed = [] if data.completion_kind(arm) == "none" else [transform_points(T, clouds.points)]
    observed = transform_points(T, observation.objects.points)
    pair = [
        _draw(camera, observed, completed, transform_points(T, observation.background), wires, data.experiment.density)
        for camera in _cameras(observed, T, size)
    ]
    return Picture(arm, pair[0], pair[1], note)


def _note(data: RunData, setting: Setting, choice: Choice, arm: str) -> str:
    """Say what the view is worth in this arm."""
    primary = metric(data.experiment.primary_metric)
    views = setting.of(data.views)
    own = views[
        (views["arm"] == arm)
        & (views["scene"] == choice.scene)
        & (views["view"] == choice.view)
        & (views["object"] == -1)
    ]
    if own.empty:
        return "not scored"
    rows = _best(data, choice, arm)
    if rows.empty:
        return f"{primary.title} {primary.value(float(own.iloc[0][primary.name]))}; no grasp to grade"
    holding = int(np.isfinite(rows["min_friction"].to_numpy()).sum())
    return f"{primary.title} {primary.value(float(own.iloc[0][primary.name]))}; {holding} of the best {len(rows)} hold"


def _best(data: RunData, choice: Choice, arm: str) -> pd.DataFrame:
    rows = data.grasps
    rows = rows[(rows["arm"] == arm) & (rows["scene"] == choice.scene) & (rows["view"] == choice.view) & rows["kept"]]
    return rows.nsmallest(MOST_GRASPS, "rank")


def _wires(grasps: Grasps, rows: pd.DataFrame, T_table_camera: NDArray[np.float64]) -> list[render.Wire]:
    chosen = grasps[rows["row"].to_numpy(np.int64)]
    # What was graded has its width clipped, and that is what is drawn.
    graded = Grasps(**{**vars(chosen), "width": rows["width"].to_numpy(np.float64)})
    strokes = transform_points(T_table_camera, wireframes(graded))
    colours = {key: rgb(light) for key, _, light, _ in OUTCOMES}
    kinds = outcome(rows["reason"], rows["min_friction"])
    return [render.Wire(lines, colours[kind]) for lines, kind in zip(strokes, kinds, strict=True)]


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
