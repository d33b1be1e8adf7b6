"""``grasp-utility view``: which layers a view has, that a saved file holds them, and what is said of wrong input."""

from __future__ import annotations

import base64
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from grasping.grasps import Grasps
from grasping.transforms import transform_points
from pipeline.artifacts import ArtifactError, Stamp, write_json, write_stamp
from pipeline.cloud_files import OK, ObjectClouds, Observation, save_clouds, save_observation
from pipeline.config import load_experiment
from pipeline.datasets.graspnet import GraspNetDataset
from pipeline.report.style import OUTCOMES, rgb
from pipeline.run_folder import STAMP, RunFolder, unit_folder, view_file
from pipeline.view import LineLayer, PointLayer, ViewLayers, ViewRequest, collect

SCENE, VIEW = 100, 64
ARMS: list[Any] = ["partial", {"name": "net", "checkpoint": "pcn-cd"}, "oracle"]
OUTCOME_OF = [("success", 0.2), ("success", 0.7), ("collides", np.inf), ("empty", np.inf), ("collides", np.inf)]
CLOUD = {"partial": 30, "net": 50, "oracle": 70, "net@1": 40}


def write_run(home: Path, world: Any, arms: list[Any], folders: list[str]) -> RunFolder:
    """A run of one view of the two boxes: clouds of so many points an object, five grasps of which four are kept."""
    raw = {"format_version": 1, "name": "tiny", "dataset": {"root": str(world.root)}, "arms": arms}
    home.mkdir(parents=True, exist_ok=True)
    (home / "tiny.yaml").write_text(yaml.safe_dump(raw | {"cache": str(home / "cache")}))
    experiment = load_experiment(home / "tiny.yaml")
    run = RunFolder(home / "run")
    write_json(run.root / "experiment.json", experiment.model_dump(mode="json"))
    rng = np.random.default_rng(0)
    ids = np.array(sorted(world.extents), np.int64)
    place = (SCENE, "realsense")

    def clouds(count: int) -> ObjectClouds:
        return ObjectClouds(ids, tuple(rng.normal(0, 0.05, (count, 3)).astype(np.float32) for _ in ids), (OK,) * 2)

    background = rng.normal(0, 0.3, (200, 3)).astype(np.float32)
    observation = Observation(clouds(30), background, world.T_table_camera[VIEW])
    save_observation(view_file(unit_folder(run.observations, *place), VIEW, ".npz"), observation)
    for name in folders:
        save_clouds(view_file(unit_folder(run.clouds(name), *place), VIEW, ".npz"), clouds(CLOUD[name]))
        dump = unit_folder(run.dump(name, "antipodal"), *place)
        scores = unit_folder(run.scores(name, "antipodal", "analytic"), *place)
        dump.mkdir(parents=True)
        scores.mkdir(parents=True)
        np.save(view_file(dump, VIEW, ".npy"), grasps().to_array())
        made = Stamp({"stage": "generate", "arm": name}, [], 1.0)
        write_stamp(dump / STAMP, made)
        rows().to_parquet(scores / "grasps.parquet", index=False)
        write_stamp(scores / STAMP, Stamp({"stage": "score", "dump": made.fingerprint}, [], 1.0))
    return run


def grasps() -> Grasps:
    return Grasps(
        confidence=np.linspace(0.9, 0.5, 5),
        width=np.full(5, 0.2),
        height=np.full(5, 0.02),
        depth=np.full(5, 0.02),
        rotation=np.tile(np.eye(3), (5, 1, 1)),
        translation=np.arange(15.0).reshape(5, 3) / 100,
        object_id=np.full(5, 3),
    )


def rows() -> pd.DataFrame:
    """The third row of the dump is the most confident one here, and the last one is cut."""
    reason, friction = zip(*OUTCOME_OF, strict=True)
    order = np.array([2, 0, 1, 3, 4])
    table = pd.DataFrame({"row": order, "rank": range(5), "width": 0.1, "kept": np.arange(5) < 4, "view": VIEW})
    return table.assign(reason=np.array(reason)[order], min_friction=np.array(friction)[order])


@pytest.fixture
def run(box_world, tmp_path: Path) -> RunFolder:
    return write_run(tmp_path, box_world, ARMS, ["partial", "net", "oracle"])


def by_name(layers: ViewLayers) -> dict[str, PointLayer | LineLayer]:
    return {layer.name: layer for layer in layers.layers}


def points_of(layers: ViewLayers, name: str) -> np.ndarray:
    layer = by_name(layers)[name]
    assert isinstance(layer, PointLayer)
    return layer.points


def test_layers_are_what_the_run_holds_in_the_table_frame(run: RunFolder, box_world) -> None:
    layers = collect(ViewRequest(run.root, SCENE, VIEW))
    assert layers.arms == ("partial", "net", "oracle") and layers.notes == ()
    expected = {"scene/background": 200, "scene/observed": 60, "scene/truth": 140}
    expected |= {"arms/net/completed": 100, "arms/oracle/completed": 140}  # what partial completes is what was observed
    points = {layer.name: len(layer.points) for layer in layers.layers if isinstance(layer, PointLayer)}
    assert points == expected
    T = box_world.T_table_camera[VIEW]
    stored = np.load(view_file(unit_folder(run.clouds("net"), SCENE, "realsense"), VIEW, ".npz"))["points"]
    np.testing.assert_allclose(points_of(layers, "arms/net/completed"), transform_points(T, stored), atol=1e-6)
    np.testing.assert_array_equal(points_of(layers, "scene/truth"), points_of(layers, "arms/oracle/completed"))
    np.testing.assert_allclose(layers.eye, T[:3, 3])


def test_kept_grasps_have_the_colour_of_their_outcome(run: RunFolder, box_world) -> None:
    layers = collect(ViewRequest(run.root, SCENE, VIEW, arms=("net",)))
    lines = [layer for layer in layers.layers if isinstance(layer, LineLayer)]
    titles = {key: (title, rgb(light)) for key, title, light, _ in OUTCOMES}
    kinds = ("success_0.4", "success_0.8", "empty", "collides")  # each once: the fifth grasp was cut
    assert [(line.name, line.colour) for line in lines] == [
        (f"arms/net/grasps/{titles[kind][0]} (1)", titles[kind][1]) for kind in kinds
    ]
    colliding = transform_points(np.linalg.inv(box_world.T_table_camera[VIEW]), lines[-1].lines[0])
    palm = colliding[2]  # the stroke between the fingers
    # Row 2 of the dump, as wide as it was graded.
    np.testing.assert_allclose(palm.mean(axis=0)[1:], grasps().translation[2][1:], atol=1e-6)
    assert np.linalg.norm(palm[1] - palm[0]) == pytest.approx(0.1, abs=1e-6)


def test_the_first_arm_that_completes_is_seen_at_first(run: RunFolder) -> None:
    layers = collect(ViewRequest(run.root, SCENE, VIEW))
    shown = {layer.name.split("/")[1] for layer in layers.layers if layer.shown}
    assert shown == {"background", "observed", "net"}
    alone = collect(ViewRequest(run.root, SCENE, VIEW, arms=("oracle",)))
    assert {layer.name.split("/")[1] for layer in alone.layers if layer.shown} == {"background", "observed", "oracle"}


def test_without_an_oracle_the_truth_comes_from_the_dataset_or_is_missed_aloud(box_world, tmp_path: Path) -> None:
    run = write_run(tmp_path, box_world, ARMS[:2], ["partial", "net"])
    truth = points_of(collect(ViewRequest(run.root, SCENE, VIEW)), "scene/truth")
    # Each point lies on a box: as far out as its half edge along the axis that it is farthest out along.
    distance = np.full(len(truth), np.inf)
    for number, edges in box_world.extents.items():
        pose = GraspNetDataset(box_world.root, "realsense").object_poses(SCENE, VIEW, [number])[0]
        local = transform_points(np.linalg.inv(box_world.T_table_camera[VIEW] @ pose), truth)
        distance = np.minimum(distance, np.abs(np.max(np.abs(local) - edges / 2, axis=1)))
    # A voxel's mean leaves the surface at an edge only, and the poses have four digits.
    assert len(truth) > 500 and np.median(distance) < 0.0005 and distance.max() < 0.003
    (box_world.root / "models").rename(box_world.root / "away")
    (tmp_path / "cache").rename(tmp_path / "elsewhere")
    layers = collect(ViewRequest(run.root, SCENE, VIEW))
    assert "scene/truth" not in by_name(layers)
    assert len(layers.notes) == 1 and layers.notes[0].startswith("No truth: ")


def test_any_folder_below_arms_is_an_arm(box_world, tmp_path: Path) -> None:
    run = write_run(tmp_path, box_world, ["partial", "oracle"], ["partial", "oracle", "net@1"])
    assert collect(ViewRequest(run.root, SCENE, VIEW)).arms == ("partial", "oracle")
    layers = collect(ViewRequest(run.root, SCENE, VIEW, arms=("net@1",)))
    assert layers.arms == ("net@1",) and len(points_of(layers, "arms/net@1/completed")) == 80


def test_grasps_of_another_dump_are_left_out_and_said(run: RunFolder) -> None:
    write_stamp(unit_folder(run.dump("net", "antipodal"), SCENE, "realsense") / STAMP, Stamp({"other": 1}, [], 1.0))
    (unit_folder(run.scores("partial", "antipodal", "analytic"), SCENE, "realsense") / STAMP).unlink()
    layers = collect(ViewRequest(run.root, SCENE, VIEW))
    assert {layer.name.split("/")[1] for layer in layers.layers if isinstance(layer, LineLayer)} == {"oracle"}
    assert [note.split(":")[0] for note in layers.notes] == ["partial", "net"]
    assert "not scored; run `score`" in layers.notes[0] and "another dump" in layers.notes[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scene": 5}, "has no scene 5 of realsense; it has 100"),
        ({"view": 3}, "has no view 3 of scene 100; it has 64"),
        ({"camera": "kinect"}, "has no camera 'kinect'; it has realsense"),
        ({"arms": ("net", "nix")}, "has no arm 'nix' with clouds; it has net, oracle, partial"),
        ({"generator": "gpd"}, "has no generator 'gpd'; it has antipodal"),
        ({"run": Path("nowhere")}, "nowhere: no run folder"),
    ],
)
def test_what_is_not_there_is_named_beside_what_is(run: RunFolder, change: dict[str, Any], said: str) -> None:
    request: dict[str, Any] = {"run": run.root, "scene": SCENE, "view": VIEW, **change}
    with pytest.raises(ArtifactError) as caught:
        collect(ViewRequest(**request))
    assert said in str(caught.value)


# ------------------------------------------------------------------------------------------------- with the viewer


def command(run: RunFolder, *more: str) -> list[str]:
    asked = [sys.executable, "-m", "pipeline.cli", "view", str(run.root), "--scene", str(SCENE), "--view", str(VIEW)]
    return [*asked, *more]


def nodes(recording: bytes) -> dict[str, dict[str, Any]]:
    """Read viser's recording back: every node by name, its points as an array."""
    msgspec, zstandard = pytest.importorskip("msgspec"), pytest.importorskip("zstandard")
    inner = zstandard.ZstdDecompressor().decompressobj().decompress(recording[8:])
    size = int.from_bytes(inner[:8], "little")
    content = msgspec.msgpack.decode(inner[8 : 8 + size])
    messages = [message for _, message in content["messages"]]
    arrays, at = [], 8 + size
    for length in content["binaryBufferLengths"]:
        at += -at % 8  # each is aligned
        arrays.append(inner[at : at + length])
        at += length
    found = {message["name"]: dict(message) for message in messages if "props" in message}
    for node in found.values():
        if "points" in node["props"]:
            where = node["props"]["points"]
            node["points"] = np.frombuffer(arrays[where["__binary_index"]], where["dtype"])
    for message in messages:
        if message["type"] == "SetSceneNodeVisibilityMessage":
            found[message["name"]]["visible"] = message["visible"]
    return found


def test_a_saved_file_holds_the_layers(run: RunFolder, tmp_path: Path) -> None:
    pytest.importorskip("viser")
    from pipeline.viewer import ViewerError, save

    layers = collect(ViewRequest(run.root, SCENE, VIEW))
    save(layers, tmp_path / "view.viser")
    save(layers, tmp_path / "view.html")
    page = (tmp_path / "view.html").read_text(encoding="utf-8")
    (embedded,) = re.findall(r'__VISER_EMBED_DATA__="([^"]+)"', page)
    for recording in ((tmp_path / "view.viser").read_bytes(), base64.b64decode(embedded)):
        found = nodes(recording)
        for layer in layers.layers:
            node = found[f"/{layer.name}"]
            assert node["visible"] == layer.shown
            kind, points = "PointCloudMessage", getattr(layer, "points", None)
            if isinstance(layer, LineLayer):
                kind, points = "LineSegmentsMessage", layer.lines
            assert node["type"] == kind and points is not None
            np.testing.assert_array_equal(node["points"], points.ravel())
        assert {"/scene", "/arms", "/arms/net", "/arms/net/grasps"} <= set(found)  # what one toggles as a whole
    # The page says what its colours mean, and fetches nothing.
    assert "holds at µ ≤ 0.4" in page and "tiny: scene 100, view 64, realsense" in page
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)
    with pytest.raises(ViewerError, match=r"view\.rrd: unknown ending; .* \*\.html or \*\.viser"):
        save(layers, tmp_path / "view.rrd")


def test_ticking_a_box_shows_or_hides_its_layers(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    viser = pytest.importorskip("viser")
    from pipeline import viewer

    made: dict[str, list[Any]] = {"folder": [], "checkbox": []}
    for kind, kept in made.items():
        plain = getattr(viser.GuiApi, f"add_{kind}")

        def add(api: Any, label: str, *more: Any, plain: Any = plain, kept: list[Any] = kept, **named: Any) -> Any:
            kept.append(plain(api, label, *more, **named))
            return kept[-1]

        monkeypatch.setattr(viser.GuiApi, f"add_{kind}", add)
    layers = collect(ViewRequest(run.root, SCENE, VIEW))
    with viewer._server(viser, 0) as server:
        viewer._draw(server, layers)
        viewer._panel(server, layers)
        assert [folder.label for folder in made["folder"]] == ["scene", "partial", "net", "oracle"]
        ticked = {"background": True, "observed": True, "truth": False}
        assert {box.label: box.value for box in made["checkbox"][:3]} == ticked
        grasps_of_partial = made["checkbox"][3]
        grasps_of_partial.value = True
        nodes = [layer.name for layer in layers.layers if layer.name.startswith("arms/partial/grasps/")]
        assert len(nodes) == 4
        for name in nodes:
            node = server.scene.get_handle_by_name(f"/{name}")
            wait_until(lambda node=node: node.visible)


def wait_until(true: Callable[[], bool]) -> None:
    for _ in range(100):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("it did not become true in five seconds")


def test_the_command_serves_until_it_is_interrupted(run: RunFolder) -> None:
    pytest.importorskip("viser")
    with subprocess.Popen(
        command(run, "--port", "0", "--no-browser"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "view       tiny: scene 100, view 64, realsense, grasps of antipodal\n"
        address = process.stdout.readline().split()[1].rstrip(";")
        with urllib.request.urlopen(address, timeout=20) as answer:
            assert b"viser" in answer.read().lower()
        process.send_signal(signal.SIGINT)
        assert process.stdout.read().strip() == "viewer     closed"
        assert process.wait(20) == 0 and process.stderr.read() == ""


def test_without_the_extra_one_line_names_it(run: RunFolder, tmp_path: Path) -> None:
    code = "import sys; sys.modules['viser'] = None; from pipeline.cli import main; main()"
    asked = command(run, "--save", str(tmp_path / "x.html"))[3:]
    done = subprocess.run([sys.executable, "-c", code, *asked], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip() == "grasp-utility: the viewer needs viser: pip install -e '.[viewer]'"
