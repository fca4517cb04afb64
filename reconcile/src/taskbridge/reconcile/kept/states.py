"""Our states of instances, as the topic of states told them last, and how far it was read."""

from __future__ import annotations

from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from taskbridge.reconcile.dingtalk.moments import DAY_MS
from taskbridge.reconcile.kept.callbacks import Callbacks
from taskbridge.reconcile.kept.questions import Questions
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import SOURCE_YIDA, Lifecycle, Status, TaskState

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Generator, Iterable, Mapping

_TABLES = """
CREATE TABLE IF NOT EXISTS states (
    instance_id TEXT PRIMARY KEY, corp_id TEXT NOT NULL, app_type TEXT NOT NULL, is_open INTEGER NOT NULL,
    seen_ms INTEGER NOT NULL, state BLOB
);
CREATE INDEX IF NOT EXISTS states_unseen ON states (corp_id, app_type, is_open, seen_ms);
CREATE TABLE IF NOT EXISTS positions (partition INTEGER PRIMARY KEY, offset INTEGER NOT NULL);
"""
_FINISHED_UNSEEN_MS = 30 * DAY_MS


class StatesBehind(OperatorError):
    """The states lack events that are on Kafka: what these tell would look as if it had never been told."""


class Gone(Enum):
    GONE = "gone"


GONE: Final = Gone.GONE
"""There was a state and is none any more: the instance was deleted, or let go long after its end."""


class States:
    """Without forms' values: nothing is compared by them."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self.current_ms = 0
        """Every event that was on Kafka at this moment is in the states."""
        self.callbacks, self.questions = Callbacks(database), Questions(database)
        database.executescript(_TABLES)

    def find(self, instance_id: str) -> TaskState | Literal[Gone.GONE] | None:
        """The last state that was read; None where there never was one."""
        row = self._database.execute("SELECT state FROM states WHERE instance_id = ?", (instance_id,)).fetchone()
        if row is None:
            return None
        return GONE if row[0] is None else msgspec.msgpack.decode(row[0], type=TaskState)

    def take(self, state: TaskState) -> None:
        """Know the state as it is now; of another source than Yida it is of no concern here."""
        if state.source != SOURCE_YIDA:
            return
        if state.lifecycle is Lifecycle.DELETED:
            self.let_go(state.instance_id)
            return
        self.questions.take(state, is_told=self.callbacks.take(state))
        is_open = any(each.status is Status.PENDING for each in state.tasks)
        plain = msgspec.msgpack.encode(msgspec.structs.replace(state, form_data={}))
        self._database.execute(
            "INSERT INTO states VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO UPDATE SET corp_id = ?2, app_type = ?3,"
            " is_open = ?4, seen_ms = max(seen_ms, ?5), state = ?6",
            (state.instance_id, state.corp_id, state.app_type, is_open, state.updated_at, plain),
        )

    def let_go(self, instance_id: str) -> None:
        """There is no state of this instance any more."""
        self.callbacks.let_go(instance_id)
        self.questions.close(instance_id)
        self._database.execute(
            "INSERT INTO states VALUES (?, '', '', 0, 0, NULL) ON CONFLICT DO UPDATE SET state = NULL, is_open = 0",
            (instance_id,),
        )

    def seen(self, ids: Iterable[str], *, now_ms: int) -> None:
        """DingTalk was asked for these now."""
        with self.transaction():
            self._database.executemany(
                "UPDATE states SET seen_ms = max(seen_ms, ?) WHERE instance_id = ?", ((now_ms, each) for each in ids)
            )

    def unseen(self, corp_id: str, app_type: str, *, now_ms: int, most: int) -> list[str]:
        """Instances that DingTalk has not shown for long: a day while something is to be done in them, else a month."""
        found = self._database.execute(
            "SELECT instance_id FROM states WHERE corp_id = ? AND app_type = ? AND state IS NOT NULL"
            " AND ((is_open = 1 AND seen_ms <= ?) OR (is_open = 0 AND seen_ms <= ?))"
            " ORDER BY is_open DESC, seen_ms LIMIT ?",
            (corp_id, app_type, now_ms - DAY_MS, now_ms - _FINISHED_UNSEEN_MS, most),
        )
        return [instance_id for (instance_id,) in found.fetchall()]

    def positions(self) -> dict[int, int]:
        """Of each partition of the topic, where reading goes on."""
        return dict(self._database.execute("SELECT partition, offset FROM positions").fetchall())

    def reached(self, positions: Mapping[int, int]) -> None:
        self._database.executemany("INSERT OR REPLACE INTO positions VALUES (?, ?)", positions.items())

    def forget(self) -> None:
        """Know nothing: the topic is another one."""
        with self.transaction():
            self._database.execute("DELETE FROM states")
            self._database.execute("DELETE FROM positions")
            self.callbacks.forget()

    @contextmanager
    def transaction(self) -> Generator[None]:
        """All of the block is kept, or nothing of it."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")
