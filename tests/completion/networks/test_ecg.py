"""ECG with weights in MVP_Benchmark's layout, against its formulation written plainly: every edge, every copy."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from completion.networks.ecg import ECG

GROWTH, K = 4, 4
HIERARCHY = (32, 16, 8)
CODE, SQUEEZED = 16, 12
UP = (20, 16, 12, 12)
HEAD = 8


def shapes(copies: int) -> tuple[dict[str, tuple[int, int]], tuple[str, ...]]:
    layers = {"encoder.conv1": (3, 8), "encoder.conv2": (8, 12), "encoder.conv3": (24, 16), "encoder.conv4": (16, 20)}
    layers |= {"decoder.fc1": (20, 16), "decoder.fc2": (16, 16), "decoder.fc3": (16, 3 * 16)}
    e, level = "decoder.encoder.", [5 * GROWTH]
    for _ in HIERARCHY:
        level.append(2 * level[-1] + 5 * GROWTH)
    for i, (read, width) in enumerate(zip([3, *(2 * w for w in level)], [GROWTH, *[2 * GROWTH] * 3], strict=False)):
        layers[f"{e}conv{i + 1}"] = (read, width)
        dense = f"{e}dense_conv{i + 1}"
        layers[f"{dense}.first_conv"] = (2 * width, GROWTH)
        layers[f"{dense}.model.stack_conv_1.model.conv"] = (width + GROWTH, GROWTH)
        layers[f"{dense}.model.stack_conv_2.model.conv"] = (width + 2 * GROWTH, GROWTH)
    layers |= {f"{e}gf_conv": (level[3], CODE), f"{e}fc1": (CODE, SQUEEZED), f"{e}fc2": (SQUEEZED, CODE)}
    for i, (own, below) in enumerate(zip(level[::-1], [CODE, *UP], strict=False)):
        layers[f"{e}conv{i + 5}"] = (own + below, UP[i])
    layers |= {"decoder.conv1": (HEAD if copies > 1 else UP[3], HEAD), "decoder.conv2": (HEAD, 3)}
    if copies > 1:
        x = "decoder.expansion."
        layers |= {f"{x}conv1": (2 * UP[3], HEAD), f"{x}conv2": (2 * UP[3] + HEAD, HEAD * copies)}
        layers[f"{x}conv3"] = (HEAD, HEAD)
    return layers, ("decoder.fc", f"{e}fc")


def nearest(points: torch.Tensor, queries: torch.Tensor, k: int) -> torch.Tensor:
    return torch.cdist(queries, points, compute_mode="donot_use_mm_for_euclid_dist").argsort(dim=2)[:, :, :k]


def pick(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """``(B, N, C)`` at ``(B, ...)`` -> ``(B, ..., C)``."""
    return torch.stack([one[i] for one, i in zip(values, index, strict=True)])


def farthest(points: torch.Tensor, count: int) -> torch.Tensor:
    chosen = []
    for cloud in points:
        taken = [0]
        between = torch.cdist(cloud, cloud).numpy()
        while len(taken) < count:
            distance = between[:, taken].min(axis=1)
            distance[taken] = -1
            taken.append(int(distance.argmax()))
        chosen.append(taken)
    return torch.tensor(chosen)


def edges(features: torch.Tensor, k: int, minus: bool) -> torch.Tensor:
    other = pick(features, nearest(features, features, k))  # (B, N, k, C)
    own = features[:, :, None].expand_as(other)
    return torch.cat([own, other - own if minus else other], dim=3)


def plain(layer: Callable, partial: torch.Tensor, copies: int, output: int) -> tuple[torch.Tensor, torch.Tensor]:
    features = layer("encoder.conv2", F.relu(layer("encoder.conv1", partial)))
    pooled = features.max(dim=1, keepdim=True).values.expand_as(features)
    code = (
        layer("encoder.conv4", F.relu(layer("encoder.conv3", torch.cat([features, pooled], dim=2)))).max(dim=1).values
    )
    flat = layer("decoder.fc3", F.relu(layer("decoder.fc2", F.relu(layer("decoder.fc1", code)))))
    coarse = torch.stack(flat.chunk(3, dim=1), dim=2)
    e = "decoder.encoder."

    def dense(name: str, x: torch.Tensor) -> torch.Tensor:
        own = x[:, :, None].expand(-1, -1, K, -1)
        y = torch.cat([F.relu(layer(f"{name}.first_conv", edges(x, K, minus=True))), own], dim=3)
        y = torch.cat([y, F.relu(layer(f"{name}.model.stack_conv_1.model.conv", y))], dim=3)
        y = torch.cat([y, layer(f"{name}.model.stack_conv_2.model.conv", y)], dim=3)
        return F.relu(y.max(dim=2).values)

    cloud = torch.cat([coarse, partial], dim=1)
    x = F.relu(layer(f"{e}conv1", cloud))
    levels = [(torch.cat([dense(f"{e}dense_conv1", x), x], dim=2), cloud)]
    for i, count in enumerate(HIERARCHY):
        above, cloud = levels[-1]
        index = farthest(cloud.detach(), count)
        sampled = pick(cloud, index)
        around = pick(above, nearest(cloud, sampled, K)).max(dim=2).values
        down = torch.cat([pick(above, index), around], dim=2)
        x = dense(f"{e}dense_conv{i + 2}", F.relu(layer(f"{e}conv{i + 2}", down)))
        levels.append((torch.cat([x, down], dim=2), sampled))
    code = layer(f"{e}gf_conv", levels[-1][0]).max(dim=1).values
    code = F.relu(layer(f"{e}fc2", F.relu(layer(f"{e}fc1", code))))
    x = torch.cat([code[:, None].expand(-1, HIERARCHY[-1], -1), levels[-1][0]], dim=2)
    x = F.relu(layer(f"{e}conv5", x))
    for i in range(3):
        (own, cloud), sparse = levels[2 - i], levels[3 - i][1]
        index = nearest(sparse, cloud, 3)
        # The compiled extension gives the weights no gradient.
        weight = 1 / (pick(sparse, index) - cloud[:, :, None]).detach().norm(dim=3).clamp(min=1e-8)
        weight = weight / weight.sum(dim=2, keepdim=True)
        x = layer(f"{e}conv{i + 6}", torch.cat([own, (pick(x, index) * weight[..., None]).sum(dim=2)], dim=2))
        x = F.relu(x) if i < 2 else x
    if copies > 1:
        read = edges(x, 4, minus=False)
        y = F.relu(torch.cat([layer("decoder.expansion.conv1", read), read], dim=3))
        y = F.relu(layer("decoder.expansion.conv2", y))  # (B, N, k, copies · HEAD)
        parts = [layer("decoder.expansion.conv3", part).max(dim=2).values for part in y.chunk(copies, dim=3)]
        x = torch.stack(parts, dim=2).flatten(1, 2)
    fine = layer("decoder.conv2", F.relu(layer("decoder.conv1", x)))
    return coarse, pick(fine, farthest(fine.detach(), output)) if fine.shape[1] > output else fine


@pytest.mark.parametrize(("output", "copies"), [(80, 1), (48, 1), (96, 2), (210, 3)])
def test_mvp(published_weights: type, clouds: torch.Tensor, output: int, copies: int) -> None:
    layers, flat = shapes(copies)
    weights = published_weights(layers, kernel=2, flat=flat)
    clouds = clouds[:2]
    wanted = plain(weights.layer, clouds, copies, output)
    net = weights.into(ECG(**{**ECG.tiny, "output_points": output}), "mvp")
    found = net(clouds)
    # Interpolation weights differ by 1e-8 of a distance, and distances among features by rounding.
    torch.testing.assert_close(found.stages, wanted, rtol=1e-5, atol=1e-6)
    gradients = torch.autograd.grad(found.fine.sin().sum(), list(net.parameters()), allow_unused=True)
    state = {name: value.requires_grad_() for name, value in weights.state.items()}
    theirs = torch.autograd.grad(plain(weights.layer, clouds, copies, output)[1].sin().sum(), list(state.values()))
    ours = dict(zip((name for name, _ in net.named_parameters()), gradients, strict=True))
    renamed = ECG.published["mvp"].rename(dict(zip(state, theirs, strict=True)))
    torch.testing.assert_close(ours, renamed, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("count", [1, 20, 64, 300])
def test_an_observation_too_small_for_the_output_is_repeated(clouds: torch.Tensor, count: int) -> None:
    net = ECG(**ECG.tiny).double().eval()
    partial = clouds.repeat(1, 5, 1)[:, :count]
    fine = net(partial).fine
    assert fine.shape == (3, 96, 3) and fine.isfinite().all()


def test_copies_follow_the_sizes() -> None:
    sizes = {"num_coarse": 1024, "input_points": 2048}
    published = [ECG(**{**ECG.tiny, **sizes, "output_points": points}).copies for points in (2048, 4096, 8192, 16384)]
    assert published == [1, 2, 3, 6]
