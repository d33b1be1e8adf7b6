"""Make a dataset in exactly GraspNet-1Billion's layout: settled scenes, 256 camera poses, rendered views, models.

Reads nothing (objects made by code, :mod:`pipeline.datasets.shapes`) or a folder of meshes. Writes below ``out``::

    manifest.json                                what was made from what; which views were rendered
    models/NNN/{nontextured.ply, textured.obj, textured.sdf}
    scenes/scene_SSSS/object_id_list.txt
    scenes/scene_SSSS/<camera>/{camK.npy, camera_poses.npy (256,4,4), cam0_wrt_table.npy (4,4)}
    scenes/scene_SSSS/<camera>/annotations/VVVV.xml                          all 256 views
    scenes/scene_SSSS/<camera>/{depth,label,rgb}/VVVV.png, meta/VVVV.mat     rendered views

Metres; depth in uint16 millimetres with the noise model that the manifest states; label = object id + 1. The same
parameters give the same bytes. A scene or a model that exists is finished: an interrupted call goes on where it was.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.artifacts import file_hash, fingerprint, write_json
from pipeline.datasets import rendering
from pipeline.datasets.graspnet import CAMERAS, MANIFEST_VERSION, SPLITS, VIEWS_PER_SCENE
from pipeline.datasets.mesh_folder import list_meshes
from pipeline.datasets.scene_files import Job, SdfChoice, make_model, make_scene
from pipeline.datasets.shapes import NOVEL_IDS

Progress = Callable[[int, int], None]


class SynthesisError(ValueError):
    """The dataset cannot be made as asked; the message names the folder or parameter and the remedy."""


@dataclass(frozen=True)
class Preset:
    """Named parameters of :func:`synthesize`; see there."""

    scenes: tuple[int, ...]
    views: tuple[int, ...]
    sdf: SdfChoice = "scored"
    seen_pool: int | None = None


PRESETS: dict[str, Preset] = {  # name -> synthesize(out, **asdict(preset))
    "sample": Preset((100, 101, 102, 103, 160, 161, 162, 163), (0, 64, 128, 192), "scored", 12),
    "training": Preset(tuple(range(40)), tuple(range(0, 256, 16)), "none"),
    "novel": Preset(tuple(range(170, 176)), tuple(range(5, 256, 21))[:12], "none"),
}
SAMPLE, TRAINING = PRESETS["sample"], PRESETS["training"]


def synthesize(
    out: Path,
    *,
    scenes: Sequence[int],
    views: Sequence[int],
    cameras: Sequence[str] = ("realsense",),
    seed: int = 0,
    sdf: SdfChoice = "scored",
    seen_pool: int | None = None,
    objects_per_scene: tuple[int, int] = (6, 10),
    models: Path | None = None,
    unit: str = "m",
    workers: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Make a dataset, or finish one that was interrupted, or find it finished.

    Args:
        out: folder of the dataset; new, empty, or begun by a call with the same parameters.
        scenes: scene numbers; they say the split (train 0-99, test_seen 100-129, test_similar 130-159, test_novel
            160-189) and with it the objects: novel ones for test_novel, training objects otherwise.
        views: rendered views, of 0-255; poses and annotations are written for all 256.
        cameras: of ``realsense`` and ``kinect``; they see the same scenes.
        seed: decides objects, arrangement and noise.
        sdf: write ``textured.sdf`` for the objects of test scenes ('scored'), of all scenes, or for none.
        seen_pool: how many of the training objects test scenes draw from (None = all); fewer make fewer grids.
        objects_per_scene: fewest and most objects that lie in a scene.
        models: a folder of meshes to take objects from instead (:mod:`pipeline.datasets.mesh_folder`); their collision
            shape is their convex hull.
        unit: of those meshes, ``m`` or ``mm``.
        workers: processes; the result does not depend on them.
        progress: called with (steps done, steps in all).

    Returns:
        The manifest, as written to ``out/manifest.json``.

    Raises:
        SynthesisError: for parameters out of range, or a folder that holds something else.
        MeshFolderError: ``models`` holds no usable mesh.
    """
    out = Path(out)
    job = _checked(scenes, views, cameras, seed, sdf, seen_pool, objects_per_scene, models, unit)
    noise = {camera: rendering.NOISE[camera].describe() for camera in job.cameras}
    identity = fingerprint({**asdict(job), "models": None, "noise": noise})  # their content counts, not their place
    found = _existing(out, identity, seed)
    if found is not None:
        return found
    write_json(out / "manifest.json", _manifest(job, identity, complete=False))

    threads = 1 if workers > 1 else 0
    tasks = [_Task("scene", job, out, scene, threads) for scene in job.scenes]
    done = 0
    with _mapper(workers) as run:
        # Scenes first: they say which objects are used, and so which models and grids are needed.
        members: dict[int, tuple[int, ...]] = {}
        for task, ids in zip(tasks, run(_work, tasks), strict=True):
            members[task.number] = ids
            done += 1
            if progress is not None:
                progress(done, len(job.scenes) + _guess_models(members, len(job.scenes)))
        used = sorted({i for ids in members.values() for i in ids})
        graded = {i for s, ids in members.items() if s not in SPLITS["train"] or job.sdf == "all" for i in ids}
        if job.sdf == "none":
            graded = set()
        tasks = [_Task("graded model" if i in graded else "model", job, out, i, threads) for i in used]
        for _ in run(_work, tasks):
            done += 1
            if progress is not None:
                progress(done, len(job.scenes) + len(used))
    for leftover in out.glob("*/.*.tmp"):  # of a call that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    manifest = _manifest(job, identity, complete=True, members=members, graded=graded)
    write_json(out / "manifest.json", manifest)
    return manifest


def _guess_models(members: Mapping[int, tuple[int, ...]], scenes: int) -> int:
    seen = len({i for ids in members.values() for i in ids})
    return max(seen, round(seen * (scenes / max(len(members), 1)) ** 0.5))


def _checked(
    scenes: Sequence[int],
    views: Sequence[int],
    cameras: Sequence[str],
    seed: int,
    sdf: SdfChoice,
    seen_pool: int | None,
    objects_per_scene: tuple[int, int],
    models: Path | None,
    unit: str,
) -> Job:
    low, high = objects_per_scene
    last = SPLITS["test_novel"][-1]
    checks = [
        (
            scenes and all(0 <= s <= last for s in scenes),
            f"scenes must be numbers from 0 to {last}, got {list(scenes)}",
        ),
        (
            views and all(0 <= v < VIEWS_PER_SCENE for v in views),
            f"views must be numbers from 0 to {VIEWS_PER_SCENE - 1}, got {list(views)}",
        ),
        (
            cameras and all(c in CAMERAS for c in cameras),
            f"cameras must be of {', '.join(CAMERAS)}; got {list(cameras)}",
        ),
        (seed >= 0, f"seed must not be negative, got {seed}"),
        (sdf in ("scored", "all", "none"), f"sdf must be 'scored', 'all' or 'none', got {sdf!r}"),
        (seen_pool is None or seen_pool >= 1, f"seen_pool must be at least 1, got {seen_pool}"),
        (
            1 <= low <= high,
            f"objects_per_scene must be (fewest, most) with 1 <= fewest <= most, got {objects_per_scene}",
        ),
        (unit in ("m", "mm"), f"unit must be 'm' or 'mm', got {unit!r}"),
    ]
    for fine, message in checks:
        if not fine:
            raise SynthesisError(message)
    model_hash = None
    if models is not None:
        files = list_meshes(Path(models))
        model_hash = fingerprint([(i, p.name, file_hash(p)) for i, p in files.items()])
    return Job(
        tuple(sorted({int(s) for s in scenes})),
        tuple(sorted({int(v) for v in views})),
        tuple(sorted(set(cameras), key=CAMERAS.index)),
        int(seed),
        sdf,
        seen_pool,
        (int(low), int(high)),
        None if models is None else str(Path(models).resolve()),
        unit,
        model_hash,
    )


def _existing(out: Path, identity: str, seed: int) -> dict[str, Any] | None:
    """Return the manifest of a finished dataset, None where there is work to do; refuse a folder of another kind."""
    path = out / "manifest.json"
    if not path.is_file():
        if out.is_dir() and any(out.iterdir()):
            raise SynthesisError(f"{out}: is not empty and holds no manifest.json of ours; name a new folder")
        return None
    try:
        manifest = json.loads(path.read_text())
        same = manifest["fingerprint"] == identity
    except (ValueError, KeyError, TypeError):
        raise SynthesisError(f"{path}: not a manifest that this program wrote; name a new folder") from None
    if not same:
        raise SynthesisError(
            f"{out}: holds a dataset made with other parameters (its seed {manifest.get('seed')}, asked {seed}); "
            "name a new folder, or delete this one"
        )
    return manifest if manifest.get("complete") else None


def _manifest(
    job: Job,
    identity: str,
    *,
    complete: bool,
    members: Mapping[int, tuple[int, ...]] | None = None,
    graded: set[int] | None = None,
) -> dict[str, Any]:
    objects: dict[str, Any] = {}
    for object_id in sorted({i for ids in (members or {}).values() for i in ids}):
        shape = job.shape(object_id)
        objects[f"{object_id:03d}"] = {
            "name": shape.name,
            "family": shape.family,
            "traits": sorted(shape.traits),
            "novel": job.models is None and object_id in NOVEL_IDS,
            "convex_parts": len(shape.parts),
            "sdf": object_id in (graded or set()),
        }
    return {
        "format_version": MANIFEST_VERSION,
        "generator": f"pipeline.datasets.synthetic {job.version}",
        "fingerprint": identity,
        "complete": complete,
        "seed": job.seed,
        "objects_from": "made by code" if job.models is None else f"{Path(job.models).name} ({job.unit})",
        "collision": "exact convex parts" if job.models is None else "convex hull of each mesh",
        "noise": {camera: rendering.NOISE[camera].describe() for camera in job.cameras},
        "views": {camera: {f"{s:04d}": list(job.views) for s in job.scenes} for camera in job.cameras},
        "scenes": {f"{s:04d}": list(ids) for s, ids in (members or {}).items()},
        "objects": objects,
    }


@contextmanager
def _mapper(workers: int) -> Iterator[Callable[..., Iterator[Any]]]:
    if workers <= 1:
        yield map
        return
    # Not fork: Open3D and MuJoCo hold threads.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield pool.map


class _Task(NamedTuple):
    kind: str
    job: Job
    out: Path
    number: int
    threads: int


def _work(task: _Task) -> tuple[int, ...]:
    if task.kind == "scene":
        return make_scene(task.job, task.out, task.number, task.threads)
    make_model(task.job, task.out, task.number, task.threads, with_sdf=task.kind == "graded model")
    return ()
