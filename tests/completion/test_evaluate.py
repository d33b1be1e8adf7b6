"""Evaluation on novel pairs: the baselines, the card, and what it says."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from completion import checkpoint
from completion.checkpoint import load
from completion.datasets.pairs import read_pairs
from completion.evaluate import _retrieve, evaluate, verdicts, write_evaluation
from completion.losses import LOSSES
from completion.networks import Completion, CompletionNetwork

CHANGES: dict[str, Any] = {
    "input_points": 128,
    "training": {
        "coarse_loss": "same",
        "augmentation": {"mirror": True},
        "pairs": [{"file": "train.npz", "sha256": "0" * 64}],
        "seed": 0,
        "steps": 3,
        "batch_size": 2,
        "learning_rate": 1e-3,
        "clip_norm": 10.0,
    },
}


class Echo(CompletionNetwork):
    """Answers with its input: the network that completes nothing."""

    output_points = 128

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, partial: torch.Tensor) -> Completion:
        return Completion((partial, partial))


@pytest.fixture
def folder(tmp_path: Path, save_checkpoint) -> Path:
    return save_checkpoint(tmp_path / "net", **CHANGES)


def test_baselines(write_pairs, folder, inference_config) -> None:
    pairs = write_pairs("novel.npz", objects=2, views=3)
    table = evaluate(
        checkpoint.Checkpoint(folder, Echo(), {**inference_config, **CHANGES}), pairs, [pairs], device="cpu"
    )
    assert list(table) == ["partial", "nearest shape", "replace", "append"]
    # Retrieval from the very pairs finds the true shape; a partial view is true but covers half.
    assert table["nearest shape"]["coverage"] > 0.95 and table["nearest shape"]["f1"] > 0.95
    assert table["partial"]["precision"] > 0.95 and 0.2 < table["partial"]["coverage"] < 0.8
    assert table["replace"]["precision"] == pytest.approx(table["partial"]["precision"], abs=0.05)
    # Echo's answer is part of the observation, which `partial` draws whole: it has fewer points than the draw.
    assert table["append"]["coverage"] == table["partial"]["coverage"] > table["replace"]["coverage"]
    assert table["replace"]["spurious"] == pytest.approx(1 - table["replace"]["precision"], abs=1e-5)
    text = " ".join(verdicts(table))
    assert "**Does not beat** the nearest training shape in CD-L1" in text


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def test_retrieval_sees_more_than_a_corner_of_an_ordered_observation(
    write_pairs, folder, inference_config, monkeypatch
) -> None:
    """Observations come in the order of their voxels, and one that is small goes to the network in that order."""
    arrays = arrays_of(write_pairs("plain.npz", objects=6, views=3))
    offsets = arrays["partial_offsets"]
    for start, stop in itertools.pairwise(offsets):
        partial = arrays["partial_points"][start:stop]
        arrays["partial_points"][start:stop] = partial[np.lexsort((partial // 0.003).T)]
    pairs = write_pairs("novel.npz", **arrays)
    chosen = []

    def kept(*args: Any) -> tuple[torch.Tensor, torch.Tensor]:
        chosen.append(_retrieve(*args))
        return chosen[-1]

    monkeypatch.setattr("completion.evaluate._retrieve", kept)
    echo = checkpoint.Checkpoint(folder, Echo(), {**inference_config, **CHANGES, "input_points": 2048})
    table = evaluate(echo, pairs, [pairs], device="cpu")
    # Every observation is among the candidates, so its own pair is the right answer to either rule.
    right = torch.arange(18)
    assert (chosen[0][0] == right).float().mean() == 1.0
    assert (chosen[0][1] // 3 == right // 3).float().mean() > 0.9
    assert table["nearest shape"]["f1"] > 0.95


@pytest.mark.parametrize("mode", ["partial", "oracle"])
def test_append_joins_the_whole_observation_and_rows_share_one_frame(
    write_pairs, folder, inference_config, mode: str
) -> None:
    arrays = arrays_of(write_pairs("plain.npz", objects=2, views=3))
    # A far point, drawn for the truth half of the time: under `oracle` it decides over centre and scale.
    arrays["object_points"][:, 0] = 1.0
    path = write_pairs("novel.npz", **arrays)
    file = read_pairs(path)
    assert (np.diff(file.partial_offsets) > 3 * CHANGES["input_points"]).any()
    echo = checkpoint.Checkpoint(folder, Echo(), {**inference_config, **CHANGES, "normalisation": mode})
    table = evaluate(echo, path, [path], device="cpu")

    assert all(table[row]["precision_5mm"] > 0.95 for row in ("partial", "replace", "append"))

    def covered(i: int) -> float:
        distance = np.linalg.norm(file.truth(i)[:, None] - file.partial(i), axis=2).min(axis=1)
        return float((distance <= 0.005).mean())

    # Echo adds nothing to the observation: what `append` covers is what all of the partial covers.
    expected = np.mean([covered(i) for i in range(len(file))])
    assert table["append"]["coverage_5mm"] == pytest.approx(expected, abs=0.01)
    assert table["replace"]["coverage_5mm"] < expected - 0.05


def test_card_and_record(write_pairs, folder) -> None:
    pairs = write_pairs("novel.npz", objects=2, views=2)
    table = evaluate(folder, pairs, [write_pairs("train.npz", objects=2, views=2, seed=1)], device="cpu")
    assert table == evaluate(load(folder, "cpu"), pairs, [pairs.with_name("train.npz")], device="cpu")
    assert table == evaluate(folder, pairs, [], device="cpu", baselines=table)
    card = write_evaluation(folder, table, pairs).read_text()
    record = json.loads((folder / "evaluation.json").read_text())
    assert record["samples"] == 4 and record["table"] == table
    for fact in (
        "cd_l1",
        "seed 0",
        "3 steps",
        "train.npz",
        "novel.npz",
        "Does not beat",
        f"{table['append']['f1']:.4f}",
    ):
        assert fact in card
    assert str(folder.parent) not in card
    assert checkpoint.inspect(folder)["evaluation"] == record  # still a checkpoint


def test_verdicts_follow_the_figures() -> None:
    base = {"coverage": 0.5, "coverage_5mm": 0.5, "f1": 0.5, "cd_l1": 0.1}
    better = {"coverage": 0.6, "coverage_5mm": 0.6, "f1": 0.6, "cd_l1": 0.05}
    won = verdicts({"partial": base, "nearest shape": base, "replace": better, "append": base})
    lost = verdicts({"partial": better, "nearest shape": better, "replace": base, "append": better})
    assert all(line.startswith("Beats") for line in won) and all(line.startswith("**Does not") for line in lost)


def test_completion_needs_torch_numpy_and_safetensors_alone(folder) -> None:
    """Everything but training files works where numba, yaml, scipy, tqdm, pydantic and open3d are missing."""
    code = (
        "import sys\n"
        "for name in ('numba', 'yaml', 'scipy', 'tqdm', 'pydantic', 'open3d', 'pandas', 'trimesh', 'matplotlib'):\n"
        "    sys.modules[name] = None\n"
        "import numpy as np, torch\n"
        "import completion.train, completion.evaluate, completion.metrics\n"
        "from completion.completer import Completer\n"
        "from completion.losses import DECLARED, LOSSES\n"
        "(cloud,) = Completer.load(sys.argv[1], 'cpu')([np.random.default_rng(0).random((200, 3))])\n"
        "one, other = torch.from_numpy(cloud)[None], torch.zeros(1, 1, 3)\n"
        "sizes = {name: len(cloud) if DECLARED[name].equal_sizes else 1 for name in LOSSES}\n"
        "print(*(float(loss(one, other.expand(1, sizes[name], 3))) for name, loss in LOSSES.items()))\n"
        "assert not {'grasping', 'pipeline'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == len(LOSSES)


def test_shipped_checkpoints_are_whole_small_and_alike() -> None:
    names = checkpoint.shipped()
    assert {"pcn-cd", "pcn-cd-asymmetric", "pcn-qal"} <= set(names)
    facts = {name: checkpoint.inspect(name) for name in ("pcn-cd", "pcn-cd-asymmetric", "pcn-qal")}
    for name, fact in facts.items():
        assert fact["bytes"] < 3_000_000 and fact["stored_as"] == ["F16"]
        card = (checkpoint.PRETRAINED / name / "README.md").read_text()
        assert "Beats the partial cloud itself in coverage" in card or "**Does not beat**" in card
    assert [fact["config"]["loss"]["name"] for fact in facts.values()] == ["cd_l1", "cd_asymmetric", "qal"]
    rest = [
        {key: value for key, value in fact["config"]["training"].items() if key != "loss"} for fact in facts.values()
    ]
    assert rest[0] == rest[1] == rest[2]
