"""Clouds, and naive twins of the losses: loops over points straight from the definitions, with scalar tensors, so that
autograd differentiates them too."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

Clouds = Callable[..., tuple[Tensor, Tensor]]
Twin = Callable[..., Tensor]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On a hundred points a second thread is waited for longer than it works."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def clouds() -> Clouds:
    """``clouds(n, m, seed=0, batch=2)`` -> prediction and target in the unit cube, float64, with gradient."""

    def make(n: int, m: int, seed: int = 0, batch: int = 2) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        a, b = (torch.rand(batch, k, 3, generator=generator, dtype=torch.float64) for k in (n, m))
        return a.requires_grad_(), b.requires_grad_()

    return make


@pytest.fixture(scope="session")
def twin() -> Twin:
    """``twin(name, prediction, target, **parameters)`` -> ``(B,)``, for every loss of ``LOSSES``."""

    def compute(name: str, prediction: Tensor, target: Tensor, **parameters: Any) -> Tensor:
        return torch.stack([_TWINS[name](a, b, **parameters) for a, b in zip(prediction, target, strict=True)])

    return compute


def _distance(p: Tensor, q: Tensor) -> Tensor:
    return ((p - q) ** 2).sum().sqrt()


def _nearest(a: Tensor, b: Tensor) -> tuple[list[Tensor], list[int]]:
    distances, indices = [], []
    for p in a:
        row = [_distance(p, q) for q in b]
        best = min(range(len(b)), key=lambda j: row[j].item())
        distances.append(row[best])
        indices.append(best)
    return distances, indices


def _mean(values: list[Tensor]) -> Tensor:
    return sum(values) / len(values)


def _cd_l1(a: Tensor, b: Tensor) -> Tensor:
    return (_mean(_nearest(a, b)[0]) + _mean(_nearest(b, a)[0])) / 2


def _cd_l2(a: Tensor, b: Tensor) -> Tensor:
    return _mean([d * d for d in _nearest(a, b)[0]]) + _mean([d * d for d in _nearest(b, a)[0]])


def _cd_asymmetric(a: Tensor, b: Tensor, weight: float = 1.2) -> Tensor:
    return _mean(_nearest(a, b)[0]) + weight * _mean(_nearest(b, a)[0])


def _qal(a: Tensor, b: Tensor, epsilon: float = 0.001, omega: float = 10.0, lambda_attr: float = 1.0) -> Tensor:
    def sigma(d: Tensor) -> Tensor:
        return 1 / (1 + torch.exp(-omega * (epsilon - d)))

    (d_a, chosen), (d_b, _) = _nearest(a, b), _nearest(b, a)
    coverage = _mean([(1 - (sigma(d) - 0.5)) * d for d in d_a]) + _mean([(1 - (sigma(d) - 0.5)) * d for d in d_b])
    attraction = _mean([sigma(d) * d if j not in chosen else 0 * d for j, d in enumerate(d_b)])
    return coverage + lambda_attr * attraction


def _dcd(a: Tensor, b: Tensor, alpha: float = 1000.0, lam: float = 1.0) -> Tensor:
    sides = []
    for one, other in ((a, b), (b, a)):
        # r is M/N on the target's side (where `one` has M points) and N/M on the prediction's.
        distances, indices = _nearest(one, other)
        ratio = len(one) / len(other)
        sides.append(
            _mean(
                [
                    1 - ratio * torch.exp(-alpha * d * d) / (indices.count(j) ** lam + 1e-6)
                    for d, j in zip(distances, indices, strict=True)
                ]
            )
        )
    return (sides[0] + sides[1]) / 2


def _hypercd(a: Tensor, b: Tensor, alpha: float = 1.0) -> Tensor:
    def arcosh(d: Tensor) -> Tensor:
        x = (1 + alpha * d * d).clamp(min=1 + 1e-5)
        return torch.log(x + torch.sqrt(x + 1) * torch.sqrt(x - 1))

    return _mean([arcosh(d) for d in _nearest(a, b)[0]]) + _mean([arcosh(d) for d in _nearest(b, a)[0]])


def _infocd(a: Tensor, b: Tensor) -> Tensor:
    total = 0.0
    for one, other in ((a, b), (b, a)):
        distances = _nearest(one, other)[0]
        crowd = sum(torch.exp(-0.5 * d) + 1e-7 for d in distances)
        total = total + sum(-torch.log(torch.exp(-0.5 * d) / crowd**1e-7) for d in distances)
    return total / 2


def _emd(a: Tensor, b: Tensor, eps: float = 0.005, rounds: int | None = 50) -> Tensor:
    """MSN's auction with dictionaries."""
    table = torch.cdist(a.detach(), b.detach(), compute_mode="donot_use_mm_for_euclid_dist").tolist()
    price, holder, match = [0.0] * len(b), {}, {}
    for done in range(rounds or 10**6):
        bids: dict[int, list[tuple[float, int]]] = {}
        for i in range(len(a)):
            if i not in match:
                ranking = sorted((table[i][j] + price[j], j) for j in range(len(b)))
                gap = ranking[1][0] - ranking[0][0] if len(b) > 1 else 0.0
                bids.setdefault(ranking[0][1], []).append((-(gap + eps), i))
        if not bids:
            break
        for j, offers in bids.items():
            if rounds and done == rounds - 1:
                match.update({i: j for _, i in offers})
                continue
            raised, winner = min(offers)
            if j in holder:
                del match[holder[j]]
            holder[j], match[winner] = winner, j
            price[j] -= raised
    return _mean([_distance(p, b[match[i]]) for i, p in enumerate(a)])


def _apml(a: Tensor, b: Tensor, p_min: float = 0.8, rounds: int = 20) -> Tensor:
    cost = [[_distance(p, q) for q in b] for p in a]
    value = [[c.item() for c in row] for row in cost]

    def soft_min(row: list[float]) -> list[float]:
        least = sorted(row)[:2]
        if len(row) == 1:
            return [1.0]
        if least[0] == least[1]:
            return [1 / len(row)] * len(row)
        t = -math.log((1 - p_min) / (len(row) - 1)) / (least[1] - least[0] + 1e-8)
        weights = [math.exp(-(c - least[0]) * t) for c in row]
        return [w / sum(weights) for w in weights]

    n, m = len(a), len(b)
    by_row = [soft_min(row) for row in value]
    by_column = [soft_min([value[i][j] for i in range(n)]) for j in range(m)]
    plan = [[(by_row[i][j] + by_column[j][i]) / 2 for j in range(m)] for i in range(n)]
    for _ in range(rounds):
        plan = [[x / (sum(row) + 1e-8) for x in row] for row in plan]
        sums = [sum(plan[i][j] for i in range(n)) for j in range(m)]
        plan = [[x / (sums[j] + 1e-8) for j, x in enumerate(row)] for row in plan]
    return sum(plan[i][j] * cost[i][j] for i in range(n) for j in range(m))


_TWINS: dict[str, Callable[..., Tensor]] = {
    "cd_l1": _cd_l1,
    "cd_l2": _cd_l2,
    "cd_asymmetric": _cd_asymmetric,
    "qal": _qal,
    "dcd": _dcd,
    "hypercd": _hypercd,
    "infocd": _infocd,
    "emd": _emd,
    "apml": _apml,
}
