"""Stage: grasps + true geometry -> one row per grasp.

Reads
    ``arms/<arm>/dump/<generator>/scene_SSSS/<camera>/VVVV.npy`` and the dataset's models and poses.
Writes
    ``arms/<arm>/scores/<generator>/<scorer>/scene_SSSS/<camera>/grasps.parquet``: one row per grasp that
    survives suppression, ordered by view and confidence (columns: :data:`pipeline.grasp_rows.COLUMNS`), and
    ``views.parquet``: one row a view, also where there is no grasp at all. The scorer ``physics`` writes the grasps
    that the protocol keeps, with what became of them (:data:`pipeline.grasp_rows.TRIAL_COLUMNS`) beside.

No torch and no open3d here, so that workers start fast; distances inside models are made beforehand, by
:func:`prepare_models`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from grasping import protocol
from grasping.geometry import ObjectGeometry
from grasping.grasps import GraspFileError, Grasps
from grasping.prepared import prepare_object
from grasping.protocol import ViewScore
from pipeline import physics_score
from pipeline.artifacts import FileHashes, atomic_write, derive_seed
from pipeline.config import Experiment, PhysicsSection
from pipeline.datasets.graspnet import DatasetError, GraspNetDataset
from pipeline.engines import Engine
from pipeline.engines.batch import run_units
from pipeline.grasp_rows import COLUMNS, grasp_rows
from pipeline.run_folder import RunFolder, unit_folder, view_file
from pipeline.scorers import ANALYTIC, PHYSICS, REFEREE, plugin, plugin_identity, protocol_fingerprint
from pipeline.selection import SceneUnit
from pipeline.truth import model_files, scored_object
from pipeline.units import Known, Plan, blocked_by
from pipeline.view_files import has_view, load_grasps

VERSION = 1
GRASPS_FILE, VIEWS_FILE = "grasps.parquet", "views.parquet"

VIEW_COLUMNS = pa.schema(
    [
        ("view", pa.int16()),
        ("generated", pa.int32()),  # rows of the dump
        ("refused", pa.int32()),  # of these, not gradable (not finite)
        ("suppressed", pa.int32()),  # candidates that survive suppression
        ("kept", pa.int32()),
        ("objects", pa.string()),  # the scene's object ids, comma-separated, visible or not
        ("reason", pa.string()),  # '' or why there is nothing to grade
    ]
)


@dataclass(frozen=True)
class Job:
    """One unit: the views of one scene, camera, arm and generator, for one scorer."""

    root: Path
    cache: Path
    unit: SceneUnit
    dump: Path
    out: Path
    scorer: str
    trials: PhysicsSection | None = None  # of the scorer physics, and
    seed: int = 0


def plans(
    experiment: Experiment, run: RunFolder, units: list[SceneUnit], hashes: FileHashes, known: Known
) -> list[Plan]:
    """Return one plan an arm, generator, scorer, scene and camera."""
    truths = {
        (scorer, unit): _truth(experiment, scorer, unit, hashes) for scorer in experiment.scorers for unit in units
    }
    return [
        _plan(experiment, run, arm.name, generator.label, scorer, unit, truths[scorer, unit], known)
        for arm in experiment.members()
        for generator in experiment.generators
        for scorer in experiment.scorers
        for unit in units
    ]


def prepare_models(plans: Sequence[Plan], engine: Engine) -> None:
    """Read every model that stale units need once into the cache, making distances that are lacking or broken.

    Otherwise workers that meet the same object first would each do it. A model that cannot be used is not reported
    here: every unit that needs it fails, with the reason.
    """
    wanted: dict[tuple[Path, int, Path], float | None] = {}
    for plan in plans:
        if plan.stage != "score" or plan.blocked is not None or plan.why_stale() is None:
            continue
        job: Job = plan.job
        dataset = GraspNetDataset(job.root, job.unit.camera)
        for object_id in dataset.object_ids(job.unit.scene):
            key = (dataset.model_dir(object_id), object_id, job.cache)
            wanted[key] = job.trials.density if job.trials else wanted.get(key)
    models = [(f"model {key[1]:03d}", (*key, density)) for key, density in wanted.items()]
    run_units(_prepare_model, models, engine=engine, title="models")


def _prepare_model(argument: tuple[Path, int, Path, float | None]) -> None:
    folder, object_id, cache, density = argument
    prepare_object(folder, object_id, cache)
    if density is not None:
        from grasping.physics import load_body

        load_body(folder, object_id, cache, density)


def _truth(experiment: Experiment, scorer: str, unit: SceneUnit, hashes: FileHashes) -> tuple[str | None, str | None]:
    """Return a fingerprint of the true geometry that all arms' grasps are graded on, or None and why there is none."""
    dataset = GraspNetDataset(experiment.dataset.root, unit.camera)
    try:
        files = [path for object_id in dataset.object_ids(unit.scene) for path in model_files(dataset, object_id)]
        files += [dataset.annotation_file(unit.scene, view) for view in unit.views]
        if scorer == PHYSICS:
            files += physics_score.scene_files(dataset, unit.scene)
        return hashes.many(files), None
    except DatasetError as error:
        return None, str(error)


def _plan(
    experiment: Experiment,
    run: RunFolder,
    arm: str,
    generator: str,
    scorer: str,
    unit: SceneUnit,
    truth: tuple[str | None, str | None],
    known: Known,
) -> Plan:
    dump = unit_folder(run.dump(arm, generator), unit.scene, unit.camera)
    out = unit_folder(run.scores(arm, generator, scorer), unit.scene, unit.camera)
    needed = known.need(dump, f"{dump}: no grasps; run `generate` first")
    graded_on, untrue = truth
    blocked = untrue or blocked_by([needed])
    made_from = {
        "stage": "score",
        "version": VERSION,
        "dump": needed.fingerprint,
        "truth": graded_on,
        "scorer": scorer,
        "protocol": protocol_fingerprint(),
        "referee": metadata.version("graspnetAPI") if scorer == REFEREE else None,
    }
    trials = experiment.trials() if scorer == PHYSICS else None
    if trials is not None:
        made_from["physics"] = physics_score.identity(trials, experiment.seed)
    elif scorer not in (ANALYTIC, REFEREE):
        made_from["plugin"] = plugin_identity(scorer)
    job = Job(experiment.dataset.root, experiment.cache_folder(), unit, dump, out, scorer, trials, experiment.seed)
    return Plan(
        "score",
        f"{arm}/{generator}/{scorer}/{unit.label}",
        out,
        unit.scene,
        unit.camera,
        made_from,
        score_unit,
        job,
        arm=arm,
        needs=(needed,),
        blocked=blocked,
    )


def score_unit(job: Job) -> list[dict[str, Any]]:
    """Write the rows of one unit; a view whose dump cannot be read counts as one without grasps."""
    dataset = GraspNetDataset(job.root, job.unit.camera)
    ids = dataset.object_ids(job.unit.scene)
    objects, problems = [], []
    for object_id in ids:
        geometry, odd = scored_object(dataset, object_id, job.cache)
        objects.append(geometry)
        problems += [{"view": None, "object": object_id, "reason": text} for text in odd]
    trials = physics_score.prepare(job.trials, dataset, job.unit.scene, job.cache) if job.trials else None
    if trials is not None:
        problems += trials.displaced()
    tables, view_rows = [], []
    for view in job.unit.views:
        path = view_file(job.dump, view, ".npy")
        if not has_view(path):
            continue  # the view could not be observed; `observe` has recorded why
        reason = ""
        try:
            grasps = load_grasps(path)
        except GraspFileError as error:
            grasps, reason = Grasps.empty(), str(error)
            problems.append({"view": view, "object": None, "reason": reason})
        score = _score_view(job, dataset, view, grasps, objects)
        table = grasp_rows(view, grasps, score, ids)
        suppressed = table.num_rows
        if trials is not None:
            table, untried = trials.try_kept(
                table, grasps, dataset.object_poses(job.unit.scene, view, ids), _seed(job, view)
            )
            problems += [{"view": view, **problem} for problem in untried]
        remarks = protocol.remarks(score, len(grasps))
        problems += [{"view": view, "object": None, "reason": text} for text in remarks]
        tables.append(table)
        view_rows.append(
            {
                "view": view,
                "generated": len(grasps),
                "refused": len(score.refused),
                "suppressed": suppressed,
                "kept": int(np.count_nonzero(table["kept"].to_numpy())),
                "objects": ",".join(map(str, ids)),
                "reason": reason or ("" if len(grasps) else "nothing generated"),
            }
        )
    schema = COLUMNS if trials is None else physics_score.COLUMNS
    with atomic_write(job.out / GRASPS_FILE) as stream:
        pq.write_table(pa.concat_tables([schema.empty_table(), *tables]), stream)
    with atomic_write(job.out / VIEWS_FILE) as stream:
        pq.write_table(pa.Table.from_pylist(view_rows, schema=VIEW_COLUMNS), stream)
    return problems


def _score_view(
    job: Job, dataset: GraspNetDataset, view: int, grasps: Grasps, objects: list[ObjectGeometry]
) -> ViewScore:
    T_camera_object = dataset.object_poses(job.unit.scene, view)
    # The general inverse, as graspnetAPI takes it: a transposed rotation differs in the last bits.
    T_camera_table = np.linalg.inv(dataset.T_table_camera(job.unit.scene, view))
    if job.scorer == REFEREE:
        from grasping import reference

        # Every candidate, not the protocol's fifty alone: feasible grasps are counted over all of them.
        return reference.score_view_reference(grasps, objects, T_camera_object, T_camera_table, every_candidate=True)
    if job.scorer not in (ANALYTIC, PHYSICS):
        return plugin(job.scorer)(grasps, objects, T_camera_object, T_camera_table)
    with np.errstate(all="ignore"):  # numbers so large that they overflow fail like others
        return protocol.score_view(grasps, objects, T_camera_object, T_camera_table)


def _seed(job: Job, view: int) -> int:
    return derive_seed(job.seed, job.unit.scene, job.unit.camera, view, "physics")
