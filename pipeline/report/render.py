"""Point clouds and grippers as crisp little pictures, by a small splatter: discs, a depth buffer, shaded edges.

A picture is drawn at twice its size and shrunk. What is behind something shows faintly where it is a gripper, so that
one sees where fingers go. The background is transparent: the page's own colour shows through.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

OVERSAMPLING = 2
_SHADE = 45.0  # strength of the edges' shadows, per relative depth step
_DEEPEST_STEP = 0.02  # of relative depth: larger ones throw no darker shadow
_DARKEST = 0.45
_LINE = 3.2  # pixels of a gripper's stroke
_PIECES = 14  # into which a stroke is cut to know where it is hidden
_HIDDEN_BEHIND = 0.004  # metres
_COLOURS = 160


@dataclass(frozen=True)
class Camera:
    """A pinhole camera; its frame is x right, y down, z forward.

    Attributes:
        T_camera_world: ``(4, 4)``.
        focal: pixels.
        width, height: pixels.
        centre: where the optical axis meets the picture, pixels.
    """

    T_camera_world: NDArray[np.float64]
    focal: float
    width: int
    height: int
    centre: tuple[float, float]

    def project(self, points: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return pixels ``(N, 2)`` and depths ``(N,)`` in metres of ``(N, 3)`` world points."""
        seen = np.asarray(points, np.float64) @ self.T_camera_world[:3, :3].T + self.T_camera_world[:3, 3]
        z = np.where(seen[:, 2] > 1e-3, seen[:, 2], np.nan)
        return self.focal * seen[:, :2] / z[:, None] + self.centre, z


def look_at(eye: NDArray, target: NDArray, framed: NDArray, width: int, height: int, margin: float = 0.04) -> Camera:
    """Return a camera at ``eye`` whose picture ``framed`` points ``(N, 3)`` and ``margin`` metres around fill, z up."""
    forward = target - eye
    distance = float(np.linalg.norm(forward))
    forward = forward / distance
    right = np.cross(forward, [0.0, 0.0, 1.0])
    if np.linalg.norm(right) < 1e-3:  # straight down
        right = np.array([1.0, 0.0, 0.0])
    right /= np.linalg.norm(right)
    R = np.stack([right, np.cross(forward, right), forward])
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = R, -R @ eye
    seen = framed @ R.T + T[:3, 3]
    ahead = seen[seen[:, 2] > 1e-3]
    slopes = ahead[:, :2] / ahead[:, 2:] if len(ahead) else np.zeros((1, 2))
    low, high = slopes.min(axis=0) - margin / distance, slopes.max(axis=0) + margin / distance
    focal = float(np.min([width, height] / (high - low)))
    middle = focal * (low + high) / 2
    return Camera(T, focal, width, height, (width / 2 - float(middle[0]), height / 2 - float(middle[1])))


@dataclass(frozen=True)
class Layer:
    """Points of one colour.

    Attributes:
        points: ``(N, 3)`` world, metres.
        colour: RGB, 0..255.
        size: edge of what a point stands for, metres.
        opacity: 0..1.
        nearer: metres by which the points are drawn in front of where they are, to win over their like.
    """

    points: NDArray
    colour: tuple[int, int, int]
    size: float
    opacity: float = 1.0
    nearer: float = 0.0


@dataclass(frozen=True)
class Wire:
    """One gripper: strokes ``(S, 2, 3)`` in world metres, and its colour."""

    strokes: NDArray[np.float64]
    colour: tuple[int, int, int]


def draw(camera: Camera, layers: Sequence[Layer], wires: Sequence[Wire]) -> Image.Image:
    """Draw points, then grippers, far ones first; returns an RGBA image of the camera's size."""
    big = Camera(
        camera.T_camera_world,
        camera.focal * OVERSAMPLING,
        camera.width * OVERSAMPLING,
        camera.height * OVERSAMPLING,
        (camera.centre[0] * OVERSAMPLING, camera.centre[1] * OVERSAMPLING),
    )
    rgba, depth = _splat(big, layers)
    image = Image.fromarray(rgba, "RGBA")
    _draw_wires(image, big, wires, depth)
    return image.resize((camera.width, camera.height), Image.Resampling.BOX)


def _splat(camera: Camera, layers: Sequence[Layer]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Return the shaded picture ``(H, W, 4)`` and its depth ``(H, W)``, +inf where nothing is."""
    depth = np.full((camera.height, camera.width), np.inf)
    owner = np.full((camera.height, camera.width), len(layers), np.int64)
    for index, layer in enumerate(layers):
        pixels, z = camera.project(layer.points)
        known = np.isfinite(z)
        radii = np.maximum(1.0, 0.8 * layer.size * camera.focal / z[known])
        _splat_points(pixels[known], z[known] - layer.nearer, radii, index, depth, owner)
    colours = np.array([[*layer.colour, 255 * layer.opacity] for layer in layers] + [[0, 0, 0, 0]])
    return _shade(depth, owner, colours), depth


@numba.njit(cache=True)
def _splat_points(pixels: NDArray, z: NDArray, radii: NDArray, layer: int, depth: NDArray, owner: NDArray) -> None:
    """Draw discs into ``depth`` and ``owner`` ``(H, W)``; the nearest point owns a pixel."""
    height, width = depth.shape
    for i in range(len(z)):
        x, y, r = pixels[i, 0], pixels[i, 1], radii[i]
        if not (-r < x < width + r and -r < y < height + r):
            continue
        for row in range(max(0, int(np.ceil(y - r))), min(height - 1, int(np.floor(y + r))) + 1):
            reach = np.sqrt(r * r - (row - y) ** 2)
            for column in range(max(0, int(np.ceil(x - reach))), min(width - 1, int(np.floor(x + reach))) + 1):
                if z[i] < depth[row, column]:
                    depth[row, column] = z[i]
                    owner[row, column] = layer


@numba.njit(cache=True)
def _shade(depth: NDArray, owner: NDArray, colours: NDArray) -> NDArray[np.uint8]:
    """Colour every pixel, darker where a neighbour lies before it (eye-dome lighting, Boucheny 2009)."""
    height, width = depth.shape
    rgba = np.zeros((height, width, 4), np.uint8)
    for row in range(height):
        for column in range(width):
            own = depth[row, column]
            if not np.isfinite(own):
                continue
            behind = 0.0
            for step in (2, 5):
                for dy, dx in ((0, step), (0, -step), (step, 0), (-step, 0)):
                    y, x = row + dy, column + dx
                    if 0 <= y < height and 0 <= x < width and depth[y, x] < own:
                        behind += min(1.0 - depth[y, x] / own, _DEEPEST_STEP)
            shade = max(np.exp(-_SHADE * behind / 8), _DARKEST)
            colour = colours[owner[row, column]]
            for channel in range(3):
                rgba[row, column, channel] = np.uint8(colour[channel] * shade)
            rgba[row, column, 3] = np.uint8(colour[3])
    return rgba


def _draw_wires(image: Image.Image, camera: Camera, wires: Sequence[Wire], depth: NDArray[np.float64]) -> None:
    """Draw grippers over the picture, far ones first: a dark casing, the colour, and what is hidden only faintly."""
    over = Image.new("RGBA", image.size, (0, 0, 0, 0))
    faint = ImageDraw.Draw(over)
    visible = []
    for wire in wires:
        lines = []
        pixels, z = camera.project(_pieces(wire.strokes).reshape(-1, 3))
        pixels, z = pixels.reshape(-1, _PIECES + 1, 2), z.reshape(-1, _PIECES + 1)
        for path, depths in zip(pixels, z, strict=True):
            if not np.isfinite(depths).all():
                continue  # reaches behind the camera
            middle, middle_z = (path[1:] + path[:-1]) / 2, (depths[1:] + depths[:-1]) / 2
            column = np.clip(np.rint(middle[:, 0]).astype(int), 0, camera.width - 1)
            row = np.clip(np.rint(middle[:, 1]).astype(int), 0, camera.height - 1)
            hidden = middle_z > depth[row, column] + _HIDDEN_BEHIND
            for index, is_hidden in enumerate(hidden):
                line = (*path[index].tolist(), *path[index + 1].tolist())
                if is_hidden:
                    faint.line(line, fill=(*wire.colour, 90), width=round(_LINE * OVERSAMPLING))
                else:
                    lines.append(line)
        visible.append((float(np.nanmean(z)) if np.isfinite(z).any() else np.inf, lines, wire.colour))
    image.alpha_composite(over)
    pen = ImageDraw.Draw(image)
    for _, lines, colour in sorted(visible, key=lambda item: -item[0]):
        for line in lines:
            pen.line(line, fill=(25, 28, 32, 255), width=round((_LINE + 1.4) * OVERSAMPLING))
        for line in lines:
            pen.line(line, fill=(*colour, 255), width=round(_LINE * OVERSAMPLING))
            for x, y in (line[:2], line[2:]):  # round joints
                r = _LINE * OVERSAMPLING / 2 - 0.5
                pen.ellipse((x - r, y - r, x + r, y + r), fill=(*colour, 255))


def _pieces(strokes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``(S, P + 1, 3)`` points along each of ``(S, 2, 3)`` strokes."""
    t = np.linspace(0, 1, _PIECES + 1)[:, None]
    return strokes[:, None, 0] * (1 - t) + strokes[:, None, 1] * t


def png(image: Image.Image) -> bytes:
    """Write an RGBA image as a small PNG of few colours."""
    stream = io.BytesIO()
    image.quantize(_COLOURS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
        stream, "PNG", compress_level=7
    )
    return stream.getvalue()
