"""Grasps from a program in another environment: what it is handed, what it hands back, and what goes wrong."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from grasping.generators import ViewInput
from grasping.grasps import Grasps
from grasping.transforms import invert
from pipeline.artifacts import file_hash
from pipeline.cloud_files import load_observation
from pipeline.command_generator import MOST_BYTES, CommandGenerator, CommandView
from pipeline.config import load_experiment
from pipeline.experiment import run_experiment
from pipeline.generator_input import at_density
from pipeline.run_command import CommandError, OutputError
from pipeline.score_dump import Request, score_dump

EXAMPLE = Path(__file__).resolve().parents[2] / "scripts" / "example_grasps_from_above.py"
DENSITY = 0.003

# Somebody's method: it knows numpy and the format, and nothing of ours. One grasp a view tells what was seen of it.
METHOD = """
import json, pathlib, sys
import numpy as np

for name in ("torch", "scipy", "pipeline", "grasping"):
    try:
        __import__(name)
    except ImportError:
        continue
    sys.exit(f"{name} can be imported: this is no environment of its own")
source, target = map(pathlib.Path, sys.argv[1:])
request = json.loads((source / "request.json").read_text())
assert sorted(request) == ["camera", "format_version", "frame", "scene", "unit", "views"]
assert request["format_version"] == 1 and request["unit"] == "m" and request["frame"] == "camera"
for entry in request["views"]:
    with np.load(source / entry["file"], allow_pickle=False) as view:
        told = [view[name].sum(dtype=float) for name in ("points", "object_ids", "background", "collision")]
        told += [*view["T_camera_table"].ravel()[:9], *entry["viewpoint"]]
    np.save(target / f"{entry['view']:04d}.npy", np.array([[*told, entry["seed"]]]))
"""


def a_view(number: int = 0, count: int = 40) -> CommandView:
    rng = np.random.default_rng(number)
    pose = np.eye(4)
    pose[:3, :3] = Rotation.random(random_state=number).as_matrix()
    pose[:3, 3] = rng.normal(size=3)
    return CommandView(
        view=number,
        points=rng.normal(size=(count, 3)).astype(np.float32),
        object_ids=rng.integers(0, 88, count),
        background=rng.normal(size=(2 * count, 3)).astype(np.float32),
        collision=rng.normal(size=(3 * count, 3)).astype(np.float32),
        T_camera_table=pose,
        seed=2**40 + number,
        viewpoint=(0.0, 0.25, number),
    )


@pytest.fixture
def generator(tmp_path: Path) -> Callable[..., CommandGenerator]:
    def make(code: str, timeout: float = 60.0, python: Path | str = sys.executable) -> CommandGenerator:
        return CommandGenerator((str(python), "-c", code, "{input}", "{output}"), tmp_path, timeout)

    return make


def test_it_is_told_everything_of_every_view_but_the_arm(tmp_path: Path, environment: Path, generator) -> None:
    views = [a_view(3), a_view(128, count=0), a_view(255)]
    made = generator(METHOD, python=environment)
    with made.generate(tmp_path / "work", 17, "kinect", iter(views)) as read:
        request = json.loads((tmp_path / "work" / "in" / "request.json").read_text())
        assert (request["scene"], request["camera"]) == (17, "kinect")
        for view in reversed(views):
            with np.load(tmp_path / "work" / "in" / f"{view.view:04d}.npz", allow_pickle=False) as handed:
                kinds = {"points": "<f4", "object_ids": "<i8", "background": "<f4", "collision": "<f4"}
                assert {name: handed[name].dtype.str for name in handed.files} == {**kinds, "T_camera_table": "<f8"}
                for name in handed.files:
                    assert np.array_equal(handed[name], getattr(view, name)), name
                arrays = (view.points, view.object_ids, view.background, view.collision)
            (row,) = read(view.view).to_array()
            told = [*(array.sum(dtype=float) for array in arrays), *view.T_camera_table.ravel()[:9], *view.viewpoint]
            assert row.tolist() == pytest.approx([*told, view.view]) and row[16] == view.view
    assert not (tmp_path / "work").exists()


def test_points_of_no_object_are_the_background() -> None:
    cloud = np.arange(15, dtype=np.float32).reshape(5, 3)
    made = CommandView.of_input(4, ViewInput(cloud, np.array([-1, 7, 0, -1, 7]), cloud[:2], np.eye(4), np.zeros(3), 9))
    assert made.points.tolist() == cloud[[1, 2, 4]].tolist() and made.object_ids.tolist() == [7, 0, 7]
    assert made.background.tolist() == cloud[[0, 3]].tolist() and made.viewpoint == (0.0, 0.0, 0.0)


def test_each_view_is_written_before_the_next_is_asked_for(tmp_path: Path, generator) -> None:
    written = []

    def views() -> Iterator[CommandView]:
        for number in range(4):
            written.append(sorted(path.name for path in (tmp_path / "work" / "in").iterdir()))
            yield a_view(number)

    with generator("import sys; open(sys.argv[2] + '/log', 'w')").generate(tmp_path / "work", 0, "kinect", views()):
        assert written == [[f"{number:04d}.npz" for number in range(known)] for known in range(4)]


def test_nothing_is_run_where_no_view_was_observed(tmp_path: Path, generator) -> None:
    with generator("open('ran', 'w')").generate(tmp_path / "work", 0, "kinect", []):
        assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "work").exists()


# What it hands back.


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 17))


@pytest.fixture
def read_back(tmp_path: Path, generator) -> Callable[[np.ndarray | bytes | None], Grasps]:
    """``read_back(content)`` -> what is read where the command has written that as the grasps of view 5."""

    def read(content: np.ndarray | bytes | None) -> Grasps:
        made = generator("import sys; open(sys.argv[2] + '/log', 'w')")
        with made.generate(tmp_path / "work", 0, "kinect", [a_view(5)]) as function:
            target = tmp_path / "work" / "out" / "0005.npy"
            if isinstance(content, bytes):
                target.write_bytes(content)
            elif content is not None:
                np.save(target, content)
            return function(5)

    return read


def test_grasps_come_by_falling_confidence_and_ties_as_written(read_back) -> None:
    array = rows(200)
    array[:, 0] = np.random.default_rng(1).integers(-3, 3, 200)
    array[:, 16] = np.arange(200)
    expected = [row.tolist() for row in array]
    expected.sort(key=lambda row: -row[0])  # Python's sort is stable
    assert read_back(array).to_array().tolist() == expected


@pytest.mark.parametrize(
    ("content", "count"),
    [
        (np.zeros((0, 17)), 0),
        (np.zeros(0), 0),
        (np.ones(17), 1),
        (np.ones((3, 17), np.float32), 3),
        (np.ones((2, 17), np.int16), 2),
        (np.full((2, 17), 1e300), 2),
    ],
)
def test_whatever_a_dump_may_be_is_read(read_back, content: np.ndarray, count: int) -> None:
    assert len(read_back(content)) == count


def with_one(value: float, column: int) -> np.ndarray:
    array = rows(6)
    array[4, column] = value
    return array


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"^the command wrote no 0005\.npy$"),
        (b"", r"^the command's 0005\.npy: not a grasp dump of shape \(N, 17\)"),
        (b"junk", "not a grasp dump"),
        (np.ones((4, 16)), r"not a grasp dump of shape \(N, 17\) \(shape \(4, 16\)\)"),
        (np.ones((2, 3, 17)), r"shape \(2, 3, 17\)"),
        (np.array([["x"] * 17]), "not of numbers"),
        (np.ones((4, 17), bool), "not of numbers"),
        (np.array([{"a": 1}]), "not a grasp dump"),
        (with_one(np.nan, 0), "not finite, in 1 of 6 grasps"),
        (with_one(np.inf, 7), "not finite, in 1 of 6 grasps"),
        (with_one(-np.inf, 15), "not finite, in 1 of 6 grasps"),
        (np.full((2, 17), np.longdouble("1e4000")), "not finite, in 2 of 2 grasps"),
    ],
)
def test_broken_outputs_have_reasons(read_back, content, message: str) -> None:
    with pytest.raises(OutputError, match=message):
        read_back(content)


def test_an_object_that_is_not_known_is_no_fault(read_back) -> None:
    assert read_back(with_one(np.nan, 16)).object_id.tolist().count(-1) >= 1


def test_more_than_anybody_can_score_is_not_loaded(tmp_path: Path, generator) -> None:
    code = "import os, sys; open(sys.argv[2] + '/0000.npy', 'w').truncate(2**42)"  # takes no room on the disk
    with (
        generator(code).generate(tmp_path / "work", 0, "kinect", [a_view()]) as read,
        pytest.raises(OutputError, match=rf"0000\.npy has {2**42} bytes, expected at most {MOST_BYTES}"),
    ):
        read(0)


FAULTY = """
import sys
import numpy as np
np.save(sys.argv[2] + "/0001.npy", np.eye(17))
open(sys.argv[2] + "/0002.txt", "w").write("the detector saw\\nnothing")
np.save(sys.argv[2] + "/0003.npy", np.eye(3))
open(sys.argv[2] + "/0004.txt", "w")
"""


def test_one_views_failure_is_its_own(tmp_path: Path, generator) -> None:
    views = [a_view(number) for number in range(5)]
    with generator(FAULTY).generate(tmp_path / "work", 0, "kinect", views) as read:
        for number, message in [
            (0, r"^the command wrote no 0000\.npy$"),
            (2, "^the command: the detector saw nothing$"),
            (3, r"^the command's 0003\.npy: not a grasp dump"),
            (4, "^the command: no reason given$"),
        ]:
            with pytest.raises(OutputError, match=message):
                read(number)
        assert len(read(1)) == 17


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; sys.exit('no such weights: theirs.tar')", "exit status 1: no such weights: theirs.tar"),
        ("import os; os.kill(os.getpid(), 9)", "failed with signal 9, and said nothing"),
        ("import sys; print('CUDA out of memory', file=sys.stderr)", "wrote nothing into {output}: CUDA out of memory"),
        ("import time; time.sleep(300)", "took longer than 2 s, and said nothing on standard error; raise the gen"),
    ],
)
def test_a_failing_command_is_the_failure_of_the_unit(tmp_path: Path, generator, code: str, message: str) -> None:
    made = generator(code, timeout=2.0 if "time" in code else 60.0)
    with pytest.raises(CommandError) as caught, made.generate(tmp_path / "work", 0, "kinect", [a_view()]):
        raise AssertionError("nothing may be read")
    assert message in str(caught.value) and str(tmp_path / "work") in str(caught.value)
    if "timeout" in str(caught.value):
        assert "the generator's `timeout:`" in str(caught.value)
    assert (tmp_path / "work" / "in" / "0000.npz").is_file()


def test_a_program_that_is_not_there_is_named(tmp_path: Path, generator) -> None:
    generator("").check()
    absent = CommandGenerator(("no-such-program", "{input}", "{output}"), tmp_path, 60.0)
    with pytest.raises(CommandError, match=r"no program 'no-such-program'.*correct the generator's `command:`"):
        absent.check()
    with pytest.raises(CommandError, match="no such folder to run 'no-such-program' in"):
        replace(absent, directory=tmp_path / "gone").check()


def test_grasps_depend_on_the_words_and_the_files_that_they_name(tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text("1")
    made = CommandGenerator(("python", "theirs.py", "{input}", "{output}"), tmp_path, 60.0)
    known = made.made_from(file_hash)
    assert json.loads(json.dumps(known)) == known and list(known["files"]) == ["theirs.py"]
    assert replace(made, timeout=7.0, deterministic=True).made_from(file_hash) == known
    assert replace(made, command=(*made.command, "--more")).made_from(file_hash) != known
    (tmp_path / "theirs.py").write_text("2")
    assert made.made_from(file_hash) != known


# The example that ships with us.


def example(python: Path | str) -> CommandGenerator:
    command = (str(python), f"scripts/{EXAMPLE.name}", "{input}", "{output}")
    return CommandGenerator(command, EXAMPLE.parents[1], 120.0)


def test_the_example_needs_numpy_alone() -> None:
    nodes = list(ast.walk(ast.parse(EXAMPLE.read_text())))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    assert imported == {"json", "pathlib", "sys", "numpy"}
    assert not [node for node in nodes if isinstance(node, ast.ImportFrom)]


def box(edges: tuple[float, float, float], yaw: float, at: tuple[float, float]) -> np.ndarray:
    """A grid of points in a box that stands on the table, ``(N, 3)``, table frame."""
    grid = np.stack(np.meshgrid(*[np.linspace(-0.5, 0.5, 9)] * 3), axis=-1).reshape(-1, 3) * edges
    return grid @ Rotation.from_euler("z", yaw, degrees=True).as_matrix().T + [*at, edges[2] / 2]


@pytest.mark.parametrize("seed", range(3))
def test_the_example_closes_across_the_narrow_side_from_wherever_it_is_seen(
    tmp_path: Path, environment: Path, seed: int
) -> None:
    boxes = {
        7: box((0.06, 0.03, 0.04), 30.0, (0.1, 0.0)),
        9: box((0.12, 0.13, 0.05), 0.0, (-0.2, 0.0)),  # wider than the gripper opens
        30: box((0.02, 0.05, 0.15), -45.0, (0.0, 0.2)),
    }
    T_camera_table = np.eye(4)
    T_camera_table[:3, :3] = Rotation.random(random_state=seed).as_matrix()
    T_camera_table[:3, 3] = np.random.default_rng(seed).normal(size=3)
    on_table = np.concatenate(list(boxes.values()))
    points = (on_table @ T_camera_table[:3, :3].T + T_camera_table[:3, 3]).astype(np.float32)
    ids = np.repeat(list(boxes), [len(cloud) for cloud in boxes.values()])
    view = replace(a_view(), points=points, object_ids=ids, T_camera_table=T_camera_table)
    nothing = replace(view, view=1, points=points[:0], object_ids=ids[:0])
    with example(environment).generate(tmp_path / "work", 0, "kinect", [view, nothing]) as read:
        grasps = read(0).transformed(invert(T_camera_table))
        assert len(read(1)) == 0
    assert grasps.object_id.tolist() == [30, 7] and (np.diff(grasps.confidence) <= 0).all()
    assert grasps.width == pytest.approx([0.04, 0.05], abs=1e-5)
    assert np.linalg.det(grasps.rotation) == pytest.approx(1.0)
    assert grasps.rotation[:, :, 0] == pytest.approx(np.array([[0.0, 0, -1]] * 2), abs=1e-6)
    for closing, angle in zip(grasps.rotation[:, :, 1], (-45.0, 30.0 + 90.0), strict=True):
        narrow = [np.cos(np.radians(angle)), np.sin(np.radians(angle)), 0.0]
        assert abs(closing @ narrow) == pytest.approx(1.0, abs=1e-6)
    assert grasps.translation[:, :2] == pytest.approx(np.array([[0.0, 0.2], [0.1, 0.0]]), abs=1e-5)
    assert grasps.translation[:, 2] == pytest.approx([0.135, 0.025], abs=1e-5)


@pytest.mark.slow
def test_the_example_holds_objects_that_were_observed(
    tmp_path: Path, tiny_dataset: Path, tiny_cache: Path, environment: Path
) -> None:
    """From observations to the protocol's score: frames, units and columns are what the documentation says."""
    content = {"format_version": 1, "name": "x", "dataset": {"root": str(tiny_dataset)}, "arms": ["partial"]}
    (tmp_path / "experiment.yaml").write_text(json.dumps({**content, "cache": str(tiny_cache)}))
    experiment = load_experiment(tmp_path / "experiment.yaml")
    quiet = {"device": "cpu", "say": lambda _: None}
    run = run_experiment(experiment, tmp_path / "run", stages=("observe",), **quiet)

    def seen(folder: Path) -> Iterator[CommandView]:
        for path in sorted(folder.glob("*.npz")):
            observed = load_observation(path)
            objects = at_density(observed.objects, DENSITY)
            yield replace(
                a_view(),
                view=int(path.stem),
                points=objects.points,
                object_ids=objects.ids_of_points,
                T_camera_table=invert(observed.T_table_camera),
            )

    for scene in (100, 160):
        place = Path(f"scene_{scene:04d}") / "realsense"
        target = tmp_path / "dump" / place
        target.mkdir(parents=True)
        views = seen(run.folder.observations / place)
        with example(environment).generate(tmp_path / "work", scene, "realsense", views) as read:
            for number in (0, 128):
                np.save(target / f"{number:04d}.npy", read(number).to_array())
    request = Request(tmp_path / "dump", tiny_dataset, "realsense", tiny_cache)
    result = score_dump(request, say=lambda _: None).result
    assert result["kept"] >= 6 and result["reasons"]["success"] >= 0.5 * result["kept"]
