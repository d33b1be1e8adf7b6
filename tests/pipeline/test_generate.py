"""The stage that generates: what a generator is handed, one by one and in batches, and what it must have stayed."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from grasping.generators import identity, make_generator
from pipeline.artifacts import ArtifactError, read_stamp
from pipeline.cloud_files import load_clouds, load_observation
from pipeline.config import Experiment, load_experiment
from pipeline.engines import CPU, GPU
from pipeline.experiment import RunResult, plan_units, run_experiment, unit_bases
from pipeline.generator_input import view_input
from pipeline.generators import describe, seed_of
from pipeline.report import inputs, tables
from pipeline.run_folder import STAMP, RunFolder
from pipeline.selection import select

PLUGIN = '''
import pathlib
import numpy as np
from grasping.grasps import Grasps

STATE = pathlib.Path(__file__).parent / "state"


class Counting:
    """Grasps that say what they were made of: how many views at once, and which seed."""

    def __init__(self, batch_size=0, breaks=(), alone=False, spoils=False, forgets=0):
        self.breaks, self.alone, self.spoils, self.forgets = breaks, alone, spoils, forgets
        if batch_size:
            self.batch_size = batch_size
            self.batch = self._batch

    def identity(self, scene, camera, views):
        return STATE.read_text()

    def __call__(self, cloud, object_ids_of_points, collision_cloud, T_camera_table, viewpoint, seed):
        if self.spoils:
            STATE.write_text("other")
        if self.alone and seed in self.breaks:
            raise RuntimeError("this view cannot be done")
        return self._made(cloud, seed, 1)

    def _made(self, cloud, seed, together):
        row = [0.5, 0.05, 0.02, 0.02, *np.eye(3).ravel(), float(len(cloud)), seed % 1000, together, -1]
        return Grasps.from_array(np.array([row], float))

    def _batch(self, views):
        if any(view.seed in self.breaks for view in views):
            raise RuntimeError("this batch cannot be done")
        return [self._made(view.cloud, view.seed, len(views)) for view in views[self.forgets :]]


class Staged:
    """Proposes a grasp at each of three points, and lets stand what has no obstacle within 5 cm; it keeps count."""

    sees_background = True
    default_input = "observed"

    def __init__(self, breaks=(), batch_size=1, width=0.05, nothing=()):
        self.breaks, self.batch_size, self.width, self.nothing = breaks, batch_size, width, nothing

    def __call__(self, *given):
        from grasping.generators import ViewInput

        view = ViewInput(*given)
        return self.clear(self.propose([view])[0], view.collision_cloud)

    def propose(self, views):
        if any(view.seed in self.breaks for view in views):
            raise RuntimeError("nothing to propose")
        with (STATE.parent / "count").open("a") as stream:
            print(*(view.seed for view in views), file=stream)
        found = []
        for view in views:
            at = view.cloud[:3] - np.outer(np.arange(3), [0, 0, 0.051])  # farther and farther from the object
            rows = [[0.1, self.width, 0.02, 0.02, *np.eye(3).ravel(), *point, -1] for point in at]
            found.append(Grasps.from_array(np.array(rows, float)))
        return [None if view.seed in self.nothing else grasps for view, grasps in zip(views, found)]

    def clear(self, grasps, collision_cloud):
        near = [np.linalg.norm(collision_cloud - at, axis=1).min() < 0.05 for at in grasps.translation]
        return grasps[~np.array(near)][::-1]



class Stuck(Staged):
    """Says that it computes on a GPU, whatever a run says."""

    device = "cuda"

    def on(self, device):
        return self


class Plain:
    version = 3
    deterministic = False

    def __call__(self, *given):
        return Grasps.empty()


def plain_function(*given):
    return Grasps.empty()


def make_function():
    return plain_function
'''
SEEDS = [seed_of(0, 100, "realsense", view) for view in (0, 128)]


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Installed as a package would be: a module, and metadata that name its entry points."""
    site = tmp_path / "site"
    info = site / "counting_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "counting_plugin_for_tests.py").write_text(PLUGIN)
    (site / "state").write_text("as planned")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: counting-plugin\nVersion: 1.0\n")
    names = {
        "counting": "Counting",
        "staged": "Staged",
        "stuck": "Stuck",
        "plain": "Plain",
        "function": "make_function",
    }
    lines = [f"{name} = counting_plugin_for_tests:{target}\n" for name, target in names.items()]
    (info / "entry_points.txt").write_text("[grasp_utility.generators]\n" + "".join(lines))
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "counting_plugin_for_tests", raising=False)
    return site


def experiment_of(tmp_path: Path, dataset: Path, cache: Path, generators: str) -> Path:
    path = tmp_path / "experiment.yaml"
    path.write_text(
        f"format_version: 1\nname: tiny\ndataset: {{root: {dataset}, scenes: [100]}}\narms: [partial, oracle]\n"
        f"cache: {cache}\ngenerators: [{generators}]\n"
    )
    return path


@pytest.fixture(scope="module")
def completed(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path, tiny_cache: Path) -> Path:
    """A run whose clouds are finished, whatever is to be generated from them."""
    folder = tmp_path_factory.mktemp("completed")
    experiment = load_experiment(experiment_of(folder, tiny_dataset, tiny_cache, "{name: antipodal}"))
    stages = ("observe", "complete")
    run_experiment(experiment, folder / "run", device="cpu", workers=0, stages=stages, say=lambda _: None)
    return folder / "run"


@pytest.fixture
def carry_out(tmp_path: Path, tiny_dataset: Path, tiny_cache: Path, plugin: Path, completed: Path):
    shutil.copytree(completed, tmp_path / "run")

    def run(generators: str, stages=("observe", "complete", "generate")) -> RunResult:
        path = experiment_of(tmp_path, tiny_dataset, tiny_cache, generators)
        return run_experiment(
            load_experiment(path), tmp_path / "run", device="cpu", workers=0, stages=stages, say=lambda _: None
        )

    return run


def grasps_of(result: RunResult, label: str, arm: str = "partial") -> dict[int, np.ndarray]:
    folder = result.folder.dump(arm, label)
    return {int(path.stem): np.load(path) for path in sorted(folder.glob("scene_0100/realsense/*.npy"))}


def test_views_that_are_done_at_once_are_each_their_own(carry_out) -> None:
    one = carry_out("{name: counting}, {name: counting, label: pairs, parameters: {batch_size: 2}}")
    assert one.problems == ()
    for arm in ("partial", "oracle"):
        alone, together = grasps_of(one, "counting", arm), grasps_of(one, "pairs", arm)
        assert list(alone) == list(together) == [0, 128]
        for view, seed in zip(alone, SEEDS, strict=True):
            assert alone[view][0, 14] == seed % 1000 and alone[view][0, 15] == 1 and together[view][0, 15] == 2
            assert np.array_equal(np.delete(alone[view], 15, 1), np.delete(together[view], 15, 1))


def test_of_a_batch_that_fails_only_the_view_is_lost_that_fails_alone(carry_out) -> None:
    parameters = f"{{batch_size: 2, breaks: [{SEEDS[1]}], alone: true}}"
    found = carry_out(f"{{name: counting, parameters: {parameters}}}")
    assert [problem["view"] for problem in found.problems] == [128, 128]  # of two arms
    assert {problem["reason"] for problem in found.problems} == {
        "generator failed: RuntimeError: this view cannot be done"
    }
    grasps = grasps_of(found, "counting")
    assert len(grasps[0]) == 1 and len(grasps[128]) == 0
    forgot = carry_out("{name: counting, parameters: {batch_size: 2, forgets: 1}}")
    assert forgot.problems == () and all(grasps[0, 15] == 1 for grasps in grasps_of(forgot, "counting").values())
    mended = carry_out(f"{{name: counting, parameters: {parameters.replace('alone: true', 'alone: false')}}}")
    assert mended.problems == () and len(grasps_of(mended, "counting")[128]) == 1


def test_a_generator_that_changes_while_it_works_makes_nothing(carry_out, plugin: Path) -> None:
    spoiled = carry_out("{name: counting, parameters: {spoils: true}}")
    failed = spoiled.stages[2].failures
    assert len(failed) == 2 and not grasps_of(spoiled, "counting")
    assert all("'counting', or a file that it reads, changed after the run began; run again" in f.error for f in failed)
    assert (plugin / "state").read_text() == "other"
    assert carry_out("{name: counting, parameters: {spoils: true}}").problems == ()  # planned with what it is now


def test_a_dump_that_changes_after_the_plan_is_not_taken(carry_out, tmp_path: Path, tiny_dataset, tiny_cache) -> None:
    first = carry_out("{name: counting}")
    theirs = tmp_path / "theirs"
    shutil.copytree(first.folder.dump("partial", "counting"), theirs)
    path = experiment_of(tmp_path, tiny_dataset, tiny_cache, f"{{dump: '{theirs}'}}")
    experiment = load_experiment(path)
    plans = plan_units(experiment, RunFolder(tmp_path / "run"), select(experiment), stages=("generate",))
    job = replace(plans[0].job, out=tmp_path / "out")
    job.out.mkdir()
    assert plans[0].function(job) == []
    np.save(theirs / "scene_0100/realsense/0128.npy", np.zeros((0, 17)))
    with pytest.raises(ArtifactError, match="generator 'dump', or a file that it reads, changed"):
        plans[0].function(job)


def test_where_files_lie_changes_nothing(carry_out, tmp_path: Path) -> None:
    first = carry_out("{name: counting}")
    for name in ("here", "there"):
        shutil.copytree(first.folder.dump("partial", "counting"), tmp_path / name)
    assert carry_out(f"{{dump: '{tmp_path}/here'}}").stages[2].made == 2
    assert carry_out(f"{{dump: '{tmp_path}/there'}}").stages[2].made == 0
    np.save(tmp_path / "there/scene_0100/realsense/0128.npy", np.zeros((0, 17)))
    assert carry_out(f"{{dump: '{tmp_path}/there'}}").stages[2].made == 2


def counted(plugin: Path) -> list[str]:
    try:
        return (plugin / "count").read_text().split()
    except FileNotFoundError:
        return []


@pytest.mark.parametrize("size", [1, 2])
def test_what_is_proposed_on_observed_clouds_is_made_once_for_all(carry_out, plugin: Path, size: int) -> None:
    parameters = f"parameters: {{batch_size: {size}}}"
    listed = f"{{name: staged, {parameters}}}, {{name: staged, label: again, rerank: true, {parameters}}}"
    found = carry_out(f"{listed}, {{name: staged, label: replaced, input: replace, {parameters}}}")
    assert found.problems == () and found.stages[2].made == 1 + 2 * 3
    # Two views for both arms and both labels; and each arm's own completed clouds.
    assert sorted(counted(plugin)) == sorted(str(seed) for seed in SEEDS * 3)
    # Each arm's obstacles are its own.
    alone = make_generator("staged")
    for arm in ("partial", "oracle"):
        grasps = grasps_of(found, "staged", arm)
        for view, seed in zip(grasps, SEEDS, strict=True):
            observation = load_observation(found.folder.observations / f"scene_0100/realsense/{view:04d}.npz")
            completed = load_clouds(found.folder.clouds(arm) / f"scene_0100/realsense/{view:04d}.npz")
            given = view_input("observed", observation, completed, 0.003, seed, sees_background=True)
            assert np.array_equal(grasps[view], alone(*given).to_array()) and len(grasps[view])
        assert {len(rows) for rows in grasps_of(found, "again", arm).values()} == {len(g) for g in grasps.values()}
    assert carry_out(f"{listed}, {{name: staged, label: replaced, input: replace, {parameters}}}").stages[2].made == 0


@pytest.mark.parametrize("wrong", ["breaks", "nothing"])
def test_where_nothing_can_be_proposed_each_arm_has_it_on_record(carry_out, plugin: Path, wrong: str) -> None:
    found = carry_out(f"{{name: staged, parameters: {{batch_size: 2, {wrong}: [{SEEDS[0]}]}}}}")
    assert [problem["view"] for problem in found.problems] == [0, 0]
    (reason,) = {problem["reason"] for problem in found.problems}
    expected = {"breaks": "RuntimeError: nothing to propose", "nothing": "AttributeError: 'NoneType'"}
    assert reason.startswith(f"generator failed: {expected[wrong]}")
    for arm in ("partial", "oracle"):
        grasps = grasps_of(found, "staged", arm)
        assert len(grasps[0]) == 0 and len(grasps[128]) > 0
    # What lacks a view is kept out of a store.
    (stamp,) = (found.folder.root / "proposals").glob(f"*/scene_0100/realsense/{STAMP}")
    known = read_stamp(stamp)
    assert known is not None and not known.is_sound


def test_proposals_are_made_anew_when_they_would_be_others(carry_out, plugin: Path) -> None:
    for width in (0.05, 0.09):
        found = carry_out(f"{{name: staged, parameters: {{width: {width}}}}}")
        assert found.problems == () and found.stages[2].made == 3
        for arm in ("partial", "oracle"):
            assert {float(row[1]) for grasps in grasps_of(found, "staged", arm).values() for row in grasps} == {width}


def test_proposals_are_made_where_somebody_needs_them(carry_out, plugin: Path) -> None:
    first = carry_out("{name: staged}")
    before = counted(plugin)
    shutil.rmtree(first.folder.root / "proposals")
    again = carry_out("{name: staged}")
    assert again.stages[2].made == 0 and again.stages[2].current == 2 and counted(plugin) == before
    assert ("generate", "") not in {base[:2] for base in unit_bases(again_experiment(first), first.folder)}
    shutil.rmtree(first.folder.dump("oracle", "staged"))
    assert carry_out("{name: staged}").stages[2].made == 2  # for one arm
    assert counted(plugin) == before * 2
    # A label more, and another first, and nothing is proposed again.
    carry_out("{name: staged, label: again, rerank: true}, {name: staged}")
    assert counted(plugin) == before * 2


def again_experiment(result: RunResult) -> Experiment:
    return load_experiment(result.folder.root.parent / "experiment.yaml")


def test_a_broken_file_of_proposals_is_no_view_without_grasps(carry_out, plugin: Path) -> None:
    first = carry_out("{name: staged}")
    (path,) = (first.folder.root / "proposals").glob("*/scene_0100/realsense/0000.npy")
    whole = path.read_bytes()
    path.write_bytes(bytes(len(whole)))
    shutil.rmtree(first.folder.dump("oracle", "staged"))
    broken = carry_out("{name: staged}")
    (failed,) = broken.stages[2].failures
    assert "0000.npy" in failed.error and "delete" in failed.error and not grasps_of(broken, "staged", "oracle")
    assert grasps_of(broken, "staged", "partial")
    path.write_bytes(whole)
    mended = carry_out("{name: staged}")
    assert mended.problems == () and len(grasps_of(mended, "staged", "oracle")[0]) > 0


@pytest.mark.parametrize("name", ["plain", "function"])
def test_a_generator_without_fields_is_the_same_in_every_process(plugin: Path, name: str) -> None:
    one, other = make_generator(name), make_generator(name)
    known = identity(one, 0, "kinect", [0])
    assert known == identity(other, 0, "kinect", [0]) and " at 0x" not in str(known)
    assert known["version"] == (3 if name == "plain" else None)


def test_what_generators_say_of_themselves_stands_in_the_results(carry_out, plugin: Path) -> None:
    stages = ("observe", "complete", "generate", "score", "aggregate")
    listed = "{name: antipodal}, {name: plain, input: append, rerank: true}, {name: counting}"
    result = carry_out(listed, stages)
    content = json.loads(result.folder.summary.read_text())
    assert content["generators"] == [
        {"label": "antipodal", "name": "antipodal", "input": "replace", "rerank": False, "deterministic": True},
        {"label": "plain", "name": "plain", "input": "append", "rerank": True, "deterministic": False},
        {"label": "counting", "name": "counting", "input": "replace", "rerank": False, "deterministic": None},
    ]
    of_chance = [text for text in content["warnings"] if "its own chance" in text]
    assert len(of_chance) == 2 and "plain says that" in of_chance[0] and "counting does not say" in of_chance[1]
    table = tables.generators(inputs.read(again_experiment(result), result.folder))
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["antipodal", "antipodal", "completed clouds (replace)", "its own", "yes"],
        ["plain", "plain", "observed and completed points (append)", "by the completed clouds", "no"],
        ["counting", "counting", "completed clouds (replace)", "its own", "not declared"],
    ]
    stamp = read_stamp(result.folder.dump("oracle", "counting") / "scene_0100/realsense" / STAMP)
    assert stamp is not None and content["comparable"]["generators"]["counting"]["identity"] == "as planned"
    assert stamp.made_from["identity"] == "as planned"


def test_a_network_goes_where_the_networks_of_the_arms_go(
    tmp_path: Path, tiny_dataset: Path, tiny_cache: Path, drawn_weights: Path
) -> None:
    section = "name: graspnet_baseline, parameters: {{weights: {}{}}}"
    listed = f"{{{{{section}}}}}, {{{{name: antipodal}}}}, {{{{label: replaced, input: replace, {section}}}}}"
    groups = {}
    for held in ("", ", device: cpu"):
        experiment = load_experiment(
            experiment_of(tmp_path, tiny_dataset, tiny_cache, listed.format(*[drawn_weights, held] * 2))
        )
        for device in ("cpu", "cuda"):
            plans = plan_units(
                experiment, RunFolder(tmp_path / "run"), select(experiment), device=device, remember=False
            )
            plans = [plan for plan in plans if plan.stage == "generate"]
            groups[held, device] = {plan.label: plan.group for plan in plans}
            # Whoever runs on the cores looks for no GPU.
            on_cores = [plan.job for plan in plans if plan.group == CPU and plan.job.generator.name != "antipodal"]
            assert held or {job.device for job in on_cores} == {"cpu"}
    # The network is needed once, for what all arms share.
    assert len(groups["", "cuda"]) == 1 + 2 * 3
    on_gpu = [label for label, group in groups["", "cuda"].items() if group == GPU]
    assert re.fullmatch(r"proposals/graspnet_baseline-[0-9a-f]{8}/scene_0100/realsense", on_gpu[0])
    assert on_gpu[1:] == [
        "partial/replaced/scene_0100/realsense",
        "oracle/replaced/scene_0100/realsense",
    ]
    for other in (("", "cpu"), (", device: cpu", "cpu"), (", device: cpu", "cuda")):
        assert set(groups[other].values()) == {CPU}
    assert describe(experiment)[0]["input"] == "observed"


def test_a_run_without_a_gpu_waits_for_none(carry_out, plugin: Path) -> None:
    assert carry_out("{name: stuck}, {name: stuck, label: other, input: replace}").problems == ()
