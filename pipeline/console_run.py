"""What the terminal says of a run in work: what would be made, where it stands, what failed. Plain text, for grep."""

from __future__ import annotations

import shutil
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.run_folder import FAILURE, RunFolder
from pipeline.run_progress import FINISHED, STOPPED, STOPPING, WORKING, short_time

if TYPE_CHECKING:
    from pipeline.dry_run import Stale
    from pipeline.run_status import RunStatus

MOST = 10
MOST_FAILURES = MOST_PROCESSES = 20
_LONG_REASON = 200


def show_stale(stale: Stale) -> None:
    """Print what a run would make: a table, then each unit, by the reason."""
    print(f"dry run    {stale.folder.root}: nothing is made or written")
    made, cannot = Counter((u.stage, u.arm) for u in stale.stale), Counter((u.stage, u.arm) for u in stale.blocked)
    stored = Counter((u.stage, u.arm) for u in stale.stale if u.stored)
    rows = [
        [*key, current, made[key], *([stored[key]] if stale.store else []), cannot[key]]
        for key, current in stale.current.items()
    ]
    title = ["stage", "arm", "current", "to make", *(["in store"] if stale.store else []), "cannot"]
    _print_table(title, [*rows, _sums(rows)] if rows else [], left=2)
    for name, wanted in (("tables", stale.tables), ("report", stale.report)):
        if wanted is not None:
            print(f"{name:<10} {'would be made' if wanted else 'up to date'}")
    by_reason = defaultdict(list)
    for unit in stale.stale:
        by_reason[unit.reason].append(unit)
    for reason, units in by_reason.items():
        print(
            f"\nto make, {_counted(len(units), 'unit')}: {textwrap.shorten(reason, _LONG_REASON, placeholder=' ...')}"
        )
        for unit in units:
            print(f"{unit.stage:<9} {unit.label}{'  (in the store)' if unit.stored else ''}")
    if stale.blocked:
        print(f"\ncannot be made, {_counted(len(stale.blocked), 'unit')}:")
        for unit in stale.blocked:
            print(f"{unit.stage:<9} {unit.label}: {unit.reason}")


def show_status(status: RunStatus) -> None:
    """Print where a run stands; see :mod:`pipeline.run_status`."""
    content = status.content()
    print(f"run        {content['run']}")
    _print_state(status, content)
    rows = [
        [row["stage"], row["arm"], *(row[key] for key in ("total", "done", "running", "failed", "waiting", "stale"))]
        for row in content["units"]
    ]
    print()
    header = ["stage", "arm", "total", "done", "running", "failed", "waiting", "stale"]
    _print_table(header, [*rows, _sums(rows)] if rows else [], left=2)
    if content["stale_unknown"] is not None:
        _print_wrapped("stale", f"not known here: {content['stale_unknown']}")
    elif any(row["stale"] for row in content["units"]):
        _print_wrapped("stale", "made, but from something else than now; `run --dry-run` says from what")
    if any(row["a_minute"] is not None or row["seconds"] is not None for row in content["stages"]):
        print()
        _print_table(
            ["stage", "a minute", "s a unit"],
            [[row["stage"], _number(row["a_minute"], 1), _number(row["seconds"], 2)] for row in content["stages"]],
        )
    for what, units in (("running", content["running"]), ("slowest", content["slowest"])):
        if units:
            print(f"\n{what}")
            for unit in units[:MOST]:
                where = f"  on {unit['where']}" if unit.get("where") else ""
                print(f"{short_time(unit['seconds']):>11}  {unit['stage']:<8} {unit['unit']}{where}")
            _print_rest(len(units))
    if content["failures"]:
        print()
        show_failures(content["failures"], status.folder)
    if content["remarks"]:
        said = (
            f"{_counted(content['remarks'], 'object or view', 'objects or views')} failed inside finished units; see "
        )
        _print_wrapped("remarks", said + status.folder.problems.name)


def _print_state(status: RunStatus, content: Mapping[str, Any]) -> None:
    processes = content["processes"]
    states = Counter(process["state"] for process in processes)
    states["not begun"] = content["expected"] - len(processes)
    if not processes:
        _print_wrapped("state", "unknown: no process has left an account of its work (progress.json)")
    elif content["expected"] == 1:
        _print_wrapped("state", _process(processes[0]))
    else:
        said = ", ".join(f"{count} {state}" for state, count in states.items() if count)
        _print_wrapped("state", f"{content['state']}; of {content['expected']} tasks of a job array {said}")
        noted = [process for process in processes if process["state"] != "finished"]
        for process in noted[:MOST_PROCESSES]:
            _print_wrapped(f"task {process['share']}", _process(process))
        _print_rest(len(noted), MOST_PROCESSES)
    if content["state"] in (WORKING, STOPPING):
        _print_wrapped(
            "pace",
            f"{content['a_minute']:.1f} units a minute lately, {content['workers']} at once; "
            + (
                "time left not known yet"
                if content["seconds_left"] is None
                else f"{short_time(content['seconds_left'])} left, by a guess from mean times, tables aside"
            ),
        )
    print(f"tables     {'there' if content['tables'] else 'none yet'}")


def _process(process: Mapping[str, Any]) -> str:
    state = process["state"]
    heard = "ended" if state in (FINISHED, STOPPED) else "last heard of"
    said = {
        "preparing": "preparing: files are hashed, units planned, models read",
        "stopping": "stopping: units in progress are finished",
        "tables": "units are done, tables and report in work",
        "stopped": f"stopped: {process['reason']}",
        "seems dead": "seems dead (silent while we looked); the same command goes on from there",
    }.get(state, state)
    return (
        f"{said}; {heard} {short_time(process['silent'])} ago, process {process['process']} on {process['host']}, "
        f"engine {process['engine']}, started {process['started']}"
    )


def show_failures(failures: Sequence[Mapping[str, Any]], folder: RunFolder) -> None:
    """Print units that failed as wholes and their logs, by the reason; what only needs another is counted.

    Args:
        failures: rows with ``stage, unit, reason, because_of, tries``, and ``log`` or, as in ``problems.json``, the
            unit's folder in the run as its name.
        folder: of the run; logs are named from there.
    """
    at_fault = [row for row in failures if row.get("because_of") is None]
    needy = len(failures) - len(at_fault)
    rest = f" ({needy} only need one that failed)" if needy else ""
    print(f"FAILED     {_counted(len(failures), 'unit')}{rest}. Reasons and logs:")
    by_reason = defaultdict(list)
    for row in at_fault[:MOST_FAILURES]:
        by_reason[row["reason"]].append(row)
    for reason, rows in by_reason.items():
        print(textwrap.fill(reason, _width(), break_long_words=False, break_on_hyphens=False))
        for row in rows:
            log = row.get("log", "").removeprefix(f"{folder.root}/") or f"{row['unit']}/{FAILURE}"
            tries = row.get("tries") or 0
            print(f"  {row['stage']:<9} {log} ({_counted(tries, 'try', 'tries') if tries else 'not begun'})")
    _print_rest(len(at_fault), MOST_FAILURES)


def _print_table(title: Sequence[str], rows: Iterable[Sequence[Any]], left: int = 1) -> None:
    """Print columns, the first ones flush left; never cut short, whatever the terminal's width."""
    text = [list(title), *([("?" if cell is None else str(cell)) for cell in row] for row in rows)]
    widths = [max(len(row[place]) for row in text) for place in range(len(title))]
    for row in text:
        cells = (
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join(cells).rstrip())


def _sums(rows: Sequence[Sequence[Any]]) -> list[Any]:
    columns = list(zip(*rows, strict=True))[2:]
    return ["all", "", *(None if None in column else sum(column) for column in columns)]


def _print_wrapped(title: str, text: str) -> None:
    lines = textwrap.wrap(text, max(40, _width() - 11), break_long_words=False, break_on_hyphens=False) or [""]
    for line in lines:
        print(f"{title:<10} {line}")
        title = ""


def _print_rest(count: int, shown: int = MOST) -> None:
    if count > shown:
        print(f"    and {count - shown} more")


def _width() -> int:
    return min(120, shutil.get_terminal_size().columns)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _counted(count: int, noun: str, nouns: str | None = None) -> str:
    return f"{count} {noun if count == 1 else nouns or f'{noun}s'}"
