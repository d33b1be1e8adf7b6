"""What a full comparison costs, computed from what bench_pipeline.py measured: pure arithmetic, and a schedule of it.

A unit is a stage's work for one scene, camera and arm, with all its 256 views, and cannot be parted. So with more
workers than units what counts is how long one scene takes from its observation to its explanation, and with fewer the
last units leave some workers idle. :func:`simulate` hands the units out as :mod:`pipeline.schedule` does, scene by
scene, each as soon as what it reads is there, and so has both; :func:`staged` says what it would take if each stage
waited for the one before.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import Any

CPU, GPU = "cpu", "gpu"
_UNIT_STAGES = ("observe", "complete", "generate", "score", "explain")
_MS = 1e-3


@dataclass(frozen=True)
class Assumptions:
    """What is compared, and what was not measured here.

    Attributes:
        scenes, cameras, views, objects: of the dataset, views a scene and camera, objects a scene.
        partial, networks, oracle: how many arms of each kind.
        gpu_clouds_per_s: that a GPU completes; scripts/results/gpu_h200.txt has 2,422 for the shipped networks.
        read_mb_per_s: at which the dataset is read and hashed, once, before the first unit.
    """

    scenes: int = 90
    cameras: int = 2
    views: int = 256
    objects: float = 10.0
    partial: int = 1
    networks: int = 3
    oracle: int = 1
    gpu_clouds_per_s: float = 2422.0
    read_mb_per_s: float = 500.0

    @property
    def arms(self) -> tuple[str, ...]:
        kinds = (("partial", self.partial), ("network", self.networks), ("oracle", self.oracle))
        return tuple(kind for kind, count in kinds for _ in range(count))

    @property
    def all_views(self) -> int:
        return self.scenes * self.cameras * self.views


@dataclass(frozen=True)
class Rates:
    """What was measured, seconds of one core.

    Attributes:
        objects: that a scene had on average.
        observe, visibility, score: a view (of an arm).
        complete, generate, explain: a view, by kind of arm (``partial``, ``network``, ``oracle``).
        worker_start: imports, checkpoints, compiled code; once a worker.
        driver_ms, planning_ms: of the driver, a unit: handing out; planning, what is read aside.
        view_mb: of the dataset's files, a view.
        rows: graded grasps a view and arm.
        aggregate_fixed, aggregate_unit, aggregate_row: of the tables: once, a scene, camera and arm, a row of grasps.
        report: of the report.
    """

    objects: float
    observe: float
    visibility: float
    score: float
    complete: dict[str, float]
    generate: dict[str, float]
    explain: dict[str, float]
    worker_start: float
    driver_ms: float
    planning_ms: float
    view_mb: float
    rows: float
    aggregate_fixed: float
    aggregate_unit: float
    aggregate_row: float
    report: float


@dataclass(frozen=True)
class Machines:
    """Workers, one a core, and one more a GPU."""

    name: str
    cores: int
    gpus: int = 0


MACHINES = (
    Machines("1 workstation, 16 cores", 16),
    Machines("1 GPU node, 64 cores + 1 GPU", 64, 1),
    Machines("the same, completing on the cores", 64),
    Machines("32 nodes of 32 cores", 1024),
)


@dataclass(frozen=True)
class Unit:
    """One unit of one scene and camera, and which others it waits for."""

    stage: str
    arm: str
    seconds: float
    group: str
    after: tuple[int, ...]


def scene_units(rates: Rates, given: Assumptions, gpus: int) -> list[Unit]:
    """List the units of one scene and camera, each after those that it reads; ``after`` holds places in the list."""
    more = given.objects / rates.objects  # objects take time, each as much as any
    views, units = given.views, []

    def add(stage: str, arm: str, a_view: float, after: tuple[int, ...], group: str = CPU) -> int:
        units.append(Unit(stage, arm, views * a_view, group, after))
        return len(units) - 1

    observed = add("observe", "", rates.observe, ())
    scored: list[tuple[str, int, int]] = []
    for arm in given.arms:
        if arm == "network" and gpus:  # what no network has to do is done by the worker that holds the GPU, too
            seconds = rates.complete["partial"] * more + given.objects / given.gpu_clouds_per_s
            completed = add("complete", arm, seconds, (observed,), GPU)
        else:
            completed = add("complete", arm, rates.complete[arm] * more, (observed,))
        generated = add("generate", arm, rates.generate[arm] * more, (completed,))
        scored.append((arm, generated, add("score", arm, rates.score * more, (generated,))))
    truth = next((place for arm, _, place in scored if arm == "oracle"), None)
    add("explain", "", rates.visibility * more, (observed,))
    for arm, _, place in scored:
        after = (place,) if truth is None or truth == place else (place, truth)
        add("explain", arm, rates.explain[arm] * more, after)
    return units


def simulate(units: list[Unit], copies: int, machines: Machines) -> float:
    """Return the seconds until the last unit of so many scenes is done, in the order of :mod:`pipeline.schedule`."""
    order = {stage: place for place, stage in enumerate(_UNIT_STAGES)}
    count = len(units)
    waits = [len(unit.after) for unit in units] * copies
    followers: list[list[int]] = [[] for _ in units]
    for place, unit in enumerate(units):
        for before in unit.after:
            followers[before].append(place)
    feeds = {place for place, unit in enumerate(units) if any(units[f].group == GPU for f in followers[place])}
    ready: dict[str, list[tuple[int, int, int]]] = {CPU: [], GPU: [], "feed": []}
    free = {CPU: machines.cores, GPU: machines.gpus}

    def push(task: int) -> None:
        scene, place = divmod(task, count)
        queue = "feed" if place in feeds else units[place].group
        heapq.heappush(ready[queue], (scene, order[units[place].stage], place))

    def take(group: str) -> int | None:
        queues = [ready[group], *([ready["feed"]] if group == CPU else [])]
        if group == CPU and machines.gpus:
            waiting = len(ready[GPU]) + machines.gpus - free[GPU]
            if waiting < 2 * machines.gpus and ready["feed"]:
                queues = [ready["feed"]]
        filled = [queue for queue in queues if queue]
        if not filled:
            return None
        scene, _, place = heapq.heappop(min(filled, key=lambda queue: queue[0]))
        return scene * count + place

    for first, open_ in enumerate(waits):
        if open_ == 0:
            push(first)
    running: list[tuple[float, int]] = []
    now = 0.0
    while True:
        for group in (GPU, CPU):
            while free[group] and (task := take(group)) is not None:
                free[group] -= 1
                heapq.heappush(running, (now + units[task % count].seconds, task))
        if not running:
            return now
        now, ended = heapq.heappop(running)
        scene, place = divmod(ended, count)
        free[units[place].group] += 1
        for follower in followers[place]:
            waits[scene * count + follower] -= 1
            if waits[scene * count + follower] == 0:
                push(scene * count + follower)


def staged(units: list[Unit], copies: int, machines: Machines) -> float:
    """Return the seconds if every stage waited for the one before: ceil(units / workers) x the longest unit, summed."""
    seconds = 0.0
    for stage in _UNIT_STAGES:
        by_group = [
            ([u.seconds for u in units if u.stage == stage and u.group == group], workers)
            for group, workers in ((CPU, machines.cores), (GPU, machines.gpus))
        ]
        times = [math.ceil(copies * len(of) / workers) * max(of) for of, workers in by_group if of]
        seconds += max(times, default=0.0)  # the groups work beside each other
    return seconds


def chain(units: list[Unit]) -> tuple[float, Unit]:
    """Return how long one scene takes at least, however many workers there are, and the longest unit on its way."""
    ends: list[tuple[float, Unit]] = []
    for unit in units:
        before = max((ends[place] for place in unit.after), key=lambda end: end[0], default=(0.0, unit))
        longest = max((before[1], unit), key=lambda one: one.seconds)
        ends.append((before[0] + unit.seconds, longest))
    return max(ends, key=lambda end: end[0])


def estimate(rates: Rates, given: Assumptions, machines: tuple[Machines, ...] = MACHINES) -> dict[str, Any]:
    """Compute what the comparison costs.

    Returns:
        ``cpu_hours``: by stage, completion on cores; ``cpu_hours_total``; ``units``; and ``machines``: for each its
        ``wall_s`` and the parts of it (``before_s``: reading and planning, ``units_s``: simulated, ``after_s``: tables
        and report), ``staged_s``, ``used`` (share of the cores' time that is work), ``binds`` and ``bounds_s``.
    """
    copies = given.scenes * given.cameras
    on_cores = scene_units(rates, given, 0)
    rows = rates.rows * given.objects / rates.objects * given.all_views * len(given.arms)
    tables = rates.aggregate_fixed + rates.aggregate_unit * copies * len(given.arms) + rates.aggregate_row * rows
    hours = {
        stage: copies * sum(unit.seconds for unit in on_cores if unit.stage == stage) / 3600 for stage in _UNIT_STAGES
    }
    hours |= {"aggregate": tables / 3600, "report": rates.report / 3600}
    before = (
        given.all_views * rates.view_mb / given.read_mb_per_s
        + copies * len(on_cores) * rates.planning_ms * _MS
        + rates.worker_start
    )
    result = []
    for machine in machines:
        units = scene_units(rates, given, machine.gpus)
        longest, of_chain = chain(units)
        cpu, gpu = (copies * sum(unit.seconds for unit in units if unit.group == group) for group in (CPU, GPU))
        bounds = {
            "cores": cpu / machine.cores,
            "gpu": gpu / machine.gpus if machine.gpus else 0.0,
            "one scene": longest,
            "driver": copies * len(units) * rates.driver_ms * _MS,
            "reading": before,
            "tables": tables + rates.report,
        }
        seconds = max(simulate(units, copies, machine), bounds["driver"])
        result.append(
            {
                "name": machine.name,
                "cores": machine.cores,
                "gpus": machine.gpus,
                "wall_s": before + seconds + tables + rates.report,
                "before_s": before,
                "units_s": seconds,
                "after_s": tables + rates.report,
                "staged_s": staged(units, copies, machine),
                "used": cpu / (machine.cores * seconds),
                "bounds_s": bounds,
                "binds": _binds(bounds, units, of_chain),
            }
        )
    return {
        "units": copies * len(on_cores),
        "grasp_rows": rows,
        "cpu_hours": hours,
        "cpu_hours_total": sum(hours.values()),
        "machines": result,
    }


def _binds(bounds: dict[str, float], units: list[Unit], of_chain: Unit) -> str:
    name = max(bounds, key=lambda bound: bounds[bound])
    if name == "cores":
        by_stage = {s: sum(u.seconds for u in units if u.stage == s and u.group == CPU) for s in _UNIT_STAGES}
        stage = max(by_stage, key=lambda s: by_stage[s])
        return f"cores, by {100 * by_stage[stage] / sum(by_stage.values()):.0f} % in `{stage}`"
    if name == "gpu":
        return "`complete`, on the GPU's worker"
    if name == "one scene":
        return f"one scene's units in a row, `{of_chain.stage}` the longest"
    return {
        "driver": "the driver, which hands units out",
        "reading": "reading the dataset for its hashes",
        "tables": "`aggregate` and `report`, which are one process",
    }[name]


def markdown(found: dict[str, Any], rates: Rates, given: Assumptions) -> list[str]:
    """The README's tables, with the assumptions beside."""
    hours = found["cpu_hours"]
    lines = [
        "| stage | CPU-hours | units | a unit takes |",
        "|---|---:|---:|---:|",
    ]
    units, copies = scene_units(rates, given, 0), given.scenes * given.cameras
    for stage in _UNIT_STAGES:
        of = [unit.seconds for unit in units if unit.stage == stage]
        span = f"{min(of):.1f} to {max(of):.1f} s" if len(of) > 1 else f"{of[0]:.1f} s"
        lines.append(f"| `{stage}` | {hours[stage]:.1f} | {copies * len(of):,} | {span} |")
    for stage in ("aggregate", "report"):
        lines.append(f"| `{stage}` | {hours[stage]:.2f} | 1 | {3600 * hours[stage]:.0f} s |")
    lines += [
        f"| **all** | **{found['cpu_hours_total']:.1f}** | {found['units']:,} | |",
        "",
        "| machines | wall time | units | before and after | cores busy | what binds |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for one in found["machines"]:
        lines.append(
            f"| {one['name']} | **{_time(one['wall_s'])}** | {_time(one['units_s'])} | "
            f"{_time(one['before_s'] + one['after_s'])} | {100 * one['used']:.0f} % | {one['binds']} |"
        )
    arms = f"{given.partial} partial, {given.networks} networks, {given.oracle} oracle"
    return [
        *lines,
        "",
        f"Assumed: {given.scenes} scenes x {given.cameras} cameras x {given.views} views, {given.objects:g} objects a "
        f"scene, arms: {arms}; one generator, one scorer. Seconds a view as measured here with {rates.objects:.1f} "
        "objects, all but `observe` in proportion to the objects; cores as fast as one of these when all are busy, "
        f"and files as near. A GPU completes {given.gpu_clouds_per_s:,.0f} clouds/s (not measured here: "
        "scripts/results/gpu_h200.txt, the shipped networks on an H200), and its worker does the rest of completion, "
        "as for `partial`, on one core. The dataset "
        f"({given.all_views * rates.view_mb / 1e3:.0f} GB of depth, labels, colour and poses) is read once at "
        f"{given.read_mb_per_s:.0f} MB/s for its hashes. Units cannot be parted: their schedule is simulated in the "
        "order in which they are handed out.",
    ]


def _time(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 600 else f"{seconds / 60:.1f} min"
