"""Stage: tables -> one self-contained HTML page.

Reads
    ``summary.json``, ``problems.json``, ``tables/``; for the pictures ``observations/``, ``arms/*/clouds/`` and
    ``arms/*/dump/``.
Writes
    ``report.html``: opens from disk, asks the network for nothing, follows the reader's light or dark scheme;
    ``report/``: its figures as SVG and PNG, its tables as CSV, LaTeX and Markdown, and ``answer.json``, the sentences
    on top of the page: ``{format_version, answers: [{setting, sentences, reasons, scale}]}``.

Rooms: :mod:`.inputs` reads, :mod:`.answer` says it in words, :mod:`.choice` chooses the views that :mod:`.views` reads
and :mod:`.pictures` and :mod:`.explore` show, :mod:`.tables` and :mod:`.figures` show the rest (:mod:`.rank_free` what
no confidence enters), :mod:`.page` puts the page together from the templates in ``web/``, and :mod:`.exports` writes
what stands beside it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.artifacts import atomic_write, file_hash, fingerprint
from pipeline.config import Experiment
from pipeline.run_folder import RunFolder

VERSION = 5  # raise when the page changes, so that finished runs get the new one


def run(experiment: Experiment, folder: RunFolder) -> Path:
    """Write the report of a run that is aggregated; return its path.

    Raises:
        ArtifactError: if the run has no summary or lacks one of its tables.
    """
    from pipeline.report import answer, exports, inputs, page

    made_from = _made_from(folder)
    files = exports.Exports(_beside(folder).name)
    data = inputs.read(experiment, folder)
    text = page.render(data, files)
    said = [
        {"setting": item.setting.title, "sentences": item.sentences, "reasons": item.reasons, "scale": item.scale}
        for item in answer.answers(data)
    ]
    content = {"format_version": exports.FORMAT_VERSION, "answers": said}
    files.files[exports.ANSWER] = json.dumps(content, indent=1, ensure_ascii=False).encode()
    files.write(_beside(folder), made_from)
    with atomic_write(folder.report, "w") as stream:
        stream.write(f"{text}\n{_mark(made_from)}\n")
    return folder.report


def read_answer(folder: RunFolder) -> list[dict[str, Any]]:
    """Return the sentences on top of a run's report; none where there is no report."""
    from pipeline.report import exports

    try:
        said: list[dict[str, Any]] = json.loads((_beside(folder) / exports.ANSWER).read_text(encoding="utf-8"))[
            "answers"
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return said


def is_current(folder: RunFolder) -> bool:
    """Say whether page and files were made from the summary and the problems that now lie in the run folder."""
    from pipeline.report import exports

    made_from = _made_from(folder)
    expected = _mark(made_from).encode()
    try:
        with folder.report.open("rb") as stream:
            stream.seek(-len(expected) - 1, 2)
            return stream.read().strip() == expected and exports.are_complete(_beside(folder), made_from)
    except OSError:
        return False


def _beside(folder: RunFolder) -> Path:
    return folder.report.with_suffix("")


def _mark(made_from: str) -> str:
    return f"<!-- made from {made_from} -->"


def _made_from(folder: RunFolder) -> str:
    return fingerprint([VERSION, file_hash(folder.summary), file_hash(folder.problems)])
