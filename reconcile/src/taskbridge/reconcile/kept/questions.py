"""Instances whose callbacks left something open, and since when nothing was told of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskbridge.reconcile.dingtalk.moments import DAY_MS
from taskbridge.schemas.events import Status

if TYPE_CHECKING:
    import sqlite3

    from taskbridge.schemas.events import TaskState

_TABLE = """
CREATE TABLE IF NOT EXISTS questions (
    instance_id TEXT PRIMARY KEY, corp_id TEXT NOT NULL, app_type TEXT NOT NULL, told_ms INTEGER NOT NULL,
    quiet_ms INTEGER NOT NULL
) WITHOUT ROWID
"""
_LONGEST_MS = 7 * DAY_MS
"""What was told longer ago is left to passes and backfills."""


class Questions:
    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.execute(_TABLE)

    def take(self, state: TaskState, *, is_told: bool) -> None:
        """Know the state; ``is_told``: a callback moved it. What only repairs moved is not asked for once more."""
        if not is_open(state):
            self.close(state.instance_id)
        elif is_told:
            row = state.instance_id, state.corp_id, state.app_type, state.updated_at, state.updated_at
            self._database.execute("INSERT OR REPLACE INTO questions VALUES (?, ?, ?, ?, ?)", row)

    def due(self, corp_id: str, app_type: str, *, now_ms: int, quiet_ms: int) -> list[str]:
        """Instances of which nothing was told for so long, the longest first."""
        found = self._database.execute(
            "SELECT instance_id FROM questions WHERE (corp_id, app_type) = (?, ?) AND quiet_ms <= ? AND told_ms > ?"
            " ORDER BY quiet_ms",
            (corp_id, app_type, now_ms - quiet_ms, now_ms - _LONGEST_MS),
        )
        return [instance_id for (instance_id,) in found.fetchall()]

    def wait(self, instance_id: str, *, now_ms: int) -> None:
        """The quiet time begins anew."""
        self._database.execute("UPDATE questions SET quiet_ms = ? WHERE instance_id = ?", (now_ms, instance_id))

    def close(self, instance_id: str) -> None:
        """It is asked for no more, until a callback leaves something open again."""
        self._database.execute("DELETE FROM questions WHERE instance_id = ?", (instance_id,))

    def drop_old(self, *, now_ms: int) -> None:
        self._database.execute("DELETE FROM questions WHERE told_ms <= ?", (now_ms - _LONGEST_MS,))


def is_open(state: TaskState) -> bool:
    """Whether it is not known who may decide something, how something was decided, or how it ended."""
    pending = [each for each in state.tasks if each.status is Status.PENDING]
    return (
        any(not each.assignee_ids for each in pending)
        or any(each.status is Status.COMPLETED and each.outcome is None for each in state.tasks)
        or (bool(state.tasks) and not pending and state.finished_at is None)
    )
