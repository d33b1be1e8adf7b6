"""Our scores of one view against the referee's, grasp by grasp: equal, or the first grasp that shows they are not.

Two things that the referee leaves to chance are told apart from differences:

* **Equal confidences.** It sorts unstably, so among equals the row order decides what is suppressed, kept and counted
  first. Our rule (:func:`grasping.suppression.confidence_order`: by the other columns, ascending) is independent of it.
  A view with ties is compared twice: as it is, verdict by verdict on what the referee keeps; and with every tie broken
  by our rule before both see the confidences, when everything must be equal. The referee's own spread is measured by
  shuffling the rows.
* **Its random surface sample** (:mod:`grasping.contacts`). A kept grasp on which distances outside the grid have a say
  is judged under several seeds. Where the referee's verdicts vary, or are what ours is under its seeds but not with all
  of the surface, the grasp is listed as chance and counts neither as equal nor as different.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grasping.contacts import find_contacts
from grasping.force_closure import minimum_friction, required_angle
from grasping.geometry import ObjectGeometry
from grasping.grasps import Grasps
from grasping.protocol import ViewScore, closing_lines, score_view
from grasping.reference import score_view_reference
from grasping.reference_scene import RefereeView
from grasping.suppression import confidence_order
from grasping.utility import accuracy_table, average_precision

FloatArray = NDArray[np.float64]

VERDICT = ("object_index", "width", "collided", "empty", "min_friction", "reason")
"""What is said of a grasp, whatever its company; ``index`` and ``kept`` depend on the others."""

_ROUNDING = 1e-12  # of accuracies, which are sums divided in another order


@dataclass(frozen=True)
class Difference:
    """The first grasp of a view on which ours and the referee's differ.

    Attributes:
        row: of the dump; -1 where only an average differs.
        what: the quantity.
        ours, theirs: verdicts by name.
        alone: whether the grasp shows it without the others.
    """

    row: int
    what: str
    ours: dict[str, object]
    theirs: dict[str, object]
    alone: bool


@dataclass(frozen=True)
class Chance:
    """A grasp whose verdict hangs on the referee's surface sample.

    Attributes:
        row: of the dump.
        ours: our least friction.
        theirs: the referee's, one a seed.
    """

    row: int
    ours: float
    theirs: tuple[float, ...]


@dataclass(frozen=True)
class Comparison:
    """One view.

    Attributes:
        ours: scores of all candidates.
        tied: how many rows share their confidence with another.
        ap: ours, percent.
        referee_ap: the referee's, percent; NaN where it cannot grade the view.
        failure: the error with which the referee stops at this view, or "".
        difference: the first one, or None.
        chance: grasps that the referee leaves to its sample.
        spread: the referee's lowest and highest AP over orders of the rows, where there are ties.
    """

    ours: ViewScore
    tied: int
    ap: float
    referee_ap: float
    failure: str = ""
    difference: Difference | None = None
    chance: tuple[Chance, ...] = ()
    spread: tuple[float, float] | None = field(default=None)


def compare_view(
    grasps: Grasps,
    objects: Sequence[ObjectGeometry],
    T_camera_object: ArrayLike,
    T_camera_table: ArrayLike,
    referee: RefereeView,
    *,
    seeds: Sequence[int] = range(5),
    orders: int = 5,
) -> Comparison:
    """Compare one view with what ``eval_scene`` said of it.

    Args:
        grasps: all rows of the dump.
        objects, T_camera_object, T_camera_table: as for :func:`grasping.protocol.score_view`.
        referee: from :func:`grasping.reference_scene.evaluate_scene`.
        seeds: of the surface samples under which doubtful grasps are judged.
        orders: in how many orders of the rows the referee's spread is measured where confidences are equal.
    """
    poses = np.asarray(T_camera_object, dtype=np.float32)
    world = (objects, poses, T_camera_table)
    ours = score_view(grasps, *world)
    _, counts = np.unique(np.delete(grasps.confidence, [row for row, _ in ours.refused]), return_counts=True)
    tied = int(counts[counts > 1].sum())
    result = Comparison(ours, tied, view_ap(ours), float("nan"), referee.failure)
    if referee.score is None:
        return result
    result = replace(result, referee_ap=average_precision(referee.accuracy)["ap"])
    chance = {entry.row: entry for entry in _left_to_chance(grasps, referee.score, world, seeds)}
    result = replace(result, chance=tuple(chance.values()))
    if not tied:
        return replace(result, difference=first_difference(ours, referee.score, set(chance), referee.accuracy))

    found = _different_verdict(grasps, ours, referee.score, world, set(chance))
    if found is None:
        broken = break_ties(grasps)
        theirs = score_view_reference(broken, *world)
        chance_too = {entry.row for entry in _left_to_chance(broken, theirs, world, seeds)}
        mine = score_view(broken, *world)
        found = first_difference(mine, theirs, chance_too)
    rng = np.random.default_rng(0)
    shuffled = [grasps[rng.permutation(len(grasps))] for _ in range(orders if found is None else 0)]
    aps = [result.referee_ap, *(view_ap(score_view_reference(one, *world)) for one in shuffled)]
    return replace(result, difference=found, spread=(min(aps), max(aps)))


def view_ap(score: ViewScore) -> float:
    """AP of one view's kept grasps, percent."""
    return average_precision(accuracy_table(score.min_friction[score.kept]))["ap"]


def break_ties(grasps: Grasps) -> Grasps:
    """Return the same rows with confidences that are all different, ordered by :func:`confidence_order`."""
    confidence = np.empty(len(grasps))
    confidence[confidence_order(grasps)] = np.arange(len(grasps), 0, -1)
    finite = np.isfinite(grasps.confidence)
    return replace(grasps, confidence=np.where(finite, confidence, grasps.confidence))


def first_difference(
    ours: ViewScore, theirs: ViewScore, leave: set[int], accuracy: FloatArray | None = None
) -> Difference | None:
    """Compare kept rows and their order, all verdicts, and the accuracy table; confidences must all be different.

    Args:
        ours: all candidates.
        theirs: the kept ones.
        leave: rows whose verdict is the referee's chance: kept and placed alike, but their frictions may differ.
        accuracy: ``(50, 6)`` of the referee; None takes that of its scores.
    """
    mine, its = ours.index[ours.kept].tolist(), theirs.index.tolist()
    if mine != its:
        company = [row for row in (*mine, *its) if (row in mine) != (row in its)]
        what = "kept" if company else "order"
        row = company[0] if company else next(a for a, b in zip(mine, its, strict=True) if a != b)
        return Difference(row, what, verdict(ours, row), verdict(theirs, row), alone=False)
    for row in mine:
        a, b = verdict(ours, row), verdict(theirs, row)
        for name in VERDICT:
            if a[name] != b[name] and not (row in leave and name in ("min_friction", "reason")):
                return Difference(row, name, a, b, alone=True)
    friction = ours.min_friction[ours.kept]
    table = accuracy_table(theirs.min_friction) if accuracy is None else accuracy
    if leave:  # its AP with those verdicts replaced by ours
        friction_too = np.where(np.isin(theirs.index, list(leave)), friction, theirs.min_friction)
        table = accuracy_table(friction_too)
    if np.abs(accuracy_table(friction) - table).max() > _ROUNDING:
        return Difference(-1, "accuracy", {"ap": view_ap(ours)}, {"ap": average_precision(table)["ap"]}, alone=False)
    return None


def verdict(score: ViewScore, row: int) -> dict[str, object]:
    """What a score says of one row of the dump, by name."""
    where = np.flatnonzero(score.index == row)
    if len(where) == 0:
        refused = dict(score.refused)
        return {"kept": False, "reason": refused.get(row, "not kept, or suppressed")}
    values = {name: getattr(score, name)[where[0]].item() for name in VERDICT}
    return {"kept": bool(score.kept[where[0]]), **values}


def _different_verdict(
    grasps: Grasps,
    ours: ViewScore,
    theirs: ViewScore,
    world: tuple[Sequence[ObjectGeometry], NDArray[np.float32], ArrayLike],
    leave: set[int],
) -> Difference | None:
    """The first grasp that the referee keeps and judges otherwise; one that we suppressed is judged alone."""
    for row in theirs.index.tolist():
        mine = ours
        if row not in ours.index:
            alone = score_view(grasps[[row]], *world)
            mine = replace(alone, index=np.full(len(alone), row))
        a, b = verdict(mine, row), verdict(theirs, row)
        for name in VERDICT:
            if a.get(name) != b[name] and not (row in leave and name in ("min_friction", "reason")):
                return Difference(row, name, a, b, alone=True)
    return None


def _left_to_chance(
    grasps: Grasps,
    theirs: ViewScore,
    world: tuple[Sequence[ObjectGeometry], NDArray[np.float32], ArrayLike],
    seeds: Sequence[int],
) -> list[Chance]:
    """Kept grasps whose verdict the referee's surface sample decides."""
    objects, poses, T_camera_table = world
    found = []
    for place in np.flatnonzero(~(theirs.collided | theirs.empty)):
        k, row = int(theirs.object_index[place]), int(theirs.index[place])
        sdf, one = objects[k].sdf, replace(grasps[[row]], width=theirs.width[[place]])
        if sdf is None:
            continue
        lines = closing_lines(one, poses[k])
        contacts = find_contacts(sdf, *lines, one.width)
        if not contacts.outside[0]:
            continue
        ours = float(minimum_friction(required_angle(contacts))[0])
        sampled = [
            float(minimum_friction(required_angle(find_contacts(sdf, *lines, one.width, sample_seed=seed)))[0])
            for seed in seeds
        ]
        judged = [score_view_reference(one, objects, poses, T_camera_table, seed=seed) for seed in seeds]
        its = [float(score.min_friction[0]) if len(score) else np.inf for score in judged]
        if len({*its, float(theirs.min_friction[place])}) > 1 or (its == sampled and its[0] != ours):
            found.append(Chance(row, ours, tuple(its)))
    return found
