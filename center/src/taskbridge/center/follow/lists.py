"""Instances, everybody's entries and their changes, from the states; people and forms.

The rows of an instance are compared with the views of its state, so that states may come again, and in any order of
partitions: what differs is written, and numbered as a change of its person.
"""

from __future__ import annotations

from collections import Counter
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec.structs import replace
from sqlalchemy import Connection, Table, bindparam, delete, select, text

from taskbridge.center.search import person_text, search_text
from taskbridge.center.tables import (
    CHANGES_CHANNEL,
    EMPLOYEE_NUMBER,
    LIST_INDEXES,
    NAME_CHARACTERS,
    NEVER_DUE,
    VIEW_CODES,
    WHOLE_INSTANCE,
    change_counters,
    changes,
    entries,
    events,
    forms,
    instances,
    metadata,
    people,
    person_ids,
    read_entry,
)
from taskbridge.runtime.database import Database, Upsert, clean, now_ms
from taskbridge.runtime.follow.batch import FollowedTopic, Record, key_of
from taskbridge.runtime.follow.positions import progress, renew_epoch
from taskbridge.schemas.cloudevents import headers_of, text_of
from taskbridge.schemas.codec import Undecodable, form_codec, person_codec, task_state_codec
from taskbridge.schemas.events import MAX_NAME_CHARACTERS, Change, Lifecycle, View, state_id_for
from taskbridge.schemas.json_forms import notification_json, to_json
from taskbridge.schemas.topics import FORMS, PEOPLE, REPLAYED_DAYS, TASK_STATES
from taskbridge.schemas.views import Entries, Entry, EntryKey, notification_of, views

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from confluent_kafka import Message

    from taskbridge.center.tables import Person
    from taskbridge.schemas.events import Form, PersonRecord, TaskNotification, TaskState
    from taskbridge.schemas.registry import Registry


_SEARCH_CHARACTERS, _SEARCH_BYTES, _KEYS_BYTES = 600, 2000, 640
"""Of ``entries.search``, and of the ids next to it: they must fit into a row of PostgreSQL's index, 2,704 bytes."""
_VIEWS = {code: view for view, code in VIEW_CODES.items()}

_NOTIFY = text("SELECT pg_notify(:channel, each) FROM unnest(CAST(:payloads AS text[])) AS each")
_PAGE_INDEX_LOCK = 0x70616765
_PUT_INSTANCES = Upsert(instances, ["instance_id", "partition", "corp_id", "state"], key=["instance_id"])
_PUT_ENTRIES, _PUT_CHANGES = Upsert(entries), Upsert(changes)
_ENTRIES = ("number", "corp_id", "user_id", "view", "task_id", "search", "item")
_DELETE_ENTRY = delete(entries).where(entries.c.instance == bindparam("its"), entries.c.number == bindparam("gone"))


class _Key(NamedTuple):
    """Of an entry, among those of its instance."""

    corp_id: str
    user_id: str
    view: int
    task_id: str


_Stored = dict[str, tuple[int, dict[_Key, Any]]]
"""Of each instance: its number, and the rows of its entries."""


class _Changed(NamedTuple):
    """One change of one entry: ``entry`` is the new one, or the one that was there."""

    record: Record
    key: _Key
    change: Change
    entry: Entry


class States(FollowedTopic):
    topic, make_codec = TASK_STATES, task_state_codec

    def __init__(self, database: Database, registry: Registry) -> None:
        super().__init__(database, registry)
        among_instances = database.among(instances.c.instance_id)
        self._lock = select(instances.c.id).where(among_instances).order_by(instances.c.instance_id).with_for_update()
        self._stored = (
            select(instances.c.instance_id, instances.c.id, *(entries.c[each] for each in _ENTRIES))
            .join_from(instances, entries, entries.c.instance == instances.c.id, isouter=True)
            .where(among_instances)
        )
        self._delete_instances = delete(instances).where(among_instances)
        is_old = events.c.received_at < bindparam("before")
        self._delete_old_events = delete(events).where(database.among(events.c.instance_id), is_old)
        put = database.insert(change_counters)
        last_seq = change_counters.c.last_seq + put.excluded.last_seq
        self._count = put.on_conflict_do_update(
            index_elements=["corp_id", "user_id"], set_={"last_seq": last_seq}
        ).returning(change_counters)

    def read(self, message: Message) -> tuple[str, TaskState | None]:
        value, key = message.value(), key_of(message)
        state: TaskState | None = None if value is None else self.codec.decode(value)
        if state is not None and clean(state.instance_id) != key:
            raise Undecodable("it is about another instance than its key")
        return key, None if state is None or state.lifecycle is Lifecycle.DELETED else state

    def write(self, connection: Connection, records: Sequence[Record]) -> Collection[Person]:
        latest = {each.key: each for each in records}
        changed = self._put_entries(connection, latest, self._put_instances(connection, latest))
        # Changes of a partition that is being filled are not published.
        return self._publish(connection, [each for each in changed if each.record.assigned.is_complete])

    def drop(self, connection: Connection, partition: int, /) -> None:
        dropped = select(instances.c.id).where(instances.c.partition == partition)
        connection.execute(delete(entries).where(entries.c.instance.in_(dropped)))
        connection.execute(delete(instances).where(instances.c.partition == partition))
        renew_epoch(connection)

    def adapt(self, connection: Connection, /) -> None:
        """Drop the indexes of lists while an empty table is filled, and create them when lists are complete.

        To fill that of pages row by row takes a third of the time of a filling, and nobody reads pages before the end.
        """
        # Of two replicas that end with their shares at once, the second one must see the share of the first.
        self.database.lock(connection, _PAGE_INDEX_LOCK)
        if progress(connection, self.topic.name).complete:
            for index in LIST_INDEXES:
                index.create(connection, checkfirst=True)
            # PostgreSQL would do so some minutes later, SQLite never.
            self.database.analyze(connection, metadata.sorted_tables)
        elif connection.execute(select(entries.c.instance).limit(1)).first() is None:
            for index in LIST_INDEXES:
                index.drop(connection, checkfirst=True)

    def purge(self, now_ms: int, /) -> int:  # noqa: ARG002 - nothing is too old
        """Delete nothing; update the planner's statistics, which age as rows do."""
        for each in metadata.sorted_tables:  # alone, so that nothing waits for the lock of another table
            with self.database.write() as connection:
                self.database.analyze(connection, [each])
        return 0

    def _put_instances(self, connection: Connection, records: Mapping[str, Record]) -> _Stored:
        """The entries of those whose rows this changes: not of tombstones of instances that are not there.

        A row is locked before its entries are read, so that they are compared by one replica at a time.
        """
        new = [_instance(each) for _, each in sorted(records.items()) if each.value is not None]
        self.database.put(connection, _PUT_INSTANCES, new)
        gone = [key for key, each in records.items() if each.value is None]
        if gone:
            connection.execute(self._lock, self.database.keys(gone))
        found: _Stored = {}
        for row in connection.execute(self._stored, self.database.keys(records)):
            _, old = found.setdefault(row.instance_id, (row.id, {}))
            if row.number is not None:
                old[_Key(row.corp_id, row.user_id, row.view, row.task_id)] = row
        if deleted := [key for key in gone if key in found]:
            keys = self.database.keys(deleted)
            connection.execute(self._delete_instances, keys)
            # The later ones when they are as old: see records.purge.
            before = now_ms() - REPLAYED_DAYS * 86_400_000
            connection.execute(self._delete_old_events, {**keys, "before": before})
        return found

    def _put_entries(self, connection: Connection, records: Mapping[str, Record], before: _Stored) -> list[_Changed]:
        gone: list[dict[str, int]] = []
        put: list[tuple[object, ...]] = []
        changed: list[_Changed] = []
        for instance_id, record in records.items():
            if instance_id not in before:
                continue
            instance, old = before[instance_id]
            taken = {row.number for row in old.values()}
            free = (each for each in count() if each not in taken)
            new = _entries(record.value)
            search = "" if record.value is None else _search(record.value)
            for key, row in old.items():
                if key not in new:
                    gone.append({"its": instance, "gone": row.number})
                    changed.append(_Changed(record, key, Change.REMOVED, read_entry(row.item)))
            for key, entry in new.items():
                item = to_json(entry)
                if (row := old.get(key)) is None:
                    changed.append(_Changed(record, key, Change.ADDED, entry))
                elif row.item != item:
                    changed.append(_Changed(record, key, Change.UPDATED, entry))
                elif row.search == search:
                    continue
                number = next(free) if row is None else row.number
                put.append((instance, number, *_row(instance_id, key, entry, search, item)))
        if gone:
            connection.execute(_DELETE_ENTRY, gone)
        # By their numbers, so that new ones are appended.
        self.database.put(connection, _PUT_ENTRIES, sorted(put))
        return changed

    def _publish(self, connection: Connection, changed: Sequence[_Changed]) -> Collection[Person]:
        """Number the changes of each person, and write them."""
        if not changed:
            return ()
        counts = Counter((each.key.corp_id, each.key.user_id) for each in changed)
        # Sorted, as all locks are: two replicas wait for each other in one direction only.
        added = [
            {"corp_id": corp_id, "user_id": user_id, "last_seq": n} for (corp_id, user_id), n in sorted(counts.items())
        ]
        counted = connection.execute(self._count, added)
        last = {(row.corp_id, row.user_id): row.last_seq - counts[row.corp_id, row.user_id] for row in counted}
        rows: list[tuple[object, ...]] = []
        for each in changed:
            person = each.key.corp_id, each.key.user_id
            last[person] += 1
            data = to_json(notification_json(_notification(each)))
            rows.append((*person, last[person], each.record.at, each.record.key, _unnamed(each.entry), data))
        self.database.put(connection, _PUT_CHANGES, rows)
        if not self.database.is_sqlite:
            # To wake other replicas, when this transaction is committed.
            payloads = [msgspec.json.encode([each]).decode() for each in counts]
            connection.execute(_NOTIFY, {"channel": CHANGES_CHANNEL, "payloads": payloads})
        return counts.keys()


def _instance(record: Record) -> tuple[object, ...]:
    state: TaskState = record.value
    return (record.key, record.partition, clean(state.corp_id), to_json(state))


def shown_views(state: TaskState) -> Entries:
    """The views of an instance, as lists show them: a task that is pending although its instance has ended says so.

    Its callback was lost or comes later. Like an entry of the whole instance, it has the end and the result; it is not
    due any more.
    """
    found = views(state)
    if state.finished_at is not None:
        for key, entry in found.items():
            if key.view is View.PENDING:
                found[key] = replace(entry, finished_at=state.finished_at, result=state.result, due_at=None)
    return found


def due_column(view: View, entry: Entry) -> int | None:
    if view is not View.PENDING:
        return None
    return entry.due_at if entry.finished_at is None else NEVER_DUE


def _entries(state: TaskState | None) -> dict[_Key, Entry]:
    if state is None:
        return {}
    corp_id = clean(state.corp_id)
    found = {
        _Key(corp_id, clean(key.user_id), VIEW_CODES[key.view], clean(key.task_id or WHOLE_INSTANCE)): entry
        for key, entry in shown_views(state).items()
    }
    originator = "" if state.originator is None else state.originator.user_id
    for key in found:
        # While lists are filled no index refuses it, and it would keep the index from being created at their end.
        if len(f"{corp_id}{key.user_id}{state.instance_id}{key.task_id}{originator}".encode()) > _KEYS_BYTES:
            raise ValueError(f"the ids of an entry have more than {_KEYS_BYTES} bytes")
    return found


def _search(state: TaskState) -> str:
    name = None if state.originator is None else state.originator.name
    text = search_text(state.title, state.process_name, name, state.serial_no)[:_SEARCH_CHARACTERS]
    return text if len(text) * 3 <= _SEARCH_BYTES else text.encode()[:_SEARCH_BYTES].decode(errors="ignore")


def _row(instance_id: str, key: _Key, entry: Entry, search: str, item: bytes) -> tuple[object, ...]:
    """In the order of the columns, without the numbers."""
    return (
        key.corp_id,
        key.user_id,
        key.view,
        entry.entered_at,
        instance_id,
        key.task_id,
        clean(entry.app_type)[:NAME_CHARACTERS],
        clean(entry.source),
        None if entry.process_name is None else clean(entry.process_name)[:NAME_CHARACTERS],
        due_column(_VIEWS[key.view], entry),
        _unnamed(entry),
        search,
        item,
    )


def _unnamed(entry: Entry) -> str | None:
    originator = entry.originator
    return None if originator is None or originator.name is not None else clean(originator.user_id)


def _notification(changed: _Changed) -> TaskNotification:
    record, key, change, entry = changed
    state: TaskState | None = record.value
    cause = _cause(record) if state is None else (state_id_for(state), state.updated_at)
    named = EntryKey(key.user_id, _VIEWS[key.view], key.task_id or None)
    return notification_of(change, named, entry, (key.corp_id, record.key), cause)


def _cause(tombstone: Record) -> tuple[str, int]:
    """The id and the time of the deletion."""
    ids = [text_of(value) for name, value in headers_of(tombstone.message) if name == "ce_id"]
    return (ids[0] if ids and ids[0] else f"{tombstone.partition}-{tombstone.offset}"), tombstone.at


class _Directory(FollowedTopic):
    """A compacted topic whose keys are corp, slash, id."""

    table: Table

    def read(self, message: Message) -> tuple[str, Any]:
        key, value = key_of(message), message.value()
        record = None if value is None else self.codec.decode(value)
        if record is not None:
            self.check(_named(key)[1], record)
        return key, record

    def check(self, its_id: str, value: Any) -> None:
        """Raise Undecodable if the record is about something else than its key, or too large."""
        raise NotImplementedError

    def put(self, connection: Connection, records: Sequence[Record]) -> None:
        raise NotImplementedError

    def write(self, connection: Connection, records: Sequence[Record]) -> Collection[Person]:
        corp, its_id = self.table.primary_key.columns
        latest = {each.key: each for each in records}
        for each in latest.values():
            if each.value is None:
                corp_id, value = _named(each.key)
                where = corp == corp_id, its_id == value, self.table.c.partition == each.partition
                connection.execute(delete(self.table).where(*where))
        self.put(connection, [each for _, each in sorted(latest.items()) if each.value is not None])
        return ()

    def drop(self, connection: Connection, partition: int, /) -> None:
        connection.execute(delete(self.table).where(self.table.c.partition == partition))


_PUT_PEOPLE, _PUT_FORMS, _PUT_IDS = Upsert(people), Upsert(forms), Upsert(person_ids, only_new=True)
_DELETE_IDS = delete(person_ids).where(
    person_ids.c.corp_id == bindparam("corp"), person_ids.c.user_id == bindparam("user")
)


class People(_Directory):
    topic, make_codec, table = PEOPLE, person_codec, people

    def check(self, its_id: str, value: PersonRecord) -> None:
        _check("person", its_id, value.user_id, (value.name or "",))

    def put(self, connection: Connection, records: Sequence[Record]) -> None:
        rows: list[tuple[object, ...]] = []
        ids: dict[tuple[str, ...], None] = {}
        for each in records:
            corp_id, user_id = _named(each.key)
            person: PersonRecord = each.value
            name = None if person.name is None else clean(person.name)
            department = clean((person.department or "")[:MAX_NAME_CHARACTERS]) or None
            rows.append((corp_id, user_id, each.partition, name, department, person_text(name, user_id, department)))
            for kind, value in ((EMPLOYEE_NUMBER, person.employee_number), *person.other_ids.items()):
                if value and max(len(value), len(kind)) <= MAX_NAME_CHARACTERS:
                    ids[corp_id, clean(kind), clean(value), user_id] = None
        if rows:
            connection.execute(_DELETE_IDS, [{"corp": row[0], "user": row[1]} for row in rows])
        self.database.put(connection, _PUT_PEOPLE, rows)
        self.database.put(connection, _PUT_IDS, list(ids))


class Forms(_Directory):
    topic, make_codec, table = FORMS, form_codec, forms

    def check(self, its_id: str, value: Form) -> None:
        _check("form", its_id, value.form_uuid, (value.title or "", *value.labels, *value.labels.values()))

    def put(self, connection: Connection, records: Sequence[Record]) -> None:
        rows = [
            (*_named(each.key), each.partition, clean(each.value.title or "") or None, to_json(each.value.labels))
            for each in records
        ]
        self.database.put(connection, _PUT_FORMS, rows)


def _check(kind: str, key_id: str, value_id: str, texts: Iterable[str]) -> None:
    if clean(value_id) != key_id:
        raise Undecodable(f"it is about another {kind} than its key")
    if max(map(len, (value_id, *texts))) > MAX_NAME_CHARACTERS:
        raise Undecodable(f"an id, a name or a label in it has more than {MAX_NAME_CHARACTERS} characters")


def _named(key: str) -> tuple[str, str]:
    """Corp and id: the corp ends at the key's first slash."""
    corp_id, _, its_id = key.partition("/")
    if not corp_id or not its_id:
        raise Undecodable("its key names no corp and no id in it")
    return corp_id, its_id
