"""SnowflakeNet against its definition written plainly: every edge, every concatenation, every child."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from completion.networks.snowflakenet import SnowflakeNet

SIZES = {2048: (1, 2, 2), 4096: (1, 2, 4), 8192: (1, 4, 4), 16384: (1, 4, 8)}
NARROW = {key: value for key, value in SnowflakeNet.tiny.items() if key not in ("up_factors", "num_pc", "num_p0")}


@pytest.fixture
def network(drawn: Callable[..., SnowflakeNet]) -> Callable[..., SnowflakeNet]:
    return lambda **changes: drawn(SnowflakeNet, **{**SnowflakeNet.tiny, **changes}).eval()


@pytest.fixture
def plain(plain_layers: type) -> Callable[..., list[torch.Tensor]]:
    """``plain(net, points, radius)``: all stages."""

    def compute(net: SnowflakeNet, points: torch.Tensor, radius: float = 1.0, bounding: bool = True):
        state = net.state_dict()
        do, tiny, k = plain_layers(state), net.tiny, net.tiny["k"]

        def tiled(code: torch.Tensor, count: int) -> torch.Tensor:
            return code[:, None].expand(-1, count, -1)

        def edge_mlp(name: str, values: torch.Tensor) -> torch.Tensor:
            return do.linear(f"{name}.3", F.relu(do.batch_norm(f"{name}.1", do.linear(f"{name}.0", values))))

        def residual(name: str, values: torch.Tensor) -> torch.Tensor:
            hidden = F.relu(do.linear(f"{name}.conv_1", values))
            return do.linear(f"{name}.conv_2", hidden) + do.linear(f"{name}.conv_shortcut", values)

        def attend(name, at, key, query, value) -> torch.Tensor:
            index = do.nearest(at, at, k)
            key, query, value = (
                do.linear(f"{name}.conv_{part}", values)
                for part, values in (("key", key), ("query", query), ("value", value))
            )
            position = edge_mlp(f"{name}.pos_mlp", at[:, :, None] - do.pick(at, index))
            difference = query[:, :, None] - do.pick(key, index)
            weight = edge_mlp(f"{name}.attn_mlp", difference + position).softmax(dim=2)
            return (weight * (value[:, :, None] + position)).sum(dim=2)

        def abstraction(name, at, features, count):
            if count is None:
                joint, centres = torch.cat([at, features], dim=2)[:, None], None
            else:
                centres = do.farthest(at, count)
                index = do.nearest(at, centres, k)
                joint = torch.cat([do.pick(at, index) - centres[:, :, None], do.pick(features, index)], dim=3)
            hidden = F.relu(do.linear(f"{name}.mlp_conv.0.conv", joint))
            return centres, do.linear(f"{name}.mlp_conv.1.conv", hidden).max(dim=2).values

        at, features, e = points, points, "feat_extractor."
        for i, count in enumerate(tiny["encoder_points"], start=1):
            at, features = abstraction(f"{e}sa_module_{i}", at, features, count)
            name = f"{e}transformer_{i}"
            inner = do.linear(f"{name}.linear_start", features)
            features = features + do.linear(f"{name}.linear_end", attend(name, at, inner, inner, inner))
        code = abstraction(f"{e}sa_module_3", at, features, None)[1][:, 0]

        d = "decoder.decoder_coarse"
        seeds = torch.einsum("bi,iot->bto", code, state[f"{d}.ps.weight"]) + state[f"{d}.ps.bias"]
        seeds = residual(f"{d}.mlp_1", torch.cat([seeds, tiled(code, seeds.shape[1])], dim=2))
        seeds = residual(f"{d}.mlp_2", seeds)
        seeds = residual(f"{d}.mlp_3", torch.cat([seeds, tiled(code, seeds.shape[1])], dim=2))
        stages = [do.mlp(f"{d}.mlp_4", seeds, ("0", "2"), F.relu)]
        cloud, before = do.farthest(torch.cat([stages[0], points], dim=1), tiny["num_p0"]), None
        for i, factor in enumerate(tiny["up_factors"]):
            u, count = f"decoder.uppers.{i}", cloud.shape[1]
            own = do.mlp(f"{u}.mlp_1.mlp", cloud, ("0", "2"), F.relu)
            joint = torch.cat([own, tiled(own.max(dim=1).values, count), tiled(code, count)], dim=2)
            query = do.mlp(f"{u}.mlp_2.mlp", joint, ("0", "2"), F.relu)
            key, name = query if before is None else before, f"{u}.skip_transformer"
            value = residual(f"{name}.mlp_v", torch.cat([key, query], dim=2))
            context = value + do.linear(f"{name}.conv_end", attend(name, cloud, key, query, value))
            few = do.mlp(f"{u}.mlp_ps.mlp", context, ("0", "2"), F.relu)
            children, displaced = [], []
            for child in range(factor):
                feature = few @ state[f"{u}.ps.weight"][:, :, child]
                feature = residual(f"{u}.mlp_delta_feature", torch.cat([feature, context], dim=2))
                offset = do.mlp(f"{u}.mlp_delta.mlp", F.relu(feature), ("0", "2"), F.relu)
                children.append(cloud + (offset.tanh() / radius**i if bounding else offset))
                displaced.append(feature)
            cloud = torch.stack(children, dim=2).flatten(1, 2)
            before = torch.stack(displaced, dim=2).flatten(1, 2)
            stages.append(cloud)
        return stages

    return compute


@pytest.mark.parametrize(("radius", "bounding"), [(1.0, True), (2.0, True), (1.0, False)])
def test_values_equal_the_plain_formulation(
    network: Callable, plain: Callable, clouds: torch.Tensor, radius: float, bounding: bool
) -> None:
    net = network(radius=radius, bounding=bounding)
    with torch.no_grad():
        result, expected = net(clouds), plain(net, clouds, radius, bounding)
    assert [stage.shape[1] for stage in result.stages] == [16, 32, 64, 128]
    torch.testing.assert_close(list(result.stages), expected)


def test_gradients_equal_those_of_the_plain_formulation(
    network: Callable, plain: Callable, clouds: torch.Tensor
) -> None:
    # state_dict() is detached, so the gradient compared is that of the input.
    net = network()
    ours, theirs = clouds.clone().requires_grad_(), clouds.clone().requires_grad_()
    sum(stage.sin().sum() for stage in net(ours).stages).backward()
    sum(stage.sin().sum() for stage in plain(net, theirs)).backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_transposed_convolution_of_the_published_code_splits_alike(clouds: torch.Tensor) -> None:
    """The two published layers called ``ps``, run as they are published."""
    state = {f"decoder.uppers.{i}.ps.weight": torch.rand(4, 6, factor) for i, factor in enumerate((1, 2, 8))}
    kept = SnowflakeNet.published["snowflakenet"].rename(dict(state))
    for name, weight in state.items():
        assert kept[name].shape == weight.shape
        features = torch.rand(2, 5, 4)
        published = F.conv_transpose1d(features.transpose(1, 2), weight, stride=weight.shape[2]).transpose(1, 2)
        split = torch.stack([features @ weight[:, :, child] for child in range(weight.shape[2])], dim=2)
        torch.testing.assert_close(published, split.flatten(1, 2))


def test_children_stay_within_their_bound(network: Callable, clouds: torch.Tensor) -> None:
    net = network(radius=4.0)
    stages = net(clouds).stages
    for i, factor in ((1, 2), (2, 2)):
        moved = stages[i + 1] - stages[i].repeat_interleave(factor, dim=1)
        assert 0 < moved.abs().max() <= 4.0**-i


def test_evaluation_draws_nothing(network: Callable, clouds: torch.Tensor) -> None:
    net, before = network(), torch.get_rng_state()
    first = net(clouds).fine
    assert torch.equal(net(clouds).fine, first) and torch.equal(torch.get_rng_state(), before)


def test_of_the_order_of_the_points_only_the_first_matters(network: Callable, clouds: torch.Tensor) -> None:
    net = network()
    order = torch.cat([torch.tensor([0]), 1 + torch.randperm(63, generator=torch.Generator().manual_seed(2))])
    torch.testing.assert_close(net(clouds[:, order]).stages, net(clouds).stages)


@pytest.mark.parametrize("points", sorted(SIZES))
def test_the_sizes_of_the_field_come_out(points: int) -> None:
    net = SnowflakeNet(**NARROW, up_factors=SIZES[points]).eval()
    with torch.no_grad():
        result = net(torch.rand(1, 100, 3, generator=torch.Generator().manual_seed(0)))
    assert net.output_points == points and result.fine.shape == (1, points, 3)
    assert result.coarse.shape == (1, 256, 3)


def test_widths_that_cannot_be_quartered_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        SnowflakeNet(channels=30)
