"""Outputs made by hand, decoded by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from grasping.generators.graspnet_baseline.decode import decode
from grasping.generators.graspnet_baseline.network import ANGLES, DEPTHS, Predictions

SEEDS = 3


def blank() -> dict[str, torch.Tensor]:
    """Three seeds on objects that look along z; every angle and depth alike."""
    heads = {name: torch.zeros(1, SEEDS, len(DEPTHS), ANGLES) for name in ("score", "angle", "width", "tolerance")}
    return {
        "seeds": torch.arange(9.0).reshape(1, SEEDS, 3),
        "seed_indices": torch.tensor([[4, 2, 9]]),
        "objectness": torch.tensor([0.0, 1.0]).expand(1, SEEDS, 2).clone(),
        "approach": torch.tensor([0.0, 0.0, 1.0]).expand(1, SEEDS, 3).clone(),
        **heads,
    }


def test_the_likeliest_angle_of_each_depth_then_the_best_depth() -> None:
    p = blank()
    p["angle"][0, 0, :, 5] = 1.0
    p["angle"][0, 0, 2, 7] = 2.0  # at the third depth another angle is likelier
    p["score"][0, 0, :, 5] = torch.tensor([0.1, 0.2, 9.0, 0.3])  # 9.0 belongs to an angle that is not taken
    p["score"][0, 0, 2, 7] = 0.8
    p["width"][0, 0, 2, 7] = 0.05
    p["tolerance"][0, 0, 2, 7] = 0.02
    ((grasps, seeds),) = decode(Predictions(**p))
    assert len(grasps) == SEEDS and seeds.tolist() == [0, 1, 2]
    assert grasps.confidence[0] == pytest.approx(0.8 * 0.02 / 0.05)
    assert grasps.width[0] == pytest.approx(1.2 * 0.05)
    assert grasps.depth[0] == pytest.approx(0.03) and grasps.height[0] == pytest.approx(0.02)
    angle = 7 * math.pi / 12  # closing along y, turned about z
    np.testing.assert_allclose(grasps.rotation[0][:, 0], [0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(grasps.rotation[0][:, 1], [-math.sin(angle), math.cos(angle), 0], atol=1e-6)
    assert grasps.translation.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert grasps.object_id.tolist() == [-1, -1, -1]


def test_ties_go_to_the_first_angle_and_depth() -> None:
    ((grasps, _),) = decode(Predictions(**blank()))
    np.testing.assert_allclose(grasps.depth, DEPTHS[0])
    np.testing.assert_allclose(grasps.rotation[:, :, 1], [[0, 1, 0]] * SEEDS, atol=1e-6)


@pytest.mark.parametrize(("predicted", "width"), [(-0.3, 0.0), (0.02, 0.024), (0.09, 0.1)])
def test_widths_are_widened_and_clipped_to_the_gripper(predicted: float, width: float) -> None:
    p = blank()
    p["width"][:] = predicted
    ((grasps, _),) = decode(Predictions(**p))
    np.testing.assert_allclose(grasps.width, width, rtol=1e-6)


def test_seeds_off_objects_have_no_grasp_and_undecided_ones_neither() -> None:
    p = blank()
    p["objectness"][0] = torch.tensor([[1.0, 0.0], [0.0, 0.5], [0.3, 0.3]])
    ((grasps, seeds),) = decode(Predictions(**p))
    assert seeds.tolist() == [1] and grasps.translation.tolist() == [[3, 4, 5]]
    p["objectness"][:] = torch.tensor([1.0, 0.0])
    ((grasps, seeds),) = decode(Predictions(**p))
    assert len(grasps) == 0 and seeds.shape == (0,)


def test_a_batch_is_its_clouds() -> None:
    generator = torch.Generator().manual_seed(0)
    p = {name: torch.randn((2, *value.shape[1:]), generator=generator) for name, value in blank().items()}
    p["seed_indices"] = torch.zeros((2, SEEDS), dtype=torch.int64)
    both = decode(Predictions(**p))
    for b in range(2):
        ((alone, seeds),) = decode(Predictions(**{name: value[b : b + 1] for name, value in p.items()}))
        assert np.array_equal(alone.to_array(), both[b][0].to_array()) and torch.equal(seeds, both[b][1])
