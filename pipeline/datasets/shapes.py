"""Objects made by code: watertight meshes of graspable size that bring their own convex parts.

Ids 0–59 are for training and *seen* scenes (20 families in 3 sizes each), ids 60–75 for *novel* scenes (16 families
of which training has none). Free to ship: nothing here comes from a scan.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.shape_families import TRAINING, Entry
from pipeline.datasets.shape_families_novel import NOVEL

TRAINING_IDS: tuple[int, ...] = tuple(range(len(TRAINING)))
NOVEL_IDS: tuple[int, ...] = tuple(range(60, 60 + len(NOVEL)))

EDGE_MM = 4.0  # the protocol samples mesh *vertices* on an 8 mm grid, so they must lie closer than that
_SIMPLIFY_MM = 0.05


@dataclass(frozen=True)
class Shape:
    """One object, upright, the origin at the middle of its bounding box.

    Attributes:
        object_id: the number of its model folder.
        name: e.g. ``espresso``.
        family: e.g. ``mug``.
        traits: what makes it hard, of ``thin``, ``hollow``, ``handle``.
        vertices: ``(V, 3)`` float64 metres (exactly representable in float32, as the PLY file keeps them).
        faces: ``(F, 3)`` int64, outward.
        parts: ``(P_i, 3)`` float64 metres, vertices of convex pieces that cover the body.
        density: effective, kg/m³ (hollow goods are lighter than their material).
    """

    object_id: int
    name: str
    family: str
    traits: frozenset[str]
    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    parts: tuple[NDArray[np.float64], ...]
    density: float


def _entry(object_id: int) -> Entry:
    if object_id in TRAINING_IDS:
        return TRAINING[object_id]
    if object_id in NOVEL_IDS:
        return NOVEL[object_id - NOVEL_IDS[0]]
    raise ValueError(
        f"no object {object_id}: made objects have ids {TRAINING_IDS[0]}-{TRAINING_IDS[-1]} (training) "
        f"and {NOVEL_IDS[0]}-{NOVEL_IDS[-1]} (novel)"
    )


@lru_cache(maxsize=128)
def make_object(object_id: int) -> Shape:
    """Build an object; the same arrays every time.

    Raises:
        ValueError: there is no such object.
    """
    entry = _entry(object_id)
    solid = entry.build(*entry.arguments)
    mesh = solid.body.simplify(_SIMPLIFY_MM).refine_to_length(EDGE_MM)
    mesh = mesh.refine_to_length(
        EDGE_MM
    ).to_mesh64()  # once more: the first pass leaves a few interior edges twice as long
    points = np.asarray(mesh.vert_properties)[:, :3]
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    vertices = ((points - middle) / 1000.0).astype(np.float32).astype(np.float64)
    faces = np.asarray(mesh.tri_verts).astype(np.int64)
    parts = tuple((part - middle) / 1000.0 for part in solid.parts)
    for array in (vertices, faces, *parts):
        array.flags.writeable = False
    return Shape(object_id, entry.name, entry.family, entry.traits, vertices, faces, parts, entry.density)


def traits_of(object_id: int) -> frozenset[str]:
    """Return an object's traits without building it."""
    return _entry(object_id).traits
