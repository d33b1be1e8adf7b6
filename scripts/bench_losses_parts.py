"""What bench_losses.py measures, one function a part; every one returns plain figures in milliseconds and bytes.

Contestants of one comparison take turns, and medians are compared: CPU time of the whole process (threads that wait in
a loop count) and wall time. Everything random is seeded; nothing is written.
"""

from __future__ import annotations

import importlib
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from completion.losses import cd_l1, qal
from completion.nearest import nearest_indices, nearest_neighbours
from completion.networks import NETWORKS

# A squared distance: three differences, three squares, two sums; and one comparison.
FLOPS = 9
_LONG = 2000.0  # milliseconds of CPU


def interleaved(contestants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, dict[str, float]]:
    """Median CPU and wall milliseconds of each, after one round that does not count.

    Whoever takes longer than two seconds has nothing to warm up: that first round counts, and no other follows.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, run in contestants.items():
            if turn > 0 and times[name][0][0] > _LONG:
                continue
            cpu, wall = time.process_time(), time.perf_counter()
            run()
            times[name].append((1e3 * (time.process_time() - cpu), 1e3 * (time.perf_counter() - wall)))
    counted = {name: rows if len(rows) == 1 else rows[1:] for name, rows in times.items()}
    return {
        name: {"cpu": statistics.median(cpu for cpu, _ in rows), "wall": statistics.median(wall for _, wall in rows)}
        for name, rows in counted.items()
    }


def clouds(batch: int, points: int, kind: str = "near", seed: int = 0) -> tuple[Tensor, Tensor]:
    """Predictions and targets ``(batch, points, 3)``: targets are surfaces of boxes of about unit size.

    near: another sample of the surface, off by a hundredth. blob: everything within a hundredth of the centre, as a
    network's first outputs are. shifted: near, but three units away. sphere: a blob in the centre of a unit sphere,
    where no target is out of question for any prediction.
    """
    rng = np.random.default_rng(seed)

    def boxes() -> np.ndarray:
        made = rng.uniform(-0.5, 0.5, (batch, points, 3))
        axis = rng.integers(0, 3, (batch, points, 1))
        np.put_along_axis(made, axis, rng.choice([-0.5, 0.5], (batch, points, 1)), axis=2)
        return made

    size = rng.uniform(0.4, 1.0, (batch, 1, 3))
    prediction, target = boxes() * size + rng.normal(0, 0.01, (batch, points, 3)), boxes() * size
    if kind in ("blob", "sphere"):
        prediction = rng.normal(0, 0.01, (batch, points, 3))
    if kind == "shifted":
        prediction = prediction + 3
    if kind == "sphere":
        target = rng.normal(size=(batch, points, 3))
        target /= np.linalg.norm(target, axis=2, keepdims=True)
    return torch.from_numpy(prediction).float(), torch.from_numpy(target).float()


def against_cdist(batch: int, points: int, slice_: int, rounds: int) -> dict[str, Any]:
    """Forward and backward of ½(mean d_a + mean d_b) through our search and through ``torch.cdist``.

    cdist runs on ``slice_`` samples of the batch and its time is multiplied: it is linear in samples, and a whole
    matrix may not fit.
    """
    a, b = clouds(batch, points)
    a.requires_grad_()

    def ours() -> None:
        near = nearest_neighbours(a, b)
        torch.autograd.grad((near.dist_a.mean() + near.dist_b.mean()) / 2, a)

    def cdist() -> None:
        table = torch.cdist(a[:slice_], b[:slice_])
        torch.autograd.grad((table.min(dim=2).values.mean() + table.min(dim=1).values.mean()) / 2, a)

    ours()
    before = _peak()
    ours()
    grown = _peak() - before
    found = interleaved({"ours": ours, "cdist": cdist}, rounds)
    scale = batch / slice_
    found["cdist"] = {key: value * scale for key, value in found["cdist"].items()}
    return {
        "shape": [batch, points, points],
        "ms": found,
        "ratio": found["cdist"]["cpu"] / found["ours"]["cpu"],
        "ratio_wall": found["cdist"]["wall"] / found["ours"]["wall"],
        "cdist_measured_on_samples": slice_,
        "cdist_extrapolated": f"x {scale:g}, linear in samples" if slice_ != batch else "no",
        "cdist_matrix_mib": batch * points * points * 4 / 2**20,
        "ours_second_call_adds_mib": grown,
    }


def against_trees(batch: int, points: int, kind: str, threads: int, rounds: int) -> dict[str, Any]:
    """Indices both ways (the search alone) beside libraries; each builds its structures anew, as a loss must."""
    a, b = clouds(batch, points, kind)
    doubles = [(p, q) for p, q in zip(a.double().numpy(), b.double().numpy(), strict=True)]
    contestants: dict[str, Callable[[], Any]] = {"ours": lambda: nearest_indices(a, b)}
    if spatial := _imported("scipy.spatial"):

        def by_scipy(pair: tuple[np.ndarray, np.ndarray]) -> list[np.ndarray]:
            p, q = pair
            return [spatial.cKDTree(q).query(p)[1], spatial.cKDTree(p).query(q)[1]]

        contestants["scipy"] = lambda: _all(by_scipy, doubles, threads)
    if small_gicp := _imported("small_gicp"):

        def by_small_gicp(pair: tuple[np.ndarray, np.ndarray]) -> list[np.ndarray]:
            p, q = pair
            return [small_gicp.KdTree(t, threads).batch_knn_search(s, 1, threads)[0] for s, t in ((p, q), (q, p))]

        contestants["small_gicp"] = lambda: _all(by_small_gicp, doubles, 1)
    if o3c := _imported("open3d.core"):
        tensors = [(o3c.Tensor(p.numpy()), o3c.Tensor(q.numpy())) for p, q in zip(a, b, strict=True)]

        def by_open3d(pair: tuple[Any, Any]) -> list[Any]:
            found = []
            for source, target in (pair, pair[::-1]):
                search = o3c.nns.NearestNeighborSearch(target)
                search.knn_index()
                found.append(search.knn_search(source, 1)[0])
            return found

        contestants["open3d"] = lambda: _all(by_open3d, tensors, 1)
    figures = interleaved(contestants, rounds)
    best = min((name for name in figures if name != "ours"), key=lambda name: figures[name]["cpu"], default=None)
    quickest = min((row["wall"] for name, row in figures.items() if name != "ours"), default=None)
    return {
        "kind": kind,
        "shape": [batch, points, points],
        "ms": figures,
        "best_peer": best,
        "ours_over_best_peer": figures["ours"]["cpu"] / figures[best]["cpu"] if best else None,
        "ours_over_best_peer_wall": figures["ours"]["wall"] / quickest if quickest else None,
    }


def arithmetic(batch: int, points: int, kind: str, rounds: int) -> dict[str, Any]:
    """How far the search is from one core's arithmetic, the peak being that of a matrix product here and now."""
    from completion._nearest_numba import nearest_and_work

    a, b = clouds(batch, points, kind)
    *_, done, bounds = nearest_and_work(a.numpy(), b.numpy())
    size = 1024
    left, right, out = (torch.rand(size, size) for _ in range(3))
    times = interleaved(
        {"search": lambda: nearest_indices(a, b), "product": lambda: torch.mm(left, right, out=out)}, rounds
    )
    search, peak = 1e-3 * times["search"]["cpu"], 2 * size**3 / (1e-3 * times["product"]["cpu"])
    brute = batch * points * points
    return {
        "kind": kind,
        "shape": [batch, points, points],
        "peak_gflops": peak / 1e9,
        "flops_a_distance": FLOPS,
        "distances": done,
        "share_of_brute_force_both_ways": done / (2 * brute),
        "box_bounds": bounds,
        "search_ms": 1e3 * search,
        "floor_of_these_distances_ms": 1e3 * FLOPS * done / peak,
        "floor_of_brute_force_in_one_pass_ms": 1e3 * FLOPS * brute / peak,
        "times_above_floor": search * peak / (FLOPS * done),
        "times_above_floor_of_brute_force": search * peak / (FLOPS * brute),
    }


def losses(batch: int, points: int, rounds: int, targets: int | None = None) -> dict[str, Any]:
    """QAL over CD-L1, forward and backward, nothing else."""
    a, b = clouds(batch, max(points, targets or points))
    a, b = a[:, :points].clone().requires_grad_(), b[:, : targets or points]
    figures = interleaved(
        {
            name: lambda loss=loss: torch.autograd.grad(loss(a, b).mean(), a)  # type: ignore[misc]
            for name, loss in (("cd_l1", cd_l1), ("qal", qal))
        },
        rounds,
    )
    return {
        "shape": [batch, points, b.shape[1]],
        "ms": figures,
        "qal_over_cd": figures["qal"]["cpu"] / figures["cd_l1"]["cpu"],
    }


def steps(network: dict[str, Any], batch: int, inputs: int, rounds: int) -> dict[str, Any]:
    """QAL over CD-L1 in a training step: both stages' losses, backward, clipping and Adam.

    The learning rate is 0, so that both losses see the same predictions.
    """
    torch.manual_seed(0)
    model = NETWORKS[network["name"]](**network["parameters"])
    optimiser = torch.optim.Adam(model.parameters(), lr=0.0)
    _, truth = clouds(batch, model.output_points)
    partial = truth[:, torch.randperm(model.output_points)[:inputs]]

    def step(loss: Callable[..., Tensor]) -> None:
        *coarse, fine = model(partial).stages
        total = loss(fine, truth).mean() + sum(loss(cloud, truth).mean() for cloud in coarse)
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()

    figures = interleaved({"cd_l1": lambda: step(cd_l1), "qal": lambda: step(qal)}, rounds)
    alone = [losses(batch, cloud.shape[1], rounds, model.output_points)["ms"] for cloud in model(partial).stages]
    more = sum(row["qal"]["cpu"] - row["cd_l1"]["cpu"] for row in alone)
    return {
        "network": network["name"],
        "parameters": sum(p.numel() for p in model.parameters()),
        "shape": [batch, inputs, model.output_points],
        "ms": figures,
        "qal_step_over_cd_step": figures["qal"]["cpu"] / figures["cd_l1"]["cpu"],
        # The same without the noise of two long steps: what QAL's losses cost more by themselves, over CD-L1's step.
        "qal_step_over_cd_step_by_parts": 1 + more / figures["cd_l1"]["cpu"],
    }


def cuda(batch: int, points: int, rounds: int) -> dict[str, Any]:
    """On a GPU: forward and backward by our two paths and by the extensions that are installed; empty without one."""
    if not torch.cuda.is_available():
        return {"measured": False, "why": "no CUDA device"}
    from completion import nearest

    a, b = (cloud.cuda() for cloud in clouds(batch, points))
    a.requires_grad_()

    def timed(distances: Callable[[], tuple[Tensor, Tensor]]) -> Callable[[], None]:
        def run() -> None:
            dist_a, dist_b = distances()
            torch.autograd.grad((dist_a.mean() + dist_b.mean()) / 2, a)
            torch.cuda.synchronize()

        return run

    def tiled() -> tuple[Tensor, Tensor]:
        return nearest.distances(a, b, *nearest.nearest_indices_torch(a.detach(), b))

    contestants = {"ours": timed(lambda: nearest_neighbours(a, b)[::2]), "ours_tiled_torch": timed(tiled)}
    if ops := _imported("pytorch3d.ops"):
        contestants["pytorch3d"] = timed(
            lambda: tuple(ops.knn_points(p, q, K=1).dists[..., 0].sqrt() for p, q in ((a, b), (b, a)))
        )
    if extension := _imported("chamfer_3D"):  # PoinTr's and MVP's compiled extension; forward alone has no autograd

        def by_extension() -> None:
            kept = [torch.empty(batch, points, device="cuda", dtype=kind) for kind in (torch.float32, torch.int32) * 2]
            extension.forward(a.detach(), b, kept[0], kept[2], kept[1], kept[3])
            torch.cuda.synchronize()

        contestants["chamfer_3D, forward alone"] = by_extension
    return {
        "measured": True,
        "device": torch.cuda.get_device_name(),
        "triton": nearest._triton_search() is not None,
        "shape": [batch, points, points],
        "ms": interleaved(contestants, rounds),
    }


def _all(run: Callable[[Any], Any], pairs: list[Any], threads: int) -> list[Any]:
    if threads == 1:
        return [run(pair) for pair in pairs]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, pairs))


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
