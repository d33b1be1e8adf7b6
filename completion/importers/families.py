"""How each family of public code saves its checkpoints (FAMILIES), and the state dict inside a file.

Read in the sources named: where the state dict lies, which wrappers' prefixes stand before its keys, and by which of
``CompletionNetwork.published``'s entries the names of its networks go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from completion.importers.files import is_state_dict, summary
from completion.networks.interface import StateDict


@dataclass(frozen=True)
class Family:
    """One habit of saving.

    Attributes:
        origin: whose files these are.
        keys: where the state dict lies in the file, the first that is there; empty: the file is the state dict.
        prefixes: stripped from the front of keys, in this order. Never from the middle: an inner module of PoinTr
            is called ``base_model`` too.
        published: entries of a network's ``published`` that fit, the first that is there.
        frame: that its networks are trained in.
        normalisation: of its training data (see :mod:`completion.normalize`).
        strict_prefix: keys that lack the last prefix are no weights of the network (Lightning's metrics).
        ema: key of averaged weights, preferred where they are there.
        hint: what the file does not say and its owner should.
    """

    origin: str
    keys: tuple[str, ...]
    prefixes: tuple[str, ...]
    published: tuple[str, ...]
    frame: str = "canonical"
    normalisation: str = "oracle"
    strict_prefix: str | None = None
    ema: str | None = None
    hint: str = ""


FAMILIES: dict[str, Family] = {
    "pointr": Family(
        "yuxumin/PoinTr (tools/builder.py) and what builds on it: AdaPoinTr, 3DSGrasp, ODGNet",
        keys=("base_model", "model"),
        prefixes=("module.",),
        published=("pointr",),
        hint="PCN's data is taken for what it was trained on; if it was ShapeNet-55's: --normalisation oracle-radius",
    ),
    "mvp": Family(
        "paul007pl/MVP_Benchmark, VRCNet, PointAttN",
        keys=("net_state_dict",),
        prefixes=("module.",),
        published=("mvp",),
    ),
    "snowflakenet": Family(
        "AllenXiangX/SnowflakeNet, SeedFormer, SVDFormer, CRA-PCN",
        keys=("model",),
        prefixes=("module.",),
        published=("snowflakenet",),
    ),
    # Its PCN and SnowflakeNet (models/src at 6abb2a6d) name their layers as PoinTr's and SnowflakeNet's do.
    "dlr": Family(
        "DLR-RM/shape-completion, and other Lightning modules that hold the network as `model`",
        keys=("state_dict",),
        prefixes=("model.", "_orig_mod.", "module."),
        published=("dlr", "pointr", "snowflakenet"),
        strict_prefix="model.",
        ema="ema_state_dict",
    ),
    # scripts/qal_pipeline.py saves model.state_dict(); the paper's backbones are MVP's.
    "qal": Family(
        "droneslab/qal, and any bare state dict with MVP's names",
        keys=(),
        prefixes=("module.",),
        published=("qal", "mvp", "pointr", "snowflakenet"),
    ),
}


@dataclass(frozen=True)
class Unwrapped:
    """A state dict out of its wrappings.

    Attributes:
        state: tensors by name, prefixes stripped.
        key: where in the file it lay; empty: the file is the state dict.
        ignored: names in it that are no weights of the network.
        others: what else the file holds, as plain data.
        usual: whether it lay where the family usually keeps it.
    """

    state: StateDict
    key: str
    ignored: tuple[str, ...]
    others: dict[str, Any]
    usual: bool


def unwrap(content: Any, family: Family, averaged: bool = True) -> Unwrapped | None:
    """Find the state dict in a file's content, or None where the family's is not there.

    A bare state dict is taken for any family: people save them again.

    Args:
        content: as :func:`completion.importers.files.read_file` returns it.
        family: whose habit to follow.
        averaged: take averaged weights (EMA) where there are some.
    """
    if is_state_dict(content):
        return _stripped(content, family, "", {}, usual=not family.keys)
    if not isinstance(content, Mapping):
        return None
    for key in family.keys:
        if not is_state_dict(content.get(key)):
            continue
        others = {str(name): summary(value) for name, value in content.items() if name != key}
        found = _stripped(content[key], family, key, others, usual=key == family.keys[0])
        if averaged and family.ema is not None and is_state_dict(content.get(family.ema)):
            # Averages are of parameters; a batch norm's buffers stand among the others alone.
            state = {**found.state, **_stripped(content[family.ema], family, family.ema, {}, usual=True).state}
            others.pop(family.ema)
            return replace(found, state=state, key=f"{key} and {family.ema}")
        return found
    return None


def _stripped(found: Mapping[str, Any], family: Family, key: str, others: dict[str, Any], usual: bool) -> Unwrapped:
    tensors = {name: value for name, value in found.items() if isinstance(value, Tensor)}
    ignored = [name for name in found if name not in tensors]
    if family.strict_prefix is not None and any(name.startswith(family.strict_prefix) for name in tensors):
        ignored += [name for name in tensors if not name.startswith(family.strict_prefix)]
    state: StateDict = {}
    for name, value in tensors.items():
        if name in ignored:
            continue
        for prefix in family.prefixes:
            name = name.removeprefix(prefix)
        state[name] = value
    return Unwrapped(state, key, tuple(ignored), others, usual)
