"""Arms of runs that were made at different times or places, compared as if they were one run's.

Reads
    of each run ``experiment.json``, ``summary.json``, ``problems.json`` and ``tables/*.parquet``; for pictures its
    clouds and dumps where they still lie there.
Writes
    a folder like a run's: ``experiment.json`` (all arms), ``sources.json`` (from which run each comes), ``tables/``,
    ``summary.json``, ``report.html``.

Runs that differ in what :mod:`pipeline.comparable` lists are refused, with the keys; forced, the report is stamped with
them. An arm that both have made from the same clouds counts once; other arms of one name get their run's name
behind it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import aggregate, comparable, declaration, report, row_tables, summary
from pipeline.arms import Arm
from pipeline.artifacts import run_lock, write_json
from pipeline.config import Experiment
from pipeline.row_tables import WrittenRows
from pipeline.run_contents import open_run
from pipeline.run_folder import RunFolder, located, record_sources
from pipeline.selection import SceneUnit

MOST_LINES = 12

Names = dict[tuple[str, str], str]
"""What an arm is called here, by the label of its run and its name there."""


class CompareError(ValueError):
    """Runs that cannot be compared; the message says in what they differ and the remedy."""


@dataclass(frozen=True)
class Source:
    """One run that takes part."""

    label: str
    folder: RunFolder
    experiment: Experiment
    summary: dict[str, Any]

    @property
    def shared(self) -> dict[str, Any]:
        shared: dict[str, Any] = self.summary["comparable"]
        return shared


@dataclass(frozen=True)
class Taken:
    """One arm of the comparison: where it comes from, and what it is called here."""

    source: Source
    arm: Arm
    name: str


def run(
    runs: Sequence[Path],
    out: Path,
    *,
    pairs: Sequence[tuple[str, str]],
    force: bool,
    say: Callable[[str], None],
) -> RunFolder:
    """Compare runs and write tables, summary and report.

    Args:
        runs: two or more run folders; the first one's question, statistics and baseline count.
        out: the folder to be; a run's own folder is refused.
        pairs: of arms as they are called here; none: every learned arm of a later run against every one of the first,
            and the comparisons that the runs declared themselves.
        force: compare runs that differ, and stamp the report.
        say: is told one line at a time.

    Raises:
        CompareError: if runs differ, or a pair names an unknown arm.
        ArtifactError: if a folder is no finished run.
    """
    sources = _sources(runs)
    if any(source.folder.root == out for source in sources):
        raise CompareError(f"{out}: is one of the runs; choose another --out")
    lines = _differing(sources)
    if lines and not force:
        more = f"; and {len(lines) - MOST_LINES} more" if len(lines) > MOST_LINES else ""
        raise CompareError(
            f"these runs cannot be compared, they differ in: {'; '.join(lines[:MOST_LINES])}{more}. "
            "--force compares them and stamps the report"
        )
    taken, names = _taken(sources)
    experiment = _experiment(sources, taken, names, pairs)
    units = _units(sources)
    folder = RunFolder(out)
    with run_lock(out):
        write_json(folder.experiment_file, experiment.model_dump(mode="json"))
        record_sources(folder, {entry.name: _lies(entry) for entry in taken})
        declaration.record(experiment, folder)
        for entry in taken:
            say(f"arm        {entry.name}: {entry.arm.name} of {entry.source.folder.root}")
        rows = _rows(sources, taken, folder)
        tables = aggregate.make(experiment, rows.batches())
        aggregate.write(tables, folder)
        problems = _problems(sources)
        write_json(folder.problems, problems)
        shared = {**sources[0].shared, "units": {unit.label: _shared_unit(sources, unit) for unit in units}}
        shared["arms"] = {entry.name: entry.source.shared["arms"].get(entry.arm.name) for entry in taken}
        provenance = [
            {"run": str(source.folder.root), **source.summary["provenance"], "name": source.experiment.name}
            for source in sources
        ]
        summary.write(
            experiment,
            folder,
            units,
            tables,
            problems,
            shared=shared,
            described=_described(sources),
            forced=lines if force else (),
            runs=provenance,
        )
        report.run(experiment, folder)
        say(f"report     {folder.report}")
    return folder


def _sources(runs: Sequence[Path]) -> list[Source]:
    if len(runs) < 2:
        raise CompareError("give two or more run folders to compare")
    if len({path.resolve() for path in runs}) < len(runs):
        raise CompareError("a run is named twice; each counts once")
    result = []
    for path, label in zip(runs, _labels(runs), strict=True):
        opened = open_run(path.resolve())
        result.append(Source(label, opened.folder, opened.experiment, summary.read_finished(opened.folder)))
    return result


def _labels(runs: Sequence[Path]) -> list[str]:
    """Name each run by its folder, as an arm's name may have it; by its parent too, where folders are called alike."""
    paths = [path.resolve() for path in runs]
    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        names = [f"{path.parent.name}-{path.name}" for path in paths]
    names = [re.sub(r"[^A-Za-z0-9._-]+", "-", name) or "run" for name in names]
    return [name if names.count(name) == 1 else f"{name}-{place}" for place, name in enumerate(names, 1)]


def _described(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """Return the first run's generators, each deterministic where every run says so of it."""
    result = []
    for item in sources[0].summary["generators"]:
        every = [
            other["deterministic"]
            for source in sources
            for other in source.summary["generators"]
            if other["label"] == item["label"]
        ]
        said = False if False in every else None if None in every else True
        result.append({**item, "deterministic": said})
    return result


def _differing(sources: list[Source]) -> list[str]:
    lines = []
    for other in sources[1:]:
        found = comparable.differing(sources[0].shared, other.shared)
        prefix = "" if len(sources) == 2 else f"{other.label}: "
        lines += [prefix + line for line in found]
    return lines


def _taken(sources: list[Source]) -> tuple[list[Taken], Names]:
    """Choose the arms: once those that runs share, and under names of their own those that are only called alike."""
    chosen: list[Taken] = []
    names: Names = {}
    for source in sources:
        for arm in source.experiment.arms:
            alike = [entry for entry in chosen if entry.arm.name == arm.name]
            same = next((entry for entry in alike if _same(entry, source, arm)), None)
            if same is None:
                same = Taken(source, arm, f"{arm.name}.{source.label}" if alike else arm.name)
                chosen.append(same)
            names[source.label, arm.name] = same.name
    return chosen, names


def _same(entry: Taken, source: Source, arm: Arm) -> bool:
    one, other = entry.source.shared["arms"].get(entry.arm.name), source.shared["arms"].get(arm.name)
    entries = entry.source.experiment.entry_of(entry.arm), source.experiment.entry_of(arm)
    return one is not None and one == other and entries[0] == entries[1]


def _lies(entry: Taken) -> tuple[Path, str]:
    """Return the root and the folder's name where an arm's units lie: of a comparison in a run that it compared."""
    return located(entry.source.folder, entry.source.experiment).sources[entry.arm.name]


def _experiment(
    sources: list[Source], taken: list[Taken], called: Names, pairs: Sequence[tuple[str, str]]
) -> Experiment:
    first = sources[0].experiment
    arms = tuple(
        entry.arm.model_copy(update={"name": entry.name, "entry": entry.source.experiment.entry_of(entry.arm)})
        for entry in taken
    )
    names = [arm.name for arm in arms]
    for pair in pairs:
        for name in pair:
            if name not in names:
                raise CompareError(f"--pair names an unknown arm {name!r}; there are {', '.join(names)}")
    return first.model_copy(
        update={
            "name": " and ".join(dict.fromkeys(source.label for source in sources)),
            "arms": arms,
            "comparisons": tuple(pairs) or _comparisons(sources, taken, called),
            "statistics": first.statistics.model_copy(
                update={"family": first.statistics.family.model_copy(update={"comparisons": None})}
            ),
        }
    )


def _comparisons(sources: list[Source], taken: list[Taken], called: Names) -> tuple[tuple[str, str], ...]:
    learned = [entry for entry in taken if entry.arm.is_learned]
    own = [entry.name for entry in learned if entry.source is sources[0]]
    pairs = [(entry.name, name) for entry in learned if entry.source is not sources[0] for name in own]
    for source in sources:
        pairs += [(called[source.label, a], called[source.label, b]) for a, b in source.experiment.compared()]
    return tuple(dict.fromkeys(pairs))


def _rows(sources: list[Source], taken: list[Taken], folder: RunFolder) -> WrittenRows:
    """Write the rows of the arms that take part below one another."""
    asked = [source for source in sources if any(entry.source is source for entry in taken)]
    scorers = tuple(dict.fromkeys(scorer for source in asked for scorer in source.experiment.scorers))
    with row_tables.writing(folder.tables, row_tables.schemas(scorers)) as out:
        for source in sources:
            names = {entry.arm.name: entry.name for entry in taken if entry.source is source}
            row_tables.copy(source.folder.tables, names, out)
    return out.written(folder.tables)


def _units(sources: list[Source]) -> list[SceneUnit]:
    """Return every scene and camera of any run, with the views of all of them."""
    units: dict[tuple[str, int], SceneUnit] = {}
    for source in sources:
        for label, entry in source.shared["units"].items():
            scene, camera = label.split("/")
            number = int(scene.removeprefix("scene_"))
            views = set(entry["views"])
            known = units.get((camera, number))
            views |= set(known.views) if known else set()
            units[camera, number] = SceneUnit(number, camera, entry["split"], tuple(sorted(views)))
    return [units[key] for key in sorted(units)]


def _shared_unit(sources: list[Source], unit: SceneUnit) -> Any:
    return next(entry for source in sources if (entry := source.shared["units"].get(unit.label)) is not None)


def _problems(sources: list[Source]) -> list[dict[str, Any]]:
    problems = []
    for source in sources:
        try:
            rows = json.loads(source.folder.problems.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        problems += [{**row, "unit": f"{source.label}: {row.get('unit')}"} for row in rows]
    return problems
