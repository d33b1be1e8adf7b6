"""The picture of ``grasp-utility frame``: grasps on the image, and partial against completed clouds in 3-D."""

from __future__ import annotations

import textwrap
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from grasping.grasps import Grasps
from grasping.gripper import GRASPNET_GRIPPER, Gripper
from grasping.protocol import SUPPRESSION_ANGLE, SUPPRESSION_TRANSLATION
from grasping.suppression import suppress
from grasping.transforms import transform_points
from pipeline.cloud_files import ObjectClouds
from pipeline.datasets.frame import Frame

OBSERVED, COMPLETED, GRASP = "#1f77b4", "#ff7f0e", "#2ca02c"  # blue, orange, green
HANDLE = 0.04  # metres: a stem behind the base, so that one sees where the hand comes from
POINTS_DRAWN = 12_000  # a cloud, all objects together


def wireframes(grasps: Grasps, gripper: Gripper = GRASPNET_GRIPPER) -> NDArray[np.float64]:
    """Return ``(N, 4, 2, 3)``: four strokes a grasp (two fingers, base, stem), metres, the frame of the grasps."""
    half, zero = grasps.width / 2, np.zeros(len(grasps))
    back = np.full(len(grasps), -gripper.finger_back)

    def at(x: NDArray, y: NDArray) -> NDArray:
        return np.stack([x, y, zero], axis=1)

    strokes = [
        (at(back, -half), at(grasps.depth, -half)),
        (at(back, half), at(grasps.depth, half)),
        (at(back, -half), at(back, half)),
        (at(back - HANDLE, zero), at(back, zero)),
    ]
    local = np.stack([np.stack(stroke, axis=1) for stroke in strokes], axis=1)
    return np.einsum("nij,nskj->nski", grasps.rotation, local) + grasps.translation[:, None, None]


def best_of_each(grasps: Grasps, count: int) -> Grasps:
    """Return the ``count`` most confident grasps of every object that are not much alike, the best ones last.

    Two grasps are alike within 15 mm and 30 degrees of approach: ten strokes on one spot show nothing.
    """
    chosen: list[int] = []
    for number in np.unique(grasps.object_id):
        kept: list[int] = []
        own = np.flatnonzero(grasps.object_id == number)
        for index in own[np.argsort(-grasps.confidence[own], kind="stable")]:
            apart = np.linalg.norm(grasps.translation[kept] - grasps.translation[index], axis=1) > 0.015
            turned = grasps.rotation[kept, :, 0] @ grasps.rotation[index, :, 0] < np.cos(np.radians(30))
            if np.all(apart | turned):
                kept.append(int(index))
            if len(kept) == count:
                break
        chosen += kept
    order = np.array(chosen, dtype=np.int64)
    return grasps[order[np.argsort(grasps.confidence[order], kind="stable")]]


def best_of_all(grasps: Grasps, count: int) -> Grasps:
    """Return the ``count`` most confident grasps that the protocol's suppression leaves, the best ones last."""
    chosen = suppress(grasps, SUPPRESSION_TRANSLATION, SUPPRESSION_ANGLE)[:count]
    return grasps[chosen[::-1]]


def added(partial: ObjectClouds, completed: ObjectClouds, apart: float = 0.004) -> NDArray[np.float32]:
    """Return the ``(N, 3)`` completed points that lie more than ``apart`` metres from their object's observed ones."""
    new = [np.zeros((0, 3), np.float32)]
    for before, after in zip(partial.clouds, completed.clouds, strict=True):
        if len(before):
            distance, _ = cKDTree(before).query(after)
            new.append(after[distance > apart])
    return np.concatenate(new)


def draw_frame(
    out: IO[bytes],
    *,
    frame: Frame,
    segments: NDArray[np.int64],
    partial: ObjectClouds,
    completed: ObjectClouds,
    grasps: Grasps,
    chosen: str,
    T_table_camera: NDArray[np.float64],
    title: str,
    note: str,
) -> None:
    """Draw one PNG: left the image with segments and grasps, right the clouds as seen from beside the camera.

    Args:
        out: an open binary file.
        frame, segments, partial, completed: see :class:`pipeline.frame.FrameResult`.
        grasps: those to be drawn, the last on top.
        chosen: which these are, for people.
        T_table_camera: ``(4, 4)``, metres.
        title, note: printed above and below.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height, width = frame.depth.shape
    figure = Figure(figsize=(19, 10.4 * height / width + 1.4), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(1, 2, width_ratios=[1.25, 1], left=0.01, right=0.98, bottom=0.06, top=0.9, wspace=0.02)
    numbers = [int(number) for number in partial.object_ids]
    _draw_image(figure.add_subplot(grid[0]), frame, segments, numbers, grasps, chosen)
    scene = figure.add_subplot(grid[1], projection="3d")
    _draw_clouds(scene, partial, completed, grasps, T_table_camera)
    figure.suptitle(title, fontsize=12)
    figure.text(0.5, 0.012, textwrap.fill(note, 200), ha="center", fontsize=10, color="#a00000")
    figure.savefig(out, format="png")


def _draw_image(
    axes: Any, frame: Frame, segments: NDArray[np.int64], numbers: list[int], grasps: Grasps, chosen: str
) -> None:
    from matplotlib import colormaps, patheffects
    from scipy.ndimage import distance_transform_edt

    height, width = frame.depth.shape
    if frame.color is not None:
        base = frame.color.astype(np.float64) / 255
    else:
        seen = frame.depth > 0
        near, far = np.percentile(frame.depth[seen], [1, 99])
        base = colormaps["gray_r"](np.clip((frame.depth - near) / max(far - near, 1e-6), 0.1, 1.0))[..., :3]
        base[~seen] = 0.0
    colours = _object_colours(len(numbers))
    for number, colour in zip(numbers, colours, strict=True):
        inside = segments == number
        base[inside] = 0.75 * base[inside] + 0.25 * np.array(colour)
    axes.imshow(base, interpolation="nearest")
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    axes.set_axis_off()
    for number, colour in zip(numbers, colours, strict=True):
        inside = segments == number
        axes.contour(inside.astype(np.float32), levels=[0.5], colors=[colour], linewidths=1.0)
        # Where the segment is widest: its outermost points are often under something else.
        spot = np.unravel_index(int(np.argmax(distance_transform_edt(inside))), inside.shape)
        axes.annotate(
            str(number),
            (spot[1], spot[0]),
            zorder=5,
            color="white",
            fontsize=11,
            fontweight="bold",
            ha="center",
            va="center",
            path_effects=[patheffects.withStroke(linewidth=3, foreground="black")],
            annotation_clip=True,
        )
    strokes = wireframes(grasps)
    # What lies behind the camera cannot be drawn; such a grasp has left the picture anyway.
    ahead = np.asarray(strokes[..., 2].min(axis=(1, 2), initial=np.inf) > 0.02)
    pixels = strokes @ frame.intrinsics.T
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = pixels[..., :2] / pixels[..., 2:]
    top = float(grasps.confidence.max()) if len(grasps) else 1.0
    for lines, confidence, visible in zip(pixels, grasps.confidence, ahead, strict=True):
        if not visible:
            continue
        shade = colormaps["RdYlGn"](0.15 + 0.85 * max(0.0, float(confidence)) / max(top, 1e-9))
        for line in lines:
            axes.plot(line[:, 0], line[:, 1], color="black", linewidth=4.2, solid_capstyle="round")
        for line in lines:
            axes.plot(line[:, 0], line[:, 1], color=shade, linewidth=2.2, solid_capstyle="round")
    count = f"{len(numbers)} object{'' if len(numbers) == 1 else 's'}"
    what = f"{chosen}, from red to green by confidence" if len(grasps) else "no grasp was found"
    axes.set_title(f"{count}; {what}", fontsize=11)


def _draw_clouds(
    axes: Any, partial: ObjectClouds, completed: ObjectClouds, grasps: Grasps, T_table_camera: NDArray[np.float64]
) -> None:
    from mpl_toolkits.mplot3d.art3d import Line3DCollection

    rng = np.random.default_rng(0)
    changed = any(a is not b for a, b in zip(partial.clouds, completed.clouds, strict=True))
    size = float(np.clip(40_000 / max(1, len(partial.points)), 2.0, 10.0))
    sources = [("completed, where nothing was observed", added(partial, completed), COMPLETED, 0.5)] if changed else []
    drawn: list[NDArray] = []
    for name, cloud, colour, alpha in [*sources, ("observed", partial.points, OBSERVED, 0.9)]:
        points = transform_points(T_table_camera, cloud[rng.permutation(len(cloud))[:POINTS_DRAWN]])
        axes.scatter(*points.T, s=size, c=colour, alpha=alpha, linewidths=0, label=name, depthshade=False)
        drawn.append(points)
    strokes = transform_points(T_table_camera, wireframes(grasps))
    lines = strokes.reshape(-1, 2, 3)
    axes.add_collection3d(Line3DCollection(lines, colors=GRASP, linewidths=1.2, label="grasps"), autolim=False)
    everything = np.concatenate([*drawn, lines.reshape(-1, 3)])
    if len(everything):
        low, high = everything.min(axis=0), everything.max(axis=0)
        low[2], high[2] = min(low[2], 0.0), max(high[2], 0.06)
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), zlim=(low[2], high[2]))
        axes.set_box_aspect(high - low, zoom=1.1 if high[2] - low[2] < 0.7 * (high - low)[:2].max() else 0.95)
        corners = np.array(
            [[low[0], low[1]], [high[0], low[1]], [high[0], high[1]], [low[0], high[1]], [low[0], low[1]]]
        )
        axes.plot(corners[:, 0], corners[:, 1], 0.0, color="0.5", linewidth=0.8)
    # From where the camera stands, but lower and a little aside: so that one sees what it could not.
    camera = T_table_camera[:3, 3] - (everything.mean(axis=0) if len(everything) else 0.0)
    azimuth = float(np.degrees(np.arctan2(camera[1], camera[0])))
    if np.hypot(camera[0], camera[1]) < 0.05 * abs(camera[2]):
        azimuth = -90.0
    axes.view_init(elev=28, azim=azimuth + 35)
    axes.set_xlabel("x (m)")
    axes.set_ylabel("y (m)")
    axes.set_zlabel("z (m)")
    axes.tick_params(labelsize=7)
    axes.locator_params(nbins=5)
    axes.legend(loc="upper right", markerscale=(60 / size) ** 0.5, fontsize=10)
    axes.set_title("table frame, seen from beside the camera" + ("" if changed else " (no completion)"), fontsize=11)


def _object_colours(count: int) -> list[tuple[float, ...]]:
    from matplotlib import colormaps

    return [tuple(colormaps["tab20"]((2 * index + index // 10) % 20)[:3]) for index in range(count)]
