"""Whole scenes through graspnetAPI's own loaders and ``eval_scene`` (an optional extra, see :mod:`grasping.reference`).

``eval_scene`` asks for 256 views and stops for good at the first that it cannot grade (an empty or unreadable dump).
Here it is given the views that are asked for, and one that it cannot grade is reported with its error.
"""

from __future__ import annotations

import builtins
import contextlib
import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grasping import reference
from grasping.geometry import load_object, made_sdf_path, read_mesh
from grasping.protocol import ViewScore

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RefereeView:
    """What ``eval_scene`` says of one view.

    Attributes:
        score: its kept grasps, in its order; None where it cannot grade the view.
        accuracy: ``(50, 6)``.
        failure: the error that a view without a score stops it with, or "".
    """

    score: ViewScore | None
    accuracy: FloatArray
    failure: str = ""


def stage_root(dataset_root: Path, cache: Path, object_ids: Iterable[int] | None = None) -> Path:
    """Make a dataset root that graspnetAPI's own classes load: links to the dataset, and the model files it lacks.

    Args:
        dataset_root: folder with ``models`` and ``scenes`` in GraspNet-1Billion's layout; nothing is written into it.
        cache: folder of ours.
        object_ids: models to stage; None takes those that the scenes' ``object_id_list.txt`` name.

    Returns:
        A folder with ``scenes`` and ``models/NNN/{nontextured.ply, textured.obj, textured.sdf}``.

    Raises:
        GeometryError: if a model is missing or broken.
    """
    source, cache = Path(dataset_root).resolve(), Path(cache)
    if object_ids is None:
        lists = sorted((source / "scenes").glob("scene_*/object_id_list.txt"))
        object_ids = {int(word) for file in lists for word in file.read_text().split()}
    root = cache / "referee" / hashlib.sha256(str(source).encode()).hexdigest()[:16]
    (root / "models").mkdir(parents=True, exist_ok=True)
    _link(root / "scenes", source / "scenes")
    for object_id in sorted(object_ids):
        name = f"{object_id:03d}"
        model, staged = source / "models" / name, root / "models" / name
        load_object(model, object_id, cache)  # makes the signed distances, where there are none
        staged.mkdir(exist_ok=True)
        _link(staged / "nontextured.ply", model / "nontextured.ply")
        own = model / "textured.sdf"
        _link(
            staged / "textured.sdf", own if own.is_file() else made_sdf_path(model / "nontextured.ply", cache).resolve()
        )
        if (model / "textured.obj").is_file():
            _link(staged / "textured.obj", model / "textured.obj")
        else:
            _write_obj(staged / "textured.obj", *read_mesh(model / "nontextured.ply"))
    return root


def _link(link: Path, target: Path) -> None:
    if link.is_symlink() and link.readlink() == target:
        return
    temporary = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)


def _write_obj(path: Path, vertices: FloatArray, faces: NDArray[np.int64]) -> None:
    text = io.StringIO()
    text.writelines(f"v {x!r} {y!r} {z!r}\n" for x, y, z in vertices.tolist())
    text.writelines(f"f {a} {b} {c}\n" for a, b, c in (faces + 1).tolist())
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text.getvalue())
    temporary.replace(path)


def evaluate_scene(
    root: Path, camera: str, scene: int, dump: Path, views: Iterable[int] = range(256), seed: int | None = 0
) -> dict[int, RefereeView]:
    """Run graspnetAPI's own ``GraspNetEval.eval_scene``, its loaders included.

    Rows that are not finite are withheld from it (it would grade them, and NaN confidences disorder its sorting).

    Args:
        root: a dataset root with all model files (:func:`stage_root`).
        camera: ``realsense`` or ``kinect``.
        scene: its number.
        dump: folder of ``scene_SSSS/<camera>/VVVV.npy``.
        views: it always asks for 256; others are asked for by giving its module another ``range``.
        seed: of the objects' surface samples (:func:`grasping.reference.dexnet_object`).

    Raises:
        RefereeMissingError: if graspnetAPI is not installed.
    """
    parts = reference.load()
    module = parts.evaluation
    wanted = sorted(set(views))
    folder = Path(dump) / f"scene_{scene:04d}" / camera
    failures: dict[int, str] = {}
    for view in wanted:
        try:
            group = parts.grasps.GraspGroup().from_npy(str(folder / f"{view:04d}.npy"))
            group.grasp_group_array[:, :16]  # what eval_scene does first
        except Exception as error:
            failures[view] = _describe(error)
    readable = [view for view in wanted if view not in failures]
    heard: list[tuple[reference.Rows | None, list[tuple[int, str]]]] = []

    def listen(group: Any, *arguments: Any, **options: Any) -> Any:
        array = group.grasp_group_array
        finite = np.isfinite(array[:, :16]).all(axis=1)
        array[:, 16] = np.arange(len(array))  # it never reads the object id: let it carry the row
        group.grasp_group_array = array[finite]
        refused = [(int(row), "not finite") for row in np.flatnonzero(~finite)]
        try:
            with reference.recorded(parts) as record:
                lists, scores, masks = parts.utils.eval_grasp(group, *arguments, **options)
        except Exception as error:
            failures[readable[len(heard)]] = _describe(error)
            heard.append((None, refused))
            return [], [], []
        heard.append((reference.Rows.collect(lists, scores, record), refused))
        return lists, scores, masks

    def only(*arguments: int) -> Sequence[int]:
        return readable if arguments == (256,) else builtins.range(*arguments)

    accuracy: list[FloatArray] = []
    grasps: list[Any] = []
    if readable:
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            evaluator = module.GraspNetEval(root=str(root), camera=camera, split="custom")
        own = module.eval_grasp
        module.range, module.eval_grasp = only, listen
        try:
            with contextlib.redirect_stdout(io.StringIO()), reference.surface_sample(seed):
                accuracy, grasps, _, _ = evaluator.eval_scene(scene, str(dump), return_list=True)
        finally:
            del module.range
            module.eval_grasp = own
    result = {view: RefereeView(None, np.zeros((50, 6)), failure) for view, failure in failures.items()}
    for view, table, rows_17, (rows, refused) in zip(readable, accuracy, grasps, heard, strict=True):
        if rows is not None:
            result[view] = RefereeView(_in_order(rows, rows_17, refused), np.asarray(table))
    return dict(sorted(result.items()))


def _in_order(rows: reference.Rows, rows_17: Any, refused: list[tuple[int, str]]) -> ViewScore:
    place = {row: i for i, row in enumerate(rows.index.tolist())}
    order = np.array([place[int(row)] for row in np.reshape(rows_17, (-1, 17))[:, 16]], np.int64)
    return rows.view_score(order, np.ones(len(rows.index), bool), refused)


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
