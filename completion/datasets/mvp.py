"""MVP: Multi-View Partial point clouds (Pan et al., CVPR 2021), 16 categories, 26 views a shape.

Layouts, as read by MVP_Benchmark's ``completion/dataset.py`` and VRCNet's ``dataset.py``::

    MVP_{Train,Test}_CP.h5          incomplete_pcds (26 K, 2048, 3), complete_pcds (K, 2048, 3), labels (26 K,)

or, with truths of 2048, 4096, 8192 and 16384 points::

    mvp_{train,test}_input.h5       incomplete_pcds, labels, novel_incomplete_pcds, novel_labels
    mvp_{train,test}_gt_{points}pts.h5   complete_pcds, novel_complete_pcds

View ``i`` belongs to the complete cloud ``i // 26``. The arrays called novel hold eight further categories; they come
after the others. ``MVP_ExtraTest_Shuffled_CP.h5`` is the challenge's hidden test: it holds no truth and no order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from completion.datasets.base import BenchmarkData, DatasetError, Drawing, H5File, Sample, absent

VIEWS = 26
# By label, as VRCNet's test.py names them.
CATEGORIES = (
    "airplane",
    "cabinet",
    "car",
    "chair",
    "lamp",
    "sofa",
    "table",
    "watercraft",
    "bed",
    "bench",
    "bookshelf",
    "bus",
    "guitar",
    "motorbike",
    "pistol",
    "skateboard",
)


class MVP(BenchmarkData):
    """MVP; one sample a view.

    Args:
        root: holds the files of one of the layouts above.
        split: ``train`` or ``test`` (which MVP_Benchmark calls val).
        points: of the truth; other numbers than 2048 need the second layout.
    """

    name = "mvp"
    splits = ("train", "test")

    def __init__(
        self,
        drawing: Drawing,
        root: str | Path,
        split: str = "train",
        categories: Sequence[str] = (),
        points: int = 2048,
    ) -> None:
        super().__init__(drawing, root, split, categories)
        one = f"MVP_{split.title()}_CP.h5"
        two = (f"mvp_{split}_input.h5", f"mvp_{split}_gt_{points}pts.h5")
        if (self.root / one).exists() and points == 2048:
            inputs = truths = H5File(self.root / one)
        elif all((self.root / file).exists() for file in two):
            inputs, truths = (H5File(self.root / file) for file in two)
        else:
            raise absent(self.root, (one,) if points == 2048 and not (self.root / two[0]).exists() else two, _LAYOUT)
        self._inputs, self._truths = inputs, truths
        # Arrays in the order of the samples: (partials, truths, views in them).
        self._arrays: list[tuple[str, str, int]] = []
        labels = []
        for prefix in ("", "novel_"):
            partial, truth, label = f"{prefix}incomplete_pcds", f"{prefix}complete_pcds", f"{prefix}labels"
            if prefix and not (inputs.has(partial) and truths.has(truth)):
                continue
            views, shapes = inputs.shape(partial)[0], truths.shape(truth)[0]
            if views != VIEWS * shapes:
                raise DatasetError(
                    f"{truths.path}: {shapes} complete clouds for {views} views; MVP has {VIEWS} a shape, so a file is "
                    "cut short or from another download"
                )
            found = inputs.read(label, slice(None))
            found = (found if found.ndim == 1 else found[:, 0]).astype(np.int64)
            if len(found) != views:
                raise DatasetError(f"{inputs.path}: {len(found)} labels for {views} views; download it again")
            self._arrays.append((partial, truth, views))
            labels.append(found)
        every = np.concatenate(labels)
        if every.min() < 0 or every.max() >= len(CATEGORIES):
            raise DatasetError(f"{inputs.path}: label {int(every.max())} stands for no category of MVP's 16")
        kept = self._keep({str(number): name for number, name in enumerate(CATEGORIES)})
        self._samples = np.flatnonzero(np.isin(every, [int(one) for one in kept]))
        if len(self._samples) == 0:
            raise DatasetError(f"{inputs.path}: holds no view of {', '.join(self._wanted)}")
        self._labels = every

    def __len__(self) -> int:
        return len(self._samples)

    def category(self, index: int) -> str:
        return CATEGORIES[self._labels[self._samples[index]]]

    def label(self, index: int) -> str:
        view = int(self._samples[index])
        return f"shape {view // VIEWS} view {view % VIEWS}"

    def _read(self, index: int, rng: np.random.Generator) -> Sample:
        view, number = int(self._samples[index]), 0
        while view >= self._arrays[number][2]:
            view, number = view - self._arrays[number][2], number + 1
        partial, truth, _ = self._arrays[number]
        return Sample(
            self._inputs.read(partial, view).astype(np.float32),
            self._truths.read(truth, view // VIEWS).astype(np.float32),
        )

    def _identity(self) -> Any:
        sizes = [path.stat().st_size for path in (self._inputs.path, self._truths.path)]
        return [self._samples.tolist(), self._labels.tolist(), [list(one) for one in self._arrays], sizes]


_LAYOUT = (
    "MVP's folder holds MVP_Train_CP.h5 and MVP_Test_CP.h5, or mvp_train_input.h5 and mvp_train_gt_2048pts.h5 and so on"
)
