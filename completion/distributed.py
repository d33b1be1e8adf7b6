"""Several processes train one network: started by torchrun, they meet here.

Each process takes its slice of the same global batch and gradients are averaged, so the run is the one that a single
process would make, to rounding (a network with batch normalisation sees its statistics a slice at a time). A batch is
drawn whole in every process and then cut: its randomness is one stream. Rank 0 alone writes.

Whether to stop is agreed on once a step, so that Ctrl-C or a NaN in one process ends all of them after the same step.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True)
class Ranks:
    """This process among those of a run; ``Ranks()`` is a process alone."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def slice(self, size: int) -> slice:
        """This process's rows of a batch of ``size``, which ``count`` must divide."""
        share = size // self.count
        return slice(self.rank * share, (self.rank + 1) * share)

    def mean(self, values: Tensor) -> Tensor:
        """Average ``values`` over the processes; the same tensor where there is one."""
        if self.count == 1:
            return values
        total = values.clone()
        distributed.all_reduce(total)
        return total / self.count

    def gather(self, value: Any) -> list[Any]:
        """Every process's ``value``, in the order of ranks."""
        if self.count == 1:
            return [value]
        gathered: list[Any] = [None] * self.count
        distributed.all_gather_object(gathered, value)
        return gathered

    def wait(self) -> None:
        """Until every process is here."""
        if self.count > 1:
            distributed.barrier()

    def share(self, network: nn.Module, device: torch.device) -> nn.Module:
        """The network as training calls it: gradients averaged over the processes."""
        if self.count == 1:
            return network
        # static_graph: a network may leave parameters unused, as long as it always leaves the same ones.
        ids = [device] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(network, device_ids=ids, static_graph=True)


# The last group that this process was in. DDP destroys its share of a group with the GIL held, and destroying a group
# waits for gloo's threads, which may be waiting for the GIL to drop the tensors of the last exchange: where DDP was the
# last to hold the group, one run in fifty that ended by an error hung. A Python reference is given up without the GIL.
_group: distributed.ProcessGroup | None = None


@contextmanager
def join(device: torch.device) -> Iterator[tuple[Ranks, torch.device]]:
    """Meet the other processes that torchrun's environment (WORLD_SIZE, RANK, …) names: nccl on CUDA, else gloo.

    Yields this process's place and its device (on CUDA the one with its local rank).
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1 or "RANK" not in os.environ:
        yield Ranks(), device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    global _group
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    _group = distributed.group.WORLD
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size()), device
    finally:
        distributed.destroy_process_group()


class StopRequest:
    """Ctrl-C or SIGTERM, kept until the step is done. A second Ctrl-C does not wait."""

    def __init__(self) -> None:
        self.signal = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = self.signal or number

    def leave(self) -> None:
        """End as the signal would have ended the process."""
        if self.signal == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """While inside, SIGINT and SIGTERM set a mark instead of ending the process (in the main thread)."""
    request = StopRequest()
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (int(signal.SIGINT), int(signal.SIGTERM)):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as a shell has it for what runs in its background
                before[number] = signal.signal(number, request)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
