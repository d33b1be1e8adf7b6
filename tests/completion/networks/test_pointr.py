"""PoinTr against its definition written plainly: every edge, every concatenation, every head, every folded point."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from completion.networks.pointr import PoinTr

leaky = partial(F.leaky_relu, negative_slope=0.2)
SIZES = {
    2048: {"num_query": 96, "fold_step": 4, "appended": 512},
    4096: {"num_query": 224, "fold_step": 4, "appended": 512},
    8192: {"num_query": 96},
    16384: {},
}
NARROW = {key: value for key, value in PoinTr.tiny.items() if key not in ("num_query", "fold_step", "appended")}


@pytest.fixture
def network(drawn: Callable[..., PoinTr]) -> Callable[..., PoinTr]:
    return lambda **changes: drawn(PoinTr, **{**PoinTr.tiny, **changes}).eval()


@pytest.fixture
def plain(plain_layers: type) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """``plain(net, points)``: the coarse and the fine cloud."""

    def compute(net: PoinTr, points: torch.Tensor):
        do, tiny, base, batch = plain_layers(net.state_dict()), net.tiny, "base_model.", len(points)

        def finish(block: str, tokens: torch.Tensor) -> torch.Tensor:
            return tokens + do.mlp(f"{block}.mlp", do.layer_norm(f"{block}.norm2", tokens, 1e-5), ("fc1", "fc2"))

        at, features = do.proxies(f"{base}grouper", points, tiny["centres"], tiny["grouper_k"])
        tokens = do.through_norm(f"{base}input_proj", features)
        for i in range(tiny["encoder_depth"]):
            block = f"{base}encoder.{i}"
            tokens = tokens + do.through_norm(f"{base}pos_embed", at)
            normed = do.layer_norm(f"{block}.norm1", tokens, 1e-5)
            seen = do.self_attention(f"{block}.attn", normed, tiny["heads"])
            if i == 0:
                local = do.graph(f"{block}.knn_map.0", normed, normed, do.nearest(at, at, tiny["k"]))
                seen = do.linear(f"{block}.merge_map", torch.cat([seen, local], dim=2))
            tokens = finish(block, tokens + seen)
        memory, count = tokens, tiny["num_query"]
        code = do.through_norm(f"{base}increase_dim", memory).max(dim=1).values
        centres = do.mlp(f"{base}coarse_pred", code, ("0", "2"), F.relu).reshape(batch, count, 3)
        among, across = do.nearest(centres, centres, tiny["k"]), do.nearest(at, centres, tiny["k"])
        tiled = torch.cat([code[:, None].expand(-1, count, -1), centres], dim=2)
        tokens = do.mlp(f"{base}mlp_query", tiled, ("0", "2", "4"), leaky)
        for i in range(tiny["decoder_depth"]):
            block = f"{base}decoder.{i}"
            normed = do.layer_norm(f"{block}.norm1", tokens, 1e-5)
            seen = do.self_attention(f"{block}.self_attn", normed, tiny["heads"])
            if i == 0:
                local = do.graph(f"{block}.knn_map.0", normed, normed, among)
                seen = do.linear(f"{block}.merge_map", torch.cat([seen, local], dim=2))
            tokens = tokens + seen
            normed = do.layer_norm(f"{block}.norm_q", tokens, 1e-5)
            known = do.layer_norm(f"{block}.norm_v", memory, 1e-5)
            seen = do.cross_attention(f"{block}.attn", normed, known, tiny["heads"])
            if i == 0:
                local = do.graph(f"{block}.knn_map_cross.0", normed, known, across)
                seen = do.linear(f"{block}.merge_map_cross", torch.cat([seen, local], dim=2))
            tokens = finish(block, tokens + seen)
        whole = do.through_norm("increase_dim", tokens).max(dim=1).values
        joint = torch.cat([whole[:, None].expand(-1, count, -1), tokens, centres], dim=2)
        feature = do.linear("reduce_map", joint)

        step = tiny["fold_step"]
        patches = []
        for row in torch.linspace(-1, 1, step, dtype=points.dtype):  # the first coordinate runs fastest
            for column in torch.linspace(-1, 1, step, dtype=points.dtype):
                folded = torch.stack([column, row]).expand(batch, count, 2)
                for layers in ("foldingnet.folding1", "foldingnet.folding2"):
                    hidden = do.linear(f"{layers}.0", torch.cat([folded, feature], dim=2))
                    hidden = do.linear(f"{layers}.3", F.relu(do.batch_norm(f"{layers}.1", hidden)))
                    folded = do.linear(f"{layers}.6", F.relu(do.batch_norm(f"{layers}.4", hidden)))
                patches.append(centres + folded)
        coarse = torch.cat([centres, do.farthest(points, count)], dim=1)
        return coarse, torch.cat([torch.stack(patches, dim=2).flatten(1, 2), points], dim=1)

    return compute


def test_values_equal_the_plain_formulation(network: Callable, plain: Callable, clouds: torch.Tensor) -> None:
    net = network()
    with torch.no_grad():
        result, expected = net(clouds), plain(net, clouds)
    assert result.coarse.shape == (3, 32, 3) and result.fine.shape == (3, 128, 3)
    torch.testing.assert_close(result.stages, expected)


def test_the_observation_is_part_of_the_result_whatever_its_size(
    network: Callable, plain_layers: type, clouds: torch.Tensor
) -> None:
    net = network()
    fine = net(clouds).fine
    assert torch.equal(fine[:, 64:], clouds), "as many as are appended: as they are, in their order"
    large = torch.cat([clouds, clouds[:, 1:] * 1.5], dim=1)
    torch.testing.assert_close(net(large).fine[:, 64:], plain_layers.farthest(large, 64))
    few = net(clouds[:, :40]).fine[:, 64:]
    assert few.shape == (3, 64, 3)
    torch.testing.assert_close(few[:, 40:], few[:, :24])
    assert bool((clouds[:, :40, None] == few[:, None]).all(dim=3).any(dim=2).all()), "a smaller one whole"
    assert torch.equal(network(appended=0)(clouds).fine, fine[:, :64])


def test_evaluation_draws_nothing(network: Callable, clouds: torch.Tensor) -> None:
    net, before = network(), torch.get_rng_state()
    first = net(clouds).fine
    assert torch.equal(net(clouds).fine, first) and torch.equal(torch.get_rng_state(), before)


def test_of_the_order_of_the_points_only_the_first_matters(network: Callable, clouds: torch.Tensor) -> None:
    net = network()
    order = torch.cat([torch.tensor([0]), 1 + torch.randperm(63, generator=torch.Generator().manual_seed(2))])
    one, other = net(clouds[:, order]), net(clouds)
    torch.testing.assert_close(one.coarse, other.coarse)
    torch.testing.assert_close(one.fine[:, :64], other.fine[:, :64])
    assert torch.equal(one.fine[:, 64:], clouds[:, order])


@pytest.mark.parametrize("points", sorted(SIZES))
def test_the_sizes_of_the_field_come_out(points: int) -> None:
    net = PoinTr(**NARROW, **SIZES[points]).eval()
    with torch.no_grad():
        fine = net(torch.rand(1, 100, 3, generator=torch.Generator().manual_seed(0))).fine
    assert net.output_points == points and fine.shape == (1, points, 3)
