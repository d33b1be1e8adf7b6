"""Point operators against their definitions, written as loops."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from completion import points as operators
from completion.points import ball_query, farthest_points, gather_points, group, knn, three_interpolate


def cloud(batch: int, count: int, seed: int, lattice: bool = False, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A random cloud; on a lattice its distances are exact and full of ties and doubled points."""
    generator = torch.Generator().manual_seed(seed)
    if lattice:
        return torch.randint(-2, 3, (batch, count, 3), generator=generator).to(dtype)
    return torch.rand((batch, count, 3), generator=generator, dtype=dtype) - 0.5


def naive_farthest(points: torch.Tensor, count: int, start: int) -> list[int]:
    taken = [start]
    while len(taken) < count:
        left = [i for i in range(len(points)) if i not in taken]
        if not left:
            break
        far = [min(float((points[i] - points[j]).square().sum()) for j in taken) for i in left]
        taken.append(left[far.index(max(far))])
    return list(itertools.islice(itertools.cycle(taken), count))


def naive_order(points: torch.Tensor, query: torch.Tensor) -> list[tuple[float, int]]:
    return sorted((float((point - query).square().sum()), i) for i, point in enumerate(points))


shapes = st.tuples(st.integers(1, 3), st.integers(1, 17), st.integers(1, 9), st.integers(0, 1000))


@settings(max_examples=40, deadline=None)
@given(shapes, st.integers(1, 20), st.booleans())
def test_farthest_points_equal_the_definition(shape: tuple[int, ...], count: int, lattice: bool) -> None:
    batch, n, start, seed = shape
    points = cloud(batch, n, seed, lattice, torch.float64)
    found = farthest_points(points, count, start=start % n)
    assert found.dtype == torch.int64
    assert found.tolist() == [naive_farthest(one, count, start % n) for one in points]


def test_farthest_points_of_a_line_made_by_hand() -> None:
    line = torch.tensor([0.0, 1.0, 2.0, 10.0, 4.0])[None, :, None].expand(1, 5, 3)
    assert farthest_points(line, 3).tolist() == [[0, 3, 4]]
    assert farthest_points(line, 7, start=3).tolist() == [[3, 0, 4, 2, 1, 3, 0]]


@settings(max_examples=40, deadline=None)
@given(shapes, st.booleans(), st.sampled_from([torch.float32, torch.float64]))
def test_neighbours_equal_the_definition(shape: tuple[int, ...], lattice: bool, dtype: torch.dtype) -> None:
    batch, m, n, seed = shape
    points, queries = cloud(batch, m, seed, lattice, dtype), cloud(batch, n, seed + 1, lattice, dtype)
    k = 1 + seed % m
    found = knn(points, queries, k)
    order = [[naive_order(points[b], query)[:k] for query in queries[b]] for b in range(batch)]
    if lattice or dtype == torch.float64:  # distances exact, or with no two alike
        assert found.tolist() == [[[i for _, i in row] for row in rows] for rows in order]
    reached = (group(points, found) - queries[:, :, None]).square().sum(-1)
    wanted = torch.tensor([[[d for d, _ in row] for row in rows] for rows in order], dtype=dtype)
    torch.testing.assert_close(reached, wanted)


@pytest.mark.parametrize("width", [7, 24])
def test_neighbours_in_a_space_of_features(width: int) -> None:
    features = torch.randn(2, 30, width, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + 5
    nearest = torch.cdist(features, features).argsort(dim=2)[:, :, :5]
    assert torch.equal(knn(features, features, 5), nearest)
    assert torch.equal(knn(features.float(), features.float(), 5), nearest)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(knn(features.float(), features.float(), 5), nearest)


@settings(max_examples=40, deadline=None)
@given(shapes, st.integers(1, 12), st.booleans())
def test_balls_equal_the_definition(shape: tuple[int, ...], k: int, lattice: bool) -> None:
    batch, n, groups, seed = shape
    points, centres = cloud(batch, n, seed, lattice, torch.float64), cloud(batch, groups, seed + 1, lattice)
    radius = 2.0 if lattice else 0.4
    found = ball_query(points, centres.double(), radius, k)
    for b, s in itertools.product(range(batch), range(groups)):
        inside = [i for i in range(n) if float((points[b, i] - centres[b, s]).square().sum()) < radius**2]
        first = inside[:k] or [0]
        assert found[b, s].tolist() == first + [first[0]] * (k - len(first))


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    points, queries = cloud(2, 50, 0), cloud(2, 33, 1)
    whole = knn(points, queries, 4), ball_query(points, queries, 0.3, 4)
    monkeypatch.setattr(operators, "_BLOCK_PAIRS", 700)
    assert torch.equal(whole[0], knn(points, queries, 4))
    assert torch.equal(whole[1], ball_query(points, queries, 0.3, 4))


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("count", [1, 2, 3, 20])
def test_interpolation_equals_the_definition(power: int, count: int) -> None:
    points, queries = cloud(2, count, 0, dtype=torch.float64), cloud(2, 9, 1, dtype=torch.float64)
    features = torch.rand(2, count, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found = three_interpolate(features, points, queries, power=power)
    for b, q in itertools.product(range(2), range(9)):
        near = naive_order(points[b], queries[b, q])[:3]
        weights = torch.tensor([1 / (d ** (power / 2) + 1e-8) for d, _ in near], dtype=torch.float64)
        mean = sum(w * features[b, i] for w, (_, i) in zip(weights / weights.sum(), near, strict=True))
        torch.testing.assert_close(found[b, q], mean)


def test_interpolation_at_the_points_themselves_gives_their_features() -> None:
    points = cloud(2, 20, 0)
    features = torch.rand(2, 20, 4, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(three_interpolate(features, points, points), features, atol=1e-4, rtol=0)


def test_gathered_features_carry_gradients() -> None:
    points = cloud(2, 12, 0, dtype=torch.float64)
    features = torch.rand(2, 12, 3, dtype=torch.float64, requires_grad=True)
    index = knn(points, points[:, :5], 4)
    assert torch.autograd.gradcheck(lambda value: group(value, index), features)
    assert torch.autograd.gradcheck(lambda value: three_interpolate(value, points, points[:, :5] + 0.1), features)
    assert torch.equal(group(features, index)[1, 2, 3], features[1, index[1, 2, 3]])
    assert torch.equal(group(features, index).flatten(1, 2), gather_points(features, index.flatten(1)))


def test_wrong_input_is_named() -> None:
    points = cloud(1, 5, 0)
    with pytest.raises(ValueError, match="6 neighbours"):
        knn(points, points, 6)
    with pytest.raises(ValueError, match="start 5"):
        farthest_points(points, 2, start=5)
    with pytest.raises(ValueError, match="points must be"):
        farthest_points(points[0], 2)
    with pytest.raises(ValueError, match="different batches"):
        knn(points, points.expand(2, -1, -1), 2)
    with pytest.raises(ValueError, match="do not belong"):
        three_interpolate(points[:, :3], points, points)


@pytest.mark.parametrize("lattice", [False, True])
def test_compiled_loops_choose_what_torch_chooses(lattice: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    points, queries = cloud(3, 200, 0, lattice), cloud(3, 70, 1, lattice)
    features = torch.randn(3, 80, 20, generator=torch.Generator().manual_seed(2))

    def results() -> list[torch.Tensor]:
        return [
            farthest_points(points, 150, start=7),
            knn(points, queries, 9),
            knn(queries, points, 70),
            knn(features, features, 5),
            knn(points.half(), queries.half(), 3),
            ball_query(points, queries, 0.3, 8),
            ball_query(points, queries, 0.5, 250),
            ball_query(points.half(), queries.half(), 0.3, 5),
        ]

    assert operators._compiled(points) is not None
    fast = results()
    monkeypatch.setattr(operators, "_kernels", lambda: None)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(fast, results(), strict=True))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 3e38])
def test_values_that_are_no_numbers_end_in_some_index(value: float) -> None:
    points = cloud(2, 40, 0)
    points[0, ::3] = value
    points[1] = value
    for index in (farthest_points(points, 40), knn(points, points, 6), ball_query(points, points, 0.2, 3)):
        assert index.min() >= 0 and index.max() < 40
    assert farthest_points(points, 40).sort(dim=1).values.tolist() == [list(range(40))] * 2


@pytest.mark.gpu
def test_a_gpu_finds_the_same() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    points, queries = cloud(4, 300, 0, lattice=True), cloud(4, 90, 1, lattice=True)
    for function in (
        lambda a, b: knn(a, b, 7),
        lambda a, b: farthest_points(a, 320),
        lambda a, b: ball_query(a, b, 1.5, 9),
        lambda a, b: three_interpolate(a, a, b),
    ):
        torch.testing.assert_close(function(points.cuda(), queries.cuda()).cpu(), function(points, queries))
