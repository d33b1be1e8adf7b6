"""What the stage `complete` does with one unit: objects of many views at once, each of them as if it were alone."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from completion.completer import Completer
from grasping.clouds import voxel_downsample
from pipeline import completed_unit
from pipeline.arm_completion import describe_arm, network_completion
from pipeline.artifacts import ArtifactError, FileHashes, derive_seed, fingerprint
from pipeline.cloud_files import load_clouds, load_observation, save_observation
from pipeline.completed_unit import METRICS_FILE, TOO_FEW, Job, complete_unit
from pipeline.config import Arm
from pipeline.datasets.graspnet import GraspNetDataset
from pipeline.observe import object_clouds
from pipeline.run_folder import view_file
from pipeline.selection import SceneUnit
from pipeline.truth import TrueSurfaces

DENSITY = 0.005


@pytest.fixture(scope="module")
def observed(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two views; in the second, one object is all in one place and another has too few points."""
    dataset, folder = GraspNetDataset(tiny_dataset, "realsense"), tmp_path_factory.mktemp("observed")
    for number in (0, 128):
        seen = object_clouds(dataset.view(160, number), background=False)
        if number == 128:
            clouds = list(seen.objects.clouds)
            clouds[0], clouds[1] = np.ones((40, 3), np.float32), clouds[1][:5]
            seen = replace(seen, objects=replace(seen.objects, clouds=tuple(clouds)))
        save_observation(view_file(folder, number, ".npz"), seen)
    return folder


def completing(job: Job, arm: Arm) -> Job:
    return replace(job, arm=arm, identity=fingerprint(describe_arm(arm, "cpu")[0]))


@pytest.fixture
def job(tiny_dataset: Path, tiny_cache: Path, tiny_checkpoint: Path, observed: Path, tmp_path: Path) -> Job:
    dataset = GraspNetDataset(tiny_dataset, "realsense")
    arm = Arm(name="net", checkpoint=str(tiny_checkpoint))
    job = Job(
        arm=arm,
        unit=SceneUnit(160, "realsense", "test_novel", (0, 64, 128)),  # 64 could not be observed
        observations=observed,
        out=tmp_path / "out",
        surfaces=TrueSurfaces(dataset, tiny_cache, FileHashes(tmp_path / "hashes.json")).of_scene(160),
        density=DENSITY,
        seed=3,
        identity="",
    )
    return completing(job, arm)


def test_objects_of_several_views_come_out_as_each_does_alone(job: Job, tiny_checkpoint: Path) -> None:
    problems = complete_unit(job)
    completer = Completer.load(tiny_checkpoint, "cpu")
    alone = network_completion(completer, completer.config["frame"], completer.config["merge"])
    status: list[str] = []
    for number in (0, 128):
        observation = load_observation(view_file(job.observations, number, ".npz"))
        made = load_clouds(view_file(job.out, number, ".npz"))
        for index, object_id in enumerate(observation.objects.object_ids.tolist()):
            status.append(made.status[index])
            partial, cloud = observation.objects.clouds[index], made.clouds[index]
            if made.status[index] == "ok":
                seed = derive_seed(3, 160, "realsense", number, object_id, "complete")
                (whole,) = alone([partial], observation.T_table_camera, [seed])
                np.testing.assert_array_equal(cloud, voxel_downsample(whole, DENSITY))
                assert len(whole) > len(partial)
            elif made.status[index] == TOO_FEW:
                np.testing.assert_array_equal(cloud, voxel_downsample(partial, DENSITY))
            else:
                assert len(cloud) == 0
                assert problems == [{"view": number, "object": object_id, "reason": made.status[index]}]
    bad = "failed: 40 points within 0.0e+00 m: too few distinct points to know a size"
    half = len(status) // 2
    assert status == ["ok"] * half + [bad, TOO_FEW, *["ok"] * (half - 2)]
    rows = pq.read_table(job.out / METRICS_FILE).to_pydict()
    assert rows["view"] == [0] * half + [128] * half and rows["status"] == status
    assert not view_file(job.out, 64, ".npz").exists()


@pytest.mark.parametrize("completion", ["checkpoint", "truth", "none"])
def test_how_many_views_are_gathered_changes_nothing(job: Job, completion: str, monkeypatch) -> None:
    if completion != "checkpoint":
        job = completing(job, Arm(name="it", completion=completion))
    assert [len(views) for views in completed_unit._gathered(job)] == [2]
    problems = complete_unit(job)
    monkeypatch.setattr(completed_unit, "AT_ONCE", 1)
    assert [len(views) for views in completed_unit._gathered(job)] == [1, 1]
    one_by_one = replace(job, out=job.out.with_name("one by one"))
    assert complete_unit(one_by_one) == problems
    assert {path.name for path in job.out.iterdir()} == {"0000.npz", "0128.npz", METRICS_FILE}
    assert pq.read_table(one_by_one.out / METRICS_FILE).equals(pq.read_table(job.out / METRICS_FILE))
    for number in (0, 128):
        first, second = (load_clouds(view_file(folder, number, ".npz")) for folder in (job.out, one_by_one.out))
        assert first.status == second.status
        np.testing.assert_array_equal(first.points, second.points)
        np.testing.assert_array_equal(first.ids_of_points, second.ids_of_points)


def test_weights_that_changed_after_the_plan_do_not_pass_for_those_planned(
    job: Job, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in training"
    shutil.copytree(tiny_checkpoint, folder)
    job = completing(job, Arm(name="net", checkpoint=str(folder)))
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-4] + bytes(4))
    with pytest.raises(ArtifactError, match=r"arm net: the checkpoint .*in training has changed since .* run again"):
        complete_unit(job)
    assert not job.out.exists()
    (folder / "model.safetensors").write_bytes(weights)
    complete_unit(job)
    assert view_file(job.out, 0, ".npz").exists()
