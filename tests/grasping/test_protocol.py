"""GraspNet-1Billion's evaluation of one view, by its steps and as a whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from grasping import protocol
from grasping.geometry import GeometryError, ObjectGeometry
from grasping.grasps import Grasps
from grasping.protocol import REASONS, ViewScore, assign, closing_lines, cut, fingerprint, score_view, table_points
from grasping.transforms import pose, transform_points

quiet = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="session")
def grasps(scene, near_antipodal) -> Grasps:  # type: ignore[no-untyped-def]
    """A few hundred varied grasps on the scene of six shapes."""
    return Grasps.concatenate(
        [
            near_antipodal(geometry, pose_, scene.T_camera_table, 120, seed)
            for seed, (geometry, pose_) in enumerate(zip(scene.objects, scene.T_camera_object, strict=True))
        ]
    )


def rows_of(grasps: Grasps, score: ViewScore) -> list[tuple[object, ...]]:
    """What a score says of each grasp, without row numbers."""
    numbers = grasps[score.index].to_array()
    fields = (
        score.object_index,
        score.width,
        score.kept,
        score.collided,
        score.empty,
        score.min_friction,
        score.reason,
    )
    return [(tuple(row), *values) for row, *values in zip(numbers.tolist(), *(f.tolist() for f in fields), strict=True)]


def test_score_is_consistent(scene, grasps: Grasps) -> None:  # type: ignore[no-untyped-def]
    score = score_view(grasps, scene.objects, scene.T_camera_object, scene.T_camera_table)
    assert len(score) == len(score.reason) > 150
    assert score.refused == []
    assert (np.diff(grasps.confidence[score.index]) <= 0).all()
    assert score.width == pytest.approx(np.clip(grasps.width[score.index], 0, 0.1), abs=0)
    assert set(score.reason.tolist()) <= set(REASONS)
    holds = np.isfinite(score.min_friction)
    assert np.array_equal(score.reason == "success", holds)
    assert np.array_equal(score.reason == "empty", score.empty)
    assert np.array_equal(score.reason == "collides", score.collided & ~score.empty)
    assert not (holds & (score.collided | score.empty)).any()
    assert 20 < holds.sum() < len(score)
    assert score.kept.sum() <= 60
    for k in range(6):
        assert 0 < score.kept[score.object_index == k].sum() <= 10


def test_steps_against_their_definition(scene, grasps: Grasps) -> None:  # type: ignore[no-untyped-def]
    """Assignment and collision of every candidate, naively."""
    score = score_view(grasps, scene.objects, scene.T_camera_object, scene.T_camera_table)
    models = [transform_points(T, g.points) for T, g in zip(scene.T_camera_object, scene.objects, strict=True)]
    owner = np.repeat(np.arange(6), [len(m) for m in models])
    t = grasps.translation[score.index]
    assert np.array_equal(score.object_index, owner[cdist(t, np.concatenate(models)).argmin(axis=1)])

    world = np.concatenate([*models, table_points(scene.T_camera_table)])
    for s in range(0, len(score), 3):
        model, row = models[score.object_index[s]], score.index[s]
        near = ((world > model.min(axis=0) - 0.05) & (world < model.max(axis=0) + 0.05)).all(axis=1)
        x, y, z = ((world[near] - grasps.translation[row]) @ grasps.rotation[row]).T
        half, depth = score.width[s] / 2, grasps.depth[row]
        level, reach = np.abs(z) < 0.01, (x > -0.02) & (x < depth)
        fingers = level & reach & (np.abs(y) > half) & (np.abs(y) < half + 0.01)
        plate = level & (x > -0.03) & (x < -0.02) & (np.abs(y) < half + 0.01)
        assert score.collided[s] == (fingers | plate).any()
        assert score.empty[s] == ((level & reach & (np.abs(y) <= half)).sum() < 10)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31), n=st.integers(0, 200), objects=st.integers(1, 12), levels=st.sampled_from([8, 10**6])
)
def test_cut_against_its_definition(seed: int, n: int, objects: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    confidence, assigned = -np.sort(-rng.integers(0, levels, n)).astype(float), rng.integers(0, objects, n)
    best = [i for k in range(objects) for i in [j for j in range(n) if assigned[j] == k][:10]]
    scores = sorted((confidence[i] for i in best), reverse=True)
    least = scores[min(49, len(scores) - 1)] if scores else 0
    naive = [i in best and confidence[i] >= least for i in range(n)]
    assert cut(confidence, assigned).tolist() == naive


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(0, 30))
def test_assignment_against_all_distances(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    # a coarse lattice makes ties, which go to the first object
    models = [rng.integers(0, 4, (k, 3)).astype(float) for k in (7, 0, 9)]
    queries = rng.integers(0, 4, (n, 3)).astype(float)
    owner = np.repeat([0, 1, 2], [7, 0, 9])
    assert np.array_equal(assign(queries, models), owner[cdist(queries, np.concatenate(models)).argmin(axis=1)])


@quiet
@given(seed=st.integers(0, 2**31), levels=st.sampled_from([0, 1, 5]))
def test_order_of_rows_does_not_matter(scene, grasps: Grasps, seed: int, levels: int) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    confidence = rng.integers(0, levels, len(grasps)).astype(float) if levels else grasps.confidence
    tied = replace(grasps, confidence=confidence)
    shuffled = tied[rng.permutation(len(tied))]
    world = (scene.objects, scene.T_camera_object, scene.T_camera_table)
    assert rows_of(tied, score_view(tied, *world)) == rows_of(shuffled, score_view(shuffled, *world))


@quiet
@given(seed=st.integers(0, 2**31))
def test_order_of_objects_only_renumbers_them(scene, grasps: Grasps, seed: int) -> None:  # type: ignore[no-untyped-def]
    order = np.random.default_rng(seed).permutation(6)
    one = score_view(grasps, scene.objects, scene.T_camera_object, scene.T_camera_table)
    other = score_view(grasps, [scene.objects[k] for k in order], scene.T_camera_object[order], scene.T_camera_table)
    assert np.array_equal(one.object_index, order[other.object_index])
    assert np.array_equal(one.index, other.index) and np.array_equal(one.min_friction, other.min_friction)


@quiet
@given(seed=st.integers(0, 2**31))
def test_rigid_motion_leaves_scores_unchanged(
    geometries: dict[str, ObjectGeometry], near_antipodal: Callable[..., Grasps], seed: int
) -> None:
    """Scene and grasps move together. Round objects and narrow grasps: the collision box is aligned with the camera."""
    rng = np.random.default_rng(seed)
    objects = [geometries["torus"], geometries["ball"]]
    poses = np.array([pose(np.eye(3), [0, 0, 0.6]), pose(np.eye(3), [0.0, 0.2, 0.6])])
    table = pose(Rotation.from_euler("x", 180, degrees=True).as_matrix(), [0, 0, 0.65])
    grasps = Grasps.concatenate(
        [near_antipodal(g, T, table, 60, seed + k) for k, (g, T) in enumerate(zip(objects, poses, strict=True))]
    )
    array = grasps.to_array()
    array[:, 1] = np.minimum(array[:, 1], 0.05)
    grasps = Grasps.from_array(array)
    T = pose(Rotation.random(random_state=rng).as_matrix(), rng.uniform(-0.5, 0.5, 3))
    before = score_view(grasps, objects, poses, table)
    after = score_view(grasps.transformed(T), objects, T @ poses, T @ table)
    assert np.array_equal(before.index, after.index)
    # poses are rounded to float32, so a score on the edge of a cone or box may fall on its other side
    same = (before.min_friction == after.min_friction) & (before.reason == after.reason)
    assert (~same).sum() <= 1
    assert np.isfinite(before.min_friction).sum() >= 3


@quiet
@given(seed=st.integers(0, 2**31), levels=st.sampled_from([None, 1, 4]), size=st.sampled_from([0, 1, 9, 150, 720]))
def test_the_cut_alone_is_the_kept_rows_of_the_full_call(  # type: ignore[no-untyped-def]
    scene, grasps: Grasps, seed: int, levels: int | None, size: int
) -> None:
    rng = np.random.default_rng(seed)
    some = grasps[rng.permutation(len(grasps))[:size]]
    confidence = rng.random(len(some)) if levels is None else rng.integers(0, levels, len(some)).astype(float)
    width = np.where(rng.random(len(some)) < 0.05, np.nan, some.width)
    some = replace(some, confidence=confidence, width=width)
    world = (scene.objects, scene.T_camera_object, scene.T_camera_table)
    full, alone = score_view(some, *world), score_view(some, *world, kept_only=True)
    assert alone.refused == full.refused
    for name in ("index", "object_index", "width", "kept", "collided", "empty", "min_friction", "reason"):
        one, other = getattr(full, name)[full.kept], getattr(alone, name)
        assert one.dtype == other.dtype and one.tobytes() == other.tobytes(), name


def test_what_is_closed_on_does_not_depend_on_the_company(scene, grasps: Grasps) -> None:  # type: ignore[no-untyped-def]
    """To the last bit: a lone row takes another path through BLAS than one of many."""
    for pose_ in scene.T_camera_object:
        together = closing_lines(grasps, pose_)
        centres = grasps.rotation[:, :, 0] * grasps.depth[:, None] + grasps.translation
        assert np.allclose(together[0], transform_points(np.linalg.inv(pose_), centres), rtol=0, atol=1e-15)
        for row in range(0, len(grasps), 20):  # each centre in a product of its own, as the referee moves it
            column = np.append(centres[row], 1.0)[:, None]
            assert (np.linalg.inv(pose_) @ column)[:3, 0].tobytes() == together[0][row].tobytes()
        assert np.array_equal(together[1], grasps.rotation[:, :, 1] @ pose_[:3, :3].astype(np.float64))
        for size in (0, 1, 2, 7):
            for start in range(0, len(grasps) - size, 40):
                part = slice(start, start + size)
                alone = closing_lines(grasps[part], pose_)
                assert alone[0].tobytes() == together[0][part].tobytes()
                assert alone[1].tobytes() == together[1][part].tobytes()


def test_rows_that_are_not_finite_are_refused(scene, grasps: Grasps) -> None:  # type: ignore[no-untyped-def]
    array = grasps.to_array()
    for row, column in ((0, 0), (3, 1), (7, 8), (9, 15)):
        array[row, column] = (np.nan, np.inf, -np.inf, np.nan)[row % 4]
    array[11, 16] = np.nan  # the object id is not read
    broken = Grasps.from_array(array)
    score = score_view(broken, scene.objects, scene.T_camera_object, scene.T_camera_table)
    assert score.refused == [(row, "not finite") for row in (0, 3, 7, 9)]
    whole = np.delete(np.arange(len(grasps)), [0, 3, 7, 9])
    alone = score_view(grasps[whole], scene.objects, scene.T_camera_object, scene.T_camera_table)
    assert np.array_equal(score.index, whole[alone.index])
    assert np.array_equal(score.min_friction, alone.min_friction)


def test_empty_input_gives_an_empty_result(scene) -> None:  # type: ignore[no-untyped-def]
    nothing = score_view(Grasps.empty(), scene.objects, scene.T_camera_object, scene.T_camera_table)
    refused = score_view(
        Grasps.from_array(np.full((2, 17), np.nan)), scene.objects, scene.T_camera_object, scene.T_camera_table
    )
    for score in (nothing, refused):
        assert len(score) == 0
        for name in ("index", "object_index", "width", "kept", "collided", "empty", "min_friction", "reason"):
            assert getattr(score, name).shape == (0,)
    assert [row for row, _ in refused.refused] == [0, 1]


@pytest.mark.parametrize("change", [{"width": -1.0}, {"width": 0.0}, {"width": 5.0}, {"depth": -0.1}, {"depth": 3.0}])
def test_odd_but_finite_grasps_are_graded(scene, grasps: Grasps, change: dict[str, float]) -> None:  # type: ignore[no-untyped-def]
    ((name, value),) = change.items()
    odd = replace(grasps, **{name: np.full(len(grasps), value)})
    score = score_view(odd, scene.objects, scene.T_camera_object, scene.T_camera_table)
    assert score.refused == [] and len(score) > 0
    assert (score.width >= 0).all() and (score.width <= 0.1).all()


def test_wrong_scenes_are_refused(scene, grasps: Grasps) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="pose for each"):
        score_view(grasps, scene.objects, scene.T_camera_object[:3], scene.T_camera_table)
    with pytest.raises(ValueError, match="at least one"):
        score_view(grasps, [], np.zeros((0, 4, 4)), scene.T_camera_table)
    bare = [replace(geometry, sdf=None) for geometry in scene.objects]
    with pytest.raises(GeometryError, match="no signed distances"):
        score_view(grasps, bare, scene.T_camera_object, scene.T_camera_table)


def test_fingerprint_is_plain_and_names_what_matters() -> None:
    printed = json.dumps(fingerprint(), sort_keys=True)
    for name in ("version", "suppression_angle", "frictions", "table_grid", "gripper", "ties"):
        assert f'"{name}"' in printed
    assert protocol.MAXIMUM_WIDTH == 0.1 and protocol.SUPPRESSION_TRANSLATION == 0.03
