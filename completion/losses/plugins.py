"""Losses from outside: entry points of the group ``grasp_utility.losses``, or ``my_package.my_module:my_loss``.

A loss from outside has the signature of ours, ``(prediction (B, N, 3), target (B, M, 3), **parameters) -> (B,)``; masks
and an entry in ``DECLARED`` are optional. :func:`enter` puts it into ``LOSSES`` for this process, under the name that
the training file uses.
"""

from __future__ import annotations

from typing import Any

from completion.losses import LOSSES
from completion.plugins import Kind, PluginError, source_hash


class LossError(PluginError):
    """A loss that is not known, not allowed, or cannot be imported; the message says what to change."""


KIND = Kind("loss", "grasp_utility.losses", dict(LOSSES), "my_package.my_module:my_loss", LossError)


def known_names() -> list[str]:
    """Every name that needs no trust: ours, the entry points, and what was entered in this process."""
    return sorted({*KIND.known_names(), *LOSSES})


def enter(name: str, trust_code: bool = False) -> None:
    """Make sure that ``LOSSES`` holds this name.

    Raises:
        LossError: unknown name, code that is not trusted, or a module that cannot be imported.
    """
    if name not in LOSSES:
        LOSSES[name] = KIND.find(name, trust_code)


def identity(name: str, trust_code: bool = False) -> dict[str, Any]:
    """What a training depends on besides the loss's name and parameters; nothing for a loss of ours.

    Raises:
        LossError: as :func:`enter`.
    """
    if name in KIND.own:
        return {}
    if name in LOSSES and ":" not in name and name not in KIND.plugins():  # entered by a program of the user's
        loss = LOSSES[name]
        module = getattr(loss, "__module__", "")
        return {"object": f"{module}:{getattr(loss, '__qualname__', name)}", "source": source_hash(module)}
    return KIND.identity(name, trust_code)
