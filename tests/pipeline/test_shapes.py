"""Objects made by code: closed, of graspable size, densely meshed, covered by their convex parts."""

from __future__ import annotations

import numpy as np
import open3d
import pytest
import trimesh

from pipeline.datasets.shape_solids import box, capsule, column, extrusion, lathe, rectangle, sweep, wall
from pipeline.datasets.shapes import EDGE_MM, NOVEL_IDS, TRAINING_IDS, Shape, make_object, traits_of

ALL_IDS = TRAINING_IDS + NOVEL_IDS


def test_pools_are_large_and_apart() -> None:
    training, novel = [make_object(i) for i in TRAINING_IDS], [make_object(i) for i in NOVEL_IDS]
    assert len(training) >= 48
    assert len(novel) >= 12
    assert not set(TRAINING_IDS) & set(NOVEL_IDS)
    assert not {s.family for s in training} & {s.family for s in novel}
    assert len({s.name for s in [*training, *novel]}) == len(training) + len(novel)
    for pool in (TRAINING_IDS, NOVEL_IDS):
        assert sum(bool(traits_of(i)) for i in pool) >= len(pool) / 3


@pytest.mark.parametrize("object_id", ALL_IDS)
def test_object_is_closed_and_of_graspable_size(object_id: int) -> None:
    shape = make_object(object_id)
    mesh = trimesh.Trimesh(shape.vertices, shape.faces, process=False)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.volume > 5e-6
    assert len(mesh.split(only_watertight=False)) == 1
    extents = np.sort(mesh.extents)
    assert extents[2] <= 0.22
    assert extents[0] <= 0.101  # the gripper opens 0.1; the funnel is held by its spout
    assert extents[0] >= 0.006
    # vertices on every 8 mm voxel of the surface, and not too many of them
    assert mesh.edges_unique_length.max() < 2.0 * EDGE_MM / 1000
    assert 800 < len(mesh.vertices) < 20_000
    assert np.allclose(mesh.bounds.mean(axis=0), 0, atol=1e-6)
    assert (shape.vertices == shape.vertices.astype(np.float32)).all()


@pytest.mark.parametrize("object_id", ALL_IDS)
def test_parts_cover_the_body_and_little_else(object_id: int) -> None:
    shape = make_object(object_id)
    hulls = [trimesh.convex.convex_hull(part) for part in shape.parts]
    # Every surface point lies in a part, but for the chord of a polygonal circle.
    # Looking at every seventh vertex is enough.
    outside = np.min([_height_above(hull, shape.vertices[::7]) for hull in hulls], axis=0)
    assert outside.max() < 0.0016
    mesh = trimesh.Trimesh(shape.vertices, shape.faces, process=False)
    assert sum(hull.volume for hull in hulls) < 1.5 * mesh.volume


def _caster(shape: Shape) -> open3d.t.geometry.RaycastingScene:
    scene = open3d.t.geometry.RaycastingScene()
    scene.add_triangles(shape.vertices.astype(np.float32), shape.faces.astype(np.uint32))
    return scene


def _height_above(hull: trimesh.Trimesh, points: np.ndarray) -> np.ndarray:
    """How far points lie outside a convex hull, measured along its most violated face (<= the true distance)."""
    offsets = (hull.face_normals * hull.triangles[:, 0]).sum(axis=1)
    return np.max(points @ hull.face_normals.T - offsets, axis=1)


def test_hollow_things_can_be_entered() -> None:
    for name, point in {"mug": (0, 0, 0.0), "pipe": (0, 0, 0), "bowl": (0, 0, 0.01), "ring": (0, 0, 0)}.items():
        shape = next(make_object(i) for i in TRAINING_IDS if make_object(i).name == name)
        assert _caster(shape).compute_signed_distance(np.array([point], np.float32)).item() > 0.005, name
        middle = np.array([point], dtype=float)
        assert all(_height_above(trimesh.convex.convex_hull(p), middle)[0] > 0 for p in shape.parts), name


def test_walls_are_thick_enough() -> None:
    """Cast inward from the surface: next to nothing is thinner than 5 mm (tips of a blade excepted)."""
    for name in ("mug", "bowl", "glass", "pipe", "pan", "vase", "funnel"):
        shape = next(make_object(i) for i in ALL_IDS if make_object(i).name == name)
        mesh = trimesh.Trimesh(shape.vertices, shape.faces, process=False)
        pick = np.arange(0, len(mesh.faces), 41)
        origins = mesh.triangles_center[pick] - 1e-5 * mesh.face_normals[pick]
        rays = np.concatenate([origins, -mesh.face_normals[pick]], axis=1).astype(np.float32)
        thickness = _caster(shape).cast_rays(rays)["t_hit"].numpy()
        assert np.isfinite(thickness).all(), name
        assert np.quantile(thickness, 0.05) > 0.0048, name


def test_the_same_object_every_time() -> None:
    first = make_object(9)
    make_object.cache_clear()
    again = make_object(9)
    assert first is not again
    assert first.vertices.tobytes() == again.vertices.tobytes()
    assert first.faces.tobytes() == again.faces.tobytes()


def test_an_unknown_object_is_named() -> None:
    with pytest.raises(ValueError, match="no object 999"):
        make_object(999)


def test_solids_have_the_volume_of_their_formula() -> None:
    assert box(10, 20, 30).body.volume() == pytest.approx(6000)
    assert extrusion([rectangle(0, 0, 10, 4), rectangle(0, 0, 4, 10)], 5).body.volume() == pytest.approx(5 * 64)
    polygon_share = 24 / np.pi * np.sin(2 * np.pi / 48)  # a 48-gon's share of its circle
    cup = lathe(wall([(0, 0), (30, 0), (30, 50)], 6))
    assert cup.body.volume() == pytest.approx(polygon_share * np.pi * (30**2 * 50 - 24**2 * 44), rel=1e-6)
    cone = lathe(column([(30, 0), (0, 60)]))
    assert cone.body.volume() == pytest.approx(polygon_share * np.pi * 30**2 * 20, rel=1e-6)
    flat = extrusion([capsule((0, 0), (40, 0), 10)], 6)
    assert flat.body.volume() == pytest.approx(6 * (800 + np.pi * 100), rel=0.01)
    rod = sweep(np.c_[np.linspace(0, 100, 12), np.zeros((12, 2))], 5.0)
    assert rod.body.volume() == pytest.approx(np.pi * 25 * (100 + 20 / 3), rel=0.03)


def test_moving_a_solid_moves_its_parts_alike() -> None:
    solid = box(10, 20, 30).moved((5, -3, 2), (90, 0, 30))
    low, high = solid.parts[0].min(axis=0), solid.parts[0].max(axis=0)
    assert np.allclose(np.r_[low, high], solid.body.bounding_box(), atol=1e-9)
