"""What is said of scenes does not depend on how they come: all at once, or some at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline import aggregate
from pipeline.row_tables import KEYS, Rows
from pipeline.run_rows import utility_of

Make = Callable[..., Any]
ARMS = [
    "partial",
    {"name": "a", "checkpoints": ["./a0", "./a1"]},
    {"name": "b", "checkpoint": "./b"},
    "oracle",
]


def _parted(rows: Rows, parts: Sequence[Sequence[int]]) -> Iterator[Rows]:
    for scenes in parts:
        yield Rows(*(table[table["scene"].isin(scenes)].reset_index(drop=True) for table in vars(rows).values()))


def _equal(one: aggregate.Tables, other: aggregate.Tables) -> None:
    """Hold all tables against each other, to the last bit."""
    for name, table in vars(one).items():
        found = getattr(other, name)
        pairs = {name: (table, found)}
        if name == "agreement":
            pairs = (
                {} if table is None else {part: (getattr(table, part), getattr(found, part)) for part in vars(table)}
            )
        for part, (expected, made) in pairs.items():
            if expected is not None:
                assert len(expected) or part in ("recovered", "crossed"), part
                pd.testing.assert_frame_equal(made, expected, check_exact=True, obj=part)


def _coded(rows: Rows) -> Rows:
    """Make categories of the texts, as they are where rows are read from files."""
    texts = [*KEYS, "reason", "surface", "outcome", "combination", "status"]
    chosen = [
        [name for name in texts if name in table and table[name].dtype.kind not in "iu"]
        for table in vars(rows).values()
    ]
    tables = zip(vars(rows).values(), chosen, strict=True)
    return Rows(*(table.astype(dict.fromkeys(names, "category")) for table, names in tables))


@pytest.fixture
def uneven(by_lot: Make, experiment_of: Make) -> tuple[Any, Rows]:
    """Rows of arms that differ in what they have: checkpoints, views, objects, scenes, and what physics tried."""
    experiment = experiment_of(
        ARMS, comparisons=[["a", "b"]], scorers=["analytic", "physics"], statistics={"draws": 100}
    )
    rows = by_lot(experiment)
    rng = np.random.default_rng(7)
    kept = rows.grasps[rows.grasps["kept"]]
    share = rng.choice([0.0, 1 / 3, 2 / 3, 1.0], len(kept))
    outcome = np.where(share > 0.5, "held", rng.choice(["slipped", "collided", "lost"], len(kept)))
    tried = kept.assign(scorer="physics", held_fraction=share, held=share > 0.5, outcome=outcome, slip=0.001)
    others = rows.grasps.assign(held_fraction=np.nan, held=pd.NA, outcome=None, slip=np.nan)
    views = rows.views.assign(scorer="physics")
    graded = views["object"].to_numpy()
    for name in ("held", "held@1", "held@5", "held@10"):
        views[name] = rng.choice([0.0, 0.1, 0.3, 0.7], len(graded))
    grasps = pd.concat([others, tried], ignore_index=True).astype({"held": "boolean"})
    views = pd.concat([rows.views, views], ignore_index=True)
    completion, crossed = rows.completion_views, rows.crossed_views
    failed = (completion["arm"] == "a") & (completion["replicate"] == 1) & (completion["scene"] == 101)
    grasps, views = (
        table[
            ~((table["arm"] == "b") & (table["scene"] == 161) & (table["view"] == 64))
            & ~((table["arm"] == "oracle") & (table["scene"] == 163))
        ]
        for table in (grasps, views)
    )
    completion = completion[~failed & ~((completion["object"] == 7) & (completion["scene"] != 102))]
    completion = completion.assign(cd_l1_mm=completion["cd_l1_mm"].mask(rng.uniform(size=len(completion)) < 0.05))
    return experiment, Rows(grasps, views, completion, crossed[crossed["scene"] != 160])


def test_batches_make_no_difference(uneven: tuple[Any, Rows]) -> None:
    experiment, rows = uneven
    parts = [[100, 163, 101], [102, 103, 160, 161, 162]]
    _equal(aggregate.make(experiment, [rows]), aggregate.make(experiment, _parted(_coded(rows), parts)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "parts", [[[163], [162], [100], [101], [160], [161], [103], [102]], [[103, 160], [161, 162, 163, 100, 101, 102]]]
)
def test_no_batches_make_a_difference(uneven: tuple[Any, Rows], parts: list[list[int]]) -> None:
    experiment, rows = uneven
    expected = aggregate.make(experiment, [rows])
    _equal(expected, aggregate.make(experiment, _parted(rows, parts)))
    _equal(expected, aggregate.make(experiment, [_coded(rows)]))


def test_views_are_graded_at_once_as_one_by_one(experiment_of: Make, by_lot: Make) -> None:
    rows = by_lot(experiment_of(["partial"]))  # whose views are graded one by one
    for (_, scene), own in rows.views.groupby(["split", "scene"]):
        grasps = rows.grasps[rows.grasps["scene"] == scene]
        columns = {name: grasps[name].to_numpy() for name in ("view", "object", "min_friction", "kept")}
        found = utility_of("analytic", columns, own["view"], own["object"])
        for metric, values in found.items():
            assert values.tolist() == own[metric].tolist(), metric
    nothing = {name: values[:0] for name, values in columns.items()}
    assert all((values == 0).all() for values in utility_of("analytic", nothing, [3, 3], [-1, 7]).values())
