"""Which network a state dict belongs to, and with which parameters, by the names and shapes of its tensors."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from completion.importers.families import FAMILIES, unwrap
from completion.networks import NETWORKS, Published
from completion.networks.interface import StateDict

Shapes = Mapping[str, tuple[int, ...]]
# Parameters that one file may differ in from the published ones, and guesses for each.
_MOST_ROUNDS, _MOST_GUESSES = 4, 12


class _WithoutMemory(TorchFunctionMode):
    """Puts layers' weights (torch.empty) on torch's meta device; ``torch.device("meta")`` would load its compiler."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(kwargs or {})
        if func is torch.empty and given.get("device") is None:
            given["device"] = "meta"
        if func is torch.Tensor.normal_ and args[0].is_meta:  # nothing to fill, and torch would load its compiler
            return args[0]
        return func(*args, **given)


@dataclass(frozen=True)
class Likeness:
    """How well a file fits a network as a family holds it.

    Attributes:
        family, network: names in FAMILIES and NETWORKS.
        share: of the larger of both sets of tensors, those that agree in name and shape.
        names: the same for names alone.
        usual: whether the state dict lay where the family keeps it.
    """

    family: str
    network: str
    share: float
    names: float
    usual: bool


def published_entries(family: str, network: str) -> list[Published]:
    """How the family may hold the network, its own way first; none where we know of no such checkpoint."""
    held: Mapping[str, Published] = getattr(NETWORKS[network], "published", {})
    return [held[name] for name in FAMILIES[family].published if name in held]


def best_entry(family: str, network: str, state: StateDict) -> tuple[Published, StateDict] | None:
    """Of these ways the one that names most of the file's tensors, and the state dict under our names."""
    best: tuple[int, Published, StateDict] | None = None
    for entry in published_entries(family, network):
        ours = renamed(entry, state)
        if ours is None:
            continue
        common = len(shapes_of(network, entry.parameters).keys() & ours.keys())
        if best is None or common > best[0]:
            best = common, entry, ours
    return None if best is None else best[1:]


def shapes_of(network: str, parameters: Mapping[str, Any]) -> Shapes:
    """Names and shapes of a network's tensors; its weights take no memory.

    Raises:
        Exception: what the network's constructor raises.
    """
    factory: Any = NETWORKS[network]
    return _shapes(factory, json.dumps(dict(parameters), sort_keys=True))


@functools.lru_cache(maxsize=64)  # every family's way of naming one network asks for the same shapes
def _shapes(factory: Any, parameters: str) -> Shapes:
    with _WithoutMemory():
        made: nn.Module = factory(**json.loads(parameters))
    return {name: tuple(value.shape) for name, value in made.state_dict().items()}


def renamed(entry: Published, state: StateDict) -> StateDict | None:
    """The state dict under our names, or None where the entry's rename cannot make anything of it."""
    try:
        return entry.rename(dict(state))
    except (KeyError, ValueError, IndexError, RuntimeError, TypeError):
        return None


def likenesses(content: Any) -> list[Likeness]:
    """Every known network that shares at least one tensor's name with the file, the likeliest first."""
    found = []
    for family in FAMILIES:
        unwrapped = unwrap(content, FAMILIES[family])
        if unwrapped is None:
            continue
        for network in NETWORKS:
            best = best_entry(family, network, unwrapped.state)
            if best is None:
                continue
            entry, state = best
            expected = shapes_of(network, entry.parameters)
            most = max(len(expected), len(state))
            names = len(expected.keys() & state.keys()) / most
            share = sum(tuple(state[name].shape) == shape for name, shape in expected.items() if name in state) / most
            if names > 0:
                found.append(Likeness(family, network, share, names, unwrapped.usual))
    # Of equals, the family whose habit it is; then the one that stands first in FAMILIES.
    return sorted(found, key=lambda one: (-(one.share + one.names), not one.usual))


def infer_parameters(
    network: str, published: Mapping[str, Any], given: Mapping[str, Any], state: StateDict
) -> dict[str, Any]:
    """The published parameters, changed where the file's shapes ask for it.

    Tries, one parameter at a time, whole numbers that are scaled as the differing shapes are; a change is kept where
    it leaves the fewest tensors that do not fit. What shapes do not show (a folding grid) must be given.

    Args:
        network: name in NETWORKS.
        published: parameters to begin with.
        given: parameters that are not to be changed.
        state: the file's tensors under our names.
    """
    parameters = {**published, **given}
    found = {name: tuple(value.shape) for name, value in state.items()}
    factory = NETWORKS[network]
    for _ in range(_MOST_ROUNDS):
        expected = shapes_of(network, parameters)
        misfits = _misfits(expected, found)
        if misfits == 0:
            break
        best: tuple[int, dict[str, Any]] | None = None
        for name, value in _guesses(factory, parameters, given, expected, found):
            trial = {**parameters, name: value}
            try:
                count = _misfits(shapes_of(network, trial), found)
            except (TypeError, ValueError, RuntimeError, IndexError, AssertionError, ZeroDivisionError):
                continue  # the network refuses this value
            if best is None or count < best[0]:
                best = count, trial
        if best is None or best[0] >= misfits:
            break
        parameters = best[1]
    return parameters


def _misfits(expected: Shapes, found: Shapes) -> int:
    return sum(expected.get(name) != found.get(name) for name in expected.keys() | found.keys())


def _guesses(
    factory: Callable[..., nn.Module],
    parameters: Mapping[str, Any],
    given: Mapping[str, Any],
    expected: Shapes,
    found: Shapes,
) -> Iterator[tuple[str, Any]]:
    """Parameters with values scaled by the ratios in which shapes differ, and changed by what layers there are."""
    ratios: dict[Fraction, int] = {}
    for name in expected.keys() & found.keys():
        if len(expected[name]) == len(found[name]):
            for ours, theirs in zip(expected[name], found[name], strict=True):
                if ours != theirs and ours and theirs:
                    ratio = Fraction(theirs, ours)
                    ratios[ratio] = ratios.get(ratio, 0) + 1
    likeliest = sorted(ratios, key=lambda ratio: -ratios[ratio])[:_MOST_GUESSES]
    layers = 0 if expected.keys() == found.keys() else 3
    for name, parameter in inspect.signature(factory).parameters.items():
        value = parameters.get(name, parameter.default)
        if name in given:
            continue
        if isinstance(value, bool):
            if layers:
                yield name, not value
        elif isinstance(value, int):
            scaled = {value * ratio for ratio in likeliest}
            yield from ((name, int(one)) for one in sorted(scaled) if one.denominator == 1)
            yield from ((name, value + step) for step in range(-layers, layers + 1) if step and value + step > 0)
        elif isinstance(value, list | tuple) and value and all(isinstance(one, int) for one in value):
            for index, one in enumerate(value):
                for ratio in likeliest:
                    if (one * ratio).denominator == 1:
                        yield name, [*value[:index], int(one * ratio), *value[index + 1 :]]
