"""The main job with completion on a GPU, beside scoring on the cores: what differs from a run on cores alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.cloud_files import load_clouds
from pipeline.config import load_experiment
from pipeline.experiment import UNIT_STAGES, RunResult, run_experiment

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
KEYS = ["arm", "generator", "scorer", "camera", "scene", "view", "rank"]
FREELY = 0.02
"""Share of an arm's candidates that the last digits of clouds may decide otherwise."""


def carry_out(path: Path, out: Path, device: str) -> RunResult:
    experiment = load_experiment(path)
    stages = (*UNIT_STAGES, "aggregate")
    return run_experiment(experiment, out, device=device, workers=2, stages=stages, say=print)


def test_clouds_of_a_gpu_are_those_of_the_cores_and_scores_that_changed_are_counted(
    tiny_experiment: Path, tmp_path: Path
) -> None:
    runs = {device: carry_out(tiny_experiment, tmp_path / device, device) for device in ("cpu", "cuda")}
    apart, voxels, points = 0.0, 0, 0
    for path in sorted((tmp_path / "cpu/arms/random/clouds").rglob("*.npz")):
        one, other = (load_clouds(tmp_path / device / path.relative_to(tmp_path / "cpu")) for device in runs)
        assert one.status == other.status
        for a, b in zip(one.clouds, other.clouds, strict=True):
            points += len(a)
            if len(a) == len(b):
                moved = np.linalg.norm(a - b, axis=1)
                # A point that tips over into the next voxel moves the mean of both: it is counted, not measured.
                voxels += int((moved > 1e-5).sum())
                apart = max(apart, float(moved[moved <= 1e-5].max(initial=0.0)))
            else:
                voxels += abs(len(a) - len(b)) + 1
    assert voxels <= 0.001 * points
    tables = {device: pd.read_parquet(run.folder.tables / "grasps.parquet") for device, run in runs.items()}
    both = tables["cpu"].merge(tables["cuda"], on=KEYS, how="outer", suffixes=("", "_gpu"), indicator=True)
    changed = (both["_merge"] != "both") | (both["min_friction"] != both["min_friction_gpu"])
    print(f"clouds: {points} points, at most {apart:.1e} m apart, {voxels} voxels tipped over")
    print("scores changed:", dict(changed.groupby(both["arm"]).sum()), "of", dict(both.groupby("arm").size()))
    untouched = both["arm"].isin(["partial", "oracle"])
    assert not changed[untouched].any()
    assert changed[~untouched].mean() <= FREELY
