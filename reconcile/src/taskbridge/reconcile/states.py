"""Our states of instances, from the states topic, and which of them callbacks moved last or left open."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import msgspec

from taskbridge.dingtalk import wire
from taskbridge.dingtalk.times import DAY_MS
from taskbridge.reconcile.names import Names, people_of
from taskbridge.reconcile.repairs import LOST
from taskbridge.reconcile.rows import Rows
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import SOURCE_YIDA, Lifecycle, Status, TaskState

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping

    from taskbridge.reconcile.repairs import Repair

_STATES = """
CREATE TABLE IF NOT EXISTS states (
    instance_id TEXT PRIMARY KEY, corp_id TEXT NOT NULL, app_type TEXT NOT NULL, is_open INTEGER NOT NULL,
    seen_ms INTEGER NOT NULL, state BLOB
);
CREATE INDEX IF NOT EXISTS states_unseen ON states (corp_id, app_type, is_open, seen_ms);
CREATE TABLE IF NOT EXISTS positions (partition INTEGER PRIMARY KEY, offset INTEGER NOT NULL);
"""
_CALLBACKS = """
CREATE TABLE IF NOT EXISTS revisions (instance_id TEXT PRIMARY KEY, revision INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS announced (
    instance_id TEXT NOT NULL, event_id TEXT NOT NULL, PRIMARY KEY (instance_id, event_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS callbacks (
    corp_id TEXT NOT NULL, app_type TEXT NOT NULL, last_ms INTEGER NOT NULL, PRIMARY KEY (corp_id, app_type)
) WITHOUT ROWID;
"""
_MISSING = (
    "CREATE TABLE IF NOT EXISTS untold"  # spellchecker:disable-line - a stored table
    " (event_id TEXT PRIMARY KEY, corp_id TEXT NOT NULL, app_type TEXT NOT NULL, occurred_ms INTEGER NOT NULL)"
    " WITHOUT ROWID"
)
_MISSING_INDEX = (
    "CREATE INDEX IF NOT EXISTS untold_of_app ON untold (corp_id, app_type)"  # spellchecker:disable-line - as above
)
_OPEN_INSTANCES = """
CREATE TABLE IF NOT EXISTS questions (
    instance_id TEXT PRIMARY KEY, corp_id TEXT NOT NULL, app_type TEXT NOT NULL, told_ms INTEGER NOT NULL,
    quiet_ms INTEGER NOT NULL
) WITHOUT ROWID
"""
_ENDED_WITH_PENDING = 2
"""``states.is_open`` of an instance that ended with a pending task. 1: with a pending task; 0: without."""
_FINISHED_UNSEEN_MS = 30 * DAY_MS
_READ_BACK_MS = 7 * DAY_MS
"""An instance without a callback for longer is left to passes and backfills."""


class StatesBehind(OperatorError):
    """The states lack events that are in Kafka. A comparison would report these as lost."""


class Gone(Enum):
    GONE = "gone"


GONE: Final = Gone.GONE
"""There was a state: the instance was deleted, or its retention ended."""


class AppCallbacks(NamedTuple):
    corp_id: str
    app_type: str
    since_ms: int
    """The event time of the last callback. Before the first callback, the time of the first pass."""
    missing: int
    """How many later events have no callback, as far as passes found them."""


class Callbacks(Rows):
    """When callbacks last moved a state of each app, across restarts. Repairs move states too.

    The revision of a state counts its events. If it is more than the known revision plus our repairs, a callback came.
    A repair that changes no state, or that Kafka never accepts, hides one callback of its instance.
    """

    tables = f"{_CALLBACKS}{_MISSING};{_MISSING_INDEX}"

    def watch(self, corp_id: str, app_type: str, *, now_ms: int) -> None:
        """Count missing callbacks of this app from now on."""
        self._database.execute("INSERT OR IGNORE INTO callbacks VALUES (?, ?, ?)", (corp_id, app_type, now_ms))

    def update(self, state: TaskState) -> bool:
        """Store the revision of the state. Return whether a callback moved it since the last one."""
        [(known,)] = self._database.execute(
            "SELECT (SELECT count(*) FROM announced WHERE instance_id = ?1)"
            " + ifnull((SELECT revision FROM revisions WHERE instance_id = ?1), 0)",
            (state.instance_id,),
        )
        if state.revision <= known:
            return False
        self.delete(state.instance_id)
        self._database.execute("INSERT INTO revisions VALUES (?, ?)", (state.instance_id, state.revision))
        key = state.corp_id, state.app_type
        self._database.execute(
            "INSERT INTO callbacks VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET last_ms = max(last_ms, excluded.last_ms)",
            (*key, state.updated_at),
        )
        self._database.execute(
            "DELETE FROM untold WHERE (corp_id, app_type) = (?, ?)",  # spellchecker:disable-line - a stored table
            key,
        )
        return True

    def announce(self, repairs: Iterable[Repair]) -> None:
        """Call this before these are published. Each moves its state once, even if it is published several times."""
        self._database.executemany(
            "INSERT OR IGNORE INTO announced VALUES (?, ?)",
            ((each.event.instance_id, each.event.event_id) for each in repairs),
        )

    def record_missing(self, repairs: Iterable[Repair]) -> None:
        """Count each of these once, if a callback is missing for it and it is later than the last callback."""
        self._database.executemany(
            "INSERT OR IGNORE INTO untold"  # spellchecker:disable-line - a stored table
            " SELECT ?1, ?2, ?3, ?4 WHERE ?4 > (SELECT last_ms FROM callbacks WHERE (corp_id, app_type) = (?2, ?3))",
            (
                (event.event_id, event.corp_id, event.app_type, event.occurred_at)
                for event in (each.event for each in repairs if each.kind in LOST)
            ),
        )

    def delete(self, instance_id: str) -> None:
        self._database.execute("DELETE FROM announced WHERE instance_id = ?", (instance_id,))
        self._database.execute("DELETE FROM revisions WHERE instance_id = ?", (instance_id,))

    def clear(self) -> None:
        """Delete all revisions, because the states are read from their beginning again."""
        self._database.execute("DELETE FROM announced")
        self._database.execute("DELETE FROM revisions")

    def all(self) -> list[AppCallbacks]:
        rows = self._database.execute(
            "SELECT corp_id, app_type, last_ms,"
            " (SELECT count(*) FROM untold AS missing"  # spellchecker:disable-line - a stored table
            " WHERE missing.corp_id = callbacks.corp_id AND missing.app_type = callbacks.app_type)"
            " FROM callbacks ORDER BY 1, 2"
        )
        return [AppCallbacks(*row) for row in rows.fetchall()]


class OpenInstances(Rows):
    """Instances whose callbacks left something open, and since when they are quiet."""

    tables = _OPEN_INSTANCES

    def update(self, state: TaskState, *, by_callback: bool) -> None:
        """Add or remove the instance. A state that only a repair moved is not added again."""
        if not is_open(state):
            self.remove(state.instance_id)
        elif by_callback:
            row = state.instance_id, state.corp_id, state.app_type, state.updated_at, state.updated_at
            self._database.execute("INSERT OR REPLACE INTO questions VALUES (?, ?, ?, ?, ?)", row)

    def due(self, corp_id: str, app_type: str, *, now_ms: int, quiet_ms: int) -> list[str]:
        """Instances that have been quiet for so long: first those that ended with a pending task, then the longest."""
        return self._firsts(
            "SELECT instance_id FROM questions AS open LEFT JOIN states USING (instance_id)"
            " WHERE (open.corp_id, open.app_type) = (?, ?) AND quiet_ms <= ? AND told_ms > ?"
            " ORDER BY ifnull(is_open, 0) = ? DESC, quiet_ms",
            (corp_id, app_type, now_ms - quiet_ms, now_ms - _READ_BACK_MS, _ENDED_WITH_PENDING),
        )

    def ended(self, corp_id: str, app_type: str, *, now_ms: int, quiet_ms: int, most: int) -> list[str]:
        """Instances that ended with a pending task and have been quiet for so long, the longest first."""
        return self._firsts(
            "SELECT instance_id FROM questions AS open JOIN states USING (instance_id)"
            " WHERE (open.corp_id, open.app_type) = (?, ?) AND quiet_ms <= ? AND is_open = ? ORDER BY quiet_ms LIMIT ?",
            (corp_id, app_type, now_ms - quiet_ms, _ENDED_WITH_PENDING, most),
        )

    def postpone(self, instance_id: str, *, now_ms: int) -> None:
        """Start its quiet time again."""
        self._database.execute("UPDATE questions SET quiet_ms = ? WHERE instance_id = ?", (now_ms, instance_id))

    def remove(self, instance_id: str) -> None:
        self._database.execute("DELETE FROM questions WHERE instance_id = ?", (instance_id,))

    def remove_old(self, *, now_ms: int) -> None:
        self._database.execute("DELETE FROM questions WHERE told_ms <= ?", (now_ms - _READ_BACK_MS,))


def is_open(state: TaskState) -> bool:
    """Whether an assignee, the outcome of a decision, the end of the instance, or that of a task is unknown."""
    pending = [each for each in state.tasks if each.status is Status.PENDING]
    return (
        (bool(pending) and has_ended(state))
        or any(not each.assignee_ids for each in pending)
        or any(each.status is Status.COMPLETED and each.outcome is None for each in state.tasks)
        or (bool(state.tasks) and not pending and state.finished_at is None)
    )


def has_ended(state: TaskState) -> bool:
    """Whether an event said that the instance ended. A task that is pending then has lost its end."""
    return state.finished_at is not None or state.instance_status in wire.ENDED


class States(Rows):
    """The last state of each instance, without the values of its form, which are never compared."""

    tables = _STATES

    def __init__(self, database: sqlite3.Connection) -> None:
        super().__init__(database)
        self.current_ms = 0
        """Every event that was in Kafka at this time is in the states."""
        self.callbacks, self.open_instances = Callbacks(database), OpenInstances(database)
        self.names = Names(database)
        if self.names.is_new:
            with self.transaction():
                for state in self._firsts("SELECT state FROM states WHERE state IS NOT NULL"):
                    self.names.see(msgspec.msgpack.decode(state, type=TaskState))

    def find(self, instance_id: str) -> TaskState | Literal[Gone.GONE] | None:
        """The last state; None if there never was one."""
        row = self._database.execute("SELECT state FROM states WHERE instance_id = ?", (instance_id,)).fetchone()
        if row is None:
            return None
        return GONE if row[0] is None else msgspec.msgpack.decode(row[0], type=TaskState)

    def store(self, state: TaskState) -> None:
        """Store the current state of an instance of Yida. Other sources are ignored."""
        if state.source != SOURCE_YIDA:
            return
        if state.lifecycle is Lifecycle.DELETED:
            self.delete(state.instance_id)
            return
        self.open_instances.update(state, by_callback=self.callbacks.update(state))
        self.names.see(state)
        has_pending = any(each.status is Status.PENDING for each in state.tasks)
        pending = _ENDED_WITH_PENDING if has_pending and has_ended(state) else has_pending
        plain = msgspec.msgpack.encode(msgspec.structs.replace(state, form_data={}))
        self._database.execute(
            "INSERT INTO states VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO UPDATE SET corp_id = ?2, app_type = ?3,"
            " is_open = ?4, seen_ms = max(seen_ms, ?5), state = ?6",
            (state.instance_id, state.corp_id, state.app_type, pending, state.updated_at, plain),
        )

    def delete(self, instance_id: str) -> None:
        self.callbacks.delete(instance_id)
        self.open_instances.remove(instance_id)
        self._database.execute(
            "INSERT INTO states VALUES (?, '', '', 0, 0, NULL) ON CONFLICT DO UPDATE SET state = NULL, is_open = 0",
            (instance_id,),
        )

    def mark_seen(self, ids: Iterable[str], *, now_ms: int) -> None:
        """DingTalk answered for these instances now."""
        with self.transaction():
            self._database.executemany(
                "UPDATE states SET seen_ms = max(seen_ms, ?) WHERE instance_id = ?", ((now_ms, each) for each in ids)
            )

    def unseen(self, corp_id: str, app_type: str, *, now_ms: int, most: int) -> list[str]:
        """Instances that DingTalk has not listed for a day, or, without a pending task, for a month."""
        return self._firsts(
            "SELECT instance_id FROM states WHERE corp_id = ? AND app_type = ? AND state IS NOT NULL"
            " AND ((is_open > 0 AND seen_ms <= ?) OR (is_open = 0 AND seen_ms <= ?))"
            " ORDER BY is_open DESC, seen_ms LIMIT ?",
            (corp_id, app_type, now_ms - DAY_MS, now_ms - _FINISHED_UNSEEN_MS, most),
        )

    def people(self, corp_id: str, app_type: str) -> list[str]:
        found = set[str]()
        rows = self._database.execute(
            "SELECT state FROM states WHERE (corp_id, app_type) = (?, ?) AND state IS NOT NULL", (corp_id, app_type)
        )
        for (plain,) in rows:
            found |= people_of(msgspec.msgpack.decode(plain, type=TaskState))
        return sorted(found)

    def positions(self) -> dict[int, int]:
        return dict(self._database.execute("SELECT partition, offset FROM positions").fetchall())

    def save_positions(self, positions: Mapping[int, int]) -> None:
        self._database.executemany("INSERT OR REPLACE INTO positions VALUES (?, ?)", positions.items())

    def clear(self) -> None:
        """Delete all states, because the topic was recreated."""
        with self.transaction():
            self._database.execute("DELETE FROM states")
            self._database.execute("DELETE FROM positions")
            self.callbacks.clear()
