"""Rows of made-up runs, by lot: what the stages would have written, without the stages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from grasping.utility import view_utility
from pipeline.config import Experiment, load_experiment
from pipeline.physics_utility import held_utility
from pipeline.row_tables import KEYS, Rows

SCENES = {"test_seen": (100, 101, 102, 103), "test_novel": (160, 161, 162, 163)}
VIEWS = (0, 64, 128)
OBJECTS = (3, 7, 11)
FRICTIONS = np.array([0.2, 0.4, 0.6, 0.8, 1.0, 1.2])

# (arm, replicate, scene, view) -> grasps of the view, changed as a test wishes.
Change = Callable[[str, int, int, int, pd.DataFrame], pd.DataFrame]


def grasps_of_view(rng: np.random.Generator, count: int) -> pd.DataFrame:
    """Candidates of a view by lot, best confidence first, with what ``explain`` would say."""
    holds = rng.uniform(size=count) < 0.5
    reason = np.where(holds, "success", rng.choice(["collides", "empty", "no_contact", "no_closure"], count))
    touches = np.isin(reason, ["success", "no_closure"]) | (rng.uniform(size=count) < 0.3)
    surface = np.where(touches, rng.choice(["observed", "completed", "neither"], count), "")
    return pd.DataFrame(
        {
            "row": np.arange(count),
            "rank": np.arange(count),
            "object": rng.choice(OBJECTS, count),
            "confidence": np.sort(rng.uniform(size=count))[::-1],
            "width": rng.uniform(0.01, 0.1, count),
            "kept": np.arange(count) < 0.8 * count,
            "min_friction": np.where(holds, rng.choice(FRICTIONS, count), np.inf),
            "reason": reason,
            "hits_target": (reason == "collides") & (rng.uniform(size=count) < 0.5),
            "hits_neighbour": (reason == "collides") & (rng.uniform(size=count) < 0.3),
            "hits_table": (reason == "collides") & (rng.uniform(size=count) < 0.2),
            "touches": touches,
            "thickness": np.where(touches, rng.uniform(0.001, 0.05, count), np.nan),
            "surface": surface,
        }
    )


def view_utilities(grasps: pd.DataFrame, views: pd.DataFrame) -> pd.DataFrame:
    """Grade views, and the objects of each, one after the other: the slow twin of what ``run_rows`` does."""
    rows = []
    groups = {key: part for key, part in grasps.groupby([*KEYS, "view"], sort=False)}
    for view in views.to_dict("records"):
        keys = {name: view[name] for name in (*KEYS, "view")}
        found = groups.get(tuple(keys.values()), grasps.iloc[:0])
        for item in (-1, *map(int, view["objects"].split(","))):
            own = found if item == -1 else found[found["object"] == item]
            if keys["scorer"] == "physics":
                values = held_utility(own["held_fraction"])
            else:
                values = view_utility(own["min_friction"], own["kept"])
            rows.append({**keys, "failed": view["reason"] == "unit failed", "object": item, **values})
    return pd.DataFrame(rows)


def unchanged(arm: str, replicate: int, scene: int, view: int, grasps: pd.DataFrame) -> pd.DataFrame:
    return grasps


def rows_by_lot(
    experiment: Experiment, seed: int = 0, change: Change = unchanged, same_draws: bool = False, count: int = 24
) -> Rows:
    """Make the rows of every arm and checkpoint of an experiment, of one generator and the analytic scorer.

    Args:
        same_draws: whether arms and checkpoints get the same grasps, so that only ``change`` tells them apart.
    """
    grasps, views, completion = [], [], []
    for place, arm in enumerate(experiment.arms):
        for replicate in range(len(arm.members())):
            for split, scenes in SCENES.items():
                for scene in scenes:
                    for view in VIEWS:
                        who = (0, 0) if same_draws else (place, replicate)
                        rng = np.random.default_rng([seed, scene, view, *who])
                        keys: dict[str, Any] = dict(
                            zip(
                                KEYS,
                                (arm.name, replicate, "antipodal", "analytic", "realsense", split, scene),
                                strict=True,
                            )
                        )
                        own = change(arm.name, replicate, scene, view, grasps_of_view(rng, count))
                        grasps.append(own.assign(**keys, view=view))
                        views.append({**keys, "view": view, "objects": ",".join(map(str, OBJECTS)), "reason": ""})
                        for item in OBJECTS:
                            names = ("coverage@5mm", "spurious@5mm", "cd_l1_mm")
                            values = dict(zip(names, rng.uniform(size=3), strict=True))
                            about = {**keys, "generator": "", "scorer": "", "view": view, "object": item}
                            completion.append({**about, "status": "ok", **values})
    table = pd.concat(grasps, ignore_index=True)
    seen = pd.DataFrame([(v, o) for v in VIEWS for o in OBJECTS], columns=["view", "object"])
    seen["visible_fraction"] = np.linspace(0.05, 0.95, len(seen))
    per_view = view_utilities(table, pd.DataFrame(views))
    crossed = per_view[per_view["object"] == -1].assign(combination="own", scorer="")
    return Rows(
        table.merge(seen, on=["view", "object"], how="left"),
        per_view.merge(seen, on=["view", "object"], how="left"),
        pd.DataFrame(completion),
        crossed.drop(columns=["object", "failed"]),
    )


@pytest.fixture
def experiment_of(tmp_path: Any) -> Callable[..., Experiment]:
    """Return a function that reads an experiment from its arms and other keys."""

    def make(arms: list[Any], **more: Any) -> Experiment:
        raw = {"format_version": 1, "name": "trial", "dataset": {"root": "data"}, "arms": arms, **more}
        raw.setdefault("statistics", {"draws": 500})
        path = tmp_path / "trial.yaml"
        path.write_text(yaml.safe_dump(raw))
        return load_experiment(path)

    return make


@pytest.fixture
def one_by_one() -> Callable[[pd.DataFrame, pd.DataFrame], pd.DataFrame]:
    return view_utilities


@pytest.fixture
def by_lot() -> Callable[..., Rows]:
    return rows_by_lot
