"""Models made ready for scoring whatever state their files are in: mapped from the cache, each oddity said in words.

:func:`grasping.geometry.load_object` refuses a model that it cannot use. Here a model is used as far as it goes:

* ``textured.sdf`` cannot be read: the distances are made anew from the mesh.
* ``textured.sdf`` does not match the mesh, has no cells around the surface, or no inside: it is used as it is, because
  the file is part of the protocol and the referee would use it so.
* no distances and no faces to make them from: the object collides and receives grasps, but no grasp holds it.
* ``nontextured.ply`` missing or broken: there is no object.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from grasping.geometry import (
    GeometryError,
    ObjectGeometry,
    SignedDistanceGrid,
    content_hash,
    make_sdf_file,
    map_object,
    parsed_sdf_file,
    read_mesh,
    sampled_points_file,
)

FloatArray = NDArray[np.float64]

CHECKED_VERTICES = 4000
"""At most so many of the mesh's vertices, evenly spread over the file, are looked up in a dataset's distances."""
MATCHING_MEDIAN = 1.0
"""Cells: distances whose median at the mesh's vertices is larger do not match it."""
FAR, MATCHING_SHARE = 3.0, 0.25
"""Nor do those that are farther than so many cells from zero at more than this share of the vertices."""
LEAST_SPAN = 0.25
"""Nor does a grid of whose longest side the mesh takes less than this share."""
LEAST_PADDING = 3.0
"""Cells of the grid around the surface that the contact search looks at (√2/2 + √3, rounded up)."""

_CHECK_VERSION = 2  # raise when distance_faults says something else

# Far from everything: no finger touches it.
_NOWHERE = SignedDistanceGrid(np.ones((2, 2, 2)), np.zeros(3), 1e-3)


@dataclass(frozen=True)
class PreparedObject:
    """One model as far as it can be used, light enough to be sent to another process.

    Attributes:
        object_id: the dataset's number of the model.
        content: hashes of mesh and distances, or ``missing``: what scores depend on.
        points_file: cache file of the sampled points; None where there is no mesh.
        values_file: cache file of the distances; None where there are none.
        origin: of the grid, metres, object frame.
        resolution: of the grid, metres.
        problems: one line each, naming the file.
        notes: alike, of what is no fault: the referee's answers there hang on chance.
    """

    object_id: int
    content: str
    points_file: Path | None = None
    values_file: Path | None = None
    origin: tuple[float, ...] = (0.0, 0.0, 0.0)
    resolution: float = 0.0
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether there is a model at all."""
        return self.points_file is not None

    @property
    def closable(self) -> bool:
        """Whether fingers can be closed on it."""
        return self.values_file is not None

    def open(self) -> ObjectGeometry:
        """Map the cache's files; an object without distances has ones on which nothing closes.

        Raises:
            GeometryError: if there is no model, or a file was lost from the cache.
        """
        if self.points_file is None:
            raise GeometryError(f"object {self.object_id} has no model")
        if self.values_file is None:
            geometry = map_object(self.object_id, self.points_file, self.points_file, self.origin, 1.0)
            return replace(geometry, sdf=_NOWHERE)
        return map_object(self.object_id, self.points_file, self.values_file, self.origin, self.resolution)


def prepare_object(model_dir: Path, object_id: int, cache: Path) -> PreparedObject:
    """Make one model ready, reading every file once; never raises for a model's own faults.

    Args:
        model_dir: folder with ``nontextured.ply`` and perhaps ``textured.sdf``.
        object_id: its number.
        cache: folder of ours.

    Raises:
        OSError: if the cache cannot be written.
    """
    mesh_path, sdf_path = Path(model_dir) / "nontextured.ply", Path(model_dir) / "textured.sdf"
    if not mesh_path.is_file():
        text = f"{mesh_path}: no such file; object {object_id} is left out of its scenes"
        return PreparedObject(object_id, "missing", problems=(text,))
    try:
        points_file = sampled_points_file(mesh_path, cache)
    except GeometryError as error:
        return PreparedObject(object_id, "missing", problems=(f"{error}; object {object_id} is left out meanwhile",))
    prepared = PreparedObject(object_id, content_hash(mesh_path)[:16], points_file)
    problems: list[str] = []
    if sdf_path.exists():
        try:
            values_file, origin, resolution = parsed_sdf_file(sdf_path, cache)
        except GeometryError as error:
            problems.append(f"{error}; meanwhile distances made from the mesh are used")
        else:
            content = f"{prepared.content}-{content_hash(sdf_path)[:16]}"
            prepared = replace(
                prepared, content=content, values_file=values_file, origin=tuple(origin), resolution=resolution
            )
            grid = prepared.open().sdf
            assert grid is not None
            said = _compared(grid, mesh_path, Path(cache) / "parsed" / f"{content}-faults-{_CHECK_VERSION}.json")
            faults, notes = (tuple(f"{sdf_path}: {text}" for text in texts) for texts in said)
            return replace(prepared, problems=faults, notes=notes)
    try:
        values_file, origin, resolution = parsed_sdf_file(make_sdf_file(mesh_path, cache), cache)
    except GeometryError as error:
        problems.append(f"{error}; nothing can be closed on object {object_id}")
        return replace(prepared, content=f"{prepared.content}-none", problems=tuple(problems))
    content = f"{prepared.content}-made"  # from this very mesh, by the code that the fingerprint names
    return replace(
        prepared,
        content=content,
        values_file=values_file,
        origin=tuple(origin),
        resolution=resolution,
        problems=tuple(problems),
    )


def _compared(grid: SignedDistanceGrid, mesh_path: Path, known: Path) -> list[list[str]]:
    """Compare a dataset's distances with its mesh once: faults and notes, kept under both files' content."""
    try:
        said = json.loads(known.read_text())
        if isinstance(said, list) and len(said) == 2 and all(isinstance(text, str) for part in said for text in part):
            return said
    except (OSError, ValueError, TypeError):
        pass
    vertices, faces = read_mesh(mesh_path)
    if len(faces):
        vertices = vertices[np.unique(faces)]
    said = [distance_faults(grid, vertices), padding_notes(grid, vertices)]
    temporary = known.with_name(f".{known.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(said))
        temporary.replace(known)
    finally:
        temporary.unlink(missing_ok=True)
    return said


def distance_faults(grid: SignedDistanceGrid, vertices: FloatArray) -> list[str]:
    """Say what is odd about distances that should be those of a mesh; nothing where they fit.

    Args:
        grid: the distances.
        vertices: ``(V, 3)`` of the mesh, metres, object frame: there the distances should be about zero.
    """
    v = vertices[:: -(-len(vertices) // CHECKED_VERTICES)]
    cells = (v - grid.origin) / grid.resolution
    last = np.array(grid.values.shape) - 1
    outside = np.any((cells < 0) | (cells > last), axis=1)
    size = "×".join(map(str, grid.values.shape))
    span = float(np.ptp(cells, axis=0).max())
    faults = []
    if span < LEAST_SPAN * last.max():
        faults.append(
            f"does not match its mesh, which spans {span:.2g} of the grid's {last.max()} cells ({size} of "
            f"{1000 * grid.resolution:.3g} mm; another unit?); used as it is, as the referee does"
        )
    elif outside.mean() > 0.01:
        faults.append(
            f"does not match its mesh: {100 * outside.mean():.0f} % of the vertices lie outside the grid ({size} of "
            f"{1000 * grid.resolution:.3g} mm; another unit or model?); used as it is, as the referee does"
        )
    else:
        distance = np.abs(_interpolate(grid.values, cells)) / grid.resolution
        median, far = float(np.median(distance)), float((distance > FAR).mean())
        if median > MATCHING_MEDIAN or far > MATCHING_SHARE:
            faults.append(
                f"does not match its mesh: at the vertices, where it should be 0, it is {median:.1f} cells (median), "
                f"and more than {FAR:g} cells at {100 * far:.0f} % of them; used as it is, as the referee does"
            )
    if grid.values.min() >= 0:
        faults.append("holds no negative distance, so the object has no inside; used as it is, as the referee does")
    return faults


def padding_notes(grid: SignedDistanceGrid, vertices: FloatArray) -> list[str]:
    """Say where a mesh comes so near its grid's border that the referee's answers hang on its random sample.

    Args:
        grid: the distances.
        vertices: ``(V, 3)`` of the mesh, metres, object frame.
    """
    cells = (vertices - grid.origin) / grid.resolution
    last = np.array(grid.values.shape) - 1
    inside = np.all((cells >= 0) & (cells <= last), axis=1)
    padding = float(np.minimum(cells, last - cells)[inside].min()) if inside.any() else 0.0
    if padding >= LEAST_PADDING:
        return []
    size = "×".join(map(str, grid.values.shape))
    return [
        f"the surface comes within {max(padding, 0):.1f} cells of the grid's border ({size}), where contacts "
        f"need {LEAST_PADDING:g}; used as it is, as the referee does, whose answers there hang on chance"
    ]


def _interpolate(values: FloatArray, cells: FloatArray) -> FloatArray:
    """Trilinear interpolation at grid coordinates ``(N, 3)``, clamped to the grid."""
    top = np.array(values.shape) - 2
    low = np.clip(np.floor(cells).astype(np.int64), 0, top)
    f = np.clip(cells - low, 0.0, 1.0)
    out = np.zeros(len(cells))
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(corner, f, 1.0 - f), axis=1)
        out += weight * values[tuple((low + corner).T)]
    return out
