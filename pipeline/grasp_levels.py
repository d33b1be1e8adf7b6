"""What is told apart where a difference is parted grasp by grasp: the level of every grasp in every factor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from pipeline.dump_scene import WIDTH_BINS
from pipeline.scorers import PHYSICS

NO_CONTACT = "no contact"
WIDTHS = tuple((high, name) for name, (_, high) in WIDTH_BINS.items())
THICKNESSES = ((0.005, "< 5 mm"), (0.02, "5-20 mm"), (np.inf, "≥ 20 mm"))
VISIBLE = ((0.3, "under 30 %"), (0.7, "30-70 %"), (np.inf, "70 % or more"))
SURFACES = {"observed": "observed", "completed": "completed", "neither": "neither", "": NO_CONTACT}
UNKNOWN = "unknown"
NOTHING = "no grasp at this rank"
MORE_FRICTION = "holds at more friction"
REASONS = (
    *(NOTHING, "hits the target", "hits a neighbour", "hits the table", "collides", "closes on nothing"),
    *(NO_CONTACT, "contacts do not close", MORE_FRICTION, "other"),
)
OUTCOMES = (NOTHING, "collided", "no_contact", "slipped", "lost", "dragged", "held in part", "other")
ADDITIVE = ("object", "width", "thickness", "surface", "visible", "reason")
FACTORS = (*ADDITIVE, "occlusion")

_REASONS = {
    "collides": "collides",
    "empty": "closes on nothing",
    "no_contact": NO_CONTACT,
    "no_closure": "contacts do not close",
    "success": MORE_FRICTION,
}
_OUTCOMES = {**{name: name for name in OUTCOMES if name != NOTHING}, "held": "held in part"}
Bins = tuple[tuple[float, str], ...]


def levels(grasps: pd.DataFrame, scorer: str) -> dict[str, pd.Categorical[str]]:
    """Return the level of every grasp in every additive factor.

    Args:
        grasps: rows as of :attr:`pipeline.row_tables.Rows.grasps`.
        scorer: who graded them.
    """
    touches = grasps["touches"].astype("boolean")
    apart = ~touches.fillna(True).to_numpy(dtype=bool)
    surface = _renamed(grasps["surface"], SURFACES, UNKNOWN)
    return {
        "object": _numbers(grasps["object"]),
        "width": binned(grasps["width"], WIDTHS),
        "thickness": _put(binned(grasps["thickness"], THICKNESSES), apart, NO_CONTACT),
        "surface": _put(surface, touches.isna().to_numpy(dtype=bool), UNKNOWN),
        "visible": binned(grasps["visible_fraction"], VISIBLE),
        "reason": _outcomes(grasps) if scorer == PHYSICS else _reasons(grasps),
    }


def binned(values: ArrayLike, bins: Bins) -> pd.Categorical[str]:
    """Name the first bin whose upper edge a value stays below."""
    x = np.asarray(values, dtype=np.float64)
    inside = np.searchsorted(np.array([edge for edge, _ in bins]), np.nan_to_num(x), side="right")
    codes = np.where(np.isfinite(x), np.minimum(inside, len(bins) - 1), len(bins))
    return _categories(codes, [*(name for _, name in bins), UNKNOWN])


def _categories(codes: NDArray[np.integer], names: Sequence[str]) -> pd.Categorical[str]:
    return pd.Categorical.from_codes(codes, categories=pd.Index(list(names)))


def _numbers(values: pd.Series) -> pd.Categorical[str]:
    codes, numbers = pd.factorize(values.astype(int))
    return _categories(codes, [str(number) for number in numbers])


def _renamed(texts: pd.Series, names: Mapping[str, str], other: str) -> pd.Categorical[str]:
    """Give every text its name; ``other`` to those that have none."""
    titles = list(dict.fromkeys([*names.values(), other]))
    codes, known = pd.factorize(texts)
    places = [titles.index(names.get(str(text), other)) for text in known]
    # Missing texts have the code -1: the last place.
    return _categories(np.array([*places, titles.index(other)], dtype=np.int64)[codes], titles)


def _put(column: pd.Categorical[str], where: NDArray[np.bool_], name: str) -> pd.Categorical[str]:
    """Name some otherwise."""
    names = list(dict.fromkeys([*column.categories, name]))
    return _categories(np.where(where, names.index(name), column.codes), names)


def _reasons(grasps: pd.DataFrame) -> pd.Categorical[str]:
    """Name what a grasp loses by; one that hits several things counts for the first of target, neighbour, table."""
    result = _renamed(grasps["reason"], _REASONS, "other")
    collides = result.codes == list(result.categories).index("collides")
    for column, title in (
        ("hits_table", "hits the table"),
        ("hits_neighbour", "hits a neighbour"),
        ("hits_target", "hits the target"),
    ):
        hit = grasps[column].astype("boolean").fillna(False).to_numpy(dtype=bool)
        result = _put(result, collides & hit, title)
    return result


def _outcomes(grasps: pd.DataFrame) -> pd.Categorical[str]:
    # With several trials a grasp may be held in most of them, and lose by the others.
    return _renamed(grasps["outcome"], _OUTCOMES, "other")
