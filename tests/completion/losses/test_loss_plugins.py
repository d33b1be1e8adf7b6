"""Losses from outside: module:function with trust, entry points, and what is said when they do not fit."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from completion.checkpoint import read_config
from completion.configuration import ConfigurationError, parse_config
from completion.losses import LOSSES, cd_l1
from completion.losses.plugins import LossError, enter, identity
from completion.networks import NETWORKS
from completion.train import train

SOURCE = """
from completion.losses import cd_l1

def doubled(prediction, target, *, gain: float = 2.0):
    return gain * cd_l1(prediction, target)

def summed(prediction, target):
    return cd_l1(prediction, target).sum()

number = 7
"""


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module with losses, importable by name; and LOSSES as it was, afterwards."""
    before = dict(LOSSES)
    (tmp_path / "strange_losses.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    LOSSES.clear()
    LOSSES.update(before)
    sys.modules.pop("strange_losses", None)


def setup(pairs: Path, **changes):
    content = {
        "pairs": [str(pairs)],
        "network": {"name": "pcn", "parameters": dict(NETWORKS["pcn"].tiny)},
        "steps": 3,
        "batch_size": 2,
        "input_points": 64,
        "target_points": 64,
        "clip_norm": 1.0e9,
        **changes,
    }
    return parse_config(content)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "training.pt", weights_only=True)["network"]


def test_a_loss_from_a_module_trains_as_it_computes(outside: Path, write_pairs) -> None:
    """At a gain of 1 it is cd_l1: the same weights to the last bit; at 2 other ones."""
    pairs, name = write_pairs(), "strange_losses:doubled"
    ours = train(setup(pairs, loss="cd_l1"), outside / "ours", "cpu", progress=False)
    one = setup(pairs, loss={"name": name, "parameters": {"gain": 1.0}})
    same = train(one, outside / "same", "cpu", progress=False, trust_code=True)
    assert all(torch.equal(value, weights(same)[key]) for key, value in weights(ours).items())
    assert read_config(same)["loss"] == {"name": name, "parameters": {"gain": 1.0}}
    code = read_config(same)["training"]["loss_code"]
    assert code["object"] == name and len(code["source"]) == 20


def test_code_needs_trust_and_nothing_is_imported_without(outside: Path, write_pairs) -> None:
    config = setup(write_pairs(), loss="strange_losses:doubled")
    with pytest.raises(ConfigurationError, match="--trust-code"):
        train(config, outside / "out", "cpu", progress=False)
    assert "strange_losses" not in sys.modules
    coarse = setup(write_pairs(), loss="cd_l1", coarse_loss="strange_losses:doubled")
    with pytest.raises(ConfigurationError, match="--trust-code"):
        train(coarse, outside / "out", "cpu", progress=False)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ({"name": "strange_losses:doubled", "parameters": {"gian": 1.0}}, "did you mean 'gain'"),
        ("strange_losses:missing", "cannot be imported"),
        ("no_such_module:loss", "PYTHONPATH"),
        ("strange_losses:number", "no class or function"),
        ("strange_losses:summed", "one value per sample"),
    ],
)
def test_what_does_not_fit_is_said(outside: Path, write_pairs, loss, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        train(setup(write_pairs(), loss=loss), outside / "out", "cpu", progress=False, trust_code=True)


def test_an_entry_point_needs_no_trust(outside: Path, write_pairs) -> None:
    folder = outside / "strange-1.5.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: strange\nVersion: 1.5\n")
    (folder / "entry_points.txt").write_text("[grasp_utility.losses]\ndoubled = strange_losses:doubled\n")
    made = train(setup(write_pairs(), loss="doubled"), outside / "out", "cpu", progress=False)
    assert read_config(made)["training"]["loss_code"]["version"] == "1.5"
    with pytest.raises(ConfigurationError, match="did you mean 'doubled'"):
        setup(write_pairs(), loss="dubled")


def test_identity_tells_sources_apart(outside: Path) -> None:
    assert identity("qal") == {}
    enter("strange_losses:doubled", trust_code=True)
    before = identity("strange_losses:doubled", trust_code=True)
    (outside / "strange_losses.py").write_text(SOURCE.replace("2.0", "3.0"))
    assert identity("strange_losses:doubled", trust_code=True)["source"] != before["source"]
    LOSSES["mine"] = cd_l1
    assert identity("mine")["object"] == "completion.losses.chamfer:cd_l1"
    with pytest.raises(LossError, match="of the group grasp_utility"):
        enter("nothing_such")
