"""What DingTalk did not know when it was asked for by id. Only a second time, a day later, makes that a deletion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskbridge.reconcile.dingtalk.moments import DAY_MS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

_TABLE = """
CREATE TABLE IF NOT EXISTS absences (
    corp_id TEXT NOT NULL, app_type TEXT NOT NULL, instance_id TEXT NOT NULL, first_ms INTEGER NOT NULL,
    PRIMARY KEY (corp_id, app_type, instance_id)
) WITHOUT ROWID
"""


class Absences:
    """Remembers, across restarts, when each instance was first said not to exist."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.execute(_TABLE)

    def absent(self, corp_id: str, app_type: str, instance_id: str, *, now_ms: int) -> int | None:
        """DingTalk just said, to a question for this id, that there is none: the moment of the first time it did.

        None while that was less than a day ago: nothing is concluded yet.
        """
        key = corp_id, app_type, instance_id
        self._database.execute("INSERT OR IGNORE INTO absences VALUES (?, ?, ?, ?)", (*key, now_ms))
        [(first_ms,)] = self._database.execute(
            "SELECT first_ms FROM absences WHERE corp_id = ? AND app_type = ? AND instance_id = ?", key
        )
        return first_ms if now_ms - first_ms >= DAY_MS else None

    def seen(self, corp_id: str, app_type: str, instance_id: str) -> None:
        """DingTalk showed the instance: whatever was said of it before was wrong."""
        self._database.execute(
            "DELETE FROM absences WHERE corp_id = ? AND app_type = ? AND instance_id = ?",
            (corp_id, app_type, instance_id),
        )

    def all(self) -> list[tuple[str, str, str, int]]:
        """Corp, app and instance of each, and when it was absent first."""
        return self._database.execute(
            "SELECT corp_id, app_type, instance_id, first_ms FROM absences ORDER BY first_ms"
        ).fetchall()

    def due(self, corp_id: str, app_type: str, *, now_ms: int) -> Iterator[str]:
        """Instances to be asked for a second time now."""
        found = self._database.execute(
            "SELECT instance_id FROM absences WHERE corp_id = ? AND app_type = ? AND first_ms <= ? ORDER BY first_ms",
            (corp_id, app_type, now_ms - DAY_MS),
        )
        yield from (instance_id for (instance_id,) in found.fetchall())
