"""The network's published weights: read without running anything from the file."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from grasping.generators import GeneratorError
from grasping.generators.graspnet_baseline.network import GraspNetBaseline

WHERE = (
    "download checkpoint-rs.tar (trained on RealSense views) or checkpoint-kn.tar (Kinect) by the links in the README "
    "of https://github.com/graspnet/graspnet-baseline (non-commercial) and give its path as `weights`"
)


def load_network(weights: Path) -> GraspNetBaseline:
    """Make the network with the weights of a file, on the CPU.

    Args:
        weights: a checkpoint with the key ``model_state_dict``, as published, or a bare state dict; names may begin
            with ``module.``, as they do when saved from several GPUs.

    Raises:
        GeneratorError: there is no such file, it is none of torch's or holds more than data, or names and shapes are
            not the network's; names the file and the remedy.
    """
    if not weights.is_file():
        raise GeneratorError(f"{weights}: no such file with weights; {WHERE}")
    try:
        content = torch.load(weights, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # torch's text advises to run what is in the file
        raise GeneratorError(f"{weights}: holds more than weights, or is no file of torch's; {WHERE}") from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise GeneratorError(f"{weights}: cannot be read ({_first_line(error)}); {WHERE}") from None
    state = content.get("model_state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise GeneratorError(f"{weights}: neither a state dict nor a checkpoint with model_state_dict; {WHERE}")
    state = {str(name).removeprefix("module."): value for name, value in state.items()}
    network = GraspNetBaseline()
    wrong = _differences(state, network.state_dict())
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise GeneratorError(f"{weights}: not weights of this network: {'; '.join(wrong[:3])}{more}; {WHERE}")
    network.load_state_dict(state, strict=True)
    return network


def _differences(found: dict[str, Tensor], due: dict[str, Tensor]) -> list[str]:
    """Texts, of names first."""
    missing = [f"{name} is missing" for name in due if name not in found]
    unknown = [f"{name} is not known" for name in found if name not in due]
    shapes = [
        f"{name} is {tuple(found[name].shape)}, not {tuple(value.shape)}"
        for name, value in due.items()
        if name in found and found[name].shape != value.shape
    ]
    return missing + unknown + shapes


def _first_line(error: Any) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
