"""Where compiled kernels are kept when neither the package's folder nor the user's cache may be written.

numba refuses to start then, which is how packages installed by an administrator meet users without a home on a
compute node.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path


def settle() -> None:
    """Name a folder of the user's own in the system's temporary one, unless numba finds a place by itself."""
    if "NUMBA_CACHE_DIR" in os.environ or _writable(Path(__file__).parent / "__pycache__"):
        return
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111  (it may have no home)
    if not _writable(Path(home) / "numba"):
        os.environ["NUMBA_CACHE_DIR"] = _own_folder(os.getuid())


def _writable(folder: Path) -> bool:
    while not os.path.exists(folder):  # noqa: PTH110  (it says no of what may not be looked at; Path.exists raises)
        folder = folder.parent
    return os.access(folder, os.W_OK)


def _own_folder(user: int) -> str:
    """Return a folder that nobody else can write: what lies in it is run."""
    folder = Path(tempfile.gettempdir()) / f"grasp-utility-kernels-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        state = folder.lstat()
        if stat.S_ISDIR(state.st_mode) and state.st_uid == user and not state.st_mode & 0o022:
            return str(folder)
    except OSError:
        pass
    return tempfile.mkdtemp(prefix="grasp-utility-kernels-")
