"""A method in another environment as an arm: what it is handed, what it hands back, and what goes wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from grasping.clouds import voxel_downsample
from pipeline.cloud_files import load_clouds, load_observation
from pipeline.command_completer import CommandCompleter, PartialCloud
from pipeline.completed_unit import MIN_POINTS
from pipeline.config import ConfigError, load_experiment
from pipeline.experiment import STAGES, RunResult, run_experiment
from pipeline.run_command import CommandError, OutputError

# Somebody's method: it knows numpy and the format, and nothing of ours. It lifts every cloud by 10 cm along z.
METHOD = """
import json, pathlib, sys
import numpy as np

source, target, mode = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
for name in ("torch", "scipy", "pipeline", "completion"):
    try:
        __import__(name)
    except ImportError:
        continue
    sys.exit(f"{name} can be imported: this is no environment of its own")
request = json.loads((source / "request.json").read_text())
assert request["format_version"] == 1 and request["unit"] == "m"
with open("calls.txt", "a") as log:
    log.write(json.dumps(request) + "\\n")
for index, entry in enumerate(request["clouds"]):
    points = np.load(source / entry["file"], allow_pickle=False)
    assert points.shape == (entry["points"], 3) and points.dtype == np.float32
    made = points + np.array([0, 0, 0.1], np.float32)
    if mode == "faulty" and index < 6:
        made = [None, None, made * np.nan, made[:, :2], made[:0], np.array([{"a": 1}])][index]
    if mode == "faulty" and index == 1:
        (target / "0001.txt").write_text("the network saw\\nnothing")
    if made is not None:
        np.save(target / entry["file"], made)
if mode == "failing":
    print("x" * 5000, file=sys.stderr)
    sys.exit("no such weights: theirs.pth")
"""


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path, tiny_cache: Path) -> Path:
    """A run folder in which all is observed."""
    folder = tmp_path_factory.mktemp("observed")
    content = {"format_version": 1, "name": "x", "dataset": {"root": str(tiny_dataset)}, "arms": ["partial"]}
    (folder / "experiment.yaml").write_text(json.dumps({**content, "cache": str(tiny_cache)}))
    run(folder / "experiment.yaml", folder / "run")
    return folder / "run"


@pytest.fixture
def out(observed: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    shutil.copytree(observed, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def method(tmp_path: Path) -> Path:
    path = tmp_path / "their method" / "complete.py"
    path.parent.mkdir()
    path.write_text(METHOD)
    return path


@pytest.fixture
def experiment_file(tmp_path: Path, tiny_dataset: Path, tiny_cache: Path) -> Callable[..., Path]:
    """``experiment_file(arm)`` -> an experiment of ``partial`` and that arm."""

    def write(**arm: object) -> Path:
        path = tmp_path / "experiment.yaml"
        content = {
            "format_version": 1,
            "name": "theirs",
            "dataset": {"root": str(tiny_dataset)},
            "arms": ["partial", {"name": "theirs", **arm}],
            "cache": str(tiny_cache),
        }
        path.write_text(json.dumps(content))
        return path

    return write


def run(path: Path, out: Path, stages: tuple[str, ...] = ("observe", "complete")) -> RunResult:
    return run_experiment(
        load_experiment(path), out, device="cpu", workers=0, stages=stages, say=lambda _: None, source=path
    )


def command(environment: Path, mode: str = "good") -> list[str]:
    return [str(environment), "their method/complete.py", "{input}", "{output}", mode]


@pytest.mark.parametrize(("frame", "merge"), [("camera", "replace"), ("table", "append"), ("canonical", "replace")])
def test_it_completes_every_view_by_one_call_a_unit(
    tmp_path: Path, out: Path, environment: Path, method: Path, experiment_file, frame: str, merge: str
) -> None:
    path = experiment_file(command=command(environment), frame=frame, merge=merge)
    result = run(path, out)
    assert result.problems == () and result.stages[1].made == 2
    calls = [json.loads(line) for line in (tmp_path / "calls.txt").read_text().splitlines()]
    assert [(call["scene"], call["frame"]) for call in calls] == [(100, frame), (160, frame)]
    assert all(0 <= entry["seed"] < 2**32 for call in calls for entry in call["clouds"])
    assert {entry["view"] for entry in calls[0]["clouds"]} == {0, 128}
    handed = 0
    for scene in (100, 160):
        for view in (0, 128):
            place = Path(f"scene_{scene:04d}") / "realsense" / f"{view:04d}.npz"
            seen = load_observation(result.folder.observations / place)
            made = load_clouds(result.folder.clouds("theirs") / place)
            # z of the declared frame, in the camera's coordinates: the optical axis, or the table's normal; of the
            # canonical frame (y up) the horizontal direction away from the camera.
            up = seen.T_table_camera[2, :3]
            away = np.array([0, 0, 1.0]) - up * up[2]
            lift = {"camera": np.array([0, 0, 1.0]), "table": up, "canonical": away / np.linalg.norm(away)}[frame]
            for cloud, completed in zip(seen.objects.clouds, made.clouds, strict=True):
                if len(cloud) < MIN_POINTS:
                    continue
                handed += 1
                expected = cloud + 0.1 * lift
                if merge == "append":
                    expected = np.concatenate([cloud, expected])
                expected = voxel_downsample(expected.astype(np.float32), 0.003)
                # The turn there and back moves points by rounding, so that a few change their voxel.
                assert abs(len(completed) - len(expected)) <= 0.03 * len(expected) + 2
                gaps = np.linalg.norm(completed[:, None] - expected[None], axis=2)
                assert gaps.min(axis=1).max() < 0.004 and np.median(gaps.min(axis=1)) < 1e-4
    assert handed == sum(len(call["clouds"]) for call in calls) > 4
    assert not list(tmp_path.rglob(".command"))


def test_what_was_made_is_current_until_the_method_changes(
    tmp_path: Path, out: Path, environment: Path, method: Path, experiment_file
) -> None:
    words = command(environment)
    path = experiment_file(command=words, version=1.2)
    run(path, out)
    again = run(path, out)
    assert (again.stages[1].made, again.stages[1].current) == (0, 4)
    other = run(experiment_file(command=words, version=1.3), out)
    assert set(other.stages[1].stale.values()) == {"changed: version_of_command"}
    method.write_text(METHOD + "\n# retrained\n")
    edited = run(path, out)
    assert set(edited.stages[1].stale.values()) == {"changed: files"}
    line = run(experiment_file(command=[*words, "--more"], version=1.3), out)
    assert set(line.stages[1].stale.values()) == {"changed: command"}


def test_what_it_does_not_complete_is_that_objects_failure(
    tmp_path: Path, out: Path, environment: Path, method: Path, experiment_file
) -> None:
    result = run(experiment_file(command=command(environment, "faulty")), out)
    reasons = [problem["reason"] for problem in result.problems if "scene_0100" in problem["unit"]]
    assert len(reasons) >= 4 and all(problem["object"] is not None for problem in result.problems)
    assert reasons[0] == "failed: the command wrote no 0000.npy"
    assert reasons[1] == "failed: the command: the network saw nothing"
    assert "not finite" in reasons[2] and "expected numbers of shape (M, 3)" in reasons[3]


def test_a_failing_command_is_the_failure_of_its_units(
    tmp_path: Path, out: Path, environment: Path, method: Path, experiment_file
) -> None:
    result = run(experiment_file(command=command(environment, "failing")), out)
    assert len(result.problems) == 2
    for problem in result.problems:
        assert "exit status 1" in problem["reason"] and "no such weights: theirs.pth" in problem["reason"]
        assert len(problem["reason"]) < 2500
        left = out / problem["unit"] / ".command"
        assert (left / "in" / "request.json").is_file() and str(left) in problem["reason"]
    # The unit is made again in a clean folder once the command works.
    assert run(experiment_file(command=command(environment)), out).problems == ()


def test_a_program_that_is_not_there_stops_the_run_before_it_begins(tmp_path: Path, experiment_file) -> None:
    path = experiment_file(command="no-such-program {input} {output}")
    with pytest.raises(ConfigError, match=r"experiment\.yaml: arm 'theirs': no program 'no-such-program'"):
        run(path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_whole_run_with_a_command(
    tmp_path: Path, out: Path, environment: Path, method: Path, experiment_file
) -> None:
    path = experiment_file(command=command(environment), frame="canonical")
    result = run(path, out, STAGES)
    assert result.problems == ()
    summary = json.loads(result.folder.summary.read_text())
    assert summary["arms"][1]["command"][1:3] == ["their method/complete.py", "{input}"]
    assert any("theirs: the command is given clouds that stand upright" in one for one in summary["warnings"])
    assert "a program completes it" in result.folder.report.read_text()


# The command by itself.


@pytest.fixture
def completer(tmp_path: Path) -> Callable[..., CommandCompleter]:
    def make(code: str, timeout: float = 60.0) -> CommandCompleter:
        words = (sys.executable, "-c", code, "{input}", "{output}")
        return CommandCompleter(words, tmp_path, "camera", timeout)

    return make


CLOUD = PartialCloud(np.ones((20, 3), np.float32), 2**40 + 7, 3)


def test_words_reach_the_program_as_they_are(tmp_path: Path, completer) -> None:
    code = "import sys, json; json.dump(sys.argv[1:], open('words.json', 'w')); open(sys.argv[2] + '/log', 'w')"
    made = completer(code)
    told = CommandCompleter((*made.command, "; touch x", "$HOME", "a={input}/b"), tmp_path, "camera", 60.0)
    with told.complete(tmp_path / "work", 0, "kinect", [CLOUD]) as read, pytest.raises(OutputError, match=r"0000\.npy"):
        read(0)
    source = str(tmp_path / "work" / "in")
    words = json.loads((tmp_path / "words.json").read_text())
    assert words == [source, str(tmp_path / "work" / "out"), "; touch x", "$HOME", f"a={source}/b"]
    assert not (tmp_path / "x").exists() and not (tmp_path / "work").exists()


def test_one_that_writes_nothing_is_told_with_its_last_words(tmp_path: Path, completer) -> None:
    made = completer("import sys; print('CUDA out of memory', file=sys.stderr)")
    with (
        pytest.raises(CommandError, match=r"wrote nothing into \{output\}: CUDA out of memory \(see .*work\)"),
        made.complete(tmp_path / "work", 0, "kinect", [CLOUD]),
    ):
        pass
    assert (tmp_path / "work" / "in" / "0000.npy").is_file()


def test_nothing_is_run_where_there_is_nothing_to_complete(tmp_path: Path, completer) -> None:
    with completer("open('ran', 'w')").complete(tmp_path / "work", 0, "kinect", []):
        assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no readable array"),
        (b"junk", "no readable array"),
        (np.array([[1, 2, "x"]]), r"expected numbers of shape \(M, 3\)"),
        (np.ones((4, 3), bool), r"expected numbers of shape \(M, 3\)"),
        (np.ones(3), r"expected numbers of shape \(M, 3\)"),
        (np.ones((0, 3)), "has 0 points"),
        (np.full((2, 3), 1e300), "not finite"),
    ],
)
def test_broken_outputs_have_reasons(tmp_path: Path, completer, content, message: str) -> None:
    writes = "import sys; open(sys.argv[2] + '/0000.npy', 'w')"
    with completer(writes).complete(tmp_path / "work", 0, "kinect", [CLOUD]) as read:
        target = tmp_path / "work" / "out" / "0000.npy"
        if isinstance(content, bytes):
            target.write_bytes(content)
        else:
            np.save(target, content)
        with pytest.raises(OutputError, match=message):
            read(0)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "zombie" not in Path(f"/proc/{pid}/status").read_text() if Path(f"/proc/{pid}").exists() else False


def wait_until(true: Callable[[], bool]) -> bool:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.05)
    return False


# A program that starts another, and says who both are.
SLEEPERS = """
import os, subprocess, sys, time
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"  # does not go by itself
child = subprocess.Popen([sys.executable, "-c", code])
with open("pids.part", "w") as f:
    f.write(f"{os.getpid()} {child.pid}")
os.rename("pids.part", "pids")
print("still loading", file=sys.stderr, flush=True)
time.sleep(300)
"""


def pids(folder: Path) -> list[int]:
    return [int(word) for word in (folder / "pids").read_text().split()]


def test_a_command_that_takes_too_long_is_ended_with_all_it_started(tmp_path: Path, completer) -> None:
    for timeout in (2.0, 10.0, 60.0):  # a busy machine may need longer to start two programs
        with (
            pytest.raises(CommandError, match=rf"took longer than {timeout:g} s") as caught,
            completer(SLEEPERS, timeout=timeout).complete(tmp_path / f"{timeout:g}", 0, "kinect", [CLOUD]),
        ):
            pass
        if "still loading" in str(caught.value):
            break
    assert ": still loading; raise the arm's `timeout:`" in str(caught.value)
    assert wait_until(lambda: not any(alive(pid) for pid in pids(tmp_path)))


@pytest.fixture
def interrupted(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that completes with a command which never ends."""
    code = (
        "import signal, sys, numpy as np; from pathlib import Path\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from pipeline.command_completer import CommandCompleter, PartialCloud\n"
        f"words = (sys.executable, '-c', {SLEEPERS!r}, '{{input}}', '{{output}}')\n"
        f"here = Path({str(tmp_path)!r})\n"
        "made = CommandCompleter(words, here, 'camera', 600.0)\n"
        "with made.complete(here / 'work', 0, 'kinect', [PartialCloud(np.ones((20, 3)), 0, 0)]): pass\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


def test_ctrl_c_ends_the_command_too(tmp_path: Path, interrupted: subprocess.Popen[str]) -> None:
    assert wait_until((tmp_path / "pids").exists)
    assert all(alive(pid) for pid in pids(tmp_path))
    interrupted.send_signal(signal.SIGINT)
    assert interrupted.wait(30) != 0
    assert interrupted.stderr is not None and "KeyboardInterrupt" in interrupted.stderr.read()
    assert wait_until(lambda: not any(alive(pid) for pid in pids(tmp_path)))
