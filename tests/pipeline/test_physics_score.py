"""The scorer physics on two boxes: rows, frames, failures; and, slowly, a whole tiny experiment with both scorers."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from grasping.grasps import Grasps
from grasping.physics import OUTCOMES
from pipeline import physics_score
from pipeline.config import PhysicsSection, load_experiment
from pipeline.datasets.graspnet import GraspNetDataset
from pipeline.experiment import STAGES, RunResult, run_experiment
from pipeline.grasp_rows import COLUMNS
from pipeline.physics_utility import HELD_METRICS
from pipeline.run_folder import unit_folder, view_file
from pipeline.score import GRASPS_FILE, VIEWS_FILE, Job, score_unit
from pipeline.scorers import ScorerError, check_available, check_name
from pipeline.selection import SceneUnit

DOWN = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])  # columns: approach -z, close along y, height x


def grasp(x: float, y: float, z: float, width: float, confidence: float, rotation: np.ndarray = DOWN) -> np.ndarray:
    return np.array([confidence, width, 0.02, 0.02, *rotation.reshape(-1), x, y, z, -1])


def across_boxes() -> list[Grasps]:
    """For box 7 and box 3 of the box world, in their frames: across the faces, beside it, and through it."""
    half = {7: 0.025, 3: 0.015}
    along = {7: DOWN, 3: np.array([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [-1.0, 0.0, 0.0]])}  # box 3 is thin along x
    return [
        Grasps.from_array(
            [
                grasp(0, 0, half[k], 0.08, 0.9, along[k]),
                grasp(0, 0, half[k] + 0.06, 0.08, 0.8, along[k]),  # closes above it
                grasp(0, 0, half[k], 0.02, 0.7, along[10 - k]),  # opens too little: the fingers stand in it
            ]
        )
        for k in (7, 3)
    ]


@pytest.fixture
def boxes(box_world, tmp_path: Path) -> Job:
    """A job on the box world whose dump holds the same six grasps in both views."""
    dataset = GraspNetDataset(box_world.root, "realsense")
    unit = SceneUnit(box_world.scene, "realsense", "test_seen", box_world.views)
    dump = unit_folder(tmp_path / "dump", unit.scene, unit.camera)
    dump.mkdir(parents=True)
    for view in unit.views:
        poses = dataset.object_poses(unit.scene, view)
        posed = [own.transformed(T) for own, T in zip(across_boxes(), poses, strict=True)]
        np.save(view_file(dump, view, ".npy"), Grasps.concatenate(posed).to_array())
    return Job(box_world.root, tmp_path / "cache", unit, dump, tmp_path / "out", "physics", PhysicsSection())


def scored(job: Job, out: Path) -> tuple[pd.DataFrame, list[dict]]:
    out.mkdir(parents=True, exist_ok=True)
    problems = score_unit(replace(job, out=out))
    return pd.read_parquet(out / GRASPS_FILE), problems


def test_rows_are_the_kept_ones_with_what_became_of_them(boxes: Job, tmp_path: Path) -> None:
    rows, problems = scored(boxes, tmp_path / "physics")
    assert problems == [] and list(rows.columns) == physics_score.COLUMNS.names
    analytic, _ = scored(replace(boxes, scorer="analytic", trials=None), tmp_path / "analytic")
    pd.testing.assert_frame_equal(rows[COLUMNS.names], analytic[analytic["kept"]].reset_index(drop=True))
    outcome = rows.set_index(["view", "row"])["outcome"]
    for view in boxes.unit.views:
        # Rows 0 and 3 reach across, 1 and 4 close above, 2 and 5 stand in the box.
        assert [outcome[(view, row)] for row in (0, 3)] == ["held", "held"]
        assert [outcome[(view, row)] for row in (1, 4)] == ["no_contact", "no_contact"]
        assert [outcome[(view, row)] for row in (2, 5)] == ["collided", "collided"]
    assert (rows["held"] == (rows["outcome"] == "held")).all()
    assert (rows["held_fraction"] == rows["held"]).all()
    views = pd.read_parquet(tmp_path / "physics" / VIEWS_FILE)
    assert views["kept"].tolist() == [6, 6] and views["suppressed"].tolist() == [6, 6]


def test_alone_and_without_friction(boxes: Job, tmp_path: Path) -> None:
    alone = replace(boxes, trials=PhysicsSection(mode="isolation"))
    rows, _ = scored(alone, tmp_path / "alone")
    assert rows[rows["row"].isin([0, 3])]["held"].all() and not rows[~rows["row"].isin([0, 3])]["held"].any()
    slippery = replace(boxes, trials=PhysicsSection(mode="isolation", friction=0.001))
    rows, _ = scored(slippery, tmp_path / "slippery")
    assert not rows["held"].any() and set(rows[rows["row"].isin([0, 3])]["outcome"]) <= {"slipped", "no_contact"}


def test_repeats_give_fractions_and_the_same_ones_again(boxes: Job, tmp_path: Path) -> None:
    for mode in ("isolation", "scene"):
        job = replace(boxes, trials=PhysicsSection(mode=mode, repeats=3))
        job = replace(job, unit=replace(job.unit, views=job.unit.views[:1]))
        rows, problems = scored(job, tmp_path / f"{mode}1")
        assert problems == []
        again, _ = scored(job, tmp_path / f"{mode}2")
        pd.testing.assert_frame_equal(rows, again)
        assert set(np.round(3 * rows["held_fraction"]).astype(int)) <= {0, 1, 2, 3}
        assert (rows["held"] == (rows["held_fraction"] > 0.5)).all()
        assert (rows.set_index("row")["held_fraction"][[0, 3]] == 1).all()


def test_views_without_grasps_and_broken_dumps_are_rows_with_reasons(boxes: Job, tmp_path: Path) -> None:
    first, second = (view_file(boxes.dump, view, ".npy") for view in boxes.unit.views)
    np.save(first, np.zeros((0, 17)))
    second.write_bytes(b"no array")
    rows, problems = scored(boxes, tmp_path / "out2")
    assert len(rows) == 0 and [problem["view"] for problem in problems] == [boxes.unit.views[1]]
    views = pd.read_parquet(tmp_path / "out2" / VIEWS_FILE)
    assert views["kept"].tolist() == [0, 0] and views["reason"].iloc[0] == "nothing generated"


def test_grasps_no_hand_can_make_do_not_stop_the_others(boxes: Job, tmp_path: Path) -> None:
    path = view_file(boxes.dump, boxes.unit.views[0], ".npy")
    array = np.load(path)
    mirrored = array[0].copy()
    mirrored[0] = 0.5
    mirrored[4:13] = (array[0, 4:13].reshape(3, 3) * [1, 1, -1]).reshape(-1)  # left-handed
    mirrored[13] += 0.2
    flat = array[1].copy()
    flat[0], flat[1], flat[13] = 0.4, 0.0, flat[13] - 0.2  # opens not at all
    np.save(path, np.vstack([array, mirrored, flat]))
    rows, _ = scored(boxes, tmp_path / "out3")
    rows = rows[rows["view"] == boxes.unit.views[0]].set_index("row")
    assert rows["outcome"][[0, 3]].tolist() == ["held", "held"]
    assert not rows["held"].reindex([6, 7]).any()


def test_axes_that_are_none_are_refused_and_the_others_tried(boxes: Job, tmp_path: Path) -> None:
    path = view_file(boxes.dump, boxes.unit.views[0], ".npy")
    array = np.load(path)
    axisless = array[4].copy()
    axisless[0], axisless[4:13], axisless[15] = 0.3, 0.0, axisless[15] - 0.2
    np.save(path, np.vstack([array, axisless]))
    rows, problems = scored(boxes, tmp_path / "out4")
    rows = rows[rows["view"] == boxes.unit.views[0]].set_index("row")
    assert not any("physics failed" in problem["reason"] for problem in problems)
    assert rows["outcome"][6] == "refused" and not rows["held"][6] and np.isnan(rows["slip"][6])
    assert rows["outcome"][[0, 3]].tolist() == ["held", "held"]


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_hands_are_made_of_rotations_that_are_nearly_so(seed: int, mirror: bool) -> None:
    rng = np.random.default_rng(seed)
    R = Rotation.random(5, random_state=rng).as_matrix()
    given_as = R * ([1, 1, -1] if mirror else [1, 1, 1])
    made, possible = physics_score.hand_rotation(given_as)
    assert possible.all()
    np.testing.assert_allclose(made, R, atol=1e-12)  # the same hand, also from the mirror
    made, _ = physics_score.hand_rotation(1.3 * given_as + rng.normal(0, 0.01, R.shape))
    np.testing.assert_allclose(made @ made.transpose(0, 2, 1), np.broadcast_to(np.eye(3), R.shape), atol=1e-12)
    assert (np.linalg.det(made) > 0).all() and (np.einsum("nij,nij->n", made, R) > 2.9).all()


def test_grasps_of_a_scene_that_cannot_be_read_fail_as_a_unit(boxes: Job, tmp_path: Path) -> None:
    np.save(boxes.root / "scenes" / "scene_0100" / "realsense" / "cam0_wrt_table.npy", np.zeros((4, 4)))
    with pytest.raises(ValueError, match=r"cam0_wrt_table\.npy"):
        scored(boxes, tmp_path / "out5")


def test_objects_that_come_to_rest_elsewhere_are_problems_on_record(boxes: Job, tmp_path: Path) -> None:
    path = boxes.root / "scenes" / "scene_0100" / "realsense" / "cam0_wrt_table.npy"
    T = np.load(path)
    T[2, 3] += 0.05  # the boxes float
    np.save(path, T)
    rows, problems = scored(boxes, tmp_path / "out6")
    assert [(problem["view"], problem["object"]) for problem in problems] == [(None, 7), (None, 3)]
    assert all("came to rest 50 mm from where the annotation says" in problem["reason"] for problem in problems)
    assert rows[rows["row"].isin([0, 3])]["held"].all()  # grasps follow their object


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    check_available("physics")
    monkeypatch.setitem(sys.modules, "coacd", None)  # as if it were not installed
    with pytest.raises(ScorerError, match=r"needs coacd; run pip install 'grasp-utility\[physics\]'"):
        check_available("physics")


def test_the_fingerprint_holds_what_trials_depend_on() -> None:
    base = physics_score.identity(PhysicsSection(), 0)
    for change in (
        {"friction": 0.5},
        {"density": 300.0},
        {"closing_force": 10.0},
        {"repeats": 2},
        {"mode": "isolation"},
    ):
        other = physics_score.identity(PhysicsSection(**change), 0)
        assert other != base and json.dumps(other)
    assert base["packages"]["mujoco"]


def test_a_scorer_from_outside_is_found_by_its_entry_point(
    box_world, boxes: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scorer_plugin_for_tests.py").write_text(
        "from dataclasses import replace\n"
        "import numpy as np\n"
        "from grasping.protocol import score_view\n"
        "def never(*arguments):\n"
        "    score = score_view(*arguments)\n"
        "    return replace(score, min_friction=np.full(len(score), np.inf))\n"
    )
    info = tmp_path / "scorer_plugin_for_tests-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: scorer-plugin-for-tests\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[grasp_utility.scorers]\nnever = scorer_plugin_for_tests:never\nbroken = scorer_plugin_for_tests:nothing\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    experiment = tmp_path / "experiment.yaml"
    experiment.write_text(
        f"format_version: 1\nname: x\ndataset: {{root: {box_world.root}}}\narms: [partial]\nscorers: [never]\n"
    )
    assert load_experiment(experiment).scorers == ("never",)
    rows, problems = scored(replace(boxes, scorer="never", trials=None), tmp_path / "never")
    assert problems == [] and len(rows) == 12 and np.isinf(rows["min_friction"]).all()
    check_available("never")
    with pytest.raises(ScorerError, match="'broken' cannot be imported"):
        check_available("broken")
    with pytest.raises(ScorerError, match="did you mean 'never'"):
        check_name("nevr")


def carry_out(path: Path, out: Path, *, workers: int = 2, report: bool = False, **overrides: object) -> RunResult:
    experiment = load_experiment(path, dict(overrides))
    stages = STAGES if report else STAGES[:-1]  # pictures take longer than all the rest
    return run_experiment(experiment, out, device="cpu", workers=workers, stages=stages, say=lambda _: None)


def made(result: RunResult) -> dict[str, int]:
    return {report.stage: report.made for report in result.stages}


@pytest.mark.slow
def test_a_whole_experiment_with_both_opinions(tiny_experiment: Path, tmp_path: Path) -> None:
    both = {"scorers": ["analytic", "physics"], "arms": ["partial", "oracle"]}
    result = carry_out(tiny_experiment, tmp_path / "run", report=True, **both)
    assert result.problems == () and made(result)["score"] == 8
    tables = result.folder.tables
    grasps = pd.read_parquet(tables / "grasps.parquet")
    tried = grasps[grasps["scorer"] == "physics"]
    assert len(tried) > 60 and set(tried["outcome"]) <= set(OUTCOMES) and 0 < tried["held"].sum() < len(tried)
    agreement = pd.read_csv(tables / "agreement.csv", keep_default_na=False, na_values=[""])
    whole = agreement.query("arm == 'all' and object == 'all' and friction == 0.8").iloc[0]
    passed, held = tried["min_friction"] <= 0.8, tried["held"].astype(bool)
    assert (whole["both"], whole["neither"]) == ((passed & held).sum(), (~passed & ~held).sum())
    # By pairs, as the area is defined.
    wins = [(a < b) + 0.5 * (a == b) for a in tried[held]["min_friction"] for b in tried[~held]["min_friction"]]
    assert whole["auc"] == pytest.approx(np.mean(wins), abs=1e-5)
    utility = pd.read_csv(tables / "utility.csv").query("scorer == 'physics'")
    assert set(utility["metric"]) == set(HELD_METRICS)
    page = result.folder.report.read_text()
    assert "What is analytic AP worth?" in page and f"physics holds {whole['both']}" in page
    summary = json.loads(result.folder.summary.read_text())
    assert summary["agreement"]["physics"]["friction"] == 0.6 and summary["provenance"]["versions"]["mujoco"]

    before = {p: p.read_bytes() for p in result.folder.root.rglob("*.parquet")}
    again = carry_out(tiny_experiment, tmp_path / "run", **both)
    assert set(made(again).values()) == {0}
    # Lost rows are made again alike, by another number of processes.
    unit = unit_folder(result.folder.scores("oracle", "antipodal", "physics"), 100, "realsense")
    (unit / GRASPS_FILE).unlink()
    repaired = carry_out(tiny_experiment, tmp_path / "run", workers=0, **both)
    assert made(repaired)["score"] == 1 and {p: p.read_bytes() for p in before} == before
    # Another friction makes the trials stale, and nothing else.
    slippery = carry_out(tiny_experiment, tmp_path / "run", **both, physics={"friction": 0.05})
    assert made(slippery) == {"observe": 0, "complete": 0, "generate": 0, "score": 4, "explain": 0}
    assert set(slippery.stages[3].stale.values()) == {"changed: physics"}
    assert pd.read_parquet(tables / "grasps.parquet").query("scorer == 'physics'")["held"].sum() < held.sum()
    # Without physics the run is what it was before there was any.
    plain = carry_out(tiny_experiment, tmp_path / "run", report=True, arms=both["arms"])
    assert set(made(plain).values()) == {0} and "What is analytic AP worth?" not in result.folder.report.read_text()
    assert not (tables / "agreement.csv").exists()
    assert "outcome" not in pd.read_parquet(tables / "grasps.parquet")
