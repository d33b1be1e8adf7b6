"""Fixtures shared by all rooms."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# A shell lets what it runs in the background ignore Ctrl-C, and children inherit that: tests that send one would wait
# for ever. A handler of Python's own is not inherited, so that programs started by tests begin as in a terminal.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data named by GRASP_UTILITY_DATA, or ``../shared/data`` beside the checkout; else skip."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    root = Path(os.environ.get("GRASP_UTILITY_DATA", default))
    if not root.is_dir():
        pytest.skip("real data is not ours to ship: set GRASP_UTILITY_DATA to the folder that holds it")
    return root


@pytest.fixture(scope="session")
def drawn_network() -> Callable[..., Any]:
    """Makes a network of GraspNet-baseline with weights by lot, whose batch norms have something to say."""
    import torch  # most tests do without

    from grasping.generators.graspnet_baseline.network import GraspNetBaseline

    def drawn(seed: int = 0) -> GraspNetBaseline:
        generator = torch.Generator().manual_seed(seed)
        network = GraspNetBaseline()
        for name, value in network.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2.0, generator=generator)
            elif value.ndim > 1:  # a ReLU halves the variance
                value.normal_(0.0, (2.0 / value[0].numel()) ** 0.5, generator=generator)
            elif value.is_floating_point():
                value.normal_(float(name.endswith("weight")), 0.1, generator=generator)
        return network

    return drawn


@pytest.fixture(scope="session")
def drawn_weights(tmp_path_factory: pytest.TempPathFactory, drawn_network: Callable[..., Any]) -> Path:
    """A file with such weights, as the published ones are."""
    import torch

    path = tmp_path_factory.mktemp("weights") / "checkpoint-rs.tar"
    torch.save({"epoch": 18, "model_state_dict": drawn_network().state_dict()}, path)
    return path
