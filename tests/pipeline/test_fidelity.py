from __future__ import annotations

import numpy as np
import pytest

from completion.metrics import cloud_metrics
from completion.normalize import normalisation
from pipeline.fidelity import FIDELITY, fidelity

rng = np.random.default_rng(0)
TRUTH = rng.uniform(-0.05, 0.05, (400, 3)).astype(np.float32)
PARTIAL = TRUTH[TRUTH[:, 0] > 0]
CLOUD = (TRUTH[:300] + rng.normal(0, 0.004, (300, 3))).astype(np.float32)


def test_both_units_equal_metrics_computed_in_each() -> None:
    values = fidelity(CLOUD, TRUTH, PARTIAL)
    assert tuple(values) == FIDELITY
    metric = cloud_metrics(CLOUD, TRUTH, 0.005)
    frame = normalisation("partial", PARTIAL)
    network = cloud_metrics(frame.to_network(CLOUD), frame.to_network(TRUTH), 0.03)
    for name in ("coverage", "spurious", "precision", "f1"):
        assert values[f"{name}@5mm"] == pytest.approx(metric[name], abs=1e-6)
        assert values[f"{name}@0.03"] == pytest.approx(network[name], abs=0.004)  # a point at the threshold may tip
    assert values["cd_l1_mm"] == pytest.approx(1000 * metric["cd_l1"], rel=1e-4)
    assert values["cd_l1"] == pytest.approx(network["cd_l1"], rel=1e-4)
    assert values["cd_l2"] == pytest.approx(network["cd_l2"], rel=1e-4)


def test_identical_clouds_are_perfect() -> None:
    values = fidelity(TRUTH, TRUTH, PARTIAL)
    assert values["coverage@5mm"] == values["f1@0.03"] == 1
    assert values["cd_l1"] == values["spurious@5mm"] == 0


def test_an_empty_cloud_covers_nothing_and_an_unseen_object_has_no_metrics() -> None:
    empty = np.zeros((0, 3), np.float32)
    values = fidelity(empty, TRUTH, PARTIAL)
    assert values["coverage@5mm"] == 0 and values["spurious@5mm"] is None and values["cd_l1"] is None
    assert set(fidelity(empty, TRUTH, empty).values()) == {None}


def test_a_single_point_has_metric_values_only() -> None:
    values = fidelity(TRUTH[:1], TRUTH, TRUTH[:1])
    assert values["precision@5mm"] == 1 and values["coverage@0.03"] is None
