"""A tiny dataset in GraspNet-1Billion's layout and a tiny experiment on it, made once a session."""

from __future__ import annotations

import json
import venv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import trimesh
from PIL import Image
from scipy.spatial.transform import Rotation


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenes (seen and novel) of two or three objects, two rendered views each. Tests must not write into it."""
    from pipeline.datasets.synthetic import synthesize

    root = tmp_path_factory.mktemp("tiny") / "dataset"
    synthesize(root, scenes=(100, 160), views=(0, 128), objects_per_scene=(2, 3), seen_pool=4, seed=1)
    return root


@pytest.fixture(scope="session")
def tiny_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a very small network with random weights: real in every part but its quality."""
    import torch

    from completion.checkpoint import save
    from completion.networks import NETWORKS

    torch.manual_seed(0)
    parameters = {
        "num_coarse": 64,
        "grid": 2,
        "encoder_channels": [8, 16, 32, 64],
        "decoder_channels": 64,
        "folding_channels": 16,
    }
    config = {
        "network": {"name": "pcn", "parameters": parameters},
        "input_points": 128,
        "output_points": 256,
        "unit": "m",
        "normalisation": "partial",
        "frame": "table",
        "merge": "append",
        "loss": {"name": "cd_l1", "parameters": {}},
    }
    folder = tmp_path_factory.mktemp("checkpoint") / "random"
    return save(folder, NETWORKS["pcn"](**parameters), config, "Random weights, for tests.\n")


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a second environment that has numpy alone."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True, with_pip=False)
    (site,) = folder.glob("lib/python*/site-packages")
    installed = Path(np.__file__).resolve().parent
    for part in (installed, installed.parent / "numpy.libs"):
        if part.exists():
            (site / part.name).symlink_to(part)
    return folder / "bin" / "python"


@pytest.fixture
def tiny_experiment(tmp_path: Path, tiny_dataset: Path, tiny_cache: Path, tiny_checkpoint: Path) -> Path:
    path = tmp_path / "experiment.yaml"
    path.write_text(
        "format_version: 1\nname: tiny\n"
        f"dataset: {{root: {tiny_dataset}}}\n"
        f"arms: [partial, {{name: random, checkpoint: {tiny_checkpoint}}}, oracle]\n"
        f"cache: {tiny_cache}\n"
    )
    return path


@dataclass(frozen=True)
class PlannedRun:
    """A run folder in which nothing was computed: stamps and files of no content, as if every unit were finished."""

    file: Path  # the experiment
    root: Path

    def plans(self, **overrides: object) -> list:
        """Plan the run's units as a run does, with other settings if given."""
        from pipeline.config import load_experiment
        from pipeline.experiment import plan_units
        from pipeline.run_folder import RunFolder
        from pipeline.selection import select

        experiment = load_experiment(self.file, dict(overrides))
        return plan_units(experiment, RunFolder(self.root), select(experiment))

    def unit(self, stage: str, label: str) -> Path:
        return next(plan.folder for plan in self.plans() if (plan.stage, plan.label) == (stage, label))

    @staticmethod
    def finish(plan) -> None:
        """Leave what a finished unit leaves, but for its content."""
        from pipeline.artifacts import Stamp, file_sizes, write_stamp

        plan.folder.mkdir(parents=True, exist_ok=True)
        (plan.folder / "0000.npz").write_bytes(b"x")
        write_stamp(plan.stamp, Stamp(plan.made_from, [], 1.0, file_sizes(plan.folder)))


@pytest.fixture
def planned_run(tmp_path: Path, tiny_dataset: Path, tiny_cache: Path) -> PlannedRun:
    """20 units of two arms, all finished and current."""
    from pipeline.artifacts import write_json
    from pipeline.config import load_experiment

    path = tmp_path / "experiment.yaml"
    path.write_text(
        f"format_version: 1\nname: tiny\ndataset: {{root: {tiny_dataset}}}\narms: [partial, oracle]\n"
        f"cache: {tiny_cache}\n"
    )
    run = PlannedRun(path, tmp_path / "run")
    for plan in run.plans():
        run.finish(plan)
    write_json(run.root / "experiment.json", load_experiment(path).model_dump(mode="json"))
    return run


# Two boxes on a table, written by hand in the same layout: what a reader is held against.


@dataclass(frozen=True)
class BoxWorld:
    """What the files say, so that tests can compare."""

    root: Path
    scene: int
    views: tuple[int, ...]
    extents: dict[int, np.ndarray]  # object id -> edge lengths
    T_table_object: dict[int, np.ndarray]
    T_table_camera: np.ndarray  # (256, 4, 4)
    K: np.ndarray


def look_at(eye: np.ndarray) -> np.ndarray:
    """Pose of an OpenCV camera at ``eye`` that looks at the table's middle."""
    forward = -eye / np.linalg.norm(eye)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    T = np.eye(4)
    T[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    T[:3, 3] = eye
    return T


def render(world: BoxWorld, view: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Ray-cast boxes and table, one slab test a box: depth (m) and label."""
    height, width = size
    v, u = np.mgrid[:height, :width]
    rays = np.stack([(u - world.K[0, 2]) / world.K[0, 0], (v - world.K[1, 2]) / world.K[1, 1], np.ones(size)], axis=-1)
    T_table_camera = world.T_table_camera[view]
    down = rays @ T_table_camera[2, :3]
    depth = np.where(down < 0, -T_table_camera[2, 3] / down, np.inf)
    label = np.zeros(size, np.uint8)
    for object_id, extents in world.extents.items():
        T_object_camera = np.linalg.inv(world.T_table_object[object_id]) @ T_table_camera
        direction, origin = rays @ T_object_camera[:3, :3].T, T_object_camera[:3, 3]
        with np.errstate(divide="ignore"):
            near, far = np.sort(
                np.stack([(-extents / 2 - origin) / direction, (extents / 2 - origin) / direction]), axis=0
            )
        enter, leave = near.max(axis=-1), far.min(axis=-1)
        hit = (enter < leave) & (enter > 0) & (enter < depth)
        depth[hit], label[hit] = enter[hit], object_id + 1
    return np.where(np.isfinite(depth), depth, 0.0), label


@pytest.fixture
def box_world(tmp_path: Path) -> BoxWorld:
    return write_box_world(tmp_path / "boxes")


def write_box_world(
    root: Path, scene: int = 100, views: tuple[int, ...] = (0, 64), camera: str = "realsense"
) -> BoxWorld:
    size = (144, 256)
    K = np.array([[230.0, 0, 127.5], [0, 230.0, 71.5], [0, 0, 1]])
    angle = np.linspace(0, 2 * np.pi, 256, endpoint=False)
    eyes = np.stack([0.35 * np.cos(angle), 0.35 * np.sin(angle), np.full(256, 0.4)], axis=1)
    T_table_camera = np.stack([look_at(eye) for eye in eyes])
    boxes = {7: ([0.06, 0.04, 0.05], [0.02, 0.01, 0.025], 30.0), 3: ([0.03, 0.09, 0.03], [-0.08, -0.02, 0.015], -70.0)}
    extents = {object_id: np.array(edges) for object_id, (edges, _, _) in boxes.items()}
    T_table_object = {}
    for object_id, (_, position, yaw) in boxes.items():
        T = np.eye(4)
        T[:3, :3] = Rotation.from_euler("z", yaw, degrees=True).as_matrix()
        T[:3, 3] = position
        T_table_object[object_id] = T
    world = BoxWorld(root, scene, views, extents, T_table_object, T_table_camera, K)

    folder = root / "scenes" / f"scene_{scene:04d}" / camera
    for kind in ("depth", "label", "meta", "annotations"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    (folder.parent / "object_id_list.txt").write_text("".join(f"{object_id}\n" for object_id in extents))
    np.save(folder / "camK.npy", K)
    np.save(folder / "cam0_wrt_table.npy", T_table_camera[0])
    np.save(folder / "camera_poses.npy", np.linalg.inv(T_table_camera[0]) @ T_table_camera)
    for view in range(256):
        entries = []
        for object_id in extents:
            T = np.linalg.inv(T_table_camera[view]) @ T_table_object[object_id]
            q = Rotation.from_matrix(T[:3, :3]).as_quat(scalar_first=True)
            entries.append(
                f"<obj><obj_id>{object_id}</obj_id><obj_name>b</obj_name><obj_path>b</obj_path>"
                f"<pos_in_world>{T[0, 3]:.4f} {T[1, 3]:.4f} {T[2, 3]:.4f}</pos_in_world>"
                f"<ori_in_world>{q[0]:.4f} {q[1]:.4f} {q[2]:.4f} {q[3]:.4f}</ori_in_world></obj>"
            )
        (folder / "annotations" / f"{view:04d}.xml").write_text(f"<scene>{''.join(entries)}</scene>")
    for view in views:
        depth, label = render(world, view, size)
        Image.fromarray(np.round(depth * 1000).astype(np.uint16)).save(folder / "depth" / f"{view:04d}.png")
        Image.fromarray(label).save(folder / "label" / f"{view:04d}.png")
        scipy.io.savemat(folder / "meta" / f"{view:04d}.mat", {"factor_depth": 1000.0, "intrinsic_matrix": K})
    for object_id, edges in extents.items():
        (root / "models" / f"{object_id:03d}").mkdir(parents=True, exist_ok=True)
        trimesh.creation.box(extents=edges).export(root / "models" / f"{object_id:03d}" / "nontextured.ply")
    manifest = {"format_version": 1, "generator": "test", "views": {camera: {f"{scene:04d}": list(views)}}}
    (root / "manifest.json").write_text(json.dumps(manifest))
    return world
