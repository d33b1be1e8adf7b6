"""The figures of bench_pipeline.py for people."""

from __future__ import annotations

from typing import Any


def text(f: dict[str, Any]) -> list[str]:
    """Lines of text; every figure stands in the JSON too."""
    machine, sample = f["machine"], f["sample"]
    versions = ", ".join(f"{name} {machine[name]}" for name in ("numpy", "numba", "torch", "pyarrow"))
    return [
        f"{machine['cores']} cores, {machine['cpu']}; Python {machine['python']}, {versions}; load "
        f"{machine['load_before']} before, {machine['load_after']} after; {f['seconds']:.0f} s",
        f"sample: {sample['scenes']} scenes of {sample['objects_a_scene']} objects, {sample['views']} views each of "
        f"1280 x 720, {sample['grasp_rows_a_view_and_arm']:.0f} graded grasps a view and arm",
        "",
        *_stages(f["stages"]),
        "",
        *_workers(f),
        "",
        *_large(f),
        "",
        *_files(f),
    ]


def _stages(stages: dict[str, Any]) -> list[str]:
    lines = [f"{'one worker':12} {'CPU ms a view':>14} {'units/h of 256 views':>21}   by arm, CPU ms a view"]
    for name, stage in stages.items():
        if "cpu_s_per_view_by_arm" not in stage:
            lines.append(
                f"{name:12} {1e3 * stage['cpu_s_per_view']:14.1f} {'':21}   of the sample once: {stage['wall_s']:.1f} s"
            )
            continue
        by_arm = ", ".join(f"{arm} {1e3 * value:.1f}" for arm, value in stage["cpu_s_per_view_by_arm"].items())
        lines.append(f"{name:12} {1e3 * stage['cpu_s_per_view']:14.1f} {stage['units_per_hour']:21.0f}   {by_arm}")
    return lines


def _workers(f: dict[str, Any]) -> list[str]:
    lines = []
    for name, run in (("scoring alone", f["scoring"]), ("all unit stages", f["pipeline"])):
        one, two = (", ".join(f"{wall:.2f}" for wall in run[f"wall_s_with_{n}"]) for n in ("one", "two"))
        lines.append(
            f"{name:16} {run['units']} units of {run['views_a_unit']} views: one worker {one} s, two {two} s: "
            f"efficiency {run['efficiency']:.3f}"
        )
        lines.append(
            f"{'':16} had units {100 * run['one_busy_share']:.1f} and {100 * run['two_busy_share']:.1f} % of the time; "
            f"CPU for the same units {run['cpu_s_with_one']:.2f} and {run['cpu_s_with_two']:.2f} s"
        )
    lines.append(
        f"{'':16} the longest unit of scoring took {f['scoring']['longest_unit_s']:.2f} s; a worker starts in "
        f"{f['pipeline']['worker_start_s']:.1f} s of CPU"
    )
    return lines


def _large(f: dict[str, Any]) -> list[str]:
    few, many = f["large"]["units"]
    tables_few, tables_many = f["large"]["aggregate"]
    trivial, plan = f["large"]["trivial"], f["large"]["plan"]

    def grown(name: str, before: float, after: float) -> str:
        return f"{name:16} {before:.0f} MiB with {few['scenes']} scenes, {after:.0f} MiB with {many['scenes']}"

    return [
        grown("driver's peak", few["driver_peak_mib"], many["driver_peak_mib"])
        + f": {f['driver_memory_growth_mib']:+.0f} MiB, {f['driver_memory_growth_percent']:+.1f} %",
        grown("worker's peak", few["worker_peak_mib"], many["worker_peak_mib"])
        + f": {f['worker_memory_growth_mib']:+.0f} MiB, {f['worker_memory_growth_percent']:+.1f} %",
        grown("aggregate's peak", tables_few["peak_mib"], tables_many["peak_mib"])
        + f": {f['aggregate_memory_growth_mib']:+.0f} MiB, {f['aggregate_memory_growth_percent']:+.1f} %"
        + f" ({tables_many['grasp_rows']:,} rows, {tables_many['wall_s']:.0f} s)",
        f"driver, a unit   {f['driver_ms_per_unit']:.2f} ms of wall time where {trivial['units']:,} units do nothing: "
        f"planning {trivial['planning_ms_per_unit']:.2f}, scheduling {trivial['scheduling_cpu_ms_per_unit']:.2f} of "
        f"CPU, the workers {trivial['worker_ms_per_unit'] / 2:.2f}; a rerun {trivial['rerun_wall_ms_per_unit']:.2f}",
        f"                 in the run of {many['scenes']} scenes ({many['units']:,} units, {many['wall_s']:.0f} s): "
        f"planning {many['planning_ms_per_unit']:.2f} ms, scheduling {many['scheduling_cpu_ms_per_unit']:.2f} ms of "
        f"CPU; the workers were busy {100 * many['workers_busy_share']:.0f} % of the time",
        f"                 planning {plan['scenes']} scenes of 256 views, {plan['units']:,} units: "
        f"{plan['first_ms_per_unit']:.1f} ms a unit with {plan['files_hashed']:,} small files hashed, "
        f"{plan['again_ms_per_unit']:.1f} ms a second time; peak {plan['peak_mib']:.0f} MiB",
    ]


def _files(f: dict[str, Any]) -> list[str]:
    lines = [f"{'one scene of 256 views':28} {'files':>8} {'MB':>8} {'packed: files':>14} {'MB':>8}"]
    for name, entry in f["disk"].items():
        lines.append(
            f"{name:28} {entry['files']:8.0f} {entry['bytes'] / 1e6:8.1f} {entry['files_packed']:14.0f} "
            f"{entry['bytes_packed'] / 1e6:8.1f}"
        )
    return [
        *lines,
        f"full split (90 scenes x 2 cameras): {f['files_of_an_arm_loose']:,} files an arm, packed "
        f"{f['files_of_an_arm_packed']:,}; the run {f['files_of_a_run_loose']:,}, packed "
        f"{f['files_of_a_run_packed']:,}; {f['gigabytes_of_a_run']:.0f} GB",
    ]
