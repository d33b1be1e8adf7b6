"""What the readers of public benchmarks share: the order of training, augmentation, and errors that name the remedy.

A benchmark's clouds come as they are distributed: in its canonical orientation (y up, as ShapeNet), in its own scale.
They are read sample by sample, so that a set of 50 GB needs no more memory than a batch.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from completion.datasets.pairs import Augmentation, batch_indices, distort
from completion.normalize import Normalisation, normalisation
from completion.points import sample_indices

AS_GIVEN = "as given"
Cloud = NDArray[np.float32]


class DatasetError(ValueError):
    """A benchmark's files are missing, broken or of another layout; the message names the file and the remedy."""


class TrainingData(Protocol):
    """What training draws from: pair files (:class:`completion.datasets.pairs.PairDataset`) or a benchmark.

    Attributes:
        frame: orientation of the clouds: ``table``, ``camera`` or ``canonical``.
        normalisation: how they are brought to the network frame, a name of :mod:`completion.normalize` or
            ``as given``.
    """

    frame: str

    @property
    def normalisation(self) -> str:
        """See the class."""

    def __len__(self) -> int: ...

    def batch(self, step: int, size: int) -> tuple[Tensor, Tensor]:
        """``(size, input_points, 3)`` and ``(size, target_points, 3)``, by the seed and the step alone."""

    def describe(self) -> list[dict[str, Any]]:
        """What the data are, by name and content, for the fingerprint of a run; no path."""


class Sample(NamedTuple):
    """A pair as the benchmark gives it: its own frame and scale, all points."""

    partial: Cloud  # (N, 3)
    truth: Cloud  # (M, 3)


class Drawing(NamedTuple):
    """How a batch is drawn from samples.

    Attributes:
        input_points, target_points: points drawn from the partial and the true cloud.
        augmentation: as for pairs, about the origin: ``mirror`` flips x, z, both or neither (as the published loaders
            do), ``yaw_degrees`` turns about y, which is up here.
        seed: of order, draws and augmentation.
        mode: normalisation: ``as given`` or a name of :mod:`completion.normalize`.
    """

    input_points: int
    target_points: int
    augmentation: Augmentation | None = None
    seed: int = 0
    mode: str = AS_GIVEN


class BenchmarkData(ABC):
    """Base of the readers. ``data.batch(step, size)`` for training, ``data.sample(i)`` for evaluation.

    Args:
        drawing: how a batch is drawn.
        root: the benchmark's folder; which files it must hold, its class says.
        split: a name of ``splits``.
        categories: names or ids to keep; all by default.

    Raises:
        DatasetError: a folder of another layout, a missing or broken list, an unknown split or category.
    """

    name: ClassVar[str]
    splits: ClassVar[tuple[str, ...]]
    frame = "canonical"

    def __init__(
        self,
        drawing: Drawing,
        root: str | Path,
        split: str = "train",
        categories: Sequence[str] = (),
    ) -> None:
        if split not in self.splits:
            raise DatasetError(f"{self.name}: no split {split!r}; choose {', '.join(self.splits)}")
        self.root, self.split = Path(root), split
        if not self.root.is_dir():
            raise DatasetError(f"{self.root}: no such folder; give the folder of {self.name} as `root` (--data)")
        self.input_points, self.target_points = drawing.input_points, drawing.target_points
        self.augmentation = drawing.augmentation or Augmentation()
        self.seed, self._mode = drawing.seed, drawing.mode
        self._wanted = (categories,) if isinstance(categories, str) else tuple(str(one) for one in categories)

    @property
    def normalisation(self) -> str:
        """How :meth:`batch` brings clouds to the network frame."""
        return self._mode

    @abstractmethod
    def __len__(self) -> int:
        """Samples: pairs of one view and its truth."""

    @abstractmethod
    def category(self, index: int) -> str:
        """Name of a sample's category."""

    @abstractmethod
    def label(self, index: int) -> str:
        """Which model and view a sample is."""

    @abstractmethod
    def _read(self, index: int, rng: np.random.Generator) -> Sample:
        """Read one sample; ``rng`` for what the benchmark itself draws."""

    def sample(self, index: int) -> Sample:
        """One pair in the benchmark's own frame and scale, deterministic in ``(seed, index)``.

        Raises:
            DatasetError: a file that is missing, truncated, or holds values that are not finite.
        """
        return self._checked(index, np.random.default_rng([self.seed, 0, index]))

    def _checked(self, index: int, rng: np.random.Generator) -> Sample:
        pair = self._read(index, rng)
        for kind, cloud in zip(("partial", "true"), pair, strict=True):
            if cloud.ndim != 2 or cloud.shape[1] != 3 or len(cloud) == 0:
                raise DatasetError(f"{self.root}: {self.label(index)}: the {kind} cloud has shape {cloud.shape}")
            if not np.isfinite(cloud).all():
                raise DatasetError(
                    f"{self.root}: {self.label(index)}: the {kind} cloud holds values that are not finite"
                )
        return pair

    def shown(self, cloud: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        """What a network sees of a partial cloud ``(N, 3)``: ``(input_points, 3)``, a smaller cloud in part twice."""
        return cloud[sample_indices(len(cloud), self.input_points, rng)]

    def indices(self, step: int, size: int) -> list[int]:
        """Which samples stand in the batch of a training step, in order."""
        return batch_indices(len(self), self.seed, step, size)

    def batch(self, step: int, size: int) -> tuple[Tensor, Tensor]:
        """``(size, input_points, 3)`` and ``(size, target_points, 3)``; every epoch in a new random order."""
        rng = np.random.default_rng([self.seed, 2, step])
        drawn = [self._draw(index, rng) for index in self.indices(step, size)]
        partial, truth = (torch.from_numpy(np.stack(clouds)) for clouds in zip(*drawn, strict=True))
        return partial, truth

    def _draw(self, index: int, rng: np.random.Generator) -> tuple[Cloud, Cloud]:
        pair = self._checked(index, rng)
        partial, truth = _augment(
            pair.partial.astype(np.float64), pair.truth.astype(np.float64), self.augmentation, rng
        )
        transform = transform_of(self._mode, partial, truth)  # of the whole clouds, as at inference
        partial = self.shown(partial, rng)
        truth = truth[sample_indices(len(truth), self.target_points, rng)]
        return transform.to_network(partial), transform.to_network(truth)

    def describe(self) -> list[dict[str, Any]]:
        """Name, number of samples and a hash of what decides over them."""
        identity = json.dumps([self.name, self.split, self._identity()], sort_keys=True).encode()
        what = {"file": f"{self.name}/{self.split}", "sha256": hashlib.sha256(identity).hexdigest()}
        return [{**what, "samples": len(self)}]

    @abstractmethod
    def _identity(self) -> Any:
        """JSON data that differs where the samples do. Not the contents of all clouds: hashing 50 GB takes minutes."""

    def _keep(self, known: Mapping[str, str]) -> set[str]:
        """The ids to keep; ``known`` is id -> name.

        Raises:
            DatasetError: an unknown category.
        """
        if not self._wanted:
            return set(known)
        ids = {name: one for one, name in known.items()} | {one: one for one in known}
        for wanted in self._wanted:
            if wanted not in ids:
                raise DatasetError(
                    f"{self.root}: no category {wanted!r} in {self.name}; known: {', '.join(sorted(known.values()))}"
                )
        return {ids[wanted] for wanted in self._wanted}


def transform_of(mode: str, partial: NDArray[Any], truth: NDArray[Any]) -> Normalisation:
    """The transform of a pair to the network frame; none where clouds are taken as given."""
    if mode == AS_GIVEN:
        return Normalisation(np.zeros(3), 1.0)
    return normalisation(mode, partial, truth)


def absent(root: Path, names: Iterable[str], what: str) -> DatasetError:
    """The error for files that are not where they should be, with the folder that is meant where it is near."""
    names = list(names)
    near = [root.parent, *sorted(path for path in root.glob("*") if path.is_dir())]
    for folder in near:
        if all((folder / name).exists() for name in names):
            return DatasetError(f"{root}: no {names[0]} here, but in {folder}: give that folder as `root` (--data)")
    lacking = ", ".join(name for name in names if not (root / name).exists())
    return DatasetError(f"{root}: lacks {lacking}; {what}")


def read_lines(path: Path) -> list[str]:
    """The lines of a list file that are not empty.

    Raises:
        DatasetError: missing, unreadable or empty.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: the list cannot be read ({error}); take it from the benchmark's site") from error
    lines = [line for line in lines if line]
    if not lines:
        raise DatasetError(f"{path}: the list is empty; take it again from the benchmark's site")
    return lines


class H5File:
    """An HDF5 file that is opened when it is first read, and again in every process: handles do not survive a fork."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: tuple[int, Any] | None = None

    def read(self, name: str, index: int | slice) -> NDArray[Any]:
        """Rows of one array.

        Raises:
            DatasetError: h5py is not installed, or the file is missing, truncated, or lacks the array.
        """
        try:
            return np.asarray(self._array(name)[index])
        except (OSError, RuntimeError, ValueError, IndexError) as error:
            if isinstance(error, DatasetError):
                raise
            raise self._broken(error) from error

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one array; errors as :meth:`read`."""
        return tuple(self._array(name).shape)

    def has(self, name: str) -> bool:
        """Whether there is such an array."""
        return name in self._handle()

    def close(self) -> None:
        """Let go of the file; a later read opens it again."""
        if self._open is not None and self._open[0] == os.getpid():
            self._open[1].close()
        self._open = None

    def _array(self, name: str) -> Any:
        handle = self._handle()
        if name not in handle:
            raise DatasetError(
                f"{self.path}: holds no array {name!r} (it has: {', '.join(handle)}); is it another file?"
            )
        return handle[name]

    def _handle(self) -> Any:
        if self._open is None or self._open[0] != os.getpid():
            try:
                import h5py
            except ImportError as error:
                raise DatasetError(
                    f"{self.path}: reading HDF5 needs h5py; pip install 'grasp-utility[datasets]'"
                ) from error
            try:
                self._open = os.getpid(), h5py.File(self.path, "r")
            except FileNotFoundError as error:
                raise DatasetError(f"{self.path}: missing; unpack the whole benchmark") from error
            except OSError as error:
                raise self._broken(error) from error
        return self._open[1]

    def _broken(self, error: Exception) -> DatasetError:
        reason = " ".join(str(error).split())
        return DatasetError(f"{self.path}: not a readable HDF5 file ({reason}); download it again")


def _augment(
    partial: NDArray[np.float64], truth: NDArray[np.float64], how: Augmentation, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    # Always the same number of draws, whatever is switched on: runs that differ in one option stay comparable.
    yaw, flip, cut = rng.uniform(-1, 1), rng.random(2), rng.random(2)
    scales, direction = rng.uniform(-1, 1, 3), rng.standard_normal(3)
    angle = math.radians(how.yaw_degrees) * yaw
    linear = np.array([[math.cos(angle), 0, math.sin(angle)], [0, 1.0, 0], [-math.sin(angle), 0, math.cos(angle)]])
    linear = linear * np.exp(how.stretch * scales)
    if how.mirror:
        linear = linear @ np.diag([1.0 if flip[0] < 0.5 else -1.0, 1.0, 1.0 if flip[1] < 0.5 else -1.0])
    return distort(partial, truth, linear, np.zeros(3), how, cut, direction, rng)
