"""Families of six shapes each, posed on a table in the official layout, and grasps of every outcome on them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from grasping import reference
from grasping.geometry import ObjectGeometry, load_object, make_signed_distance_grid
from grasping.grasps import Grasps
from grasping.protocol import ViewScore, score_view
from grasping.signed_distance import SignedDistanceGrid
from pipeline.datasets.graspnet import GraspNetDataset
from pipeline.datasets.shapes import make_object

create = trimesh.creation
SCENE, CAMERA = 100, "realsense"


@dataclass(frozen=True)
class Made:
    """A mesh and how its signed distances are sampled.

    Attributes:
        mesh: metres.
        cells, padding: of the grid.
        crop: layers cut off the grid on every side, so that the surface leaves it.
    """

    mesh: trimesh.Trimesh
    cells: int = 48
    padding: int = 5
    crop: int = 0

    def grid(self) -> SignedDistanceGrid:
        grid = make_signed_distance_grid(self.mesh.vertices, self.mesh.faces, self.cells, self.padding, threads=1)
        if not self.crop:
            return grid
        part = slice(self.crop, -self.crop)
        values = np.ascontiguousarray(grid.values[part, part, part])
        return SignedDistanceGrid(values, grid.origin + self.crop * grid.resolution, grid.resolution)


@dataclass(frozen=True)
class World:
    """Six objects on a table, seen from some views: files in the official layout, and what they hold."""

    root: Path
    cache: Path
    objects: list[ObjectGeometry]
    guides: list[ObjectGeometry]
    poses: list[np.ndarray]
    T_camera_table: list[np.ndarray]


def box(*sides: float) -> trimesh.Trimesh:
    return create.box(sides)


def can(radius: float, height: float) -> trimesh.Trimesh:
    return create.cylinder(radius, height, sections=40)


def ball(radius: float, *scale: float) -> trimesh.Trimesh:
    mesh = create.icosphere(subdivisions=3, radius=radius)
    mesh.apply_scale(scale or 1.0)
    return mesh


def tube(inner: float, outer: float, height: float) -> trimesh.Trimesh:
    return create.annulus(inner, outer, height, sections=40)


def joined(*parts: tuple[trimesh.Trimesh, tuple[float, float, float]]) -> trimesh.Trimesh:
    """Overlapping or touching parts, not merged."""
    return trimesh.util.concatenate([part.copy().apply_translation(place) for part, place in parts])


def holed(mesh: trimesh.Trimesh, keep: Callable[[np.ndarray], np.ndarray]) -> trimesh.Trimesh:
    """The faces whose middles are to be kept: no longer watertight."""
    fine = mesh.subdivide_to_size(0.006)
    return trimesh.Trimesh(fine.vertices, fine.faces[keep(fine.triangles_center)], process=False)


def kit(object_id: int) -> trimesh.Trimesh:
    shape = make_object(object_id)
    return trimesh.Trimesh(shape.vertices, shape.faces, process=False)


def _inverted(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices, mesh.faces[:, ::-1], process=False)


FAMILIES: dict[str, Callable[[], list[Made]]] = {
    "thin": lambda: [
        Made(box(0.08, 0.05, 0.002)),
        Made(box(0.06, 0.0015, 0.07)),
        Made(can(0.002, 0.12)),
        Made(can(0.035, 0.003)),
        Made(tube(0.03, 0.0315, 0.04)),
        Made(box(0.003, 0.003, 0.09), cells=90),
    ],
    "hollow": lambda: [
        Made(tube(0.025, 0.03, 0.06)),
        Made(tube(0.01, 0.03, 0.05)),
        Made(create.torus(0.032, 0.009, major_sections=40, minor_sections=20)),
        Made(joined((tube(0.026, 0.03, 0.06), (0, 0, 0)), (can(0.03, 0.004), (0, 0, -0.03)))),
        Made(kit(21)),
        Made(kit(18)),
    ],
    "tiny": lambda: [
        Made(box(0.012, 0.009, 0.015)),
        Made(can(0.006, 0.02)),
        Made(ball(0.008)),
        Made(create.torus(0.008, 0.003, major_sections=32, minor_sections=16)),
        Made(box(0.02, 0.004, 0.02)),
        Made(ball(0.01, 1, 0.5, 1.5), cells=24),
    ],
    "border": lambda: [
        Made(box(0.05, 0.04, 0.06), padding=0),
        Made(can(0.022, 0.07), padding=0),
        Made(ball(0.028), padding=1),
        Made(tube(0.02, 0.028, 0.05), padding=2),
        Made(box(0.04, 0.03, 0.08), padding=3),
        Made(ball(0.03), padding=5, crop=7),
    ],
    "non-convex": lambda: [
        Made(joined((box(0.012, 0.05, 0.07), (0.024, 0, 0.035)), (box(0.06, 0.05, 0.012), (0, 0, 0)))),
        Made(joined((box(0.02, 0.02, 0.08), (0, 0, 0)), (box(0.07, 0.02, 0.02), (0, 0, 0.02)))),
        Made(joined((ball(0.02), (-0.025, 0, 0)), (ball(0.02), (0.025, 0, 0)), (can(0.008, 0.03), (0, 0, 0.02)))),
        Made(joined(*((box(0.012, 0.012, 0.05), (x, y, 0)) for x in (-0.02, 0.02) for y in (-0.02, 0.02)))),
        Made(kit(60)),
        Made(kit(67)),
    ],
    "not watertight": lambda: [
        Made(holed(ball(0.03), lambda c: c[:, 2] < 0.008)),
        Made(holed(box(0.05, 0.04, 0.06), lambda c: c[:, 2] < 0.029)),
        Made(holed(can(0.025, 0.07), lambda c: np.abs(c[:, 2]) < 0.034)),
        Made(holed(box(0.05, 0.05, 0.05), lambda c: np.random.default_rng(0).random(len(c)) < 0.8)),
        Made(holed(box(0.06, 0.05, 0.04), lambda c: c[:, 0] > 0.029)),  # one sheet
        Made(joined((_inverted(ball(0.025)), (0, 0, 0)), (holed(ball(0.02), lambda c: c[:, 0] > 0), (0.02, 0, 0)))),
    ],
    "flat faces": lambda: [
        Made(box(0.05, 0.04, 0.09)),
        Made(box(0.03, 0.03, 0.03), cells=30),
        Made(box(0.04, 0.04, 0.04), cells=40),
        Made(create.cylinder(0.025, 0.06, sections=6)),
        Made(create.cylinder(0.025, 0.06, sections=3)),
        Made(box(0.09, 0.02, 0.03), cells=90),
    ],
    "round": lambda: [
        Made(ball(0.03)),
        Made(ball(0.02, 1, 1.5, 2)),
        Made(can(0.022, 0.1)),
        Made(create.capsule(0.05, 0.018)),
        Made(create.cone(0.03, 0.07, sections=40)),
        Made(ball(0.035, 1, 1, 0.4), cells=80),
    ],
    "coarse": lambda: [
        Made(box(0.05, 0.04, 0.06), cells=8),
        Made(ball(0.03), cells=9, padding=0),
        Made(can(0.02, 0.07), cells=12, padding=1),
        Made(tube(0.018, 0.03, 0.05), cells=14, padding=2),
        Made(ball(0.02, 1, 1, 2), cells=10),
        Made(create.torus(0.025, 0.01, major_sections=32, minor_sections=16), cells=16),
    ],
    "vessels": lambda: [Made(kit(k)) for k in (9, 12, 15, 24, 42, 6)],
    "parts": lambda: [Made(kit(k)) for k in (27, 30, 36, 54, 57, 3)],
    "tools": lambda: [Made(kit(k)) for k in (33, 39, 45, 48, 51, 0)],
    "novel": lambda: [Made(kit(k)) for k in (62, 63, 64, 68, 70, 73)],
    "more novel": lambda: [Made(kit(k)) for k in (61, 65, 66, 69, 71, 75)],
}
"""Six shapes each; the first seven are what the scorer's contract names."""

REAL_FAMILIES: dict[str, tuple[int, ...]] = {
    "real, not watertight": (2, 3, 7, 15, 46, 8),
    "real, watertight": (0, 5, 14, 20, 48, 66),
}


def build(family: list[Made], out: Path, views: int, seed: int) -> World:
    """Write a family as a dataset in the official layout and read it back."""
    models = []
    for made in family:
        dense = made.mesh.subdivide_to_size(0.006)  # the protocol samples vertices
        models.append((np.asarray(dense.vertices), np.asarray(dense.faces), made.grid()))
    guides = [Made(made.mesh, 40).grid() for made in family]
    return _write(models, guides, out, views, seed)


def _write(
    models: list[tuple[np.ndarray, np.ndarray, SignedDistanceGrid | None]],
    guides: list[SignedDistanceGrid] | None,
    out: Path,
    views: int,
    seed: int,
) -> World:
    rng = np.random.default_rng(seed)
    root, cache = out / "dataset", out / "cache"
    folder = root / "scenes" / f"scene_{SCENE:04d}" / CAMERA
    (folder / "annotations").mkdir(parents=True)
    on_table = []
    for k, (vertices, faces, grid) in enumerate(models):
        model = root / "models" / f"{k:03d}"
        model.mkdir(parents=True)
        trimesh.Trimesh(vertices, faces, process=False).export(model / "nontextured.ply")
        if grid is not None:
            grid.save(model / "textured.sdf")
        turn = Rotation.random(random_state=rng) if k % 2 else Rotation.from_euler("z", rng.uniform(0, 6))
        T = np.eye(4)
        T[:3, :3] = turn.as_matrix()
        lowest = (vertices @ T[:3, :3].T)[:, 2].min()
        T[:3, 3] = [0.13 * (k % 3) - 0.13, 0.14 * (k // 3) - 0.07, 0.001 - lowest]
        on_table.append(T)
    cameras = np.tile(np.eye(4), (256, 1, 1))
    for view in range(views):
        tilt = Rotation.from_euler("zx", [rng.uniform(0, 6.28), np.pi - rng.uniform(0.1, 0.8)])
        cameras[view, :3, :3] = tilt.as_matrix()
        cameras[view, :3, 3] = -0.5 * cameras[view, :3, 2] + rng.uniform(-0.05, 0.05, 3)
        entries = []
        for k, T_table_object in enumerate(on_table):
            T = np.linalg.inv(cameras[view]) @ T_table_object
            q = Rotation.from_matrix(T[:3, :3]).as_quat()[[3, 0, 1, 2]]
            entries.append(
                f"<obj><obj_id>{k}</obj_id><obj_name>{k:03d}.ply</obj_name><obj_path>models/{k:03d}</obj_path>"
                f"<pos_in_world>{' '.join(f'{v:.4f}' for v in T[:3, 3])}</pos_in_world>"
                f"<ori_in_world>{' '.join(f'{v:.4f}' for v in q)}</ori_in_world></obj>"
            )
        (folder / "annotations" / f"{view:04d}.xml").write_text(f"<scene>{''.join(entries)}</scene>")
    np.save(folder / "camera_poses.npy", cameras)
    np.save(folder / "cam0_wrt_table.npy", np.eye(4))
    dataset = GraspNetDataset(root, CAMERA)
    objects = [load_object(dataset.model_dir(k), k, cache) for k in range(len(models))]
    return World(
        root=root,
        cache=cache,
        objects=objects,
        guides=objects if guides is None else [replace(o, sdf=g) for o, g in zip(objects, guides, strict=True)],
        poses=[dataset.object_poses(SCENE, view) for view in range(views)],
        T_camera_table=[np.linalg.inv(dataset.T_table_camera(SCENE, view)) for view in range(views)],
    )


def build_real(models: Path, ids: tuple[int, ...], out: Path, views: int, seed: int) -> World:
    """The same with real models; their signed distances are made into the cache."""
    meshes = [trimesh.load(models / f"{k:03d}" / "nontextured.ply", process=False) for k in ids]
    return _write([(np.asarray(m.vertices), np.asarray(m.faces), None) for m in meshes], None, out, views, seed)


def pool_of(world: World, view: int, count: int, seed: int, sample: Callable[..., Grasps]) -> Grasps:
    """Grasps near every object, all confidences different, one in twelve with something unusual about it."""
    rng = np.random.default_rng(seed)
    parts = [
        sample(guide, pose, world.T_camera_table[view], count, seed + k)
        for k, (guide, pose) in enumerate(zip(world.guides, world.poses[view], strict=True))
    ]
    array = Grasps.concatenate(parts).to_array()
    n = len(array)
    odd = rng.permutation(n)[: n // 12].reshape(-1)
    for rows, column, values in [
        (odd[0::8], 1, [0.0]),
        (odd[1::8], 1, [0.1, 0.1001, 0.3]),
        (odd[2::8], 1, [-0.02, 0.001]),
        (odd[3::8], 3, [0.0]),
        (odd[4::8], 3, [-0.005, -0.02, -0.04]),
        (odd[5::8], 3, [0.07, 0.12]),
    ]:
        array[rows, column] = rng.choice(values, len(rows))
    array[odd[6::8], 13:16] += rng.normal(size=(len(odd[6::8]), 3)) * 0.1
    array[odd[7::8], 4:13] = Rotation.random(len(odd[7::8]), random_state=rng).as_matrix().reshape(-1, 9)
    array[:, 0] = rng.permutation(n) / n
    return Grasps.from_array(array)


def outcome_names(score: ViewScore) -> np.ndarray:
    success = np.char.add("success at ", score.min_friction.astype(str))
    return np.where(score.reason == "success", success, score.reason)


def choose(pool: Grasps, world: World, view: int, common: int, clear: int, suppressed: int) -> Grasps:
    """So many of each outcome at most, and some that a better one suppresses."""
    score = score_view(pool, world.objects, world.poses[view], world.T_camera_table[view])
    names = outcome_names(score)
    rows: list[int] = []
    for name in np.unique(names):
        limit = common if name in ("collides", "empty") else clear
        rows.extend(score.index[names == name][:limit].tolist())
    rest = np.setdiff1d(np.arange(len(pool)), score.index)
    rows.extend(np.random.default_rng(0).permutation(rest)[:suppressed].tolist())
    return pool[sorted(rows)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "family" in metafunc.fixturenames:
        metafunc.parametrize("family", [*FAMILIES, *REAL_FAMILIES])


@dataclass(frozen=True)
class Campaign:
    """What tests of this folder use of the above.

    Attributes:
        sample: grasps that close across an object's own thickness.
        made: families of made shapes.
        real: families of real models.
        models: folder of real models, or None.
    """

    sample: Callable[..., Grasps]
    models: Path | None
    made: tuple[str, ...] = tuple(FAMILIES)
    real: tuple[str, ...] = tuple(REAL_FAMILIES)

    def world(self, family: str, out: Path, views: int, seed: int = 0) -> World:
        if family in FAMILIES:
            return build(FAMILIES[family](), out, views, seed)
        if self.models is None:
            pytest.skip("real data is not ours to ship: set GRASP_UTILITY_DATA to the folder that holds it")
        return build_real(self.models, REAL_FAMILIES[family], out, views, seed)

    def pool(self, world: World, view: int, count: int, seed: int) -> Grasps:
        return pool_of(world, view, count, seed, self.sample)

    choose = staticmethod(choose)
    outcome_names = staticmethod(outcome_names)


@pytest.fixture(scope="session")
def campaign(near_antipodal: Callable[..., Grasps]) -> Campaign:
    default = Path(__file__).resolve().parents[4] / "shared" / "data"
    models = Path(os.environ.get("GRASP_UTILITY_DATA", default)) / "graspnet_real" / "models"
    return Campaign(near_antipodal, models if models.is_dir() else None)


@pytest.fixture(scope="session")
def referee() -> None:
    if not reference.available():
        pytest.skip("install the referee with scripts/install_referee.sh")


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all workers of this run."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
