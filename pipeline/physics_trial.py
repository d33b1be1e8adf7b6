"""One trial as a picture strip: approach, closed, lifted, shaken, with what physics and the protocol say below.

Reads
    a run folder (its experiment says how physics tries grasps) or a dump in the official layout, and the dataset.
Writes
    a PNG strip and, if asked, a GIF of the whole trial.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from grasping.transforms import pose
from pipeline.artifacts import ArtifactError, atomic_write, default_cache
from pipeline.config import ConfigError, PhysicsSection, load_experiment
from pipeline.physics_pictures import Recording, load_mujoco, trial_pictures
from pipeline.run_folder import RunFolder, unit_folder, view_file

FRAME = (480, 400)  # pixels, width and height of one picture of the strip
GIF_FRAME = (360, 300)
GIF_PERIOD = 50  # milliseconds a picture
_LOOKS_PER_PICTURE = 2
_CAPTION = 46
_MARGIN = 6
_INK, _PAPER, _MUTED = (27, 31, 36), (255, 255, 255), (92, 101, 112)


@dataclass(frozen=True)
class TrialRequest:
    """What to draw; None stands for what the run says.

    Attributes:
        where: a run folder, an experiment file (its run is then runs/NAME), or a dump folder (then ``dataset`` must
            be given).
        scene, view: which dump file.
        rank: which grasp, by confidence among the candidates that survive suppression, from 0.
        out: the PNG to be.
        arm, generator, camera: of the run; for a dump only the camera counts.
        dataset: root of the dataset.
        cache: folder for files derived from models.
        friction: instead of the run's.
        isolation: the object alone, whatever the run says.
        gif: a GIF to be.
    """

    where: Path
    scene: int
    view: int
    rank: int
    out: Path
    arm: str | None = None
    generator: str | None = None
    camera: str | None = None
    dataset: Path | None = None
    cache: Path | None = None
    friction: float | None = None
    isolation: bool = False
    gif: Path | None = None


@dataclass(frozen=True)
class TrialPicture:
    """What was drawn: the trial's outcome, and the caption that says it."""

    outcome: str
    min_friction: float
    caption: str


@dataclass(frozen=True)
class _Source:
    dump: Path
    dataset: Path
    camera: str
    cache: Path
    section: PhysicsSection


def carry_out(request: TrialRequest) -> TrialPicture:
    """Try one grasp and draw it.

    Raises:
        ConfigError, ArtifactError, GraspFileError, DatasetError: for what is not there.
        ScorerError: if the extra ``physics`` is not installed.
        RendererMissingError: where nothing can render.
    """
    from pipeline.physics_score import check_available

    check_available()
    source = _source(request)
    load_mujoco()
    grasp = _grasp(request, source)
    recording = Recording()
    trial = grasp.trials.trials(grasp.target, grasp.grasps, recording)[0]
    caption = _caption(request, source, grasp, trial)
    if recording.model is None:  # wider than the hand opens: refused before anything moves
        raise ArtifactError(f"nothing to draw, since the hand opens less than that; {caption}")
    T_world_hand, up = _place(grasp)
    every = _LOOKS_PER_PICTURE if request.gif is not None else 0
    frames, moving = trial_pictures(recording, T_world_hand, up, _number(grasp), FRAME, every)
    _write_strip(frames, caption, request.out)
    if request.gif is not None:
        _write_gif(moving, request.gif)
    return TrialPicture(trial.outcome, grasp.min_friction, caption)


def _place(grasp: _Grasp) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the hand's pose in the trial's world, and which way is up there."""
    if grasp.trials.scene is None:
        return np.eye(4), np.array([-1.0, 0.0, 0.0])
    T_object_hand = pose(grasp.grasps.rotation[0], grasp.grasps.translation[0])
    return grasp.trials.scene.T_table_object[grasp.target[0]] @ T_object_hand, np.array([0.0, 0.0, 1.0])


def _number(grasp: _Grasp) -> int:
    return 0 if grasp.trials.scene is None else int(grasp.target[0])


def _source(request: TrialRequest) -> _Source:
    run, written = _run(request.where)
    if not written.is_file():
        if request.dataset is None:
            raise ConfigError(f"{request.where}: no experiment file and no run; for a dump give its --dataset too")
        cache = request.cache or default_cache()
        section = _section(PhysicsSection(), request)  # type: ignore[call-arg]
        return _Source(request.where, request.dataset, request.camera or "realsense", cache, section)
    experiment = load_experiment(written)
    arm = _named(request.arm, [arm.name for arm in experiment.members()], "arm", request.where)
    generator = _named(request.generator, [item.label for item in experiment.generators], "generator", request.where)
    return _Source(
        RunFolder(run).dump(arm, generator),
        request.dataset or experiment.dataset.root,
        request.camera or experiment.dataset.cameras[0],
        request.cache or experiment.cache_folder(),
        _section(experiment.trials(), request),
    )


def _run(where: Path) -> tuple[Path, Path]:
    """Return the run folder and the experiment file that a user means by one path."""
    if not where.is_file():
        return where, where / "experiment.json"
    inside = where.name == "experiment.json"
    return where.parent if inside else Path("runs") / load_experiment(where).name, where


def _section(section: PhysicsSection, request: TrialRequest) -> PhysicsSection:
    changes: dict[str, Any] = {"repeats": 1}
    if request.friction is not None:
        changes["friction"] = request.friction
    if request.isolation:
        changes["mode"] = "isolation"
    return PhysicsSection.model_validate({**section.model_dump(), **changes})


def _named(asked: str | None, known: list[str], what: str, run: Path) -> str:
    if asked is None:
        return known[0]
    if asked not in known:
        raise ConfigError(f"{run}: has no {what} {asked!r}; it has {', '.join(known)}")
    return asked


@dataclass(frozen=True, eq=False)
class _Grasp:
    """The grasp that is to be tried, alone in its object's frame, and what the protocol says of it."""

    trials: Any  # pipeline.physics_score.SceneTrials
    target: NDArray[np.int64]
    grasps: Any  # grasping.grasps.Grasps, of one
    object_id: int
    min_friction: float
    reason: str


def _grasp(request: TrialRequest, source: _Source) -> _Grasp:
    from grasping import protocol
    from pipeline.datasets.graspnet import GraspNetDataset
    from pipeline.physics_score import hand_rotation, in_objects, prepare
    from pipeline.truth import scored_object
    from pipeline.view_files import load_grasps

    grasps = load_grasps(view_file(unit_folder(source.dump, request.scene, source.camera), request.view, ".npy"))
    dataset = GraspNetDataset(source.dataset, source.camera)
    ids = dataset.object_ids(request.scene)
    objects = [scored_object(dataset, object_id, source.cache)[0] for object_id in ids]
    poses = dataset.object_poses(request.scene, request.view, ids)
    T_camera_table = np.linalg.inv(dataset.T_table_camera(request.scene, request.view))
    score = protocol.score_view(grasps, objects, poses, T_camera_table)
    if request.rank >= len(score):
        raise ArtifactError(
            f"{source.dump}: view {request.view} of scene {request.scene} has {len(score)} grasps after suppression; "
            f"choose a --rank below that"
        )
    one = slice(request.rank, request.rank + 1)
    target = score.object_index[one]
    own = in_objects(replace(grasps[score.index[one]], width=score.width[one]), target, poses)
    rotation, possible = hand_rotation(own.rotation)
    if not possible[0]:
        raise ArtifactError(f"{source.dump}: the axes of grasp {request.rank} are none; choose another --rank")
    return _Grasp(
        prepare(source.section, dataset, request.scene, source.cache),
        target,
        replace(own, rotation=rotation),
        ids[int(target[0])],
        float(score.min_friction[request.rank]),
        str(score.reason[request.rank]),
    )


def _caption(request: TrialRequest, source: _Source, grasp: _Grasp, trial: Any) -> str:
    least = f"min_friction {grasp.min_friction:g}" if math.isfinite(grasp.min_friction) else grasp.reason
    where = "in the scene" if source.section.mode == "scene" else "alone"
    slip = f", slip {1000 * trial.slip:.0f} mm" if trial.held else ""
    return (
        f"scene {request.scene}, view {request.view}, rank {request.rank}, object {grasp.object_id}, {where}, "
        f"friction {source.section.friction:g}: physics {trial.outcome}{slip}; protocol {least}"
    )


def _write_strip(frames: list[tuple[str, NDArray[np.uint8]]], caption: str, out: Path) -> None:
    """Put titled frames side by side, the caption below."""
    width, height = FRAME
    total = (width + _MARGIN) * len(frames) - _MARGIN
    strip = Image.new("RGB", (total, height + _CAPTION), _PAPER)
    pen = ImageDraw.Draw(strip)
    for index, (name, frame) in enumerate(frames):
        left = index * (width + _MARGIN)
        strip.paste(Image.fromarray(frame).resize(FRAME), (left, 0))
        label = f" {name} "
        box = pen.textbbox((left + 8, 6), label, font=_font(19))
        pen.rectangle((box[0] - 2, box[1] - 3, box[2] + 2, box[3] + 4), fill=_PAPER)
        pen.text((left + 8, 6), label, font=_font(19), fill=_INK)
    pen.text((8, height + 12), caption, font=_fitting(caption, total - 16), fill=_INK)
    with atomic_write(out) as stream:
        strip.save(stream, "PNG")


def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def _fitting(text: str, width: int) -> Any:
    return next((_font(size) for size in range(21, 9, -1) if _font(size).getlength(text) <= width), _font(9))


def _write_gif(frames: list[NDArray[np.uint8]], out: Path) -> None:
    images = [Image.fromarray(frame).resize(GIF_FRAME).quantize(128) for frame in frames]
    with atomic_write(out) as stream:
        images[0].save(
            stream, "GIF", save_all=True, append_images=images[1:], duration=GIF_PERIOD, loop=0, optimize=True
        )
