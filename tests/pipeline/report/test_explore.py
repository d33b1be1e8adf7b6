"""The data of the panel in 3-D: nothing is lost in packing, and no text breaks out of the page."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.cloud_files import load_clouds, load_observation
from pipeline.report import choice, explore, inputs, page, style, views

SETTING = inputs.Setting("antipodal", "analytic", "realsense")


@pytest.fixture(scope="module")
def data(plain_run) -> inputs.RunData:
    return inputs.read(plain_run.experiment, plain_run.folder)


def shown(data: inputs.RunData) -> list[views.View]:
    return views.load(data, SETTING, choice.choose(data, SETTING)[0])


def test_points_survive_packing_to_half_a_step() -> None:
    points = np.random.default_rng(0).uniform(-3.2, 3.2, (1000, 3))
    assert np.abs(explore.unpack(explore.pack(points)) - points).max() <= explore.STEP / 2 + 1e-12
    assert explore.unpack(explore.pack(np.zeros((0, 3)))).shape == (0, 3)
    assert len(explore.pack(points)) == 8 * len(points)


def test_the_panel_holds_the_files_of_the_run(data: inputs.RunData) -> None:
    seen = shown(data)
    panel = explore.panel(data, SETTING, seen)
    content = json.loads(panel.data)
    assert panel.sides == ("pcn-cd", "pcn-qal") and panel.counts == (5, 15, 25) and not panel.notes
    assert len(content["scenes"]) == 3
    grasps = pd.read_parquet(data.folder.tables / "grasps.parquet")
    for view, scene in zip(seen, content["scenes"], strict=True):
        unit = f"scene_{view.choice.scene:04d}/realsense/{view.choice.view:04d}.npz"
        observation = load_observation(data.folder.observations / unit)
        observed = explore.unpack(scene["observed"], scene["step"])
        assert len(observed) == len(observation.objects.points)
        assert np.allclose(observed.min(axis=0), -observed.max(axis=0), atol=2e-4)  # about the scene's middle
        assert np.abs(observed).max() < scene["half"]
        assert [arm["name"] for arm in scene["arms"]] == data.arms
        completed = {arm["name"]: arm["completed"] for arm in scene["arms"]}
        assert completed["partial"] is None and completed["oracle"] == "truth"
        true = load_clouds(data.folder.clouds("oracle") / unit).points
        assert len(explore.unpack(scene["truth"], scene["step"])) == len(true)
        for arm in scene["arms"]:
            own = grasps[
                (grasps["arm"] == arm["name"])
                & (grasps["scene"] == view.choice.scene)
                & (grasps["view"] == view.choice.view)
                & grasps["kept"]
            ].sort_values("rank")
            assert arm["rank"] == [rank + 1 for rank in own["rank"]]
            assert arm["friction"] == [None if np.isinf(value) else value for value in own["min_friction"]]
            assert set(arm["outcomes"]) <= {key for key, *_ in style.OUTCOMES}
            strokes = explore.unpack(arm["strokes"], scene["step"]).reshape(-1, 4, 2, 3)
            widths = np.linalg.norm(strokes[:, 2, 0] - strokes[:, 2, 1], axis=1)
            assert np.allclose(widths, own["width"], atol=3e-4)


def test_the_start_camera_stands_where_the_real_one_stood(data: inputs.RunData) -> None:
    seen = shown(data)
    for view, scene in zip(seen, json.loads(explore.panel(data, SETTING, seen).data)["scenes"], strict=True):
        middle = (view.observed.min(axis=0) + view.observed.max(axis=0)) / 2
        away = view.T_table_camera[:3, 3] - middle
        cosine = np.dot(away, scene["eye"]) / np.linalg.norm(away) / np.linalg.norm(scene["eye"])
        assert cosine == pytest.approx(1.0)


def test_large_clouds_are_thinned_and_the_page_says_so(data: inputs.RunData, monkeypatch) -> None:
    monkeypatch.setattr(explore, "MOST_BYTES", 40_000)
    panel = explore.panel(data, SETTING, shown(data))
    assert "thinned here to one point a voxel of" in panel.notes[0]
    scenes = json.loads(panel.data)["scenes"]
    packed = [scene[name] for scene in scenes for name in ("observed", "truth")]
    packed += [arm["completed"] for scene in scenes for arm in scene["arms"] if arm["completed"] not in (None, "truth")]
    assert sum(map(len, packed)) <= 40_000


def test_without_dataset_and_oracle_there_is_no_truth(data: inputs.RunData, tmp_path: Path) -> None:
    arms = tuple(arm for arm in data.experiment.arms if arm.completion != "truth")
    dataset = data.experiment.dataset.model_copy(update={"root": tmp_path})
    experiment = data.experiment.model_copy(update={"arms": arms, "dataset": dataset})
    utility = data.utility[data.utility["arm"] != "oracle"]
    less = replace(data, experiment=experiment, utility=utility)
    panel = explore.panel(less, SETTING, shown(less))
    assert "true surface is left out" in panel.notes[0]
    assert "truth" not in [key.trace for key in panel.keys]


def test_no_text_ends_the_script_it_stands_in() -> None:
    wild = "</script><!--<script>alert(1)</script>&\u2028"
    text = explore.script_json({"name": wild})
    assert "<" not in text and json.loads(text) == {"name": wild}


def test_the_library_stands_in_a_script_unharmed() -> None:
    text = explore.library()
    assert "</script" not in text.lower() and "<!--" not in text and "\r" not in text
    assert len(text) > 1e6 and "scatter3d" in text and "MIT" in text[:300]


def test_names_from_files_are_text_everywhere(make_run, recipe, tmp_path: Path) -> None:
    made = make_run(tmp_path, recipe(arms=["partial", "oracle"], scenes={"test_seen": [100]}, views=(0,)))
    data = inputs.read(made.experiment, made.folder)
    wild = "</script><img src=x onerror=alert(1)>"
    named = replace(data, object_names={"3": wild, "7": wild, "11": wild})
    text = page.render(named)
    assert "<img src=x" not in text and "</script><img" not in text
    assert wild in html.unescape(text)
    held = re.search(r'id="explore-data">(.*?)</script>', text, re.S)
    assert held and wild in json.dumps(json.loads(held.group(1)))
