#!/usr/bin/env python3
"""Compare our scores with graspnetAPI 1.2.11's own, grasp by grasp, on any dataset and dump.

    python scripts/check_against_graspnetapi.py --dataset ROOT --dump DUMP [--camera realsense] [--scenes 100-102,160]
                                                [--views 0,64] [--rows 12] [--seed 0]

ROOT is in GraspNet-1Billion's layout; model files that graspnetAPI needs and ROOT lacks are made into a cache. DUMP
holds scene_SSSS/<camera>/VVVV.npy. The referee runs its own `GraspNetEval.eval_scene`, loaders included: 1.5 to 2.5
seconds a view and some 5 a scene.

Exit status: 0 equal; 1 at the first difference, after printing the grasp that shows it; 2 for input that cannot be
compared. What is no difference is printed all the same: views that stop the referee, rows that are not finite (refused
here, graded there), equal confidences (ours are ordered by the other columns, the referee's by chance) and grasps whose
verdict hangs on the referee's random sample of the surface.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

from grasping import reference, reference_scene
from grasping.force_closure import FRICTIONS
from grasping.geometry import GeometryError, load_object
from grasping.grasps import GraspFileError, Grasps
from grasping.protocol import fingerprint
from grasping.referee_check import Comparison, Difference, compare_view
from pipeline.artifacts import default_cache
from pipeline.datasets.graspnet import CAMERAS, DatasetError, GraspNetDataset

EQUAL, DIFFERENT, BAD_INPUT = 0, 1, 2

COLUMNS = (
    "score", "width", "height", "depth", *(f"R{i}{j}" for i in range(3) for j in range(3)), "x", "y", "z", "object",
)  # fmt: skip


class InputError(ValueError):
    """Input that cannot be compared; the message names it and the remedy."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return check(options)
    except (InputError, DatasetError, GeometryError, GraspFileError, reference.RefereeMissingError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT


def check(options: argparse.Namespace) -> int:
    if not options.dump.is_dir():
        raise InputError(f"{options.dump}: no such folder; give the one that holds scene_SSSS/<camera>/VVVV.npy")
    dataset = GraspNetDataset(options.dataset, options.camera)
    scenes = _scenes(dataset, options)
    reference.load()
    print(
        f"graspnetAPI {metadata.version('graspnetAPI')}, numpy {np.__version__}, protocol version "
        f"{fingerprint()['version']}; surface samples from seed {options.seed}\n"
    )
    print(
        f"{'scene':>5} {'views':>5} {'candidates':>10} {'kept':>5} {'passing':>7} {'collides':>8} {'empty':>6} "
        f"{'no_contact':>10} {'no_closure':>10}  {'AP ours':>8} {'referee':>8}"
    )
    totals = Totals()
    for scene in scenes:
        difference = check_scene(dataset, scene, options, totals)
        if difference is not None:
            view, found, grasps = difference
            print_difference(options, scene, view, found, grasps)
            return DIFFERENT
    totals.print()
    if totals.compared == 0:
        raise InputError("the referee could grade none of these views: nothing was compared")
    return EQUAL


def check_scene(
    dataset: GraspNetDataset, scene: int, options: argparse.Namespace, totals: Totals
) -> tuple[int, Difference, Grasps] | None:
    """Compare one scene and print its line; the first difference with its view and the view's grasps."""
    folder = options.dump / f"scene_{scene:04d}" / options.camera
    views = options.views or sorted(int(path.stem) for path in folder.glob("[0-9]" * 4 + ".npy"))
    if not views:
        raise InputError(f"{folder}: holds no VVVV.npy")
    absent = [view for view in views if not (folder / f"{view:04d}.npy").exists()]
    if absent:
        raise InputError(f"{folder}: no {absent[0]:04d}.npy in it; choose --views that the dump holds")
    ids = dataset.object_ids(scene)
    objects = [load_object(dataset.model_dir(k), k, options.cache) for k in ids]
    root = reference_scene.stage_root(dataset.root, options.cache, ids)
    dump = options.dump
    with tempfile.TemporaryDirectory() as scratch:
        if options.rows:
            dump = Path(scratch)
            _write_rows(options, scene, views, dump)
        all_grasps = {view: _read(dump, scene, options.camera, view) for view in views}
        theirs = reference_scene.evaluate_scene(root, options.camera, scene, dump, views, options.seed)
    seeds = range(options.seed, options.seed + 5)
    results: dict[int, Comparison] = {}
    for view in views:
        grasps = all_grasps[view]
        poses = dataset.object_poses(scene, view, ids)
        T_camera_table = np.linalg.inv(dataset.T_table_camera(scene, view))
        result = compare_view(grasps, objects, poses, T_camera_table, theirs[view], seeds=seeds)
        results[view] = result
        if result.difference is not None:
            _print_scene(scene, results, ids)
            return view, result.difference, grasps
    _print_scene(scene, results, ids)
    totals.add(results)
    return None


def _print_scene(scene: int, results: dict[int, Comparison], ids: Sequence[int]) -> None:
    counts = _outcomes(results.values())
    both = [one for one in results.values() if not one.failure]
    ours, theirs = (np.mean([getattr(one, name) for one in both] or [np.nan]) for name in ("ap", "referee_ap"))
    candidates, kept = (sum(value) for value in zip(*map(_sizes, results.values()), strict=True))
    passing = sum(n for name, n in counts.items() if name.startswith("success"))
    print(
        f"{scene:5d} {len(results):5d} {candidates:10d} {kept:5d} {passing:7d} {counts['collides']:8d} "
        f"{counts['empty']:6d} {counts['no_contact']:10d} {counts['no_closure']:10d}  {ours:8.4f} {theirs:8.4f}"
    )
    for view, one in results.items():
        where = f"      view {view:04d}:"
        if one.failure:
            print(f"{where} the referee stops here with {one.failure}; ours counts {one.ap:.4f} AP, not compared")
        if one.ours.refused:
            print(f"{where} {len(one.ours.refused)} rows refused here and withheld from the referee: not finite")
        if one.spread is not None:
            low, high = one.spread
            print(
                f"{where} {one.tied} rows share their confidence with another; by our rule (ascending by the other "
                f"columns) AP {one.ap:.4f}, the referee's over orders of the rows {low:.4f} to {high:.4f}"
            )
        for entry in one.chance:
            place = np.flatnonzero(one.ours.index == entry.row)
            owner = f" on object {ids[int(one.ours.object_index[place[0]])]}" if len(place) else ""
            print(
                f"{where} row {entry.row}{owner}: the referee is random here, for the surface reaches the border of "
                f"its distances: {_frictions(entry.theirs)} from seeds; ours {_frictions([entry.ours])}"
            )


def print_difference(options: argparse.Namespace, scene: int, view: int, found: Difference, grasps: Grasps) -> None:
    print(f"\nDIFFERENT in {found.what}: scene {scene}, camera {options.camera}, view {view}, row {found.row}")
    again = ["--scenes", str(scene), "--views", str(view), "--seed", str(options.seed)]
    if found.row >= 0:
        row = options.rows[found.row] if options.rows else found.row
        for name, value in zip(COLUMNS, grasps.to_array()[found.row].tolist(), strict=True):
            print(f"  {name:>7} {value!r}")
        if found.alone:
            again += ["--rows", str(row)]
    print(f"  ours    {found.ours}\n  referee {found.theirs}")
    command = ["python", sys.argv[0], "--dataset", str(options.dataset), "--dump", str(options.dump)]
    print(f"reproduce: {shlex.join([*command, '--camera', options.camera, *again])}")


class Totals:
    """What all scenes add up to."""

    def __init__(self) -> None:
        self.results: list[Comparison] = []

    @property
    def compared(self) -> int:
        return sum(not one.failure for one in self.results)

    def add(self, results: dict[int, Comparison]) -> None:
        self.results.extend(results.values())

    def print(self) -> None:
        counts = _outcomes(self.results)
        both = [one for one in self.results if not one.failure]
        candidates, kept = (sum(value) for value in zip(*map(_sizes, self.results), strict=True))
        print(f"\n{candidates} candidates, {kept} kept in {len(self.results)} views; outcomes of the kept:")
        print("  " + (", ".join(f"{name} {n}" for name, n in sorted(counts.items())) or "none"))
        chance = sum(len(one.chance) for one in self.results)
        ties, failed = sum(one.tied > 0 for one in self.results), len(self.results) - len(both)
        print(
            f"  {ties} views with equal confidences, {chance} grasps left to the referee's surface sample, "
            f"{failed} views that stop the referee"
        )
        if both:
            ours, theirs = (np.mean([getattr(one, name) for one in both]) for name in ("ap", "referee_ap"))
            print(f"  AP ours {ours:.6f}, referee {theirs:.6f} over the {len(both)} views that it can grade")
            left = ", wherever the referee does not leave it to chance" if ties or chance else ""
            print(f"EQUAL on {len(both)} of {len(self.results)} views{left}")


def _outcomes(results: Iterable[Comparison]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for one in results:
        kept = one.ours.kept
        for reason, friction in zip(one.ours.reason[kept], one.ours.min_friction[kept], strict=True):
            counts[f"success at {friction}" if friction in FRICTIONS else str(reason)] += 1
    return counts


def _sizes(one: Comparison) -> tuple[int, int]:
    return len(one.ours), int(one.ours.kept.sum())


def _frictions(values: Iterable[float]) -> str:
    return ", ".join("fails" if np.isinf(value) else f"{value:g}" for value in values)


def _read(dump: Path, scene: int, camera: str, view: int) -> Grasps:
    try:
        return Grasps.load(dump / f"scene_{scene:04d}" / camera / f"{view:04d}.npy")
    except GraspFileError:
        return Grasps.empty()  # the referee cannot read it either, and says so


def _write_rows(options: argparse.Namespace, scene: int, views: Sequence[int], dump: Path) -> None:
    folder = dump / f"scene_{scene:04d}" / options.camera
    folder.mkdir(parents=True, exist_ok=True)
    for view in views:
        grasps = Grasps.load(options.dump / f"scene_{scene:04d}" / options.camera / f"{view:04d}.npy")
        if max(options.rows) >= len(grasps):
            raise InputError(f"--rows {max(options.rows)}: view {view} of scene {scene} has {len(grasps)} rows")
        np.save(folder / f"{view:04d}.npy", grasps[options.rows].to_array())


def _scenes(dataset: GraspNetDataset, options: argparse.Namespace) -> list[int]:
    known = dataset.scene_ids()
    dumped = [k for k in known if (options.dump / f"scene_{k:04d}" / options.camera).is_dir()]
    wanted = options.scenes if options.scenes is not None else dumped
    for scene in wanted:
        if scene not in known:
            raise InputError(f"{options.dataset}: no scene {scene} seen by {options.camera}")
        if scene not in dumped:
            raise InputError(f"{options.dump}: no scene_{scene:04d}/{options.camera} in it")
    if not wanted:
        raise InputError(f"{options.dump}: holds no scene of {options.dataset} for {options.camera}")
    return list(wanted)


def _numbers(text: str) -> list[int]:
    """Read ``0,5,7-9``."""
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        try:
            numbers.extend(range(int(first), int(last or first) + 1))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 0,5,7-9") from None
    return sorted(set(numbers))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cache = default_cache()
    parser.add_argument("--dataset", type=Path, required=True, help="folder with scenes/ and models/")
    parser.add_argument("--dump", type=Path, required=True, help="folder with scene_SSSS/<camera>/VVVV.npy")
    parser.add_argument("--camera", choices=CAMERAS, default="realsense")
    parser.add_argument("--scenes", type=_numbers, help="e.g. 0,5,100-102; all that the dump holds")
    parser.add_argument("--views", type=_numbers, help="e.g. 0,64; all that the dump holds")
    parser.add_argument("--rows", type=_numbers, help="only these rows of each dump file")
    parser.add_argument("--seed", type=int, default=0, help="of the referee's random surface samples")
    parser.add_argument("--cache", type=Path, default=cache, help=f"for files made from models ({cache})")
    return parser


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.exit(main())
