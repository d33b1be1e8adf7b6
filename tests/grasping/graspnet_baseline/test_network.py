"""The network: its names, its layers against torch's own modules, and what its files may hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from completion.points import ball_query, gather_points, group, three_interpolate
from grasping.generators import GeneratorError
from grasping.generators.graspnet_baseline import network as module
from grasping.generators.graspnet_baseline.cylinder import cylinder_query
from grasping.generators.graspnet_baseline.directions import rotations
from grasping.generators.graspnet_baseline.network import GraspNetBaseline, Predictions, spread_points
from grasping.generators.graspnet_baseline.weights import load_network


def cloud(count: int = 2600, batch: int = 1, seed: int = 0) -> Tensor:
    """A bumpy sheet half a metre before the camera."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand((batch, count, 3), generator=generator) * torch.tensor([0.4, 0.3, 0.02])
    return points + torch.tensor([-0.2, -0.15, 0.5])


def layers(values: Tensor, module_: nn.Module) -> Tensor:
    """Convolutions and norms as torch's own modules apply them, ``(B, C, S, k)``."""
    for layer in module_.children():
        bn = layer.bn.bn
        values = layer.conv(values)
        values = nn.functional.batch_norm(values, bn.running_mean, bn.running_var, bn.weight, bn.bias, False).relu()
    return values


def head(values: Tensor, h: nn.Module) -> Tensor:
    values = h.bn1(h.conv1(values)).relu()
    return h.conv3(h.bn2(h.conv2(values)).relu())


@torch.inference_mode()
def plain_forward(network: GraspNetBaseline, points: Tensor) -> tuple[Tensor, ...]:
    """The published order of operations, channels first, whole groups at once, nothing folded."""
    backbone, stage = network.view_estimator.backbone, network.grasp_generator
    xyz, features, levels = points, None, []
    for number, (count, radius, k, _) in enumerate(module._ABSTRACTIONS, 1):
        centres = gather_points(xyz, spread_points(xyz, count))
        index = ball_query(xyz, centres, radius, k)
        groups = (group(xyz, index) - centres[:, :, None]) / radius
        if features is not None:
            groups = torch.cat([groups, group(features, index)], dim=-1)
        made = layers(groups.permute(0, 3, 1, 2), getattr(backbone, f"sa{number}").mlp_module)
        xyz, features = centres, made.amax(dim=3).transpose(1, 2)
        levels.append((xyz, features))

    def carry(dense, sparse, part):
        joined = torch.cat([three_interpolate(sparse[1], sparse[0], dense[0], power=1), dense[1]], dim=-1)
        return layers(joined.transpose(1, 2)[..., None], part.mlp)[..., 0].transpose(1, 2)

    third = (levels[2][0], carry(levels[2], levels[3], backbone.fp1))
    seeds, features = levels[1][0], carry(levels[1], third, backbone.fp2)
    said = head(features.transpose(1, 2), network.view_estimator.vpmodule)
    approach = -network.views[said[:, 2:].argmax(dim=1)]
    axes = rotations(approach, torch.zeros(approach.shape[:2]))
    crops = []
    for end in module.DEPTHS:
        index = cylinder_query(points, seeds, axes, 0.05, -0.02, (end,), 64)[:, :, 0]
        local = torch.einsum("bski,bsij->bjsk", group(points, index) - seeds[:, :, None], axes)
        crops.append(layers(local, stage.crop.mlps).amax(dim=3))
    crop = torch.stack(crops, dim=3)  # (B, 256, S, D)
    flat = crop.flatten(2)
    operation = head(flat, stage.operation).view(len(points), 36, *crop.shape[2:])
    tolerance = head(flat, stage.tolerance).view(len(points), 12, *crop.shape[2:])
    heads = [operation[:, :12], operation[:, 12:24], operation[:, 24:], tolerance]
    return seeds, said[:, :2].transpose(1, 2), approach, *(values.permute(0, 2, 3, 1) for values in heads)


def assert_same(p: Predictions, expected: tuple[Tensor, ...]) -> None:
    found = (p.seeds, p.objectness, p.approach, p.score, p.angle, p.width, p.tolerance)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_the_network_is_the_published_chain_of_layers(drawn_network) -> None:
    network, points = drawn_network(), cloud(batch=2)
    with torch.inference_mode():
        p = network(points)
    assert_same(p, plain_forward(network, points))
    assert torch.equal(gather_points(points, p.seed_indices), p.seeds)
    assert p.score.std() > 0.01


def test_clouds_of_a_batch_do_not_mix(drawn_network) -> None:
    network, points = drawn_network(1), cloud(batch=2, seed=3)
    with torch.inference_mode():
        both, second = network(points), network(points[1:])
    assert torch.equal(both.seeds[1], second.seeds[0])
    torch.testing.assert_close(both.score[1], second.score[0], rtol=1e-5, atol=1e-6)


def test_it_turns_away_from_training() -> None:
    with pytest.raises(NotImplementedError, match="for inference"):
        GraspNetBaseline().train()
    assert not GraspNetBaseline().eval().training


def test_names_and_numbers_are_the_published_ones() -> None:
    state = GraspNetBaseline().state_dict()
    assert len(state) == 162
    assert sum(value.numel() for value in state.values()) == 1_034_657
    for name in (
        "view_estimator.backbone.sa1.mlp_module.layer0.conv.weight",
        "view_estimator.backbone.fp2.mlp.layer1.bn.bn.running_var",
        "view_estimator.vpmodule.bn2.num_batches_tracked",
        "grasp_generator.crop.mlps.layer2.conv.weight",
        "grasp_generator.operation.conv3.bias",
        "grasp_generator.tolerance.conv1.weight",
    ):
        assert name in state
    assert state["view_estimator.backbone.sa2.mlp_module.layer0.conv.weight"].shape == (128, 131, 1, 1)
    assert state["view_estimator.vpmodule.conv2.weight"].shape == (302, 256, 1)


@pytest.mark.parametrize("form", ["published", "bare", "parallel"])
def test_files_load_strictly(form: str, tmp_path: Path, drawn_network) -> None:
    state = drawn_network(2).state_dict()
    if form == "parallel":
        state = {f"module.{name}": value for name, value in state.items()}
    torch.save(state if form == "bare" else {"epoch": 3, "model_state_dict": state}, tmp_path / "w.tar")
    loaded = load_network(tmp_path / "w.tar")
    for name, value in drawn_network(2).state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert not loaded.training


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("evil"),))


def test_what_is_not_these_weights_is_refused_with_the_remedy(tmp_path: Path, monkeypatch, drawn_network) -> None:
    monkeypatch.chdir(tmp_path)
    path, state = tmp_path / "w.tar", drawn_network().state_dict()
    first = next(iter(state))
    cases: dict[str, object] = {
        "is missing": {name: value for name, value in state.items() if name != first},
        "extra is not known": {**state, "extra": torch.zeros(1)},
        "not (64, 3, 1, 1)": {**state, first: torch.zeros(64, 6, 1, 1)},
        "neither a state dict": {"model_state_dict": [1, 2]},
        "holds more than weights": {"model_state_dict": state, "hook": Evil()},
    }
    for words, content in cases.items():
        torch.save(content, path)
        with pytest.raises(GeneratorError, match=re.escape(words)) as error:
            load_network(path)
        said = str(error.value)
        assert said.startswith(str(path)) and "graspnet-baseline" in said and "\n" not in said
    for content in (b"", b"not a file of torch's", path.read_bytes()[:5000]):
        path.write_bytes(content)
        with pytest.raises(GeneratorError, match="graspnet-baseline"):
            load_network(path)
    with pytest.raises(GeneratorError, match="no such file"):
        load_network(tmp_path / "nowhere.tar")
    assert not (tmp_path / "evil").exists()


@pytest.mark.real_data
def test_the_real_weights_tell_objects_from_table(real_weights: Path, kinect_view) -> None:
    """What FACTS has of them: 74 % of the seeds on objects say so, and 8 % of those off them."""
    network = load_network(real_weights)
    points, ids = kinect_view
    index = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[:20_000]
    with torch.inference_mode():
        p = network(torch.from_numpy(points)[index][None])
    assert_same(p, plain_forward(network, torch.from_numpy(points)[index][None]))
    on_object = torch.from_numpy(ids)[index][p.seed_indices[0]] >= 0
    said = p.objectness[0].argmax(dim=1).bool()
    assert said[on_object].float().mean() > 0.65 and said[~on_object].float().mean() < 0.15
    assert 0.01 < p.width.mean() < 0.1 and p.score.max() > 1 and len(p.approach[0].unique(dim=0)) > 100
