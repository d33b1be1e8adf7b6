"""Depth, labels and simple colour of posed meshes by ray casting, and a stated model of a depth sensor's noise.

Open3D's ray caster only (it needs no display). The table is the plane z = 0 of the table frame, without an end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

WIDTH, HEIGHT = 1280, 720
MAX_RANGE_M = 2.0
TABLE_COLOR = (168, 160, 150)

INTRINSICS: dict[str, tuple[float, float, float, float]] = {  # fx, fy, cx, cy of GraspNet-1Billion's two cameras
    "realsense": (927.17, 927.37, 651.32, 349.62),
    "kinect": (631.54864502, 631.20751953, 638.43517329, 366.49904066),
}


def intrinsics(camera: str) -> FloatArray:
    """Return the ``(3, 3)`` pinhole matrix of ``realsense`` or ``kinect``, pixels."""
    fx, fy, cx, cy = INTRINSICS[camera]
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])


@dataclass(frozen=True)
class DepthNoise:
    """How a measured depth differs from the true one (metres, z along the optical axis).

    sigma(z) = ``axial_floor + axial_square`` z²; of the variance, the share ``patch_share`` is common to a patch of
    ``patch`` x ``patch`` pixels, as matching windows make it. Readings vanish at random, at grazing incidence
    (probability rising linearly from 0 at ``grazing_from`` degrees to 1 at ``grazing_to``), and beside depth edges
    (jump to a direct neighbour above ``edge_jump``, with probability ``edge_dropout``). What is left is rounded to
    whole millimetres. Not modelled: flying pixels, bias by material, interference.
    """

    axial_floor: float
    axial_square: float
    patch: int = 8
    patch_share: float = 0.5
    dropout: float = 0.001
    grazing_from: float = 72.0
    grazing_to: float = 86.0
    edge_jump: float = 0.010
    edge_dropout: float = 0.4

    def describe(self) -> dict[str, Any]:
        return asdict(self)

    def apply(self, depth: FloatArray, cosine: FloatArray, rng: np.random.Generator) -> NDArray[np.uint16]:
        """Measure a true depth image.

        Args:
            depth: ``(H, W)`` metres, 0 = nothing there.
            cosine: ``(H, W)`` |cos| of the angle between ray and surface normal.
            rng: the noise.

        Returns:
            ``(H, W)`` uint16 millimetres, 0 = no reading.
        """
        h, w = depth.shape
        sigma = self.axial_floor + self.axial_square * depth**2
        coarse = rng.standard_normal((-(-h // self.patch) + 1, -(-w // self.patch) + 1), dtype=np.float32)
        common = np.repeat(np.repeat(coarse, self.patch, 0), self.patch, 1)
        row, column = rng.integers(0, self.patch, 2)
        common = common[row : row + h, column : column + w]
        own = rng.standard_normal((h, w), dtype=np.float32)
        measured = depth + sigma * (np.sqrt(self.patch_share) * common + np.sqrt(1 - self.patch_share) * own)
        angle = np.degrees(np.arccos(np.clip(cosine, 0.0, 1.0)))
        lost = np.clip((angle - self.grazing_from) / (self.grazing_to - self.grazing_from), self.dropout, 1.0)
        lost[edges(depth, self.edge_jump)] += self.edge_dropout
        seen = (depth > 0) & (rng.random((h, w), dtype=np.float32) >= lost)
        return np.where(seen, np.clip(np.rint(measured * 1000.0), 1, 65535), 0).astype(np.uint16)


NOISE: dict[str, DepthNoise] = {
    "realsense": DepthNoise(axial_floor=0.0001, axial_square=0.003),  # 0.7 mm at 0.45 m
    "kinect": DepthNoise(axial_floor=0.0007, axial_square=0.0015, patch=2, edge_dropout=0.6),
}


def edges(depth: FloatArray, jump: float) -> NDArray[np.bool_]:
    """Mark pixels whose depth differs from a direct neighbour's by more than ``jump`` metres."""
    marked = np.zeros(depth.shape, dtype=bool)
    across = np.abs(np.diff(depth, axis=1)) > jump
    down = np.abs(np.diff(depth, axis=0)) > jump
    marked[:, 1:] |= across
    marked[:, :-1] |= across
    marked[1:] |= down
    marked[:-1] |= down
    return marked


@dataclass(frozen=True, eq=False)
class Rendering:
    """A noise-free view: depth ``(H, W)`` float64 m, label ``(H, W)`` uint8 (0 = table), cosine of incidence
    ``(H, W)``, color ``(H, W, 3)`` uint8."""

    depth: FloatArray
    label: NDArray[np.uint8]
    cosine: FloatArray
    color: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Model:
    """What the renderer needs of an object: mesh in metres, label (id + 1), colour 0..255."""

    vertices: FloatArray
    faces: NDArray[np.int64]
    label: int
    color: tuple[int, int, int]


def render(
    models: Sequence[Model], T_camera_object: NDArray[Any], T_table_camera: FloatArray, camera: str, threads: int = 0
) -> Rendering:
    """Cast one ray a pixel at the posed models and the table.

    Args:
        models: K meshes.
        T_camera_object: ``(K, 4, 4)``.
        T_table_camera: ``(4, 4)``; gives the table's place.
        camera: names the intrinsics.
        threads: of the ray caster; 0 takes all cores.
    """
    import open3d

    tensor: Any = open3d.core.Tensor
    K = intrinsics(camera)
    x = np.broadcast_to((np.arange(WIDTH) - K[0, 2]) / K[0, 0], (HEIGHT, WIDTH))
    y = np.broadcast_to(((np.arange(HEIGHT) - K[1, 2]) / K[1, 1])[:, None], (HEIGHT, WIDTH))
    R, height = np.asarray(T_table_camera)[:3, :3], float(np.asarray(T_table_camera)[2, 3])
    norm = np.sqrt(x**2 + y**2 + 1)
    falling = R[2, 0] * x + R[2, 1] * y + R[2, 2]  # z of the ray (x, y, 1) in the table frame
    with np.errstate(divide="ignore"):
        depth = np.where(falling < -1e-6, -height / falling, np.inf)
    cosine = np.abs(falling) / norm
    label = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    light = np.array([-0.35, 0.25, 0.9]) / np.linalg.norm([-0.35, 0.25, 0.9])
    color = np.empty((HEIGHT, WIDTH, 3), dtype=np.uint8)
    color[:] = TABLE_COLOR

    scene = open3d.t.geometry.RaycastingScene(nthreads=threads)
    window = np.zeros((HEIGHT, WIDTH), dtype=bool)  # only pixels that can see an object are cast
    for model, T in zip(models, np.asarray(T_camera_object, dtype=np.float64), strict=True):
        posed = model.vertices @ T[:3, :3].T + T[:3, 3]
        scene.add_triangles(
            tensor(np.ascontiguousarray(posed, dtype=np.float32)),
            tensor(np.ascontiguousarray(model.faces, dtype=np.uint32)),
        )
        front = posed[posed[:, 2] > 0.02]
        if len(front):
            u, v = front[:, 0] / front[:, 2] * K[0, 0] + K[0, 2], front[:, 1] / front[:, 2] * K[1, 1] + K[1, 2]
            c0, r0 = max(int(u.min()) - 2, 0), max(int(v.min()) - 2, 0)
            window[r0 : max(int(v.max()) + 3, 0), c0 : max(int(u.max()) + 3, 0)] = True
    if window.any():
        directions = np.stack([x[window], y[window], np.ones(int(window.sum()))], axis=-1)
        rays = np.concatenate([np.zeros_like(directions), directions], axis=-1).astype(np.float32)
        hits = scene.cast_rays(tensor(rays), nthreads=threads)
        t = hits["t_hit"].numpy().astype(np.float64)
        nearer = t < depth[window]
        index = np.flatnonzero(window)[nearer]
        which = hits["geometry_ids"].numpy()[nearer]
        normals = hits["primitive_normals"].numpy()[nearer].astype(np.float64)
        depth.flat[index] = t[nearer]
        facing = (normals * directions[nearer]).sum(axis=1)
        cosine.flat[index] = np.abs(facing) / norm.flat[index]
        label.flat[index] = np.array([m.label for m in models], dtype=np.uint8)[which]
        outward = normals * -np.sign(facing)[:, None] @ R.T
        shade = 0.45 + 0.55 * np.clip(outward @ light, 0, 1)
        base = np.array([m.color for m in models], dtype=np.float64)[which]
        color.reshape(-1, 3)[index] = np.clip(base * shade[:, None], 0, 255).astype(np.uint8)
    gone = ~(depth < MAX_RANGE_M)
    depth[gone], cosine[gone], color[gone] = 0.0, 0.0, 0
    return Rendering(depth, label, cosine, color)


def camera_path(camera: str) -> FloatArray:
    """Return 256 poses ``T_table_camera`` ``(256, 4, 4)`` like those of GraspNet-1Billion's robot.

    As in its recorded trajectories: up and down in strips of 15 views, elevation 77° to 38° about a point 6 cm above
    the table at 0.41 m, while the azimuth advances by 10.8° a strip over half a turn; level horizon, mounted upside
    down (the image's lower edge is the far side). The Kinect sits 5 cm behind the RealSense.
    """
    view = np.arange(256)
    strip, step = view // 15, view % 15
    along = np.where(strip % 2 == 0, step, 14 - step) / 14
    elevation = np.radians(77.0 - 39.0 * along)
    azimuth = np.radians(-6.0 + 10.8 * strip)
    back = np.stack(
        [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)], axis=1
    )
    right = np.stack([np.sin(azimuth), -np.cos(azimuth), np.zeros(256)], axis=1)
    T = np.tile(np.eye(4), (256, 1, 1))
    T[:, :3, 0] = right
    T[:, :3, 1] = np.cross(-back, right)
    T[:, :3, 2] = -back
    T[:, :3, 3] = np.array([0.0, 0.0, 0.06]) + (0.41 if camera == "realsense" else 0.46) * back
    return T
