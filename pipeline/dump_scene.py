"""Score some views of one scene of a dump: what a worker of ``score-dump`` does, and all that it imports.

No torch, no open3d, no pandas, and of scipy only what numba itself asks for (BLAS): a worker is ready in half a
second, which is numba's import and the loading of compiled kernels. Objects come as
:class:`grasping.prepared.PreparedObject`, files of the cache that all workers map.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from grasping import protocol
from grasping.geometry import ObjectGeometry
from grasping.grasps import GraspFileError, GraspFileMissingError, Grasps
from grasping.prepared import PreparedObject
from grasping.protocol import ViewScore
from grasping.utility import accuracy_table, average_precision
from pipeline.datasets.graspnet import GraspNetDataset
from pipeline.view_files import read_grasps

FloatArray = NDArray[np.float64]

AP_KEYS = ("ap", "ap_0.4", "ap_0.8")

# What became of a view.
SCORED, EMPTY, MISSING, UNREADABLE, NO_RESULT = "scored", "empty", "missing", "unreadable", "no_result"
VIEW_STATES = (SCORED, EMPTY, MISSING, UNREADABLE, NO_RESULT)

# A reason beside the protocol's own: there is nothing to close on.
NO_DISTANCES = "no_distances"
REASONS = (*protocol.REASONS, NO_DISTANCES)

WIDTH_BINS: dict[str, tuple[float, float]] = {"S": (0.0, 0.04), "M": (0.04, 0.07), "L": (0.07, np.inf)}
"""Clipped openings in metres, lower edge included: the bins of Ma and Huang (CoRL 2022)."""
SCALE_PER_OBJECT, SCALE_TOP = 5, 20
"""Their cut: so many grasps an object, and so many ranks of the accuracy table."""

ROW = np.dtype(
    [
        ("view", "i2"),
        ("row", "i4"),
        ("rank", "i2"),
        ("object", "i4"),
        ("confidence", "f8"),
        ("width", "f8"),
        ("min_friction", "f8"),
        ("collided", "?"),
        ("empty", "?"),
        ("reason", "u1"),
    ]
)
"""A kept grasp; ``rank`` is its place by confidence among the kept, from 0, ``reason`` an index into REASONS."""


@dataclass(frozen=True)
class SceneJob:
    """Some views of one scene.

    Attributes:
        root, camera, scene, views: of the dataset.
        dump: folder of ``scene_SSSS/<camera>/VVVV.npy``.
        objects: the scene's objects in its annotation's order, also those that cannot be used.
        scales: whether each width bin's grasps are also graded on their own.
    """

    root: Path
    camera: str
    scene: int
    views: tuple[int, ...]
    dump: Path
    objects: tuple[PreparedObject, ...]
    scales: bool = False

    def dump_file(self, view: int) -> Path:
        return self.dump / f"scene_{self.scene:04d}" / self.camera / f"{view:04d}.npy"


@dataclass(frozen=True, eq=False)
class SceneScore:
    """What became of V views of one scene.

    Attributes:
        scene: its number.
        views: V numbers.
        states: of each view, of :data:`VIEW_STATES`.
        ap: ``(V, 3)`` percent, columns :data:`AP_KEYS`; zero where nothing was scored.
        width_ap: ``(V, 3, 3)`` the same of each bin's kept grasps as a list of their own; bins in
            :data:`WIDTH_BINS`' order.
        scale_ap: ``(V, 3, 3)`` the same of each bin's grasps graded on their own; zeros where not asked for.
        rows: ``(R,)`` of :data:`ROW`, by view and rank.
        generated: rows of the views' files.
        refused: reasons of rows that were not graded, counted.
        problems: ``(view, text)``.
        poses: ``(V,)`` hashes of the poses that the views were scored with.
        seconds: that it took.
    """

    scene: int
    views: tuple[int, ...]
    states: tuple[str, ...]
    ap: FloatArray
    width_ap: FloatArray
    scale_ap: FloatArray
    rows: NDArray[np.void]
    generated: int
    refused: dict[str, int]
    problems: tuple[tuple[int, str], ...]
    poses: tuple[str, ...]
    seconds: float


@dataclass
class ViewResult:
    """What became of one view, while it happens."""

    state: str = NO_RESULT
    ap: FloatArray = field(default_factory=lambda: np.zeros(3))
    width_ap: FloatArray = field(default_factory=lambda: np.zeros((3, 3)))
    scale_ap: FloatArray = field(default_factory=lambda: np.zeros((3, 3)))
    rows: NDArray[np.void] = field(default_factory=lambda: np.zeros(0, ROW))
    generated: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    poses: str = ""


def score_scene(job: SceneJob) -> SceneScore:
    """Score the views of one job; a view that cannot be scored is told, and the others go on.

    Raises:
        GeometryError: if a file was lost from the cache.
        DatasetError: if the scene's own files are missing or broken.
    """
    begin = time.perf_counter()
    truth = SceneTruth(job)
    views = [_guarded(job, truth, view) for view in job.views]
    return SceneScore(
        scene=job.scene,
        views=job.views,
        states=tuple(v.state for v in views),
        ap=np.array([v.ap for v in views]).reshape(-1, 3),
        width_ap=np.array([v.width_ap for v in views]).reshape(-1, 3, 3),
        scale_ap=np.array([v.scale_ap for v in views]).reshape(-1, 3, 3),
        rows=np.concatenate([np.zeros(0, ROW), *(v.rows for v in views)]),
        generated=sum(v.generated for v in views),
        refused=dict(sum((v.refused for v in views), Counter())),
        problems=tuple((number, text) for number, v in zip(job.views, views, strict=True) for text in v.problems),
        poses=tuple(v.poses for v in views),
        seconds=time.perf_counter() - begin,
    )


class SceneTruth:
    """A scene's usable objects and its poses, read once for all views of a job.

    Attributes:
        prepared: the objects that have a model, K of them, in the annotation's order.
        objects: the same, mapped.
    """

    def __init__(self, job: SceneJob) -> None:
        self._dataset = GraspNetDataset(job.root, job.camera)
        self._scene = job.scene
        self._ids = [item.object_id for item in job.objects]
        self._usable = [k for k, item in enumerate(job.objects) if item.usable]
        self.prepared = [job.objects[k] for k in self._usable]
        self.objects: list[ObjectGeometry] = [_opened(item) for item in self.prepared]
        self._tables = self._dataset.table_poses(job.scene)

    def poses(self, view: int) -> tuple[NDArray[np.float32], FloatArray]:
        """Return ``T_camera_object`` ``(K, 4, 4)`` and ``T_camera_table`` ``(4, 4)``.

        Raises:
            DatasetError: if a file of the view is missing or broken.
        """
        T_camera_object = self._dataset.object_poses(self._scene, view, self._ids)[self._usable]
        # The general inverse, as graspnetAPI takes it: a transposed rotation differs in the last bits.
        return T_camera_object, np.asarray(np.linalg.inv(self._tables.T_table_camera(view)), np.float64)


@lru_cache(maxsize=32)  # three scenes' worth: what is mapped counts as a worker's memory
def _opened(prepared: PreparedObject) -> ObjectGeometry:
    return prepared.open()


def _guarded(job: SceneJob, truth: SceneTruth, view: int) -> ViewResult:
    result = ViewResult()
    try:
        _score_view(job, truth, view, result)
    except (ValueError, OSError) as error:
        result = ViewResult(problems=[" ".join(str(error).split())])
    except Exception as error:  # no input kills it: what was not foreseen costs its view, and is told
        result = ViewResult(problems=[" ".join(f"{type(error).__name__}: {error}".split())])
    return result


def _score_view(job: SceneJob, truth: SceneTruth, view: int, result: ViewResult) -> None:
    if not truth.objects:
        raise ValueError("no object of the scene has a usable model; fetch the models")
    poses = truth.poses(view)
    result.poses = hashlib.sha256(poses[0].tobytes() + poses[1].tobytes()).hexdigest()[:16]
    try:
        grasps, note = read_grasps(job.dump_file(view))
    except GraspFileMissingError:
        result.state = MISSING  # summed up by the caller: half a dump would be thousands of lines
        return
    except GraspFileError as error:
        result.state = UNREADABLE
        result.problems.append(str(error))
        return
    if note:
        result.problems.append(f"{job.dump_file(view)}: {note}")
    result.generated = len(grasps)
    _grade(grasps, truth, poses, result)
    result.rows["view"] = view
    if job.scales:
        for k, (low, high) in enumerate(WIDTH_BINS.values()):
            width = np.clip(grasps.width, 0.0, protocol.MAXIMUM_WIDTH)
            part = grade_view(grasps[(width >= low) & (width < high)], truth, poses, view)
            result.scale_ap[k] = _precision(_scale_list(part.rows), SCALE_TOP)


def grade_view(
    grasps: Grasps, truth: SceneTruth, poses: tuple[NDArray[np.float32], FloatArray], view: int
) -> ViewResult:
    """Grade one view's grasps (camera frame) by the protocol's cut."""
    result = ViewResult(generated=len(grasps))
    _grade(grasps, truth, poses, result)
    result.rows["view"] = view
    return result


def _grade(
    grasps: Grasps, truth: SceneTruth, poses: tuple[NDArray[np.float32], FloatArray], result: ViewResult
) -> None:
    with np.errstate(all="ignore"):  # numbers so large that they overflow fail like others
        score = protocol.score_view(grasps, truth.objects, *poses, kept_only=True)
    score = amended(score, truth.prepared)
    result.refused.update(reason for _, reason in score.refused)
    result.problems += protocol.remarks(score, len(grasps))
    result.state = SCORED if len(score) else EMPTY
    rows = np.zeros(len(score), ROW)
    rows["row"], rows["rank"] = score.index, np.arange(len(score))
    rows["object"] = np.array([item.object_id for item in truth.prepared])[score.object_index]
    rows["confidence"], rows["width"] = grasps.confidence[score.index], score.width
    rows["min_friction"], rows["collided"], rows["empty"] = score.min_friction, score.collided, score.empty
    rows["reason"] = [REASONS.index(text) for text in score.reason]
    result.rows = rows
    result.ap = _precision(rows["min_friction"])
    bins = width_bin(rows["width"])
    result.width_ap = np.array([_precision(rows["min_friction"][bins == k]) for k in range(len(WIDTH_BINS))])


def amended(score: ViewScore, prepared: list[PreparedObject]) -> ViewScore:
    """Name what fails for want of distances: clear grasps on objects that nothing can be closed on."""
    without = ~(score.collided | score.empty) & ~np.array([item.closable for item in prepared])[score.object_index]
    reason = score.reason.astype(f"<U{max(map(len, REASONS))}")
    reason[without] = NO_DISTANCES
    return replace(score, reason=reason)


def width_bin(width: FloatArray) -> NDArray[np.int64]:
    """Number of the bin of :data:`WIDTH_BINS` that each opening belongs to."""
    return np.searchsorted([low for low, _ in WIDTH_BINS.values()], width, side="right") - 1


def _scale_list(rows: NDArray[np.void]) -> FloatArray:
    """Least frictions of the best 5 of each object.

    Of the protocol's 10 an object and 50 a view these are what Ma and Huang's own cut gives, as far as its 20 ranks
    reach: fewer than 20 of the best 5s above a grasp means at most 3 objects with further grasps above it, 35 in all.
    """
    first = np.zeros(len(rows), bool)
    for number in np.unique(rows["object"]):
        first[np.flatnonzero(rows["object"] == number)[:SCALE_PER_OBJECT]] = True
    return rows["min_friction"][first]


def _precision(min_friction: FloatArray, top: int | None = None) -> FloatArray:
    table = accuracy_table(min_friction) if top is None else accuracy_table(min_friction, top)
    values = average_precision(table)
    return np.array([values[key] for key in AP_KEYS])
