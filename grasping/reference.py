"""The same view scored by graspnetAPI 1.2.11 itself, the referee of our scores (an optional extra).

Install it with ``bash scripts/install_referee.sh``. Its own functions do all the work: suppression, assignment,
collision and force closure. What is done for it here is only what it needs to run today: ``np.int``, which numpy no
longer has, is supplied to the two modules that ask for it, from outside and for them alone.

Its signed-distance objects are not thread-safe: use one process each. Its suppression leaks memory.

What it calls ``np.random`` is ours too: it draws a sample of each object's surface when it loads it
(:mod:`grasping.contacts` says what for), here from a seed that is an argument, so that a result can be had again.
Whole scenes through its own loaders: :mod:`grasping.reference_scene`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grasping import protocol
from grasping.geometry import GeometryError, ObjectGeometry
from grasping.grasps import COLUMNS, Grasps
from grasping.protocol import ViewScore
from grasping.signed_distance import SignedDistanceGrid
from grasping.surface_cells import surface_cells

FloatArray = NDArray[np.float64]

_DEXNET = "graspnetAPI.utils.dexnet.grasping"


class RefereeMissingError(ImportError):
    """graspnetAPI is not installed; the message says how to install it."""


@dataclass(frozen=True)
class _Referee:
    """The parts of graspnetAPI that are called."""

    evaluation: Any  # graspnetAPI.graspnet_eval
    utils: Any  # graspnetAPI.utils.eval_utils
    grasps: Any  # graspnetAPI.grasp
    config: Any
    sdf: Any
    mesh: Any
    graspable: Any
    grasp_type: Any  # for tests, which close single lines with it


@functools.cache
def load() -> _Referee:
    from importlib import import_module

    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # autolab_core complains of a robot system that is not there
    try:
        parts = _Referee(
            evaluation=import_module("graspnetAPI.graspnet_eval"),
            utils=import_module("graspnetAPI.utils.eval_utils"),
            grasps=import_module("graspnetAPI.grasp"),
            config=import_module("graspnetAPI.utils.config"),
            sdf=import_module(f"{_DEXNET}.meshpy.sdf"),
            mesh=import_module(f"{_DEXNET}.meshpy.mesh"),
            graspable=import_module(f"{_DEXNET}.graspable_object"),
            grasp_type=import_module(f"{_DEXNET}.grasp").ParallelJawPtGrasp3D,
        )
        import_module("grasp_nms")
    except ImportError as error:
        raise RefereeMissingError(
            f"the scorer graspnetapi is not installed ({error}): run `bash scripts/install_referee.sh`"
        ) from error
    finally:
        logging.disable(disabled)
    for module in (parts.sdf, parts.mesh):
        # a namespace of plain attributes: a __getattr__ would slow every look-up
        namespace = types.SimpleNamespace(**{name: getattr(np, name) for name in np.__all__})
        namespace.int = int
        module.np = namespace
    return parts


def available() -> bool:
    """Whether graspnetAPI can be imported."""
    try:
        load()
    except RefereeMissingError:
        return False
    return True


class _AllCells:
    """Stands in for np.random: a draw that misses nothing."""

    @staticmethod
    def choice(count: int, size: int) -> NDArray[np.int64]:
        return np.arange(count)


@contextlib.contextmanager
def surface_sample(seed: int | None) -> Iterator[None]:
    """Let objects that graspnetAPI loads meanwhile draw their surface sample from a seed; None gives them all cells."""
    module = load().sdf
    module.np.random = _AllCells() if seed is None else np.random.RandomState(seed)
    try:
        yield
    finally:
        module.np.random = np.random


def dexnet_object(sdf: SignedDistanceGrid, seed: int | None = 0) -> Any:
    """Wrap signed distances as the object that graspnetAPI closes grasps on (it never looks at the mesh).

    Args:
        sdf: signed distances.
        seed: of the object's surface sample; None: not a sample, but all surface cells.

    Raises:
        GeometryError: if no node lies on the surface, which graspnetAPI cannot load.
    """
    parts = load()
    if len(surface_cells(sdf)) == 0:
        raise GeometryError("the signed distances hold no surface, and graspnetAPI cannot load them")
    tetrahedron = parts.mesh.Mesh3D(np.eye(4, 3), np.array([[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]]))
    with surface_sample(seed):
        grid = parts.sdf.Sdf3D(np.array(sdf.values, dtype=np.float64), np.array(sdf.origin), float(sdf.resolution))
    return parts.graspable.GraspableObject3D(grid, tetrahedron)


@functools.lru_cache(maxsize=24)  # some 40 MB each
def _dexnet_of(geometry: ObjectGeometry, seed: int | None) -> Any:
    if geometry.sdf is None:
        raise GeometryError(f"object {geometry.object_id} has no signed distances: load it with load_object")
    return dexnet_object(geometry.sdf, seed)


def score_view_reference(
    grasps: Grasps,
    objects: Sequence[ObjectGeometry],
    T_camera_object: ArrayLike,
    T_camera_table: ArrayLike,
    *,
    every_candidate: bool = False,
    seed: int | None = 0,
) -> ViewScore:
    """Grade one view with graspnetAPI; arguments and result are those of :func:`grasping.protocol.score_view`.

    Where confidences are equal, which grasps are kept and their order is the referee's chance.

    Args:
        every_candidate: grade all suppressed candidates, as our own protocol does, instead of the kept ones only
            (some 60 ms for each that is clear).
        seed: of the objects' surface samples (:func:`dexnet_object`).

    Raises:
        RefereeMissingError: if graspnetAPI is not installed.
    """
    parts = load()
    poses = list(np.asarray(T_camera_object, dtype=np.float32))
    if len(objects) == 0 or len(poses) != len(objects):
        raise ValueError(f"expected a pose for each of {len(objects)} objects (at least one), got {len(poses)}")
    array = grasps.to_array()
    finite = np.isfinite(array[:, :16]).all(axis=1)
    refused = [(int(row), "not finite") for row in np.flatnonzero(~finite)]
    rows = np.flatnonzero(finite)
    array = array[rows]
    array[:, 1] = np.clip(array[:, 1], 0.0, protocol.MAXIMUM_WIDTH)
    array[:, 16] = rows  # it never reads the object id: let it carry the row
    if len(array) == 0:
        return replace(protocol.score_view(Grasps.empty(), objects, poses, T_camera_table), refused=refused)

    models = [geometry.points for geometry in objects]
    table = protocol.table_points(T_camera_table)
    dexnet = [_Lazy(geometry, seed) for geometry in objects]

    def evaluate(rows_17: FloatArray) -> Rows:
        with recorded(parts) as record:
            group = parts.grasps.GraspGroup(rows_17)
            lists, scores, _ = parts.utils.eval_grasp(
                group, models, dexnet, poses, parts.config.get_config(), table=table
            )
        return Rows.collect(lists, scores, record)

    result = evaluate(array)
    kept = set(result.index.tolist())
    if every_candidate:
        rest = (
            parts.grasps.GraspGroup(array)
            .nms(protocol.SUPPRESSION_TRANSLATION, protocol.SUPPRESSION_ANGLE)
            .grasp_group_array
        )
        rest = rest[~np.isin(rest[:, 16], list(kept))]
        # at most ten at once: the cut then leaves all of them
        chunks = [evaluate(rest[i : i + protocol.GRASPS_PER_OBJECT]) for i in range(0, len(rest), 10)]
        result = Rows.concatenate([result, *chunks])
    order = np.argsort(-result.confidence)  # as eval_scene sorts, unstably
    return result.view_score(order, np.isin(result.index, list(kept)), refused)


class _Lazy:
    """Stands in the list of models; only an object on which a grasp is closed is given its distances."""

    def __init__(self, geometry: ObjectGeometry, seed: int | None) -> None:
        self.geometry, self.seed = geometry, seed


@dataclass
class _Record:
    """What was heard while eval_grasp ran: collisions alone, emptiness, and which rows touch on both sides."""

    alone: list[Any]
    empty: list[Any]
    touched: dict[int, bool]


@dataclass(frozen=True)
class Rows:
    """eval_grasp's lists, one row a grasp."""

    index: NDArray[np.int64]
    object_index: NDArray[np.int64]
    confidence: FloatArray
    width: FloatArray
    score: FloatArray
    collided: NDArray[np.bool_]
    empty: NDArray[np.bool_]
    touched: NDArray[np.bool_]

    @classmethod
    def collect(cls, lists: list[Any], scores: list[Any], record: _Record) -> Rows:
        def flat(parts: list[Any], dtype: type) -> NDArray:
            return np.concatenate([np.asarray(one, dtype).reshape(-1) for one in parts])

        array = np.concatenate([np.reshape(one, (-1, COLUMNS)) for one in lists])
        index = array[:, 16].astype(np.int64)
        return cls(
            index=index,
            object_index=np.repeat(np.arange(len(lists)), [len(one) for one in lists]),
            confidence=array[:, 0],
            width=array[:, 1],
            score=flat(scores, np.float64),
            collided=flat(record.alone, np.bool_),
            empty=flat(record.empty, np.bool_),
            touched=np.array([record.touched.get(row, False) for row in index.tolist()], bool),
        )

    def view_score(
        self, order: NDArray[np.int64], kept: NDArray[np.bool_], refused: list[tuple[int, str]]
    ) -> ViewScore:
        reason = np.full(len(order), "no_contact", dtype="<U10")
        reason[self.touched] = "no_closure"
        reason[self.score > 0] = "success"
        reason[self.collided] = "collides"
        reason[self.empty] = "empty"
        return ViewScore(
            index=self.index[order],
            object_index=self.object_index[order],
            width=self.width[order],
            kept=kept[order],
            collided=self.collided[order],
            empty=self.empty[order],
            min_friction=np.where(self.score > 0, self.score, np.inf)[order],
            reason=reason[order],
            refused=refused,
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Rows]) -> Rows:
        return cls(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)})


@contextlib.contextmanager
def recorded(parts: _Referee) -> Iterator[_Record]:
    """Listen to collision_detection and get_grasp_score while eval_grasp calls them; both do their work unchanged."""
    record = _Record([], [], {})
    utils = parts.utils
    collision, score = utils.collision_detection, utils.get_grasp_score
    row_of: dict[int, int] = {}

    def listen_collision(grasp_list: list[Any], *arguments: Any, **options: Any) -> Any:
        result = collision(grasp_list, *arguments, **options)
        _, record.empty, dexgrasps = result
        # with a threshold of 0 nothing is empty, and the mask tells collisions alone
        without = {**options, "empty_thresh": 0, "return_dexgrasps": False}
        record.alone, _ = collision(grasp_list, *arguments, **without)
        for rows, grasps in zip(grasp_list, dexgrasps, strict=True):
            row_of.update({id(g): int(row[16]) for row, g in zip(rows, grasps, strict=True) if g is not None})
        return result

    def listen_score(grasp: Any, obj: Any, *arguments: Any) -> Any:
        target = _dexnet_of(obj.geometry, obj.seed) if isinstance(obj, _Lazy) else obj
        value = score(grasp, target, *arguments)
        record.touched[row_of[id(grasp)]] = value > 0 or bool(grasp.close_fingers(target, check_approach=False)[0])
        return value

    utils.collision_detection, utils.get_grasp_score = listen_collision, listen_score
    try:
        yield record
    finally:
        utils.collision_detection, utils.get_grasp_score = collision, score
