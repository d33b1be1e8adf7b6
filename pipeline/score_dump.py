"""Score anybody's dump in the official layout: AP with its protocol beside it, whatever state the input is in.

Reads
    ``DUMP/scene_SSSS/<camera>/VVVV.npy`` and, of a dataset in GraspNet-1Billion's layout, ``annotations/``,
    ``camera_poses.npy``, ``cam0_wrt_table.npy`` and ``models/`` (no images).
Writes
    nothing of its own; models are parsed once into the cache.

Rules for bad input. What the referee (graspnetAPI) grades is graded identically; what crashes it, or is not finite, is
refused where it stands. Nothing is dropped from a mean: a view that was asked for and has no grasps counts as zero.

====================================== ================================================================================
input                                  what happens
====================================== ================================================================================
view's file missing                    view of AP 0, state ``missing``; counted aloud with the options that would score
                                       what is there
file without rows                      view of AP 0, state ``empty`` (the referee dies of it); also shape ``(0,)``
one ``(17,)`` row                      read as one grasp; a problem
truncated, pickled, an archive, text,  view of AP 0, state ``unreadable``; a problem. Never unpickled, and no header's
wrong shape, a folder, no permission   claim is believed beyond the file's size
floats and integers of any width       read as float64
NaN or infinite row                    refused before anything else, counted (the referee grades it by chance); the
                                       object id may be anything
width < 0, = 0, > 0.1 m                clipped to [0, 0.1], as the referee does; width 0 and depth <= 0 may occupy kept
depth <= 0, any height, huge numbers   places
left-handed or sheared rotation        graded as the referee does; where a kept grasp that neither collides nor is
                                       empty has a closing axis not of unit length (1e-5), the referee dies: that grasp
                                       fails with reason ``not_unit_axis``
duplicated rows, equal confidences     suppressed as any; equal confidences are ordered by the other columns
grasps far away                        belong to the nearest object, and are empty
object without a model                 left out: neither collides nor receives grasps; the result is incomplete
model without faces and distances      collides and receives grasps; those to be closed on it fail with reason
                                       ``no_distances``; the result is incomplete
``textured.sdf`` unreadable            distances are made from the mesh; a problem
``textured.sdf`` beside its mesh,      used as it is, as the referee would; a problem with figures
without padding, without inside
pose, annotation or camera unreadable, views without a result: zeros, state ``no_result``, exit status 1
no model in a whole scene
dataset, split, scene or dump absent   one line, exit status 2
====================================== ================================================================================
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grasping.prepared import PreparedObject, prepare_object
from pipeline import dump_result
from pipeline.artifacts import ArtifactError
from pipeline.artifacts import fingerprint as short_hash
from pipeline.datasets.graspnet import SPLITS, VIEWS_PER_SCENE, DatasetError, GraspNetDataset
from pipeline.dump_result import FORMAT_VERSION, ResultError, counted, differing, lost, ranges
from pipeline.dump_scene import NO_RESULT, SceneJob, SceneScore, score_scene
from pipeline.engines.batch import run_units
from pipeline.view_files import views_in

VIEWS_A_JOB = 64
MOST_DIFFERENCES = 8


class DumpError(ValueError):
    """A dump or a choice of its views that cannot be scored at all; the message names it and the remedy."""


@dataclass(frozen=True)
class Request:
    """What to score.

    Attributes:
        dump: folder of ``scene_SSSS/<camera>/VVVV.npy``.
        dataset: root of the dataset.
        camera: ``realsense`` or ``kinect``.
        cache: folder of ours for parsed models.
        split: every scene of it that the dataset has; ``all`` takes every scene that the dataset has.
        scenes: these instead; with neither, the scenes that dump and dataset both have.
        views: numbers, of every scene; None takes all that the dataset has.
        scales: grade each width bin's grasps on their own too.
        self_check: score sampled true grasps on the same views too.
        workers: processes.
    """

    dump: Path
    dataset: Path
    camera: str
    cache: Path
    split: str | None = None
    scenes: tuple[int, ...] | None = None
    views: tuple[int, ...] | None = None
    scales: bool = False
    self_check: bool = False
    workers: int = 1


@dataclass(frozen=True, eq=False)
class Scored:
    """A result, as its JSON says it, and the scenes behind it, ordered by scene and view."""

    result: dict[str, Any]
    scenes: tuple[SceneScore, ...]

    @property
    def complete(self) -> bool:
        """Whether every view that was asked for got a result."""
        return self.result["view_states"][NO_RESULT] == 0


def score_dump(
    request: Request,
    *,
    against: Mapping[str, Any] | None = None,
    force: bool = False,
    say: Callable[[str], None] = print,
) -> Scored:
    """Score a dump.

    Args:
        request: what.
        against: another dump's result to compare with; fingerprints that differ are refused before anything is
            scored, and once more when the poses are known.
        force: compare nevertheless.
        say: is told what is worth knowing before the scoring begins.

    Raises:
        DumpError: if dump or choice name nothing that can be scored.
        DatasetError: if the dataset is none.
        ResultError: if the fingerprints differ and ``force`` is not given.
    """
    begin = time.perf_counter()
    dataset = GraspNetDataset(request.dataset, request.camera)
    views, problems = choose(request, dataset)
    absent = {scene: _absent(request, scene, numbers) for scene, numbers in views.items()}
    for line in announce(request, views, absent, dataset):
        say(line)

    ids, failures = _object_ids(dataset, views)
    objects = prepare_models(dataset, sorted({i for one in ids.values() for i in one}), request.cache, request.workers)
    if against is not None and not force:
        _refuse_other(dump_result.fingerprint(request.camera, views, objects.values(), None), against)

    jobs = scene_jobs(request, {s: v for s, v in views.items() if s in ids}, ids, objects)
    scores = _run(jobs, request.workers, "score    ")
    scores += [lost(scene, views[scene], text) for scene, text in failures.items()]
    scores.sort(key=lambda score: (score.scene, score.views[0]))

    poses = [text for score in scores for text in score.poses]
    fingerprint = dump_result.fingerprint(request.camera, views, objects.values(), poses)
    for item in objects.values():
        problems += [_problem(text, object_id=item.object_id) for text in (*item.problems, *item.notes)]
    for scene, gone in absent.items():
        if gone:
            text = f"{len(gone)} of {counted(len(views[scene]), 'view')} not in the dump: {ranges(gone)}"
            problems.append(_problem(text, scene=scene))
    problems += [_problem(text, scene=score.scene, view=view) for score in scores for view, text in score.problems]
    result: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        **dump_result.summarize(scores, scales=request.scales),
        "problems": problems,
        "complete": all(item.usable and item.closable for item in objects.values())
        and not any(state == NO_RESULT for score in scores for state in score.states),
        "fingerprint": fingerprint,
        "fingerprint_short": short_hash(fingerprint)[:12],
        "camera": request.camera,
        "dump": str(request.dump),
        "dataset": str(request.dataset),
    }
    if request.self_check:
        from pipeline import true_grasps

        result["ceiling"] = true_grasps.ceiling(jobs, request.workers)
    result["seconds"] = {
        "whole": round(time.perf_counter() - begin, 3),
        "views": round(sum(score.seconds for score in scores), 3),
        "workers": request.workers,
    }
    scored = Scored(result, tuple(scores))
    if against is not None:
        if not force:
            _refuse_other(fingerprint, against)
        result["against"] = {
            "dump": against.get("dump"),
            "fingerprints_differ": differing(fingerprint, against["fingerprint"]),
            **dump_result.difference(result, against),
        }
    return scored


def choose(request: Request, dataset: GraspNetDataset) -> tuple[dict[int, tuple[int, ...]], list[dict[str, Any]]]:
    """Return the views to score of each scene, and the problems that the choice itself has.

    Raises:
        DumpError: if nothing is left, or a scene or view is asked for that cannot be.
        DatasetError: if the split is unknown.
    """
    dump = request.dump
    if not dump.is_dir():
        kind = "a file" if dump.exists() else "no such folder"
        raise DumpError(f"{dump}: {kind}; give the folder that holds scene_SSSS/{request.camera}/VVVV.npy")
    here, present = dumped_scenes(dump, request.camera), dataset.scene_ids()
    if not here:
        raise DumpError(
            f"{dump}: holds no scene_SSSS/{request.camera}; give the folder right above the scenes, or another --camera"
        )
    problems: list[dict[str, Any]] = []
    if request.scenes is not None:
        scenes = sorted(set(request.scenes))
        unknown = sorted(set(scenes) - set(present))
        if unknown:
            raise DumpError(
                f"{dataset.root}: no scene {unknown[0]} for camera {request.camera!r}; it holds {ranges(present)}"
            )
        if request.split is not None:
            scenes = sorted(set(scenes) & set(_split(dataset, request.split)))
    elif request.split is not None:
        scenes = _split(dataset, request.split)
    else:
        scenes = sorted(set(here) & set(present))
        if not scenes:
            raise DumpError(
                f"{dump}: has scenes {ranges(here)}, but {dataset.root} holds {ranges(present)} for "
                f"{request.camera!r}; give the dataset that the dump is of"
            )
        foreign = sorted(set(here) - set(present))
        if foreign:
            problems.append(_problem(f"the dataset does not hold scenes {ranges(foreign)} of the dump: not scored"))
    if not scenes:
        asked = " among those asked for" if request.scenes is not None else ""
        raise DumpError(
            f"{dataset.root}: holds no scene of split {request.split!r}{asked}; it holds {ranges(present)} for "
            f"{request.camera!r}"
        )
    beyond = sorted(view for view in set(request.views or ()) if not 0 <= view < VIEWS_PER_SCENE)
    if beyond:
        raise DumpError(f"a scene has views 0 to {VIEWS_PER_SCENE - 1}, not {beyond[0]}; choose other --views")
    wanted = None if request.views is None else tuple(sorted(set(request.views)))
    return {scene: wanted or tuple(sorted(dataset.view_ids(scene))) for scene in scenes}, problems


def _split(dataset: GraspNetDataset, split: str) -> list[int]:
    return dataset.scene_ids(None if split == "all" else split)


def dumped_scenes(dump: Path, camera: str) -> list[int]:
    """List the scenes that a dump has a folder of, for one camera."""
    numbers = []
    for folder in dump.glob("scene_*"):
        digits = folder.name.removeprefix("scene_")
        if digits.isdecimal() and len(digits) == 4 and (folder / camera).is_dir():
            numbers.append(int(digits))
    return sorted(numbers)


def announce(
    request: Request,
    views: Mapping[int, Sequence[int]],
    absent: Mapping[int, Sequence[int]],
    dataset: GraspNetDataset,
) -> list[str]:
    """Say what is going to be scored, and loudly what of it is not there."""
    count, gone = sum(map(len, views.values())), sum(map(len, absent.values()))
    lines = [
        f"scoring    {counted(len(views), 'scene')} ({ranges(list(views))}), {counted(count, 'view')}, {request.camera}"
    ]
    if gone:
        lines.append(f"MISSING    {gone} of {counted(count, 'view')} not in the dump; each counts as zero")
        there = {scene: sorted(set(views[scene]) - set(absent[scene])) for scene in views}
        whole = [scene for scene, numbers in there.items() if numbers]
        shared = sorted(set.intersection(*(set(there[scene]) for scene in whole))) if whole else []
        if whole and shared:
            options = f"--scenes {ranges(whole)}" if len(whole) < len(views) or request.scenes else ""
            if any(len(shared) < len(views[scene]) for scene in whole):
                options += f" --views {ranges(shared)}"
            lines.append(f"           to score what all its scenes have: {options.strip()}")
        elif not whole:
            lines.append("           that is all of them: this scores nothing; choose other --scenes or --views")
    if request.split in (*SPLITS, "test") and request.scenes is None:
        members = [name for name in SPLITS if name == request.split or (request.split == "test" and name != "train")]
        official = sum(len(SPLITS[name]) for name in members)
        if len(views) < official:
            lines.append(
                f"note       {dataset.root} holds {len(views)} of the {official} scenes of {request.split}: "
                "AP is over those"
            )
    if request.split is None and request.scenes is None:
        for name, numbers in SPLITS.items():
            part = [scene for scene in views if scene in numbers]
            if part and len(part) < len(numbers):
                lines.append(
                    f"note       {len(part)} of the {len(numbers)} scenes of {name} are in dump and dataset; "
                    f"--split {name} counts what the dump lacks as zero"
                )
    return lines


def _absent(request: Request, scene: int, views: Sequence[int]) -> list[int]:
    folder = request.dump / f"scene_{scene:04d}" / request.camera
    try:
        there = set(views_in(folder, ".npy"))  # none where there is no folder; a run's own dump may be packed
    except (OSError, ArtifactError):  # may not be listed, or its pack is broken: unreadable one by one
        return []
    return [view for view in views if view not in there]


def _object_ids(
    dataset: GraspNetDataset, scenes: Mapping[int, Sequence[int]]
) -> tuple[dict[int, tuple[int, ...]], dict[int, str]]:
    """Objects of each scene, and why a scene has none."""
    ids: dict[int, tuple[int, ...]] = {}
    failures: dict[int, str] = {}
    for scene in scenes:
        try:
            ids[scene] = dataset.object_ids(scene)
        except DatasetError as error:
            failures[scene] = str(error)
    return ids, failures


def prepare_models(
    dataset: GraspNetDataset, object_ids: Sequence[int], cache: Path, workers: int
) -> dict[int, PreparedObject]:
    """Make every model ready once, before the workers that share it start.

    Raises:
        DumpError: if the cache cannot be written.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            pass
    except OSError as error:
        raise DumpError(f"{cache}: cannot be written ({error.strerror or error}); choose another --cache") from None
    units = [(f"model {number:03d}", (dataset.model_dir(number), number, cache)) for number in object_ids]
    outcomes = run_units(_prepare, units, workers=workers, title="models   ")
    out = {}
    for number, outcome in zip(object_ids, outcomes, strict=True):
        out[number] = outcome.value or PreparedObject(
            number, "missing", problems=(f"model {number:03d}: {outcome.error}; it is left out",)
        )
    return out


def _prepare(argument: tuple[Path, int, Path]) -> PreparedObject:
    return prepare_object(*argument)


def scene_jobs(
    request: Request,
    views: Mapping[int, Sequence[int]],
    ids: Mapping[int, Sequence[int]],
    objects: Mapping[int, PreparedObject],
) -> list[SceneJob]:
    """Share the views out: at most 64 of one scene a job, fewer where workers would be idle."""
    total = sum(map(len, views.values()))
    step = min(VIEWS_A_JOB, max(8, total // (4 * request.workers)))
    return [
        SceneJob(
            root=request.dataset,
            camera=request.camera,
            scene=scene,
            views=tuple(numbers[i : i + step]),
            dump=request.dump,
            objects=tuple(objects[number] for number in ids[scene]),
            scales=request.scales,
        )
        for scene, numbers in views.items()
        for i in range(0, len(numbers), step)
    ]


def _run(jobs: Sequence[SceneJob], workers: int, title: str) -> list[SceneScore]:
    units = [(f"scene_{job.scene:04d} {ranges(job.views)}", job) for job in jobs]
    outcomes = run_units(score_scene, units, workers=workers, title=title)
    return [
        outcome.value if outcome.error is None else lost(job.scene, job.views, outcome.error)
        for job, outcome in zip(jobs, outcomes, strict=True)
    ]


def _refuse_other(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    different = differing(ours, theirs["fingerprint"])
    if different:
        shown = "; ".join(different[:MOST_DIFFERENCES])
        more = f"; and {len(different) - MOST_DIFFERENCES} more" if len(different) > MOST_DIFFERENCES else ""
        raise ResultError(
            f"the two results are not comparable (theirs -> ours): {shown}{more}; score both alike, or give --force"
        )


def _problem(
    text: str, *, scene: int | None = None, view: int | None = None, object_id: int | None = None
) -> dict[str, Any]:
    return {"scene": scene, "view": view, "object": object_id, "reason": text}
