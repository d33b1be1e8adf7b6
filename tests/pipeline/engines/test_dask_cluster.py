"""A real scheduler and real workers, in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import ExitStack
from pathlib import Path

import pytest

from pipeline.engines import CPU, GPU, EngineError, WorkerDied
from pipeline.engines.dask_cluster import DaskEngine


class Cluster:
    def __init__(self, folder: Path, searched: str, stack: ExitStack) -> None:
        self.folder, self.searched, self.stack = folder, searched, stack
        self.scheduler = self.start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        file = folder / "scheduler.json"
        while not (file.exists() and file.read_text().endswith("}")):
            assert self.scheduler.poll() is None
            time.sleep(0.02)
        self.address = json.loads(file.read_text())["address"]

    def workers(self, *options: str, **environment: str) -> subprocess.Popen:
        return self.start("worker", "--no-dashboard", "--local-directory", str(self.folder), *options, **environment)

    def start(self, what: str, *options: str, **environment: str) -> subprocess.Popen:
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *options]
        command += ["--scheduler-file", str(self.folder / "scheduler.json")]
        own = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
        with (self.folder / f"{what}.log").open("a") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**own, "PYTHONPATH": self.searched, **environment}
            )
        self.stack.callback(process.wait)
        self.stack.callback(process.terminate)
        return process


@pytest.fixture
def cluster(tmp_path: Path, searched: str) -> Iterator[Cluster]:
    with ExitStack() as stack:
        yield Cluster(tmp_path, searched, stack)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


def hold_all(engine: DaskEngine, units, folder: Path, count: int, wait_until) -> list:
    """Submit units that wait; return their futures when they all run."""
    folder.mkdir()
    futures = [engine.submit(CPU, units.hold, str(folder)) for _ in range(count)]
    wait_until(lambda: len(list(folder.glob("begun-*"))) == count)
    return futures


@pytest.mark.slow
def test_a_running_cluster(cluster: Cluster, units, run: Path, tmp_path: Path, wait_until) -> None:
    """What a unit gives or raises comes back; one that kills its worker is tried once, and takes nobody with it."""
    cluster.workers("--nthreads", "1", "--nworkers", "2")
    engine = DaskEngine(cluster.address, run, say=lambda line: None)
    wait_until(lambda: engine.capacity(CPU) == 2)
    assert engine.groups() == {CPU}
    assert engine.submit(CPU, units.double, 21).result(30) == 42
    with pytest.raises(ValueError, match="no such view"):
        engine.submit(CPU, units.fail, "no such view").result(30)
    other, killed = hold_all(engine, units, tmp_path / "held", 2, wait_until)
    queued = [engine.submit(CPU, units.double, number) for number in range(3)]
    pids = sorted(int(path.name.rpartition("-")[2]) for path in (tmp_path / "held").iterdir())
    assert len(set(pids)) == 2
    os.kill(pids[0], signal.SIGKILL)
    wait([other, killed], timeout=30, return_when=FIRST_COMPLETED)
    dead, alive = (other, killed) if other.done() else (killed, other)
    with pytest.raises(WorkerDied, match="vanished with the unit"):
        dead.result(0)
    (tmp_path / "held" / "go").touch()
    assert alive.result(30) == pids[1]
    assert [future.result(30) for future in queued] == [0, 2, 4]
    begun = len(list((tmp_path / "held").glob("begun-*")))
    assert begun == 2  # the scheduler by itself would have tried the killed one thrice more
    engine.close()
    assert not list((run / ".work").iterdir())


@pytest.mark.slow
def test_a_unit_that_kills_its_worker_is_tried_once_each_time(cluster: Cluster, units, run: Path, wait_until) -> None:
    cluster.workers("--nthreads", "1", "--nworkers", "1")
    engine = DaskEngine(cluster.address, run, say=lambda line: None)
    for _ in range(2):
        with pytest.raises(WorkerDied):
            engine.submit(CPU, units.die, None).result(60)
    assert engine.submit(CPU, units.double, 1).result(60) == 2  # the nanny's third process
    restarts = (cluster.folder / "worker.log").read_text().count("Restarting worker")
    assert restarts == 2
    engine.close()


@pytest.mark.slow
def test_groups_by_resources_and_workers_that_come_and_go(
    cluster: Cluster, units, run: Path, tmp_path: Path, wait_until
) -> None:
    with_gpu = cluster.workers("--nthreads", "1", "--resources", "GPU=1")
    engine = DaskEngine(cluster.address, run, say=lambda line: None)
    wait_until(lambda: GPU in engine.groups())
    gpu = engine.submit(GPU, units.where, None).result(30)[2]
    assert engine.submit(CPU, units.where, None).result(30)[2] == gpu  # there is no other
    cluster.workers("--nthreads", "1")
    wait_until(lambda: engine.submit(CPU, units.where, None).result(30)[2] != gpu)
    assert engine.capacity(CPU) == engine.capacity(GPU) == 1
    pids = {engine.submit(CPU, units.where, None).result(30)[2] for _ in range(5)}
    assert gpu not in pids and len(pids) == 1
    (held,) = hold_all(engine, units, tmp_path / "held", 1, wait_until)
    # Its worker is retired, as a cluster does that adapts itself: no fault of the unit, which goes to another.
    address = next(w.address for w in engine._crew._groups[CPU])
    engine._client.retire_workers([address], close_workers=True)
    wait_until(lambda: (tmp_path / "held" / f"begun--{gpu}").exists())
    assert not held.done()
    (tmp_path / "held" / "go").touch()
    assert held.result(30) == gpu
    assert with_gpu.poll() is None
    engine.close()


@pytest.mark.slow
def test_workers_that_do_not_fit_are_refused_with_the_remedy(cluster: Cluster, units, run: Path, wait_until) -> None:
    misfit = cluster.workers("--nthreads", "2")
    wait_until(lambda: "Registered to" in (cluster.folder / "worker.log").read_text())
    with pytest.raises(EngineError, match=r"2 threads.*`dask worker tcp://.* --nthreads 1 --nworkers N`"):
        DaskEngine(cluster.address, run, say=lambda line: None)
    misfit.terminate()
    misfit.wait()
    cluster.workers("--nthreads", "1", "--no-nanny")
    wait_until(lambda: (cluster.folder / "worker.log").read_text().count("Registered to") == 2)
    with pytest.raises(EngineError, match=r"several threads.*OMP_NUM_THREADS=1"):
        DaskEngine(cluster.address, run, say=lambda line: None)


@pytest.mark.slow
def test_a_misfit_that_comes_later_is_left_out_and_said(cluster: Cluster, units, run: Path, wait_until) -> None:
    said: list[str] = []
    cluster.workers("--nthreads", "1")
    engine = DaskEngine(cluster.address, run, say=said.append)
    pid = engine.submit(CPU, units.where, None).result(30)[2]
    cluster.workers("--nthreads", "3")
    wait_until(lambda: any("left out" in line and "3 threads" in line for line in said))
    assert engine.capacity(CPU) == 1
    assert {engine.submit(CPU, units.where, None).result(30)[2] for _ in range(4)} == {pid}
    engine.close()


@pytest.mark.slow
def test_workers_compute_with_one_thread(cluster: Cluster, units, run: Path) -> None:
    cluster.workers("--nthreads", "1")
    engine = DaskEngine(cluster.address, run, say=lambda line: None)
    assert engine.submit(CPU, units.threads, None).result(60) == ({1}, "1")
    engine.close()


@pytest.mark.slow
def test_a_scheduler_that_goes_is_an_engine_that_is_lost(
    cluster: Cluster, units, run: Path, tmp_path, wait_until
) -> None:
    cluster.workers("--nthreads", "1")
    engine = DaskEngine(cluster.address, run, say=lambda line: None)
    (held,) = hold_all(engine, units, tmp_path / "held", 1, wait_until)
    queued = engine.submit(CPU, units.double, 1)
    cluster.scheduler.kill()
    for future in (held, queued):
        with pytest.raises(EngineError, match="run the same command again: what is finished is kept"):
            future.result(30)
    with pytest.raises(EngineError):
        engine.capacity(CPU)
    engine.close()


@pytest.mark.slow
def test_nothing_stays_at_the_scheduler_or_with_us(cluster: Cluster, units, run: Path, wait_until) -> None:
    cluster.workers("--nthreads", "1", "--nworkers", "2")
    engine = DaskEngine(cluster.address, run, say=lambda line: None)
    pending: set = set()
    for number in range(500):
        pending.add(engine.submit(CPU, units.double, number))
        if len(pending) == 2:
            _, pending = wait(pending, return_when=FIRST_COMPLETED)
    wait(pending)
    client = engine._client
    wait_until(lambda: not client.futures, 2)
    # what is released is told in batches of some milliseconds
    wait_until(lambda: not client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)), 2)
    engine.close()


@pytest.mark.slow
def test_without_workers_it_waits_says_so_and_gives_up(cluster: Cluster, units, run: Path) -> None:
    said: list[str] = []
    engine = DaskEngine(cluster.address, run, say=said.append, patience=7.0)
    assert engine.capacity(CPU) == 1
    with pytest.raises(EngineError, match=r"no cpu worker came in .* `dask worker tcp://"):
        engine.submit(CPU, units.double, 1).result(30)
    assert [line for line in said if line.startswith("waiting for a cpu worker")]
    engine.close()


def test_nobody_at_the_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.engines.dask_cluster._CONNECT", 0.5)
    with pytest.raises(EngineError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1 .*`dask scheduler`"):
        DaskEngine("tcp://127.0.0.1:1", tmp_path)
    assert not list((tmp_path / ".work").iterdir())


def test_without_the_extra_its_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(EngineError, match=r"pip install 'grasp-utility\[cluster\]'"):
        DaskEngine("tcp://127.0.0.1:1")


@pytest.mark.slow
def test_a_run_gives_what_local_processes_give_though_a_worker_is_killed(
    cluster: Cluster, tiny_dataset: Path, tiny_checkpoint: Path, tmp_path: Path, content_of, assert_same, wait_until
) -> None:
    from distributed import Client

    experiment = tmp_path / "experiment.yaml"
    experiment.write_text(
        f"format_version: 1\nname: tiny\ndataset: {{root: {tiny_dataset}}}\ncache: {tmp_path / 'cache'}\n"
        f"arms: [partial, {{name: random, checkpoint: {tiny_checkpoint}}}]\n"
    )
    command = [sys.executable, "-m", "grasp_utility", "run", experiment, "--device", "cpu", "--out"]
    local = subprocess.run(
        [*command, tmp_path / "local", "--workers", "2"], capture_output=True, text=True, cwd=tmp_path
    )
    assert local.returncode == 0, local.stderr
    cluster.workers("--nthreads", "1", "--nworkers", "2")
    there = [*command, tmp_path / "there", "--engine", "dask", "--scheduler", cluster.address]
    process = subprocess.Popen(there, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path)
    wait_until(lambda: list((tmp_path / "there" / "observations").rglob("stamp.json")))
    with Client(cluster.address, set_as_default=False) as client:
        pids = list(client.run(os.getpid).values())
    assert len(pids) == 2 and process.poll() is None
    os.kill(pids[0], signal.SIGKILL)
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert "Restarting worker" in (cluster.folder / "worker.log").read_text()
    assert_same(content_of(tmp_path / "there"), content_of(tmp_path / "local"))
