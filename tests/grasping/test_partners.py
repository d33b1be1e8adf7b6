"""What a gripper hits: the three answers together are the protocol's, and each is right on a scene made by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grasping.collision import collide
from grasping.geometry import ObjectGeometry
from grasping.grasps import Grasps
from grasping.gripper import GRASPNET_GRIPPER
from grasping.partners import _in_cells, _within_reach, find_partners, hit_cloud
from grasping.protocol import TABLE_SIZE, WORKSPACE_MARGIN, score_view, table_points
from grasping.transforms import pose, transform_points

quiet = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

DOWN = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])  # columns: approach -z, close along y, height x


@quiet
@given(seed=st.integers(0, 2**31), lowered=st.sampled_from([-0.03, 0.0, 0.03]))
def test_together_they_are_what_the_protocol_calls_collided(  # type: ignore[no-untyped-def]
    scene, near_antipodal, seed: int, lowered: float
) -> None:
    grasps = Grasps.concatenate(
        [
            near_antipodal(geometry, T, scene.T_camera_table, 40, seed + number)
            for number, (geometry, T) in enumerate(zip(scene.objects, scene.T_camera_object, strict=True))
        ]
    )
    down = -np.asarray(scene.T_camera_table)[:3, 2]
    grasps = replace(grasps, translation=grasps.translation + lowered * down)
    score = score_view(grasps, scene.objects, scene.T_camera_object, scene.T_camera_table)
    known = grasps[score.index]
    where = scene.objects, scene.T_camera_object, scene.T_camera_table
    partners = find_partners(known, score.object_index, *where)
    assert np.array_equal(partners.any, score.collided)
    again = find_partners(known, None, *where)  # assigned as the protocol does it
    for name in ("target", "neighbour", "table"):
        assert np.array_equal(getattr(again, name), getattr(partners, name))
        assert np.array_equal(getattr(partners, name), by_definition(known, score.object_index, *where, name))


def by_definition(grasps, assigned, objects, T_camera_object, T_camera_table, name: str) -> np.ndarray:  # type: ignore[no-untyped-def]
    """One grasp and one point after the other."""
    clouds = [transform_points(T.astype(float), o.points) for T, o in zip(T_camera_object, objects, strict=True)]
    table = table_points(T_camera_table)
    out = np.zeros(len(grasps), bool)
    for n, k in enumerate(assigned):
        others = [cloud for other, cloud in enumerate(clouds) if other != k]
        points = {"target": clouds[k], "neighbour": np.concatenate(others), "table": table}[name]
        low, high = clouds[k].min(axis=0) - WORKSPACE_MARGIN, clouds[k].max(axis=0) + WORKSPACE_MARGIN
        points = points[np.all((points > low) & (points < high), axis=1)]
        x, y, z = ((points - grasps.translation[n]) @ grasps.rotation[n]).T
        g, depth, half = GRASPNET_GRIPPER, grasps.depth[n], min(max(grasps.width[n], 0.0), 0.1) / 2
        level = np.abs(z) < g.height / 2
        fingers = (x > -g.finger_back) & (x < depth) & (np.abs(y) > half) & (np.abs(y) < half + g.finger_thickness)
        plate = (x < -g.finger_back) & (x > -g.finger_back - g.base_thickness) & (np.abs(y) < half + g.finger_thickness)
        out[n] = bool(np.any(level & (fingers | plate)))
    return out


@pytest.fixture
def two_slabs() -> tuple[list[ObjectGeometry], np.ndarray]:
    """Two upright slabs of points, 4 cm apart along y, on the table of a camera that sits in the table frame."""
    x, z = np.meshgrid(np.linspace(-0.03, 0.03, 13), np.linspace(0.002, 0.06, 13))
    points = np.stack([x.ravel(), np.zeros(x.size), z.ravel()], axis=1)
    places = [pose(np.eye(3), np.array([0.0, y, 0.0])) for y in (0.0, 0.04)]
    return [ObjectGeometry(number, points, None) for number in range(2)], np.array(places, np.float32)


def at(y: float, z: float, width: float, depth: float = 0.02) -> Grasps:
    row = np.array([[1.0, width, 0.02, depth, *DOWN.reshape(-1), 0.0, y, z, -1]])
    return Grasps.from_array(row)


@pytest.mark.parametrize(
    ("grasp", "expected"),
    [
        (at(0.0, 0.05, 0.04), (False, False, False)),  # the fingers stand between and beside the slabs
        (at(0.0, 0.05, 0.07), (False, True, False)),  # the second slab is in a finger
        (at(0.012, 0.05, 0.02), (True, False, False)),  # the first one is
        (at(0.0, 0.015, 0.07, depth=0.03), (True, True, True)),  # so low that back plate and table are in the way
        (at(0.0, 0.04, 0.04, depth=0.05), (False, False, True)),  # a long reach down to the table
    ],
)
def test_each_partner_by_hand(two_slabs, grasp: Grasps, expected: tuple[bool, ...]) -> None:  # type: ignore[no-untyped-def]
    objects, places = two_slabs
    partners = find_partners(grasp, [0], objects, places, np.eye(4))
    assert (partners.target[0], partners.neighbour[0], partners.table[0]) == expected
    swapped = find_partners(grasp, [1], objects[::-1], places[::-1], np.eye(4))  # the order of objects says nothing
    assert (swapped.target[0], swapped.neighbour[0], swapped.table[0]) == expected


def test_widths_are_clipped_and_no_grasps_hit_nothing(two_slabs) -> None:  # type: ignore[no-untyped-def]
    objects, places = two_slabs
    wide, widest = (find_partners(at(0.0, 0.05, width), [0], objects, places, np.eye(4)) for width in (0.3, 0.1))
    assert (wide.target, wide.neighbour, wide.table) == (widest.target, widest.neighbour, widest.table)
    nothing = find_partners(Grasps.empty(), None, objects, places, np.eye(4))
    assert nothing.any.shape == (0,) and TABLE_SIZE[2] > 0


@quiet
@given(seed=st.integers(0, 2**31), count=st.sampled_from([0, 1, 3, 40, 3000]), spread=st.sampled_from([0.01, 0.1, 1.0]))
def test_a_cloud_in_blocks_is_hit_as_in_a_tree(  # type: ignore[no-untyped-def]
    scene, near_antipodal, seed: int, count: int, spread: float
) -> None:
    rng = np.random.default_rng(seed)
    T = scene.T_camera_object[1]
    grasps = near_antipodal(scene.objects[1], T, scene.T_camera_table, 60, seed)
    points = (T[:3, 3] + rng.uniform(-spread, spread, (count, 3))).astype(np.float32)
    wanted = collide(points, replace(grasps, width=np.clip(grasps.width, 0, 0.1)), 0)[0]
    assert np.array_equal(hit_cloud(points, grasps), wanted)
    if count == 3000 and spread == 0.1:
        assert wanted.any()


def test_axes_that_are_no_rotation_reach_where_they_do(scene, near_antipodal) -> None:  # type: ignore[no-untyped-def]
    T = scene.T_camera_object[1]
    grasps = near_antipodal(scene.objects[1], T, scene.T_camera_table, 60, 0)
    points = T[:3, 3] + np.random.default_rng(0).uniform(-0.3, 0.3, (20_000, 3))
    for factor in (0.2, 3.0):  # shorter axes reach farther
        stretched = replace(grasps, rotation=grasps.rotation * factor, width=np.clip(grasps.width, 0, 0.1))
        wanted = collide(points, stretched, 0)[0]
        assert np.array_equal(hit_cloud(points, stretched), wanted)
    assert len(_within_reach(points, stretched)) == len(points)
    # Of rotations it is known; most points are far from all of them.
    grasps = replace(grasps, width=np.clip(grasps.width, 0, 0.1))
    assert 0 < len(_within_reach(points, grasps)) < len(points) / 3
    away = replace(grasps, translation=grasps.translation + 5.0)
    assert not hit_cloud(points, away).any() and len(_within_reach(points, away)) < len(points) / 10
    assert not hit_cloud(points, grasps[:0]).any() and len(_within_reach(points, grasps[:0])) == 0


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), edge=st.sampled_from([0.1, 0.3, 2.0]), most=st.sampled_from([1, 10**6]))
def test_no_point_of_a_box_is_left_out(seed: int, edge: float, most: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(300, 3)).round(1)  # many on the borders of cells
    low = rng.normal(size=(4, 3)).round(1)
    high = low + rng.choice([0.0, 0.1, 0.7], (4, 3))
    chosen = _in_cells(points, low, high, edge, most)
    inside = ((points[:, None] >= low) & (points[:, None] <= high)).all(axis=2).any(axis=1)
    assert not np.any(inside & ~chosen)
    near = ((points[:, None] > low - 1.01 * edge) & (points[:, None] < high + 1.01 * edge)).all(axis=2).any(axis=1)
    border = np.any((low > points.max(axis=0)) | (high < points.min(axis=0)))  # such a box marks cells at the border
    assert chosen.all() if most == 1 else border or not np.any(chosen & ~near)
