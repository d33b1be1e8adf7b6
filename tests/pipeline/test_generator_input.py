"""What a generator is given in each input mode, and what its settings change."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.spatial import cKDTree

from grasping.clouds import seen_from_origin, voxel_downsample
from grasping.grasps import Grasps
from pipeline.cloud_files import ObjectClouds, load_clouds, load_observation
from pipeline.config import load_experiment
from pipeline.config_sections import GeneratorSection
from pipeline.experiment import STAGES, RunResult, run_experiment
from pipeline.generate import reranked
from pipeline.generator_input import at_density, generator_input
from pipeline.run_folder import unit_folder

ROOT = Path(__file__).resolve().parents[2]
DENSITY = 0.003


def sheet(z: float, half: float = 0.03, pitch: float = DENSITY) -> np.ndarray:
    side = np.arange(-half, half, pitch) + pitch / 2  # the middles of voxels
    x, y = np.meshgrid(side, side)
    return np.stack([x.ravel(), y.ravel(), np.full(x.size, z)], axis=1).astype(np.float32)


def clouds(*points: np.ndarray) -> ObjectClouds:
    return ObjectClouds(np.arange(len(points)) + 5, points, ("ok",) * len(points))


FRONT, BACK, TABLE = sheet(0.5), sheet(0.54), sheet(0.6, half=0.1)
OBSERVED, COMPLETED = clouds(FRONT[:100]), clouds(np.concatenate([FRONT, BACK]))


def given(mode, *, sees_background: bool = False, observed=OBSERVED, completed=COMPLETED):
    return generator_input(mode, observed, completed, TABLE, DENSITY, sees_background=sees_background)


@pytest.mark.parametrize("sees", [False, True])
def test_observed_and_replace_are_the_clouds_themselves(sees: bool) -> None:
    for mode, objects in (("observed", OBSERVED), ("replace", COMPLETED)):
        points, ids = given(mode, sees_background=sees)
        expected = np.concatenate([objects.points, TABLE]) if sees else objects.points
        assert np.array_equal(points, expected)
        assert ids.tolist() == [5] * len(objects.points) + [-1] * (len(TABLE) if sees else 0)


def test_append_holds_both_and_no_voxel_twice() -> None:
    points, ids = given("append", observed=clouds(FRONT + np.float32(0.102), FRONT), completed=clouds(BACK, FRONT))
    assert len(points) == len(ids) == len(FRONT) + len(BACK) + len(FRONT)  # the second object's two are the same points
    assert (ids == 5).sum() == len(FRONT) + len(BACK)
    for cloud, number in ((FRONT + np.float32(0.102), 5), (BACK, 5), (FRONT, 6)):
        for point in cloud[::37]:
            assert np.abs(points[ids == number] - point).max(axis=1).min() < 1e-6


def test_rerendered_hides_the_far_side_and_the_table_behind() -> None:
    points, ids = given("rerendered", sees_background=True)
    on_object = ids >= 0
    assert np.isclose(points[on_object, 2], 0.5).all() and on_object.sum() == len(FRONT)
    shadow = np.abs(points[~on_object, :2]).max(axis=1)  # the object reaches to 0.03 / 0.5 * 0.6 on the table
    assert shadow.min() > 0.034 and (~on_object).sum() > 0.8 * (np.abs(TABLE[:, :2]).max(axis=1) > 0.045).sum()
    alone, only = given("rerendered")
    assert (only >= 0).all() and np.array_equal(alone, points[on_object])


def test_a_view_without_points_gives_none() -> None:
    nothing = clouds(np.zeros((0, 3), np.float32))
    for mode in ("observed", "replace", "append", "rerendered"):
        points, ids = generator_input(mode, nothing, nothing, TABLE[:0], DENSITY, sees_background=True)
        assert points.shape == (0, 3) and ids.shape == (0,)


def naive_seen(points: np.ndarray, pitch: float, behind: float) -> list[bool]:
    pixel = [tuple(np.floor(p[:2] / p[2] / pitch)) if p[2] > 0 else None for p in points]
    seen = []
    for i, own in enumerate(pixel):
        near = [
            p[2]
            for p, other in zip(points, pixel, strict=True)
            if own and other and abs(own[0] - other[0]) <= 1 and abs(own[1] - other[1]) <= 1
        ]
        seen.append(bool(near) and points[i][2] <= min(near) + behind)
    return seen


def test_seen_is_what_a_loop_sees() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        points = rng.uniform([-0.05, -0.05, -0.1], [0.05, 0.05, 0.6], (200, 3))
        assert seen_from_origin(points, 0.02, 0.01).tolist() == naive_seen(points, 0.02, 0.01)
    assert seen_from_origin(-FRONT, 0.01, 0.01).tolist() == [False] * len(FRONT)
    assert seen_from_origin(np.array([[1.0, 1.0, 1e-9], [0, 0, 1]]), 1e-3, 0.01).tolist() == [True, True]


def test_reranking_sorts_by_what_the_completed_cloud_says() -> None:
    """Two walls 3 cm apart, facing each other along y; one grasp closes on both, one along them, one on nothing."""
    x, z = np.meshgrid(np.arange(-0.02, 0.02, 0.002), np.arange(-0.03, 0.03, 0.002))
    walls = [np.stack([x.ravel(), np.full(x.size, side), z.ravel()], axis=1) for side in (-0.015, 0.015)]
    cloud = clouds(np.concatenate(walls).astype(np.float32))
    straight, turned = [1, 0, 0, 0, 1, 0, 0, 0, 1], [1, 0, 0, 0, 0, -1, 0, 1, 0]
    rows = [
        [0.5, 0.05, 0.02, 0.02, *straight, -0.01, 0, 0, -1],
        [0.9, 0.05, 0.02, 0.02, *turned, -0.01, -0.015, 0, -1],
        [0.8, 0.02, 0.02, 0.02, *straight, -0.01, 0, 0, -1],
        [-1.0, 0.05, 0.02, 0.02, *straight, -0.01, 0, 0, -1],
    ]
    ranked = reranked(Grasps.from_array(np.array(rows, float)), cloud)
    assert ranked.confidence[0] == pytest.approx(0.5, abs=0.01)
    assert ranked.to_array()[0, 1:].tolist() == rows[0][1:]
    assert (ranked.confidence[1:] < 0.01).all() and (ranked.confidence >= 0).all() and len(ranked) == 4


def test_settings_say_only_what_is_used() -> None:
    """The fingerprints of finished runs hold what the file said before there were these keys."""
    assert GeneratorSection().model_dump() == {"name": "antipodal", "parameters": {}}
    section = GeneratorSection(name="antipodal", label="a", input="append", rerank=True)
    assert section.model_dump() == {
        "name": "antipodal",
        "parameters": {},
        "label": "a",
        "input": "append",
        "rerank": True,
    }
    assert GeneratorSection.model_validate(section.model_dump()) == section
    short = GeneratorSection.model_validate({"dump": "theirs/{arm}"})
    assert short.model_dump() == {"name": "dump", "parameters": {"folder": "theirs/{arm}"}}
    assert short.parameters_for("pcn-cd") == {"folder": "theirs/pcn-cd"}
    command = GeneratorSection.model_validate(
        {"command": "theirs {input} {output}", "deterministic": False, "version": 2}
    )
    assert command.label == "command" and command.command == ("theirs", "{input}", "{output}")
    assert GeneratorSection.model_validate(command.model_dump()) == command
    assert command.what_counts() == {
        "name": "command",
        "parameters": {},
        "command": ["theirs", "{input}", "{output}"],
        "version": "2",
    }


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"name": "dump", "input": "append", "parameters": {"folder": "x"}}, "taken as it is"),
        ({"dump": "x", "rerank": True}, "taken as it is"),
        ({"dump": "x", "name": "dump"}, "says all"),
        ({"label": "a/b"}, "names a folder"),
        ({"input": "completed"}, "replace"),
        ({"command": "theirs {input}"}, "must name {output}"),
        ({"command": "theirs {input} {output}", "name": "antipodal"}, "in the place of"),
        ({"command": "theirs {input} {output}", "timeout": 0}, "greater than 0"),
        ({"name": "antipodal", "version": 1.2}, "`version` goes with `command:`"),
        ({"name": "command"}, "needs `command:`"),
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        GeneratorSection.model_validate(wrong)


MODES = ("observed", "replace", "append", "rerendered")


@pytest.fixture(scope="module")
def modes(tmp_path_factory, tiny_dataset: Path, tiny_cache: Path, tiny_checkpoint: Path) -> tuple[Path, RunResult]:
    folder = tmp_path_factory.mktemp("modes")
    listed = "".join(f"  - {{name: antipodal, label: {mode}, input: {mode}}}\n" for mode in MODES)
    listed += "  - {name: antipodal, label: again, input: observed, rerank: true}\n"
    (folder / "experiment.yaml").write_text(
        f"format_version: 1\nname: tiny\ndataset: {{root: {tiny_dataset}, scenes: [100], views: [0]}}\n"
        f"arms: [partial, {{name: random, checkpoint: {tiny_checkpoint}}}, oracle]\ncache: {tiny_cache}\n"
        f"generators:\n{listed}"
    )
    experiment = load_experiment(folder / "experiment.yaml")
    result = run_experiment(experiment, folder / "run", device="cpu", workers=0, stages=STAGES[:-1], say=lambda _: None)
    return folder, result


def test_a_run_has_each_mode_under_its_label(modes) -> None:
    _, result = modes
    assert result.problems == ()
    dumps = {}
    for arm in ("partial", "random", "oracle"):
        for label in (*MODES, "again"):
            folder = unit_folder(result.folder.dump(arm, label), 100, "realsense")
            dumps[arm, label] = np.load(folder / "0000.npy")
    # Nothing was completed in `partial`: what a mode does with completions makes no difference to it.
    assert len(dumps["partial", "observed"]) > 0
    for mode in ("replace", "append"):
        assert np.array_equal(dumps["partial", mode], dumps["partial", "observed"])
    for mode in ("replace", "append", "rerendered"):
        assert not np.array_equal(dumps["oracle", mode], dumps["oracle", "observed"])
    # Ranked again, but the same grasps.
    for arm in ("partial", "random", "oracle"):
        one, other = (dumps[arm, label][:, 1:] for label in ("observed", "again"))
        assert sorted(map(tuple, one)) == sorted(map(tuple, other))
    assert not np.array_equal(dumps["oracle", "again"], dumps["oracle", "observed"])


def test_what_is_rendered_again_is_what_the_camera_saw(modes) -> None:
    """Of a made-whole scene: what was observed is seen again, and what is hidden is not."""
    _, result = modes
    seen_again, let_through = [], []
    for view in result.folder.observations.glob("scene_*/realsense/*.npz"):
        observation = load_observation(view)
        folder = unit_folder(result.folder.clouds("oracle"), int(view.parent.parent.name[-4:]), "realsense")
        whole = load_clouds(folder / view.name)
        background = voxel_downsample(observation.background, DENSITY)
        observed = at_density(observation.objects, DENSITY)
        points, _ = generator_input("rerendered", observed, whole, background, DENSITY, sees_background=False)
        drawn = cKDTree(points)
        both = cKDTree(observed.points).query(whole.points)[0]
        again = drawn.query(whole.points)[0] < 0.002
        seen_again.append(again[both < 0.004].mean())
        let_through.append(again[both > 0.01].mean())
    print(f"seen again {np.mean(seen_again):.3f}, hidden let through {np.mean(let_through):.3f}")
    assert min(seen_again) > 0.85 and max(let_through) < 0.1


def test_dumps_of_an_earlier_run_come_back_arm_by_arm(modes, tmp_path: Path) -> None:
    folder, result = modes
    text = (folder / "experiment.yaml").read_text().split("generators:")[0]
    dumps = result.folder.dump("partial", "replace").as_posix().replace("/partial/", "/{arm}/")
    (tmp_path / "experiment.yaml").write_text(text + f"generators: [{{dump: '{dumps}', label: theirs}}]\n")
    experiment = load_experiment(tmp_path / "experiment.yaml")
    again = run_experiment(
        experiment, tmp_path / "run", device="cpu", workers=0, stages=STAGES[:-1], say=lambda _: None
    )
    assert again.problems == ()
    for arm in ("partial", "random", "oracle"):
        one, other = (
            np.load(unit_folder(run.folder.dump(arm, label), 100, "realsense") / "0000.npy")
            for run, label in ((result, "replace"), (again, "theirs"))
        )
        assert np.array_equal(one, other)


def test_a_command_finds_grasps_in_a_run(modes, tmp_path: Path) -> None:
    folder, _ = modes
    text = (folder / "experiment.yaml").read_text().split("generators:")[0]
    command = [sys.executable, str(ROOT / "scripts" / "example_grasps_from_above.py"), "{input}", "{output}"]
    path = tmp_path / "experiment.yaml"

    def carry_out(**changes: object) -> RunResult:
        section = {"label": "above", "command": command, "deterministic": True, **changes}
        path.write_text(f"{text}generators: [{json.dumps(section)}]\n")
        stages = ("observe", "complete", "generate")
        experiment = load_experiment(path)
        return run_experiment(experiment, tmp_path / "run", device="cpu", workers=0, stages=stages, say=lambda _: None)

    first = carry_out()
    assert first.problems == () and first.stages[2].made == 3
    dumps = [np.load(p) for p in sorted((tmp_path / "run").glob("arms/*/dump/above/scene_*/realsense/*.npy"))]
    assert len(dumps) == 3 and all(dump.shape[1] == 17 for dump in dumps) and sum(map(len, dumps)) > 0
    assert not list((tmp_path / "run").rglob("request.json"))
    # Another patience or folder makes nothing stale, another version all of it.
    assert carry_out(timeout=50).stages[2].made == 0
    assert carry_out(version="2").stages[2].made == 3
    wrong = carry_out(command=[sys.executable, "-c", "import sys; sys.exit('no licence')", "{input}", "{output}"])
    assert len(wrong.stages[2].failures) == 3 and "no licence" in wrong.stages[2].failures[0].error


def test_a_command_that_is_not_there_is_named_before_the_work(modes, tmp_path: Path) -> None:
    folder, _ = modes
    text = (folder / "experiment.yaml").read_text().split("generators:")[0]
    path = tmp_path / "experiment.yaml"
    path.write_text(text + "generators: [{label: theirs, command: 'no-such-program {input} {output}'}]\n")
    with pytest.raises(ValueError, match="no program 'no-such-program'"):
        run_experiment(load_experiment(path), tmp_path / "run", device="cpu", workers=0, say=lambda _: None)
    assert not (tmp_path / "run" / "arms").exists()
