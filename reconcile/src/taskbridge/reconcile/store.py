"""The SQLite database of reconcile: states, cursors, comparisons, absences and findings. It survives restarts."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, NamedTuple

from taskbridge.dingtalk.times import DAY_MS, day_of
from taskbridge.reconcile.applications import AppTokens
from taskbridge.reconcile.form_store import FormStore
from taskbridge.reconcile.repairs import LOST, Kind
from taskbridge.reconcile.rows import Rows
from taskbridge.reconcile.states import States
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from taskbridge.reconcile.repairs import Repair

FILE_NAME = "reconcile.db"
_BUSY_S = 30.0
"""How long a command waits for the service, or the service for a command. Each locks the file for milliseconds."""
_TABLES = """
CREATE TABLE IF NOT EXISTS cursors (
    work TEXT NOT NULL, corp_id TEXT NOT NULL, app_type TEXT NOT NULL, form_uuid TEXT NOT NULL,
    since_ms INTEGER NOT NULL, until_ms INTEGER NOT NULL, PRIMARY KEY (work, corp_id, app_type, form_uuid)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS asked (
    corp_id TEXT NOT NULL, app_type TEXT NOT NULL, instance_id TEXT NOT NULL, modified TEXT NOT NULL,
    PRIMARY KEY (corp_id, app_type, instance_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS absences (
    corp_id TEXT NOT NULL, app_type TEXT NOT NULL, instance_id TEXT NOT NULL, first_ms INTEGER NOT NULL,
    PRIMARY KEY (corp_id, app_type, instance_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS absent_forms (
    corp_id TEXT NOT NULL, app_type TEXT NOT NULL, form_uuid TEXT NOT NULL, at_ms INTEGER NOT NULL,
    PRIMARY KEY (corp_id, app_type, form_uuid)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS repaired (event_id TEXT PRIMARY KEY, at_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS repaired_at ON repaired (at_ms);
CREATE TABLE IF NOT EXISTS repairs_by_day (
    corp_id TEXT NOT NULL, app_type TEXT NOT NULL, day TEXT NOT NULL, kind TEXT NOT NULL, work TEXT NOT NULL,
    events INTEGER NOT NULL, PRIMARY KEY (corp_id, app_type, day, kind, work)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS repairs (
    app_type TEXT NOT NULL, kind TEXT NOT NULL, work TEXT NOT NULL, events INTEGER NOT NULL,
    PRIMARY KEY (app_type, kind, work)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS problems (
    work TEXT PRIMARY KEY, at_ms INTEGER NOT NULL, problem TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS schedule (
    id INTEGER PRIMARY KEY CHECK (id = 1), due_ms INTEGER NOT NULL, failures INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS passes (ended_ms INTEGER PRIMARY KEY, is_whole INTEGER NOT NULL);
"""
_REPEATED_MS = 30 * DAY_MS
"""How long a repair that is published again counts as the same: as long as its event is on the topic."""
_DAYS_MS = 400 * DAY_MS
"""How long the numbers of a day are stored."""


def open_database(folder: Path) -> sqlite3.Connection:
    """Open or create the database in this folder. Each statement is durable when it returns.

    Raises:
        ConfigurationError: The folder or the file cannot be used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(folder / FILE_NAME, timeout=_BUSY_S, isolation_level=None)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
    except (OSError, sqlite3.Error) as error:
        raise ConfigurationError(f"data folder {folder}: {error}") from error
    return database


class CursorKey(NamedTuple):
    """A form, and the work that reads it: ``reconcile``, ``backfill`` or ``form-data``."""

    work: str
    corp_id: str
    app_type: str
    form_uuid: str


class Cursor(NamedTuple):
    """All changes from ``since_ms`` until before ``until_ms`` were checked."""

    since_ms: int
    until_ms: int


class Cursors(Rows):
    def find(self, key: CursorKey) -> Cursor | None:
        row = self._database.execute(
            "SELECT since_ms, until_ms FROM cursors WHERE (work, corp_id, app_type, form_uuid) = (?, ?, ?, ?)", key
        ).fetchone()
        return None if row is None else Cursor(*row)

    def move(self, key: CursorKey, cursor: Cursor) -> None:
        self._database.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?, ?, ?, ?, ?)", (*key, *cursor))

    def extend(self, key: CursorKey, first_ms: int, *, until_ms: int) -> None:
        """Another work checked all changes from ``first_ms`` until then: of use to one that is as far as that."""
        cursor = self.find(key)
        if cursor is not None and first_ms <= cursor.until_ms < until_ms:
            self.move(key, Cursor(cursor.since_ms, until_ms))

    def delete(self, key: CursorKey) -> None:
        self._database.execute("DELETE FROM cursors WHERE (work, corp_id, app_type, form_uuid) = (?, ?, ?, ?)", key)

    def delete_work(self, work: str) -> None:
        self._database.execute("DELETE FROM cursors WHERE work = ?", (work,))

    def all(self) -> list[tuple[CursorKey, Cursor]]:
        rows = self._database.execute(
            "SELECT work, corp_id, app_type, form_uuid, since_ms, until_ms FROM cursors ORDER BY 1, 2, 3, 4"
        )
        return [(CursorKey(*row[:4]), Cursor(*row[4:])) for row in rows.fetchall()]


class Compared(Rows):
    """The modification at which each instance was last compared, so that no pass repeats the comparison."""

    def last_modified(self, corp_id: str, app_type: str, instance_id: str) -> str | None:
        """The time of modification, in DingTalk's text, of the last comparison."""
        query = "SELECT modified FROM asked WHERE (corp_id, app_type, instance_id) = (?, ?, ?)"
        return self._first(query, (corp_id, app_type, instance_id))

    def record(self, corp_id: str, app_type: str, instance_id: str, modified: str) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO asked VALUES (?, ?, ?, ?)", (corp_id, app_type, instance_id, modified)
        )


class Absences(Rows):
    """When DingTalk first had no such instance. Only a second absence, at least a day later, is a deletion."""

    def record(self, corp_id: str, app_type: str, instance_id: str, *, now_ms: int) -> int | None:
        """Record an absence. Return the time of the first one, or None if that is less than a day ago."""
        key = corp_id, app_type, instance_id
        self._database.execute("INSERT OR IGNORE INTO absences VALUES (?, ?, ?, ?)", (*key, now_ms))
        first_ms = self._first("SELECT first_ms FROM absences WHERE (corp_id, app_type, instance_id) = (?, ?, ?)", key)
        return first_ms if now_ms - first_ms >= DAY_MS else None

    def delete(self, corp_id: str, app_type: str, instance_id: str) -> None:
        """DingTalk returned the instance, so an earlier absence was wrong."""
        self._database.execute(
            "DELETE FROM absences WHERE (corp_id, app_type, instance_id) = (?, ?, ?)", (corp_id, app_type, instance_id)
        )

    def all(self) -> list[tuple[str, str, str, int]]:
        """Corp, app and instance of each, and the time of the first absence."""
        return self._database.execute(
            "SELECT corp_id, app_type, instance_id, first_ms FROM absences ORDER BY first_ms"
        ).fetchall()

    def due(self, corp_id: str, app_type: str, *, now_ms: int) -> list[str]:
        """Instances to read a second time now."""
        return self._firsts(
            "SELECT instance_id FROM absences WHERE corp_id = ? AND app_type = ? AND first_ms <= ? ORDER BY first_ms",
            (corp_id, app_type, now_ms - DAY_MS),
        )


class AbsentForms(Rows):
    """When DingTalk had no such form. For a day no call is spent on it again."""

    def record(self, corp_id: str, app_type: str, form_uuid: str, *, now_ms: int) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO absent_forms VALUES (?, ?, ?, ?)", (corp_id, app_type, form_uuid, now_ms)
        )

    def recent(self, corp_id: str, app_type: str, *, now_ms: int) -> set[str]:
        """The app's forms that were absent within the last day. Older records are deleted."""
        self._database.execute("DELETE FROM absent_forms WHERE at_ms <= ?", (now_ms - DAY_MS,))
        query = "SELECT form_uuid FROM absent_forms WHERE (corp_id, app_type) = (?, ?)"
        return {*self._firsts(query, (corp_id, app_type))}


class Count(NamedTuple):
    corp_id: str
    app_type: str
    day: str
    """The day of the event, in China's time."""
    kind: Kind
    work: str
    """The work that found it: ``reconcile``, ``read-back`` or ``backfill``."""
    repairs: int

    @property
    def is_lost(self) -> bool:
        """Whether a callback is missing for it."""
        return self.kind in LOST


class Findings(Rows):
    """The repairs, each counted once even if it was published several times, and the ends of passes."""

    def record(self, repairs: Iterable[Repair], *, work: str) -> None:
        """Count these repairs, which are durable in Kafka."""
        with self.transaction():
            for kind, event in ((each.kind, each.event) for each in repairs):
                new = self._database.execute(
                    "INSERT OR IGNORE INTO repaired VALUES (?, ?)", (event.event_id, event.received_at)
                )
                if new.rowcount:
                    self._database.execute(
                        "INSERT INTO repairs_by_day VALUES (?, ?, ?, ?, ?, 1)"
                        " ON CONFLICT DO UPDATE SET events = events + 1",
                        (event.corp_id, event.app_type, day_of(event.occurred_at), kind, work),
                    )
                    self._database.execute(
                        "INSERT INTO repairs VALUES (?, ?, ?, 1) ON CONFLICT DO UPDATE SET events = events + 1",
                        (event.app_type, kind, work),
                    )

    def remove_old(self, *, now_ms: int) -> None:
        """Remove what no report needs any more. The numbers of all time stay."""
        self._database.execute("DELETE FROM repaired WHERE at_ms <= ?", (now_ms - _REPEATED_MS,))
        self._database.execute("DELETE FROM repairs_by_day WHERE day < ?", (day_of(now_ms - _DAYS_MS),))

    def totals(self) -> list[tuple[str, str, str, int]]:
        """App, kind and work, and the repairs of all time."""
        return self._database.execute("SELECT app_type, kind, work, events FROM repairs ORDER BY 1, 2, 3").fetchall()

    def counts(self) -> list[Count]:
        """By app, day and kind, the latest day first."""
        rows = self._database.execute(
            "SELECT corp_id, app_type, day, kind, work, events FROM repairs_by_day"
            " ORDER BY day DESC, corp_id, app_type, kind, work"
        )
        return [
            Count(corp_id, app_type, day, Kind(kind), work, repairs)
            for corp_id, app_type, day, kind, work, repairs in rows.fetchall()
        ]

    def pass_ended(self, *, now_ms: int, is_whole: bool) -> None:
        """Record the end of a pass over all apps. ``is_whole``: it checked everything."""
        self._database.execute("INSERT OR REPLACE INTO passes VALUES (?, ?)", (now_ms, is_whole))
        self._database.execute(
            "DELETE FROM passes WHERE ended_ms NOT IN (SELECT max(ended_ms) FROM passes GROUP BY is_whole)"
        )

    def last_pass_ms(self, *, whole: bool) -> int | None:
        """The end of the last pass; with ``whole``, of the last one that checked everything."""
        return self._first("SELECT max(ended_ms) FROM passes WHERE is_whole >= ?", (whole,))


class Schedule(Rows):
    """When the service makes its next pass, and how many passes in a row have failed."""

    def set(self, due_ms: int, *, failures: int) -> None:
        self._database.execute("INSERT OR REPLACE INTO schedule VALUES (1, ?, ?)", (due_ms, failures))

    def due(self) -> int | None:
        """None before the first pass."""
        return self._first("SELECT due_ms FROM schedule")

    def failures(self) -> int:
        return self._first("SELECT failures FROM schedule") or 0


class Problems(Rows):
    """Why a work of the service failed the last time, for commands that read only the database."""

    def set(self, work: str, problem: str | None, *, now_ms: int) -> None:
        """None: it did not fail."""
        if problem is None:
            self._database.execute("DELETE FROM problems WHERE work = ?", (work,))
        else:
            self._database.execute("INSERT OR REPLACE INTO problems VALUES (?, ?, ?)", (work, now_ms, problem))

    def find(self, work: str) -> str | None:
        return self._first("SELECT problem FROM problems WHERE work = ?", (work,))

    def all(self) -> list[tuple[str, int, str]]:
        """The work, the time, and the problem."""
        return self._database.execute("SELECT work, at_ms, problem FROM problems ORDER BY work").fetchall()


class Store:
    """Everything in the database but the budget of calls."""

    def __init__(self, database: sqlite3.Connection) -> None:
        database.executescript(_TABLES)
        self.states = States(database)
        self.callbacks, self.open_instances = self.states.callbacks, self.states.open_instances
        self.names = self.states.names
        self.forms = FormStore(database)
        self.app_tokens = AppTokens(database)
        self.cursors = Cursors(database)
        self.compared = Compared(database)
        self.absences = Absences(database)
        self.absent_forms = AbsentForms(database)
        self.findings = Findings(database)
        self.schedule = Schedule(database)
        self.problems = Problems(database)
