"""Histories, from the events; rejected requests and dead letters, for the operator; and the deletion of old rows."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, case, delete, func, select

from taskbridge.center.tables import DEAD_LETTER, QUARANTINED, Person, changes, events, instances, set_aside
from taskbridge.runtime.database import Database, Upsert, clean
from taskbridge.runtime.follow.batch import FollowedTopic, Record, key_of
from taskbridge.runtime.follow.positions import epoch_if_filled, is_filled
from taskbridge.runtime.follow.tables import skipped
from taskbridge.schemas.codec import quarantined_callback_codec, task_event_head_codec
from taskbridge.schemas.dead_letters import dead_letter_of, replay_of
from taskbridge.schemas.json_forms import quarantined_json, to_json
from taskbridge.schemas.topics import CALLBACKS_QUARANTINE, REPLAYED_DAYS, TASK_EVENTS, TASK_EVENTS_DLQ, TASK_STATES

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from confluent_kafka import Message

    from taskbridge.schemas.events import QuarantinedCallback, TaskEvent
    from taskbridge.schemas.registry import Registry

_DAY_MS = 24 * 60 * 60 * 1000
_REPLAYED_MS, _QUARANTINE_MS = REPLAYED_DAYS * _DAY_MS, int(CALLBACKS_QUARANTINE.settings["retention.ms"])
_CHANGES_DAYS = 2
_ORPHANS_PART = 5_000
"""Of events, for each of which a purge looks for its instance in one transaction."""
_SEARCH_CHARACTERS = 64 << 10
_PUT_EVENTS = Upsert(events, only_new=True)
_ENTRY = ("kind", "entry_id", "at", "reason", "search", "summary", "replayed_at")


class Events(FollowedTopic):
    topic, make_codec = TASK_EVENTS, partial(task_event_head_codec, with_form=True)

    def __init__(self, database: Database, registry: Registry) -> None:
        super().__init__(database, registry)
        self._epoch, self._purged_until = "", 0
        """Events received before were purged, of the lists of this epoch."""

    def read(self, message: Message) -> tuple[str, TaskEvent]:
        return key_of(message), self.codec.decode(message.value())

    def write(self, connection: Connection, records: Sequence[Record]) -> Collection[Person]:
        rows = {(row[0], row[1]): row for row in map(_event, reversed(records))}
        self.database.put(connection, _PUT_EVENTS, [row for _, row in sorted(rows.items())])
        self._purged_until = min([self._purged_until, *(each.value.received_at for each in records)])
        return ()

    def purge(self, now_ms: int, /) -> int:
        """Look for instances of events that have become old; of all old ones at first, and in lists read again."""
        with self.database.read() as connection:
            epoch = epoch_if_filled(connection, TASK_STATES.name)
        count = purge(self.database, now_ms=now_ms, since=self._purged_until if epoch == self._epoch else 0)
        if epoch is not None:
            self._epoch, self._purged_until = epoch, now_ms - _REPLAYED_MS
        return count


def _event(record: Record) -> tuple[Any, ...]:
    event: TaskEvent = record.value
    return (
        clean(event.instance_id),
        event.event_id,
        clean(event.corp_id),
        event.action.value,
        event.occurred_at,
        event.received_at,
        record.partition,
        record.offset,
        to_json(event),
    )


class _SetAside(FollowedTopic):
    """Entries, and notes of their replay, which are records of the same topic."""

    kind: str

    def __init__(self, database: Database, registry: Registry) -> None:
        super().__init__(database, registry)
        put = database.insert(set_aside)
        # The record of a replay may come before its entry: it waits in a row without a reason. The first replay counts.
        is_replay = put.excluded.reason == ""
        changes: dict[str, Any] = {
            each: case((is_replay, set_aside.c[each]), else_=put.excluded[each]) for each in _ENTRY[2:6]
        }
        changes["replayed_at"] = func.coalesce(set_aside.c.replayed_at, put.excluded.replayed_at)
        self._put = put.on_conflict_do_update(index_elements=["kind", "entry_id"], set_=changes)

    def read(self, message: Message) -> tuple[str, dict[str, Any]]:
        replay = replay_of(message)
        if replay is None:
            row = (self.kind, *self.entry_of(message), None)
        else:
            row = (self.kind, clean(replay.entry_id), message.timestamp()[1], "", "", b"", clean(replay.at))
        return row[1], dict(zip(_ENTRY, row, strict=True))

    def entry_of(self, message: Message) -> tuple[str, int, str, str, bytes]:
        """Id, time, reason, text to search, and summary."""
        raise NotImplementedError

    def write(self, connection: Connection, records: Sequence[Record]) -> Collection[Person]:
        # By their ids, as all locks are.
        connection.execute(self._put, [each.value for each in sorted(records, key=lambda each: each.key)])
        return ()


class Quarantine(_SetAside):
    topic, kind, make_codec = CALLBACKS_QUARANTINE, QUARANTINED, quarantined_callback_codec

    def entry_of(self, message: Message) -> tuple[str, int, str, str, bytes]:
        entry: QuarantinedCallback = self.codec.decode(message.value())
        text = f"{entry.query}\n{entry.body.decode('utf-8', 'replace')}"[:_SEARCH_CHARACTERS]
        summary = to_json({**quarantined_json(entry), "detail": f"{entry.method} {entry.path}"})
        return (clean(entry.quarantine_id), entry.received_at, clean(entry.reason), clean(text), summary)


class DeadLetters(_SetAside):
    """Ids of entries are positions: those of a recreated topic begin again, so its partition's rows go."""

    topic, kind = TASK_EVENTS_DLQ, DEAD_LETTER

    @staticmethod
    def make_codec(_registry: Registry) -> None:
        """None: they are of any bytes."""

    def entry_of(self, message: Message) -> tuple[str, int, str, str, bytes]:
        letter = dead_letter_of(message)
        key = "" if letter.key is None else letter.key.decode("utf-8", "replace")
        summary = {
            "id": letter.id,
            "at": letter.parked_at,
            "reason": letter.reason,
            "detail": letter.detail,
            "partition": letter.partition,
            "offset": letter.offset,
            "key": None if letter.key is None else key,
            "replayed_at": None,
        }
        return (letter.id, letter.at_ms, clean(letter.reason or "unknown"), clean(key), to_json(summary))

    def drop(self, connection: Connection, partition: int, /) -> None:
        mine = set_aside.c.kind == DEAD_LETTER, set_aside.c.entry_id.startswith(f"{partition}-", autoescape=True)
        connection.execute(delete(set_aside).where(*mine))


def purge(database: Database, *, now_ms: int, since: int = 0) -> int:
    """Delete what is too old, and events of instances that are no longer there; returns how many rows.

    Of events, those received since then: an instance that is deleted later takes its old events with it.
    """
    old = (
        (changes, changes.c.at < now_ms - _CHANGES_DAYS * _DAY_MS),
        (set_aside, (set_aside.c.kind == QUARANTINED) & (set_aside.c.at < now_ms - _QUARANTINE_MS)),
        (set_aside, (set_aside.c.kind == DEAD_LETTER) & (set_aside.c.at < now_ms - _REPLAYED_MS)),
        (skipped, skipped.c.at < now_ms - _REPLAYED_MS),
    )
    orphans = _purge_orphans(database, since, now_ms - _REPLAYED_MS)
    return orphans + sum(database.purge(table, where) for table, where in old)


def _purge_orphans(database: Database, since: int, until: int) -> int:
    """In parts, by an index: one statement about all events would hold the writer of SQLite for seconds."""
    is_there = select(instances).where(instances.c.instance_id == events.c.instance_id).exists()
    # While states are missing, so are instances.
    is_orphan = ~is_there & is_filled(TASK_STATES.name)
    at, total = events.c.received_at, 0
    while since <= until:
        part = select(at).where(at.between(since, until)).order_by(at).offset(_ORPHANS_PART).limit(1)
        with database.read() as connection:
            end = connection.execute(part).scalar() or until
        total += database.purge(events, at.between(since, end) & is_orphan)
        since = end + 1
    return total
