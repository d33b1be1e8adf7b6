"""AdaPoinTr against its definition written plainly: every edge, every concatenation, every head of attention."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from completion.networks.adapointr import AdaPoinTr

SIZES = {2048: 4, 4096: 8, 8192: 16, 16384: 32}
NARROW = {key: value for key, value in AdaPoinTr.tiny.items() if key not in ("num_query", "factor")}


@pytest.fixture
def network(drawn: Callable[..., AdaPoinTr]) -> Callable[..., AdaPoinTr]:
    return lambda **changes: drawn(AdaPoinTr, **{**AdaPoinTr.tiny, **changes})


@pytest.fixture
def plain(plain_layers: type) -> Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """``plain(net, points, noised)``: coarse, fine, and what grew around the noised centres."""

    def compute(net: AdaPoinTr, points: torch.Tensor, noised: torch.Tensor | None = None):
        do, tiny, base = plain_layers(net.state_dict()), net.tiny, "base_model."

        def finish(block: str, tokens: torch.Tensor) -> torch.Tensor:
            return tokens + do.mlp(f"{block}.mlp", do.layer_norm(f"{block}.norm2", tokens, 1e-6), ("fc1", "fc2"))

        at, features = do.proxies(f"{base}grouper", points, tiny["centres"], tiny["grouper_k"])
        tokens = do.mlp(f"{base}input_proj", features, ("0", "2")) + do.mlp(f"{base}pos_embed", at, ("0", "2"))
        for i in range(tiny["encoder_depth"]):
            block = f"{base}encoder.{i}"
            normed = do.layer_norm(f"{block}.norm1", tokens, 1e-6)
            seen = do.self_attention(f"{block}.attn", normed, tiny["heads"])
            if i == 0:
                local = do.graph(f"{block}.local_attn.knn_map.0", normed, normed, do.nearest(at, at, tiny["k"]))
                seen = do.linear(f"{block}.merge_map", torch.cat([seen, local], dim=2))
            tokens = finish(block, tokens + seen)
        memory, asked = tokens, tiny["num_query"]
        code = do.mlp(f"{base}increase_dim", memory, ("0", "2")).max(dim=1).values
        proposed = do.mlp(f"{base}coarse_pred", code, ("0", "2")).reshape(len(points), asked, 3)
        candidates = torch.cat([proposed, do.farthest(points, asked // 2)], dim=1)
        rank = do.mlp(f"{base}query_ranking", candidates, ("0", "2", "4")).sigmoid()[..., 0]
        centres = do.pick(candidates, rank.sort(dim=1, descending=True).indices[:, :asked])
        among, hidden = do.nearest(centres, centres, tiny["k"]), None
        if noised is not None:
            centres = torch.cat([centres, noised], dim=1)
            among = torch.cat([among, do.nearest(centres, noised, tiny["k"])], dim=1)
            hidden = torch.zeros(centres.shape[1], centres.shape[1], dtype=torch.bool)
            hidden[:asked, asked:] = True
        across, count = do.nearest(at, centres, tiny["k"]), centres.shape[1]
        tiled = torch.cat([code[:, None].expand(-1, count, -1), centres], dim=2)
        tokens = do.mlp(f"{base}mlp_query", tiled, ("0", "2", "4"))
        for i in range(tiny["decoder_depth"]):
            block = f"{base}decoder.{i}"
            normed = do.layer_norm(f"{block}.norm1", tokens, 1e-6)
            seen = do.self_attention(f"{block}.self_attn", normed, tiny["heads"], hidden)
            if i == 0:
                local = do.graph(f"{block}.local_self_attn.knn_map.0", normed, normed, among)
                seen = do.linear(f"{block}.self_attn_merge_map", torch.cat([seen, local], dim=2))
            tokens = tokens + seen
            normed = do.layer_norm(f"{block}.norm_q", tokens, 1e-6)
            known = do.layer_norm(f"{block}.norm_v", memory, 1e-6)
            seen = do.cross_attention(f"{block}.cross_attn", normed, known, tiny["heads"])
            if i == 0:
                local = do.graph(f"{block}.local_cross_attn.knn_map.0", normed, known, across)
                seen = do.linear(f"{block}.cross_attn_merge_map", torch.cat([seen, local], dim=2))
            tokens = finish(block, tokens + seen)
        whole = do.through_norm("increase_dim", tokens[:, :asked]).max(dim=1).values
        joint = torch.cat([whole[:, None].expand(-1, count, -1), tokens, centres], dim=2)
        grown = do.linear("reduce_map", joint)
        best = grown[:, :asked].max(dim=1).values
        grown = do.mlp("decode_head", torch.cat([best[:, None].expand_as(grown), grown], dim=2), ("fc1", "fc2"))
        clouds = centres[:, :, None] + grown.reshape(len(points), count, tiny["factor"], 3)
        return centres[:, :asked], clouds[:, :asked].flatten(1, 2), clouds[:, asked:]

    return compute


def test_values_equal_the_plain_formulation(network: Callable, plain: Callable, clouds: torch.Tensor) -> None:
    net = network().eval()
    with torch.no_grad():
        result, (coarse, fine, _) = net(clouds), plain(net, clouds)
    assert result.coarse.shape == (3, 16, 3) and result.fine.shape == (3, 64, 3)
    torch.testing.assert_close(result.stages, (coarse, fine))


def test_the_denoising_equals_the_plain_formulation(network: Callable, plain: Callable, clouds: torch.Tensor) -> None:
    net = network().train()
    net.increase_dim[1].eval()  # batch norm by its running statistics
    with torch.no_grad():
        result = net(clouds, clouds.flip(0) * 0.9)
        coarse, fine, grown = plain(net, clouds, result.denoising.centres)
    torch.testing.assert_close(result.stages, (coarse, fine))
    torch.testing.assert_close(result.denoising.clouds, grown)
    assert grown.shape == (3, 4, 4, 3)


def test_the_truth_does_not_reach_the_prediction(network: Callable, clouds: torch.Tensor) -> None:
    net = network().train()
    with torch.no_grad():
        one, other = net(clouds, clouds * 0.5), net(clouds, clouds.flip(0))
        alone = net(clouds)
    torch.testing.assert_close(one.stages, other.stages)
    torch.testing.assert_close(one.stages, alone.stages)
    assert not torch.allclose(one.denoising.clouds, other.denoising.clouds) and alone.denoising is None


def test_noised_centres_lie_near_the_points_that_they_come_from(
    network: Callable, plain_layers: type, clouds: torch.Tensor
) -> None:
    truth = clouds[:, :40] + 3.0
    for noised, cloud in (("truth", truth), ("partial", clouds)):
        net = network(noised=noised, noise=0.04, noise_limit=0.05).train()
        assert net.uses_truth is (noised == "truth")
        centres = net(clouds, truth).denoising.centres
        assert centres.shape == (3, 4, 3)
        assert 0 < (centres - plain_layers.farthest(cloud, 4)).abs().max() <= 0.05 + 1e-12
    assert network(denoising=0).train()(clouds, truth).denoising is None
    assert not network(denoising=0).uses_truth
    with pytest.raises(ValueError, match="truth, partial"):
        network(noised="both")


def test_the_denoising_alone_gives_gradients(network: Callable, clouds: torch.Tensor) -> None:
    net = network().train()
    net(clouds, clouds * 0.8).denoising.clouds.square().sum().backward()
    parts = ("decode_head.fc2.weight", "base_model.decoder.0.self_attn.qkv.weight", "base_model.mlp_query.0.weight")
    named = dict(net.named_parameters())
    assert all(named[part].grad.abs().max() > 0 for part in parts)


def test_evaluation_draws_nothing_and_training_draws_from_torch_alone(network: Callable, clouds: torch.Tensor) -> None:
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


def test_of_the_order_of_the_points_only_the_first_matters(network: Callable, clouds: torch.Tensor) -> None:
    net = network().eval()
    order = torch.cat([torch.tensor([0]), 1 + torch.randperm(63, generator=torch.Generator().manual_seed(2))])
    torch.testing.assert_close(net(clouds[:, order]).stages, net(clouds).stages)


@pytest.mark.parametrize("points", sorted(SIZES))
def test_the_sizes_of_the_field_come_out(points: int) -> None:
    net = AdaPoinTr(**NARROW, factor=SIZES[points]).eval()
    with torch.no_grad():
        result = net(torch.rand(1, 100, 3, generator=torch.Generator().manual_seed(0)))
    assert net.output_points == points
    assert result.coarse.shape == (1, 512, 3) and result.fine.shape == (1, points, 3)
