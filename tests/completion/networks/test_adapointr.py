"""AdaPoinTr against its definition written plainly: every edge, every concatenation, every head of attention."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from completion.networks.adapointr import AdaPoinTr

SIZES = {2048: 4, 4096: 8, 8192: 16, 16384: 32}
NARROW = {key: value for key, value in AdaPoinTr.tiny.items() if key not in ("num_query", "factor")}
State = dict[str, torch.Tensor]


def network(seed: int = 0, **changes) -> AdaPoinTr:
    """A tiny one in float64 with weights large enough that every part shows in the result."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = AdaPoinTr(**{**AdaPoinTr.tiny, **changes}).double()
        for name, value in net.state_dict().items():
            if value.ndim > 1:
                value.copy_(torch.randn_like(value) / value.shape[1] ** 0.5)
            elif name.endswith("running_var"):
                value.copy_(0.5 + torch.rand_like(value))
            elif value.is_floating_point():
                value.add_(0.2 * torch.randn_like(value))
    return net


def linear(state: State, name: str, values: torch.Tensor) -> torch.Tensor:
    return F.linear(values, state[f"{name}.weight"], state.get(f"{name}.bias"))


def layer_norm(state: State, name: str, values: torch.Tensor) -> torch.Tensor:
    centred = values - values.mean(dim=-1, keepdim=True)
    scaled = centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt()
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int, hidden=None) -> torch.Tensor:
    parts, size = [], query.shape[2] // heads
    for head in range(heads):
        cut = slice(head * size, (head + 1) * size)
        scores = query[..., cut] @ key[..., cut].transpose(1, 2) / size**0.5
        if hidden is not None:
            scores = scores.masked_fill(hidden, -torch.inf)
        parts.append(scores.softmax(dim=2) @ value[..., cut])
    return torch.cat(parts, dim=2)


def self_attention(state: State, name: str, tokens: torch.Tensor, heads: int, hidden=None) -> torch.Tensor:
    q, k, v = linear(state, f"{name}.qkv", tokens).chunk(3, dim=2)
    return linear(state, f"{name}.proj", attention(q, k, v, heads, hidden))


def nearest(points: torch.Tensor, queries: torch.Tensor, k: int) -> torch.Tensor:
    return (queries[:, :, None] - points[:, None]).square().sum(dim=3).argsort(dim=2)[:, :, :k]


def pick(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return torch.stack([one[i] for one, i in zip(values, index, strict=True)])


def edges(own: torch.Tensor, tokens: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    other = pick(tokens, index)  # (B, N, k, C)
    own = own[:, :, None].expand_as(other)
    return torch.cat([other - own, own], dim=3)


def graph(state: State, name: str, own: torch.Tensor, tokens: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return F.leaky_relu(linear(state, f"{name}.knn_map.0", edges(own, tokens, index)), 0.2).max(dim=2).values


def farthest(points: torch.Tensor, count: int) -> torch.Tensor:
    chosen = []
    for cloud in points:
        taken = [0]
        while len(taken) < count:
            taken.append(int(torch.cdist(cloud, cloud[taken]).min(dim=1).values.argmax()))
        chosen.append(cloud[taken])
    return torch.stack(chosen)


def group_norm(state: State, name: str, values: torch.Tensor) -> torch.Tensor:
    """``(B, S, k, C)`` in four groups of channels, over all the edges of a cloud."""
    groups = values.unflatten(3, (4, -1))
    mean = groups.mean(dim=(1, 2, 4), keepdim=True)
    variance = (groups - mean).square().mean(dim=(1, 2, 4), keepdim=True)
    scaled = ((groups - mean) / (variance + 1e-5).sqrt()).flatten(3)
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def proxies(state: State, points: torch.Tensor, centres: tuple[int, int], k: int) -> tuple[torch.Tensor, torch.Tensor]:
    def convolve(layer: int, at, own, cloud, features):
        values = linear(state, f"base_model.grouper.layer{layer}.0", edges(own, features, nearest(cloud, at, k)))
        normed = group_norm(state, f"base_model.grouper.layer{layer}.1", values)
        return F.leaky_relu(normed, 0.2).max(dim=2).values

    features = linear(state, "base_model.grouper.input_trans", points)
    for first, count in ((1, centres[0]), (3, centres[1])):
        features = convolve(first, points, features, points, features)
        joint = torch.cat([points, features], dim=2)
        # Which points were taken is known by their coordinates; their features come along.
        taken = (farthest(points, count)[:, :, None] == points[:, None]).all(dim=3).int().argmax(dim=2)
        at, own = pick(joint, taken).split([3, features.shape[2]], dim=2)
        features = convolve(first + 1, at, own, points, features)
        points = at
    return points, features


def mlp(state: State, name: str, values: torch.Tensor, layers: tuple[str, ...]) -> torch.Tensor:
    for i, layer in enumerate(layers):
        values = linear(state, f"{name}.{layer}", F.gelu(values) if i else values)
    return values


def plain(net: AdaPoinTr, points: torch.Tensor, noised: torch.Tensor | None = None):
    """Coarse, fine, and what grew around the noised centres; batch norm by its running statistics."""
    state, tiny, base = net.state_dict(), net.tiny, "base_model."
    at, features = proxies(state, points, tiny["centres"], tiny["grouper_k"])
    tokens = mlp(state, f"{base}input_proj", features, ("0", "2")) + mlp(state, f"{base}pos_embed", at, ("0", "2"))
    for i in range(tiny["encoder_depth"]):
        block = f"{base}encoder.{i}"
        normed = layer_norm(state, f"{block}.norm1", tokens)
        seen = self_attention(state, f"{block}.attn", normed, tiny["heads"])
        if i == 0:
            local = graph(state, f"{block}.local_attn", normed, normed, nearest(at, at, tiny["k"]))
            seen = linear(state, f"{block}.merge_map", torch.cat([seen, local], dim=2))
        tokens = tokens + seen
        tokens = tokens + mlp(state, f"{block}.mlp", layer_norm(state, f"{block}.norm2", tokens), ("fc1", "fc2"))
    memory, asked = tokens, tiny["num_query"]
    code = mlp(state, f"{base}increase_dim", memory, ("0", "2")).max(dim=1).values
    proposed = mlp(state, f"{base}coarse_pred", code, ("0", "2")).reshape(len(points), asked, 3)
    candidates = torch.cat([proposed, farthest(points, asked // 2)], dim=1)
    rank = mlp(state, f"{base}query_ranking", candidates, ("0", "2", "4")).sigmoid()[..., 0]
    centres = pick(candidates, rank.sort(dim=1, descending=True).indices[:, :asked])
    among, hidden = nearest(centres, centres, tiny["k"]), None
    if noised is not None:
        centres = torch.cat([centres, noised], dim=1)
        among = torch.cat([among, nearest(centres, noised, tiny["k"])], dim=1)
        hidden = torch.zeros(centres.shape[1], centres.shape[1], dtype=torch.bool)
        hidden[:asked, asked:] = True
    count = centres.shape[1]
    tiled = torch.cat([code[:, None].expand(-1, count, -1), centres], dim=2)
    tokens = mlp(state, f"{base}mlp_query", tiled, ("0", "2", "4"))
    for i in range(tiny["decoder_depth"]):
        block = f"{base}decoder.{i}"
        normed = layer_norm(state, f"{block}.norm1", tokens)
        seen = self_attention(state, f"{block}.self_attn", normed, tiny["heads"], hidden)
        if i == 0:
            local = graph(state, f"{block}.local_self_attn", normed, normed, among)
            seen = linear(state, f"{block}.self_attn_merge_map", torch.cat([seen, local], dim=2))
        tokens = tokens + seen
        normed = layer_norm(state, f"{block}.norm_q", tokens)
        known = layer_norm(state, f"{block}.norm_v", memory)
        q, k, v = (
            linear(state, f"{block}.cross_attn.{part}_map", value)
            for part, value in (("q", normed), ("k", known), ("v", known))
        )
        seen = linear(state, f"{block}.cross_attn.proj", attention(q, k, v, tiny["heads"]))
        if i == 0:
            local = graph(state, f"{block}.local_cross_attn", normed, known, nearest(at, centres, tiny["k"]))
            seen = linear(state, f"{block}.cross_attn_merge_map", torch.cat([seen, local], dim=2))
        tokens = tokens + seen
        tokens = tokens + mlp(state, f"{block}.mlp", layer_norm(state, f"{block}.norm2", tokens), ("fc1", "fc2"))
    hidden_layer = linear(state, "increase_dim.0", tokens[:, :asked])
    mean, variance = state["increase_dim.1.running_mean"], state["increase_dim.1.running_var"]
    scaled = (hidden_layer - mean) / (variance + 1e-5).sqrt()
    scaled = scaled * state["increase_dim.1.weight"] + state["increase_dim.1.bias"]
    whole = linear(state, "increase_dim.3", F.leaky_relu(scaled, 0.2)).max(dim=1).values
    joint = torch.cat([whole[:, None].expand(-1, count, -1), tokens, centres], dim=2)
    grown = linear(state, "reduce_map", joint)
    best = grown[:, :asked].max(dim=1).values
    grown = mlp(state, "decode_head", torch.cat([best[:, None].expand_as(grown), grown], dim=2), ("fc1", "fc2"))
    clouds = centres[:, :, None] + grown.reshape(len(points), count, tiny["factor"], 3)
    return centres[:, :asked], clouds[:, :asked].flatten(1, 2), clouds[:, asked:]


def training_with_fixed_norms(net: AdaPoinTr) -> AdaPoinTr:
    """Training, except that batch norm uses its running statistics."""
    net.train()
    net.increase_dim[1].eval()
    return net


def test_values_equal_the_plain_formulation(clouds: torch.Tensor) -> None:
    net = network().eval()
    with torch.no_grad():
        result, (coarse, fine, _) = net(clouds), plain(net, clouds)
    assert result.coarse.shape == (3, 16, 3) and result.fine.shape == (3, 64, 3)
    torch.testing.assert_close(result.stages, (coarse, fine))


def test_the_denoising_equals_the_plain_formulation(clouds: torch.Tensor) -> None:
    net = training_with_fixed_norms(network())
    with torch.no_grad():
        result = net(clouds, clouds.flip(0) * 0.9)
        coarse, fine, grown = plain(net, clouds, result.denoising.centres)
    torch.testing.assert_close(result.stages, (coarse, fine))
    torch.testing.assert_close(result.denoising.clouds, grown)
    assert grown.shape == (3, 4, 4, 3)


def test_the_truth_does_not_reach_the_prediction(clouds: torch.Tensor) -> None:
    net = network().train()
    with torch.no_grad():
        one, other = net(clouds, clouds * 0.5), net(clouds, clouds.flip(0))
        alone = net(clouds)
    torch.testing.assert_close(one.stages, other.stages)
    torch.testing.assert_close(one.stages, alone.stages)
    assert not torch.allclose(one.denoising.clouds, other.denoising.clouds) and alone.denoising is None


def test_noised_centres_lie_near_the_points_that_they_come_from(clouds: torch.Tensor) -> None:
    truth = clouds[:, :40] + 3.0
    for noised, cloud in (("truth", truth), ("partial", clouds)):
        net = network(noised=noised, noise=0.04, noise_limit=0.05).train()
        assert net.uses_truth is (noised == "truth")
        centres = net(clouds, truth).denoising.centres
        assert centres.shape == (3, 4, 3)
        offset = centres - farthest(cloud, 4)
        assert 0 < offset.abs().max() <= 0.05 + 1e-12
    assert network(denoising=0).train()(clouds, truth).denoising is None
    assert not network(denoising=0).uses_truth
    with pytest.raises(ValueError, match="truth, partial"):
        network(noised="both")


def test_the_denoising_alone_gives_gradients(clouds: torch.Tensor) -> None:
    net = network().train()
    net(clouds, clouds * 0.8).denoising.clouds.square().sum().backward()
    parts = ("decode_head.fc2.weight", "base_model.decoder.0.self_attn.qkv.weight", "base_model.mlp_query.0.weight")
    named = dict(net.named_parameters())
    assert all(named[part].grad.abs().max() > 0 for part in parts)


def test_evaluation_draws_nothing_and_training_draws_from_torch_alone(clouds: torch.Tensor) -> None:
    net = network().eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        before = torch.get_rng_state()
        first = net(clouds).fine
        assert torch.equal(torch.get_rng_state(), before) and torch.equal(net(clouds).fine, first)
        net.train()
        torch.manual_seed(4)
        one = net(clouds, clouds).denoising.centres
        torch.manual_seed(4)
        assert torch.equal(net(clouds, clouds).denoising.centres, one)


def test_the_order_of_the_points_matters_in_the_first_alone(clouds: torch.Tensor) -> None:
    net = network().eval()
    order = torch.cat([torch.zeros(1, dtype=torch.int64), 1 + torch.randperm(63, generator=torch.Generator())])
    torch.testing.assert_close(net(clouds[:, order]).stages, net(clouds).stages)


@pytest.mark.parametrize("points", sorted(SIZES))
def test_the_sizes_of_the_field_come_out(points: int) -> None:
    net = AdaPoinTr(**NARROW, factor=SIZES[points]).eval()
    with torch.no_grad():
        result = net(torch.rand(1, 100, 3, generator=torch.Generator().manual_seed(0)))
    assert net.output_points == points
    assert result.coarse.shape == (1, 512, 3) and result.fine.shape == (1, points, 3)
