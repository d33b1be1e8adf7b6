"""What an evaluation of checkpoints or of a grid says on the terminal: tables of at most 100 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from completion.benchmark_evaluation import BenchmarkResult
    from completion.comparison import Comparison
    from completion.grid_results import Outcome
    from completion.tables import Group

WIDTH = 100
# Column -> title, factor, digits. Two tables, since one of all would be too wide.
_AT_TAU = {
    "coverage": ("coverage", 1, 3),
    "spurious": ("spurious", 1, 3),
    "f1": ("F1", 1, 3),
    "cd_l1": ("CD-L1 ×1000", 1000, 1),
}
_IN_METRES = {
    "coverage_5mm": ("coverage", 1, 3),
    "spurious_5mm": ("spurious", 1, 3),
    "f1_5mm": ("F1", 1, 3),
    "cd_l1_mm": ("CD-L1 mm", 1, 2),
}
_MORE = {"dcd": ("DCD", 1, 4), "emd": ("EMD ×1000", 1000, 1)}
Columns = Mapping[str, tuple[str, float, int]]


def show_comparison(comparison: Comparison, console: Console | None = None) -> None:
    """Print means and spread over seeds, at τ = 0.03 and at 5 mm, and what a reader must know."""
    console = console or _wide_console()
    console.print(
        f"{comparison.samples} pairs of {comparison.objects} objects ({escape(comparison.pairs)}): "
        "mean ± SD over seeds, their range below"
    )
    _show_groups(("loss", "network", "way"), comparison.rows, console)
    more = {name: how for name, how in _MORE.items() if name in comparison.columns}
    if more:
        console.print("\n[bold]Network frame[/]")
        console.print(_group_table(("loss", "network", "way"), comparison.rows, more))
    _show_notes(comparison.notes, console)


def show_grid(outcomes: Sequence[Outcome], console: Console | None = None) -> None:
    """Print means and spread over seeds by cell of the grid and held-out source, and which runs failed why."""
    from completion.grid_results import failures, summarise

    console = console or _wide_console()
    for pairs, groups in summarise(outcomes).items():
        console.print(f"\n{escape(pairs)}, means over pairs: mean ± SD over seeds, their range below")
        _show_groups(("group",), groups, console)
    for name, reason in failures(outcomes).items():
        console.print(f"[red]failed[/]     {escape(name)}: {escape(reason)}", soft_wrap=True)


def show_benchmarks(results: Sequence[BenchmarkResult], console: Console | None = None) -> None:
    """Print category means and the benchmark's own mean."""
    console = console or _wide_console()
    for result in results:
        console.print(f"\n[bold]{escape(result.title)}[/]", soft_wrap=True)
        table = Table(box=None, pad_edge=False)
        table.add_column("category")
        for title in ("samples", *result.overall):
            table.add_column(title, justify="right")
        for name, count, figures in result.lines():
            style = "bold" if name == "mean" else ""
            table.add_row(name, str(count), *(f"{value:.4g}" for value in figures.values()), style=style)
        console.print(table)
    if len({result.checkpoint for result in results}) > 1:
        console.print("\n[bold]All of them[/]")
        table = Table(box=None, pad_edge=False)
        table.add_column("checkpoint")
        for title in ("", *results[0].overall):
            table.add_column(title, justify="right")
        for result in results:
            table.add_row(result.checkpoint, result.variant, *(f"{value:.4g}" for value in result.overall.values()))
        console.print(table)
    _show_notes(list(dict.fromkeys(note for result in results for note in result.notes)), console)


def _wide_console() -> Console:
    """Rich takes 80 columns where there is no terminal, and would cut off figures that go into a file."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)


def _show_notes(notes: Sequence[str], console: Console) -> None:
    for note in notes:
        console.print(f"[yellow]note[/] {escape(note)}", soft_wrap=True)


def _show_groups(labels: Sequence[str], groups: Sequence[Group], console: Console) -> None:
    console.print("\n[bold]τ = 0.03 of the network frame[/]")
    console.print(_group_table(labels, groups, _AT_TAU))
    console.print("\n[bold]5 mm[/]")
    console.print(_group_table(labels, groups, _IN_METRES))


def _group_table(labels: Sequence[str], groups: Sequence[Group], columns: Columns) -> Table:
    table = Table(box=None, pad_edge=False, width=min(WIDTH, 46 + 18 * len(columns)))
    for title in labels:
        table.add_column(title, overflow="fold", max_width=20)
    table.add_column("n", justify="right")
    for title, _, _ in columns.values():
        table.add_column(title, justify="right", no_wrap=True)
    for row in groups:
        names = (escape(getattr(row, label)) for label in labels)
        cells = (_cell(row, column, factor, digits) for column, (_, factor, digits) in columns.items())
        table.add_row(*names, str(row.seeds or ""), *cells)
    return table


def _cell(row: Group, column: str, factor: float, digits: int) -> str:
    mean, sd = row.mean[column] * factor, row.sd[column]
    if sd is None:
        return f"{mean:.{digits}f}"
    low, high = row.low[column] * factor, row.high[column] * factor
    return f"{mean:.{digits}f} ± {sd * factor:.{digits}f}\n[dim]{low:.{digits}f} to {high:.{digits}f}[/]"
