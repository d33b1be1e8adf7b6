"""Metrics by hand, against loops, and at their extremes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from completion.metrics import METRIC_THRESHOLD, NETWORK_THRESHOLD, cloud_metrics, dcd, emd, metrics


def test_by_hand() -> None:
    prediction = np.array([[0, 0, 0], [0.02, 0, 0], [1, 0, 0], [1, 1, 0]], float)
    target = np.array([[0, 0, 0], [0, 0, 0.5]], float)
    values = cloud_metrics(prediction, target, 0.03)
    assert (
        values["precision"] == 0.5 and values["spurious"] == 0.5 and values["coverage"] == 0.5 and values["f1"] == 0.5
    )
    d_a = np.array([0, 0.02, 1, np.sqrt(2)])
    assert values["cd_l1"] == pytest.approx((d_a.mean() + 0.25) / 2)
    assert values["cd_l2"] == pytest.approx((d_a**2).mean() + 0.125)


def test_against_a_tree() -> None:
    rng = np.random.default_rng(0)
    prediction, target = rng.random((500, 3)), rng.random((700, 3))
    d_a, d_b = cKDTree(target).query(prediction)[0], cKDTree(prediction).query(target)[0]
    values = cloud_metrics(prediction, target, 0.08)
    precision, coverage = (d_a <= 0.08).mean(), (d_b <= 0.08).mean()
    assert 0.2 < precision < 0.9
    assert values["precision"] == pytest.approx(precision, abs=2e-3)
    assert values["coverage"] == pytest.approx(coverage, abs=2e-3)
    assert values["f1"] == pytest.approx(2 * precision * coverage / (precision + coverage), abs=2e-3)
    assert values["cd_l1"] == pytest.approx((d_a.mean() + d_b.mean()) / 2, rel=1e-5)
    assert values["cd_l2"] == pytest.approx((d_a**2).mean() + (d_b**2).mean(), rel=1e-5)


def test_extremes() -> None:
    cloud = torch.rand(2, 50, 3, generator=torch.Generator().manual_seed(0))
    same, far = metrics(cloud, cloud, NETWORK_THRESHOLD), metrics(cloud + 10, cloud, NETWORK_THRESHOLD)
    assert torch.equal(same.f1, torch.ones(2)) and torch.equal(same.spurious, torch.zeros(2))
    assert torch.equal(same.cd_l1, torch.zeros(2)) and torch.equal(same.cd_l2, torch.zeros(2))
    assert torch.equal(far.f1, torch.zeros(2)) and torch.equal(far.spurious, torch.ones(2))


def test_f1_is_averaged_over_samples_not_made_from_averages() -> None:
    truth = torch.rand(1, 64, 3, generator=torch.Generator().manual_seed(0)).expand(2, -1, -1)
    prediction = torch.cat([truth[:1], truth[1:] + 5])
    values = metrics(prediction, truth, METRIC_THRESHOLD)
    assert values.f1.tolist() == [1.0, 0.0]


def test_the_part_of_a_cloud_covers_its_part() -> None:
    truth = torch.rand(1, 400, 3, generator=torch.Generator().manual_seed(0))
    values = metrics(truth[:, :100], truth, 1e-9)
    assert values.coverage.item() == pytest.approx(0.25) and values.spurious.item() == 0


def test_dcd_by_hand() -> None:
    prediction = torch.tensor([[[0.0, 0, 0], [0.02, 0, 0]]], dtype=torch.float64)
    target = torch.zeros(1, 1, 3, dtype=torch.float64)
    # The target is shared by two: ½(1 − 2 · 1/2 · (1 + e^−0.4)/2) + ½(1 − ½ · 1).
    expected = 0.5 * (1 - 2 * (1 + np.exp(-0.4)) / 2 / 2) + 0.5 * (1 - 0.5)
    assert dcd(prediction, target).item() == pytest.approx(expected, rel=1e-5)
    assert not dcd(prediction.requires_grad_(), target).requires_grad


def test_emd_is_the_least_mean_distance() -> None:
    rng = np.random.default_rng(0)
    prediction, target = rng.random((2, 300, 3)), rng.random((2, 300, 3))
    least = []
    for a, b in zip(prediction, target, strict=True):
        table = cdist(a, b)
        least.append(table[linear_sum_assignment(table)].mean())
    clouds = torch.from_numpy(prediction), torch.from_numpy(target)
    assert emd(*clouds, eps=1e-7, rounds=None).tolist() == pytest.approx(least, abs=1e-7)
    for eps, rounds in ((0.002, 10000), (0.004, 3000)):  # MSN; VRCNet and MVP
        value = emd(*clouds, eps=eps, rounds=rounds).numpy()
        assert (np.array(least) - 1e-9 <= value).all() and (value <= np.array(least) + eps).all()
    assert torch.equal(emd(*clouds), emd(*clouds, eps=0.002, rounds=10000))


def test_the_cheap_metrics_pay_for_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def unasked(*_: object, **__: object) -> None:
        raise AssertionError("computed without being asked for")

    monkeypatch.setattr("completion.losses.emd", unasked)
    monkeypatch.setattr("completion.losses.dcd", unasked)
    cloud_metrics(np.eye(3), np.eye(3))
