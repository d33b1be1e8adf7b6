"""Whole runs in a real Slurm of two emulated nodes give, file for file, what a run on this machine gives."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "scripts" / "slurm" / "compare.sbatch"
pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def demo(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo, but for one view of each of two scenes: its experiment file."""
    text = (ROOT / "configs" / "demo.yaml").read_text()
    root = "root: ../grasp-utility-demo/dataset\n"
    assert root in text
    folder = tmp_path_factory.mktemp("slurm-demo")
    (folder / "demo.yaml").write_text(
        text.replace(root, f"root: {tiny_dataset}\n  views: [0]\n") + f"cache: {folder / 'cache'}\n"
    )
    return folder / "demo.yaml"


@pytest.fixture(scope="module")
def local(demo: Path, content_of, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What processes of this machine make of it."""
    run = tmp_path_factory.mktemp("local") / "run"
    command = [sys.executable, "-m", "grasp_utility", "run", demo, "--out", run, "--workers", "2", "--device", "cpu"]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT, timeout=300)
    made = content_of(run)
    assert any(name.startswith("tables/") for name in made)
    assert len([name for name in made if name.endswith("/stamp.json")]) >= 2 * (1 + 4 * 5)
    return made


def nodes_at_work() -> set[str]:
    done = subprocess.run(["squeue", "-h", "-t", "RUNNING", "-o", "%N"], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_demo_in_slurm_jobs_over_two_nodes(
    slurm, demo: Path, local: dict[str, object], content_of, assert_same, tmp_path: Path, wait_until
) -> None:
    profile = tmp_path / "profile.yaml"
    profile.write_text("format_version: 1\ncpu: {jobs: 2, memory: 6 GiB, partition: cpu, interface: lo}\n")
    run = tmp_path / "run"
    command = [sys.executable, "-m", "grasp_utility", "run", demo, "--out", run, "--device", "cpu"]
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(
            [*command, "--engine", "slurm", "--profile", profile], stdout=said, stderr=said, cwd=tmp_path
        )
    nodes: set[str] = set()
    while process.poll() is None:
        nodes |= nodes_at_work()
        time.sleep(0.5)
    assert process.returncode == 0, (tmp_path / "said").read_text()
    assert nodes == {"n1", "n2"}
    assert_same(content_of(run), local)
    wait_until(lambda: not slurm.queue(), 15)


def submit(demo: Path, run: Path, log: Path, *more: str) -> str:
    """Submit the script as its own comment says, with what two emulated nodes have."""
    command = ["sbatch", "--parsable", "--cpus-per-task=1", "--mem=6G", f"--output={log}", *more]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [*command, SCRIPT, demo, run, "--device", "cpu"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PATH": path},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_demo_as_a_job_array(
    slurm, demo: Path, local: dict[str, object], content_of, assert_same, tmp_path: Path, wait_until
) -> None:
    run = tmp_path / "run"
    array = submit(demo, run, tmp_path / "%a.log", "--array=0-1")
    submit(demo, run, tmp_path / "last.log", f"--dependency=afterany:{array}")
    nodes: set[str] = set()

    def over() -> bool:
        nodes.update(nodes_at_work())
        return not slurm.queue()

    wait_until(over, 300)
    said = {path.stem: path.read_text() for path in tmp_path.glob("*.log")}
    assert set(said) == {"0", "1", "last"}
    assert nodes == {"n1", "n2"}
    assert_same(content_of(run), local)
    # the tasks have made one scene each, and the last job nothing but tables and report
    assert [re.findall(r"^observe .*", said[name], re.MULTILINE) for name in "01"] == [["observe    1 made"]] * 2
    assert len(re.findall(r"^\w+ +\d+ up to date$", said["last"], re.MULTILINE)) == 5, said["last"]


def test_an_array_with_gaps_is_refused(slurm, demo: Path, tmp_path: Path, wait_until) -> None:
    submit(demo, tmp_path / "run", tmp_path / "%a.log", "--array=1-2")
    wait_until(lambda: not slurm.queue(), 60)
    assert "give --array=0-N without gaps" in (tmp_path / "1.log").read_text()
    assert not (tmp_path / "run").exists()
