"""GraspNet-1Billion's evaluation of one view: named constants and one function.

The protocol of Fang et al. (GraspNet-1Billion, CVPR 2020) as graspnetAPI 1.2.11 computes it, grasp by grasp the same
numbers, batched. Five things differ by intent and are stated here:

* Rows that are not finite are refused with a reason; the referee grades them silently.
* A grasp that neither collides nor is empty, but whose closing axis is not of unit length, fails as ``not_unit_axis``;
  the referee raises ``Illegal grasp axis`` there, and the scene is lost.
* Equal confidences are ordered by the grasps' other columns (:func:`grasping.suppression.confidence_order`); the
  referee leaves their order to an unstable sort.
* Every suppressed candidate is graded, unless ``kept_only`` is asked for; ``kept`` marks the cut (10 an object, and not
  below the view's 50th score) that the referee grades and its AP counts.
* Beyond the border of an object's signed distances they are measured to its whole surface, by the referee to a random
  sample of it (:mod:`grasping.contacts`).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from weakref import WeakKeyDictionary

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from grasping.collision import Lattice, collide_in_boxes
from grasping.contact_kernels import MINIMUM_SAMPLES
from grasping.contacts import NORMAL_RADIUS, find_contacts_by_object
from grasping.force_closure import FRICTIONS, minimum_friction, required_angle
from grasping.geometry import MODEL_VOXEL, GeometryError, ObjectGeometry, SignedDistanceGrid, derived_versions
from grasping.grasps import Grasps
from grasping.gripper import GRASPNET_GRIPPER
from grasping.point_boxes import PointBoxes, PointForest, PointTree
from grasping.suppression import survivors
from grasping.transforms import transform_points

FloatArray = NDArray[np.float64]

VERSION = 2
"""Raised whenever a score may come out differently."""

MAXIMUM_WIDTH = 0.10
"""Openings are clipped to [0, this] metres before anything else."""
SUPPRESSION_TRANSLATION = 0.03
"""Metres."""
SUPPRESSION_ANGLE = 30.0 / 180.0 * np.pi
"""Radians."""
GRASPS_PER_OBJECT = 10
GRASPS_PER_VIEW = 50
TABLE_SIZE = (1.0, 1.0, 0.05)
"""Metres; its top is z = 0 of the table frame and its middle the origin."""
TABLE_GRID = 0.008
"""Metres, nominal: each side has int(length / grid) points."""
WORKSPACE_MARGIN = 0.05
"""Metres by which an object's camera-aligned box grows; only scene points inside collide."""
MINIMUM_INSIDE = 10
"""With fewer points between the fingers a grasp is empty."""

AXIS_TOLERANCE = 1e-5
"""graspnetAPI raises on a grasp to be closed whose axis is off unit length by more (probed; object frame)."""

NOT_UNIT_AXIS = "not_unit_axis"
REASONS = ("success", "collides", "empty", "no_contact", "no_closure", NOT_UNIT_AXIS)
"""Outcomes; a grasp that is empty and collides counts as empty."""


def fingerprint() -> dict[str, object]:
    """Everything the scores depend on besides their input: results with different fingerprints are not compared."""
    return {
        "protocol": "graspnet-1billion",
        "version": VERSION,
        "maximum_width": MAXIMUM_WIDTH,
        "suppression_translation": SUPPRESSION_TRANSLATION,
        "suppression_angle": SUPPRESSION_ANGLE,
        "grasps_per_object": GRASPS_PER_OBJECT,
        "grasps_per_view": GRASPS_PER_VIEW,
        "table_size": list(TABLE_SIZE),
        "table_grid": TABLE_GRID,
        "model_voxel": MODEL_VOXEL,
        "workspace_margin": WORKSPACE_MARGIN,
        "minimum_inside": MINIMUM_INSIDE,
        "gripper": asdict(GRASPNET_GRIPPER),
        "frictions": list(FRICTIONS),
        "normal_radius": NORMAL_RADIUS,
        "minimum_samples": MINIMUM_SAMPLES,
        "ties": "columns",
        "derived": derived_versions(),
    }


@dataclass(frozen=True, eq=False)
class ViewScore:
    """Scores of one view's suppressed candidates, S of them, best confidence first.

    Attributes:
        index: ``(S,)`` rows of the input.
        object_index: ``(S,)`` the object (index into the view's objects) whose points are nearest.
        width: ``(S,)`` clipped openings, metres.
        kept: ``(S,)`` in the protocol's cut; AP counts these only.
        collided: ``(S,)`` the gripper hits an object or the table.
        empty: ``(S,)`` too few points between the fingers (which the protocol counts as colliding).
        min_friction: ``(S,)`` least friction at which the grasp holds, +inf where it fails at all.
        reason: ``(S,)`` one of :data:`REASONS`.
        refused: input rows that were not graded, each with its reason.
    """

    index: NDArray[np.int64]
    object_index: NDArray[np.int64]
    width: FloatArray
    kept: NDArray[np.bool_]
    collided: NDArray[np.bool_]
    empty: NDArray[np.bool_]
    min_friction: FloatArray
    reason: NDArray[np.str_]
    refused: list[tuple[int, str]]

    def __len__(self) -> int:
        return len(self.index)


@functools.cache
def table_axes() -> tuple[FloatArray, FloatArray, FloatArray]:
    """Positions of the table's points along x, y and z of the table frame, metres."""
    x, y, z = (np.linspace(0, side, int(side / TABLE_GRID)) for side in TABLE_SIZE)
    return x - TABLE_SIZE[0] / 2, y - TABLE_SIZE[1] / 2, z - TABLE_SIZE[2]


def table_points(T_camera_table: ArrayLike) -> FloatArray:
    """The protocol's table: a slab of points below the table top, ``(T, 3)`` metres in the camera frame."""
    grid = np.stack(np.meshgrid(*table_axes(), indexing="xy"), axis=-1).reshape(-1, 3)
    return transform_points(T_camera_table, grid)


def score_view(
    grasps: Grasps,
    objects: Sequence[ObjectGeometry],
    T_camera_object: ArrayLike,
    T_camera_table: ArrayLike,
    *,
    kept_only: bool = False,
) -> ViewScore:
    """Grade one view's grasps.

    Args:
        grasps: N grasps in the camera frame, suppressed or not.
        objects: the scene's K objects, seen or not, in the order of its annotation.
        T_camera_object: ``(K, 4, 4)`` poses; rounded to float32, as the referee holds them.
        T_camera_table: ``(4, 4)``: ``np.linalg.inv(cam0_wrt_table @ camera_pose)`` in float64. (Transposing the
            rotation gives another inverse where a stored pose is not perfectly orthonormal.)
        kept_only: grade and return the protocol's cut alone, which is all that AP needs: the kept rows of the full
            call, bit for bit, for a fraction of its time.

    Raises:
        ValueError: if there are no objects, or the poses do not fit them.
        GeometryError: if a grasp must be closed on an object without signed distances.
    """
    poses = np.asarray(T_camera_object, dtype=np.float32)
    if len(objects) == 0 or poses.shape != (len(objects), 4, 4):
        raise ValueError(f"expected a (4, 4) pose for each of {len(objects)} objects (at least one), got {poses.shape}")
    rows, refused = _gradable(grasps)
    candidates = grasps if len(rows) == len(grasps) else grasps[rows]
    candidates = replace(candidates, width=np.clip(candidates.width, 0.0, MAXIMUM_WIDTH))
    boxes = boxes_of(objects, poses)
    chosen, assigned = _choose(candidates, boxes, kept_only)
    candidates = candidates[chosen]
    kept = cut(candidates.confidence, assigned)
    if kept_only:
        candidates, chosen, assigned, kept = candidates[kept], chosen[kept], assigned[kept], kept[kept]
    collided, empty = _collisions(candidates, assigned, boxes, T_camera_table)
    friction, found, strange = _close(candidates, assigned, objects, poses, ~(collided | empty))

    reason = np.full(len(candidates), "no_contact", dtype=f"<U{max(map(len, REASONS))}")
    reason[found] = "no_closure"
    reason[np.isfinite(friction)] = "success"
    reason[strange] = NOT_UNIT_AXIS
    reason[collided] = "collides"
    reason[empty] = "empty"
    return ViewScore(
        index=rows[chosen],
        object_index=assigned,
        width=candidates.width,
        kept=kept,
        collided=collided,
        empty=empty,
        min_friction=friction,
        reason=reason,
        refused=refused,
    )


def remarks(score: ViewScore, generated: int) -> list[str]:
    """Say in a line each what was odd about a view's rows; nothing where nothing was.

    Args:
        score: of the view.
        generated: number of its rows before any was refused.
    """
    lines = []
    if score.refused:
        lines.append(f"{len(score.refused)} of {generated} grasps refused: {score.refused[0][1]}")
    strange = int(np.count_nonzero(score.kept & (score.reason == NOT_UNIT_AXIS)))
    if strange:
        lines.append(f"{strange} kept grasps fail because their closing axis is not of unit length")
    return lines


def _gradable(grasps: Grasps) -> tuple[NDArray[np.intp], list[tuple[int, str]]]:
    """Rows that are finite, and the others with their reason."""
    numbers = [grasps.confidence, grasps.width, grasps.height, grasps.depth, grasps.rotation, grasps.translation]
    with np.errstate(over="ignore", invalid="ignore"):
        total = sum(float(part.sum()) for part in numbers)
    if np.isfinite(total):  # then all of them are; a sum that is not may be that of finite numbers
        return np.arange(len(grasps)), []
    finite = np.isfinite(grasps.to_array()[:, :16]).all(axis=1)
    return np.flatnonzero(finite), [(int(row), "not finite") for row in np.flatnonzero(~finite)]


# For each geometry that is still in use its points' tree, and the points in its order.
_TREES: WeakKeyDictionary[ObjectGeometry, tuple[FloatArray, PointTree]] = WeakKeyDictionary()


def _tree_of(geometry: ObjectGeometry) -> tuple[FloatArray, PointTree]:
    entry = _TREES.get(geometry)
    if entry is None:
        tree = PointTree.of(geometry.points)
        entry = _TREES[geometry] = np.array(geometry.points, dtype=np.float64)[tree.order], tree
    return entry


@functools.lru_cache(maxsize=1)  # all views of a scene follow one another
def _scene_of(objects: tuple[ObjectGeometry, ...]) -> tuple[list[FloatArray], PointForest]:
    """Sampled points of each object in its own frame, and the trees over all of them."""
    known = [_tree_of(geometry) for geometry in objects]
    return [points for points, _ in known], PointForest.of([tree for _, tree in known])


def boxes_of(objects: Sequence[ObjectGeometry], poses: NDArray[np.float32]) -> PointBoxes:
    """Sampled points of all models in the camera frame, poses ``(K, 4, 4)``: the scene that :func:`score_view` asks."""
    models, forest = _scene_of(tuple(objects))
    points = np.empty((sum(map(len, models)), 3))
    begin = 0
    for T, model in zip(poses.astype(np.float64), models, strict=True):  # as transform_points does, in place
        part = points[begin : begin + len(model)]
        np.matmul(model, T[:3, :3].T, out=part)
        part += T[:3, 3]
        begin += len(model)
    return PointBoxes.of(points, forest)


def _choose(grasps: Grasps, boxes: PointBoxes, kept_only: bool) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Rows that survive suppression, best first, and their objects; for the cut alone it ends where that is settled.

    It is settled once every object has its ten, or once fifty are in and a grasp has come that is worse than the
    fiftieth: whatever follows is worse still.
    """
    rows: list[NDArray[np.intp]] = [np.zeros(0, np.intp)]
    owners: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    places = np.where(np.isfinite(boxes.object_low[:, 0]), GRASPS_PER_OBJECT, 0)  # what each object may still take
    taken: list[float] = []  # confidences, best first
    piece_length = 2 * GRASPS_PER_VIEW if kept_only else max(len(grasps), 1)
    for piece in survivors(grasps, SUPPRESSION_TRANSLATION, SUPPRESSION_ANGLE, piece_length):
        rows.append(piece)
        owners.append(boxes.owner_of_nearest(grasps.translation[piece]))
        if not kept_only:
            continue
        confidence = grasps.confidence[piece]
        for value, owner in zip(confidence.tolist(), owners[-1].tolist(), strict=True):
            if places[owner] > 0:
                places[owner] -= 1
                taken.append(value)
        full = len(taken) >= GRASPS_PER_VIEW and confidence[-1] < taken[GRASPS_PER_VIEW - 1]
        if full or not places.any():
            break
    return np.concatenate(rows), np.concatenate(owners)


def assign(translations: FloatArray, models: Sequence[FloatArray]) -> NDArray[np.int64]:
    """Give each grasp the object of its nearest model point; the first object where two are equally near.

    Args:
        translations: ``(S, 3)`` metres.
        models: K arrays ``(P, 3)`` in the same frame.
    """
    return PointBoxes.of_clouds(models).owner_of_nearest(translations)


def cut(confidence: FloatArray, assigned: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark the best 10 of each object that are not below the 50th of those (ties may exceed 50).

    Args:
        confidence: ``(S,)`` in :func:`grasping.suppression.confidence_order`.
        assigned: ``(S,)`` object of each.
    """
    kept = _first_of_each(assigned, int(assigned.max(initial=-1)) + 1, GRASPS_PER_OBJECT)
    remaining = confidence[kept]
    if len(remaining) > GRASPS_PER_VIEW:
        kept &= confidence >= remaining[GRASPS_PER_VIEW - 1]
    return kept


@numba.njit(cache=True, nogil=True)
def _first_of_each(assigned: NDArray[np.int64], objects: int, most: int) -> NDArray[np.bool_]:
    taken, out = np.zeros(objects, np.int64), np.zeros(len(assigned), np.bool_)
    for s in range(len(assigned)):
        if taken[assigned[s]] < most:
            taken[assigned[s]] += 1
            out[s] = True
    return out


def collisions(
    grasps: Grasps, assigned: NDArray[np.int64], models: Sequence[FloatArray], T_camera_table: ArrayLike
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Test grasps against models and table near their object; ``collided`` and ``empty``, each ``(S,)``."""
    return _collisions(grasps, assigned, PointBoxes.of_clouds(models), T_camera_table)


def _collisions(
    grasps: Grasps, assigned: NDArray[np.int64], boxes: PointBoxes, T_camera_table: ArrayLike
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    return collide_in_boxes(
        boxes,
        Lattice(np.asarray(T_camera_table, dtype=np.float64), *table_axes()),
        boxes.object_low - WORKSPACE_MARGIN,
        boxes.object_high + WORKSPACE_MARGIN,
        grasps,
        assigned,
        MINIMUM_INSIDE,
    )


def _close(
    grasps: Grasps,
    assigned: NDArray[np.int64],
    objects: Sequence[ObjectGeometry],
    poses: NDArray[np.float32],
    clear: NDArray[np.bool_],
) -> tuple[FloatArray, NDArray[np.bool_], NDArray[np.bool_]]:
    """Of the grasps that are clear: least friction, whether both fingers touch, whether the axis is no unit vector.

    Each ``(S,)``; the friction is +inf where the axis is none.
    """
    friction, found, strange = np.full(len(grasps), np.inf), np.zeros(len(grasps), bool), np.zeros(len(grasps), bool)
    rows = np.flatnonzero(clear)
    if len(rows) == 0:
        return friction, found, strange
    rows = rows[np.argsort(assigned[rows], kind="stable")]
    used, first, which = np.unique(assigned[rows], return_index=True, return_inverse=True)
    centres, axes = _closing_lines(grasps[rows], poses[assigned[rows]], np.linalg.inv(poses[used])[which.reshape(-1)])
    sdfs = [_distances_of(objects[k]) for k in used.tolist()]
    contacts = find_contacts_by_object(sdfs, np.diff([*first, len(rows)]).tolist(), centres, axes, grasps.width[rows])
    found[rows] = contacts.found
    friction[rows] = minimum_friction(required_angle(contacts))
    with np.errstate(over="ignore", invalid="ignore"):  # an axis so long that it overflows is no unit vector either
        strange[rows] = ~(np.abs(np.linalg.norm(axes, axis=1) - 1.0) <= AXIS_TOLERANCE)
    friction[strange] = np.inf
    return friction, found, strange


def _distances_of(geometry: ObjectGeometry) -> SignedDistanceGrid:
    if geometry.sdf is None:
        raise GeometryError(f"object {geometry.object_id} has no signed distances: load it with load_object")
    return geometry.sdf


def closing_lines(grasps: Grasps, T_camera_object: NDArray[np.float32]) -> tuple[FloatArray, FloatArray]:
    """Point between the finger tips and closing axis of each grasp, ``(N, 3)`` each, in its object's frame.

    The depth goes along the approach; then the inverse of the float32 pose is applied, itself taken in float32.

    Args:
        grasps: N grasps on one object, camera frame.
        T_camera_object: its ``(4, 4)`` pose.
    """
    everywhere = (len(grasps), 4, 4)
    inverse = np.linalg.inv(T_camera_object)
    return _closing_lines(grasps, np.broadcast_to(T_camera_object, everywhere), np.broadcast_to(inverse, everywhere))


def _closing_lines(
    grasps: Grasps, T_camera_object: NDArray[np.float32], T_object_camera: NDArray[np.float32]
) -> tuple[FloatArray, FloatArray]:
    """The same for grasps on several objects: ``(N, 4, 4)`` pose and inverse of each one's own."""
    centres = grasps.rotation[:, :, 0] * grasps.depth[:, None] + grasps.translation
    # The referee moves each centre alone, by a 4 x 4 product with one column, and BLAS gives that other last bits than
    # many columns at once. Positions are then rounded to float32, so that a last bit can decide a verdict.
    columns = np.concatenate([centres, np.ones((len(centres), 1))], axis=1)[:, :, None]
    moved = np.matmul(np.ascontiguousarray(T_object_camera, dtype=np.float64), columns)[:, :3, 0]
    # Axes are rows of a 3 x 3 product, and a lone row would have other last bits than one of several.
    pairs = np.repeat(grasps.rotation[:, None, :, 1], 2, axis=1)
    return moved, np.matmul(pairs, np.ascontiguousarray(T_camera_object[:, :3, :3], dtype=np.float64))[:, 0]
