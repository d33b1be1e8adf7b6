"""Models with a hole in them keep their shape in physics: a scene's objects must not fill what they enclose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh

from grasping.physics import load_body


@pytest.mark.slow
def test_an_open_model_is_cut_into_parts_like_a_closed_one(tmp_path: Path) -> None:
    pytest.importorskip("coacd", reason="needs the extra physics")
    upright, across = trimesh.creation.box((0.02, 0.02, 0.12)), trimesh.creation.box((0.08, 0.02, 0.02))
    upright.apply_translation((-0.03, 0, 0))
    across.apply_translation((0, 0, 0.05))
    corner = trimesh.boolean.union([upright, across], engine="manifold")
    assert corner.is_watertight
    lowest = np.argmin(corner.triangles_center[:, 2])
    corner.update_faces(np.arange(len(corner.faces)) != lowest)
    assert not corner.is_watertight
    corner.export(tmp_path / "nontextured.ply")
    body = load_body(tmp_path, 1, None, 500.0)
    assert not body.closed and len(body.parts) > 1
    # What the angle leaves free stays free.
    inside = np.array([0.02, 0.0, -0.02])
    for part in body.parts:
        hull = trimesh.Trimesh(part).convex_hull
        assert not hull.contains([inside])[0]
