"""Networks by name, our own and those from outside.

A name is one of ``NETWORKS``; an entry point of the group ``grasp_utility.networks``, which an installed distribution
declares; or ``my_package.my_module:MyNet``, anything importable. The last is code that a checkpoint's ``config.json``
may name freely, so it is imported only where the caller says ``trust_code``.

A network from outside is any ``torch.nn.Module`` that takes ``(B, N, 3)`` and returns a tensor ``(B, M, 3)`` or a
:class:`~completion.networks.Completion`, network frame. :func:`adopt` makes it answer as ours do; its parameters keep
their names.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from completion.networks import NETWORKS, Completion

ENTRY_POINT_GROUP = "grasp_utility.networks"
# What a network that does not say its output_points is shown once, to count them.
_PROBE_POINTS = 1024


class NetworkError(ValueError):
    """A network that is not known, not allowed, or does not behave as one; the message says what to change."""


def plugins() -> dict[str, EntryPoint]:
    """The networks that installed distributions declare, by name; nothing is imported."""
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def known_names() -> list[str]:
    """Every name that needs no trust: ours and the entry points."""
    return sorted({*NETWORKS, *plugins()})


def is_own(name: str) -> bool:
    """Whether the network is one of ours (ours come before an entry point of the same name)."""
    return name in NETWORKS


def find_network(name: str, trust_code: bool = False) -> Callable[..., nn.Module]:
    """The class, or function, that makes the network of this name.

    Args:
        name: see the module's docstring.
        trust_code: whether ``module:Class`` may be imported, which runs whatever stands in that module.

    Raises:
        NetworkError: unknown name, code that is not trusted, or a module that cannot be imported.
    """
    if name in NETWORKS:
        return NETWORKS[name]
    if ":" in name:
        _require_trust(name, trust_code)
        module, _, attribute = name.partition(":")
        return _load(EntryPoint(name, f"{module.strip()}:{attribute.strip()}", ENTRY_POINT_GROUP), name)
    point = plugins().get(name)
    if point is None:
        from completion.configuration import nearest_name  # which imports the networks

        raise NetworkError(
            f"unknown name {name!r}{nearest_name(name, known_names())}; a network of yours is an entry point of the "
            f"group {ENTRY_POINT_GROUP}, or my_package.my_module:MyNet"
        )
    return _load(point, name)


def _require_trust(name: str, trust_code: bool) -> None:
    if not trust_code:
        raise NetworkError(
            f"{name!r} names Python code, and importing it runs whatever that module contains, with your rights. If "
            "you wrote it or trust who did, allow it with --trust-code (trust_code=True from Python)"
        )


def _load(point: EntryPoint, name: str) -> Callable[..., nn.Module]:
    try:
        made = point.load()
    except Exception as error:  # whatever a stranger's module does on import
        raise NetworkError(
            f"{name!r}: {point.value} cannot be imported ({type(error).__name__}: {error}); install its package in "
            "this environment, or put its folder on PYTHONPATH"
        ) from error
    if not callable(made):
        raise NetworkError(f"{name!r}: {point.value} is no class or function that makes a network")
    found: Callable[..., nn.Module] = made
    return found


def identity(name: str, trust_code: bool = False) -> dict[str, Any]:
    """What a network's clouds depend on besides configuration and weights, for fingerprints; nothing for ours.

    Of a network from outside: the object, its distribution and version, and a hash of its source (every ``.py`` file
    of its top-level package), since a package under development keeps its version.

    Raises:
        NetworkError: as :func:`find_network`.
    """
    if name in NETWORKS:
        return {}
    factory = find_network(name, trust_code)
    point = plugins().get(name)
    module = (point.value if point is not None else name).partition(":")[0].strip()
    content: dict[str, Any] = {"object": point.value if point is not None else name, "source": _source_hash(module)}
    if point is not None and point.dist is not None:
        content |= {"package": point.dist.name, "version": point.dist.version}
    elif content["source"] is None:
        content["source"] = repr(factory)
    return content


def _source_hash(module: str) -> str | None:
    digest, any_file = hashlib.sha256(), False
    for name, path in _sources(module):
        digest.update(f"{name}\0".encode() + path.read_bytes() + b"\0")
        any_file = True
    return digest.hexdigest()[:20] if any_file else None


def _sources(module: str) -> Iterator[tuple[str, Path]]:
    """The ``.py`` files of a module's top-level package, or the module's own file."""
    top = sys.modules.get(module.partition(".")[0])
    folder = Path(top.__file__).parent if top is not None and top.__file__ and hasattr(top, "__path__") else None
    if folder is not None:
        yield from ((path.relative_to(folder).as_posix(), path) for path in sorted(folder.rglob("*.py")))
    elif (own := getattr(sys.modules.get(module), "__file__", None)) is not None and Path(own).is_file():
        yield Path(own).name, Path(own)


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
