"""Pairs of a partial and a complete cloud, made from posed models and views.

A pair file is an ``.npz`` without pickles, ``format_version`` 1. Clouds are in metres, in the frame that it names
(``table``: z up, x away from the camera along the table, origin at the camera)::

    partial_points   (S, 3) float32   all partial clouds, one after the other
    partial_offsets  (P + 1,) int64   pair p owns partial_points[offsets[p]:offsets[p + 1]]
    T_net_object     (P, 4, 4) float32  takes object points to that frame
    object_index     (P,) int32       into object_points
    object_points    (K, 16384, 3) float32  surface samples, object frame
    object_id        (K,) int32       scene (P,), view (P,), camera, frame, source (JSON)

Every draw takes another subset of both clouds, so that no epoch repeats another.
"""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from completion.datasets.pair_format import FORMAT_VERSION
from completion.normalize import Normalisation, normalisation
from completion.points import sample_indices

_ARRAYS = {
    "partial_points": (np.float32, (None, 3)),
    "partial_offsets": (np.int64, (None,)),
    "T_net_object": (np.float32, (None, 4, 4)),
    "object_index": (np.int32, (None,)),
    "object_id": (np.int32, (None,)),
    "object_points": (np.float32, (None, None, 3)),
    "scene": (None, (None,)),
    "view": (None, (None,)),
    "frame": (None, ()),
    "format_version": (None, ()),
}


class PairFileError(ValueError):
    """A pair file is missing, broken, or of another format; the message names the file and the remedy."""


@dataclass(frozen=True)
class PairFile:
    """One pair file in memory; arrays as the module's docstring lists them."""

    path: Path
    partial_points: NDArray[np.float32]
    partial_offsets: NDArray[np.int64]
    T_net_object: NDArray[np.float32]
    object_index: NDArray[np.int32]
    object_id: NDArray[np.int32]
    object_points: NDArray[np.float32]
    scene: NDArray[np.int64]
    view: NDArray[np.int64]
    frame: str
    source: str

    def __len__(self) -> int:
        return len(self.object_index)

    @property
    def families(self) -> dict[int, str]:
        """Family of each object by id, where ``source`` names them; else empty."""
        try:
            named = json.loads(self.source).get("families", {})
            return {int(key): str(value) for key, value in named.items()}
        except (ValueError, AttributeError):
            return {}

    def partial(self, pair: int) -> NDArray[np.float32]:
        """All observed points of a pair, ``(N, 3)`` metres, N varies."""
        return self.partial_points[self.partial_offsets[pair] : self.partial_offsets[pair + 1]]

    def truth(self, pair: int, index: NDArray[np.int64] | slice = slice(None)) -> NDArray[np.float32]:
        """The true surface samples (or those chosen by ``index``) in the frame of the partial, metres."""
        points = self.object_points[self.object_index[pair], index]
        T = self.T_net_object[pair]
        return points @ T[:3, :3].T + T[:3, 3]


def read_pairs(path: str | Path) -> PairFile:
    """Read and check a pair file.

    Raises:
        PairFileError: missing, truncated, another format version, wrong shapes or types, empty, or not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise PairFileError(f"{path}: no such pair file; make it with `grasp-utility dataset synthesize` or `pairs`")
    try:
        with np.load(path, allow_pickle=False) as file:
            content = {name: file[name] for name in file.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        # numpy's own text on what is no .npz advises to unpickle it
        reason = "it is another kind of file" if "pickle" in str(error) else error
        raise PairFileError(f"{path}: not a readable .npz ({reason}); make it again") from error
    missing = [name for name in _ARRAYS if name not in content]
    if missing:
        raise PairFileError(f"{path}: lacks {', '.join(missing)}; make it again")
    if int(content["format_version"]) != FORMAT_VERSION:
        raise PairFileError(f"{path}: format_version {content['format_version']}, this code reads {FORMAT_VERSION}")
    for name, (dtype, shape) in _ARRAYS.items():
        array = content[name]
        fits = len(array.shape) == len(shape) and all(
            want in (None, got) for want, got in zip(shape, array.shape, strict=True)
        )
        if not fits or (dtype is not None and array.dtype != dtype):
            raise PairFileError(f"{path}: {name} is {array.dtype}{array.shape}, expected {dtype}{shape}; make it again")
    pairs, offsets = len(content["object_index"]), content["partial_offsets"]
    if pairs == 0:
        raise PairFileError(f"{path}: holds no pairs; make it from scenes with visible objects")
    if len(offsets) != pairs + 1 or offsets[0] != 0 or offsets[-1] != len(content["partial_points"]):
        raise PairFileError(f"{path}: partial_offsets do not fit partial_points; make it again")
    if (np.diff(offsets) < 1).any():
        raise PairFileError(f"{path}: pair {int(np.argmin(np.diff(offsets)))} has no points; make it again")
    for name in ("scene", "view", "T_net_object"):
        if len(content[name]) != pairs:
            raise PairFileError(f"{path}: {name} has {len(content[name])} rows for {pairs} pairs; make it again")
    objects = len(content["object_points"])
    if len(content["object_id"]) != objects or not (content["object_index"] >= 0).all():
        raise PairFileError(f"{path}: object_id and object_index do not fit object_points; make it again")
    if content["object_index"].max() >= objects:
        raise PairFileError(f"{path}: object_index points beyond the {objects} objects; make it again")
    for name in ("partial_points", "T_net_object", "object_points"):
        if not np.isfinite(content[name]).all():
            raise PairFileError(f"{path}: {name} holds values that are not finite; make it again")
    content = {name: content[name] for name in (*_ARRAYS, "source") if name in content}
    content.pop("format_version")
    frame, source = str(content.pop("frame")), str(content.pop("source", ""))
    return PairFile(path=path, frame=frame, source=source, **content)


def chosen(file: PairFile, objects: Sequence[int | str] = (), scenes: Sequence[int] = ()) -> PairFile:
    """Keep the pairs of some objects (ids, or families that the file names) and scenes; empty means all.

    Raises:
        PairFileError: an object or scene that the file lacks, or no pair left.
    """
    keep = np.ones(len(file), bool)
    if objects:
        families = file.families
        ids: set[int] = set()
        for one in objects:
            found = {int(one)} if str(one).isdigit() else {i for i, family in families.items() if family == one}
            if not found & set(file.object_id.tolist()):
                known = ", ".join(sorted(set(families.values()))) or "none named, use ids or make the file again"
                raise PairFileError(
                    f"{file.path}: no object {one!r} (ids: {', '.join(map(str, file.object_id.tolist()))}; "
                    f"families: {known})"
                )
            ids |= found
        keep &= np.isin(file.object_id[file.object_index], sorted(ids))
    for scene in scenes:
        if scene not in file.scene:
            raise PairFileError(
                f"{file.path}: no scene {scene} (scenes: {', '.join(map(str, np.unique(file.scene).tolist()))})"
            )
    if scenes:
        keep &= np.isin(file.scene, list(scenes))
    if not keep.any():
        raise PairFileError(f"{file.path}: no pair of objects {list(objects)} in scenes {list(scenes)}")
    index = np.flatnonzero(keep)
    lengths = np.diff(file.partial_offsets)[index]
    return replace(
        file,
        partial_points=np.concatenate([file.partial(int(i)) for i in index]),
        partial_offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        T_net_object=file.T_net_object[index],
        object_index=file.object_index[index],
        scene=file.scene[index],
        view=file.view[index],
    )


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a pair, alike for both clouds; each leaves visibility (nearly) as it was.

    Attributes:
        yaw_degrees: turn about z by at most this much either way.
        mirror: flip y (the plane through the camera's axis and z) half of the time.
        stretch: scale each axis by exp(±stretch) at most. Rays stay rays under an affine map, so what the (moved)
            camera sees does not change: it makes other shapes out of few.
        noise: standard deviation added to partial points alone, as a share of the partial's diagonal.
        crop: half of the time, drop up to this share of the partial's points beyond a random plane, as an occluder
        would.
    """

    yaw_degrees: float = 0.0
    mirror: bool = False
    stretch: float = 0.0
    noise: float = 0.0
    crop: float = 0.0


class Pair(NamedTuple):
    """One training sample in the network frame."""

    partial: NDArray[np.float32]  # (input_points, 3)
    truth: NDArray[np.float32]  # (target_points, 3)
    normalisation: Normalisation


class PairDataset(Dataset[tuple[Tensor, Tensor]]):
    """Draws normalised pairs from one or more pair files.

    ``dataset[i]`` is deterministic in ``(seed, i)``; :meth:`draw` takes the randomness as an argument, and
    :meth:`batch` depends on ``(seed, step)`` alone, so that a resumed run sees what an uninterrupted one would have
    seen.

    Args:
        files: pair files, all of one frame.
        input_points, target_points: sizes of the two clouds.
        mode: normalisation, ``partial`` or ``oracle``.
        augmentation: none by default.
        seed: of the whole dataset.

    Raises:
        PairFileError: no file, or files of different frames.
    """

    def __init__(
        self,
        files: Sequence[PairFile],
        input_points: int,
        target_points: int,
        mode: str = "partial",
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        if not files:
            raise PairFileError("a pair dataset needs at least one pair file")
        if len({file.frame for file in files}) > 1:
            frames = ", ".join(f"{file.path}: {file.frame}" for file in files)
            raise PairFileError(f"pair files of different frames cannot be mixed ({frames})")
        self.files = tuple(files)
        self.frame = files[0].frame
        self.input_points, self.target_points = input_points, target_points
        self.mode = mode
        self.augmentation = augmentation or Augmentation()
        self.seed = seed
        self._where = [(file, pair) for file in files for pair in range(len(file))]

    def __len__(self) -> int:
        return len(self._where)

    @property
    def normalisation(self) -> str:
        """Name of the normalisation, ``partial`` or ``oracle``."""
        return self.mode

    def describe(self) -> list[dict[str, Any]]:
        """Name and content of each file, for the fingerprint of a training run."""
        described = []
        for file in self.files:
            with file.path.open("rb") as stream:
                described.append({"file": file.path.name, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()})
        return described

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pair = self.draw(index, np.random.default_rng([self.seed, 0, index]))
        return torch.from_numpy(pair.partial), torch.from_numpy(pair.truth)

    def draw(self, index: int, rng: np.random.Generator) -> Pair:
        """Draw subsets and augmentation of one pair."""
        file, pair = self._where[index]
        partial = file.partial(pair).astype(np.float64)
        truth = file.truth(pair, sample_indices(file.object_points.shape[1], self.target_points, rng)).astype(
            np.float64
        )
        partial, truth = _augment(partial, truth, self.augmentation, rng)
        transform = normalisation(self.mode, partial, truth)  # of the whole observation, as at inference
        partial = partial[sample_indices(len(partial), self.input_points, rng)]
        return Pair(transform.to_network(partial), transform.to_network(truth), transform)

    def batch(self, step: int, size: int) -> tuple[Tensor, Tensor]:
        """The batch of a training step: ``(size, input_points, 3)`` and ``(size, target_points, 3)``.

        Pairs are visited in a new random order each epoch.
        """
        rng = np.random.default_rng([self.seed, 2, step])
        pairs = [self.draw(index, rng) for index in self.indices(step, size)]
        partial = torch.from_numpy(np.stack([pair.partial for pair in pairs]))
        return partial, torch.from_numpy(np.stack([pair.truth for pair in pairs]))

    def indices(self, step: int, size: int) -> list[int]:
        """Which pairs stand in the batch of a training step, in order."""
        return batch_indices(len(self), self.seed, step, size)


def batch_indices(length: int, seed: int, step: int, size: int) -> list[int]:
    """Which of ``length`` samples stand in the batch of a training step: each epoch in a new random order."""
    position = np.arange(step * size, (step + 1) * size)
    epochs, within = position // length, position % length
    orders = {e: np.random.default_rng([seed, 1, e]).permutation(length) for e in np.unique(epochs).tolist()}
    return [int(orders[e][i]) for e, i in zip(epochs.tolist(), within.tolist(), strict=True)]


def _augment(
    partial: NDArray[np.float64], truth: NDArray[np.float64], how: Augmentation, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Apply one random affine map about the partial's mean to both clouds, then noise and crop to the partial."""
    # Always the same number of draws, whatever is switched on: runs that differ in one option stay comparable.
    yaw, flip, cut = rng.uniform(-1, 1), rng.random(), rng.random(2)
    scales, direction = rng.uniform(-1, 1, 3), rng.standard_normal(3)
    angle = math.radians(how.yaw_degrees) * yaw
    linear = np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1.0]])
    linear = linear * np.exp(how.stretch * scales)
    if how.mirror and flip < 0.5:
        linear = linear @ np.diag([1.0, -1.0, 1.0])
    return distort(partial, truth, linear, partial.mean(axis=0), how, cut, direction, rng)


def distort(
    partial: NDArray[np.float64],
    truth: NDArray[np.float64],
    linear: NDArray[np.float64],
    centre: NDArray[np.float64],
    how: Augmentation,
    cut: NDArray[np.float64],
    direction: NDArray[np.float64],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Apply ``linear (3, 3)`` about ``centre (3,)`` to both clouds, then noise and crop to the partial.

    Args:
        partial, truth: ``(N, 3)`` and ``(M, 3)``.
        linear, centre: the map.
        how: sizes of crop and noise.
        cut: two numbers in [0, 1): whether to crop and how much of ``how.crop``.
        direction: ``(3,)`` normal of the cropping plane.
        rng: of the noise.
    """
    partial, truth = (partial - centre) @ linear.T + centre, (truth - centre) @ linear.T + centre
    if how.crop > 0 and cut[0] < 0.5:
        height = partial @ direction
        kept = partial[height <= np.quantile(height, 1 - how.crop * cut[1])]
        partial = kept if len(kept) >= 2 else partial
    if how.noise > 0:
        sigma = how.noise * float(np.linalg.norm(np.ptp(partial, axis=0)))
        partial = partial + sigma * rng.standard_normal(partial.shape)
    return partial, truth
