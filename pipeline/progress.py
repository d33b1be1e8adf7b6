"""A bar for functions that tell how much is done, and of how much."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def told_progress(title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar that a function moves by telling how much is done, and of how much."""
    from tqdm import tqdm

    with tqdm(desc=title, unit=unit, dynamic_ncols=True) as bar:

        def told(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield told
