"""Networks from outside: an installed distribution's entry point, and module:Class with trust."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from completion import checkpoint
from completion.checkpoint import CheckpointError, build_network, load
from completion.completer import Completer
from completion.configuration import ConfigurationError, Part
from completion.networks import Completion
from completion.networks.plugins import NetworkError, as_completion, find_network, identity

SOURCE = """
import torch
from torch import nn


class Mirror(nn.Module):
    def __init__(self, scale=1.0):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(float(scale)))

    def forward(self, points):
        return torch.cat([points, -self.gain * points], dim=1)


class Transposed(nn.Module):
    def forward(self, points):
        return points.transpose(1, 2)


class Flat(nn.Module):
    output_points = 64

    def forward(self, points):
        return points[:, :64, :2]


class Unsure(nn.Module):
    output_points = 5

    def forward(self, points):
        return points


class Raising(nn.Module):
    output_points = 64

    def forward(self, points):
        raise KeyError("no idea")


def not_a_network(**parameters):
    return 7
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed a distribution with an entry point."""
    folder = tmp_path_factory.mktemp("wheel")
    wheel = folder / "mirror_net-1.2-py3-none-any.whl"
    info = "mirror_net-1.2.dist-info"
    files = {
        "mirror_net/__init__.py": "",
        "mirror_net/net.py": SOURCE,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: mirror-net\nVersion: 1.2\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[grasp_utility.networks]\nmirror = mirror_net.net:Mirror\n"
        "gone = mirror_net.away:Net\n",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in files))
    line = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", str(folder / "site")]
    subprocess.run([*line, str(wheel)], check=True, capture_output=True)
    return folder / "site"


def forget(package: str) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        del sys.modules[name]


@pytest.fixture
def site(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(installed))
    yield installed
    forget("mirror_net")


@pytest.fixture
def loose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module on PYTHONPATH that no distribution knows; it leaves a trace when it is imported."""
    folder = tmp_path / "loose"
    folder.mkdir()
    trace = f"open({str(tmp_path / 'trace')!r}, 'w').close()\n"
    (folder / "loose_nets.py").write_text(SOURCE + trace)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    forget("loose_nets")


@pytest.fixture
def save_foreign(tmp_path: Path, inference_config) -> Callable[..., Path]:
    """``save_foreign(name, weights, output_points)`` -> a checkpoint folder that names a network from outside."""

    def save(name: str, weights: dict[str, torch.Tensor], output_points: int = 128, **parameters: float) -> Path:
        holder = nn.Module()
        for key, value in weights.items():
            holder.register_parameter(key, nn.Parameter(value))
        network = {"name": name, "parameters": parameters}
        config = {**inference_config, "network": network, "output_points": output_points}
        return checkpoint.save(tmp_path / "foreign", holder, config, "# card\n")

    return save


GAIN = {"gain": torch.tensor(0.5)}


def test_an_entry_point_needs_no_trust(site: Path, save_foreign) -> None:
    completer = Completer.load(save_foreign("mirror", GAIN, scale=3.0), "cpu")
    cloud = np.random.default_rng(0).random((64, 3)).astype(np.float32)
    (made,) = completer([cloud], [0])
    middle = (cloud.min(axis=0) + cloud.max(axis=0)) / 2
    expected = np.concatenate([cloud, middle - 0.5 * (cloud - middle)])  # the stored gain, not the constructor's

    def by_x(points: np.ndarray) -> np.ndarray:
        return points[np.argsort(points[:, 0])]

    np.testing.assert_allclose(by_x(made), by_x(expected), atol=1e-6)  # the input was drawn in another order


def test_module_and_class_need_trust(loose: Path, tmp_path: Path, save_foreign) -> None:
    folder = save_foreign("loose_nets:Mirror", GAIN)
    with pytest.raises(CheckpointError, match="--trust-code") as caught:
        load(folder, "cpu")
    assert str(folder) in str(caught.value) and "with your rights" in str(caught.value)
    with pytest.raises(NetworkError, match="--trust-code"):
        identity("loose_nets:Mirror")
    assert not (tmp_path / "trace").exists(), "refused, and imported all the same"
    network = load(folder, "cpu", trust_code=True).network
    assert (tmp_path / "trace").exists()
    points = torch.rand(2, 10, 3)
    completed = network(points)
    assert isinstance(completed, Completion)
    assert torch.equal(completed.fine, torch.cat([points, -0.5 * points], dim=1))
    assert list(network.state_dict()) == ["gain"] and network.uses_truth is False
    assert checkpoint.inspect(folder, trust_code=True)["parameters"] == 1


def test_the_loaded_network_trains(loose: Path) -> None:
    network = build_network(Part("loose_nets:Mirror"), "here", trust_code=True)
    assert network.output_points == 2048 and network.training
    network(torch.ones(1, 4, 3)).fine.sum().backward()
    assert network.gain.grad == -12
    twin = pickle.loads(pickle.dumps(copy.deepcopy(network)))  # as averaging weights and starting processes do
    assert isinstance(twin(torch.ones(1, 4, 3)), Completion)


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("loose_nets:Transposed", {}, r"Transposed: for clouds \(1, 1024, 3\) returned .*\(1, 3, 1024\).*transpose it"),
        ("loose_nets:Flat", {}, r"Flat: for clouds \(1, 64, 3\) returned a tensor \(1, 64, 2\)"),
        ("loose_nets:Unsure", {}, r"Unsure returns 64 points, but output_points is 128"),
        ("loose_nets:Raising", {}, r"Raising fails on 64 points: KeyError: 'no idea'"),
        ("loose_nets:not_a_network", {}, r"made a int instead of a torch.nn.Module"),
        ("loose_nets:Mirrored", {}, r"Mirrored'? cannot be imported \(AttributeError"),
        ("no_such_module:Net", {}, r"cannot be imported \(ModuleNotFoundError.*PYTHONPATH"),
        ("loose_nets:SOURCE OF", {}, r"cannot be imported"),
        ("loose_nets:Mirror", {}, r"missing keys \[gain\]"),
        ("loose_nets:torch.__version__", {}, "no class or function"),
    ],
)
def test_what_is_wrong_with_a_network_is_said_when_it_is_loaded(
    loose: Path, save_foreign, name: str, weights: dict, message: str
) -> None:
    folder = save_foreign(name, weights)
    with pytest.raises(CheckpointError, match=message) as caught:
        load(folder, "cpu", trust_code=True)
    assert str(folder) in str(caught.value)


def test_a_broken_entry_point_and_a_wrong_parameter_are_named(site: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"mirror_net\.away:Net cannot be imported"):
        build_network(Part("gone"), "file.yaml")
    with pytest.raises(ConfigurationError, match=r"file\.yaml: network mirror cannot be built: TypeError"):
        build_network(Part("mirror", {"skale": 2}), "file.yaml")
    with pytest.raises(ConfigurationError, match=r"did you mean 'mirror'\?.*grasp_utility.networks"):
        build_network(Part("miror"), "file.yaml")


def test_ours_come_first_and_unknown_names_list_all(site: Path) -> None:
    assert find_network("pcn").__name__ == "PCN"
    with pytest.raises(NetworkError, match=r"known: .*mirror.*pcn"):
        find_network("xyz")


def test_identity_tells_code_apart(site: Path, loose: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert identity("pcn") == {}
    found = identity("mirror")
    assert (found["object"], found["package"], found["version"]) == ("mirror_net.net:Mirror", "mirror-net", "1.2")
    before = identity("loose_nets:Mirror", trust_code=True)
    forget("loose_nets")
    assert identity("loose_nets:Mirror", trust_code=True) == before
    (loose / "loose_nets.py").write_text(SOURCE.replace("-self.gain", "2 * -self.gain"))
    forget("loose_nets")
    assert identity("loose_nets:Mirror", trust_code=True) != before
    # A module beside the network's own counts too.
    shutil.copytree(site / "mirror_net", tmp_path / "copy" / "mirror_net")
    (tmp_path / "copy" / "mirror_net" / "layers.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path / "copy"))
    forget("mirror_net")
    other = identity("mirror_net.net:Mirror", trust_code=True)
    assert other["source"] != found["source"]


@pytest.mark.parametrize("output", [7, None, (torch.ones(1, 4, 3),), Completion(())])
def test_what_is_no_cloud_is_refused(output: object) -> None:
    with pytest.raises(NetworkError, match="returned"):
        as_completion(output, torch.ones(1, 4, 3), "net")


def test_integers_and_wrong_batches_are_refused() -> None:
    with pytest.raises(NetworkError, match="int64"):
        as_completion(torch.ones(1, 4, 3, dtype=torch.int64), torch.ones(1, 4, 3), "net")
    with pytest.raises(NetworkError, match=r"expected \(2, M, 3\)"):
        as_completion(torch.ones(1, 4, 3), torch.ones(2, 4, 3), "net")
    stages = Completion((torch.ones(1, 2, 3), torch.ones(1, 4, 3)))
    assert as_completion(stages, torch.ones(1, 9, 3), "net") is stages


def test_batch_norms_survive_half_precision(tmp_path: Path, inference_config) -> None:
    layer = nn.BatchNorm1d(3)
    layer.num_batches_tracked.fill_(3_000_001)
    layer.running_var.fill_(1e6)
    folder = checkpoint.save(tmp_path / "norm", layer, inference_config, "card")
    from safetensors.torch import load_file

    stored = load_file(folder / "model.safetensors")
    assert stored["num_batches_tracked"].item() == 3_000_001 and stored["running_var"][0].item() == 1e6
    assert stored["weight"].dtype == torch.float16
    assert json.loads((folder / "config.json").read_text())["frame"] == "table"
