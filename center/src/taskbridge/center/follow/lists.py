"""Instances, everybody's entries and their changes, from the states; people and forms.

The rows of an instance are compared with the views of its state, so that states may come again, and in any order of
partitions: what differs is written, and numbered as a change of its person.
"""

from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec.structs import asdict
from sqlalchemy import bindparam, delete, select

from taskbridge.center.api.json_forms import notification_json, to_json
from taskbridge.center.api.search import person_text, search_text
from taskbridge.center.database import Upsert
from taskbridge.center.follow.batch import FollowedTopic, record_of
from taskbridge.center.follow.positions import renew_epoch
from taskbridge.center.tables import (
    EMPLOYEE_NUMBER,
    VIEW_CODES,
    WHOLE_INSTANCE,
    change_counters,
    changes,
    clean,
    entries,
    events,
    forms,
    instances,
    now_ms,
    people,
    person_ids,
)
from taskbridge.schemas.cloudevents import headers_of, text_of
from taskbridge.schemas.codec import Undecodable, form_codec, person_codec, task_state_codec
from taskbridge.schemas.events import (
    MAX_NAME_CHARACTERS,
    Change,
    Lifecycle,
    TaskNotification,
    notification_id_for,
    state_id_for,
)
from taskbridge.schemas.topics import FORMS, PEOPLE, REPLAYED_DAYS, TASK_STATES
from taskbridge.schemas.views import Entry, views

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from confluent_kafka import Message
    from sqlalchemy import Connection, Table

    from taskbridge.center.follow.batch import Record, Writing
    from taskbridge.center.tables import Person
    from taskbridge.schemas.events import Form, PersonRecord, TaskState

read_entry = msgspec.json.Decoder(Entry).decode

_SEARCH_CHARACTERS, _SEARCH_BYTES = 600, 2000
"""Of ``entries.search``: with the keys before it, it must fit into a row of PostgreSQL's index, 2,704 bytes."""
_VIEWS = {code: view for view, code in VIEW_CODES.items()}

_PLACE = ("corp_id", "user_id", "view", "task_id", "instance_id")
_ENTRY_COLUMNS = [each.name for each in entries.columns if each.name != "id"]
_PUT_INSTANCES = Upsert(instances, ["instance_id", "partition", "corp_id", "state"])
_ENTRIES = select(*(entries.c[each] for each in ("id", *_PLACE, "search", "item")))
_PUT_ENTRIES = Upsert(entries, _ENTRY_COLUMNS, key=_PLACE[1:])
_COUNT = Upsert(
    change_counters,
    ["corp_id", "user_id", "last_seq"],
    change={"last_seq": "change_counters.last_seq + excluded.last_seq"},
    returning=["corp_id", "user_id", "last_seq"],
)
_PUT_CHANGES = Upsert(changes, ["corp_id", "user_id", "seq", "at", "instance_id", "data"])


class _Key(NamedTuple):
    """Of an entry, among those of its instance."""

    corp_id: str
    user_id: str
    view: int
    task_id: str


class _Changed(NamedTuple):
    """One change of one entry: ``entry`` is the new one, or the one that was there."""

    record: Record
    key: _Key
    change: Change
    entry: Entry


class States(FollowedTopic):
    topic, make_codec = TASK_STATES, task_state_codec

    def read(self, message: Message) -> Record:
        value = message.value()
        state: TaskState | None = None if value is None else self.codec.decode(value)
        record = record_of(message, state)
        if state is not None:
            if clean(state.instance_id) != record.key:
                raise Undecodable("it is about another instance than its key")
            if state.lifecycle is Lifecycle.DELETED:
                return record._replace(value=None)
        return record

    def write(self, writing: Writing, records: Sequence[Record]) -> Collection[Person]:
        latest = {each.key: each for each in records}
        accepted = self._put_instances(writing.connection, latest)
        changed = self._put_entries(writing.connection, accepted)
        return self._publish(
            writing.connection, [each for each in changed if each.record.partition in writing.complete]
        )

    def drop(self, connection: Connection, partition: int, /) -> None:
        dropped = select(instances.c.instance_id).where(instances.c.partition == partition)
        connection.execute(delete(entries).where(entries.c.instance_id.in_(dropped)))
        connection.execute(delete(instances).where(instances.c.partition == partition))
        renew_epoch(connection)

    def _put_instances(self, connection: Connection, records: Mapping[str, Record]) -> dict[str, Record]:
        """Those whose rows this changes: not tombstones of instances that are not there.

        A row is locked from here on, so that its entries are compared by one replica at a time.
        """
        found = [record for _, record in sorted(records.items()) if record.value is not None]
        self.database.put(connection, _PUT_INSTANCES, [_instance(each) for each in found])
        return {each.key: each for each in found} | self._delete(connection, records.values())

    def _delete(self, connection: Connection, records: Iterable[Record]) -> dict[str, Record]:
        gone = {each.key: each for each in records if each.value is None}
        if not gone:
            return {}
        found = connection.execute(
            select(instances.c.instance_id)
            .where(self.database.among(instances.c.instance_id, gone))
            .order_by(instances.c.instance_id)
            .with_for_update()
        )
        deleted = {key: gone[key] for key in found.scalars()}
        if deleted:
            connection.execute(delete(instances).where(self.database.among(instances.c.instance_id, deleted)))
            # The later ones when they are as old: see records.purge.
            old = events.c.received_at < now_ms() - REPLAYED_DAYS * 86_400_000
            connection.execute(delete(events).where(self.database.among(events.c.instance_id, deleted), old))
        return deleted

    def _put_entries(self, connection: Connection, records: Mapping[str, Record]) -> list[_Changed]:
        before: dict[str, dict[_Key, Any]] = {}
        for row in connection.execute(_ENTRIES.where(self.database.among(entries.c.instance_id, records))):
            before.setdefault(row.instance_id, {})[_Key(row.corp_id, row.user_id, row.view, row.task_id)] = row
        gone: list[int] = []
        put: list[tuple[object, ...]] = []
        changed: list[_Changed] = []
        for instance_id, record in records.items():
            old = before.get(instance_id, {})
            new = _entries(record.value)
            search = "" if record.value is None else _search(record.value)
            for key, row in old.items():
                if key not in new:
                    gone.append(row.id)
                    changed.append(_Changed(record, key, Change.REMOVED, read_entry(row.item)))
            for key, entry in new.items():
                item = to_json(entry)
                if (row := old.get(key)) is None:
                    changed.append(_Changed(record, key, Change.ADDED, entry))
                elif row.item != item:
                    changed.append(_Changed(record, key, Change.UPDATED, entry))
                elif row.search == search:
                    continue
                put.append(_row(instance_id, key, entry, search, item))
        if gone:
            connection.execute(delete(entries).where(entries.c.id.in_(bindparam("ids", expanding=True))), {"ids": gone})
        self.database.put(connection, _PUT_ENTRIES, put)
        return changed

    def _publish(self, connection: Connection, changed: Sequence[_Changed]) -> Collection[Person]:
        """Number the changes of each person, and write them."""
        counts = Counter((each.key.corp_id, each.key.user_id) for each in changed)
        # Sorted, as all locks are: two replicas wait for each other in one direction only.
        counted = self.database.put(connection, _COUNT, [(*person, count) for person, count in sorted(counts.items())])
        last = {(corp_id, user_id): last_seq - counts[corp_id, user_id] for corp_id, user_id, last_seq in counted}
        rows: list[tuple[object, ...]] = []
        for each in changed:
            person = each.key.corp_id, each.key.user_id
            last[person] += 1
            data = to_json(notification_json(_notification(each)))
            rows.append((*person, last[person], each.record.at, each.record.key, data))
        self.database.put(connection, _PUT_CHANGES, rows)
        return counts.keys()


def _instance(record: Record) -> tuple[object, ...]:
    state: TaskState = record.value
    return (record.key, record.partition, clean(state.corp_id), to_json(state))


def _entries(state: TaskState | None) -> dict[_Key, Entry]:
    if state is None:
        return {}
    corp_id = clean(state.corp_id)
    return {
        _Key(corp_id, clean(key.user_id), VIEW_CODES[key.view], clean(key.task_id or WHOLE_INSTANCE)): entry
        for key, entry in views(state).items()
    }


def _search(state: TaskState) -> str:
    name = None if state.originator is None else state.originator.name
    text = search_text(state.title, state.process_name, name, state.serial_no)[:_SEARCH_CHARACTERS]
    return text if len(text) * 3 <= _SEARCH_BYTES else text.encode()[:_SEARCH_BYTES].decode(errors="ignore")


def _row(instance_id: str, key: _Key, entry: Entry, search: str, item: bytes) -> tuple[object, ...]:
    """In the order of ``_ENTRY_COLUMNS``."""
    originator = entry.originator
    return (
        key.corp_id,
        key.user_id,
        key.view,
        entry.entered_at,
        instance_id,
        key.task_id,
        clean(entry.app_type),
        clean(entry.source),
        None if entry.process_name is None else clean(entry.process_name),
        None if originator is None or originator.name is not None else clean(originator.user_id),
        search,
        item,
    )


def _notification(changed: _Changed) -> TaskNotification:
    record, key, change, entry = changed
    state: TaskState | None = record.value
    view, task_id = _VIEWS[key.view], key.task_id or None
    event_id, occurred_at = _cause(record) if state is None else (state_id_for(state), state.updated_at)
    return TaskNotification(
        notification_id=notification_id_for(event_id, key.user_id, view, task_id, change),
        corp_id=key.corp_id,
        recipient_id=key.user_id,
        view=view,
        change=change,
        instance_id=record.key,
        task_id=task_id,
        occurred_at=occurred_at,
        event_id=event_id,
        **asdict(entry),
    )


def _cause(tombstone: Record) -> tuple[str, int]:
    """The id and the time of the deletion."""
    ids = [text_of(value) for name, value in headers_of(tombstone.message) if name == "ce_id"]
    return (ids[0] if ids and ids[0] else f"{tombstone.partition}-{tombstone.offset}"), tombstone.at


class _Directory(FollowedTopic):
    """A compacted topic whose keys are corp, slash, id."""

    table: Table

    def read(self, message: Message) -> Record:
        value = message.value()
        record = record_of(message, None if value is None else self.codec.decode(value))
        if record.value is not None:
            self.check(_named(record.key)[1], record.value)
        return record

    def check(self, its_id: str, value: Any) -> None:
        """Raise Undecodable if the record is about something else than its key, or too large."""
        raise NotImplementedError

    def put(self, connection: Connection, records: Sequence[Record]) -> None:
        raise NotImplementedError

    def write(self, writing: Writing, records: Sequence[Record]) -> Collection[Person]:
        corp, its_id = self.table.primary_key.columns
        latest = {each.key: each for each in records}
        for each in latest.values():
            if each.value is None:
                corp_id, value = _named(each.key)
                where = corp == corp_id, its_id == value, self.table.c.partition == each.partition
                writing.connection.execute(delete(self.table).where(*where))
        self.put(writing.connection, [each for _, each in sorted(latest.items()) if each.value is not None])
        return ()

    def drop(self, connection: Connection, partition: int, /) -> None:
        connection.execute(delete(self.table).where(self.table.c.partition == partition))


_PUT_PEOPLE = Upsert(people, [each.name for each in people.columns])
_PUT_IDS = Upsert(person_ids, [each.name for each in person_ids.columns], only_new=True)
_DELETE_IDS = delete(person_ids).where(
    person_ids.c.corp_id == bindparam("corp"), person_ids.c.user_id == bindparam("user")
)


class People(_Directory):
    topic, make_codec, table = PEOPLE, person_codec, people

    def check(self, its_id: str, value: PersonRecord) -> None:
        if clean(value.user_id) != its_id:
            raise Undecodable("it is about another person than its key")
        if max(len(value.user_id), len(value.name or "")) > MAX_NAME_CHARACTERS:
            raise Undecodable(f"its name or id has more than {MAX_NAME_CHARACTERS} characters")

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


_PUT_FORMS = Upsert(forms, [each.name for each in forms.columns])


class Forms(_Directory):
    topic, make_codec, table = FORMS, form_codec, forms

    def check(self, its_id: str, value: Form) -> None:
        if clean(value.form_uuid) != its_id:
            raise Undecodable("it is about another form than its key")
        if max(map(len, chain((its_id, value.title or ""), value.labels, value.labels.values()))) > MAX_NAME_CHARACTERS:
            raise Undecodable(f"its title, a field or a label has more than {MAX_NAME_CHARACTERS} characters")

    def put(self, connection: Connection, records: Sequence[Record]) -> None:
        rows = [
            (*_named(each.key), each.partition, clean(each.value.title or "") or None, each.value) for each in records
        ]
        self.database.put(connection, _PUT_FORMS, [(*row[:-1], to_json(row[-1].labels)) for row in rows])


def _named(key: str) -> tuple[str, str]:
    """Corp and id: the corp ends at the key's first slash."""
    corp_id, _, its_id = key.partition("/")
    if not corp_id or not its_id:
        raise Undecodable("its key names no corp and no id in it")
    return corp_id, its_id
