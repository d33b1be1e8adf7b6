"""Stage: tables -> one self-contained HTML page.

Reads
    ``summary.json``, ``problems.json``, ``tables/``; for the pictures ``observations/``, ``arms/*/clouds/`` and
    ``arms/*/dump/``.
Writes
    ``report.html``: opens from disk, asks the network for nothing, follows the reader's light or dark scheme.

Rooms: :mod:`.inputs` reads, :mod:`.answer` says it in words, :mod:`.tables`, :mod:`.figures` and :mod:`.pictures` show
it, :mod:`.page` puts the page together.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.artifacts import atomic_write, file_hash, fingerprint
from pipeline.config import Experiment
from pipeline.run_folder import RunFolder

VERSION = 1  # raise when the page changes, so that finished runs get the new one


def run(experiment: Experiment, folder: RunFolder) -> Path:
    """Write the report of a run that is aggregated; return its path.

    Raises:
        ArtifactError: if the run has no summary or lacks one of its tables.
    """
    from pipeline.report import inputs, page

    text = page.render(inputs.read(experiment, folder))
    with atomic_write(folder.report, "w") as stream:
        stream.write(f"{text}\n{_made_from(folder)}\n")
    return folder.report


def is_current(folder: RunFolder) -> bool:
    """Say whether the page was made from the summary and the problems that now lie in the run folder."""
    expected = _made_from(folder).encode()
    try:
        with folder.report.open("rb") as stream:
            stream.seek(-len(expected) - 1, 2)
            return stream.read().strip() == expected
    except OSError:
        return False


def _made_from(folder: RunFolder) -> str:
    inputs = [VERSION, file_hash(folder.summary), file_hash(folder.problems)]
    return f"<!-- made from {fingerprint(inputs)} -->"
