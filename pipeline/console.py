"""What a run says on the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline import summary
from pipeline.experiment import RunResult

SHOWN = ("ap", "ap_0.4", "ap_0.8", "feasible", "quality", "success@1_mu0.4", "success@10_mu0.8")
TITLES = {
    "ap": "AP %",
    "ap_0.4": "AP0.4 %",
    "ap_0.8": "AP0.8 %",
    "feasible": "feasible/view",
    "quality": "quality",
    "success@1_mu0.4": "top-1 µ≤.4",
    "success@10_mu0.8": "top-10 µ≤.8",
}
MOST_PROBLEMS = 10


def show(result: RunResult, *, whole: bool) -> None:
    """Print the tables of a whole run, its problems, and where everything lies."""
    console = Console(highlight=False)
    content = summary.read(result.folder)
    if whole and content is not None:
        if not any(report.made for report in result.stages) and not result.problems:
            console.print("nothing is stale: everything below was made before")
        print_summary(content, console)
    if result.problems:
        console.print(f"[bold red]{len(result.problems)} problems[/] (all in {result.folder.problems}):")
        for problem in result.problems[:MOST_PROBLEMS]:
            where = "" if problem.get("view") is None else f" view {problem['view']}"
            where += "" if problem.get("object") is None else f" object {problem['object']}"
            console.print(f"  {problem['stage']} {problem['unit']}{where}: {problem['reason']}", markup=False)
    if whole:
        console.print(f"tables     {result.folder.tables}", soft_wrap=True)
        console.print(f"report     {result.folder.report}", soft_wrap=True)


def print_summary(content: Mapping[str, Any], console: Console) -> None:
    """Print utility per arm, completion beside it, and the paired differences."""
    data = content["dataset"]
    console.print()
    console.print(f"[bold]{content['name']}[/]: {content['question']}")
    console.print(
        f"{data['scenes']} scenes, {data['views']} views; mean over scenes; brackets: 95 % interval over scenes"
    )
    for generator, scorer, camera in sorted({(r["generator"], r["scorer"], r["camera"]) for r in content["utility"]}):
        console.print(
            f"\n[bold]Utility[/] ({camera}, generator {generator}, scorer {scorer}, entry {content['entry']})"
        )
        console.print(_utility_table(content, generator, scorer, camera))
        primary = content["primary_metric"]
        console.print(f"\n[bold]Paired differences[/] in {TITLES.get(primary, primary)} and coverage")
        console.print(_difference_table(content, generator, scorer, camera))
    for warning in content["warnings"]:
        console.print(f"[yellow]note[/] {warning}")


def _utility_table(content: Mapping[str, Any], generator: str, scorer: str, camera: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("arm")
    for metric in SHOWN:
        table.add_column(TITLES[metric], justify="right")
    for title in ("recovered", "coverage 5mm", "spurious 5mm"):
        table.add_column(title, justify="right")
    values = _index(content["utility"], generator, scorer, camera)
    fidelity = {(r["arm"], r["metric"]): r for r in content["completion"] if r["camera"] == camera}
    recovered = {
        (r["arm"], r["metric"]): r
        for r in content["recovered"]
        if (r["generator"], r["scorer"], r["camera"]) == (generator, scorer, camera)
    }
    for arm in [item["name"] for item in content["arms"]]:
        cells = [_number(values.get((arm, metric), {}).get("value")) for metric in SHOWN]
        share = recovered.get((arm, content["primary_metric"]))
        cells.append(
            "" if share is None else "undefined" if share["value"] is None else f"{100 * share['value']:.0f} %"
        )
        cells += [_number(fidelity.get((arm, name), {}).get("value"), 3) for name in ("coverage@5mm", "spurious@5mm")]
        table.add_row(arm, *cells)
    return table


def _difference_table(content: Mapping[str, Any], generator: str, scorer: str, camera: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("difference")
    primary = content["primary_metric"]
    for title in (TITLES.get(primary, primary), "95 % interval", "coverage 5mm", "95 % interval"):
        table.add_column(title, justify="right")
    rows = content["comparisons"]
    for a, b in dict.fromkeys((row["arm_a"], row["arm_b"]) for row in rows):
        pair = [row for row in rows if (row["arm_a"], row["arm_b"], row["camera"]) == (a, b, camera)]
        utility = [r for r in pair if r["metric"] == primary and (r["generator"], r["scorer"]) == (generator, scorer)]
        coverage = [row for row in pair if row["metric"] == "coverage@5mm"]
        table.add_row(f"{a} - {b}", *_difference(utility, 2), *_difference(coverage, 3))
    return table


def _difference(rows: list[dict[str, Any]], digits: int) -> tuple[str, str]:
    if not rows or rows[0]["difference"] is None:
        return "", ""
    row = rows[0]
    if row["ci_low"] is None:
        return f"{row['difference']:+.{digits}f}", "n/a"
    return f"{row['difference']:+.{digits}f}", f"[{row['ci_low']:+.{digits}f}, {row['ci_high']:+.{digits}f}]".replace(
        "[", r"\["
    )


def _index(
    rows: Iterable[dict[str, Any]], generator: str, scorer: str, camera: str
) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (row["arm"], row["metric"]): row
        for row in rows
        if (row["generator"], row["scorer"], row["camera"]) == (generator, scorer, camera)
    }


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def show_check(root: Path, problems: Iterable[Any]) -> int:
    """Print a dataset's problems by file; return how many are errors."""
    console = Console(highlight=False)
    found = list(problems)
    errors = [problem for problem in found if problem.severity == "error"]
    for problem in found:
        console.print(
            f"{problem.severity:<5} {problem.path}: {problem.problem}; {problem.remedy}", markup=False, soft_wrap=True
        )
    console.print(f"{root}: {len(errors)} errors, {len(found) - len(errors)} notes", soft_wrap=True)
    return len(errors)


def show_mapping(mapping: Mapping[str, Any], indent: str = "") -> None:
    """Print nested keys and values, one a line."""
    console = Console(highlight=False)
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            console.print(f"{indent}{key}:", markup=False)
            show_mapping(value, indent + "  ")
        else:
            console.print(f"{indent}{key}: {value}", markup=False, soft_wrap=True)
