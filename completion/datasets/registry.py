"""The readers of public benchmarks by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from completion.datasets.base import AS_GIVEN, BenchmarkData, Drawing
from completion.datasets.completion3d import Completion3D
from completion.datasets.mvp import MVP
from completion.datasets.pairs import Augmentation
from completion.datasets.pcn import PCNData
from completion.datasets.shapenet55 import ShapeNet55

if TYPE_CHECKING:
    from completion.configuration import Part

DATASETS: dict[str, type[BenchmarkData]] = {
    "completion3d": Completion3D,
    "mvp": MVP,
    "pcn": PCNData,
    "shapenet55": ShapeNet55,
}
# Arguments of a reader that a training file gives elsewhere: the drawing.
_OWN = 1


def open_data(
    part: Part,
    input_points: int,
    target_points: int,
    augmentation: Augmentation | None = None,
    seed: int = 0,
    mode: str = AS_GIVEN,
) -> BenchmarkData:
    """Open a benchmark by name.

    Args:
        part: name in ``DATASETS``, and its parameters: ``root``, ``split``, ``categories``, and what its class lists.
        input_points, target_points, augmentation, seed, mode: see :class:`~completion.datasets.base.Drawing`.

    Raises:
        ConfigurationError: unknown name or parameter, or no ``root``.
        DatasetError: files that are missing, broken, or of another layout.
    """
    from completion.configuration import ConfigurationError, check_part  # which imports pairs from here

    check_part(part, DATASETS, "dataset", skip=_OWN)
    if "root" not in part.parameters:
        raise ConfigurationError(f"dataset {part.name}: parameter 'root' is missing; name the benchmark's folder")
    drawing = Drawing(input_points, target_points, augmentation, seed, mode)
    return DATASETS[part.name](drawing, **part.parameters)
