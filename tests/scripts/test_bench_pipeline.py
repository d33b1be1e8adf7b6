"""The benchmark of whole runs: its arithmetic, and that it runs; whether anything is fast is not a test's business."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

import bench_pipeline_cost as cost  # noqa: E402

CPU, GPU = cost.CPU, cost.GPU
RATES = cost.Rates(
    objects=10.0,
    observe=0.2,
    visibility=0.05,
    score=0.01,
    complete={"partial": 0.02, "network": 0.06, "oracle": 0.03},
    generate={"partial": 0.1, "network": 0.3, "oracle": 0.3},
    explain={"partial": 0.02, "network": 0.02, "oracle": 0.02},
    worker_start=4.0,
    driver_ms=1.0,
    planning_ms=2.0,
    view_mb=1.0,
    rows=200.0,
    aggregate_fixed=5.0,
    aggregate_unit=0.01,
    aggregate_row=1e-6,
    report=10.0,
)


def test_cpu_hours_are_seconds_a_view_times_views() -> None:
    hours = cost.estimate(RATES, cost.Assumptions())["cpu_hours"]
    views = 90 * 2 * 256
    assert hours["observe"] == pytest.approx(views * 0.2 / 3600)
    assert hours["complete"] == pytest.approx(views * (0.02 + 3 * 0.06 + 0.03) / 3600)
    assert hours["generate"] == pytest.approx(views * (0.1 + 4 * 0.3) / 3600)
    assert hours["score"] == pytest.approx(views * 5 * 0.01 / 3600)
    assert hours["explain"] == pytest.approx(views * (0.05 + 5 * 0.02) / 3600)
    assert hours["aggregate"] == pytest.approx((5 + 0.01 * 180 * 5 + 1e-6 * 200 * views * 5) / 3600)


def test_objects_take_time_in_proportion_but_not_in_observe() -> None:
    ten, twenty = (cost.scene_units(RATES, cost.Assumptions(objects=n), 0) for n in (10.0, 20.0))
    for one, other in zip(ten, twenty, strict=True):
        assert other.seconds == pytest.approx(one.seconds * (1 if one.stage == "observe" else 2))


def test_one_worker_takes_the_sum() -> None:
    units = cost.scene_units(RATES, cost.Assumptions(), 0)
    total = sum(unit.seconds for unit in units)
    assert cost.simulate(units, 3, cost.Machines("one", 1)) == pytest.approx(3 * total)


def test_without_end_of_workers_it_takes_the_longest_way_through_one_scene() -> None:
    units = cost.scene_units(RATES, cost.Assumptions(), 0)
    longest, unit = cost.chain(units)
    # observe, complete, generate and score of a network or the oracle, explain
    assert longest == pytest.approx(256 * (0.2 + 0.06 + 0.3 + 0.01 + 0.02))
    assert unit.stage == "generate"
    assert cost.simulate(units, 50, cost.Machines("many", 100_000)) == pytest.approx(longest)


def test_units_that_do_not_divide_leave_workers_idle() -> None:
    units = [cost.Unit("observe", "", 10.0, CPU, ())]
    for copies in (1, 4, 5, 8, 9):
        machine = cost.Machines("four", 4)
        expected = 10.0 * math.ceil(copies / 4)
        assert cost.simulate(units, copies, machine) == expected == cost.staged(units, copies, machine)


@pytest.mark.parametrize("machine", [*cost.MACHINES, cost.Machines("odd", 7), cost.Machines("gpus", 5, 2)])
def test_the_schedule_keeps_its_bounds(machine: cost.Machines) -> None:
    given = cost.Assumptions(scenes=7)
    units, copies = cost.scene_units(RATES, given, machine.gpus), 14
    seconds = cost.simulate(units, copies, machine)
    cpu = copies * sum(unit.seconds for unit in units if unit.group == CPU)
    gpu = copies * sum(unit.seconds for unit in units if unit.group == GPU)
    longest = cost.chain(units)[0]
    least = max(cpu / machine.cores, gpu / machine.gpus if machine.gpus else 0.0, longest)
    assert least - 1e-9 <= seconds
    if not machine.gpus:  # Graham's bound: no worker is idle while a unit is ready
        assert seconds <= cpu / machine.cores + longest + 1e-9


def test_a_gpu_takes_the_networks_and_binds_where_its_worker_has_most_to_do() -> None:
    given = cost.Assumptions(gpu_clouds_per_s=100.0)
    units = cost.scene_units(RATES, given, 1)
    assert {unit.arm for unit in units if unit.group == GPU} == {"network"}
    assert next(unit.seconds for unit in units if unit.group == GPU) == pytest.approx(256 * (0.02 + 10 / 100))
    on_gpu = next(one for one in cost.estimate(RATES, given)["machines"] if one["gpus"])
    assert on_gpu["binds"] == "`complete`, on the GPU's worker"
    assert on_gpu["units_s"] >= 180 * 3 * 256 * (0.02 + 10 / 100)


def test_the_stage_that_binds_is_named() -> None:
    found = cost.estimate(RATES, cost.Assumptions())["machines"]
    assert found[0]["binds"].startswith("cores") and "`generate`" in found[0]["binds"]
    assert found[-1]["binds"].startswith("one scene's units in a row")
    slow = replace(RATES, observe=10.0)
    assert "`observe`" in cost.estimate(slow, cost.Assumptions())["machines"][0]["binds"]


@pytest.mark.slow
def test_quick_run_prints_every_figure(tmp_path: Path) -> None:
    import bench_pipeline

    command = [sys.executable, str(SCRIPTS / "bench_pipeline.py")]
    done = subprocess.run([*command, "--quick", "--json"], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads(done.stdout)
    said = bench_pipeline.__doc__ or ""
    for key in figures:
        assert key in said or key.replace("_percent", "_mib") in said, f"{key} is not described"
    for key in (
        "two_worker_efficiency",
        "pipeline_two_worker_efficiency",
        "driver_ms_per_unit",
        "driver_ms_per_unit_of_large_run",
        "full_comparison_cpu_hours",
    ):
        assert figures[key] > 0, key
    assert figures["two_worker_efficiency"] < 2
    for stage in ("observe", "complete", "generate", "score", "explain", "visibility"):
        assert figures["stages"][stage]["cpu_s_per_view"] > 0 and figures["stages"][stage]["units"] > 0
    assert set(figures["stages"]["generate"]["cpu_s_per_view_by_arm"]) == {
        "partial",
        "pcn-cd",
        "pcn-cd-asymmetric",
        "pcn-qal",
        "oracle",
    }
    few, many = figures["large"]["units"]
    # observe and visibility, and complete, generate, score and explain of two arms
    assert (few["units"], many["units"]) == (10 * few["scenes"], 10 * many["scenes"])
    assert 50 < many["driver_peak_mib"] < 5000 and 50 < many["worker_peak_mib"] < 5000
    observed = figures["disk"]["observe"]
    assert (
        observed["files"] == 257 and observed["files_packed"] == 2
    )  # a view each and the stamp; the pack and the stamp
    # of each unit: clouds, metrics, stamp; grasps, stamp; two tables and a stamp, twice
    assert figures["files_of_an_arm_loose"] == 180 * (258 + 257 + 3 + 3)
    assert figures["files_of_an_arm_packed"] == 180 * (3 + 2 + 3 + 3) < 50_000

    saved = tmp_path / "figures.json"
    saved.write_text(done.stdout)
    table = subprocess.run([*command, "--table", "--figures", str(saved)], capture_output=True, text=True, timeout=100)
    assert table.returncode == 0, table.stderr
    assert "| `generate` |" in table.stdout and "32 nodes of 32 cores" in table.stdout
    plain = subprocess.run([*command, "--figures", str(saved)], capture_output=True, text=True, timeout=100)
    assert plain.returncode == 0 and f"efficiency {figures['two_worker_efficiency']:.3f}" in plain.stdout
