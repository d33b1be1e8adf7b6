"""A figure of the page as files that stand alone: stand-in colours become the light ones, and the legend moves in."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import escape

PNG_DPI = 220  # 72 of them are a CSS pixel of the page: about three times its size
_PROPERTIES = ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor")


def files(
    figure: Any, label: str, keys: Sequence[tuple[str, str, str]], colours: Mapping[str, str]
) -> tuple[bytes, bytes]:
    """Return a figure as an SVG and a PNG on white.

    Args:
        figure: a matplotlib figure with one pair of axes; it is changed.
        label: what one would say of it to somebody who cannot see it.
        keys: ``(text, colour, marker)`` of the legend above it.
        colours: stand-in colour -> colour.
    """
    if keys:
        _add_legend(figure, keys)
    _recolour(figure, colours)
    svg, png = io.StringIO(), io.BytesIO()
    figure.savefig(svg, format="svg", facecolor="white", metadata={"Date": None, "Creator": None})
    figure.savefig(png, format="png", facecolor="white", dpi=PNG_DPI)
    text = re.sub(r"<metadata>.*?</metadata>", "", svg.getvalue(), flags=re.S)
    text = re.sub(r"<!DOCTYPE[^>]*>\s*", "", text)  # it names a file on the network
    title = f' role="img"><title>{escape(label)}</title>'
    text = re.sub(r"(<svg[^>]*)>", lambda match: match[1] + title, text, count=1)
    return text.encode(), png.getvalue()


def _add_legend(figure: Any, keys: Sequence[tuple[str, str, str]]) -> None:
    """Put a legend above the axes, which keep their size: the figure grows."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=c, marker=m, linestyle="", markersize=8, markeredgewidth=0) for _, c, m in keys]
    texts = [text for text, *_ in keys]
    width, height = figure.get_size_inches()
    renderer = FigureCanvasAgg(figure).get_renderer()
    for columns in range(min(len(keys), 4), 0, -1):
        legend = figure.legend(
            handles,
            texts,
            loc="upper left",
            ncols=columns,
            frameon=False,
            fontsize=10.5,
            bbox_to_anchor=(0, 1),
            borderaxespad=0.3,
            columnspacing=1.4,
            handletextpad=0.3,
        )
        box = legend.get_window_extent(renderer)
        if box.width <= width * figure.dpi or columns == 1:
            break
        legend.remove()
    grown = height + box.height / figure.dpi + 0.06
    places = figure.subplotpars
    figure.subplots_adjust(top=places.top * height / grown, bottom=places.bottom * height / grown)
    figure.set_size_inches(width, grown)


def _recolour(figure: Any, colours: Mapping[str, str]) -> None:
    from matplotlib.colors import to_rgba
    from matplotlib.text import Text

    known = {tuple(np.round(to_rgba(stand_in)[:3], 4)): colour for stand_in, colour in colours.items()}

    def resolve(value: Any) -> Any:
        if isinstance(value, np.ndarray) and value.ndim == 2:
            return [resolve(tuple(row)) for row in value]
        red, green, blue, alpha = to_rgba(value)
        found = known.get(tuple(np.round((red, green, blue), 4)))
        return value if found is None or alpha == 0 else to_rgba(found, alpha)

    artists = figure.findobj()
    artists += [box for artist in artists if isinstance(artist, Text) and (box := artist.get_bbox_patch())]
    for artist in artists:
        for name in _PROPERTIES:
            read, write = getattr(artist, f"get_{name}", None), getattr(artist, f"set_{name}", None)
            if read is not None and write is not None:
                write(resolve(read()))
