"""One spool file: SQLite in WAL mode with ``synchronous=FULL``. All calls block: run them in a thread.

A commit that returns is on the disk. A failure is one of two kinds: no room (rolled back whole, and tried again later),
or an I/O error, after which nothing that the connection returns may be trusted.

NotDurable
├── SpoolFull          rolled back whole; tried again by itself
│   └── SpoolBusy
└── SpoolBroken        never tried again on this file: a new file takes over its intact rows
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sqlite3
import threading
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from taskbridge.edge.errors import NotDurable

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence
    from pathlib import Path

    from taskbridge.edge.kafka.record import Row
    from taskbridge.schemas.registry import SchemaRef


_FULL_CODES = frozenset({
    sqlite3.SQLITE_FULL,
    # The index of the log, which is rebuilt from it, could not grow: nothing was written, and there is no room.
    sqlite3.SQLITE_IOERR_SHMSIZE,
})  # fmt: skip
_BUSY_CODES = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_PRIMARY = 0xFF
BUSY_S = 5
_STATEMENTS = 4
"""Kept by a connection for the next use: those of one commit. Each keeps its values, so with Python's 128, one for each
number of rows, the memory of the edge would hold a hundred old commits."""
_STATEMENT_ROWS = 100
"""Inserted by one statement: before version 3.32, SQLite accepts 999 values in one."""
PAGE_BYTES = 4096
VERSION = 1
BROKEN_MARK = ".broken"
DAMAGED = "damaged"
TOO_LARGE = "too-large"
REFUSED = "refused"
_CHECKPOINT_BYTES = 4 << 20
_ROW = "position, created_at, topic, key, headers, schema, body, checksum"
_SCHEMA = f"""
CREATE TABLE records (
    position INTEGER PRIMARY KEY, created_at INTEGER NOT NULL, topic TEXT NOT NULL, key BLOB NOT NULL,
    headers BLOB NOT NULL, schema TEXT NOT NULL, body BLOB NOT NULL, checksum INTEGER NOT NULL
);
CREATE TABLE set_aside (
    position INTEGER PRIMARY KEY, created_at, topic, key, headers, schema, body, checksum, reason TEXT NOT NULL
);
CREATE TABLE schemas (key TEXT PRIMARY KEY, subject TEXT NOT NULL, text TEXT NOT NULL);
PRAGMA user_version = {VERSION};
"""


class SpoolFull(NotDurable):
    """The spool has no room, by its own bound or on the disk; it accepts callbacks again when there is."""


class SpoolBusy(SpoolFull):
    """Another process has locked the spool's file."""


class SpoolBroken(NotDurable):
    """Reading or writing the spool's file failed: nothing that it says can be believed any more."""


@contextlib.contextmanager
def classified() -> Generator[None]:
    """Raise any error of SQLite as SpoolFull, SpoolBusy or SpoolBroken."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0)
        if code in _FULL_CODES:
            raise SpoolFull("the spool's disk is full") from error
        if code & _PRIMARY in _BUSY_CODES:
            raise SpoolBusy("another process has locked the spool's file") from error
        raise SpoolBroken(f"the spool's file: {error}") from error


def owners_connection(path: Path) -> sqlite3.Connection:
    """A connection to an existing file, for any thread, which checkpoints only on request."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_S,
        cached_statements=_STATEMENTS,
    )
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    assert mode == "wal", mode
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    # Delivered records leave nothing behind: neither people's form values, nor rows that a recovery would find again.
    connection.execute("PRAGMA secure_delete = ON")
    connection.text_factory = _text
    return connection


def read_only(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing, not even when it is closed. It may be opened while the owner writes."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=BUSY_S)
    connection.text_factory = _text
    return connection


def _text(raw: bytes) -> str:
    # Damaged text is a damaged row, as its checksum shows, and not an error of the whole file.
    return raw.decode("utf-8", "surrogateescape")


class Totals(NamedTuple):
    """What a spool file holds."""

    rows: int
    """Records that wait for delivery."""
    size: int
    """Bytes of these, and of the records set aside, which may be requeued."""
    oldest: int
    """When the oldest was written, in nanoseconds since the epoch; 0 where there is none."""
    set_aside: int


class Store:
    """An open spool file that is known to be sound. One connection writes, another one reads."""

    def __init__(self, path: Path) -> None:
        """Open an existing file. Raises SpoolFull or SpoolBroken."""
        self.path = path
        self._wal_path = path.with_name(path.name + "-wal")
        with classified():
            self._writer = owners_connection(path)
            self._reader = owners_connection(path)
            # Python ends by a signal where a connection is closed by one thread while another reads from it.
            self._in_use = threading.Lock()
            self.next_position = 1 + max(self._scalar("max(position)", each) or 0 for each in ("records", "set_aside"))

    @staticmethod
    def create(path: Path, schemas: Iterable[SchemaRef], rows: Iterable[Row] = (), set_aside: Any = ()) -> None:
        """Make a whole, durable file under a name of its own: a process that sees ``path`` sees all of it.

        Raises SpoolFull, SpoolBroken.
        """
        unfinished = path.with_name(path.name + ".new")
        try:
            unfinished.unlink(missing_ok=True)
            with classified(), contextlib.closing(sqlite3.connect(unfinished, isolation_level=None)) as connection:
                connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
                # Its name is what makes it whole. A journal could outlive it, and be applied to another file.
                connection.execute("PRAGMA journal_mode = OFF")
                connection.executescript(_SCHEMA)
                connection.execute("BEGIN")
                known = [(each.key, each.subject, each.text) for each in schemas]
                connection.executemany("INSERT OR IGNORE INTO schemas VALUES (?, ?, ?)", known)
                connection.executemany("INSERT OR IGNORE INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
                connection.executemany("INSERT OR IGNORE INTO set_aside VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", set_aside)
                connection.execute("COMMIT")
                # Now: turned on later, it would be one more change of a file that is in use, by a journal of its own.
                connection.execute("PRAGMA journal_mode = WAL")
            sync(unfinished)
            unfinished.replace(path)
            sync(path.parent)
        except OSError as error:
            raise SpoolFull(f"the spool's file cannot be created: {error}") from error

    def write(
        self, rows: Sequence[Row], *, delete: Sequence[int] = (), set_aside: Sequence[tuple[int, str]] = ()
    ) -> None:
        """Insert, delete and set aside in one transaction, on the disk when this returns.

        Raises:
            SpoolFull, SpoolBusy: rolled back, nothing of it happened.
            SpoolBroken: whether it happened is not known. Never call the store again.
        """
        with self._transaction():
            # Together: each statement gives the interpreter's lock up once, and gets it back after a fight.
            for at in range(0, len(rows), _STATEMENT_ROWS):
                some = rows[at : at + _STATEMENT_ROWS]
                values = ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?)"] * len(some))
                self._writer.execute(f"INSERT INTO records VALUES {values}", [*chain.from_iterable(some)])  # noqa: S608
            for position, reason in set_aside:
                copy = f"INSERT OR REPLACE INTO set_aside SELECT {_ROW}, ? FROM records WHERE position = ?"  # noqa: S608
                self._writer.execute(copy, (reason, position))
            gone = [(each,) for each in (*delete, *(position for position, _ in set_aside))]
            if gone:
                self._writer.executemany("DELETE FROM records WHERE position = ?", gone)

    def checkpoint(self, *, emptied: bool) -> None:
        """Move the log into the file, which also gives the room of an empty spool back.

        SQLite would do it inside a commit and swallow the errors of it, so it is done here instead.

        Raises:
            SpoolFull: the log keeps everything; later, then.
            SpoolBroken
        """
        try:
            with classified():
                # A reader may take long; the next commit tries again.
                self._writer.execute("PRAGMA busy_timeout = 0")
                if emptied:
                    # It frees one page a step, and ``execute`` makes only one.
                    self._writer.executescript("PRAGMA incremental_vacuum")
                self._writer.execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if emptied else 'PASSIVE'})").fetchall()
        except SpoolFull:
            self._roll_back()
            raise
        finally:
            with classified():
                self._writer.execute(f"PRAGMA busy_timeout = {int(BUSY_S * 1000)}")

    @property
    def is_log_long(self) -> bool:
        """A checkpoint is due."""
        return self.log_bytes >= _CHECKPOINT_BYTES

    @property
    def log_bytes(self) -> int:
        with contextlib.suppress(OSError):
            return self._wal_path.stat().st_size
        return 0

    def read(self, after: int, *, count: int) -> list[Any]:
        """Up to so many raw rows behind a position, in order. Raises SpoolBroken."""
        query = f"SELECT {_ROW} FROM records WHERE position > ? ORDER BY position LIMIT ?"  # noqa: S608 - constants
        with classified():
            return self._rows(query, (after, count))

    def totals(self) -> Totals:
        """What the file holds. Raises SpoolBroken."""
        query = (
            "SELECT count(*), coalesce(sum(256 + length(key) + 2 * length(headers) + length(body)), 0),"
            " max(0, coalesce(min(CAST(created_at AS INTEGER)), 0)) FROM {}"
        )
        with classified():
            [(count, size, oldest)] = self._rows(query.format("records"))
            [(set_aside, more, _)] = self._rows(query.format("set_aside"))
        return Totals(count, size + more, oldest, set_aside)

    def schema_texts(self) -> dict[str, tuple[str, str]]:
        """Schema key → subject and text, of everything that any row was ever encoded by."""
        with classified():
            found = self._rows("SELECT key, subject, text FROM schemas")
        return {key: (subject, text) for key, subject, text in found}

    def start_log(self, schemas: Iterable[SchemaRef]) -> None:
        """Start the log again, so that it holds nothing after the writes of this process, and add schemas.

        A disk without room does not keep the file from being opened: what it holds may be what fills the disk.

        Raises:
            SpoolFull: a schema is new, and finds no room.
            SpoolBroken
        """
        with contextlib.suppress(SpoolFull), classified():
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        there = self.schema_texts()
        known = [(each.key, each.subject, each.text) for each in schemas if each.key not in there]
        if known:
            with self._transaction():
                self._writer.executemany("INSERT OR IGNORE INTO schemas VALUES (?, ?, ?)", known)

    def requeue(self) -> int:
        """Return what the broker refused to the queue, and not what is damaged; returns how many.

        Raises:
            SpoolFull, SpoolBusy: rolled back, nothing of it happened.
            SpoolBroken
        """
        refused = f"FROM set_aside WHERE reason IN ('{TOO_LARGE}', '{REFUSED}')"
        with self._transaction():
            self._writer.execute(f"INSERT OR IGNORE INTO records SELECT {_ROW} {refused}")
            return self._writer.execute(f"DELETE {refused}").rowcount

    def close(self) -> None:
        with self._in_use, contextlib.suppress(sqlite3.Error):
            self._reader.close()
            self._writer.close()

    def abandon(self) -> None:
        """Leave a broken file unchanged, marked for the next start.

        A closed connection would move the log into the file and believe the disk once more, so these stay open until
        the process ends.
        """
        for connection in (self._writer, self._reader):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
        with contextlib.suppress(OSError):
            self.path.with_name(self.path.name + BROKEN_MARK).touch()

    @contextlib.contextmanager
    def _transaction(self) -> Generator[None]:
        """One of all that the block does; rolled back whole where there is no room."""
        try:
            with classified():
                self._writer.execute("BEGIN IMMEDIATE")
                yield
                self._writer.execute("COMMIT")
        except SpoolFull:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        with classified():
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")

    def _scalar(self, what: str, table: str) -> Any:
        return self._rows(f"SELECT {what} FROM {table}")[0][0]  # noqa: S608 - constants

    def _rows(self, query: str, parameters: tuple[int, ...] = ()) -> list[Any]:
        with self._in_use:
            return self._reader.execute(query, parameters).fetchall()


def sync(path: Path) -> None:
    """Put a file, or the names in a folder, onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
