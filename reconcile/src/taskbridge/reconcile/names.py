"""The people and forms that states name, when they were read from DingTalk, and whose record their topics have.

No name of a person is stored here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from taskbridge.dingtalk.times import DAY_MS
from taskbridge.reconcile.rows import Rows

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from taskbridge.schemas.events import TaskState

PERSON, FORM = "person", "form"
MISSING, OURS, IMPORTED, DELETED = "missing", "from-dingtalk", "imported", "deleted"
"""The record of a name: none, one of ours, one that somebody else wrote, or one that was deleted."""
_RENEWED_AFTER_MS = DAY_MS
_TABLE = """
CREATE TABLE IF NOT EXISTS names (
    kind TEXT NOT NULL, corp_id TEXT NOT NULL, id TEXT NOT NULL, app_type TEXT, title TEXT,
    seen_ms INTEGER NOT NULL, read_ms INTEGER NOT NULL DEFAULT 0, record TEXT NOT NULL DEFAULT 'missing',
    PRIMARY KEY (kind, corp_id, id)
) WITHOUT ROWID
"""


class Due(NamedTuple):
    id: str
    app_type: str | None
    """Of a form."""
    title: str | None


class Count(NamedTuple):
    corp_id: str
    kind: str
    record: str
    names: int


def people_of(state: TaskState) -> set[str]:
    found = {*state.assignee_ids, *(each.user_id for each in state.copied)}
    for each in state.tasks:
        found |= {*each.assignee_ids, each.actor_id or ""}
    if state.originator is not None:
        found.add(state.originator.user_id)
    return found - {""}


class Names(Rows):
    """By kind, corp and id. Survives restarts."""

    tables = _TABLE

    def __init__(self, database: sqlite3.Connection) -> None:
        self.is_new = not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'names'").fetchone()
        """Whether this version is the first one that has them: the stored states have ids that it has not seen."""
        super().__init__(database)

    def see(self, state: TaskState) -> None:
        """Record the people and the form of a state of Yida."""
        corp_id, at_ms = state.corp_id, state.updated_at
        rows: list[tuple[str, str, str, str | None, str | None, int]] = [
            (PERSON, corp_id, each, None, None, at_ms) for each in people_of(state)
        ]
        if state.form_uuid:
            rows.append((FORM, corp_id, state.form_uuid, state.app_type, state.process_name, at_ms))
        self._database.executemany(
            "INSERT INTO names (kind, corp_id, id, app_type, title, seen_ms) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET seen_ms = max(seen_ms, excluded.seen_ms),"
            " app_type = coalesce(excluded.app_type, app_type), title = coalesce(excluded.title, title)",
            rows,
        )

    def see_form(self, corp_id: str, app_type: str, form_uuid: str, *, now_ms: int, is_new: bool) -> None:
        """Record a form whose values were read; ``is_new``: with a field that it did not have, so it is read again."""
        self._database.execute(
            "INSERT INTO names (kind, corp_id, id, app_type, seen_ms) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO UPDATE"
            " SET seen_ms = max(seen_ms, ?5), app_type = ?4, read_ms = CASE WHEN ?6 THEN 0 ELSE read_ms END",
            (FORM, corp_id, form_uuid, app_type, now_ms, is_new),
        )

    def due(self, kind: str, corp_id: str, *, now_ms: int) -> list[Due]:
        """Those to read now: new ones, then those that were seen again more than a day after they were read."""
        rows = self._database.execute(
            "SELECT id, app_type, title FROM names WHERE kind = ? AND corp_id = ? AND record IN (?, ?)"
            " AND (read_ms = 0 OR (read_ms <= ? AND seen_ms > read_ms)) ORDER BY read_ms, seen_ms DESC",
            (kind, corp_id, MISSING, OURS, now_ms - _RENEWED_AFTER_MS),
        )
        return [Due(*row) for row in rows.fetchall()]

    def was_read(self, kind: str, corp_id: str, ids: Iterable[str], *, now_ms: int) -> None:
        with self.transaction():
            self._database.executemany(
                "UPDATE names SET read_ms = ? WHERE (kind, corp_id, id) = (?, ?, ?)",
                [(now_ms, kind, corp_id, each) for each in ids],
            )

    def set_records(self, kind: str, records: Iterable[tuple[str, str, str]]) -> None:
        """Corp, id, and what the topic has now. Ids that no state names are remembered: they may have been deleted."""
        with self.transaction():
            self._database.executemany(
                "INSERT INTO names (kind, corp_id, id, seen_ms, record) VALUES (?, ?, ?, 0, ?)"
                " ON CONFLICT DO UPDATE SET record = excluded.record",
                ((kind, *each) for each in records),
            )

    def record_of(self, kind: str, corp_id: str, its_id: str) -> str:
        query = "SELECT record FROM names WHERE (kind, corp_id, id) = (?, ?, ?)"
        return self._first(query, (kind, corp_id, its_id)) or MISSING

    def with_records(self, kind: str) -> set[tuple[str, str]]:
        """Corp and id of those whose record was on the topic."""
        rows = self._database.execute(
            "SELECT corp_id, id FROM names WHERE kind = ? AND record IN (?, ?)", (kind, OURS, IMPORTED)
        )
        return {(corp_id, its_id) for corp_id, its_id in rows.fetchall()}

    def counts(self) -> list[Count]:
        rows = self._database.execute(
            "SELECT corp_id, kind, record, count(*) FROM names WHERE seen_ms > 0 GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
        )
        return [Count(*row) for row in rows.fetchall()]
