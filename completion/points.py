"""Point operators shared by datasets, completer, networks and learned grasp generators: plain torch, any device.

All work on batches of clouds ``(B, N, 3)`` and return int64 indices; searches carry no gradient, gathers and
interpolation are differentiable in what is gathered. Distances between points come from coordinate differences (never
from ``|a|²+|b|²−2ab``, which loses near pairs), in blocks, so that memory stays linear in points.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Wider than this, distances come from a matrix product.
_EXACT_CHANNELS = 8
# Pairs whose distances are held at once: 16 MB of float32, and 32 MB of sort keys.
_BLOCK_PAIRS = 1 << 22


def gather_points(points: Tensor, index: Tensor) -> Tensor:
    """Pick points by index, per cloud.

    Args:
        points: ``(B, N, C)``.
        index: ``(B, M)`` int64 into N.

    Returns:
        ``(B, M, C)``, differentiable with respect to ``points``.
    """
    return torch.gather(points, 1, index.unsqueeze(-1).expand(-1, -1, points.shape[-1]))


def group(features: Tensor, index: Tensor) -> Tensor:
    """Pick k points for each of S groups, per cloud.

    Args:
        features: ``(B, N, C)``.
        index: ``(B, S, k)`` int64 into N, as :func:`knn` and :func:`ball_query` give it.

    Returns:
        ``(B, S, k, C)``, differentiable with respect to ``features``.
    """
    batch, available, channels = features.shape
    # Whole rows: on the CPU several times faster than a gather, which looks up every number by itself.
    rows = index + available * torch.arange(batch, device=index.device)[:, None, None]
    return features.reshape(-1, channels).index_select(0, rows.flatten()).view(*index.shape, channels)


@torch.no_grad()
def farthest_points(points: Tensor, count: int, start: int = 0) -> Tensor:
    """Farthest point sampling (Eldar et al., 1997; as in PointNet++): each next point is the farthest from those taken.

    Ties go to the lowest index and no index is taken twice while another is left, so a cloud with doubled points is
    used whole before anything repeats; when ``count`` exceeds N, the same order begins again.

    Args:
        points: ``(B, N, 3)``, finite.
        count: points to take.
        start: the first index taken, in every cloud.

    Returns:
        ``(B, count)`` int64 into N.

    Raises:
        ValueError: on another shape, an empty cloud, a count below 1 or a start outside the cloud.
    """
    _check(points, "points")
    batch, available, _ = points.shape
    if count < 1:
        raise ValueError(f"cannot take {count} points")
    if not 0 <= start < available:
        raise ValueError(f"start {start} lies outside a cloud of {available} points")
    planes = _exact(points).transpose(1, 2).contiguous()  # (B, 3, N)
    rounds = min(count, available)
    index = torch.empty((batch, rounds), dtype=torch.int64, device=points.device)
    compiled = _compiled(planes)
    if compiled is not None:
        # A diverging network's values must not lead a loop astray that is promised numbers.
        compiled.farthest(planes.nan_to_num(0.0).clamp_(-1e18, 1e18).numpy(), start, index.numpy())
    else:
        _farthest_torch(planes, start, index)
    return index[:, torch.arange(count, device=points.device) % rounds]


def _farthest_torch(planes: Tensor, start: int, index: Tensor) -> None:
    """Fill index ``(B, K)`` for planes ``(B, 3, N)``."""
    batch, _, available = planes.shape
    distance = torch.full((batch, available), torch.inf, dtype=planes.dtype, device=planes.device)
    offset, squared = torch.empty_like(planes), torch.empty_like(distance)
    last = torch.full((batch, 1), start, dtype=torch.int64, device=planes.device)
    for step in range(index.shape[1]):
        index[:, step] = last[:, 0]
        torch.sub(planes, planes.gather(2, last[:, None].expand(-1, 3, -1)), out=offset)  # (B, 3, N)
        torch.sum(offset.square_(), dim=1, out=squared)
        torch.minimum(distance, squared, out=distance)
        distance.scatter_(1, last, -1.0)  # taken: below every distance, also below that of its doubles
        last = distance.argmax(dim=1, keepdim=True)


@torch.no_grad()
def knn(points_b: Tensor, queries: Tensor, k: int) -> Tensor:
    """The k nearest points of one cloud to every point of another, nearest first, ties to the lowest index.

    Args:
        points_b: ``(B, M, C)``, usually C = 3. More than 8 channels count as features, whose distances come from a
            matrix product, as in the networks that search among features.
        queries: ``(B, N, C)`` of the same type and device.
        k: neighbours wanted; a query that is itself in ``points_b`` finds itself first.

    Returns:
        ``(B, N, k)`` int64 into M.

    Raises:
        ValueError: on another shape, or k outside 1..M.
    """
    _check(points_b, "points_b", width=None)
    _check(queries, "queries", width=points_b.shape[-1])
    if not 1 <= k <= points_b.shape[1]:
        raise ValueError(f"cannot find {k} neighbours in a cloud of {points_b.shape[1]} points")
    points, places = _exact(points_b), _exact(queries)
    compiled = _compiled(points)
    if compiled is not None and _compiled(places) and points.shape[2] == 3 and len(points) == len(places):
        index = torch.empty((*places.shape[:2], k), dtype=torch.int64)
        planes = points.transpose(1, 2).contiguous()
        compiled.nearest(planes.numpy(), places.detach().contiguous().numpy(), index.numpy())
        return index
    return torch.cat([_smallest(distances, k) for distances in _squared_distances(places, points)], dim=1)


@torch.no_grad()
def ball_query(points: Tensor, centres: Tensor, radius: float, k: int) -> Tensor:
    """The first k points (in the cloud's order) closer than ``radius`` to each centre, as PointNet++ groups them.

    Args:
        points: ``(B, N, 3)``.
        centres: ``(B, S, 3)``.
        radius: open ball, unit of the points.
        k: group size; a ball with fewer points repeats its first one, an empty ball gives point 0.

    Returns:
        ``(B, S, k)`` int64 into N.

    Raises:
        ValueError: on another shape, or k below 1.
    """
    _check(points, "points")
    _check(centres, "centres")
    if k < 1:
        raise ValueError(f"a group needs at least one point, got k = {k}")
    available = points.shape[1]
    cloud, places = _exact(points), _exact(centres)
    compiled = _compiled(cloud)
    if compiled is not None and _compiled(places) and len(cloud) == len(places):
        index = torch.empty((*places.shape[:2], k), dtype=torch.int64)
        square = np.float32(radius * radius)
        planes = cloud.transpose(1, 2).contiguous()
        compiled.ball(planes.detach().numpy(), places.detach().contiguous().numpy(), square, index.numpy())
        return index
    order = torch.arange(available, dtype=torch.int32, device=points.device)
    blocks = []
    for distances in _squared_distances(centres, points):
        hit = torch.where(distances < radius * radius, order, available)  # (B, s, N)
        blocks.append(hit.topk(min(k, available), dim=2, largest=False, sorted=True).values.long())
    index = torch.cat(blocks, dim=1)
    if k > available:
        index = torch.cat([index, index.new_full((*index.shape[:2], k - available), available)], dim=2)
    index = torch.where(index == available, index[:, :, :1], index)
    return torch.where(index == available, 0, index)


def three_interpolate(features: Tensor, points: Tensor, queries: Tensor, power: int = 2) -> Tensor:
    """Carry features from a sparse cloud to a dense one (PointNet++, eq. 2): a mean of three, weighted by 1/distance².

    Args:
        features: ``(B, M, C)``; differentiable in them alone, the weights count as constants.
        points: ``(B, M, 3)`` where the features sit; with fewer than three points all are used.
        queries: ``(B, N, 3)``.
        power: of the distance in the weights: 2 as the paper has it, 1 as the compiled extension ``pointnet2_ops``
            (and so SnowflakeNet's weights) has it.

    Returns:
        ``(B, N, C)``.
    """
    if features.shape[:2] != points.shape[:2]:
        raise ValueError(f"features {tuple(features.shape)} do not belong to points {tuple(points.shape)}")
    index = knn(points, queries, min(3, points.shape[1]))  # (B, N, 3)
    with torch.no_grad():
        offset = _exact(group(points, index)) - _exact(queries)[:, :, None]  # (B, N, 3, 3)
        weight = 1.0 / (torch.linalg.vector_norm(offset, dim=-1) ** power + 1e-8)
        weight = (weight / weight.sum(dim=2, keepdim=True)).to(features.dtype)
    return (group(features, index) * weight[..., None]).sum(dim=2)


def sample_indices(available: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw ``count`` indices below ``available``, as evenly as a random draw can.

    Without replacement while there are enough; a smaller cloud is used whole, and only the rest is drawn again.

    Returns:
        ``(count,)`` int64.
    """
    if available < 1:
        raise ValueError("cannot sample from a cloud without points")
    if available >= count:
        return rng.permutation(available)[:count].astype(np.int64)
    return np.concatenate([np.arange(available), rng.integers(0, available, count - available)]).astype(np.int64)


def _check(points: Tensor, name: str, width: int | None = 3) -> None:
    if points.ndim != 3 or points.shape[1] == 0 or (width is not None and points.shape[2] != width):
        raise ValueError(f"{name} must be (B, N > 0, {width or 'C'}), got {tuple(points.shape)}")


@lru_cache(maxsize=1)
def _kernels() -> ModuleType | None:
    """The numba path, or None where numba is not installed."""
    try:
        from completion import _points_numba
    except ImportError:
        return None
    return _points_numba


def _compiled(values: Tensor) -> ModuleType | None:
    """The compiled loops where they take such values: single precision on the CPU."""
    return _kernels() if values.device.type == "cpu" and values.dtype == torch.float32 else None


def _exact(points: Tensor) -> Tensor:
    """Half precision is too coarse for distances."""
    return points.float() if points.dtype in (torch.float16, torch.bfloat16) else points


def _squared_distances(rows: Tensor, columns: Tensor) -> Iterator[Tensor]:
    """``(B, R, C)`` and ``(B, M, C)`` -> blocks ``(B, r, M)`` whose r add up to R."""
    if rows.shape[0] != columns.shape[0]:
        raise ValueError(f"clouds of different batches: {tuple(rows.shape)} and {tuple(columns.shape)}")
    rows, columns = _exact(rows), _exact(columns).transpose(1, 2).contiguous()
    wide = rows.shape[2] > _EXACT_CHANNELS
    if wide:
        centre = columns.mean(dim=2, keepdim=True)
        rows, columns = rows - centre.transpose(1, 2), columns - centre
        squared = columns.square().sum(dim=1, keepdim=True)  # (B, 1, M)
    for block in rows.split(max(1, _BLOCK_PAIRS // max(1, columns.shape[0] * columns.shape[2])), dim=1):
        if wide:
            with torch.autocast(block.device.type, enabled=False):  # mixed precision must not choose the neighbours
                total = torch.baddbmm(block.square().sum(dim=2, keepdim=True) + squared, block, columns, alpha=-2)
            yield total.clamp_(min=0)
            continue
        total = (block[:, :, 0, None] - columns[:, None, 0]).square_()
        for axis in range(1, block.shape[2]):
            # Not addcmul, which may fuse product and sum: every path is to round alike, and so to choose alike.
            total.add_((block[:, :, axis, None] - columns[:, None, axis]).square_())
        yield total


def _smallest(distances: Tensor, k: int) -> Tensor:
    """Columns of the k smallest values ``(..., M)`` -> ``(..., k)``, in order; equal values in the columns' order."""
    if k == 1:
        return distances.argmin(dim=-1, keepdim=True)  # documented to give the first of equal ones
    compiled = _compiled(distances)
    if compiled is not None:
        rows = distances.reshape(-1, distances.shape[-1])
        index = torch.empty((rows.shape[0], k), dtype=torch.int64)
        compiled.smallest_of_rows(rows.numpy(), index.numpy())
        return index.view(*distances.shape[:-1], k)
    if distances.dtype != torch.float32:
        return distances.sort(dim=-1, stable=True).indices[..., :k]
    # topk promises no order among equal values. Floats that are not negative are ordered as their bits are, so that
    # bits and column in one whole number make every key different.
    bits = distances.view(torch.int32) & 0x7FFFFFFF
    keys = (bits.long() << 32) | torch.arange(distances.shape[-1], device=distances.device)
    return keys.topk(k, dim=-1, largest=False, sorted=True).values & 0xFFFFFFFF
