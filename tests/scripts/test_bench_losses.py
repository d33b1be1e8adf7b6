"""The benchmark runs and its figures hang together; whether they are fast is not a test's business."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")
_SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "bench_losses.py"


@pytest.mark.slow
def test_quick_figures() -> None:
    done = subprocess.run([sys.executable, _SCRIPT, "--quick", "--json"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    one = figures["one_core"]
    for key in ("qal_over_cd", "qal_step_over_cd_step", "nearest_cpu_ratio", "nearest_cpu_ratio_16384"):
        assert 0 < figures[key] < 1e6
    assert figures["quick"] and one["threads"] == 1
    assert figures["machine"]["cores"] >= 1 and figures["machine"]["versions"]["torch"]
    small = one["cdist"][0]
    assert small["ratio"] == pytest.approx(small["ms"]["cdist"]["cpu"] / small["ms"]["ours"]["cpu"])
    assert {(tuple(row["shape"]), row["kind"]) for row in one["trees"]} >= {
        ((2, 256, 256), "near"),
        ((1, 512, 512), "blob"),
    }
    assert all("scipy" in row["ms"] and row["ours_over_best_peer"] > 0 for row in one["trees"])
    # Every point has visited at least one block of sixteen, and none more than all.
    for row in one["arithmetic"]:
        batch, n, m = row["shape"]
        assert batch * (n + m) * 16 <= row["distances"] <= 2 * batch * n * m
        assert row["times_above_floor"] > 1
