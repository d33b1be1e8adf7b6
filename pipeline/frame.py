"""``grasp-utility frame``: one RGB-D image of the user's own, segmented, completed, grasped and drawn.

Reads
    a depth image, its intrinsics, and, where given, a mask and a colour image (:mod:`pipeline.datasets.frame`).
Writes, below ``out``, all in the camera frame and in metres
    ``grasps.npy``    ``(N, 17)`` float64, by falling confidence; column 17 is the object's number, -1 of what aims at
                      none of them (a detector of whole scenes may); these are not drawn.
    ``clouds.npz``    partial and completed clouds, background, segments, ``T_table_camera`` (no pickles).
    ``picture.png``   grasps on the image; partial and completed clouds in 3-D.
    ``summary.json``  what was found, and what was not.

There is no truth to score against: nothing here says whether a grasp would hold.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grasping.clouds import voxel_downsample
from grasping.generators import Generator, Placed, for_view, make_generator, sees_background
from grasping.grasps import Grasps
from grasping.transforms import invert, transform_points
from pipeline.arm_completion import Completion, caveats, describe_arm
from pipeline.artifacts import atomic_write, derive_seed, write_json
from pipeline.cloud_files import ObjectClouds
from pipeline.command_completer import CommandCompleter
from pipeline.completed_unit import complete_objects
from pipeline.config import Arm
from pipeline.datasets.frame import Frame, FrameError, read_frame
from pipeline.datasets.graspnet import View
from pipeline.frame_picture import best_of_all, best_of_each, draw_frame
from pipeline.generator_input import Points, generator_input
from pipeline.observe import object_clouds
from pipeline.segment import SegmentationError, Table, cluster_objects, drop_flying_pixels, find_table

FORMAT_VERSION = 1
NO_TRUTH = (
    "This is an image of the user's own: there is no true geometry to score against, so no grasp here is known to "
    "hold; confidence is the generator's opinion."
)
MAX_OBJECTS = 254  # the label image of a view has eight bits


@dataclass(frozen=True)
class FrameOptions:
    """What ``grasp-utility frame`` is asked to do; the only place of its defaults.

    Attributes:
        depth, intrinsics, mask, color, depth_scale: see :func:`pipeline.datasets.frame.read_frame`.
        out: folder to write.
        checkpoint: folder or shipped name of the completion network; ``partial`` = no completion.
        merge: ``replace`` or ``append``; None = what the checkpoint declares.
        device: ``auto``, ``cpu`` or ``cuda``.
        generator, generator_parameters: of :data:`grasping.generators.GENERATORS`.
        density: voxel edge of all clouds, metres.
        drawn: grasps drawn for each object, the most confident ones; None = by the number of objects, 2 to 5.
        best: draw so many of all instead, the most confident ones that the protocol's suppression leaves.
        seed: of everything random.
        trust_code: whether the checkpoint may name code (``module:Class``) that is then imported and run.
    """

    depth: Path
    out: Path
    checkpoint: str
    intrinsics: str | None = None
    mask: Path | None = None
    color: Path | None = None
    depth_scale: float | None = None
    merge: str | None = None
    device: str = "auto"
    generator: str = "antipodal"
    generator_parameters: dict[str, Any] = field(default_factory=dict)
    density: float = 0.003
    drawn: int | None = None
    best: int | None = None
    seed: int = 0
    trust_code: bool = False


@dataclass(frozen=True, eq=False)
class FrameResult:
    """What was found, camera frame, metres.

    Attributes:
        frame: the image as read.
        table: the plane under the objects.
        segments: ``(H, W)`` int64, the number of the object each pixel shows, 0 = none.
        partial, completed: clouds of the K objects, in the same order; their ids are the numbers in ``segments``.
        background: ``(M, 3)`` float32, what else stands on the table.
        grasps: by falling confidence.
        summary: what ``summary.json`` says.
        picture: the file to look at.
    """

    frame: Frame
    table: Table
    segments: NDArray[np.int64]
    partial: ObjectClouds
    completed: ObjectClouds
    background: NDArray[np.float32]
    grasps: Grasps
    summary: dict[str, Any]
    picture: Path


def run(
    options: FrameOptions, *, complete: Completion | None = None, generator: Generator | None = None
) -> FrameResult:
    """Segment, complete, grasp and draw one image.

    Args:
        options: see :class:`FrameOptions`.
        complete: instead of the network that ``options.checkpoint`` names.
        generator: instead of the one that ``options.generator`` names.

    Raises:
        FrameError: if the image cannot be used, shows no table or no object; names the file and the remedy.
        ValueError: on an unknown generator, checkpoint or parameter.
    """
    # Names first: a misspelt checkpoint should not cost the time of a segmentation.
    if generator is None:
        made = make_generator(options.generator, **options.generator_parameters)
        if isinstance(made, Placed):
            from completion.checkpoint import resolve_device  # torch, which such a generator needs anyway

            made = made.on(resolve_device(options.device).type)
        generator = for_view(made, 0, "frame", 0)
    if complete is None and options.checkpoint != "partial":
        complete = _network(options)
    frame = read_frame(
        options.depth,
        options.intrinsics,
        mask=options.mask,
        color=options.color,
        depth_scale=options.depth_scale,
    )
    depth, segments, table = segment(frame, options)
    numbers, partial, surroundings = _observe(frame, depth, segments, table, options.density)
    # The plane stands for the table in the collision test; its bumps would forbid every low grasp.
    height = transform_points(table.T_table_camera, surroundings)[:, 2]
    background = surroundings[height > table.roughness]
    completed = _complete(partial, table, complete, options)
    points = generator_input(
        getattr(generator, "default_input", "replace"),
        partial,
        completed,
        surroundings[_within(frame, surroundings)],
        options.density,
        sees_background=sees_background(generator),
    )
    found, refusal = _grasp(generator, points, np.concatenate([background, completed.points]), table, options.seed)
    grasps = found[np.argsort(-found.confidence, kind="stable")]

    summary = _summary(options, frame, table, numbers, partial, completed, grasps, refusal)
    picture = options.out / "picture.png"
    result = FrameResult(frame, table, segments, partial, completed, background, grasps, summary, picture)
    _write(result, options)
    return result


def segment(frame: Frame, options: FrameOptions) -> tuple[NDArray[np.float32], NDArray[np.int64], Table]:
    """Return the depth without flying pixels ``(H, W)``, the objects' numbers ``(H, W)`` and the table beneath them.

    Raises:
        FrameError: where there is no table, or nothing on it.
    """
    depth = drop_flying_pixels(frame.depth, frame.intrinsics)
    numbered = frame.mask is not None and frame.mask.dtype != np.bool_
    region = None if frame.mask is None else frame.mask > 0
    try:
        table = find_table(depth, frame.intrinsics, region, options.seed)
    except SegmentationError as error:
        raise FrameError(f"{options.depth}: {error}") from None
    if numbered:
        assert frame.mask is not None
        segments = frame.mask.astype(np.int64)
    else:
        segments = cluster_objects(depth, frame.intrinsics, table, region)
        if not segments.any():
            raise FrameError(
                f"{options.depth}: nothing of an object's size stands out of the table; "
                "give a --mask that numbers the objects"
            )
    # The workspace that observations are cut to lies around the table frame's origin: put that under the objects.
    return depth, segments, replace(table, T_table_camera=_centred(frame, depth, segments, table))


def _observe(
    frame: Frame, depth: NDArray[np.float32], segments: NDArray[np.int64], table: Table, voxel: float
) -> tuple[list[int], ObjectClouds, NDArray[np.float32]]:
    """Make clouds as a run's observations are made, from a view whose objects are called 0 to K - 1."""
    numbers = [int(number) for number in np.unique(segments) if number]
    if len(numbers) > MAX_OBJECTS:
        raise FrameError(
            f"the mask numbers {len(numbers)} objects; at most {MAX_OBJECTS} are taken: is it a photograph?"
        )
    label = np.searchsorted(numbers, segments) + 1
    label[segments == 0] = 0
    view = View(
        scene=0,
        view=0,
        camera="frame",
        depth=depth,
        label=label.astype(np.uint8),
        color=frame.color,
        intrinsics=frame.intrinsics,
        object_ids=tuple(range(len(numbers))),
        T_camera_object=np.tile(np.eye(4, dtype=np.float32), (len(numbers), 1, 1)),  # unknown, and not asked for
        T_table_camera=table.T_table_camera,
    )
    seen = object_clouds(view, voxel)
    objects = ObjectClouds(np.array(numbers, dtype=np.int64), seen.objects.clouds, seen.objects.status)
    return numbers, objects, seen.background


def _centred(
    frame: Frame, depth: NDArray[np.float32], segments: NDArray[np.int64], table: Table
) -> NDArray[np.float64]:
    """Return ``T_table_camera`` with its origin on the table beneath the middle of the objects."""
    v, u = np.nonzero((segments > 0) & (depth > 0))
    T = table.T_table_camera.copy()
    if len(v):
        z = depth[v, u].astype(np.float64)
        K = frame.intrinsics
        points = np.stack([(u - K[0, 2]) / K[0, 0] * z, (v - K[1, 2]) / K[1, 1] * z, z], axis=1)
        T[:2, 3] -= np.median(transform_points(T, points), axis=0)[:2]
    return T


def _network(options: FrameOptions) -> Completion:
    _, load = describe_arm(_arm(options), options.device, options.trust_code)
    assert load is not None
    network = load()
    assert not isinstance(network, CommandCompleter)  # of a checkpoint
    return network


def _arm(options: FrameOptions) -> Arm:
    merge: Any = options.merge
    return Arm(name="frame", checkpoint=options.checkpoint, merge=merge)


def _complete(partial: ObjectClouds, table: Table, complete: Completion | None, options: FrameOptions) -> ObjectClouds:
    if complete is None:
        return partial
    seeds = [derive_seed(options.seed, "frame", int(object_id), "complete") for object_id in partial.object_ids]
    made = complete_objects(partial, table.T_table_camera, complete, seeds)
    # Nothing is compared here: where the network fails, a grasp on what was seen is worth more than none.
    failed = [text.startswith("failed") for text in made.status]
    pairs = zip(made.clouds, partial.clouds, failed, strict=True)
    clouds = tuple(voxel_downsample(seen if lost else cloud, options.density) for cloud, seen, lost in pairs)
    status = tuple(
        f"{text}: observation kept" if lost else text for text, lost in zip(made.status, failed, strict=True)
    )
    return ObjectClouds(made.object_ids, clouds, status)


def _within(frame: Frame, points: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Say which points a workspace mask, where there is one, lets a generator look at; all are obstacles."""
    if frame.mask is None or frame.mask.dtype != np.bool_ or len(points) == 0:
        return np.ones(len(points), bool)
    projected = points @ frame.intrinsics.T
    u, v = np.rint(projected[:, :2] / projected[:, 2:]).astype(np.int64).T
    height, width = frame.mask.shape
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    inside[inside] = frame.mask[v[inside], u[inside]]
    return inside


def _grasp(
    generator: Generator, points: Points, obstacles: NDArray[np.float32], table: Table, seed: int
) -> tuple[Grasps, str | None]:
    """Return grasps, and why there are none where the generator failed."""
    cloud, ids = points
    if not (ids >= 0).any():
        return Grasps.empty(), "no object has a visible point"
    try:
        grasps = generator(cloud, ids, obstacles, invert(table.T_table_camera), np.zeros(3), seed)
    except Exception as error:  # a plug-in may raise anything; clouds and picture are still worth having
        return Grasps.empty(), f"the generator failed: {type(error).__name__}: {error}"
    return grasps, None if len(grasps) else "the generator found no grasp"


def _summary(
    options: FrameOptions,
    frame: Frame,
    table: Table,
    numbers: list[int],
    partial: ObjectClouds,
    completed: ObjectClouds,
    grasps: Grasps,
    refusal: str | None,
) -> dict[str, Any]:
    def name(path: Path | None) -> str | None:
        return None if path is None else str(path)

    objects = []
    for index, number in enumerate(numbers):
        cloud = partial.clouds[index]
        own = grasps[grasps.object_id == number]
        height = transform_points(table.T_table_camera, cloud)[:, 2].max() if len(cloud) else None
        objects.append(
            {
                "object": number,
                "status": completed.status[index],
                "observed_points": len(cloud),
                "completed_points": len(completed.clouds[index]),
                "height_m": None if height is None else round(float(height), 4),
                "grasps": len(own),
                "best_confidence": round(float(own.confidence[0]), 4) if len(own) else None,
            }
        )
    return {
        "format_version": FORMAT_VERSION,
        "note": NO_TRUTH,
        "caveats": [] if options.checkpoint == "partial" else caveats(_arm(options)),
        "inputs": {
            "depth": name(options.depth),
            "intrinsics": [round(float(frame.intrinsics[i]), 4) for i in ((0, 0), (1, 1), (0, 2), (1, 2))],
            "mask": name(options.mask),
            "color": name(options.color),
        },
        "segmentation": "mask" if frame.mask is not None and frame.mask.dtype != np.bool_ else "table removal",
        "checkpoint": options.checkpoint,
        "merge": options.merge,
        "generator": options.generator,
        "seed": options.seed,
        "density_m": options.density,
        "table": {
            "share_of_points": round(table.share, 4),
            "noise_m": round(table.noise, 5),
            "distance_m": round(float(table.T_table_camera[2, 3]), 4),
        },
        "objects": objects,
        "grasps": len(grasps),
        "grasps_on_no_object": int((grasps.object_id < 0).sum()),
        "no_grasps_because": refusal,
    }


def _write(result: FrameResult, options: FrameOptions) -> None:
    out = options.out
    with atomic_write(out / "grasps.npy") as stream:
        np.save(stream, result.grasps.to_array())
    arrays: dict[str, Any] = {"format_version": np.array(FORMAT_VERSION), "object_ids": result.partial.object_ids}
    for name, objects in (("partial", result.partial), ("completed", result.completed)):
        arrays[f"{name}_points"] = objects.points
        arrays[f"{name}_offsets"] = np.cumsum([0, *(len(cloud) for cloud in objects.clouds)])
        arrays[f"{name}_status"] = np.array(objects.status, dtype=np.str_)
    with atomic_write(out / "clouds.npz") as stream:
        np.savez_compressed(
            stream,
            allow_pickle=False,
            **arrays,
            background=result.background,
            segments=result.segments.astype(np.int32),
            intrinsics=result.frame.intrinsics,
            T_table_camera=result.table.T_table_camera,
        )
    on_objects = result.grasps[result.grasps.object_id >= 0]
    if options.best is None:
        each = options.drawn or min(5, max(2, 12 // len(result.partial.clouds)))
        drawn, chosen = best_of_each(on_objects, each), "the most confident grasps of each"
    else:
        drawn = best_of_all(on_objects, options.best)
        chosen = f"the {len(drawn)} most confident grasps after suppression"
    with atomic_write(result.picture) as stream:
        draw_frame(
            stream,
            frame=result.frame,
            segments=result.segments,
            partial=result.partial,
            completed=result.completed,
            grasps=drawn,
            chosen=chosen,
            T_table_camera=result.table.T_table_camera,
            title=f"{options.depth.name}   completion: {Path(options.checkpoint).name}   grasps: {options.generator}",
            note=NO_TRUTH,
        )
    write_json(out / "summary.json", result.summary)
