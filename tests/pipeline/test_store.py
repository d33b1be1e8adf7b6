"""The store of finished units: whole or not there, whoever else is at work; and what its collection takes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from pipeline.artifacts import Stamp, file_sizes, read_stamp, write_stamp
from pipeline.cli_store import app, number_of_bytes
from pipeline.run_folder import STAMP, unit_folder
from pipeline.store import MARK, RECORD, Store, StoreError, find_store, open_store
from pipeline.store_gc import DAY, collect, entries, needed

ROOT = Path(__file__).resolve().parents[2]
DAYS = 7.0


def made_from(number: int) -> dict[str, object]:
    return {"stage": "complete", "version": 1, "views": (number, 1), "density": 0.003}


def unit(folder: Path, number: int = 0, problems: tuple[dict[str, object], ...] = ()) -> Path:
    """A finished unit whose files say which it is."""
    folder.mkdir(parents=True)
    (folder / "0000.npz").write_bytes(bytes([number]) * 1000)
    (folder / "metrics.parquet").write_bytes(f"metrics {number}".encode())
    write_stamp(folder / STAMP, Stamp(made_from(number), list(problems), 1.5, file_sizes(folder)))
    return folder


def key(number: int = 0) -> str:
    return Store.key(made_from(number), 100, "kinect")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def fetched(store: Store, folder: Path, name: str) -> Path | None:
    folder.mkdir(parents=True)
    if store.fetch(name, folder):
        return folder
    assert list(folder.iterdir()) == []
    return None


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """As between two file systems."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)


def test_a_key_depends_on_all_that_a_unit_depends_on(tmp_path: Path) -> None:
    keys = {Store.key(made_from(n), scene, camera) for n in (0, 1) for scene in (1, 2) for camera in ("a", "b")}
    assert len(keys) == 8
    stamp = read_stamp(unit(tmp_path / "unit") / STAMP)
    assert stamp is not None and Store.key(stamp.made_from, 100, "kinect") == key()  # tuples come back as lists
    assert Store.key({"by_number": {10: 1, 9: 2}}, 0, "a") == Store.key({"by_number": {"9": 2, "10": 1}}, 0, "a")


def test_what_was_put_is_fetched_as_it_was(store: Store, tmp_path: Path) -> None:
    folder = unit(tmp_path / "unit")
    before = content(folder)
    assert fetched(store, tmp_path / "early", key()) is None
    assert store.put(key(), folder) is None
    assert content(folder) == before
    out = fetched(store, tmp_path / "out", key())
    assert out is not None and content(out) == before
    assert fetched(store, tmp_path / "other", key(1)) is None
    shutil.rmtree(folder)  # a run that goes takes nothing with it
    again = fetched(store, tmp_path / "again", key())
    assert again is not None and content(again) == before
    assert list(store.temporary.iterdir()) == []


def test_a_store_costs_no_room_where_links_can_be_had(store: Store, tmp_path: Path) -> None:
    folder = unit(tmp_path / "unit")
    store.put(key(), folder)
    out = fetched(store, tmp_path / "out", key())
    assert out is not None
    assert len({(path / "0000.npz").stat().st_ino for path in (folder, out, store.entry(key()))}) == 1
    assert (out / "0000.npz").stat().st_mode & 0o222 == 0  # nobody writes into three folders by accident
    with (out / "new").open("wb") as stream:
        stream.write(b"theirs")
    os.replace(out / "new", out / "0000.npz")  # noqa: PTH105  (how this program writes)
    assert (folder / "0000.npz").read_bytes() == bytes(1000)


def test_copies_are_made_where_there_are_no_links(store: Store, tmp_path: Path, no_links: None) -> None:
    folder = unit(tmp_path / "unit")
    assert store.put(key(), folder) is None
    out = fetched(store, tmp_path / "out", key())
    assert out is not None and content(out) == content(folder)
    assert {path.stat().st_nlink for path in (*out.iterdir(), *store.entry(key()).iterdir())} == {1}
    assert all(path.stat().st_mode & 0o200 for path in (*out.iterdir(), *folder.iterdir()))


def rewrite(entry: Path, name: str, data: bytes) -> None:
    (entry / name).chmod(0o644)
    (entry / name).write_bytes(data)


BREAKS = {
    "a file shorter": lambda entry: rewrite(entry, "0000.npz", bytes(999)),
    "a file other": lambda entry: rewrite(entry, "0000.npz", b"x" * 1000),
    "a file gone": lambda entry: (entry / "metrics.parquet").unlink(),
    "a file more": lambda entry: (entry / "0001.npz").write_bytes(b"more"),
    "another's stamp": lambda entry: write_stamp(entry / STAMP, Stamp(made_from(5), [], 1.5, {})),
    "no record": lambda entry: (entry / RECORD).unlink(),
    "half a record": lambda entry: (entry / RECORD).write_text('{"format_version": 1, "files": {'),
    "a record of nothing": lambda entry: (entry / RECORD).write_text('{"format_version": 1, "files": {}}'),
    "an odd record": lambda entry: (entry / RECORD).write_text('{"format_version": 1, "files": {"a": 3}}'),
    "a list": lambda entry: (entry / RECORD).write_text("[]"),
}


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_entry_is_a_miss_and_goes(
    store: Store, tmp_path: Path, name: str, links: bool, request: pytest.FixtureRequest
) -> None:
    if not links:
        request.getfixturevalue("no_links")
    store.put(key(), unit(tmp_path / "unit"))
    BREAKS[name](store.entry(key()))
    assert fetched(store, tmp_path / "out", key()) is None
    assert not store.entry(key()).exists() and list(store.trash.iterdir()) == []
    assert store.put(key(), unit(tmp_path / "anew")) is None
    out = fetched(store, tmp_path / "again", key())
    assert out is not None and content(out) == content(tmp_path / "anew")


def test_an_entry_under_another_name_is_broken(store: Store, tmp_path: Path) -> None:
    store.put(key(), unit(tmp_path / "unit"))
    store.entry(key(1)).parent.mkdir(exist_ok=True)
    shutil.copytree(store.entry(key()), store.entry(key(1)))
    assert fetched(store, tmp_path / "out", key(1)) is None
    assert fetched(store, tmp_path / "own", key()) is not None


def test_an_entry_of_another_format_is_left_alone(store: Store, tmp_path: Path) -> None:
    store.put(key(), unit(tmp_path / "unit"))
    record = store.entry(key()) / RECORD
    record.write_text(json.dumps(json.loads(record.read_text()) | {"format_version": 2}))
    assert fetched(store, tmp_path / "out", key()) is None
    assert record.exists()


def test_a_link_whose_time_alone_changed_is_good(store: Store, tmp_path: Path) -> None:
    folder = unit(tmp_path / "unit")
    store.put(key(), folder)
    os.utime(folder / "0000.npz")
    assert fetched(store, tmp_path / "out", key()) is not None


def test_units_with_failures_inside_and_unfinished_ones_are_not_shared(store: Store, tmp_path: Path) -> None:
    failed = unit(tmp_path / "failed", 0, ({"view": 3, "object": None, "reason": "no memory"},))
    assert store.put(key(), failed) is None
    unfinished = unit(tmp_path / "unfinished", 1)
    (unfinished / STAMP).unlink()
    assert STAMP in str(store.put(key(1), unfinished))
    assert entries(store) == []


def test_a_store_that_was_taken_away_fails_no_unit(store: Store, tmp_path: Path) -> None:
    folder = unit(tmp_path / "unit")
    shutil.rmtree(store.root)
    assert fetched(store, tmp_path / "out", key()) is None
    assert "not kept in the store" in str(store.put(key(), folder))
    assert not store.root.exists()  # not made anew on what may be a bare mount point
    assert content(folder).keys() == {"0000.npz", "metrics.parquet", STAMP}


def test_what_cannot_be_a_store_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file: a file; give a folder"):
        open_store(tmp_path / "file")
    (tmp_path / "file").unlink()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("")
    with pytest.raises(StoreError, match=r"thesis\.tex and is no store"):
        open_store(tmp_path / "home")
    with pytest.raises(StoreError, match="no store"):
        find_store(tmp_path / "home")
    other = open_store(tmp_path / "store").root / MARK
    other.write_text('{"format_version": 2}')
    with pytest.raises(StoreError, match="format version 2, this program reads 1; choose another --store"):
        open_store(tmp_path / "store")
    other.write_text("{")
    with pytest.raises(StoreError, match="not readable"):
        find_store(tmp_path / "store")


UNPRIVILEGED = """
import os, sys
from pathlib import Path
from pipeline.store import Store, StoreError, open_store
os.setgid(65534); os.setuid(65534)  # not before: Python itself may lie where others cannot read
store, unit, out, key = Store(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
try:
    open_store(store.root)
except StoreError as error:
    print(error)
print(store.put("0" * 20, unit))
out.mkdir()
print(store.fetch(key, out), sorted(path.name for path in out.iterdir()))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody who may not write")
def test_a_store_that_may_only_be_read_gives_and_fails_nothing() -> None:
    home = Path(tempfile.mkdtemp(dir="/tmp"))  # pytest's own folders are closed to others
    try:
        store = open_store(home / "store")
        store.put(key(), unit(home / "unit"))
        home.chmod(0o777)
        arguments = [str(home / name) for name in ("store", "unit", "out")]
        done = subprocess.run(
            [sys.executable, "-c", UNPRIVILEGED, *arguments, key()],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=True,
        )
        refused, put, got = done.stdout.splitlines()
        assert refused == f"{store.root}: cannot be written (Permission denied); choose another --store"
        assert put.startswith(f"{store.root}: units are not kept in the store (Permission denied)")
        assert got == f"True ['0000.npz', 'metrics.parquet', '{STAMP}']"
    finally:
        shutil.rmtree(home)


RACE = """
import random, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_store import content, fetched, key, unit
from pipeline.store import open_store
from pipeline.store_gc import collect
store, home, until = open_store(Path(sys.argv[2])), Path(sys.argv[3]), time.monotonic() + float(sys.argv[4])
if "copy" in sys.argv:
    import os
    def refuse(*_, **__): raise OSError(18, "Invalid cross-device link")
    os.link = refuse
draw, whole = random.Random(sys.argv[3]), [content(unit(home / str(n), n)) for n in range(3)]
got = collected = 0
for turn in range(10**9):
    if time.monotonic() > until and got > 5 and collected > 1:  # a busy machine takes longer
        break
    n, action = draw.randrange(3), draw.random()
    if action < 0.4:
        said = store.put(key(n), home / str(n))
        assert said is None, said
    elif action < 0.9:
        out = fetched(store, home / f"out{turn}", key(n))
        if out is not None:
            assert content(out) == whole[n]
            got += 1
    else:
        collected += len(collect(store, older_than=0.0).gone)
print(got, collected)
"""


def test_processes_that_put_fetch_and_collect_at_once_only_ever_see_whole_units(tmp_path: Path) -> None:
    open_store(tmp_path / "store")
    children = []
    for number in range(4):
        arguments = [str(Path(__file__).parent), str(tmp_path / "store"), str(tmp_path / f"home{number}"), "0.6"]
        command = [sys.executable, "-c", RACE, *arguments, "copy" if number == 3 else "link"]
        children.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT))
    counts = []
    for child in children:
        out, errors = child.communicate(timeout=60)
        assert child.returncode == 0, errors
        counts.append([int(text) for text in out.split()])
    assert all(got > 5 and collected > 1 for got, collected in counts)
    store = find_store(tmp_path / "store")
    assert list(store.temporary.iterdir()) == [] and list(store.trash.iterdir()) == []


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["put", "fetch", "break", "collect", "use"]), st.integers(0, 2)), max_size=12
)


@settings(max_examples=25, deadline=None)
@given(ACTIONS)
@example([("put", 2), ("break", 2), ("break", 2)])
def test_a_store_holds_what_was_put_since_it_was_last_broken_or_collected(actions: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        store, now = open_store(home / "store"), time.time()
        held: dict[int, bool] = {}  # number -> whether its entry is whole
        used: set[int] = set()
        for turn, (action, n) in enumerate(actions):
            if action == "put":
                store.put(key(n), unit(home / str(turn), n))
                held.setdefault(n, True)
            elif action == "fetch":
                out = fetched(store, home / str(turn), key(n))
                assert (out is not None) == held.get(n, False)
                if out is None:
                    held.pop(n, None)
                else:
                    assert content(out).items() >= {"0000.npz": bytes([n]) * 1000}.items()
            elif action == "break" and n in held:
                (store.entry(key(n)) / "0000.npz").unlink(missing_ok=True)  # it may be broken already
                held[n] = False
            elif action == "use":
                run = home / "run"
                store.register(run)
                shutil.rmtree(unit_folder(run / "arms", 100, "kinect"), ignore_errors=True)
                unit(unit_folder(run / "arms", 100, "kinect"), n)
                used = {n}
            elif action == "collect":
                gone = collect(store, older_than=DAYS, now=now + 10 * DAY).gone
                assert {entry.key for entry in gone} == {key(n) for n in held if n not in used}
                held = {n: whole for n, whole in held.items() if n in used}
        assert {entry.key for entry in entries(store)} == {key(n) for n in held}


@pytest.fixture
def aged(store: Store, tmp_path: Path) -> Store:
    """Units 0 to 3, last used 10, 8, 6 and 4 days ago; a run needs number 0, and another that has gone number 1."""
    for number, days in enumerate((10, 8, 6, 4)):
        store.put(key(number), unit(tmp_path / str(number), number))
        os.utime(store.entry(key(number)), (time.time() - days * DAY,) * 2)
    for run, number in (("run", 0), ("gone", 1)):
        unit(unit_folder(tmp_path / run / "arms" / "partial" / "clouds", 100, "kinect"), number)
        store.register(tmp_path / run)
    shutil.rmtree(tmp_path / "gone")
    return store


def left(store: Store) -> list[int]:
    return [n for n in range(4) if store.entry(key(n)).exists()]


def test_what_no_run_needs_goes_when_it_is_old(aged: Store, tmp_path: Path) -> None:
    assert needed(aged) == {key(0)}
    told = collect(aged, older_than=DAYS, dry_run=True)
    assert [entry.key for entry in told.gone] == [key(1)] and told.needed == 0
    assert left(aged) == [0, 1, 2, 3]
    assert collect(aged, older_than=DAYS).gone == told.gone
    assert left(aged) == [0, 2, 3]
    shutil.rmtree(tmp_path / "run")
    collect(aged, older_than=5.0)
    assert left(aged) == [3]


def test_a_unit_used_again_is_kept(aged: Store, tmp_path: Path) -> None:
    assert fetched(aged, tmp_path / "out", key(1)) is not None
    aged.put(key(2), tmp_path / "2")
    assert collect(aged, older_than=5.0).gone == ()


def test_a_store_is_made_to_fit_the_least_recently_used_first_and_the_needed_last(aged: Store) -> None:
    one = entries(aged)[0].bytes
    assert collect(aged, older_than=100.0, most_bytes=4 * one + 100).gone == ()
    done = collect(aged, older_than=100.0, most_bytes=2 * one + 100)
    assert [entry.key for entry in done.gone] == [key(1), key(2)] and done.needed == 0
    done = collect(aged, older_than=100.0, most_bytes=one - 1)
    assert [entry.key for entry in done.gone] == [key(3), key(0)] and done.needed == 1


def test_what_killed_processes_left_is_swept(aged: Store, tmp_path: Path) -> None:
    (aged.temporary / "killed").mkdir()
    (aged.temporary / "at_work").mkdir()
    os.utime(aged.temporary / "killed", (time.time() - 2 * DAY,) * 2)
    os.utime(next(file for file in aged.runs.iterdir() if "gone" in file.read_text()), (0, 0))
    assert collect(aged, older_than=DAYS, dry_run=True).left_behind == 1
    assert (aged.temporary / "killed").exists()
    assert collect(aged, older_than=DAYS).left_behind == 1
    assert [path.name for path in aged.temporary.iterdir()] == ["at_work"]
    assert [json.loads(file.read_text())["run"] for file in aged.runs.iterdir()] == [str(tmp_path / "run")]


def test_the_commands_say_what_there_is_and_what_goes(aged: Store, tmp_path: Path) -> None:
    def said(*arguments: str) -> str:
        done = CliRunner().invoke(app, [*arguments, str(aged.root)], catch_exceptions=False)
        assert done.exit_code == 0
        return done.output

    assert "all        4 units" in said("size") and "linked in runs too" in said("size")
    lines = said("list").splitlines()
    assert len(lines) == 4 and [line for line in lines if line.endswith("needed")] == [
        line for line in lines if key(0) in line
    ]
    assert "would go   1 unit," in said("gc", "--dry-run") and key(1) in said("gc", "--dry-run")
    assert "gone       1 unit," in said("gc") and left(aged) == [0, 2, 3]
    assert "warning    1 of the units gone belong to runs" in said("gc", "--max-size", "1k")
    with pytest.raises(StoreError, match="no store"):
        CliRunner().invoke(app, ["gc", str(tmp_path)], catch_exceptions=False)


def test_sizes_are_read() -> None:
    assert [number_of_bytes(text) for text in ("800", "50G", "1.5 TB", "3mb")] == [
        800,
        50 * 10**9,
        15 * 10**11,
        3 * 10**6,
    ]
    with pytest.raises(ValueError, match=r"'5 X'.*50G"):
        number_of_bytes("5 X")
