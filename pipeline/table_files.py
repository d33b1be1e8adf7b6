"""The files of a run's ``tables/``: which there are, and how each is read back.

What their columns mean stands in :mod:`pipeline.table_columns`; :mod:`pipeline.aggregate` writes them.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pipeline.artifacts import ArtifactError

WHOLE = "all"
"""``split`` or ``object`` of a row that speaks of all of them together, and ``arm`` where arms are not told apart."""

WHOLE_VIEW = -1
"""``object`` of a row that speaks of a whole view, in the tables of rows."""

ROWS = ("grasps", "views", "completion_views", "crossed_views")
"""Parquet: the fields of :class:`pipeline.row_tables.Rows`, in their order."""

SAID_OF_SCENES = (
    *("utility", "completion", "comparisons", "recovered"),
    *("attribution", "crossed", "mediation", "mediation_points"),
)
"""CSV, of every run."""

OF_PHYSICS = ("agreement", "roc", "physics_outcomes", "best_grasp")
"""CSV, of the run of an experiment with the scorer ``physics``."""

TEXT_COLUMNS = (
    *("arm", "arm_a", "arm_b", "generator", "scorer", "camera", "split", "object", "metric", "reason", "outcome"),
    *("factor", "level", "combination", "model", "term", "interval", "p_method"),
)
"""Columns of text in which a number may stand for a name: an arm may be called `1`, objects are `all` or a number."""


def table_file(folder: Path, table: str) -> Path:
    """Return where a table lies in ``tables/``."""
    return folder / f"{table}.{'parquet' if table in ROWS else 'csv'}"


def read_table(folder: Path, table: str) -> pd.DataFrame:
    """Read a table from ``tables/``; texts that are missing are empty.

    Raises:
        ArtifactError: if it is missing or broken.
    """
    path = table_file(folder, table)
    try:
        return pd.read_parquet(path) if table in ROWS else _read_csv(path)
    except FileNotFoundError:
        remedy = "run `aggregate` first"
        if table in OF_PHYSICS:
            remedy = "`aggregate` makes it where the experiment's scorers name physics"
        raise ArtifactError(f"{path}: no such table; {remedy}") from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: broken ({error}); run `aggregate` again") from None


def _read_csv(path: Path) -> pd.DataFrame:
    # Only an empty field is a missing one: an arm may be called `NA`.
    table = pd.read_csv(path, dtype=dict.fromkeys(TEXT_COLUMNS, str), keep_default_na=False, na_values=[""])
    text = [name for name in TEXT_COLUMNS if name in table.columns]
    table[text] = table[text].fillna("")
    return table
