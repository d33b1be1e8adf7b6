"""Networks by name, our own and those from outside.

A name is one of ``NETWORKS``; an entry point of the group ``grasp_utility.networks``, which an installed distribution
declares; or ``my_package.my_module:MyNet``, anything importable, only where the caller says ``trust_code`` (see
:mod:`completion.plugins`).

A network from outside is any ``torch.nn.Module`` that takes ``(B, N, 3)`` and returns a tensor ``(B, M, 3)`` or a
:class:`~completion.networks.Completion`, network frame. :func:`adopt` makes it answer as ours do; its parameters keep
their names.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from completion.networks import NETWORKS, Completion
from completion.plugins import Kind, PluginError

# What a network that does not say its output_points is shown once, to count them.
_PROBE_POINTS = 1024


class NetworkError(PluginError):
    """A network that is not known, not allowed, or does not behave as one; the message says what to change."""


KIND = Kind("network", "grasp_utility.networks", NETWORKS, "my_package.my_module:MyNet", NetworkError)
known_names, find_network, identity = KIND.known_names, KIND.find, KIND.identity


def is_own(name: str) -> bool:
    """Whether the network is one of ours (ours come before an entry point of the same name)."""
    return name in NETWORKS


class _Answer:
    """A forward hook that makes a :class:`Completion` of what a network returns; no closure: it can be pickled."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, _: nn.Module, given: Any, output: Any) -> Completion:
        return as_completion(output, given[0], self.name)


def adopt(network: Any, name: str) -> nn.Module:
    """Make a network from outside answer as ours do: a checked ``Completion``, and ``output_points``.

    Args:
        network: what the factory returned; changed in place.
        name: for messages.

    Raises:
        NetworkError: no ``torch.nn.Module``, or its output has the wrong shape (at once where it does not say its
            ``output_points``, else when it is called).
    """
    if not isinstance(network, nn.Module):
        raise NetworkError(f"{name}: made a {type(network).__name__} instead of a torch.nn.Module")

    network.register_forward_hook(_Answer(name))
    if not hasattr(network, "uses_truth"):
        network.uses_truth = False  # type: ignore[assignment]
    points = getattr(network, "output_points", None)
    if points is None:
        network.output_points = _count_output(network, name)  # type: ignore[assignment]
    elif not isinstance(points, int) or isinstance(points, bool) or points < 1:
        raise NetworkError(f"{name}: output_points must be a positive whole number, got {points!r}")
    return network


def as_completion(output: Any, partial: Tensor, name: str) -> Completion:
    """A network's output as a :class:`Completion`.

    Args:
        output: tensor ``(B, M, 3)``, or a :class:`Completion`.
        partial: ``(B, N, 3)``, what the network was given.
        name: for messages.

    Raises:
        NetworkError: anything else; names what came.
    """
    stages = output.stages if isinstance(output, Completion) else (output,)
    if not stages or not all(isinstance(stage, Tensor) for stage in stages):
        came = "no cloud" if not stages else ", ".join(sorted({type(stage).__name__ for stage in stages}))
        raise NetworkError(
            f"{name}: returned {came}; a network returns a tensor (B, M, 3) or completion.networks.Completion"
        )
    for stage in stages:
        if stage.ndim != 3 or stage.shape[0] != partial.shape[0] or stage.shape[2] != 3 or stage.shape[1] < 1:
            hint = "; transpose it" if stage.ndim == 3 and stage.shape[1] == 3 else ""
            raise NetworkError(
                f"{name}: for clouds {tuple(partial.shape)} returned a tensor {tuple(stage.shape)}, expected "
                f"({partial.shape[0]}, M, 3){hint}"
            )
        if not stage.is_floating_point():
            raise NetworkError(f"{name}: returned points of type {stage.dtype}, expected floating point")
    return output if isinstance(output, Completion) else Completion((output,))


def _count_output(network: nn.Module, name: str) -> int:
    training = network.training
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            probe = torch.rand(1, _PROBE_POINTS, 3, generator=torch.Generator().manual_seed(0)) - 0.5
            found: Completion = network.eval()(probe)
            return found.fine.shape[1]
    except NetworkError:
        raise
    except Exception as error:  # a stranger's forward may raise anything
        raise NetworkError(
            f"{name}: does not say its output_points, and cannot be tried on {_PROBE_POINTS} points "
            f"({type(error).__name__}: {error}); give the class an attribute output_points"
        ) from error
    finally:
        network.train(training)
