"""Objects as physics knows them: convex parts, mass, centre, inertia.

Parts are cut by CoACD (Wei et al., SIGGRAPH 2022) and cached by the mesh's content and our version::

    CACHE/parts/<hash of the mesh file>-<version>-<threshold>.npz
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grasping.geometry import GeometryError, read_mesh

FloatArray = NDArray[np.float64]

THRESHOLD = 0.05
"""CoACD's concavity at which cutting stops, relative to half the object's longest side."""

SIMPLIFY = 0.0003  # metres that the surface may move before it is cut: scans carry 16,000 faces, most of them flat
RESOLUTION, ITERATIONS, NODES = 1000, 60, 10  # of CoACD's search; its defaults (2000, 150, 20) take ten times as long
HULL_TOLERANCE, HULL_VERTICES = 0.0002, 200  # a part keeps the corners it needs to lose no more than that (metres)
HOLE_SHARE = 0.1  # of the surface: smaller holes are closed before the mesh is cut
TIME_LIMIT = 600  # seconds: a mesh that takes longer is refused
_VERSION = 3  # raise when the same mesh gives other parts
_FORMAT = 1
PARTS = f"{_VERSION}-{THRESHOLD:g}"
"""How objects are cut by default, for fingerprints."""


class PhysicsError(GeometryError):
    """An object that physics cannot use, or a missing library; the message names the file and the remedy."""


@dataclass(frozen=True, eq=False)
class PhysicsBody:
    """What physics needs of an object, in the object's own frame.

    Attributes:
        object_id: the dataset's number of the model.
        parts: arrays ``(P_i, 3)`` float64 metres, the corners of convex parts.
        mass: kg.
        centre: ``(3,)`` centre of mass, metres.
        inertia: ``(3, 3)`` about the centre of mass, kg m².
        closed: whether mass and inertia are the mesh's own; an open mesh is weighed as its convex hull.
    """

    object_id: int
    parts: tuple[FloatArray, ...] = field(repr=False)
    mass: float
    centre: FloatArray
    inertia: FloatArray
    closed: bool = True


def load_body(
    model_dir: Path, object_id: int, cache: Path | None, density: float, threshold: float = THRESHOLD
) -> PhysicsBody:
    """Load one model for trials, cutting it into convex parts where the cache does not have them.

    Args:
        model_dir: folder with ``nontextured.ply`` (metres, object frame).
        object_id: number of the object.
        cache: folder of ours; None cuts anew.
        density: kg/m³.
        threshold: CoACD's concavity.

    Raises:
        PhysicsError: the mesh is missing or broken, or coacd (the extra ``physics``) is not installed.
    """
    path = Path(model_dir) / "nontextured.ply"
    if not path.is_file():
        raise PhysicsError(f"{path}: no such file; object {object_id} cannot be tried without its model")
    file = None
    if cache is not None:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:32]
        file = Path(cache) / "parts" / f"{digest}-{_VERSION}-{threshold:g}.npz"
        unit = _stored(file, object_id)
        if unit is not None:
            return _weighing(unit, density)
    try:
        vertices, faces = read_mesh(path)
        unit = body_of_mesh(object_id, vertices, faces, 1.0, threshold)
    except PhysicsError as error:
        raise PhysicsError(f"{path}: {error}") from None
    except GeometryError as error:
        raise PhysicsError(str(error)) from None
    if file is not None:
        _store(file, unit)
    return _weighing(unit, density)


def body_of_mesh(
    object_id: int, vertices: ArrayLike, faces: ArrayLike, density: float, threshold: float = THRESHOLD
) -> PhysicsBody:
    """Weigh a mesh and cut it into convex parts.

    Args:
        object_id: carried through.
        vertices: ``(V, 3)`` metres.
        faces: ``(F, 3)``.
        density: kg/m³.
        threshold: CoACD's concavity.

    Raises:
        PhysicsError: nothing that has a volume, or coacd is not installed.
    """
    import trimesh

    mesh: Any = trimesh.Trimesh(np.asarray(vertices, np.float64), np.asarray(faces, np.int64), process=True)
    if len(mesh.faces) == 0 or not np.isfinite(mesh.vertices).all() or mesh.extents.max() <= 0:
        raise PhysicsError("holds no faces; physics needs a mesh")
    if np.linalg.matrix_rank(mesh.vertices - mesh.vertices[0], tol=1e-6) < 3:
        raise PhysicsError("is flat; physics needs a mesh that has a volume")
    hull = mesh.convex_hull
    closed = bool(mesh.is_watertight and mesh.is_winding_consistent and 1e-3 * hull.volume < mesh.volume)
    weighed = mesh if closed else hull
    volume = float(weighed.volume)
    # An open mesh is weighed as its hull, but its shape is its own.
    if closed and volume >= (1 - 1e-3) * float(hull.volume):
        parts = [np.asarray(hull.vertices, np.float64)]
    else:
        parts = _cut(mesh, threshold)
    parts = [lean for part in parts if (lean := _lean_hull(part)) is not None]
    if not parts:
        raise PhysicsError("CoACD found no part that has a volume; export the mesh again")
    centre, inertia = np.array(weighed.center_mass, np.float64), np.array(weighed.moment_inertia, np.float64)
    return _weighing(PhysicsBody(object_id, tuple(parts), volume, centre, inertia, closed), density)


def _weighing(unit: PhysicsBody, density: float) -> PhysicsBody:
    """Give a body of 1 kg/m³ another density: cached or not, the numbers are the same."""
    return replace(unit, mass=density * unit.mass, inertia=density * unit.inertia)


def _cut(mesh: Any, threshold: float) -> list[FloatArray]:
    import manifold3d

    vertices, faces = _without_small_holes(np.asarray(mesh.vertices), np.asarray(mesh.faces))
    solid = manifold3d.Manifold(manifold3d.Mesh(vertices.astype(np.float32), faces.astype(np.uint32)))
    # Otherwise CoACD makes a closed surface of its own, up to about 1.5 mm outside, and takes a minute or two.
    clean = not solid.is_empty()
    if clean:
        simple = solid.simplify(SIMPLIFY).to_mesh()
        vertices, faces = simple.vert_properties[:, :3], simple.tri_verts
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "mesh.npz", Path(folder) / "parts.npz"
        np.savez(
            source,
            vertices=np.asarray(vertices, np.float64),
            faces=np.asarray(faces, np.int32),
            clean=clean,
            threshold=threshold,
            resolution=RESOLUTION,
            iterations=ITERATIONS,
            nodes=NODES,
        )
        try:
            done = subprocess.run(
                [sys.executable, "-m", "grasping.physics.decompose", str(source), str(target)],
                capture_output=True,
                text=True,
                timeout=TIME_LIMIT,
                check=False,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path[1:]])},
            )
        except subprocess.TimeoutExpired:
            raise PhysicsError(f"CoACD took more than {TIME_LIMIT} s; simplify the mesh") from None
        if done.returncode != 0 or not target.is_file():
            if "coacd is not installed" in done.stderr:
                raise PhysicsError("physics needs the extra of that name: pip install 'grasp-utility[physics]'")
            reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise PhysicsError(f"CoACD could not cut the mesh ({reason}); repair it")
        with np.load(target, allow_pickle=False) as made:
            return np.split(made["points"], np.cumsum(made["sizes"])[:-1])


def _without_small_holes(vertices: FloatArray, faces: NDArray[np.int64]) -> tuple[FloatArray, NDArray[np.int64]]:
    """Close holes by fans about their middles, unless that adds more than :data:`HOLE_SHARE` of surface.

    A cup without thickness is one large hole: filled, it would be solid.
    """
    edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    known = set(map(tuple, edges.tolist()))
    following = {b: a for a, b in known if (b, a) not in known}  # along the hole, against its faces' direction
    points, fans, area = list(vertices), [], 0.0
    while following:
        start, current = next(iter(following.items()))
        loop = [start]
        del following[start]
        while current != start and current in following:
            loop.append(current)
            current = following.pop(current)
        if current != start:
            return vertices, faces  # holes that touch: left to CoACD
        rim, middle = vertices[loop], vertices[loop].mean(axis=0)
        after = np.roll(rim, -1, axis=0)
        area += 0.5 * float(np.linalg.norm(np.cross(rim - middle, after - middle), axis=1).sum())
        fans += [(a, b, len(points)) for a, b in zip(loop, np.roll(loop, -1), strict=True)]
        points.append(middle)
    corners = vertices[faces]
    whole = 0.5 * np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1).sum()
    if not fans or area > HOLE_SHARE * whole:
        return vertices, faces
    return np.array(points), np.concatenate([faces, np.array(fans, np.int64)])


def _lean_hull(points: FloatArray) -> FloatArray | None:
    """Return the corners that a convex part needs, greedily the farthest first; None for a part without volume."""
    from scipy.spatial import ConvexHull, QhullError

    try:
        corners = points[ConvexHull(points).vertices]
    except (QhullError, ValueError):
        return None
    if len(corners) <= 16:
        return corners
    directions = np.array(np.meshgrid(*[[-1.0, 0.0, 1.0]] * 3)).reshape(3, -1).T
    chosen = np.unique(np.argmax(corners @ directions[np.abs(directions).sum(axis=1) > 0].T, axis=0))
    while len(chosen) < min(HULL_VERTICES, len(corners)):
        try:
            planes = ConvexHull(corners[chosen]).equations
        except QhullError:
            return corners
        outside = corners @ planes[:, :3].T + planes[:, 3]
        worst = np.unique(outside.argmax(axis=0)[outside.max(axis=0) > HULL_TOLERANCE])
        if len(worst) == 0:
            break
        height = outside[worst].max(axis=1)
        worst = worst[np.argsort(-height, kind="stable")][: HULL_VERTICES - len(chosen)]
        chosen = np.union1d(chosen, worst)
    return corners[chosen]


def _stored(path: Path, object_id: int) -> PhysicsBody | None:
    """Read a cached body; None where there is none or it is broken (it is then made again)."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            if int(kept["format_version"]) != _FORMAT:
                return None
            parts = tuple(np.split(kept["points"], np.cumsum(kept["sizes"])[:-1]))
            return PhysicsBody(
                object_id,
                parts,
                float(kept["volume"]),
                kept["centre"],
                kept["inertia"],
                bool(kept["closed"]),
            )
    except Exception:  # whatever a damaged zip raises
        return None


def _store(path: Path, body: PhysicsBody) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            np.savez(
                stream,
                format_version=_FORMAT,
                points=np.concatenate(body.parts),
                sizes=np.array([len(part) for part in body.parts]),
                volume=body.mass,
                centre=body.centre,
                inertia=body.inertia,
                closed=body.closed,
            )
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
