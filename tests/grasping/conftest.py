"""Shapes, scenes of them in the official layout, and grasps that are worth grading."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from grasping.geometry import ObjectGeometry, make_signed_distance_grid, sample_model_points
from grasping.grasps import Grasps

Sampler = Callable[..., Grasps]


@dataclass(frozen=True)
class Scene:
    """Objects on a table seen by one camera."""

    objects: list[ObjectGeometry]
    T_camera_object: np.ndarray
    T_camera_table: np.ndarray


def _bracket() -> trimesh.Trimesh:
    upright = trimesh.creation.box([0.012, 0.05, 0.07])
    foot = trimesh.creation.box([0.06, 0.05, 0.012])
    upright.apply_translation([0.024, 0, 0.041])
    return trimesh.util.concatenate([upright, foot])


@pytest.fixture(scope="session")
def meshes() -> dict[str, trimesh.Trimesh]:
    """Graspable shapes: flat, round, hollow, thin, overlapping parts; fine enough to be sampled by their vertices."""
    shapes = {
        "box": trimesh.creation.box([0.05, 0.04, 0.09]),
        "cylinder": trimesh.creation.cylinder(0.022, 0.1, sections=48),
        "torus": trimesh.creation.torus(0.03, 0.011, major_sections=48, minor_sections=24),
        "ring": trimesh.creation.annulus(0.03, 0.035, 0.05, sections=48),
        "bracket": _bracket(),
        "ball": trimesh.creation.icosphere(subdivisions=3, radius=0.03),
    }
    return {name: mesh.subdivide_to_size(0.006) for name, mesh in shapes.items()}


@pytest.fixture(scope="session")
def geometries(meshes: dict[str, trimesh.Trimesh]) -> dict[str, ObjectGeometry]:
    """The same shapes with their sampled points and signed distances."""
    return {
        name: ObjectGeometry(number, sample_model_points(mesh.vertices), _grid(mesh))
        for number, (name, mesh) in enumerate(meshes.items())
    }


def _grid(mesh: trimesh.Trimesh):  # type: ignore[no-untyped-def]
    return make_signed_distance_grid(mesh.vertices, mesh.faces, cells=60, threads=1)


@pytest.fixture(scope="session")
def scene(geometries: dict[str, ObjectGeometry]) -> Scene:
    """The six shapes in a row of two on the table, seen obliquely."""
    rng = np.random.default_rng(7)
    T_table_camera = np.eye(4)
    T_table_camera[:3, :3] = Rotation.from_euler("x", 180 + 30, degrees=True).as_matrix()
    T_table_camera[:3, 3] = [0.02, -0.3, 0.5]
    T_camera_table = np.linalg.inv(T_table_camera)
    poses = []
    for number, geometry in enumerate(geometries.values()):
        T = np.eye(4)
        T[:3, :3] = Rotation.from_euler("z", rng.uniform(0, 360), degrees=True).as_matrix()
        T[:3, 3] = [0.14 * (number % 3) - 0.14, 0.14 * (number // 3) - 0.07, -geometry.points[:, 2].min() + 0.002]
        poses.append(T_camera_table @ T)
    return Scene(list(geometries.values()), np.array(poses, np.float32), T_camera_table)


@pytest.fixture(scope="session")
def near_antipodal() -> Sampler:
    """A function that samples grasps which close across an object's own thickness, more or less well."""
    return sample_grasps


def sample_grasps(
    geometry: ObjectGeometry, T_camera_object: np.ndarray, T_camera_table: np.ndarray, count: int, seed: int
) -> Grasps:
    """Grasps in the camera frame on one object: a surface cell, its gradient, the thickness along it, tilted axes."""
    rng = np.random.default_rng(seed)
    sdf = geometry.sdf
    assert sdf is not None
    values, size = sdf.values, np.array(sdf.values.shape)
    cells = np.argwhere(np.abs(values[1:-1, 1:-1, 1:-1]) < 0.6 * sdf.resolution) + 1
    cells = cells[rng.integers(0, len(cells), count)]
    gradient = np.stack(
        [values[tuple((cells + step).T)] - values[tuple((cells - step).T)] for step in np.eye(3, dtype=int)], axis=1
    )
    points = sdf.origin + sdf.resolution * cells
    axis = -unit(gradient + 1e-12) + rng.normal(size=(count, 3)) * rng.choice([0.01, 0.1, 0.3, 0.6], (count, 1))
    axis = unit(axis)
    steps = np.arange(0, 0.15, 0.5 * sdf.resolution)
    line = (points[:, None] + axis[:, None] * steps[:, None] - sdf.origin) / sdf.resolution
    along = values[tuple(np.clip(np.rint(line).astype(int), 0, size - 1).transpose(2, 0, 1))]
    inside = np.cumsum(along < -0.3 * sdf.resolution, axis=1) > 0
    outside_again = inside & (along > 0)
    thickness = np.where(outside_again.any(axis=1), steps[outside_again.argmax(axis=1)], 0.05)
    centre = points + axis * thickness[:, None] / 2
    width = thickness + rng.uniform(0.002, 0.05, count)
    depth = rng.choice([0.01, 0.02, 0.03, 0.04], count)

    T = np.asarray(T_camera_object, dtype=np.float64)
    axis, centre = axis @ T[:3, :3].T, centre @ T[:3, :3].T + T[:3, 3]
    approach = -np.asarray(T_camera_table)[:3, 2] + rng.normal(size=(count, 3)) * rng.choice([0.2, 1.0], (count, 1))
    approach = unit(approach - (approach * axis).sum(axis=1, keepdims=True) * axis)
    return Grasps(
        confidence=rng.random(count),
        width=width,
        height=np.full(count, 0.02),
        depth=depth,
        rotation=np.stack([approach, axis, np.cross(approach, axis)], axis=2),
        translation=centre - approach * depth[:, None] * rng.choice([1.0, 0.6], (count, 1)),
        object_id=np.full(count, -1),
    )


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="session")
def official_root(tmp_path_factory: pytest.TempPathFactory, meshes: dict[str, trimesh.Trimesh], scene: Scene) -> Path:
    """The scene as scene_0100 of a dataset in the official layout (what the evaluation reads of it), two views."""
    root = tmp_path_factory.mktemp("official")
    folder = root / "scenes" / "scene_0100" / "realsense"
    (folder / "annotations").mkdir(parents=True)
    cameras = np.tile(np.eye(4), (256, 1, 1))
    cameras[1, :3, :3] = Rotation.from_euler("z", 20, degrees=True).as_matrix()
    np.save(folder / "camera_poses.npy", cameras)
    np.save(folder / "cam0_wrt_table.npy", np.linalg.inv(scene.T_camera_table))
    (folder.parent / "object_id_list.txt").write_text("\n".join(str(o.object_id) for o in scene.objects))
    for view in range(2):
        entries = []
        for geometry, pose in zip(scene.objects, scene.T_camera_object, strict=True):
            T = np.linalg.inv(cameras[view]) @ pose
            q = Rotation.from_matrix(T[:3, :3]).as_quat()[[3, 0, 1, 2]]
            entries.append(
                f"<obj><obj_id>{geometry.object_id}</obj_id><obj_name>{geometry.object_id:03d}.ply</obj_name>"
                f"<obj_path>models/{geometry.object_id:03d}</obj_path>"
                f"<pos_in_world>{' '.join(f'{v:.4f}' for v in T[:3, 3])}</pos_in_world>"
                f"<ori_in_world>{' '.join(f'{v:.4f}' for v in q)}</ori_in_world></obj>"
            )
        (folder / "annotations" / f"{view:04d}.xml").write_text(f"<scene>{''.join(entries)}</scene>")
    for geometry, mesh in zip(scene.objects, meshes.values(), strict=True):
        model = root / "models" / f"{geometry.object_id:03d}"
        model.mkdir(parents=True)
        mesh.export(model / "nontextured.ply")
        if geometry.object_id % 2 == 0:  # the others are to be made into the cache
            assert geometry.sdf is not None
            geometry.sdf.save(model / "textured.sdf")
    return root
