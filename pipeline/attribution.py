"""Why: where a difference in utility arises. Whether completion metrics go with it is :mod:`pipeline.mediation`'s.

Tables (all rows carry generator, scorer and camera)
    ``attribution.csv``
        a row a comparison, factor and level. ``additive`` factors part the difference: utility is a sum over grasps
        (:func:`grasping.utility.contributions`), so what a level adds in arm a less what it adds in b sums over the
        levels to the difference itself. ``reason`` parts what is *lost* against a list of perfect grasps instead,
        with its sign turned: a level that costs arm a less than arm b counts as a gain. ``occlusion`` is not additive:
        it compares the objects of a bin by their own utility.
    ``crossed.csv``
        :mod:`pipeline.crossed`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from grasping.utility import FEASIBLE_FRICTION, PERFECT, contributions, shortfall
from pipeline.config import Experiment
from pipeline.estimates import SETTING
from pipeline.grasp_levels import ADDITIVE, NOTHING, VISIBLE, binned, levels
from pipeline.physics_utility import HELD_METRICS, held_contributions, held_shortfall
from pipeline.row_tables import Rows
from pipeline.scene_values import (
    FloatArray,
    Gathered,
    IntArray,
    Measured,
    SceneNumbers,
    ViewValues,
    groups,
    means,
)
from pipeline.scorers import PHYSICS
from pipeline.statistics import difference
from pipeline.table_files import WHOLE_VIEW

ATTRIBUTION_COLUMNS = [
    *("arm_a", "arm_b", *SETTING, "factor", "level", "metric", "additive", "a", "b"),
    *("difference", "ci_low", "ci_high", "n_scenes", "grasps_a", "grasps_b", "rate_a", "rate_b"),
]
_NONE = "none"  # a level that no grasp has: what a view holds of levels that a batch of scenes lacks


def parted_metric(experiment: Experiment, scorer: str) -> str:
    """Return the metric that is parted: the primary one, and ``held`` of physics."""
    return "held" if scorer == PHYSICS else experiment.primary_metric


def object_metric(experiment: Experiment, scorer: str) -> str:
    """Return the metric by which single objects are compared.

    AP averages over fifty ranks, of which one object can fill ten: it says little of one object, quality does.
    """
    if scorer == PHYSICS:
        return "held@10"
    return "quality" if experiment.primary_metric.startswith("ap") else experiment.primary_metric


class Attribution:
    """``attribution.csv`` of a run, from batches of rows; where ``explain`` was not run, levels are unknown."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._parts: dict[tuple[str, ...], tuple[_Parted, _Occlusion]] = {}

    def add(self, rows: Rows) -> None:
        """Take the rows of some scenes."""
        grasps = dict(groups(rows.grasps, SETTING))
        for setting, of_setting in groups(rows.views, SETTING):
            views = rows.views.iloc[of_setting]
            if setting not in self._parts:
                self._parts[setting] = (_Parted(self._experiment, setting), _Occlusion(self._experiment, setting))
            parted, occlusion = self._parts[setting]
            whole = (views["object"] == WHOLE_VIEW).to_numpy()
            parted.add(rows.grasps.iloc[grasps.get(setting, np.zeros(0, np.int64))], views[whole])
            occlusion.add(views[~whole])

    def table(self) -> pd.DataFrame:
        """Return what is said of all rows."""
        rows: list[dict[str, Any]] = []
        for setting in sorted(self._parts):
            for part in self._parts[setting]:
                rows += [{**row, **dict(zip(SETTING, setting, strict=True))} for row in part.rows()]
        return pd.DataFrame(rows, columns=ATTRIBUTION_COLUMNS)


# ---------------------------------------------------------------------------------------------- additive factors


class _Parted:
    """The additive factors of one setting."""

    def __init__(self, experiment: Experiment, setting: tuple[str, ...]) -> None:
        self._experiment, self._scorer = experiment, setting[SETTING.index("scorer")]
        self._metric = parted_metric(experiment, self._scorer)
        self._numbers = SceneNumbers()
        self._found = {factor: _Compared(experiment, self._numbers) for factor in ADDITIVE}
        self._finite = dict.fromkeys(("gain", "loss"), True)
        self._views = 0
        self._members: set[tuple[str, int]] = set()
        self._kept_members: set[tuple[str, int]] = set()
        self._kept: dict[tuple[str, str, str], list[int]] = {}

    def add(self, grasps: pd.DataFrame, views: pd.DataFrame) -> None:
        """Take the grasps of some scenes, and the rows of their whole views."""
        lists = _Lists.of(grasps, views, self._numbers)
        gain, loss, missing = _graded(self._metric, grasps, lists)
        for amount, values in (("gain", gain), ("loss", loss)):
            self._finite[amount] &= bool(np.isfinite(values).all())
        self._views += len(lists.views)
        self._members.update(lists.members)
        found = levels(grasps, self._scorer)
        self._count(grasps, found)
        for factor in ADDITIVE:
            amounts = gain if factor != "reason" else loss
            if not self._finite["gain" if factor != "reason" else "loss"]:
                continue  # a metric without an upper bound loses nothing that could be counted
            names = [str(name) for name in found[factor].categories]
            summed = lists.sums(amounts, found[factor].codes, len(names))
            if factor == "reason":
                names, summed = [*names, NOTHING], -np.column_stack([summed, missing])
            summed = np.column_stack([summed, np.zeros(len(summed))])
            self._found[factor].add(lists.by_view(summed), (*names, _NONE))

    def _count(self, grasps: pd.DataFrame, found: dict[str, pd.Categorical[str]]) -> None:
        """Count the kept grasps of every arm and level, and those of them that hold at µ ≤ 0.8."""
        kept = grasps["kept"].to_numpy(dtype=bool)
        holds = kept & (grasps["min_friction"].to_numpy(np.float64) <= FEASIBLE_FRICTION)
        self._kept_members.update(key for key, _ in groups(grasps[kept], ["arm", "replicate"]))
        for (arm,), rows in groups(grasps, ["arm"]):
            for factor, column in found.items():
                names = column.categories
                for at, counted in enumerate((kept, holds)):
                    counts = np.bincount(column.codes[rows][counted[rows]], minlength=len(names))
                    for name, count in zip(names, counts.tolist(), strict=True):
                        self._kept.setdefault((factor, str(arm), str(name)), [0, 0])[at] += count

    def rows(self) -> Iterator[dict[str, Any]]:
        """Walk through what is said, factor by factor."""
        for factor in ADDITIVE:
            if not self._finite["gain" if factor != "reason" else "loss"]:
                continue
            counts = self._counts(factor)
            for row in self._found[factor].rows(last=(NOTHING,), instead=_NONE):
                for side in ("a", "b"):
                    count, rate = counts.get((row[f"arm_{side}"], row["level"]), (0.0, np.nan))
                    row |= {f"grasps_{side}": count, f"rate_{side}": rate}
                yield {**row, "factor": factor, "metric": self._metric, "additive": True}

    def _counts(self, factor: str) -> dict[tuple[str, str], tuple[float, float]]:
        """Return for arm and level how many kept grasps a view has, and what share of them holds at µ ≤ 0.8."""
        views = self._views / max(len(self._members), 1)
        replicates: dict[str, int] = {}
        for arm, _ in self._kept_members:
            replicates[arm] = replicates.get(arm, 0) + 1
        return {
            (arm, level): (kept / views / float(replicates[arm]), holds / kept)
            for (of, arm, level), (kept, holds) in self._kept.items()
            if of == factor and kept and views
        }


class _Lists:
    """The views of arms and checkpoints, and which grasps are whose: each view has a list, perhaps an empty one.

    Attributes:
        views: ``(L,)`` numbers of views.
        members: arm and checkpoint, by number.
        of_member: ``(L,)`` whose list it is.
        of_grasp: ``(S,)`` the list of each grasp; -1 of one whose view is not among them.
    """

    def __init__(
        self, views: IntArray, members: list[tuple[str, int]], of_member: IntArray, of_grasp: IntArray
    ) -> None:
        self.views, self.members, self.of_member, self.of_grasp = views, members, of_member, of_grasp

    @classmethod
    def of(cls, grasps: pd.DataFrame, views: pd.DataFrame, numbers: SceneNumbers) -> _Lists:
        members: list[tuple[str, int]] = []
        known: dict[tuple[str, int], int] = {}
        keys = []
        for table in (views, grasps):
            member = np.zeros(len(table), dtype=np.int64)
            for name, rows in groups(table, ["arm", "replicate"]):
                if name not in known:
                    known[name] = len(members)
                    members.append(name)
                member[rows] = known[name]
            keys.append((numbers.views(table) << 16) + member)
        every = np.unique(keys[0])
        at = np.minimum(np.searchsorted(every, keys[1]), max(len(every) - 1, 0))
        there = every[at] == keys[1] if len(every) else np.zeros(len(at), dtype=bool)
        of_member = every & (2**16 - 1)
        present = [members[place] for place in np.unique(of_member).tolist()]
        renumbered = np.searchsorted(np.unique(of_member), of_member)
        return cls(every >> 16, present, renumbered, np.where(there, at, -1))

    def sums(self, amounts: FloatArray, codes: NDArray[np.integer], width: int) -> FloatArray:
        """Sum an amount of grasps by list and level: ``(L, width)``."""
        there = self.of_grasp >= 0
        keys = self.of_grasp[there] * width + codes[there]
        summed = np.bincount(keys, amounts[there], len(self.views) * width).astype(np.float64, copy=False)
        return summed.reshape(len(self.views), width)

    def by_view(self, values: FloatArray) -> dict[str, ViewValues]:
        """Arrange ``(L, M)`` values by arm."""
        result = {}
        arms = np.array([arm for arm, _ in self.members], dtype=object)[self.of_member]
        checkpoints = np.array([place for _, place in self.members], dtype=np.int64)[self.of_member]
        measured = Measured(self.views, checkpoints, values)
        for arm in dict.fromkeys(arm for arm, _ in self.members):
            own = np.flatnonzero(arms == arm)
            result[str(arm)] = measured.by_view(own)
        return result


def _graded(metric: str, grasps: pd.DataFrame, lists: _Lists) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return what every grasp gains and loses, ``(S,)`` each, and what ranks without a grasp lose in each list."""
    gain, loss = np.zeros(len(grasps)), np.zeros(len(grasps))
    order = np.argsort(lists.of_grasp, kind="stable")
    order = order[np.count_nonzero(lists.of_grasp < 0) :]
    lengths = np.bincount(lists.of_grasp[order], minlength=len(lists.views))
    if metric in HELD_METRICS:
        held = grasps["held_fraction"].to_numpy()[order]
        gain[order] = held_contributions(metric, held, lengths)
        loss[order], missing = held_shortfall(metric, held, lengths)
        return gain, loss, missing
    friction, kept = (grasps[name].to_numpy()[order] for name in ("min_friction", "kept"))
    gain[order] = contributions(metric, friction, kept, lengths)
    if metric not in PERFECT:  # nothing that a list lacks could be counted
        loss[order] = np.nan
        return gain, loss, np.full(len(lengths), np.nan)
    loss[order], missing = shortfall(metric, friction, kept, lengths)
    return gain, loss, missing


class _Compared:
    """Differences between arms in columns of views, by scene."""

    def __init__(self, experiment: Experiment, numbers: SceneNumbers) -> None:
        self._experiment, self._numbers = experiment, numbers
        self._found: dict[tuple[str, str], Gathered] = {}
        self._checkpoints: dict[str, set[int]] = {}
        self._levels: set[str] = set()

    def add(self, by_arm: dict[str, ViewValues], names: tuple[str, ...]) -> None:
        self._levels.update(names)
        for arm, values in by_arm.items():
            self._checkpoints.setdefault(arm, set()).update(values.checkpoints.tolist())
        for a, b in self._experiment.compared():
            if a in by_arm and b in by_arm:
                self._found.setdefault((a, b), Gathered(self._numbers)).add((by_arm[a], by_arm[b]), names)

    def rows(self, last: tuple[str, ...] = (), instead: str = "") -> Iterator[dict[str, Any]]:
        """Walk through comparisons and levels: what both arms have of a level, and the difference with its interval.

        Args:
            last: levels that come after the others.
            instead: as of :meth:`pipeline.scene_values.Gathered.of`; where given, levels that neither arm has are left
                out.
        """
        statistics = self._experiment.statistics
        levels = [*sorted(self._levels - {*last, _NONE}), *(name for name in last if name in self._levels)]
        for a, b in self._experiment.compared():
            if (a, b) not in self._found:
                continue
            places = [tuple(sorted(self._checkpoints[arm])) for arm in (a, b)]
            for level in levels:
                both = self._found[a, b].of(level, places, instead)
                if not both.scenes:
                    continue
                one, other = both.values
                a_has, b_has = float(one.mean()), float(other.mean())
                if instead and a_has == b_has == 0.0:
                    continue
                estimate = difference(
                    one,
                    other,
                    both.strata,
                    statistics.level,
                    method=statistics.interval,
                    draws=statistics.draws,
                    seed=self._experiment.seed,
                )
                yield {
                    "arm_a": a,
                    "arm_b": b,
                    "level": level,
                    "a": a_has,
                    "b": b_has,
                    "difference": estimate.value,
                    "ci_low": estimate.low,
                    "ci_high": estimate.high,
                    "n_scenes": estimate.scenes,
                }


# ------------------------------------------------------------------------------------------------------ occlusion


class _Occlusion:
    """The objects of one setting of which a view shows little, some or most."""

    def __init__(self, experiment: Experiment, setting: tuple[str, ...]) -> None:
        self._metric = object_metric(experiment, setting[SETTING.index("scorer")])
        self._numbers = SceneNumbers()
        self._found = {name: _Compared(experiment, self._numbers) for _, name in VISIBLE}
        self._counts = dict.fromkeys(self._found, 0)

    def add(self, objects: pd.DataFrame) -> None:
        """Take the rows of objects of some scenes."""
        level = np.asarray(binned(objects["visible_fraction"], VISIBLE))
        for name, found in self._found.items():
            key = ["arm", "replicate", "split", "scene", "view"]
            own = objects.loc[level == name, [*key, "object", self._metric]]
            by_view = means(own, key, [self._metric])
            measured = Measured.of(by_view, [self._metric], self._numbers)
            found.add({str(arm): measured.by_view(rows) for (arm,), rows in groups(by_view, ["arm"])}, (name,))
            self._counts[name] += len(own[["scene", "view", "object"]].drop_duplicates())

    def rows(self) -> Iterator[dict[str, Any]]:
        """Walk through what is said, bin by bin."""
        for _, name in VISIBLE:
            count = self._counts[name]
            shared = {"grasps_a": count, "grasps_b": count, "rate_a": np.nan, "rate_b": np.nan}
            for row in self._found[name].rows():
                yield {**row, **shared, "factor": "occlusion", "metric": self._metric, "additive": False}
