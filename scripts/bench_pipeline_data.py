"""What bench_pipeline.py measures on: scenes as they are in GraspNet-1Billion, and a large split of tiny ones."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from grasping.transforms import invert
from pipeline.artifacts import Stamp, file_sizes, write_json, write_stamp
from pipeline.config import Experiment, load_experiment
from pipeline.datasets.graspnet import GraspNetDataset
from pipeline.run_folder import STAMP, RunFolder, unit_folder, view_file
from pipeline.selection import SceneUnit, select
from pipeline.view_files import load_grasps

CAMERA = "realsense"
ARMS = ("partial", "pcn-cd", "pcn-cd-asymmetric", "pcn-qal", "oracle")
NETWORKS = ("pcn-cd", "pcn-cd-asymmetric", "pcn-qal")
GENERATOR, SCORER = "antipodal", "analytic"
SHRINK = 6  # a tiny view has every sixth pixel of a line, and every sixth line
_TINY_SOURCE = 100


@dataclass(frozen=True)
class Sample:
    """An experiment, the scenes and views that it uses, and how many objects lie in each scene."""

    experiment: Experiment
    units: list[SceneUnit]
    objects: list[int]


def make_sample(folder: Path, scenes: int, views: int, objects: tuple[int, int]) -> Sample:
    """Synthesize scenes of the test split, 1280 x 720, with an experiment of five arms on them.

    Args:
        folder: where; what is there already is used.
        scenes: from 100 on.
        views: rendered of each, evenly among the 256.
        objects: fewest and most in a scene.
    """
    from pipeline.datasets.synthetic import synthesize

    root = folder / f"dataset-{scenes}-{views}-{objects[0]}-{objects[1]}"
    synthesize(
        root,
        scenes=range(100, 100 + scenes),
        views=range(0, 256, 256 // views)[:views],
        seed=3,
        seen_pool=12 if objects[0] > 3 else 4,
        objects_per_scene=objects,
        workers=2,
    )
    experiment = make_experiment(folder / "experiment.yaml", root, folder / "cache", ARMS)
    units = select(experiment)
    held = [len(GraspNetDataset(root, CAMERA).object_ids(unit.scene)) for unit in units]
    return Sample(experiment, units, held)


def make_experiment(
    path: Path, root: Path, cache: Path, arms: tuple[str, ...], samples: int | None = None
) -> Experiment:
    """Write an experiment file as a user would, and read it; ``samples`` are the generator's, an object."""
    parameters = "" if samples is None else f", parameters: {{samples: {samples}}}"
    path.write_text(
        f"format_version: 1\nname: bench\ndataset: {{root: {root}}}\narms: [{', '.join(arms)}]\n"
        f"generators: [{{name: {GENERATOR}{parameters}}}]\ncache: {cache}\n"
    )
    return load_experiment(path)


def make_large(folder: Path, scenes: int) -> tuple[Path, list[SceneUnit]]:
    """Make a split of so many tiny scenes: one scene of two objects, one small view, linked under every number.

    GraspNet-1Billion ends at scene 189, so the units are named here and not selected; everything after the selection
    takes them as it takes others.

    Returns:
        The dataset's root, and its units.
    """
    from pipeline.datasets.synthetic import synthesize

    source, root = folder / "tiny-source", folder / f"large-{scenes}"
    synthesize(source, scenes=(_TINY_SOURCE,), views=(0,), seed=5, seen_pool=4, objects_per_scene=(2, 2))
    if not root.exists():
        begun = root.with_name(f"{root.name}.begun")
        shutil.rmtree(begun, ignore_errors=True)
        (begun / "scenes").mkdir(parents=True)
        (begun / "models").symlink_to((source / "models").resolve())
        _shrink(source / "scenes" / f"scene_{_TINY_SOURCE:04d}" / CAMERA, begun / "tiny" / CAMERA)
        for scene in range(scenes):
            (begun / "scenes" / f"scene_{scene:04d}").symlink_to(Path("..") / "tiny")
        manifest = json.loads((source / "manifest.json").read_text())
        manifest["views"] = {CAMERA: {f"{scene:04d}": [0] for scene in range(scenes)}}
        write_json(begun / "manifest.json", manifest)
        begun.rename(root)
    return root, [SceneUnit(scene, CAMERA, "test_seen", (0,)) for scene in range(scenes)]


def make_wide(folder: Path, units: int) -> tuple[Path, list[SceneUnit]]:
    """Make the split of so many scenes with all 256 views, for planning alone: every view is the same small one."""
    root, _ = make_large(folder, units)
    scene = root / "tiny" / CAMERA
    for kind, suffix in (("depth", "png"), ("label", "png"), ("rgb", "png"), ("meta", "mat")):
        for view in range(1, 256):
            if (scene / kind / f"0000.{suffix}").exists() and not (scene / kind / f"{view:04d}.{suffix}").exists():
                os.link(scene / kind / f"0000.{suffix}", scene / kind / f"{view:04d}.{suffix}")
    return root, [SceneUnit(scene, CAMERA, "test_seen", tuple(range(256))) for scene in range(units)]


def _shrink(scene: Path, out: Path) -> None:
    """Copy a scene with one view, of which every few pixels are left."""
    shutil.copytree(scene, out)
    for kind in ("depth", "label", "rgb"):
        for path in sorted((out / kind).glob("*.png")):
            with Image.open(path) as image:
                small = Image.fromarray(np.asarray(image)[SHRINK // 2 :: SHRINK, SHRINK // 2 :: SHRINK])
            small.save(path)
    K = np.load(out / "camK.npy")
    K[:2, 2] -= SHRINK // 2
    K[:2] /= SHRINK
    np.save(out / "camK.npy", K)


def repeat_grasps(source: RunFolder, out: RunFolder, sample: Sample, views: int) -> list[SceneUnit]:
    """Give every unit the grasps of its few views again in the next ones, as finished units of ``generate``.

    The grasps stay where they are on the table and are said in the frame of each view's camera, so that they are
    graded there as they would be in their own view; poses are known of all 256.

    Returns:
        The units, with ``views`` views each.
    """
    dataset = GraspNetDataset(sample.experiment.dataset.root, CAMERA)
    for unit in sample.units:
        for arm in ARMS:
            theirs = unit_folder(source.dump(arm, GENERATOR), unit.scene, unit.camera)
            ours = unit_folder(out.dump(arm, GENERATOR), unit.scene, unit.camera)
            ours.mkdir(parents=True)
            on_table = [
                load_grasps(view_file(theirs, view, ".npy")).transformed(dataset.T_table_camera(unit.scene, view))
                for view in unit.views
            ]
            for view in range(views):
                moved = on_table[view % len(on_table)].transformed(invert(dataset.T_table_camera(unit.scene, view)))
                np.save(view_file(ours, view, ".npy"), moved.to_array())
            made_from = {"stage": "generate", "bench": f"{arm}/{unit.label}", "clouds": None}
            write_stamp(ours / STAMP, Stamp(made_from, [], 0.0, file_sizes(ours)))
    return [SceneUnit(unit.scene, unit.camera, unit.split, tuple(range(views))) for unit in sample.units]


def repeat_rows(source: RunFolder, out: RunFolder, sample: Sample, views: int) -> list[SceneUnit]:
    """Give every unit the rows of its few views again in the next ones, in all that ``aggregate`` reads."""
    for stamp in source.root.rglob(f"scene_*/*/{STAMP}"):
        theirs, ours = stamp.parent, out.root / stamp.parent.relative_to(source.root)
        ours.mkdir(parents=True)
        shutil.copy(stamp, ours)
        for path in theirs.glob("*.parquet"):
            rows = pq.ParquetFile(path).read()
            place, kind = rows.column_names.index("view"), rows.schema.field("view").type
            number = rows.column("view").to_numpy()
            held = sample.units[0].views
            of_view = [rows.filter(pa.array(number == view)) for view in held]
            again = [of_view[view % len(held)] for view in range(views)]
            numbers = [pa.array([view] * len(part), kind) for view, part in enumerate(again)]
            pq.write_table(
                pa.concat_tables(
                    part.set_column(place, "view", number) for part, number in zip(again, numbers, strict=True)
                ),
                ours / path.name,
            )
    return [SceneUnit(unit.scene, unit.camera, unit.split, tuple(range(views))) for unit in sample.units]


def rows_of(run: RunFolder) -> int:
    """Count the graded grasps in a run's tables."""
    return int(pq.read_metadata(run.tables / "grasps.parquet").num_rows)


def megabytes_a_view(sample: Sample) -> float:
    """Return what the files of one view of the dataset take, MB."""
    dataset = GraspNetDataset(sample.experiment.dataset.root, CAMERA)
    sizes = [
        sum(path.stat().st_size for path in dataset.view_files(unit.scene, view) if path.stem == f"{view:04d}")
        for unit in sample.units
        for view in unit.views
    ]
    return sum(sizes) / len(sizes) / 1e6
