"""What was declared before results were seen: primary metric, comparisons, family of tests.

``declared.json`` in the run folder is a list of the declarations in the order in which they were made, each with its
own ``format_version``, for a later version may add to what an earlier one wrote. One that is made before there are
results replaces the last; one that is made after them is kept beside it, and the report says so.
"""

from __future__ import annotations

import datetime
import itertools
import json
from typing import Any

from pipeline.artifacts import write_json
from pipeline.config import Experiment
from pipeline.run_folder import RunFolder

FORMAT_VERSION = 1
_TITLES = {
    "primary_metric": "the primary metric",
    "comparisons": "the comparisons",
    "family": "the family of tests",
    "question": "the question",
}


def declared(experiment: Experiment) -> dict[str, Any]:
    """Return what of an experiment must stand before its results do."""
    family = experiment.statistics.family
    return {
        "question": experiment.question,
        "primary_metric": experiment.primary_metric,
        "comparisons": [list(pair) for pair in experiment.compared()],
        "family": {
            "metrics": list(family.metrics or (experiment.primary_metric,)),
            "splits": list(family.splits),
            "comparisons": [list(pair) for pair in family.comparisons or experiment.questioned()],
        },
    }


def record(experiment: Experiment, folder: RunFolder) -> None:
    """Record a declaration, unless it is the last one's."""
    known = read(folder)
    now = declared(experiment)
    if known and known[-1]["declared"] == now:
        return
    seen = folder.summary.exists()
    entry = {
        "format_version": FORMAT_VERSION,
        "declared": now,
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "after_results": seen,
    }
    # A run of an earlier version has results and no declaration: what it was asked is not known.
    write_json(folder.declared, [*(known if seen else []), entry])


def read(folder: RunFolder) -> list[dict[str, Any]]:
    """Return the declarations of a run, the first made first; none where there is no readable file."""
    try:
        known = json.loads(folder.declared.read_text(encoding="utf-8"))
        return [entry for entry in known if isinstance(entry["declared"], dict)]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def changes(folder: RunFolder) -> list[str]:
    """Say in a sentence each what was declared anew after results were there."""
    known = read(folder)
    sentences = []
    if known and known[0]["after_results"]:
        sentences.append(
            f"What this run declares was recorded on {known[0]['at'][:10]}, when results were already there."
        )
    for before, after in itertools.pairwise(known):
        changed = [key for key in _TITLES if before["declared"].get(key) != after["declared"].get(key)]
        said = []
        for key in changed:
            old, new = before["declared"].get(key), after["declared"].get(key)
            said.append(_TITLES[key] + (f" (from {old} to {new})" if key == "primary_metric" else ""))
        if said:
            sentences.append(
                f"On {after['at'][:10]}, after results were there, this run changed {' and '.join(said)}: "
                "read its p-values as exploration."
            )
    return sentences
