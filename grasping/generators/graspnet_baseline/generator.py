"""The generator: one view's scene cloud -> grasps."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from completion.points import sample_indices
from grasping.generators import GeneratorError, ViewInput
from grasping.generators.graspnet_baseline.decode import decode
from grasping.generators.graspnet_baseline.network import GraspNetBaseline
from grasping.generators.graspnet_baseline.weights import WHERE, load_network
from grasping.generators.model_free_collision import ModelFreeCollision
from grasping.grasps import Grasps


@dataclass(frozen=True)
class GraspNetBaselineGenerator:
    """See :class:`grasping.generators.Generator` for the call.

    The network was trained on single views of whole scenes, table included, so it is given the background too. Its
    grasps come as it makes them: at most 1,024 a view, no two alike in their seed, many close to each other; the
    protocol's suppression thins them.

    Attributes:
        weights: file of the network's weights; relative paths count from the experiment file.
        points: drawn from the cloud, 20,000 as in training. A smaller cloud is used whole and some points twice.
        collision_filter: whether grasps go that collide with the collision cloud.
        collision: constants of that filter, see :class:`ModelFreeCollision`.
        device: ``cpu``, ``cuda``, or ``auto``: a GPU where there is one. A run that says where networks compute puts
            it there, unless this is ``cpu``. On a GPU sums are rounded otherwise, also by which views are computed
            together, and grasps differ a little.

    Raises:
        GeneratorError: on weights that are not there or not this network's.
    """

    version: ClassVar[int] = 1  # raise when the same input and parameters give other grasps
    sees_background: ClassVar[bool] = True
    default_input: ClassVar[str] = "observed"  # it learned on single views; the README has what the others cost it

    weights: Path | None = None
    points: int = 20_000
    collision_filter: bool = True
    collision: ModelFreeCollision = field(default_factory=ModelFreeCollision)
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.weights is None:
            raise GeneratorError(f"graspnet_baseline needs trained weights, which are not ours to ship; {WHERE}")
        object.__setattr__(self, "weights", Path(self.weights))
        if isinstance(self.collision, dict):
            object.__setattr__(self, "collision", ModelFreeCollision(**self.collision))
        if self.points < 2048:
            raise GeneratorError(f"points must be at least 2048, the network's first layer, got {self.points}")
        if self.device not in ("cpu", "cuda", "auto"):
            raise GeneratorError(f"device must be cpu, cuda or auto, got {self.device!r}")
        _network(self.weights, "cpu", _state(self.weights))  # whether it can be had at all

    @property
    def deterministic(self) -> bool | None:
        """True on cores; of a GPU, where sums also depend on which views are computed together, nothing is promised."""
        return True if self._device() == "cpu" else None

    @property
    def batch_size(self) -> int:
        return 16 if self._device() == "cuda" else 1

    def on(self, device: str) -> GraspNetBaselineGenerator:
        return self if self.device == "cpu" else replace(self, device=device)

    def identity(self, scene: int, camera: str, views: Sequence[int]) -> dict[str, Any]:
        """Return what grasps depend on; the weights by content, for where they lie changes nothing.

        Nor does the device count: as for completion, it decides who computes, and not what is asked for.
        """
        assert self.weights is not None
        content = asdict(self) | {"weights": _content(self.weights, _state(self.weights))}
        del content["device"]
        return {"parameters": content, "version": self.version}

    def __call__(
        self,
        cloud: ArrayLike,
        object_ids_of_points: ArrayLike,
        collision_cloud: ArrayLike,
        T_camera_table: ArrayLike,
        viewpoint: ArrayLike = (0.0, 0.0, 0.0),
        seed: int = 0,
    ) -> Grasps:
        """Return grasps in the camera frame by falling confidence; each aims at the object its seed lies on.

        Raises:
            ValueError: on wrong shapes, or points that are not finite.
        """
        view = ViewInput(cloud, object_ids_of_points, collision_cloud, T_camera_table, viewpoint, seed)
        return self.batch([view])[0]

    def batch(self, views: Sequence[ViewInput]) -> list[Grasps]:
        """Return the grasps of several views, as calls one by one would.

        On a GPU many views at once are faster; on a CPU they are not.

        Raises:
            ValueError, GeneratorError: as :meth:`propose`.
        """
        proposed = self.propose(views)
        return [self.clear(grasps, view.collision_cloud) for grasps, view in zip(proposed, views, strict=True)]

    def clear(self, grasps: Grasps, collision_cloud: ArrayLike) -> Grasps:
        """Return the grasps that pass the collision filter, where there is one, by falling confidence."""
        if self.collision_filter:
            grasps = grasps[~self.collision.collides(grasps, collision_cloud)]
        return grasps[np.argsort(-grasps.confidence, kind="stable")]

    def propose(self, views: Sequence[ViewInput]) -> list[Grasps]:
        """Return what the network finds in several views, 1,024 grasps each; none where a view has no points.

        Raises:
            ValueError: on a view with wrong shapes or points that are not finite.
            GeneratorError: there is no such device here.
        """
        drawn = [_draw(view.cloud, view.object_ids_of_points, self.points, view.seed) for view in views]
        held = [number for number, (points, _) in enumerate(drawn) if len(points)]
        result = [Grasps.empty() for _ in views]
        if not held:
            return result
        assert self.weights is not None
        device = self._device()
        if device == "cuda" and not torch.cuda.is_available():
            raise GeneratorError("device is cuda, and torch finds none here; use cpu or auto")
        network = _network(self.weights, device, _state(self.weights))
        with torch.inference_mode():
            predictions = network(torch.from_numpy(np.stack([drawn[number][0] for number in held])).to(device))
        seed_indices = predictions.seed_indices.cpu().numpy()
        for number, (grasps, seeds), index in zip(held, decode(predictions), seed_indices, strict=True):
            _, ids = drawn[number]
            result[number] = replace(grasps, object_id=ids[index[seeds.numpy()]])
        return result

    def _device(self) -> str:
        if self.device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        return self.device


def _draw(
    cloud: ArrayLike, object_ids_of_points: ArrayLike, count: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """``count`` of a cloud's points, and the objects they belong to; none of an empty cloud."""
    points = np.asarray(cloud, dtype=np.float32).reshape(-1, 3)
    ids = np.asarray(object_ids_of_points, dtype=np.int64).reshape(-1)
    if len(ids) != len(points):
        raise ValueError(f"{len(ids)} object ids for {len(points)} points; give one a point, -1 for background")
    bad = int(np.count_nonzero(~np.isfinite(points).all(axis=1)))
    if bad:
        raise ValueError(f"{bad} of {len(points)} points are not finite; drop them before generating grasps")
    if len(points) == 0:
        return points, ids
    index = sample_indices(len(points), count, np.random.default_rng(seed))
    return points[index], ids[index]


def _state(weights: Path) -> tuple[int, int] | None:
    """By which a file is known to be another than before; None where there is none."""
    try:
        found = weights.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=2)
def _network(weights: Path, device: str, state: tuple[int, int] | None) -> GraspNetBaseline:
    """Loaded once a process, for all its units, and again when the file has changed."""
    return load_network(weights).to(device)


@lru_cache(maxsize=8)
def _content(weights: Path, state: tuple[int, int] | None) -> str:
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:20]
