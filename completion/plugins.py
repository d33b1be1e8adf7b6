"""Things by name from outside: networks and losses that this package does not hold.

A name is one of a dict of ours; an entry point of a group, which an installed distribution declares; or
``my_package.my_module:thing``, anything importable. The last is code that a file may name freely, so it is imported
only where the caller says ``trust_code``.
"""

from __future__ import annotations

import difflib
import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any


class PluginError(ValueError):
    """Something that is not known, not allowed, or cannot be imported; the message says what to change."""


@dataclass(frozen=True)
class Kind:
    """One kind of thing that may come from outside.

    Attributes:
        noun: "network" or "loss", for messages.
        group: of entry points.
        own: what this package holds, by name; comes before an entry point of the same name.
        example: how one is named as code.
        error: what is raised.
    """

    noun: str
    group: str
    own: Mapping[str, Callable[..., Any]]
    example: str
    error: type[PluginError] = PluginError

    def plugins(self) -> dict[str, EntryPoint]:
        """Those that installed distributions declare, by name; nothing is imported."""
        return {point.name: point for point in entry_points(group=self.group)}

    def known_names(self) -> list[str]:
        """Every name that needs no trust: ours and the entry points."""
        return sorted({*self.own, *self.plugins()})

    def find(self, name: str, trust_code: bool = False) -> Callable[..., Any]:
        """The class or function of this name.

        Args:
            name: see the module's docstring.
            trust_code: whether ``module:thing`` may be imported, which runs whatever stands in that module.

        Raises:
            PluginError: unknown name, code that is not trusted, or a module that cannot be imported.
        """
        if name in self.own:
            return self.own[name]
        if ":" in name:
            self._require_trust(name, trust_code)
            module, _, attribute = name.partition(":")
            return self._load(EntryPoint(name, f"{module.strip()}:{attribute.strip()}", self.group), name)
        point = self.plugins().get(name)
        if point is None:
            raise self.error(
                f"unknown name {name!r}{nearest_name(name, self.known_names())}; a {self.noun} of yours is an entry "
                f"point of the group {self.group}, or {self.example}"
            )
        return self._load(point, name)

    def identity(self, name: str, trust_code: bool = False) -> dict[str, Any]:
        """What results depend on besides configuration and weights, for fingerprints; nothing for ours.

        Of what comes from outside: the object, its distribution and version, and a hash of its source (every ``.py``
        file of its top-level package), since a package under development keeps its version.

        Raises:
            PluginError: as :meth:`find`.
        """
        point = self.plugins().get(name)
        if name in self.own:
            return {}
        factory = self.find(name, trust_code)
        module = (point.value if point is not None else name).partition(":")[0].strip()
        content: dict[str, Any] = {"object": point.value if point is not None else name, "source": source_hash(module)}
        if point is not None and point.dist is not None:
            content |= {"package": point.dist.name, "version": point.dist.version}
        elif content["source"] is None:
            content["source"] = repr(factory)
        return content

    def _require_trust(self, name: str, trust_code: bool) -> None:
        if not trust_code:
            raise self.error(
                f"{name!r} names Python code, and importing it runs whatever that module contains, with your rights. "
                "If you wrote it or trust who did, allow it with --trust-code (trust_code=True from Python)"
            )

    def _load(self, point: EntryPoint, name: str) -> Callable[..., Any]:
        try:
            made = point.load()
        except Exception as error:  # whatever a stranger's module does on import
            raise self.error(
                f"{name!r}: {point.value} cannot be imported ({type(error).__name__}: {error}); install its package in "
                "this environment, or put its folder on PYTHONPATH"
            ) from error
        if not callable(made):
            raise self.error(f"{name!r}: {point.value} is no class or function: it cannot be a {self.noun}")
        found: Callable[..., Any] = made
        return found


def nearest_name(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'? known: …)``, for the end of a message."""
    known = sorted(known)
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    meant = f"did you mean {close[0]!r}? " if close else ""
    return f" ({meant}known: {', '.join(known)})"


def source_hash(module: str) -> str | None:
    """Of every ``.py`` file of an imported module's top-level package; None where it has none."""
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
