"""Contacts on signed-distance grids, against their definition computed one grasp at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import RegularGridInterpolator
from scipy.spatial.transform import Rotation

from grasping.contacts import find_contacts, find_contacts_by_object
from grasping.geometry import ObjectGeometry, SignedDistanceGrid


def naive_contact(
    sdf: SignedDistanceGrid, start: np.ndarray, centre: np.ndarray, axis: np.ndarray
) -> np.ndarray | None:
    """One finger's contact in the object's frame: samples, the first fitting parabola, general solvers throughout."""
    distance = _interpolator(sdf)
    reach = np.linalg.norm(centre - start)
    count = max(int(2 * reach / sdf.resolution + 1e-9), 3)
    line = np.array([_to_grid(sdf, start + t * axis) for t in np.linspace(0, reach, count)])
    values = np.array([distance(p) for p in line])
    threshold = sdf.resolution * np.sqrt(2) / 2
    for i in range(count):
        if abs(values[i]) >= threshold or (i + 1 < count and abs(values[i + 1]) < abs(values[i])):
            continue
        k = min(max(i - 1, 0), count - 3)
        step = line[k + 1] - line[k]
        if not step.any():
            continue
        v = step / np.linalg.norm(step)
        along = [(line[k + j] - line[k])[v != 0][0] / v[v != 0][0] for j in range(3)]
        try:
            a, b, c = np.linalg.solve(np.vander(along, 3), values[k : k + 3])
        except np.linalg.LinAlgError:
            continue
        if abs(a) < 1e-10:
            continue
        roots = [r.real for r in np.roots([a, b, c]) if r.imag == 0 and 0 <= r.real <= 10]
        t = min(roots) if roots else -b / (2 * a)
        if abs(t) <= 1:
            return sdf.origin + sdf.resolution * (line[k] + t * v).astype(np.float32).astype(float)
    return None


def naive_normal(sdf: SignedDistanceGrid, point: np.ndarray) -> np.ndarray | None:
    """Plane through the surface points among 27 around a contact."""
    distance, centre = _interpolator(sdf), _to_grid(sdf, point)
    threshold = sdf.resolution * np.sqrt(2) / 2
    if abs(distance(centre)) >= threshold:
        return None
    near = []
    for step in np.ndindex(3, 3, 3):
        d = np.array(step) - 1.0
        q = centre + (1.5 * d / np.linalg.norm(d) if d.any() else 0)
        if abs(distance(q)) < threshold:
            near.append(q)
    u, _, _ = np.linalg.svd((np.array(near) - np.mean(near, axis=0)).T)
    return u[:, 2]


def _to_grid(sdf: SignedDistanceGrid, point: np.ndarray) -> np.ndarray:
    return (point.astype(np.float32).astype(float) - sdf.origin) / sdf.resolution


def _interpolator(sdf: SignedDistanceGrid):  # type: ignore[no-untyped-def]
    shape = np.array(sdf.values.shape)
    inner = RegularGridInterpolator([np.arange(n) for n in shape], sdf.values)

    def distance(g: np.ndarray) -> float:
        clamped = np.clip(g, 0, shape - 1)
        outside = (g < 0).any() or (g >= shape).any()
        return float(inner(clamped)[0]) + (sdf.resolution * np.linalg.norm(g - clamped) if outside else 0.0)

    return distance


def queries(geometry: ObjectGeometry, n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    low, high = geometry.points.min(axis=0), geometry.points.max(axis=0)
    axes = Rotation.random(n, random_state=rng).as_matrix()[:, :, 0]
    return rng.uniform(low, high, (n, 3)), axes, rng.uniform(0, 0.12, n)


@pytest.mark.parametrize("name", ["cylinder", "torus", "ring", "bracket", "ball"])
def test_contacts_against_general_solvers(geometries: dict[str, ObjectGeometry], name: str) -> None:
    geometry = geometries[name]
    sdf = geometry.sdf
    assert sdf is not None
    centres, axes, widths = queries(geometry, 60, 5)
    contacts = find_contacts(sdf, centres, axes, widths)
    agree = compared = 0
    for i, (c, a, w) in enumerate(zip(centres, axes, widths, strict=True)):
        pair = [naive_contact(sdf, c - s * w / 2 * a, c, s * a) for s in (1, -1)]
        touching = all(p is not None for p in pair)
        agree += touching == contacts.found[i]
        if not (touching and contacts.found[i]):
            continue
        for finger, point in enumerate(pair):
            assert point is not None
            # where distances are linear the choice of samples hangs on rounding, and the parabola bends a little
            assert contacts.points[i, finger] == pytest.approx(point, abs=0.25 * sdf.resolution)
            normal = naive_normal(sdf, contacts.points[i, finger])
            if normal is None:
                assert np.isnan(contacts.normals[i, finger]).all()
            else:
                assert abs(normal @ contacts.normals[i, finger]) == pytest.approx(1, abs=1e-5)
                compared += 1
    assert agree >= 58 and compared >= 10


def test_ball_is_touched_at_its_radius(geometries: dict[str, ObjectGeometry]) -> None:
    sdf = geometries["ball"].sdf
    assert sdf is not None
    axes = Rotation.random(100, random_state=0).as_matrix()[:, :, 0]
    contacts = find_contacts(sdf, np.zeros((100, 3)), axes, np.full(100, 0.08))
    assert contacts.found.all()
    assert np.linalg.norm(contacts.points, axis=2) == pytest.approx(0.03, abs=4e-4)
    assert contacts.points[:, 0] == pytest.approx(-0.03 * axes, abs=4e-4)
    assert np.abs(np.einsum("nfk,nk->nf", contacts.normals, axes)).min() > 0.95


@settings(max_examples=30, deadline=None)
@given(width=st.floats(0, 0.055), seed=st.integers(0, 1000))
def test_fingers_inside_or_far_away_touch_nothing(
    geometries: dict[str, ObjectGeometry], width: float, seed: int
) -> None:
    sdf = geometries["ball"].sdf
    assert sdf is not None
    axis = Rotation.random(random_state=seed).as_matrix()[0]
    inside = find_contacts(sdf, np.zeros((1, 3)), axis[None], np.array([width]))
    far = find_contacts(sdf, np.full((1, 3), 0.5), axis[None], np.array([width]))
    assert not inside.found[0] and not far.found[0]
    assert np.isnan(far.points).all()


def test_memory_map_float32_and_no_queries(tmp_path, geometries: dict[str, ObjectGeometry]) -> None:  # type: ignore[no-untyped-def]
    sdf = geometries["ball"].sdf
    assert sdf is not None
    np.save(tmp_path / "a.npy", sdf.values)
    mapped = SignedDistanceGrid(np.load(tmp_path / "a.npy", mmap_mode="r"), sdf.origin, sdf.resolution)
    query = queries(geometries["ball"], 20, 0)
    assert np.array_equal(find_contacts(mapped, *query).points, find_contacts(sdf, *query).points, equal_nan=True)
    assert sdf.values.flags.writeable
    assert len(find_contacts(sdf, np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0)).found) == 0


def test_several_objects_at_once_are_each_alone(geometries: dict[str, ObjectGeometry]) -> None:
    rng = np.random.default_rng(11)
    sdfs = [geometry.sdf for geometry in geometries.values() if geometry.sdf is not None]
    sdfs.append(SignedDistanceGrid(sdfs[0].values[6:-6, 6:-6, 6:-6], sdfs[0].origin, sdfs[0].resolution))  # no padding
    counts = [0, *rng.integers(1, 60, len(sdfs) - 2).tolist(), 40]
    n = sum(counts)
    centres, widths = rng.uniform(-0.03, 0.03, (n, 3)), rng.uniform(0, 0.1, n)
    axes = rng.normal(size=(n, 3))
    axes[3], centres[5] = 0.0, np.inf
    together = find_contacts_by_object(sdfs, counts, centres, axes, widths)
    begin = 0
    for sdf, count in zip(sdfs, counts, strict=True):
        part = slice(begin, begin + count)
        alone = find_contacts(sdf, centres[part], axes[part], widths[part])
        for name in ("found", "points", "normals", "outside"):
            one, other = getattr(alone, name), getattr(together, name)[part]
            assert np.array_equal(one, other, equal_nan=one.dtype == float), name
        begin += count
    assert 15 < together.found.sum() < n and together.outside.any()
    with pytest.raises(ValueError, match="add up"):
        find_contacts_by_object(sdfs, counts, centres[1:], axes[1:], widths[1:])
