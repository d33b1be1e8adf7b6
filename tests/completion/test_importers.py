"""Public checkpoint files, made from the published key-and-shape lists, in every family's wrapping."""

from __future__ import annotations

import argparse
import json
import math
import os
import pickle
import re
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from completion.checkpoint import CheckpointError
from completion.completer import Completer
from completion.configuration import ConfigurationError
from completion.importers import FAMILIES, import_checkpoint, inspect_file
from completion.importers.families import unwrap
from completion.importers.files import read_file
from completion.importers.likeness import infer_parameters, shapes_of

LISTS = Path(__file__).parent / "published"
State = dict[str, torch.Tensor]


# A PCN an eighth as wide: the published names at sizes that a test can bear.
NARROW: dict[str, Any] = {
    "num_coarse": 128,
    "encoder_channels": [16, 32, 64, 128],
    "decoder_channels": 128,
    "folding_channels": 64,
}
_NARROWED = {128: 16, 256: 32, 512: 64, 1024: 128, 3072: 384, 1029: 133}


def published_state(name: str, narrow: bool = False) -> State:
    """Random weights of the size that a fresh network has, by a list of ``published/``."""
    generator, state = torch.Generator().manual_seed(0), {}
    for line in (LISTS / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        key, _, numbers = line.partition(" ")
        shape = tuple(int(number) for number in re.findall(r"\d+", numbers))
        shape = tuple(_NARROWED.get(size, size) for size in shape) if narrow else shape
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(70_000)
        elif key.endswith("running_var"):
            state[key] = torch.ones(shape)
        else:
            state[key] = torch.randn(shape, generator=generator) / math.sqrt(max(math.prod(shape[1:]), 1))
    return state


def prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{key}": value for key, value in state.items()}


pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning", "ignore:Detected pickle protocol")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Clouds here are small: threads that are shared with other test processes cost more than they give."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pcn() -> State:
    return published_state("mvp-pcn", narrow=True)


@pytest.fixture(scope="module")
def pointr_pcn() -> State:
    return published_state("pointr-pcn", narrow=True)


class Metrics:
    """Stands for PoinTr's class of that name, which its early checkpoints hold."""

    def __init__(self) -> None:
        self._values = [0.8, 6.2]


def completes(folder: Path) -> None:
    cloud = np.random.default_rng(0).uniform(-0.05, 0.05, (500, 3)).astype(np.float32)
    completer = Completer.load(folder, "cpu")
    (made,) = completer([cloud], [1])
    assert made.shape == (completer.config["output_points"], 3) and np.isfinite(made).all()


def wrapped(name: str, pcn: State, pointr_pcn: State) -> tuple[Any, str]:
    """A file's content as a family saves it, and the family."""
    averaged = {key: value + 0.01 for key, value in pointr_pcn.items() if value.is_floating_point()}
    extra = {"epoch": 7, "best": np.float64(0.5), "history": np.arange(3.0), "arguments": argparse.Namespace(lr=0.1)}
    return {
        "pointr": ({"base_model": pointr_pcn, "optimizer": {"state": {}}, "metrics": {"CDL1": 7.1}, **extra}, "pointr"),
        "pointr module": ({"base_model": prefixed(pointr_pcn, "module."), "metrics": Metrics()}, "pointr"),
        "pointr model": ({"model": pointr_pcn, "where": Path("/there/x.pth")}, "pointr"),
        "mvp": ({"net_state_dict": prefixed(pcn, "module."), "D_state_dict": None}, "mvp"),
        "dlr": ({"state_dict": prefixed(pointr_pcn, "model."), "pytorch-lightning_version": "2.4"}, "dlr"),
        "dlr compiled, averaged": (
            {
                "state_dict": {**prefixed(pointr_pcn, "model._orig_mod."), "metric.total": torch.tensor(3.0)},
                "ema_state_dict": prefixed(averaged, "model."),
            },
            "dlr",
        ),
        "qal": (pcn, "qal"),
        "qal of a pointr": (pointr_pcn, "qal"),
    }[name]


WRAPPINGS = [
    *("pointr", "pointr module", "pointr model", "mvp"),
    *("dlr", "dlr compiled, averaged", "qal", "qal of a pointr"),
]


@pytest.fixture
def as_pointr_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test's class be pickled under the name of PoinTr's; nothing of that name is there when it is read."""
    monkeypatch.setattr(Metrics, "__module__", "utils.metrics")
    module = types.ModuleType("utils.metrics")
    module.Metrics = Metrics  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "utils", types.ModuleType("utils"))
    monkeypatch.setitem(sys.modules, "utils.metrics", module)


@pytest.mark.parametrize("name", WRAPPINGS)
@pytest.mark.usefixtures("as_pointr_metrics")
def test_every_wrapping_is_imported(tmp_path: Path, pcn: State, pointr_pcn: State, name: str) -> None:
    content, family = wrapped(name, pcn, pointr_pcn)
    file = tmp_path / "theirs.pth"
    torch.save(content, file, _use_new_zipfile_serialization=name != "qal")  # the older format too
    for module in ("utils", "utils.metrics"):
        sys.modules.pop(module, None)
    made = import_checkpoint(file, family, "pcn", tmp_path / "ours", parameters=NARROW)
    assert made.config["frame"] == "canonical" and made.config["normalisation"] == "partial"
    assert made.config["trained_normalisation"] == "oracle" and len(made.caveats) == (3 if family == "pointr" else 2)
    assert made.config["imported"]["family"] == family and made.inferred == {}
    completes(made.folder)
    network = Completer.load(made.folder, "cpu").checkpoint.network
    first = pcn["encoder.conv1.weight"] if name in ("mvp", "qal") else pointr_pcn["first_conv.0.weight"]
    shift = 0.01 if "averaged" in name else 0.0
    assert torch.equal(network.state_dict()["encoder.conv1.weight"], first[..., 0] + shift)  # float32, not half


def test_averaged_weights_can_be_refused(tmp_path: Path, pcn: State, pointr_pcn: State) -> None:
    content, family = wrapped("dlr compiled, averaged", pcn, pointr_pcn)
    torch.save(content, tmp_path / "theirs.ckpt")
    made = import_checkpoint(
        tmp_path / "theirs.ckpt", family, "pcn", tmp_path / "ours", parameters=NARROW, averaged=False
    )
    weight = Completer.load(made.folder, "cpu").checkpoint.network.state_dict()["encoder.conv1.weight"]
    assert torch.equal(weight, pointr_pcn["first_conv.0.weight"][..., 0])
    assert made.config["imported"]["state_dict"] == "state_dict"
    found = unwrap(content, FAMILIES["dlr"])
    assert found is not None and found.ignored == ("metric.total",) and "stray" not in found.state


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(LISTS.glob("*.txt")), ids=lambda path: path.stem)
def test_every_published_list_is_recognised_imported_and_completes(tmp_path: Path, path: Path) -> None:
    family, _, network = path.stem.partition("-")
    keys = FAMILIES[family].keys
    state = published_state(path.stem)
    torch.save({keys[0]: prefixed(state, "module.")} if keys else state, tmp_path / "theirs.pth")
    likeliest = inspect_file(tmp_path / "theirs.pth")["likeliest"]
    assert likeliest.startswith(f"network {network} of family {family} (100 %"), likeliest
    completes(import_checkpoint(tmp_path / "theirs.pth", family, network, tmp_path / "ours").folder)


def test_an_inner_module_keeps_its_name() -> None:
    """PoinTr's networks hold a ``base_model`` of their own; only the front is a wrapper."""
    content = {"base_model": {"module.base_model.x": torch.ones(1), "module.module.y": torch.ones(1)}}
    found = unwrap(content, FAMILIES["pointr"])
    assert found is not None and set(found.state) == {"base_model.x", "module.y"}


def test_safetensors_are_taken_as_bare_state_dicts(tmp_path: Path, pcn: State) -> None:
    save_file(pcn, tmp_path / "theirs.safetensors")
    file = tmp_path / "theirs.safetensors"
    completes(import_checkpoint(file, "mvp", "pcn", tmp_path / "ours", parameters=NARROW).folder)


def test_shapes_tell_parameters_and_the_rest_is_given(tmp_path: Path, pcn: State) -> None:
    torch.save({"net_state_dict": pcn}, tmp_path / "theirs.pth")
    given = {"grid": [2, 2], "encoder_channels": NARROW["encoder_channels"]}
    made = import_checkpoint(tmp_path / "theirs.pth", "mvp", "pcn", tmp_path / "ours", parameters=given)
    assert made.inferred == {"num_coarse": 128, "decoder_channels": 128, "folding_channels": 64}
    assert made.config["output_points"] == 512
    assert made.config["network"]["parameters"] == {**NARROW, **given}
    completes(made.folder)


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        ("pcn", {"num_coarse": 512}),
        ("pcn", {"batch_norm": True}),
        ("pointr", {"num_query": 96}),  # PoinTr's size for ShapeNet-55
        ("pointr", {"num_query": 96, "width": 192}),
    ],
)
def test_sizes_are_inferred_at_full_width(network: str, parameters: dict[str, Any]) -> None:
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes_of(network, parameters).items()}
    assert infer_parameters(network, {}, {}, state) == parameters


def test_declarations_can_be_given(tmp_path: Path, pcn: State) -> None:
    torch.save({"net_state_dict": pcn}, tmp_path / "theirs.pth")
    choices: dict[str, Any] = {"parameters": NARROW}
    choices |= {"frame": "table", "normalisation": "oracle-radius", "merge": "append", "input_points": 300}
    made = import_checkpoint(tmp_path / "theirs.pth", "mvp", "pcn", tmp_path / "ours", **choices)
    config = json.loads((made.folder / "config.json").read_text())
    assert (config["frame"], config["merge"], config["input_points"]) == ("table", "append", 300)
    assert (config["normalisation"], config["trained_normalisation"]) == ("partial-radius", "oracle-radius")
    assert len(made.caveats) == 1 and "oracle-radius" in made.caveats[0]
    assert "theirs.pth" in (made.folder / "README.md").read_text()
    choices |= {"frame": "table", "normalisation": "partial"}
    own = import_checkpoint(tmp_path / "theirs.pth", "mvp", "pcn", tmp_path / "own", **choices)
    assert own.caveats == []


class Evil:
    def __init__(self, trace: Path) -> None:
        self.trace = str(trace)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (self.trace,)


def test_pickled_code_is_refused_and_not_run(tmp_path: Path, pcn: State) -> None:
    torch.save({"net_state_dict": pcn, "hook": Evil(tmp_path / "ran")}, tmp_path / "theirs.pth")
    with pytest.raises(CheckpointError, match=r"theirs\.pth: holds a Python object \(\w+\.mkdir\).*never unpickled"):
        import_checkpoint(tmp_path / "theirs.pth", "mvp", "pcn", tmp_path / "ours")
    with (tmp_path / "plain.pth").open("wb") as stream:
        pickle.dump({"net_state_dict": Evil(tmp_path / "ran")}, stream)
    with pytest.raises(CheckpointError, match=r"plain\.pth"):
        inspect_file(tmp_path / "plain.pth")
    assert not (tmp_path / "ran").exists() and not (tmp_path / "ours").exists()


def broken(kind: str, folder: Path, pcn: State) -> Path:
    file = folder / f"{kind}.pth"
    if kind == "truncated":
        torch.save({"net_state_dict": pcn}, file)
        file.write_bytes(file.read_bytes()[:100_000])
    elif kind == "truncated-old":
        torch.save({"net_state_dict": pcn}, file, _use_new_zipfile_serialization=False)
        file.write_bytes(file.read_bytes()[:100_000])
    elif kind == "garbage":
        file.write_bytes(np.random.default_rng(0).bytes(5000))
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "text":
        file.write_text("a note of mine\n")
    elif kind == "pointer":
        file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 27450407\n")
    elif kind == "page":
        file.write_text("<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title>")
    elif kind == "pickle":
        file.write_bytes(pickle.dumps({"epoch": 3, "home": Path("/x")}, protocol=4))
    elif kind == "script":
        torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)).save(str(file))
    elif kind == "folder":
        file.mkdir()
    return file


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", "not a readable checkpoint file"),
        ("truncated-old", "not a readable checkpoint file"),
        ("garbage", "not a readable checkpoint file|holds a Python object"),
        ("empty", "empty"),
        ("text", "a text .'a note of mine.*name the torch or safetensors file"),
        ("pointer", "Git LFS pointer.*git lfs pull"),
        ("page", "a web page.*download it again"),
        ("pickle", "not a readable checkpoint file"),
        ("script", "TorchScript"),
        ("folder", "a folder"),
        ("absent", "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_named_in_one_line(tmp_path: Path, pcn: State, kind: str, message: str) -> None:
    file = broken(kind, tmp_path, pcn)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_file(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)  # torch's own advice is to run the code in it


def test_an_import_replaces_no_checkpoint(tmp_path: Path, pcn: State) -> None:
    torch.save({"net_state_dict": pcn}, tmp_path / "theirs.pth")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    for out, message in (("mine", "mine: is not empty; name another"), ("theirs.pth", "theirs.pth: is a file")):
        with pytest.raises(CheckpointError, match=message):
            import_checkpoint(tmp_path / "theirs.pth", "mvp", "pcn", tmp_path / out, parameters=NARROW)
    assert (tmp_path / "mine" / "config.json").read_text() == "{}"


def test_the_wrong_family_or_network_is_told_the_likeliest(tmp_path: Path, pcn: State, pointr_pcn: State) -> None:
    torch.save({"net_state_dict": pcn}, tmp_path / "mvp.pth")
    torch.save({"base_model": pointr_pcn}, tmp_path / "pointr.pth")
    likeliest = r"likeliest: network pcn of family mvp \(\d+ %.*--family mvp --network pcn"
    with pytest.raises(CheckpointError, match=r"no state dict where the family pointr keeps it.*" + likeliest):
        import_checkpoint(tmp_path / "mvp.pth", "pointr", "pcn", tmp_path / "ours")
    with pytest.raises(CheckpointError, match=r"does not fit topnet.*missing keys \[.*and \d+ more\].*" + likeliest):
        import_checkpoint(tmp_path / "mvp.pth", "mvp", "topnet", tmp_path / "ours")
    with pytest.raises(CheckpointError, match=r"likeliest: network pcn of family pointr"):
        import_checkpoint(tmp_path / "pointr.pth", "mvp", "pcn", tmp_path / "ours")
    with pytest.raises(CheckpointError, match=r"no checkpoint of foldingnet in the family mvp is known"):
        import_checkpoint(tmp_path / "mvp.pth", "mvp", "foldingnet", tmp_path / "ours")
    with pytest.raises(ConfigurationError, match="did you mean 'pointr'"):
        import_checkpoint(tmp_path / "mvp.pth", "pointer", "pcn", tmp_path / "ours")
    with pytest.raises(ConfigurationError, match="did you mean 'num_coarse'"):
        import_checkpoint(tmp_path / "mvp.pth", "mvp", "pcn", tmp_path / "ours", parameters={"num_corse": 4})
    assert not (tmp_path / "ours").exists()


def test_missing_unexpected_and_misshapen_keys_are_listed(tmp_path: Path, pcn: State) -> None:
    state = {key: value for key, value in pcn.items() if key != "encoder.conv2.bias"}
    state["decoder.conv2.weight"] = torch.ones(64, 63, 1)
    state["head.weight"] = torch.ones(2)
    torch.save({"net_state_dict": state}, tmp_path / "theirs.pth")
    with pytest.raises(CheckpointError) as caught:
        import_checkpoint(tmp_path / "theirs.pth", "mvp", "pcn", tmp_path / "ours", parameters=NARROW)
    text = str(caught.value)
    assert "missing keys [encoder.conv2.bias]" in text and "unexpected keys [head.weight]" in text
    assert "decoder.conv2.weight (64, 63) instead of (64, 64)" in text


def test_values_that_are_not_finite_are_refused(tmp_path: Path, pcn: State) -> None:
    state = {**pcn, "encoder.conv2.bias": torch.full((32,), float("nan"))}
    torch.save({"net_state_dict": state}, tmp_path / "theirs.pth")
    with pytest.raises(CheckpointError, match=r"not finite in encoder\.conv2\.bias"):
        import_checkpoint(tmp_path / "theirs.pth", "mvp", "pcn", tmp_path / "ours", parameters=NARROW)


def test_a_counter_that_old_torch_did_not_keep_is_no_reason_to_refuse(tmp_path: Path, pointr_pcn: State) -> None:
    state = {key: value for key, value in pointr_pcn.items() if not key.endswith("num_batches_tracked")}
    torch.save({"base_model": state}, tmp_path / "theirs.pth")
    made = import_checkpoint(tmp_path / "theirs.pth", "pointr", "pcn", tmp_path / "ours", parameters=NARROW)
    completes(made.folder)


@pytest.mark.usefixtures("as_pointr_metrics")
def test_inspect_says_what_a_file_is(tmp_path: Path, pcn: State, pointr_pcn: State) -> None:
    content, _ = wrapped("pointr", pcn, pointr_pcn)
    torch.save({**content, "best_metrics": Metrics()}, tmp_path / "theirs.pth")
    facts = inspect_file(tmp_path / "theirs.pth")
    assert re.match(r"network pcn of family pointr \(\d+ % .*, 100 % in name", facts["likeliest"])
    assert "--family pointr --network pcn" in facts["import"]
    assert facts["state_dict"] == "base_model" and facts["tensors"] == len(pointr_pcn)
    assert facts["others"]["epoch"] == 7 and facts["others"]["metrics"] == {"CDL1": 7.1}
    assert facts["others"]["best"] == 0.5 and facts["others"]["best_metrics"] == "an object of its own code, not read"
    assert facts["others"]["arguments"] == {"lr": 0.1}
    assert facts["keys"]["first_conv.0.weight"] == (16, 3, 1)
    json.dumps(facts)


def test_inspect_of_something_else_says_so(tmp_path: Path) -> None:
    torch.save({"weights": {"conv.weight": torch.ones(3, 3)}, "n": 2}, tmp_path / "odd.pth")
    assert inspect_file(tmp_path / "odd.pth")["likeliest"] == "no state dict found"
    torch.save({"conv.weight": torch.ones(3, 3)}, tmp_path / "bare.pth")
    assert inspect_file(tmp_path / "bare.pth")["likeliest"] == "none of the networks we know"
    torch.save(torch.ones(3), tmp_path / "tensor.pth")
    assert "a Tensor" in inspect_file(tmp_path / "tensor.pth")["content"]
