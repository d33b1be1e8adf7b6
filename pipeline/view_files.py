"""A unit's files of single views, loose or joined in one.

A full split has 46,080 views, and an arm as many files of clouds and of grasps: more than some file systems allow. A
unit that is *packed* holds ``views.zip`` instead of ``VVVV.npz`` or ``VVVV.npy``: a plain, uncompressed zip archive of
the same files, with fixed dates and sorted names, so that equal files make an equal archive.

A view's file is named by the path that it has when loose (:func:`pipeline.run_folder.view_file`); every function here
takes that path and finds the file in either form. Where both are there, the loose one counts.
"""

from __future__ import annotations

import io
import os
import re
import struct
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

from grasping.grasps import GraspFileError, GraspFileMissingError, Grasps, read_dump_file
from pipeline.artifacts import ArtifactError, atomic_write

PACK = "views.zip"
_VIEW = re.compile(r"\d{4}\.(npz|npy)")
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that the format can say
_HEADER = struct.Struct("<4s22xHH")  # before a member's data; then its name and extra field, of these lengths


class _Member(NamedTuple):
    offset: int  # of the header
    size: int
    crc: int


class ViewStream(io.BytesIO):
    """A view's file out of a pack, open for reading.

    Attributes:
        name: where it lies, for messages.
    """

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name


def pack(folder: Path) -> None:
    """Join a unit's files of single views in ``views.zip``; its other files stay as they are.

    Does nothing where none is loose. A pack that is there keeps what no loose file replaces.
    """
    loose = sorted(path for path in folder.iterdir() if _VIEW.fullmatch(path.name))
    if not loose:
        return
    names = {path.name for path in loose}
    packed = [folder / name for name in _members(folder) or {} if name not in names]
    with (
        atomic_write(folder / PACK) as stream,
        zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive,
    ):
        for path in sorted((*loose, *packed), key=lambda path: path.name):
            with open_view(path) as view:
                archive.writestr(_described(path.name), view.read())
    for path in loose:
        path.unlink()


def unpack(folder: Path, into: Path) -> int:
    """Write a unit's files of single views, loose or packed, into another folder (or the same), loose.

    Returns:
        How many.
    """
    names = _names(folder)
    for name in names:
        if into == folder and (into / name).exists():
            continue
        with open_view(folder / name) as view, atomic_write(into / name) as stream:
            stream.write(view.read())
    if into == folder:
        (folder / PACK).unlink(missing_ok=True)
    return len(names)


def arrange(folder: Path, packed: bool) -> bool:
    """Give a unit the form that its run wants; what comes out of a store may have the other.

    Returns:
        Whether its files are others now, which its stamp must be told.
    """
    before = set(os.listdir(folder))  # noqa: PTH208
    if packed:
        pack(folder)
    elif PACK in before:
        unpack(folder, folder)
    return set(os.listdir(folder)) != before  # noqa: PTH208


def has_view(path: Path) -> bool:
    """Say whether a view's file is there, loose or packed.

    Raises:
        ArtifactError: if there is a pack that cannot be read.
    """
    return path.is_file() or path.name in (_members(path.parent) or {})


def views_in(folder: Path, suffix: str) -> list[int]:
    """List the views that a unit has files ``VVVV<suffix>`` of."""
    return [int(name.removesuffix(suffix)) for name in _names(folder) if name.endswith(suffix)]


def open_view(path: Path) -> BinaryIO:
    """Open a view's file for reading; of a pack only this view is read.

    Raises:
        FileNotFoundError: if it is neither there nor in the pack beside; names both.
        ArtifactError: if the pack or the file in it is broken, or cannot be read.
    """
    try:
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        members = _members(path.parent)
    if members is None or path.name not in members:
        raise FileNotFoundError(f"{path}: no such file, nor is it in a {PACK} beside")
    return ViewStream(_read(path.parent / PACK, path.name, members[path.name]), str(path.parent / PACK / path.name))


def refuse_packed(dump: Path) -> None:
    """Refuse a dump that is to be read one file a view, where it is a packed run's.

    Raises:
        ArtifactError: naming the remedy.
    """
    packed = next(dump.glob(f"scene_*/*/{PACK}"), None)
    if packed is not None:
        raise ArtifactError(
            f"{packed}: a packed run's; write its grasps loose by `grasp-utility dump-export`, give those"
        )


def read_grasps(path: Path) -> tuple[Grasps, str]:
    """Read a view's grasps, loose or packed, by the rules of :func:`grasping.grasps.read_dump_file`.

    Returns:
        The grasps, and a note on what was repaired.

    Raises:
        GraspFileMissingError: if there is no such file.
        GraspFileError: if it is broken, or its pack is.
    """
    try:
        if not path.exists() and _members(path.parent) is not None:
            with open_view(path) as stream:
                return read_dump_file(stream)
    except FileNotFoundError:
        raise GraspFileMissingError(f"{path}: no such grasp file, nor is it in {PACK} beside") from None
    except ArtifactError as error:
        raise GraspFileError(str(error)) from None
    except OSError:
        pass  # a folder that may not be looked into: told of the file
    return read_dump_file(path)


def load_grasps(path: Path) -> Grasps:
    """Read a view's grasps as :func:`read_grasps` does, without the note."""
    return read_grasps(path)[0]


def _names(folder: Path) -> list[str]:
    try:
        loose = {name for name in os.listdir(folder) if _VIEW.fullmatch(name)}  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(loose | set(_members(folder) or {}))


def _members(folder: Path) -> dict[str, _Member] | None:
    """Return what a unit's pack holds; None where it has none."""
    path = folder / PACK
    try:
        seen = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return _directory(str(path), seen.st_ino, seen.st_mtime_ns, seen.st_size)


@lru_cache(maxsize=64)  # a worker reads a unit view by view, from few folders at a time; 256 views take 60 kB
def _directory(path: str, inode: int, changed: int, size: int) -> dict[str, _Member]:
    """Parse a pack's directory, and keep no file open: a folder with open files cannot be removed on NFS."""
    try:
        with open(path, "rb") as stream, zipfile.ZipFile(stream) as archive:  # noqa: PTH123
            found = archive.infolist()
    except OSError as error:
        raise _unreadable(path, error) from None
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise _broken(path, str(error)) from None
    if any(info.compress_type != zipfile.ZIP_STORED for info in found):
        raise _broken(path, "compressed, which a pack never is")
    # A view's .npz is an archive itself: where a pack is cut short, the directory found may be that of a view.
    if min((info.header_offset for info in found), default=-1) or not all(_VIEW.fullmatch(i.filename) for i in found):
        raise _broken(path, "not whole, or not a pack")
    return {info.filename: _Member(info.header_offset, info.file_size, info.CRC) for info in found}


def _read(path: Path, name: str, member: _Member) -> bytes:
    try:
        with path.open("rb") as stream:
            stream.seek(member.offset)
            signature, name_length, extra_length = _HEADER.unpack(stream.read(_HEADER.size))
            stream.seek(name_length + extra_length, os.SEEK_CUR)
            content = stream.read(member.size)
    except OSError as error:
        raise _unreadable(path, error) from None
    except struct.error as error:
        raise _broken(path / name, str(error)) from None
    if signature != b"PK\x03\x04" or len(content) != member.size or zlib.crc32(content) != member.crc:
        raise _broken(path / name, "its checksum is another")
    return content


def _described(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _DATE)
    info.create_system = 3  # wherever it is made
    info.external_attr = 0o644 << 16
    return info


def _unreadable(path: Path | str, error: OSError) -> ArtifactError:
    """Of a pack that may be whole: whoever deletes it makes a unit again in vain."""
    return ArtifactError(f"{path}: cannot be read ({error.strerror or error}); see to that, and run again")


def _broken(path: Path | str, why: str) -> ArtifactError:
    return ArtifactError(f"{path}: broken ({why}); delete the folder that it lies in, and run again")
