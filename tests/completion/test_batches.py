"""How many clouds go through a network at once: alone on a CPU, up to the memory on a GPU, fewer where it runs out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from completion.batches import BUDGET, Batches, OutOfMemory, budget_from, fitting, ran_out
from completion.completer import Completer, CompletionError
from completion.networks import NETWORKS, Completion

CPU = torch.device("cpu")


def some(count: int, points: int = 64) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (count, points, 3)).astype(np.float32)


@pytest.mark.parametrize("name", NETWORKS)
def test_on_a_cpu_a_cloud_comes_out_the_same_to_the_bit_whatever_its_company(name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = NETWORKS[name](**NETWORKS[name].tiny).eval()
    clouds = some(9)
    batches = Batches(network, CPU)
    together = batches(clouds)
    np.testing.assert_array_equal(batches(clouds[::-1].copy())[::-1], together)
    for i in (0, 4, 8):
        np.testing.assert_array_equal(batches(clouds[i : i + 1])[0], together[i])
    # In one batch they are the same but for rounding: what a GPU does mixes no clouds.
    np.testing.assert_allclose(Batches(network, CPU, size=9)(clouds), together, atol=2e-6)


class Cramped(nn.Module):
    """Hands its clouds back, and has no place for more than so many at once."""

    def __init__(self, most: int, error: Exception) -> None:
        super().__init__()
        self.most, self.error = most, error
        self.seen: list[int] = []

    def forward(self, partial: torch.Tensor) -> Completion:
        self.seen.append(len(partial))
        if len(partial) > self.most:
            raise self.error
        return Completion((partial,))


WORDS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("CUDA error: out of memory"),
]


@pytest.mark.parametrize("error", WORDS, ids=str)
def test_where_memory_runs_out_half_as_many_go_and_the_number_is_kept(error: Exception) -> None:
    network, clouds = Cramped(5, error), some(20)
    batches = Batches(network, CPU, size=16)
    np.testing.assert_array_equal(batches(clouds), clouds)
    assert network.seen == [16, 8, 4, 4, 4, 4, 4]
    network.seen.clear()
    np.testing.assert_array_equal(batches(clouds), clouds)
    assert network.seen == [4] * 5 and batches.size == 4


def test_what_is_left_over_halves_by_its_own_number() -> None:
    network, clouds = Cramped(5, WORDS[0]), some(7)
    np.testing.assert_array_equal(Batches(network, CPU, size=64)(clouds), clouds)
    assert network.seen == [7, 3, 3, 1]


def test_a_single_cloud_without_place_names_the_remedy() -> None:
    network = Cramped(0, WORDS[0])
    said = r"this machine's memory does not hold one cloud of 64 points .*allocate 2.00 GiB\); end other programs"
    with pytest.raises(OutOfMemory, match=said) as caught:
        Batches(network, CPU, size=3)(some(3))
    assert network.seen == [3, 1] and "\n" not in str(caught.value)


def test_another_failure_is_not_taken_for_memory() -> None:
    network = Cramped(2, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        Batches(network, CPU, size=4)(some(4))
    assert network.seen == [4]


def test_what_a_cpu_says_when_memory_runs_out_is_understood() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert ran_out(caught.value)
    with pytest.raises(MemoryError) as by_numpy:
        np.empty(2**60, np.uint8)
    assert ran_out(by_numpy.value) and not ran_out(ValueError("wrong"))


def test_as_many_go_as_fit_a_budget() -> None:
    peaks = {2: 300 + 2 * 50, 8: 300 + 8 * 50}  # 300 whatever comes, 50 a cloud
    for budget in (1000, 5000, 9000):
        assert 300 + 50 * fitting(peaks, budget) <= budget < 300 + 50 * (1.4 * fitting(peaks, budget) + 6)
    assert fitting(peaks, 10) == 1 and fitting(peaks, 10**9) == 256
    assert fitting({2: 100, 8: 100}, 10**6) == 256  # a network so small that blocks are all there is


@pytest.mark.parametrize(
    ("text", "size"), [("", None), ("123", 123), ("2GiB", 2 * 2**30), ("1.5 g", 3 * 2**29), ("300MB", 300 * 2**20)]
)
def test_a_budget_is_read_from_the_environment(text: str, size: int | None) -> None:
    assert budget_from({BUDGET: text}) == size and budget_from({}) is None


@pytest.mark.parametrize("text", ["much", "-3", "0", "3 apples"])
def test_a_budget_that_is_no_size_says_how_to_write_one(text: str) -> None:
    with pytest.raises(ValueError, match=f"{BUDGET}='{text}' is no size: .*6GiB"):
        budget_from({BUDGET: text})


def test_each_failure_takes_its_own_place(tmp_path, save_checkpoint) -> None:
    completer = Completer.load(save_checkpoint(tmp_path / "one"), "cpu")
    good = [cloud * 0.1 for cloud in some(2)]
    outcomes = completer.outcomes([good[0], np.ones((20, 3)), good[1], np.zeros((0, 3))], [1, 2, 3, 4])
    for place, seed, cloud in ((0, 1, good[0]), (2, 3, good[1])):
        np.testing.assert_array_equal(outcomes[place], completer([cloud], [seed])[0])
    for place, reason in ((1, "too few distinct"), (3, "no points")):
        assert isinstance(outcomes[place], CompletionError)
        assert outcomes[place].index == place and reason in outcomes[place].reason
    assert completer.outcomes([]) == completer([]) == []


def test_a_budget_of_nothing_is_refused(tmp_path, save_checkpoint) -> None:
    with pytest.raises(ValueError, match="memory_budget must be positive, got 0"):
        Completer.load(save_checkpoint(tmp_path / "one"), "cpu", memory_budget=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_full_gpu_takes_fewer_clouds_and_gives_the_clouds_of_the_cpu() -> None:
    rng = np.random.default_rng(0)
    clouds = [rng.uniform(-0.05, 0.05, (600, 3)).astype(np.float32) for _ in range(200)]
    on_cpu = Completer.load("pcn-cd", "cpu")(clouds)
    completer = Completer.load("pcn-cd", "cuda")
    completer(clouds)
    free = completer.batches.size
    assert free is not None and free > 1
    small = Completer.load("pcn-cd", "cuda", memory_budget=200 * 2**20)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    small(clouds)
    assert 1 <= small.batches.size < free and torch.cuda.max_memory_allocated() - before <= 200 * 2**20
    # Now the memory is really full: the size that fitted before no longer does.
    _, total = torch.cuda.mem_get_info()
    torch.cuda.empty_cache()
    try:
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 300 * 2**20) / total)
        made = completer(clouds)
        assert 1 <= completer.batches.size < free
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    for one, other in zip(on_cpu, made, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
