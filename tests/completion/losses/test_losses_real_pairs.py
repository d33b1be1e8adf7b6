"""Losses on true pairs and real networks' predictions, at their true sizes, in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import open3d as o3d
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from completion.losses import LOSSES, apml, emd
from completion.metrics import cloud_metrics

pytestmark = pytest.mark.real_data
PAIRS = ("airplane", "chair", "cabinet_0", "cabinet_3")
SIZES = {"airplane": (2048, 16384), "chair": (609, 16384), "cabinet_0": (8192, 8192), "cabinet_3": (8192, 8192)}


@pytest.fixture(scope="module")
def pairs(real_data: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By name (prediction (N, 3), truth (M, 3)) float32; the truth's diagonal is about 1."""
    folder = real_data / "pairs"

    def ply(name: str) -> np.ndarray:
        return np.asarray(o3d.io.read_point_cloud(str(folder / name)).points, np.float32)

    with np.load(folder / "cabinet_truth_and_predictions_8192.npz") as file:
        cabinet = {name: file[name].astype(np.float32) for name in file.files}
    return {
        "airplane": (ply("airplane_partial_2048.ply"), ply("airplane_complete_16384.ply")),
        "chair": (ply("chair_partial_609.ply"), ply("chair_complete_16384.ply")),
        "cabinet_0": (cabinet["prediction_0"], cabinet["truth"]),
        "cabinet_3": (cabinet["prediction_3"], cabinet["truth"]),
    }


def by_tree(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """Every loss of nearest neighbours, in float64 from scipy's tree."""
    (d_a, i_a), (d_b, i_b) = cKDTree(b).query(a), cKDTree(a).query(b)

    def weighted(d: np.ndarray) -> np.ndarray:
        return (1.5 - 1 / (1 + np.exp(-10 * (0.001 - d)))) * d

    lonely = np.bincount(i_a, minlength=len(b)) == 0
    shares = [np.bincount(i)[i] for i in (i_a, i_b)]
    return {
        "cd_l1": (d_a.mean() + d_b.mean()) / 2,
        "cd_l2": (d_a**2).mean() + (d_b**2).mean(),
        "cd_asymmetric": d_a.mean() + 1.2 * d_b.mean(),
        "qal": weighted(d_a).mean() + weighted(d_b).mean() + (lonely * (1.5 * d_b - weighted(d_b))).mean(),
        "dcd": (
            np.mean(1 - len(a) / len(b) * np.exp(-1000 * d_a**2) / shares[0])
            + np.mean(1 - len(b) / len(a) * np.exp(-1000 * d_b**2) / shares[1])
        )
        / 2,
        "hypercd": sum(np.arccosh(np.maximum(1 + d**2, 1 + 1e-5)).mean() for d in (d_a, d_b)),
        "infocd": (d_a.sum() + d_b.sum()) / 4,
    }


@pytest.mark.parametrize("name", PAIRS)
def test_values_equal_a_tree_and_gradients_are_finite(pairs, name: str) -> None:
    a, b = pairs[name]
    assert (len(a), len(b)) == SIZES[name]
    expected = by_tree(a.astype(np.float64), b.astype(np.float64))
    prediction, target = torch.from_numpy(a)[None].requires_grad_(), torch.from_numpy(b)[None]
    for loss, value in expected.items():
        found = LOSSES[loss](prediction, target)
        # InfoCD has a constant of about 1e-7 · N log N beside the sums; ties in float32 may share otherwise (DCD).
        assert found.item() == pytest.approx(value, rel=1e-3 if loss in ("infocd", "dcd") else 1e-5)
        (gradient,) = torch.autograd.grad(found.sum(), prediction)
        assert gradient.isfinite().all() and gradient.any()


@pytest.mark.parametrize("name", ["cabinet_3"])
def test_emd_at_full_size(pairs, name: str) -> None:
    prediction, target = (torch.from_numpy(cloud)[None] for cloud in pairs[name])
    prediction.requires_grad_()
    loss = emd(prediction, target)
    (gradient,) = torch.autograd.grad(loss.sum(), prediction)
    # Every point pulls with 1/N, and no partner is nearer than the nearest.
    assert gradient.norm(dim=-1).sum().item() == pytest.approx(1.0, rel=1e-4)
    nearest = cKDTree(pairs[name][1]).query(pairs[name][0])[0].mean()
    assert nearest < loss.item() < 5 * nearest
    part = [cloud[:: len(cloud) // 512][:512] for cloud in pairs[name]]
    table = cdist(*part)
    exact = emd(*(torch.from_numpy(cloud)[None] for cloud in part), eps=1e-6, rounds=None)
    assert exact.item() == pytest.approx(table[linear_sum_assignment(table)].mean(), abs=2e-6)


@pytest.mark.parametrize("name", ["airplane", "chair"])
def test_emd_of_a_partial_cloud_says_what_is_wrong(pairs, name: str) -> None:
    prediction, target = (torch.from_numpy(cloud)[None] for cloud in pairs[name])
    with pytest.raises(ValueError, match=rf"got \(1, {SIZES[name][0]}, 3\) and \(1, 16384, 3\)"):
        emd(prediction, target)


def test_a_partial_cloud_is_true_but_covers_little(pairs) -> None:
    values = cloud_metrics(*pairs["chair"], threshold=0.03)
    assert values["precision"] > 0.99 and values["coverage"] < 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", ["airplane", "chair", "cabinet_3"])
def test_apml_at_full_size(pairs, name: str) -> None:
    """609 points against 16,384: each Sinkhorn round moves a factor of 27 from one side to the other."""
    prediction, target = (torch.from_numpy(cloud)[None] for cloud in pairs[name])
    prediction.requires_grad_()
    loss = apml(prediction, target)
    (gradient,) = torch.autograd.grad(loss.sum(), prediction)
    assert gradient.isfinite().all() and gradient.any()
    # M columns of mass 1 each: no shorter than to the nearest, and shorter than if everything went everywhere evenly.
    nearest = cKDTree(pairs[name][0]).query(pairs[name][1])[0].sum()
    evenly = len(pairs[name][1]) * cdist(pairs[name][0][::20], pairs[name][1][::20]).mean()
    assert nearest < loss.item() < evenly
