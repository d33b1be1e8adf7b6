"""Training that is killed, interrupted, or shared by two processes; one child interpreter plays all the scenes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from completion.training_log import read_log

# Imports torch once and forks before torch has started a thread; every scene runs in forked processes, so that a kill
# is a kill. Arguments: pair file, folder, keys of the training file (JSON). Prints one JSON object.
DRIVER = """
import json, os, random, signal, socket, sys, time, traceback
from pathlib import Path
sys.modules["numba"] = None  # the torch path: nothing to load in every process
import torch
import torch._dynamo  # which the first optimiser imports, in every process
from completion import resume
from completion.configuration import parse_config
from completion.losses import LOSSES, cd_l1
from completion.train import train

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores Ctrl-C for what it runs in background
torch.set_num_threads(1)
folder, keys = Path(sys.argv[1]), json.loads(sys.argv[2])
results = {}


def begin(name, work, **environment):
    pid = os.fork()
    if pid:
        return pid
    os.environ.update(environment)
    log = open(folder / f"{name}.txt", "w")
    os.dup2(log.fileno(), 2)
    code = 1
    try:
        work()
        code = 0
    except KeyboardInterrupt:
        code = 130
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    log.flush()
    os._exit(code)


def end(pid, seconds=60.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hung"


def run(name, out=None, **changes):
    train(parse_config({**keys, **changes}), folder / (out or name), "cpu", progress=False)


def steps(out):
    try:
        return (folder / out / "training.pt").stat().st_mtime_ns
    except OSError:
        return 0


def ranks(name, count=2, **changes):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        begin(f"{name}-{rank}", lambda: run(name, **changes), RANK=str(rank), LOCAL_RANK=str(rank), **common)
        for rank in range(count)
    ]


def last_row(out):
    try:
        return int((folder / out / "log.csv").read_text().split()[-1].partition(",")[0])
    except (OSError, ValueError, IndexError):
        return 0


def wait_for_row(out, after):
    deadline = time.monotonic() + 60
    while last_row(out) <= after and time.monotonic() < deadline:
        time.sleep(0.005)


def wait_for_saves(out, count):
    seen, deadline = set(), time.monotonic() + 60
    while len(seen) < count and time.monotonic() < deadline:
        seen.add(steps(out))
        time.sleep(0.001)


# 1. undisturbed, the measure of all
results["whole"] = end(begin("whole", lambda: run("whole")))

# 2. SIGKILL at random moments, begun again each time
random.seed(int(sys.argv[3]))
codes = []
for attempt in range(5):
    pid = begin("killed", lambda: run("killed"))
    if attempt < 4:
        wait_for_saves("killed", random.randint(2, 5))
        time.sleep(random.uniform(0, 0.02))
        os.kill(pid, signal.SIGKILL)
    codes.append(end(pid))
results["killed"] = codes


# 3. SIGKILL in the middle of writing the resume file
def killed_while_saving():
    write, count = torch.save, 0

    def half(state, file):
        nonlocal count
        count += 1
        write(state, file)
        if count == 3:
            file.truncate(file.tell() // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    resume.torch.save = half
    run("torn")


results["torn"] = [end(begin("torn", killed_while_saving))]
results["torn_left"] = sorted(path.name for path in (folder / "torn").iterdir())
results["torn"].append(end(begin("torn", lambda: run("torn"))))
results["torn_after"] = sorted(path.name for path in (folder / "torn").iterdir())

# 4. Ctrl-C, then SIGTERM, then to the end
codes = []
for number in (signal.SIGINT, signal.SIGTERM):
    before, row = steps("stopped"), last_row("stopped")
    pid = begin(f"stopped-{number}", lambda: run("stopped", checkpoint_every=1000, steps=4000))
    wait_for_row("stopped", row)
    os.kill(pid, number)
    codes.append(end(pid))
    codes.append(steps("stopped") > before)
results["stopped"] = codes

# 5. two processes: the same run; then a NaN in one; then Ctrl-C for one
results["single"] = end(begin("single", lambda: run("single", **{"ema": 0.9})))
results["pair"] = [end(pid) for pid in ranks("pair", ema=0.9)]


def bad(prediction, target):
    value = cd_l1(prediction, target)
    bad.calls += 1
    broken = os.environ.get("RANK") == "1" and bad.calls == 4
    return torch.where(torch.arange(len(value)) == 1, value * float("nan"), value) if broken else value


bad.calls = 0
LOSSES["bad"] = bad
results["nan"] = [
    end(pid) for pid in ranks("nan", loss={"name": "bad"}, coarse_loss="cd_l1", checkpoint_every=2)
]
pids = ranks("asked", steps=4000, checkpoint_every=1000)
wait_for_row("asked", 0)
os.kill(pids[1], signal.SIGINT)
results["asked"] = [end(pid) for pid in pids]
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory, training_keys, pair_file) -> tuple[Path, dict[str, Any]]:
    """The folder of all runs and the exit codes of the scenes."""
    folder = tmp_path_factory.mktemp("scenes")
    pair_file(folder / "pairs.npz")
    keys = training_keys(folder / "pairs.npz", steps=24, checkpoint_every=1, log_every=3, loss="qal", ema=0.9)
    (folder / "driver.py").write_text(DRIVER)
    # Another seed each day would be another test; the moments of the kills are random all the same.
    arguments = [sys.executable, folder / "driver.py", folder, json.dumps(keys), "7"]
    done = subprocess.run(
        arguments,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, json.loads(done.stdout)


def state(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(folder / name / "training.pt", weights_only=True)
    return found


def assert_same_run(folder: Path, one: str, other: str) -> None:
    first, second = state(folder, one), state(folder, other)
    assert first["step"] == second["step"]
    for part in ("network", "ema"):
        assert all(torch.equal(value, second[part][key]) for key, value in first[part].items())
    assert (folder / one / "model.safetensors").read_bytes() == (folder / other / "model.safetensors").read_bytes()
    rows, others = (
        [{k: v for k, v in row.items() if k != "seconds"} for row in read_log(folder / name / "log.csv")]
        for name in (one, other)
    )
    assert rows == others


def test_a_run_killed_again_and_again_ends_with_the_same_bits(scenes) -> None:
    folder, results = scenes
    assert results["whole"] == 0
    assert results["killed"].count(-9) >= 2 and results["killed"][-1] == 0
    assert_same_run(folder, "whole", "killed")


def test_a_kill_while_the_resume_file_is_written_costs_one_step(scenes) -> None:
    folder, results = scenes
    assert results["torn"] == [-9, 0]
    assert any(name.startswith(".training.pt.") for name in results["torn_left"])  # half a file, aside
    assert not any(name.startswith(".") for name in results["torn_after"])
    assert_same_run(folder, "whole", "torn")


def test_ctrl_c_and_sigterm_keep_the_step_and_say_how_to_go_on(scenes) -> None:
    folder, results = scenes
    assert results["stopped"] == [130, True, 143, True]
    said = (folder / "stopped-2.txt").read_text()
    assert "stopped after step" in said and "training.pt" in said and "the same command goes on" in said
    assert state(folder, "stopped")["step"] > 1
    assert not (folder / "stopped" / "config.json").exists()


def test_two_processes_make_the_run_of_one(scenes) -> None:
    folder, results = scenes
    assert results["single"] == 0 and results["pair"] == [0, 0]
    one, two = (read_log(folder / name / "log.csv") for name in ("single", "pair"))
    assert [row["step"] for row in one] == [row["step"] for row in two]
    for row, other in zip(one, two, strict=True):
        for name in ("loss", "coarse", "fine", "gradient", "coverage", "spurious", "cd_l1"):
            assert other[name] == pytest.approx(row[name], rel=2e-3, abs=1e-4)
    for part in ("network", "ema"):
        first, second = state(folder, "single")[part], state(folder, "pair")[part]
        for key, value in first.items():
            torch.testing.assert_close(second[key], value, rtol=1e-3, atol=2e-4)
    assert not torch.equal(state(folder, "pair")["network"]["encoder.conv4.weight"], torch.zeros(1))


def test_a_nan_in_one_process_ends_both_and_names_the_pair(scenes) -> None:
    folder, results = scenes
    assert results["nan"] == [1, 1]  # neither hung
    for rank in range(2):
        said = (folder / f"nan-{rank}.txt").read_text()
        assert "DivergenceError" in said and "step 3: fine is nan (loss bad; pairs " in said
        assert ";" in said and "," not in said.split("pairs ")[1].split(")")[0]  # one pair, not the batch
    assert state(folder, "nan")["step"] == 2  # the last resume file is from before


def test_ctrl_c_for_one_process_stops_both_after_the_same_step(scenes) -> None:
    folder, results = scenes
    assert results["asked"] == [130, 130]
    assert state(folder, "asked")["step"] > 1
    said = [(folder / f"asked-{rank}.txt").read_text() for rank in range(2)]
    assert "stopped after step" in said[0] and "stopped after step" not in said[1]


@pytest.mark.slow
def test_torchrun_starts_it(tmp_path, training_keys, pair_file) -> None:
    pytest.importorskip("yaml")
    pair_file(tmp_path / "pairs.npz")
    (tmp_path / "file.yaml").write_text(json.dumps(training_keys(tmp_path / "pairs.npz")))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    common = ["--standalone", "--nproc-per-node", "2", "-m"]
    rest = [str(tmp_path / "file.yaml"), "--device", "cpu", "--out"]
    for module, given in (("completion.train_cli", []), ("pipeline.cli", ["train"])):
        out = tmp_path / module
        done = subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", *common, module, *given, *rest, str(out)],
            capture_output=True,
            text=True,
            timeout=200,
            env=environment,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("checkpoint") == 1
        assert (out / "config.json").exists()
    one, other = (state(tmp_path, name)["network"] for name in ("completion.train_cli", "pipeline.cli"))
    assert all(torch.equal(one[key], other[key]) for key in one)
