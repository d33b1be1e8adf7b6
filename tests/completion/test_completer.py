"""Checkpoint folders and the completer made from one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from completion import checkpoint
from completion.checkpoint import CheckpointError, load, resolve_device
from completion.completer import Completer, CompletionError, problem
from completion.normalize import normalisation


@pytest.fixture(scope="module")
def completer(tmp_path_factory, save_checkpoint) -> Completer:
    return Completer.load(save_checkpoint(tmp_path_factory.mktemp("checkpoint") / "small"), "cpu")


def clouds(count: int = 5, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(20, 300, count)
    return [(rng.random((n, 3)) * 0.1 + [0.5, -0.2, 0.3]).astype(np.float32) for n in sizes]


def test_shapes_units_and_place(completer) -> None:
    for cloud, done in zip(clouds(), completer(clouds(), list(range(5))), strict=True):
        assert done.shape == (64, 3) and done.dtype == np.float32
        # An untrained network's output lies around its frame's origin, which is the middle of the cloud's box.
        middle = (cloud.min(axis=0) + cloud.max(axis=0)) / 2
        assert np.linalg.norm(done.mean(axis=0) - middle) < np.linalg.norm(np.ptp(cloud, axis=0))


def test_a_cloud_ignores_its_company(completer) -> None:
    many = clouds(40)
    together = completer(many, list(range(40)))
    for i in (0, 15, 16, 39):
        (alone,) = completer([many[i]], [i])
        np.testing.assert_array_equal(alone, together[i])
    backwards = completer(many[::-1], list(range(40))[::-1])
    np.testing.assert_array_equal(np.array(backwards[::-1]), np.array(together))
    np.testing.assert_array_equal(np.array(completer(many, list(range(40)))), np.array(together))


def test_the_seed_chooses_the_input_points(completer) -> None:
    (cloud,) = clouds(1, seed=3)
    cloud = np.concatenate([cloud] * 3)
    one, same, other = completer([cloud] * 3, [1, 1, 2])
    np.testing.assert_allclose(one, same, atol=1e-6)
    assert not np.allclose(one, other, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-5, 5))
def test_it_commutes_with_shift_and_scale(completer, scale: float, shift: float) -> None:
    (cloud,) = clouds(1)
    (base,), (moved,) = completer([cloud.astype(float)]), completer([cloud * float(scale) + shift])
    np.testing.assert_allclose((moved - shift) / scale, base, atol=2e-5 + 2e-6 * abs(shift) / scale)


@pytest.mark.parametrize("count", [2, 3, 10])
def test_few_points_are_enough_when_they_have_an_extent(completer, count: int) -> None:
    (done,) = completer([np.random.default_rng(0).random((count, 3))])
    assert np.isfinite(done).all()


def test_mostly_coincident_points_complete(completer) -> None:
    cloud = np.zeros((5000, 3))
    cloud[0, 1] = 0.05
    assert np.isfinite(completer([cloud])[0]).all()


@pytest.mark.parametrize(
    ("cloud", "message"),
    [
        (np.zeros((0, 3)), "no points"),
        (np.zeros((1, 3)), "too few distinct points"),
        (np.ones((50, 3)), "too few distinct points"),
        (np.array([[0, 0, np.nan], [1, 0, 0]]), "1 of 2 points are not finite"),
        (np.zeros((5, 2)), r"shape \(N, 3\)"),
    ],
)
def test_what_cannot_be_completed_says_why(completer, cloud, message) -> None:
    assert problem(clouds(1)[0]) is None
    with pytest.raises(CompletionError, match=f"cloud 1: .*{message}") as caught:
        completer([clouds(1)[0], cloud])
    assert caught.value.index == 1 and caught.value.reason == problem(cloud)


def test_oracle_scale_needs_the_truth(tmp_path, save_checkpoint) -> None:
    oracle = Completer.load(save_checkpoint(tmp_path / "oracle", normalisation="oracle"), "cpu")
    cloud, truth = clouds(1)[0], clouds(1, seed=8)[0] * 2
    with pytest.raises(ValueError, match="needs the true cloud"):
        oracle([cloud])
    (done,) = oracle([cloud], truths=[truth])
    middle = (truth.min(axis=0) + truth.max(axis=0)) / 2
    assert np.linalg.norm(done.mean(axis=0) - middle) < np.linalg.norm(np.ptp(truth, axis=0))


def test_normalisation_ignores_the_truth_unless_it_is_the_oracle() -> None:
    partial, truth = clouds(2)
    assert normalisation("partial", partial, truth).scale == normalisation("partial", partial).scale
    assert normalisation("oracle", partial, truth).scale == normalisation("partial", truth).scale
    there = normalisation("partial", partial)
    unit = there.to_network(partial)
    assert np.linalg.norm(np.ptp(unit, axis=0)) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(unit.max(axis=0), -unit.min(axis=0), atol=1e-6)
    np.testing.assert_allclose(there.to_cloud(unit), partial, atol=1e-6)


def test_a_saved_checkpoint_loads_to_half_precision(tmp_path, save_checkpoint, fresh_network) -> None:
    folder = save_checkpoint(tmp_path / "one")
    loaded = load(folder, "cpu")
    source = fresh_network().state_dict()
    for key, value in loaded.network.state_dict().items():
        assert torch.equal(value, source[key].half().float())
    assert not loaded.network.training
    assert (folder / "model.safetensors").stat().st_mode & 0o044 == 0o044
    facts = checkpoint.inspect(folder)
    assert facts["parameters"] == sum(value.numel() for value in source.values()) and facts["stored_as"] == ["F16"]
    assert json.loads(json.dumps(facts))["config"]["frame"] == "table"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]


def edit(folder: Path, **changes) -> None:
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, **changes}))


def edit_parameters(folder: Path, **changes) -> None:
    network = json.loads((folder / "config.json").read_text())["network"]
    edit(folder, network={**network, "parameters": {**network["parameters"], **changes}})


def break_weights(folder: Path, change) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "config.json: missing"),
        (lambda f: (f / "config.json").write_text("{"), "not readable JSON"),
        (lambda f: edit(f, format_version=5), "format_version 5"),
        (lambda f: edit(f, frame="tabel"), "did you mean 'table'"),
        (lambda f: edit(f, unit="mm"), "unit"),
        (lambda f: edit(f, input_points=0), "input_points must be"),
        (lambda f: edit(f, network={"name": "pcm"}), "did you mean 'pcn'"),
        (lambda f: edit(f, network={"name": "pcn", "parameters": {"gird": 2}}), "did you mean 'grid'"),
        (lambda f: edit_parameters(f, num_coarse=9), "decoder.fc3.weight"),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors: missing"),
        (lambda f: (f / "model.safetensors").write_bytes(b"junk"), "not a readable safetensors"),
        (lambda f: break_weights(f, lambda w: w.pop("encoder.conv1.bias")), r"missing keys \[encoder.conv1.bias\]"),
        (lambda f: break_weights(f, lambda w: w.update(x=torch.ones(1))), r"unexpected keys \[x\]"),
        (lambda f: break_weights(f, lambda w: w["encoder.conv1.bias"].fill_(float("nan"))), "not finite"),
    ],
)
def test_damage_is_named(tmp_path, save_checkpoint, damage, message) -> None:
    folder = save_checkpoint(tmp_path / "one")
    damage(folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        load(folder, "cpu")
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_a_name_that_does_not_exist_lists_what_does(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load("pcn-does-not-exist")
    (tmp_path / "model.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match="a checkpoint is a folder"):
        load(tmp_path / "model.pt")


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "", "cpu:x", "meta"])
def test_a_device_that_is_not_there_is_refused_with_the_remedy(tmp_path, save_checkpoint, device: str) -> None:
    with pytest.raises(CheckpointError, match=f"{device!r} cannot be used here .*--device cpu or auto") as caught:
        load(save_checkpoint(tmp_path / "one"), device)
    assert "\n" not in str(caught.value)


def test_cuda_is_refused_where_there_is_none() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    if torch.cuda.is_available():
        assert resolve_device("cuda").type == "cuda"
        return
    with pytest.raises(CheckpointError, match=r"'cuda' cannot be used here .*--device cpu or auto"):
        resolve_device("cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_clouds_of_the_cpu() -> None:
    rng = np.random.default_rng(0)
    clouds = [rng.uniform(-0.05, 0.05, (n, 3)).astype(np.float32) for n in (40, 700, 3000)]
    on_cpu = Completer.load("pcn-cd", "cpu")(clouds, [1, 2, 3])
    on_cuda = Completer.load("pcn-cd", "cuda")(clouds, [1, 2, 3])
    for one, other in zip(on_cpu, on_cuda, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
