"""Signed-distance grids: the ``.sdf`` text that GraspNet-1Billion's models carry, and grids made from a mesh.

The text is three header lines, ``nx ny nz``, the grid's origin ``ox oy oz`` and the cell edge ``dx`` (metres), then one
value a line, x fastest, negative inside: what graspnetAPI's ``SdfFile`` reads. Numbers stay float64, because the
referee reads them so and contacts are found by comparing them.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

# Distances are kept to a nanometre: far below any mesh's own error, and short to write.
# Memory and file hold the same number.
_DECIMALS = 9
_SCALE = 10**_DECIMALS

# Distances are exact up to this many cells from the surface. Contacts and normals look at cells below √2/2 of a cell
# from the surface, that is at grid nodes up to √2/2 + √3 ≈ 2.44 cells away.
EXACT_CELLS = 3
_STRIDE = 3

# Amplitude of the dither on made grids, metres. The protocol's contact search fits a parabola to three samples and
# takes an exactly straight profile for no contact; before a flat face of an ideal box every profile is straight, and
# grasps across it would fail. Distances to scanned meshes never are that straight; a hair of noise mends the others.
_DITHER = 5e-8
# Signs are voted by rays in these directions, no two of which graze the same edges; the last five break a tie.
_RAYS = np.random.default_rng(20200613).normal(size=(7, 3))


class GeometryError(ValueError):
    """A model, mesh or signed-distance file that cannot be used; the message names the file and the remedy."""


@dataclass(frozen=True, eq=False)
class SignedDistanceGrid:
    """Signed distances on a regular grid in the object's frame, metres, negative inside.

    Attributes:
        values: ``(nx, ny, nz)`` float64, C order: ``values[x, y, z]`` is the distance at
            ``origin + resolution·(x, y, z)``.
        origin: ``(3,)`` float64 position of ``values[0, 0, 0]``.
        resolution: edge of a cell, metres.
    """

    values: FloatArray = field(repr=False)
    origin: FloatArray
    resolution: float

    @classmethod
    def load(cls, path: Path) -> SignedDistanceGrid:
        """Read an ``.sdf`` text.

        Raises:
            GeometryError: if the file is missing, truncated, not numeric or describes no grid.
        """
        shape, origin, resolution, body = _read_text(Path(path))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", DeprecationWarning)
                flat = np.fromstring(body, sep=" ")
        except (ValueError, DeprecationWarning):
            raise GeometryError(f"{path}: holds a value that is no number; make the file again") from None
        if len(flat) != int(np.prod(shape)):
            raise GeometryError(
                f"{path}: {len(flat)} values where {'×'.join(map(str, shape))} are announced; make the file again"
            )
        if not np.isfinite(flat).all():
            raise GeometryError(f"{path}: holds a value that is not finite; make the file again")
        return cls(np.ascontiguousarray(flat.reshape(shape[::-1]).transpose()), origin, resolution)

    def save(self, path: Path) -> None:
        """Write the ``.sdf`` text atomically; reading it gives back the very same numbers."""
        path = Path(path)
        # repr gives the shortest decimal that reads back as the same float64
        header = (
            f"{' '.join(str(n) for n in self.values.shape)}\n"
            f"{' '.join(repr(float(o)) for o in self.origin)}\n"
            f"{float(self.resolution)!r}\n"
        )
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(header.encode())
                file.write(_format(np.asarray(self.values, dtype=np.float64).ravel(order="F")))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def read_header(path: Path) -> tuple[tuple[int, int, int], FloatArray, float]:
    """Return shape, origin ``(3,)`` and resolution of an ``.sdf`` text without reading its values.

    Raises:
        GeometryError: if the file is missing or its header is broken.
    """
    try:
        with Path(path).open("rb") as file:
            return _parse_header([file.readline(256) for _ in range(3)], Path(path))
    except OSError as error:
        raise GeometryError(f"{path}: cannot be read ({error.strerror})") from None


def _read_text(path: Path) -> tuple[tuple[int, int, int], FloatArray, float, bytes]:
    try:
        lines = path.read_bytes().split(b"\n", 3)
    except OSError as error:
        raise GeometryError(f"{path}: cannot be read ({error.strerror})") from None
    return (*_parse_header(lines[:3], path), lines[3] if len(lines) > 3 else b"")


def _parse_header(lines: list[bytes], path: Path) -> tuple[tuple[int, int, int], FloatArray, float]:
    try:
        nx, ny, nz = (int(n) for n in lines[0].split())
        origin = np.array([float(o) for o in lines[1].split()])
        resolution = float(lines[2])
        good = min(nx, ny, nz) >= 2 and origin.shape == (3,) and np.isfinite(origin).all() and 0 < resolution < np.inf
    except (ValueError, IndexError):
        good = False
    if not good:
        raise GeometryError(
            f"{path}: does not begin with an .sdf header (nx ny nz / ox oy oz / dx); make the file again"
        )
    return (nx, ny, nz), origin, resolution


def _format(flat: FloatArray) -> bytes:
    """One value a line. Whole nanometres (ours are) take a path without a Python loop."""
    ticks = np.rint(flat * _SCALE)
    if len(flat) and np.abs(ticks).max() < 10 * _SCALE and np.array_equal(ticks / _SCALE, flat):
        text = np.empty((len(flat), _DECIMALS + 4), np.uint8)  # -d.ddddddddd\n
        text[:, 0], text[:, 2], text[:, -1] = ord("-"), ord("."), ord("\n")
        columns = (*range(_DECIMALS + 2, 2, -1), 1)
        high, low = np.divmod(np.abs(ticks).astype(np.int64), 100_000)  # ten digits; 32 bits at a time are faster
        for part, places in ((low, columns[:5]), (high, columns[5:])):
            rest = part.astype(np.int32)
            for column in places:
                rest, digit = np.divmod(rest, np.int32(10))
                text[:, column] = digit + ord("0")
        keep = np.ones(text.shape, bool)
        keep[:, 0] = ticks < 0
        return text[keep].tobytes()
    return "".join(f"{v!r}\n" for v in flat.tolist()).encode()


def make_signed_distance_grid(
    vertices: ArrayLike, faces: ArrayLike, cells: int = 100, padding: int = 5, threads: int = 0
) -> SignedDistanceGrid:
    """Sample a mesh's signed distance on a grid around it, by ray casting (open3d).

    Values are the exact distance to the mesh, but for a dither of ±0.05 µm (always the same; see ``_DITHER``), up to
    :data:`EXACT_CELLS` cells from the surface. Farther away, where the protocol only asks whether the surface is near,
    they are interpolated between exact distances at every third node (right to within 2.6 cells by the triangle
    inequality, to 0.05 cells on average). A point is inside where the surface's winding number along a ray is not zero,
    so overlapping parts and inward faces do no harm; where faces are not consistently oriented the parity of crossings
    decides. Two rays vote, seven where they differ.

    Args:
        vertices: ``(V, 3)`` metres.
        faces: ``(F, 3)`` vertex indices of triangles.
        cells: cells along the longest side of the bounding box.
        padding: cells added on each side.
        threads: of open3d; 0 takes all cores.

    Raises:
        GeometryError: if the mesh is empty, flat to a point, or has vertices that are not finite.
    """
    v = np.asarray(vertices, dtype=np.float64).reshape(-1, 3)
    f = np.asarray(faces, dtype=np.int64).reshape(-1, 3)
    if len(f) == 0 or len(v) == 0:
        raise GeometryError("a mesh without faces has no signed distance: give a surface, not a cloud")
    if f.min() < 0 or f.max() >= len(v):
        raise GeometryError(f"faces name vertices beyond the {len(v)} there are: the mesh is broken")
    v, f = _compact(v, f)
    if not np.isfinite(v).all():
        raise GeometryError("the mesh has vertices that are not finite: repair it")
    low, extent = v.min(axis=0), np.ptp(v, axis=0)
    resolution = float(extent.max()) / cells
    if resolution <= 0:
        raise GeometryError("the mesh is a single point: it has no surface")
    shape = np.ceil(extent / resolution - 1e-9).astype(int) + 1 + 2 * padding
    origin = low - padding * resolution

    mesh = _Mesh(v, f, threads)
    # coarse nodes at every third index, and the last one beyond the border so that all fine nodes lie between them
    axes = [np.arange(0, n + _STRIDE - 1, _STRIDE) for n in shape]
    coarse_index = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    coarse_points = origin + resolution * coarse_index
    coarse_shape = tuple(len(a) for a in axes)
    coarse = mesh.distance(coarse_points).reshape(coarse_shape)
    coarse_inside = mesh.inside(coarse_points).reshape(coarse_shape)

    distance = _upsample(coarse, shape)
    nearest = [(np.arange(n) + _STRIDE // 2) // _STRIDE for n in shape]
    inside = coarse_inside[np.ix_(*nearest)]
    # Distance is 1-Lipschitz and a node's interpolant is a mean of corners at most √3/2 strides away on average.
    near = np.argwhere(distance <= (EXACT_CELLS + _STRIDE * np.sqrt(3) / 2) * resolution)
    points = origin + resolution * near
    where = tuple(near.T)
    distance[where] = mesh.distance(points)
    inside[where] = mesh.inside(points)
    signed = np.where(inside, -distance, distance)
    signed += np.random.default_rng(0).uniform(-_DITHER, _DITHER, signed.shape)
    return SignedDistanceGrid(np.ascontiguousarray(np.rint(signed * _SCALE) / _SCALE), origin, resolution)


def _compact(vertices: FloatArray, faces: NDArray[np.int64]) -> tuple[FloatArray, NDArray[np.int64]]:
    """Drop vertices no face uses: they would stretch the box."""
    used, index = np.unique(faces, return_inverse=True)
    return vertices[used], index.reshape(-1, 3)


def _upsample(coarse: FloatArray, shape: NDArray[np.int64]) -> FloatArray:
    """Trilinear interpolation to every node, one axis at a time."""
    out = coarse
    for axis, n in enumerate(shape):
        index = np.arange(n)
        left = index // _STRIDE
        right = np.minimum(left + 1, out.shape[axis] - 1)
        weight = ((index % _STRIDE) / _STRIDE).reshape([-1 if a == axis else 1 for a in range(3)])
        out = out.take(left, axis) * (1 - weight) + out.take(right, axis) * weight
    return out


class _Mesh:
    """Distance and inside test of one triangle mesh."""

    def __init__(self, vertices: FloatArray, faces: NDArray[np.int64], threads: int) -> None:
        import open3d  # lazily: scoring workers read grids and never make them

        self._tensor = cast(Any, open3d.core.Tensor)
        self._scene = open3d.t.geometry.RaycastingScene(nthreads=threads)
        self._threads = threads
        # float32 inside open3d: centred, so that a mesh far from its origin loses nothing
        self._centre = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
        self._scene.add_triangles(
            self._tensor((vertices - self._centre).astype(np.float32)), self._tensor(faces.astype(np.uint32))
        )
        a, b, c = (vertices[faces[:, i]] for i in range(3))
        self._normals = np.cross(b - a, c - a)
        # An oriented surface runs along each of its edges once in each direction.
        edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
        keys = edges[:, 0] * len(vertices) + edges[:, 1]
        self._oriented = len(np.unique(keys)) > 0.999 * len(keys)

    def distance(self, points: FloatArray) -> FloatArray:
        query = self._tensor((points - self._centre).astype(np.float32))
        return self._scene.compute_distance(query, nthreads=self._threads).numpy().astype(np.float64)

    def inside(self, points: FloatArray) -> NDArray[np.bool_]:
        first, second = self._inside_along(points, _RAYS[0]), self._inside_along(points, _RAYS[1])
        result = first
        doubtful = np.flatnonzero(first != second)
        if len(doubtful):
            votes = first[doubtful].astype(int) + second[doubtful]
            for direction in _RAYS[2:]:
                votes += self._inside_along(points[doubtful], direction)
            result[doubtful] = votes > len(_RAYS) // 2
        return result

    def _inside_along(self, points: FloatArray, direction: FloatArray) -> NDArray[np.bool_]:
        direction = direction / np.linalg.norm(direction)
        rays = np.empty((len(points), 6), np.float32)
        rays[:, :3] = points - self._centre
        rays[:, 3:] = direction
        query = self._tensor(rays)
        if not self._oriented:
            return self._scene.count_intersections(query, nthreads=self._threads).numpy() % 2 == 1
        hits: dict[str, Any] = self._scene.list_intersections(query, nthreads=self._threads)
        leaving = np.sign(self._normals @ direction)[hits["primitive_ids"].numpy().astype(np.int64)]
        winding = np.concatenate([[0.0], np.cumsum(leaving)])
        splits = hits["ray_splits"].numpy().astype(np.int64)
        return winding[splits[1:]] != winding[splits[:-1]]
