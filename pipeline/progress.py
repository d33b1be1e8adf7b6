"""Bars on standard error; where that is no terminal but a file, a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

EVERY = 60.0
"""Seconds between lines in a file."""
_STEPS = 10  # so many lines at least, however short the work
_REDRAWN = 0.2


@contextmanager
def told_progress(title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar that a function moves by telling how much is done, and of how much."""
    from tqdm import tqdm

    with tqdm(desc=title, unit=unit, dynamic_ncols=True, mininterval=shortest_interval()) as bar:

        def told(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield told


def shortest_interval() -> float:
    """Return the seconds between a bar's states: few on a terminal, many in the log file of a batch job."""
    return 0.1 if sys.stderr.isatty() else EVERY


class UnitsBar:
    """How far the units of a run are. On a terminal one bar; else a line a minute, and at each tenth.

    Use it as a context.
    """

    def __init__(self) -> None:
        self._bar: Any = None
        self._begun = time.monotonic()
        self._shown = 0.0
        self._step = 0

    def __enter__(self) -> UnitsBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, done: int, total: int, note: Callable[[], str]) -> None:
        """Show the state, unless that was done a moment ago.

        Args:
            done, total: units.
            note: gives what else there is to say, in few words; asked only when it is shown.
        """
        if not total:
            return
        moment, last = time.monotonic(), done == total
        if sys.stderr.isatty():
            if last or moment >= self._shown + _REDRAWN:
                self._shown = moment
                self._draw(done, total, note())
            return
        step = _STEPS * done // total
        if step > self._step or moment >= max(self._shown, self._begun) + EVERY:
            self._shown, self._step = moment, step
            said = note()
            took = timedelta(seconds=round(moment - self._begun))
            line = f"units      {done} of {total} ({100 * done // total} %) after {took}{f', {said}' if said else ''}"
            print(line, file=sys.stderr, flush=True)

    def _draw(self, done: int, total: int, note: str) -> None:
        from tqdm import tqdm

        if self._bar is None:
            form = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
            self._bar = tqdm(total=total, desc="units", bar_format=form, dynamic_ncols=True)
        self._bar.n, self._bar.total = done, total
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.refresh()
