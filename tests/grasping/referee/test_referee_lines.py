"""The lines along which fingers close are the referee's to the last bit.

Positions on them are rounded to float32, so that a last bit can move a sample by some nanometres and there decide
whether a profile is straight: a grasp on an open can passed at 0.4 for the referee and touched nothing for us while the
axis was left as long as a float32 rotation makes it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from grasping import reference
from grasping.contacts import _unit, find_contacts
from grasping.protocol import closing_lines, score_view

pytestmark = pytest.mark.graspnetapi


def test_lines_of_a_view(referee: None, scene: Any, near_antipodal: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of grasps graded by eval_grasp itself, one by one as it takes them; ours all at once and alone."""
    grasp_type = reference.load().grasp_type
    heard: list[tuple[np.ndarray, np.ndarray, float]] = []
    own = grasp_type.create_line_of_action

    def listen(start: np.ndarray, axis: np.ndarray, width: float, *more: Any, **options: Any) -> Any:
        heard.append((np.array(start), np.array(axis), float(width)))
        return own(start, axis, width, *more, **options)

    monkeypatch.setattr(grasp_type, "create_line_of_action", staticmethod(listen))
    compared = 0
    for k, (geometry, pose) in enumerate(zip(scene.objects, scene.T_camera_object, strict=True)):
        grasps = near_antipodal(geometry, pose, scene.T_camera_table, 30, 70 + k)
        world = ([geometry], pose[None], scene.T_camera_table)
        score = score_view(grasps, *world)
        clear = np.flatnonzero(~(score.collided | score.empty))[:6]
        centres, axes = closing_lines(grasps[score.index[clear]], pose)
        axes = _unit(axes)
        for place, centre, axis in zip(clear, centres, axes, strict=True):
            heard.clear()
            one = grasps[score.index[[place]]]
            reference.score_view_reference(one, *world)
            start, direction, width = heard[0]
            assert np.array_equal(direction, axis)
            assert np.array_equal(start, centre - width / 2 * axis)
            alone = closing_lines(one, pose)
            assert np.array_equal(alone[0][0], centre) and np.array_equal(_unit(alone[1])[0], axis)
            compared += 1
    assert compared >= 20


def test_samples_and_contacts_along_lines_of_any_length(referee: None, geometries: Any) -> None:
    """Axes that are not quite unit vectors, as float32 poses make them."""
    grasp_type = reference.load().grasp_type
    rng = np.random.default_rng(0)
    sdf = geometries["torus"].sdf
    target = reference.dexnet_object(sdf)
    axes = Rotation.random(150, random_state=rng).as_matrix()[:, 0].astype(np.float32).astype(np.float64)
    centres = np.append(rng.uniform(-0.035, 0.035, (150, 2)), rng.uniform(-0.01, 0.01, (150, 1)), axis=1)
    widths = rng.uniform(0.0, 0.1, 150)
    contacts = find_contacts(sdf, centres, axes, widths)
    found = 0
    for i in range(150):
        configuration = grasp_type.configuration_from_params(centres[i], axes[i], widths[i], 0.0)
        touching, pair = grasp_type(configuration, 0.02).close_fingers(target, check_approach=False)
        assert touching == contacts.found[i]
        if touching:
            assert np.array_equal([c.point for c in pair], contacts.points[i])
            found += 1
    assert found >= 20
