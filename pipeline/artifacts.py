"""What outputs were made from: fingerprints, stamps, the run's lock, and why something is stale.

A *unit* is one stage's work for one scene, camera and (after ``observe``) arm. Its files are written
atomically, its *stamp* last: a JSON file that holds everything the unit depends on. What has a stamp is
finished; what depends on something else than its stamp says is stale, and the differing keys say why.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import filelock
from tqdm import tqdm

from pipeline.progress import shortest_interval

FORMAT_VERSION = 1


def default_cache() -> Path:
    """Return the folder for files derived from models: ``GRASP_UTILITY_CACHE``, or one in the user's cache folder."""
    if os.environ.get("GRASP_UTILITY_CACHE"):
        return Path(os.environ["GRASP_UTILITY_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "grasp-utility"


class ArtifactError(ValueError):
    """A run folder or a file in it that cannot be used; the message names it and the remedy."""


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path`` and put it in place when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as stream:
            yield stream
        os.chmod(temporary, 0o666 & ~_umask())  # noqa: PTH101  (mkstemp makes private files)
        os.replace(temporary, path)  # noqa: PTH105
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108
        raise


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def write_json(path: Path, value: Any) -> None:
    with atomic_write(path, "w") as stream:
        json.dump(value, stream, indent=1, sort_keys=True, allow_nan=False)
        stream.write("\n")


def check_version(path: Path, content: Any, known: int) -> None:
    """Refuse what another format wrote.

    Raises:
        ArtifactError: naming file, version and remedy.
    """
    version = content.get("format_version") if isinstance(content, dict) else None
    if version == known:
        return
    newer = isinstance(version, int) and version > known
    remedy = "update grasp-utility" if newer else "run the experiment again with this version"
    raise ArtifactError(f"{path}: format version {version}, this program reads {known}; {remedy}")


def fingerprint(payload: Any) -> str:
    """Return a short hash of anything JSON can say, independent of key order."""
    canonical = json.dumps(payload, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:20]


def file_hash(path: Path) -> str:
    """Return the hash of one file's content, or ``absent``."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()[:20]
    except FileNotFoundError:
        return "absent"


_READERS = 8  # threads: reading waits for disks, and hashing leaves the interpreter to others
_MANY = 1000  # files, from which on a bar is worth its line
_AT_ONCE = 64  # files that a thread is handed: one by one, handing out takes longer than reading small ones


class FileHashes:
    """Content hashes, remembered by size and modification time so that a rerun does not read a dataset again."""

    def __init__(self, memo: Path) -> None:
        self._memo = memo
        self._known = self._remembered()
        self._new: dict[str, list[Any]] = {}
        self._seen: dict[str, str] = {}  # by text: of a full split are 230,000 files, and a Path takes 1 kB

    def _remembered(self) -> dict[str, list[Any]]:
        try:
            known = json.loads(self._memo.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}

    def __call__(self, path: Path | str) -> str:
        key = str(path)
        if key not in self._seen:  # arms ask for the same files, and a shared file system is slow to tell their state
            self._seen[key] = self._hash(key)
        return self._seen[key]

    def read(self, paths: Iterable[Path | str]) -> None:
        """Hash many files at once, by threads and with a bar: the first look at a whole dataset takes its time."""
        unknown = [key for key in dict.fromkeys(map(str, paths)) if key not in self._seen]
        some = [unknown[first : first + _AT_ONCE] for first in range(0, len(unknown), _AT_ONCE)]
        with (
            ThreadPoolExecutor(_READERS) as readers,
            tqdm(
                total=len(unknown),
                desc="hashing",
                unit="file",
                disable=len(unknown) < _MANY,
                delay=1.0,
                mininterval=shortest_interval(),
            ) as bar,
        ):
            for keys, values in zip(
                some, readers.map(lambda keys: [self._hash(key) for key in keys], some), strict=True
            ):
                self._seen.update(zip(keys, values, strict=True))
                bar.update(len(keys))

    def _hash(self, key: str) -> str:
        try:
            status = os.stat(key)  # noqa: PTH116
        except OSError:
            return "absent"
        seen = [status.st_size, status.st_mtime_ns]
        known = self._known.get(key)
        if isinstance(known, list) and known[:2] == seen:
            return str(known[2])
        value = file_hash(Path(key))
        self._known[key] = self._new[key] = [*seen, value]
        return value

    def many(self, paths: Sequence[Path | str]) -> str:
        return fingerprint([self(path) for path in paths])

    def save(self) -> None:
        """Write down what was hashed, beside what others have: each task of a job array hashes its own scenes."""
        if not self._new:
            return
        with contextlib.ExitStack() as held:
            with contextlib.suppress(OSError):  # where it cannot be had in time, who writes last is remembered
                held.enter_context(filelock.FileLock(f"{self._memo}.lock", timeout=60))
            write_json(self._memo, self._remembered() | self._new)
        self._new = {}


@dataclass(frozen=True)
class Stamp:
    """What a finished unit was made from, and what went wrong in it.

    Attributes:
        made_from: everything that the unit's files depend on, by key.
        problems: rows ``{"view", "object", "reason"}`` of what failed inside while the rest went on.
        seconds: wall-clock time the unit took.
        files: sizes in bytes of the unit's files, by name.
        inherits: whether something went wrong in what the unit was made from, however far back.
    """

    made_from: dict[str, Any]
    problems: list[dict[str, Any]]
    seconds: float
    files: dict[str, int] = field(default_factory=dict)
    inherits: bool = False

    @property
    def is_sound(self) -> bool:
        """Whether the files hold all that what it was made from gives."""
        return not self.problems and not self.inherits

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.made_from)


def write_stamp(path: Path, stamp: Stamp) -> None:
    write_json(
        path,
        {
            "format_version": FORMAT_VERSION,
            "fingerprint": stamp.fingerprint,
            "made_from": stamp.made_from,
            "problems": stamp.problems,
            "seconds": round(stamp.seconds, 3),
            "files": stamp.files,
            "inherits": stamp.inherits,
        },
    )


def file_sizes(folder: Path) -> dict[str, int]:
    """Return the sizes of a unit's files, its stamp aside."""
    return {
        path.name: path.stat().st_size
        for path in sorted(folder.iterdir())
        if path.is_file() and path.suffix != ".json" and not path.name.startswith(".")
    }


def read_stamp(path: Path) -> Stamp | None:
    """Return a unit's stamp, or None where the unit is not finished (absent or unreadable stamp)."""
    try:
        raw = json.loads(path.read_text())
        return Stamp(
            dict(raw["made_from"]),
            list(raw["problems"]),
            float(raw["seconds"]),
            dict(raw["files"]),
            bool(raw.get("inherits", False)),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def why_stale(path: Path, made_from: Mapping[str, Any]) -> str | None:
    """Return None where the unit is finished and current, else why it has to be made.

    Args:
        path: the unit's stamp.
        made_from: what the unit would be made from now.
    """
    stamp = read_stamp(path)
    if stamp is None:
        return "not made yet"
    wanted = json.loads(json.dumps(dict(made_from), default=str))
    if fingerprint(stamp.made_from) == fingerprint(wanted):
        found = file_sizes(path.parent)
        lost = sorted(name for name, size in stamp.files.items() if found.get(name) != size)
        return f"files missing or changed: {', '.join(lost)}" if lost else None
    keys = sorted(key for key in set(stamp.made_from) | set(wanted) if stamp.made_from.get(key) != wanted.get(key))
    return "changed: " + ", ".join(keys)


@contextlib.contextmanager
def run_lock(run: Path, share: tuple[int, int] | None = None) -> Iterator[None]:
    """Hold a run folder for one process, or for the shares of one job array.

    A whole run holds ``.lock`` and suffers no share beside it. A share holds a file of its own, and ``.lock`` only
    while it takes that; shares of another number of parts would do the same units twice and are refused.

    Raises:
        ArtifactError: if the folder cannot be written, or another process holds it.
    """
    mine = None if share is None else run / f".lock.{share[0]}-of-{share[1]}"
    try:
        run.mkdir(parents=True, exist_ok=True)
        # What starts at the same time as we holds the first lock for a moment only, if it is a share.
        whole = filelock.FileLock(run / ".lock", timeout=0 if share is None else 10)
        whole.acquire()
        try:
            for other in sorted(run.glob(".lock.*-of-*")):
                if other != mine and (share is None or not other.name.endswith(f"-of-{share[1]}")):
                    with filelock.FileLock(other, timeout=0):
                        pass
            held = whole
            if mine is not None:
                held = filelock.FileLock(mine, timeout=0)
                held.acquire()
                whole.release()
        except BaseException:
            whole.release()
            raise
    except filelock.Timeout as busy:
        what = "a task of a job array" if ".lock." in Path(busy.lock_file).name else "another grasp-utility"
        raise ArtifactError(f"{run}: {what} works in this folder; wait for it or choose another --out") from None
    except OSError as error:
        raise ArtifactError(f"{run}: cannot be written ({error.strerror or error}); choose another --out") from None
    try:
        yield
    finally:
        held.release()


def derive_seed(*parts: Any) -> int:
    """Return a 63-bit seed from the parts' text: the same on every machine, in every order of work.

    Callers pass (seed, scene, camera, view, object, stage), never the arm: arms see the same draws.
    """
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
