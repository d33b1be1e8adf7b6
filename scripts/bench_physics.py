"""How many trials a second: python scripts/bench_physics.py [--json]

One core, a 6-part object (a stool of boxes), grasps across its seat and legs. Beside it, in the same run, the naive
twin that compiles its model for every trial and must give the same outcomes bit for bit. Medians over rounds, CPU time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable

import mujoco
import numpy as np
import trimesh
from scipy.spatial.transform import Rotation

from grasping.grasps import Grasps
from grasping.physics import (
    PhysicsBody,
    SettledScene,
    Trial,
    TrialSettings,
    settle_scene,
    try_grasps,
    try_grasps_in_scene,
)

SETTINGS = TrialSettings()


def stool() -> PhysicsBody:
    """Seat, four legs, and a bar: 12 cm wide, 10 cm high, 0.1 kg."""
    boxes = [trimesh.creation.box([0.12, 0.12, 0.015])]
    for x in (-0.05, 0.05):
        for y in (-0.05, 0.05):
            leg = trimesh.creation.box([0.018, 0.018, 0.085])
            leg.apply_translation([x, y, -0.05])
            boxes.append(leg)
    bar = trimesh.creation.box([0.1, 0.012, 0.012])
    bar.apply_translation([0, 0.05, -0.06])
    mesh = trimesh.util.concatenate([*boxes, bar])
    mesh.density = 0.1 / mesh.volume
    parts = tuple(np.asarray(box.vertices, np.float64) for box in [*boxes, bar])
    return PhysicsBody(0, parts, float(mesh.mass), np.asarray(mesh.center_mass), np.asarray(mesh.moment_inertia))


def draw_grasps(count: int, seed: int) -> Grasps:
    """Draw grasps around random points of the rim and the legs, most of them worth a trial."""
    rng = np.random.default_rng(seed)
    rotations, tips, widths = [], [], []
    for _ in range(count):
        x, y = rng.choice([-1, 1], 2)
        if rng.random() < 0.5:  # a leg, from its outer side
            approach, closing = np.array([-x, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])
            tips.append([x * 0.045, y * 0.05 + rng.normal(0, 0.003), rng.uniform(-0.08, -0.03)])
        else:  # the rim of the seat
            approach, closing = np.array([-x, 0.0, 0.0]), np.array([0.0, 0.0, 1.0])
            tips.append([x * 0.05, rng.uniform(-0.03, 0.03), rng.normal(0, 0.003)])
        tilt = Rotation.from_rotvec(rng.normal(0, 0.15, 3)).as_matrix()
        rotations.append(tilt @ np.stack([approach, closing, np.cross(approach, closing)], axis=1))
        widths.append(rng.uniform(0.03, 0.06))
    R, depth = np.array(rotations), rng.choice([0.01, 0.02], count)
    return Grasps(
        np.zeros(count),
        np.array(widths),
        np.full(count, 0.02),
        depth,
        R,
        np.array(tips) - depth[:, None] * R[:, :, 0],
        np.zeros(count, np.int64),
    )


def naive(body: PhysicsBody, grasps: Grasps) -> list[Trial]:
    """The twin: a model compiled for every trial."""
    return [try_grasps(body, grasps[[n]], SETTINGS)[0] for n in range(len(grasps))]


def in_scene(scene: SettledScene, grasps: Grasps) -> list[Trial]:
    return try_grasps_in_scene(scene, np.zeros(len(grasps), int), grasps, SETTINGS)


def cpu_seconds(call: Callable[[], list[Trial]]) -> tuple[float, list[Trial]]:
    begin = time.process_time()
    trials = call()
    return time.process_time() - begin, trials


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grasps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    body, grasps = stool(), draw_grasps(arguments.grasps, 0)
    places = np.tile(np.eye(4), (3, 1, 1))
    places[:, 1, 3], places[:, 2, 3] = [0.0, 0.2, -0.2], 0.095
    scene = settle_scene([body] * 3, places, SETTINGS)
    times: dict[str, list[float]] = {"ours": [], "naive": [], "scene": []}
    for _ in range(arguments.rounds):
        spent, ours = cpu_seconds(lambda: try_grasps(body, grasps, SETTINGS))
        times["ours"].append(spent)
        spent, twin = cpu_seconds(lambda: naive(body, grasps))
        times["naive"].append(spent)
        if twin != ours:
            raise SystemExit("the twin that compiles for every trial ended otherwise")
        spent, placed = cpu_seconds(lambda: in_scene(scene, grasps))
        times["scene"].append(spent)
    held = [n for n, trial in enumerate(ours) if trial.held]
    spent_held = statistics.median(
        cpu_seconds(lambda: try_grasps(body, grasps[held], SETTINGS))[0] for _ in range(arguments.rounds)
    )
    count = len(grasps)
    rate = {name: count / statistics.median(values) for name, values in times.items()}
    result = {
        "machine": "2 cores, CPU",
        "mujoco": mujoco.__version__,
        "parts": len(body.parts),
        "grasps": count,
        "rounds": arguments.rounds,
        "trials_per_second": round(rate["ours"], 1),
        "trials_per_second_all_held": round(len(held) / spent_held, 1),
        "trials_per_second_compiled_each": round(rate["naive"], 1),
        "compile_once_ratio": round(rate["ours"] / rate["naive"], 2),
        "trials_per_second_scene_of_3": round(rate["scene"], 1),
        "outcomes": dict(sorted(Counter(trial.outcome for trial in ours).items())),
        "outcomes_scene": dict(sorted(Counter(trial.outcome for trial in placed).items())),
        "simulated_seconds_per_trial": round(sum(trial.seconds for trial in ours) / count, 2),
    }
    if arguments.json:
        json.dump(result, sys.stdout, indent=1)
        print()
        return
    for key, value in result.items():
        print(f"{key:34} {value}")


if __name__ == "__main__":
    main()
