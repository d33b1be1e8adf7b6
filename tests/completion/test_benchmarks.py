"""The benchmarks' conventions by hand-made values, and their averages."""

from __future__ import annotations

import pytest
import torch

from completion.benchmarks import BENCHMARKS, benchmark_metrics, summarise

# Distances to the nearest of the other cloud, and what follows from them.
PREDICTION = torch.tensor([[[0.0, 0, 0], [1, 0.004, 0], [2, 0, 0.02]]], dtype=torch.float64)
TARGET = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [2, 0, 1.02]]], dtype=torch.float64)
D_A, D_B = (0.0, 0.004, 0.02), (0.0, 0.004, 0.02, 1.0)
L1 = (sum(D_A) / 3 + sum(D_B) / 4) / 2
L2 = sum(d * d for d in D_A) / 3 + sum(d * d for d in D_B) / 4
PRECISION, RECALL = 2 / 3, 2 / 4
F1 = 2 * PRECISION * RECALL / (PRECISION + RECALL)


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        ("pcn", {"cd_l1_x1e3": 1000 * L1, "f1_0.01": F1}),
        ("mvp", {"cd_l2_x1e4": 10000 * L2, "f1_0.01": F1}),
        ("shapenet55", {"cd_l2_x1e3": 1000 * L2, "f1_0.01": F1}),
        ("completion3d", {"cd_l2_x1e4": 10000 * L2}),
    ],
)
def test_by_hand(name: str, by_hand: dict[str, float]) -> None:
    values = benchmark_metrics(name, PREDICTION.repeat(2, 1, 1), TARGET.repeat(2, 1, 1))
    assert list(values) == list(by_hand)
    for measure, value in values.items():
        assert value.tolist() == pytest.approx([by_hand[measure]] * 2)


def test_thresholds_are_strict() -> None:
    """What lies at the threshold does not count; in float64 0.01 and its square stand exactly."""
    cloud = torch.zeros(1, 1, 3, dtype=torch.float64)
    for name in ("pcn", "mvp", "shapenet55"):
        for distance, expected in ((0.01, 0.0), (0.01 - 1e-12, 1.0)):
            moved = cloud + torch.tensor([distance, 0, 0], dtype=torch.float64)
            assert benchmark_metrics(name, moved, cloud)["f1_0.01"].item() == expected


def test_nothing_covered_is_zero_not_nan() -> None:
    assert benchmark_metrics("mvp", PREDICTION + 50, TARGET)["f1_0.01"].item() == 0


def test_emd_only_when_asked_for() -> None:
    two = TARGET[:, :3]
    assert "emd_x1e4" not in benchmark_metrics("mvp", PREDICTION, two)
    assert benchmark_metrics("mvp", PREDICTION, two, optional=True)["emd_x1e4"].item() == pytest.approx(1e4 * 0.008)
    assert benchmark_metrics("pcn", PREDICTION, two, optional=True)["emd_x1e3"].item() == pytest.approx(1e3 * 0.008)
    with pytest.raises(ValueError, match="as many predicted as target points"):
        benchmark_metrics("mvp", PREDICTION, TARGET, optional=True)


def test_means_over_categories_and_over_samples() -> None:
    values = {"x": torch.tensor([1.0, 2.0, 3.0, 10.0])}
    categories = ["lamp", "lamp", "lamp", "sofa"]
    for name, overall in (("pcn", 6.0), ("shapenet55", 6.0), ("completion3d", 6.0), ("mvp", 4.0)):
        summary = summarise(name, values, categories)
        assert summary.overall == {"x": overall}
        assert summary.categories == {"lamp": {"x": 2.0}, "sofa": {"x": 10.0}}
        assert summary.counts == {"lamp": 3, "sofa": 1}


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match=r"unknown benchmark 'kitti' \(known: pcn, mvp, shapenet55, completion3d\)"):
        benchmark_metrics("kitti", PREDICTION, TARGET)
    with pytest.raises(ValueError, match=r"x: \(3,\) values for 2"):
        summarise("pcn", {"x": torch.zeros(3)}, ["a", "b"])
    with pytest.raises(ValueError, match="for 0 categories"):
        summarise("pcn", {"x": torch.zeros(0)}, [])


def test_every_convention_is_whole() -> None:
    for convention in BENCHMARKS.values():
        assert convention.measures and convention.average in ("category", "sample") and convention.source
        assert convention.input_points == 2048
