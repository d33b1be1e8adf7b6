"""The scorer's self-check: what AP is left to somebody who knows the true objects and ranks perfectly?

Antipodal grasps are sampled on the zero level of the true signed distances (both contacts are real surface; obstacles
are all true surfaces of the scene), graded one by one without suppression, and given their own true score as
confidence; those that fail are dropped. Then they go through the same protocol as a dump. What they lack to 100 is what
the protocol (10 places an object, suppression, the friction ladder) and the scene leave to nobody, as far as the sample
finds it: a lower bound of the ceiling. (GraspNet-1Billion's own labels reach 30 to 46 when fed back.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grasping import protocol
from grasping.contacts import find_contacts
from grasping.force_closure import minimum_friction, required_angle
from grasping.geometry import ObjectGeometry, SignedDistanceGrid
from grasping.grasps import Grasps
from grasping.suppression import suppress
from grasping.transforms import invert, transform_points
from grasping.utility import TOP_K
from pipeline.dump_result import summarize
from pipeline.dump_scene import AP_KEYS, ROW, SceneJob, SceneScore, SceneTruth, grade_view
from pipeline.engines.batch import run_units

FloatArray = NDArray[np.float64]

SURFACE_POINTS = 12_000
"""At most so many points of each object's surface."""
FRICTIONS_SHOWN = (0.2, 0.4, 0.8)
_TIE = 0.01  # of the generator's confidence, between grasps of one friction: steps of the ladder are 0.2


@dataclass(frozen=True, eq=False)
class Checked:
    """What sampled true grasps scored on the views of one job.

    Attributes:
        score: as of a dump.
        objects: object -> least frictions, ``(P,)``, of its best 10 grasps after suppression, of all views together:
            what it offers where the view's 50 places are not contended for.
        views: number of views.
    """

    score: SceneScore
    objects: dict[int, FloatArray]
    views: int


def ceiling(jobs: Sequence[SceneJob], workers: int) -> dict[str, Any]:
    """Score sampled true grasps on the views of a dump's jobs.

    Returns:
        ``ap``, ``ap_0.4``, ``ap_0.8`` in percent; ``by_object``: mean number of kept grasps a view and of those that
        hold at some frictions; ``meaning``: sentences.
    """
    whole_scenes: dict[int, SceneJob] = {}  # the sample is drawn once a scene, however its views are shared out
    for job in jobs:
        known = whole_scenes.get(job.scene)
        whole_scenes[job.scene] = job if known is None else replace(known, views=known.views + job.views)
    units = [(f"scene_{scene:04d}", job) for scene, job in whole_scenes.items()]
    outcomes = run_units(check_scene, units, workers=workers, title="self-check")
    parts = [outcome.value for outcome in outcomes if outcome.error is None]
    result: dict[str, Any] = {"failed": [f"{o.label}: {o.error}" for o in outcomes if o.error is not None]}
    whole = summarize([part.score for part in parts], scales=False)
    result.update({key: whole[key] for key in (*AP_KEYS, "views", "kept", "by_split", "by_width")})
    found: dict[int, list[FloatArray]] = {}
    views: Counter[int] = Counter()
    for part in parts:
        for number, friction in part.objects.items():
            found.setdefault(number, []).append(friction)
            views[number] += part.views
    result["by_object"] = {
        f"{number:03d}": _object(np.concatenate(found[number]), views[number]) for number in sorted(found)
    }
    result["meaning"] = _meaning(result)
    return result


def _object(friction: FloatArray, views: int) -> dict[str, float]:
    """Mean numbers of an object's 10 places in a view that are filled, and that hold at some frictions."""
    holds = {str(mu): float((friction <= mu).sum()) / views for mu in FRICTIONS_SHOWN}
    return {"views": views, "places": len(friction) / views, **holds}


def _meaning(result: dict[str, Any]) -> list[str]:
    views = max(result["views"], 1)
    filled = result["kept"] / views
    # the AP of a view whose filled places all hold at every friction
    places = min(int(filled), TOP_K)
    ranks = np.minimum(np.arange(1, TOP_K + 1), places) / np.arange(1, TOP_K + 1)
    slots = 100.0 * float(ranks.mean())
    reached = f"A perfect ranking of these sampled true grasps reaches AP {result['ap']:.1f}"
    rule = f"{protocol.GRASPS_PER_OBJECT} an object; grasps within 3 cm and 30° are one"
    if result["ap"] > 99.95:
        sentences = [f"{reached}: here the protocol takes nothing from a perfect detector ({rule})."]
    else:
        sentences = [
            f"{reached}: read a dump's AP against that, not against 100.",
            f"They fill {filled:.0f} of a view's {TOP_K} places ({rule}), which alone limits AP to {slots:.0f}.",
        ]
    if slots - result["ap"] > 0.5:
        sentences.append(
            f"The other {slots - result['ap']:.0f} points are friction: a grasp counts in full only if it holds at "
            "µ = 0.2."
        )
    none = [name for name, part in result["by_object"].items() if part["places"] < 0.05]
    if none:
        sentences.append(
            f"No grasp was found on {', '.join(none)}: too wide, too flat on the table, or hemmed in; whatever a dump "
            "offers there most likely fails."
        )
    sentences.append("It is a lower bound: other grasps than the sampled ones may hold as well.")
    return sentences


def check_scene(job: SceneJob) -> Checked:
    """Sample true grasps on one scene's objects and score them on the job's views."""
    truth = SceneTruth(job)
    sampled = sample_scene(job, truth)
    results = []
    offered: dict[int, list[FloatArray]] = {item.object_id: [np.zeros(0)] for item in truth.prepared}
    for view in job.views:
        poses = truth.poses(view)
        grasps, friction, assigned = true_grasps(sampled.transformed(poses[1]), truth.objects, poses)
        results.append(grade_view(grasps, truth, poses, view))
        order = suppress(grasps, protocol.SUPPRESSION_TRANSLATION, protocol.SUPPRESSION_ANGLE)
        for k, item in enumerate(truth.prepared):
            best = order[assigned[order] == k][: protocol.GRASPS_PER_OBJECT]
            offered[item.object_id].append(friction[best])
    count = len(job.views)
    score = SceneScore(
        scene=job.scene,
        views=job.views,
        states=tuple(r.state for r in results),
        ap=np.array([r.ap for r in results]).reshape(-1, 3),
        width_ap=np.array([r.width_ap for r in results]).reshape(-1, 3, 3),
        scale_ap=np.zeros((count, 3, 3)),
        rows=np.concatenate([np.zeros(0, ROW), *(r.rows for r in results)]),
        generated=0,
        refused={},
        problems=(),
        poses=(),
        seconds=0.0,
    )
    return Checked(score, {number: np.concatenate(parts) for number, parts in offered.items()}, count)


def true_grasps(
    grasps: Grasps, objects: Sequence[ObjectGeometry], poses: tuple[NDArray[np.float32], FloatArray]
) -> tuple[Grasps, FloatArray, NDArray[np.int64]]:
    """Return those of some grasps (camera frame) that hold, with their own true score as confidence.

    Returns:
        M grasps; ``(M,)`` least frictions; ``(M,)`` the object (index) that each belongs to.
    """
    friction, assigned = alone(grasps, objects, poses)
    holds = np.isfinite(friction)
    confidence = 2.0 - friction[holds] + _TIE * grasps.confidence[holds]
    return replace(grasps[holds], confidence=confidence), friction[holds], assigned[holds]


def alone(
    grasps: Grasps, objects: Sequence[ObjectGeometry], poses: tuple[NDArray[np.float32], FloatArray]
) -> tuple[FloatArray, NDArray[np.int64]]:
    """Least friction and object ``(N,)`` of each grasp by itself: the protocol without suppression and cut."""
    T_camera_object, T_camera_table = poses
    clipped = replace(grasps, width=np.clip(grasps.width, 0.0, protocol.MAXIMUM_WIDTH))
    models = [transform_points(T, geometry.points) for T, geometry in zip(T_camera_object, objects, strict=True)]
    assigned = protocol.assign(clipped.translation, models)
    collided, empty = protocol.collisions(clipped, assigned, models, T_camera_table)
    friction = np.full(len(grasps), np.inf)
    clear = ~(collided | empty)
    for k in np.unique(assigned[clear]):
        rows, sdf = np.flatnonzero(clear & (assigned == k)), objects[k].sdf
        if sdf is not None:
            lines = protocol.closing_lines(clipped[rows], T_camera_object[k])
            friction[rows] = minimum_friction(required_angle(find_contacts(sdf, *lines, clipped.width[rows])))
    return friction, assigned


def sample_scene(job: SceneJob, truth: SceneTruth) -> Grasps:
    """Grasps in the table frame; objects do not move between a scene's views."""
    from grasping.generators.antipodal import Antipodal

    T_camera_object, T_camera_table = truth.poses(job.views[0])
    T_table_camera = invert(T_camera_table)
    clouds = []
    for pose, item, geometry in zip(T_camera_object, truth.prepared, truth.objects, strict=True):
        if item.closable and geometry.sdf is not None:
            clouds.append(transform_points(T_table_camera @ pose.astype(np.float64), _surface(geometry)))
        else:
            clouds.append(np.zeros((0, 3)))
    ids = np.repeat(np.arange(len(clouds)), [len(cloud) for cloud in clouds])
    points = np.concatenate(clouds)
    generator = Antipodal(
        one_sided=False, samples=600, pairs_per_object=1200, per_object=400, near=0.006, near_angle=10.0
    )
    return generator(points, ids, points, np.eye(4), viewpoint=(0.0, 0.0, 1.0), seed=job.scene)


@lru_cache(maxsize=128)
def _surface(geometry: ObjectGeometry) -> FloatArray:
    assert geometry.sdf is not None
    return zero_level(geometry.sdf)


def zero_level(sdf: SignedDistanceGrid) -> FloatArray:
    """Points on the surface ``(P, 3)``, metres, object frame: nodes near it, moved onto it along the gradient."""
    values = np.asarray(sdf.values)
    inner = values[1:-1, 1:-1, 1:-1]
    nodes = np.argwhere(np.abs(inner) < 0.75 * sdf.resolution) + 1
    nodes = nodes[:: max(1, -(-len(nodes) // SURFACE_POINTS))]
    gradient = np.stack(
        [values[tuple((nodes + step).T)] - values[tuple((nodes - step).T)] for step in np.eye(3, dtype=int)], axis=1
    )
    length = np.linalg.norm(gradient, axis=1, keepdims=True)
    nodes, gradient, length = (a[length[:, 0] > 0] for a in (nodes, gradient, length))
    return sdf.origin + sdf.resolution * nodes - values[tuple(nodes.T)][:, None] * gradient / length
