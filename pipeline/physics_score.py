"""The scorer ``physics``: a trial for every grasp that the protocol keeps, in the scene at rest or on the object alone.

A scene is settled once, from view 0's annotation, whatever views are used: annotations are rounded to 1e-4 and each
view's would come to rest a little elsewhere. Grasps follow their object: each is taken into its object's frame by its
own view's pose. Heavy parts (:mod:`grasping.physics`, MuJoCo) are imported when a unit begins, not before.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from grasping.grasps import Grasps
from pipeline.config import PhysicsSection
from pipeline.datasets.graspnet import GraspNetDataset
from pipeline.grasp_rows import COLUMNS as ROW_COLUMNS
from pipeline.grasp_rows import TRIAL_COLUMNS
from pipeline.scorers import ScorerError

VERSION = 1
COLUMNS = pa.schema([*ROW_COLUMNS, *TRIAL_COLUMNS])
PACKAGES = ("mujoco", "coacd")
SETTLED_FROM = 0
"""The view whose poses a scene is settled from; every scene has it."""
SETTLED_WITHIN = 0.02
"""Metres that an object may move while its scene comes to rest before that is a problem on record."""
REFUSED = "refused"
"""Outcome of a grasp whose axes are none: nothing to try, and not held."""
NEVER_HELD = ("collided", "no_contact")
LEAST_AXIS = 1e-3  # of a column that should have length 1


def check_available() -> None:
    """Find out whether trials can be carried out here.

    Raises:
        ScorerError: naming what to install.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ScorerError(
            f"scorer 'physics' needs {' and '.join(missing)}; run pip install 'grasp-utility[physics]', or drop it"
        )


def settings(section: PhysicsSection) -> Any:
    """Return the :class:`grasping.physics.TrialSettings` of a configuration's section."""
    from grasping.physics import TrialSettings

    return TrialSettings(friction=section.friction, density=section.density, closing_force=section.closing_force)


def identity(section: PhysicsSection, seed: int) -> dict[str, Any]:
    """Return everything that trials depend on besides grasps and models, for fingerprints."""
    from grasping.physics.bodies import PARTS

    return {
        "version": VERSION,
        "mode": section.mode,
        "repeats": section.repeats,
        "seed": seed if section.repeats > 1 else None,
        "settled_from": SETTLED_FROM,
        "parts": PARTS,
        "trial": settings(section).fingerprint(),
        "packages": {name: metadata.version(name) if importlib.util.find_spec(name) else None for name in PACKAGES},
    }


def scene_files(dataset: GraspNetDataset, scene: int) -> list[Path]:
    """List what a settled scene depends on besides its models, for fingerprints."""
    folder = dataset.scene_dir(scene)
    return [dataset.annotation_file(scene, SETTLED_FROM), folder / "camera_poses.npy", folder / "cam0_wrt_table.npy"]


@dataclass(frozen=True, eq=False)
class SceneTrials:
    """One scene, ready for trials.

    Attributes:
        section: how grasps are tried.
        object_ids: K objects in the order of the scene's annotation.
        bodies: K :class:`grasping.physics.PhysicsBody`.
        scene: the :class:`grasping.physics.SettledScene`; None in isolation.
    """

    section: PhysicsSection
    object_ids: tuple[int, ...]
    bodies: tuple[Any, ...]
    scene: Any

    def try_kept(
        self, rows: pa.Table, grasps: Grasps, T_camera_object: NDArray, seed: int
    ) -> tuple[pa.Table, list[dict[str, Any]]]:
        """Try the grasps of a view that the protocol keeps.

        Args:
            rows: the view's, as the protocol graded them (:data:`pipeline.grasp_rows.COLUMNS`).
            grasps: the view's N grasps, camera frame.
            T_camera_object: ``(K, 4, 4)`` poses in this view.
            seed: of the perturbations.

        Returns:
            The kept rows with their outcomes (:data:`COLUMNS`), and problems ``{object, reason}``. A view whose trials
            fail has no rows, so that it counts as zero.
        """
        kept = rows.filter(rows["kept"])
        own = replace(grasps[kept["row"].to_numpy()], width=kept["width"].to_numpy())
        number = {object_id: index for index, object_id in enumerate(self.object_ids)}
        target = np.array([number[object_id] for object_id in kept["object"].to_pylist()], np.int64)
        try:
            columns = self._columns(target, in_objects(own, target, T_camera_object), seed)
        except Exception as error:  # a simulator has failures of its own
            reason = f"physics failed: {type(error).__name__}: {' '.join(str(error).split())}"
            return COLUMNS.empty_table(), [{"object": None, "reason": reason}]
        for field in TRIAL_COLUMNS:
            kept = kept.append_column(field, pa.array(columns[field.name], type=field.type))
        return kept, []

    def displaced(self) -> list[dict[str, Any]]:
        """List objects that came to rest elsewhere, as problems: what is tried there is not what was graded."""
        if self.scene is None:
            return []
        where = "from where the annotation says, and its grasps were tried there"
        return [
            {"view": None, "object": object_id, "reason": f"came to rest {1000 * moved:.0f} mm {where}"}
            for object_id, moved in zip(self.object_ids, self.scene.displacement, strict=True)
            if moved > SETTLED_WITHIN
        ]

    def _columns(self, target: NDArray[np.int64], grasps: Grasps, seed: int) -> dict[str, Any]:
        rotation, possible = hand_rotation(grasps.rotation)
        rows, grasps = np.flatnonzero(possible), replace(grasps, rotation=rotation)
        outcome = np.full(len(grasps), REFUSED, dtype=object)
        fraction, slip = np.zeros(len(grasps)), np.full(len(grasps), np.nan)
        trials = self.trials(target[rows], grasps[rows])
        outcome[rows] = [trial.outcome for trial in trials]
        fraction[rows] = [trial.held for trial in trials]
        slip[rows] = [np.nan if trial.outcome in NEVER_HELD else trial.slip for trial in trials]
        more = self.section.repeats - 1
        if more:
            from grasping.physics import repeated

            targets = np.repeat(target[rows], more)
            others = repeated(lambda copies: self.trials(targets, copies), grasps[rows], more, seed)
            fraction[rows] = (fraction[rows] + more * others) / self.section.repeats
        return {"outcome": outcome, "held": fraction > 0.5, "held_fraction": fraction, "slip": slip}

    def trials(self, target: NDArray[np.int64], grasps: Grasps, recorder: Any = None) -> list[Any]:
        """Try grasps, each in the frame of its object.

        Args:
            target: ``(N,)`` index of each grasp's object.
            grasps: N grasps.
            recorder: is shown every phase (:data:`grasping.physics.outcomes.Recorder`).

        Returns:
            N :class:`grasping.physics.Trial`.
        """
        from grasping.physics import try_grasps, try_grasps_in_scene

        how = settings(self.section)
        if self.scene is not None:
            return try_grasps_in_scene(self.scene, target, grasps, how, recorder=recorder)
        trials: list[Any] = [None] * len(grasps)
        for k in np.unique(target):
            rows = np.flatnonzero(target == k)
            for row, trial in zip(rows, try_grasps(self.bodies[k], grasps[rows], how, recorder=recorder), strict=True):
                trials[row] = trial
        return trials


def prepare(section: PhysicsSection, dataset: GraspNetDataset, scene: int, cache: Path) -> SceneTrials:
    """Load a scene's bodies and let it come to rest; what a process settled once it does not settle again.

    Raises:
        DatasetError, GeometryError: for poses or models that cannot be used.
    """
    ids = dataset.object_ids(scene)
    files = [*scene_files(dataset, scene), *(dataset.model_dir(i) / "nontextured.ply" for i in ids)]
    state = tuple((path.stat().st_size, path.stat().st_mtime_ns) for path in files if path.exists())
    return _prepare(section, dataset, scene, cache, state)


@lru_cache(maxsize=8)
def _prepare(
    section: PhysicsSection, dataset: GraspNetDataset, scene: int, cache: Path, state: tuple[tuple[int, int], ...]
) -> SceneTrials:
    from grasping.physics import load_body, settle_scene

    ids = dataset.object_ids(scene)
    bodies = tuple(load_body(dataset.model_dir(i), i, cache, section.density) for i in ids)
    if section.mode == "isolation":
        return SceneTrials(section, ids, bodies, None)
    T_table_camera = dataset.T_table_camera(scene, SETTLED_FROM)
    T_table_object = T_table_camera @ dataset.object_poses(scene, SETTLED_FROM, ids).astype(np.float64)
    return SceneTrials(section, ids, bodies, settle_scene(bodies, T_table_object, settings(section)))


def in_objects(grasps: Grasps, target: NDArray[np.int64], T_camera_object: NDArray) -> Grasps:
    """Give each of N grasps in the frame of its object, from the camera's; ``target`` ``(N,)`` indexes the poses."""
    T = np.linalg.inv(np.asarray(T_camera_object, np.float64).reshape(-1, 4, 4))[target]
    return replace(
        grasps,
        rotation=T[:, :3, :3] @ grasps.rotation,
        translation=np.einsum("nij,nj->ni", T[:, :3, :3], grasps.translation) + T[:, :3, 3],
    )


def hand_rotation(rotation: NDArray) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Make hands of what files give as rotations.

    The approach axis is taken as it points, the closing axis made square to it, the height axis their cross product:
    a left-handed matrix is the same hand, since both sides of its height are alike.

    Args:
        rotation: ``(N, 3, 3)``, columns approach, closing, height.

    Returns:
        ``(N, 3, 3)`` proper rotations, and ``(N,)`` whether there was one to make; identity where not.
    """
    given = np.asarray(rotation, np.float64)
    size = np.linalg.norm(given[:, :, 0], axis=1)
    x = given[:, :, 0] / np.where(size > 0, size, 1.0)[:, None]
    y = given[:, :, 1] - (given[:, :, 1] * x).sum(axis=1, keepdims=True) * x
    left = np.linalg.norm(y, axis=1)
    y = y / np.where(left > 0, left, 1.0)[:, None]
    possible = (size > LEAST_AXIS) & (left > LEAST_AXIS)
    made = np.stack([x, y, np.cross(x, y)], axis=-1)
    made[~possible] = np.eye(3)
    return made, possible
