"""The network of GraspNet-1Billion's baseline (Fang et al., CVPR 2020) in plain torch, for inference.

A PointNet++ backbone describes 1,024 seeds among the points of a view; each seed says whether it lies on an object and
from which of 300 directions to approach it; the points in a cylinder along that direction are described at four depths;
two heads then say, for each of twelve angles about the approach axis, score, width and tolerance. Layers carry the
names of the published code, so that its checkpoints load as they are.

Features travel as rows ``(..., C)``: a 1 x 1 convolution is then one matrix product, and a batch norm that is not
trained is folded into it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from completion.points import ball_query, farthest_points, gather_points, group, three_interpolate
from grasping.generators.graspnet_baseline.cylinder import cylinder_query
from grasping.generators.graspnet_baseline.directions import approach_views, rotations

SEEDS = 1024
VIEWS = 300
ANGLES = 12
DEPTHS = (0.01, 0.02, 0.03, 0.04)

# (centres, radius in metres, points a group, channels) of the four set abstractions
_ABSTRACTIONS = (
    (2048, 0.04, 64, (3, 64, 64, 128)),
    (1024, 0.10, 32, (131, 128, 128, 256)),
    (512, 0.20, 16, (259, 128, 128, 256)),
    (256, 0.30, 16, (259, 128, 128, 256)),
)
_CROP_RADIUS, _CROP_BEHIND, _CROP_POINTS = 0.05, -0.02, 64  # metres
_CROP_CHANNELS = (3, 64, 128, 256)
# Farthest point sampling as published passes over points within this squared distance of the camera, in m².
_AT_CAMERA = 1e-3
# Groups whose rows are held at once in a chain of layers: 4 MB at the widest. Faster than all at once, too.
_BLOCK_ROWS = 1 << 12


@dataclass(frozen=True)
class Predictions:
    """What the network says of a batch of clouds; ``S`` seeds, ``A`` angles, ``D`` depths.

    Attributes:
        seeds: ``(B, S, 3)`` metres, camera frame; seed_indices: ``(B, S)`` int64, which points of the cloud they are.
        objectness: ``(B, S, 2)`` logits of "not on an object", "on an object".
        approach: ``(B, S, 3)`` unit vectors, the way the gripper goes.
        score: ``(B, S, D, A)``; angle: ``(B, S, D, A)`` logits; width: ``(B, S, D, A)`` metres, before it is widened;
            tolerance: ``(B, S, D, A)`` metres.
    """

    seeds: Tensor
    seed_indices: Tensor
    objectness: Tensor
    approach: Tensor
    score: Tensor
    angle: Tensor
    width: Tensor
    tolerance: Tensor


class _Norm(nn.Module):
    """A batch norm under the name that the published code gives it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(channels)


class _Layer(nn.Module):
    """A 1 x 1 convolution without offset, batch norm, ReLU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 1, bias=False)
        self.bn = _Norm(channels_out)

    def forward(self, rows: Tensor) -> Tensor:
        return _product(rows, self.conv, self.bn.bn).relu_()


class _Layers(nn.Sequential):
    """Shared by all points: rows ``(R, C_in)`` to rows ``(R, C_out)``."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        for number, pair in enumerate(pairwise(channels)):
            self.add_module(f"layer{number}", _Layer(*pair))

    def pooled(self, groups: Tensor) -> Tensor:
        """Groups ``(G, k, C_in)`` -> the maximum over each group's rows ``(G, C_out)``, block by block."""
        blocks = groups.split(max(1, _BLOCK_ROWS // groups.shape[1]))
        return torch.cat([self(block.flatten(0, 1)).view(*block.shape[:2], -1).amax(dim=1) for block in blocks])


class _Abstraction(nn.Module):
    """Set abstraction: groups around farthest points, in units of the radius, each described by a maximum."""

    def __init__(self, centres: int, radius: float, size: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.centres, self.radius, self.size = centres, radius, size
        self.mlp_module = _Layers(channels)

    def forward(self, points: Tensor, features: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """``(B, N, 3)``, ``(B, N, C)`` -> indices ``(B, S)`` of centres, centres, features ``(B, S, C')``."""
        chosen = spread_points(points, self.centres)
        centres = gather_points(points, chosen)
        index = ball_query(points, centres, self.radius, self.size)
        groups = (group(points, index) - centres[:, :, None]) / self.radius
        if features is not None:
            groups = torch.cat([groups, group(features, index)], dim=-1)
        return chosen, centres, self.mlp_module.pooled(groups.flatten(0, 1)).view(*centres.shape[:2], -1)


class _Propagation(nn.Module):
    """Feature propagation: sparse features carried to denser points and joined with those already there."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.mlp = _Layers(channels)

    def forward(self, dense: Tensor, sparse: Tensor, dense_features: Tensor, sparse_features: Tensor) -> Tensor:
        carried = three_interpolate(sparse_features, sparse, dense, power=1)
        rows = torch.cat([carried, dense_features], dim=-1)
        joined: Tensor = self.mlp(rows.flatten(0, 1)).view(*dense.shape[:2], -1)
        return joined


class _Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sa1, self.sa2, self.sa3, self.sa4 = (_Abstraction(*settings) for settings in _ABSTRACTIONS)
        self.fp1 = _Propagation((512, 256, 256))
        self.fp2 = _Propagation((512, 256, 256))

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(B, N, 3)`` -> seeds' indices ``(B, S)``, points ``(B, S, 3)`` and features ``(B, S, 256)``."""
        first_indices, first, of_first = self.sa1(points, None)
        seed_indices, seeds, of_seeds = self.sa2(first, of_first)
        _, third, of_third = self.sa3(seeds, of_seeds)
        _, fourth, of_fourth = self.sa4(third, of_third)
        of_third = self.fp1(third, fourth, of_third, of_fourth)
        return first_indices.gather(1, seed_indices), seeds, self.fp2(seeds, third, of_seeds, of_third)


class _Head(nn.Module):
    """Three products, batch norm and ReLU after the first two."""

    def __init__(self, channels: tuple[int, int, int, int]) -> None:
        super().__init__()
        first, second, third, last = channels
        self.conv1, self.conv2, self.conv3 = (
            nn.Conv1d(a, b, 1) for a, b in ((first, second), (second, third), (third, last))
        )
        self.bn1, self.bn2 = nn.BatchNorm1d(second), nn.BatchNorm1d(third)

    def forward(self, rows: Tensor) -> Tensor:
        rows = _product(rows, self.conv1, self.bn1).relu_()
        rows = _product(rows, self.conv2, self.bn2).relu_()
        return _product(rows, self.conv3, None)


class _ViewEstimator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = _Backbone()
        self.vpmodule = _Head((256, 256, 2 + VIEWS, 2 + VIEWS))


class _Crop(nn.Module):
    """The points in a cylinder along each seed's approach, in the gripper's axes, described at each depth."""

    def __init__(self) -> None:
        super().__init__()
        self.mlps = _Layers(_CROP_CHANNELS)

    def forward(self, points: Tensor, seeds: Tensor, axes: Tensor) -> Tensor:
        """``(B, N, 3)``, ``(B, S, 3)``, ``(B, S, 3, 3)`` -> ``(B, S, D, 256)``."""
        index = cylinder_query(points, seeds, axes, _CROP_RADIUS, _CROP_BEHIND, DEPTHS, _CROP_POINTS)  # (B, S, D, k)
        batch, count = seeds.shape[:2]
        offset = group(points, index.flatten(1, 2)).view(batch, count, -1, 3) - seeds[:, :, None]
        return self.mlps.pooled((offset @ axes).view(-1, _CROP_POINTS, 3)).view(batch, count, len(DEPTHS), -1)


class _GraspGenerator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.crop = _Crop()
        self.operation = _Head((256, 128, 128, 3 * ANGLES))
        self.tolerance = _Head((256, 128, 128, ANGLES))


class GraspNetBaseline(nn.Module):
    """The whole network; see the module. Its state dict is the published one: 162 tensors."""

    views: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.view_estimator = _ViewEstimator()
        self.grasp_generator = _GraspGenerator()
        self.register_buffer("views", approach_views(VIEWS), persistent=False)
        self.eval()

    def train(self, mode: bool = True) -> GraspNetBaseline:
        """Only ``False``: batch norms are folded into the products, and the losses are not here."""
        if mode:
            raise NotImplementedError("this network is for inference; train with the published code")
        super().train(False)
        return self

    def forward(self, points: Tensor) -> Predictions:
        """Predict for clouds of one size.

        Args:
            points: ``(B, N, 3)`` float32 metres, camera frame (z away from it); trained with N = 20,000.
        """
        seed_indices, seeds, features = self.view_estimator.backbone(points)
        batch, count = seeds.shape[:2]
        said = self.view_estimator.vpmodule(features.flatten(0, 1)).view(batch, count, -1)
        # Views are numbered by where the camera-to-be would stand; the gripper goes the other way.
        approach = -self.views[said[..., 2:].argmax(dim=-1)]  # (B, S, 3)
        crops = self.grasp_generator.crop(points, seeds, rotations(approach, torch.zeros_like(approach[..., 0])))
        rows = crops.flatten(0, 2)
        shape = (batch, count, len(DEPTHS), -1)
        score, angle, width = self.grasp_generator.operation(rows).view(*shape).split(ANGLES, dim=-1)
        tolerance = self.grasp_generator.tolerance(rows).view(*shape)
        return Predictions(seeds, seed_indices, said[..., :2], approach, score, angle, width, tolerance)


def spread_points(points: Tensor, count: int) -> Tensor:
    """Farthest point sampling as the published extension does it.

    It starts at the first point and passes over points at the camera (padding, where there is any), the start excepted.

    Returns:
        ``(B, count)`` int64.
    """
    at_camera = points.square().sum(dim=-1) <= _AT_CAMERA
    if not bool(at_camera[:, 1:].any()):
        return farthest_points(points, count)
    rows = []
    for cloud, passed in zip(points, at_camera, strict=True):
        passed[0] = False
        left = torch.nonzero(~passed)[:, 0]
        rows.append(left[farthest_points(cloud[left][None], count)[0]])
    return torch.stack(rows)


def _product(rows: Tensor, convolution: nn.Conv1d | nn.Conv2d, norm: nn.BatchNorm1d | None) -> Tensor:
    """A 1 x 1 convolution of rows, and the norm after it where there is one."""
    weight, offset = convolution.weight.flatten(1), convolution.bias
    if norm is not None:
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        weight = weight * scale[:, None]
        moved = norm.running_mean if offset is None else norm.running_mean - offset
        offset = norm.bias - moved * scale
    return linear(rows, weight, offset)
