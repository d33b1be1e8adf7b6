"""Find everything that is missing or broken in a dataset of GraspNet-1Billion's layout, file by file.

Every file is opened and read to its end, so a truncated image shows. Only files that a run would read are looked at:
the views of the manifest (all 256 without one), and the models of objects that scenes name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.datasets import graspnet
from pipeline.datasets.graspnet import CAMERAS, VIEWS_PER_SCENE, DatasetError, GraspNetDataset

FETCH = "fetch the file again"


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one file.

    Attributes:
        path: the file or folder.
        problem: what is wrong.
        remedy: what to do.
        severity: ``error`` = a run that needs the file fails; ``note`` = worth knowing, handled by us.
    """

    path: Path
    problem: str
    remedy: str
    severity: str = "error"

    def __str__(self) -> str:
        return f"{self.severity}: {self.path}: {self.problem}; {self.remedy}"


def check_dataset(
    root: Path,
    camera: str | None = None,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Problem]:
    """Report everything missing or broken below ``root``.

    Args:
        root: folder with ``scenes/`` and ``models/``.
        camera: one camera, or None for every camera that a scene has.
        workers: threads that decode images; None = one a core.
        progress: called with (views done, views in all).

    Returns:
        Problems ordered by where they were found: manifest, scenes, views, models. Empty = nothing wrong.

    Raises:
        DatasetError: if ``root`` is no dataset at all (no ``scenes/``), or the camera's name is unknown.
    """
    root = Path(root)
    datasets = [GraspNetDataset(root, name) for name in ([camera] if camera else CAMERAS)]
    problems: list[Problem] = []
    try:
        manifest = graspnet.read_manifest(root)
    except DatasetError as error:
        return [_problem(root / "manifest.json", error)]

    units: list[tuple[GraspNetDataset, int, int, tuple[int, ...] | None]] = []
    objects: dict[int, Path] = {}
    for dataset in datasets:
        scenes = set(dataset.scene_ids())
        if manifest is not None:
            promised = {int(scene) for scene in manifest["views"].get(dataset.camera, {}) if scene.isdigit()}
            for scene in sorted(promised - scenes):
                problems.append(
                    Problem(dataset.scene_dir(scene), "in the manifest but not on disk", "synthesize it again")
                )
        for scene in sorted(scenes):
            found, object_ids = _check_scene(dataset, scene)
            problems += found
            for object_id in object_ids or ():
                objects.setdefault(object_id, dataset.scene_dir(scene))
            try:
                units += [(dataset, scene, view, object_ids) for view in dataset.view_ids(scene)]
            except DatasetError as error:
                problems.append(_problem(root / "manifest.json", error, severity="note"))
    if not any(dataset.scene_ids() for dataset in datasets):
        which = camera or " or ".join(CAMERAS)
        problems.append(
            Problem(root / "scenes", f"no scene was seen by {which}", "check the folder, or the camera's name")
        )

    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for done, found in enumerate(pool.map(lambda unit: list(_check_view(*unit)), units), start=1):
            problems += found
            if progress is not None:
                progress(done, len(units))
    for object_id, scene_dir in sorted(objects.items()):
        problems += _check_model(datasets[0].model_dir(object_id), object_id, scene_dir)
    return problems


def _check_scene(dataset: GraspNetDataset, scene: int) -> tuple[list[Problem], tuple[int, ...] | None]:
    """Check what the views of a scene share; also return its object ids, None where they cannot be known."""
    folder = dataset.scene_dir(scene)
    problems = []
    for name, shape in (
        ("camK.npy", (3, 3)),
        ("camera_poses.npy", (VIEWS_PER_SCENE, 4, 4)),
        ("cam0_wrt_table.npy", (4, 4)),
    ):
        path = folder / name
        try:
            matrix = graspnet.read_matrix(path, shape)
        except DatasetError as error:
            problems.append(_problem(path, error))
            continue
        if name == "camK.npy":
            if matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
                problems.append(Problem(path, "focal lengths must be positive", FETCH))
        else:
            bad = np.flatnonzero(~_is_rigid(matrix.reshape(-1, 4, 4)))
            if len(bad):
                problems.append(Problem(path, f"{len(bad)} poses are not rigid, the first at {bad[0]}", FETCH))
    try:
        object_ids = dataset.object_ids(scene)
    except DatasetError as error:
        return [*problems, _problem(folder / "annotations" / "0000.xml", error)], None

    listing = folder.parent / "object_id_list.txt"
    try:
        listed = sorted(int(line) for line in listing.read_text().split())
    except FileNotFoundError:
        problems.append(Problem(listing, "missing", "annotations are used instead", "note"))
    except (OSError, ValueError) as error:
        problems.append(Problem(listing, f"unreadable ({error})", FETCH))
    else:
        if listed != sorted(object_ids):
            problem = f"lists objects {listed} where view 0's annotation has {sorted(object_ids)}"
            problems.append(Problem(listing, problem, "annotations are used; " + FETCH))
    return problems, object_ids


def _check_view(
    dataset: GraspNetDataset, scene: int, view: int, object_ids: tuple[int, ...] | None
) -> Iterator[Problem]:
    folder = dataset.scene_dir(scene)
    shapes: dict[str, tuple[int, ...]] = {}
    readers: dict[str, Callable[[Path], np.ndarray]] = {
        "depth": graspnet.read_depth,
        "label": graspnet.read_label,
        "rgb": graspnet.read_color,
    }
    for kind, read in readers.items():
        path = folder / kind / f"{view:04d}.png"
        if kind == "rgb" and not (folder / "rgb").is_dir():
            continue  # colour is optional, and absent as a whole in rendered data
        try:
            image = read(path)
        except DatasetError as error:
            yield _problem(path, error, severity="note" if kind == "rgb" and not path.exists() else "error")
            continue
        shapes[kind] = image.shape[:2]
        if kind == "depth" and not image.any():
            yield Problem(path, "no pixel has a reading", "the view yields empty clouds; " + FETCH)
        if kind == "label" and object_ids is not None:
            unknown = sorted({int(value) for value in np.unique(image)} - {0} - {i + 1 for i in object_ids})
            if unknown:
                yield Problem(path, f"labels {unknown} belong to no object of the scene", FETCH)
    if len(set(shapes.values())) > 1:
        sizes = ", ".join(f"{kind} {width} x {height}" for kind, (height, width) in shapes.items())
        yield Problem(folder / "label" / f"{view:04d}.png", f"images differ in size: {sizes}", FETCH)

    meta = folder / "meta" / f"{view:04d}.mat"
    try:
        graspnet.read_depth_factor(meta)
    except DatasetError as error:
        yield _problem(meta, error)

    annotation = folder / "annotations" / f"{view:04d}.xml"
    if view == 0:
        return  # read with the scene
    try:
        seen = tuple(object_id for object_id, _ in graspnet.read_annotation(annotation))
    except DatasetError as error:
        yield _problem(annotation, error)
        return
    if object_ids is not None and set(seen) != set(object_ids):
        difference = sorted(set(seen) ^ set(object_ids))
        yield Problem(annotation, f"its objects differ from view 0's in {difference}", FETCH)
    elif object_ids is not None and seen != object_ids:
        yield Problem(
            annotation, "orders its objects unlike view 0", "we match by id; graspnetAPI would mix poses up", "note"
        )


def _check_model(folder: Path, object_id: int, scene_dir: Path) -> Iterator[Problem]:
    from grasping.geometry import SignedDistanceGrid, read_mesh

    mesh = folder / "nontextured.ply"
    if not mesh.is_file():
        yield Problem(mesh, f"missing, but {scene_dir} holds object {object_id}", "fetch the dataset's models")
        return
    try:
        vertices, faces = read_mesh(mesh)
    except (ValueError, OSError) as error:
        yield _problem(mesh, error)
        return
    if not len(vertices) or not len(faces) or not np.isfinite(vertices).all():
        yield Problem(mesh, "holds no surface, or NaN", FETCH)
    elif not 0.005 < float(np.ptp(vertices, axis=0).max()) < 1.0:
        size = float(np.ptp(vertices, axis=0).max())
        yield Problem(mesh, f"is {size:g} long; models are in metres", "scale the model to metres")
    for name in ("textured.obj", "textured.sdf"):
        if not (folder / name).is_file():
            yield Problem(folder / name, "absent", "it is made in our cache when needed, nothing to do", "note")
    for name, read in (("textured.obj", read_mesh), ("textured.sdf", SignedDistanceGrid.load)):
        try:
            if (folder / name).is_file():
                read(folder / name)
        except (ValueError, OSError) as error:
            yield _problem(folder / name, error)


def _is_rigid(T: np.ndarray) -> np.ndarray:
    """Say of each ``(N, 4, 4)`` whether its rotation is one, to 1e-3."""
    R = T[:, :3, :3]
    orthonormal = np.abs(R @ R.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2)) < 1e-3
    return orthonormal & (np.linalg.det(R) > 0)


def _problem(path: Path, error: Exception, severity: str = "error") -> Problem:
    """Turn an error line 'FILE: problem; remedy' back into its parts."""
    text = str(error).removeprefix(f"{path}: ")
    problem, _, remedy = text.rpartition("; ")
    return Problem(path, problem or text, remedy if problem else FETCH, severity)
