"""Between a cloud's own frame and the network frame.

The network sees clouds shifted and scaled, never rotated. What they are shifted and scaled by has a name, so that a
leak shows: first the reference cloud,

- ``partial``: the observation. The only reference that inference may use.
- ``oracle``: the true complete cloud. For diagnosis alone: it hands the network the true centre and size.

then the measure. Without a suffix, the box around the reference is centred at the origin and its diagonal is 1, as
in PCN's and MVP's data. With the suffix ``-radius``, the mean of the reference's points is at the origin and the
farthest of them at distance 1, as in ShapeNet-55's (about twice the size).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

NORMALISATIONS = ("partial", "oracle", "partial-radius", "oracle-radius")

# Metres. Below this a cloud has no size that could be normalised to 1.
SMALLEST_DIAGONAL = 1e-6


class Normalisation(NamedTuple):
    """``network = (own - centre) / scale``; ``centre (3,)`` and ``scale`` in the cloud's unit."""

    centre: NDArray[np.float64]
    scale: float

    def to_network(self, points: ArrayLike) -> NDArray[np.float32]:
        """``(N, 3)`` in the cloud's unit -> ``(N, 3)`` network frame."""
        # In float64, so that a cloud far from the origin keeps its shape.
        return ((np.asarray(points, np.float64) - self.centre) / self.scale).astype(np.float32)

    def to_cloud(self, points: ArrayLike) -> NDArray[np.float32]:
        """``(N, 3)`` network frame -> ``(N, 3)`` in the cloud's unit."""
        return (np.asarray(points, np.float64) * self.scale + self.centre).astype(np.float32)


def needs_truth(mode: str) -> bool:
    """Whether the reference is the true cloud."""
    return mode.startswith("oracle")


def normalisation(mode: str, partial: ArrayLike, truth: ArrayLike | None = None) -> Normalisation:
    """The transform that brings a pair of clouds into the network frame.

    Args:
        mode: a name of :data:`NORMALISATIONS`.
        partial: ``(N, 3)``.
        truth: ``(M, 3)``, needed by the oracle ones alone.

    Raises:
        ValueError: unknown mode, missing truth, or a reference cloud without extent.
    """
    if mode not in NORMALISATIONS:
        raise ValueError(f"unknown normalisation {mode!r}: use one of {', '.join(NORMALISATIONS)}")
    if needs_truth(mode) and truth is None:
        raise ValueError(
            f"normalisation {mode!r} needs the true cloud; without one use {mode.replace('oracle', 'partial')!r}"
        )
    points = np.asarray(truth if needs_truth(mode) else partial, np.float64).reshape(-1, 3)
    if len(points) == 0:
        raise ValueError("a cloud without points cannot be normalised")
    low, high = points.min(axis=0), points.max(axis=0)
    diagonal = float(np.linalg.norm(high - low))
    if not diagonal > SMALLEST_DIAGONAL:  # also NaN
        raise ValueError(f"a cloud of {len(points)} points with a diagonal of {diagonal:g} cannot be normalised")
    if mode.endswith("-radius"):
        centre = points.mean(axis=0)
        return Normalisation(centre, float(np.linalg.norm(points - centre, axis=1).max()))
    return Normalisation((low + high) / 2, diagonal)
