"""Where two closing fingers touch an object: contact points and normals on a signed-distance grid.

Each finger is a point that runs along the closing axis from half the opening to the grasp's centre. The line is sampled
about twice a cell, and the contact is the zero of a parabola through three samples around the first one that lies on
the surface. The normal is that of a plane fitted to surface points around the contact. This is what the contact search
of Dex-Net (Mahler et al., RSS 2017) computes as GraspNet-1Billion's evaluation calls it, defined anew and batched; the
referee rounds positions to float32 on their way to and from the grid, and so do we, because the choice between two
samples hangs on it where distances are exactly linear, as before a flat face.

Outside the grid there are no distances. The referee draws 1000 surface cells (nodes below √2/2 of a cell from the
surface; at random, with replacement) when it loads an object, and takes the nearest one's distance plus the way to it.
So where the surface comes within two cells of the grid's border its verdict varies with ``np.random.seed``. Here it is
the nearest of **all** surface cells, the limit of a sample that misses none: given all cells, the referee says the
same, and given its draw, we say what it says. :attr:`Contacts.outside` marks the grasps on which such a distance had a
say; with the five cells of padding that :mod:`grasping.geometry` gives there are none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grasping.contact_kernels import NO_CONTACT, NO_NORMAL, UNDECIDED, close, distance
from grasping.signed_distance import SignedDistanceGrid
from grasping.surface_cells import is_exposed, sampled_cells, surface_cells

FloatArray = NDArray[np.float64]

NORMAL_RADIUS = 1.5
"""Radius in cells of the sphere whose 27 directions (and centre) are asked for surface points."""

# An outside distance below this many cells could put the point on the surface, for one sample of cells or another: it
# is at least the way to the nearest surface cell less √2/2, and the surface begins at √2/2.
_NEAR = 1.5 * math.sqrt(2.0)
_NO_CELLS = np.zeros((0, 4))


def _directions() -> FloatArray:
    steps = (-NORMAL_RADIUS, 0.0, NORMAL_RADIUS)
    offsets = []
    for x in steps:
        for y in steps:
            for z in steps:
                d = np.array([x, y, z])
                offsets.append(NORMAL_RADIUS * d / np.linalg.norm(d) if d.any() else d)
    return np.array(offsets)


_OFFSETS = _directions()


@dataclass(frozen=True, eq=False)
class Contacts:
    """Two contacts a grasp, in the object's frame.

    Attributes:
        found: ``(N,)`` both fingers touch the surface, and it has a normal there.
        points: ``(N, 2, 3)`` metres; NaN where no contact was found.
        normals: ``(N, 2, 3)`` of unit length, sign arbitrary; NaN where the surface has none there.
        outside: ``(N,)`` a distance outside the grid had, or could have had, a say: the referee's answer is chance.
    """

    found: NDArray[np.bool_]
    points: FloatArray
    normals: FloatArray
    outside: NDArray[np.bool_]


def find_contacts(
    sdf: SignedDistanceGrid,
    centres: ArrayLike,
    axes: ArrayLike,
    widths: ArrayLike,
    sample_seed: int | None = None,
) -> Contacts:
    """Close N pairs of fingers on one object.

    Args:
        sdf: the object's signed distances.
        centres: ``(N, 3)`` metres, object frame: the point between the finger tips.
        axes: ``(N, 3)`` closing directions, object frame; their length does not count.
        widths: ``(N,)`` openings, metres, not negative.
        sample_seed: None measures outside the grid to all surface cells; a number to those that the referee draws
            after ``np.random.seed(sample_seed)``: its very answer under that seed.
    """
    c = np.ascontiguousarray(centres, dtype=np.float64).reshape(-1, 3)
    return find_contacts_by_object([sdf], [len(c)], c, axes, widths, sample_seed)


def find_contacts_by_object(
    sdfs: Sequence[SignedDistanceGrid],
    counts: Sequence[int],
    centres: ArrayLike,
    axes: ArrayLike,
    widths: ArrayLike,
    sample_seed: int | None = None,
) -> Contacts:
    """Do the same on several objects: grasps in their order, so many on each, every one in its object's frame.

    A view closes few grasps on each of its objects, and a call of :func:`find_contacts` costs more than its grasps.
    """
    c = np.ascontiguousarray(centres, dtype=np.float64).reshape(-1, 3)
    a = np.ascontiguousarray(axes, dtype=np.float64).reshape(-1, 3)
    w = np.ascontiguousarray(widths, dtype=np.float64).reshape(-1)
    # Numbers so large that they overflowed on the way here close on nothing: as zeros the line has no length.
    finite = np.asarray(np.isfinite(c).all(axis=1) & np.isfinite(a).all(axis=1))
    if not finite.all():
        c, a = np.where(finite[:, None], c, 0.0), np.where(finite[:, None], a, 0.0)
    a = _unit(a)
    n = len(c)
    points, normals = np.full((n, 2, 3), np.nan), np.full((n, 2, 3), np.nan)
    status, outside = np.full((n, 2), NO_CONTACT, np.int64), np.zeros(n, np.bool_)
    if sum(counts) != n:
        raise ValueError(f"{n} grasps, but the counts add up to {sum(counts)}")
    begin = 0
    for sdf, count in zip(sdfs, counts, strict=True):
        part = slice(begin, begin + count)
        begin += count
        if count:
            _close_on(
                sdf, c[part], a[part], w[part], sample_seed, points[part], normals[part], status[part], outside[part]
            )
    found = ((status != NO_CONTACT) & (status != NO_NORMAL)).all(axis=1)
    return Contacts(np.asarray(found), points, normals, outside)


def _unit(axes: FloatArray) -> FloatArray:
    """Directions of vectors ``(N, 3)``, with the last bits that np.linalg.norm of each alone gives; zero stays zero."""
    length = np.sqrt(np.vecdot(axes, axes))[:, None]
    return axes / np.where(length > 0, length, 1.0)


def _close_on(
    sdf: SignedDistanceGrid,
    c: FloatArray,
    a: FloatArray,
    w: FloatArray,
    sample_seed: int | None,
    points: FloatArray,
    normals: FloatArray,
    status: NDArray[np.int64],
    outside: NDArray[np.bool_],
) -> None:
    """Close on one object, by the kernel; the last four are filled in."""
    values = np.ascontiguousarray(sdf.values, dtype=np.float64).view(np.ndarray)
    values.flags.writeable = False  # one compiled version for arrays and memory maps alike
    origin, resolution = np.asarray(sdf.origin, np.float64), float(sdf.resolution)
    # First as if everything outside were far away; then once more what depends on it.
    limit = np.inf if is_exposed(sdf) else -np.inf
    close(values, origin, resolution, c, a, w, _OFFSETS, _NO_CELLS, limit, points, normals, status, outside)
    again, cells = np.flatnonzero(outside), _NO_CELLS
    if len(again):
        cells = surface_cells(sdf) if sample_seed is None else sampled_cells(sdf, sample_seed)
        limit, many = _NEAR * resolution, len(again)
        anew = np.full((many, 2, 3), np.nan), np.full((many, 2, 3), np.nan)
        verdict = np.full((many, 2), NO_CONTACT, np.int64), np.zeros(many, np.bool_)
        close(values, origin, resolution, c[again], a[again], w[again], _OFFSETS, cells, limit, *anew, *verdict)
        points[again], normals[again], status[again], outside[again] = *anew, *verdict
    if (status == UNDECIDED).any():
        for i, finger in np.argwhere(status == UNDECIDED):
            normals[i, finger] = _normal_by_svd(sdf, points[i, finger], cells)


def _normal_by_svd(sdf: SignedDistanceGrid, point: FloatArray, cells: FloatArray) -> FloatArray:
    """The fitted plane's normal where eigenvalues do not tell it: the last left singular vector, as LAPACK picks it."""
    scale = 1.0 / sdf.resolution
    grid = scale * point.astype(np.float32).astype(np.float64) + -scale * np.asarray(sdf.origin)
    threshold = sdf.resolution * np.sqrt(2) / 2
    surface = []
    values = np.ascontiguousarray(sdf.values).view(np.ndarray)
    values.flags.writeable = False
    for offset in _OFFSETS:
        q = grid + offset
        value = distance(values, float(sdf.resolution), cells, q[0], q[1], q[2])
        if abs(value) < threshold:
            surface.append((value, q))
    surface.sort(key=lambda entry: entry[0])
    near = np.array([q for _, q in surface])
    u, _, _ = np.linalg.svd((near - near.mean(axis=0)).T)
    return u[:, 2].astype(np.float32).astype(np.float64)
