"""``grasp-utility store``: what a store of shared units holds, and cleaning it up. Arguments in, calls, lines out."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipeline.store_gc import Entry

app = typer.Typer(help="Look into and clean up a store of finished units (`run --store DIR`).", no_args_is_help=True)

Root = Annotated[Path, typer.Argument(metavar="STORE", help="The folder that `--store` named.")]
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


@app.command("list")
def list_entries(root: Root) -> None:
    """One line a unit: stage, key, size, last use, and whether a run that uses the store needs it."""
    from pipeline.store import find_store
    from pipeline.store_gc import entries, needed

    store = find_store(root.resolve())
    keys = needed(store)
    for entry in entries(store):
        print(f"{_line(entry)}  {'needed' if entry.key in keys else ''}".rstrip())


@app.command()
def size(root: Root) -> None:
    """Units and bytes by stage."""
    from pipeline.store import find_store
    from pipeline.store_gc import entries

    there = entries(find_store(root.resolve()))
    by_stage: dict[str, list[Entry]] = defaultdict(list)
    for entry in there:
        by_stage[entry.stage].append(entry)
    for stage, part in [*by_stage.items(), ("all", there)]:
        print(f"{stage:<11}{_sum(part)}")


@app.command()
def gc(
    root: Root,
    older_than: Annotated[
        float, typer.Option("--older-than", min=0, metavar="DAYS", help="Since the last use, of what no run needs.")
    ] = 7.0,
    max_size: Annotated[
        str | None,
        typer.Option(
            "--max-size",
            help="Such as 50G: take the least recently used first until the store is no larger, what runs need last.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Take away units that no registered run needs. Runs lose nothing: they have their own links or copies."""
    from pipeline.store import find_store, open_store
    from pipeline.store_gc import collect

    most = None if max_size is None else number_of_bytes(max_size)
    find_store(root.resolve())  # never makes one
    store = open_store(root.resolve())
    done = collect(store, older_than=older_than, most_bytes=most, dry_run=dry_run)
    if dry_run:
        for entry in done.gone:
            print(_line(entry))
    print(f"{'would go' if dry_run else 'gone':<11}{_sum(done.gone)}")
    print(f"{'kept':<11}{_sum(done.kept)}")
    if done.left_behind:
        print(f"{'swept':<11}{done.left_behind} folders that killed processes left")
    if done.needed:
        print(
            f"{'warning':<11}{done.needed} of the units {'that would go' if dry_run else 'gone'} belong to runs that "
            "use the store; the next run like them makes them again"
        )


def number_of_bytes(text: str) -> int:
    """Read ``50G``, ``1.5 TB`` or ``800000`` as bytes; the letters stand for powers of 1000.

    Raises:
        ValueError: naming the text.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", text.strip().lower())
    if match is None:
        raise ValueError(f"--max-size {text!r}: not a size such as 50G or 800M")
    return int(float(match[1]) * _UNITS[match[2]])


def _sum(entries: list[Entry] | tuple[Entry, ...]) -> str:
    whole, own = sum(entry.bytes for entry in entries), sum(entry.own for entry in entries)
    linked = f", {_size(whole - own)} of it linked in runs too" if whole > own else ""
    return f"{len(entries)} unit{'' if len(entries) == 1 else 's'}, {_size(whole)}{linked}"


def _line(entry: Entry) -> str:
    used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
    return f"{entry.stage:<11}{entry.key}  {_size(entry.bytes):>9}  last used {used}"


def _size(count: int) -> str:
    value, letter = float(count), ""
    for letter in ("", "k", "M", "G", "T"):
        if value < 999.5 or letter == "T":
            break
        value /= 1000
    return f"{value:.3g} {letter}B" if letter else f"{count} B"
