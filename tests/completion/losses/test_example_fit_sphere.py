"""The drop-in example: short, on torch and the losses alone, and right in what it prints."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "example_fit_sphere.py"


def printed(*arguments: str) -> dict[str, tuple[float, float]]:
    """(coverage, spurious) by loss."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^(\w+) +coverage (\d\.\d{3}) spurious (\d\.\d{3})$", done.stdout, re.MULTILINE)
    assert len(rows) == len(done.stdout.splitlines())
    return {name: (float(coverage), float(spurious)) for name, coverage, spurious in rows}


def test_it_is_short_and_needs_the_losses_alone() -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 60
    imported = {
        name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert imported == {"argparse", "numpy", "torch", "completion.losses"}


def test_both_losses_pull_the_sphere_onto_the_mug() -> None:
    fitted = printed("--steps", "25")
    assert list(fitted) == ["cd_l1", "qal"]
    for coverage, spurious in fitted.values():
        assert coverage > 0.85 and spurious < 0.2  # 0 and 1 before the first step


@pytest.mark.slow
def test_a_shape_of_ones_own(tmp_path: Path) -> None:
    """Another sphere, far away and in millimetres: nothing but the radius is left to find."""
    way = np.random.default_rng(0).normal(size=(800, 3))
    np.save(tmp_path / "shape.npy", 1000 + 50 * way / np.linalg.norm(way, axis=1, keepdims=True))
    for coverage, spurious in printed(str(tmp_path / "shape.npy"), "--steps", "60").values():
        assert coverage > 0.95 and spurious < 0.02
