"""A grasp generator in an environment of its own: straight down on every object, across its narrowest side.

    generators:
      - {command: "/opt/theirs/bin/python scripts/example_grasps_from_above.py {input} {output}", label: from-above}

Needs numpy alone and nothing of ours: it is called once a scene and camera, finds request.json and one VVVV.npz a view
in the first folder, and writes one VVVV.npy a view into the second (pipeline/command_generator.py has the format).
"""

import json
import pathlib
import sys

import numpy as np

OPENING = 0.10  # of the gripper, metres
DEPTH = 0.02  # from a grasp's translation to the finger tips; its palm is as far behind
HEIGHT = 0.02  # of the fingers, across approach and closing


def grasp(points, object_id):
    """One row of 17 for an object's points (N, 3) in the table's frame (z up), or None where it is too wide."""
    angles = np.radians(np.arange(0, 180, 15))
    axes = np.stack([np.cos(angles), np.sin(angles), np.zeros(12)], axis=1)
    along = points @ axes.T
    extent = along.max(axis=0) - along.min(axis=0)
    best = int(extent.argmin())
    width = extent[best] + 0.02  # a centimetre of room on either side
    if width > OPENING:
        return None
    closing = axes[best]
    centre = points.mean(axis=0)
    centre += closing * ((along[:, best].max() + along[:, best].min()) / 2 - centre @ closing)  # fingers close alike
    # No deeper than that the palm stays above the object, and the finger tips above the table.
    centre[2] = max(centre[2], points[:, 2].max() - DEPTH + 0.005, DEPTH + 0.005)
    approach = np.array([0.0, 0.0, -1.0])
    rotation = np.stack([approach, closing, np.cross(approach, closing)], axis=1)
    return [1 - width / OPENING, width, HEIGHT, DEPTH, *rotation.ravel(), *centre, object_id]


def view_grasps(view):
    """(G, 17) grasps in the camera's frame."""
    R, t = view["T_camera_table"][:3, :3], view["T_camera_table"][:3, 3]
    on_table = (view["points"] - t) @ R
    ids = view["object_ids"]
    found = [grasp(on_table[ids == number], number) for number in np.unique(ids)]
    rows = np.array([row for row in found if row is not None]).reshape(-1, 17)
    rows[:, 4:13] = (R @ rows[:, 4:13].reshape(-1, 3, 3)).reshape(-1, 9)
    rows[:, 13:16] = rows[:, 13:16] @ R.T + t
    return rows


source, target = map(pathlib.Path, sys.argv[1:])
for entry in json.loads((source / "request.json").read_text())["views"]:
    with np.load(source / entry["file"], allow_pickle=False) as view:
        np.save(target / f"{entry['view']:04d}.npy", view_grasps(view))
