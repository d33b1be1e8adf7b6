"""Meshes, sampled points, signed-distance grids and their cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from grasping.geometry import (
    GeometryError,
    SignedDistanceGrid,
    load_object,
    make_signed_distance_grid,
    read_mesh,
    sample_model_points,
)
from grasping.signed_distance import EXACT_CELLS


def naive_read(path: Path) -> tuple[np.ndarray, np.ndarray, float]:
    """The loop of the format's definition: x fastest."""
    with path.open() as file:
        nx, ny, nz = map(int, file.readline().split())
        origin = np.array([float(o) for o in file.readline().split()])
        resolution = float(file.readline())
        values = np.empty((nx, ny, nz))
        for z in range(nz):
            for y in range(ny):
                for x in range(nx):
                    values[x, y, z] = float(file.readline())
        assert file.read() == ""
    return values, origin, resolution


def test_sphere_distances_are_those_of_a_sphere() -> None:
    sphere = trimesh.creation.icosphere(subdivisions=5, radius=0.04)
    grid = make_signed_distance_grid(sphere.vertices + np.array([0.3, 0, 1]), sphere.faces, cells=60)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in grid.values.shape], indexing="ij"), axis=-1)
    true = np.linalg.norm(grid.origin + grid.resolution * index - [0.3, 0, 1], axis=-1) - 0.04
    near = np.abs(true) < EXACT_CELLS * grid.resolution
    assert np.abs(grid.values - true)[near].max() < 3e-5  # the facets' own deviation from the sphere
    assert np.abs(grid.values - true).max() < 2.6 * grid.resolution
    assert np.abs(grid.values - true).mean() < 0.1 * grid.resolution
    assert ((grid.values < 0) == (true < 0))[np.abs(true) > 3e-5].all()


def test_box_grid_has_the_stated_extent_and_signs() -> None:
    box = trimesh.creation.box([0.1, 0.05, 0.02])
    grid = make_signed_distance_grid(box.vertices, box.faces, cells=50, padding=4)
    assert grid.values.shape == (59, 34, 19)
    assert grid.resolution == pytest.approx(0.002, rel=1e-3)
    assert grid.origin == pytest.approx([-0.058, -0.033, -0.018], abs=1e-4)
    assert grid.values[29, 16, 9] == pytest.approx(-0.01, abs=2e-3)
    assert grid.values[29, 16, 4] == pytest.approx(0, abs=1e-7)
    assert grid.values[29, 16, 2] == pytest.approx(2 * grid.resolution, abs=1e-7)


def test_overlapping_parts_and_inward_faces_are_inside() -> None:
    a = trimesh.creation.box([0.06, 0.02, 0.02])
    b = trimesh.creation.box([0.02, 0.06, 0.02])
    both = trimesh.util.concatenate([a, b])
    grid = make_signed_distance_grid(both.vertices, both.faces, cells=30)
    centre = tuple(np.array(grid.values.shape) // 2)
    assert grid.values[centre] < 0
    inverted = make_signed_distance_grid(a.vertices, a.faces[:, ::-1], cells=30)
    outward = make_signed_distance_grid(a.vertices, a.faces, cells=30)
    assert inverted.values == pytest.approx(outward.values, abs=2e-8)


def test_unoriented_faces_fall_back_to_parity() -> None:
    box = trimesh.creation.box([0.06, 0.04, 0.02]).subdivide()
    faces = np.array(box.faces)
    mixed = faces.copy()
    mixed[::2] = mixed[::2, ::-1]
    right = make_signed_distance_grid(box.vertices, faces, cells=30).values
    assert make_signed_distance_grid(box.vertices, mixed, cells=30).values == pytest.approx(right, abs=2e-8)


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_saved_grid_is_read_back_exactly_and_by_the_formats_definition(tmp_path: Path, scale: float) -> None:
    shape = trimesh.creation.torus(0.03 * scale, 0.01 * scale, major_sections=24, minor_sections=12)
    grid = make_signed_distance_grid(shape.vertices + 0.01 / 3, shape.faces, cells=20)
    grid.save(tmp_path / "a.sdf")
    values, origin, resolution = naive_read(tmp_path / "a.sdf")
    again = SignedDistanceGrid.load(tmp_path / "a.sdf")
    for one in (values, again.values):
        assert np.array_equal(one, grid.values)
    assert np.array_equal(origin, grid.origin) and np.array_equal(again.origin, grid.origin)
    assert resolution == again.resolution == grid.resolution
    assert again.values.flags.c_contiguous
    assert [p.name for p in tmp_path.iterdir()] == ["a.sdf"]


@settings(max_examples=50, deadline=None)
@given(arrays(np.float64, (2, 3, 4), elements=st.floats(-1e3, 1e3)))
def test_any_values_survive_the_text(tmp_path_factory: pytest.TempPathFactory, values: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("sdf") / "a.sdf"
    SignedDistanceGrid(values, np.array([0.1, -1 / 3, 1e-9]), 1 / 7).save(path)
    assert np.array_equal(SignedDistanceGrid.load(path).values, values)
    assert np.array_equal(naive_read(path)[0], values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "header"),
        ("2 2\n0 0 0\n1\n", "header"),
        ("2 2 2\n0 0 0\n-1\n" + "1\n" * 8, "header"),
        ("2 2 2\n0 0 0\n1\n" + "1\n" * 7, "7 values"),
        ("2 2 2\n0 0 0\n1\n" + "1\n" * 7 + "x\n", "no number"),
        ("2 2 2\n0 0 0\n1\n" + "1\n" * 7 + "nan\n", "not finite"),
    ],
)
def test_broken_sdf_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.sdf"
    path.write_text(text)
    with pytest.raises(GeometryError, match=message) as error:
        SignedDistanceGrid.load(path)
    assert "broken.sdf" in str(error.value)


def test_missing_or_broken_meshes_are_named(tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match=r"nothing\.ply"):
        read_mesh(tmp_path / "nothing.ply")
    (tmp_path / "junk.ply").write_bytes(b"ply\nnot really")
    with pytest.raises(GeometryError, match=r"junk\.ply"):
        read_mesh(tmp_path / "junk.ply")
    with pytest.raises(GeometryError, match="without its model"):
        load_object(tmp_path, 3, None)
    for vertices, faces in [(np.zeros((3, 3)), [[0, 1, 2]]), (np.eye(3), np.zeros((0, 3))), (np.eye(3), [[0, 1, 3]])]:
        with pytest.raises(GeometryError):
            make_signed_distance_grid(vertices, faces)
    with pytest.raises(GeometryError, match="finite"):
        make_signed_distance_grid(np.diag([np.nan, 1, 1]), [[0, 1, 2]])


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".stl"])
def test_meshes_keep_their_vertices(tmp_path: Path, suffix: str) -> None:
    box = trimesh.creation.box([0.1, 0.2, 0.3])
    box.export(tmp_path / f"box{suffix}")
    vertices, faces = read_mesh(tmp_path / f"box{suffix}")
    assert vertices.dtype == np.float64 and faces.dtype == np.int64
    assert faces.shape == (12, 3)
    volume = (
        np.einsum("ij,ij->i", vertices[faces[:, 0]], np.cross(vertices[faces[:, 1]], vertices[faces[:, 2]])).sum() / 6
    )
    assert volume == pytest.approx(0.006)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 400), size=st.floats(0.002, 0.1))
def test_model_points_are_open3ds(seed: int, n: int, size: float) -> None:
    import open3d

    points = np.random.default_rng(seed).normal(size=(n, 3)).astype(np.float32).astype(np.float64) * size
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points))
    theirs = np.asarray(cloud.voxel_down_sample(0.008).points)
    ours = sample_model_points(points)
    assert np.array_equal(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)])


def write_model(folder: Path, size: float = 0.04) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    trimesh.creation.cylinder(radius=size / 2, height=2 * size, sections=24).subdivide().export(
        folder / "nontextured.ply"
    )


def test_load_object_caches_by_content_and_never_writes_into_the_model(tmp_path: Path) -> None:
    model, cache = tmp_path / "models" / "007", tmp_path / "cache"
    write_model(model)
    fresh = load_object(model, 7, None)
    first = load_object(model, 7, cache)
    assert [p.name for p in model.iterdir()] == ["nontextured.ply"]
    assert fresh.sdf is not None and first.sdf is not None
    assert np.array_equal(fresh.sdf.values, first.sdf.values) and np.array_equal(fresh.points, first.points)
    assert isinstance(first.sdf.values, np.memmap)
    (made,) = (cache / "distances").iterdir()
    stamp = made.stat().st_mtime_ns
    second = load_object(model, 7, cache)
    assert made.stat().st_mtime_ns == stamp and second.sdf is not None
    assert np.array_equal(second.sdf.values, first.sdf.values)
    assert np.array_equal(SignedDistanceGrid.load(made).values, first.sdf.values)

    write_model(model, 0.05)  # another mesh under the same name
    third = load_object(model, 7, cache)
    assert third.sdf is not None and third.sdf.resolution == pytest.approx(0.001, rel=1e-3)
    assert len(third.points) != len(first.points)


def test_load_object_prefers_the_models_own_grid_and_mends_its_cache(tmp_path: Path) -> None:
    model, cache = tmp_path / "003", tmp_path / "cache"
    write_model(model)
    own = make_signed_distance_grid(*read_mesh(model / "nontextured.ply"), cells=20)
    own.save(model / "textured.sdf")
    loaded = load_object(model, 3, cache)
    assert loaded.sdf is not None and np.array_equal(loaded.sdf.values, own.values)
    assert not (cache / "distances").exists()
    for file in (cache / "parsed").iterdir():
        file.write_bytes(file.read_bytes()[:200])
    mended = load_object(model, 3, cache)
    assert mended.sdf is not None and np.array_equal(mended.sdf.values, own.values)
    (model / "textured.sdf").write_text("2 2 2\n0 0 0\n")
    with pytest.raises(GeometryError, match=r"textured\.sdf"):
        load_object(model, 3, cache)
