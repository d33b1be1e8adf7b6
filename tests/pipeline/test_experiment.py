"""The main job on a tiny dataset: files, tables, resume, staleness, and what fails inside."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from grasping.grasps import Grasps
from grasping.utility import METRICS
from pipeline import summary
from pipeline.artifacts import ArtifactError
from pipeline.config import load_experiment
from pipeline.estimates import TABLE_KEYS
from pipeline.experiment import STAGES, RunResult, run_experiment
from pipeline.run_folder import STAMP, RunFolder, unit_folder


def carry_out(path: Path, out: Path, *, workers: int = 0, report: bool = False, **overrides: object) -> RunResult:
    lines: list[str] = []
    experiment = load_experiment(path, dict(overrides))
    stages = STAGES if report else STAGES[:-1]  # pictures take longer than all the rest
    return run_experiment(experiment, out, device="cpu", workers=workers, stages=stages, say=lines.append)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path, tiny_cache: Path, tiny_checkpoint: Path):
    folder = tmp_path_factory.mktemp("finished")
    path = folder / "experiment.yaml"
    path.write_text(
        "format_version: 1\nname: tiny\n"
        f"dataset: {{root: {tiny_dataset}}}\n"
        f"arms: [partial, {{name: random, checkpoint: {tiny_checkpoint}}}, oracle]\n"
        f"cache: {tiny_cache}\n"
    )
    return path, carry_out(path, folder / "run", report=True)


@pytest.fixture
def copied(finished, tmp_path: Path) -> tuple[Path, Path]:
    path, result = finished
    shutil.copytree(result.folder.root, tmp_path / "run")
    return path, tmp_path / "run"


def made(result: RunResult) -> dict[str, int]:
    return {report.stage: report.made for report in result.stages}


def snapshot(root: Path) -> dict[str, bytes]:
    kinds = (".npz", ".npy", ".parquet", ".csv")
    made = {p.relative_to(root): p for p in sorted(root.rglob("*")) if p.suffix in kinds}
    return {str(name): path.read_bytes() for name, path in made.items() if name.parts[0] != "report"}


def test_a_run_writes_what_it_promises(finished) -> None:
    _, result = finished
    root = result.folder.root
    assert result.problems == ()
    assert made(result) == {"observe": 2, "complete": 6, "generate": 6, "score": 6, "explain": 8}
    for arm in ("partial", "random", "oracle"):
        dump = root / "arms" / arm / "dump" / "antipodal" / "scene_0100" / "realsense"
        assert sorted(p.name for p in dump.glob("*.npy")) == ["0000.npy", "0128.npy"]
        assert np.load(dump / "0000.npy").shape[1] == 17
    utility = pd.read_csv(root / "tables" / "utility.csv")
    assert set(utility["metric"]) == set(METRICS)
    assert not utility.duplicated([*TABLE_KEYS, "metric"]).any()
    assert (root / "report.html").stat().st_size > 10_000
    summary = json.loads((root / "summary.json").read_text())
    assert {row["arm"] for row in summary["utility"]} == {"partial", "random", "oracle"}
    assert summary["dataset"]["scenes"] == 2 and summary["dataset"]["views"] == 4


def test_utility_is_the_mean_over_scenes_of_the_mean_over_views(finished) -> None:
    _, result = finished
    views = pd.read_parquet(result.folder.tables / "views.parquet")
    whole = views[(views["object"] == -1) & (views["arm"] == "oracle")]
    by_hand = whole.groupby("scene")["feasible"].mean().mean()
    utility = pd.read_csv(result.folder.tables / "utility.csv")
    row = utility.query("arm == 'oracle' and split == 'all' and object == 'all' and metric == 'feasible'")
    assert row["value"].item() == pytest.approx(by_hand, rel=1e-5)
    assert row["n_scenes"].item() == 2 and row["n_views"].item() == 4


def test_true_clouds_have_perfect_metrics(finished) -> None:
    _, result = finished
    table = pd.read_parquet(result.folder.tables / "completion_views.parquet")
    oracle, partial = table[table["arm"] == "oracle"], table[table["arm"] == "partial"]
    assert (oracle["coverage@5mm"] == 1).all() and (oracle["cd_l1"] == 0).all()
    assert (partial["coverage@5mm"] < 0.9).all()
    assert (partial["precision@5mm"] > 0.9).all()


def test_a_second_run_makes_nothing_and_changes_nothing(copied) -> None:
    path, out = copied
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.suffix in (".npz", ".npy", ".parquet", ".html")}
    result = carry_out(path, out, report=True)
    assert set(made(result).values()) == {0}
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_only_what_depends_on_a_change_is_made_again(copied) -> None:
    path, out = copied
    result = carry_out(path, out, density=0.004)
    assert made(result) == {"observe": 0, "complete": 6, "generate": 6, "score": 6, "explain": 6}
    assert set(result.stages[1].stale.values()) == {"changed: density"}
    again = carry_out(path, out, density=0.004, entry="generator")
    assert made(again) == {"observe": 0, "complete": 0, "generate": 6, "score": 6, "explain": 6}


def test_a_new_arm_costs_only_itself(copied) -> None:
    path, out = copied
    checkpoint = load_experiment(path).arms[1].checkpoint
    arms = ["partial", "oracle", {"name": "replaced", "checkpoint": checkpoint, "merge": "replace"}]
    result = carry_out(path, out, arms=arms)
    assert made(result) == {"observe": 0, "complete": 2, "generate": 2, "score": 2, "explain": 2}


def test_an_unfinished_unit_is_made_again_alike(copied, finished) -> None:
    path, out = copied
    unit = out / "arms" / "random" / "clouds" / "scene_0160" / "realsense"
    (unit / "stamp.json").unlink()
    (unit / "0000.npz").write_bytes(b"half")
    result = carry_out(path, out)
    assert made(result) == {"observe": 0, "complete": 1, "generate": 0, "score": 0, "explain": 0}
    assert snapshot(out) == snapshot(finished[1].folder.root)


def test_results_do_not_depend_on_the_number_of_workers(finished, tmp_path: Path) -> None:
    path, result = finished
    carry_out(path, tmp_path / "run", workers=2)
    assert snapshot(tmp_path / "run") == snapshot(result.folder.root)


@pytest.fixture
def damaged(tiny_dataset: Path, tmp_path: Path) -> Path:
    root = tmp_path / "damaged"
    shutil.copytree(tiny_dataset, root)
    return root


def test_a_truncated_image_is_a_problem_and_the_rest_goes_on(finished, damaged: Path, tmp_path: Path) -> None:
    image = damaged / "scenes" / "scene_0100" / "realsense" / "depth" / "0128.png"
    image.write_bytes(image.read_bytes()[:1000])
    path, _ = finished
    result = carry_out(path, tmp_path / "run", **{"dataset.root": str(damaged)})
    assert [(p["stage"], p["view"]) for p in result.problems] == [("observe", 128)]
    assert "0128.png" in result.problems[0]["reason"] and "\n" not in result.problems[0]["reason"]
    views = pd.read_parquet(result.folder.tables / "views.parquet")
    assert sorted(views.query("arm == 'oracle' and object == -1")["view"]) == [0, 0, 128]
    assert json.loads((tmp_path / "run" / "problems.json").read_text()) == list(result.problems)


def test_all_zero_depth_gives_no_grasps_and_counts_as_zero(finished, damaged: Path, tmp_path: Path) -> None:
    from PIL import Image

    image = damaged / "scenes" / "scene_0100" / "realsense" / "depth" / "0000.png"
    Image.fromarray(np.zeros((720, 1280), np.uint16)).save(image)
    path, _ = finished
    result = carry_out(path, tmp_path / "run", **{"dataset.root": str(damaged)}, arms=["partial", "oracle"])
    views = pd.read_parquet(result.folder.tables / "views.parquet")
    blind = views.query("scene == 100 and view == 0 and object == -1")
    assert len(blind) == 2 and (blind["feasible"] == 0).all() and (blind["ap"] == 0).all()
    summary = json.loads(result.folder.summary.read_text())
    assert [row["views_without_grasps"] for row in summary["counts"] if row["arm"] == "oracle"] == [1]


def test_a_network_that_gives_nan_is_rows_with_reasons(finished, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    path, _ = finished
    folder = tmp_path / "nan"
    shutil.copytree(str(load_experiment(path).arms[1].checkpoint), folder)
    weights = load_file(folder / "model.safetensors")
    huge = {name: np.full(value.shape, 1e30, np.float32) for name, value in weights.items()}  # finite, but overflows
    save_file(huge, folder / "model.safetensors")
    arms = ["partial", {"name": "nan", "checkpoint": str(folder), "merge": "replace"}]
    result = carry_out(path, tmp_path / "run", arms=arms)
    assert result.problems and {p["stage"] for p in result.problems} == {"complete"}
    assert all("not finite" in p["reason"] and p["object"] is not None for p in result.problems)
    table = pd.read_parquet(result.folder.tables / "completion_views.parquet").query("arm == 'nan'")
    assert (table["coverage@5mm"] == 0).all()
    views = pd.read_parquet(result.folder.tables / "views.parquet")
    assert (views.query("arm == 'nan'")["feasible"] == 0).all()


def test_a_generator_that_raises_is_a_problem_a_view(finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from grasping import generators

    def broken(*_: object) -> Grasps:
        raise RuntimeError("no idea")

    monkeypatch.setitem(generators.GENERATORS, "broken", lambda: broken)
    path, _ = finished
    result = carry_out(path, tmp_path / "run", arms=["partial"], generators=[{"name": "broken"}], report=True)
    assert [p["reason"] for p in result.problems] == ["generator failed: RuntimeError: no idea"] * 4
    views = pd.read_parquet(result.folder.tables / "views.parquet")
    assert (views[list(METRICS)] == 0).all().all()
    assert (result.folder.report).exists()


def test_entry_decides_what_the_generator_and_its_filter_see(finished, tmp_path: Path, monkeypatch) -> None:
    from grasping import generators

    seen: list[tuple[int, int]] = []

    def spy(cloud, ids, collision, *_: object) -> Grasps:
        seen.append((len(cloud), len(collision)))
        return Grasps.empty()

    monkeypatch.setitem(generators.GENERATORS, "spy", lambda: spy)
    path, _ = finished
    sizes = {}
    for entry in ("generator", "collision", "both"):
        seen.clear()
        arms = [{"name": "oracle", "completion": "truth", "entry": entry}]
        carry_out(path, tmp_path / entry, arms=arms, generators=[{"name": "spy"}])
        sizes[entry] = list(seen)
    for generator, collision, both in zip(sizes["generator"], sizes["collision"], sizes["both"], strict=True):
        assert generator[0] == both[0] > collision[0]
        assert collision[1] == both[1] > generator[1]


def test_a_missing_model_fails_its_scene_as_a_whole_and_counts_as_zero(finished, damaged: Path, tmp_path: Path) -> None:
    path, _ = finished
    dataset = {"dataset.root": str(damaged)}
    carry_out(path, tmp_path / "run", arms=["partial", "oracle"], **dataset)
    ids = (damaged / "scenes" / "scene_0100" / "object_id_list.txt").read_text().split()
    model = damaged / "models" / f"{int(ids[0]):03d}"
    (model / "textured.sdf").write_text("3 3\n")
    mended = carry_out(path, tmp_path / "run", arms=["partial", "oracle"], **dataset)
    assert {(p["stage"], p["object"]) for p in mended.problems} == {("score", int(ids[0]))}
    assert all(str(model / "textured.sdf") in p["reason"] for p in mended.problems)  # made anew, as score-dump does
    views = pd.read_parquet(mended.folder.tables / "views.parquet").query("object == -1")
    assert (views.groupby("scene")["feasible"].sum() > 0).all()
    (model / "nontextured.ply").unlink()
    result = carry_out(path, tmp_path / "run", arms=["partial", "oracle"], **dataset)
    shared = {int(i) for i in ids} & set(
        map(int, (damaged / "scenes" / "scene_0160" / "object_id_list.txt").read_text().split())
    )
    assert not shared
    assert {problem["stage"] for problem in result.problems} == {"complete", "generate", "score", "explain"}
    assert all("scene_0100" in problem["unit"] for problem in result.problems)
    assert any("nontextured.ply" in problem["reason"] for problem in result.problems)
    views = pd.read_parquet(result.folder.tables / "views.parquet").query("object == -1")
    failed, rest = views.query("scene == 100"), views.query("scene == 160")
    assert len(failed) == 4 and (failed[list(METRICS)] == 0).all().all()  # not what was scored before
    assert rest["feasible"].sum() > 0
    # A later look at the tables alone still knows what failed.
    alone = run_experiment(
        load_experiment(path, {"arms": ["partial", "oracle"], **dataset}),
        tmp_path / "run",
        device="cpu",
        workers=0,
        stages=("aggregate",),
        say=print,
    )
    assert alone.problems == result.problems


def test_tables_refuse_what_was_made_from_other_clouds(copied) -> None:
    path, out = copied
    experiment = load_experiment(path, {"density": 0.004})
    with pytest.raises(ArtifactError, match="made from other clouds"):
        run_experiment(experiment, out, device="cpu", workers=0, stages=("complete", "aggregate"), say=print)


def test_tables_are_made_anew_where_another_visibility_lies(copied) -> None:
    path, out = copied
    experiment, folder = load_experiment(path), RunFolder(out)
    assert summary.is_current(experiment, folder)
    stamp = unit_folder(folder.visibility, 100, "realsense") / STAMP
    content = json.loads(stamp.read_text())
    stamp.write_text(json.dumps(content | {"made_from": content["made_from"] | {"version": 0}}))
    assert not summary.is_current(experiment, folder)


def test_tables_refuse_another_observation_s_visibility(copied) -> None:
    path, out = copied
    stamp = unit_folder(RunFolder(out).visibility, 100, "realsense") / STAMP
    content = json.loads(stamp.read_text())
    stamp.write_text(json.dumps(content | {"made_from": content["made_from"] | {"observations": "others"}}))
    with pytest.raises(ArtifactError, match=r"visibility.*made from other observations"):
        run_experiment(load_experiment(path), out, device="cpu", workers=0, stages=("aggregate",), say=print)


def test_broken_weights_stop_the_run_before_it_begins(finished, tmp_path: Path) -> None:
    path, _ = finished
    folder = tmp_path / "cut"
    shutil.copytree(str(load_experiment(path).arms[1].checkpoint), folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        carry_out(path, tmp_path / "run", arms=["partial", {"name": "cut", "checkpoint": str(folder)}])
    assert not (tmp_path / "run" / "observations").exists()


def test_a_changed_dump_is_scored_again(finished, tmp_path: Path) -> None:
    path, result = finished
    shutil.copytree(result.folder.dump("oracle", "antipodal"), tmp_path / "theirs")
    generators = [{"name": "dump", "parameters": {"folder": str(tmp_path / "theirs")}}]
    first = carry_out(path, tmp_path / "run", arms=["partial"], generators=generators)
    assert first.problems == () and made(first)["generate"] == 2
    np.save(tmp_path / "theirs" / "scene_0160" / "realsense" / "0000.npy", np.zeros((0, 17)))
    again = carry_out(path, tmp_path / "run", arms=["partial"], generators=generators)
    assert made(again) == {"observe": 0, "complete": 0, "generate": 1, "score": 1, "explain": 1}


@pytest.mark.graspnetapi
def test_the_referee_as_a_scorer_gives_the_same_utility(finished, tmp_path: Path) -> None:
    pytest.importorskip("graspnetAPI", reason="install it with scripts/install_referee.sh")
    path, _ = finished
    result = carry_out(
        path, tmp_path / "run", arms=["partial", "oracle"], scorers=["analytic", "graspnetapi"], workers=2
    )
    assert result.problems == ()
    grasps = pd.read_parquet(result.folder.tables / "grasps.parquet")
    keys = ["arm", "scene", "view", "row"]
    ours, theirs = (
        grasps[grasps["scorer"] == name].set_index(keys).sort_index().drop(columns=["scorer", "rank"])
        for name in ("analytic", "graspnetapi")
    )
    assert len(ours) > 200
    pd.testing.assert_frame_equal(ours, theirs)
    utility = pd.read_csv(result.folder.tables / "utility.csv")
    ours, theirs = (utility[utility["scorer"] == name]["value"].to_numpy() for name in ("analytic", "graspnetapi"))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
