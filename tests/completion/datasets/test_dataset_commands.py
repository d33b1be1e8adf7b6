"""The real commands on the tiny benchmarks: three steps of training from each, and evaluation of what came out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from completion.configuration import ConfigurationError, parse_config
from completion.networks import PCN
from completion.train import train
from pipeline.cli import app


def command(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize(
    ("name", "mode", "inference"),
    [
        ("completion3d", "partial", {"normalisation": "partial"}),
        ("mvp", "as given", {"normalisation": "partial", "trained_normalisation": "oracle"}),
        ("pcn", "oracle", {"normalisation": "oracle"}),
        ("shapenet55", "as given", {"normalisation": "partial-radius", "trained_normalisation": "oracle-radius"}),
    ],
)
def test_three_steps_of_training_then_evaluation(
    write_benchmark, tmp_path: Path, name: str, mode: str, inference: dict[str, str]
) -> None:
    root = write_benchmark(name)
    content = {
        "dataset": {"name": name, "parameters": {"root": str(root)}},
        "network": {"name": "pcn", "parameters": {key: value for key, value in PCN.tiny.items()}},
        "loss": {"name": "qal"},
        "normalisation": mode,
        "augmentation": {"mirror": True},
        "steps": 3,
        "batch_size": 2,
        "input_points": 32,
        "target_points": 48,
        "log_every": 1,
    }
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(content))))
    command("train", tmp_path / "train.yaml", "--out", tmp_path / "net", "--device", "cpu")
    text = (tmp_path / "net" / "config.json").read_text()
    config = json.loads(text)
    assert config["frame"] == "canonical" and {key: config[key] for key in inference} == inference
    assert str(tmp_path) not in text
    assert config["training"]["pairs"][0]["file"] == f"{name}/train"
    assert len((tmp_path / "net" / "log.csv").read_text().splitlines()) == 4
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = PCN(**PCN.tiny)
    weights = load_file(tmp_path / "net" / "model.safetensors")
    assert any((weights[key].float() - value).abs().max() > 1e-4 for key, value in fresh.state_dict().items())
    said = command(
        *("checkpoint", "evaluate", tmp_path / "net", "--benchmark", name, "--data", root, "--device", "cpu"),
        *("--samples", 2, "--out", tmp_path / "table.json"),
    )
    results = json.loads((tmp_path / "table.json").read_text())["results"]
    assert len(results) == (3 if name == "shapenet55" else 1)
    for result in results:
        assert result["checkpoint"] == "net" and f"net on {name}" in said
        assert result["fed"] == mode
        for value in result["overall"].values():
            assert f"{value:.4g}" in said
    assert "note" in said and "published" in said


def test_evaluate_says_what_it_lacks(write_benchmark, tmp_path: Path) -> None:
    for arguments, message in (
        (("net",), "--pairs FILE, or --benchmark NAME"),
        (("net", "--pairs", "a.npz", "--benchmark", "mvp"), "one of the two"),
        (("net", "--benchmark", "mvp"), "name its folder with --data"),
        (("net", "--pairs", "a.npz", "--split", "test"), "--split goes with --benchmark"),
        (("net", "--benchmark", "mvp", "--data", "a", "--training", "b.npz"), "--training goes with --pairs"),
        (("net", "--benchmark", "mpv", "--data", "a"), "unknown name 'mpv'"),
        (("net", "--pairs", "a.npz", "--out", "table.xlsx"), r"\.csv, \.md or \.json"),
    ):
        with pytest.raises(ValueError, match=message):
            CliRunner().invoke(app, ["checkpoint", "evaluate", *arguments], catch_exceptions=False)


def test_several_checkpoints_make_one_table_and_one_gets_its_card(tmp_path: Path, save_checkpoint, write_pairs) -> None:
    training = {
        "seed": 0,
        "steps": 3,
        "batch_size": 2,
        "learning_rate": 1e-3,
        "clip_norm": 10.0,
        "coarse_loss": "same",
        "augmentation": {},
        "pairs": [{"file": "train.npz", "sha256": "0" * 64}],
    }
    one = save_checkpoint(tmp_path / "one", training=training)
    two = save_checkpoint(tmp_path / "two", training={**training, "seed": 1}, loss={"name": "cd_l2"})
    pairs = write_pairs("novel.npz", objects=1, views=2)
    before = (one / "README.md").read_text()
    said = command(
        *("checkpoint", "evaluate", one, two, "--pairs", pairs, "--device", "cpu", "--out", tmp_path / "table.md")
    )
    assert "cd_l2" in said and "replace" in said and "append" in said and "partial" in said
    assert (tmp_path / "table.md").read_text().count("\n| cd_l") == 4
    assert (one / "README.md").read_text() == before and not (one / "evaluation.json").exists()
    said = command("checkpoint", "evaluate", one, "--pairs", pairs, "--training", pairs, "--device", "cpu")
    assert "nearest training shape" in said and f"card       {one}" in said
    record = json.loads((one / "evaluation.json").read_text())
    assert list(record["table"]) == ["partial", "nearest shape", "replace", "append"]
    said = command("checkpoint", "evaluate", one, "--pairs", pairs, "--device", "cpu")
    assert "nearest training shape" not in said
    assert list(json.loads((one / "evaluation.json").read_text())["table"]) == ["partial", "replace", "append"]
    assert "nearest shape" not in (one / "README.md").read_text()


def test_a_run_on_a_benchmark_resumes_to_the_same_weights_even_where_its_folder_moved(
    write_benchmark, tmp_path: Path
) -> None:
    root = write_benchmark("pcn")
    content = {
        "dataset": {"name": "pcn", "parameters": {"root": str(root)}},
        "network": {"name": "pcn", "parameters": dict(PCN.tiny)},
        "loss": {"name": "cd_l1"},
        "augmentation": {"mirror": True, "stretch": 0.2, "noise": 0.01, "crop": 0.3},
        "steps": 4,
        "batch_size": 3,
        "input_points": 32,
        "target_points": 48,
    }
    train(parse_config(content), tmp_path / "at once", "cpu", progress=False)
    train(parse_config(content), tmp_path / "twice", "cpu", progress=False, stop_after=2)
    root.rename(tmp_path / "moved")
    content["dataset"] = {"name": "pcn", "parameters": {"root": str(tmp_path / "moved")}}
    train(parse_config(content), tmp_path / "twice", "cpu", progress=False)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("at once", "twice"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    content["dataset"]["parameters"]["categories"] = ["chair"]
    with pytest.raises(ConfigurationError, match="another configuration"):
        train(parse_config(content), tmp_path / "twice", "cpu", progress=False)
