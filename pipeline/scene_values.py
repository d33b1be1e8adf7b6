"""From views to scenes: means over the views that arms have in common, gathered batch by batch.

A batch is the rows of one scene or several (:class:`pipeline.row_tables.Rows`), with all arms of a scene together;
which scenes come with which makes no difference, to the last bit. What stays of a batch is a mean a scene, checkpoint
and metric.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from pipeline.table_files import WHOLE

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

VIEWS = 2**16  # more than any scene has


@dataclass(frozen=True, eq=False)
class ViewValues:
    """Several metrics of one arm by view.

    Attributes:
        views: ``(V,)`` numbers of views (:meth:`SceneNumbers.views`), ascending.
        checkpoints: R places in the arm's list of them, ascending.
        values: ``(V, R, M)``, M metrics; NaN where there is none.
    """

    views: IntArray
    checkpoints: IntArray
    values: FloatArray


@dataclass(frozen=True, eq=False)
class SceneValues:
    """One metric of one arm, or of several in the same views, by scene.

    Attributes:
        values: for each arm ``(R, S)``, a row a checkpoint.
        strata: S splits.
        scenes: S scene numbers.
        views: ``(S,)`` how many views stand behind each.
    """

    values: list[FloatArray]
    strata: list[str]
    scenes: list[int]
    views: IntArray

    def splits(self) -> Iterator[tuple[str, SceneValues]]:
        """Walk through everything together and each split that has scenes."""
        yield WHOLE, self
        for split in sorted(set(self.strata)):
            yield split, self.part([place for place, label in enumerate(self.strata) if label == split])

    def part(self, places: list[int]) -> SceneValues:
        """Return the scenes at these places."""
        return SceneValues(
            [values[:, places] for values in self.values],
            [self.strata[place] for place in places],
            [self.scenes[place] for place in places],
            self.views[places],
        )


@dataclass
class SceneNumbers:
    """Numbers of scenes, as they are met; the same scene in another split is another."""

    names: list[tuple[str, int]] = field(default_factory=list)
    _known: dict[tuple[str, int], int] = field(default_factory=dict)

    def scenes(self, table: pd.DataFrame) -> IntArray:
        """Return the number of each row's scene, of a table with split and scene."""
        labels, splits = pd.factorize(table["split"])
        keys, inverse = np.unique((labels << 32) + table["scene"].to_numpy(np.int64), return_inverse=True)
        numbers = []
        for key in keys.tolist():
            name = (str(splits[key >> 32]), key & (2**32 - 1))
            if name not in self._known:
                self._known[name] = len(self.names)
                self.names.append(name)
            numbers.append(self._known[name])
        return np.array(numbers, dtype=np.int64)[inverse]

    def views(self, table: pd.DataFrame) -> IntArray:
        """Return the number of each row's view, of a table with split, scene and view."""
        return self.scenes(table) * VIEWS + table["view"].to_numpy(np.int64)


@dataclass(frozen=True, eq=False)
class Measured:
    """Rows with metrics: which view and checkpoint each is of.

    Attributes:
        views: ``(n,)`` :meth:`SceneNumbers.views`.
        checkpoints: ``(n,)`` replicate.
        values: ``(n, M)``.
    """

    views: IntArray
    checkpoints: IntArray
    values: FloatArray

    @classmethod
    def of(cls, table: pd.DataFrame, metrics: Sequence[str], numbers: SceneNumbers) -> Measured:
        values = table[list(metrics)].to_numpy(dtype=np.float64)
        return cls(numbers.views(table), table["replicate"].to_numpy(np.int64), values)

    def by_view(self, rows: ArrayLike, checkpoints: ArrayLike | None = None) -> ViewValues:
        """Arrange some rows, of one arm, setting and object, by view.

        Args:
            rows: which.
            checkpoints: the arm's places of them; left out: those of the rows.
        """
        own = np.asarray(rows)
        views, at = np.unique(self.views[own], return_inverse=True)
        of_rows = self.checkpoints[own]
        places = np.unique(of_rows if checkpoints is None else np.asarray(checkpoints, dtype=np.int64))
        values = np.full((len(views), len(places), self.values.shape[1]), np.nan)
        values[at, np.searchsorted(places, of_rows)] = self.values[own]
        return ViewValues(views, places, values)


def means(table: pd.DataFrame, keys: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """Return the means of metrics by columns of texts and numbers, in no certain order; NaN where all are NaN.

    Values are added one after the other. Those of pandas differ in the last digit by what stands beside a group.
    """
    codes, _ = _coded(table, keys)
    _, first, at = np.unique(codes, return_index=True, return_inverse=True)
    values = table[list(metrics)].to_numpy(dtype=np.float64)
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        found = _sums(at, np.where(known, values, 0.0), len(first)) / _sums(at, known.astype(np.float64), len(first))
    columns = {name: found[:, place] for place, name in enumerate(metrics)}
    return table[list(keys)].iloc[first].reset_index(drop=True).assign(**columns)


def groups(table: pd.DataFrame, keys: Sequence[str]) -> list[tuple[tuple[Any, ...], IntArray]]:
    """Part a table by columns of texts and numbers: what each part has in them, and its rows, in no certain order."""
    if not len(table):
        return []
    codes, labels = _coded(table, keys)
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(codes[order]) != 0])
    result = []
    for rows in np.split(order, starts[1:]):
        key = tuple(_plain(uniques[own[rows[0]]]) for own, uniques in labels)
        result.append((key, rows))
    return result


def _coded(table: pd.DataFrame, keys: Sequence[str]) -> tuple[IntArray, list[tuple[IntArray, Any]]]:
    """Return a number for each row that rows alike in ``keys`` share, and of each column the codes and its values."""
    codes = np.zeros(len(table), dtype=np.int64)
    labels: list[tuple[IntArray, Any]] = []
    for name in keys:
        own, uniques = pd.factorize(table[name])
        codes = codes * (len(uniques) + 1) + own
        labels.append((own, uniques))
    return codes, labels


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


@dataclass(frozen=True, eq=False)
class _Part:
    """What stays of a batch: ``(S, M)`` views behind each scene, and for each arm ``(S, R, M)`` means."""

    checkpoints: list[tuple[int, ...]]
    names: tuple[str, ...]
    scenes: IntArray
    counts: NDArray[np.int32]
    means: list[FloatArray]

    def followed(self, other: _Part) -> _Part | None:
        """Return one part with the scenes of both, or None where they do not have the same in them."""
        if (self.checkpoints, self.names) != (other.checkpoints, other.names):
            return None
        return _Part(
            self.checkpoints,
            self.names,
            np.concatenate([self.scenes, other.scenes]),
            np.concatenate([self.counts, other.counts]),
            [np.concatenate(pair) for pair in zip(self.means, other.means, strict=True)],
        )


def _sums(at: IntArray, x: FloatArray, scenes: int) -> FloatArray:
    """Sum ``(V, ...)`` values of views by scene, one view after the other whatever stands beside: ``(scenes, ...)``."""
    width = int(np.prod(x.shape[1:]))
    places = at[:, None] * width + np.arange(width)
    sums = np.bincount(places.ravel(), x.ravel(), scenes * width).astype(np.float64, copy=False)
    return sums.reshape(scenes, *x.shape[1:])


@dataclass
class Gathered:
    """Means over views by scene, of one arm or of several in their common views.

    Attributes:
        numbers: of the scenes.
    """

    numbers: SceneNumbers
    _parts: list[_Part] = field(default_factory=list)

    def add(self, arms: Sequence[ViewValues], names: Sequence[str]) -> None:
        """Take the metrics ``names`` of some scenes: the mean over the views in which every checkpoint has one.

        Args:
            arms: of one setting and object, always in the same order.
        """
        common = reduce(np.intersect1d, [arm.views for arm in arms])
        values = [arm.values[np.searchsorted(arm.views, common)] for arm in arms]
        full = np.logical_and.reduce([np.isfinite(x).all(axis=1) for x in values])
        scenes, at = np.unique(common // VIEWS, return_inverse=True)
        counts = _sums(at, full.astype(np.float64), len(scenes))
        means = [
            _sums(at, np.where(full[:, None], x, 0.0), len(scenes)) / np.maximum(counts, 1)[:, None] for x in values
        ]
        checkpoints = [tuple(arm.checkpoints.tolist()) for arm in arms]
        part = _Part(checkpoints, tuple(names), scenes, counts.astype(np.int32), means)
        # Means of a scene or two take more memory as arrays than as numbers, so parts of one size become one.
        while self._parts and len(self._parts[-1].scenes) <= len(part.scenes):
            both = self._parts[-1].followed(part)
            if both is None:
                break
            self._parts.pop()
            part = both
        self._parts.append(part)

    def checkpoints(self) -> list[tuple[int, ...]]:
        """Return the places of checkpoints that any batch has, for each arm."""
        return [
            tuple(sorted(set().union(*places))) for places in zip(*(p.checkpoints for p in self._parts), strict=True)
        ]

    def of(self, name: str, checkpoints: Sequence[tuple[int, ...]] | None = None, instead: str = "") -> SceneValues:
        """Return one metric of every scene that has it in some view.

        Args:
            name: which.
            checkpoints: that every arm must have, more than any batch did perhaps; left out: those of all batches. A
                scene that lacks one has no view in which all have a value.
            instead: the metric that counts in a batch without this one; left out: such a batch is left out.
        """
        wanted = self.checkpoints() if checkpoints is None else list(checkpoints)
        found: list[tuple[tuple[str, int], int, list[FloatArray]]] = []
        for part in self._parts:
            shown = name if name in part.names else instead
            if part.checkpoints != wanted or shown not in part.names:
                continue
            place = part.names.index(shown)
            for row, number in enumerate(part.scenes.tolist()):
                if part.counts[row, place]:
                    means = [values[row, :, place] for values in part.means]
                    found.append((self.numbers.names[number], int(part.counts[row, place]), means))
        found.sort(key=lambda entry: entry[0])
        values = [
            np.array([means[arm] for *_, means in found]).reshape(-1, len(places)).T
            for arm, places in enumerate(wanted)
        ]
        names = [scene for scene, *_ in found]
        views = np.array([count for _, count, _ in found], dtype=np.int64)
        return SceneValues(values, [split for split, _ in names], [scene for _, scene in names], views)
