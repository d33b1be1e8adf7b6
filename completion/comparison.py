"""Several checkpoints on the same pairs, in one table: means and spread over seeds.

Checkpoints of equal loss and network are one group: they differ in their seed, and their spread says how much of a
difference between two groups is luck. What else differs between checkpoints is named in ``notes``, because then the
loss is not the only explanation. The spread over seeds is not that over objects: a few seeds on a few objects say
nothing about other objects.

Reads checkpoint folders and a pair file; writes a table (:mod:`completion.tables`) as ``.csv``, ``.md`` or ``.json``.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from completion.checkpoint import WEIGHTS, load, write_text
from completion.datasets.pairs import PairFile
from completion.evaluate import BASELINES, EXTRA_COLUMNS, PairEvaluation, Table
from completion.losses import LOSSES
from completion.tables import COLUMNS, LEGEND, Group, csv_table, markdown_table, statistics_of

FORMAT_VERSION = 1
WAYS = ("replace", "append")
LABELS = ("loss", "network", "way")
# Of what a training was made, everything else should be equal within a group, and these may differ.
_FREE = ("seed", "loss", "network", "pairs_source", "checkpoint_every", "log_every", "progress")


class ComparisonError(ValueError):
    """A comparison that cannot be made or written; the message names the remedy."""


@dataclass(frozen=True)
class Member:
    """One checkpoint of a comparison.

    Attributes:
        name: its folder's name.
        loss, network: labels, equal for the checkpoints of one group.
        seed: of its training; None where it was trained elsewhere.
        sha256: of its weights.
        table: see :func:`completion.evaluate.evaluate`.
    """

    name: str
    loss: str
    network: str
    seed: int | None
    sha256: str
    table: Table


@dataclass(frozen=True)
class Row(Group):
    """A group under one way of using the prediction, or a baseline (``seeds`` 0, no spread).

    Attributes:
        loss, network: labels; a baseline has ``-``.
        way: ``replace``, ``append``, ``partial`` or ``nearest shape``.
    """

    loss: str
    network: str
    way: str


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found: ``rows`` in the order of the checkpoints, baselines first."""

    pairs: str
    samples: int
    objects: int
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    members: tuple[Member, ...]
    notes: tuple[str, ...]

    def caption(self) -> str:
        """What the figures are, in one paragraph."""
        return (
            f"{self.samples} pairs of {self.objects} objects (`{self.pairs}`), means over pairs, then over seeds; "
            f"{LEGEND} `replace` is the prediction alone, `append` prediction and whole observation."
        )

    def markdown(self) -> str:
        """The table for a README."""
        lines = [self.caption(), "", *markdown_table(LABELS, self.columns, self.rows)]
        lines += ["", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines).rstrip() + "\n"

    def csv(self) -> str:
        """One line a row, with all figures as numbers."""
        return csv_table(LABELS, self.columns, self.rows)

    def json(self) -> str:
        """Everything, with each checkpoint's own table."""
        return json.dumps({"format_version": FORMAT_VERSION, **asdict(self)}, indent=2) + "\n"

    def write(self, path: str | Path) -> Path:
        """Write the table, as its suffix says; atomically.

        Raises:
            ComparisonError: a suffix other than .csv, .md and .json.
        """
        path = check_output(path)
        text = {".csv": self.csv, ".md": self.markdown, ".json": self.json}[path.suffix]()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
        return path


def check_output(path: str | Path) -> Path:
    """The path, if a table can be written there: ask before the work is done.

    Raises:
        ComparisonError: a suffix other than .csv, .md and .json.
    """
    path = Path(path)
    if path.suffix not in (".csv", ".md", ".json"):
        raise ComparisonError(f"{path}: a table is written as .csv, .md or .json; give the file one of these names")
    return path


def compare(
    checkpoints: Sequence[str | Path],
    pairs: str | Path,
    training_pairs: Sequence[str | Path] = (),
    seed: int = 0,
    device: str = "auto",
    all_metrics: bool = False,
    trust_code: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Evaluate checkpoints on one pair file and gather them by loss and network.

    Args:
        checkpoints: folders or shipped names.
        pairs: pair file of novel objects.
        training_pairs: for the retrieval baseline; without, it is left out.
        seed: of the points that are drawn, the same for all.
        device: where the networks run.
        all_metrics: also DCD and EMD.
        trust_code: see :func:`completion.checkpoint.load`.
        progress: told (done, all) after each checkpoint.

    Raises:
        ComparisonError: no checkpoints.
        CheckpointError, PairFileError: what cannot be read.
    """
    if not checkpoints:
        raise ComparisonError("nothing to compare: name at least one checkpoint")
    evaluation = PairEvaluation(pairs, training_pairs, seed, all_metrics=all_metrics)
    members, configs = [], []
    baselines: dict[tuple[str, int], Table] = {}
    for number, path in enumerate(checkpoints):
        checkpoint = load(path, device, trust_code=trust_code)
        config = dict(checkpoint.config)
        table = evaluation.table(checkpoint)
        # One checkpoint in memory at a time.
        configs.append(config)
        members.append(
            Member(
                name=checkpoint.path.resolve().name,
                loss=_label(config["loss"], LOSSES.get(config["loss"]["name"])),
                network=config["network"]["name"],
                seed=(config.get("training") or {}).get("seed"),
                sha256=hashlib.sha256((checkpoint.path / WEIGHTS).read_bytes()).hexdigest(),
                table=table,
            )
        )
        baselines.setdefault((config["normalisation"], config["input_points"]), table)
        if progress is not None:
            progress(number + 1, len(checkpoints))
    members = _with_network_labels(members, configs)
    columns = tuple(column for column in (*COLUMNS, *EXTRA_COLUMNS) if column in members[0].table["replace"])
    groups: dict[tuple[str, str], list[int]] = {}
    for index, member in enumerate(members):
        groups.setdefault((member.loss, member.network), []).append(index)
    rows = _baseline_rows(baselines, columns)
    for (loss, network), indices in groups.items():
        rows += [_row(loss, network, way, [members[i] for i in indices], columns) for way in WAYS]
    return Comparison(
        pairs=Path(pairs).name,
        samples=len(evaluation.file),
        objects=len(np.unique(evaluation.file.object_index)),
        columns=columns,
        rows=tuple(rows),
        members=tuple(members),
        notes=tuple(_notes(members, configs, list(groups.values()), evaluation.file)),
    )


def _row(loss: str, network: str, way: str, members: Sequence[Member], columns: Iterable[str]) -> Row:
    figures = statistics_of([(member.name, member.table[way]) for member in members], columns)
    return Row(loss=loss, network=network, way=way, **figures)


def _baseline_rows(tables: Mapping[tuple[str, int], Table], columns: Sequence[str]) -> list[Row]:
    """One row a baseline and normalisation: checkpoints that normalise differently see different network frames."""
    rows = []
    for (mode, points), table in tables.items():
        network = "-" if len(tables) == 1 else f"{mode}, {points} points in"
        for name in BASELINES:
            if name in table:
                figures = {column: table[name][column] for column in columns}
                rows.append(Row(0, (), figures, dict.fromkeys(columns), figures, figures, "-", network, name))
    return rows


def _label(part: Mapping[str, Any], function: Callable[..., Any] | None) -> str:
    """``name`` and the parameters that are not the defaults: equal functions get equal labels."""
    given = dict(part.get("parameters") or {})
    if function is not None:
        defaults = {key: value.default for key, value in inspect.signature(function).parameters.items()}
        given = {key: value for key, value in given.items() if key not in defaults or value != defaults[key]}
    return _text(part["name"], given)


def _text(name: str, parameters: Mapping[str, Any]) -> str:
    if not parameters:
        return name
    return f"{name} ({', '.join(f'{key} {_plain(value)}' for key, value in sorted(parameters.items()))})"


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else json.dumps(value)


def _with_network_labels(members: list[Member], configs: Sequence[Mapping[str, Any]]) -> list[Member]:
    """Name a network's parameters where two checkpoints of one network differ in them, and only those."""
    parameters: dict[str, list[dict[str, Any]]] = {}
    for config in configs:
        parameters.setdefault(config["network"]["name"], []).append(dict(config["network"].get("parameters") or {}))
    labelled = []
    for member, config in zip(members, configs, strict=True):
        own = dict(config["network"].get("parameters") or {})
        others = parameters[member.network]
        varied = {key for one in others for key in one if any(key not in two or two[key] != one[key] for two in others)}
        shown = {key: value for key, value in own.items() if key in varied}
        # Nothing of its own to show, but others have: it was built with the defaults.
        network = _text(member.network, shown) if shown or not varied else f"{member.network} (defaults)"
        labelled.append(Member(**{**vars(member), "network": network}))
    return labelled


def _notes(
    members: Sequence[Member], configs: Sequence[Mapping[str, Any]], groups: Sequence[Sequence[int]], file: PairFile
) -> list[str]:
    """What a reader must know before comparing groups."""
    notes = []
    name = {index: f"{members[group[0]].loss}, {members[group[0]].network}" for group in groups for index in group}
    single = [name[group[0]] for group in groups if len(group) == 1]
    if single:
        notes.append(f"{'; '.join(single)}: one checkpoint each, so nothing is known of their spread over seeds")
    for group in groups:
        seeds = [members[i].seed for i in group]
        if len({members[i].sha256 for i in group}) < len(group) or len(set(seeds) - {None}) < len(
            [one for one in seeds if one is not None]
        ):
            notes.append(f"{name[group[0]]}: seeds repeat ({', '.join(map(str, seeds))}), so its spread is too small")
        keys = _differing([configs[i] for i in group])
        if keys:
            notes.append(f"{name[group[0]]}: its checkpoints differ in {', '.join(keys)}, not in the seed alone")
    between = _differing([configs[group[0]] for group in groups])
    if between:
        notes.append(f"the groups differ in {', '.join(between)} too, not in loss and network alone")
    seeds_of = {tuple(sorted(str(members[i].seed) for i in group)) for group in groups}
    if len(seeds_of) > 1:
        notes.append("the groups hold different seeds, so differences are not paired")
    frames = sorted({config["frame"] for config in configs} - {file.frame})
    if frames:
        notes.append(
            f"the pairs are in frame {file.frame!r}, but checkpoints expect {', '.join(map(repr, frames))}: they see "
            "objects turned as never in training"
        )
    return notes


def _differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys of training and inference that are not the same in all configurations, beyond the free ones."""
    keys = ("normalisation", "input_points", "output_points", "frame")
    flat = []
    for config in configs:
        training = dict(config.get("training") or {})
        training["pairs"] = [one.get("sha256") for one in training.get("pairs") or []]
        flat.append({**{key: config[key] for key in keys}, **training})
    every = sorted({key for one in flat for key in one} - set(_FREE))
    return [key for key in every if any(one.get(key) != flat[0].get(key) for one in flat)]
