"""What the template draws beside tables: figures, legends' entries, sections."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.report.style import Drawing


@dataclass(frozen=True)
class Figure:
    """One figure, what stands below it, and the name of its files."""

    svg: Drawing
    caption: str
    name: str


@dataclass(frozen=True)
class Key:
    """One entry of a legend: a marker or a swatch in a CSS colour, and its text."""

    text: str
    variable: str
    marker: str = "■"


@dataclass(frozen=True)
class Section:
    """One section of the page; its template lies in ``web/sections``.

    Attributes:
        id: of the element, and the template's name.
        title: of the heading.
        short: in the list of contents, where the title is long.
    """

    id: str
    title: str
    short: str = ""
