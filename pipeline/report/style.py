"""Colours of the page, and matplotlib figures as inline SVG that follow its light or dark scheme.

Hues are those of Okabe and Ito (2008), which people with any colour vision can tell apart; arms differ in their
marker as well. Figures are drawn in stand-in colours, one a role, which become CSS variables of the page.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from pipeline.report import standalone

# role -> (stand-in colour in matplotlib, light, dark)
ROLES = {
    "fg": ("#0a0b01", "#1b1f24", "#e6e8eb"),
    "muted": ("#0a0b02", "#5c6570", "#a0a9b4"),
    "grid": ("#0a0b03", "#dfe3e8", "#343a42"),
    "paper": ("#0a0b04", "#ffffff", "#1a1e23"),
}
_ARM_HUES = (  # blue, orange, green, vermilion, purple, sky
    ("#0072b2", "#4aa8e0"),
    ("#d98a00", "#f0ab2e"),
    ("#00855f", "#2cc296"),
    ("#c94f00", "#f2793a"),
    ("#b4588f", "#df93bf"),
    ("#3a9bd0", "#8fd0f5"),
)
_MARKERS = ("s", "^", "D", "v", "P", "X")
MARKER_TEXT = {"s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖", "o": "●", "*": "★"}

# What becomes of a grasp: (key, title, light, dark). Where the pictures show it, both are one: they know no scheme.
OUTCOMES = (
    ("success_0.4", "holds at µ ≤ 0.4", "#007a5a", "#007a5a"),
    ("success_0.8", "holds at µ ≤ 0.8", "#24b98c", "#24b98c"),
    ("success_1.2", "holds at µ ≤ 1.2", "#a3e6cf", "#a3e6cf"),
    ("no_closure", "contacts do not close", "#cc79a7", "#cc79a7"),
    ("no_contact", "no contact", "#e8d832", "#e8d832"),
    ("empty", "closes on nothing", "#e69f00", "#e69f00"),
    ("collides", "collides", "#d55e00", "#d55e00"),
    ("other", "other", "#777f88", "#8b949e"),
    ("missing", "no grasp at this rank", "#c9ced4", "#444b54"),
)
SUCCESS_STEPS = (0.4, 0.8, 1.2)
POINTS = {"observed": "#8a9096", "completed": "#54a4de"}  # of the pictures, in both schemes


@dataclass(frozen=True)
class Look:
    """How an arm is drawn: its role's name (a CSS variable), stand-in colour and marker."""

    variable: str
    stand_in: str
    marker: str

    @property
    def marker_text(self) -> str:
        return MARKER_TEXT[self.marker]


def looks(arms: Sequence[tuple[str, str]]) -> dict[str, Look]:
    """Give every arm its look, from ``(name, completion)`` in the experiment's order."""
    result: dict[str, Look] = {}
    hues = 0
    for name, completion in arms:
        if completion == "none" and not any(look.marker == "o" for look in result.values()):
            result[name] = Look("muted", ROLES["muted"][0], "o")
        elif completion == "truth" and not any(look.marker == "*" for look in result.values()):
            result[name] = Look("fg", ROLES["fg"][0], "*")
        else:
            index = hues % len(_ARM_HUES)
            # A seventh checkpoint repeats a hue, never the pair of hue and marker.
            marker = _MARKERS[(index + hues // len(_ARM_HUES)) % len(_MARKERS)]
            result[name] = Look(f"arm-{index}", f"#0a0c{index:02x}", marker)
            hues += 1
    return result


def outcome_stand_in(key: str) -> str:
    return f"#0a0d{[entry[0] for entry in OUTCOMES].index(key):02x}"


def css_variables(dark: bool) -> str:
    """Return the declarations of all colours for one scheme."""
    pick = 1 if dark else 0
    values = {name: (light, night)[pick] for name, (_, light, night) in ROLES.items()}
    values |= {f"arm-{index}": hue[pick] for index, hue in enumerate(_ARM_HUES)}
    values |= {_variable(key): (light, night)[pick] for key, _, light, night in OUTCOMES}
    values |= {f"points-{name}": hue for name, hue in POINTS.items()}
    return "".join(f"--{name}: {value};" for name, value in values.items())


def rgb(colour: str) -> tuple[int, int, int]:
    """Return ``#rrggbb`` as three numbers."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _variable(key: str) -> str:
    return "out-" + key.replace(".", "")


def outcome_variable(key: str) -> str:
    return _variable(key)


def _variables_of_stand_ins() -> dict[str, str]:
    table = {stand_in: name for name, (stand_in, _, _) in ROLES.items()}
    table |= {f"#0a0c{index:02x}": f"arm-{index}" for index in range(len(_ARM_HUES))}
    table |= {outcome_stand_in(key): _variable(key) for key, *_ in OUTCOMES}
    return table


def light_colours() -> dict[str, str]:
    """Return the light colour of every stand-in."""
    table = {stand_in: light for stand_in, light, _ in ROLES.values()}
    table |= {f"#0a0c{index:02x}": light for index, (light, _) in enumerate(_ARM_HUES)}
    return table | {outcome_stand_in(key): light for key, _, light, _ in OUTCOMES}


def arm_keys(arms: Sequence[str], look: dict[str, Look]) -> list[tuple[str, str, str]]:
    """Return the legend of arms for :func:`inline_svg`."""
    return [(arm, look[arm].stand_in, look[arm].marker) for arm in arms]


@contextmanager
def panel(width: float, height: float) -> Iterator[tuple[Any, Any]]:
    """Yield a matplotlib figure and axes of the report's style, ``width`` x ``height`` CSS pixels at full size."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    fg, muted, grid = (ROLES[name][0] for name in ("fg", "muted", "grid"))
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "report",
        "font.size": 11,
        "font.family": "sans-serif",
        "text.color": fg,
        "axes.labelcolor": muted,
        "axes.edgecolor": grid,
        "axes.facecolor": "none",
        "axes.labelsize": 11,
        "xtick.color": muted,
        "ytick.color": fg,
        "xtick.labelsize": 10.5,
        "ytick.labelsize": 11.5,
        "grid.color": grid,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "ytick.major.size": 0,
        "xtick.major.size": 0,
        "axes.unicode_minus": True,
    }
    with mpl.rc_context(settings):
        figure = Figure(figsize=(width / 72, height / 72), dpi=72, facecolor="none")
        FigureCanvasSVG(figure)
        yield figure, figure.add_subplot()


class Drawing(Markup):
    """A figure as an ``<svg>`` element of the page, and as files that stand alone.

    Attributes:
        standalone: an SVG file in the light colours, with its legend.
        png: the same as a PNG.
    """

    standalone: bytes = b""
    png: bytes = b""


def inline_svg(figure: Any, label: str, prefix: str, keys: Sequence[tuple[str, str, str]] = ()) -> Drawing:
    """Turn a figure into an ``<svg>`` element that stands in a page, and into files that stand alone.

    Args:
        figure: of :func:`panel`, while its context is open; it is used up.
        label: what one would say of it to somebody who cannot see it.
        prefix: makes its ids unique in the page.
        keys: ``(text, stand-in colour, marker)`` of a legend, which the page shows beside the figure and the files
            need inside.
    """
    text = _svg(figure)
    # In a page the element needs no namespaces, and its size is the style sheet's.
    text = re.sub(r"\sxmlns(:\w+)?=\"[^\"]*\"", "", text)
    text = re.sub(r"<svg[^>]*?viewBox=\"([^\"]*)\"[^>]*>", r'<svg viewBox="\1" role="img" aria-label="{label}">', text)
    text = text.replace("{label}", str(Markup.escape(label)), 1)
    text = re.sub(r"\bid=\"([^\"]+)\"", rf'id="{prefix}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", text)
    text = re.sub(r"xlink:href=\"#([^\"]+)\"", rf'href="#{prefix}-\1"', text)
    # Fonts are the page's; only size, weight and anchor are the figure's.
    text = re.sub(r"font: (?:(?P<weight>bold|\d+) )?(?P<size>[\d.]+)px [^;\"]*", _font, text)
    for stand_in, name in _variables_of_stand_ins().items():
        text = text.replace(stand_in, f"var(--{name})")
    drawing = Drawing(text)
    drawing.standalone, drawing.png = standalone.files(figure, label, keys, light_colours())
    return drawing


def _svg(figure: Any) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    return re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.S)


def _font(match: re.Match[str]) -> str:
    weight = f"; font-weight: {match['weight']}" if match["weight"] else ""
    return f"font-size: {match['size']}px{weight}"
