"""Torn, truncated, bit-flipped and emptied spool files: start-up works, and all that SQLite reads survives."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from support.edge.spool import SCHEMA, TestProducer, can_mount, fill, number_of, open_client, record, small_disk, until
from taskbridge.edge.kafka.record import record_of, row_of
from taskbridge.edge.spool.metrics import SpoolMetrics
from taskbridge.edge.spool.recovery import examine, open_or_recover, read_intact
from taskbridge.edge.spool.spools import Spools
from taskbridge.edge.spool.store import BROKEN_MARK, PAGE_BYTES, SpoolBroken, SpoolFull, Store
from taskbridge.schemas.registry import SchemaRef

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROWS = 400
FRAME = 24 + PAGE_BYTES

# A process that fills a spool and is gone without closing it: half of the rows are in the file, half in its log.
WRITER = """
import os, sys
from pathlib import Path
sys.path.insert(0, "tests")
from taskbridge.edge.kafka.record import row_of
from taskbridge.edge.spool.store import Store
from support.edge.spool import SCHEMA, record
path = Path(sys.argv[1])
Store.create(path, [SCHEMA])
store = Store(path)
def size(each):
    return 9000 if each % 10 == 0 else 600
rows = [row_of(record(each, size=size(each)), position=each, created_at=each) for each in range(1, 401)]
for at in range(0, 200, 20):
    store.write(rows[at : at + 20])
store._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
for at in range(200, 400, 20):
    store.write(rows[at : at + 20])
os._exit(0)
"""


@dataclass(frozen=True)
class Damage:
    name: str
    do: Callable[[Path, Path], None]
    """To the file and its log."""
    least: int
    """Rows that are still there."""
    set_aside: bool = True
    most: int = ROWS


def flip(path: Path, at: int, count: int = 1) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        content = file.read(count)
        file.seek(at)
        file.write(bytes(each ^ 0xFF for each in content))


def truncate(path: Path, size: int) -> None:
    os.truncate(path, size)


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(3 * PAGE_BYTES))


def middle_leaf(path: Path) -> int:
    """Where a page of rows starts, in the middle of the file."""
    content = path.read_bytes()
    pages = [at for at in range(PAGE_BYTES, len(content), PAGE_BYTES) if content[at] == 0x0D]
    return pages[len(pages) // 2]


def other_database(db: Path, log: Path) -> None:
    log.unlink()
    db.unlink()
    db.with_name("0.db-shm").unlink(missing_ok=True)
    with sqlite3.connect(db) as connection:
        connection.execute("CREATE TABLE t (a)")
    connection.close()


DAMAGES = [
    Damage("nothing", lambda _db, _log: None, ROWS, set_aside=False),
    Damage(
        "the log torn in its last frame",
        lambda _db, log: truncate(log, log.stat().st_size - 100),
        ROWS - 20,
        set_aside=False,
    ),
    Damage(
        "the log cut in half",
        lambda _db, log: truncate(log, log.stat().st_size // 2),
        250,
        set_aside=False,
        most=ROWS - 20,
    ),
    Damage("a bit flipped early in the log", lambda _db, log: flip(log, 32 + 24 + 2000), 200),
    Damage("a bit flipped in the middle of the log", lambda _db, log: flip(log, 32 + 30 * FRAME + 2000), 220),
    Damage("the log's header destroyed", lambda _db, log: flip(log, 0, 32), 200),
    Damage("the log gone", lambda _db, log: log.unlink(), 200, set_aside=False, most=200),
    Damage(
        "the first page destroyed, a sound one in the log",
        lambda db, _log: flip(db, 0, PAGE_BYTES),
        ROWS,
        set_aside=False,
    ),
    Damage("the first page destroyed", lambda db, log: (log.unlink(), flip(db, 0, PAGE_BYTES))[0], 0, most=200),
    Damage("the header flipped", lambda db, log: (log.unlink(), flip(db, 5))[0], 0, most=200),
    Damage("a page of rows destroyed", lambda db, _log: flip(db, middle_leaf(db), PAGE_BYTES), ROWS - 25),
    Damage("a cell pointer destroyed", lambda db, _log: flip(db, middle_leaf(db) + 8, 2), ROWS - 3),
    Damage("the file cut in half", lambda db, _log: truncate(db, db.stat().st_size // 2), 280),
    Damage(
        "the file cut within a page",
        lambda db, _log: truncate(db, db.stat().st_size - 1000),
        ROWS - 25,
        set_aside=False,  # as a power failure may leave it: rows show it themselves
    ),
    Damage("the file emptied", lambda db, _log: truncate(db, 0), 0),
    Damage("the file gone, its log still there", lambda db, _log: db.unlink(), 0),
    Damage("the file is something else", lambda db, _log: garbage(db), 150),
    Damage("both emptied", lambda db, log: (truncate(db, 0), truncate(log, 0))[0], 0, most=0),
    Damage("the file another database", other_database, 0, most=0),
]


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crashed")
    subprocess.run([sys.executable, "-c", WRITER, str(folder / "0.db")], check=True)
    return folder


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_start_up_works_and_what_is_intact_is_delivered(tmp_path: Path, crashed: Path, damage: Damage) -> None:
    folder = tmp_path / "spool"
    shutil.copytree(crashed, folder)
    damage.do(folder / "0.db", folder / "0.db-wal")
    before = {each.name: each.read_bytes() for each in folder.glob("0.db*") if not each.name.endswith("-shm")}

    async def scenario() -> TestProducer:
        producer, metrics = TestProducer(), SpoolMetrics()
        spools = Spools(folder, [SCHEMA], await open_client(producer), max_bytes=1 << 30, metrics=metrics)
        await spools.start()
        assert spools.problem is None
        await until(lambda: spools.waiting == 0)
        await spools.own.put(record(9999))
        await until(lambda: producer.delivered[-1:] == [9999])
        await spools.close()
        assert metrics._files_damaged._value.get() == damage.set_aside  # pyright: ignore[reportPrivateUsage]
        return producer

    producer = asyncio.run(scenario())
    found = producer.delivered[:-1]
    assert damage.least <= len(found) <= damage.most
    assert found == sorted(set(found)), "in order, none twice"
    aside = list(folder.glob("0.db.damaged-*"))
    assert bool(aside) is damage.set_aside
    if damage.set_aside:  # byte for byte, also its log
        contents = {each.read_bytes() for each in aside}
        assert {content for content in before.values() if content} <= contents
    assert examine(folder / "0.db") is None


def test_every_bit_flip_leaves_all_rows_but_those_of_its_page(tmp_path: Path, crashed: Path) -> None:
    size = (crashed / "0.db").stat().st_size
    for number in range(40):
        folder = tmp_path / str(number)
        shutil.copytree(crashed, folder)
        flip(folder / "0.db", number * size // 40 + number)
        opened = open_or_recover(folder / "0.db", [SCHEMA])
        rows = opened.store.read(-1, count=1000)
        intact = [row for row in rows if is_intact(row)]
        opened.store.close()
        # A page holds seven small rows; the flipped byte may also be the link from a large row to the rest of it.
        assert len(intact) >= ROWS - 8, number
        assert len(rows) == len(intact) or opened.damaged is None


def is_intact(row: list[object]) -> bool:
    try:
        return number_of(record_of(row)) == row[0]
    except (ValueError, TypeError):
        return False


def test_a_crash_in_the_middle_of_a_recovery_loses_nothing(
    tmp_path: Path, crashed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "spool"
    shutil.copytree(crashed, folder)
    path = folder / "0.db"
    flip(path, middle_leaf(path) + 3, 2)

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for where in (
        "taskbridge.edge.spool.recovery._move_aside",
        "taskbridge.edge.spool.recovery.sync",
    ):
        with monkeypatch.context() as context:
            context.setattr(where, crash)
            with pytest.raises(KeyboardInterrupt):
                open_or_recover(path, [SCHEMA])
    opened = open_or_recover(path, [SCHEMA])
    assert len(opened.store.read(-1, count=1000)) >= ROWS - 8
    opened.store.close()


def test_what_was_delivered_leaves_nothing_that_a_recovery_would_find(tmp_path: Path, crashed: Path) -> None:
    folder = tmp_path / "spool"
    shutil.copytree(crashed, folder)
    store = Store(folder / "0.db")
    store.write((), delete=range(1, 301))
    assert positions(folder / "0.db") == list(range(301, 401))
    store.close()
    assert positions(folder / "0.db") == list(range(301, 401))


def in_motion(folder: Path, commits: int) -> Path:
    """A file as its owner left it who was killed: so many commits of a row stand in its log, and nothing elsewhere."""
    path, killed = folder / "0.db", folder / "killed"
    Store.create(path, [SCHEMA])
    store = Store(path)
    for number in range(1, commits + 1):
        store.write([row_of(record(number), position=number, created_at=number)])
    killed.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", killed)
    store.close()
    return killed / "0.db"


@pytest.mark.parametrize(("behind", "is_sound"), [(0, True), (1, True), (2, False)])
def test_one_transaction_behind_what_sqlite_accepts_is_a_power_failure_and_two_are_damage(
    tmp_path: Path, behind: int, *, is_sound: bool
) -> None:
    path = in_motion(tmp_path, commits=4)
    log = path.with_name("0.db-wal")
    content = log.read_bytes()
    ends = [at for at in range(32, len(content), FRAME) if any(content[at + 4 : at + 8])]
    if behind:
        flip(log, ends[-behind] + 24 + 100)
    assert (examine(path) is None) is is_sound
    assert positions(path)[: 4 - behind] == list(range(1, 5 - behind))


@pytest.mark.parametrize("change", ["PRAGMA user_version = 2", "DROP TABLE set_aside"])
def test_a_file_of_another_version_or_without_a_table_is_not_taken_for_a_spool(tmp_path: Path, change: str) -> None:
    path = tmp_path / "0.db"
    Store.create(path, [SCHEMA], [row_of(record(1), position=1, created_at=1)])
    with sqlite3.connect(path) as connection:
        connection.execute(change)
    connection.close()
    assert examine(path) == "it is not a spool of this version"
    opened = open_or_recover(path, [SCHEMA])
    assert (opened.rows_saved, opened.rows_damaged) == (1, 0)
    assert opened.damaged is not None
    opened.store.close()


def test_a_sound_file_is_opened_with_an_empty_log_and_new_schemas(tmp_path: Path) -> None:
    path, other = in_motion(tmp_path, commits=2), SchemaRef("other", '"string"')
    opened = open_or_recover(path, [SCHEMA])
    assert (opened.damaged, opened.rows_saved, opened.rows_damaged) == (None, 0, 0)
    assert opened.store.log_bytes == 0
    opened.store.close()
    opened = open_or_recover(path, [SCHEMA, other])
    assert opened.store.schema_texts().keys() == {SCHEMA.key, other.key}
    opened.store.close()


@pytest.mark.parametrize(("error", "is_marked"), [(SpoolFull("no room"), False), (SpoolBroken("I/O"), True)])
def test_a_file_that_cannot_be_begun_is_not_opened_and_one_whose_disk_failed_is_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, *, is_marked: bool
) -> None:
    def start_log(*_: object) -> None:
        raise error

    def close(store: Store) -> None:
        closed.append(store)

    closed = list[Store]()
    monkeypatch.setattr(Store, "start_log", start_log)
    monkeypatch.setattr(Store, "close", close)
    with pytest.raises(type(error)):
        open_or_recover(tmp_path / "0.db", [SCHEMA])
    assert (tmp_path / f"0.db{BROKEN_MARK}").exists() is is_marked
    assert (closed == []) is is_marked, "a failing disk is not written by closing"


def test_a_disk_that_cannot_be_read_says_nothing_about_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = in_motion(tmp_path, commits=1)

    def unreadable(_: Path) -> bool:
        raise OSError("unplugged")

    monkeypatch.setattr("taskbridge.edge.spool.recovery._is_empty", unreadable)
    with pytest.raises(SpoolBroken, match="unplugged"):
        examine(path)


@pytest.mark.skipif(not can_mount(), reason="needs a disk of its own")
def test_a_file_is_opened_on_a_disk_that_it_fills(tmp_path: Path, crashed: Path) -> None:
    """Else what it holds could never leave, and the disk would stay full."""
    disk = tmp_path / "disk"
    with small_disk(disk, megabytes=8):
        for suffix in ("", "-wal", "-shm"):
            shutil.copy(crashed / f"0.db{suffix}", disk)
        fill(disk)
        opened = open_or_recover(disk / "0.db", [SCHEMA])
        found = [row[0] for row in opened.store.read(0, count=2 * ROWS)]
        opened.store.close()
    assert found == list(range(1, ROWS + 1))
    assert opened.damaged is None


def positions(path: Path) -> list[int]:
    return [row[0] for row in read_intact(path).records]


def test_what_was_set_aside_stays_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "0.db"
    refused = (*row_of(record(2), position=2, created_at=1), "refused")
    Store.create(path, [SCHEMA], [row_of(record(0), position=0, created_at=1)], [refused])
    salvage = read_intact(path)
    assert (salvage.set_aside, salvage.damaged) == ([list(refused)], 0)
    assert positions(path) == [0]


def test_a_schema_is_recovered_by_its_key_and_none_that_is_damaged(tmp_path: Path) -> None:
    path, other = tmp_path / "0.db", SchemaRef("other", '"string"')
    Store.create(path, [SCHEMA, other])
    path.with_name(f"0.db{BROKEN_MARK}").touch()
    open_or_recover(path, []).store.close()
    assert read_intact(path).schemas == {SCHEMA, other}
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE schemas SET subject = 'another' WHERE key = ?", (SCHEMA.key,))
        connection.execute("UPDATE schemas SET text = 'no JSON' WHERE key = ?", (other.key,))
    connection.close()
    assert read_intact(path).schemas == set()


def test_a_damaged_row_is_set_aside_with_any_text_and_number(tmp_path: Path) -> None:
    path = tmp_path / "0.db"
    damaged: Any = (
        1,
        0.5,
        b"task\xff".decode("utf-8", "surrogateescape"),
        *row_of(record(1), position=1, created_at=1)[3:],
    )
    damaged = tuple(each.encode("utf-8", "surrogateescape") if isinstance(each, str) else each for each in damaged)
    Store.create(path, [SCHEMA], [damaged, row_of(record(2), position=2, created_at=1)])
    path.with_name(f"0.db{BROKEN_MARK}").touch()
    opened = open_or_recover(path, [SCHEMA])
    assert (opened.rows_saved, opened.rows_damaged) == (1, 1)
    assert opened.store.totals()[::3] == (1, 1)
    opened.store.close()


def test_a_file_that_sqlite_read_whole_is_not_kept_and_any_other_is(tmp_path: Path) -> None:
    path = tmp_path / "0.db"
    Store.create(path, [SCHEMA], [row_of(record(1), position=1, created_at=1)])
    path.with_name(f"0.db{BROKEN_MARK}").touch()  # as an I/O error leaves it
    open_or_recover(path, [SCHEMA]).store.close()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["0.db"]
    for _ in range(2):
        path.write_bytes(b"nonsense")
        open_or_recover(path, [SCHEMA]).store.close()
    assert len(list(tmp_path.glob("*.damaged-*"))) == 2


def test_transactions_of_an_earlier_use_of_the_log_are_none_of_its_present_use(tmp_path: Path) -> None:
    """A header is there before the first frame: a crash in between leaves the frames of before."""
    path, log = tmp_path / "0.db", tmp_path / "0.db-wal"
    Store.create(path, [SCHEMA])
    store = Store(path)
    headers, frames = list[bytes](), list[bytes]()
    for number in (1, 2):
        for each in (10 * number, 10 * number + 1):
            store.write([row_of(record(each), position=each, created_at=each)])
        headers.append(log.read_bytes()[:32])
        frames.append(log.read_bytes()[32:])
        store._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()  # pyright: ignore[reportPrivateUsage]
    store.close()
    log.write_bytes(headers[1] + frames[0])
    path.with_name("0.db-shm").unlink(missing_ok=True)
    assert examine(path) is None
    log.write_bytes(headers[1] + frames[1])
    flip(log, 31)
    assert examine(path) == "its log is damaged before its end"
