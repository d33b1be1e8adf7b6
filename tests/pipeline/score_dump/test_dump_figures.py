"""What score-dump says, against naive recomputation, the experiment pipeline and graspnetAPI's own evaluation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grasping import protocol
from grasping.grasps import Grasps
from pipeline.datasets.graspnet import GraspNetDataset
from pipeline.dump_result import ResultError, difference, differing, fingerprint, ranges
from pipeline.dump_scene import REASONS
from pipeline.dump_text import lines, write_rows
from pipeline.score_dump import Request, Scored, prepare_models, score_dump

CAMERA = "realsense"


def quietly(request: Request, **options: Any) -> Scored:
    return score_dump(request, say=lambda line: None, **options)


def reasons_of(scored: Scored) -> list[str]:
    return [problem["reason"] for problem in scored.result["problems"]]


def naive_ap(views: list[pd.DataFrame], top: int = 50) -> dict[str, float]:
    """The accuracy table by the words of its definition, one grasp at a time."""
    frictions = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2)
    table = np.zeros((len(views), top, 6))
    for v, rows in enumerate(views):
        values = list(rows.sort_values("rank")["min_friction"])
        for k in range(top):
            for m, mu in enumerate(frictions):
                table[v, k, m] = sum(1 for value in values[: k + 1] if value <= mu) / (k + 1)
    return {
        "ap": 100 * table.mean(),
        "ap_0.4": 100 * table[:, :, 1].mean(),
        "ap_0.8": 100 * table[:, :, 3].mean(),
    }


def test_figures_equal_a_naive_recomputation_from_the_rows(scored: Scored, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.parquet", scored.scenes, CAMERA)
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    result = scored.result
    keys = [(scene, view) for scene in (100, 160) for view in (0, 128)]
    views = {key: rows[(rows["scene"] == key[0]) & (rows["view"] == key[1])] for key in keys}
    assert result["views"] == 4 and len(rows) == result["kept"] > 60
    for name, wanted in (("all", keys), ("test_seen", keys[:2]), ("test_novel", keys[2:])):
        part = result if name == "all" else result["by_split"][name]
        expected = naive_ap([views[key] for key in wanted])
        assert {key: pytest.approx(value, rel=1e-12) for key, value in expected.items()} == {
            key: part[key] for key in expected
        }
    assert 0 < result["ap_0.4"] < result["ap_0.8"] < 100
    counts = rows["reason"].value_counts()
    assert {name: int(counts.get(name, 0)) for name in REASONS} == result["reasons"]
    assert sum(count > 0 for count in result["reasons"].values()) >= 4
    for name, (low, high) in {"S": (0, 0.04), "M": (0.04, 0.07), "L": (0.07, 1)}.items():
        bins = [view[(view["width"] >= low) & (view["width"] < high)] for view in views.values()]
        expected, part = naive_ap(bins), result["by_width"][name]
        assert {key: pytest.approx(value, rel=1e-12) for key, value in expected.items()} == {
            key: part[key] for key in expected
        }
        together = pd.concat(bins)
        assert part["kept"] == len(together) and set(together["width_bin"]) <= {name}
        assert part["holds_0.4"] == pytest.approx((together["min_friction"] <= 0.4).mean())
    assert sum(part["kept"] > 0 for part in result["by_width"].values()) >= 2


def test_rows_are_the_files_and_the_protocols(scored: Scored, requested: Request, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.parquet", scored.scenes, CAMERA)
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    assert {"scene", "view", "rank", "object", "confidence", "min_friction", "collided", "empty", "reason"} <= set(rows)
    dataset = GraspNetDataset(requested.dataset, CAMERA)
    for (scene, view), part in rows.groupby(["scene", "view"]):
        file = np.load(requested.dump / f"scene_{scene:04d}" / CAMERA / f"{view:04d}.npy")
        np.testing.assert_array_equal(part["confidence"], file[part["row"], 0])
        np.testing.assert_array_equal(part["width"], np.clip(file[part["row"], 1], 0, 0.1))
        assert part["rank"].tolist() == list(range(len(part))) and part["confidence"].is_monotonic_decreasing
        ids = dataset.object_ids(int(scene))
        objects = [item.open() for item in prepare_models(dataset, ids, requested.cache, 1).values()]
        poses = (
            dataset.object_poses(int(scene), int(view)),
            np.linalg.inv(dataset.T_table_camera(int(scene), int(view))),
        )
        whole = protocol.score_view(Grasps.from_array(file), objects, *poses)  # every candidate, kept or not
        np.testing.assert_array_equal(part["row"], whole.index[whole.kept])
        np.testing.assert_array_equal(part["min_friction"], whole.min_friction[whole.kept])
        assert part["reason"].tolist() == whole.reason[whole.kept].tolist()
        assert part["object"].tolist() == [ids[k] for k in whole.object_index[whole.kept]]


@pytest.mark.slow
def test_an_experiment_gives_the_same_dump_the_same_ap(scored: Scored, requested: Request, tmp_path: Path) -> None:
    from pipeline.config import load_experiment
    from pipeline.experiment import STAGES, run_experiment

    path = tmp_path / "experiment.yaml"
    path.write_text(
        f"format_version: 1\nname: dump\ndataset: {{root: {requested.dataset}}}\narms: [partial]\n"
        f"generators: [{{name: dump, parameters: {{folder: {requested.dump}}}}}]\ncache: {requested.cache}\n"
    )
    until = STAGES[: STAGES.index("aggregate") + 1]
    made = run_experiment(
        load_experiment(path), tmp_path / "run", device="cpu", workers=0, stages=until, say=lambda line: None
    )
    views = pd.read_parquet(made.folder.tables / "views.parquet").query("object == -1")
    for key in ("ap", "ap_0.4", "ap_0.8"):
        assert scored.result[key] == pytest.approx(views.groupby("scene")[key].mean().mean(), rel=1e-12)


@pytest.mark.graspnetapi
def test_the_referees_own_evaluation_gives_the_same_ap(requested: Request, scored: Scored, tmp_path: Path) -> None:
    pytest.importorskip("graspnetAPI", reason="install it with scripts/install_referee.sh")
    from grasping.reference_scene import evaluate_scene, stage_root

    root = stage_root(requested.dataset, requested.cache)
    for score in scored.scenes:
        theirs = evaluate_scene(root, CAMERA, score.scene, requested.dump, score.views)
        assert list(theirs) == [0, 128]
        for view, ap in zip(score.views, score.ap[:, 0], strict=True):
            ours, said = score.rows[score.rows["view"] == view], theirs[view].score
            assert said is not None and len(said) >= 15 and np.isfinite(said.min_friction).sum() >= 3
            np.testing.assert_array_equal(ours["row"], said.index)
            for column in ("min_friction", "collided", "empty"):
                np.testing.assert_array_equal(ours[column], getattr(said, column))
            assert ap == pytest.approx(100 * theirs[view].accuracy.mean(), rel=1e-12)


def test_scales_grade_each_bin_on_its_own_by_ma_and_huangs_cut(requested: Request, scored: Scored) -> None:
    """Their evaluation by its words: a bin's grasps alone, best 5 an object, 20 ranks."""
    result = quietly(replace(requested, scales=True)).result
    assert {key: result[key] for key in ("ap", "by_width")} == {key: scored.result[key] for key in ("ap", "by_width")}
    dataset = GraspNetDataset(requested.dataset, CAMERA)
    for name, (low, high) in {"S": (0, 0.04), "M": (0.04, 0.07), "L": (0.07, 1)}.items():
        views = []
        for scene in (100, 160):
            ids = dataset.object_ids(scene)
            objects = [item.open() for item in prepare_models(dataset, ids, requested.cache, 1).values()]
            for view in (0, 128):
                file = np.load(requested.dump / f"scene_{scene:04d}" / CAMERA / f"{view:04d}.npy")
                width = np.clip(file[:, 1], 0, 0.1)
                part = Grasps.from_array(file[(width >= low) & (width < high)])
                poses = dataset.object_poses(scene, view), np.linalg.inv(dataset.T_table_camera(scene, view))
                score = protocol.score_view(part, objects, *poses)  # every candidate, best first
                taken, frictions = dict.fromkeys(range(len(ids)), 0), []
                for k, friction in zip(score.object_index.tolist(), score.min_friction, strict=True):
                    taken[k] += 1
                    if taken[k] <= 5:
                        frictions.append(friction)
                views.append(pd.DataFrame({"min_friction": frictions, "rank": range(len(frictions))}))
        expected = naive_ap(views, top=20)
        assert {key: pytest.approx(value, rel=1e-12) for key, value in expected.items()} == result["by_scale"][name]


def test_workers_change_nothing(requested: Request, scored: Scored) -> None:
    two = quietly(replace(requested, workers=2))
    mine, theirs = ({k: v for k, v in s.result.items() if k != "seconds"} for s in (scored, two))
    assert mine == theirs
    rows = [np.concatenate([score.rows for score in s.scenes]) for s in (scored, two)]
    np.testing.assert_array_equal(*rows)


def test_a_part_of_a_split_is_scored_as_that_part(requested: Request, scored: Scored) -> None:
    only = quietly(replace(requested, scenes=(160,), views=(128,))).result
    assert only["views"] == 1 and list(only["by_split"]) == ["test_novel"]
    rows = next(s for s in scored.scenes if s.scene == 160)
    assert only["ap"] == rows.ap[rows.views.index(128), 0]
    novel = quietly(replace(requested, split="test_novel")).result
    assert {key: novel[key] for key in ("ap", "ap_0.4", "ap_0.8")} == {
        key: scored.result["by_split"]["test_novel"][key] for key in ("ap", "ap_0.4", "ap_0.8")
    }
    assert quietly(replace(requested, split="all")).result["ap"] == scored.result["ap"]


def test_self_check_leaves_a_ceiling_above_the_dump(requested: Request, scored: Scored) -> None:
    checked = quietly(replace(requested, self_check=True, workers=1)).result
    ceiling = checked["ceiling"]
    assert ceiling["failed"] == [] and ceiling["views"] == 4
    assert 100 >= ceiling["ap_0.8"] > scored.result["ap_0.8"] and checked["ap"] == scored.result["ap"]
    assert set(ceiling["by_object"]) == {name for name in checked["fingerprint"]["models"]}
    for part in ceiling["by_object"].values():
        assert 0 <= part["0.2"] <= part["0.4"] <= part["0.8"] <= part["places"] <= 10
    assert any("AP" in sentence for sentence in ceiling["meaning"])
    assert any("self-check" in line for line in lines(checked))


def test_results_of_one_protocol_are_compared_and_of_two_refused(own: Request, scored: Scored) -> None:
    for path in own.dump.rglob("*.npy"):
        array = np.load(path)
        np.save(path, array[array[:, 0] > 0.5])
    theirs = json.loads(json.dumps(scored.result))
    compared = quietly(own, against=theirs).result
    for key in ("ap", "ap_0.4", "ap_0.8"):
        assert compared["against"][key] == pytest.approx(compared[key] - theirs[key])
        seen = compared["by_split"]["test_seen"][key] - theirs["by_split"]["test_seen"][key]
        assert compared["against"]["by_split"]["test_seen"][key] == pytest.approx(seen)
    assert compared["against"]["fingerprints_differ"] == [] and compared["against"]["scenes"]["shared"] == 2
    text = "\n".join(lines(compared))
    assert f"{compared['against']['ap']:+.2f}" in text and "FORCED" not in text

    for change in ({"version": -1}, {"views": {"100": "0-255"}}, {"poses": "other"}):
        other = {**theirs, "fingerprint": {**theirs["fingerprint"], **change}}
        with pytest.raises(ResultError, match=next(iter(change))):
            quietly(own, against=other)
        forced = quietly(own, against=other, force=True).result
        assert any(next(iter(change)) in text for text in forced["against"]["fingerprints_differ"])
        assert any("FORCED" in line for line in lines(forced))


def test_fingerprint_holds_everything_a_score_depends_on(scored: Scored, requested: Request) -> None:
    mine = scored.result["fingerprint"]
    assert set(protocol.fingerprint()) < set(mine) and mine["camera"] == CAMERA
    assert mine["views"] == {"100,160": "0,128"} and len(mine["models"]) >= 4
    part = quietly(replace(requested, views=(0,))).result["fingerprint"]
    assert [text.split(":")[0] for text in differing(part, mine)] == ["views"]  # and nothing of what follows
    unknown = fingerprint(CAMERA, {100: (0, 128), 160: (0, 128)}, [], None)
    assert not any(text.startswith("poses") for text in differing(unknown, mine))
    assert difference(scored.result, scored.result)["ap"] == 0


@given(st.sets(st.integers(0, 255)))
def test_ranges_say_what_the_options_read(numbers: set[int]) -> None:
    from pipeline.cli_scoring import number_list

    assert (set(number_list(ranges(sorted(numbers))) or ()) if numbers else set()) == numbers
    assert numbers or ranges([]) == "none"
