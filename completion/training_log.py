"""What a training run tells: ``log.csv``, TensorBoard, a progress bar, and notes that are told once."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from completion.configuration import ConfigurationError

LOG = "log.csv"
NOTES = "notes.txt"
COLUMNS = (
    "step",
    "loss",  # what is differentiated: weighted terms, with the factors of gradient_scale
    "coarse",  # coarse_loss of the clouds before the last, summed
    "fine",  # loss of the last cloud
    "fine_weight",
    "coverage",  # of the batch, training mode, τ = 0.03 of the network frame
    "spurious",
    "gradient",  # norm before the clip
    "rate",
    "largest_gradient",  # since the row before
    "cd_l1",
    "denoising",
    "flat_spurious",  # see completion.watch; empty where it is not watched
    "seconds",  # a step, averaged since the start of this process
)


class TrainingLog:
    """Open for the length of a run; rows beyond the resumed step are dropped first.

    Args:
        out: folder of ``log.csv``.
        start: step that the run goes on from.
        total: steps of the whole run.
        progress: show a bar (where tqdm is installed, else a line for each row).
        tensorboard: write event files too.
        quiet: neither write nor show anything: a process that is not the first of its run.

    Raises:
        ConfigurationError: TensorBoard was asked for and is not installed.
    """

    def __init__(
        self, out: Path, start: int, total: int, progress: bool = True, tensorboard: bool = False, quiet: bool = False
    ) -> None:
        self._total, self._quiet, self._began, self._start = total, quiet, time.monotonic(), start
        self.rows: list[dict[str, float]] = []
        self._bar: Any = None
        self._board: Any = None
        if quiet:
            return
        self._board = _tensorboard(out, start) if tensorboard else None
        self.rows = [row for row in read_log(out / LOG) if row["step"] <= start] if start > 0 else []
        self._file = (out / LOG).open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        self._writer.writerow(COLUMNS)
        for row in self.rows:
            self._write(row)
        self._notes, self._progress = out / NOTES, progress
        if progress:
            self._bar = _progress_bar(total, start, out.name)

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(self, *_: object) -> None:
        if self._quiet:
            return
        self._file.close()
        if self._board is not None:
            self._board.close()
        if self._bar is not None:
            self._bar.close()

    def advance(self) -> None:
        """One more step is done."""
        if self._bar is not None:
            self._bar.update()

    def row(self, values: Mapping[str, float]) -> None:
        """Log the columns of one step; a column that is absent stays empty."""
        if self._quiet:
            return
        step, elapsed = int(values["step"]), time.monotonic() - self._began
        row = {**values, "seconds": elapsed / max(1, step - self._start)}
        self.rows.append(row)
        self._write(row)
        if self._board is not None:
            for name, value in row.items():
                if name != "step":
                    self._board.add_scalar(name, value, step)
        shown = {name: f"{row[name]:.{digits}f}" for name, digits in (("loss", 4), ("coverage", 3), ("spurious", 3))}
        if self._bar is not None:
            self._bar.set_postfix(shown)
        elif self._progress:
            left = row["seconds"] * (self._total - step)
            text = ", ".join(f"{name} {value}" for name, value in shown.items())
            print(f"step {step}/{self._total}: {text}, {_duration(left)} left", file=sys.stderr, flush=True)

    def tell(self, text: str) -> None:
        """A line on the console, whatever the progress bar does."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def write_notes(self, notes: list[list[Any]]) -> None:
        """``notes.txt``: what was warned of so far; absent where nothing was."""
        if self._quiet:
            return
        if notes:
            self._notes.write_text("".join(f"step {n}: {name}: {text}\n" for n, name, text in notes), encoding="utf-8")
        else:
            self._notes.unlink(missing_ok=True)

    def _write(self, row: Mapping[str, float]) -> None:
        cells = (f"{row[name]:.6g}" if name in row else "" for name in COLUMNS[1:])
        self._writer.writerow([int(row["step"]), *cells])
        self._file.flush()


def read_log(path: Path) -> list[dict[str, float]]:
    """The rows of a ``log.csv``; empty cells and rows cut short by a kill are left out, a missing file has none."""
    rows = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            for cells in csv.DictReader(file):
                try:
                    rows.append({name: float(value) for name, value in cells.items() if value})
                except (ValueError, TypeError):
                    continue
    return [row for row in rows if "step" in row]


def _tensorboard(out: Path, start: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigurationError(
            f"tensorboard: true needs the package tensorboard ({error}); pip install 'grasp-utility[tensorboard]', "
            "or drop the key: log.csv holds the same figures"
        ) from error
    return SummaryWriter(str(out / "tensorboard"), purge_step=start + 1)


def _progress_bar(total: int, start: int, name: str) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(total=total, initial=start, desc=name, unit="step", mininterval=1.0)


def _duration(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
