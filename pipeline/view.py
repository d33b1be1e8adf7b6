"""What ``grasp-utility view`` shows of one view of a run: layers of points and lines by name, pure data.

Reads
    ``observations/``, ``arms/<arm>/{clouds,dump,scores}/``; for the truth the arm that completes by it or, without one,
    the dataset (surfaces through the cache).

Everything is in the table's frame (z up), metres. :mod:`pipeline.viewer` draws it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from grasping.clouds import voxel_downsample
from grasping.grasps import GraspFileError
from grasping.transforms import transform_points
from pipeline.artifacts import ArtifactError, FileHashes
from pipeline.cloud_files import ObjectClouds
from pipeline.datasets.graspnet import DatasetError, GraspNetDataset
from pipeline.frame_picture import wireframes
from pipeline.report.counts import outcome
from pipeline.report.style import OUTCOMES, POINTS, rgb
from pipeline.run_contents import Place, RunContents, open_run
from pipeline.truth import TrueSurfaces

Colour = tuple[int, int, int]

BACKGROUND_COLOUR: Colour = (176, 182, 189)
TRUTH_COLOUR: Colour = (120, 94, 190)
OBSERVED_SIZE = 0.0025  # metres


@dataclass(frozen=True)
class PointLayer:
    """Points of one colour.

    Attributes:
        name: ``/``-separated: where it hangs in the tree of layers.
        points: ``(N, 3)`` float32, table frame, metres.
        colour: red, green, blue, 0..255.
        size: of a point, metres.
        shown: whether it is to be seen at first.
    """

    name: str
    points: NDArray[np.float32]
    colour: Colour
    size: float
    shown: bool


@dataclass(frozen=True)
class LineLayer:
    """Grasps of one outcome.

    Attributes:
        name, colour, shown: as of :class:`PointLayer`.
        lines: ``(G, 4, 2, 3)`` float32, four strokes a grasp, table frame, metres.
        meaning: of the colour, for the legend.
    """

    name: str
    lines: NDArray[np.float32]
    colour: Colour
    shown: bool
    meaning: str


Layer = PointLayer | LineLayer


@dataclass(frozen=True)
class ViewLayers:
    """One view of a run.

    Attributes:
        title: which.
        layers: all of them.
        arms: in the order in which they were asked for.
        eye, target: where the camera stood, and the middle of what it saw: ``(3,)`` each, table frame, metres.
        notes: what is left out, and why.
    """

    title: str
    layers: tuple[Layer, ...]
    arms: tuple[str, ...]
    eye: NDArray[np.float64]
    target: NDArray[np.float64]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ViewRequest:
    """What to show; None and no arms stand for what the run says.

    Attributes:
        run: the run folder.
        scene, view, camera: which view.
        arms: names of folders below ``arms/``; none: the experiment's that have clouds.
        generator: whose grasps.
    """

    run: Path
    scene: int
    view: int
    camera: str | None = None
    arms: tuple[str, ...] = ()
    generator: str | None = None


def collect(request: ViewRequest) -> ViewLayers:
    """Gather the layers of one view.

    Raises:
        ArtifactError: for a run, scene, view, camera, generator or arm that is not there; names what is.
    """
    run = open_run(request.run)
    place = run.place(request.scene, request.view, request.camera)
    generator = run.generator(request.generator)
    arms = [run.arm(name) for name in dict.fromkeys(request.arms)] or run.arms()
    observation = run.observation(place)
    T = observation.T_table_camera
    observed = _points("scene/observed", observation.objects.points, T, rgb(POINTS["observed"]), OBSERVED_SIZE)
    layers: list[Layer] = [
        _points("scene/background", observation.background, T, BACKGROUND_COLOUR, OBSERVED_SIZE),
        observed,
    ]
    notes = [] if arms else ["No arm of the experiment has clouds yet."]
    try:
        truth = _truth(run, place, observation.objects)
        layers.append(_points("scene/truth", truth, T, TRUTH_COLOUR, run.experiment.density, shown=False))
    except (ArtifactError, DatasetError, OSError) as error:
        notes.append(f"No truth: {_sentence(error)}")
    first = _first_shown(run, arms)
    for arm in arms:
        own, missing = _arm_layers(run, place, arm, generator, T, arm == first)
        layers += own
        notes += missing
    return ViewLayers(
        f"{run.experiment.name}: {place}, grasps of {generator}",
        tuple(layers),
        tuple(arms),
        T[:3, 3].astype(np.float64),
        _middle(observed.points),
        tuple(notes),
    )


def _points(
    name: str, points: NDArray, T_table_camera: NDArray, colour: Colour, size: float, shown: bool = True
) -> PointLayer:
    return PointLayer(name, transform_points(T_table_camera, points).astype(np.float32), colour, size, shown)


def _middle(points: NDArray[np.float32]) -> NDArray[np.float64]:
    if not len(points):
        return np.array([0.0, 0.0, 0.0])
    return (points.min(axis=0) + points.max(axis=0)).astype(np.float64) / 2


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") + "."


def _first_shown(run: RunContents, arms: Sequence[str]) -> str | None:
    """Choose the one arm that is seen at first, for all at once hide each other: the first that completes."""
    return next((arm for arm in arms if run.completion_of(arm) not in ("none", "truth")), arms[0] if arms else None)


def _truth(run: RunContents, place: Place, observed: ObjectClouds) -> NDArray[np.float32]:
    """Return ``(N, 3)`` points of the true surfaces of the view's objects, camera frame, metres."""
    source = next((arm for arm in run.arms() if run.completion_of(arm) == "truth"), None)
    if source is not None:
        return run.clouds(source, place).points
    object_ids = [int(number) for number in observed.object_ids]
    dataset = GraspNetDataset(run.experiment.dataset.root, place.camera)
    surfaces = TrueSurfaces(dataset, run.experiment.cache_folder(), FileHashes(run.folder.hashes))
    posed = surfaces.posed(object_ids, dataset.object_poses(place.scene, place.view, object_ids))
    density = run.experiment.density
    return np.concatenate([np.zeros((0, 3), np.float32), *(voxel_downsample(cloud, density) for cloud in posed)])


def _arm_layers(
    run: RunContents, place: Place, arm: str, generator: str, T_table_camera: NDArray, shown: bool
) -> tuple[list[Layer], list[str]]:
    """Return what an arm completed and its kept grasps, and what is missing of them."""
    layers: list[Layer] = []
    notes = []
    try:
        completed = run.clouds(arm, place).points
        if run.completion_of(arm) != "none":  # else it is what was observed
            colour, size = rgb(POINTS["completed"]), run.experiment.density
            layers.append(_points(f"arms/{arm}/completed", completed, T_table_camera, colour, size, shown))
    except ArtifactError as error:
        notes.append(f"{arm}: no clouds: {_sentence(error)}")
    try:
        kept = run.grasps(arm, place, generator, run.scorer(None)).kept()
    except (ArtifactError, GraspFileError) as error:
        return layers, [*notes, f"{arm}: no grasps: {_sentence(error)}"]
    if not len(kept.grasps):
        return layers, [*notes, f"{arm}: no grasp was kept in this view."]
    strokes = transform_points(T_table_camera, wireframes(kept.grasps)).astype(np.float32)
    kinds = outcome(kept.rows["reason"], kept.rows["min_friction"]).to_numpy()
    for key, meaning, colour_text, _ in OUTCOMES:
        own = strokes[kinds == key]
        if len(own):
            name = f"arms/{arm}/grasps/{meaning} ({len(own)})"
            layers.append(LineLayer(name, own, rgb(colour_text), shown, meaning))
    return layers, notes
