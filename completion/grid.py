"""A grid of training runs from one file, each evaluated on held-out pairs; resumable, one folder a run.

The file (YAML) holds::

    format_version: 1
    base: pcn_cd.yaml            # a training file, relative to this one; or its keys
    change: {steps: 400}         # keys that differ from base in every run
    vary: {seed: [0, 1, 2]}      # every combination of these, outermost
    cells:                       # and of these; without, one cell that is base itself
      - {name: cd_l1, loss: cd_l1}
      - {name: qal, loss: qal, vary: {loss.parameters.epsilon: [0.001, 0.01]}}
    evaluate: [data/pairs/novel.npz, {pairs: data/pairs/seen.npz, objects: [mug], scenes: [103]}]
    threads: 1                   # torch's, a run; the weights' last bits depend on it
    jobs: 1                      # runs at a time

Keys are dotted (``loss.parameters.omega``). A run is named by its cell and what varies (``qal-epsilon0.001-seed0``);
runs that differ in the seed alone make one row of the summary. Paths of pairs start at the working directory.

Writes, below one folder: each run's folder with ``cell.json`` (what it was made from, its figures), and what
:mod:`completion.grid_results` makes of all. A run that fails is a row with its reason.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from completion import checkpoint
from completion.configuration import (
    ConfigurationError,
    TrainingConfig,
    build,
    enter_losses,
    parse_config,
    plain,
    read_yaml,
)
from completion.grid_results import Outcome, evaluate_run, write_results
from completion.networks.plugins import NetworkError, find_network
from completion.resume import FREE_KEYS
from completion.train import train

FORMAT_VERSION = 1
CELL = "cell.json"


@dataclass(frozen=True)
class HeldOut:
    """Pairs that runs are evaluated on: a pair file, and of it some objects and scenes alone."""

    pairs: str
    objects: tuple[int | str, ...] = ()
    scenes: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        """Name in tables."""
        parts = [Path(self.pairs).stem, *map(str, self.objects), *(f"scene{scene}" for scene in self.scenes)]
        return " ".join(parts)


@dataclass(frozen=True)
class Cell:
    """One run: its folder's name, the row of the summary it belongs to, and what to train."""

    name: str
    group: str
    config: TrainingConfig


@dataclass(frozen=True)
class Grid:
    """A validated grid file."""

    cells: tuple[Cell, ...]
    evaluate: tuple[HeldOut, ...]
    threads: int = 1
    jobs: int = 1


@dataclass(frozen=True)
class _GridFile:
    base: Any
    change: Mapping[str, Any] = field(default_factory=dict)
    vary: Mapping[str, Any] = field(default_factory=dict)
    cells: tuple[Any, ...] = ()
    evaluate: tuple[Any, ...] = ()
    threads: int = 1
    jobs: int = 1
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True)
class GridResult:
    """Rows of all runs (failed ones with their reason), names of the failed ones, and the files written."""

    rows: list[Outcome]
    failed: list[str]
    written: list[Path]


def load_grid(
    path: str | Path,
    pairs: Sequence[str | Path] | None = None,
    evaluate: Sequence[str | Path] | None = None,
    jobs: int | None = None,
) -> Grid:
    """Read a grid file; the other arguments replace what it says of them.

    Raises:
        ConfigurationError: anything wrong in it or in the training file of one of its runs, which is named.
    """
    path = Path(path)
    file: _GridFile = build(_GridFile, read_yaml(path), str(path))
    if file.format_version != FORMAT_VERSION:
        raise ConfigurationError(f"{path}: format_version {file.format_version}, this code reads {FORMAT_VERSION}")
    jobs = file.jobs if jobs is None else jobs
    if file.threads < 1 or jobs < 1:
        raise ConfigurationError(f"{path}: threads and jobs must be above 0")
    if isinstance(file.base, str):
        base = read_yaml(path.parent / file.base)
    elif isinstance(file.base, Mapping):
        base = dict(file.base)
    else:
        raise ConfigurationError(f"{path}: base must name a training file or hold its keys, got {file.base!r}")
    for key, value in file.change.items():
        base = with_key(base, key, value)
    if pairs:
        base["pairs"] = [str(one) for one in pairs]
    cells: list[Cell] = []
    for outer in _combinations(file.vary, f"{path}: vary"):
        for given in file.cells or ({},):
            cells += _cells_of(given, outer, base, str(path))
    names = [cell.name for cell in cells]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigurationError(f"{path}: several runs are called {', '.join(twice)}; give their cells names")
    held_out = evaluate or file.evaluate
    sources = tuple(
        build(HeldOut, {"pairs": str(one)} if isinstance(one, str | Path) else one, str(path), "evaluate")
        for one in held_out
    )
    if not sources:
        raise ConfigurationError(f"{path}: evaluate is empty; name held-out pairs there or by --evaluate")
    return Grid(tuple(cells), sources, file.threads, jobs)


def with_key(content: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy of a training file's keys with the dotted ``key`` set; a name alone (``loss: qal``) becomes a mapping."""
    head, _, rest = key.partition(".")
    inner = content.get(head, {})
    inner = {"name": inner} if isinstance(inner, str) and rest else inner
    if rest and not isinstance(inner, Mapping):
        raise ConfigurationError(f"{key}: {head} holds no keys of its own, it is {inner!r}")
    return {**copy.deepcopy(dict(content)), head: with_key(inner, rest, value) if rest else value}


def carry_out(
    grid: Grid, out: str | Path, device: str = "auto", trust_code: bool = False, say: Callable[[str], None] = print
) -> GridResult:
    """Train and evaluate what is not finished, then write tables and plot.

    Raises:
        ConfigurationError, PairFileError, CheckpointError: before the first run, for held-out pairs, a device, or a
            network or loss from outside that cannot be used; later they make the run that met them a failed row.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    checkpoint.resolve_device(device)
    hashes = {one.pairs: _sha256(one.pairs) for one in grid.evaluate}
    todo = [cell for cell in grid.cells if _finished(out, cell, grid, hashes) is None]
    for cell in todo:
        enter_losses(cell.config, trust_code, f"run {cell.name}")
        try:
            find_network(cell.config.network.name, trust_code)
        except NetworkError as error:
            raise ConfigurationError(f"run {cell.name}: network: {error}") from error
    if len(todo) < len(grid.cells):
        say(f"finished   {len(grid.cells) - len(todo)} of {len(grid.cells)} runs already")
    failures: dict[str, str] = {}
    for done, (cell, reason) in enumerate(_run_all(todo, grid, out, device, trust_code, hashes), start=1):
        if reason is not None:
            failures[cell.name] = reason
        say(f"run        {done}/{len(todo)} {cell.name}{f': failed: {reason}' if reason else ''}")
    rows: list[Outcome] = []
    for cell in grid.cells:
        figures = _finished(out, cell, grid, hashes) or {one.label: {} for one in grid.evaluate}
        reason = failures.get(cell.name, "")
        for source, values in figures.items():
            rows.append(Outcome(cell.name, cell.group, cell.config.loss.name, cell.config.seed, source, values, reason))
    return GridResult(rows, sorted(failures), write_results(out, rows))


def run_cell(cell: Cell, grid: Grid, out: Path, device: str, trust_code: bool, hashes: Mapping[str, str]) -> str | None:
    """Train and evaluate one run; returns None, or why it failed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(grid.threads)
    try:
        folder = train(cell.config, out / cell.name, device, progress=grid.jobs == 1, trust_code=trust_code)
        figures = {
            one.label: evaluate_run(folder, one.pairs, one.objects, one.scenes, device, trust_code)
            for one in grid.evaluate
        }
    except (ValueError, OSError, RuntimeError) as error:
        return " ".join(str(error).split())
    finally:
        torch.set_num_threads(threads)
    record = {"format_version": FORMAT_VERSION, "made_from": _made_from(cell, grid, hashes), "figures": figures}
    checkpoint.write_text(folder / CELL, json.dumps(record, indent=2) + "\n")
    return None


def _run_all(
    todo: Sequence[Cell], grid: Grid, out: Path, device: str, trust_code: bool, hashes: Mapping[str, str]
) -> Iterator[tuple[Cell, str | None]]:
    """Run the cells, ``grid.jobs`` at a time; yields each as it ends."""
    if grid.jobs == 1:
        for cell in todo:
            yield cell, run_cell(cell, grid, out, device, trust_code, hashes)
        return
    waiting = list(todo)
    running: dict[Future[str | None], Cell] = {}
    # spawn: a forked process would inherit torch's threads in an unknown state.
    with _sigterm_raises(), ProcessPoolExecutor(grid.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            while waiting or running:
                while waiting and len(running) < grid.jobs:  # no more, so that none starts after Ctrl-C or SIGTERM
                    cell = waiting.pop(0)
                    running[pool.submit(run_cell, cell, grid, out, device, trust_code, hashes)] = cell
                ended, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in ended:
                    yield running.pop(future), future.result()
        except BaseException:
            for process in multiprocessing.active_children():
                if process.pid is not None:
                    os.kill(process.pid, signal.SIGTERM)  # lets the step end and writes the resume file
            raise


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """While inside, SIGTERM raises SystemExit(143), so that the jobs are ended too (in the main thread)."""

    def leave(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not cut short the jobs' last steps
        raise SystemExit(128 + number)

    before = signal.getsignal(signal.SIGTERM)
    mine = threading.current_thread() is threading.main_thread() and before is not signal.SIG_IGN
    if mine:
        signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        if mine:
            signal.signal(signal.SIGTERM, before)


def _cells_of(given: Any, outer: Mapping[str, Any], base: Mapping[str, Any], source: str) -> list[Cell]:
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"{source}: a cell is keys and values, got {given!r}")
    own = {key: value for key, value in given.items() if key not in ("name", "vary")}
    name = str(given.get("name", ""))
    cells = []
    for inner in _combinations(given.get("vary", {}), f"{source}: cell {name}: vary"):
        varied = {**inner, **outer}
        labels = [name] if name else []
        labels += [_label(key, value) for key, value in varied.items() if key != "seed"]
        group = "-".join(labels) or "base"
        run = f"{group}-seed{varied['seed']}" if "seed" in varied else group
        content = dict(base)
        for key, value in {**own, **varied}.items():
            content = with_key(content, key, value)
        if "/" in run or run.startswith("."):
            raise ConfigurationError(f"{source}: {run!r} cannot name a folder; give the cell a name")
        cells.append(Cell(run, group, parse_config(content, f"{source}: run {run}")))
    return cells


def _combinations(vary: Any, where: str) -> Iterator[dict[str, Any]]:
    if not isinstance(vary, Mapping) or not all(isinstance(values, list) and values for values in vary.values()):
        raise ConfigurationError(f"{where}: expected a list of values for each key, got {vary!r}")
    for values in itertools.product(*vary.values()):
        yield dict(zip(vary, values, strict=True))


def _label(key: str, value: Any) -> str:
    """What a varied key adds to a run's name: ``epsilon0.001``, or the name of what was chosen."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return str(value.get("name", value.get("schedule", key)))
    return key.rpartition(".")[2] + (f"{value:g}" if isinstance(value, float) else str(value))


def _finished(out: Path, cell: Cell, grid: Grid, hashes: Mapping[str, str]) -> dict[str, dict[str, float]] | None:
    """A run's figures by held-out source, if they are there and were made from the same things."""
    try:
        record = json.loads((out / cell.name / CELL).read_text(encoding="utf-8"))
        same = record["format_version"] == FORMAT_VERSION and record["made_from"] == _made_from(cell, grid, hashes)
        figures: dict[str, dict[str, float]] = record["figures"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return figures if same else None


def _made_from(cell: Cell, grid: Grid, hashes: Mapping[str, str]) -> dict[str, Any]:
    """What a run's figures depend on. Training checks for itself what its weights depend on besides."""
    training = {key: value for key, value in plain(cell.config).items() if key not in FREE_KEYS}
    sources = [
        {"sha256": hashes[one.pairs], "objects": list(one.objects), "scenes": list(one.scenes)} for one in grid.evaluate
    ]
    pairs = [_sha256(path) for path in cell.config.pairs]
    return {"training": training, "pairs": pairs, "evaluate": sources, "threads": grid.threads}


def _sha256(path: str | Path) -> str:
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror}); make or name the pair file") from error
