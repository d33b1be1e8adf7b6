"""Hypothesis searches for a grasp that the referee judges otherwise: shape, grid, pose and grasps are drawn.

Some dozens of examples, always the same, by default. To search for longer, with examples that nobody has seen::

    GRASP_UTILITY_REFEREE_EXAMPLES=5000 pytest -m graspnetapi tests/grasping/referee/test_referee_search.py
"""

from __future__ import annotations

import os

import numpy as np
import pytest
import trimesh
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from grasping import reference
from grasping.contacts import _unit, find_contacts
from grasping.force_closure import minimum_friction, required_angle
from grasping.geometry import ObjectGeometry, make_signed_distance_grid, sample_model_points
from grasping.grasps import Grasps
from grasping.protocol import closing_lines, score_view

pytestmark = pytest.mark.graspnetapi

LONGER = os.environ.get("GRASP_UTILITY_REFEREE_EXAMPLES")
FIELDS = ("index", "object_index", "width", "kept", "collided", "empty", "min_friction", "reason")

length = st.floats(0.003, 0.07) | st.sampled_from([0.004, 0.02, 0.03, 0.032, 0.05])
within = st.floats(-0.5, 0.5) | st.floats(-1.2, 1.2) | st.sampled_from([-1.0, -0.5, 0.0, 0.0, 0.5, 1.0])
opening = st.floats(0.05, 0.11) | st.floats(0.0, 0.11) | st.sampled_from([0.0, 0.1, 0.1 + 1e-9, -0.01, 0.06, 0.08])


@st.composite
def meshes(draw: st.DrawFn) -> trimesh.Trimesh:
    """A primitive of drawn dimensions: whole, hollow, open, in two overlapping parts, or cut."""
    a, b, c = draw(length), draw(length), draw(length)
    kind = draw(st.sampled_from(["box", "can", "ball", "tube", "torus", "sheet", "open", "parts", "inverted"]))
    if kind == "can":
        return trimesh.creation.cylinder(a / 2, b, sections=draw(st.integers(3, 24)))
    if kind == "ball":
        mesh = trimesh.creation.icosphere(subdivisions=2, radius=0.5)
        return mesh.apply_scale([a, b, c])
    if kind == "tube":
        return trimesh.creation.annulus(a / 2, a / 2 + b / 4, c, sections=24)
    if kind == "torus":
        return trimesh.creation.torus(max(a, b), min(a, b) / 2, major_sections=24, minor_sections=12)
    box = trimesh.creation.box([a, b, c])
    if kind == "sheet":
        return trimesh.Trimesh(box.vertices, box.faces[:2], process=False)
    if kind == "open":
        return trimesh.Trimesh(box.vertices, box.faces[draw(st.integers(1, 4)) :], process=False)
    if kind == "inverted":
        return trimesh.Trimesh(box.vertices, box.faces[:, ::-1], process=False)
    if kind == "parts":
        other = trimesh.creation.box([b, c, a]).apply_translation([a / 2, 0, c / 4])
        return trimesh.util.concatenate([box, other])
    return box


@st.composite
def rotations(draw: st.DrawFn) -> np.ndarray:
    if draw(st.booleans()):
        return Rotation.random(random_state=draw(st.integers(0, 2**31))).as_matrix()
    quarter = [90 * draw(st.integers(0, 3)) for _ in range(3)]
    tilt = draw(st.sampled_from([0.0, 1e-7, 1e-3, 30.0, 45.0]))
    return (
        Rotation.from_euler("xyz", quarter, degrees=True) * Rotation.from_euler("z", tilt, degrees=True)
    ).as_matrix()


@st.composite
def geometries_and_guides(draw: st.DrawFn) -> ObjectGeometry:
    mesh = draw(meshes())
    cells, padding = draw(st.integers(6, 32)), draw(st.sampled_from([0, 1, 2, 3, 5, 5, 5]))
    sdf = make_signed_distance_grid(mesh.vertices, mesh.faces, cells, padding, threads=1)
    dense = mesh.subdivide_to_size(0.006, max_iter=20)
    return ObjectGeometry(draw(st.integers(0, 87)), sample_model_points(dense.vertices), sdf)


@st.composite
def grasps_on(draw: st.DrawFn, geometry: ObjectGeometry, pose: np.ndarray) -> Grasps:
    """A few grasps whose closing point lies in or near the object's box, some with its axes, some with any."""
    low, high = geometry.points.min(axis=0), geometry.points.max(axis=0)
    rows = np.zeros((draw(st.integers(1, 4)), 17))
    for k, row in enumerate(rows):
        place = np.array([draw(within) for _ in range(3)])
        centre = (low + high) / 2 + place * (high - low) / 2
        R = draw(rotations())
        row[0] = 1 - k / 10
        row[1] = draw(opening)
        row[2] = 0.02
        row[3] = draw(st.sampled_from([0.01, 0.02, 0.03, 0.04, 0.0, -0.01, 0.1]))
        R = pose[:3, :3].astype(np.float64) @ R
        row[4:13] = R.reshape(-1)
        row[13:16] = pose[:3, :3] @ centre + pose[:3, 3] - R[:, 0] * row[3]
    return Grasps.from_array(rows)


@settings(
    max_examples=int(LONGER or 50),
    derandomize=LONGER is None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_no_grasp_is_judged_otherwise(referee: None, data: st.DataObject) -> None:
    """The view as a whole, and each grasp's contacts to the last bit whether or not the gripper is clear."""
    parts = reference.load()
    geometry = data.draw(geometries_and_guides())
    assert geometry.sdf is not None
    pose = np.eye(4, dtype=np.float32)
    pose[:3, :3] = data.draw(rotations())
    pose[:3, 3] = data.draw(st.sampled_from([(0, 0, 0), (0.1, -0.05, 0.5), (0.013, 0.7, 1 / 3)]))
    T_camera_table = np.eye(4)
    T_camera_table[2, 3] = data.draw(st.sampled_from([-1.0, pose[2, 3] - 0.05]))
    grasps = data.draw(grasps_on(geometry, pose))
    world = ([geometry], pose[None], T_camera_table)

    ours = score_view(grasps, *world)
    theirs = reference.score_view_reference(grasps, *world, every_candidate=True, seed=None)
    for name in FIELDS:
        assert np.array_equal(getattr(ours, name), getattr(theirs, name)), (name, grasps.to_array().tolist())
    for reason in ours.reason:
        event(f"in the scene: {reason}")

    centres, axes = closing_lines(grasps, pose)
    widths = np.clip(grasps.width, 0, 0.1)
    contacts = find_contacts(geometry.sdf, centres, axes, widths)
    friction = minimum_friction(required_angle(contacts))
    target = reference.dexnet_object(geometry.sdf, seed=None)
    ladder = np.array([1.2, 1.0, 0.8, 0.6, 0.4, 0.2])
    config = parts.config.get_config()["metrics"]["force_closure"]
    create = parts.utils.GraspQualityConfigFactory.create_config
    configs = {mu: create({**config, "friction_coef": mu}) for mu in ladder.round(2).tolist()}
    for i, axis in enumerate(_unit(axes)):
        grasp = parts.grasp_type(parts.grasp_type.configuration_from_params(centres[i], axis, widths[i], 0.0), 0.02)
        touching, pair = grasp.close_fingers(target, check_approach=False)
        assert touching == contacts.found[i]
        score = -1.0
        if touching:
            assert np.array_equal([c.point for c in pair], contacts.points[i])
            score = parts.utils.get_grasp_score(grasp, target, ladder, configs)
        assert (score if score > 0 else np.inf) == friction[i]
        event(f"alone: {'touches' if touching else 'nothing'}, {'outside' if contacts.outside[i] else 'inside'}")
