"""Nearest neighbours both ways: the one hot loop of losses and metrics.

The search finds indices only, the exact ones (ties to the lowest index); distances are formed from the chosen pairs and
carry the gradient. On the CPU both are compiled loops (:mod:`completion._nearest_numba`,
:mod:`completion._distances_numba`), on CUDA the search is a Triton kernel where Triton is installed
(:mod:`completion._nearest_triton`). Elsewhere blocks of the distance matrix are formed in torch. Memory is linear in
points on every path.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from completion.points import gather_points

# Pairs held at once by the torch path: 64 MB of float32.
_BLOCK_PAIRS = 1 << 24
# Less than about half a millisecond's work is not worth a thread's waking.
_SEARCHES_A_THREAD = 1 << 12
_DISTANCES_A_THREAD = 1 << 16
_HALF = (torch.float16, torch.bfloat16)
# numba's threading layers must not be entered by two threads at once.
_KERNEL_LOCK = threading.Lock()


class Neighbours(NamedTuple):
    """Distances are **unsquared** Euclidean, in the unit of the input; indices carry no gradient.

    Attributes:
        dist_a: ``(B, N)`` from each point of a to its nearest of b.
        index_a: ``(B, N)`` int64 into b.
        dist_b: ``(B, M)`` from each point of b to its nearest of a.
        index_b: ``(B, M)`` int64 into a.
    """

    dist_a: Tensor
    index_a: Tensor
    dist_b: Tensor
    index_b: Tensor


def nearest_neighbours(a: Tensor, b: Tensor, mask_a: Tensor | None = None, mask_b: Tensor | None = None) -> Neighbours:
    """Find, for two batches of clouds, the nearest neighbour of every point in the other cloud.

    Differentiable in both arguments through the chosen pairs, as often as wanted. The gradient of a distance is a unit
    vector, and zero where two points coincide, so it is finite everywhere. Ties go to the lowest index. A point that is
    not finite is nobody's neighbour, its index is 0 and its distance is not finite.

    Args:
        a: ``(B, N, 3)`` floating point.
        b: ``(B, M, 3)`` of the same type and device.
        mask_a, mask_b: ``(B, N)`` and ``(B, M)`` bool, False where a point is padding: it is nobody's neighbour, its
            distance and its index are 0 and it gets no gradient, whatever its coordinates.

    Raises:
        ValueError: on another shape, or a cloud without points (or with padding alone).
    """
    check_clouds(a, b)
    if mask_a is not None or mask_b is not None:
        return _masked_neighbours(a, b, mask_a, mask_b)
    index_a, index_b = nearest_indices(a.detach(), b.detach())
    dist_a, dist_b = distances(a, b, index_a, index_b)
    return Neighbours(dist_a, index_a, dist_b, index_b)


def distances(a: Tensor, b: Tensor, index_a: Tensor, index_b: Tensor) -> tuple[Tensor, Tensor]:
    """Distances ``(B, N)`` from a to ``b[index_a]`` and ``(B, M)`` from b to ``a[index_b]``, differentiable."""
    if _compiled(a) is None:
        return _distances_torch(a, b, index_a, index_b)
    return _Distances.apply(a, b, index_a, index_b)


def _distances_torch(a: Tensor, b: Tensor, index_a: Tensor, index_b: Tensor) -> tuple[Tensor, Tensor]:
    # vector_norm's derivative at the zero vector is defined as zero, unlike sqrt's.
    return (
        torch.linalg.vector_norm(a - gather_points(b, index_a), dim=-1),
        torch.linalg.vector_norm(b - gather_points(a, index_b), dim=-1),
    )


class _Distances(torch.autograd.Function):
    """The compiled twin of :func:`_distances_torch`, value and gradient."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, index_a: Tensor, index_b: Tensor) -> tuple[Tensor, Tensor]:
        dist_a, dist_b = a.new_empty(index_a.shape), b.new_empty(index_b.shape)
        there, back = _arrays(a, b, index_a, dist_a), _arrays(b, a, index_b, dist_b)
        with _running(_compiled(a), index_a.numel() + index_b.numel(), _DISTANCES_A_THREAD) as kernels:
            kernels.distances(*there)
            kernels.distances(*back)
        ctx.save_for_backward(a, b, index_a, index_b, dist_a, dist_b)
        return dist_a, dist_b

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        a, b, index_a, index_b, dist_a, dist_b = ctx.saved_tensors
        want_a, want_b = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():  # create_graph: torch derives its own formula, once and again
            wanted = [cloud for cloud, want in ((a, want_a), (b, want_b)) if want]
            found = iter(
                torch.autograd.grad(_distances_torch(a, b, index_a, index_b), wanted, grads, create_graph=True)
            )
            return next(found) if want_a else None, next(found) if want_b else None, None, None
        there, back = _arrays(index_a, dist_a, grads[0]), _arrays(index_b, dist_b, grads[1])
        clouds = _arrays(a, b)
        out_a, out_b = torch.zeros(a.shape, dtype=a.dtype), torch.zeros(b.shape, dtype=b.dtype)
        with _running(_compiled(a), index_a.numel() + index_b.numel(), _DISTANCES_A_THREAD) as kernels:
            if want_a:
                kernels.gradient(*clouds, *there, *back, out_a.numpy())
            if want_b:
                kernels.gradient(*clouds[::-1], *back, *there, out_b.numpy())
        return out_a if want_a else None, out_b if want_b else None, None, None


def _masked_neighbours(a: Tensor, b: Tensor, mask_a: Tensor | None, mask_b: Tensor | None) -> Neighbours:
    """Put every padded point onto a true point of its own cloud: it can then be nearest only where that one is too."""
    index = []
    clouds = []
    for cloud, mask in ((a, mask_a), (b, mask_b)):
        if mask is None:
            own = torch.arange(cloud.shape[1], device=cloud.device).expand(cloud.shape[:2])
        else:
            if mask.shape != cloud.shape[:2] or mask.dtype != torch.bool:
                raise ValueError(f"a mask must be bool {tuple(cloud.shape[:2])}, got {mask.dtype} {tuple(mask.shape)}")
            if not bool(mask.any(dim=1).all()):
                raise ValueError("a cloud of padding alone has no neighbours")
            own = torch.where(mask, torch.arange(cloud.shape[1], device=cloud.device), mask.int().argmax(1, True))
        index.append(own)
        clouds.append(gather_points(cloud, own))
    near = nearest_neighbours(*clouds)
    # A padded copy may have won the tie against its original.
    index_a, index_b = index[1].gather(1, near.index_a), index[0].gather(1, near.index_b)
    dist_a, dist_b = near.dist_a, near.dist_b
    if mask_a is not None:
        dist_a, index_a = torch.where(mask_a, dist_a, 0.0), torch.where(mask_a, index_a, 0)
    if mask_b is not None:
        dist_b, index_b = torch.where(mask_b, dist_b, 0.0), torch.where(mask_b, index_b, 0)
    return Neighbours(dist_a, index_a, dist_b, index_b)


def check_clouds(a: Tensor, b: Tensor) -> None:
    """Raise ValueError unless both are ``(B, >0, 3)`` with one B."""
    if a.ndim != 3 or b.ndim != 3 or a.shape[-1] != 3 or b.shape[-1] != 3 or a.shape[0] != b.shape[0]:
        raise ValueError(f"expected clouds (B, N, 3) and (B, M, 3), got {tuple(a.shape)} and {tuple(b.shape)}")
    if a.shape[1] == 0 or b.shape[1] == 0:
        raise ValueError(f"a cloud without points has no neighbours: got {tuple(a.shape)} and {tuple(b.shape)}")


def nearest_indices(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The indices alone: ``(B, N)`` into b and ``(B, M)`` into a. The seam for faster kernels.

    Half precision is searched in float32. Points that are not finite are nobody's neighbours as long as the other cloud
    has finite ones, and their own index is 0.
    """
    if a.dtype in _HALF:
        a, b = a.float(), b.float()
    kernels = _compiled(a)
    if kernels is not None:
        with _running(kernels, a.shape[0] * (a.shape[1] + b.shape[1]), _SEARCHES_A_THREAD):
            index_a, index_b = kernels.nearest_both_ways(*_arrays(a, b))
        return torch.from_numpy(index_a), torch.from_numpy(index_b)
    triton_search = _triton_search() if a.device.type == "cuda" else None
    return (triton_search or nearest_indices_torch)(a, b)


def nearest_indices_torch(a: Tensor, b: Tensor, block_pairs: int = _BLOCK_PAIRS) -> tuple[Tensor, Tensor]:
    """Brute force by blocks of rows, exact differences (no ``|a|²+|b|²−2ab``, which loses the near pairs)."""
    if a.dtype in _HALF:
        a, b = a.float(), b.float()
    # Infinitely far from everything and, of opposite signs, from each other: NaN would be argmin's favourite.
    a = torch.where(a.isfinite().all(dim=2, keepdim=True), a, torch.inf)
    b = torch.where(b.isfinite().all(dim=2, keepdim=True), b, -torch.inf)
    batch, n, m = a.shape[0], a.shape[1], b.shape[1]
    rows = max(1, block_pairs // max(1, batch * m))
    index_a = torch.empty((batch, n), dtype=torch.int64, device=a.device)
    best_b = torch.full((batch, m), torch.inf, dtype=a.dtype, device=a.device)
    index_b = torch.zeros((batch, m), dtype=torch.int64, device=a.device)
    columns = b.transpose(1, 2)
    for start in range(0, n, rows):
        block = a[:, start : start + rows]
        squared = (block[:, :, 0, None] - columns[:, None, 0]).square_()
        for axis in (1, 2):
            squared += (block[:, :, axis, None] - columns[:, None, axis]).square_()
        index_a[:, start : start + rows] = squared.argmin(dim=2)  # of equals the first, which min does not promise
        which = squared.argmin(dim=1)
        best = squared.gather(1, which[:, None])[:, 0]
        closer = best < best_b
        best_b = torch.where(closer, best, best_b)
        index_b = torch.where(closer, which + start, index_b)
    return index_a, index_b


@lru_cache(maxsize=1)
def _triton_search() -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
    """The CUDA search, or None where Triton is not installed or cannot compile (it calls a C compiler)."""
    try:
        from completion._nearest_triton import nearest_both_ways

        probe = torch.zeros(1, 1, 3, device="cuda")
        nearest_both_ways(probe, probe)
    except ImportError:
        return None
    except Exception as error:  # whatever Triton raises on this machine
        warnings.warn(f"nearest neighbours run without Triton, several times slower: {error}", stacklevel=2)
        return None
    return nearest_both_ways


def _compiled(cloud: Tensor) -> SimpleNamespace | None:
    """The compiled loops, or None where numba is not installed or the cloud is not theirs to take."""
    if cloud.device.type != "cpu" or cloud.dtype not in (torch.float32, torch.float64):
        return None
    return _compiled_kernels()


@lru_cache(maxsize=1)
def _compiled_kernels() -> SimpleNamespace | None:
    try:
        import numba

        # OpenMP is what torch has loaded anyway; numba would try TBB first and warn of an old one.
        numba.config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]  # type: ignore[attr-defined]
        from completion._distances_numba import distances, gradient
        from completion._nearest_numba import nearest_both_ways
    except ImportError:
        return None
    most = keep_torch_threads()
    return SimpleNamespace(
        nearest_both_ways=nearest_both_ways,
        distances=distances,
        gradient=gradient,
        use_threads=lambda wanted: numba.set_num_threads(max(1, min(wanted, torch.get_num_threads(), most))),
    )


@lru_cache(maxsize=1)
def keep_torch_threads() -> int:
    """Start numba's threads and return their number.

    Starting them, numba tells OpenMP how many there are, and with it torch; that is undone here.
    """
    import numba

    threads, most = torch.get_num_threads(), numba.get_num_threads()
    numba.set_num_threads(min(threads, most))
    torch.set_num_threads(threads)
    return most


@contextmanager
def _running(kernels: SimpleNamespace | None, points: int, points_a_thread: int) -> Iterator[SimpleNamespace]:
    """The compiled loops, for as long as they may run, on as many threads as torch uses and the work is worth."""
    assert kernels is not None
    with _KERNEL_LOCK:
        kernels.use_threads(points // points_a_thread)
        yield kernels


def _arrays(*tensors: Tensor) -> list[Any]:
    return [tensor.detach().contiguous().numpy() for tensor in tensors]
