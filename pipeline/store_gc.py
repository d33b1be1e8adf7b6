"""What a store holds, and taking away what nobody needs any more.

An entry is *needed* while a run that was registered, and that is still there, has a stamp of the same unit. What is not
needed goes when it was last used long enough ago. A run loses nothing by it: it has its own links or copies.

A run that is not to be seen from the machine that collects counts as gone; what it needs is kept by its age alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifacts import read_stamp
from pipeline.run_folder import STAMP
from pipeline.store import Store, read_record

DAY = 86400.0
LEFT_BEHIND = 1.0
"""Days after which what lies in ``temporary/`` is taken for what a killed process left."""
_SCENE = re.compile(r"scene_(\d+)")


@dataclass(frozen=True)
class Entry:
    """One unit in a store.

    Attributes:
        key: its name.
        path: its folder.
        stage: that made it; ``?`` where its record cannot be read.
        bytes: of its files.
        own: of these, what no run has links to: deleting the entry frees as much.
        used: when it was last put or fetched, seconds since 1970.
    """

    key: str
    path: Path
    stage: str
    bytes: int
    own: int
    used: float


@dataclass(frozen=True)
class Collected:
    """What a collection took away, or would take.

    Attributes:
        gone: entries taken.
        needed: how many of these runs still refer to; only where the store had to fit a size.
        kept: entries left.
        left_behind: folders of killed processes.
    """

    gone: tuple[Entry, ...]
    needed: int
    kept: tuple[Entry, ...]
    left_behind: int


def entries(store: Store) -> list[Entry]:
    """List what a store holds, by stage and key."""
    found = (_entry(path) for path in store.units.glob("??/*"))
    return sorted((entry for entry in found if entry is not None), key=lambda entry: (entry.stage, entry.key))


def _entry(path: Path) -> Entry | None:
    """Return an entry; None where it goes just now."""
    try:
        used = path.stat().st_mtime
        sizes = [file.stat() for file in path.iterdir()]
    except OSError:
        return None
    stage = "?"
    with contextlib.suppress(OSError, ValueError):
        stage = str(read_record(path).get("stage") or "?")
    own = sum(size.st_size for size in sizes if size.st_nlink == 1)
    return Entry(path.name, path, stage, sum(size.st_size for size in sizes), own, used)


def needed(store: Store) -> set[str]:
    """Return the keys of all units of the runs that use a store and are still there."""
    return {key for run in _runs(store).values() if run.is_dir() for key in _keys(run)}


def _runs(store: Store) -> dict[Path, Path]:
    """Return the runs that use a store, by the file that says so."""
    runs = {}
    for file in store.runs.glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            runs[file] = Path(json.loads(file.read_text(encoding="utf-8"))["run"])
    return runs


def _keys(run: Path) -> Iterator[str]:
    """Yield the keys of a run's finished units, which lie in ``.../scene_SSSS/<camera>``."""
    for place, folders, files in os.walk(run):
        folders[:] = [name for name in folders if not name.startswith(".")]
        folder = Path(place)
        scene = _SCENE.fullmatch(folder.parent.name)
        if STAMP in files and scene is not None:
            stamp = read_stamp(folder / STAMP)
            if stamp is not None:
                yield Store.key(stamp.made_from, int(scene[1]), folder.name)


def collect(
    store: Store,
    *,
    older_than: float,
    most_bytes: int | None = None,
    dry_run: bool = False,
    now: float | None = None,
) -> Collected:
    """Take away what no run needs and nobody has used of late; safe beside runs at work.

    Args:
        store: the store.
        older_than: days since the last use.
        most_bytes: what the store may hold: the least recently used goes first, what runs need last; None: any amount.
        dry_run: only say what would go.
        now: seconds since 1970; None: the clock's.
    """
    now = time.time() if now is None else now
    there = entries(store)
    keys = needed(store)
    going = [entry for entry in there if entry.key not in keys and now - entry.used >= older_than * DAY]
    if most_bytes is not None:
        taken = {entry.key for entry in going}
        rest = sorted((entry for entry in there if entry.key not in taken), key=lambda e: (e.key in keys, e.used))
        excess = sum(entry.bytes for entry in rest) - most_bytes
        for entry in rest:
            if excess <= 0:
                break
            going.append(entry)
            excess -= entry.bytes
    if not dry_run:
        going = [entry for entry in going if _unused_since(entry) and store.discard(entry.path)]
    gone = {entry.key for entry in going}
    return Collected(
        tuple(going),
        len(gone & keys),
        tuple(entry for entry in there if entry.key not in gone),
        _sweep(store, now, older_than, dry_run),
    )


def _unused_since(entry: Entry) -> bool:
    try:
        return entry.path.stat().st_mtime == entry.used
    except OSError:
        return False


def _sweep(store: Store, now: float, older_than: float, dry_run: bool) -> int:
    """Take away what killed processes left, and the names of runs that have long been gone; count the former."""
    left = [path for path in store.temporary.iterdir() if _age(path, now) > LEFT_BEHIND]
    left += [path for path in store.trash.iterdir() if _age(path, now) > 0]
    if dry_run:
        return len(left)
    for path in left:
        shutil.rmtree(path, ignore_errors=True)
    for file, run in _runs(store).items():
        if not run.is_dir() and _age(file, now) > max(older_than, LEFT_BEHIND):
            file.unlink(missing_ok=True)
    return len(left)


def _age(path: Path, now: float) -> float:
    """Return the days since a path was written; none where it is gone."""
    try:
        return (now - path.stat().st_mtime) / DAY
    except OSError:
        return 0.0
