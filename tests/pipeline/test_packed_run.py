"""A run whose units are packed: fewer files, and everything read of it as of a loose one."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from pipeline import load_run
from pipeline.config import load_experiment
from pipeline.dump_export import export_dump
from pipeline.engine_options import Execution
from pipeline.experiment import RunResult, run_experiment
from pipeline.run_folder import unit_folder, view_file
from pipeline.score_dump import Request, score_dump
from pipeline.view_files import PACK, unpack

pytestmark = pytest.mark.slow


def carry_out(path: Path, out: Path, **how: object) -> RunResult:
    execution = Execution(**how)  # type: ignore[arg-type]
    return run_experiment(load_experiment(path), out, device="cpu", execution=execution, say=lambda _: None)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path, tiny_cache: Path, tiny_checkpoint: Path):
    """The experiment, a loose run with a store, and a packed run without."""
    home = tmp_path_factory.mktemp("packed")
    path = home / "experiment.yaml"
    path.write_text(
        "format_version: 1\nname: tiny\n"
        f"dataset: {{root: {tiny_dataset}}}\n"
        f"arms: [partial, {{name: random, checkpoint: {tiny_checkpoint}}}, oracle]\n"
        f"cache: {tiny_cache}\n"
    )
    return path, carry_out(path, home / "loose", store=home / "store"), carry_out(path, home / "pack", packed=True)


def files(root: Path, *kinds: str) -> dict[str, bytes]:
    found = [path for path in sorted(root.rglob("*")) if path.suffix in kinds]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


# Place, dates and durations.
OF_ITS_OWN = ("tables/run.csv", "tables/time-of-the-units.csv", "figures/timings.png", "figures/timings.svg")


def compared(root: Path) -> dict[str, bytes]:
    """Rows, tables and figures by name, and the pictures in the page."""
    kept = {
        name: data
        for name, data in files(root, ".parquet", ".csv", ".svg", ".png").items()
        if name.removeprefix("report/") not in OF_ITS_OWN
    }
    assert "report/figures/ap-by-arm.png" in kept and "tables/grasps.parquet" in kept
    pictures = re.findall(rb"data:image/[a-z+]+;base64,[^\"')]+", (root / "report.html").read_bytes())
    assert len(pictures) > 6
    return kept | {"pictures": b"".join(pictures)}


def test_a_packed_run_gives_the_same_rows_tables_and_pictures(runs) -> None:
    _, loose, packed = runs
    assert loose.problems == packed.problems == ()
    assert files(loose.folder.root, ".npz", ".npy") and not files(packed.folder.root, ".npz", ".npy")
    theirs = compared(loose.folder.root)
    ours = compared(packed.folder.root)
    assert sorted(ours) == sorted(theirs)
    assert [name for name in ours if ours[name] != theirs[name]] == []


def test_its_views_are_the_same_bytes(runs, tmp_path: Path) -> None:
    _, loose, packed = runs
    packs = sorted(packed.folder.root.rglob(PACK))
    assert len(packs) == 2 + 3 * 2 * 2  # observations; clouds and dumps of three arms
    for pack in packs:
        place = pack.parent.relative_to(packed.folder.root)
        unpack(pack.parent, tmp_path / place)
        assert files(tmp_path / place, ".npz", ".npy") == files(loose.folder.root / place, ".npz", ".npy")


def test_it_is_current_and_only_what_is_damaged_is_made_again(runs) -> None:
    path, _, packed = runs
    again = carry_out(path, packed.folder.root, packed=True)
    assert {stage.made for stage in again.stages} == {0}
    pack = unit_folder(packed.folder.clouds("random"), 160, "realsense") / PACK
    whole = pack.read_bytes()
    pack.write_bytes(whole[:-30])
    again = carry_out(path, packed.folder.root, packed=True)
    assert [stage.made for stage in again.stages] == [0, 1, 0, 0, 0]
    assert pack.read_bytes() == whole


def test_notebooks_read_it_alike(runs) -> None:
    _, loose, packed = runs
    ours, theirs = load_run(packed.folder.root), load_run(loose.folder.root)
    for view in (0, 128):
        np.testing.assert_array_equal(
            ours.observation(100, view).objects.points, theirs.observation(100, view).objects.points
        )
        np.testing.assert_array_equal(
            ours.clouds("random", 100, view).points, theirs.clouds("random", 100, view).points
        )
        mine, other = ours.grasps_of("random", 100, view), theirs.grasps_of("random", 100, view)
        np.testing.assert_array_equal(mine.grasps.to_array(), other.grasps.to_array())


def test_its_dump_is_scored_as_it_lies_and_as_exported(
    runs, tiny_dataset: Path, tiny_cache: Path, tmp_path: Path
) -> None:
    _, loose, packed = runs
    done = export_dump(packed.folder.root, "oracle", tmp_path / "dump")
    assert (done.units, done.views) == (2, 4)
    theirs = loose.folder.dump("oracle", "antipodal")
    assert files(tmp_path / "dump", ".npy") == files(theirs, ".npy")
    request = Request(
        dump=theirs, dataset=tiny_dataset, camera="realsense", cache=tiny_cache, views=(0, 128), workers=1
    )
    results = []
    for dump in (theirs, packed.folder.dump("oracle", "antipodal"), tmp_path / "dump"):
        result = score_dump(dataclasses.replace(request, dump=dump), say=lambda _: None).result
        results.append({key: value for key, value in result.items() if key not in ("dump", "seconds")})
    assert results[0] == results[1] == results[2]
    assert results[0]["problems"] == []


def test_units_out_of_a_store_get_the_form_that_a_run_wants(runs, tmp_path: Path) -> None:
    path, loose, packed = runs
    store = loose.folder.root.parent / "store"
    for name, how, like in (("pack", True, packed), ("loose", False, loose)):
        again = carry_out(path, tmp_path / name, store=store, packed=how)
        assert sum(stage.stored for stage in again.stages) == sum(stage.made for stage in again.stages) == 28
        assert files(tmp_path / name, ".npz", ".npy", ".zip") == files(like.folder.root, ".npz", ".npy", ".zip")
        assert compared(tmp_path / name) == compared(like.folder.root)
        assert {stage.made for stage in carry_out(path, tmp_path / name, store=store, packed=how).stages} == {0}
    assert view_file(unit_folder(loose.folder.observations, 100, "realsense"), 0, ".npz").stat().st_nlink > 1
