"""Reading checkpoint files that strangers wrote: tensors and plain data come out, nothing is ever executed.

Torch files (zip and the older single pickle) are read by ``torch.load(weights_only=True)``. Real checkpoints hold a
few harmless things besides tensors; :data:`HARMLESS` is the whole list of what is let through. Classes of somebody's
training code become empty shells: neither their code nor their content is used.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import string
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from completion.checkpoint import CheckpointError


class Shell:
    """What stands for an object of a class that we neither have nor want."""

    def __new__(cls, *_: Any) -> Shell:
        return object.__new__(cls)

    def __init__(self, *_: Any) -> None:
        return

    def __setstate__(self, _: Any) -> None:
        return


class _Path(Shell):
    """Paths of another machine, also those of another operating system."""


def _numpy_globals() -> list[Any]:
    # Metrics are often numpy scalars; the functions that make one or an array have moved between versions of numpy.
    functions = [np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0]]
    names = ("scalar", "_reconstruct")
    made: list[Any] = [
        (function, f"{home}.multiarray.{name}")
        for home in ("numpy.core", "numpy._core")
        for function, name in zip(functions, names, strict=True)
    ]
    kinds = [type(np.dtype(name)) for name in ("bool", "int32", "int64", "float16", "float32", "float64", "str")]
    return [*made, np.ndarray, np.dtype, *kinds]


# (object, name in the file): what stands there in the place of the name.
HARMLESS: list[Any] = [
    *_numpy_globals(),
    argparse.Namespace,
    *((_Path, f"{module}.{kind}") for module in ("pathlib", "pathlib._local") for kind in ("PosixPath", "WindowsPath")),
    # Lightning's hyper-parameters are a dict with attributes.
    (dict, "pytorch_lightning.utilities.parsing.AttributeDict"),
    (dict, "lightning.pytorch.utilities.parsing.AttributeDict"),
    (dict, "lightning.fabric.utilities.data.AttributeDict"),
    # PoinTr's early checkpoints hold its metrics as objects, with the losses that they were computed by.
    (Shell, "utils.metrics.Metrics"),
    (Shell, "extensions.chamfer_dist.ChamferDistanceL1"),
    (Shell, "extensions.chamfer_dist.ChamferDistanceL2"),
    (Shell, "extensions.emd.emd_module.emdModule"),
]


def read_file(path: str | Path) -> Any:
    """The content of a checkpoint file, on the CPU: torch (zip or older) or safetensors.

    Raises:
        CheckpointError: no such file, not such a file, broken, or it holds Python objects beyond :data:`HARMLESS`.
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f"{path}: a folder; name the checkpoint file in it")
    try:
        with path.open("rb") as stream:
            start = stream.read(64)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error}); name a checkpoint file") from error
    if not start:
        raise CheckpointError(f"{path}: empty; copy it again")
    if all(byte in string.printable.encode() for byte in start):
        raise CheckpointError(f"{path}: {_text(start)}")
    if start[8:9] == b"{":  # safetensors: eight bytes of length, then JSON
        try:
            return load_file(path)
        except (safetensors.SafetensorError, ValueError, OSError) as error:
            raise CheckpointError(f"{path}: not a readable safetensors file ({error}); copy it again") from error
    if _is_torchscript(path):
        raise CheckpointError(f"{path}: a TorchScript archive, which is code; save the network's state dict instead")
    try:
        with torch.serialization.safe_globals(HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of another pickle protocol; what cannot be read is told below
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken or hostile file makes torch raise almost anything
        raise CheckpointError(f"{path}: {_why(error)}") from error


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return False


def _text(start: bytes) -> str:
    """What is wrong with a file that begins as a text, not as a torch file or safetensors."""
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself; fetch it with `git lfs pull`"
    if start.lstrip().startswith(b"<"):
        return "a web page, not the file itself; download it again through a browser"
    return f"a text ({start.decode('utf-8', 'replace')[:30]!r}), no checkpoint; name the torch or safetensors file"


def _why(error: Exception) -> str:
    text = str(error)
    found = re.search(r"GLOBAL ([\w.]+)", text) or re.search(r"but got <class '([\w.]+)'>", text)
    if found is not None:
        return (
            f"holds a Python object ({found[1]}) that is no tensor and no plain data; files are never unpickled here, "
            "since that may run any code. Where you trust it, load it with the code it comes from and save the state "
            "dict alone: torch.save(model.state_dict(), 'weights.pth')"
        )
    if "legacy .tar" in text:
        return "written by a torch older than 0.4; load it there and save the state dict again"
    if "Weights only load failed" in text:  # torch goes on with advice to run what is in it
        return "not a readable checkpoint file: neither torch.save nor safetensors wrote it; was it copied whole?"
    reason = " ".join(text.split())
    return f"not a readable checkpoint file ({type(error).__name__}: {reason[:200]}); was it copied whole?"


def is_state_dict(value: Any) -> bool:
    """Whether this maps names to tensors, a few other entries aside."""
    if not isinstance(value, Mapping) or not value:
        return False
    tensors = sum(isinstance(one, Tensor) for one in value.values())
    return tensors > 0 and tensors >= 0.9 * len(value) and all(isinstance(key, str) for key in value)


def summary(content: Any) -> Any:
    """Plain data that says what else a file holds: numbers and texts as they are, the rest by kind and size."""
    if isinstance(content, Tensor):
        return content.item() if content.numel() == 1 else f"tensor {tuple(content.shape)}"
    if isinstance(content, np.generic):
        return content.item()
    if content is None or isinstance(content, bool | int | float):
        return content
    if isinstance(content, str):
        return content if len(content) <= 200 else content[:200] + "…"
    if is_state_dict(content):
        return f"{len(content)} tensors"
    if isinstance(content, Mapping):
        if len(content) > 12:
            return f"{len(content)} entries: {', '.join(str(key) for key in list(content)[:8])}, …"
        return {str(key): summary(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return f"{len(content)} values" if len(content) > 8 else [summary(value) for value in content]
    if isinstance(content, argparse.Namespace):
        return summary(vars(content))
    return "an object of its own code, not read" if isinstance(content, Shell) else f"a {type(content).__name__}"


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
