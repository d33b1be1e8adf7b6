"""Training: resumes to the same weights, learns, stops when it diverges, and refuses what it cannot do."""

from __future__ import annotations

import csv
import dataclasses
import itertools
from pathlib import Path

import pytest
import torch

from completion import train as training
from completion.checkpoint import load
from completion.configuration import ConfigurationError, TrainingConfig, load_config, parse_config, plain
from completion.losses import DECLARED, LOSSES
from completion.networks import NETWORKS
from completion.train import DivergenceError, fine_weight, learning_rate, train

SMALL = {
    "num_coarse": 32,
    "grid": 2,
    "encoder_channels": [16, 24, 32, 48],
    "decoder_channels": 48,
    "folding_channels": 24,
}
CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "training"


def config(path: Path, **changes) -> TrainingConfig:
    content = {
        "pairs": [str(path)],
        "network": {"name": "pcn", "parameters": SMALL},
        "loss": {"name": "cd_l1"},
        "steps": 6,
        "batch_size": 3,
        "input_points": 48,
        "target_points": 128,
        "warmup_steps": 2,
        "augmentation": {"yaw_degrees": 10.0, "mirror": True, "stretch": 0.1, "noise": 0.002, "crop": 0.2},
        "log_every": 2,
        "checkpoint_every": 2,
    }
    return parse_config({**content, **changes})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / training.RESUME, weights_only=True)["network"]


# Every network with one loss and every loss with one network; the rest of the cross is test_train_command's.
CROSS = dict.fromkeys([*((one, "cd_l1") for one in NETWORKS), *(("pcn", one) for one in LOSSES)])


@pytest.mark.parametrize(("network", "loss"), CROSS)
def test_a_resumed_run_equals_an_uninterrupted_one(write_pairs, tmp_path, loss: str, network: str) -> None:
    tiny = dict(NETWORKS[network].tiny)
    shape = {"input_points": 64, "target_points": 64, "coarse_loss": "same"}
    if DECLARED[loss].equal_sizes:
        shape["coarse_loss"] = "cd_l1"
    parts = {"loss": {"name": loss}, "network": {"name": network, "parameters": tiny}}
    setup = config(write_pairs(), **parts, **shape, steps=4)
    whole = train(setup, tmp_path / "whole", "cpu", progress=False)
    halves = train(setup, tmp_path / "halves", "cpu", progress=False, stop_after=3)
    assert not (halves / "config.json").exists()
    train(setup, halves, "cpu", progress=False)
    one, other = weights(whole), weights(halves)
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    with torch.random.fork_rng():
        torch.manual_seed(setup.seed)
        fresh = NETWORKS[network](**tiny).state_dict()
    assert any(not torch.equal(value, fresh[key]) for key, value in one.items() if value.is_floating_point())
    log = [row[:-1] for row in csv.reader((whole / "log.csv").open())]
    resumed = [row[:-1] for row in csv.reader((halves / "log.csv").open())]
    assert [row[0] for row in log] == ["step", "2", "4"]
    assert log == [row for row in resumed if row[0] != "3"]


def test_it_learns_one_pair_by_heart(write_pairs, tmp_path) -> None:
    setup = config(write_pairs(objects=1, views=1), steps=80, learning_rate=5e-3, augmentation={}, log_every=1)
    out = train(setup, tmp_path / "out", "cpu", progress=False)
    rows = list(csv.DictReader((out / "log.csv").open()))
    last = sum(float(row["fine"]) for row in rows[-5:]) / 5
    assert last < 0.5 * float(rows[0]["fine"])
    assert max(float(row["coverage"]) for row in rows[-5:]) > 2 * float(rows[0]["coverage"])


def test_the_checkpoint_says_what_inference_needs(write_pairs, tmp_path) -> None:
    out = train(config(write_pairs(), loss={"name": "qal", "parameters": {"omega": 50.0}}), tmp_path / "out", "cpu")
    checkpoint = load(out, "cpu")
    expected = {"input_points": 48, "output_points": 128, "unit": "m", "normalisation": "partial", "frame": "table"}
    assert {key: checkpoint.config[key] for key in expected} == expected
    assert checkpoint.config["loss"] == {"name": "qal", "parameters": {"omega": 50.0}}
    assert checkpoint.config["training"]["pairs"][0]["file"] == "pairs.npz"
    assert str(tmp_path) not in (out / "config.json").read_text() + (out / "README.md").read_text()
    for key, value in weights(out).items():
        torch.testing.assert_close(checkpoint.network.state_dict()[key], value.half().float(), rtol=0, atol=0)


def test_a_finished_run_is_left_alone(write_pairs, tmp_path) -> None:
    setup = config(write_pairs())
    out = train(setup, tmp_path / "out", "cpu", progress=False)
    (out / "README.md").write_text("evaluated")
    train(setup, out, "cpu", progress=False)
    assert (out / "README.md").read_text() == "evaluated"


def test_a_checkpoint_of_another_making_is_not_replaced(write_pairs, tmp_path) -> None:
    setup = config(write_pairs())
    out = train(setup, tmp_path / "out", "cpu", progress=False)
    (out / "training.pt").unlink()  # as an imported or copied checkpoint lacks it
    before = (out / "model.safetensors").read_bytes()
    with pytest.raises(ConfigurationError, match=r"out: holds a checkpoint that this run did not make.*--fresh"):
        train(dataclasses.replace(setup, seed=1), out, "cpu", progress=False)
    assert (out / "model.safetensors").read_bytes() == before
    with pytest.raises(ConfigurationError, match=r"pairs\.npz: is a file; name a folder with --out"):
        train(setup, tmp_path / "pairs.npz", "cpu", progress=False)


def test_another_seed_gives_other_weights(write_pairs, tmp_path) -> None:
    pairs = write_pairs()
    one, other = (weights(train(config(pairs, seed=s), tmp_path / str(s), "cpu", progress=False)) for s in (0, 1))
    assert not torch.equal(one["encoder.conv4.weight"], other["encoder.conv4.weight"])


def test_global_randomness_is_neither_used_nor_changed(write_pairs, tmp_path) -> None:
    pairs = write_pairs()
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one = weights(train(config(pairs), tmp_path / "a", "cpu", progress=False))
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(6)
    other = weights(train(config(pairs), tmp_path / "b", "cpu", progress=False))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_divergence_is_named(write_pairs, tmp_path, monkeypatch) -> None:
    def bad(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return prediction.sum(dim=(1, 2)) * float("nan")

    monkeypatch.setitem(LOSSES, "bad", bad)
    with pytest.raises(DivergenceError, match="step 0: fine is nan"):
        train(config(write_pairs(), loss={"name": "bad"}, coarse_loss="cd_l1"), tmp_path / "out", "cpu", progress=False)
    assert not (tmp_path / "out" / "config.json").exists()
    assert issubclass(DivergenceError, ValueError)  # what the command line turns into one line


def test_a_fresh_run_leaves_nothing_of_the_old_one(write_pairs, tmp_path, monkeypatch) -> None:
    out = train(config(write_pairs()), tmp_path / "out", "cpu", progress=False)
    (out / "evaluation.json").write_text("{}")
    bad = config(tmp_path / "none.npz")
    with pytest.raises(ValueError, match="no such pair file"):
        train(bad, out, "cpu", resume=False, progress=False)
    load(out, "cpu")  # bad input destroys nothing

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.PairDataset, "batch", killed)
        with pytest.raises(KeyboardInterrupt):
            train(config(tmp_path / "pairs.npz"), out, "cpu", resume=False, progress=False)
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "log.csv"]
    with pytest.raises(ValueError, match=r"config\.json: missing"):
        load(out, "cpu")


def test_another_configuration_does_not_resume(write_pairs, tmp_path) -> None:
    setup = config(write_pairs())
    train(setup, tmp_path / "out", "cpu", progress=False, stop_after=2)
    with pytest.raises(ConfigurationError, match=r"training\.pt.*learning_rate"):
        train(dataclasses.replace(setup, learning_rate=0.5), tmp_path / "out", "cpu", progress=False)
    write_pairs(seed=9)  # the same path, other content
    with pytest.raises(ConfigurationError, match=r"pairs"):
        train(setup, tmp_path / "out", "cpu", progress=False)
    train(dataclasses.replace(setup, learning_rate=0.5), tmp_path / "out", "cpu", resume=False, progress=False)
    (tmp_path / "out" / "training.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(ConfigurationError, match="not a readable resume file"):
        train(setup, tmp_path / "out", "cpu", progress=False)


def test_schedules_scale_with_the_run(tmp_path) -> None:
    setup = config(tmp_path / "any.npz", steps=1000, warmup_steps=10, learning_rate=1.0, final_rate=0.1)
    rates = [learning_rate(setup, step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == pytest.approx(1) and rates[-1] == pytest.approx(0.1)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[10:]))
    assert [fine_weight(setup, step) for step in (0, 49, 50, 149, 150, 299, 300, 999)] == [
        *(0.01, 0.01, 0.1, 0.1, 0.5, 0.5, 1.0, 1.0)
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batchsize": 3}, r"unknown key 'batchsize' \(did you mean 'batch_size'\?"),
        ({"loss": {"name": "qol"}}, r"loss: unknown name 'qol' \(did you mean 'qal'\?"),
        ({"loss": {"name": "qal", "parameters": {"omaga": 1}}}, r"unknown parameter 'omaga' \(did you mean 'omega'\?"),
        ({"network": {"name": "pnc"}}, r"network: unknown name 'pnc' \(did you mean 'pcn'\?"),
        ({"augmentation": {"miror": True}}, r"augmentation: unknown key 'miror' \(did you mean 'mirror'\?"),
        ({"normalisation": "truth"}, "normalisation: unknown name"),
        ({"steps": 0}, "steps must be above 0"),
        ({"steps": "many"}, "steps: expected int, got 'many'"),
        ({"learning_rate": "1e-3"}, r"write 1\.0e-3"),
        ({"pairs": []}, "pairs is empty"),
        ({"format_version": 9}, "format_version 9"),
        ({"fine_weight": [[0.5, 1.0]]}, "fine_weight"),
    ],
)
def test_a_wrong_key_names_the_nearest(tmp_path, changes, message) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        config(tmp_path / "any.npz", **changes)
    assert "\n" not in str(caught.value)


def test_files_are_read_and_named(tmp_path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.yaml"):
        load_config(tmp_path / "none.yaml")
    for text, message in (("a: [", "not valid YAML"), ("- 1", "expected keys"), ("steps: 3", "'pairs' is missing")):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(ConfigurationError, match=message):
            load_config(tmp_path / "bad.yaml")


def test_a_configuration_survives_json(tmp_path) -> None:
    setup = config(tmp_path / "any.npz")
    assert parse_config(plain(setup)) == setup


TRAINING_FILES = [path for path in sorted(CONFIGS.glob("*.yaml")) if "\nbase:" not in path.read_text()]


@pytest.mark.parametrize("path", TRAINING_FILES, ids=lambda path: path.stem)
def test_every_training_file_is_valid(path: Path) -> None:
    NETWORKS[load_config(path).network.name](**load_config(path).network.parameters)


def test_shipped_training_files_differ_in_the_loss_alone() -> None:
    files = {name: load_config(CONFIGS / f"{name}.yaml") for name in ("pcn_cd", "pcn_cd_asymmetric", "pcn_qal")}
    assert [value.loss.name for value in files.values()] == ["cd_l1", "cd_asymmetric", "qal"]
    one = files["pcn_cd"]
    assert all(dataclasses.replace(value, loss=one.loss) == one for value in files.values())
    lines = [(CONFIGS / f"{name}.yaml").read_text().splitlines() for name in files]
    assert sum(len(set(row)) > 1 for row in zip(*lines, strict=True)) == 1
