from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.engines import CPU, GPU, EngineError
from pipeline.engines.profile import load_profile

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "slurm"


def write(folder: Path, text: str) -> Path:
    file = folder / "profile.yaml"
    file.write_text(text)
    return file


@pytest.mark.parametrize(("name", "groups"), [("cpu", {CPU}), ("cpu_and_gpu", {CPU, GPU})])
def test_shipped_profiles_can_be_used(name: str, groups: set[str]) -> None:
    profile = load_profile(CONFIGS / f"{name}.yaml")
    assert set(profile.groups()) == groups
    assert profile.processes(CPU) == profile.cpu.cores == 16
    assert profile.cpu.seconds() == 4 * 3600
    if profile.gpu is not None:
        assert profile.processes(GPU) == 1 and profile.gpu.gres == "gpu:1"


@pytest.mark.parametrize(
    ("walltime", "seconds"),
    [
        ('"04:00:00"', 14400),
        ("04:00:00", 14400),
        ("24:00:00", 86400),  # YAML reads a number in base 60
        ('"1-12:00:00"', 129600),
        ('"2-0"', 172800),
        ('"90"', 5400),
        ("90", 5400),  # minutes, not what YAML makes of 00:01:30
        ("1440", 86400),
        ('"90:30"', 5430),
    ],
)
def test_walltimes_are_read_as_slurm_reads_them(tmp_path: Path, walltime: str, seconds: int) -> None:
    file = write(tmp_path, f"format_version: 1\ncpu: {{memory: 4 GiB, walltime: {walltime}}}\n")
    assert load_profile(file).cpu.seconds() == seconds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cpu: {memory: 4 GiB}", "missing key 'format_version'"),
        ("format_version: 2\ncpu: {memory: 4 GiB}", "format_version"),
        ("format_version: 1", "missing key 'cpu'"),
        ("format_version: 1\ncpu: {}", "missing key 'cpu.memory'"),
        ("format_version: 1\ncpu: {memory: 4 GiB, partitions: a}", "'cpu.partitions'; did you mean 'partition'?"),
        ("format_version: 1\ncpus: {memory: 4 GiB}", "unknown key 'cpus'; did you mean 'cpu'?"),
        ("format_version: 1\ncpu: {memory: plenty}", "cpu.memory: 'plenty' is no amount of memory"),
        ("format_version: 1\ncpu: {memory: 4 GiB, walltime: soon}", "cpu.walltime: 'soon' is no walltime"),
        ("format_version: 1\ncpu: {memory: 4 GiB, cores: 2, processes: 3}", "cpu: 3 processes on 2 cores"),
        ("format_version: 1\ncpu: {memory: 4 GiB}\ngpu: {memory: 4 GiB, gres: 'gpu:a100:4'}", "ask for more jobs"),
        ("format_version: 1\ncpu: {memory: 4 GiB, directives: [exclusive]}", "'exclusive' is no option of sbatch"),
        ("format_version: 1\ncpu: {memory: 4 GiB, jobs: 0}", "cpu.jobs"),
        ("- cpu", "a profile is a mapping"),
        ("cpu: [", "not valid YAML"),
    ],
)
def test_what_cannot_be_used_is_named_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(EngineError) as caught:
        load_profile(file)
    assert said in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_profile_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"none\.yaml: cannot be read .* see configs/slurm/cpu\.yaml"):
        load_profile(tmp_path / "none.yaml")


def test_directives_are_taken_with_and_without_their_prefix(tmp_path: Path) -> None:
    file = write(tmp_path, "format_version: 1\ncpu: {memory: 4 GiB, directives: ['#SBATCH --qos=x', '-C a100']}\n")
    assert load_profile(file).cpu.directives == ("--qos=x", "-C a100")
