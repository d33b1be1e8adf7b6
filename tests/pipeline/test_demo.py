"""The README's first command, from an installed wheel and any folder: what a newcomer meets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


def test_the_demo_runs_from_a_wheel_anywhere_and_again_in_no_time(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(wheels), str(ROOT)]
    subprocess.run(pip, check=True)
    site, home, work = tmp_path / "site", tmp_path / "home", tmp_path / "work"
    with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
        wheel.extractall(site)
    for folder in (home, work):
        folder.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(site), "HOME": str(home), "XDG_CACHE_HOME": str(home)}
    command = [sys.executable, "-m", "grasp_utility", "demo", "--out", "here"]

    def demo() -> str:
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    first = demo()
    run = work / "here" / "run"
    summary = json.loads((run / "summary.json").read_text())
    arms = ["partial", "pcn-cd", "pcn-cd-asymmetric", "pcn-qal", "oracle"]
    assert [arm["name"] for arm in summary["arms"]] == arms
    assert all(f"\n{arm} " in first for arm in arms)
    assert summary["problems"] == 0 and summary["dataset"]["scenes"] >= 8
    assert str(run / "report.html") in first
    gain = [
        row
        for row in summary["comparisons"]
        if (row["arm_a"], row["arm_b"], row["metric"]) == ("oracle", "partial", "ap")
    ]
    assert gain[0]["ci_low"] > 0  # the true shape helps; otherwise completion could not
    assert [path.name for path in work.iterdir()] == ["here"]  # everything is below --out
    assert not list(home.rglob("grasp-utility*"))  # libraries may keep caches of their own at home, we do not

    before = (run / "report.html").stat().st_mtime_ns
    assert "nothing is stale" in demo()
    assert (run / "report.html").stat().st_mtime_ns == before
