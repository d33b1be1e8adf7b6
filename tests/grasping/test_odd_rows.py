"""Rows that are finite and odd: nothing dies of them, and the referee, where it survives, says the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from grasping import reference
from grasping.contacts import find_contacts
from grasping.geometry import ObjectGeometry
from grasping.grasps import Grasps
from grasping.protocol import ViewScore, remarks, score_view

Change = Callable[[np.ndarray], None]
ROTATION, TRANSLATION = slice(4, 13), slice(13, 16)


def _set(column: int, value: float) -> Change:
    def change(a: np.ndarray) -> None:
        a[:, column] = value

    return change


def _times(columns: slice, factor: float) -> Change:
    def change(a: np.ndarray) -> None:
        a[:, columns] *= factor

    return change


def _mirrored(axis: int) -> Change:
    def change(a: np.ndarray) -> None:
        a[:, [4 + axis, 7 + axis, 10 + axis]] *= -1

    return change


def _sheared(a: np.ndarray) -> None:
    """Any approach and height axes; the closing axis stays of unit length."""
    rng = np.random.default_rng(5)
    for axis in (0, 2):
        a[:, [4 + axis, 7 + axis, 10 + axis]] += rng.normal(size=(len(a), 3)) * 0.05


def _away(a: np.ndarray) -> None:
    a[:, TRANSLATION] += 1e3


def _denormal(a: np.ndarray) -> None:
    a[:, 0] *= 1e-310


KINDS: dict[str, Change] = {
    "width 0": _set(1, 0.0),
    "negative width": _set(1, -1.0),
    "huge width": _set(1, 1e300),
    "depth 0": _set(3, 0.0),
    "negative depth": _set(3, -0.01),
    "depth behind the fingers": _set(3, -0.05),
    "depth beyond the object": _set(3, 1.0),
    "huge depth": _set(3, 1.7e308),
    "negative height": _set(2, -1.0),
    "huge height": _set(2, 1e300),
    "left-handed, approach": _mirrored(0),
    "left-handed, closing": _mirrored(1),
    "left-handed, height": _mirrored(2),
    "sheared": _sheared,
    "huge rotation": _times(ROTATION, 1e200),
    "far away": _away,
    "huge translation": _times(TRANSLATION, 1e200),
    "negative confidence": _times(slice(0, 1), -1.0),
    "huge confidence": _times(slice(0, 1), 1e300),
    "denormal confidence": _denormal,
    "object id out of range": _set(16, 1e300),
    "object id NaN": _set(16, np.nan),
}


@pytest.fixture(scope="module")
def rows(scene, near_antipodal) -> np.ndarray:
    """Some thirty grasps an object, each of another confidence."""
    parts = [
        near_antipodal(geometry, T, scene.T_camera_table, 30, seed=number)
        for number, (geometry, T) in enumerate(zip(scene.objects, scene.T_camera_object, strict=True))
    ]
    array = Grasps.concatenate(parts).to_array()
    array[:, 0] = np.random.default_rng(0).permutation(len(array)) / len(array) + 0.01
    return array


def _by_row(score: ViewScore, array: np.ndarray) -> list[tuple[float, ...]]:
    """Kept rows with what was said of them, in order; told by their numbers, for equal rows have no own place."""
    said = zip(score.index, score.object_index, score.collided, score.empty, score.min_friction, strict=True)
    return [(*np.nan_to_num(array[i]), float(k), float(c), float(e), float(f)) for i, k, c, e, f in said]


@pytest.mark.graspnetapi
@pytest.mark.parametrize("kind", KINDS)
def test_the_referee_says_the_same(scene, rows: np.ndarray, kind: str) -> None:
    pytest.importorskip("graspnetAPI", reason="install it with scripts/install_referee.sh")
    array = rows.copy()
    KINDS[kind](array)
    view = (scene.objects, scene.T_camera_object, scene.T_camera_table)
    with np.errstate(all="ignore"):
        ours = score_view(Grasps.from_array(array), *view, kept_only=True)
        theirs = reference.score_view_reference(Grasps.from_array(array), *view)
    assert len(theirs) >= 10
    assert _by_row(ours, array) == _by_row(theirs, array)


@pytest.mark.graspnetapi
def test_duplicated_rows_are_suppressed_as_by_the_referee(scene, rows: np.ndarray) -> None:
    pytest.importorskip("graspnetAPI", reason="install it with scripts/install_referee.sh")
    array = np.repeat(rows, 3, axis=0)
    view = (scene.objects, scene.T_camera_object, scene.T_camera_table)
    ours = score_view(Grasps.from_array(array), *view, kept_only=True)
    assert _by_row(ours, array) == _by_row(score_view(Grasps.from_array(rows), *view, kept_only=True), rows)
    assert _by_row(ours, array) == _by_row(reference.score_view_reference(Grasps.from_array(array), *view), array)


@pytest.mark.graspnetapi
def test_the_referee_dies_of_a_closing_axis_that_is_not_of_unit_length(scene, rows: np.ndarray) -> None:
    pytest.importorskip("graspnetAPI", reason="install it with scripts/install_referee.sh")
    view = (scene.objects, scene.T_camera_object, scene.T_camera_table)
    score = score_view(Grasps.from_array(rows), *view)
    holds = rows[score.index[score.reason == "success"][:1]]
    assert len(holds) == 1
    for factor, survives in ((1 + 0.99e-5, True), (1 + 1.01e-5, False), (1 - 0.99e-5, True), (1 - 1.01e-5, False)):
        array = holds.copy()
        array[:, [5, 8, 11]] *= factor
        if survives:
            assert len(reference.score_view_reference(Grasps.from_array(array), *view)) == 1
        else:
            with pytest.raises(ValueError, match="Illegal grasp axis"):
                reference.score_view_reference(Grasps.from_array(array), *view)


@pytest.mark.parametrize(
    ("factor", "fails"), [(1 + 0.99e-5, False), (1 + 1.01e-5, True), (1 - 0.99e-5, False), (1 - 1.01e-5, True)]
)
def test_a_closing_axis_that_is_not_of_unit_length_fails_where_it_would_be_closed(
    scene, rows: np.ndarray, factor: float, fails: bool
) -> None:
    view = (scene.objects, scene.T_camera_object, scene.T_camera_table)
    before = score_view(Grasps.from_array(rows), *view)
    array = rows.copy()
    array[:, [5, 8, 11]] *= factor
    after = score_view(Grasps.from_array(array), *view)
    np.testing.assert_array_equal(after.index, before.index)
    clear = ~(before.collided | before.empty)
    assert clear.sum() >= 10 and (~clear).any() and np.isfinite(before.min_friction).any()
    np.testing.assert_array_equal(after.reason[~clear], before.reason[~clear])
    if fails:
        assert set(after.reason[clear]) == {"not_unit_axis"} and np.isinf(after.min_friction).all()
        (said,) = remarks(after, len(rows))
        assert said.startswith(f"{int((clear & after.kept).sum())} kept grasps fail")
    else:
        np.testing.assert_array_equal(after.reason, before.reason)
        np.testing.assert_array_equal(after.min_friction, before.min_friction)
        assert remarks(after, len(rows)) == []


@pytest.mark.parametrize("centre", [np.nan, np.inf, -np.inf, 1e300, 1e39])
@pytest.mark.parametrize("axis", [1.0, 0.0, np.nan, np.inf, 1e300])
def test_numbers_that_overflowed_touch_nothing(geometries, centre: float, axis: float) -> None:
    geometry: ObjectGeometry = geometries["box"]
    assert geometry.sdf is not None
    with np.errstate(all="ignore"):
        contacts = find_contacts(geometry.sdf, np.full((2, 3), centre), np.full((2, 3), axis), [0.0, 0.1])
    assert not contacts.found.any() and np.isnan(contacts.points).all()


def test_overflow_beside_good_rows_leaves_those_alone(geometries) -> None:
    geometry: ObjectGeometry = geometries["box"]
    assert geometry.sdf is not None
    centres, axes = np.array([[0.0, 0, 0.02], [np.nan, 0, 0]]), np.array([[0.0, 1, 0], [0.0, 1, 0]])
    both = find_contacts(geometry.sdf, centres, axes, [0.09, 0.09])
    one = find_contacts(geometry.sdf, centres[:1], axes[:1], [0.09])
    assert both.found.tolist() == [True, False]
    np.testing.assert_array_equal(both.points[:1], one.points)
    np.testing.assert_array_equal(both.normals[:1], one.normals)


def test_a_finite_grasp_that_overflows_on_the_way_fails(scene, rows: np.ndarray) -> None:
    """An approach of a thousand times unit length and a depth near the largest number: finite, and centre infinite."""
    grasps = Grasps.from_array(rows)
    wild = replace(grasps, rotation=grasps.rotation * [1e3, 1.0, 1.0], depth=np.full(len(grasps), 1e308))
    with np.errstate(all="ignore"):
        score = score_view(wild, scene.objects, scene.T_camera_object, scene.T_camera_table)
    assert not np.isfinite(score.min_friction).any() and (score.reason == "no_contact").any()
