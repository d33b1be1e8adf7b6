"""Write one scene folder or one model folder of a synthesized dataset; see :mod:`pipeline.datasets.synthetic`."""

from __future__ import annotations

import colorsys
import io
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.io
import trimesh
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.transform import Rotation

from grasping.geometry import make_signed_distance_grid
from grasping.transforms import invert
from pipeline.datasets import rendering
from pipeline.datasets.graspnet import CAMERAS, SPLITS, VIEWS_PER_SCENE, pose_matrix
from pipeline.datasets.mesh_folder import list_meshes, load_shape
from pipeline.datasets.settling import Arrangement, Body, settle
from pipeline.datasets.shapes import NOVEL_IDS, TRAINING_IDS, Shape, make_object

GENERATOR_VERSION = 1  # raise when the same parameters give other bytes
DEPTH_FACTOR = 1000.0

SdfChoice = Literal["scored", "all", "none"]


@dataclass(frozen=True)
class Job:
    """All that decides the bytes of a dataset; the parameters of :func:`pipeline.datasets.synthetic.synthesize`."""

    scenes: tuple[int, ...]
    views: tuple[int, ...]
    cameras: tuple[str, ...]
    seed: int
    sdf: SdfChoice
    seen_pool: int | None
    objects_per_scene: tuple[int, int]
    models: str | None
    unit: str
    model_hash: str | None
    version: int = GENERATOR_VERSION

    def pool(self, scene: int) -> tuple[int, ...]:
        if self.models is not None:
            return tuple(list_meshes(Path(self.models)))
        if scene in SPLITS["test_novel"]:
            return NOVEL_IDS
        if scene in SPLITS["train"] or self.seen_pool is None or self.seen_pool >= len(TRAINING_IDS):
            return TRAINING_IDS
        # One of as many families as possible: families lie three in a row.
        rng = np.random.default_rng([self.seed, 1])
        families = rng.permutation(len(TRAINING_IDS) // 3)
        chosen = [
            int(3 * families[k % len(families)] + (rng.integers(3) + k // len(families)) % 3)
            for k in range(self.seen_pool)
        ]
        return tuple(sorted(set(chosen)))

    def shape(self, object_id: int) -> Shape:
        if self.models is None:
            return make_object(object_id)
        return load_shape(Path(self.models), object_id, self.unit)


@contextmanager
def _folder(target: Path) -> Iterator[Path]:
    """Fill a temporary folder beside ``target`` and rename it when the block ends without an error."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        temporary.replace(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


# --- models -----------------------------------------------------------------------------------------------------


def make_model(job: Job, out: Path, object_id: int, threads: int, *, with_sdf: bool) -> None:
    """Write ``out/models/NNN`` unless it exists."""
    target = out / "models" / f"{object_id:03d}"
    if target.is_dir():
        return
    shape = job.shape(object_id)
    mesh = trimesh.Trimesh(shape.vertices, shape.faces, process=False)
    with _folder(target) as folder:
        ply: Any = mesh.export(file_type="ply", encoding="binary", vertex_normal=False)
        (folder / "nontextured.ply").write_bytes(ply)
        lines = [b"# %s\n" % shape.name.encode()]
        lines += [b"v %.7f %.7f %.7f\n" % (x, y, z) for x, y, z in shape.vertices.tolist()]
        lines += [b"f %d %d %d\n" % (a, b, c) for a, b, c in (shape.faces + 1).tolist()]
        (folder / "textured.obj").write_bytes(b"".join(lines))
        if with_sdf:
            make_signed_distance_grid(shape.vertices, shape.faces, threads=threads).save(folder / "textured.sdf")


def _color(object_id: int) -> tuple[int, int, int]:
    # A two-dimensional low-discrepancy sequence (R2) over hue and lightness: ids far apart still differ.
    hue, light = (0.7548776662 * object_id) % 1.0, 0.38 + 0.3 * ((0.5698402910 * object_id) % 1.0)
    r, g, b = colorsys.hls_to_rgb(hue, light, 0.6)
    return round(255 * r), round(255 * g), round(255 * b)


# --- scenes -----------------------------------------------------------------------------------------------------


def make_scene(job: Job, out: Path, scene: int, threads: int) -> tuple[int, ...]:
    """Write ``out/scenes/scene_SSSS`` unless it exists; return its object ids."""
    target = out / "scenes" / f"scene_{scene:04d}"
    if target.is_dir():
        return tuple(int(line) for line in (target / "object_id_list.txt").read_text().split())
    arrangement = _arrange(job, scene)
    shapes = [job.shape(i) for i in arrangement.object_ids]
    with _folder(target) as folder:
        (folder / "object_id_list.txt").write_text("".join(f"{i}\n" for i in arrangement.object_ids))
        for camera in job.cameras:
            _make_camera(job, folder / camera, scene, camera, arrangement, shapes, threads)
    return arrangement.object_ids


def _arrange(job: Job, scene: int) -> Arrangement:
    rng = np.random.default_rng([job.seed, 2, scene])
    pool = job.pool(scene)
    low, high = (min(n, len(pool)) for n in job.objects_per_scene)
    count = int(rng.integers(low, high + 1))
    ids = [int(i) for i in rng.choice(pool, count, replace=False)]
    bodies = []
    for object_id in ids:
        shape = job.shape(object_id)
        bodies.append(Body.of_mesh(object_id, shape.vertices, shape.faces, shape.parts, shape.density))
    return settle(bodies, rng, at_least=low)


def _make_camera(
    job: Job,
    folder: Path,
    scene: int,
    camera: str,
    arrangement: Arrangement,
    shapes: Sequence[Shape],
    threads: int,
) -> None:
    for name in ("annotations", "depth", "label", "rgb", "meta"):
        (folder / name).mkdir(parents=True)
    T_table_camera = rendering.camera_path(camera)
    np.save(folder / "camK.npy", rendering.intrinsics(camera))
    np.save(folder / "cam0_wrt_table.npy", T_table_camera[0])
    np.save(folder / "camera_poses.npy", invert(T_table_camera[0]) @ T_table_camera)
    models = [rendering.Model(s.vertices, s.faces, s.object_id + 1, _color(s.object_id)) for s in shapes]
    for view in range(VIEWS_PER_SCENE):
        T = invert(T_table_camera[view]) @ arrangement.T_table_object
        text, poses = annotation(arrangement.object_ids, [s.name for s in shapes], T)
        (folder / "annotations" / f"{view:04d}.xml").write_text(text)
        if view not in job.views:
            continue
        picture = rendering.render(models, poses, T_table_camera[view], camera, threads)
        rng = np.random.default_rng([job.seed, 3, scene, CAMERAS.index(camera), view])
        depth = rendering.NOISE[camera].apply(picture.depth, picture.cosine, rng)
        for name, image in (("depth", depth), ("label", picture.label), ("rgb", picture.color)):
            Image.fromarray(image).save(folder / name / f"{view:04d}.png", compress_level=1)
        (folder / "meta" / f"{view:04d}.mat").write_bytes(_meta(arrangement.object_ids, poses, camera))


def annotation(
    object_ids: Sequence[int], names: Sequence[str], T_camera_object: NDArray[Any]
) -> tuple[str, NDArray[np.float32]]:
    """Write poses as ``annotations/VVVV.xml`` has them (4 decimals), and return them as one reads them back.

    Args:
        object_ids: K ids.
        names: K names.
        T_camera_object: ``(K, 4, 4)``.

    Returns:
        The text, and ``(K, 4, 4)`` float32: the poses that the rendered view must show.
    """
    lines = ['<?xml version="1.0" ?>', "<scene>"]
    poses = []
    for object_id, name, T in zip(object_ids, names, np.asarray(T_camera_object, dtype=np.float64), strict=True):
        x, y, z, w = Rotation.from_matrix(T[:3, :3]).as_quat()
        position = " ".join(f"{v:.4f}" for v in T[:3, 3])
        quaternion = " ".join(f"{v:.4f}" for v in (w, x, y, z))
        lines += [
            "    <obj>",
            f"        <obj_id>{object_id}</obj_id>",
            f"        <obj_name>{name}.ply</obj_name>",
            f"        <obj_path>models/{name}.ply</obj_path>",
            f"        <pos_in_world>{position}</pos_in_world>",
            f"        <ori_in_world>{quaternion}</ori_in_world>",
            "    </obj>",
        ]
        poses.append(pose_matrix([float(v) for v in position.split()], [float(v) for v in quaternion.split()]))
    return "\n".join([*lines, "</scene>", ""]), np.array(poses)


def _meta(object_ids: Sequence[int], poses: NDArray[np.float32], camera: str) -> bytes:
    stream = io.BytesIO()
    content = {
        "poses": np.ascontiguousarray(poses[:, :3].transpose(1, 2, 0)),
        "cls_indexes": np.array([[i + 1 for i in object_ids]], dtype=np.int32),
        "intrinsic_matrix": rendering.intrinsics(camera),
        "factor_depth": np.array([[DEPTH_FACTOR]]),
    }
    scipy.io.savemat(stream, content)
    # The format's first 116 bytes are free text, where SciPy writes the time of day: the same input, the same bytes.
    return b"MATLAB 5.0 MAT-file".ljust(116) + stream.getvalue()[116:]
