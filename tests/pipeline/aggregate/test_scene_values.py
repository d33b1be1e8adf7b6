"""Means of rows, and means by scene that are gathered batch by batch."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pipeline.scene_values import VIEWS, Gathered, SceneNumbers, ViewValues, means


def _table(seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n = 60
    table = pd.DataFrame({"arm": rng.choice(["a", "b"], n), "view": rng.integers(0, 4, n), "x": rng.normal(size=n)})
    table["y"] = np.where(rng.uniform(size=n) < 0.4, np.nan, rng.normal(size=n))
    table.loc[(table["arm"] == "a") & (table["view"] == 1), "y"] = np.nan
    return table


def test_means_leave_out_what_is_nan() -> None:
    table = _table(0)
    found = means(table, ["arm", "view"], ["x", "y"]).sort_values(["arm", "view"], ignore_index=True)
    expected = table.groupby(["arm", "view"], as_index=False)[["x", "y"]].mean()
    pd.testing.assert_frame_equal(found, expected)
    assert found["y"].isna().sum() == 1
    assert means(table.iloc[:0], ["arm", "view"], ["x"]).empty


def test_a_mean_does_not_depend_on_what_stands_beside_it() -> None:
    for seed in range(20):
        table = _table(seed).astype({"arm": "category"})
        for row in means(table, ["arm", "view"], ["x", "y"]).to_dict("records"):
            own = table[(table["arm"] == row["arm"]) & (table["view"] == row["view"])]
            alone = means(own, ["arm", "view"], ["x", "y"]).to_dict("records")
            np.testing.assert_array_equal([alone[0][name] for name in "xy"], [row[name] for name in "xy"])


def test_scenes_that_come_one_by_one_do_not_stay_so() -> None:
    numbers = SceneNumbers()
    rng = np.random.default_rng(0)
    values = rng.normal(size=(100, 3, 2, 2))  # scenes, views, checkpoints, metrics
    values[5:, :, 1, 1] = np.where(rng.uniform(size=(95, 3)) < 0.3, np.nan, values[5:, :, 1, 1])
    table = pd.DataFrame({"split": "test_seen", "scene": rng.permutation(100)})
    order = numbers.scenes(table)
    gathered = Gathered(numbers)
    names, places = ("p", "q"), np.arange(2)
    for scene in order.tolist():
        # Some lack the first metric, and one a checkpoint.
        lacks = 1 if scene % 40 == 7 else 0
        seen = places[: 1 if scene == 50 else 2]
        own = ViewValues(scene * VIEWS + np.arange(3), seen, values[scene][:, : len(seen), lacks:])
        gathered.add([own, own], names[lacks:])
    assert len(gathered._parts) < 25  # of four kinds of parts, that follow one another nine times
    found = gathered.of("q")
    expected = {}
    for scene in range(100):
        full = np.isfinite(values[scene, :, :, 1]).all(axis=1)
        if full.any() and scene != 50:
            expected[numbers.names[scene][1]] = (values[scene, full, :, 1].mean(axis=0), int(full.sum()))
    assert found.scenes == sorted(expected)
    assert found.views.tolist() == [expected[scene][1] for scene in found.scenes]
    for side in found.values:
        np.testing.assert_allclose(side.T, [expected[scene][0] for scene in found.scenes], rtol=1e-14)
    assert len(gathered.of("p").scenes) == 100 - 3 - 1
    assert len(gathered.of("p", instead="q").scenes) >= 98
