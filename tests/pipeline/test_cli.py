"""The command as a user meets it: help, and one clear line for wrong input."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def command(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "grasp_utility", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, cwd=cwd, check=False)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["demo", "--help"],
        ["run", "--help"],
        ["train", "--help"],
        ["dataset", "synthesize", "--help"],
        ["dataset", "check", "--help"],
        ["checkpoint", "inspect", "--help"],
        ["checkpoint", "evaluate", "--help"],
        ["frame", "--help"],
        *[
            [stage, "--help"]
            for stage in ("observe", "complete", "generate", "score", "explain", "aggregate", "report")
        ],
    ],
)
def test_help_works(arguments: list[str]) -> None:
    done = command(*arguments)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_wrong_input_is_one_line_and_status_2(tmp_path: Path, tiny_experiment: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(tiny_experiment.read_text() + "densty: 0.003\n")
    unknown_arm = tmp_path / "unknown.yaml"
    unknown_arm.write_text(tiny_experiment.read_text().replace("oracle]", "oracle, pcn-xyz]"))
    generator = tmp_path / "generator.yaml"
    generator.write_text(tiny_experiment.read_text() + "generators: [{name: antipodel}]\n")
    elsewhere = tmp_path / "elsewhere.yaml"
    elsewhere.write_text("format_version: 1\nname: x\ndataset: {root: nowhere}\narms: [partial]\n")
    cases = {
        "nowhere.yaml": ["run", tmp_path / "nowhere.yaml"],
        "'density'": ["run", bad],
        "pcn-xyz": ["run", unknown_arm],
        "'antipodal'": ["run", generator],
        str(tmp_path / "nowhere"): ["run", elsewhere],
        "nobody": ["checkpoint", "inspect", "nobody"],
        "missing.yaml": ["train", tmp_path / "missing.yaml", "--out", tmp_path / "t"],
    }
    for words, arguments in cases.items():
        out = ["--out", tmp_path / "run"] if arguments[0] == "run" else []
        done = command(*arguments, *out)
        assert done.returncode == 2, (arguments, done.stdout, done.stderr)
        assert words in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
