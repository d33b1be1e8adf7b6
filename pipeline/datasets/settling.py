"""Let objects fall onto a table until they lie still (MuJoCo), as scenes of a grasping dataset need it.

Table frame: z up, table top z = 0, metres. Collisions use the objects' convex parts, heights their true vertices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

FloatArray = NDArray[np.float64]

PATCH_RADIUS = 0.13  # where objects are dropped
RIM_RADIUS = 0.22  # an object that rests farther out is taken away
UPRIGHT_SHARE = 0.45  # of the objects are put down as a person would, the others fall as they fall
FRICTION = (0.6, 0.005, 0.0002)
STEP_S, CHUNK, LIMIT_S, CALM_FROM_S = 0.004, 10, 4.0, 1.0
NUDGE_S, NUDGE_RAD_S = 0.4, 0.4  # a small push, so that nothing stays balanced on an edge
CALM = 0.90  # per chunk of steps, from CALM_FROM_S on: stands for rolling resistance and the soft table cloth
STILL_M_S, STILL_RAD_S, STILL_CHUNKS = 0.003, 0.05, 8
GAP = 0.004


class SettlingError(ValueError):
    """No arrangement of these objects came to rest on the table."""


@dataclass(frozen=True, eq=False)
class Body:
    """What physics needs of an object, in its own frame.

    Attributes:
        object_id: carried through.
        vertices: ``(V, 3)`` metres, the true surface.
        parts: ``(P_i, 3)`` metres, convex pieces.
        mass: kg.
        centre: ``(3,)`` centre of mass.
        inertia: ``(3, 3)`` kg m² about the centre of mass.
    """

    object_id: int
    vertices: FloatArray
    parts: tuple[FloatArray, ...]
    mass: float
    centre: FloatArray
    inertia: FloatArray

    @classmethod
    def of_mesh(
        cls,
        object_id: int,
        vertices: FloatArray,
        faces: NDArray[np.int64],
        parts: Sequence[FloatArray],
        density: float,
    ) -> Body:
        """Weigh a closed mesh; an open one is weighed as its convex hull."""
        mesh = trimesh.Trimesh(vertices, faces, process=False)
        if not (mesh.is_watertight and mesh.is_winding_consistent and mesh.volume > 0):
            mesh = mesh.convex_hull
        mesh.density = density
        return cls(
            object_id,
            vertices,
            tuple(parts),
            float(mesh.mass),
            np.array(mesh.center_mass),
            np.array(mesh.moment_inertia),
        )


@dataclass(frozen=True, eq=False)
class Arrangement:
    """Objects at rest: their ids and ``T_table_object`` ``(K, 4, 4)`` float64."""

    object_ids: tuple[int, ...]
    T_table_object: FloatArray


def settle(bodies: Sequence[Body], rng: np.random.Generator, *, at_least: int = 1, attempts: int = 8) -> Arrangement:
    """Drop bodies onto the table and return those that came to rest on the patch.

    Bodies that roll off or lie outside :data:`RIM_RADIUS` are taken away and the rest settles again.

    Args:
        bodies: the objects to drop.
        rng: decides where and how they fall.
        at_least: fewer resting objects than that make a new attempt.
        attempts: how often.

    Raises:
        SettlingError: no attempt left enough objects at rest.
    """
    for _ in range(attempts if len(bodies) >= at_least else 0):
        kept = list(bodies)
        poses = _place(kept, rng)
        for _round in range(4):
            poses, still = _simulate(kept, poses, rng)
            good = [still[k] and _on_patch(body, T) for k, (body, T) in enumerate(zip(kept, poses, strict=True))]
            if all(good):
                return Arrangement(tuple(body.object_id for body in kept), np.array(poses))
            kept = [body for body, fine in zip(kept, good, strict=True) if fine]
            poses = [T for T, fine in zip(poses, good, strict=True) if fine]
            if len(kept) < max(at_least, 1):
                break  # and try another arrangement
    raise SettlingError(
        f"fewer than {at_least} of {len(bodies)} objects came to rest on the table in {attempts} attempts; "
        "take fewer or smaller objects, or another seed"
    )


def _place(bodies: Sequence[Body], rng: np.random.Generator) -> list[FloatArray]:
    """Put each body above the table and above whatever it would touch, on the lowest of several random places."""
    boxes: list[tuple[FloatArray, FloatArray]] = []
    poses = []
    for body in bodies:
        yaw = Rotation.from_euler("z", rng.uniform(0, 2 * np.pi))
        rotation = yaw if rng.random() < UPRIGHT_SHARE else Rotation.random(rng=rng)
        turned = body.vertices @ rotation.as_matrix().T
        low, high = turned.min(axis=0), turned.max(axis=0)
        best: tuple[float, FloatArray] | None = None
        for _ in range(16):
            radius, angle = PATCH_RADIUS * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
            xy = np.array([radius * np.cos(angle), radius * np.sin(angle)])
            floor = 0.0
            for other_low, other_high in boxes:
                if np.all(xy + low[:2] < other_high[:2] + GAP) and np.all(xy + high[:2] > other_low[:2] - GAP):
                    floor = max(floor, float(other_high[2]))
            if best is None or floor < best[0]:
                best = (floor, xy)
            if floor == 0.0:
                break
        assert best is not None
        shift = np.array([*best[1], best[0] + GAP - low[2]])
        boxes.append((low + shift, high + shift))
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = rotation.as_matrix(), shift
        poses.append(T)
    return poses


def _on_patch(body: Body, T: FloatArray) -> bool:
    centre = T[:3, :3] @ body.centre + T[:3, 3]
    lowest = float((body.vertices @ T[2, :3]).min() + T[2, 3])
    return bool(np.hypot(centre[0], centre[1]) <= RIM_RADIUS and lowest > -0.002)


def _simulate(
    bodies: Sequence[Body], poses: Sequence[FloatArray], rng: np.random.Generator
) -> tuple[list[FloatArray], list[bool]]:
    model = _model(bodies, poses)
    data = mujoco.MjData(model)
    calm_chunks = 0
    nudge_at = round(NUDGE_S / (STEP_S * CHUNK))
    for chunk in range(int(LIMIT_S / (STEP_S * CHUNK))):
        mujoco.mj_step(model, data, CHUNK)
        if chunk == nudge_at:
            data.qvel.reshape(-1, 6)[:, 3:] += rng.uniform(-NUDGE_RAD_S, NUDGE_RAD_S, (len(bodies), 3))
        velocity = data.qvel.reshape(-1, 6)
        slow = (np.linalg.norm(velocity[:, :3], axis=1) < STILL_M_S) & (
            np.linalg.norm(velocity[:, 3:], axis=1) < STILL_RAD_S
        )
        calm_chunks = calm_chunks + 1 if slow.all() else 0
        if calm_chunks >= STILL_CHUNKS and chunk > 3 * nudge_at:
            break
        if (chunk + 1) * STEP_S * CHUNK > CALM_FROM_S:
            data.qvel *= CALM
    result = []
    for k in range(len(bodies)):
        x, y, z, qw, qx, qy, qz = data.qpos[7 * k : 7 * k + 7]
        T = np.eye(4)
        T[:3, :3] = Rotation.from_quat([qx, qy, qz, qw]).as_matrix()
        T[:3, 3] = x, y, z
        result.append(T)
    return result, [bool(s) for s in slow]


def _model(bodies: Sequence[Body], poses: Sequence[FloatArray]) -> mujoco.MjModel:
    spec = mujoco.MjSpec()
    spec.option.timestep = STEP_S
    spec.option.iterations = 30
    spec.worldbody.add_geom(
        type=mujoco.mjtGeom.mjGEOM_PLANE, size=[1, 1, 0.1], friction=FRICTION, condim=4, solref=[0.008, 1]
    )
    for k, (body, T) in enumerate(zip(bodies, poses, strict=True)):
        qx, qy, qz, qw = Rotation.from_matrix(T[:3, :3]).as_quat()
        item = spec.worldbody.add_body(name=f"body{k}", pos=T[:3, 3], quat=[qw, qx, qy, qz])
        item.add_freejoint()
        inertia = body.inertia
        item.explicitinertial = True
        item.mass = body.mass
        item.ipos = body.centre
        item.fullinertia = [*np.diag(inertia), inertia[0, 1], inertia[0, 2], inertia[1, 2]]
        for j, part in enumerate(body.parts):
            name = f"part{k}_{j}"
            mesh = spec.add_mesh(name=name, uservert=np.ascontiguousarray(part).ravel())
            mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_CONVEX
            item.add_geom(
                type=mujoco.mjtGeom.mjGEOM_MESH, meshname=name, friction=FRICTION, condim=4, solref=[0.008, 1]
            )
    return spec.compile()
