"""How far each form was read, and at which of its modifications an instance was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import sqlite3

_TABLES = """
CREATE TABLE IF NOT EXISTS cursors (
    work TEXT NOT NULL, corp_id TEXT NOT NULL, app_type TEXT NOT NULL, form_uuid TEXT NOT NULL,
    since_ms INTEGER NOT NULL, until_ms INTEGER NOT NULL, PRIMARY KEY (work, corp_id, app_type, form_uuid)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS asked (
    corp_id TEXT NOT NULL, app_type TEXT NOT NULL, instance_id TEXT NOT NULL, modified TEXT NOT NULL,
    PRIMARY KEY (corp_id, app_type, instance_id)
) WITHOUT ROWID;
"""


class Place(NamedTuple):
    """A form, and for what it is read: ``reconcile`` or ``backfill``."""

    work: str
    corp_id: str
    app_type: str
    form_uuid: str


class Cursor(NamedTuple):
    since_ms: int
    until_ms: int
    """Whatever was modified from ``since_ms`` until before this was looked at."""


class Cursors:
    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.executescript(_TABLES)

    def find(self, place: Place) -> Cursor | None:
        row = self._database.execute(
            "SELECT since_ms, until_ms FROM cursors WHERE (work, corp_id, app_type, form_uuid) = (?, ?, ?, ?)", place
        ).fetchone()
        return None if row is None else Cursor(*row)

    def move(self, place: Place, cursor: Cursor) -> None:
        self._database.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?, ?, ?, ?, ?)", (*place, *cursor))

    def drop(self, place: Place) -> None:
        self._database.execute("DELETE FROM cursors WHERE (work, corp_id, app_type, form_uuid) = (?, ?, ?, ?)", place)

    def all(self) -> list[tuple[Place, Cursor]]:
        rows = self._database.execute(
            "SELECT work, corp_id, app_type, form_uuid, since_ms, until_ms FROM cursors ORDER BY 1, 2, 3, 4"
        )
        return [(Place(*row[:4]), Cursor(*row[4:])) for row in rows.fetchall()]


class Asked:
    """Remembers across restarts what was asked for, so that what nobody can tell is not asked for at every pass."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.executescript(_TABLES)

    def modified(self, corp_id: str, app_type: str, instance_id: str) -> str | None:
        """The time of modification, as DingTalk told it, as of which the instance was mended last."""
        row = self._database.execute(
            "SELECT modified FROM asked WHERE (corp_id, app_type, instance_id) = (?, ?, ?)",
            (corp_id, app_type, instance_id),
        ).fetchone()
        return None if row is None else row[0]

    def note(self, corp_id: str, app_type: str, instance_id: str, modified: str) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO asked VALUES (?, ?, ?, ?)", (corp_id, app_type, instance_id, modified)
        )
