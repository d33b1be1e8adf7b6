"""Finished units, kept by what they were made from, so that several runs share them.

Two experiments on one dataset have the same observations, and arms such as the partial and the true cloud in common.
A run that is given a store looks a unit up before it makes it, and puts what it has made there::

    STORE/store.json                 {"format_version"}
    STORE/units/ab/ab12.../          the unit's files, its stamp.json among them, and entry.json: sizes and hashes
    STORE/runs/<hash>.json           a run that uses the store (:mod:`pipeline.store_gc` keeps what these refer to)
    STORE/temporary/, STORE/trash/   entries that come and go; what is left there is nobody's

Many processes on many machines may use a store at once, without locks: an entry appears by one rename and goes by one
rename, so that it is whole or not there.

Files are hard links where the file system allows it, else copies. Links are safe because this program never writes
into a file: it replaces files (:func:`pipeline.artifacts.atomic_write`). What is linked is made read-only, in the run
too, so that nobody else writes into it by accident; deleting a run does not need write permission on its files, though
``rm`` without ``-f`` will ask. Root is not held by that: a link whose time has changed is hashed before it is believed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifacts import file_hash, fingerprint, read_stamp, write_json
from pipeline.run_folder import STAMP

FORMAT_VERSION = 1
MARK = "store.json"
RECORD = "entry.json"


class StoreError(ValueError):
    """A store that cannot be used; the message names it and the remedy."""


class _BrokenEntryError(Exception):
    """An entry that is not what its record says."""


@dataclass(frozen=True)
class Store:
    """A store that is there, see :func:`open_store`.

    Attributes:
        root: its folder.
    """

    root: Path

    @property
    def units(self) -> Path:
        return self.root / "units"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def temporary(self) -> Path:
        return self.root / "temporary"

    @property
    def trash(self) -> Path:
        return self.root / "trash"

    @staticmethod
    def key(made_from: Mapping[str, Any], scene: int, camera: str) -> str:
        """Return the name of a unit's entry. Seeds depend on scene and camera, which ``made_from`` leaves out."""
        said = json.loads(json.dumps(dict(made_from), default=str))  # as a stamp gives it back
        return fingerprint([said, scene, camera])

    def entry(self, key: str) -> Path:
        return self.units / key[:2] / key

    def fetch(self, key: str, folder: Path) -> bool:
        """Fill an empty folder with a unit's files, its stamp included.

        Sizes are held against what was recorded; so are hashes, of copies and of links whose time has changed. An
        entry that is not what its record says is thrown away.

        Args:
            key: from :meth:`key`.
            folder: there, and empty.

        Returns:
            Whether it did. If not, the folder is empty again.
        """
        entry = self.entry(key)
        inode: int | None = None
        try:
            inode = entry.stat().st_ino
            _take(entry, key, folder)
        except _BrokenEntryError:
            _clear(folder)
            self._discard_broken(entry, inode)
            return False
        except OSError:  # no such entry; gone while it was read; the store cannot be reached; no room for a copy
            _clear(folder)
            return False
        _touch(entry)
        return True

    def put(self, key: str, folder: Path) -> str | None:
        """Keep a finished unit. Whatever is wrong with the store, the unit itself does not fail.

        A unit in which something failed is left out: what failed may be this machine's fault, which other runs need
        not inherit.

        Args:
            key: from :meth:`key`.
            folder: the unit's, stamp included; its files may become read-only links.

        Returns:
            Why it is not kept, for people to be told once; None where it is, or need not be.
        """
        entry, temporary = self.entry(key), self.temporary / secrets.token_hex(8)
        try:
            unit = read_stamp(folder / STAMP)
            if unit is None:
                return f"{folder}: has no readable {STAMP}; not kept in the store"
            if unit.problems:
                return None
            if entry.is_dir():
                _touch(entry)
                return None
            temporary.mkdir()  # not its parents: a store that was unmounted must not be made anew on the mount point
            entry.parent.mkdir(exist_ok=True)
            files = {path.name: _keep(path, temporary / path.name) for path in sorted(folder.iterdir())}
            record = {"format_version": FORMAT_VERSION, "key": key, "unit": unit.fingerprint, "files": files}
            write_json(temporary / RECORD, record | {"stage": unit.made_from.get("stage", "")})
            _put_in_place(temporary, entry)
        except OSError as error:
            return f"{self.root}: units are not kept in the store ({error.strerror or error}); free or mend it"
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return None

    def register(self, run: Path) -> None:
        """Record that a run uses the store, so that what its stamps refer to is kept.

        Raises:
            StoreError: if that cannot be written.
        """
        path = run.resolve()
        try:
            write_json(
                self.runs / f"{fingerprint(str(path))}.json", {"format_version": FORMAT_VERSION, "run": str(path)}
            )
        except OSError as error:
            raise _not_writable(self.root, error) from None

    def discard(self, entry: Path) -> bool:
        """Take an entry away: out of sight by one rename, then deleted. Whoever reads it finds it gone.

        Returns:
            Whether it was there to be taken.
        """
        out_of_sight = self.trash / secrets.token_hex(8)
        try:
            entry.rename(out_of_sight)
        except OSError:
            return False
        shutil.rmtree(out_of_sight, ignore_errors=True)
        return True

    def _discard_broken(self, entry: Path, inode: int | None) -> None:
        with contextlib.suppress(OSError):
            if entry.stat().st_ino == inode:  # not the whole one that another process has put there since
                self.discard(entry)


def find_store(root: Path) -> Store:
    """Return a store to look into.

    Raises:
        StoreError: if there is none, or it holds another format.
    """
    if not (root / MARK).is_file():
        raise StoreError(f"{root}: no store, for it has no {MARK}; give the folder that `--store` named")
    _check_format(root / MARK)
    return Store(root)


def open_store(root: Path) -> Store:
    """Open a store to work with, making it where there is none yet.

    Raises:
        StoreError: if the path is a file or a folder of other things, cannot be written, or holds another format.
    """
    mark = root / MARK
    try:
        if root.exists() and not root.is_dir():
            raise StoreError(f"{root}: a file; give a folder for the store")
        if not mark.exists():
            root.mkdir(parents=True, exist_ok=True)
            others = sorted(path.name for path in root.iterdir() if not path.name.startswith("."))
            if others and not mark.exists():
                raise StoreError(f"{root}: holds {others[0]} and is no store; give a new or an empty folder")
            write_json(mark, {"format_version": FORMAT_VERSION})
        store = find_store(root)
        for folder in (store.units, store.runs, store.temporary, store.trash):
            folder.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=store.temporary):
            pass
    except OSError as error:
        raise _not_writable(root, error) from None
    return store


def _check_format(mark: Path) -> None:
    try:
        content = json.loads(mark.read_text(encoding="utf-8"))
        version = content["format_version"]
    except (ValueError, KeyError, TypeError):
        raise StoreError(f"{mark}: not readable as a store's; choose another --store") from None
    if version != FORMAT_VERSION:
        raise StoreError(
            f"{mark}: format version {version}, this program reads {FORMAT_VERSION}; choose another --store"
        )


def _not_writable(root: Path, error: OSError) -> StoreError:
    return StoreError(f"{root}: cannot be written ({error.strerror or error}); choose another --store")


def _keep(source: Path, target: Path) -> dict[str, Any]:
    """Link or copy a file into an entry, read-only, and return its record."""
    if not stat.S_ISREG(source.lstat().st_mode) or source.name == RECORD:
        raise OSError(errno.EINVAL, f"{source} is no file that a unit has")
    _link_or_copy(source, target)
    found = target.stat()
    target.chmod(stat.S_IMODE(found.st_mode) & ~0o222)
    return {"bytes": found.st_size, "time": found.st_mtime_ns, "hash": file_hash(target)}


def read_record(entry: Path) -> dict[str, Any]:
    """Return what ``entry.json`` says.

    Raises:
        OSError, ValueError: if it cannot be read.
    """
    content = json.loads((entry / RECORD).read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not isinstance(content.get("files"), dict):
        raise ValueError("no record")
    return content


def _take(entry: Path, key: str, folder: Path) -> None:
    """Link or copy an entry's files into a folder.

    Raises:
        OSError: something cannot be read or written; says nothing about the entry.
        _BrokenEntryError: the entry is not what its record says.
    """
    try:
        record = read_record(entry)
        if record["format_version"] != FORMAT_VERSION:
            raise OSError(errno.EINVAL, "another format")
        files = {str(name): (said["bytes"], said["time"], said["hash"]) for name, said in record["files"].items()}
    except FileNotFoundError:
        raise _BrokenEntryError from None  # or gone: whoever discards it looks whether it is still the same
    except (ValueError, KeyError, TypeError):
        raise _BrokenEntryError from None
    if {path.name for path in entry.iterdir()} != {*files, RECORD}:
        raise _BrokenEntryError
    for name, (size, time, digest) in files.items():
        target = folder / name
        linked = _link_or_copy(entry / name, target)
        found = target.stat()
        trusted = linked and found.st_mtime_ns == time
        if found.st_size != size or not (trusted or file_hash(target) == digest):
            raise _BrokenEntryError
    unit = read_stamp(folder / STAMP)
    if record.get("key") != key or unit is None or unit.fingerprint != record.get("unit"):
        raise _BrokenEntryError


def _link_or_copy(source: Path, target: Path) -> bool:
    """Return whether it could be linked: not across file systems, nor what another user owns."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)
        return False
    return True


def _put_in_place(made: Path, entry: Path) -> None:
    try:
        made.rename(entry)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # another process was first, and has made the same
            raise


def _touch(entry: Path) -> None:
    """Note when an entry was last used: the time of its folder, which a group may set where the files are another's."""
    with contextlib.suppress(OSError):
        os.utime(entry)


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
