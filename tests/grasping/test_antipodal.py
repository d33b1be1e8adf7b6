"""The antipodal generator on shapes whose every answer is known in closed form."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from scipy.stats import spearmanr

from grasping.generators import make_generator
from grasping.grasps import Grasps
from grasping.transforms import invert, pose, transform_points

GENERATOR = make_generator("antipodal")


@dataclass(frozen=True)
class Solid:
    """A solid in the table frame: a cloud of its surface, which points lie within, and the normal at its surface."""

    surface: np.ndarray
    contains: Callable[[np.ndarray], np.ndarray]
    normal: Callable[[np.ndarray], np.ndarray]


def box(size: tuple[float, float, float], centre: tuple[float, float, float], seed: int = 0) -> Solid:
    half, middle = np.array(size) / 2, np.array(centre)
    rng = np.random.default_rng(seed)
    parts = []
    for axis in range(3):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        count = int(4 * half[a] * half[b] / 0.002**2)
        for sign in (-1, 1):
            p = rng.uniform(-1, 1, (count, 3)) * half
            p[:, axis] = sign * half[axis]
            parts.append(p)

    def normal(points: np.ndarray) -> np.ndarray:
        q = (points - middle) / half
        n = np.zeros_like(q)
        face = np.argmax(np.abs(q), axis=1)
        n[np.arange(len(q)), face] = np.sign(q[np.arange(len(q)), face])
        return n

    return Solid(np.concatenate(parts) + middle, lambda p: np.all(np.abs(p - middle) < half, axis=-1), normal)


def cylinder(radius: float, height: float, seed: int = 0) -> Solid:
    """Upright on the table at the origin."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, int(2 * np.pi * radius * height / 0.002**2))
    side = np.stack([radius * np.cos(angle), radius * np.sin(angle), rng.uniform(0, height, len(angle))], axis=1)
    count = int(np.pi * radius**2 / 0.002**2)
    r, angle = radius * np.sqrt(rng.uniform(0, 1, 2 * count)), rng.uniform(0, 2 * np.pi, 2 * count)
    caps = np.stack([r * np.cos(angle), r * np.sin(angle), np.repeat([0, height], count)], axis=1)

    def contains(p: np.ndarray) -> np.ndarray:
        return (np.hypot(p[..., 0], p[..., 1]) < radius) & (p[..., 2] > 0) & (p[..., 2] < height)

    def normal(p: np.ndarray) -> np.ndarray:
        n = np.zeros_like(p)
        on_cap = np.abs(p[:, 2] - height / 2) > height / 2 - 1e-5
        n[on_cap, 2] = 1
        n[~on_cap, :2] = p[~on_cap, :2] / np.linalg.norm(p[~on_cap, :2], axis=1, keepdims=True)
        return n

    return Solid(np.concatenate([side, caps]), contains, normal)


def ellipsoid(radii: tuple[float, float, float], seed: int = 0) -> Solid:
    """Standing on the table above the origin."""
    r = np.array(radii)
    direction = np.random.default_rng(seed).normal(size=(int(4 * np.pi * np.mean(r) ** 2 / 0.002**2), 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    centre = np.array([0, 0, r[2]])

    def normal(points: np.ndarray) -> np.ndarray:
        n = (points - centre) / r**2
        return n / np.linalg.norm(n, axis=1, keepdims=True)

    return Solid(centre + r * direction, lambda p: np.linalg.norm((p - centre) / r, axis=-1) < 1, normal)


def sphere(radius: float) -> Solid:
    return ellipsoid((radius, radius, radius))


SOLIDS = {
    "box": lambda: box((0.05, 0.12, 0.08), (0, 0, 0.04)),
    "thin box": lambda: box((0.012, 0.10, 0.06), (0, 0, 0.03)),
    "cylinder": lambda: cylinder(0.03, 0.11),
    "sphere": lambda: sphere(0.035),
}
# A camera half a metre up and away, looking at the table's origin; x right, y down, z forward.
T_TABLE_CAMERA = pose(Rotation.from_euler("xz", [-130, 25], degrees=True).as_matrix(), [0, 0, 0])
T_TABLE_CAMERA[:3, 3] = -0.7 * T_TABLE_CAMERA[:3, 2]
T_CAMERA_TABLE = invert(T_TABLE_CAMERA)


def table_cloud() -> np.ndarray:
    x, y = np.meshgrid(np.arange(-0.3, 0.3, 0.006), np.arange(-0.3, 0.3, 0.006))
    return np.stack([x, y, np.zeros_like(x)], axis=-1).reshape(-1, 3)


def grasp(
    solid: Solid,
    *,
    T_camera_table: np.ndarray = T_CAMERA_TABLE,
    seed: int = 0,
    obstacles: np.ndarray | None = None,
    order: np.ndarray | None = None,
    generator: Callable[..., Grasps] = GENERATOR,
) -> Grasps:
    """Grasps in the camera frame of a solid given whole."""
    points = solid.surface if order is None else solid.surface[order]
    cloud = transform_points(T_camera_table, points).astype(np.float32)
    scene = [table_cloud()] if obstacles is None else [table_cloud(), obstacles]
    scene_cloud = transform_points(T_camera_table, np.concatenate(scene)).astype(np.float32)
    collision = np.concatenate([scene_cloud, cloud])
    return generator(cloud, np.full(len(cloud), 7), collision, T_camera_table, np.zeros(3), seed)


def required_friction(solid: Solid, grasps: Grasps) -> np.ndarray:
    """Analytic friction that each grasp (table frame) needs; +inf where the fingers' line misses the solid.

    The line is walked in steps of 50 µm from both fingers inwards, as far as the middle.
    """
    needed = np.full(len(grasps), np.inf)
    steps = np.linspace(-1, 1, 2001)
    for i in range(len(grasps)):
        axis = grasps.rotation[i][:, 1]
        centre = grasps.translation[i] + grasps.depth[i] * grasps.rotation[i][:, 0]
        line = centre + (grasps.width[i] / 2 * steps)[:, None] * axis
        inside = np.flatnonzero(solid.contains(line))
        if len(inside) == 0 or inside[0] == 0 or inside[-1] == 2000 or inside[0] > 1000 or inside[-1] < 1000:
            continue
        cosine = np.abs(solid.normal(line[[inside[0], inside[-1]]]) @ axis).min()
        needed[i] = np.sqrt(1 - min(cosine, 1) ** 2) / max(cosine, 1e-9)
    return needed


def gripper_body(grasps: Grasps, i: int) -> np.ndarray:
    """Points every 2 mm throughout fingers and back plate of one grasp, metres, in the grasps' frame."""
    w, d = grasps.width[i], grasps.depth[i]
    z = np.linspace(-0.01, 0.01, 11)

    def block(x: tuple[float, float], y: tuple[float, float]) -> np.ndarray:
        axes = [
            np.linspace(*x, max(int((x[1] - x[0]) / 0.002), 2)),
            np.linspace(*y, max(int((y[1] - y[0]) / 0.002), 2)),
            z,
        ]
        return np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 3)

    local = np.concatenate(
        [
            block((-0.02, d), (w / 2, w / 2 + 0.01)),
            block((-0.02, d), (-w / 2 - 0.01, -w / 2)),
            block((-0.03, -0.02), (-w / 2 - 0.01, w / 2 + 0.01)),
        ]
    )
    return local @ grasps.rotation[i].T + grasps.translation[i]


@pytest.mark.parametrize("name", SOLIDS)
def test_a_whole_solid_is_grasped_truly(name: str) -> None:
    solid = SOLIDS[name]()
    grasps = grasp(solid)
    assert len(grasps) >= 20
    assert np.all(np.diff(grasps.confidence) <= 0) and np.all((grasps.confidence > 0) & (grasps.confidence < 1))
    assert len(np.unique(grasps.confidence)) == len(grasps)
    assert np.all(grasps.object_id == 7)
    assert np.all((grasps.width > 0) & (grasps.width <= 0.1)) and set(grasps.depth) <= {0.01, 0.02, 0.03, 0.04}
    R = grasps.rotation
    np.testing.assert_allclose(R @ R.transpose(0, 2, 1), np.broadcast_to(np.eye(3), R.shape), atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(R), 1)
    best = grasps[:50].transformed(T_TABLE_CAMERA)
    needed = required_friction(solid, best)
    assert np.mean(needed <= 0.5) >= 0.9
    assert np.mean(needed[:10] <= 0.2) >= 0.9
    for i in range(len(best)):
        body = gripper_body(best, i)
        assert not solid.contains(body).any()
        assert body[:, 2].min() > 0
        assert best.rotation[i][2, 0] <= 0.5 + 1e-9


@pytest.mark.parametrize("noise", [0.0, 0.001])
def test_confidence_ranks_by_what_is_needed(noise: float) -> None:
    """Over an ellipsoid's chords, of which few are square to the surface, the surer grasp needs less friction."""
    solid = ellipsoid((0.045, 0.03, 0.06))
    moved = solid.surface + np.random.default_rng(3).normal(size=solid.surface.shape) * noise
    generator = make_generator("antipodal", friction=1.0, per_object=300, pairs_per_object=2000)
    grasps = grasp(Solid(moved, solid.contains, solid.normal), generator=generator).transformed(T_TABLE_CAMERA)
    needed = np.minimum(required_friction(solid, grasps), 2)
    assert len(needed) >= 100 and np.ptp(needed) > 0.4
    assert spearmanr(grasps.confidence, needed).statistic < -0.6


def test_opening_leaves_room_and_stays_within_the_hand() -> None:
    """Across a 50 mm box, a finger stands off by the wished clearance."""
    grasps = grasp(box((0.05, 0.2, 0.08), (0, 0, 0.04))).transformed(T_TABLE_CAMERA)
    np.testing.assert_allclose(grasps.width[:10], 0.07, atol=0.004)
    centre = grasps.translation + grasps.depth[:, None] * grasps.rotation[:, :, 0]
    np.testing.assert_allclose(centre[:10, 0], 0, atol=0.002)


def test_grasps_move_with_the_world() -> None:
    solid = SOLIDS["box"]()
    T_move = pose(Rotation.from_rotvec([0.4, -1.1, 0.7]).as_matrix(), [0.2, -0.1, 0.5])
    here = grasp(solid)
    cloud = transform_points(T_CAMERA_TABLE, solid.surface).astype(np.float32)
    scene = np.concatenate([transform_points(T_CAMERA_TABLE, table_cloud()).astype(np.float32), cloud])
    there = GENERATOR(
        transform_points(T_move, cloud.astype(np.float64)),
        np.full(len(cloud), 7),
        transform_points(T_move, scene.astype(np.float64)),
        T_move @ T_CAMERA_TABLE,
        T_move[:3, 3],
        0,
    )
    assert len(there) == len(here)
    np.testing.assert_allclose(there.to_array(), here.transformed(T_move).to_array(), atol=1e-5)


def test_same_seed_same_bytes_and_no_memory_of_the_order() -> None:
    solid = SOLIDS["sphere"]()
    first = grasp(solid, seed=3)
    assert grasp(solid, seed=3).to_array().tobytes() == first.to_array().tobytes()
    assert grasp(solid, seed=4).to_array().tobytes() != first.to_array().tobytes()
    shuffled = grasp(solid, seed=3, order=np.random.default_rng(1).permutation(len(solid.surface)))
    np.testing.assert_allclose(shuffled.to_array(), first.to_array(), atol=1e-5)


def test_objects_do_not_change_each_others_draws() -> None:
    """A second object far away leaves the first one's grasps alone."""
    near, far = box((0.05, 0.12, 0.08), (0, 0, 0.04)), box((0.04, 0.04, 0.06), (0.28, 0.28, 0.03), seed=1)
    alone = grasp(near)
    points = np.concatenate([far.surface, near.surface])
    cloud = transform_points(T_CAMERA_TABLE, points).astype(np.float32)
    ids = np.concatenate([np.full(len(far.surface), 2), np.full(len(near.surface), 7)])
    scene = transform_points(T_CAMERA_TABLE, table_cloud()).astype(np.float32)
    both = GENERATOR(cloud, ids, np.concatenate([scene, cloud]), T_CAMERA_TABLE, np.zeros(3), 0)
    assert set(both.object_id) == {2, 7}
    np.testing.assert_allclose(both[both.object_id == 7].to_array(), alone.to_array(), atol=1e-9)


def test_what_does_not_fit_is_not_grasped() -> None:
    assert len(grasp(box((0.12, 0.13, 0.14), (0, 0, 0.07)))) == 0
    assert len(grasp(sphere(0.056))) == 0
    # A sheet flat on the table: its faces are one above the other, its edges too far apart.
    assert len(grasp(box((0.2, 0.2, 0.01), (0, 0, 0.005)))) == 0


def test_obstacles_are_avoided() -> None:
    """A wall beside each broad face of a box leaves no room for a finger there; one beside one face shifts the hand."""
    solid = box((0.05, 0.12, 0.08), (0, 0, 0.04))
    walls = [box((0.004, 0.2, 0.2), (sign * 0.033, 0, 0.1)) for sign in (-1, 1)]
    free = grasp(solid).transformed(T_TABLE_CAMERA)
    assert np.mean(np.abs(free.rotation[:, 0, 1]) > 0.9) > 0.5
    between = grasp(solid, obstacles=np.concatenate([w.surface for w in walls])).transformed(T_TABLE_CAMERA)
    for i in range(len(between)):
        body = gripper_body(between, i)
        assert not any(w.contains(body).any() for w in walls)
        assert abs(between.rotation[i, 0, 1]) < 0.5
    beside = grasp(solid, obstacles=walls[0].surface).transformed(T_TABLE_CAMERA)
    for i in range(len(beside)):
        assert not walls[0].contains(gripper_body(beside, i)).any()


def test_a_hidden_side_is_guessed_only_on_request_and_with_less_confidence() -> None:
    """Of a box's top and one long side, seen from the front, the back is inferred from the top."""
    solid = box((0.05, 0.12, 0.08), (0, 0, 0.04))
    seen = (solid.surface[:, 2] > 0.0799) | (solid.surface[:, 0] > 0.0249)
    partial = Solid(solid.surface[seen], solid.contains, solid.normal)
    eye = np.array([0.5, 0.0, 0.5])
    view = pose(Rotation.align_vectors([-eye], [[0, 0, 1]])[0].as_matrix(), eye)
    whole = grasp(solid, T_camera_table=invert(view))
    assert len(grasp(partial, T_camera_table=invert(view), generator=make_generator("antipodal", one_sided=False))) == 0
    guessed = grasp(partial, T_camera_table=invert(view))
    assert len(guessed) >= 5
    assert guessed.confidence[0] <= 0.6 * whole.confidence[0]
    needed = required_friction(solid, guessed[:10].transformed(view))
    assert np.mean(needed <= 0.2) >= 0.8


@pytest.mark.parametrize(
    "points",
    [
        np.zeros((0, 3)),
        np.full((1, 3), 0.05),
        np.full((500, 3), 0.05),
        np.linspace(0.01, 0.06, 400)[:, None] * np.ones(3),
        np.stack(np.meshgrid(np.arange(0, 0.05, 0.002), np.arange(0, 0.05, 0.002), [0.05]), axis=-1).reshape(-1, 3),
    ],
    ids=["none", "one", "all alike", "on a line", "on a plane"],
)
def test_degenerate_clouds_do_not_raise(points: np.ndarray) -> None:
    cloud = transform_points(T_CAMERA_TABLE, points)
    for collision in (np.zeros((0, 3)), cloud):
        grasps = GENERATOR(cloud, np.zeros(len(cloud), int), collision, T_CAMERA_TABLE, np.zeros(3), 0)
        assert np.isfinite(grasps.to_array()).all()
        if len(points) < 2:
            assert len(grasps) == 0


def test_background_is_not_grasped_and_bad_input_is_named() -> None:
    cloud = SOLIDS["sphere"]().surface
    assert len(GENERATOR(cloud, np.full(len(cloud), -1), cloud, np.eye(4), np.zeros(3), 0)) == 0
    broken = cloud.copy()
    broken[5, 1] = np.nan
    with pytest.raises(ValueError, match=r"1 of \d+ points of the cloud are not finite"):
        GENERATOR(broken, np.zeros(len(cloud)), cloud, np.eye(4), np.zeros(3), 0)
    with pytest.raises(ValueError, match=r"points of the collision cloud are not finite"):
        GENERATOR(cloud, np.zeros(len(cloud)), broken, np.eye(4), np.zeros(3), 0)
    with pytest.raises(ValueError, match=r"3 object ids for \d+ points"):
        GENERATOR(cloud, np.zeros(3), cloud, np.eye(4), np.zeros(3), 0)
    with pytest.raises(ValueError, match=r"shape \(N, 3\)"):
        GENERATOR(cloud[:, :2], np.zeros(len(cloud)), cloud, np.eye(4), np.zeros(3), 0)


def test_a_crowded_view_takes_a_fraction_of_a_second() -> None:
    """Nine objects of about two thousand points; a loose bound, for machines that do other things too."""
    solids = [box((0.05, 0.09, 0.07), (0.14 * (k % 3) - 0.14, 0.16 * (k // 3) - 0.16, 0.035), seed=k) for k in range(9)]
    cloud = transform_points(T_CAMERA_TABLE, np.concatenate([s.surface for s in solids])).astype(np.float32)
    ids = np.repeat(np.arange(9), [len(s.surface) for s in solids])
    scene = np.concatenate([transform_points(T_CAMERA_TABLE, table_cloud()).astype(np.float32), cloud])
    GENERATOR(cloud[:3000], ids[:3000], scene, T_CAMERA_TABLE, np.zeros(3), 0)  # compiles
    start = time.process_time()
    grasps = GENERATOR(cloud, ids, scene, T_CAMERA_TABLE, np.zeros(3), 0)
    assert time.process_time() - start < 2.0
    assert set(grasps.object_id) == set(range(9)) and 200 <= len(grasps) <= 400
