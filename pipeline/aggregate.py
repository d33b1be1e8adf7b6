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
    ``attribution.csv``, ``crossed.csv``  where differences arise (:mod:`pipeline.attribution`, :mod:`pipeline.crossed`)
    ``mediation.csv``, ``mediation_points.csv``  whether coverage goes with utility (:mod:`pipeline.mediation`)
    ========================== =====================================================================================

    and ``summary.json`` (:mod:`pipeline.summary`). What every column means stands in :mod:`pipeline.table_columns`.
    Utility metrics are those of :mod:`grasping.utility`, of the scorer ``physics`` those of
    :mod:`pipeline.physics_utility`; a view or object without grasps counts as zero, and so does every observed view of
    a unit that failed. Means are over views within a scene, then over scenes; views are never resampled.

    Where physics gave its opinion, every grasp that it tried has it beside ``min_friction`` (columns
    :data:`pipeline.grasp_rows.TRIAL_COLUMNS`), whoever scored the row, and there are the tables of
    :mod:`pipeline.agreement` and :mod:`pipeline.best_grasp` too.

    The rows of a full split fill no memory: they are written unit by unit, then read back some scenes at a time
    (:mod:`pipeline.row_tables`), and of these only means by scene stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from grasping.utility import METRICS
from pipeline import agreement as opinions
from pipeline import estimates as of_scenes
from pipeline import row_tables, run_rows
from pipeline.agreement import Agreement
from pipeline.artifacts import atomic_write
from pipeline.attribution import Attribution
from pipeline.best_grasp import BestGrasp
from pipeline.config import Experiment
from pipeline.crossed import Crossed
from pipeline.mediation import Mediation
from pipeline.physics_utility import HELD_METRICS
from pipeline.row_tables import Rows
from pipeline.run_counts import Counts
from pipeline.run_folder import RunFolder
from pipeline.scorers import PHYSICS
from pipeline.selection import SceneUnit
from pipeline.table_files import OF_PHYSICS, ROWS, SAID_OF_SCENES, table_file

__all__ = ["VERSION", "Tables", "make", "names", "run", "write"]

VERSION = 8


@dataclass(frozen=True)
class Tables:
    """What is said of a run's scenes; columns as in this module's text, of ``counts`` as :mod:`pipeline.run_counts`."""

    utility: pd.DataFrame
    completion: pd.DataFrame
    comparisons: pd.DataFrame
    recovered: pd.DataFrame
    attribution: pd.DataFrame
    crossed: pd.DataFrame
    mediation: pd.DataFrame
    mediation_points: pd.DataFrame
    counts: pd.DataFrame
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
    with row_tables.writing(run.tables, row_tables.schemas(experiment.scorers)) as out:
        run_rows.write(experiment, run, units, out)
    rows = out.written(run.tables)
    tables = make(experiment, rows.batches())
    write(tables, run)
    return tables


def make(experiment: Experiment, batches: Iterable[Rows]) -> Tables:
    """Say what is to be said of rows, wherever they come from.

    Args:
        experiment: which arms are compared, and how.
        batches: rows of one scene or several; all that belong to a scene are in the same batch. How scenes are
            parted into batches makes no difference.
    """
    gathered = _Gathered(experiment)
    for rows in batches:
        gathered.add(rows)
        del rows  # else it stays while the next are read
    return gathered.tables()


class _Gathered:
    """Everything that is said of scenes, in the making."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        measured = [list(METRICS), list(HELD_METRICS)]
        self._estimates = [of_scenes.Estimates(experiment, metrics) for metrics in measured]
        self._comparisons = [of_scenes.Comparisons(experiment, metrics) for metrics in measured]
        self._recovered = [of_scenes.Recovered(experiment, metrics) for metrics in measured]
        self._completion: tuple[of_scenes.Estimates, of_scenes.Comparisons] | None = None
        self._attribution, self._crossed = Attribution(experiment), Crossed(experiment)
        self._mediation, self._counts = Mediation(experiment), Counts()
        self._best_grasp = BestGrasp(experiment)
        self._tried: list[pd.DataFrame] = []

    def add(self, rows: Rows) -> None:
        """Take the rows of some scenes."""
        by_physics = (rows.views["scorer"] == PHYSICS).to_numpy()
        # What is measured of a view depends on who graded it: the protocol's metrics, or those of physics.
        for place, chosen in enumerate((~by_physics, by_physics)):
            if chosen.any():
                views = rows.views[chosen]
                for part in (self._estimates, self._comparisons, self._recovered):
                    part[place].add(views)
        self._add_completion(rows)
        self._attribution.add(rows)
        self._crossed.add(rows.crossed_views)
        self._mediation.add(rows)
        self._counts.add(rows)
        if PHYSICS in self._experiment.scorers:
            self._best_grasp.add(rows)
            tried = rows.grasps[rows.grasps["scorer"] == PHYSICS]
            self._tried.append(opinions.counted(tried.astype({"held": bool})))

    def _add_completion(self, rows: Rows) -> None:
        metrics = rows.completion_metrics
        if self._completion is None:
            self._completion = (
                of_scenes.Estimates(self._experiment, metrics),
                of_scenes.Comparisons(self._experiment, metrics),
            )
        self._completion[0].add(of_scenes.with_means(rows.completion_views, metrics))
        self._completion[1].add(rows.completion_views)

    def tables(self) -> Tables:
        """Return what is said of all rows."""
        statistics = self._experiment.statistics
        completion = self._completion or (
            of_scenes.Estimates(self._experiment, ()),
            of_scenes.Comparisons(self._experiment, ()),
        )
        compared = [part.table() for part in (*self._comparisons, completion[1])]
        mediation, points = self._mediation.tables()
        agreement = None
        if PHYSICS in self._experiment.scorers:
            tried = pd.concat(self._tried, ignore_index=True)
            agreement = opinions.tables(
                tried, level=statistics.level, draws=statistics.draws, seed=self._experiment.seed
            )
        return Tables(
            utility=_joined(self._estimates, of_scenes.UTILITY_COLUMNS),
            completion=completion[0].table(),
            comparisons=of_scenes.adjusted(of_scenes.joined(compared, of_scenes.COMPARISON_COLUMNS)),
            recovered=_joined(self._recovered, of_scenes.RECOVERED_COLUMNS),
            attribution=self._attribution.table(),
            crossed=self._crossed.table(),
            mediation=mediation,
            mediation_points=points,
            counts=self._counts.table(),
            agreement=agreement,
            best_grasp=self._best_grasp.table() if PHYSICS in self._experiment.scorers else None,
        )


def _joined(parts: Sequence[of_scenes.Estimates | of_scenes.Recovered], columns: list[str]) -> pd.DataFrame:
    return of_scenes.joined([part.table() for part in parts], columns)


def write(tables: Tables, run: RunFolder) -> None:
    """Write what is said of scenes into the run's folder, each table at once."""
    content = {name: getattr(tables, name) for name in SAID_OF_SCENES}
    if tables.agreement is not None and tables.best_grasp is not None:
        content |= vars(tables.agreement) | {"best_grasp": tables.best_grasp}
    else:
        for name in OF_PHYSICS:  # of an experiment that asked physics, in the same folder
            table_file(run.tables, name).unlink(missing_ok=True)
    for name, table in content.items():
        with atomic_write(table_file(run.tables, name), "w") as stream:
            table.to_csv(stream, index=False, float_format="%.6g")
