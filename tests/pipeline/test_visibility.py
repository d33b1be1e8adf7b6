"""How much of an object a view shows: boxes whose answer is known, and the rendered truth on a sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from pipeline.artifacts import FileHashes
from pipeline.datasets.graspnet import GraspNetDataset
from pipeline.observe import object_clouds
from pipeline.pairs import SURFACE_POINTS, sample_surface
from pipeline.truth import TrueSurfaces
from pipeline.visibility import OBSERVED_WITHIN, sampling_density, seen_alone, visible_fraction

K = np.array([[600.0, 0.0, 319.5], [0.0, 600.0, 239.5], [0.0, 0.0, 1.0]])
SIZE = (640, 480)
EDGES = np.array([0.1, 0.08, 0.06])
AREA = 2 * (EDGES[0] * EDGES[1] + EDGES[1] * EDGES[2] + EDGES[0] * EDGES[2])


def box(seed: int, place: tuple[float, float, float] = (0.0, 0.0, 0.5)) -> tuple[np.ndarray, np.ndarray]:
    """Samples of a turned box, and, drawn anew and densely, those of its faces that look at the camera."""
    mesh = trimesh.creation.box(EDGES)
    mesh.apply_transform(np.vstack([np.c_[Rotation.random(random_state=seed).as_matrix(), place], [0, 0, 0, 1]]))
    rng = np.random.default_rng(seed)
    surface = sample_surface(mesh.vertices, mesh.faces, SURFACE_POINTS, rng)
    facing = np.einsum("fi,fi->f", mesh.face_normals, mesh.triangles_center) < 0
    return surface, sample_surface(mesh.vertices, mesh.faces[facing], 20_000, rng).astype(np.float64)


seeds = st.integers(0, 2**31)


@settings(deadline=None, max_examples=20)
@given(seed=seeds)
def test_a_box_that_nothing_hides_is_all_visible(seed: int) -> None:
    surface, facing = box(seed)
    assert visible_fraction(facing, surface, SURFACE_POINTS / AREA, K, SIZE) > 0.98


@settings(deadline=None, max_examples=20)
@given(seed=seeds, share=st.floats(0.1, 0.9), angle=st.floats(0, 2 * np.pi))
def test_what_is_covered_is_missing(seed: int, share: float, angle: float) -> None:
    surface, facing = box(seed)
    alone = seen_alone(surface, SURFACE_POINTS / AREA, K, SIZE)
    direction = np.array([np.cos(angle), np.sin(angle)])
    across = [points[:, :2] / points[:, 2:] @ direction for points in (alone, facing)]
    edge = np.quantile(across[0], share)  # a cover, straight in the image
    found = visible_fraction(facing[across[1] < edge], surface, SURFACE_POINTS / AREA, K, SIZE)
    reach = np.mean(np.abs(across[0] - edge) < 1.2 * OBSERVED_WITHIN / alone[:, 2].min())  # behind the cover's edge
    assert share - 0.03 <= found <= share + reach + 0.03


def test_a_half_covered_face_is_half_visible() -> None:
    """The face that looks straight at the camera, which alone is seen of a box before it."""
    mesh = trimesh.creation.box([0.1, 0.1, 0.02])
    mesh.apply_translation([0.0, 0.0, 0.51])
    surface = sample_surface(mesh.vertices, mesh.faces, SURFACE_POINTS, np.random.default_rng(0))
    x, y = np.meshgrid(np.arange(-0.049, 0.05, 0.002), np.arange(-0.049, 0.05, 0.002))
    face = np.stack([x.ravel(), y.ravel(), np.full(x.size, 0.5)], axis=1)
    density = sampling_density(surface)
    assert visible_fraction(face, surface, density, K, SIZE) > 0.98
    half = visible_fraction(face[face[:, 0] < 0], surface, density, K, SIZE)
    assert half == pytest.approx(0.5 + 0.05, abs=0.03)  # and 5 mm of the 10 cm behind the edge
    with np.errstate(all="raise"):
        assert visible_fraction(np.zeros((0, 3)), surface, density, K, SIZE) == 0


@settings(deadline=None, max_examples=20)
@given(seed=seeds)
def test_the_far_side_does_not_show_through(seed: int) -> None:
    surface, facing = box(seed)
    alone = seen_alone(surface, SURFACE_POINTS / AREA, K, SIZE)
    assert 200 < len(alone) < SURFACE_POINTS / 8
    gap = np.linalg.norm(alone[:, None] - facing[None, ::20], axis=2).min(axis=1)
    assert np.mean(gap > 0.008) < 0.02


@settings(deadline=None, max_examples=4)
@given(first=st.integers(0, 2**31))
def test_density_is_told_from_the_samples(first: int) -> None:
    """A thousand distances tell it to 3 % (one standard deviation, by theory as measured), 20 boxes to 0.7 %."""
    told = np.array([sampling_density(box(first + number)[0]) for number in range(20)]) / (SURFACE_POINTS / AREA)
    assert told.mean() == pytest.approx(1.0, abs=0.045)
    assert np.abs(told - 1).max() < 0.2


def test_what_the_image_does_not_hold_is_not_missed() -> None:
    surface, facing = box(3, (0.27, 0.0, 0.5))  # the image ends at x = 0.267
    u = facing[:, 0] / facing[:, 2] * K[0, 0] + K[0, 2]
    within = u < SIZE[0] - 0.5
    assert 0.2 < within.mean() < 0.8
    assert visible_fraction(facing[within], surface, sampling_density(surface), K, SIZE) > 0.98
    for place in ((2.0, 0.0, 0.5), (0.0, 0.0, -0.5)):
        aside, _ = box(3, place)
        assert np.isnan(visible_fraction(facing, aside, sampling_density(aside), K, SIZE))


@pytest.mark.slow
def test_agreement_with_rendering_each_object_alone(tiny_dataset: Path, tiny_cache: Path, tmp_path: Path) -> None:
    open3d = pytest.importorskip("open3d")
    from scipy.spatial import cKDTree

    from grasping.geometry import read_mesh

    dataset = GraspNetDataset(tiny_dataset, "realsense")
    surfaces = TrueSurfaces(dataset, tiny_cache, FileHashes(tmp_path / "hashes.json"))
    differences = []
    print("\nscene view object  pixels seen/alone  rendered within 5 mm  point z-buffer")
    for scene in dataset.scene_ids():
        for number in dataset.view_ids(scene):
            view = dataset.view(scene, number)
            size = view.depth.shape[::-1]
            for k, cloud in enumerate(object_clouds(view, background=False).objects.clouds):
                vertices, faces = read_mesh(dataset.model_dir(view.object_ids[k]) / "nontextured.ply")
                T = view.T_camera_object[k].astype(np.float64)
                world = open3d.t.geometry.RaycastingScene(nthreads=1)
                world.add_triangles((vertices @ T[:3, :3].T + T[:3, 3]).astype(np.float32), faces.astype(np.uint32))
                rays = world.create_rays_pinhole(view.intrinsics, np.eye(4), *size).numpy()
                depth = world.cast_rays(rays, nthreads=1)["t_hit"].numpy()
                hit = np.isfinite(depth)
                pixels = ((view.label == view.object_ids[k] + 1) & (view.depth > 0)).sum() / hit.sum()
                points = (rays[..., 3:] * depth[..., None])[hit][::5]
                near = cKDTree(cloud).query(points, distance_upper_bound=OBSERVED_WITHIN)[0] if len(cloud) else [np.inf]
                rendered = float(np.isfinite(near).mean())
                surface = surfaces.posed([view.object_ids[k]], T[None])[0]
                found = visible_fraction(cloud, surface, sampling_density(surface), view.intrinsics, size)
                differences.append(found - rendered)
                print(f"{scene} {number:4d} {view.object_ids[k]:4d} {pixels:13.3f} {rendered:19.3f} {found:19.3f}")
                assert found == pytest.approx(rendered, abs=0.05)
                assert pixels - 0.03 <= found  # 5 mm of surface behind an edge count as seen, and holes of the sensor
    print(f"mean difference {np.mean(differences):+.4f}, mean absolute {np.abs(differences).mean():.4f}")
    assert np.abs(differences).mean() < 0.015
