"""How long it takes to say where a run of many units stands, and what a run would make.

    python scripts/bench_status.py FOLDER                 # 15,480 units of 16 views, in a new folder
    python scripts/bench_status.py FOLDER --views 256     # the same of a full split's views: 190,000 small files first
    python scripts/bench_status.py FOLDER --json

The dataset has files of the right names with hardly anything in them, and the run stamps and one packed file a unit:
nothing is computed. Times are of whole commands, with starting Python and importing torch.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from pipeline.artifacts import Stamp, file_sizes, write_json, write_stamp
from pipeline.config import load_experiment
from pipeline.experiment import plan_units
from pipeline.run_folder import RunFolder
from pipeline.selection import select

SCENES, CAMERAS, OBJECTS = range(100, 190), ("realsense", "kinect"), range(9)
SHIPPED = ("pcn-cd", "pcn-cd-asymmetric", "pcn-qal")
POSE = "<pos_in_world>0 0 0.5</pos_in_world><ori_in_world>1 0 0 0</ori_in_world>"


def make_dataset(root: Path, views: int) -> None:
    named = "".join(
        f"<obj><obj_id>{i}</obj_id><obj_name>b</obj_name><obj_path>b</obj_path>{POSE}</obj>" for i in OBJECTS
    )
    for i in OBJECTS:
        (root / f"models/{i:03d}").mkdir(parents=True)
        (root / f"models/{i:03d}/nontextured.ply").write_text("ply")
    for scene in SCENES:
        for camera in CAMERAS:
            folder = root / f"scenes/scene_{scene:04d}/{camera}"
            for kind, suffix in (("depth", "png"), ("label", "png"), ("meta", "mat"), ("annotations", "xml")):
                (folder / kind).mkdir(parents=True)
                for view in range(views):
                    text = f"<scene>{named}</scene>" if suffix == "xml" else f"{scene} {camera} {view}"
                    (folder / kind / f"{view:04d}.{suffix}").write_text(text)
            for name in ("camK.npy", "camera_poses.npy", "cam0_wrt_table.npy"):
                (folder / name).write_text("x")
    held = {camera: {f"{scene:04d}": list(range(views)) for scene in SCENES} for camera in CAMERAS}
    (root / "manifest.json").write_text(json.dumps({"format_version": 1, "views": held}))


def make_run(home: Path, arms: int) -> int:
    names = ["partial", "oracle"]
    names += [f"{{name: arm{i}, checkpoint: {SHIPPED[i % len(SHIPPED)]}}}" for i in range(arms - len(names))]
    (home / "experiment.yaml").write_text(
        f"format_version: 1\nname: big\ndataset: {{root: dataset, cameras: [{', '.join(CAMERAS)}]}}\n"
        f"arms: [{', '.join(names)}]\ncache: cache\n"
    )
    experiment, folder = load_experiment(home / "experiment.yaml"), RunFolder(home / "run")
    plans = plan_units(experiment, folder, select(experiment))
    for plan in plans:
        plan.folder.mkdir(parents=True)
        (plan.folder / "views.zip").write_bytes(b"x")
        write_stamp(plan.stamp, Stamp(plan.made_from, [], 1.0, file_sizes(plan.folder)))
    write_json(folder.experiment_file, experiment.model_dump(mode="json"))
    return len(plans)


def timed(*arguments: object) -> dict[str, float]:
    """Return wall and CPU seconds of a command of ours, the better of two."""
    found = []
    for _ in range(2):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([sys.executable, "-m", "grasp_utility", *map(str, arguments)], check=True, capture_output=True)
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found.append({"wall_s": round(wall, 2), "cpu_s": round(cpu, 2)})
    return min(found, key=lambda times: times["wall_s"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="new; what is made stays there")
    parser.add_argument("--views", type=int, default=16)
    parser.add_argument("--arms", type=int, default=21)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    home = given.folder.resolve()
    make_dataset(home / "dataset", given.views)
    figures: dict[str, object] = {"units": make_run(home, given.arms), "views_a_unit": given.views}
    run = home / "run"
    figures["status"] = timed("status", run)
    figures["status_quick"] = timed("status", "--quick", run)
    figures["dry_run"] = timed("run", home / "experiment.yaml", "--out", run, "--dry-run")
    if given.json:
        print(json.dumps(figures, indent=1))
    else:
        for key, value in figures.items():
            print(f"{key:<14} {value}")


if __name__ == "__main__":
    main()
