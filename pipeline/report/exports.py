"""The page's figures and tables as files beside it: ``report/figures/`` and ``report/tables/`` of the run folder.

The template asks for the links of everything that it draws, so what the page shows is what is written. Names come from
the exhibits' own names, and are the same in every report of the same experiment.
"""

from __future__ import annotations

import contextlib
import json
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifacts import atomic_write, write_json
from pipeline.report.exhibits import Figure
from pipeline.report.table_text import as_csv, as_latex, as_markdown
from pipeline.report.tables import Table

FORMAT_VERSION = 1
CONTENTS = "contents.json"
ANSWER = "answer.json"


@dataclass(frozen=True)
class Link:
    """A file of one exhibit: its format's name and its address, relative to the page."""

    text: str
    href: str


class Exports:
    """Collects what the page shows; ``folder`` is the name of the folder beside the page."""

    def __init__(self, folder: str = "report") -> None:
        self._folder = folder
        self._names: dict[int, str] = {}
        self._taken: set[str] = set()
        self._kept: list[Figure | Table] = []  # as long as they live, their ids are theirs
        self.files: dict[str, bytes] = {}

    def links(self, item: Figure | Table, within: str = "") -> list[Link]:
        """Take a figure or a table in and return the links to its files.

        Args:
            item: what is drawn.
            within: of several like it, which: the setting, or the camera.
        """
        folder = "figures" if isinstance(item, Figure) else "tables"
        if id(item) not in self._names:
            called = item.name if isinstance(item, Figure) else item.caption
            name = self._free(f"{folder}/{slug(f'{within} {called}')}")
            self._names[id(item)] = name
            self._kept.append(item)
            if isinstance(item, Figure):
                self.files[f"{name}.svg"] = item.svg.standalone
                self.files[f"{name}.png"] = item.svg.png
            else:
                for ending, write in (("csv", as_csv), ("tex", as_latex), ("md", as_markdown)):
                    self.files[f"{name}.{ending}"] = write(item).encode()
        name = self._names[id(item)]
        formats = (
            (("SVG", "svg"), ("PNG", "png")) if folder == "figures" else (("CSV", "csv"), ("TeX", "tex"), ("MD", "md"))
        )
        return [Link(text, f"{self._folder}/{name}.{ending}") for text, ending in formats]

    def _free(self, name: str) -> str:
        free, count = name, 1
        while free in self._taken:
            count += 1
            free = f"{name}-{count}"
        self._taken.add(free)
        return free

    def write(self, folder: Path, made_from: str) -> None:
        """Write every file, remove those of an earlier report that are no more, and last the list of them."""
        old = _listed(folder)
        for name, content in self.files.items():
            with atomic_write(folder / name) as stream:
                stream.write(content)
        for name in old - set(self.files):
            with contextlib.suppress(OSError):
                (folder / name).unlink()
        contents = {"format_version": FORMAT_VERSION, "made_from": made_from, "files": sorted(self.files)}
        write_json(folder / CONTENTS, contents)


def are_complete(folder: Path, made_from: str) -> bool:
    """Say whether the files are those of this report and all there."""
    try:
        contents = json.loads((folder / CONTENTS).read_text(encoding="utf-8"))
        return contents["made_from"] == made_from and all((folder / name).is_file() for name in _listed(folder))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _listed(folder: Path) -> set[str]:
    """Return the files that the folder's list names; names that lead out of it are nobody's."""
    try:
        names = json.loads((folder / CONTENTS).read_text(encoding="utf-8"))["files"]
        return {name for name in names if re.fullmatch(rf"(figures|tables)/[\w.-]+|{ANSWER}", name)}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def slug(text: str) -> str:
    """Return a text as a file's name: small letters, digits and hyphens."""
    text = text.replace("µ", "mu").replace("'", "").replace("%", " percent ").replace("+", " plus ")
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9.]+", "-", plain).strip("-.") or "exhibit"
