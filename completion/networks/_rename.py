"""Small steps from a published state dict to ours; every one keeps what it does not know, so that it is reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from completion.networks.interface import StateDict


def pointwise(state: StateDict) -> StateDict:
    """Convolutions of kernel size one, ``(O, I, 1)`` or ``(O, I, 1, 1)``, become linear layers ``(O, I)``."""
    return {
        key: value.flatten(1) if value.ndim in (3, 4) and value.shape[2:].numel() == 1 else value
        for key, value in state.items()
    }


def renamed(state: StateDict, prefixes: Mapping[str, str]) -> StateDict:
    """Replace the longest prefix that ends at a dot: ``{"mlp.0": "fc1"}`` makes ``fc1.weight`` of ``mlp.0.weight``."""
    result = {}
    for key, value in state.items():
        parts = key.split(".")
        for end in range(len(parts), 0, -1):
            prefix = ".".join(parts[:end])
            if prefix in prefixes:
                key = ".".join([prefixes[prefix], *parts[end:]])
                break
        result[key] = value
    return result


def columns(state: StateDict, key: str, sizes: Sequence[int], order: Sequence[int]) -> StateDict:
    """Reorder the input columns of ``key``: blocks of ``sizes`` (one may be -1: the rest), taken in ``order``.

    For a layer that reads the same concatenation in another order. Left alone where the blocks do not fit.
    """
    weight = state.get(key)
    if weight is None or weight.ndim != 2:
        return state
    rest = weight.shape[1] - sum(size for size in sizes if size > 0)
    blocks = [rest if size < 0 else size for size in sizes]
    if rest < 0 or sum(blocks) != weight.shape[1]:
        return state
    parts = weight.split(blocks, dim=1)
    return {**state, key: torch.cat([parts[i] for i in order], dim=1)}


def halves_swapped(state: StateDict, key: str) -> StateDict:
    """For a layer that reads two equally wide inputs in the other order."""
    weight = state.get(key)
    if weight is None or weight.ndim != 2 or weight.shape[1] % 2:
        return state
    return {**state, key: weight.roll(weight.shape[1] // 2, dims=1)}


def points_first(state: StateDict, layer: str) -> StateDict:
    """Rows of a layer that gives all x, then all y, then all z, into point by point."""
    result = dict(state)
    for name in ("weight", "bias"):
        value = state.get(f"{layer}.{name}")
        if value is not None and value.ndim > 0 and value.shape[0] % 3 == 0:
            result[f"{layer}.{name}"] = value.unflatten(0, (3, -1)).transpose(0, 1).flatten(0, 1)
    return result
