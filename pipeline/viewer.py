"""Layers of a view in a browser, or in one file that any browser opens: by viser, the extra ``viewer``.

viser rather than rerun: 4 MB against 170 MB (37 MB against 520 MB installed), and what it saves is a page with the
viewer inside, where rerun's file needs a viewer of its version. Nothing is fetched from the network.
"""

from __future__ import annotations

import contextlib
import io
import threading
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pipeline.artifacts import atomic_write
from pipeline.report.style import OUTCOMES
from pipeline.view import Layer, LineLayer, PointLayer, ViewLayers

HOST = "127.0.0.1"  # what lies on this machine is shown to this machine
LINE_WIDTH = 2.5  # pixels
ENDINGS = (".html", ".viser")
_LEGEND = Markup(
    '<div style="position:fixed;left:14px;bottom:14px;z-index:1000;pointer-events:none;max-width:46em;padding:8px 12px;'
    'background:rgba(255,255,255,.85);color:#1b1f24;font:13px/1.5 sans-serif">{}</div>'
)


class ViewerMissingError(OSError):
    """viser is not installed; the message says how it comes."""


class ViewerError(ValueError):
    """A file or port that cannot be used; the message names it."""


def load_viser() -> Any:
    """Import viser.

    Raises:
        ViewerMissingError: where the extra is not installed.
    """
    try:
        import viser
    except ImportError:
        raise ViewerMissingError("the viewer needs viser: pip install -e '.[viewer]'") from None
    return viser


def save(layers: ViewLayers, out: Path) -> None:
    """Write a page that opens in any browser (``.html``), or viser's own recording (``.viser``).

    Raises:
        ViewerMissingError, ViewerError: without viser, or for another ending.
    """
    viser = load_viser()
    if out.suffix not in ENDINGS:
        raise ViewerError(f"{out}: unknown ending; a file of the viewer is called *{' or *'.join(ENDINGS)}")
    with _server(viser, 0) as server:
        _draw(server, layers)
        recording = server.get_scene_serializer()
        if out.suffix == ".viser":
            data: bytes = recording.serialize()
        else:
            # A page without a server has viser's tree of layers, but no panel of ours: the legend stands below.
            data = recording.as_html().replace("</body>", f"{_LEGEND.format(legend(layers))}</body>", 1).encode()
    with atomic_write(out) as stream:
        stream.write(data)


def serve(layers: ViewLayers, port: int, browser: bool, say: Callable[[str], None], until: threading.Event) -> None:
    """Show the layers in a browser until told to stop.

    Args:
        layers: what to show.
        port: to be reached at; 0 takes any that is free, and so does one that is taken.
        browser: whether to open one here.
        say: is told where to look.
        until: set by whoever ends it.

    Raises:
        ViewerMissingError: without viser.
    """
    with _server(load_viser(), port) as server:
        _draw(server, layers)
        _panel(server, layers)
        address = f"http://localhost:{server.get_port()}"
        say(address)
        if browser:
            webbrowser.open(address)
        until.wait()


@contextlib.contextmanager
def _server(viser: Any, port: int) -> Iterator[Any]:
    with contextlib.redirect_stdout(io.StringIO()):  # it prints a banner of its own
        server = viser.ViserServer(host=HOST, port=port, verbose=False)
    try:
        yield server
    finally:
        with contextlib.redirect_stdout(io.StringIO()):
            server.stop()


def _draw(server: Any, layers: ViewLayers) -> None:
    """Put every layer into the scene, below its name."""
    server.scene.set_up_direction("+z")
    server.initial_camera.position = tuple(layers.eye)
    server.initial_camera.look_at = tuple(layers.target)
    for group in groups(layers):
        server.scene.add_frame(f"/{group}", show_axes=False)
    for layer in layers.layers:
        name = f"/{layer.name}"
        if isinstance(layer, LineLayer):
            server.scene.add_line_segments(
                name,
                layer.lines.reshape(-1, 2, 3),
                layer.colour,
                thickness=LINE_WIDTH,
                thickness_units="screen",
                visible=layer.shown,
            )
        elif len(layer.points):
            server.scene.add_point_cloud(
                name,
                layer.points,
                layer.colour,
                point_size=layer.size,
                point_shape="circle",
                precision="float32",  # half precision moves a point by up to half a millimetre
                visible=layer.shown,
            )


def groups(layers: ViewLayers) -> list[str]:
    """Return the names that layers hang below, outer ones first: ``arms``, ``arms/pcn-qal``, ..."""
    found: dict[str, None] = {}
    for layer in layers.layers:
        parts = layer.name.split("/")
        found.update(dict.fromkeys("/".join(parts[:depth]) for depth in range(1, len(parts))))
    return list(found)


def _panel(server: Any, layers: ViewLayers) -> None:
    """Add the legend, and a box to tick for every layer of the scene and for completion and grasps of every arm."""
    server.gui.configure_theme(show_share_button=False)
    server.gui.set_panel_label("grasp-utility")
    server.gui.add_html(str(legend(layers)))  # str: what it sends must be plain
    ticked: dict[tuple[str, str], list[Layer]] = {}
    for layer in layers.layers:
        *_, folder, label = layer.name.split("/")[: 2 if layer.name.startswith("scene/") else 3]
        ticked.setdefault((folder, label), []).append(layer)
    folders = {folder: server.gui.add_folder(folder) for folder in dict.fromkeys(folder for folder, _ in ticked)}
    for (folder, label), members in ticked.items():
        with folders[folder]:
            box = server.gui.add_checkbox(label, members[0].shown)
        box.on_update(_switch(server, [layer.name for layer in members]))


def _switch(server: Any, members: list[str]) -> Callable[[Any], None]:
    def update(event: Any) -> None:
        for name in members:
            handle = server.scene.get_handle_by_name(f"/{name}")
            if handle is not None:  # an empty layer has none
                handle.visible = event.target.value

    return update


def legend(layers: ViewLayers) -> Markup:
    """Say in HTML what is shown, in which colours, and what is missing."""
    order = [meaning for _, meaning, *_ in OUTCOMES]
    points = {layer.name.split("/")[-1]: layer.colour for layer in layers.layers if isinstance(layer, PointLayer)}
    grasps = {layer.meaning: layer.colour for layer in layers.layers if isinstance(layer, LineLayer)}
    meanings = {**points, **{meaning: grasps[meaning] for meaning in order if meaning in grasps}}
    square = Markup('<span style="white-space:nowrap"><span style="color:rgb({},{},{})">■</span> {}</span>')
    lines = [Markup("<b>{}</b>").format(layers.title)]
    lines.append(Markup(" &ensp;").join(square.format(*colour, text) for text, colour in meanings.items()))
    lines += [Markup("{}").format(note) for note in layers.notes]
    return Markup("<br>").join(lines)
