"""When callbacks of an app last told anything: states also move by repairs, which are told apart by their revisions."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from taskbridge.reconcile.repairs.events import LOST

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from taskbridge.reconcile.repairs.events import Repair
    from taskbridge.schemas.events import TaskState

_TABLES = """
CREATE TABLE IF NOT EXISTS revisions (instance_id TEXT PRIMARY KEY, revision INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS announced (
    instance_id TEXT NOT NULL, event_id TEXT NOT NULL, PRIMARY KEY (instance_id, event_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS callbacks (
    corp_id TEXT NOT NULL, app_type TEXT NOT NULL, last_ms INTEGER NOT NULL, PRIMARY KEY (corp_id, app_type)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS untold (
    event_id TEXT PRIMARY KEY, corp_id TEXT NOT NULL, app_type TEXT NOT NULL, occurred_ms INTEGER NOT NULL
) WITHOUT ROWID;
"""


class Silence(NamedTuple):
    corp_id: str
    app_type: str
    since_ms: int
    """What the last callback told is of this time; where none ever came, that of the first pass."""
    missing: int
    """What callbacks should have told that happened after that, as passes found it."""


class Callbacks:
    """Across restarts. A state's revision counts its events, so one above the known and our own repairs is a callback.

    A repair that changes no state, or that Kafka never takes, hides one callback of its instance.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.executescript(_TABLES)

    def listen(self, corp_id: str, app_type: str, *, now_ms: int) -> None:
        """The app is looked at from now on; what happened before is no silence."""
        self._database.execute("INSERT OR IGNORE INTO callbacks VALUES (?, ?, ?)", (corp_id, app_type, now_ms))

    def take(self, state: TaskState) -> bool:
        """Whether a callback moved the state since it, or a repair of it, was known last."""
        [(known,)] = self._database.execute(
            "SELECT (SELECT count(*) FROM announced WHERE instance_id = ?1)"
            " + ifnull((SELECT revision FROM revisions WHERE instance_id = ?1), 0)",
            (state.instance_id,),
        )
        if state.revision <= known:
            return False
        self.let_go(state.instance_id)
        self._database.execute("INSERT INTO revisions VALUES (?, ?)", (state.instance_id, state.revision))
        key = state.corp_id, state.app_type
        self._database.execute(
            "INSERT INTO callbacks VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET last_ms = max(last_ms, excluded.last_ms)",
            (*key, state.updated_at),
        )
        self._database.execute("DELETE FROM untold WHERE (corp_id, app_type) = (?, ?)", key)
        return True

    def announce(self, repairs: Iterable[Repair]) -> None:
        """These are about to be delivered: each moves its state once, however often it is tried."""
        self._database.executemany(
            "INSERT OR IGNORE INTO announced VALUES (?, ?)",
            ((each.event.instance_id, each.event.event_id) for each in repairs),
        )

    def missed(self, repairs: Iterable[Repair]) -> None:
        """Passes found these, each counted once: what a callback should have told, after the last that came."""
        self._database.executemany(
            "INSERT OR IGNORE INTO untold SELECT ?1, ?2, ?3, ?4 WHERE ?4 >"
            " (SELECT last_ms FROM callbacks WHERE (corp_id, app_type) = (?2, ?3))",
            (
                (event.event_id, event.corp_id, event.app_type, event.occurred_at)
                for event in (each.event for each in repairs if each.kind in LOST)
            ),
        )

    def let_go(self, instance_id: str) -> None:
        self._database.execute("DELETE FROM announced WHERE instance_id = ?", (instance_id,))
        self._database.execute("DELETE FROM revisions WHERE instance_id = ?", (instance_id,))

    def forget(self) -> None:
        """States come from their beginning once more."""
        self._database.execute("DELETE FROM announced")
        self._database.execute("DELETE FROM revisions")

    def all(self) -> list[Silence]:
        rows = self._database.execute(
            "SELECT corp_id, app_type, last_ms, (SELECT count(*) FROM untold"
            " WHERE untold.corp_id = callbacks.corp_id AND untold.app_type = callbacks.app_type)"
            " FROM callbacks ORDER BY 1, 2"
        )
        return [Silence(*row) for row in rows.fetchall()]
