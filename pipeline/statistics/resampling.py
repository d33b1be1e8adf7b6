"""Bootstrap draws of scenes, within their strata, and of training seeds; views are never drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
Picks = NDArray[np.unsignedinteger[Any]]

MOST_FLOATS = 2**21
"""Numbers that a product takes at once, 17 MB: 10,000 draws of 209 scenes, or 2,097 draws of 1,000."""

_ROUNDING = 1e-12
_CHUNK = 2_000  # nested draws at a time, part of what is drawn
_AT_ONCE = 2**18  # scenes drawn or counted at a time: 2 MB
_TRAINING_SEEDS = 1  # stream of its own beside that of the scenes, so that both arms of a ratio see the same scenes


def scene_groups(strata: Sequence[object]) -> list[NDArray[np.int64]]:
    """Return the members of each stratum, S labels given; strata of one are pooled, since a variance needs two."""
    labels = np.array([str(label) for label in strata])
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    singles = [members for members in groups if len(members) == 1]
    several = [members for members in groups if len(members) > 1]
    return several + ([np.concatenate(singles)] if singles else [])


def resample_scenes(strata: Sequence[object], draws: int, seed: int) -> NDArray[np.int64]:
    """Draw scenes with replacement within strata: ``(draws, S)`` indices of scenes, S labels given."""
    return _scenes(strata, _picks(tuple(map(len, scene_groups(strata))), draws, seed), slice(None))


def _scenes(strata: Sequence[object], picks: tuple[Picks, ...], part: slice) -> NDArray[np.int64]:
    chosen = zip(scene_groups(strata), picks, strict=True)
    return np.concatenate([members[places[part]] for members, places in chosen], axis=1)


@lru_cache(maxsize=4)
def _picks(sizes: tuple[int, ...], draws: int, seed: int) -> tuple[Picks, ...]:
    """Draw places in each stratum of n scenes: ``(draws, n)`` for each.

    A table of results asks for the same strata again and again, hence the cache; the arrays are read-only.
    """
    return tuple(_drawn(sizes, draws, seed))


def _drawn(sizes: tuple[int, ...], draws: int, seed: int) -> Iterator[Picks]:
    rng = np.random.default_rng(seed)
    for size in sizes:
        picks: Picks = np.empty((draws, size), dtype=np.uint16 if size < 2**16 else np.uint32)
        step = max(_AT_ONCE // size, 1)
        for start in range(0, draws, step):  # the generator's numbers are eight bytes each
            picks[start : start + step] = rng.integers(0, size, (min(step, draws - start), size))
        picks.flags.writeable = False
        yield picks


@lru_cache(maxsize=4)
def draw_counts(sizes: tuple[int, ...], draws: int, seed: int) -> tuple[NDArray[Any], ...]:
    """Count how often :func:`resample_scenes` draws each scene: ``(draws, n)`` for each stratum of n scenes.

    They are floats, ready for products, or small integers where floats would fill more than :data:`MOST_FLOATS`.
    Cached and read-only, as draws are.
    """
    counts = []
    for picks in _drawn(sizes, draws, seed):  # not the cached ones: where nothing else asks for these, they go again
        size = picks.shape[1]
        # Of 256 times one scene in a draw the chance is below 10^-500.
        found = np.empty(picks.shape, dtype=np.float64 if picks.size <= MOST_FLOATS else np.uint8)
        step = max(_AT_ONCE // size, 1)
        for start in range(0, draws, step):
            part = picks[start : start + step].astype(np.int64)
            part += size * np.arange(len(part))[:, None]
            found[start : start + len(part)] = np.bincount(part.ravel(), minlength=part.size).reshape(part.shape)
        found.flags.writeable = False
        counts.append(found)
    return tuple(counts)


def replicates(values: ArrayLike, scenes: int) -> FloatArray:
    """Return ``(S,)`` or ``(R, S)`` values as ``(R, S)``, one row a training seed.

    Raises:
        ValueError: if they are not of that shape, or there is no row.
    """
    x = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if x.ndim != 2 or x.shape[1] != scenes or len(x) == 0:
        raise ValueError(f"values {np.shape(values)} do not fit {scenes} strata: expected (S,) or (R, S)")
    return x


def differences(a: ArrayLike, b: ArrayLike) -> FloatArray:
    """Return a - b, broadcast, 0 where it is less than 1e-12 of the largest value.

    Coarse metrics over few views often tie, but their means not to the last bit: else 0.1 + 0.2 would beat 0.3.
    """
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    least = _ROUNDING * max(np.abs(left).max(initial=0.0), np.abs(right).max(initial=0.0))
    d = left - right
    return np.where(np.abs(d) <= least, 0.0, d) if np.isfinite(least) else d


def scene_differences(a: ArrayLike, b: ArrayLike) -> FloatArray:
    """Return the ``(S,)`` differences a - b of ``(S,)`` or ``(R, S)`` values, each side averaged over its seeds."""
    return differences(np.atleast_2d(a).mean(axis=0), np.atleast_2d(b).mean(axis=0))


def nested_draws(a: ArrayLike, b: ArrayLike, strata: Sequence[object], draws: int, seed: int) -> FloatArray:
    """Draw the mean difference a - b with scenes resampled within strata and training seeds resampled too.

    Every draw crosses the drawn seeds with the drawn scenes (the pigeonhole bootstrap of Owen, Annals of Applied
    Statistics 1, 2007). It counts what is particular to one seed in one scene up to three times, hence errs on the
    wide side. Scenes are those of :func:`resample_scenes`, so draws of two differences with one ``seed`` go together.

    Args:
        a, b: ``(S,)`` or ``(R, S)`` values of the same scenes, one row a training seed. As many rows in both, more
            than one, are paired by place and drawn together; otherwise each side draws its own. One row stays.
        strata: S labels.

    Returns:
        ``(draws,)`` means, each scene and each seed weighing alike. Memory grows as draws x S, two bytes each.
    """
    left, right = replicates(a, len(strata)), replicates(b, len(strata))
    sides = [left - right] if len(left) == len(right) else [left, -right]
    picks = _picks(tuple(map(len, scene_groups(strata))), draws, seed)
    rng = np.random.default_rng([seed, _TRAINING_SEEDS])
    out = np.empty(draws)
    for start in range(0, draws, _CHUNK):
        chosen = _scenes(strata, picks, slice(start, start + _CHUNK))
        total = np.zeros(chosen.shape)
        for side in sides:
            drawn = side if len(side) == 1 else _seed_shares(rng, len(chosen), len(side)) @ side
            total += np.take_along_axis(np.broadcast_to(drawn, chosen.shape), chosen, axis=1)
        out[start : start + _CHUNK] = total.mean(axis=1)
    return out


def _seed_shares(rng: np.random.Generator, draws: int, seeds: int) -> FloatArray:
    """Return ``(draws, R)`` shares of the mean that each training seed has in a draw."""
    return rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds
