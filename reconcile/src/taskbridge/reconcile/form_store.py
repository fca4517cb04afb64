"""The last record of each instance on the topic of form data, what is to be read, and what is known of forms."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from taskbridge.dingtalk.api import Part  # noqa: TC001 - msgspec needs it
from taskbridge.dingtalk.times import DAY_MS, span_of
from taskbridge.reconcile.form_values import Definition
from taskbridge.reconcile.rows import Rows
from taskbridge.schemas.events import AHEAD_MS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from taskbridge.dingtalk import wire
    from taskbridge.dingtalk.apps import App
    from taskbridge.schemas.events import FormData

SCAN = "scan"
WORK = "form-data"
"""The work of scans, among the cursors."""
SECOND_MS = 2 * 60 * 1000
"""When an instance is read once more: DingTalk's times are minutes, and its search may be behind."""
DELETED_MS = 30 * DAY_MS
"""How long the record of a deleted instance stays before its tombstone."""
_LATE_MS = 10 * 60 * 1000
"""A change so long ago is read once."""
_TABLES = """
CREATE TABLE IF NOT EXISTS form_records (
    instance_id TEXT PRIMARY KEY, corp_id TEXT NOT NULL, app_type TEXT NOT NULL, ordinary TEXT NOT NULL,
    form_uuid TEXT NOT NULL, process_code TEXT, digest BLOB NOT NULL, read_ms INTEGER NOT NULL,
    as_of_ms INTEGER NOT NULL, due_ms INTEGER NOT NULL, absent_ms INTEGER, is_deleted INTEGER NOT NULL,
    changed_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS form_records_due ON form_records (corp_id, app_type, ordinary, is_deleted, due_ms);
CREATE INDEX IF NOT EXISTS form_records_deleted ON form_records (due_ms) WHERE is_deleted;
CREATE INDEX IF NOT EXISTS form_records_changed ON form_records (corp_id, app_type, form_uuid, changed_ms)
    WHERE is_deleted = 0;
CREATE TABLE IF NOT EXISTS form_reads (
    instance_id TEXT PRIMARY KEY, corp_id TEXT NOT NULL, app_type TEXT NOT NULL, ordinary TEXT NOT NULL,
    event_id TEXT, changed_ms INTEGER NOT NULL, due_ms INTEGER NOT NULL, is_second INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS form_reads_newest ON form_reads (corp_id, app_type, ordinary, changed_ms);
CREATE TABLE IF NOT EXISTS form_fields (
    corp_id TEXT NOT NULL, form_uuid TEXT NOT NULL, fields BLOB NOT NULL, PRIMARY KEY (corp_id, form_uuid)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS form_definitions (
    corp_id TEXT NOT NULL, app_type TEXT NOT NULL, form_uuid TEXT NOT NULL, due_ms INTEGER NOT NULL,
    definition BLOB NOT NULL, unknown BLOB NOT NULL, PRIMARY KEY (corp_id, app_type, form_uuid)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS form_scans (
    corp_id TEXT NOT NULL, app_type TEXT NOT NULL, form_uuid TEXT NOT NULL, scan BLOB NOT NULL,
    PRIMARY KEY (corp_id, app_type, form_uuid)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS form_positions (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL, PRIMARY KEY (topic, partition)
) WITHOUT ROWID;
"""


class Target(NamedTuple):
    """The instances that one call reads: those of the processes of an app, or of one form without a process."""

    corp_id: str
    app_type: str
    ordinary: str = ""
    """That form; empty for those of processes."""


class Known(NamedTuple):
    """The last record of an instance."""

    corp_id: str
    app_type: str
    form_uuid: str
    process_code: str | None
    digest: bytes
    read_ms: int
    as_of_ms: int
    """The values were right at this time. Earlier readings say nothing new. 0: not known."""
    absent_ms: int | None
    """When DingTalk first said that there is no such instance."""
    is_deleted: bool


class Due(NamedTuple):
    instance_id: str
    event_id: str | None
    """None: a scan found the change."""
    changed_ms: int
    is_second: bool


class Defined(NamedTuple):
    """A form's definition as it was read, the time of the next reading, and the fields of values that it lacks."""

    definition: Definition
    due_ms: int
    unknown: set[str]


class Scan(msgspec.Struct):
    """A reading of a form's lists, which may take days."""

    began_ms: int
    parts: list[Part]
    is_whole: bool = True
    """No rows are missing."""


class FormStore(Rows):
    """Survives restarts. The topic has the same digests: after a loss they are read from there."""

    tables = _TABLES

    def find(self, instance_id: str, *, now_ms: int) -> Known | None:
        row = self._database.execute(
            # A time to come is of a clock that was wrong.
            "SELECT corp_id, app_type, form_uuid, process_code, digest, read_ms, as_of_ms * (as_of_ms <= ?), absent_ms,"
            " is_deleted FROM form_records WHERE instance_id = ?",
            (now_ms, instance_id),
        ).fetchone()
        return None if row is None else Known(*row)

    def store(self, record: FormData, target: Target, *, changed_ms: int, as_of_ms: int, due_ms: int) -> None:
        """Store the last record of an instance; ``due_ms``: when to check that the instance exists."""
        row = (record.instance_id, *target, record.form_uuid, record.process_code, digest_of(record))
        self._database.execute(
            "INSERT OR REPLACE INTO form_records VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, NULL, ?11,"
            " max(?12, coalesce((SELECT changed_ms FROM form_records WHERE instance_id = ?1), 0)))",
            (*row, record.read_at, as_of_ms, due_ms, record.deleted, changed_ms),
        )

    def confirm(self, instance_id: str, *, changed_ms: int, as_of_ms: int, due_ms: int) -> None:
        """The values are the same at this time."""
        self._database.execute(
            "UPDATE form_records SET changed_ms = max(changed_ms, ?), as_of_ms = ?, due_ms = ?, absent_ms = NULL"
            " WHERE instance_id = ?",
            (changed_ms, as_of_ms, due_ms, instance_id),
        )

    def _changed(self, instance_id: str, changed_ms: int) -> None:
        later = "UPDATE form_records SET changed_ms = ?1 WHERE instance_id = ?2 AND changed_ms < ?1"
        self._database.execute(later, (changed_ms, instance_id))

    def postpone(self, ids: Iterable[str], *, due_ms: int, absent_ms: int | None = None) -> None:
        """Check these then; ``absent_ms``: since when DingTalk says that they do not exist."""
        self._database.executemany(
            "UPDATE form_records SET due_ms = ?, absent_ms = ? WHERE instance_id = ?",
            [(due_ms, absent_ms, each) for each in ids],
        )

    def check_all(self, corp_id: str, app_type: str, form_uuid: str, *, now_ms: int) -> None:
        """Read all instances of the form again."""
        self._database.execute(
            "UPDATE form_records SET due_ms = ? WHERE (corp_id, app_type, form_uuid) = (?, ?, ?) AND is_deleted = 0",
            (now_ms, corp_id, app_type, form_uuid),
        )

    def lately_read(self, target: Target, form_uuid: str, *, most: int) -> list[str]:
        """Instances of the form that were not absent, the last ones first that were read."""
        return self._firsts(
            "SELECT instance_id FROM form_records WHERE (corp_id, app_type, ordinary) = (?, ?, ?) AND is_deleted = 0"
            " AND form_uuid = ? AND absent_ms IS NULL ORDER BY due_ms DESC LIMIT ?",
            (*target, form_uuid, most),
        )

    def is_visible(self, target: Target, form_uuid: str, *, since_ms: int, due_ms: int) -> bool:
        """Whether the values of an instance of the form were read since that time, so that its check is due later."""
        found = self._first(
            "SELECT 1 FROM form_records WHERE (corp_id, app_type, ordinary) = (?, ?, ?) AND is_deleted = 0"
            " AND due_ms >= ? AND form_uuid = ? AND as_of_ms >= ? LIMIT 1",
            (*target, due_ms, form_uuid, since_ms),
        )
        return found is not None

    def to_check(self, target: Target, *, now_ms: int, most: int) -> list[str]:
        """Instances that were not read for long, or are to be looked up again."""
        return self._firsts(
            "SELECT instance_id FROM form_records WHERE (corp_id, app_type, ordinary) = (?, ?, ?) AND is_deleted = 0"
            " AND due_ms <= ? ORDER BY due_ms LIMIT ?",
            (*target, now_ms, most),
        )

    def expired(self, apps: Iterable[App], *, now_ms: int, most: int) -> list[str]:
        """Some instances that were deleted long ago, or did not change for the days that the apps file states."""
        found = self._firsts(
            "SELECT instance_id FROM form_records WHERE is_deleted AND due_ms <= ? ORDER BY due_ms LIMIT ?",
            (now_ms, most),
        )
        its_next = "SELECT min(form_uuid) FROM form_records WHERE (corp_id, app_type) = (?, ?) AND is_deleted = 0"
        for app in apps:
            form_uuid, key = "", (app.corp_id, app.app_type)
            while app.keep_days and (form_uuid := self._first(f"{its_next} AND form_uuid > ?", (*key, form_uuid))):
                found += self._firsts(
                    "SELECT instance_id FROM form_records WHERE (corp_id, app_type, form_uuid) = (?, ?, ?)"
                    " AND is_deleted = 0 AND changed_ms < ? LIMIT ?",
                    (*key, form_uuid, app.kept_since(form_uuid, now_ms=now_ms), most),
                )
        return found[:most]

    def delete(self, ids: Iterable[str]) -> None:
        self._database.executemany("DELETE FROM form_records WHERE instance_id = ?", [(each,) for each in ids])

    def schedule(
        self,
        instance_id: str,
        target: Target,
        *,
        changed_ms: int,
        due_ms: int,
        event_id: str | None = None,
        is_late: bool = False,
    ) -> None:
        """Read an instance that changed at ``changed_ms``: at ``due_ms``, or sooner if it waits already.

        ``is_late``: the change was long ago, so the first reading has it.
        """
        self._changed(instance_id, changed_ms)
        self._database.execute(
            "INSERT INTO form_reads VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO UPDATE SET"
            " event_id = CASE WHEN ?6 >= changed_ms THEN ?5 ELSE event_id END, changed_ms = max(changed_ms, ?6),"
            " due_ms = min(due_ms, ?7), is_second = min(is_second, ?8)",
            (instance_id, *target, event_id, changed_ms, due_ms, is_late),
        )

    def schedule_changed(self, app: App, rows: Sequence[wire.Instance], *, now_ms: int) -> None:
        """Read the listed instances of processes that changed after they were read."""
        target = Target(app.corp_id, app.app_type)
        with self.transaction():
            for row in rows:
                if not self.is_read(row, now_ms=now_ms):
                    modified = span_of(row.modified_time)
                    changed_ms = now_ms if modified is None else modified.first
                    late = is_late(changed_ms, now_ms=now_ms)
                    its_id = row.process_instance_id
                    self.schedule(its_id, target, changed_ms=changed_ms, due_ms=now_ms, is_late=late)

    def is_read(self, row: wire.Instance, *, now_ms: int) -> bool:
        """Whether the listed instance did not change after its values were read; stores when it changed."""
        known, modified = self.find(row.process_instance_id, now_ms=now_ms), span_of(row.modified_time)
        if modified is not None:
            self._changed(row.process_instance_id, modified.first)
        return known is not None and modified is not None and modified.end + AHEAD_MS <= known.as_of_ms

    def due(self, target: Target, *, now_ms: int, most: int) -> list[Due]:
        """Instances to read now, those of the newest changes first."""
        rows = self._database.execute(
            "SELECT instance_id, event_id, changed_ms, is_second FROM form_reads"
            " WHERE (corp_id, app_type, ordinary) = (?, ?, ?) AND due_ms <= ? ORDER BY changed_ms DESC LIMIT ?",
            (*target, now_ms, most),
        )
        return [Due(*row) for row in rows.fetchall()]

    def was_read(self, due: Due, *, now_ms: int) -> None:
        """Read it once more later, or never, if that was the second time; unless it changed meanwhile, or is held."""
        its = {"id": due.instance_id, "changed": due.changed_ms, "now": now_ms, "next": now_ms + SECOND_MS}
        self._database.execute(
            "DELETE FROM form_reads WHERE instance_id = :id AND changed_ms = :changed AND due_ms <= :now"
            if due.is_second
            else "UPDATE form_reads SET due_ms = :next, is_second = 1"
            " WHERE instance_id = :id AND changed_ms = :changed AND due_ms <= :now",
            its,
        )

    def hold(self, held: Mapping[str, tuple[int, int]], target: Target) -> None:
        """Read each of these, with the time of its change, then, and not before: it cannot be published now."""
        self._database.executemany(
            "INSERT INTO form_reads VALUES (?, ?, ?, ?, NULL, ?, ?, 0)"
            " ON CONFLICT DO UPDATE SET due_ms = excluded.due_ms",
            [(each, *target, *times) for each, times in held.items()],
        )

    def forget(self, instance_id: str) -> None:
        """Do not read this instance: it was deleted."""
        self._database.execute("DELETE FROM form_reads WHERE instance_id = ?", (instance_id,))

    def forget_others(self, targets: Collection[Target]) -> None:
        """Read no instances of apps and forms that the apps file does not name any more."""
        rows = self._database.execute("SELECT DISTINCT corp_id, app_type, ordinary FROM form_reads").fetchall()
        for each in {Target(*row) for row in rows} - {*targets}:
            self._database.execute("DELETE FROM form_reads WHERE (corp_id, app_type, ordinary) = (?, ?, ?)", each)

    def add_fields(self, corp_id: str, form_uuid: str, fields: set[str]) -> bool:
        """Return whether one of these fields is new for the form."""
        found = self._first("SELECT fields FROM form_fields WHERE (corp_id, form_uuid) = (?, ?)", (corp_id, form_uuid))
        known = set[str]() if found is None else msgspec.msgpack.decode(found, type=set[str])
        if found is not None and fields <= known:
            return False
        self._database.execute(
            "INSERT OR REPLACE INTO form_fields VALUES (?, ?, ?)",
            (corp_id, form_uuid, msgspec.msgpack.encode(known | fields)),
        )
        return True

    def defined(self, corp_id: str, app_type: str, form_uuid: str) -> Defined | None:
        row = self._database.execute(
            "SELECT definition, due_ms, unknown FROM form_definitions WHERE (corp_id, app_type, form_uuid) = (?, ?, ?)",
            (corp_id, app_type, form_uuid),
        ).fetchone()
        decode = msgspec.msgpack.decode
        return row and Defined(decode(row[0], type=Definition), row[1], decode(row[2], type=set[str]))

    def define(self, corp_id: str, app_type: str, form_uuid: str, found: Defined) -> None:
        row = found.due_ms, *map(msgspec.msgpack.encode, (found.definition, found.unknown))
        self._database.execute(
            "INSERT OR REPLACE INTO form_definitions VALUES (?, ?, ?, ?, ?, ?)", (corp_id, app_type, form_uuid, *row)
        )

    def to_define(self, corp_id: str, app_type: str, *, now_ms: int) -> list[str]:
        """The forms to define again whose definition lacks fields."""
        return self._firsts(
            "SELECT form_uuid FROM form_definitions"
            " WHERE (corp_id, app_type) = (?, ?) AND due_ms <= ? AND unknown != ?",
            (corp_id, app_type, now_ms, msgspec.msgpack.encode(())),
        )

    def scan(self, corp_id: str, app_type: str, form_uuid: str) -> Scan | None:
        query = "SELECT scan FROM form_scans WHERE (corp_id, app_type, form_uuid) = (?, ?, ?)"
        found = self._first(query, (corp_id, app_type, form_uuid))
        return found and msgspec.msgpack.decode(found, type=Scan)

    def save_scan(self, corp_id: str, app_type: str, form_uuid: str, scan: Scan) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO form_scans VALUES (?, ?, ?, ?)",
            (corp_id, app_type, form_uuid, msgspec.msgpack.encode(scan)),
        )

    def end_scan(self, corp_id: str, app_type: str, form_uuid: str) -> None:
        its = corp_id, app_type, form_uuid
        self._database.execute("DELETE FROM form_scans WHERE (corp_id, app_type, form_uuid) = (?, ?, ?)", its)

    def positions(self, topic: str) -> dict[int, int]:
        return dict(
            self._database.execute("SELECT partition, offset FROM form_positions WHERE topic = ?", (topic,)).fetchall()
        )

    def save_positions(self, topic: str, positions: Mapping[int, int]) -> None:
        self._database.executemany(
            "INSERT OR REPLACE INTO form_positions VALUES (?, ?, ?)", [(topic, *each) for each in positions.items()]
        )

    def clear(self, topic: str, *, records: bool) -> None:
        """The topic was recreated: its positions, and with ``records`` what was known to be on it, mean nothing."""
        self._database.execute("DELETE FROM form_positions WHERE topic = ?", (topic,))
        if records:
            self._database.execute("DELETE FROM form_records")
            self._database.execute("DELETE FROM form_scans")

    def waiting(self) -> list[tuple[str, int]]:
        """By corp, how many instances wait to be read."""
        return self._database.execute("SELECT corp_id, count(*) FROM form_reads GROUP BY 1 ORDER BY 1").fetchall()


def is_late(changed_ms: int, *, now_ms: int) -> bool:
    return changed_ms + _LATE_MS < now_ms


def digest_of(record: FormData) -> bytes:
    """Of what a reader sees change."""
    seen = [record.form_uuid, sorted(record.data.items()), record.deleted]
    return hashlib.sha256(msgspec.msgpack.encode(seen)).digest()
