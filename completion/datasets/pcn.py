"""PCN's benchmark (Yuan et al., 3DV 2018) as ``.pcd`` files: the archive ShapeNetCompletion, 8 categories.

Layout, as GRNet and PoinTr (``DATASET.md``, ``datasets/PCNDataset.py``) read it::

    PCN.json                                         [{taxonomy_id, taxonomy_name, train: [model, ...], val, test}, ...]
    {train,val,test}/partial/<taxonomy>/<model>/<view>.pcd   00 to 07 in train, 00 alone in val and test
    {train,val,test}/complete/<taxonomy>/<model>.pcd         16384 points

A partial cloud has any number of points; one with fewer than a network takes is shown in part twice, as by PCN's own
code, or filled up with zeros, as GRNet's and PoinTr's loaders do (``fill``: networks know what they were trained with).
Every view is a sample, so an epoch shows each training model eight times.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from completion.datasets.base import BenchmarkData, DatasetError, Drawing, Sample, absent
from completion.datasets.pcd import read_pcd

TRAIN_VIEWS = 8
FILLS = ("repeat", "zeros")
# PoinTr's and GRNet's name of the same list.
LISTS = ("PCN.json", "ShapeNet.json")


class PCNData(BenchmarkData):
    """PCN's benchmark; one sample a view.

    Args:
        root: the folder that holds PCN.json, train, val and test.
        split: ``train``, ``val`` or ``test``.
        fill: ``repeat`` or ``zeros``, where a partial cloud has too few points.
    """

    name = "pcn"
    splits = ("train", "val", "test")

    def __init__(
        self,
        drawing: Drawing,
        root: str | Path,
        split: str = "train",
        categories: Sequence[str] = (),
        fill: str = "repeat",
    ) -> None:
        super().__init__(drawing, root, split, categories)
        if fill not in FILLS:
            raise DatasetError(f"pcn: no fill {fill!r}; choose {', '.join(FILLS)}")
        self._fill = fill
        listed = [self.root / name for name in LISTS if (self.root / name).exists()]
        if not listed or not (self.root / split).is_dir():
            names = (LISTS[0] if not listed else listed[0].name, f"{split}/partial", f"{split}/complete")
            raise absent(
                self.root, names, "PCN's folder holds PCN.json (in PoinTr's repository: data/PCN) and train, val, test"
            )
        self._views = TRAIN_VIEWS if split == "train" else 1
        models = _models(listed[0], split)
        kept = self._keep({taxonomy: name for taxonomy, name, _ in models})
        self._models = [(taxonomy, name, one) for taxonomy, name, each in models if taxonomy in kept for one in each]
        if not self._models:
            raise DatasetError(f"{listed[0]}: lists no model in {split!r}; take the list from PoinTr's repository")

    def __len__(self) -> int:
        return len(self._models) * self._views

    def category(self, index: int) -> str:
        return self._models[index // self._views][1]

    def label(self, index: int) -> str:
        taxonomy, _, model = self._models[index // self._views]
        return f"{taxonomy}/{model} view {index % self._views:02d}"

    def _read(self, index: int, rng: np.random.Generator) -> Sample:
        taxonomy, _, model = self._models[index // self._views]
        folder = self.root / self.split
        return Sample(
            read_pcd(folder / "partial" / taxonomy / model / f"{index % self._views:02d}.pcd"),
            read_pcd(folder / "complete" / taxonomy / f"{model}.pcd"),
        )

    def shown(self, cloud: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        """Random points; what lacks is repeated or zero, see the module."""
        lacking = self.input_points - len(cloud)
        if self._fill == "repeat" or lacking <= 0:
            return super().shown(cloud, rng)
        return np.concatenate([cloud[rng.permutation(len(cloud))], np.zeros((lacking, 3), cloud.dtype)])

    def _identity(self) -> Any:
        return [[list(one) for one in self._models], self._fill]


def _models(path: Path, split: str) -> list[tuple[str, str, list[str]]]:
    """``(taxonomy, name, models)`` of each category, in the list's order."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        models = [
            (str(one["taxonomy_id"]), str(one["taxonomy_name"]), [str(model) for model in one[split]])
            for one in content
        ]
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: not readable JSON ({error}); take it from PoinTr's repository") from error
    except (KeyError, TypeError) as error:
        raise DatasetError(
            f"{path}: expected rows of taxonomy_id, taxonomy_name, train, val, test ({error}); take it from PoinTr's "
            "repository"
        ) from error
    for _, _, each in models:
        for model in each:
            if Path(model).name != model:
                raise DatasetError(f"{path}: model {model!r} is no file name; take the list from PoinTr's repository")
    return models
