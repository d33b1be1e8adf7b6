"""Completion3D (Tchapmi et al., TopNet, CVPR 2019): 8 categories, one HDF5 file a cloud, 2048 points.

Layout, as its own ``data-setup.md`` and ``shared/datasets/shapenet.py`` have it::

    train.list, val.list, test.list          <taxonomy>/<model>, one a line
    synsetoffset2category.txt                name and taxonomy, one pair a line
    {train,val}/{partial,gt}/<taxonomy>/<model>.h5    array `data` (2048, 3)
    test/partial/...                         no truth: the benchmark's server keeps it

Samples come in the order of the list. Numbers that can be checked are those of ``val``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from completion.datasets.base import BenchmarkData, Cloud, DatasetError, Drawing, H5File, Sample, absent, read_lines
from completion.datasets.synsets import SYNSETS

NAMES = "synsetoffset2category.txt"


class Completion3D(BenchmarkData):
    """Completion3D; one sample a model.

    Args:
        root: the folder (called shapenet in the archive) that holds the lists, train and val.
        split: ``train`` or ``val``; ``test`` has no truth.
    """

    name = "completion3d"
    splits = ("train", "val", "test")

    def __init__(
        self,
        drawing: Drawing,
        root: str | Path,
        split: str = "train",
        categories: Sequence[str] = (),
    ) -> None:
        super().__init__(drawing, root, split, categories)
        path = self.root / f"{split}.list"
        if not path.exists() or not (self.root / split / "partial").is_dir():
            raise absent(
                self.root,
                (path.name, f"{split}/partial"),
                "Completion3D's folder holds train.list, val.list, train, val and synsetoffset2category.txt",
            )
        if not (self.root / split / "gt").is_dir():
            raise DatasetError(
                f"{self.root / split}: holds no gt; the benchmark's server keeps the test's truth, so take split val"
            )
        models = []
        for line in read_lines(path):
            taxonomy, slash, model = line.partition("/")
            if not slash or not model or Path(model).name != model or Path(taxonomy).name != taxonomy:
                raise DatasetError(
                    f"{path}: {line!r} is no <taxonomy>/<model>; take the list from the benchmark's site"
                )
            models.append((taxonomy, model.removesuffix(".h5")))
        named = self._names()
        self._category = {taxonomy: named.get(taxonomy, taxonomy) for taxonomy, _ in models}
        kept = self._keep(self._category)
        self._models = [one for one in models if one[0] in kept]

    def _names(self) -> dict[str, str]:
        path = self.root / NAMES
        if not path.exists():
            return SYNSETS
        rows = [line.split() for line in read_lines(path)]
        if any(len(row) != 2 for row in rows):
            raise DatasetError(f"{path}: expected a name and a taxonomy a line; take it from the benchmark's site")
        return {taxonomy.zfill(8): name for name, taxonomy in rows}

    def __len__(self) -> int:
        return len(self._models)

    def category(self, index: int) -> str:
        return self._category[self._models[index][0]]

    def label(self, index: int) -> str:
        return "/".join(self._models[index])

    def _read(self, index: int, rng: np.random.Generator) -> Sample:
        taxonomy, model = self._models[index]
        return Sample(*(_read(self.root / self.split / kind / taxonomy / f"{model}.h5") for kind in ("partial", "gt")))

    def _identity(self) -> Any:
        return [list(one) for one in self._models]


def _read(path: Path) -> Cloud:
    file = H5File(path)
    cloud: Cloud = file.read("data", slice(None)).astype(np.float32)
    file.close()  # a set has tens of thousands of files
    return cloud
