"""Outside the grid the referee measures to a random sample of the surface; we measure to all of it, and say so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from grasping import reference
from grasping.contact_kernels import distance
from grasping.contacts import Contacts, find_contacts
from grasping.force_closure import minimum_friction, required_angle
from grasping.geometry import GeometryError, SignedDistanceGrid, make_signed_distance_grid
from grasping.surface_cells import is_exposed, surface_cells

SEEDS = range(4)


def ball(cells: int, padding: int) -> SignedDistanceGrid:
    trimesh = pytest.importorskip("trimesh")
    mesh = trimesh.creation.icosphere(subdivisions=3, radius=0.03)
    return make_signed_distance_grid(mesh.vertices, mesh.faces, cells=cells, padding=padding, threads=1)


def can(cells: int, padding: int) -> SignedDistanceGrid:
    trimesh = pytest.importorskip("trimesh")
    mesh = trimesh.creation.cylinder(0.022, 0.06, sections=48)
    return make_signed_distance_grid(mesh.vertices, mesh.faces, cells=cells, padding=padding, threads=1)


def queries(n: int, seed: int = 0, tilt: float = 0.1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fingers that close on the poles, where the grid ends, and anywhere else."""
    rng = np.random.default_rng(seed)
    axes = Rotation.random(n, random_state=rng).as_matrix()[:, 0]
    axes[: n // 2] = np.eye(3)[rng.integers(0, 3, n // 2)] + rng.normal(size=(n // 2, 3)) * tilt
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    return rng.uniform(-0.012, 0.012, (n, 3)), axes, rng.uniform(0.03, 0.1, n)


@pytest.fixture(scope="module")
def referee() -> Any:
    if not reference.available():
        pytest.skip("install the referee with scripts/install_referee.sh")
    return reference.load()


def close(
    referee: Any, target: Any, centre: np.ndarray, axis: np.ndarray, width: float
) -> tuple[np.ndarray | None, float]:
    """The referee's contact points (None without) and least friction."""
    configuration = referee.grasp_type.configuration_from_params(centre, axis, width, 0.0)
    grasp = referee.grasp_type(configuration, 0.02)
    found, pair = grasp.close_fingers(target, check_approach=False)
    ladder = np.array([1.2, 1.0, 0.8, 0.6, 0.4, 0.2])
    factory = referee.utils.GraspQualityConfigFactory
    config = referee.config.get_config()["metrics"]["force_closure"]
    configs = {mu: factory.create_config({**config, "friction_coef": mu}) for mu in ladder.round(2).tolist()}
    score = referee.utils.get_grasp_score(grasp, target, ladder, configs)
    return (np.array([c.point for c in pair]) if found else None), score if score > 0 else np.inf


def test_a_padded_grid_asks_nothing_outside() -> None:
    sdf = ball(24, 5)
    assert not is_exposed(sdf)
    contacts = find_contacts(sdf, *queries(400))
    assert contacts.found.sum() > 150 and not contacts.outside.any()


def test_outside_distances_are_those_to_the_nearest_of_all_surface_cells() -> None:
    sdf = ball(14, 0)
    assert is_exposed(sdf)
    cells = surface_cells(sdf)
    where = np.argwhere(np.abs(sdf.values) < sdf.resolution / np.sqrt(2))
    assert np.array_equal(cells[:, :3], where) and len(cells) > 500
    outside = np.random.default_rng(0).uniform(-3, -0.1, (50, 3)).astype(np.float32).astype(np.float64)
    for point in outside:
        far = np.linalg.norm(where - point, axis=1)
        nearest = sdf.values[tuple(where[far.argmin()])] + sdf.resolution * far.min()
        assert distance(sdf.values, sdf.resolution, cells, *point) == pytest.approx(nearest, rel=1e-12)


def test_marked_are_the_grasps_whose_outside_distances_matter() -> None:
    """With other distances outside, only marked grasps change; and a grid without surface touches nothing."""
    sdf = ball(24, 0)
    query = queries(600)
    ours = find_contacts(sdf, *query)
    assert 50 < ours.outside.sum() < 550
    padded = find_contacts(ball(24, 5), *query)  # the same surface, known outside too
    plain = ~ours.outside
    # the two grids carry another dither
    assert (ours.found[plain] == padded.found[plain]).mean() > 0.99
    both = plain & ours.found & padded.found
    assert np.abs(ours.points[both] - padded.points[both]).max() < 0.05 * sdf.resolution
    assert np.nanmax(np.abs(ours.points[ours.outside] - padded.points[ours.outside])) > 0.05 * sdf.resolution
    nothing = find_contacts(SignedDistanceGrid(np.full((9, 9, 9), 1.0), np.full(3, -0.03), 0.0075), *query)
    assert not nothing.found.any()


@pytest.mark.graspnetapi
@pytest.mark.parametrize(("cells", "padding"), [(9, 0), (24, 0), (24, 1), (24, 2)])
def test_the_referee_given_all_surface_cells_says_what_we_say(referee: Any, cells: int, padding: int) -> None:
    """Contact points to the last bit and verdicts; what is not marked is the same whatever its sample."""
    sdf, n = ball(cells, padding), 80
    query = queries(n, seed=cells + padding)
    ours = find_contacts(sdf, *query)
    friction = minimum_friction(required_angle(ours))
    assert_same(referee, reference.dexnet_object(sdf, seed=None), query, ours, friction, np.ones(n, bool))
    for seed in SEEDS[:2]:
        assert_same(referee, reference.dexnet_object(sdf, seed), query, ours, friction, ~ours.outside)
    assert ours.outside.any() == (padding < 2)
    assert np.isfinite(friction).sum() >= 10


def assert_same(
    referee: Any, target: Any, query: tuple[np.ndarray, ...], ours: Contacts, friction: np.ndarray, rows: np.ndarray
) -> None:
    for i in np.flatnonzero(rows):
        points, least = close(referee, target, *(part[i] for part in query))
        assert (points is not None) == ours.found[i]
        assert points is None or np.array_equal(points, ours.points[i])
        assert least == friction[i]


@pytest.mark.graspnetapi
def test_the_referees_verdict_varies_with_its_seed_and_ours_does_not(referee: Any) -> None:
    """The surface touches the grid's border, and what a sample misses there decides. Given its draw we say the same."""
    sdf = can(40, 0)
    query = queries(3000, seed=3, tilt=0.4)
    ours = find_contacts(sdf, *query)
    under_seed = np.array(
        [minimum_friction(required_angle(find_contacts(sdf, *query, sample_seed=seed))) for seed in SEEDS]
    )
    varies = (under_seed != under_seed[0]).any(axis=0)
    print(f"{ours.outside.sum()} of 3000 grasps look outside; {varies.sum()} get other scores from {len(SEEDS)} seeds")
    assert varies.sum() >= 20 and not (varies & ~ours.outside).any()
    rows = np.concatenate([np.flatnonzero(varies)[:8], np.flatnonzero(ours.outside & ~varies)[:4]])
    for seed in SEEDS:
        target = reference.dexnet_object(sdf, seed)
        theirs = [close(referee, target, *(part[i] for part in query))[1] for i in rows]
        assert theirs == under_seed[seed, rows].tolist()
    again = find_contacts(sdf, *query)
    assert np.array_equal(ours.points, again.points, equal_nan=True)


@pytest.mark.graspnetapi
def test_distances_without_a_surface_are_refused_by_name(referee: Any) -> None:
    with pytest.raises(GeometryError, match="no surface"):
        reference.dexnet_object(SignedDistanceGrid(np.full((5, 5, 5), 1.0), np.zeros(3), 0.01))
