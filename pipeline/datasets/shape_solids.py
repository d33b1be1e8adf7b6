"""Building blocks of objects made by code: solids that know their own convex parts.

A :class:`Solid` is a closed body (manifold3d) together with convex pieces that cover it, so that a physics engine
gets a decomposition which is exact by construction instead of one that was guessed from the mesh. Lengths are
**millimetres** here (manifold3d's tolerances suit them); :mod:`pipeline.datasets.shapes` turns them into metres.

Sections are written as unions of convex polygons: ``(r, z)`` for a surface of revolution, ``(x, y)`` for an extrusion.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import pairwise
from operator import add

import manifold3d
import numpy as np
from manifold3d import CrossSection, Manifold
from numpy.typing import ArrayLike, NDArray

Polygon = Sequence[tuple[float, float]]
FloatArray = NDArray[np.float64]

CIRCLE_SEGMENTS = 48
WEDGES = 8  # convex pieces of a hollow ring
_WEDGE_SAMPLES = 4  # angles a wedge spans: keeps the outer sagitta of a 40 mm cup near 0.2 mm


@dataclass(frozen=True)
class Solid:
    """A closed body and convex pieces that cover it.

    Attributes:
        body: the body, millimetres.
        parts: ``(P_i, 3)`` float64 vertices of each convex piece, millimetres.
    """

    body: Manifold
    parts: tuple[FloatArray, ...] = field(default_factory=tuple)

    def __add__(self, other: Solid) -> Solid:
        return Solid(self.body + other.body, self.parts + other.parts)

    def moved(
        self, translation: Sequence[float] = (0.0, 0.0, 0.0), degrees: Sequence[float] = (0.0, 0.0, 0.0)
    ) -> Solid:
        """Return the solid turned about x, then y, then z (degrees), then shifted (mm)."""
        a, b, c = np.radians(np.asarray(degrees, dtype=np.float64))
        rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
        ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
        rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
        affine = np.concatenate([rz @ ry @ rx, np.asarray(translation, dtype=np.float64)[:, None]], axis=1)
        return self._transformed(affine)

    def scaled(self, factors: Sequence[float]) -> Solid:
        """Return the solid stretched along x, y and z (positive factors)."""
        return self._transformed(np.concatenate([np.diag(np.asarray(factors, float)), np.zeros((3, 1))], axis=1))

    def _transformed(self, affine: FloatArray) -> Solid:
        parts = tuple(p @ affine[:, :3].T + affine[:, 3] for p in self.parts)
        return Solid(self.body.transform(affine), parts)

    def carved(self, hole: Solid, parts: Iterable[Solid] | None = None) -> Solid:
        """Return the solid less ``hole``, with the parts of ``parts`` (else its own, where the hole may be ignored)."""
        kept = self.parts if parts is None else tuple(piece for solid in parts for piece in solid.parts)
        return Solid(self.body - hole.body, kept)


def union(solids: Iterable[Solid]) -> Solid:
    """Return the union of one or more solids."""
    return reduce(add, solids)


def box(x: float, y: float, z: float) -> Solid:
    """Return a box that stands on z = 0, centred in x and y."""
    body = Manifold.cube((x, y, z)).translate((-x / 2, -y / 2, 0))
    corners = np.array([[i * x / 2, j * y / 2, k * z] for i in (-1, 1) for j in (-1, 1) for k in (0, 1)])
    return Solid(body, (corners,))


def ellipsoid(a: float, b: float, c: float) -> Solid:
    """Return an ellipsoid about the origin with semi-axes along x, y, z."""
    body = Manifold.sphere(1.0, CIRCLE_SEGMENTS).scale((a, b, c))
    hull = np.asarray(Manifold.sphere(1.0, 20).to_mesh64().vert_properties)[:, :3] * (a, b, c)
    return Solid(body, (hull,))


def hull(points: ArrayLike) -> Solid:
    """Return the convex hull of ``(N, 3)`` points."""
    vertices = np.asarray(points, dtype=np.float64)
    return Solid(Manifold.hull_points(vertices), (vertices,))


def convex(solid: Solid) -> Solid:
    """Return the convex hull of a solid."""
    return hull(np.concatenate(solid.parts))


def circle(radius: float, x: float = 0.0, y: float = 0.0, segments: int = 40) -> list[tuple[float, float]]:
    """Return a regular polygon that stands for a circle."""
    angles = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    return [(float(x + radius * np.cos(a)), float(y + radius * np.sin(a))) for a in angles]


def rectangle(x0: float, y0: float, x1: float, y1: float) -> list[tuple[float, float]]:
    """Return the rectangle between two corners."""
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def capsule(a: tuple[float, float], b: tuple[float, float], radius: float) -> list[tuple[float, float]]:
    """Return the convex outline of a stroke with round ends from ``a`` to ``b``."""
    points = CrossSection.hull_points(np.array(circle(radius, *a) + circle(radius, *b)))
    return [(float(x), float(y)) for x, y in points.to_polygons()[0]]


def arc_strip(
    radius: float, thickness: float, start: float, stop: float, pieces: int, x: float = 0.0, y: float = 0.0
) -> list[Polygon]:
    """Return convex quadrilaterals that make an annular sector of middle radius ``radius``, degrees start..stop."""
    angles = np.radians(np.linspace(start, stop, pieces + 1))
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    inner, outer = (
        [(float(u), float(v)) for u, v in (x, y) + side * directions]
        for side in (radius - thickness / 2, radius + thickness / 2)
    )
    return [[inner[i], outer[i], outer[i + 1], inner[i + 1]] for i in range(pieces)]


def _section(pieces: Iterable[Polygon]) -> CrossSection:
    # Each piece by itself first: a union over all contours would take a clockwise one for a hole.
    section = CrossSection()
    for piece in pieces:
        section = section + CrossSection.hull_points(np.asarray(piece, dtype=np.float64))
    return section.simplify(1e-3)


def extrusion(pieces: Sequence[Polygon], height: float, hole: Polygon | None = None) -> Solid:
    """Return the union of convex polygons, extruded from z = 0 to ``height``; ``hole`` is cut from the body alone."""
    section = _section(pieces)
    if hole is not None:
        section = section - CrossSection.hull_points(np.asarray(hole, dtype=np.float64))
    parts = []
    for piece in pieces:
        flat = np.asarray(piece, dtype=np.float64)
        parts.append(np.concatenate([np.c_[flat, np.zeros(len(flat))], np.c_[flat, np.full(len(flat), height)]]))
    return Solid(Manifold.extrude(section, height), tuple(parts))


def lathe(pieces: Sequence[Polygon], collision: Sequence[Polygon] | None = None) -> Solid:
    """Return the surface of revolution about z of a section given as convex ``(r, z)`` polygons.

    A polygon that touches the axis becomes one convex part, any other a ring of wedges. ``collision`` gives a coarser
    section for the parts of a finely curved body.
    """
    body = Manifold.revolve(_section(pieces), CIRCLE_SEGMENTS)
    parts: list[FloatArray] = []
    for piece in pieces if collision is None else collision:
        rz = np.asarray(piece, dtype=np.float64)
        if rz[:, 0].min() <= 1e-6:
            parts.append(_turned(rz, np.linspace(0, 2 * np.pi, 32, endpoint=False)))
            continue
        edges = np.linspace(0, 2 * np.pi, WEDGES + 1)
        parts += [_turned(rz, np.linspace(a, b, _WEDGE_SAMPLES)) for a, b in pairwise(edges)]
    return Solid(body, tuple(parts))


def _turned(rz: FloatArray, angles: FloatArray) -> FloatArray:
    r, z = rz[:, 0], rz[:, 1]
    x, y = np.multiply.outer(np.cos(angles), r), np.multiply.outer(np.sin(angles), r)
    points = np.stack([x, y, np.broadcast_to(z, x.shape)], axis=-1).reshape(-1, 3)
    return np.unique(points.round(6), axis=0)


def column(profile: Polygon) -> list[Polygon]:
    """Cut a solid profile ``(r, z)``, bottom to top, into convex polygons that reach the axis (few, by greed)."""
    pieces: list[Polygon] = []
    start = 0
    while start < len(profile) - 1:
        stop = start + 1
        while stop < len(profile) - 1 and _bulges(profile[stop - 1], profile[stop], profile[stop + 1]):
            stop += 1
        run = list(profile[start : stop + 1])
        pieces.append([(0.0, run[0][1]), *run, (0.0, run[-1][1])])
        start = stop
    return pieces


def _bulges(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    return (b[0] - a[0]) * (c[1] - b[1]) - (b[1] - a[1]) * (c[0] - b[0]) >= -1e-9


def wall(outer: Polygon, thickness: float) -> list[Polygon]:
    """Give an open outer profile ``(r, z)`` a wall of even thickness on its left: one quadrilateral a segment.

    A profile that starts on the axis gets a floor: cup = ``wall([(0, 0), (r, 0), (r, h)], thickness)``.
    """
    p = np.asarray(outer, dtype=np.float64)
    step = np.diff(p, axis=0)
    normals = np.stack([-step[:, 1], step[:, 0]], axis=1) / np.linalg.norm(step, axis=1, keepdims=True)
    before, after = np.concatenate([normals[:1], normals]), np.concatenate([normals, normals[-1:]])
    mitre = (before + after) / (1 + (before * after).sum(axis=1, keepdims=True))
    inner = p + thickness * mitre
    inner[:, 0] = np.maximum(inner[:, 0], 0.0)
    o, i = ([(float(r), float(z)) for r, z in line] for line in (p, inner))
    return [[o[k], o[k + 1], i[k + 1], i[k]] for k in range(len(p) - 1)]


def smooth(points: ArrayLike, count: int) -> FloatArray:
    """Return ``count`` points on the uniform Catmull-Rom spline through ``(N, D)`` control points."""
    p = np.asarray(points, dtype=np.float64)
    p = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    t = np.linspace(0, len(p) - 3, count)
    i = np.minimum(t.astype(int), len(p) - 4)
    u = (t - i)[:, None]
    a, b, c, d = p[i], p[i + 1], p[i + 2], p[i + 3]
    return 0.5 * (2 * b + (c - a) * u + (2 * a - 5 * b + 4 * c - d) * u**2 + (3 * b - a - 3 * c + d) * u**3)


def smooth_profile(points: Polygon, count: int) -> list[tuple[float, float]]:
    """Return a smooth ``(r, z)`` profile through control points; radii are kept >= 0."""
    return [(max(float(r), 0.0), float(z)) for r, z in smooth(points, count)]


def sweep(path: ArrayLike, radius: ArrayLike, flatten: float = 1.0, closed: bool = False, stride: int = 3) -> Solid:
    """Return a tube along a path, with round cross-sections and round ends.

    Args:
        path: ``(N, 3)`` points, mm, densely sampled; bends wider than the tube.
        radius: scalar or ``(N,)`` mm.
        flatten: factor on the cross-section along its second normal (< 1: a flat band).
        closed: join the last point to the first (a ring; then without ends).
        stride: path segments that one convex part spans.
    """
    p = np.asarray(path, dtype=np.float64)
    r = np.broadcast_to(np.asarray(radius, dtype=np.float64), (len(p),)).copy()
    if not closed:  # round ends: quarter circles beyond the first and the last point
        steps = np.radians([90.0, 72.0, 50.0, 25.0])
        head = [(p[0] - _unit(p[1] - p[0]) * r[0] * np.sin(s), r[0] * max(np.cos(s), 0.05)) for s in steps]
        tail = [(p[-1] + _unit(p[-1] - p[-2]) * r[-1] * np.sin(s), r[-1] * max(np.cos(s), 0.05)) for s in steps[::-1]]
        p = np.concatenate([[q for q, _ in head], p, [q for q, _ in tail]])
        r = np.concatenate([[s for _, s in head], r, [s for _, s in tail]])
    rings = _rings(p, r, flatten, closed)
    n, m = rings.shape[:2]
    index = np.arange(n * m).reshape(n, m)
    lower = index if closed else index[:-1]
    upper = np.roll(index, -1, axis=0) if closed else index[1:]
    a, b, c, d = lower, np.roll(lower, -1, axis=1), np.roll(upper, -1, axis=1), upper
    faces = [np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)]
    vertices = rings.reshape(-1, 3)
    if not closed:
        vertices = np.concatenate([vertices, rings[:1].mean(axis=1), rings[-1:].mean(axis=1)])
        first, last = index[0], index[-1]
        faces.append(np.stack([np.full(m, n * m), np.roll(first, -1), first], -1))
        faces.append(np.stack([np.full(m, n * m + 1), last, np.roll(last, -1)], -1))
    body = Manifold(manifold3d.Mesh64(vertices, np.ascontiguousarray(np.concatenate(faces), dtype=np.uint64)))
    if body.volume() < 0:
        raise ValueError("sweep: the path turns the tube inside out")
    starts = range(0, n if closed else n - 1, stride)
    parts = tuple(
        np.concatenate([rings[k % n] for k in range(s, min(s + stride, n if closed else n - 1) + 1)]) for s in starts
    )
    return Solid(body, parts)


def _rings(p: FloatArray, r: FloatArray, flatten: float, closed: bool, sides: int = 20) -> FloatArray:
    tangents = np.roll(p, -1, axis=0) - np.roll(p, 1, axis=0) if closed else np.gradient(p, axis=0)
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    # Parallel transport, so that the section does not twist about the path.
    seed = np.eye(3)[np.abs(tangents[0]).argmin()]
    normal = _unit(seed - tangents[0] * (seed @ tangents[0]))
    angles = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    rings = []
    for point, tangent, size in zip(p, tangents, r, strict=True):
        normal = _unit(normal - tangent * (normal @ tangent))
        other = np.cross(tangent, normal)
        rings.append(point + size * (np.outer(np.cos(angles), normal) + flatten * np.outer(np.sin(angles), other)))
    return np.array(rings)


def _unit(v: FloatArray) -> FloatArray:
    return v / np.linalg.norm(v)
