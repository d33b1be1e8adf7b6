"""ShapeNet-55, ShapeNet-34 and its 21 unseen categories (Yu et al., PoinTr, ICCV 2021): complete clouds, cropped here.

Layout, as PoinTr's ``DATASET.md`` and ``datasets/ShapeNet55Dataset.py`` have it::

    shapenet_pc/<taxonomy>-<model>.npy               (8192, 3)
    ShapeNet-55/{train,test}.txt, ShapeNet-34/{train,test}.txt, ShapeNet-Unseen21/test.txt   one file name a line

Protocol, from its ``utils/misc.py`` and ``tools/runner.py``. A cloud is centred at its mean and scaled to a greatest
radius of 1. Seen from a view point, the nearest points are cut away: in training from a random direction at distance 1,
between a quarter and three quarters of all points; in the test from the eight corners (±1, ±1, ±1), a quarter
(``simple``), half (``median``) or three quarters (``hard``) of them. The network sees 2048 of the rest, chosen by
farthest point sampling. Every view is a sample of the test.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from completion.datasets.base import BenchmarkData, Cloud, DatasetError, Drawing, Sample, absent, read_lines
from completion.datasets.synsets import SYNSETS
from completion.points import farthest_points

SUBSETS = {"55": "ShapeNet-55", "34": "ShapeNet-34", "unseen21": "ShapeNet-Unseen21"}
DIFFICULTIES = {"simple": 0.25, "median": 0.5, "hard": 0.75}
LEAST, MOST = 0.25, 0.75  # cut away in training
# In the order of PoinTr's test.
VIEW_POINTS = ((1, 1, 1), (1, 1, -1), (1, -1, 1), (-1, 1, 1), (-1, -1, 1), (-1, 1, -1), (1, -1, -1), (-1, -1, -1))
SAMPLINGS = ("farthest", "random")


class ShapeNet55(BenchmarkData):
    """ShapeNet-55/34; in training one sample a shape, in the test one a shape and view point.

    Args:
        root: the folder that holds shapenet_pc and the folders of lists.
        split: ``train`` or ``test`` (``unseen21`` has a test alone).
        subset: ``55``, ``34`` or ``unseen21``.
        difficulty: of the test: ``simple``, ``median`` or ``hard``.
        sampling: of the network's input: ``farthest`` as published, or ``random``, which is much cheaper.
    """

    name = "shapenet55"
    splits = ("train", "test")

    def __init__(
        self,
        drawing: Drawing,
        root: str | Path,
        split: str = "train",
        categories: Sequence[str] = (),
        subset: str = "55",
        difficulty: str = "median",
        sampling: str = "farthest",
    ) -> None:
        super().__init__(drawing, root, split, categories)
        choices = (("subset", str(subset), SUBSETS), ("difficulty", difficulty, DIFFICULTIES))
        for what, value, known in (*choices, ("sampling", sampling, dict.fromkeys(SAMPLINGS))):
            if value not in known:
                raise DatasetError(f"shapenet55: no {what} {value!r}; choose {', '.join(known)}")
        self.difficulty, self._sampling = difficulty, sampling
        folder = SUBSETS[str(subset)]
        path = self.root / folder / f"{split}.txt"
        if not path.exists() or not (self.root / "shapenet_pc").is_dir():
            raise absent(
                self.root,
                ("shapenet_pc", f"{folder}/{split}.txt"),
                "ShapeNet-55's folder holds shapenet_pc and ShapeNet-55, ShapeNet-34, ShapeNet-Unseen21 (their lists: "
                "PoinTr's repository, data/ShapeNet55-34)",
            )
        files = []
        for line in read_lines(path):
            taxonomy, dash, rest = line.partition("-")
            if not dash or not rest or Path(line).name != line:
                raise DatasetError(
                    f"{path}: {line!r} is no <taxonomy>-<model>.npy; take the list from PoinTr's repository"
                )
            files.append((taxonomy, line))
        kept = self._keep({taxonomy: SYNSETS.get(taxonomy, taxonomy) for taxonomy, _ in files})
        self._files = [one for one in files if one[0] in kept]
        self._views = 1 if split == "train" else len(VIEW_POINTS)

    def __len__(self) -> int:
        return len(self._files) * self._views

    def category(self, index: int) -> str:
        taxonomy = self._files[index // self._views][0]
        return SYNSETS.get(taxonomy, taxonomy)

    def label(self, index: int) -> str:
        file = self._files[index // self._views][1]
        return file if self._views == 1 else f"{file} view {index % self._views}"

    def _read(self, index: int, rng: np.random.Generator) -> Sample:
        truth = unit_radius(self._load(self.root / "shapenet_pc" / self._files[index // self._views][1]))
        if self.split == "train":
            direction = rng.standard_normal(3)
            view_point = direction / np.linalg.norm(direction)
            cut = int(rng.integers(int(LEAST * len(truth)), int(MOST * len(truth)) + 1))
        else:
            view_point = np.array(VIEW_POINTS[index % self._views], np.float64)
            cut = int(len(truth) * DIFFICULTIES[self.difficulty])
        return Sample(crop(truth, view_point, cut), truth)

    def _load(self, path: Path) -> Cloud:
        try:
            cloud = np.load(path, allow_pickle=False)
        except FileNotFoundError as error:
            raise DatasetError(f"{path}: missing; unpack the whole benchmark") from error
        except (OSError, ValueError, EOFError) as error:
            raise DatasetError(f"{path}: not a readable .npy ({error}); copy it again") from error
        if cloud.ndim != 2 or cloud.shape[1] < 3 or len(cloud) < 8:
            raise DatasetError(f"{path}: holds an array of shape {cloud.shape}, not a cloud; copy it again")
        return cloud[:, :3].astype(np.float32)

    def shown(self, cloud: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        """Farthest points, as published; a cloud without more points than wanted is used whole."""
        if self._sampling == "random" or len(cloud) <= self.input_points:
            return super().shown(cloud, rng)
        points = torch.from_numpy(np.asarray(cloud, np.float32))[None]
        return cloud[farthest_points(points, self.input_points)[0].numpy()]

    def _identity(self) -> Any:
        return [self._files, self.difficulty, self._sampling]


def unit_radius(cloud: Cloud) -> Cloud:
    """Centre ``(N, 3)`` at its mean and scale its greatest radius to 1."""
    centred = cloud - cloud.mean(axis=0)
    radius = float(np.linalg.norm(centred, axis=1).max())
    if not radius > 0:  # also NaN
        raise DatasetError(f"a cloud of {len(cloud)} points with a radius of {radius:g} cannot be scaled")
    return centred / np.float32(radius)


def crop(cloud: Cloud, view_point: NDArray[np.float64], count: int) -> Cloud:
    """Cut the ``count`` points of ``(N, 3)`` away that are nearest to the view point ``(3,)``; nearest first stay out.

    The rest comes in the order of its distance, as in the published code.
    """
    distance = np.linalg.norm(cloud.astype(np.float64) - view_point, axis=1)
    return cloud[np.argsort(distance, kind="stable")[count:]]
