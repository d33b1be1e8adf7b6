"""Fixtures shared by all rooms."""

from __future__ import annotations

import os
import signal
from pathlib import Path

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
