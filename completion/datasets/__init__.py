"""Where training data come from: our pair files, and the public benchmarks as they are distributed.

- :mod:`~completion.datasets.pairs`: the pair file, made from posed models and views.
- ``DATASETS``: readers of public benchmarks by name, one file each; :func:`open_data` makes one from a training file's
  ``dataset: {name: mvp, parameters: {root: ...}}``. They belong to the extra ``datasets`` (h5py).

Nothing is imported before it is asked for: who writes pair files needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from completion.datasets.registry import DATASETS, open_data

__all__ = ["DATASETS", "open_data"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from completion.datasets import registry

    return getattr(registry, name)
