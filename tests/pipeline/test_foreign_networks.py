"""Arms whose checkpoints were made elsewhere: trust, what their clouds depend on, and what is said of their input."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from completion import checkpoint
from pipeline import arm_completion
from pipeline.arms import Arm
from pipeline.cli import app
from pipeline.config import ConfigError, load_experiment
from pipeline.experiment import run_experiment
from pipeline.frames import network_frame, viewing_frame

NETWORK = """
from torch import nn


class Same(nn.Module):
    output_points = 64

    def forward(self, points):
        return points
"""
CONFIG = {
    "network": {"name": "my_nets_for_a_run:Same", "parameters": {}},
    "input_points": 64,
    "output_points": 64,
    "unit": "m",
    "normalisation": "partial",
    "frame": "table",
    "merge": "append",
    "loss": {"name": "unknown", "parameters": {}},
}


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "my_nets_for_a_run.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(str(folder))
    yield folder / "my_nets_for_a_run.py"
    sys.modules.pop("my_nets_for_a_run", None)


@pytest.fixture
def experiment(tmp_path: Path, tiny_dataset: Path, tiny_cache: Path) -> Path:
    checkpoint.save(tmp_path / "mine", nn.Module(), CONFIG, "card")
    path = tmp_path / "experiment.yaml"
    arms = ["partial", {"name": "mine", "checkpoint": str(tmp_path / "mine")}]
    content = {"format_version": 1, "name": "x", "dataset": {"root": str(tiny_dataset)}, "arms": arms}
    path.write_text(json.dumps({**content, "cache": str(tiny_cache)}))
    return path


def test_code_runs_in_a_run_only_when_it_is_trusted(tmp_path: Path, module: Path, experiment: Path) -> None:
    def run(trust_code: bool = True):
        result = run_experiment(
            load_experiment(experiment),
            tmp_path / "run",
            device="cpu",
            workers=0,
            stages=("observe", "complete"),
            say=lambda _: None,
            trust_code=trust_code,
            source=experiment,
        )
        return result.stages[1], result.problems

    with pytest.raises(ConfigError, match=r"experiment\.yaml: arm 'mine': .*--trust-code"):
        run(trust_code=False)
    assert "my_nets_for_a_run" not in sys.modules
    made, problems = run()
    assert made.made == 4 and problems == ()
    assert run()[0].made == 0
    module.write_text(NETWORK.replace("return points", "return 2 * points"))
    sys.modules.pop("my_nets_for_a_run")
    assert set(run()[0].stale.values()) == {"changed: network"}
    stamp = json.loads(next((tmp_path / "run" / "arms" / "mine").rglob("stamp.json")).read_text())
    assert stamp["made_from"]["network"]["object"] == "my_nets_for_a_run:Same"


def test_an_experiment_file_cannot_trust_code(tmp_path: Path, experiment: Path) -> None:
    content = json.loads(experiment.read_text())
    for changed in ({**content, "trust_code": True}, {**content, "arms": [{**content["arms"][1], "trust_code": True}]}):
        experiment.write_text(json.dumps(changed))
        with pytest.raises(ConfigError, match="unknown key"):
            load_experiment(experiment)


def test_an_unknown_arm_names_the_file(tmp_path: Path, experiment: Path) -> None:
    experiment.write_text(experiment.read_text().replace(str(tmp_path / "mine"), "pcn-xyz"))
    done = CliRunner().invoke(app, ["complete", str(experiment), "--out", str(tmp_path / "run")])
    assert isinstance(done.exception, ConfigError)
    assert str(experiment) in str(done.exception) and "arm 'mine': pcn-xyz" in str(done.exception)
    assert "pcn-qal" in str(done.exception)


def test_own_networks_leave_no_new_trace_in_fingerprints(tiny_checkpoint: Path) -> None:
    made_from, _ = arm_completion.describe_arm(Arm(name="a", checkpoint=str(tiny_checkpoint)), "cpu")
    assert set(made_from) == {"completion", "merge", "weights", "checkpoint"}


def test_what_an_observation_cannot_give_is_said(tmp_path: Path) -> None:
    folder = checkpoint.save(
        tmp_path / "theirs", nn.Module(), {**CONFIG, "frame": "canonical", "trained_normalisation": "oracle"}, "card"
    )
    first, second = arm_completion.caveats(Arm(name="theirs", checkpoint=str(folder)))
    assert "canonical orientation" in first and "complete shape" in second
    assert arm_completion.caveats(Arm(name="pcn-cd", checkpoint="pcn-cd")) == []
    assert arm_completion.caveats(Arm(name="gone", checkpoint=str(tmp_path / "gone"))) == []
    checkpoint.save(tmp_path / "leak", nn.Module(), {**CONFIG, "normalisation": "oracle-radius"}, "card")
    with pytest.raises(checkpoint.CheckpointError, match="write 'partial-radius'"):
        arm_completion.describe_arm(Arm(name="leak", checkpoint=str(tmp_path / "leak")), "cpu")


def test_the_canonical_frame_stands_upright_and_shows_its_front() -> None:
    T = np.eye(4)
    T[:3, :3] = np.array([[0, -0.6, 0.8], [-1, 0, 0], [0, -0.8, -0.6]])  # looks along x and down
    T[2, 3] = 0.5
    R = network_frame("canonical", T)
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(R) == pytest.approx(1.0)
    np.testing.assert_allclose(R @ T[2, :3], [0, 1, 0], atol=1e-12)  # the table's normal is y
    away = T[:3, :3].T @ [1.0, 0, 0]  # horizontally away from the camera is z: the front, -z, faces it
    np.testing.assert_allclose(R @ away, [0, 0, 1], atol=1e-12)
    np.testing.assert_array_equal(network_frame("table", T), viewing_frame(T))
    np.testing.assert_array_equal(network_frame("camera", T), np.eye(3))
    with pytest.raises(ValueError, match="unknown frame 'tabel'"):
        network_frame("tabel", T)


def test_the_commands_import_and_inspect_a_file(tmp_path: Path) -> None:
    state = checkpoint.load("pcn-cd", "cpu").network.state_dict()
    theirs = {}
    for name, value in state.items():
        convolution = "conv" in name and name.endswith("weight")
        if name.startswith("decoder.fc3"):  # MVP's last layer gives all x, then all y, then all z
            value = value.unflatten(0, (-1, 3)).transpose(0, 1).flatten(0, 1)
        theirs[f"module.{name}"] = value[..., None] if convolution else value
    torch.save({"net_state_dict": theirs, "epoch": 3}, tmp_path / "theirs.pth")
    runner, ours = CliRunner(), checkpoint.load("pcn-cd", "cpu")
    seen = runner.invoke(app, ["checkpoint", "inspect", str(tmp_path / "theirs.pth")])
    assert seen.exit_code == 0 and "network pcn of family mvp" in seen.output and "epoch: 3" in seen.output
    line = ["checkpoint", "import", str(tmp_path / "theirs.pth"), "--family", "mvp", "--network", "pcn"]
    for key, value in ours.config["network"]["parameters"].items():
        line += ["--parameter", f"{key}={json.dumps(value)}"]
    points = str(ours.config["input_points"])
    done = runner.invoke(app, [*line, "--out", str(tmp_path / "ours"), "--frame", "table", "--input-points", points])
    assert done.exit_code == 0, (done.output, done.exception)
    assert "frame table, trained by normalisation oracle" in done.output and "note       the network" in done.output
    mine = checkpoint.load(tmp_path / "ours", "cpu")
    cloud = torch.rand(1, 200, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    with torch.no_grad():
        assert torch.equal(mine.network(cloud).fine, ours.network(cloud).fine)
    wrong = runner.invoke(app, [*line, "--out", str(tmp_path / "x"), "--parameter", "grid"])
    assert isinstance(wrong.exception, ValueError) and "KEY=VALUE" in str(wrong.exception)
    whole = runner.invoke(app, ["checkpoint", "inspect", str(tmp_path / "ours")])
    assert whole.exit_code == 0 and "trained_normalisation: oracle" in whole.output
