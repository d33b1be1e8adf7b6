"""Models in any state: used as far as they go, and each oddity said in words that name the file."""

from __future__ import annotations

import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh

from grasping.geometry import GeometryError, load_object
from grasping.prepared import distance_faults, padding_notes, prepare_object
from grasping.protocol import score_view
from grasping.signed_distance import SignedDistanceGrid, make_signed_distance_grid


@pytest.fixture
def model(tmp_path: Path, meshes: dict[str, trimesh.Trimesh]) -> Path:
    folder = tmp_path / "models" / "007"
    folder.mkdir(parents=True)
    meshes["box"].export(folder / "nontextured.ply")
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def grid_of(mesh: trimesh.Trimesh, padding: int = 5) -> SignedDistanceGrid:
    return make_signed_distance_grid(mesh.vertices, mesh.faces, cells=40, padding=padding, threads=1)


def changed(grid: SignedDistanceGrid, **fields: object) -> SignedDistanceGrid:
    return SignedDistanceGrid(**{**vars(grid), **fields})  # type: ignore[arg-type]


def test_a_sound_model_is_what_load_object_gives(model: Path, cache: Path) -> None:
    prepared = prepare_object(model, 7, cache)
    assert prepared.usable and prepared.closable and prepared.problems == ()
    ours, direct = prepared.open(), load_object(model, 7, cache)
    assert ours.sdf is not None and direct.sdf is not None
    np.testing.assert_array_equal(ours.points, direct.points)
    np.testing.assert_array_equal(ours.sdf.values, direct.sdf.values)
    assert ours.sdf.resolution == direct.sdf.resolution and (ours.sdf.origin == direct.sdf.origin).all()


def test_workers_map_and_never_copy(model: Path, cache: Path) -> None:
    prepared = prepare_object(model, 7, cache)
    assert len(pickle.dumps(prepared)) < 2000
    geometry = pickle.loads(pickle.dumps(prepared)).open()
    assert isinstance(geometry.points, np.memmap) and isinstance(geometry.sdf.values, np.memmap)


def test_content_follows_mesh_and_distances(model: Path, cache: Path, meshes: dict[str, trimesh.Trimesh]) -> None:
    made = prepare_object(model, 7, cache).content
    grid_of(meshes["box"]).save(model / "textured.sdf")
    own = prepare_object(model, 7, cache).content
    changed(grid_of(meshes["box"]), resolution=0.00201).save(model / "textured.sdf")
    other = prepare_object(model, 7, cache).content
    meshes["ball"].export(model / "nontextured.ply")
    assert len({made, own, other, prepare_object(model, 7, cache).content}) == 4


@pytest.mark.parametrize("state", ["absent", "garbage", "empty", "folder"])
def test_without_a_mesh_there_is_no_object(model: Path, cache: Path, state: str) -> None:
    path = model / "nontextured.ply"
    path.unlink()
    if state == "folder":
        path.mkdir()
    elif state != "absent":
        path.write_bytes(b"ply\nnonsense" if state == "garbage" else b"")
    prepared = prepare_object(model, 7, cache)
    assert not prepared.usable and not prepared.closable and prepared.content == "missing"
    assert len(prepared.problems) == 1 and str(path) in prepared.problems[0] and "left out" in prepared.problems[0]
    with pytest.raises(GeometryError, match="object 7"):
        prepared.open()


@pytest.mark.parametrize("text", ["", "garbage", "3 3 3\n0 0 0\n0.1\n1 2 3\n", "2 2 2\n0 0 0\n0.1\n" + "nan\n" * 8])
def test_unreadable_distances_are_made_anew(model: Path, cache: Path, text: str) -> None:
    sound = prepare_object(model, 7, cache)
    (model / "textured.sdf").write_text(text)
    prepared = prepare_object(model, 7, cache)
    assert prepared.values_file == sound.values_file and prepared.content == sound.content
    assert len(prepared.problems) == 1 and str(model / "textured.sdf") in prepared.problems[0]
    assert "made from the mesh" in prepared.problems[0]


def test_a_cloud_without_distances_collides_and_is_never_held(cache: Path, model: Path, scene, near_antipodal) -> None:
    mesh = trimesh.load(model / "nontextured.ply")
    trimesh.PointCloud(mesh.vertices).export(model / "nontextured.ply")
    prepared = prepare_object(model, 0, cache)
    assert prepared.usable and not prepared.closable and "nothing can be closed on object 0" in prepared.problems[0]
    view = (scene.T_camera_object[:1], scene.T_camera_table)
    grasps = near_antipodal(scene.objects[0], scene.T_camera_object[0], scene.T_camera_table, 200, seed=1)
    cloud = prepared.open()
    same = replace(scene.objects[0], points=cloud.points)  # .ply files hold float32
    sound, without = (score_view(grasps, [one], *view) for one in (same, cloud))
    assert (sound.reason == "success").any()
    np.testing.assert_array_equal(without.collided, sound.collided)
    np.testing.assert_array_equal(without.empty, sound.empty)
    assert set(without.reason) <= {"collides", "empty", "no_contact"} and not np.isfinite(without.min_friction).any()


def test_a_cloud_with_distances_is_a_model(model: Path, cache: Path, meshes: dict[str, trimesh.Trimesh]) -> None:
    grid_of(meshes["box"]).save(model / "textured.sdf")
    trimesh.PointCloud(meshes["box"].vertices).export(model / "nontextured.ply")
    prepared = prepare_object(model, 7, cache)
    assert prepared.closable and prepared.problems == ()


def test_distances_of_another_mesh_are_used_and_reported(
    model: Path, cache: Path, meshes: dict[str, trimesh.Trimesh]
) -> None:
    ball = grid_of(meshes["ball"])
    ball.save(model / "textured.sdf")
    prepared = prepare_object(model, 7, cache)
    geometry = prepared.open()
    assert geometry.sdf is not None
    np.testing.assert_array_equal(geometry.sdf.values, ball.values)
    assert len(prepared.problems) == 1
    assert str(model / "textured.sdf") in prepared.problems[0] and "does not match its mesh" in prepared.problems[0]
    assert "%" in prepared.problems[0] and "used as it is" in prepared.problems[0]


def test_a_mesh_is_read_once_and_compared_once(
    model: Path, cache: Path, meshes: dict[str, trimesh.Trimesh], monkeypatch: pytest.MonkeyPatch
) -> None:
    grid_of(meshes["ball"]).save(model / "textured.sdf")
    first = prepare_object(model, 7, cache)
    monkeypatch.setattr("grasping.prepared.read_mesh", lambda path: pytest.fail("read again"))
    monkeypatch.setattr("grasping.geometry.read_mesh", lambda path: pytest.fail("read again"))
    assert prepare_object(model, 7, cache) == first and first.problems
    monkeypatch.undo()
    for path in (cache / "parsed").glob("*faults*"):
        path.write_text("{broken")
    assert prepare_object(model, 7, cache) == first


SHAPES = ("box", "cylinder", "torus", "ring", "bracket", "ball")


@pytest.mark.parametrize("name", SHAPES)
def test_distances_fit_their_own_mesh_and_no_other(meshes: dict[str, trimesh.Trimesh], geometries, name: str) -> None:
    for other in SHAPES:
        sdf = geometries[other].sdf
        assert (distance_faults(sdf, meshes[name].vertices) == []) == (other == name)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"resolution": 2.0}, "another unit"),
        ({"millimetres": None}, "another unit"),
        ({"origin": np.array([0.1, 0, 0])}, "outside the grid"),
        ({"values": "unsigned"}, "no negative distance"),
    ],
)
def test_other_faults_are_named(meshes: dict[str, trimesh.Trimesh], change: dict, says: str) -> None:
    grid = grid_of(meshes["cylinder"])
    if "values" in change:
        change = {"values": np.abs(grid.values)}
    if "millimetres" in change:
        change = {"values": grid.values * 1e3, "origin": grid.origin * 1e3, "resolution": grid.resolution * 1e3}
    faults = distance_faults(changed(grid, **change), meshes["cylinder"].vertices)
    assert len(faults) >= 1
    assert any(re.search(says, fault) for fault in faults)


@pytest.mark.parametrize(("padding", "told"), [(0, True), (2, True), (3, False), (5, False)])
def test_a_grid_without_padding_is_told(meshes: dict[str, trimesh.Trimesh], padding: int, told: bool) -> None:
    faults = padding_notes(grid_of(meshes["ball"], padding), meshes["ball"].vertices)
    assert any("border" in fault for fault in faults) == told and len(faults) == told


@pytest.mark.real_data
@pytest.mark.slow
def test_real_models_made_distances_raise_no_alarm(real_data: Path, cache: Path) -> None:
    from grasping.geometry import read_mesh

    for number in (0, 15, 20, 46, 48, 70):
        folder = real_data / "graspnet_real" / "models" / f"{number:03d}"
        prepared = prepare_object(folder, number, cache)
        geometry = prepared.open()
        assert prepared.problems == () and geometry.sdf is not None
        assert distance_faults(geometry.sdf, read_mesh(folder / "nontextured.ply")[0]) == []
