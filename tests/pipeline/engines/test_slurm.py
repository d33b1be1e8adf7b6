"""Against a real Slurm of two emulated nodes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path

import pytest

from pipeline.engines import CPU, GPU, EngineError, WorkerDied
from pipeline.engines.slurm import SlurmEngine

pytestmark = pytest.mark.slurm
GROUP = "{{jobs: {jobs}, cores: {cores}, memory: 4 GiB, partition: {partition}, interface: lo, prologue: [{prologue}]}}"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def profile(tmp_path: Path, searched: str):
    def write(jobs: int = 2, cores: int = 1, gpu: int = 0, **changed: str) -> Path:
        prologue = f"'export PYTHONPATH={searched}'"
        lines = ["format_version: 1", "patience: 60"]
        lines += [f"cpu: {GROUP.format(jobs=jobs, cores=cores, partition='cpu', prologue=prologue)}"]
        if gpu:
            lines += [f"gpu: {GROUP.format(jobs=gpu, cores=1, partition='gpu', prologue=prologue)}"]
        text = "\n".join(lines)
        for old, new in changed.items():
            assert old in text
            text = text.replace(old, new)
        file = tmp_path / "profile.yaml"
        file.write_text(text)
        return file

    return write


def quiet(_: str) -> None:
    pass


def all_there(engine: SlurmEngine, group: str, count: int, wait_until, seconds: float = 60.0) -> None:
    crew = engine._groups[group].crew
    wait_until(lambda: crew.has(group) and crew.count(group) == count, seconds)


def hold(engine: SlurmEngine, units, folder: Path, count: int, wait_until) -> list[Future]:
    folder.mkdir()
    futures = [engine.submit(CPU, units.hold, str(folder)) for _ in range(count)]
    wait_until(lambda: len(list(folder.glob("begun-*"))) == count)
    return futures


def test_units_run_on_both_nodes_and_groups_in_their_partitions(
    slurm, profile, units, run: Path, tmp_path: Path, wait_until
) -> None:
    engine = SlurmEngine(profile(jobs=2, cores=2, gpu=1), run, say=quiet)
    assert engine.groups() == {CPU, GPU}
    assert (engine.capacity(CPU), engine.capacity(GPU)) == (4, 1)  # as many as are to come
    early = engine.submit(GPU, units.where, None)  # before there is a worker
    all_there(engine, CPU, 4, wait_until)
    held = hold(engine, units, tmp_path / "held", 4, wait_until)  # one unit a worker, four at once
    nodes = [path.name.split("-")[1] for path in (tmp_path / "held").glob("begun-*")]
    assert sorted(nodes) == ["n1", "n1", "n2", "n2"]
    (tmp_path / "held" / "go").touch()
    assert len({future.result(30) for future in held}) == 4
    assert {engine.submit(CPU, units.where, None).result(30)[1] for _ in range(4)} == {"cpu"}
    assert early.result(60)[1] == "gpu"
    assert engine.submit(CPU, units.threads, None).result(60) == ({1}, "1")
    engine.close()
    wait_until(lambda: not slurm.queue(), 15)
    assert not list((run / ".work").iterdir())
    assert not (run / "logs").exists()  # nothing happened that they would tell of


def test_a_killed_worker_costs_its_unit_and_nobody_elses(
    slurm, profile, units, run: Path, tmp_path: Path, wait_until
) -> None:
    engine = SlurmEngine(profile(), run, say=quiet)
    all_there(engine, CPU, 2, wait_until)
    futures = hold(engine, units, tmp_path / "held", 2, wait_until)
    pids = [int(path.name.rpartition("-")[2]) for path in (tmp_path / "held").glob("begun-*")]
    os.kill(pids[0], signal.SIGKILL)
    wait(futures, timeout=30, return_when=FIRST_COMPLETED)
    (dead,) = [future for future in futures if future.done()]
    (alive,) = [future for future in futures if not future.done()]
    with pytest.raises(WorkerDied):
        dead.result(0)
    assert len(list((tmp_path / "held").glob("begun-*"))) == 2  # tried once
    all_there(engine, CPU, 2, wait_until)  # the job's nanny has started another
    assert engine.submit(CPU, units.double, 3).result(30) == 6
    (tmp_path / "held" / "go").touch()
    assert alive.result(30) == pids[1]
    engine.close()
    wait_until(lambda: not slurm.queue(), 15)
    assert list((run / "logs").rglob("*.err"))  # what the job of the dead worker printed
    assert not list((run / "logs").rglob("*.pem"))


def test_strangers_cannot_give_orders(slurm, profile, units, run: Path, wait_until) -> None:
    """Whoever reaches a Dask scheduler without keys can have it run anything."""
    from distributed import Client

    engine = SlurmEngine(profile(jobs=1), run, say=quiet)
    address = engine._groups[CPU]._cluster.scheduler_address
    (key,) = run.rglob("key.pem")
    assert key.stat().st_mode & 0o077 == 0
    for stranger in (address, address.replace("tls://", "tcp://")):
        with pytest.raises((OSError, TypeError, ValueError)):
            Client(stranger, timeout=3, set_as_default=False)
    assert engine.submit(CPU, units.double, 2).result(60) == 4
    engine.close()
    wait_until(lambda: not slurm.queue(), 15)


def test_a_lost_node(slurm_to_break, profile, units, run: Path, tmp_path: Path, wait_until) -> None:
    """Its units come back at once, those of the other node go on, and the job is replaced where there is room."""
    engine = SlurmEngine(profile(), run, say=quiet)
    all_there(engine, CPU, 2, wait_until)
    futures = hold(engine, units, tmp_path / "held", 2, wait_until)
    begun = {path.name.split("-")[1]: int(path.name.rpartition("-")[2]) for path in (tmp_path / "held").glob("begun-*")}
    assert set(begun) == {"n1", "n2"}
    slurm_to_break.lose("n1")
    wait(futures, timeout=30, return_when=FIRST_COMPLETED)
    (dead,) = [future for future in futures if future.done()]
    (alive,) = [future for future in futures if not future.done()]
    with pytest.raises(WorkerDied):
        dead.result(0)
    all_there(engine, CPU, 2, wait_until, 120)  # Slurm takes half a minute to believe that the node is gone
    other = engine.submit(CPU, units.where, None).result(30)
    assert other[0] == "n2" and other[2] not in begun.values()
    (tmp_path / "held" / "go").touch()
    assert alive.result(30) == begun["n2"]
    engine.close()
    wait_until(lambda: not slurm_to_break.queue(), 30)


DRIVER = """
import signal
import sys
from pathlib import Path
import engine_units
from pipeline.engines.slurm import SlurmEngine

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores Ctrl-C for what it runs in background
engine = SlurmEngine(Path(sys.argv[1]), Path(sys.argv[2]))
try:
    futures = [engine.submit("cpu", engine_units.hold, sys.argv[3]) for _ in range(2)]
    [future.result() for future in futures]
finally:
    engine.close(now=True)
"""


@pytest.fixture
def driver(slurm, profile, run: Path, tmp_path: Path, searched: str, wait_until):
    """A process that has two units running in jobs."""
    (tmp_path / "driver.py").write_text(DRIVER)
    (tmp_path / "held").mkdir()
    command = [sys.executable, tmp_path / "driver.py", profile(), run, tmp_path / "held"]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": searched}, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: len(list((tmp_path / "held").glob("begun-*"))) == 2)
    yield process
    process.kill()
    process.communicate()


def running(tmp_path: Path) -> list[int]:
    pids = [int(path.name.rpartition("-")[2]) for path in (tmp_path / "held").glob("begun-*")]
    return [pid for pid in pids if (state := Path(f"/proc/{pid}/stat")).exists() and " Z " not in state.read_text()]


def test_ctrl_c_leaves_no_job(slurm, driver: subprocess.Popen, tmp_path: Path, wait_until) -> None:
    driver.send_signal(signal.SIGINT)
    _, errors = driver.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors.splitlines()[-1]
    wait_until(lambda: not slurm.queue() and not running(tmp_path), 15)


def test_workers_end_by_themselves_when_their_driver_is_killed(
    slurm, driver: subprocess.Popen, tmp_path: Path, wait_until
) -> None:
    assert len(running(tmp_path)) == len(slurm.queue()) == 2
    driver.kill()
    wait_until(lambda: not slurm.queue() and not running(tmp_path), 90)  # they give the unit half a minute to end


def test_a_job_near_its_end_is_given_nothing_and_replaced(slurm, profile, units, run: Path, wait_until) -> None:
    file = profile(jobs=1)
    file.write_text(file.read_text().replace("partition:", 'walltime: "00:01:00", partition:'))
    engine = SlurmEngine(file, run, say=quiet)
    first = engine.submit(CPU, units.where, None).result(60)[2]
    until = time.monotonic() + 90
    while (pid := engine.submit(CPU, units.where, None).result(60)[2]) == first:  # WorkerDied fails the test
        assert time.monotonic() < until
        time.sleep(0.2)
    assert pid != first
    engine.close()
    wait_until(lambda: not slurm.queue(), 15)
    assert not (run / "logs").exists()


def test_a_partition_that_is_not_there_is_told_in_slurms_words(slurm, profile, run: Path) -> None:
    file = profile()
    file.write_text(file.read_text().replace("partition: cpu", "partition: none"))
    with pytest.raises(EngineError, match=r"[Ii]nvalid partition") as caught:
        SlurmEngine(file, run, say=quiet)
    assert str(caught.value).startswith(f"{file}: ") and "\n" not in str(caught.value)
    assert not slurm.queue()


def test_jobs_that_end_without_a_worker_are_the_profiles_fault(slurm, profile, units, run: Path, wait_until) -> None:
    file = profile(jobs=3)
    file.write_text(file.read_text().replace("cpu: {", "cpu: {python: /no/python, "))
    engine = SlurmEngine(file, run, say=quiet)
    with pytest.raises(EngineError, match="3 jobs ended without a worker; see what they print in"):
        engine.submit(CPU, units.double, 1).result(90)
    engine.close(now=True)
    assert "/no/python" in "".join(path.read_text() for path in (run / "logs").rglob("*.err"))
    wait_until(lambda: not slurm.queue(), 15)


def test_a_queue_that_starts_nothing_is_waited_for_and_said(slurm, profile, units, run: Path, wait_until) -> None:
    said: list[str] = []
    file = profile(jobs=1)
    text = (
        file.read_text().replace("patience: 60", "patience: 12").replace("cores: 1", "cores: 1, directives: [--hold]")
    )
    file.write_text(text)
    engine = SlurmEngine(file, run, say=said.append)
    with pytest.raises(EngineError, match=r"no cpu worker came in .*squeue --name grasp-utility-\w+-cpu"):
        engine.submit(CPU, units.double, 1).result(60)
    assert [line for line in said if line.startswith("waiting for Slurm to start one of 1 cpu jobs")]
    engine.close(now=True)
    wait_until(lambda: not slurm.queue(), 15)


def test_without_slurm(profile, run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match=r"no Slurm here .*sbatch, scancel and squeue must be in the PATH"):
        SlurmEngine(profile(), run, say=quiet)
