"""Our scores beside graspnetAPI's own on the demo's sample dataset, grasp by grasp, through whole experiments."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.config import load_experiment
from pipeline.datasets.synthetic import PRESETS, synthesize
from pipeline.experiment import STAGES, run_experiment

pytestmark = [pytest.mark.graspnetapi, pytest.mark.slow]

OUTCOMES = ("collides", "empty", "no_contact", "no_closure", "success")


def test_every_candidate_gets_the_referees_score(tmp_path: Path) -> None:
    pytest.importorskip("graspnetAPI", reason="install it with scripts/install_referee.sh")
    preset = replace(PRESETS["sample"], scenes=(100, 102, 160, 162))
    synthesize(tmp_path / "dataset", **vars(preset), workers=2)
    path = tmp_path / "experiment.yaml"
    path.write_text(
        "format_version: 1\nname: referee\ndataset: {root: dataset, views: [0, 64, 128]}\narms: [partial, oracle]\n"
        "scorers: [analytic, graspnetapi]\ncache: cache\n"
    )
    result = run_experiment(
        load_experiment(path), tmp_path / "run", device="cpu", workers=2, stages=STAGES[:-1], say=print
    )
    assert result.problems == ()
    grasps = pd.read_parquet(result.folder.tables / "grasps.parquet")
    keys = ["arm", "scene", "view", "row"]
    ours, theirs = (
        grasps[grasps["scorer"] == name].set_index(keys).sort_index().drop(columns="scorer")
        for name in ("analytic", "graspnetapi")
    )
    counts = ours["reason"].value_counts()
    print(counts.to_dict(), ours["min_friction"].round(1).value_counts().to_dict())
    assert len(ours) >= 2000 and counts["success"] >= 300
    assert all(counts[outcome] >= 20 for outcome in OUTCOMES)
    distinct = ours.groupby(["arm", "scene", "view"])["confidence"].transform(lambda c: ~c.duplicated(keep=False))
    assert distinct.mean() > 0.99  # where confidences are equal, the referee's own order is chance
    pd.testing.assert_frame_equal(ours[distinct].drop(columns="rank"), theirs[distinct].drop(columns="rank"))
    views = pd.read_parquet(result.folder.tables / "views.parquet").query("object == -1")
    ap = views.pivot(index=["arm", "scene", "view"], columns="scorer", values="ap")
    np.testing.assert_allclose(ap["analytic"], ap["graspnetapi"], rtol=1e-12)
