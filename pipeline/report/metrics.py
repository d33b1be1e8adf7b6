"""What the report calls its metrics, in which unit it shows them, and how it writes numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pipeline.physics_utility import HELD_TOPS

NOT_AVAILABLE = "n/a"
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Metric:
    """How one column of the tables is shown.

    Attributes:
        name: as in the tables of the run.
        title: for people.
        unit: shown behind values; empty for plain numbers.
        difference_unit: shown behind differences.
        scale: shown value = scale * stored value.
        digits: behind the point.
        more_is_better: whether a rise is a gain.
        meaning: one line.
    """

    name: str
    title: str
    unit: str = ""
    difference_unit: str = ""
    scale: float = 1.0
    digits: int = 3
    more_is_better: bool = True
    meaning: str = ""

    def number(self, value: Any) -> str:
        """Write a value without its unit."""
        return number(None if value is None else value * self.scale, self.digits)

    def value(self, value: Any) -> str:
        """Write a value with its unit."""
        text = self.number(value)
        return f"{text} {self.unit}" if self.unit and text != NOT_AVAILABLE else text

    def signed(self, value: Any) -> str:
        """Write a difference with its sign, without its unit."""
        return number(None if value is None else value * self.scale, self.digits, signed=True)

    def interval(self, low: Any, high: Any, *, signed: bool = False) -> str:
        """Write ``[low, high]``, or ``n/a`` where there is none."""
        if not (is_known(low) and is_known(high)):
            return NOT_AVAILABLE
        write = self.signed if signed else self.number
        return f"[{write(low)}, {write(high)}]"


def is_known(value: Any) -> bool:
    """Say whether a cell of a table holds a finite number."""
    return value is not None and math.isfinite(value)


def number(value: Any, digits: int, *, signed: bool = False) -> str:
    """Write a number with a fixed count of digits, a true minus sign, and ``n/a`` where it is not known."""
    if value is None or not math.isfinite(value):
        return NOT_AVAILABLE
    rounded = round(value, digits) + 0.0  # no negative zero
    text = f"{abs(rounded):,.{digits}f}"
    if rounded < 0:
        return MINUS + text
    return "+" + text if signed and rounded > 0 else text


def _percent(name: str, title: str, meaning: str, *, scale: float = 1.0, more_is_better: bool = True) -> Metric:
    return Metric(name, title, "%", "points", scale, 1 if scale == 100 else 2, more_is_better, meaning)


def _success(k: int, friction: str) -> Metric:
    best = "best grasp" if k == 1 else f"best {k} grasps"
    return _percent(
        f"success@{k}_mu{friction}",
        f"success of best {k}, µ\N{NO-BREAK SPACE}≤\N{NO-BREAK SPACE}{friction}",
        f"share of a view's {best} by confidence that close at friction {friction}; missing ranks fail",
        scale=100,
    )


def _any(friction: str) -> Metric:
    return _percent(
        f"any_mu{friction}",
        f"success of any candidate, µ\N{NO-BREAK SPACE}≤\N{NO-BREAK SPACE}{friction}",
        f"share of views of which any candidate closes at friction {friction}, whatever its confidence",
        scale=100,
    )


def _fidelity(unit: str, where: str) -> list[Metric]:
    return [
        _percent(f"coverage@{unit}", f"coverage {where}", f"true surface within {where} of the cloud", scale=100),
        _percent(
            f"spurious@{unit}",
            f"spurious {where}",
            f"points of the cloud farther than {where} from the true surface",
            scale=100,
            more_is_better=False,
        ),
        _percent(f"precision@{unit}", f"precision {where}", "1 − spurious", scale=100),
        _percent(f"f1@{unit}", f"F1 {where}", "harmonic mean of coverage and precision, by object", scale=100),
    ]


UTILITY = (
    _percent("ap", "AP", "GraspNet-1Billion's average precision over the protocol's 50 grasps and six frictions"),
    _percent("ap_0.4", "AP0.4", "its column of friction 0.4"),
    _percent("ap_0.8", "AP0.8", "its column of friction 0.8"),
    Metric(
        "feasible",
        "feasible grasps per view",
        "",
        "",
        1.0,
        1,
        True,
        "not colliding and closing at µ ≤ 0.8, all candidates",
    ),
    Metric("quality", "quality", "", "", 1.0, 3, True, "max(0, 1.1 − µ), mean over a view's best 10 grasps"),
    *(_success(k, friction) for k in (1, 5, 10) for friction in ("0.4", "0.8")),
    *(_any(friction) for friction in ("0.8", "0.4")),
    _percent("oracle_ap", "AP in the scorer's order", "AP of all candidates, as if the scorer's friction ranked them"),
)
HELD = (
    _percent("held", "held, of the protocol's 50", "share of the protocol's 50 grasps that physics holds", scale=100),
    *(
        _percent(
            f"held@{k}",
            f"held, best {'grasp' if k == 1 else k}",
            f"of a view's best {k}, the share that it holds",
            scale=100,
        )
        for k in HELD_TOPS
    ),
)
COMPLETION = (
    *_fidelity("5mm", "5 mm"),
    *_fidelity("0.03", "3 % of size"),
    Metric("cd_l1_mm", "CD-L1", "mm", "mm", 1.0, 2, False, "half the sum of the two mean distances, metric"),
    Metric("cd_l1", "CD-L1, relative", "", "", 1.0, 4, False, "the same where the observation's box has diagonal 1"),
    Metric("cd_l2", "CD-L2, relative", "", "", 1.0, 5, False, "sum of the two mean squared distances, same frame"),
    Metric("observed_points", "points observed", "", "", 1.0, 0, True, "points of an object's observation"),
    Metric("completed_points", "points of the cloud", "", "", 1.0, 0, True, "points of an object's cloud in the arm"),
)
_KNOWN = {metric.name: metric for metric in (*UTILITY, *HELD, *COMPLETION)}


def metric(name: str) -> Metric:
    """Return how a metric is shown; one that nobody described goes by its own name."""
    return _KNOWN.get(name, Metric(name, name))


def order(names: list[str]) -> list[Metric]:
    """Return the metrics of these names: the known ones in the report's order, then the others."""
    known = [item for item in _KNOWN.values() if item.name in names]
    return known + [Metric(name, name) for name in names if name not in _KNOWN]
