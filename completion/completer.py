"""A trained network as a function of clouds: points ``(N, 3)`` metres -> points ``(M, 3)`` metres.

The clouds must be in the frame that the checkpoint declares (``config["frame"]``); turning them there and back, and
joining the prediction to the observation (``config["merge"]``), is the caller's. What comes out for a cloud depends on
the cloud and its seed, not on the other clouds of the call: on a CPU to the last bit, on CUDA but for rounding
(:mod:`completion.batches`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from completion.batches import Batches
from completion.checkpoint import Checkpoint, load
from completion.normalize import SMALLEST_DIAGONAL, normalisation
from completion.points import sample_indices


class CompletionError(ValueError):
    """A cloud cannot be completed; the message says which and why.

    Attributes:
        index: position of the cloud in the call.
        reason: why, without the position.
    """

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(f"cloud {index}: {reason}")
        self.index, self.reason = index, reason


class Completer:
    """Completes clouds with one checkpoint. Make it with :meth:`load`."""

    def __init__(self, checkpoint: Checkpoint, memory_budget: int | None = None) -> None:
        """``memory_budget``: see :class:`completion.batches.Batches`."""
        self.checkpoint = checkpoint
        self.batches = Batches(checkpoint.network, checkpoint.device, memory_budget)
        self.config = checkpoint.config
        self.device = checkpoint.device

    @classmethod
    def load(
        cls,
        path_or_name: str | Path,
        device: str | torch.device = "auto",
        trust_code: bool = False,
        memory_budget: int | None = None,
    ) -> Completer:
        """Load a checkpoint folder or a shipped name.

        Args:
            path_or_name, device, trust_code: see :func:`completion.checkpoint.load`.
            memory_budget: bytes that clouds may take on a CUDA device, see :class:`completion.batches.Batches`.

        Raises:
            CheckpointError: it is missing, broken, not trusted, or does not fit.
            ValueError: a budget that is none.
        """
        return cls(load(path_or_name, device, trust_code), memory_budget)

    def __call__(
        self,
        clouds: Sequence[ArrayLike],
        seeds: Sequence[int] | None = None,
        truths: Sequence[ArrayLike] | None = None,
    ) -> list[NDArray[np.float32]]:
        """Complete each cloud; the observation itself is not part of the result.

        Args:
            clouds: ``(N, 3)`` metres each, N may differ.
            seeds: one a cloud, for choosing the network's input points; all 0 by default.
            truths: true clouds, ``(M, 3)`` metres; only for a checkpoint with ``oracle`` normalisation.

        Returns:
            one ``(output_points, 3)`` float32 array a cloud, metres, same frame.

        Raises:
            CompletionError: for the first cloud that :func:`problem` refuses, or an output that is not finite.
            ValueError: lists of different lengths.
            completion.batches.OutOfMemory: if not even one cloud fits into the device's memory.
        """
        outcomes = self.outcomes(clouds, seeds, truths)
        made = [outcome for outcome in outcomes if not isinstance(outcome, CompletionError)]
        for outcome in outcomes:
            if isinstance(outcome, CompletionError):
                raise outcome
        return made

    def outcomes(
        self,
        clouds: Sequence[ArrayLike],
        seeds: Sequence[int] | None = None,
        truths: Sequence[ArrayLike] | None = None,
    ) -> list[NDArray[np.float32] | CompletionError]:
        """The same, with the error in the place of each cloud that cannot be completed."""
        seeds = [0] * len(clouds) if seeds is None else seeds
        if len(seeds) != len(clouds) or (truths is not None and len(truths) != len(clouds)):
            raise ValueError(f"{len(clouds)} clouds need as many seeds and truths, got {len(seeds)} seeds")
        found: dict[int, NDArray[np.float32] | CompletionError] = {}
        transforms, inputs = {}, []
        for i, (cloud, seed) in enumerate(zip(clouds, seeds, strict=True)):
            reason = problem(cloud)
            if reason is not None:
                found[i] = CompletionError(i, reason)
                continue
            points = np.asarray(cloud, np.float64)
            chosen = sample_indices(len(points), self.config["input_points"], np.random.default_rng(seed))
            transforms[i] = normalisation(self.config["normalisation"], points, None if truths is None else truths[i])
            inputs.append(transforms[i].to_network(points[chosen]))
        fine = self.batches(np.stack(inputs)) if inputs else ()
        for (i, transform), points in zip(transforms.items(), fine, strict=True):
            completed = transform.to_cloud(points)
            finite = np.isfinite(completed).all()
            reason = f"{self.checkpoint.path} predicts points that are not finite"
            found[i] = completed if finite else CompletionError(i, reason)
        return [found[i] for i in range(len(clouds))]


def problem(cloud: Any) -> str | None:
    """Why a cloud cannot be completed, in one line, or None.

    A cloud needs the shape ``(N, 3)``, finite numbers, and an extent: of one point, or of equal points, no size is
    known.
    """
    points = np.asarray(cloud)
    if points.ndim != 2 or points.shape[1] != 3 or points.dtype.kind not in "fiu":
        return f"expected numbers of shape (N, 3), got {points.dtype}{points.shape}"
    if len(points) == 0:
        return "no points: nothing of the object was observed"
    broken = int((~np.isfinite(points)).any(axis=1).sum())
    if broken:
        return f"{broken} of {len(points)} points are not finite; drop them first"
    diagonal = float(np.linalg.norm(np.ptp(points.astype(np.float64), axis=0)))
    if diagonal <= SMALLEST_DIAGONAL:
        return f"{len(points)} points within {diagonal:.1e} m: too few distinct points to know a size"
    return None
