"""Bertsekas' auction: a one-to-one matching of two clouds of equal size at nearly the least total distance.

Every target has a price, at first 0. A point without a target bids for the one where distance + price is least, and
offers so much that its second best would be as good, and eps more; the highest offer wins, the price rises by it, and
who held the target before is without one again. Once all points are matched, the **mean** matched distance exceeds the
least possible one by at most eps (Bertsekas, Annals of Operations Research 14, 1988: the total by N · eps).

Two forms of it:

- ``rounds`` given: all points without a target bid at once, that many times; whoever is left in the last round takes
  its favourite, so that such a matching need not be one-to-one. This is MSN's EMD (Colin97/MSN-Point-Cloud-Completion,
  ``emd/emd_cuda.cu``), where clouds lie in the unit cube.
- ``rounds=None``: until all are matched, at eps/size falling from coarse to fine, which takes about thirty bids a
  point on all clouds tried. Exact to within eps.

Memory is linear in points. With numba the loops run compiled, in float64, a sample a thread; on other devices, or
without numba, in torch, where the exact form is slow (thousands of small steps): on CUDA it goes through the CPU where
numba is there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from completion.losses.padding import check_masks, without_padding
from completion.losses.precision import at_least_float32
from completion.losses.reduction import Mask
from completion.nearest import _KERNEL_LOCK, check_clouds, keep_torch_threads

# Distances held at once by the torch path: 32 MB of float32.
_BLOCK_PAIRS = 1 << 23
# The first phase of the exact form asks for this share of the clouds' common diagonal.
_FIRST_STEP = 0.05
# Prices near the diagonal must still feel an increment of eps.
_FINEST = 1e-9


@torch.no_grad()
def auction(
    prediction: Tensor,
    target: Tensor,
    eps: float,
    rounds: int | None,
    prediction_mask: Mask = None,
    target_mask: Mask = None,
) -> Tensor:
    """Match every predicted point with a target point.

    Args:
        prediction, target: ``(B, N, 3)`` both.
        eps: in the unit of the clouds; the finer, the longer.
        rounds: of simultaneous bids, or None for all that it takes.
        prediction_mask, target_mask: ``(B, N)`` bool, False where a point is padding; as many True in both.

    Returns:
        ``(B, N)`` int64 into ``target``, 0 at padding. A sample with coordinates that are not finite is not matched:
        its points get the index that they have themselves.

    Raises:
        ValueError: on clouds of different size, or an eps or a number of rounds that cannot work.
    """
    check_clouds(prediction, target)
    _check_sizes(prediction, target, prediction_mask, target_mask)
    if not (math.isfinite(eps) and eps > 0):
        raise ValueError(f"eps must be a positive length, got {eps}")
    if rounds is not None and rounds < 1:
        raise ValueError(f"rounds must be at least 1 (or none, for all it takes), got {rounds}")

    prediction, target = at_least_float32(prediction, target)
    points, targets = without_padding(prediction, prediction_mask), without_padding(target, target_mask)
    whole = (points.isfinite() & targets.isfinite()).flatten(1).all(dim=1)
    points, targets = (torch.where(whole[:, None, None], cloud, 0.0) for cloud in (points, targets))
    prices = torch.zeros(points.shape[:2], dtype=points.dtype, device=points.device)
    match = torch.where(whole, -1, 0)[:, None].repeat(1, points.shape[1])
    if prediction_mask is not None:
        match.masked_fill_(~prediction_mask, 0)
    if target_mask is not None:
        prices.masked_fill_(~target_mask, torch.inf)

    if rounds is None:
        match = _exact(points, targets, prices, match, eps)
    else:
        match = _compiled_rounds(points, targets, prices, match, eps, rounds)
    own = torch.arange(match.shape[1], device=match.device).expand_as(match)
    return torch.where(whole[:, None], match, own)


def _check_sizes(prediction: Tensor, target: Tensor, prediction_mask: Mask, target_mask: Mask) -> None:
    shapes = f"got {tuple(prediction.shape)} and {tuple(target.shape)}"
    if prediction.shape != target.shape:
        raise ValueError(f"a matching needs as many predicted as target points, {shapes}; resample one of them")
    if prediction_mask is None and target_mask is None:
        return
    check_masks((prediction, prediction_mask), (target, target_mask))
    full = torch.full((len(prediction),), prediction.shape[1], device=prediction.device)
    counts = [full if mask is None else mask.sum(dim=1) for mask in (prediction_mask, target_mask)]
    if not torch.equal(*counts):
        raise ValueError(
            f"a matching needs as many predicted as target points, {shapes} with {counts[0].tolist()} and "
            f"{counts[1].tolist()} points that are not padding"
        )


def _compiled_rounds(points: Tensor, targets: Tensor, prices: Tensor, match: Tensor, eps: float, rounds: int) -> Tensor:
    kernels = _compiled_kernels() if points.device.type == "cpu" else None
    if kernels is None:
        return rounds_torch(points, targets, prices, match, eps, rounds)
    return _run(kernels[0], points, targets, prices, match, eps, rounds)


def _exact(points: Tensor, targets: Tensor, prices: Tensor, match: Tensor, eps: float) -> Tensor:
    both = torch.cat([points, targets], dim=1).double()
    diagonal = torch.linalg.vector_norm(both.amax(dim=1) - both.amin(dim=1), dim=-1)
    largest = diagonal.max().item()
    if eps < _FINEST * largest:
        raise ValueError(f"eps {eps:g} is below what float64 can tell on clouds of size {largest:.3g}; choose a larger")
    start = _FIRST_STEP * diagonal
    kernels = _compiled_kernels()
    if kernels is not None:
        return _run(kernels[1], points, targets, prices, match, eps, start.cpu().numpy())
    return scaled_torch(points.double(), targets.double(), prices.double(), match, eps, start)


def _run(
    kernel: Callable[..., Any], points: Tensor, targets: Tensor, prices: Tensor, match: Tensor, eps: float, last: Any
) -> Tensor:
    """Call a kernel on float64 copies with coordinates first, in as many threads as torch has."""
    import numba

    clouds = [
        np.ascontiguousarray(cloud.cpu().numpy().transpose(0, 2, 1), dtype=np.float64) for cloud in (points, targets)
    ]
    found = match.cpu().numpy().copy()
    with _KERNEL_LOCK:  # the search's own: no two threads may be inside numba at once
        most = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
        numba.set_num_threads(max(1, min(torch.get_num_threads(), most)))
        kernel(*clouds, prices.cpu().numpy().astype(np.float64), found, float(eps), last)
    return torch.from_numpy(found).to(match.device)


@lru_cache(maxsize=1)
def _compiled_kernels() -> tuple[Callable[..., Any], Callable[..., Any]] | None:
    """(rounds, exact) through numba, or None where it is not installed."""
    try:
        import numba

        # As in completion.nearest: OpenMP is loaded anyway.
        numba.config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]  # type: ignore[attr-defined]
        keep_torch_threads()
        from completion.losses._auction_numba import rounds_of_bids, scaled_auction
    except ImportError:
        return None
    return rounds_of_bids, scaled_auction


def rounds_torch(
    points: Tensor, targets: Tensor, prices: Tensor, match: Tensor, eps: float | Tensor, rounds: int | None
) -> Tensor:
    """Simultaneous bids in torch, on any device; all tensors as in :func:`auction`, padding at price infinity.

    Args:
        points, targets: ``(B, N, 3)``.
        prices: ``(B, N)``, updated in place.
        match: ``(B, N)`` int64, −1 where a point bids.
        eps: one for all, or ``(B,)``.
        rounds: None: until all are matched.

    Returns:
        The new ``match``.
    """
    match = match.clone()
    batch, n = match.shape
    step = torch.as_tensor(eps, dtype=points.dtype, device=points.device).expand(batch)
    owner = torch.full((batch * n,), -1, dtype=torch.int64, device=points.device)
    done = 0
    while rounds is None or done < rounds:
        done += 1
        sample, point = (match < 0).nonzero(as_tuple=True)
        if len(sample) == 0:
            break
        raised, wish = _bids(points, targets, prices, sample, point, step)
        if done == rounds:
            match[sample, point] = wish
            break
        place = sample * n + wish
        best = torch.full_like(prices, -torch.inf).view(-1).scatter_reduce_(0, place, raised, "amax")
        # Equal bids go to the lowest index: nonzero lists a sample's points in order.
        wins = (raised == best[place]).nonzero().squeeze(1)
        first = torch.full((batch * n,), len(sample), device=points.device)
        first.scatter_reduce_(0, place[wins], wins, "amin")
        wins = wins[first[place[wins]] == wins]
        won, winner = place[wins], sample[wins] * n + point[wins]
        former = owner[won]
        match.view(-1)[former[former >= 0]] = -1
        owner[won] = winner
        match.view(-1)[winner] = wish[wins]
        prices.view(-1)[won] += raised[wins]
    return match


def _bids(
    points: Tensor, targets: Tensor, prices: Tensor, sample: Tensor, point: Tensor, step: Tensor
) -> tuple[Tensor, Tensor]:
    """What each bidder ``(U,)`` raises its favourite's price by, and which that is; blocks bound the memory."""
    raised, wish = [], []
    rows = max(1, _BLOCK_PAIRS // prices.shape[1])
    for b, i in zip(sample.split(rows), point.split(rows), strict=True):
        squared = (targets[b, :, 0] - points[b, i, 0, None]).square_()
        for axis in (1, 2):
            squared += (targets[b, :, axis] - points[b, i, axis, None]).square_()
        value = squared.sqrt_().add_(prices[b])
        first, where = value.min(dim=1)
        second = value.scatter_(1, where[:, None], torch.inf).amin(dim=1)
        gap = torch.where(second.isfinite(), second - first, 0.0)
        raised.append(gap + step[b])
        wish.append(where)
    return torch.cat(raised), torch.cat(wish)


def scaled_torch(
    points: Tensor, targets: Tensor, prices: Tensor, match: Tensor, eps: float, start: Tensor, factor: float = 5.0
) -> Tensor:
    """The exact form in torch: :func:`rounds_torch` to the end, again and again, from ``start (B,)`` down to eps."""
    step = start
    while True:
        step = step.clamp_min(eps)
        found = rounds_torch(points, targets, prices, match, step, None)
        if bool((step <= eps).all()):
            return found
        step = step / factor
