"""What a run says on the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline import report, summary
from pipeline.agreement import THRESHOLDS, sentences
from pipeline.console_run import show_failures
from pipeline.experiment import RunResult
from pipeline.scorers import PHYSICS
from pipeline.table_files import WHOLE

TITLES = {
    "ap": "AP %",
    "ap_0.4": "AP0.4",
    "ap_0.8": "AP0.8",
    "feasible": "feasible",
    "quality": "quality",
    "any_mu0.8": "µ 0.8",
    "any_mu0.4": "µ 0.4",
    "oracle_ap": "sorted AP",
    "success@1_mu0.4": "top 1",
    "success@10_mu0.4": "top 10",
    "coverage@5mm": "coverage",
    "spurious@5mm": "spurious",
    "f1@5mm": "F1",
    "cd_l1_mm": "CD-L1 mm",
}
# Tables of at most 80 columns each.
UTILITY = ("ap_0.4", "ap_0.8", "feasible")
SUCCESS = ("success@1_mu0.4", "success@10_mu0.4", "quality")
RANK_FREE = ("feasible", "any_mu0.8", "any_mu0.4", "oracle_ap")
FIDELITY = ("coverage@5mm", "spurious@5mm", "f1@5mm", "cd_l1_mm")
MOST_PROBLEMS = 10


def show(result: RunResult, *, whole: bool, recorded: bool = True) -> None:
    """Print the tables of a run, its answer, what failed, and where everything lies.

    Args:
        result: of the run.
        whole: whether it made all there is, tables and report included.
        recorded: whether its problems stand in ``problems.json``: not those of one share.
    """
    console = Console(highlight=False)
    content = summary.read(result.folder)
    if whole and content is not None:
        if not any(report.made for report in result.stages) and not result.problems:
            console.print("nothing is stale: everything below was made before")
        print_summary(content, console)
        print_answer(report.read_answer(result.folder), console)
    _show_problems(result, console, recorded)
    if whole:
        console.print(f"tables     {result.folder.tables}", soft_wrap=True)
        console.print(f"report     {result.folder.report}", soft_wrap=True)


def _show_problems(result: RunResult, console: Console, recorded: bool) -> None:
    """Print what failed inside units, then the units that failed as wholes: these have a log each."""
    inside = [problem for problem in result.problems if "tries" not in problem]
    failed = [problem for problem in result.problems if "tries" in problem]
    if inside:
        console.print(f"[bold red]{_counted(len(inside), 'problem')}[/] inside finished units:")
        for problem in inside[:MOST_PROBLEMS]:
            where = "" if problem.get("view") is None else f" view {problem['view']}"
            where += "" if problem.get("object") is None else f" object {problem['object']}"
            console.print(f"  {problem['stage']} {problem['unit']}{where}: {problem['reason']}", markup=False)
        if len(inside) > MOST_PROBLEMS:
            console.print(f"  and {len(inside) - MOST_PROBLEMS} more")
    if failed:
        show_failures(failed, result.folder)
    if result.problems and recorded:
        console.print(f"problems   {result.folder.problems}", soft_wrap=True)


def print_summary(content: Mapping[str, Any], console: Console) -> None:
    """Print utility per arm, completion beside it, and the paired differences."""
    data = content["dataset"]
    console.print()
    console.print(f"[bold]{escape(content['name'])}[/]: {escape(content['question'])}")
    counts = f"{_counted(data['scenes'], 'scene')}, {_counted(data['views'], 'view')}"
    seeds = sorted({arm["seeds"] for arm in content["arms"] if arm["seeds"] > 1})
    counts += f", {' or '.join(map(str, seeds))} training seeds" if seeds else ""
    level = f"{100 * content['level']:g} %"
    console.print(f"{counts}; mean over scenes; brackets: {level} interval over scenes")
    for generator, scorer, camera in sorted({(r["generator"], r["scorer"], r["camera"]) for r in content["utility"]}):
        if scorer == PHYSICS:
            continue  # an opinion beside the others, below
        key = (generator, scorer, camera)
        console.print(
            f"\n[bold]Utility[/] ({camera}, generator {generator}, scorer {scorer}, entry {content['entry']})"
        )
        console.print(_utility_table(content, key))
        console.print("\n[bold]Success of the best 1 and 10 at µ ≤ 0.4, their quality, and completion at 5 mm[/]")
        console.print(_success_table(content, key))
        console.print("\n[bold]Paired differences[/]")
        console.print(_difference_table(content, key))
    _print_rank_free(content, console)
    if "agreement" in content:
        _print_agreement(content, console)
    for warning in content["warnings"]:
        console.print(f"[yellow]note[/] {warning}")


def print_answer(answers: list[dict[str, Any]], console: Console) -> None:
    """Print the sentences that stand on top of the report."""
    for item in answers:
        title = f" ({item['setting']})" if len(answers) > 1 else ""
        console.print(f"\n[bold]Answer[/]{escape(title)}")
        for sentence in (*item["sentences"], *item["reasons"]):
            console.print(f"- {sentence}", markup=False)


Key = tuple[str, str, str]  # generator, scorer, camera


def _utility_table(content: Mapping[str, Any], key: Key) -> Table:
    primary = content["primary_metric"]
    table = _table("arm", TITLES.get(primary, primary), "interval", *(TITLES[name] for name in UTILITY), "recovered")
    values = _index(content["utility"], key)
    recovered = _index(content["recovered"], key)
    for arm in [item["name"] for item in content["arms"]]:
        main = values.get((arm, primary), {})
        share = recovered.get((arm, primary))
        table.add_row(
            arm,
            _number(main.get("value")),
            _interval(main, 1),
            *(_number(values.get((arm, name), {}).get("value")) for name in UTILITY),
            "" if share is None else "undefined" if share["value"] is None else f"{100 * share['value']:.0f} %",
        )
    return table


def _success_table(content: Mapping[str, Any], key: Key) -> Table:
    table = _table("arm", *(TITLES[name] for name in (*SUCCESS, *FIDELITY)))
    values = _index(content["utility"], key)
    fidelity = {(r["arm"], r["metric"]): r for r in content["completion"] if r["camera"] == key[2]}
    for arm in [item["name"] for item in content["arms"]]:
        cells = [_number(values.get((arm, name), {}).get("value")) for name in SUCCESS]
        cells += [_number(fidelity.get((arm, name), {}).get("value"), 3) for name in FIDELITY]
        table.add_row(arm, *cells)
    return table


def _difference_table(content: Mapping[str, Any], key: Key) -> Table:
    primary = content["primary_metric"]
    table = _table("difference", TITLES.get(primary, primary), "interval", "p", "p, Holm", "coverage")
    rows = content["comparisons"]
    for a, b in dict.fromkeys((row["arm_a"], row["arm_b"]) for row in rows):
        pair = [row for row in rows if (row["arm_a"], row["arm_b"], row["camera"]) == (a, b, key[2])]
        utility = [r for r in pair if r["metric"] == primary and (r["generator"], r["scorer"]) == key[:2]]
        coverage = [row for row in pair if row["metric"] == "coverage@5mm"]
        tests = (_p(utility[0][name]) if utility else "" for name in ("p_value", "p_holm"))
        table.add_row(f"{a} - {b}", *_difference(utility, 1), *tests, _difference(coverage, 3)[0])
    return table


def _print_rank_free(content: Mapping[str, Any], console: Console) -> None:
    """Print what no confidence enters: the generators' arms below one another, for each scorer and camera."""
    keys = sorted({(r["generator"], r["scorer"], r["camera"]) for r in content["utility"] if r["scorer"] != PHYSICS})
    for scorer, camera in sorted({key[1:] for key in keys}):
        own = [key for key in keys if key[1:] == (scorer, camera)]
        generators = ", ".join(generator for generator, *_ in own)
        console.print(f"\n[bold]Rank-free[/] ({camera}, generator {generators}, scorer {scorer})")
        console.print("all candidates, whatever their confidence: feasible ones, views where any holds,")
        console.print("AP in the scorer's order; confidences of different generators are never compared")
        console.print(_rank_free_table(content, own))


def _rank_free_table(content: Mapping[str, Any], keys: list[Key]) -> Table:
    table = _table("arm, difference", *(TITLES[name] for name in RANK_FREE), "interval")
    for key in keys:
        if len(keys) > 1:
            table.add_row(f"[bold]{escape(key[0])}[/]")
        values = _index(content["utility"], key)
        for arm in [item["name"] for item in content["arms"]]:
            own = [values.get((arm, name), {}) for name in RANK_FREE]
            table.add_row(arm, *(_number(row.get("value")) for row in own), _interval(own[-1], 1))
        for a, b in dict.fromkeys((row["arm_a"], row["arm_b"]) for row in content["comparisons"]):
            pair = [row for row in content["comparisons"] if (row["arm_a"], row["arm_b"]) == (a, b)]
            pair = [row for row in pair if (row["generator"], row["scorer"], row["camera"]) == key]
            found = [[row for row in pair if row["metric"] == name] for name in RANK_FREE]
            table.add_row(f"{a} - {b}", *(_difference(rows, 2)[0] for rows in found), _difference(found[-1], 1)[1])
    return table


def _p(value: float | None) -> str:
    return "" if value is None else "<.001" if value < 0.001 else f"{value:.3f}"


def _print_agreement(content: Mapping[str, Any], console: Console) -> None:
    rows, how = content["agreement"]["agreement"], content["agreement"]["physics"]
    cases = sorted({(r["generator"], r["scorer"], r["camera"]) for r in content["utility"] if r["scorer"] == PHYSICS})
    for key in cases:
        where = f"{key[2]}, generator {key[0]}, {how['mode']}, friction {how['friction']:g}"
        console.print(f"\n[bold]Does physics agree?[/] ({where})")
        console.print(
            f"held of all it tried, of what the protocol passes at µ ≤ {THRESHOLDS[1]:g} or fails, of the best"
        )
        own = [row for row in rows if (row["generator"], row["camera"]) == (key[0], key[2])]
        console.print(_agreement_table(content, own, key))
        for sentence in sentences(own):
            console.print(sentence)


def _agreement_table(content: Mapping[str, Any], rows: list[dict[str, Any]], key: Key) -> Table:
    """Return what physics holds of each arm: over all it tried, of what passes and fails at 0.8, and of the best."""
    friction = THRESHOLDS[1]
    table = _table("arm", "tried", "held %", "passed %", "failed %", "AUC", "best 1 %", "best 10 %")
    values = _index(content["utility"], key)
    found = {r["arm"]: r for r in rows if r["object"] == WHOLE and r["friction"] == friction}
    for arm in [*(item["name"] for item in content["arms"]), WHOLE]:
        if arm not in found:
            continue
        row = found[arm]
        shares = (row["n_held"] / row["n"], row["held_if_passed"], row["held_if_failed"])
        best = (values.get((arm, f"held@{k}"), {}).get("value") for k in (1, 10))
        table.add_row(
            "all arms" if arm == WHOLE else arm,
            str(row["n"]),
            *(_percent(share) for share in shares),
            _number(row["auc"]) or "n/a",
            *(_percent(share) for share in best),
        )
    return table


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for title in others:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _difference(rows: list[dict[str, Any]], digits: int) -> tuple[str, str]:
    if not rows or rows[0]["difference"] is None:
        return "", ""
    return f"{rows[0]['difference']:+.{digits}f}", _interval(rows[0], digits, sign="+")


def _interval(row: Mapping[str, Any], digits: int, sign: str = "") -> str:
    if row.get("ci_low") is None:
        return "n/a"
    return f"\\[{row['ci_low']:{sign}.{digits}f}, {row['ci_high']:{sign}.{digits}f}]"  # a bare [ is markup


def _index(rows: Iterable[dict[str, Any]], key: Key) -> dict[tuple[str, str], dict[str, Any]]:
    return {(r["arm"], r["metric"]): r for r in rows if (r["generator"], r["scorer"], r["camera"]) == key}


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


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
