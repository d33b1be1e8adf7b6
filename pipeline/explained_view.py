"""One view of the stage ``explain``: its grasps held against true scene, observation and clouds; and its exchanges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from grasping import protocol
from grasping.clouds import voxel_downsample
from grasping.contacts import find_contacts
from grasping.geometry import ObjectGeometry
from grasping.grasps import Grasps
from grasping.partners import find_partners, hit_cloud
from grasping.protocol import closing_lines
from grasping.thickness import grasp_thickness
from grasping.transforms import transform_points
from grasping.utility import METRICS, view_utility
from pipeline.cloud_files import ObjectClouds, Observation
from pipeline.observe import OBSERVATION_VOXEL
from pipeline.scorers import ANALYTIC, REFEREE, plugin
from pipeline.visibility import OBSERVED_WITHIN

COMPLETED_WITHIN = 0.005
"""Metres, of a contact from the arm's cloud, for it to lie on completed surface."""

GRASP_COLUMNS = pa.schema(
    [
        ("view", pa.int16()),
        ("row", pa.int32()),  # of the dump file
        ("hits_target", pa.bool_()),  # the object that the grasp is assigned to
        ("hits_neighbour", pa.bool_()),
        ("hits_table", pa.bool_()),
        ("touches", pa.bool_()),  # both fingers, closed, meet the object
        ("thickness", pa.float64()),  # of the object where it is held, metres; NaN without contacts
        ("observed_distance", pa.float64()),  # of the farther contact from the object's observed points, metres
        ("completed_distance", pa.float64()),  # and from the arm's cloud of it; +inf where there are no points
        ("surface", pa.string()),  # observed, completed, neither; '' without contacts
    ]
)
CROSSED_COLUMNS = pa.schema(
    [("view", pa.int16()), ("combination", pa.string()), *((name, pa.float64()) for name in METRICS)]
)


@dataclass(frozen=True, eq=False)
class SceneView:
    """What there is, what was seen of it and what an arm makes of that; camera frame, metres.

    Attributes:
        view: its number.
        object_ids: of the scene's K objects.
        objects: their true geometry.
        T_camera_object: ``(K, 4, 4)`` float32.
        T_camera_table: ``(4, 4)``.
        observation: what the camera saw.
        completed: the arm's clouds.
    """

    view: int
    object_ids: tuple[int, ...]
    objects: list[ObjectGeometry]
    T_camera_object: NDArray[np.float32]
    T_camera_table: NDArray[np.float64]
    observation: Observation
    completed: ObjectClouds

    def score(self, grasps: Grasps, scorer: str) -> dict[str, float]:
        """Return every metric of grasps that are given to a scorer.

        The referee's grades are ours (its tests hold us to that), for a thousandth of its time.
        """
        function = protocol.score_view if scorer in (ANALYTIC, REFEREE) else plugin(scorer)
        with np.errstate(all="ignore"):  # numbers so large that they overflow fail like others
            graded = function(grasps, self.objects, self.T_camera_object, self.T_camera_table)
        return view_utility(graded.min_friction, graded.kept)


def explain_grasps(scene: SceneView, rows: pa.Table, grasps: Grasps) -> pa.Table:
    """Return one row a scored candidate, of :data:`GRASP_COLUMNS`.

    Args:
        scene: the view.
        rows: S candidates of it (:data:`pipeline.grasp_rows.COLUMNS`).
        grasps: the view's N grasps as generated, of which ``rows`` names some.
    """
    number = {object_id: index for index, object_id in enumerate(scene.object_ids)}
    target = np.array([number[object_id] for object_id in rows["object"].to_pylist()], np.int64)
    candidates = grasps[rows["row"].to_numpy()]
    with np.errstate(all="ignore"):
        partners = find_partners(candidates, target, scene.objects, scene.T_camera_object, scene.T_camera_table)
        contacts, thickness = _contacts(scene, candidates, target)
    touches = np.isfinite(contacts).all(axis=(1, 2))
    observed = _farther(scene, scene.observation.objects, contacts, target)
    completed = _farther(scene, scene.completed, contacts, target)
    kinds = [~touches, observed <= OBSERVED_WITHIN, completed <= COMPLETED_WITHIN]
    surface = np.select(kinds, ["", "observed", "completed"], "neither")
    columns = {
        "view": np.full(len(target), scene.view),
        "row": rows["row"],
        "hits_target": partners.target,
        "hits_neighbour": partners.neighbour,
        "hits_table": partners.table,
        "touches": touches,
        "thickness": thickness,
        "observed_distance": observed,
        "completed_distance": completed,
        "surface": surface.tolist(),
    }
    arrays = [pa.array(columns[f.name], type=f.type) for f in GRASP_COLUMNS]  # NaN stays NaN, it is not missing
    return pa.Table.from_arrays(arrays, schema=GRASP_COLUMNS)


def _contacts(
    scene: SceneView, grasps: Grasps, target: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where S grasps touch their true objects, ``(S, 2, 3)`` camera frame, and how thick these are there, ``(S,)``.

    NaN where a grasp does not touch. The protocol closes those grasps only that hit nothing; here every one is closed.
    """
    points, thickness = np.full((len(grasps), 2, 3), np.nan), np.full(len(grasps), np.nan)
    widths = np.clip(grasps.width, 0.0, protocol.MAXIMUM_WIDTH)
    for k in np.unique(target).tolist():
        rows, sdf, T = np.flatnonzero(target == k), scene.objects[k].sdf, scene.T_camera_object[k]
        assert sdf is not None  # scored_object refuses a model without
        contacts = find_contacts(sdf, *closing_lines(grasps[rows], T), widths[rows])
        thickness[rows] = grasp_thickness(sdf, contacts)
        found = rows[contacts.found]
        points[found] = transform_points(T.astype(np.float64), contacts.points[contacts.found].reshape(-1, 3)).reshape(
            -1, 2, 3
        )
    return points, thickness


def _farther(
    scene: SceneView, clouds: ObjectClouds, contacts: NDArray[np.float64], target: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Distance ``(S,)`` of the farther contact from its object's cloud; +inf without a cloud, NaN without contacts."""
    known = {int(object_id): cloud for object_id, cloud in zip(clouds.object_ids, clouds.clouds, strict=True)}
    distance = np.full(len(target), np.nan)
    touches = np.isfinite(contacts).all(axis=(1, 2))
    for k in np.unique(target[touches]).tolist():
        rows = np.flatnonzero(touches & (target == k))
        cloud = known.get(scene.object_ids[k], np.zeros((0, 3), np.float32))
        if len(cloud) == 0:
            distance[rows] = np.inf
            continue
        tree = cKDTree(cloud, balanced_tree=False, compact_nodes=False)  # few queries: its making takes longest
        distance[rows] = tree.query(contacts[rows])[0].max(axis=1)
    return distance


def exchange(
    scene: SceneView, scorer: str, density: float, grasps: Grasps, oracle: Grasps | None
) -> Iterator[tuple[str, dict[str, float]]]:
    """Give the metrics of what the arm would reach with one part exchanged, by the combination's name.

    What hits is dropped before the scorer suppresses and cuts. Only hits count: a grasp between whose fingers an arm's
    cloud has nothing is kept.

    Args:
        scene: the view.
        scorer: which grades.
        density: voxel edge that the observed background is brought to, metres.
        grasps: the arm's.
        oracle: those of the arm that completes by truth; None where there is none.
    """
    with np.errstate(all="ignore"):  # rows that are not finite hit nothing; the scorer refuses them
        hits = find_partners(grasps, None, scene.objects, scene.T_camera_object, scene.T_camera_table).any
    yield "true_collisions", scene.score(grasps[~hits], scorer)
    if oracle is not None:
        background = scene.observation.background
        if density > OBSERVATION_VOXEL:  # else it has that density
            background = voxel_downsample(background, density)
        with np.errstate(all="ignore"):
            hits = hit_cloud(np.concatenate([background, scene.completed.points]), oracle)
        yield "arm_collisions", scene.score(oracle[~hits], scorer)
