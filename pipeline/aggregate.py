"""Stage: rows -> utility tables, paired comparisons, and why they differ.

Reads
    every finished unit of the stages before (:mod:`pipeline.run_rows`).
Writes
    ========================== =====================================================================================
    ``tables/``
    ========================== =====================================================================================
    ``grasps.parquet``         every scored grasp with arm, replicate (the place of its checkpoint in the arm's list),
                               generator, scorer, split, scene, camera in front
    ``views.parquet``          one row a view and arm, and one a view, arm and object: all utility metrics,
                               and whether the unit failed
    ``completion_views.parquet`` one row a completed cloud: its metrics against the true surface
    ``crossed_views.parquet``  one row a view and crossed combination (:mod:`pipeline.explain`)
    ``utility.csv``            arm, generator, scorer, camera, split, object, metric, value, ci_low, ci_high, n_scenes,
                               n_views, n_seeds; split and object are ``all`` for the whole
    ``completion.csv``         the same columns for the completion metrics
    ``comparisons.csv``        arm_a, arm_b, ..., metric, difference (a - b) with its interval, tests, Holm's adjustment
                               over the declared family, minimum detectable effect, probability of improvement
    ``recovered.csv``          arm, ..., metric, value, ci_low, ci_high, reason
    ``attribution.csv``, ``crossed.csv``  where differences arise (:mod:`pipeline.attribution`)
    ``mediation.csv``, ``mediation_points.csv``  whether coverage goes with utility (:mod:`pipeline.mediation`)
    ========================== =====================================================================================

    and ``summary.json`` (:mod:`pipeline.summary`). What every column means stands in :mod:`pipeline.table_columns`.
    Utility metrics are those of :mod:`grasping.utility`, of the scorer ``physics`` those of
    :mod:`pipeline.physics_utility`; a view or object without grasps counts as zero, and so does every observed view of
    a unit that failed. Means are over views within a scene, then over scenes; views are never resampled.

    Where physics gave its opinion, every grasp that it tried has it beside ``min_friction`` (columns
    :data:`pipeline.grasp_rows.TRIAL_COLUMNS`), whoever scored the row, and there are the tables of
    :mod:`pipeline.agreement` and :mod:`pipeline.best_grasp` too.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from grasping.utility import METRICS
from pipeline import agreement as opinions
from pipeline import attribution as why
from pipeline import best_grasp as best
from pipeline import estimates as of_scenes
from pipeline import mediation as mediators
from pipeline import run_rows
from pipeline.agreement import WHOLE, Agreement
from pipeline.artifacts import atomic_write
from pipeline.config import Experiment
from pipeline.physics_utility import HELD_METRICS
from pipeline.run_folder import RunFolder
from pipeline.run_rows import Rows
from pipeline.scorers import PHYSICS
from pipeline.selection import SceneUnit
from pipeline.table_files import OF_PHYSICS, ROWS, SAID_OF_SCENES, table_file

__all__ = ["VERSION", "WHOLE", "Tables", "make", "names", "run", "write"]

VERSION = 7


@dataclass(frozen=True)
class Tables:
    """The tables of a run; columns as in this module's text."""

    grasps: pd.DataFrame
    views: pd.DataFrame
    completion_views: pd.DataFrame
    crossed_views: pd.DataFrame
    utility: pd.DataFrame
    completion: pd.DataFrame
    comparisons: pd.DataFrame
    recovered: pd.DataFrame
    attribution: pd.DataFrame
    crossed: pd.DataFrame
    mediation: pd.DataFrame
    mediation_points: pd.DataFrame
    agreement: Agreement | None = None
    best_grasp: pd.DataFrame | None = None


def names(experiment: Experiment) -> tuple[str, ...]:
    """List the tables of an experiment's run."""
    return (*ROWS, *SAID_OF_SCENES, *(OF_PHYSICS if PHYSICS in experiment.scorers else ()))


def run(experiment: Experiment, run: RunFolder, units: list[SceneUnit]) -> Tables:
    """Aggregate every finished unit.

    Raises:
        ArtifactError: if a unit is neither scored nor failed, or was made from what has changed since.
    """
    tables = make(experiment, run_rows.read(experiment, run, units))
    write(tables, run)
    return tables


def make(experiment: Experiment, rows: Rows) -> Tables:
    """Make every table from rows, wherever they come from."""
    fidelity = of_scenes.with_means(rows.completion_views, rows.completion_metrics)
    by_opinion = _by_opinion(rows.views)
    compared = [
        *(of_scenes.comparisons(experiment, part, measured) for part, measured in by_opinion),
        of_scenes.comparisons(experiment, rows.completion_views, rows.completion_metrics),
    ]
    parted = why.attribution(experiment, rows)
    fitted = mediators.mediation(experiment, rows)
    agreement = None
    if PHYSICS in experiment.scorers:
        tried = rows.grasps[rows.grasps["scorer"] == PHYSICS].astype({"held": bool})
        statistics = experiment.statistics
        agreement = opinions.tables(tried, level=statistics.level, draws=statistics.draws, seed=experiment.seed)
    return Tables(
        rows.grasps,
        rows.views,
        rows.completion_views,
        rows.crossed_views,
        of_scenes.joined(
            [of_scenes.estimates(experiment, part, measured) for part, measured in by_opinion],
            of_scenes.UTILITY_COLUMNS,
        ),
        of_scenes.estimates(experiment, fidelity, rows.completion_metrics),
        of_scenes.adjusted(of_scenes.joined(compared, of_scenes.COMPARISON_COLUMNS)),
        of_scenes.joined(
            [of_scenes.recovered(experiment, part, measured) for part, measured in by_opinion],
            of_scenes.RECOVERED_COLUMNS,
        ),
        parted.attribution,
        parted.crossed,
        fitted.mediation,
        fitted.mediation_points,
        agreement,
        best.best_grasp(experiment, rows) if PHYSICS in experiment.scorers else None,
    )


def _by_opinion(per_view: pd.DataFrame) -> list[tuple[pd.DataFrame, list[str]]]:
    """Part the views by what is measured of them: the protocol's metrics, or those of physics."""
    by_physics = per_view["scorer"] == PHYSICS
    parts = [(per_view[~by_physics], list(METRICS)), (per_view[by_physics], list(HELD_METRICS))]
    return [(part, measured) for part, measured in parts if len(part)]


def write(tables: Tables, run: RunFolder) -> None:
    """Write every table into the run's folder, each at once."""
    content = {name: getattr(tables, name) for name in (*SAID_OF_SCENES, *ROWS)}
    if tables.agreement is not None and tables.best_grasp is not None:
        content |= vars(tables.agreement) | {"best_grasp": tables.best_grasp}
    else:
        for name in OF_PHYSICS:  # of an experiment that asked physics, in the same folder
            table_file(run.tables, name).unlink(missing_ok=True)
    for name, table in content.items():
        if name in ROWS:
            with atomic_write(table_file(run.tables, name)) as stream:
                table.to_parquet(stream, index=False)
        else:
            with atomic_write(table_file(run.tables, name), "w") as stream:
                table.to_csv(stream, index=False, float_format="%.6g")
