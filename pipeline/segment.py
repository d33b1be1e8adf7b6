"""Find the table and the objects on it in one depth image, without learning.

The table is the plane with the most points (MSAC: Torr and Zisserman, 2000); what stands above it falls apart into
clusters by density (DBSCAN: Ester et al., 1996). Objects that touch come out as one: a label image does better.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from grasping.clouds import backproject, voxel_downsample
from grasping.transforms import pose

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

HYPOTHESES = 500
PLANE_TOLERANCE = 0.006  # metres: a consumer sensor's table is that rough at half a metre
LEAST_TABLE = 0.1  # of the points around the objects
LARGEST_OBJECT = 0.35  # metres: what is longer is furniture, a robot or a wall
# Objects that touch fuse into one long cluster. What is longer than the third number is taken apart again with the
# next line: DBSCAN's radius, how much more of the bottom is cut off, the length that is accepted (metres).
STAGES = (
    (0.008, 0.0, 0.25),
    (0.006, 0.0, 0.25),
    (0.0045, 0.0, LARGEST_OBJECT),
    (0.006, 0.01, LARGEST_OBJECT),
    (0.006, 0.02, LARGEST_OBJECT),
    (0.006, 0.04, LARGEST_OBJECT),
)
NEIGHBOURS = 8


class SegmentationError(ValueError):
    """No table, or nothing on it; the message says what to change."""


@dataclass(frozen=True, eq=False)
class Table:
    """The supporting plane.

    Attributes:
        T_table_camera: ``(4, 4)``; z = the plane's normal towards the camera, x along the image's x, z = 0 the plane.
        noise: robust standard deviation of the table's points about the plane, metres.
        share: of the points around the objects that lie on the plane.
    """

    T_table_camera: Floats
    noise: float
    share: float

    @property
    def roughness(self) -> float:
        """Height in metres up to which points may be table: four deviations, but a low object must stand out."""
        return float(np.clip(4.0 * self.noise, 0.006, 0.015))


def drop_flying_pixels(depth: NDArray[np.float32], intrinsics: Floats) -> NDArray[np.float32]:
    """Return ``(H, W)`` depth without the pixels whose 3 x 3 neighbourhood spans too much depth for one surface.

    Time-of-flight and stereo sensors smear depth across silhouettes; such points belong to no surface. Too much is 2 %
    of the depth, or what a surface seen at 80 degrees from its normal spans where pixels are coarser than that.
    """
    jump = max(0.02, 2.0 * np.tan(np.radians(80.0)) / float(intrinsics[0, 0]))
    seen = depth > 0
    high = ndimage.maximum_filter(depth, size=3)
    low = ndimage.minimum_filter(np.where(seen, depth, np.inf), size=3)
    return np.where(seen & (high - low <= jump * depth), depth, 0.0).astype(np.float32)


def find_table(depth: NDArray[np.float32], intrinsics: Floats, region: Bools | None, seed: int) -> Table:
    """Fit the table's plane around the region where objects are sought.

    Args:
        depth: ``(H, W)`` metres, 0 = none.
        intrinsics: ``(3, 3)``.
        region: ``(H, W)`` where objects are sought, or None for the whole image. Its bounding box, grown by half its
            size on each side, is searched: an object's own mask has no table in it.
        seed: of the hypotheses.

    Raises:
        SegmentationError: if no plane holds a tenth of the points.
    """
    points = _around(backproject(depth, intrinsics), region)
    sparse = voxel_downsample(points, 0.005).astype(np.float64)  # as much weight to far as to near table
    if len(sparse) < 100:
        raise SegmentationError(f"only {len(sparse)} cells of 5 mm have a depth: too few to find the table in")
    rng = np.random.default_rng([seed, 1])
    subset = sparse[rng.permutation(len(sparse))[:10_000]]
    corners = subset[rng.integers(0, len(subset), (HYPOTHESES, 3))]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normals, axis=1)
    fine = length > 1e-6
    normals, corners = normals[fine] / length[fine, None], corners[fine]
    costs = [
        np.minimum(((subset - c) @ n) ** 2, PLANE_TOLERANCE**2).sum()
        for n, c in zip(normals, corners[:, 0], strict=True)
    ]
    if not costs:
        raise SegmentationError("the points lie on a line: no table to be found")
    best = int(np.argmin(costs))
    normal, centre = normals[best], corners[best, 0]
    for _ in range(5):
        on = np.abs((sparse - centre) @ normal) < PLANE_TOLERANCE
        if on.sum() < 3:
            break
        centre = sparse[on].mean(axis=0)
        normal = np.linalg.svd(sparse[on] - centre, full_matrices=False)[2][2]
    share = float(on.mean())
    if share < LEAST_TABLE:
        raise SegmentationError(f"no table: the largest plane holds {share:.0%} of the points; show more of the table")
    if normal @ centre > 0:  # the normal points to the camera, which is the origin
        normal = -normal
    residual = (sparse[on] - centre) @ normal
    x = np.array([1.0, 0, 0]) - normal * normal[0]
    x = x if np.linalg.norm(x) > 1e-3 else np.cross([0.0, 1.0, 0.0], normal)
    x /= np.linalg.norm(x)
    R_table_camera = np.stack([x, np.cross(normal, x), normal])
    noise = float(1.4826 * np.median(np.abs(residual - np.median(residual))))
    return Table(pose(R_table_camera, -R_table_camera @ centre), noise, share)


def cluster_objects(
    depth: NDArray[np.float32],
    intrinsics: Floats,
    table: Table,
    region: Bools | None,
    *,
    voxel: float = 0.003,
    least_points: int = 60,
    tallest: float = 0.4,
) -> NDArray[np.int64]:
    """Number what stands on the table, the largest first.

    Args:
        depth: ``(H, W)`` metres, 0 = none.
        intrinsics: ``(3, 3)``.
        table: from :func:`find_table`.
        region: ``(H, W)`` where objects are sought, or None.
        voxel: grid on which points are clustered, metres.
        least_points: smaller clusters, in grid cells, are noise.
        tallest: what is higher above the table is not on it, metres.

    Returns:
        ``(H, W)`` int64, 0 = no object, 1 to K. Not numbered are clusters longer than 0.35 m that do not come apart,
        and those of which the image's or the region's edge cuts off a long side: nobody can say what they are.
    """
    points = backproject(depth, intrinsics)
    up, offset = table.T_table_camera[2, :3], table.T_table_camera[2, 3]
    height = points @ up + offset
    with np.errstate(invalid="ignore"):
        standing = (height > table.roughness) & (height < tallest)
    candidate = standing if region is None else standing & region
    segments = np.zeros(depth.shape, dtype=np.int64)
    above = points[candidate].astype(np.float64)
    sparse = voxel_downsample(above, voxel).astype(np.float64)
    if len(sparse) == 0:
        return segments
    objects = _take_apart(sparse, sparse @ up + offset - table.roughness, least_points)
    number = np.zeros(len(sparse), dtype=np.int64)
    for count, members in enumerate(sorted(objects, key=len, reverse=True), start=1):
        number[members] = count
    _, nearest = cKDTree(sparse).query(above)
    segments[candidate] = number[nearest]
    return _drop_cut_off(segments, standing & ~candidate)


def _drop_cut_off(segments: NDArray[np.int64], beyond: Bools) -> NDArray[np.int64]:
    """Renumber the segments without those that meet the edge along more than the square root of their area.

    Args:
        segments: ``(H, W)``, 0 = none.
        beyond: ``(H, W)`` what stands on the table outside the region: a region's edge cuts only where it goes on.
    """
    edge = ndimage.binary_dilation(beyond, iterations=2)
    edge[[0, -1], :] = True
    edge[:, [0, -1]] = True
    area = np.bincount(segments.ravel())
    contact = np.bincount(segments[edge], minlength=len(area))
    whole = contact <= np.sqrt(area)
    whole[0] = False
    return np.where(whole, np.cumsum(whole), 0)[segments]


def _take_apart(points: Floats, height: Floats, least_points: int) -> list[NDArray[np.int64]]:
    """Cluster ``(N, 3)`` points by :data:`STAGES`; return the members of each object."""
    objects: list[NDArray[np.int64]] = []
    pending = [np.arange(len(points))]
    for reach, cut, longest in STAGES:
        fused: list[NDArray[np.int64]] = []
        for group in pending:
            top = group[height[group] >= cut]
            if len(top) < least_points:
                continue
            label = _dbscan(points[top], reach, NEIGHBOURS)
            parts = [top[label == cluster] for cluster in range(label.max() + 1)]
            parts = [part for part in parts if len(part) >= least_points]
            fits = [part for part in parts if _length(points[part]) <= longest]
            fused += [part for part in parts if _length(points[part]) > longest]
            if fits:
                # What was cut off below, or left over as noise, belongs to the nearest part if it is close to one.
                owner = np.concatenate([np.full(len(part), index) for index, part in enumerate(parts)])
                rest = np.setdiff1d(group, np.concatenate(parts))
                distance, nearest = cKDTree(points[np.concatenate(parts)]).query(points[rest])
                near = distance <= max(2 * reach, 1.5 * cut)
                joined = np.where(near, owner[nearest], -1)
                objects += [
                    np.concatenate([part, rest[joined == index]])
                    for index, part in enumerate(parts)
                    if any(part is kept for kept in fits)
                ]
        pending = fused
    return objects


def _dbscan(points: Floats, reach: float, neighbours: int) -> NDArray[np.int64]:
    """Return a cluster number a point, -1 for noise; border points join their nearest core point's cluster."""
    tree = cKDTree(points)
    core = tree.query_ball_point(points, reach, return_length=True) >= neighbours
    label = np.full(len(points), -1, dtype=np.int64)
    if not core.any():
        return label
    cores = cKDTree(points[core])
    pairs = cores.query_pairs(reach, output_type="ndarray")
    links = coo_matrix((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(cores.n, cores.n))
    _, of_core = connected_components(links, directed=False)
    label[core] = of_core
    distance, nearest = cores.query(points[~core])
    label[~core] = np.where(distance <= reach, of_core[nearest], -1)
    return label


def _length(points: Floats) -> float:
    """Return the extent along the cloud's longest principal axis, but for the outermost percents."""
    centred = points - points.mean(axis=0)
    along = centred @ np.linalg.svd(centred, full_matrices=False)[2][0]
    low, high = np.percentile(along, [1, 99])
    return float(high - low)


def _around(points: NDArray[np.float32], region: Bools | None) -> NDArray[np.float32]:
    """Return the ``(N, 3)`` finite points in the region's bounding box, grown by half its size on each side."""
    if region is not None:
        rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
        dy, dx = (rows[-1] - rows[0]) // 2 + 1, (columns[-1] - columns[0]) // 2 + 1
        points = points[max(rows[0] - dy, 0) : rows[-1] + dy + 1, max(columns[0] - dx, 0) : columns[-1] + dx + 1]
    return points[np.isfinite(points[..., 2])]
