"""A run for notebooks: ``pipeline.load_run(folder)``, its tables as data frames, its clouds and grasps as arrays.

Reads
    ``experiment.json``, ``summary.json``, ``tables/``; for clouds and grasps what :mod:`pipeline.run_contents` reads.
    Nothing is written. What every column means stands in :data:`COLUMNS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline import summary as summaries
from pipeline.artifacts import ArtifactError
from pipeline.cloud_files import ObjectClouds, Observation
from pipeline.run_contents import RunContents, ScoredGrasps, open_run
from pipeline.table_columns import COLUMNS
from pipeline.table_files import read_table

__all__ = ["COLUMNS", "Run", "load_run"]


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run, read as it is asked for. Tables are kept: copy one before you change it.

    Attributes:
        path: the run folder.
        contents: its paths and files, by arm, scene and view.
        summary: the content of ``summary.json``, see :mod:`pipeline.summary`.
    """

    path: Path
    contents: RunContents
    summary: dict[str, Any]

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}: {len(self.arms)} arms)"

    @property
    def experiment(self) -> dict[str, Any]:
        """The content of ``experiment.json``: every setting of the run, defaults included."""
        return self.contents.content

    @property
    def arms(self) -> list[str]:
        """The experiment's arms, as its tables name them."""
        return [arm.name for arm in self.contents.experiment.arms]

    @cached_property
    def utility(self) -> pd.DataFrame:
        """Every utility metric of every arm with its interval."""
        return self._table("utility")

    @cached_property
    def completion(self) -> pd.DataFrame:
        """Every completion metric of every arm with its interval."""
        return self._table("completion")

    @cached_property
    def comparisons(self) -> pd.DataFrame:
        """Differences between arms, paired by view, with intervals and tests."""
        return self._table("comparisons")

    @cached_property
    def recovered(self) -> pd.DataFrame:
        """How much of the way from the partial cloud to the truth an arm goes."""
        return self._table("recovered")

    @cached_property
    def grasps(self) -> pd.DataFrame:
        """One row a scored grasp: of a large run tens of millions."""
        return self._table("grasps")

    @cached_property
    def views(self) -> pd.DataFrame:
        """One row a view and arm, and one a view, arm and object: utility."""
        return self._table("views")

    @cached_property
    def completion_views(self) -> pd.DataFrame:
        """One row a completed cloud: its metrics against the true surface."""
        return self._table("completion_views")

    @cached_property
    def attribution(self) -> pd.DataFrame:
        """Where differences arise, by object, width, thickness, surface, visibility and reason."""
        return self._table("attribution")

    @cached_property
    def mediation(self) -> pd.DataFrame:
        """Whether coverage goes with utility: lines through objects' differences."""
        return self._table("mediation")

    @cached_property
    def mediation_points(self) -> pd.DataFrame:
        """The differences that those lines go through."""
        return self._table("mediation_points")

    @cached_property
    def crossed(self) -> pd.DataFrame:
        """Utility of grasps of one cloud filtered by the collisions of another."""
        return self._table("crossed")

    @cached_property
    def crossed_views(self) -> pd.DataFrame:
        """The same by view."""
        return self._table("crossed_views")

    @cached_property
    def agreement(self) -> pd.DataFrame:
        """What the protocol and physics say of the same grasps, counted."""
        return self._table("agreement")

    @cached_property
    def roc(self) -> pd.DataFrame:
        """The protocol as a test for what physics holds, over friction."""
        return self._table("roc")

    @cached_property
    def physics_outcomes(self) -> pd.DataFrame:
        """What became of trials, by what the protocol found."""
        return self._table("physics_outcomes")

    @cached_property
    def best_grasp(self) -> pd.DataFrame:
        """Whether physics holds the grasp that a robot would try first."""
        return self._table("best_grasp")

    def describe(self, table: str) -> pd.DataFrame:
        """Say what a table's columns mean: one row a column of this run's table, ``column``, ``dtype`` and ``meaning``.

        Raises:
            ArtifactError: if there is no such table; names those that there are.
        """
        if table not in COLUMNS:
            raise ArtifactError(f"no table {table!r}; there are {', '.join(COLUMNS)}")
        frame: pd.DataFrame = getattr(self, table)
        meanings = [COLUMNS[table].get(str(name), "") for name in frame.columns]
        kinds = [str(kind) for kind in frame.dtypes]
        return pd.DataFrame({"column": list(frame.columns), "dtype": kinds, "meaning": meanings})

    def observation(self, scene: int, view: int, camera: str | None = None) -> Observation:
        """Return the partial clouds of a view and what lies around them, camera frame, metres.

        Args:
            scene, view: numbers.
            camera: None: the experiment's first.

        Raises:
            ArtifactError: if it was not observed; names what was.
        """
        return self.contents.observation(self.contents.place(scene, view, camera))

    def clouds(self, arm: str, scene: int, view: int, camera: str | None = None) -> ObjectClouds:
        """Return an arm's completed clouds; ``.points`` is ``(N, 3)`` of all objects, camera frame, metres.

        Args:
            arm: a folder below ``arms/``: of an arm of several checkpoints, ``<arm>@<place>``.
            scene, view, camera: as of :meth:`observation`.

        Raises:
            ArtifactError: for an arm or a view that is not there; names what is.
        """
        return self.contents.clouds(arm, self.contents.place(scene, view, camera))

    def grasps_of(
        self,
        arm: str,
        scene: int,
        view: int,
        camera: str | None = None,
        generator: str | None = None,
        scorer: str | None = None,
    ) -> ScoredGrasps:
        """Return an arm's scored grasps, best confidence first, camera frame, metres, with what was found of each.

        Args:
            arm, scene, view, camera: as of :meth:`clouds`.
            generator: None: the experiment's first.
            scorer: None: the experiment's first that grades by the protocol.

        Raises:
            ArtifactError: for what is not there, not scored, or scored from another dump.
        """
        place = self.contents.place(scene, view, camera)
        names = self.contents.generator(generator), self.contents.scorer(scorer)
        return self.contents.grasps(self.contents.arm(arm), place, *names)

    def _table(self, name: str) -> pd.DataFrame:
        return read_table(self.contents.folder.tables, name)


def load_run(path: str | PathLike[str]) -> Run:
    """Open a finished run.

    Args:
        path: the run folder, which ``grasp-utility run --out`` named.

    Raises:
        ArtifactError: if it is no run, is not aggregated, or was written in another format; names file and remedy.

    >>> from pipeline import load_run
    >>> run = load_run(run_folder)
    >>> whole = run.comparisons.query("split == 'all' and object == 'all' and metric == 'ap'")
    >>> list(whole[["arm_a", "arm_b"]].itertuples(index=False, name=None))[0]
    ('pcn-cd', 'partial')
    >>> run.describe("comparisons").set_index("column").meaning["difference"]
    'a - b, paired by view, mean over scenes, in the unit of the metric'
    >>> run.views.query("object == -1").groupby("arm").ap.mean().idxmax()
    'oracle'
    >>> run.clouds("pcn-cd", scene=100, view=0).points.shape[1]
    3
    >>> best = run.grasps_of("pcn-cd", scene=100, view=0).kept()
    >>> best.grasps.translation.shape == (len(best.rows), 3)
    True
    """
    contents = open_run(Path(path))
    return Run(Path(path), contents, summaries.read_finished(contents.folder))
