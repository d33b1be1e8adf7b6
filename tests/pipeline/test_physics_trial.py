"""``grasp-utility trial`` on two boxes: what the strip shows, and what is said where nothing can be drawn."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from grasping.grasps import Grasps
from pipeline.artifacts import ArtifactError, write_json
from pipeline.config import ConfigError
from pipeline.datasets.graspnet import GraspNetDataset
from pipeline.physics_pictures import Recording
from pipeline.physics_trial import FRAME, TrialRequest, carry_out
from pipeline.run_folder import unit_folder, view_file

DOWN = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])  # columns: approach -z, close along y, height x


@pytest.fixture
def request_of_boxes(box_world, tmp_path: Path) -> TrialRequest:
    """Box 7 grasped across its faces from above, and a grasp that closes above it."""
    rows = [[c, 0.08, 0.02, 0.02, *DOWN.reshape(-1), 0, 0, z, -1] for c, z in ((0.9, 0.025), (0.5, 0.09))]
    dataset = GraspNetDataset(box_world.root, "realsense")
    mesh = trimesh.creation.box(extents=box_world.extents[7])  # the protocol's points are a mesh's corners
    for _ in range(4):
        mesh = mesh.subdivide()
    mesh.export(dataset.model_dir(7) / "nontextured.ply")
    number = dataset.object_ids(box_world.scene).index(7)
    grasps = Grasps.from_array(rows).transformed(dataset.object_poses(box_world.scene, 64)[number])
    path = view_file(unit_folder(tmp_path / "dump", box_world.scene, "realsense"), 64, ".npy")
    path.parent.mkdir(parents=True)
    np.save(path, grasps.to_array())
    return TrialRequest(
        tmp_path / "dump",
        box_world.scene,
        64,
        0,
        tmp_path / "strip.png",
        dataset=box_world.root,
        cache=tmp_path / "cache",
    )


def command(request: TrialRequest) -> list[str]:
    asked = [sys.executable, "-m", "pipeline.cli", "trial", str(request.where), "--scene", str(request.scene)]
    asked += ["--view", str(request.view), "--rank", str(request.rank), "--out", str(request.out)]
    asked += ["--dataset", str(request.dataset), "--cache", str(request.cache)]
    asked += ["--isolation"] if request.isolation else []
    return asked + (["--gif", str(request.gif)] if request.gif is not None else [])


def drawn(request: TrialRequest) -> tuple[str, list[np.ndarray]]:
    """Carry out and return the caption and the strip's frames, or skip where nothing renders."""
    # A process of its own: mujoco chooses its renderer when it is imported, and other tests have done that.
    environment = {**os.environ, "MUJOCO_GL": "egl"}
    done = subprocess.run(command(request), capture_output=True, text=True, env=environment, check=False)
    if "no renderer for MuJoCo here" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    strip = np.asarray(Image.open(request.out).convert("RGB")).astype(int)
    count = round((strip.shape[1] + 6) / (FRAME[0] + 6))
    frames = [strip[: FRAME[1], i * (FRAME[0] + 6) :][:, : FRAME[0]] for i in range(count)]
    return done.stdout.splitlines()[0], frames


def middle(mask: np.ndarray) -> np.ndarray:
    assert mask.sum() > 200
    return np.argwhere(mask).mean(axis=0)


def orange(frame: np.ndarray) -> np.ndarray:
    return (frame[..., 0] > frame[..., 2] + 60) & (frame[..., 0] > 100)


def dark(frame: np.ndarray) -> np.ndarray:
    below = np.arange(len(frame))[:, None] > 40  # not the frame's name
    return (frame.max(axis=2) < 80) & below


@pytest.mark.parametrize("isolation", [False, True])
def test_the_strip_shows_hand_and_object_going_up_together(request_of_boxes: TrialRequest, isolation: bool) -> None:
    gif = request_of_boxes.out.with_suffix(".gif")
    caption, frames = drawn(replace(request_of_boxes, isolation=isolation, gif=gif))
    assert "physics held" in caption and "protocol min_friction 0.2" in caption
    assert ("alone" if isolation else "in the scene") in caption
    assert len(frames) == 4
    approach, closed, lifted, shaken = frames
    # The hand comes down to the object, which has not moved; then both are higher, as far apart as they were.
    assert middle(dark(approach))[0] < middle(dark(closed))[0] - 30
    np.testing.assert_allclose(middle(orange(approach)), middle(orange(closed)), atol=12)
    apart = middle(orange(closed)) - middle(dark(closed))
    for frame in (lifted, shaken):
        assert middle(orange(frame))[0] < middle(orange(closed))[0] - 60
        np.testing.assert_allclose(middle(orange(frame)) - middle(dark(frame)), apart, atol=25)
    with Image.open(gif) as moving:
        assert moving.n_frames > 20


def test_a_grasp_of_nothing_ends_early(request_of_boxes: TrialRequest) -> None:
    caption, frames = drawn(replace(request_of_boxes, rank=1))
    assert "physics no_contact" in caption and "protocol empty" in caption and len(frames) == 2


@pytest.mark.parametrize(
    ("phases", "names"),
    [
        (["approach"] * 3 + ["close"] * 2 + ["lift"] * 4 + ["shake"] * 2 + ["hold"], "approach closed lifted shaken"),
        (["approach"] * 3, "approach,at the grasp"),
        (["approach", "close", "close"], "approach closed"),
        (["approach", "close", "lift", "lift"], "approach closed lifted"),
        (["approach", "close", "lift", "shake", "shake"], "approach,closed,lifted,the end"),
        ([], ""),
    ],
)
def test_moments_are_the_last_looks_of_what_it_lived_to_see(phases: list[str], names: str) -> None:
    recording = Recording(None, phases, [np.zeros(1)] * len(phases))
    expected = names.split(",") if "," in names else names.split()
    moments = recording.moments()
    assert [name for name, _ in moments] == expected
    assert all(0 <= index < len(phases) for _, index in moments)
    assert not moments or (moments[0][1], moments[-1][1]) == (0, len(phases) - 1)


def test_what_is_not_there_is_named(request_of_boxes: TrialRequest, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="has 2 grasps after suppression; choose a --rank"):
        carry_out(replace(request_of_boxes, rank=7))
    with pytest.raises(ConfigError, match="give its --dataset"):
        carry_out(replace(request_of_boxes, dataset=None))
    with pytest.raises(ValueError, match=r"0065\.npy: no such grasp file"):
        carry_out(replace(request_of_boxes, view=65))
    run = tmp_path / "run"
    run.mkdir()
    experiment = {"format_version": 1, "name": "x", "dataset": {"root": "elsewhere"}, "arms": ["partial"]}
    write_json(run / "experiment.json", experiment)
    with pytest.raises(ConfigError, match=r"has no arm 'oracel'; it has partial"):
        carry_out(replace(request_of_boxes, where=run, arm="oracel"))
    for where in (run, run / "experiment.json"):
        missing = re.escape(str(run / "arms" / "partial" / "dump" / "antipodal" / "scene_0100"))
        with pytest.raises(ValueError, match=rf"{missing}.*no such grasp file"):
            carry_out(replace(request_of_boxes, where=where))
    (tmp_path / "mine.yaml").write_bytes((run / "experiment.json").read_bytes())
    with pytest.raises(ValueError, match=r"^runs/x/arms/partial/.*no such grasp file"):
        carry_out(replace(request_of_boxes, where=tmp_path / "mine.yaml"))
    assert not request_of_boxes.out.exists()


def test_the_command_says_in_one_line_that_nothing_renders(request_of_boxes: TrialRequest) -> None:
    environment = {**os.environ, "MUJOCO_GL": "nonsense"}
    asked = command(request_of_boxes)
    done = subprocess.run(asked, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "no renderer for MuJoCo here" in done.stderr and "MUJOCO_GL=egl" in done.stderr
