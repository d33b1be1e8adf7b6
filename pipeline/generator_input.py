"""What of a view a generator is given: the input mode, a declared factor of an experiment.

Completion enters a generator's input in one of four ways (``input`` of a generator; ``entry`` says whether it does):

``replace``     each object's completed cloud stands in the place of the observed one.
``append``      the observed points are kept beside the completed ones.
``rerendered``  the completed scene, seen again from the camera: of all points of ``append`` and of the background only
                those that nothing hides. A detector that learned on single views is given what looks like one.
``observed``    the observed cloud; completion then enters by the collision test alone, and by ``rerank``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from grasping.clouds import seen_from_origin, voxel_downsample
from grasping.generators import ViewInput
from grasping.transforms import invert
from pipeline.arms import Input
from pipeline.cloud_files import ObjectClouds, Observation

# Of the scene of tests/pipeline/test_generator_input.py, made whole, 94 % of what was observed is seen again and 4 % of
# what is hidden (`-s` prints it). Larger pixels hide what slants away (at 1.5 and 2 voxels half of it), more room
# behind lets far sides through.
_PIXEL = 0.5
"""Of the image in which hidden points are found, in voxels at the cloud's median distance."""
_BEHIND = 4.0
"""Voxels that a point may lie behind what is drawn at its pixel and count as seen."""

Points = tuple[NDArray[np.float32], NDArray[np.int64]]


def generator_input(
    mode: Input,
    observed: ObjectClouds,
    completed: ObjectClouds,
    background: NDArray[np.float32],
    density: float,
    *,
    sees_background: bool,
) -> Points:
    """Put a generator's input together.

    Args:
        mode: see the module.
        observed, completed: the same objects in the same order, camera frame, metres, one point a voxel.
        background: ``(B, 3)`` of the same density.
        density: the voxel's edge, metres.
        sees_background: whether the generator wants the background's points as well; their id is -1.

    Returns:
        ``(N, 3)`` float32 metres, camera frame, and ``(N,)`` int64 the object of each point.
    """
    objects = {"observed": observed, "replace": completed}.get(mode)
    if objects is None:
        objects = _appended(observed, completed, density)
    points, ids = objects.points, objects.ids_of_points
    if mode == "rerendered" or sees_background:
        points = np.concatenate([points, background]).astype(np.float32)
        ids = np.concatenate([ids, np.full(len(background), -1, np.int64)])
    if mode == "rerendered":
        pitch = _PIXEL * density / max(float(np.median(points[:, 2])), 1e-3) if len(points) else 1.0
        kept = seen_from_origin(points, pitch, _BEHIND * density)
        if not sees_background:
            kept &= ids >= 0
        points, ids = points[kept], ids[kept]
    return points, ids


def view_input(
    mode: Input,
    observation: Observation,
    completed: ObjectClouds | None,
    density: float,
    seed: int,
    *,
    avoids_completed: bool = True,
    sees_background: bool,
) -> ViewInput:
    """Put together what a generator is called with for one view of a run.

    Args:
        mode, density, sees_background: as of :func:`generator_input`.
        observation: the view's.
        completed: its objects, completed; None: as observed, and there is nothing to avoid.
        seed: of the view.
        avoids_completed: whether the gripper must not touch the objects as completed, or as observed.
    """
    observed = at_density(observation.objects, density)
    background = voxel_downsample(observation.background, density)
    points, ids = generator_input(
        mode, observed, completed or observed, background, density, sees_background=sees_background
    )
    avoided = np.zeros((0, 3), np.float32)
    if completed is not None:
        avoided = np.concatenate([background, (completed if avoids_completed else observed).points])
    return ViewInput(points, ids, avoided, invert(observation.T_table_camera), np.zeros(3), seed)


def at_density(objects: ObjectClouds, density: float) -> ObjectClouds:
    """Return the same clouds, each brought to one point a voxel of edge ``density`` metres."""
    return ObjectClouds(
        objects.object_ids, tuple(voxel_downsample(cloud, density) for cloud in objects.clouds), objects.status
    )


def _appended(observed: ObjectClouds, completed: ObjectClouds, density: float) -> ObjectClouds:
    clouds = tuple(
        voxel_downsample(np.concatenate([seen, made]), density)
        for seen, made in zip(observed.clouds, completed.clouds, strict=True)
    )
    return ObjectClouds(completed.object_ids, clouds, completed.status)
