"""True objects: mesh, the protocol's sampled points, and the signed-distance grid with its cache.

A model folder is GraspNet-1Billion's ``models/NNN``: ``nontextured.ply`` (metres, object frame) and, where somebody
made it, ``textured.sdf``. Nothing is ever written into it; what is missing is made into the caller's cache folder::

    CACHE/distances/<mesh hash>-….sdf    made from the .ply
    CACHE/parsed/<content hash>-….npy    grids and point samples as arrays, memory-mapped and so shared by processes

The cache is keyed by content hashes: changing a file makes a new entry, and an old one is never taken for it.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grasping.signed_distance import GeometryError, SignedDistanceGrid, make_signed_distance_grid, read_header

__all__ = [
    "GeometryError",
    "ObjectGeometry",
    "SignedDistanceGrid",
    "load_object",
    "make_signed_distance_grid",
    "read_mesh",
    "sample_model_points",
]

FloatArray = NDArray[np.float64]

MODEL_VOXEL = 0.008
"""Voxel edge (metres) at which the protocol samples object models."""

GRID_CELLS, GRID_PADDING = 100, 5
_GRID_VERSION = 2  # raise when make_signed_distance_grid gives other numbers
_SAMPLE_VERSION = 1  # raise when sample_model_points does


@dataclass(frozen=True, eq=False)
class ObjectGeometry:
    """What the analytic protocol knows of one object, in the object's own frame.

    Attributes:
        object_id: the dataset's number of the model.
        points: ``(P, 3)`` float64 metres, the model's vertices sampled at 8 mm.
        sdf: signed-distance grid, or None where only collisions are asked for.
    """

    object_id: int
    points: FloatArray = field(repr=False)
    sdf: SignedDistanceGrid | None


def read_mesh(path: Path) -> tuple[FloatArray, NDArray[np.int64]]:
    """Read a triangle mesh (.ply, .obj, .stl, …) without repairing or merging anything.

    Returns:
        vertices ``(V, 3)`` float64 in the file's unit, and faces ``(F, 3)`` int64 (no rows for a mere cloud).

    Raises:
        GeometryError: if the file is missing, cannot be parsed, or holds no finite vertices.
    """
    import trimesh  # lazily: workers that find everything in the cache never need it

    path = Path(path)
    if not path.is_file():
        raise GeometryError(f"{path}: no such mesh file")
    try:
        if path.suffix.lower() in (".ply", ".xyz"):
            mesh: Any = trimesh.load(path, process=False)  # may be a cloud
            if isinstance(mesh, trimesh.Scene):
                mesh = mesh.to_mesh()
        else:
            mesh = trimesh.load_mesh(path, process=False)
        vertices = np.array(mesh.vertices, dtype=np.float64).reshape(-1, 3)
        faces = np.array(getattr(mesh, "faces", np.zeros((0, 3))), dtype=np.int64).reshape(-1, 3)
    except Exception as error:  # trimesh's parsers raise whatever comes
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise GeometryError(f"{path}: cannot be read as a mesh ({reason[0]}); export it again") from None
    if len(vertices) == 0:
        raise GeometryError(f"{path}: holds no vertices; export it again")
    if not np.isfinite(vertices).all():
        raise GeometryError(f"{path}: holds vertices that are not finite; export it again")
    return vertices, faces


def sample_model_points(points: ArrayLike, voxel: float = MODEL_VOXEL) -> FloatArray:
    """Sample a model as the protocol does: the mean of the points in each voxel.

    Voxels start half an edge below the minimum: the same numbers as open3d's ``voxel_down_sample`` (in another order),
    which :func:`grasping.clouds.voxel_downsample`, whose voxels start at zero, does not give.

    Args:
        points: ``(N, 3)`` metres, object frame.
        voxel: edge, metres.

    Returns:
        ``(P, 3)`` float64, ordered by voxel.
    """
    p = np.asarray(points, dtype=np.float64).reshape(-1, 3)
    if len(p) == 0:
        return p.copy()
    cells = np.floor((p - (p.min(axis=0) - voxel * 0.5)) / voxel).astype(np.int64)
    _, inverse, counts = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(-1)
    sums = np.stack([np.bincount(inverse, weights=p[:, axis]) for axis in range(3)], axis=1)
    return sums / counts[:, None]


def load_object(model_dir: Path, object_id: int, cache: Path | None) -> ObjectGeometry:
    """Load one model for scoring, making what is missing into the cache.

    Args:
        model_dir: folder with ``nontextured.ply`` and perhaps ``textured.sdf``, which is used where there is one.
        object_id: number of the object.
        cache: folder of ours; None makes everything anew in memory.

    Raises:
        GeometryError: if a file is missing or broken.
    """
    model_dir = Path(model_dir)
    mesh_path = model_dir / "nontextured.ply"
    if not mesh_path.is_file():
        raise GeometryError(f"{mesh_path}: no such file; object {object_id} cannot be scored without its model")
    own_sdf = model_dir / "textured.sdf"

    if cache is None:
        vertices, faces = read_mesh(mesh_path)
        grid = SignedDistanceGrid.load(own_sdf) if own_sdf.is_file() else _make_grid(mesh_path, vertices, faces)
        return ObjectGeometry(object_id, sample_model_points(vertices), grid)

    cache = Path(cache)
    points_file = sampled_points_file(mesh_path, cache)
    sdf_path = own_sdf if own_sdf.is_file() else make_sdf_file(mesh_path, cache)
    values_file, origin, resolution = parsed_sdf_file(sdf_path, cache)
    return map_object(object_id, points_file, values_file, origin, resolution)


def map_object(
    object_id: int, points_file: Path, values_file: Path, origin: ArrayLike, resolution: float
) -> ObjectGeometry:
    """Memory-map an object from the cache's files: no parsing, and pages that all processes share."""
    points, values = _mapped(points_file), _mapped(values_file)
    if points is None or values is None:
        raise GeometryError(f"{points_file if points is None else values_file}: lost from the cache; run again")
    return ObjectGeometry(object_id, points, SignedDistanceGrid(values, np.array(origin, np.float64), resolution))


def sampled_points_file(mesh_path: Path, cache: Path) -> Path:
    """Return the cache's file of a mesh's sampled points, making it where there is none.

    Raises:
        GeometryError: if the mesh is missing or broken.
    """
    path = Path(cache) / "parsed" / f"{content_hash(mesh_path)}-points-{_SAMPLE_VERSION}.npy"
    if _mapped(path) is None:
        _store(path, sample_model_points(read_mesh(mesh_path)[0]))
    return path


def make_sdf_file(mesh_path: Path, cache: Path) -> Path:
    """Return the signed distances that we make for a mesh, making them where there are none.

    Raises:
        GeometryError: if the mesh is missing, broken or has no faces.
    """
    path = made_sdf_path(mesh_path, cache)
    if not path.is_file():  # saved atomically under its content's name: one that is there is right
        path.parent.mkdir(parents=True, exist_ok=True)
        _make_grid(mesh_path, *read_mesh(mesh_path)).save(path)
    return path


def parsed_sdf_file(sdf_path: Path, cache: Path) -> tuple[Path, FloatArray, float]:
    """Return the cache's array of an ``.sdf`` text's values, its origin ``(3,)`` and its resolution.

    Raises:
        GeometryError: if the text is missing or broken.
    """
    path = Path(cache) / "parsed" / f"{content_hash(sdf_path)}-sdf.npy"
    shape, origin, resolution = read_header(sdf_path)
    values = _mapped(path)
    if values is None or values.shape != shape:
        _store(path, SignedDistanceGrid.load(sdf_path).values)
    return path, origin, resolution


def made_sdf_path(mesh_path: Path, cache: Path) -> Path:
    """Return where the signed distances that we make for a mesh lie: named by its content, so datasets can share."""
    name = f"{content_hash(mesh_path)[:32]}-{GRID_CELLS}-{GRID_PADDING}-{_GRID_VERSION}.sdf"
    return Path(cache) / "distances" / name


def derived_versions() -> dict[str, int]:
    """Return what decides the numbers that we derive from a model, for fingerprints."""
    return {"cells": GRID_CELLS, "padding": GRID_PADDING, "grid": _GRID_VERSION, "points": _SAMPLE_VERSION}


def _make_grid(path: Path, vertices: FloatArray, faces: NDArray[np.int64]) -> SignedDistanceGrid:
    try:
        return make_signed_distance_grid(vertices, faces, GRID_CELLS, GRID_PADDING)
    except GeometryError as error:
        raise GeometryError(f"{path}: {error}") from None


def content_hash(path: Path) -> str:
    """SHA-256 of a file, hexadecimal.

    Raises:
        GeometryError: if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise GeometryError(f"{path}: cannot be read ({error.strerror or error})") from None


def _mapped(path: Path) -> FloatArray | None:
    """Memory-map a cached array; None where there is none or it is broken (it is then made again)."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return array if array.dtype == np.float64 and array.ndim >= 2 else None


def _store(path: Path, array: FloatArray) -> None:
    """Write an array atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
