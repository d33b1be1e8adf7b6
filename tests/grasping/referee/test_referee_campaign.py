"""Over 20,000 grasps on 84 made shapes (and 12 real ones): every number of the protocol is the referee's.

Each family of six shapes stands in a scene of its own, seen from several views. ``eval_scene`` grades the views through
its own loaders: kept lists, widths, owners, collision and emptiness, least frictions, accuracy tables and AP must be
identical. What it does not keep is given to it separately, so that every candidate is compared. The referee is given
all surface cells instead of its random sample (:mod:`grasping.contacts`); on how many grasps that bears is counted.

A family's counts are kept in a file that the workers share, so that the sum is right in whatever order they run.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from grasping.contacts import find_contacts
from grasping.force_closure import FRICTIONS, minimum_friction, required_angle
from grasping.grasps import Grasps
from grasping.protocol import ViewScore, closing_lines, score_view

pytestmark = [pytest.mark.graspnetapi, pytest.mark.slow]

OUTCOMES = ("collides", "empty", "no_contact", "no_closure", *(f"success at {mu}" for mu in FRICTIONS))
VIEWS = 4
POOL, COMMON, CLEAR, SUPPRESSED = 2500, 180, 14, 80
SEEDS = range(8)


def counts_of(campaign: Any, family: str, folder: Path) -> dict[str, Any]:
    """Compare a family, or read what another worker has counted."""
    stem = folder / f"campaign-{family.replace(' ', '-').replace(',', '')}"
    with FileLock(f"{stem}.lock"):
        done = stem.with_suffix(".json")
        if done.is_file():
            return json.loads(done.read_text())
        counts = compare_family(campaign, family, stem.with_suffix(".data"))
        done.write_text(json.dumps(counts))
        return counts


def compare_family(campaign: Any, family: str, out: Path) -> dict[str, Any]:
    from grasping.referee_check import first_difference, verdict, view_ap
    from grasping.reference import score_view_reference
    from grasping.reference_scene import evaluate_scene, stage_root

    number = [*campaign.made, *campaign.real].index(family)
    world = campaign.world(family, out, VIEWS, seed=number)
    folder = out / "dump" / "scene_0100" / "realsense"
    folder.mkdir(parents=True)
    chosen = []
    for view in range(VIEWS):
        pool = campaign.pool(world, view, POOL, 1000 * number + 10 * view)
        chosen.append(campaign.choose(pool, world, view, COMMON, CLEAR, SUPPRESSED))
        np.save(folder / f"{view:04d}.npy", chosen[-1].to_array())
    staged = stage_root(world.root, world.cache, range(len(world.objects)))
    theirs = evaluate_scene(staged, "realsense", 100, out / "dump", range(VIEWS), seed=None)
    outcomes: Counter[str] = Counter()
    total: Counter[str] = Counter()
    aps = []
    for view, grasps in enumerate(chosen):
        here = (world.objects, world.poses[view], world.T_camera_table[view])
        ours, referee = score_view(grasps, *here), theirs[view].score
        assert referee is not None, theirs[view].failure
        assert len(np.unique(grasps.confidence)) == len(grasps)
        assert first_difference(ours, referee, set(), theirs[view].accuracy) is None
        # what it does not keep: survivors stay survivors when only others go
        rest = ours.index[~ours.kept]
        again = score_view_reference(grasps[rest], *here, every_candidate=True, seed=None)
        assert np.array_equal(rest[again.index], rest)
        for place, row in enumerate(rest.tolist()):
            mine, its = verdict(ours, row), verdict(again, place)
            assert {**mine, "kept": None} == {**its, "kept": None}, (family, view, row)
        names = campaign.outcome_names(ours)
        outcomes.update(names.tolist())
        total.update(rows=len(grasps), candidates=len(ours), kept=int(ours.kept.sum()))
        total.update(outside=0, varies=0)
        total.update(sample_dependence(grasps, ours, *here))
        aps.append((view_ap(ours), 100 * float(theirs[view].accuracy.mean())))
    return {"outcomes": outcomes, "ap": np.mean(aps, axis=0).tolist(), **total}


def sample_dependence(grasps: Grasps, score: ViewScore, objects: Any, poses: np.ndarray, _: Any) -> dict[str, int]:
    """On how many clear grasps outside distances bear, and how many the referee's seed decides (eight seeds)."""
    result = {"outside": 0, "varies": 0}
    clear = ~(score.collided | score.empty)
    for k in np.unique(score.object_index[clear]):
        rows = clear & (score.object_index == k)
        query = (*closing_lines(grasps[score.index[rows]], poses[k]), score.width[rows])
        contacts = find_contacts(objects[k].sdf, *query)
        if contacts.outside.any():
            frictions = [
                minimum_friction(required_angle(find_contacts(objects[k].sdf, *query, sample_seed=seed)))
                for seed in SEEDS
            ]
            result["outside"] += int(contacts.outside.sum())
            result["varies"] += int((np.array(frictions) != frictions[0]).any(axis=0).sum())
    return result


def test_family_is_graded_as_the_referee_does(referee: None, campaign: Any, family: str, shared_folder: Path) -> None:
    counts = counts_of(campaign, family, shared_folder)
    print(table({family: counts}))
    assert counts["candidates"] >= 800 and sum(counts["outcomes"].values()) == counts["candidates"]
    assert sum(counts["outcomes"].get(f"success at {mu}", 0) for mu in FRICTIONS) >= 50
    ours, theirs = counts["ap"]
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_the_campaign_is_as_large_as_it_must_be(referee: None, campaign: Any, shared_folder: Path) -> None:
    """Over the made shapes alone: 20,000 grasps, 3,000 that pass, 100 of every outcome."""
    families = {family: counts_of(campaign, family, shared_folder) for family in campaign.made}
    outcomes = sum((Counter(counts["outcomes"]) for counts in families.values()), Counter())
    if campaign.models is not None:
        families |= {family: counts_of(campaign, family, shared_folder) for family in campaign.real}
    print(table(families))
    if path := os.environ.get("GRASP_UTILITY_CAMPAIGN_TABLE"):
        Path(path).write_text(table(families))
    assert len(campaign.made) >= 12 and set(outcomes) == set(OUTCOMES)
    assert outcomes.total() >= 20_000
    assert sum(outcomes[f"success at {mu}"] for mu in FRICTIONS) >= 3_000
    assert all(outcomes[name] >= 100 for name in OUTCOMES), outcomes


def table(families: dict[str, dict[str, Any]]) -> str:
    """Counts by family and in all, as text."""
    columns = ("rows", "candidates", "kept", *OUTCOMES, "outside", "varies")
    titles = ("rows", "cand.", "kept", "coll.", "empty", "no_con", "no_clo", *map(str, FRICTIONS), "outside", "varies")
    lines = [f"{'family':22}" + "".join(f"{title:>8}" for title in titles) + f"{'AP ours':>11}{'referee':>11}"]
    sums: Counter[str] = Counter()
    for name, counts in families.items():
        values = {column: counts.get(column, 0) or counts["outcomes"].get(column, 0) for column in columns}
        sums.update(values)
        aps = "".join(f"{ap:11.4f}" for ap in counts["ap"])
        lines.append(f"{name:22}" + "".join(f"{values[column]:8d}" for column in columns) + aps)
    lines.append(f"{'all':22}" + "".join(f"{sums[column]:8d}" for column in columns))
    return "\n".join(lines) + "\n"
