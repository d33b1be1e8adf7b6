"""The scoring benchmark runs; how fast anything was is printed, not tested."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "bench_scoring.py"


@pytest.mark.slow
@pytest.mark.graspnetapi
def test_quick_run_prints_every_figure(tmp_path: Path) -> None:
    pytest.importorskip("graspnetAPI", reason="install the referee with scripts/install_referee.sh")
    command = [sys.executable, str(SCRIPT), "--quick", "--json", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads(done.stdout)
    for name in (
        "force_closure_ratio",
        "force_closure_ratio_in_batches_of_a_view",
        "view_ratio",
        "view_ratio_every_candidate",
        "score_dump_ratio",
        "split_minutes_2_cores",
        "worker_peak_mib",
        "worker_ready_s",
    ):
        assert figures[name] > 0, name
    # speed beside other numbers would mean nothing
    assert figures["force_closure"]["grasps"] >= 10 and figures["force_closure"]["scores_equal"] is True
    (view,) = figures["view"]["views"]
    assert view["scores_equal"] is True
    assert view["objects"] == 9 and view["candidates"] == 1024 and view["kept"] == 50 and view["clear"] >= 10
    (run,) = figures["score_dump"]["runs"]
    assert run["ours_ap"] == pytest.approx(run["peer_ap"], abs=1e-9)
    assert figures["force_closure"]["floor"]["us_per_grasp"] > 0 and figures["view"]["medians"]["floor_ms"] > 0
    assert not {"torch", "open3d"} & set(figures["worker"]["heavy_modules_loaded"])
    assert {"torch", "open3d"} <= set(figures["worker"]["heavy_modules_looked_for"])
