"""A trained network as a function of clouds: points ``(N, 3)`` metres -> points ``(M, 3)`` metres.

The clouds must be in the frame that the checkpoint declares (``config["frame"]``); turning them there and back, and
joining the prediction to the observation (``config["merge"]``), is the caller's. What comes out for a cloud depends on
the cloud and its seed, not on the other clouds of the call.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from completion.checkpoint import Checkpoint, load
from completion.normalize import SMALLEST_DIAGONAL, normalisation
from completion.points import sample_indices

# Clouds a forward pass; fixed, so that memory does not grow with the call.
_CHUNK = 16


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

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.config = checkpoint.config
        self.device = checkpoint.device

    @classmethod
    def load(cls, path_or_name: str | Path, device: str | torch.device = "auto", trust_code: bool = False) -> Completer:
        """Load a checkpoint folder or a shipped name; see :func:`completion.checkpoint.load`.

        Raises:
            CheckpointError: it is missing, broken, not trusted, or does not fit.
        """
        return cls(load(path_or_name, device, trust_code))

    @torch.no_grad()
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
        """
        seeds = [0] * len(clouds) if seeds is None else seeds
        if len(seeds) != len(clouds) or (truths is not None and len(truths) != len(clouds)):
            raise ValueError(f"{len(clouds)} clouds need as many seeds and truths, got {len(seeds)} seeds")
        count = self.config["input_points"]
        transforms, inputs = [], []
        for i, (cloud, seed) in enumerate(zip(clouds, seeds, strict=True)):
            reason = problem(cloud)
            if reason is not None:
                raise CompletionError(i, reason)
            points = np.asarray(cloud, np.float64)
            transform = normalisation(self.config["normalisation"], points, None if truths is None else truths[i])
            chosen = sample_indices(len(points), count, np.random.default_rng(seed))
            transforms.append(transform)
            inputs.append(transform.to_network(points[chosen]))
        results: list[NDArray[np.float32]] = []
        for start in range(0, len(inputs), _CHUNK):
            batch = torch.from_numpy(np.stack(inputs[start : start + _CHUNK])).to(self.device)
            fine = self.checkpoint.network(batch).fine.float().cpu().numpy()
            results += [
                transform.to_cloud(cloud)
                for transform, cloud in zip(transforms[start : start + _CHUNK], fine, strict=True)
            ]
        for i, cloud in enumerate(results):
            if not np.isfinite(cloud).all():
                raise CompletionError(i, f"{self.checkpoint.path} predicts points that are not finite")
        return results


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
