"""Convex parts, weights, and their cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh
from scipy.spatial import ConvexHull

from grasping.physics import PhysicsBody, PhysicsError, load_body
from grasping.physics.bodies import HULL_TOLERANCE, _lean_hull, _without_small_holes, body_of_mesh

pytest.importorskip("coacd", reason="needs the extra physics")


def save(mesh: trimesh.Trimesh, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    mesh.export(folder / "nontextured.ply")
    return folder


def bracket() -> trimesh.Trimesh:
    foot, upright = trimesh.creation.box([0.06, 0.05, 0.012]), trimesh.creation.box([0.012, 0.05, 0.07])
    upright.apply_translation([0.024, 0, 0.034])
    return trimesh.boolean.union([foot, upright], engine="manifold")


def inside_a_part(body: PhysicsBody, points: np.ndarray, slack: float = 0.0) -> np.ndarray:
    inside = np.zeros(len(points), bool)
    for part in body.parts:
        planes = ConvexHull(part).equations
        inside |= (points @ planes[:, :3].T + planes[:, 3] <= slack).all(axis=1)
    return inside


def same(a: PhysicsBody, b: PhysicsBody) -> bool:
    return (
        len(a.parts) == len(b.parts)
        and all(np.array_equal(p, q) for p, q in zip(a.parts, b.parts, strict=True))
        and a.mass == b.mass
        and np.array_equal(a.centre, b.centre)
        and np.array_equal(a.inertia, b.inertia)
        and a.closed == b.closed
    )


def test_a_box_weighs_what_it_should(tmp_path: Path) -> None:
    size = np.array([0.04, 0.06, 0.1])
    mesh = trimesh.creation.box(size)
    mesh.apply_translation([0.3, 0.1, -0.2])
    body = load_body(save(mesh, tmp_path / "000"), 7, None, 600.0)
    mass = 600.0 * size.prod()
    assert body.object_id == 7 and body.closed and len(body.parts) == 1
    assert body.mass == pytest.approx(mass, rel=1e-5)
    np.testing.assert_allclose(body.centre, [0.3, 0.1, -0.2], atol=1e-6)
    expected = mass / 12 * np.diag((size**2).sum() - size**2)
    np.testing.assert_allclose(body.inertia, expected, rtol=1e-4, atol=1e-9)


def test_parts_cover_the_object_and_leave_its_hollow_free(tmp_path: Path) -> None:
    body = load_body(save(bracket(), tmp_path / "000"), 0, None, 500.0)
    assert len(body.parts) > 1
    on_surface, _ = trimesh.sample.sample_surface(bracket(), 2000, seed=0)
    assert inside_a_part(body, on_surface, 0.0006).all()
    rng = np.random.default_rng(0)
    hollow = rng.uniform([-0.029, -0.024, 0.009], [0.015, 0.024, 0.068], (2000, 3))
    assert not inside_a_part(body, hollow).any()
    solid = rng.uniform([-0.029, -0.024, -0.005], [0.029, 0.024, 0.005], (500, 3))
    assert inside_a_part(body, solid, 0.0003).all()


def test_the_cache_gives_the_same_numbers_and_follows_the_content(tmp_path: Path) -> None:
    model, cache = save(bracket(), tmp_path / "a" / "000"), tmp_path / "cache"
    without, first = load_body(model, 1, None, 500.0), load_body(model, 1, cache, 500.0)
    (file,) = (cache / "parts").iterdir()
    stamp = file.stat().st_mtime_ns
    second = load_body(save(bracket(), tmp_path / "elsewhere"), 1, cache, 500.0)  # the same content
    assert same(without, first) and same(first, second)  # CoACD is seeded, too
    assert file.stat().st_mtime_ns == stamp and len(list((cache / "parts").iterdir())) == 1
    light = load_body(model, 1, cache, 250.0)
    assert light.mass == pytest.approx(first.mass / 2) and np.allclose(light.inertia, first.inertia / 2)

    file.write_bytes(file.read_bytes()[:200])  # damaged: made again
    assert same(load_body(model, 1, cache, 500.0), first)
    save(trimesh.creation.box([0.05, 0.05, 0.05]), model)
    assert len(load_body(model, 1, cache, 500.0).parts) == 1
    assert len(list((cache / "parts").iterdir())) == 2


def test_an_open_mesh_is_weighed_as_its_hull_and_says_so(tmp_path: Path) -> None:
    open_box = trimesh.creation.box([0.04, 0.06, 0.1]).subdivide()
    open_box.update_faces(np.arange(len(open_box.faces)) != 0)
    body = load_body(save(open_box, tmp_path / "000"), 0, None, 500.0)
    assert not body.closed
    assert body.mass == pytest.approx(500.0 * 0.04 * 0.06 * 0.1, rel=1e-5)


def test_a_small_hole_is_closed_and_a_cup_without_walls_is_not_filled() -> None:
    ball = trimesh.creation.icosphere(subdivisions=3, radius=0.03)
    holed = ball.copy()
    holed.update_faces((ball.triangles_center[:, 2] < 0.028) & (ball.triangles_center[:, 0] < 0.029))  # two holes
    vertices, faces = _without_small_holes(np.asarray(holed.vertices), np.asarray(holed.faces))
    closed = trimesh.Trimesh(vertices, faces, process=False)
    assert not holed.is_watertight and closed.is_watertight and closed.is_winding_consistent
    assert closed.volume == pytest.approx(ball.volume, rel=0.01)
    cup = ball.copy()
    cup.update_faces(ball.triangles_center[:, 2] < 0)
    vertices, faces = _without_small_holes(np.asarray(cup.vertices), np.asarray(cup.faces))
    assert len(faces) == len(cup.faces)
    whole = _without_small_holes(np.asarray(ball.vertices), np.asarray(ball.faces))
    assert np.array_equal(whole[1], ball.faces)


def test_a_lean_hull_loses_no_more_than_it_may() -> None:
    ball = trimesh.creation.icosphere(subdivisions=4, radius=0.01)
    lean = _lean_hull(np.asarray(ball.vertices))
    assert lean is not None and len(lean) < 0.2 * len(ball.vertices)
    planes = ConvexHull(lean).equations
    lost = (ball.vertices @ planes[:, :3].T + planes[:, 3]).max()
    assert 0 < lost <= 1.5 * HULL_TOLERANCE
    assert _lean_hull(np.zeros((5, 3))) is None
    assert _lean_hull(np.eye(3)) is None


def test_what_is_no_object_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(PhysicsError, match=r"nontextured\.ply: no such file; object 3"):
        load_body(tmp_path, 3, None, 500.0)
    flat = trimesh.Trimesh([[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0]], [[0, 1, 2]])
    with pytest.raises(PhysicsError, match=r"nontextured\.ply: is flat"):
        load_body(save(flat, tmp_path / "flat"), 0, None, 500.0)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "nontextured.ply").write_text("ply\nrubbish")
    with pytest.raises(PhysicsError, match=r"nontextured\.ply"):
        load_body(tmp_path / "broken", 0, None, 500.0)
    with pytest.raises(PhysicsError, match="no faces"):
        body_of_mesh(0, np.zeros((3, 3)), np.zeros((0, 3)), 500.0)


def test_without_coacd_the_extra_is_named(tmp_path: Path) -> None:
    model = save(bracket(), tmp_path / "000")
    (tmp_path / "hidden" / "coacd").mkdir(parents=True)
    (tmp_path / "hidden" / "coacd" / "__init__.py").write_text("raise ImportError('hidden')")
    code = (
        "import sys\nfrom pathlib import Path\nfrom grasping.physics import PhysicsError, load_body\n"
        f"sys.path.insert(1, {str(tmp_path / 'hidden')!r})\n"
        f"try:\n    load_body(Path({str(model)!r}), 0, None, 500.0)\nexcept PhysicsError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert "grasp-utility[physics]" in done.stdout and "nontextured.ply" in done.stdout
