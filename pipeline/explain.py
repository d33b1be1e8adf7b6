"""Stage: scored grasps + what was seen and completed -> why each grasp succeeded or failed.

Reads
    ``arms/<arm>/{scores,dump,clouds}/`` and ``observations/`` of a unit, the grasps of the arm that completes by truth,
    and the dataset's models and poses. Of the scorers the first that is no second opinion counts.
Writes
    ``arms/<arm>/explained/<generator>/scene_SSSS/<camera>/grasps.parquet``: one row a scored candidate
    (:data:`pipeline.explained_view.GRASP_COLUMNS`): what the gripper hits of the true scene, how thin the object is
    where it is held, and how far the contacts are from the observed and from the arm's points. All contacts and hits
    are those on true geometry.

    ``…/crossed.parquet``: one row a view and combination with every metric of :mod:`grasping.utility`, each scored by
    the same scorer: what the arm's utility would be with one part of it exchanged.

    ==================  ===============================================================================================
    ``own``             the arm's grasps, as scored
    ``true_collisions`` the arm's grasps without those that hit the true scene: perfect collision geometry
    ``arm_collisions``  the grasps made on the true shapes, without those that hit the arm's clouds or the observed
                        background: perfect shapes for the generator, the arm's for collisions
    ``oracle``          the grasps made on the true shapes, as scored
    ==================  ===============================================================================================

    What hits is dropped before suppression and the protocol's cut, so that others take its place. The last two need an
    arm that completes by truth.

    ``visibility/scene_SSSS/<camera>/visibility.parquet``, for all arms alike: :mod:`pipeline.visibility`.

No torch and no open3d here, so that workers start fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from grasping.geometry import ObjectGeometry
from grasping.grasps import GraspFileError, Grasps
from grasping.utility import view_utility
from pipeline import score, visibility
from pipeline.artifacts import FileHashes, atomic_write, read_stamp
from pipeline.cloud_files import load_clouds, load_observation
from pipeline.config import Experiment
from pipeline.datasets.graspnet import DatasetError, GraspNetDataset
from pipeline.explained_view import (
    COMPLETED_WITHIN,
    CROSSED_COLUMNS,
    GRASP_COLUMNS,
    SceneView,
    exchange,
    explain_grasps,
)
from pipeline.run_folder import STAMP, RunFolder, unit_folder, view_file
from pipeline.scorers import ANALYTIC, PHYSICS, REFEREE, plugin_identity, protocol_fingerprint
from pipeline.selection import SceneUnit
from pipeline.truth import model_files, scored_object
from pipeline.units import Known, Plan, blocked_by
from pipeline.view_files import load_grasps
from pipeline.visibility import OBSERVED_WITHIN, VISIBILITY_FILE

__all__ = [
    "COMBINATIONS",
    "CROSSED_FILE",
    "EXPLAINED_COLUMNS",
    "GRASPS_FILE",
    "VISIBILITY_FILE",
    "explain_unit",
    "plans",
]

VERSION = 2  # 2: crossed utility has the metrics that no confidence enters
GRASPS_FILE, CROSSED_FILE = "grasps.parquet", "crossed.parquet"
EXPLAINED_COLUMNS = tuple(GRASP_COLUMNS.names[2:])
"""What this stage adds to the rows of the scores; view and row tell which."""
_MAKERS = {"observations": "observe", "clouds": "complete", "dump": "generate", "scores": "score"}
COMBINATIONS = ("own", "true_collisions", "arm_collisions", "oracle")


@dataclass(frozen=True)
class Job:
    """One unit: the views of one scene, camera, arm and generator.

    Attributes:
        root, cache: of the dataset.
        unit: which views.
        observations, clouds, dump, scores, out: the unit's folders.
        scorer: which graded the scores.
        density: to which the background is brought, metres; the arm's clouds have it.
        oracle: dump and scores of the arm that completes by truth, where there is one.
    """

    root: Path
    cache: Path
    unit: SceneUnit
    observations: Path
    clouds: Path
    dump: Path
    scores: Path
    out: Path
    scorer: str
    density: float
    oracle: tuple[Path, Path] | None


def plans(
    experiment: Experiment, run: RunFolder, units: list[SceneUnit], hashes: FileHashes, known: Known
) -> list[Plan]:
    """Return one plan a scene and camera for the visibility of objects, and one an arm and generator besides."""
    truths = {unit: _truth(experiment, unit, hashes) for unit in units}
    return [
        *visibility.plans(experiment, run, units, hashes, known),
        *(
            _plan(experiment, run, arm.name, generator.label, unit, truths[unit], known)
            for arm in experiment.members()
            for generator in experiment.generators
            for unit in units
        ),
    ]


def _truth(experiment: Experiment, unit: SceneUnit, hashes: FileHashes) -> tuple[str | None, str | None]:
    """Return a fingerprint of a scene's true geometry and poses, alike for all arms, or None and why there is none."""
    dataset = GraspNetDataset(experiment.dataset.root, unit.camera)
    try:
        files = [path for object_id in dataset.object_ids(unit.scene) for path in model_files(dataset, object_id)]
        files += [dataset.annotation_file(unit.scene, view) for view in unit.views]
        files += [dataset.scene_dir(unit.scene) / name for name in ("camera_poses.npy", "cam0_wrt_table.npy")]
        return hashes.many(files), None
    except DatasetError as error:
        return None, str(error)


def _plan(
    experiment: Experiment,
    run: RunFolder,
    arm: str,
    generator: str,
    unit: SceneUnit,
    truth: tuple[str | None, str | None],
    known: Known,
) -> Plan:
    scorer = next(scorer for scorer in experiment.scorers if scorer != PHYSICS)
    oracle = next((other.name for other in experiment.members() if other.completion == "truth"), None)

    def folder(base: Path) -> Path:
        return unit_folder(base, unit.scene, unit.camera)

    inputs = {
        "observations": folder(run.observations),
        "clouds": folder(run.clouds(arm)),
        "dump": folder(run.dump(arm, generator)),
        "scores": folder(run.scores(arm, generator, scorer)),
    }
    out = folder(run.explained(arm, generator))
    needs = {name: known.need(path, f"{path}: no {name}; run `{_MAKERS[name]}` first") for name, path in inputs.items()}
    theirs = None
    if oracle is not None:
        theirs = folder(run.dump(oracle, generator)), folder(run.scores(oracle, generator, scorer))
    wants = [known.need(path, "") for path in theirs or ()]
    posed, untrue = truth
    blocked = untrue or blocked_by(needs.values()) or _mixed(inputs, known)
    made_from: dict[str, Any] = {
        "stage": "explain",
        "version": VERSION,
        **{name: need.fingerprint for name, need in needs.items()},
        "oracle": [want.fingerprint for want in wants],
        "truth": posed,
        "scorer": scorer,
        "protocol": protocol_fingerprint(),
        "density": experiment.density,
        "observed_within": OBSERVED_WITHIN,
        "completed_within": COMPLETED_WITHIN,
    }
    if scorer not in (ANALYTIC, REFEREE):
        made_from["plugin"] = plugin_identity(scorer)
    job = Job(
        experiment.dataset.root,
        experiment.cache_folder(),
        unit,
        **inputs,
        out=out,
        scorer=scorer,
        density=experiment.density,
        oracle=theirs,
    )
    return Plan(
        "explain",
        f"{arm}/{generator}/{unit.label}",
        out,
        unit.scene,
        unit.camera,
        made_from,
        explain_unit,
        job,
        arm=arm,
        needs=tuple(needs.values()),
        wants=tuple(want for want in wants if want.fingerprint is not None),
        without={"oracle": [None for _ in wants]},
        blocked=blocked,
    )


def _mixed(inputs: dict[str, Path], known: Known) -> str | None:
    """Say so if an input is not made from what lies in the run now: only single stages can leave it like that."""
    for source, maker in (("clouds", "dump"), ("dump", "scores")):
        if (known.made_from(inputs[maker]) or {}).get(source) != known.fingerprint(inputs[source]):
            return f"{inputs[maker]}: made from other {source} than now lie in the run; run `{_MAKERS[maker]}` first"
    return None


def explain_unit(job: Job) -> list[dict[str, Any]]:
    """Write both tables of one unit; a view or combination that cannot be had is a problem, with its reason."""
    dataset = GraspNetDataset(job.root, job.unit.camera)
    ids = dataset.object_ids(job.unit.scene)
    objects = [scored_object(dataset, object_id, job.cache)[0] for object_id in ids]
    own = _scored(job.scores)
    problems: list[dict[str, Any]] = []
    oracle: dict[int, pa.Table] = {}
    if job.oracle is not None:
        if all(read_stamp(path / STAMP) for path in job.oracle):
            oracle = _scored(job.oracle[1])
        else:
            reason = f"{job.oracle[1]}: no grasps of the arm that completes by truth; nothing to exchange with"
            problems.append({"view": None, "object": None, "reason": reason})
    tables, crossed = [GRASP_COLUMNS.empty_table()], []
    for view, rows in own.items():
        values = {"own": _utility(rows)}
        theirs = oracle.get(view)
        if theirs is not None:
            values["oracle"] = _utility(theirs)
        try:
            scene = _scene(job, dataset, view, ids, objects)
            grasps = _grasps(job.dump, view)
            tables.append(explain_grasps(scene, rows, grasps))
            made_on_truth = _grasps(job.oracle[0], view) if job.oracle is not None and theirs is not None else None
            values |= dict(exchange(scene, job.scorer, job.density, grasps, made_on_truth))
        except (ValueError, OSError) as error:
            problems.append({"view": view, "object": None, "reason": f"not explained: {error}"})
        crossed += [{"view": view, "combination": name, **values[name]} for name in COMBINATIONS if name in values]
    with atomic_write(job.out / GRASPS_FILE) as stream:
        pq.write_table(pa.concat_tables(tables), stream)
    with atomic_write(job.out / CROSSED_FILE) as stream:
        pq.write_table(pa.Table.from_pylist(crossed, schema=CROSSED_COLUMNS), stream)
    return problems


def _scored(folder: Path) -> dict[int, pa.Table]:
    """Read the scored rows of a unit by view, also of views that have none."""
    rows = pq.read_table(folder / score.GRASPS_FILE)
    views = rows["view"].to_numpy()
    known = pq.read_table(folder / score.VIEWS_FILE, columns=["view"])["view"].to_pylist()
    return {view: rows.take(np.flatnonzero(views == view)) for view in known}


def _utility(rows: pa.Table) -> dict[str, float]:
    return view_utility(rows["min_friction"].to_numpy(), rows["kept"].to_numpy())


def _scene(
    job: Job, dataset: GraspNetDataset, view: int, ids: tuple[int, ...], objects: list[ObjectGeometry]
) -> SceneView:
    scene = job.unit.scene
    return SceneView(
        view,
        ids,
        objects,
        dataset.object_poses(scene, view, ids),
        np.asarray(np.linalg.inv(dataset.T_table_camera(scene, view)), dtype=np.float64),  # as score does
        load_observation(view_file(job.observations, view, ".npz")),
        load_clouds(view_file(job.clouds, view, ".npz")),
    )


def _grasps(dump: Path, view: int) -> Grasps:
    """Read a view's grasps; none where the file cannot be read, as `score` has counted and recorded."""
    try:
        return load_grasps(view_file(dump, view, ".npy"))
    except GraspFileError:
        return Grasps.empty()
