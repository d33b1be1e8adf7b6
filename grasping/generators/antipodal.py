"""Antipodal grasps on a cloud: opposing surfaces within friction, a gripper that fits around them.

The classical sampler (Nguyen, *Constructing force-closure grasps*, 1988; ten Pas et al., *Grasp pose detection in
point clouds*, 2017) in the gripper of GraspNet-1Billion's protocol. One code with one set of parameters serves every
kind of cloud; nothing in it asks whether a cloud was completed. Normals are used without their sign, as the protocol
uses them, for the sign cannot be told from the viewpoint on completed far sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grasping.clouds import voxel_downsample
from grasping.generators.antipodal_kernels import diverse, place, shoot
from grasping.grasps import Grasps
from grasping.gripper import GRASPNET_GRIPPER, Gripper
from grasping.normals import estimate_normals, orient_towards
from grasping.transforms import invert, transform_points

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Antipodal:
    """The generator; see :class:`grasping.generators.Generator` for the call.

    Attributes:
        friction: normals lie within ``atan(friction)`` of the closing line at both contacts.
        one_sided: where a contact's line meets no other surface, guess that the hidden side lies as far as the object
            is seen to reach in the plane in which the fingers move, with a confidence lowered by ``hidden_factor``:
            what any single-view generator must do. Never done where the far side is in the cloud, seen or completed.
        hidden_factor: see above.
        samples: contacts tried per object. axis_jitters: closing lines tried per contact.
        approaches: approach directions around a closing line. depths: reach of the tips, metres.
        steepest_approach: largest upward component of an approach direction (0.5: 30 degrees).
        voxel: density the cloud is brought to for contacts, metres; collision_voxel: for collisions.
        normal_neighbours, normal_radius: see :func:`grasping.normals.estimate_normals`.
        line_radius: of the cylinder in which a line meets points. shortest: least distance of two contacts.
        margin: kept free around the gripper. clearance, least_clearance: wished and least room, each side, between a
            finger and what it closes on. table_clearance: least height of the gripper above z = 0. table_band:
            obstacle points below this height are the table, which is a plane here whatever its noise. All metres.
        least_points: voxels of the object between the fingers.
        least_object_points: smaller objects get no grasp.
        pairs_per_object, per_object: kept before a gripper is placed, and in the end.
        near, near_angle: metres and degrees within which two grasps are one.
        gripper: the hand.
    """

    deterministic: ClassVar[bool] = True
    version: ClassVar[int] = 1  # raise when the same input and parameters give other grasps

    friction: float = 0.5
    one_sided: bool = True
    hidden_factor: float = 0.5
    samples: int = 160
    axis_jitters: int = 3
    approaches: int = 12
    depths: tuple[float, ...] = (0.01, 0.02, 0.03, 0.04)
    steepest_approach: float = 0.5
    voxel: float = 0.003
    collision_voxel: float = 0.004
    normal_neighbours: int = 25
    normal_radius: float = 0.015
    line_radius: float = 0.004
    shortest: float = 0.005
    margin: float = 0.002
    clearance: float = 0.01
    least_clearance: float = 0.002
    table_clearance: float = 0.002
    table_band: float = 0.005
    least_points: int = 15
    least_object_points: int = 20
    pairs_per_object: int = 200
    per_object: int = 40
    near: float = 0.01
    near_angle: float = 15.0
    gripper: Gripper = GRASPNET_GRIPPER

    def __post_init__(self) -> None:
        object.__setattr__(self, "depths", tuple(sorted(float(d) for d in self.depths)))
        if not 1 <= len(self.depths) <= 8 or self.depths[0] <= 0:
            raise ValueError(f"depths must be one to eight positive lengths in metres, got {self.depths}")
        for name in ("friction", "voxel", "collision_voxel", "normal_radius", "line_radius", "clearance"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("samples", "axis_jitters", "approaches", "pairs_per_object", "per_object"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def __call__(
        self,
        cloud: ArrayLike,
        object_ids_of_points: ArrayLike,
        collision_cloud: ArrayLike,
        T_camera_table: ArrayLike,
        viewpoint: ArrayLike = (0.0, 0.0, 0.0),
        seed: int = 0,
    ) -> Grasps:
        """Return grasps in the camera frame by falling confidence; see :class:`grasping.generators.Generator`.

        The work is done in the table frame, so grasps move with cloud, table and viewpoint. The grasped object's own
        points, as given in ``cloud``, always count as obstacles too: what is between the fingers has to fit.

        Raises:
            ValueError: on wrong shapes or points that are not finite.
        """
        points = _cloud(cloud, "cloud")
        ids = np.asarray(object_ids_of_points).reshape(-1)
        if len(ids) != len(points):
            raise ValueError(f"{len(ids)} object ids for {len(points)} points; give one a point, -1 for background")
        obstacles = _cloud(collision_cloud, "collision cloud")
        T_table_camera = invert(T_camera_table)
        points = transform_points(T_table_camera, points)
        obstacles = transform_points(T_table_camera, obstacles)
        obstacles = obstacles[obstacles[:, 2] > self.table_band]
        obstacles = voxel_downsample(obstacles, self.collision_voxel).astype(np.float64)
        eye = transform_points(T_table_camera, np.asarray(viewpoint, dtype=np.float64))
        parts = [self._grasp_object(int(i), points[ids == i], obstacles, eye, seed) for i in np.unique(ids[ids >= 0])]
        grasps = Grasps.concatenate(parts)
        return grasps[np.argsort(-grasps.confidence, kind="stable")].transformed(T_camera_table)

    def _grasp_object(self, object_id: int, points: Array, obstacles: Array, eye: Array, seed: int) -> Grasps:
        """Grasps of one object, in the table frame."""
        own = voxel_downsample(points, self.voxel).astype(np.float64)
        if len(own) < self.least_object_points:
            return Grasps.empty()
        reach = self.gripper.max_width + self.gripper.finger_back + self.gripper.base_thickness + self.depths[-1]
        body, obstacles = _thinned(points, obstacles, self.collision_voxel)
        close = np.all((obstacles > own.min(axis=0) - reach) & (obstacles < own.max(axis=0) + reach), axis=1)
        normals, variation = estimate_normals(own, self.normal_neighbours, self.normal_radius)
        normals = orient_towards(own, normals, eye)
        rng = np.random.default_rng([seed, object_id])
        pairs, contacts = self._pairs(own, normals, variation, rng)
        if len(pairs) == 0:
            return Grasps.empty()
        axes = np.ascontiguousarray(pairs[:, 1:4])
        g = self.gripper
        placed = place(
            contacts,
            axes,
            pairs[:, 4].copy(),
            pairs[:, 7:9].copy(),
            _references(contacts, axes, eye),
            np.arange(self.approaches, dtype=np.float64) * (2 * np.pi / self.approaches),
            np.array(self.depths),
            body,
            obstacles[close],
            np.array([g.max_width, g.height, g.finger_thickness, g.finger_back, g.base_thickness]),
            np.array(
                [
                    self.margin,
                    self.clearance,
                    self.least_clearance,
                    self.table_clearance,
                    self.steepest_approach,
                    self.least_points,
                    self.shortest,
                ]
            ),
        )
        if len(placed) == 0:
            return Grasps.empty()
        row = placed[:, 0].astype(np.int64)
        confidence = self._confidence(placed, pairs[row], own.mean(axis=0), eye)
        order = np.argsort(-confidence, kind="stable")
        placed, axis, confidence = placed[order], axes[row[order]], confidence[order]
        kept = diverse(
            placed[:, 4:7].copy(),
            placed[:, 1:4].copy(),
            axis,
            self.near,
            float(np.cos(np.radians(self.near_angle))),
            self.per_object,
        )
        placed, axis, confidence = placed[kept], axis[kept], confidence[kept]
        approach = placed[:, 1:4]
        depth = placed[:, 7]
        return Grasps(
            confidence=confidence,
            width=placed[:, 8],
            height=np.full(len(kept), g.height),
            depth=depth,
            rotation=np.stack([approach, axis, np.cross(approach, axis)], axis=2),
            translation=placed[:, 4:7] - depth[:, None] * approach,
            object_id=np.full(len(kept), object_id, np.int64),
        )

    def _pairs(self, own: Array, normals: Array, variation: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """Opposing pairs as :func:`shoot` gives them, guessed ones with a NaN distance, and their first contacts."""
        samples = _balanced(own, 3 * self.voxel, self.samples, rng)
        samples = samples[np.any(normals[samples] != 0, axis=1)]
        # Uniform in the disc of half the friction cone around the normal: the other half is left for the far contact.
        across = rng.normal(size=(len(samples), self.axis_jitters, 3)) * (0.25 * self.friction)
        across[:, 0] = 0
        axes = normals[samples][:, None] + across
        axes /= np.linalg.norm(axes, axis=2, keepdims=True)
        pairs, alone = shoot(
            own,
            normals,
            variation,
            samples,
            axes,
            self.line_radius,
            self.shortest,
            self.gripper.max_width - 2 * self.least_clearance,
            float(np.cos(np.arctan(self.friction))),
        )
        if self.one_sided and alone.any():
            lonely = np.flatnonzero(alone)
            guessed = np.full((len(lonely), pairs.shape[1]), np.inf)
            guessed[:, 0] = lonely
            guessed[:, 1:4] = -normals[samples[lonely]]
            guessed[:, 4] = np.nan
            guessed[:, 5] = self.friction
            guessed[:, 6] = variation[samples[lonely]]
            pairs = np.concatenate([pairs, guessed])
        best = np.argsort(pairs[:, 5] + 4 * pairs[:, 6], kind="stable")[: self.pairs_per_object]
        pairs = pairs[best]
        return pairs, own[samples[pairs[:, 0].astype(np.int64)]]

    def _confidence(self, placed: Array, pairs: Array, centroid: Array, eye: Array) -> Array:
        """``(K,)`` in (0, 1): a product of soft preferences, each 1/2 at the value named here, and two factors."""
        half = _falls
        area = placed[:, 10] * self.collision_voxel**2
        off_centre = np.linalg.norm(placed[:, 4:7] - centroid, axis=1)
        confidence = (
            half(pairs[:, 5], 0.6)  # required friction
            * half(pairs[:, 6], 0.08)  # surface variation: edges and noise
            * half(placed[:, 11] / placed[:, 12], 0.3)  # the fingers close unevenly
            * half(off_centre, 0.12)
            * (1 - half(area, 4e-4))  # the protocol calls fewer than ten points of 8 x 8 mm empty
            * (1 - half(placed[:, 9], 0.002))  # clearance of the fingers
            * (1 - half(placed[:, 13], 0.002))  # and of the back plate
        )
        sight = placed[:, 4:7] - eye
        along_sight = np.einsum("ij,ij->i", placed[:, 1:4], sight) / np.maximum(np.linalg.norm(sight, axis=1), 1e-9)
        confidence *= 0.95 + 0.05 * along_sight  # the way from the camera to the object is known to be free
        return np.where(np.isnan(pairs[:, 4]), self.hidden_factor, 1.0) * confidence


def _falls(value: Array, scale: float) -> Array:
    """From 1 at 0 through 1/2 at ``scale`` towards 0."""
    return 1 / (1 + (value / scale) ** 2)


def _cloud(points: ArrayLike, name: str) -> Array:
    p = np.asarray(points, dtype=np.float64)
    if p.size == 0:
        return np.zeros((0, 3))
    if p.ndim != 2 or p.shape[1] != 3:
        raise ValueError(f"expected a {name} of shape (N, 3), got {p.shape}")
    bad = int(np.count_nonzero(~np.isfinite(p).all(axis=1)))
    if bad:
        raise ValueError(f"{bad} of {len(p)} points of the {name} are not finite; drop them before generating grasps")
    return p


def _thinned(points: Array, obstacles: Array, size: float) -> tuple[Array, Array]:
    """The object's points, one a voxel, and the obstacles outside the voxels they fill: not to test a thing twice."""
    body = voxel_downsample(points, size).astype(np.float64)
    if len(obstacles) == 0:
        return body, obstacles
    filled, cells = np.floor(body / size).astype(np.int64), np.floor(obstacles / size).astype(np.int64)
    low = np.minimum(filled.min(axis=0), cells.min(axis=0))
    extent = np.maximum(filled.max(axis=0), cells.max(axis=0)) - low + 1
    weights = np.array([extent[1] * extent[2], extent[2], 1])
    return body, obstacles[~np.isin((cells - low) @ weights, (filled - low) @ weights)]


def _balanced(points: Array, size: float, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw ``count`` points evenly over the surface: one from every voxel, then a second from every voxel, ..."""
    cells = np.floor((points - points.min(axis=0)) / size).astype(np.int64)
    extent = cells.max(axis=0) + 1
    _, cell = np.unique((cells[:, 0] * extent[1] + cells[:, 1]) * extent[2] + cells[:, 2], return_inverse=True)
    shuffled = rng.permutation(len(points))
    by_cell = shuffled[np.argsort(cell[shuffled], kind="stable")]
    sizes = np.bincount(cell)
    turn = np.arange(len(points)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return by_cell[np.lexsort((rng.random(len(points)), turn))[:count]]


def _references(contacts: Array, axes: Array, eye: Array) -> Array:
    """A unit approach across each axis: as far down as it goes, or from the viewpoint where the axis is vertical."""
    down = np.array([0.0, 0.0, -1.0]) + axes[:, 2:3] * axes
    sight = contacts - eye
    sight = sight - np.einsum("ij,ij->i", sight, axes)[:, None] * axes
    reference = np.where(np.linalg.norm(down, axis=1, keepdims=True) > 0.3, down, sight)
    length = np.linalg.norm(reference, axis=1, keepdims=True)
    spare = np.cross(axes, np.eye(3)[np.argmin(np.abs(axes), axis=1)])
    reference = np.where(length > 1e-6, reference, spare)
    return np.ascontiguousarray(reference / np.linalg.norm(reference, axis=1, keepdims=True))
