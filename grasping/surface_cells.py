"""The nodes of a signed-distance grid on which the surface lies: what distances outside the grid are measured to.

See :mod:`grasping.contacts` for what they decide.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from grasping.signed_distance import SignedDistanceGrid

FloatArray = NDArray[np.float64]

DRAWS = 1000
"""How many surface cells the referee draws, with replacement, when it loads an object."""

# A grid is read once and asked for every view; entries go with their grids.
_CELLS: WeakKeyDictionary[SignedDistanceGrid, FloatArray] = WeakKeyDictionary()
_EXPOSED: WeakKeyDictionary[SignedDistanceGrid, bool] = WeakKeyDictionary()


def surface_cells(sdf: SignedDistanceGrid) -> FloatArray:
    """Return the nodes below √2/2 of a cell from the surface, ``(M, 4)``: grid coordinates and signed distance (m)."""
    cells = _CELLS.get(sdf)
    if cells is None:
        where = np.argwhere(np.abs(sdf.values) < _threshold(sdf))
        cells = np.column_stack([where, np.asarray(sdf.values)[tuple(where.T)]]).astype(np.float64)
        _CELLS[sdf] = cells
    return cells


def sampled_cells(sdf: SignedDistanceGrid, seed: int) -> FloatArray:
    """Return the ``(1000, 4)`` surface cells that the referee draws after ``np.random.seed(seed)``, in its order."""
    cells = surface_cells(sdf)
    if len(cells) == 0:
        return cells
    return np.ascontiguousarray(cells[np.random.RandomState(seed).choice(len(cells), DRAWS)])


def is_exposed(sdf: SignedDistanceGrid) -> bool:
    """Say whether a surface cell lies in the two outermost layers, so that a point outside may be on the surface."""
    exposed = _EXPOSED.get(sdf)
    if exposed is None:
        layers = (np.take(sdf.values, (0, 1, -2, -1), axis) for axis in range(3))
        exposed = any(bool((np.abs(layer) < _threshold(sdf)).any()) for layer in layers)
        _EXPOSED[sdf] = exposed
    return exposed


def _threshold(sdf: SignedDistanceGrid) -> float:
    return float(sdf.resolution * np.sqrt(2) / 2)
