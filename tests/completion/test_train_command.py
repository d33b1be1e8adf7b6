"""``grasp-utility train`` and ``train-grid``: every network and every loss trains through the real command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from completion.checkpoint import load
from completion.losses import DECLARED, LOSSES
from completion.networks import NETWORKS
from completion.training_log import read_log
from pipeline.cli import app


def training_file(folder: Path, keys: dict) -> Path:
    path = folder / "training.yaml"
    path.write_text(json.dumps(keys))  # JSON is YAML
    return path


def started(*arguments: str) -> subprocess.Popen:
    """The real command in a process that Ctrl-C reaches, also from a shell's background."""
    start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    return subprocess.Popen(
        [sys.executable, "-c", f"{start}from pipeline.cli import main; main()", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
    )


def three_steps(network: str, loss: str, keys: dict) -> dict:
    tiny = NETWORKS[network](**NETWORKS[network].tiny)  # type: ignore[attr-defined]
    equal = loss in DECLARED and DECLARED[loss].equal_sizes
    return {
        **keys,
        "network": {"name": network, "parameters": json.loads(json.dumps(NETWORKS[network].tiny))},  # type: ignore[attr-defined]
        "loss": {"name": loss},
        "coarse_loss": "cd_l1" if equal else "same",
        "target_points": tiny.output_points if equal else 96,
        "input_points": 96,
        "steps": 3,
        "log_every": 1,
    }


def trains(folder: Path, keys: dict) -> None:
    out = folder / "out"
    result = CliRunner().invoke(app, ["train", str(training_file(folder, keys)), "--out", str(out), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"checkpoint {out}\n"
    assert [row["step"] for row in read_log(out / "log.csv")] == [1, 2, 3]
    assert load(out, "cpu").config["loss"]["name"] == keys["loss"]["name"]


@pytest.mark.parametrize("network", NETWORKS)
def test_each_network_trains_with_one_loss(write_pairs, training_keys, tmp_path, network: str) -> None:
    trains(tmp_path, three_steps(network, "qal", training_keys(write_pairs())))


@pytest.mark.parametrize("loss", LOSSES)
def test_each_loss_trains_one_network(write_pairs, training_keys, tmp_path, loss: str) -> None:
    trains(tmp_path, three_steps("pcn", loss, training_keys(write_pairs())))


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_trains_with_every_loss(write_pairs, training_keys, tmp_path, network: str) -> None:
    pairs = write_pairs()
    for loss in LOSSES:
        (tmp_path / loss).mkdir()
        trains(tmp_path / loss, three_steps(network, loss, training_keys(pairs)))


def test_a_grid_prints_its_table(write_pairs, training_keys, tmp_path) -> None:
    grid = {
        "base": training_keys(write_pairs(), steps=2),
        "vary": {"loss": ["cd_l1", "qal"]},
        "evaluate": ["nowhere.npz"],
    }
    path = tmp_path / "grid.yaml"
    path.write_text(json.dumps(grid))
    held = write_pairs("held.npz", seed=3, objects=1, views=2)
    arguments = ["train-grid", str(path), "--out", str(tmp_path / "out"), "--evaluate", str(held), "--device", "cpu"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "coverage" in result.output and "spurious" in result.output and "summary.md" in result.output
    assert "CD-L1 mm" in result.output  # the last column: nothing is cut off where there is no terminal
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 0 and "finished   2 of 2 runs already" in again.output
    refused = CliRunner().invoke(app, arguments[:4])
    assert refused.exit_code == 1 and "nowhere.npz: cannot be read" in str(refused.exception)


def test_code_from_outside_needs_trust(write_pairs, training_keys, tmp_path, monkeypatch) -> None:
    module = (
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, width=4):\n"
        "        super().__init__()\n"
        "        self.layer = torch.nn.Linear(3, 3)\n"
        "    def forward(self, partial):\n"
        "        return self.layer(partial[:, :32])\n"
    )
    (tmp_path / "foreign_net.py").write_text(module)
    monkeypatch.syspath_prepend(str(tmp_path))
    network = {"name": "foreign_net:Net", "parameters": {"width": 8}}
    path = training_file(tmp_path, training_keys(write_pairs(), network=network, steps=2))
    arguments = ["train", str(path), "--out", str(tmp_path / "out"), "--device", "cpu"]
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 1 and "--trust-code" in str(refused.exception)
    trusted = CliRunner().invoke(app, [*arguments, "--trust-code"])
    assert trusted.exit_code == 0, trusted.output
    assert load(tmp_path / "out", "cpu", trust_code=True).network.output_points == 32


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_every_job_of_a_grid_and_keeps_its_step(
    write_pairs, training_keys, tmp_path, number: int, status: int
) -> None:
    base = training_keys(write_pairs(), steps=100000, checkpoint_every=100000, log_every=1)
    grid = {"base": base, "vary": {"seed": [0, 1, 2]}, "evaluate": [str(tmp_path / "pairs.npz")], "jobs": 2}
    (tmp_path / "grid.yaml").write_text(json.dumps(grid))
    out = tmp_path / "out"
    process = started("train-grid", str(tmp_path / "grid.yaml"), "--out", str(out), "--device", "cpu")
    deadline = time.monotonic() + 90
    while not all(len(read_log(out / name / "log.csv")) > 2 for name in ("base-seed0", "base-seed1")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)  # to the parent alone, as `kill` does
    process.communicate(timeout=60)  # until no process holds stderr any more, so the jobs have ended too
    assert process.returncode == status
    assert all((out / name / "training.pt").exists() for name in ("base-seed0", "base-seed1"))
    assert not (out / "base-seed2").exists()


@pytest.mark.slow  # what train itself does at Ctrl-C is test_train_interrupted's
def test_ctrl_c_ends_with_130_and_the_same_command_goes_on(write_pairs, training_keys, tmp_path) -> None:
    keys = training_keys(write_pairs(), steps=100000, checkpoint_every=100000, log_every=1)
    process = started("train", str(training_file(tmp_path, keys)), "--out", str(tmp_path / "out"), "--device", "cpu")
    deadline = time.monotonic() + 90
    while len(read_log(tmp_path / "out" / "log.csv")) < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped after step" in errors and "the same command goes on" in errors
    assert (tmp_path / "out" / "training.pt").exists() and not (tmp_path / "out" / "config.json").exists()
