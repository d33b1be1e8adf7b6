"""Scorers by name: which there are, and whether they can be had here.

Ours are ``analytic`` (:func:`grasping.protocol.score_view`), ``graspnetapi`` (the referee itself, an optional extra)
and ``physics`` (a second opinion on the grasps that the protocol keeps, :mod:`pipeline.physics_score`; an extra too).
Packages from outside add theirs as entry points of the group ``grasp_utility.scorers``; each names a function called
like ``score_view`` that returns a :class:`grasping.protocol.ViewScore`, and is imported only when a configuration
names it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from grasping import protocol
from pipeline.artifacts import fingerprint

ENTRY_POINT_GROUP = "grasp_utility.scorers"
ANALYTIC, REFEREE, PHYSICS = "analytic", "graspnetapi", "physics"
SCORERS = (ANALYTIC, REFEREE, PHYSICS)


class ScorerError(ValueError):
    """A scorer that is not known or cannot be used here; the message says what to change."""


def _plugins() -> dict[str, Any]:
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


@cache
def protocol_fingerprint() -> str:
    """Return a hash of the protocol's constants: alike for every unit, and there are thousands."""
    return fingerprint(protocol.fingerprint())


def check_name(name: str) -> None:
    """Find out whether a scorer of this name exists.

    Raises:
        ScorerError: naming the nearest known one.
    """
    if name in SCORERS:
        return
    plugins = _plugins()
    if name not in plugins:
        known = [*SCORERS, *sorted(plugins)]
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(known)}"
        raise ScorerError(f"unknown scorer {name!r}; {hint}")


def check_available(name: str) -> None:
    """Find out before any work whether a scorer can be had.

    Raises:
        ScorerError: naming what to install.
    """
    check_name(name)
    if name == REFEREE:
        from grasping import reference

        if not reference.available():
            raise ScorerError("scorer 'graspnetapi' is not installed; run scripts/install_referee.sh, or drop it")
    elif name == PHYSICS:
        from pipeline import physics_score

        physics_score.check_available()
    elif name not in SCORERS:
        plugin(name)


def plugin(name: str) -> Callable[..., Any]:
    """Load a plug-in's ``score_view(grasps, objects, T_camera_object, T_camera_table) -> ViewScore``.

    Raises:
        ScorerError: if there is none of that name, or it cannot be imported.
    """
    point = _plugins().get(name)
    if point is None:
        check_name(name)
        raise ScorerError(f"scorer {name!r} is no plug-in")
    try:
        function = point.load()
    except Exception as error:  # whatever a stranger's module does on import
        raise ScorerError(
            f"scorer {name!r} cannot be imported from {point.value} ({error}); install it again"
        ) from None
    if not callable(function):
        raise ScorerError(f"scorer {name!r}: {point.value} is no function; see pipeline/scorers.py")
    return function


def plugin_identity(name: str) -> dict[str, Any]:
    """Return what a plug-in's scores depend on besides their input, for fingerprints."""
    point = _plugins()[name]
    return {"object": point.value, "package": point.dist.name, "version": point.dist.version}
