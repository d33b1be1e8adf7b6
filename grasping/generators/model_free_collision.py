"""Collision of grasps with a cloud, without models: the filter of graspnet-baseline.

The gripper with open fingers, and the way it comes, are four boxes. A box that is full of cloud would hold as many
points as it has voxels; a grasp collides where the points in its boxes are more than a share of that number. The share
is small (1 % as published) and boxes overlap the object's own surface only where the grasp is too deep or too narrow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grasping.clouds import voxel_downsample
from grasping.grasps import Grasps

_BLOCK = 1 << 22  # numbers held at once


@dataclass(frozen=True)
class ModelFreeCollision:
    """The filter, with the constants that graspnet-baseline publishes its results with.

    Attributes:
        voxel: to which the cloud is brought, metres.
        approach: how far the way along which the gripper comes is tested behind it, metres.
        threshold: of the share of the boxes' voxels that may be filled.
        finger_thickness, finger_length: of this filter's gripper, metres. Its fingers reach from 0.06 behind the tips;
            those of the protocol's evaluation reach 0.02 behind the grasp's translation.
    """

    voxel: float = 0.01
    approach: float = 0.05
    threshold: float = 0.01
    finger_thickness: float = 0.01
    finger_length: float = 0.06

    def __post_init__(self) -> None:
        for name in ("voxel", "finger_thickness", "finger_length"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("approach", "threshold"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

    def collides(self, grasps: Grasps, cloud: ArrayLike) -> NDArray[np.bool_]:
        """Say of each grasp whether it collides.

        Args:
            grasps: G grasps.
            cloud: ``(N, 3)`` metres, in the grasps' frame; objects and surroundings.

        Returns:
            ``(G,)`` bool.
        """
        points = voxel_downsample(np.asarray(cloud, np.float32).reshape(-1, 3), self.voxel).astype(np.float64)
        thickness, length = self.finger_thickness, self.finger_length
        way = max(self.approach, thickness)
        across = grasps.width + 2 * thickness
        volume = grasps.height * (2 * length * thickness + across * (thickness + way))
        inside = np.zeros(len(grasps))
        step = max(1, _BLOCK // (3 * max(1, len(points))))
        for start in range(0, len(grasps), step):
            part = slice(start, start + step)
            offset = points[None] - grasps.translation[part, None]  # (g, N, 3)
            x, y, z = np.moveaxis(offset @ grasps.rotation[part], -1, 0)  # each (g, N)
            half, depth = grasps.width[part, None] / 2, grasps.depth[part, None]
            level = np.abs(z) < grasps.height[part, None] / 2
            beside = np.abs(y) < half + thickness
            back = depth - length
            fingers = (x > back) & (x < depth) & beside & (np.abs(y) > half)
            behind = (x <= back) & (x > back - thickness - way) & beside
            inside[part] = np.count_nonzero(level & (fingers | behind), axis=1)
        share: NDArray[np.float64] = inside / (volume / self.voxel**3 + 1e-6)
        return share > self.threshold
