"""What the processes of a run say of themselves in ``progress*.json``, and whether they still live.

Clocks of machines differ, so a file's age alone proves nothing. Who works touches its file every
:data:`pipeline.run_progress.EVERY` seconds; a file that looks old, or young while its process is gone from this very
machine, is looked at again for some seconds: who has not touched it by then seems dead. Nothing is written.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.artifacts import ArtifactError, check_version
from pipeline.run_folder import RunFolder
from pipeline.run_progress import EVERY, FINISHED, FORMAT_VERSION, STOPPED

DEAD = "seems dead"
YOUNG = 3 * EVERY
"""Seconds within which a file was touched, if the clocks agree and its process lives."""
PATIENCE = 2.5 * EVERY
"""Seconds that a doubtful file is watched."""
_NAME = re.compile(r"progress(?:\.(\d+)-of-(\d+))?\.json")


@dataclass(frozen=True)
class Account:
    """One process's own account of its work: of the whole run, or of one task of a job array.

    Attributes:
        path: the file.
        parts: of how many tasks it is one; 0 for a whole run.
        content: see :mod:`pipeline.run_progress`.
        touched: when the file was last touched, ns since 1970, by the file system's clock.
        silent: seconds that it had not been touched when it was read, by this machine's clock.
        state: one of :mod:`pipeline.run_progress`'s, or :data:`DEAD`.
    """

    path: Path
    parts: int
    content: dict[str, Any]
    touched: int
    silent: float
    state: str

    @property
    def alive(self) -> bool:
        return self.state not in (FINISHED, STOPPED, DEAD)

    def age(self, since: str) -> float:
        """Return the seconds from a time in the file to when the file was written: both by the process's clock."""
        return max(0.0, (_time(self.content["updated"]) - _time(since)).total_seconds())


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def read_accounts(folder: RunFolder, patience: float = PATIENCE) -> list[Account]:
    """Read the accounts of those who worked on a run last: of one process, or of the tasks of one job array.

    Args:
        folder: the run's.
        patience: seconds to watch a file of a process that may be dead.

    Returns:
        The tasks in their order, without those that have not begun; nothing where nobody has worked.

    Raises:
        ArtifactError: one of the files is of another format.
    """
    found = [account for path in sorted(folder.root.glob("progress*.json")) if (account := _read(path)) is not None]
    if not found:
        return []
    last = max(found, key=lambda account: account.touched)  # who came before, in another number of parts, is history
    accounts = [account for account in found if account.parts == last.parts]
    doubtful = {account.path: account for account in accounts if _is_doubtful(account)}
    until = time.monotonic() + patience
    heard: dict[Path, Account] = {}
    while doubtful and time.monotonic() < until:
        time.sleep(min(0.25, patience))
        for path, before in list(doubtful.items()):
            after = _read(path)  # opened, not only asked for its time: a network file system then asks its server
            if after is not None and (after.touched != before.touched or not after.alive):
                heard[path] = after
                del doubtful[path]
    accounts = [
        replace(account, state=DEAD, silent=_silence(account.touched))
        if account.path in doubtful
        else heard.get(account.path, account)
        for account in accounts
    ]
    return sorted(accounts, key=lambda account: int((account.content["share"] or "0/1").partition("/")[0]))


def _read(path: Path) -> Account | None:
    name = _NAME.fullmatch(path.name)
    if name is None:
        return None
    try:
        with path.open(encoding="utf-8") as stream:
            touched = os.fstat(stream.fileno()).st_mtime_ns
            content = json.load(stream)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error}); look again, or start the run anew") from None
    check_version(path, content, FORMAT_VERSION)
    return Account(path, int(name[2] or 0), content, touched, _silence(touched), content["state"])


def _silence(touched: int) -> float:
    return max(0.0, time.time() - touched / 1e9)


def _is_doubtful(account: Account) -> bool:
    if not account.alive:
        return False
    age = time.time() - account.touched / 1e9
    gone = account.content["host"] == socket.gethostname() and not _lives(account.content["process"])
    return gone or not -1.0 <= age <= YOUNG


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
