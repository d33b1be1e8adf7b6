"""The watch for QAL's failure signatures: each detector sees its own on made series, no other does."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from completion.configuration import ConfigurationError, parse_config
from completion.train import train
from completion.training_log import LOG, read_log
from completion.watch import (
    Watch,
    cd_sibling,
    flat_coverage,
    flat_points,
    flat_spurious,
    gradient_spikes,
    no_gain_over_cd,
    rising_flat_spurious,
)

ROWS = 60
SHARES = [(i + 1) / ROWS for i in range(ROWS)]
STEADY = [1.0 + 0.1 * math.sin(i) for i in range(ROWS)]


def spiked(*rows: int, height: float = 40.0) -> list[float]:
    return [height if i in rows else value for i, value in enumerate(STEADY)]


def test_spikes_early_with_a_small_margin_are_seen() -> None:
    found = gradient_spikes(SHARES, spiked(5, 11), epsilon=1e-4)
    assert found is not None and found.name == "gradient_spikes"
    assert "spiked 2 times" in found.text and "raise epsilon" in found.text and "lower omega" in found.text


@pytest.mark.parametrize(
    ("gradients", "epsilon"),
    [
        (STEADY, 1e-4),
        (spiked(5), 1e-4),  # one may be a hard batch
        (spiked(5, 11), 1e-3),  # the margin is not small
        (spiked(40, 50), 1e-4),  # not early
        (spiked(5, 11, height=8.0), 1e-4),
        ([1.0] * 6 + [30.0] * (ROWS - 6), 1e-4),  # a level that changes, as fine_weight makes it
        ([30.0] * 6 + [1.0] * (ROWS - 6), 1e-4),
        (spiked(0, 1), 1e-4),  # the very first rows have nothing before them
    ],
)
def test_no_spikes(gradients: list[float], epsilon: float) -> None:
    assert gradient_spikes(SHARES, gradients, epsilon) is None


def test_flat_coverage_despite_a_high_lambda_is_seen() -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, ROWS)
    found = flat_coverage(SHARES, (0.5 + noise).tolist(), lambda_attr=1.0)
    assert found is not None and "capacity" in found.text and "occluded" in found.text
    rising = [0.4 + 0.3 * share for share in SHARES]
    assert flat_coverage(SHARES, rising, 1.0) is None
    assert flat_coverage(SHARES, (0.5 + noise).tolist(), 0.5) is None
    assert flat_coverage(SHARES, (0.95 + noise).tolist(), 1.0) is None  # nothing left to gain
    assert flat_coverage(SHARES[: ROWS // 3], [0.5] * (ROWS // 3), 1.0) is None  # too early to say
    start = [0.1 if share < 0.1 else 0.5 for share in SHARES]
    assert flat_coverage(SHARES, start, 1.0) is not None  # the first steep rise does not hide it


def test_spurious_points_rising_in_flat_regions_are_seen() -> None:
    falling = [0.3 * math.exp(-5 * share) + 0.02 for share in SHARES]
    assert rising_flat_spurious(SHARES, falling) is None
    assert rising_flat_spurious(SHARES[-5:], STEADY[:5]) is None
    turning = [value + max(0.0, share - 0.5) * 0.3 for value, share in zip(falling, SHARES, strict=True)]
    found = rising_flat_spurious(SHARES, turning)
    assert found is not None and "lower lambda_attr" in found.text and "raise epsilon" in found.text
    # A bump while the cloud takes shape, as healthy runs have it, is none; were the run at its end there, it would be.
    bump = [value + (0.2 if 8 <= row < 20 else 0.0) for row, value in enumerate([0.08] * ROWS)]
    assert rising_flat_spurious(SHARES[:18], bump[:18]) is None and rising_flat_spurious(SHARES, bump) is None
    assert rising_flat_spurious([share / SHARES[17] for share in SHARES[:18]], bump[:18]) is not None


def test_no_gain_over_cd_is_seen() -> None:
    coverage, spurious = [0.4 + 0.2 * share for share in SHARES], [0.3] * ROWS
    found = no_gain_over_cd(coverage, spurious, coverage, spurious)
    assert found is not None and "bidirectional" in found.text
    assert no_gain_over_cd([value + 0.02 for value in coverage], spurious, coverage, spurious) is None
    assert no_gain_over_cd(coverage, [0.28] * ROWS, coverage, spurious) is None
    assert no_gain_over_cd(coverage[:3], spurious[:3], coverage[:3], spurious[:3]) is None


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), max_size=40))
def test_detectors_take_any_series(values: list[float]) -> None:
    shares = [(i + 1) / len(values) for i in range(len(values))]
    gradient_spikes(shares, values, 1e-4)
    flat_coverage(shares, values, 1.0)
    rising_flat_spurious(shares, values)
    assert no_gain_over_cd(values, values, values, values) is None or len(values) >= 8


def test_a_plane_is_flat_and_a_ball_and_an_edge_are_not() -> None:
    rng = np.random.default_rng(0)
    plane = torch.tensor(np.c_[rng.uniform(-0.5, 0.5, (1024, 2)), np.zeros(1024)], dtype=torch.float32)
    ball = rng.normal(size=(200, 3))
    ball = torch.tensor(0.3 * ball / np.linalg.norm(ball, axis=1, keepdims=True), dtype=torch.float32)
    assert flat_points(plane[None]).all()
    assert flat_points(ball[None]).float().mean() < 0.1
    folded = plane.clone()
    right = folded[:, 0] > 0
    folded[right, 2], folded[right, 0] = folded[right, 0].clone(), 0.0
    flat = flat_points(folded[None])[0]
    edge = (folded[:, [0, 2]].abs() < 0.01).all(dim=1)
    assert edge.any() and flat[edge].float().mean() < 0.3 and flat.float().mean() > 0.7
    turn = torch.linalg.qr(torch.tensor(rng.normal(size=(3, 3)), dtype=torch.float32)).Q
    assert (flat_points((folded @ turn.T)[None])[0] == flat).float().mean() > 0.99


def test_flat_spurious_counts_what_floats_above_a_plane_alone() -> None:
    rng = np.random.default_rng(1)
    plane = torch.tensor(np.c_[rng.uniform(-0.5, 0.5, (1024, 2)), np.zeros(1024)], dtype=torch.float32)[None]
    on = plane[:, :100]
    above = on + torch.tensor([0.0, 0.0, 0.1])
    assert flat_spurious(on, plane) == 0.0
    assert flat_spurious(torch.cat([on, above, above], dim=1), plane) == pytest.approx(2 / 3)
    ball = rng.normal(size=(200, 3))
    ball = torch.tensor(0.3 * ball / np.linalg.norm(ball, axis=1, keepdims=True), dtype=torch.float32)[None]
    assert flat_spurious(1.5 * ball, ball) < 0.1


def test_a_run_warns_once_on_console_notes_and_card(write_pairs, training_keys, tmp_path, capsys, monkeypatch) -> None:
    qal = {"name": "qal", "parameters": {"epsilon": 1e-4}}
    keys = training_keys(write_pairs(), loss=qal, steps=24, log_every=1, learning_rate=1e-9, warmup_steps=0)
    keys["checkpoint_every"] = 99
    whole = train(parse_config(keys), tmp_path / "qal", "cpu", progress=False)
    said = capsys.readouterr().err
    assert said.count("flat_coverage") == 1  # a rate of 1e-9 learns nothing
    assert (whole / "notes.txt").read_text().startswith("step ")
    assert "## Warned of while it trained" in (whole / "README.md").read_text()
    notes = json.loads((whole / "config.json").read_text())["training"]["notes"]
    assert [name for _, name, _ in notes].count("flat_coverage") == 1
    parts = train(parse_config(keys), tmp_path / "parts", "cpu", progress=False, stop_after=20)
    train(parse_config(keys), parts, "cpu", progress=False)
    assert (parts / "notes.txt").read_text() == (whole / "notes.txt").read_text()
    assert capsys.readouterr().err.count("flat_coverage") == 1  # not told again after the resume


def test_cd_runs_are_not_watched(write_pairs, training_keys, tmp_path) -> None:
    out = train(parse_config(training_keys(write_pairs())), tmp_path / "cd", "cpu", progress=False)
    assert not (out / "notes.txt").exists()
    assert all("flat_spurious" not in row for row in read_log(out / LOG))


def test_the_cd_run_beside_it_is_found_and_compared(write_pairs, training_keys, tmp_path) -> None:
    pairs = write_pairs()
    changes = {"steps": 20, "log_every": 1, "learning_rate": 1e-9, "warmup_steps": 0, "checkpoint_every": 99}
    other = parse_config(training_keys(pairs, **changes, seed=5))
    train(other, tmp_path / "a-other-seed", "cpu", progress=False)
    config = parse_config(training_keys(pairs, **changes, loss="qal"))
    assert cd_sibling(tmp_path / "qal", config) is None
    cd = train(parse_config(training_keys(pairs, **changes)), tmp_path / "cd", "cpu", progress=False)
    assert cd_sibling(tmp_path / "qal", config) == cd
    out = train(config, tmp_path / "qal", "cpu", progress=False)
    assert "no_gain_over_cd" in (out / "notes.txt").read_text()  # neither has moved
    told = parse_config(training_keys(pairs, **changes, loss="qal", compare_with=str(cd)))
    findings = Watch(told, tmp_path / "elsewhere" / "qal").look(read_log(out / LOG), last=True)
    assert "no_gain_over_cd" in [finding.name for finding in findings]
    with pytest.raises(ConfigurationError, match=r"compare_with: .*nowhere holds no log\.csv"):
        Watch(parse_config(training_keys(pairs, loss="qal", compare_with=str(tmp_path / "nowhere"))), out)
