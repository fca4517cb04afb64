"""One spool file: what a commit did and did not do, what is known of its rows, and when its log goes into the file."""

from __future__ import annotations

import gc
import os
import resource
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.edge.spool import SCHEMA, number_of, record
from taskbridge.edge.kafka.record import record_of, row_of
from taskbridge.edge.spool.store import (
    BROKEN_MARK,
    DAMAGED,
    PAGE_BYTES,
    REFUSED,
    TOO_LARGE,
    SpoolBroken,
    SpoolBusy,
    SpoolFull,
    Store,
    classified,
    owners_connection,
    read_only,
)
from taskbridge.schemas.registry import SchemaRef

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from taskbridge.edge.kafka.record import Row


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (sqlite3.SQLITE_FULL, SpoolFull),
        (sqlite3.SQLITE_IOERR_SHMSIZE, SpoolFull),
        (sqlite3.SQLITE_IOERR_SHMMAP, SpoolBroken),
        (sqlite3.SQLITE_IOERR, SpoolBroken),
        (sqlite3.SQLITE_BUSY, SpoolBusy),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, SpoolBusy),
        (sqlite3.SQLITE_LOCKED, SpoolBusy),
        (sqlite3.SQLITE_CORRUPT, SpoolBroken),
    ],
)
def test_errors_that_pass_are_distinguished_from_those_that_last(code: int, expected: type[Exception]) -> None:
    error = sqlite3.OperationalError("injected")
    error.sqlite_errorcode = code
    with pytest.raises(SpoolFull if expected is SpoolBusy else expected) as raised, classified():
        raise error
    assert type(raised.value) is expected


def test_an_error_without_a_code_does_not_mean_that_there_is_no_room() -> None:
    with pytest.raises(SpoolBroken), classified():
        raise sqlite3.ProgrammingError("Cannot operate on a closed database.")


OTHER = SchemaRef("other", '"string"')


@pytest.fixture
def store(tmp_path: Path) -> Generator[Store]:
    store = made(tmp_path / "0.db")
    yield store
    store.close()


def made(path: Path) -> Store:
    Store.create(path, [SCHEMA])
    return Store(path)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_commits_of_many_sizes_leave_nothing_in_memory(store: Store) -> None:
    """As statements that SQLite prepared would, with the values of their last use: one for each number of rows."""
    before = resident_bytes()
    for count in range(1, 41):
        rows = [row_of(record(size=60_000), position=position, created_at=1) for position in range(count)]
        store.write(rows)
        store.write((), delete=[row[0] for row in rows])
        store.checkpoint(emptied=True)
    assert resident_bytes() - before < 25 << 20, "all of them together are 47 MiB"


def test_an_older_sqlite_accepts_the_rows_of_the_largest_commit(store: Store) -> None:
    store._writer.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)  # pyright: ignore[reportPrivateUsage]
    store.write([row_of(record(), position=position, created_at=1) for position in range(1, 1001)])
    assert [row[0] for row in store.read(0, count=2000)] == list(range(1, 1001))


def test_a_commit_is_on_the_disk_and_a_deleted_row_is_not(tmp_path: Path) -> None:
    made(tmp_path / "0.db").close()
    connection = owners_connection(tmp_path / "0.db")
    expected = {"journal_mode": "wal", "synchronous": 2, "wal_autocheckpoint": 0, "secure_delete": 1}
    assert {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in expected} == expected
    connection.close()


def test_who_only_looks_changes_nothing_and_makes_no_file(tmp_path: Path) -> None:
    made(tmp_path / "0.db").close()
    connection = read_only(tmp_path / "0.db")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("DELETE FROM records")
    connection.close()
    for connect in (owners_connection, read_only):
        with pytest.raises(sqlite3.OperationalError, match="unable to open"):
            connect(tmp_path / "1.db").execute("SELECT 1")
    assert not (tmp_path / "1.db").exists()


def row(position: int, size: int = 100) -> Row:
    return row_of(record(position, size=size), position=position, created_at=position * 10)


def positions(store: Store) -> list[int]:
    return [each[0] for each in store.read(0, count=100)]


def rows_of(store: Store, query: str) -> list[tuple[object, ...]]:
    return store._writer.execute(query).fetchall()  # pyright: ignore[reportPrivateUsage]


def test_the_next_position_is_behind_all_that_is_there_also_what_is_set_aside(tmp_path: Path) -> None:
    store = made(tmp_path / "0.db")
    assert store.next_position == 1
    store.write([row(1), row(2), row(7)])
    store.write((), set_aside=[(7, REFUSED)])
    store.close()
    store = Store(tmp_path / "0.db")
    assert store.next_position == 8
    store.write([row(9)])
    store.close()
    store = Store(tmp_path / "0.db")
    assert store.next_position == 10
    store.close()


def test_rows_are_read_in_order_behind_a_position_and_only_so_many(store: Store) -> None:
    store.write([row(3), row(1), row(2)])
    assert [number_of(record_of(each)) for each in store.read(1, count=10)] == [2, 3]
    assert [each[0] for each in store.read(0, count=2)] == [1, 2]


def test_one_transaction_inserts_deletes_and_sets_aside(store: Store) -> None:
    store.write([row(1), row(2), row(3)])
    store.write([row(4)], delete=[1], set_aside=[(2, REFUSED), (3, TOO_LARGE)])
    assert positions(store) == [4]
    assert rows_of(store, "SELECT position, reason FROM set_aside ORDER BY position") == [(2, REFUSED), (3, TOO_LARGE)]


def test_what_is_known_of_its_rows_is_their_number_bytes_oldest_time_and_how_many_are_set_aside(store: Store) -> None:
    assert store.totals() == (0, 0, 0, 0)
    store.write([row(2), row(3), row(4)])
    store.write((), set_aside=[(4, REFUSED)])
    found = [record(number) for number in (2, 3, 4)]
    assert store.totals() == (2, sum(256 + len(each.key) + 2 * len(b"[]") + len(each.body) for each in found), 20, 1)


def test_what_the_broker_refused_is_requeued_and_not_what_is_damaged(store: Store) -> None:
    store.write([row(1), row(2), row(3)])
    store.write((), set_aside=[(1, REFUSED), (2, DAMAGED), (3, TOO_LARGE)])
    assert store.requeue() == 2
    assert positions(store) == [1, 3]
    assert store.totals()[3] == 1
    assert store.requeue() == 0


def test_a_transaction_without_room_did_nothing_and_the_next_one_is_another(store: Store) -> None:
    store.write([row(1)])
    (pages,) = rows_of(store, "PRAGMA page_count")[0]
    rows_of(store, f"PRAGMA max_page_count = {pages}")
    with pytest.raises(SpoolFull):
        store.write([row(2, size=100_000)], delete=[1])
    store.write([row(3)])
    assert positions(store) == [1, 3]


class NoRoom:
    """A connection that finds the disk full at one statement, in the midst of a transaction."""

    def __init__(self, connection: sqlite3.Connection, at: str) -> None:
        self._connection = connection
        self._at = at

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)

    def execute(self, text: str, *arguments: Any) -> sqlite3.Cursor:
        if self._at in text:
            if not self._connection.in_transaction:
                self._connection.execute("BEGIN IMMEDIATE")
            error = sqlite3.OperationalError("full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return self._connection.execute(text, *arguments)


CALLS: dict[str, Callable[[Store], object]] = {
    "COMMIT": lambda store: store.write([row(2)], delete=[1]),
    "wal_checkpoint": lambda store: store.checkpoint(emptied=True),
    "DELETE FROM set_aside": Store.requeue,
}


@pytest.mark.parametrize("at", CALLS)
def test_a_call_without_room_raises_and_leaves_no_transaction_open(
    store: Store, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    store.write([row(1)])
    with monkeypatch.context() as context:
        context.setattr(store, "_writer", NoRoom(store._writer, at))  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(SpoolFull):
            CALLS[at](store)
    store.write([row(3)])
    assert positions(store) == [1, 3]


def test_the_log_goes_into_the_file_once_it_is_long_and_is_cut_only_when_the_spool_is_empty(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows_in_file() -> int:
        with sqlite3.connect(f"file:{store.path}?immutable=1", uri=True) as connection:
            count = connection.execute("SELECT count(*) FROM records").fetchone()[0]
        connection.close()
        return count

    store.write([row(1)])
    assert (rows_in_file(), store.is_log_long) == (0, False)
    written = store.log_bytes
    assert written == Path(f"{store.path}-wal").stat().st_size > 0
    monkeypatch.setattr("taskbridge.edge.spool.store._CHECKPOINT_BYTES", written)
    assert store.is_log_long
    store.checkpoint(emptied=False)
    assert (rows_in_file(), store.log_bytes) == (1, written)
    store.write((), delete=[1])
    store.checkpoint(emptied=True)
    assert (rows_in_file(), store.log_bytes) == (0, 0)


def test_a_checkpoint_waits_for_no_reader_and_a_commit_waits_for_another_writer_as_before(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements = list[str]()
    store._writer.set_trace_callback(statements.append)  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr("taskbridge.edge.spool.store.BUSY_S", 7)
    store.checkpoint(emptied=True)
    assert statements.index("PRAGMA busy_timeout = 0") < statements.index("PRAGMA wal_checkpoint(TRUNCATE)")
    assert rows_of(store, "PRAGMA busy_timeout") == [(7000,)]


def test_a_start_empties_the_log_and_adds_new_schemas(store: Store) -> None:
    store.write([row(1)])
    assert store.log_bytes > 0
    store.start_log([SCHEMA])
    assert store.log_bytes == 0, "nothing was written for a schema that is there"
    store.start_log([SCHEMA, OTHER])
    assert store.schema_texts() == {each.key: (each.subject, each.text) for each in (SCHEMA, OTHER)}
    store.write([row(2)])
    assert positions(store) == [1, 2]


def test_a_new_schema_that_finds_the_file_locked_is_an_error(store: Store) -> None:
    rows_of(store, "PRAGMA busy_timeout = 0")
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store.start_log([SCHEMA])
    with pytest.raises(SpoolBusy):
        store.start_log([OTHER])
    other.execute("ROLLBACK")
    other.close()


def test_a_new_file_takes_the_place_of_one_that_was_never_finished_and_has_its_name_once_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, original = list[str](), os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    path = tmp_path / "0.db"
    (tmp_path / "0.db.new").write_text("torn")
    Store.create(path, [SCHEMA], [row(1)], [(*row(2), REFUSED)])
    assert [each.name for each in tmp_path.iterdir()] == ["0.db"]
    assert synced[-2:] == ["0.db.new", tmp_path.name]
    store = Store(path)
    assert (positions(store), store.totals()[3]) == ([1], 1)
    assert rows_of(store, "PRAGMA auto_vacuum") == [(2,)]
    store.close()


def test_a_new_file_has_a_log_from_the_first_and_no_journal_at_any_time(tmp_path: Path) -> None:
    names = set[str]()

    def rows() -> Generator[Row]:
        yield row(1)
        names.update(each.name for each in tmp_path.iterdir())

    Store.create(tmp_path / "0.db", [SCHEMA], rows())
    assert names == {"0.db.new"}
    assert (tmp_path / "0.db").read_bytes()[18:20] == b"\2\2", "as SQLite marks a file with a log"


def test_its_pages_have_the_size_that_recovery_expects(store: Store) -> None:
    assert rows_of(store, "PRAGMA page_size") == [(PAGE_BYTES,)]


def test_a_file_that_is_not_there_is_not_made_by_opening_it(tmp_path: Path) -> None:
    with pytest.raises(SpoolBroken):
        Store(tmp_path / "0.db")
    assert not list(tmp_path.iterdir())


def test_a_closed_file_has_no_log_and_an_abandoned_one_keeps_it_and_is_marked(tmp_path: Path) -> None:
    closed = made(tmp_path / "0.db")
    closed.write([row(1)])
    closed.close()
    closed.close()
    assert [each.name for each in tmp_path.iterdir()] == ["0.db"]
    abandoned = Store(tmp_path / "0.db")
    abandoned.write([row(2)])
    abandoned.abandon()
    del abandoned
    gc.collect()
    assert (tmp_path / "0.db-wal").stat().st_size > 0
    assert (tmp_path / f"0.db{BROKEN_MARK}").exists()


CLOSES_WHILE_READ = """
import contextlib, sys, threading
from pathlib import Path
from taskbridge.edge.spool.store import SpoolBroken
from taskbridge.edge.spool.store import Store

def read():
    reads.set()
    with contextlib.suppress(SpoolBroken):
        store.{read}

for turn in range(500):
    store, reads = Store(Path(sys.argv[1])), threading.Event()
    reading = threading.Thread(target=read)
    reading.start()
    reads.wait()
    for _ in range(turn):
        pass
    store.close()
    reading.join()
"""


@pytest.mark.parametrize("read", ["read(-1, count=1000)", "schema_texts()"])
def test_it_is_closed_while_somebody_reads(tmp_path: Path, read: str) -> None:
    """As an edge ends whose drainer has requested records: nothing waits for a thread whose task was cancelled."""
    store = made(tmp_path / "0.db")
    store.write([row_of(record(2000), position=at, created_at=1) for at in range(1, 51)])
    store.close()
    ended = subprocess.run([sys.executable, "-c", CLOSES_WHILE_READ.replace("{read}", read), store.path], check=False)
    assert ended.returncode == 0
