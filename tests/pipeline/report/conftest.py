"""Small run folders whose scores are drawn by lot and whose tables, summary and page the real code makes."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.spatial.transform import Rotation

from grasping.clouds import voxel_downsample
from grasping.grasps import Grasps
from grasping.transforms import invert, transform_points
from grasping.utility import view_utility
from pipeline import aggregate, report, summary
from pipeline.artifacts import Stamp, write_json, write_stamp
from pipeline.cloud_files import OK, ObjectClouds, Observation, save_clouds, save_observation
from pipeline.completed_unit import METRICS_FILE
from pipeline.config import Experiment, load_experiment
from pipeline.explain import COMBINATIONS, CROSSED_FILE, EXPLAINED_COLUMNS, VISIBILITY_FILE
from pipeline.explain import GRASPS_FILE as EXPLAINED_FILE
from pipeline.fidelity import fidelity
from pipeline.grasp_rows import COLUMNS
from pipeline.run_folder import FAILURE, STAMP, RunFolder, unit_folder, view_file
from pipeline.score import GRASPS_FILE, VIEWS_FILE
from pipeline.selection import SceneUnit

OBJECTS = {3: (0.05, 0.04, 0.09), 7: (0.12, 0.03, 0.03), 11: (0.06, 0.06, 0.05)}  # id -> edges of a box, metres
PLACES = np.array([[-0.09, 0.03], [0.02, -0.06], [0.1, 0.06]])
SKILL = {"none": 0.25, "truth": 0.7, "checkpoint": 0.4}


@dataclass
class Recipe:
    """What a run is to look like.

    Attributes:
        arms: as in an experiment file.
        scenes: split -> scene numbers.
        views: of every scene.
        without_grasps: ``(arm, scene, view)`` where nothing is generated.
        lost: arms of which nothing is scored.
        problems: rows of ``problems.json``.
        more: other keys of the experiment file.
    """

    arms: list[Any] = field(default_factory=lambda: ["partial", "pcn-cd", "pcn-qal", "oracle"])
    scenes: dict[str, list[int]] = field(default_factory=lambda: {"test_novel": [160, 161], "test_seen": [100, 101]})
    views: tuple[int, ...] = (0, 64)
    without_grasps: set[tuple[str, int, int]] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    problems: list[dict[str, Any]] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)


@dataclass
class Made:
    experiment: Experiment
    folder: RunFolder
    units: list[SceneUnit]


@pytest.fixture(scope="session")
def make_run() -> Callable[[Path, Recipe], Made]:
    return write_run


@pytest.fixture(scope="session")
def recipe() -> type[Recipe]:
    return Recipe


@pytest.fixture(scope="session")
def plain_run(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A run of four arms on two splits, with one view without grasps and one problem; nobody changes it."""
    problem = {"stage": "generate", "unit": "pcn-cd/<b>unit</b>", "view": 0, "object": 3, "reason": "a & b < c"}
    recipe = Recipe(without_grasps={("partial", 100, 64)}, problems=[problem])
    return write_run(tmp_path_factory.mktemp("plain"), recipe)


@pytest.fixture(scope="session")
def plain_page(plain_run: Made) -> Path:
    """Its report; nobody changes it."""
    return report.run(plain_run.experiment, plain_run.folder)


def _without_programs(text: str) -> str:
    return re.sub(r"<script\b.*?</script>", "", text, flags=re.S)


@pytest.fixture(scope="session")
def without_programs() -> Callable[[str], str]:
    """Takes a page's scripts out of it."""
    return _without_programs


@pytest.fixture(scope="session")
def words() -> Callable[[str], str]:
    """Gives what a reader sees of a page, without figures."""

    def read(text: str) -> str:
        body = re.sub(r"<(svg|style)\b.*?</\1>", " ", _without_programs(text), flags=re.S)
        return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())

    return read


def write_run(home: Path, recipe: Recipe) -> Made:
    home.mkdir(parents=True, exist_ok=True)
    raw = {"format_version": 1, "name": "trial", "dataset": {"root": "data"}, "arms": recipe.arms, **recipe.more}
    (home / "trial.yaml").write_text(yaml.safe_dump(raw))
    experiment = load_experiment(home / "trial.yaml")
    folder = RunFolder(home / "run")
    units = [
        SceneUnit(scene, "realsense", split, recipe.views)
        for split, scenes in recipe.scenes.items()
        for scene in scenes
    ]
    for unit in units:
        scenes_of_views = [_scene(unit, view) for view in unit.views]
        base = unit_folder(folder.observations, unit.scene, unit.camera)
        for view, (observation, _) in zip(unit.views, scenes_of_views, strict=True):
            save_observation(view_file(base, view, ".npz"), observation)
        observed = Stamp({"stage": "observe"}, [], 0.5)
        write_stamp(base / STAMP, observed)
        seen = unit_folder(folder.visibility, unit.scene, unit.camera)
        seen.mkdir(parents=True, exist_ok=True)
        shown = pd.DataFrame([{"view": view, "object": item} for view in unit.views for item in OBJECTS])
        fractions = _rng(unit.scene, 9).uniform(0.1, 1.0, len(shown))
        shown.assign(visible_fraction=fractions).to_parquet(seen / VISIBILITY_FILE)
        write_stamp(seen / STAMP, Stamp({"stage": "explain", "observations": observed.fingerprint}, [], 0.125))
        for index, arm in enumerate(experiment.arms):
            _write_arm(recipe, folder, unit, arm.name, arm.completion, index, scenes_of_views)
    tables = aggregate.run(experiment, folder, units)
    write_json(folder.problems, recipe.problems)
    write_json(folder.root / "experiment.json", experiment.model_dump(mode="json"))
    summary.write(experiment, folder, units, tables, recipe.problems, seconds=1.5)
    return Made(experiment, folder, units)


def _rng(*parts: int) -> np.random.Generator:
    return np.random.default_rng(parts)


def _scene(unit: SceneUnit, view: int) -> tuple[Observation, list[np.ndarray]]:
    """Three boxes on a table, seen from above and one side: what is seen, and the true surfaces, camera frame."""
    angle = 2 * np.pi * view / 256
    eye = np.array([0.45 * np.cos(angle), 0.45 * np.sin(angle), 0.4])
    forward = -eye / np.linalg.norm(eye)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    T_table_camera = np.eye(4)
    T_table_camera[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    T_table_camera[:3, 3] = eye
    T_camera_table = invert(T_table_camera)
    rng = _rng(unit.scene, view)
    seen, true = [], []
    for (_, edges), place in zip(OBJECTS.items(), PLACES, strict=True):
        half = np.array(edges) / 2
        points = rng.uniform(-1, 1, (6000, 3))
        face = rng.integers(0, 3, 6000)
        normals = np.zeros((6000, 3))
        normals[np.arange(6000), face] = np.sign(points[np.arange(6000), face])
        points[np.arange(6000), face] = normals[np.arange(6000), face]
        points = points * half + [*place, half[2]]
        visible = ((eye - points) * normals).sum(axis=1) > 0
        surface = voxel_downsample(transform_points(T_camera_table, points).astype(np.float32), 0.006)
        true.append(surface)
        seen.append(voxel_downsample(transform_points(T_camera_table, points[visible]).astype(np.float32), 0.006))
    table = np.column_stack([rng.uniform(-0.4, 0.4, (6000, 2)), np.zeros(6000)])
    background = transform_points(T_camera_table, table).astype(np.float32)
    ids = np.array(list(OBJECTS), np.int64)
    return Observation(ObjectClouds(ids, tuple(seen), (OK,) * 3), background, T_table_camera), true


def _write_arm(
    recipe: Recipe,
    folder: RunFolder,
    unit: SceneUnit,
    arm: str,
    completion: str,
    index: int,
    scenes: list[tuple[Observation, list[np.ndarray]]],
) -> None:
    clouds_folder = unit_folder(folder.clouds(arm), unit.scene, unit.camera)
    dump_folder = unit_folder(folder.dump(arm, "antipodal"), unit.scene, unit.camera)
    rows, grasp_tables, view_rows = [], [], []
    for view, (observation, true) in zip(unit.views, scenes, strict=True):
        rng = _rng(unit.scene, view, index)
        made = tuple(_completed(completion, *pair, rng) for pair in zip(observation.objects.clouds, true, strict=True))
        save_clouds(
            view_file(clouds_folder, view, ".npz"), ObjectClouds(observation.objects.object_ids, made, (OK,) * 3)
        )
        for object_id, cloud, truth, partial in zip(OBJECTS, made, true, observation.objects.clouds, strict=True):
            counts = {"observed_points": len(partial), "completed_points": len(cloud)}
            rows.append({"view": view, "object": object_id, "status": OK, **counts, **fidelity(cloud, truth, partial)})
        count = 0 if (arm, unit.scene, view) in recipe.without_grasps else 40
        grasps, table = _grasps(count, observation.T_table_camera, SKILL[completion] + 0.03 * index, rng)
        dump_folder.mkdir(parents=True, exist_ok=True)
        np.save(view_file(dump_folder, view, ".npy"), grasps.to_array())
        grasp_tables.append(table.assign(view=np.int16(view)))
        view_rows.append(
            {
                "view": view,
                "generated": count,
                "refused": 0,
                "suppressed": count,
                "kept": int(table["kept"].sum()),
                "objects": ",".join(map(str, OBJECTS)),
                "reason": "" if count else "nothing generated",
            }
        )
    merge = {"merge": "replace"} if completion == "checkpoint" else {}
    clouds = Stamp({"stage": "complete", "arm": arm} | merge, [], 2.0)
    dump = Stamp({"stage": "generate", "unit": unit.label, "arm": arm, "clouds": clouds.fingerprint}, [], 1.0)
    write_stamp(clouds_folder / STAMP, clouds)
    write_stamp(dump_folder / STAMP, dump)
    pd.DataFrame(rows).to_parquet(clouds_folder / METRICS_FILE, index=False)
    scores = Stamp({"stage": "score", "dump": dump.fingerprint}, [], 3.0)
    made_from = {"dump": dump.fingerprint, "scores": scores.fingerprint}
    _write_explanations(folder, unit, arm, pd.concat(grasp_tables), made_from, _rng(unit.scene, index, 7))
    for scorer in recipe.more.get("scorers", ["analytic"]):
        scores_folder = unit_folder(folder.scores(arm, "antipodal", scorer), unit.scene, unit.camera)
        scores_folder.mkdir(parents=True, exist_ok=True)
        if arm in recipe.lost:
            write_json(scores_folder / FAILURE, {"stage": "score", "reason": "the worker died", "traceback": None})
            continue
        scored = pd.concat(grasp_tables)[COLUMNS.names]
        if scorer == "physics":
            scored = _tried(scored[scored["kept"]], _rng(unit.scene, index))
        scored.to_parquet(scores_folder / GRASPS_FILE, index=False)
        pd.DataFrame(view_rows).to_parquet(scores_folder / VIEWS_FILE, index=False)
        write_stamp(scores_folder / STAMP, scores)


def _write_explanations(
    folder: RunFolder,
    unit: SceneUnit,
    arm: str,
    rows: pd.DataFrame,
    made_from: dict[str, str],
    rng: np.random.Generator,
) -> None:
    """What the stage ``explain`` would say, by lot where it does not follow from the outcome."""
    out = unit_folder(folder.explained(arm, "antipodal"), unit.scene, unit.camera)
    out.mkdir(parents=True, exist_ok=True)
    count = len(rows)
    partner = rng.choice(3, count)
    collides = rows["reason"].to_numpy() == "collides"
    touches = np.isin(rows["reason"], ["success", "no_closure"])
    known = {
        **{f"hits_{name}": collides & (partner == k) for k, name in enumerate(("target", "neighbour", "table"))},
        "touches": touches,
        "thickness": np.where(touches, rng.uniform(0.002, 0.06, count), np.nan),
        "observed_distance": np.where(touches, rng.uniform(0, 0.03, count), np.nan),
        "completed_distance": np.where(touches, rng.uniform(0, 0.02, count), np.nan),
        "surface": np.where(touches, rng.choice(["observed", "completed", "neither"], count), ""),
    }
    rows[["view", "row"]].assign(**known)[["view", "row", *EXPLAINED_COLUMNS]].to_parquet(out / EXPLAINED_FILE)
    crossed = [
        {"view": view, "combination": name, **view_utility(own["min_friction"], own["kept"])}
        for view in unit.views
        for name in COMBINATIONS
        for own in [rows[rows["view"] == view].sample(frac=1 if name == "own" else 0.5, random_state=view).sort_index()]
    ]
    pd.DataFrame(crossed).to_parquet(out / CROSSED_FILE)
    write_stamp(out / STAMP, Stamp({"stage": "explain", **made_from}, [], 0.25))


def _tried(rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Trials by lot, which rather hold what the protocol passes at a low friction."""
    held = rng.uniform(size=len(rows)) < np.where(
        np.isfinite(rows["min_friction"]), 0.95 - 0.4 * rows["min_friction"], 0.15
    )
    failures = rng.choice(["collided", "no_contact", "slipped", "lost", "dragged"], len(rows))
    outcomes = np.where(held, "held", failures).astype(object)
    return rows.assign(
        outcome=outcomes, held=held, held_fraction=held.astype(float), slip=rng.uniform(0, 0.01, len(rows))
    )


def _completed(completion: str, partial: np.ndarray, true: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if completion == "none":
        return partial
    noise = 0.0 if completion == "truth" else 0.004
    return (true + rng.normal(0, noise, true.shape)).astype(np.float32)


def _grasps(
    count: int, T_table_camera: np.ndarray, skill: float, rng: np.random.Generator
) -> tuple[Grasps, pd.DataFrame]:
    """Grasps from above, best confidence first, and outcomes by lot."""
    which = rng.integers(0, len(OBJECTS), count)
    heights = np.array([edges[2] for edges in OBJECTS.values()])
    yaw = Rotation.from_rotvec(rng.uniform(0, np.pi, (count, 1)) * [0.0, 0.0, 1.0]).as_matrix()
    down = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [-1.0, 0.0, 0.0]])
    translation = np.column_stack([PLACES[which] + rng.normal(0, 0.012, (count, 2)), heights[which]])
    grasps = Grasps(
        confidence=np.sort(rng.uniform(0, 1, count))[::-1],
        width=rng.uniform(0.04, 0.1, count),
        height=np.full(count, 0.02),
        depth=np.full(count, 0.02),
        rotation=yaw @ down,
        translation=translation,
        object_id=np.array(list(OBJECTS))[which],
    ).transformed(invert(T_table_camera))
    holds = rng.uniform(size=count) < skill
    friction = np.where(holds, rng.choice([0.2, 0.4, 0.6, 0.8, 1.0, 1.2], count), np.inf)
    reason = np.where(holds, "success", rng.choice(["collides", "empty", "no_contact", "no_closure"], count))
    table = pd.DataFrame(
        {
            "view": np.zeros(count, np.int16),
            "row": np.arange(count, dtype=np.int32),
            "rank": np.arange(count, dtype=np.int32),
            "object": grasps.object_id.astype(np.int16),
            "confidence": grasps.confidence,
            "width": grasps.width,
            "kept": np.arange(count) < 25,
            "collided": reason == "collides",
            "empty": reason == "empty",
            "min_friction": friction,
            "reason": reason.astype(object),
        }
    )
    return grasps, table
