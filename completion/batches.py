"""How many clouds go through a network at once.

On a CPU it is one. Matrix kernels add in another order for another number of rows, so that a cloud's last bits would
depend on its company: every network here differs by some 1e-7 (network frame) between batches of 1 and of 16. One by
one, what comes out for a cloud depends on the cloud alone, and no time is lost: a single cloud keeps a core's kernels
busy, and what it computes still lies in the caches.

On CUDA it is as many as the memory allows, told from two small batches, and half as many whenever memory runs out all
the same. There the last bits do depend on the number.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from completion.networks import CompletionNetwork

BUDGET = "GRASP_UTILITY_GPU_MEMORY"
"""Environment variable: what a process may use of a GPU for its clouds, where no budget is given; as ``6GiB``."""

_MOST = 256  # clouds at once; more fill no GPU better, and kernels count the elements of a tensor with 31 bits
_ELSEWHERE = 16  # on a device that does not tell its memory
_TRIALS = (2, 8)  # clouds of the two batches that memory is told from
_SHARE = 0.85  # of the budget; the rest is lost between blocks, and to kernels that take more for more clouds
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIGNS = (
    "out of memory",
    "can't allocate memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",  # what cuBLAS says where its own workspace finds no place
)


class OutOfMemory(ValueError):
    """Not even one cloud fits; the message names the remedy."""


class Batches:
    """Carries clouds through a network.

    Attributes:
        size: clouds at once; None on CUDA before the first call. It falls when memory runs out and never rises again.
    """

    def __init__(
        self,
        network: CompletionNetwork,
        device: torch.device,
        memory_budget: int | None = None,
        size: int | None = None,
    ) -> None:
        """Say what goes through, and where.

        Args:
            network: in evaluation mode, on its device.
            device: where it lies.
            memory_budget: bytes that clouds may take on a CUDA device beside the network; by default :data:`BUDGET`,
                and without that what is free. One cloud at once is tried in any case.
            size: clouds at once to begin with, instead of what is said above.

        Raises:
            ValueError: a budget or size that is not positive, or a :data:`BUDGET` that is not a size.
        """
        if memory_budget is None and device.type == "cuda":
            memory_budget = budget_from(os.environ)
        for name, value in (("memory_budget", memory_budget), ("size", size)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be positive, got {value}")
        self.network, self.device, self.memory_budget = network, device, memory_budget
        self.size = size or {"cpu": 1, "cuda": None}.get(device.type, _ELSEWHERE)

    @torch.no_grad()
    def __call__(self, clouds: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return ``(N, M, 3)`` completed clouds of ``(N, P, 3)``, network frame; N at least 1.

        Raises:
            OutOfMemory: if not even one cloud fits.
        """
        if self.size is None:
            self.size = self._measured(clouds[:1])
        made: list[NDArray[np.float32]] = []
        at = 0
        while at < len(clouds):
            batch = clouds[at : at + self.size]
            done = self._attempt(batch)
            if isinstance(done, str):
                if len(batch) == 1:
                    raise OutOfMemory(_no_place(self.device, clouds.shape[1], done))
                self.size = len(batch) // 2
                continue
            made.append(done)
            at += len(batch)
        return np.concatenate(made)

    def _attempt(self, clouds: NDArray[np.float32]) -> NDArray[np.float32] | str:
        """Return the completed clouds, or what was said when memory ran out."""
        try:
            with _full_precision(self.device):
                batch = torch.from_numpy(clouds).to(self.device)
                return self.network(batch).fine.float().cpu().numpy()
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            said = str(error).strip().partition("\n")[0] or type(error).__name__
        # Only here: until now the error's traceback has held the network's tensors.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return said

    def _measured(self, cloud: NDArray[np.float32]) -> int:
        """Return how many clouds a CUDA device takes, from what two small batches of one cloud take."""
        if isinstance(self._attempt(cloud), str):  # the first pass also makes the libraries' workspaces
            return 1
        peaks = {}
        for count in _TRIALS:
            before = torch.cuda.memory_allocated(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            if isinstance(self._attempt(np.repeat(cloud, count, axis=0)), str):
                return max(1, count // 2)
            peaks[count] = torch.cuda.max_memory_allocated(self.device) - before
        free, _ = torch.cuda.mem_get_info(self.device)
        # What torch keeps for later is not free to others, but is to us.
        free += torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return fitting(peaks, free if self.memory_budget is None else min(free, self.memory_budget))


def _full_precision(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Convolutions of newer GPUs round their input to 10 bits unless told not to: 0.1 mm on an object of 10 cm."""
    if device.type != "cuda":
        return contextlib.nullcontext()
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


def fitting(peaks: Mapping[int, int], budget: int) -> int:
    """Return how many clouds at once stay within a budget: at least one, at most 256.

    Args:
        peaks: bytes that two batches took at their height, by number of clouds; taken to grow linearly.
        budget: bytes.
    """
    (few, least), (many, most) = sorted(peaks.items())
    each = max(1.0, (most - least) / (many - few))
    fixed = max(0.0, least - few * each)
    return int(np.clip((_SHARE * budget - fixed) // each, 1, _MOST))


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out; the libraries below torch say so in their own words."""
    return isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)) or any(sign in str(error) for sign in _SIGNS)


def budget_from(environment: Mapping[str, str]) -> int | None:
    """Return the bytes that :data:`BUDGET` says, or None where it says nothing.

    Raises:
        ValueError: if it is no size.
    """
    text = environment.get(BUDGET, "").strip()
    if not text:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text, re.IGNORECASE)
    size = int(float(found[1]) * _UNITS[found[2].upper()]) if found else 0
    if size < 1:
        raise ValueError(f"{BUDGET}={text!r} is no size: write bytes, or a number with its unit as 6GiB")
    return size


def _no_place(device: torch.device, points: int, said: str) -> str:
    where = "this machine's memory" if device.type == "cpu" else f"the memory of {device}"
    spared = "" if device.type == "cpu" else ", or take --device cpu"
    return (
        f"{where} does not hold one cloud of {points} points on its way through the network ({said.rstrip('.')}); "
        f"end other programs that use it, use fewer workers{spared}"
    )
