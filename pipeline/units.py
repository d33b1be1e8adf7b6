"""A *unit* of work: one stage's work for one scene, camera and (after ``observe``) arm, as planned and as carried out.

A unit is planned before what it reads is made: the fingerprint of a finished unit is that of what it was made from,
which its own plan says. So a whole run is planned at once, and each unit begins as soon as what it needs is there.

:func:`make_unit` is what a worker does, on whatever machine. It makes the unit in a folder of its own and puts that in
place as the last act: what lies in a unit's folder is finished, and a worker that was believed dead harms nobody. One
that outlives its run puts nothing in place any more once the next has begun: see :func:`clear`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import socket
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.artifacts import ArtifactError, Stamp, file_sizes, fingerprint, read_stamp, why_stale, write_stamp
from pipeline.engines import CPU
from pipeline.failures import software, stderr_kept
from pipeline.run_folder import STAMP

LATE = 60.0
"""Seconds that a shared file system is given to show what another machine has finished."""
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""Errors after which no other unit can be written either."""
_POLL = 0.2
_MARK = "run-"


@dataclass(frozen=True, slots=True)  # there are tens of thousands
class Need:
    """Another unit that a unit reads.

    Attributes:
        folder: of that unit.
        fingerprint: of what must lie there; None where it cannot be had.
        missing: why the unit cannot be made where that one failed.
    """

    folder: Path
    fingerprint: str | None
    missing: str


@dataclass(frozen=True, slots=True)
class Plan:
    """One unit to be: what it depends on, and what makes it.

    Attributes:
        stage: its stage.
        label: for people; unlike that of every other unit of the stage.
        folder: the unit's own folder; its stamp lies in it.
        scene, camera: whose views it holds.
        made_from: everything the unit depends on, but for scene and camera.
        function: makes the unit from ``job`` and returns its problems; importable by name.
        job: a dataclass with the field ``out``, the folder to write into.
        arm: which arm's it is; '' where it is all arms'.
        needs: units that must be finished before; when it is handed out, those that this run has made.
        wants: units that are waited for, and may fail; then ``without`` says what the unit is made from.
        without: replaces keys of ``made_from`` where a wanted unit failed.
        blocked: why the unit cannot be made, where that is known beforehand.
        group: of workers, see :mod:`pipeline.engines`.
    """

    stage: str
    label: str
    folder: Path
    scene: int
    camera: str
    made_from: dict[str, Any]
    function: Callable[[Any], list[dict[str, Any]]]
    job: Any
    arm: str = ""
    needs: tuple[Need, ...] = ()
    wants: tuple[Need, ...] = ()
    without: Mapping[str, Any] = field(default_factory=dict)
    blocked: str | None = None
    group: str = CPU

    @property
    def stamp(self) -> Path:
        return self.folder / STAMP

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.made_from)

    def why_stale(self) -> str | None:
        """Return None where the unit is finished and current, else why it has to be made."""
        return why_stale(self.stamp, self.made_from)

    def is_finished(self) -> bool:
        """Return whether the unit lies in its folder as planned."""
        stamp = read_stamp(self.stamp)
        return stamp is not None and stamp.fingerprint == self.fingerprint

    def lacking_what_it_wants(self) -> Plan:
        return replace(self, made_from={**self.made_from, **self.without}, wants=())


class Known:
    """What the units of a run are made from: as planned now, else as their stamps say."""

    def __init__(self) -> None:
        self._planned: dict[Path, Plan] = {}
        self._found: dict[Path, Stamp | None] = {}
        self._fingerprints: dict[Path, str | None] = {}

    def add(self, plans: Iterable[Plan]) -> None:
        self._planned.update((plan.folder, plan) for plan in plans)

    def made_from(self, folder: Path) -> dict[str, Any] | None:
        """Return what the unit of a folder is made from; None where there is none, or it cannot be made."""
        plan = self._planned.get(folder)
        if plan is not None:
            return None if plan.blocked else plan.made_from
        if folder not in self._found:
            self._found[folder] = read_stamp(folder / STAMP)
        stamp = self._found[folder]
        return stamp.made_from if stamp else None

    def fingerprint(self, folder: Path) -> str | None:
        if folder not in self._fingerprints:
            made_from = self.made_from(folder)
            self._fingerprints[folder] = None if made_from is None else fingerprint(made_from)
        return self._fingerprints[folder]

    def need(self, folder: Path, missing: str) -> Need:
        return Need(folder, self.fingerprint(folder), missing)


def blocked_by(needs: Iterable[Need]) -> str | None:
    """Return why a unit cannot be made, if one of those it needs cannot be had."""
    return next((need.missing for need in needs if need.fingerprint is None), None)


@dataclass(frozen=True)
class Workshop:
    """Where and how workers make units.

    Attributes:
        work: folder for units in the making, on the run's file system.
        store: finished units of other runs, see :mod:`pipeline.store`; None for none.
        packed: whether a unit's files of single views are joined in one.
        late: seconds to wait for files that a shared file system shows late.
        mark: file that is there until the run has ended or another has begun (:func:`clear`); nothing is put in place
            without it. None: not asked for.
    """

    work: Path
    store: Path | None = None
    packed: bool = False
    late: float = LATE
    mark: Path | None = None

    def is_open(self) -> bool:
        """Return whether units are still wanted."""
        if self.mark is None:
            return True
        try:
            with self.mark.open():  # not only asked for: a network file system then asks its server
                return True
        except OSError:
            return False


def open_workshop(work: Path, store: Path | None = None, packed: bool = False) -> Workshop:
    """Return where a run's units are made, marked as open.

    Raises:
        ArtifactError: nothing can be written there.
    """
    mark = work / f"{_MARK}{secrets.token_hex(8)}"
    try:
        work.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError as error:
        raise ArtifactError(
            f"{work}: cannot be written ({error.strerror or error}); make room, or choose another --out"
        ) from None
    return Workshop(work, store, packed, mark=mark)


def clear(work: Path) -> None:
    """Remove what runs before have left in the making, and close their workshops to workers of theirs that still live.

    Marks first, then each unit by one rename: what such a worker is about to put in place is whole, or gone.
    """
    with contextlib.suppress(OSError):
        for mark in work.glob(f"{_MARK}*"):
            mark.unlink()
        for left in list(work.iterdir()):
            left.rename(work / secrets.token_hex(8))
    shutil.rmtree(work, ignore_errors=True)


@dataclass(frozen=True)
class Order:
    """What a worker is handed.

    Attributes:
        plan, workshop: what, where.
        inherits: whether something went wrong in what the unit reads. A fingerprint does not tell, so the unit is
            neither taken from the store, where it would be another, nor kept there for runs in which all went well.
    """

    plan: Plan
    workshop: Workshop
    inherits: bool = False


@dataclass(frozen=True)
class Made:
    """What became of one try at a unit.

    Attributes:
        where: host and process.
        seconds: wall-clock time of the try.
        stored: whether the unit came out of the store.
        sound: whether nothing went wrong in the unit, nor in what it was made from.
        error: one line naming the failure; None for a finished unit.
        expected: whether the line says all, since it was written for people.
        trace: the traceback.
        stderr: the end of what was written there meanwhile.
        software: versions, where it failed.
        no_room: whether no other unit can be written either.
        remark: what went wrong beside the unit, which is finished all the same.
    """

    where: str
    seconds: float
    stored: bool = False
    sound: bool = True
    error: str | None = None
    expected: bool = False
    trace: str | None = None
    stderr: str = ""
    software: str = ""
    no_room: bool = False
    remark: str | None = None


def make_unit(order: Order) -> Made:
    """Make a unit and put it in place; what goes wrong is returned, not raised."""
    plan, workshop = order.plan, order.workshop
    start, where = time.perf_counter(), f"{socket.gethostname()}:{os.getpid()}"
    work = workshop.work / secrets.token_hex(8)
    with stderr_kept() as stderr:
        try:
            stored, sound, remark = _make(order, work)
            return Made(where, time.perf_counter() - start, stored, sound, remark=remark)
        except Exception as caught:
            error, trace = caught, traceback.format_exc()
    expected = isinstance(error, (ValueError, OSError))
    line = " ".join((str(error) if expected else f"{type(error).__name__}: {error}").split()) or type(error).__name__
    no_room = isinstance(error, OSError) and (reason := _no_room(error, workshop.work)) is not None
    if no_room:
        line = f"{plan.folder}: cannot be written ({reason})"
        shutil.rmtree(work, ignore_errors=True)
    elif plan.is_finished() or not workshop.is_open():  # what others have made meanwhile must stay
        shutil.rmtree(work, ignore_errors=True)
    elif work.exists():  # what is left of it is for people to look at
        with contextlib.suppress(OSError):
            (work / STAMP).unlink(missing_ok=True)
            put_in_place(work, plan.folder)
    line = line.replace(str(work), str(plan.folder))
    return Made(
        where,
        time.perf_counter() - start,
        error=line,
        expected=expected,
        trace=trace,
        stderr=stderr.kept,
        software=software(),
        no_room=no_room,
    )


def _make(order: Order, work: Path) -> tuple[bool, bool, str | None]:
    """Return whether the unit came out of the store, whether it is sound, and a remark."""
    plan, workshop = order.plan, order.workshop
    for need in (*plan.needs, *plan.wants):
        wait_for(need, workshop.late)
    _see_to_it_that_open(workshop, plan, workshop.late)
    work.mkdir(parents=True)
    store = None
    if workshop.store is not None and not order.inherits:
        from pipeline.store import Store

        store = Store(workshop.store)
    key = "" if store is None else store.key(plan.made_from, plan.scene, plan.camera)
    remark: str | None = None
    problems: list[dict[str, Any]] = []
    stored = store is not None and store.fetch(key, work)
    if stored:
        from pipeline.view_files import arrange

        if arrange(work, workshop.packed):
            write_stamp(work / STAMP, replace(_stamp_of(work), files=file_sizes(work)))
    else:
        start = time.perf_counter()
        problems = plan.function(replace(plan.job, out=work))
        if workshop.packed:
            from pipeline.view_files import pack

            pack(work)
        seconds = time.perf_counter() - start
        write_stamp(work / STAMP, Stamp(plan.made_from, problems, seconds, file_sizes(work), order.inherits))
    # After the last file: those that were written after `clear` lie in a folder made anew, without those before.
    _see_to_it_that_open(workshop, plan)
    if not stored and store is not None:
        remark = store.put(key, work)
    put_in_place(work, plan.folder)
    return stored, not problems and not order.inherits, remark


def _see_to_it_that_open(workshop: Workshop, plan: Plan, patience: float = 0.0) -> None:
    until = time.monotonic() + patience
    while not workshop.is_open():
        if time.monotonic() >= until:
            raise ArtifactError(f"{plan.folder}: not wanted any more, for another run has begun in its folder")
        time.sleep(_POLL)


def _no_room(error: OSError, folder: Path) -> str | None:
    """Return what the system says of a full disk or a file system that became read-only, or None for other errors."""
    if error.errno in NO_ROOM:
        return error.strerror
    if error.errno is not None:
        return None
    try:  # numpy tells only that less was written than asked
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as stream:
            stream.write(bytes(1 << 16))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as other:
        return other.strerror if other.errno in NO_ROOM else None
    return None


def _stamp_of(folder: Path) -> Stamp:
    stamp = read_stamp(folder / STAMP)
    assert stamp is not None  # the store has read it
    return stamp


def put_in_place(made: Path, folder: Path) -> None:
    """Put a folder where a unit's belongs, in place of what lies there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for turn in range(10):
        old = made.with_name(f"{made.name}.old{turn}")
        with contextlib.suppress(FileNotFoundError):
            folder.rename(old)
        try:
            made.rename(folder)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                with contextlib.suppress(OSError):
                    old.rename(folder)
                raise
            # another worker, believed dead, has put the same unit there meanwhile: what is made last stays
        finally:
            shutil.rmtree(old, ignore_errors=True)
    raise OSError(errno.EEXIST, "another process keeps writing this unit", str(folder))


def wait_for(need: Need, patience: float) -> None:
    """Wait until a unit that was finished, perhaps by another machine, can be seen from here.

    Raises:
        FileNotFoundError: it cannot, in ``patience`` seconds.
    """
    if need.fingerprint is None:
        return
    until = time.monotonic() + patience
    while True:
        stamp = read_stamp(need.folder / STAMP)
        if stamp is not None and stamp.fingerprint == need.fingerprint and _sizes(need.folder) == stamp.files:
            return
        if time.monotonic() >= until:
            raise FileNotFoundError(
                f"{need.folder}: finished by another process, but not to be seen from {socket.gethostname()} after "
                f"{patience:g} s; is the run folder on a file system that all workers share?"
            )
        time.sleep(_POLL)


def _sizes(folder: Path) -> dict[str, int] | None:
    try:
        return file_sizes(folder)
    except OSError:
        return None
