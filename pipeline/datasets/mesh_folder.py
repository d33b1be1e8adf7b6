"""Objects from a folder of meshes: files side by side, or GraspNet's ``NNN/nontextured.ply`` subfolders.

Their collision shape is the convex hull of the mesh: a bowl holds nothing, but nothing is pushed through a wall either.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray

from grasping.geometry import read_mesh
from pipeline.datasets.shapes import Shape

SUFFIXES = (".ply", ".obj", ".stl", ".off", ".glb")
IN_SUBFOLDER = ("nontextured.ply", "nontextured.obj", "textured.obj")
LABELS = 255  # label images hold id + 1 in a byte
DENSITY = 500.0  # kg/m³
EDGE_M = 0.005  # the protocol samples vertices on an 8 mm grid
MAX_FACES = 120_000
LARGEST_M, SMALLEST_M = 0.5, 0.005


class MeshFolderError(ValueError):
    """A folder without usable meshes, or a mesh that is no object for a table; the message names file and remedy."""


def list_meshes(folder: Path) -> dict[int, Path]:
    """Return object id -> mesh file, ids ascending.

    Subfolders and files that are named by a number keep it as their id; the others get the free ids in order of name.

    Raises:
        MeshFolderError: nothing there, or more than label images can hold.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MeshFolderError(f"{folder}: no such folder; give the folder that holds the meshes")
    found: list[tuple[str, Path]] = []
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            inside = next((entry / name for name in IN_SUBFOLDER if (entry / name).is_file()), None)
            if inside is not None:
                found.append((entry.name, inside))
        elif entry.suffix.lower() in SUFFIXES:
            found.append((entry.stem, entry))
    if not found:
        raise MeshFolderError(
            f"{folder}: no meshes in it; give a folder of {', '.join(SUFFIXES)} files or of NNN/nontextured.ply"
        )
    numbered = {int(name): path for name, path in found if name.isdecimal() and int(name) < LABELS}
    free = (i for i in range(len(found) + len(numbered)) if i not in numbered)
    for name, path in found:
        if numbered.get(int(name) if name.isdecimal() else -1) != path:
            numbered[next(free)] = path
    if max(numbered) >= LABELS:
        raise MeshFolderError(f"{folder}: {len(found)} meshes, but label images hold {LABELS}; take fewer")
    return dict(sorted(numbered.items()))


@lru_cache(maxsize=256)
def load_shape(folder: Path, object_id: int, unit: str) -> Shape:
    """Read one mesh of the folder, in metres, with its convex hull as collision part.

    Raises:
        MeshFolderError: the mesh is empty or not finite, or its size makes no object for a table.
    """
    path = list_meshes(folder)[object_id]
    name = path.parent.name if path.name in IN_SUBFOLDER else path.stem
    vertices, faces = read_mesh(path)
    vertices = vertices * (0.001 if unit == "mm" else 1.0)
    if len(faces) == 0 or not np.isfinite(vertices).all():
        raise MeshFolderError(f"{path}: no faces, or vertices that are not finite; repair or remove the file")
    size = float(np.ptp(vertices, axis=0).max())
    if not SMALLEST_M <= size <= LARGEST_M:
        raise MeshFolderError(
            f"{path}: {size:.4g} m long as read in {unit}; objects must be {SMALLEST_M} to {LARGEST_M} m: "
            "check the unit ('m' or 'mm')"
        )
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    if not mesh.is_watertight:  # STL and many OBJ files repeat each vertex for each of its faces
        mesh.merge_vertices()
    vertices, faces = _dense(mesh)
    vertices = vertices.astype(np.float32).astype(np.float64)
    return Shape(object_id, name, "mesh", frozenset(), vertices, faces, _hulls(mesh), DENSITY)


def _dense(mesh: trimesh.Trimesh) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Quarter all faces until edges are short; all of them, so that the mesh stays closed."""
    for _ in range(6):
        if float(np.percentile(mesh.edges_unique_length, 98)) <= EDGE_M or 4 * len(mesh.faces) > MAX_FACES:
            break
        mesh = mesh.subdivide()
    return np.asarray(mesh.vertices, dtype=np.float64), np.asarray(mesh.faces, dtype=np.int64)


def _hulls(mesh: trimesh.Trimesh) -> tuple[NDArray[np.float64], ...]:
    return (np.asarray(mesh.convex_hull.vertices, dtype=np.float64),)
