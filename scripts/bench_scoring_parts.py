"""What bench_scoring.py measures inside one process: force closure, a whole view, and the floors below them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from bench_scoring_data import View
from numpy.typing import NDArray

from grasping import protocol, reference
from grasping.contact_kernels import MINIMUM_SAMPLES
from grasping.contacts import find_contacts, find_contacts_by_object
from grasping.force_closure import minimum_friction, required_angle
from grasping.grasps import Grasps
from grasping.signed_distance import SignedDistanceGrid

FloatArray = NDArray[np.float64]

REPEATED = 50
NORMAL_LOOKUPS = 28  # 27 directions and the contact itself


@dataclass(frozen=True)
class Spent:
    """Medians over repetitions, seconds a call."""

    cpu: float
    wall: float


def measure(call: Callable[[], object], repetitions: int, calls: int = 1) -> Spent:
    """Time a call that has been warmed up: medians of CPU and wall time over repetitions of so many calls each."""
    cpu, wall = [], []
    for _ in range(repetitions):
        c, w = time.process_time(), time.perf_counter()
        for _ in range(calls):
            call()
        cpu.append((time.process_time() - c) / calls)
        wall.append((time.perf_counter() - w) / calls)
    return Spent(float(np.median(cpu)), float(np.median(wall)))


@dataclass(frozen=True, eq=False)
class Closing:
    """Grasps to be closed on one object, in its frame."""

    sdf: SignedDistanceGrid
    centres: FloatArray
    axes: FloatArray
    widths: FloatArray


class Referee:
    """graspnetAPI's own view evaluation with everything loaded beforehand."""

    def __init__(self) -> None:
        self.parts = reference.load()
        self.config = self.parts.config.get_config()
        self._dexnet: dict[int, Any] = {}

    def view(self, view: View) -> Callable[[], tuple[list[Any], list[Any], list[Any]]]:
        """Return a call that does what ``eval_scene`` does with one view once its files are read."""
        parts = self.parts
        for geometry in view.objects:
            if id(geometry) not in self._dexnet:
                assert geometry.sdf is not None
                self._dexnet[id(geometry)] = reference.dexnet_object(geometry.sdf)
        dexnet = [self._dexnet[id(geometry)] for geometry in view.objects]
        models = [np.array(geometry.points) for geometry in view.objects]
        array, poses = view.grasps.to_array(), list(view.T_camera_object)
        array[:, 1] = np.clip(array[:, 1], 0.0, protocol.MAXIMUM_WIDTH)
        table = protocol.table_points(np.eye(4))

        def call() -> tuple[list[Any], list[Any], list[Any]]:
            here = parts.utils.transform_points(table, view.T_camera_table)
            group = parts.grasps.GraspGroup(array.copy())
            return parts.utils.eval_grasp(group, models, dexnet, poses, self.config, table=here)

        return call

    def closings(self, view: View) -> list[tuple[Any, ...]]:
        """Arguments of every force-closure test of a view, by listening to it."""
        utils, heard = self.parts.utils, []
        original = utils.get_grasp_score

        def listen(*arguments: Any) -> Any:
            heard.append(arguments)
            return original(*arguments)

        utils.get_grasp_score = listen
        try:
            self.view(view)()
        finally:
            utils.get_grasp_score = original
        return heard

    def closure(self, arguments: tuple[Any, ...]) -> float:
        """Score of one grasp: contacts and cones at each friction."""
        return float(self.parts.utils.get_grasp_score(*arguments))


def closings_of(view: View) -> list[Closing]:
    """The same grasps as :meth:`Referee.closings`, by object."""
    score = protocol.score_view(view.grasps, view.objects, view.T_camera_object, view.T_camera_table, kept_only=True)
    clear = ~(score.collided | score.empty)
    out = []
    for k in np.unique(score.object_index[clear]):
        rows = np.flatnonzero(clear & (score.object_index == k))
        sdf = view.objects[k].sdf
        assert sdf is not None
        lines = protocol.closing_lines(view.grasps[score.index[rows]], view.T_camera_object[k])
        out.append(Closing(sdf, *lines, score.width[rows]))
    return out


def close(parts: Sequence[Closing]) -> FloatArray:
    """Least friction of the grasps on several objects, contacts included, as a view closes them."""
    contacts = find_contacts_by_object(
        [part.sdf for part in parts],
        [len(part.widths) for part in parts],
        np.concatenate([part.centres for part in parts]),
        np.concatenate([part.axes for part in parts]),
        np.concatenate([part.widths for part in parts]),
    )
    return minimum_friction(required_angle(contacts))


def force_closure(referee: Referee, views: Sequence[View], repetitions: int) -> dict[str, Any]:
    """Time a grasp of both, on the clear grasps of some views."""
    theirs = [arguments for view in views for arguments in referee.closings(view)]
    batches = [closings_of(view) for view in views]
    parts = [part for batch in batches for part in batch]
    count = sum(len(part.widths) for part in parts)
    scores = np.array([referee.closure(arguments) for arguments in theirs])
    ours = np.concatenate([close(batch) for batch in batches])
    same = len(theirs) == count and np.array_equal(np.sort(np.where(scores > 0, scores, np.inf)), np.sort(ours))
    peer = measure(lambda: [referee.closure(arguments) for arguments in theirs], max(repetitions // 3, 1))
    view_sized = measure(lambda: [close(batch) for batch in batches], repetitions, 20)
    large = _enlarged(parts)
    own = measure(lambda: close(large), repetitions, 2)
    factor = sum(len(part.widths) for part in large) / count
    lookups = float(sum(_lookups(part).sum() for part in parts)) / count
    price = _lookup_price(parts, repetitions)
    return {
        "grasps": count,
        "hold": int(np.isfinite(ours).sum()),
        "scores_equal": bool(same),
        "peer_us_per_grasp": {"cpu": peer.cpu / len(theirs) * 1e6, "wall": peer.wall / len(theirs) * 1e6},
        "ours_us_per_grasp": {"cpu": own.cpu / factor / count * 1e6, "wall": own.wall / factor / count * 1e6},
        "ours_us_per_grasp_in_batches_of_a_view": {
            "cpu": view_sized.cpu / count * 1e6,
            "wall": view_sized.wall / count * 1e6,
        },
        "batches": f"ours: the same grasps {REPEATED} times over, one batch an object; and as the views have them",
        "floor": {
            "lookups_per_grasp": lookups,
            "ns_per_lookup": price * 1e9,
            "us_per_grasp": lookups * price * 1e6,
            "times_above": own.cpu / factor / count / (lookups * price),
        },
    }


def _enlarged(parts: Sequence[Closing]) -> list[Closing]:
    """All grasps of an object in one batch, many times over: the rate once a call's own cost is shared by many."""
    by_object: dict[int, list[Closing]] = {}
    for part in parts:
        by_object.setdefault(id(part.sdf), []).append(part)
    return [
        Closing(
            group[0].sdf,
            np.concatenate([p.centres for p in group] * REPEATED),
            np.concatenate([p.axes for p in group] * REPEATED),
            np.concatenate([p.widths for p in group] * REPEATED),
        )
        for group in by_object.values()
    ]


def _lookups(part: Closing) -> NDArray[np.int64]:
    """Distances that no search of this definition can do without, for each grasp.

    Each finger's samples up to the contact and the one behind it (all, where there is none; the second finger only
    after the first), and 28 around each contact for its normal.
    """
    contacts = find_contacts(part.sdf, part.centres, part.axes, part.widths)
    count = np.maximum((2.0 * (part.widths / part.sdf.resolution) / 2.0).astype(int), MINIMUM_SAMPLES)
    step = part.widths / 2 / (count - 1)
    out = np.zeros(len(count), np.int64)
    going = np.ones(len(count), bool)
    for finger, sign in ((0, 1.0), (1, -1.0)):
        start = part.centres - sign * part.axes * part.widths[:, None] / 2
        touched = np.isfinite(contacts.points[:, finger]).all(axis=1)
        way = np.einsum("nk,nk->n", np.nan_to_num(contacts.points[:, finger]) - start, sign * part.axes)
        samples = np.where(touched, np.minimum(np.floor(way / np.maximum(step, 1e-9)) + 2, count), count)
        out += np.where(going, samples + NORMAL_LOOKUPS * touched, 0).astype(np.int64)
        going &= touched
    return out


def _lookup_price(parts: Sequence[Closing], repetitions: int) -> float:
    """Seconds of one trilinear look-up, with nothing around it, along the lines that are searched."""
    spent, count = 0.0, 0
    for part in parts:
        t = np.linspace(-0.5, 0.5, 60)[:, None]
        lines = [
            c + t * w * a for c, a, w in zip(part.centres, part.axes, part.widths, strict=True)
        ]  # both fingers' ways
        grid = (np.concatenate(lines) - part.sdf.origin) / part.sdf.resolution
        grid = np.clip(grid, 0, np.array(part.sdf.values.shape) - 1.001)
        values = np.ascontiguousarray(part.sdf.values).view(np.ndarray)
        _trilinear_sum(values, grid)
        spent += measure(lambda v=values, g=grid: _trilinear_sum(v, g), repetitions, 50).cpu  # type: ignore[misc]
        count += len(grid)
    return spent / count


@numba.njit(cache=True, nogil=True)
def _trilinear_sum(values: FloatArray, grid: FloatArray) -> float:
    total = 0.0
    for n in range(len(grid)):
        i, j, k = int(grid[n, 0]), int(grid[n, 1]), int(grid[n, 2])
        fx, fy, fz = grid[n, 0] - i, grid[n, 1] - j, grid[n, 2] - k
        near = (1.0 - fz) * values[i, j, k] + fz * values[i, j, k + 1]
        far = (1.0 - fz) * values[i, j + 1, k] + fz * values[i, j + 1, k + 1]
        left = (1.0 - fy) * near + fy * far
        near = (1.0 - fz) * values[i + 1, j, k] + fz * values[i + 1, j, k + 1]
        far = (1.0 - fz) * values[i + 1, j + 1, k] + fz * values[i + 1, j + 1, k + 1]
        total += (1.0 - fx) * left + fx * ((1.0 - fy) * near + fy * far)
    return total


@numba.njit(cache=True, nogil=True)
def _inside_count(points: FloatArray, half: float) -> int:
    count = 0
    for n in range(len(points)):
        if abs(points[n, 0]) < half and abs(points[n, 1]) < half and abs(points[n, 2]) < half:
            count += 1
    return count


def whole_view(referee: Referee, views: Sequence[View], repetitions: int, lookup_us: float) -> list[dict[str, Any]]:
    """Both scorers on each of some views, everything loaded, from the dump's array to the scores."""
    out = []
    for view in views:
        array = view.grasps.to_array()

        def ours(kept_only: bool, view: View = view, array: FloatArray = array) -> protocol.ViewScore:
            grasps = Grasps.from_array(array)
            return protocol.score_view(
                grasps, view.objects, view.T_camera_object, view.T_camera_table, kept_only=kept_only
            )

        theirs = referee.view(view)
        lists, scores, _ = theirs()
        alone, full = ours(True), ours(False)
        flat, numbers = np.concatenate(scores), np.concatenate(lists)[:, 0]
        same = np.array_equal(
            np.where(flat > 0, flat, np.inf)[np.argsort(-numbers)], alone.min_friction
        ) and np.array_equal(full.min_friction[full.kept], alone.min_friction)
        peer = measure(theirs, max(repetitions // 3, 1))
        kept = measure(lambda call=ours: call(True), repetitions, 10)  # type: ignore[misc]
        every = measure(lambda call=ours: call(False), repetitions, 3)  # type: ignore[misc]
        floor = _view_floor(view, alone, repetitions, lookup_us)
        out.append(
            {
                "objects": len(view.objects),
                "candidates": len(view.grasps),
                "survive_suppression": len(full),
                "kept": len(alone),
                "clear": int((~(alone.collided | alone.empty)).sum()),
                "hold": int(np.isfinite(alone.min_friction).sum()),
                "scores_equal": bool(same),
                "peer_ms": {"cpu": peer.cpu * 1e3, "wall": peer.wall * 1e3},
                "ours_kept_only_ms": {"cpu": kept.cpu * 1e3, "wall": kept.wall * 1e3},
                "ours_every_candidate_ms": {"cpu": every.cpu * 1e3, "wall": every.wall * 1e3},
                "floor_ms": floor,
                "times_above_floor": kept.cpu * 1e3 / sum(floor.values()),
            }
        )
    return out


def _view_floor(view: View, score: protocol.ViewScore, repetitions: int, lookup_us: float) -> dict[str, float]:
    """What no scorer of the cut can do without, each part measured as one bare operation, milliseconds.

    Sorting the confidences; moving the models' points into the camera frame; testing against a box each point that lies
    inside a kept gripper's outline (no index finds fewer); the look-ups of the clear grasps' contacts.
    """
    confidence = -view.grasps.confidence
    models = np.concatenate([geometry.points for geometry in view.objects])
    R = view.T_camera_object[0, :3, :3].astype(np.float64).T
    sort, move = (
        measure(lambda: np.argsort(confidence), repetitions, 50).cpu,
        measure(lambda: models @ R, repetitions, 50).cpu,
    )
    _inside_count(models, 0.01)
    price = measure(lambda: _inside_count(models, 0.01), repetitions, 50).cpu / len(models)
    scene = np.concatenate(
        [
            g.points @ T[:3, :3].astype(float).T + T[:3, 3]
            for g, T in zip(view.objects, view.T_camera_object, strict=True)
        ]
    )
    scene = np.concatenate([scene, protocol.table_points(view.T_camera_table)])
    inside = 0
    for row, width in zip(score.index, score.width, strict=True):
        local = (scene - view.grasps.translation[row]) @ view.grasps.rotation[row]
        near = (np.abs(local[:, 2]) < 0.01) & (np.abs(local[:, 1]) < width / 2 + 0.01)
        inside += int((near & (local[:, 0] > -0.03) & (local[:, 0] < view.grasps.depth[row])).sum())
    lookups = sum(int(_lookups(part).sum()) for part in closings_of(view))
    return {
        "sort": sort * 1e3,
        "move_points": move * 1e3,
        "test_points": inside * price * 1e3,
        "look_up_distances": lookups * lookup_us * 1e-3,
    }
