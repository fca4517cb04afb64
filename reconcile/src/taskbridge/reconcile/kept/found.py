"""What was found missing: each repair once, however often it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from taskbridge.reconcile.dingtalk.moments import day_of
from taskbridge.reconcile.repairs.events import LOST, Kind

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from taskbridge.reconcile.repairs.events import Repair

_TABLES = """
CREATE TABLE IF NOT EXISTS found (
    event_id TEXT PRIMARY KEY, corp_id TEXT NOT NULL, app_type TEXT NOT NULL, day TEXT NOT NULL, kind TEXT NOT NULL,
    work TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS passes (ended_ms INTEGER PRIMARY KEY, is_whole INTEGER NOT NULL);
"""


class Count(NamedTuple):
    corp_id: str
    app_type: str
    day: str
    """On which it happened, China's time."""
    kind: Kind
    work: str
    """What found it: ``reconcile``, ``read-back`` or ``backfill``."""
    repairs: int

    @property
    def is_lost(self) -> bool:
        """Whether a callback should have told it."""
        return self.kind in LOST


class Found:
    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.executescript(_TABLES)

    def note(self, repairs: Iterable[Repair], *, work: str) -> None:
        """These were delivered."""
        self._database.executemany(
            "INSERT OR IGNORE INTO found VALUES (?, ?, ?, ?, ?, ?)",
            (
                (event.event_id, event.corp_id, event.app_type, day_of(event.occurred_at), kind, work)
                for kind, event in ((each.kind, each.event) for each in repairs)
            ),
        )

    def counts(self) -> list[Count]:
        """By app, day and kind, the latest day first."""
        rows = self._database.execute(
            "SELECT corp_id, app_type, day, kind, work, count(*) FROM found GROUP BY 1, 2, 3, 4, 5"
            " ORDER BY day DESC, corp_id, app_type, kind, work"
        )
        return [
            Count(corp_id, app_type, day, Kind(kind), work, repairs)
            for corp_id, app_type, day, kind, work, repairs in rows.fetchall()
        ]

    def pass_ended(self, *, now_ms: int, is_whole: bool) -> None:
        """A pass over all apps came to its end; ``is_whole``: nothing was left out."""
        self._database.execute("INSERT OR REPLACE INTO passes VALUES (?, ?)", (now_ms, is_whole))
        self._database.execute(
            "DELETE FROM passes WHERE ended_ms NOT IN (SELECT max(ended_ms) FROM passes GROUP BY is_whole)"
        )

    def last_pass_ms(self, *, whole: bool) -> int | None:
        """When the last one ended; ``whole``: that left nothing out."""
        [(at,)] = self._database.execute("SELECT max(ended_ms) FROM passes WHERE is_whole >= ?", (whole,))
        return at
