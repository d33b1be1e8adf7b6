"""Do the two opinions agree? ``min_friction`` of the protocol against what physics holds.

Every grasp that the protocol keeps is tried by physics, also one that the protocol fails; so the tables say both what
a grasp that passes is worth and what the protocol throws away. Thresholds are frictions µ: the protocol passes a grasp
at µ where ``min_friction <= µ``. Ranked by ``-min_friction`` (ties count half, +inf stands last), the area under the
ROC curve is the probability that a held grasp stands before one that is not held (Hanley and McNeil, 1982).

Tables (all rows carry generator, camera and arm, ``all`` for all arms together)
    ========================== =====================================================================================
    ``agreement.csv``          a row an arm, object (``all``; objects over all arms only) and friction: n, n_held, both,
                               analytic_only, physics_only, neither, held_if_passed, held_if_failed, accuracy, kappa
                               (Cohen, 1960); and, alike in the three rows of a group, auc, auc_low, auc_high (scenes
                               resampled within splits, objects ``all`` only) and n_scenes. Empty: not defined, as where
                               everything or nothing is held.
    ``roc.csv``                a row an arm and friction: passed, true_positive_rate, false_positive_rate
    ``physics_outcomes.csv``   a row an arm, reason and min_friction of the protocol and outcome of physics: n
    ========================== =====================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from grasping.utility import FRICTIONS
from pipeline.statistics import resample_scenes
from pipeline.table_files import WHOLE

FloatArray = NDArray[np.float64]

THRESHOLDS = (0.4, 0.8, 1.2)
GROUP = ("generator", "camera", "arm")
AGREEMENT_COLUMNS = [
    *(*GROUP, "object", "friction", "n", "n_held", "both", "analytic_only", "physics_only", "neither"),
    *("held_if_passed", "held_if_failed", "accuracy", "kappa", "auc", "auc_low", "auc_high", "n_scenes"),
]
ROC_COLUMNS = [*GROUP, "friction", "passed", "true_positive_rate", "false_positive_rate"]
OUTCOME_COLUMNS = [*GROUP, "reason", "min_friction", "outcome", "n"]
_MOST = 2**21  # weights of drawn scenes at once: 17 MB
_LEVELS = (*FRICTIONS, np.inf)


@dataclass(frozen=True)
class Agreement:
    """The three tables; columns as in this module's text."""

    agreement: pd.DataFrame
    roc: pd.DataFrame
    physics_outcomes: pd.DataFrame


@dataclass(frozen=True)
class Confusion:
    """How often two opinions say yes: both of them, one alone, neither."""

    both: int
    analytic_only: int
    physics_only: int
    neither: int

    @property
    def n(self) -> int:
        return self.both + self.analytic_only + self.physics_only + self.neither

    @property
    def held_if_passed(self) -> float:
        return _ratio(self.both, self.both + self.analytic_only)

    @property
    def held_if_failed(self) -> float:
        return _ratio(self.physics_only, self.physics_only + self.neither)

    @property
    def accuracy(self) -> float:
        return _ratio(self.both + self.neither, self.n)

    @property
    def kappa(self) -> float:
        """Accuracy beyond chance, 1 at best; NaN where chance alone agrees always."""
        if self.n == 0:
            return np.nan
        passed, held = self.both + self.analytic_only, self.both + self.physics_only
        chance = (passed * held + (self.n - passed) * (self.n - held)) / self.n**2
        return np.nan if chance == 1.0 else (self.accuracy - chance) / (1.0 - chance)


def confusion(min_friction: ArrayLike, held: ArrayLike, friction: float, n: ArrayLike = 1) -> Confusion:
    """Count who says yes to grasps at a friction: ``(k,)`` of them, or of kinds of them with n each."""
    passed = np.asarray(min_friction, dtype=np.float64) <= friction
    holds = np.asarray(held, dtype=bool)
    of = np.broadcast_to(np.asarray(n, dtype=np.int64), passed.shape)
    counts = [passed & holds, passed & ~holds, ~passed & holds, ~passed & ~holds]
    return Confusion(*(int(of[part].sum()) for part in counts))


def area(held: ArrayLike, lost: ArrayLike) -> FloatArray:
    """Area under the ROC curve from counts by level of ``min_friction``, the least friction first.

    Args:
        held, lost: ``(..., L)`` grasps that physics holds, and that it does not, at each of L levels.

    Returns:
        ``(...)`` the probability that a held grasp has the lower friction, ties counting half; NaN where either class
        is absent.
    """
    h, o = np.asarray(held, dtype=np.float64), np.asarray(lost, dtype=np.float64)
    before = np.cumsum(h, axis=-1) - h / 2  # held grasps that stand before a lost one of each level
    pairs = h.sum(axis=-1) * o.sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(pairs > 0, (before * o).sum(axis=-1) / pairs, np.nan)


def levels(min_friction: ArrayLike) -> NDArray[np.int64]:
    """Return the level (index into frictions and +inf) of each of ``(n,)`` grasps."""
    return np.searchsorted(np.array(FRICTIONS), np.asarray(min_friction, dtype=np.float64), side="left")


def counted(rows: pd.DataFrame) -> pd.DataFrame:
    """Count grasps that are alike in all that counts here: rows with ``n`` beside those columns.

    Args:
        rows: one a grasp, or counted already (with ``n``): parts of a run are counted each, then their counts.
    """
    n = rows.get("n", 1)
    columns = [*GROUP, "split", "scene", "object", "min_friction", "reason", "outcome", "held"]
    texts = [name for name in columns if isinstance(rows[name].dtype, pd.CategoricalDtype)]
    plain = rows[columns].astype(dict.fromkeys(texts, object)).assign(n=n)
    return plain.groupby(columns, as_index=False, dropna=False)[["n"]].sum()


def tables(rows: pd.DataFrame, *, level: float, draws: int, seed: int) -> Agreement:
    """Compare the two opinions on the grasps that physics tried.

    Args:
        rows: one a grasp, with arm, generator, camera, split, scene, object, min_friction, reason, outcome and held;
            or :func:`counted`.
        level: of the interval.
        draws: of scenes.
        seed: of the draws.
    """
    agreement, roc, outcomes = [], [], []
    for keys, part in _groups(counted(rows)):
        interval = _interval(part, level, draws, seed)
        agreement += _agreement({**keys, "object": WHOLE}, part, interval)
        if keys["arm"] == WHOLE:
            for object_id, own in part.groupby("object", sort=True):
                agreement += _agreement({**keys, "object": str(object_id)}, own, (np.nan, np.nan))
        roc += _roc(keys, part)
        counts = part.groupby(["reason", "min_friction", "outcome"], as_index=False)[["n"]].sum()
        outcomes += [{**keys, **row} for row in counts.to_dict("records")]
    return Agreement(
        pd.DataFrame(agreement, columns=AGREEMENT_COLUMNS),
        pd.DataFrame(roc, columns=ROC_COLUMNS),
        pd.DataFrame(outcomes, columns=OUTCOME_COLUMNS),
    )


def _groups(rows: pd.DataFrame) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    for (generator, camera), part in rows.groupby(["generator", "camera"], sort=True, observed=True):
        arms = [(WHOLE, part), *((str(arm), own) for arm, own in part.groupby("arm", sort=True, observed=True))]
        for arm, own in arms:
            yield {"generator": str(generator), "camera": str(camera), "arm": arm}, own


def _counts(part: pd.DataFrame) -> tuple[FloatArray, FloatArray]:
    """Return how many grasps are held and lost, ``(scenes, levels)`` each."""
    _, scene = np.unique(part["scene"].to_numpy(), return_inverse=True)
    at, held = levels(part["min_friction"]), part["held"].to_numpy(dtype=bool)
    counts = np.zeros((2, int(scene.max(initial=-1)) + 1, len(_LEVELS)))
    np.add.at(counts, (np.where(held, 0, 1), scene, at), part["n"].to_numpy(dtype=np.float64))
    return counts[0], counts[1]


def _interval(part: pd.DataFrame, level: float, draws: int, seed: int) -> tuple[float, float]:
    """Percentile interval of the area over scenes drawn within their splits; NaN for a single scene."""
    held, lost = _counts(part)
    if len(held) < 2:
        return np.nan, np.nan
    scenes = part.drop_duplicates("scene").sort_values("scene")
    picks = resample_scenes([str(split) for split in scenes["split"]], draws, seed)
    drawn = np.concatenate([_drawn_area(part, held, lost) for part in np.array_split(picks, -(-picks.size // _MOST))])
    known = drawn[np.isfinite(drawn)]
    if len(known) == 0:
        return np.nan, np.nan
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _drawn_area(picks: NDArray[np.int64], held: FloatArray, lost: FloatArray) -> FloatArray:
    """Return the area of ``(draws, S)`` drawn scenes."""
    weights = np.zeros((len(picks), len(held)))
    np.add.at(weights, (np.arange(len(picks))[:, None], picks), 1)
    return area(weights @ held, weights @ lost)


def _agreement(keys: Mapping[str, str], part: pd.DataFrame, interval: tuple[float, float]) -> list[dict[str, Any]]:
    held, lost = _counts(part)
    auc = float(area(held.sum(axis=0), lost.sum(axis=0)))
    rows = []
    for friction in THRESHOLDS:
        found = confusion(part["min_friction"], part["held"], friction, part["n"])
        measures = ("n", "both", "analytic_only", "physics_only", "neither")
        rates = ("held_if_passed", "held_if_failed", "accuracy", "kappa")
        rows.append(
            {
                **keys,
                "friction": friction,
                **{name: getattr(found, name) for name in (*measures, *rates)},
                "n_held": found.both + found.physics_only,
                "auc": auc,
                "auc_low": interval[0],
                "auc_high": interval[1],
                "n_scenes": len(held),
            }
        )
    return rows


def _roc(keys: Mapping[str, str], part: pd.DataFrame) -> list[dict[str, Any]]:
    rows = []
    for friction in _LEVELS:
        found = confusion(part["min_friction"], part["held"], friction, part["n"])
        rows.append(
            {
                **keys,
                "friction": friction,
                "passed": found.both + found.analytic_only,
                "true_positive_rate": _ratio(found.both, found.both + found.physics_only),
                "false_positive_rate": _ratio(found.analytic_only, found.analytic_only + found.neither),
            }
        )
    return rows


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else np.nan


def sentences(rows: Sequence[Mapping[str, Any]], friction: float = 0.8) -> list[str]:
    """Say plainly what the tables say of all arms together.

    Args:
        rows: of ``agreement.csv`` for one generator and camera (missing values None or NaN).
        friction: at which the protocol passes a grasp.
    """
    chosen = [row for row in rows if row["arm"] == WHOLE and row["object"] == WHOLE and row["friction"] == friction]
    if not chosen or not chosen[0]["n"]:
        return ["Physics tried no grasp, so nothing can be said."]
    row = chosen[0]
    passed, failed = row["both"] + row["analytic_only"], row["physics_only"] + row["neither"]
    said = [
        f"Of {passed:,} grasps that the protocol passes at µ ≤ {friction:g} physics holds {row['both']:,}"
        f"{_percent(row['both'], passed)}; of {failed:,} that it fails, {row['physics_only']:,}"
        f"{_percent(row['physics_only'], failed)}."
    ]
    if _known(row["auc"]):
        interval = f" [{row['auc_low']:.2f}, {row['auc_high']:.2f}]" if _known(row["auc_low"]) else ""
        said.append(
            "Of a grasp that physics holds and one that it does not, min_friction ranks the held one first with "
            f"probability {row['auc']:.2f}{interval} (0.50 is chance)."
        )
    else:
        said.append("Physics holds all of them or none, so ranks cannot be compared.")
    return said


def _percent(part: int, whole: int) -> str:
    return f" ({100 * part / whole:.0f} %)" if whole else ""


def _known(value: Any) -> bool:
    return value is not None and bool(np.isfinite(value))
