"""Somebody's dump folder as a generator, and the table of generators."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from grasping.generators import GENERATORS, Generator, GeneratorError, ViewBound, for_view, make_generator
from grasping.grasps import GraspFileError


def write(folder: Path, array: np.ndarray, scene: int = 3, camera: str = "kinect", view: int = 17) -> Path:
    path = folder / f"scene_{scene:04d}" / camera / f"{view:04d}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    return path


def test_reads_the_asked_view_by_falling_confidence(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(6, 17))
    array[:, 0] = [0.1, 0.5, 0.3, 0.5, np.nan, 0.2]
    array[:, 16] = [1, 2, 3, 4, 5, 6]
    write(tmp_path, array)
    write(tmp_path, np.zeros((2, 17)), view=18)
    generator = make_generator("dump", folder=tmp_path)
    assert isinstance(generator, ViewBound)
    bound = for_view(generator, 3, "kinect", 17)
    assert isinstance(bound, Generator)
    grasps = bound(np.zeros((0, 3)), np.zeros(0), np.zeros((0, 3)), np.eye(4), np.zeros(3), 0)
    # The two of equal confidence stay in the file's order, and the broken row is there for the scorer to refuse.
    assert grasps.object_id.tolist() == [2, 4, 3, 6, 1, 5]
    np.testing.assert_array_equal(grasps.to_array()[:5], array[[1, 3, 2, 5, 0]])


def test_an_empty_dump_is_no_grasps(tmp_path: Path) -> None:
    write(tmp_path, np.zeros((0, 17)))
    assert len(make_generator("dump", folder=tmp_path).for_view(3, "kinect", 17)()) == 0


def test_errors_name_the_file_and_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(GeneratorError, match=r"nowhere: no such dump folder"):
        make_generator("dump", folder=tmp_path / "nowhere")
    with pytest.raises(GeneratorError, match=r"holds no scene_SSSS"):
        make_generator("dump", folder=tmp_path)
    path = write(tmp_path, np.zeros((4, 16)))
    generator = make_generator("dump", folder=str(tmp_path))
    with pytest.raises(GraspFileError, match=r"0017\.npy.*\(N, 17\)"):
        generator.for_view(3, "kinect", 17)()
    with pytest.raises(GraspFileError, match=r"scene_0003/kinect/0018\.npy: no such grasp file"):
        generator.for_view(3, "kinect", 18)()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(GraspFileError, match=r"0017\.npy"):
        generator.for_view(3, "kinect", 17)()
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(GraspFileError, match=r"0017\.npy"):
        generator.for_view(3, "kinect", 17)()


def test_unknown_names_and_parameters_are_named() -> None:
    with pytest.raises(GeneratorError, match=r"unknown generator 'antipodl'; did you mean 'antipodal'"):
        make_generator("antipodl")
    with pytest.raises(GeneratorError, match=r"unknown generator 'zzz'; known: antipodal, dump, graspnet_baseline"):
        make_generator("zzz")
    with pytest.raises(GeneratorError, match=r"'antipodal'.*frction"):
        make_generator("antipodal", frction=0.3)
    with pytest.raises(GeneratorError, match=r"'antipodal': friction must be positive"):
        make_generator("antipodal", friction=0)
    assert set(GENERATORS) == {"antipodal", "dump", "graspnet_baseline"}


def test_a_plug_in_is_found_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "grasp_plugin_for_tests.py").write_text(
        "from grasping.grasps import Grasps\n"
        "def make(count):\n"
        "    import numpy as np\n"
        "    return lambda *arguments, **named: Grasps.from_array(np.zeros((count, 17)))\n"
    )
    info = tmp_path / "grasp_plugin_for_tests-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: grasp-plugin-for-tests\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[grasp_utility.generators]\nzeros = grasp_plugin_for_tests:make\n")
    monkeypatch.syspath_prepend(tmp_path)
    generator = for_view(make_generator("zeros", count=3), 0, "kinect", 0)
    assert len(generator(None, None, None, None, None, 0)) == 3
    with pytest.raises(GeneratorError, match="did you mean 'zeros'"):
        make_generator("zeroes")


def test_naming_generators_loads_neither_torch_nor_open3d_nor_numba() -> None:
    code = (
        "import sys, grasping.generators as g; assert not {'torch', 'open3d', 'numba'} & set(sys.modules); "
        "g.make_generator('antipodal'); assert not {'torch', 'open3d'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
